package worker

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// The scenarios in testdata are read as documentation; README.md there says what
// the commands are. Run with -rewrite to write what is said now, and read the diff.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			s := &scenario{cfg: config(t)}
			datadriven.RunTest(t, path, s.run)
		})
	}
}

// scenario is one file's world.
type scenario struct {
	*world
	cfg    Config
	wall   schemas.Millis // where not 0, the wall stands here; else it follows the log
	paused bool
}

func (s *scenario) run(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	args := arguments{t: t, values: map[string]string{}}
	for _, a := range d.CmdArgs {
		args.values[a.Key] = strings.Join(a.Vals, " ")
	}
	defer args.unused(d)
	if d.Cmd == "begin" {
		return s.begin(t, args)
	}
	if s.world == nil {
		t.Fatalf("%s: a scenario starts with begin", d.Pos)
	}
	switch d.Cmd {
	case "wall":
		s.wall = args.time("t")
	case "pause":
		s.paused = true
	case "resume":
		s.paused = false
	case "event":
		return s.feed(s.event(args))
	case "events":
		var records []Record
		for line := range strings.Lines(d.Input) {
			_, parsed, err := datadriven.ParseLine("event " + line)
			if err != nil {
				t.Fatalf("%s: %v", d.Pos, err)
			}
			one := arguments{t: t, values: map[string]string{}}
			for _, a := range parsed {
				one.values[a.Key] = strings.Join(a.Vals, " ")
			}
			records = append(records, s.event(one))
			one.unused(d)
		}
		return s.feed(records...)
	case "record":
		return s.feed(s.record(args, d.Input))
	case "control":
		return s.feed(s.add(Record{Control: true}))
	case "tick":
		to := args.time("t")
		return s.tell(s.apply(nil, Conditions{Wall: to + 2*schemas.Second, Tick: to, Paused: s.paused}), s.worker.Stats())
	case "work":
		return s.tell(s.apply(nil, s.at()), s.worker.Stats())
	case "commit":
		s.commit()
	case "snapshot":
		s.snapshot(t, s.at().Wall, 64)
		s.commit()
		return fmt.Sprintf("of %d users, before offset %d", s.worker.Users(), s.committed.Next)
	case "restore":
		return s.restore(t)
	case "crash":
		return s.fall(t, args)
	case "again":
		return s.again()
	case "mark":
		return s.mark()
	case "population":
		return s.people()
	case "explain":
		return s.explain(args.text("user", ""))
	default:
		t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	}
	return ""
}

// begin starts from nothing, with limits where they are given.
func (s *scenario) begin(t *testing.T, args arguments) string {
	s.cfg = config(t)
	s.cfg.Slice = int(args.number("slice", int64(s.cfg.Slice)))
	s.cfg.DedupBudget = int(args.number("budget", int64(s.cfg.DedupBudget)))
	s.wall, s.paused = 0, false
	s.world = newWorld(t, s.cfg, args.number("bootstrap", 0))
	return ""
}

// at is the wall: where it stands, or with the log.
func (s *scenario) at() Conditions {
	c := Conditions{Wall: s.wall, Paused: s.paused}
	if s.wall == 0 {
		c.Wall = s.worker.Mark().Clock
	}
	return c
}

// event makes a record of an event. at is the record's timestamp and t the event's
// own; each is the other where it isn't given.
func (s *scenario) event(args arguments) Record {
	record := args.values["at"]
	if record == "" {
		args.values["at"] = args.values["t"]
	} else if args.values["t"] == "" {
		args.values["t"] = record
	}
	r := Record{Offset: args.number("offset", -1), Time: args.time("at")}
	if lane, ok := schemas.ParseLane(args.text("lane", "live")); ok {
		r.Lane = lane
	}
	user := args.text("user", "ann")
	r.Key = []byte(user)
	r = s.add(r)
	fields := fmt.Sprintf(`"event_id":%q,"type":%q,"user_id":%q,"time":%d`,
		args.text("id", fmt.Sprintf("e%d", r.Offset)), args.text("type", "view"), user, args.time("t"))
	if order := args.text("order", ""); order != "" {
		fields += fmt.Sprintf(`,"order_id":%q`, order)
	}
	if revenue := args.text("revenue", ""); revenue != "" {
		fields += `,"revenue":` + revenue
	}
	if currency := args.text("currency", ""); currency != "" {
		fields += fmt.Sprintf(`,"currency":%q`, currency)
	}
	s.log[len(s.log)-1].Value = []byte("{" + fields + "}")
	return s.log[len(s.log)-1]
}

// record makes one of any bytes; no input is a tombstone.
func (s *scenario) record(args arguments, input string) Record {
	r := Record{Offset: -1, Time: args.time("at")}
	if key, ok := args.values["key"]; ok {
		r.Key = []byte(key)
		args.text("key", "")
	}
	if large := args.number("bytes", 0); large > 0 {
		input = strings.Repeat("x", int(large))
	}
	if input != "" {
		r.Value = []byte(input)
	}
	if quoted := args.text("quoted", ""); quoted != "" {
		value, err := strconv.Unquote(quoted)
		if err != nil {
			args.t.Fatalf("quoted: %v", err)
		}
		r.Value = []byte(value)
	}
	return s.add(r)
}

// add appends a record to the log, at the next offset unless it has one.
func (s *scenario) add(r Record) Record {
	if n := len(s.log); r.Offset <= 0 && n > 0 {
		r.Offset = s.log[n-1].Offset + 1
	}
	r.Offset = max(r.Offset, 0)
	s.log = append(s.log, r)
	return r
}

// feed applies records as one batch. The wall, unless it stands, is where the
// newest of them was written.
func (s *scenario) feed(records ...Record) string {
	at := s.at()
	for _, r := range records {
		if s.wall == 0 {
			at.Wall = max(at.Wall, r.Time)
		}
	}
	before := s.worker.Stats()
	return s.tell(s.apply(records, at), before)
}

// restore reads the worker back from a snapshot of this moment.
func (s *scenario) restore(t *testing.T) string {
	before := s.worker
	s.snapshot(t, s.at().Wall, 64)
	s.commit()
	said := s.crash(t, len(s.snapshots)-1, s.cfg, s.at())
	if s.worker.digest(t, true) != before.digest(t, true) {
		return "not the worker it was:\n" + s.worker.digest(t, true) + "instead of\n" + before.digest(t, true)
	}
	return s.tell(said, s.worker.Stats())
}

// fall crashes and recovers from the last snapshot at the last commit, with other
// rules where a number of them is given.
func (s *scenario) fall(t *testing.T, args arguments) string {
	if rules := args.number("rules", 0); rules > 0 {
		s.cfg.Rules = segment.Lifecycle(uint64(rules))
	}
	said := s.crash(t, len(s.snapshots)-1, s.cfg, s.at())
	return s.tell(said, s.worker.Stats()) + "\n" + s.mark()
}

// again applies what of the log is not applied, as one batch.
func (s *scenario) again() string {
	return s.feed(s.between(s.worker.Mark().Next, 1<<62)...)
}

// tell says what a call had to say, one line an output.
func (s *scenario) tell(items []Item, before Stats) string {
	var b strings.Builder
	for i := range items {
		it := &items[i]
		if d := it.DeadLetter; d != nil {
			fmt.Fprintf(&b, "%d: dead letter of record %d: %s: %s\n", it.N, d.Pos.Offset, d.Reason, d.Detail)
			continue
		}
		s.tellTransition(&b, it)
	}
	if n := s.worker.Stats().Duplicates - before.Duplicates; n > 0 && s.worker.Stats().Duplicates >= before.Duplicates {
		fmt.Fprintf(&b, "duplicates: %d\n", n)
	}
	if s.worker.Pending() {
		b.WriteString("more is due\n")
	}
	if b.Len() == 0 {
		return "nothing"
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (s *scenario) tellTransition(b *strings.Builder, it *Item) {
	t := it.Transition
	name := func(segment uint16) string {
		if segment == schemas.NoSegment {
			return "none"
		}
		return s.cfg.Rules.Names()[t.Set].Segments[segment]
	}
	fmt.Fprintf(b, "%d: %s %d: %s -> %s at %s by ", it.N, t.User, t.Seq, name(t.From), name(t.To), writeTime(t.At))
	switch t.Cause.Kind {
	case schemas.ByEvent:
		fmt.Fprintf(b, "%s %s", t.Cause.Event, t.Cause.ID)
	case schemas.ByTimer:
		b.WriteString("silence")
	case schemas.ByRules, schemas.ByRecovery:
		b.WriteString(t.Cause.Kind.String())
	default:
	}
	if t.Facts.Orders > 0 || t.Facts.Revenue != 0 {
		fmt.Fprintf(b, ", %d orders, %s EUR", t.Facts.Orders, schemas.FormatMinor(t.Facts.Revenue, "EUR"))
	}
	if e := t.Expected; e.To != schemas.NoSegment {
		fmt.Fprintf(b, "; %s at %s", name(e.To), writeTime(e.At))
	}
	if t.Muted != schemas.NotMuted {
		fmt.Fprintf(b, " (muted: %s)", t.Muted)
	}
	b.WriteByte('\n')
}

func (s *scenario) mark() string {
	m := s.worker.Mark()
	return fmt.Sprintf("next %d, n %d, clock %s, fired %s", m.Next, m.N, writeTime(m.Clock), writeTime(m.Fired))
}

func (s *scenario) people() string {
	var parts []string
	for i, n := range s.worker.Population()[0] {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", s.cfg.Rules.Names()[0].Segments[i], n))
		}
	}
	return strings.Join(parts, ", ")
}

func (s *scenario) explain(user string) string {
	ex, ok := s.worker.Explain(user)
	if !ok {
		return "never seen"
	}
	set := ex.Sets[0]
	text := fmt.Sprintf("%s since %s: %s", set.Segment, writeTime(set.Since), set.Rule())
	if set.NextSegment != "" {
		text += fmt.Sprintf("\n%s at %s", set.NextSegment, writeTime(set.NextAt))
	}
	return text
}

// arguments are a command's, read once each.
type arguments struct {
	t      *testing.T
	values map[string]string
}

func (a arguments) text(name, usual string) string {
	v, ok := a.values[name]
	if !ok {
		return usual
	}
	a.values[name] = "\x00" + v
	return strings.TrimPrefix(v, "\x00")
}

func (a arguments) number(name string, usual int64) int64 {
	v, err := strconv.ParseInt(a.text(name, fmt.Sprint(usual)), 10, 64)
	if err != nil {
		a.t.Fatalf("%s: %v", name, err)
	}
	return v
}

// unused fails for an argument that no command read: a misspelt one.
func (a arguments) unused(d *datadriven.TestData) {
	for name, v := range a.values {
		if !strings.HasPrefix(v, "\x00") {
			a.t.Errorf("%s: %s: no argument %q", d.Pos, d.Cmd, name)
		}
	}
}

// timeForm is a moment and spans added to it: 2026-01-01T10:00+90d-1ms.
var timeForm = regexp.MustCompile(`^(\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d{3})?)?)?)((?:[+-]\d+(?:d|h|ms|m|s))*)$`)

// spanForm is one of the spans.
var spanForm = regexp.MustCompile(`([+-]\d+)(d|h|ms|m|s)`)

func (a arguments) time(name string) schemas.Millis {
	text := a.text(name, "")
	m := timeForm.FindStringSubmatch(text)
	if m == nil {
		a.t.Fatalf("%s: no time: %q", name, text)
	}
	moment, err := time.Parse("2006-01-02T15:04:05", (m[1] + "T00:00:00"[min(9, max(0, len(m[1])-10)):])[:max(19, len(m[1]))])
	if err != nil {
		a.t.Fatalf("%s: %v", name, err)
	}
	at := schemas.Millis(moment.UnixMilli())
	units := map[string]schemas.Millis{"d": schemas.Day, "h": schemas.Hour, "m": schemas.Minute, "s": schemas.Second, "ms": 1}
	for _, span := range spanForm.FindAllStringSubmatch(m[2], -1) {
		n, err := strconv.ParseInt(span[1], 10, 64)
		if err != nil {
			a.t.Fatalf("%s: %v", name, err)
		}
		at += schemas.Millis(n) * units[span[2]]
	}
	return at
}

// writeTime writes as little of a moment as says it.
func writeTime(at schemas.Millis) string {
	if at == 0 {
		return "none"
	}
	text := time.UnixMilli(int64(at)).UTC().Format("2006-01-02T15:04:05.000")
	for _, rest := range []string{".000", ":00", "T00:00"} {
		short, ok := strings.CutSuffix(text, rest)
		if !ok {
			break
		}
		text = short
	}
	return text
}
