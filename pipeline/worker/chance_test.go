package worker

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"footfall/pipeline/pipelinetest/naive"
	"footfall/pipeline/pipelinetest/randomrules"
	"footfall/pipeline/segment"
	"footfall/schemas"
)

// chance makes rules by chance, and knows what a naive reading makes of them.
type chance struct {
	t      *testing.T
	rng    *rand.Rand
	g      *randomrules.Rules
	last   *randomrules.Sets
	texts  map[uint64][]string // of rules, by their hash
	sames  map[string]bool     // of pairs of scores
	reads  map[*segment.Program]read
	epochs uint64 // made so far

	past     map[string][]fact // of each user
	held     int               // moments at which everybody was held against the naive reading
	counting schemas.Mark      // the cut of the census under way
}

type read struct {
	rules  *naive.Rules
	scores [][]naive.Score
}

// wanted is how many seeds to run: FOOTFALL_TEST_SEEDS, or 100.
func wanted() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("FOOTFALL_TEST_SEEDS"), 10, 64); err == nil {
		return n
	}
	return 100
}

// fact is an event that counts.
type fact struct {
	offset int64
	event  schemas.Event
}

func newChance(t *testing.T, rng *rand.Rand) *chance {
	g := randomrules.New(rng)
	g.Scores = true
	return &chance{t: t, rng: rng, g: g, texts: map[uint64][]string{}, sames: map[string]bool{}, reads: map[*segment.Program]read{}}
}

var chanceOptions = segment.Options{Contract: 1, Exponent: 2}

// rules are one to three sets of the whole language or, now and then, the last ones with
// one set written anew.
func (c *chance) rules() *segment.Program {
	c.t.Helper()
	for {
		var sets *randomrules.Sets
		if c.last != nil && c.rng.IntN(3) == 0 {
			sets = c.g.Rewrite(c.last)
		} else {
			names := []string{"one", "two", "three"}
			for len(names) > 1 && c.rng.IntN(4) == 0 {
				i := c.rng.IntN(len(names))
				names = slices.Delete(names, i, i+1)
			}
			c.rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
			sets = c.g.Sets(names, []string{"UTC", "Europe/Berlin", "Asia/Kathmandu"}, 3, 2)
		}
		var files []segment.File
		for i, text := range sets.Texts {
			files = append(files, segment.File{Name: sets.Names[i], Text: []byte(text)})
		}
		p, err := segment.Compile(chanceOptions, files...)
		if err == nil {
			c.last, c.texts[p.Hash()] = sets, sets.Texts
			return p
		}
		if !strings.Contains(err.Error(), "nobody") && !strings.Contains(err.Error(), "never hold") {
			c.t.Fatal(err)
		}
	}
}

// epoch gives rules bounds.
func (c *chance) epoch(p *segment.Program) *segment.Program {
	c.epochs++
	e := segment.Epoch{Number: c.epochs}
	for _, score := range p.Scores() {
		most := map[schemas.ValueKind]int64{schemas.SpanValue: int64(60 * schemas.Day), schemas.MoneyValue: 20_000, schemas.NumberValue: 6}[score.Kind]
		from := len(e.Bounds)
		for range score.Scores - 1 {
			e.Bounds = append(e.Bounds, c.rng.Int64N(most))
		}
		slices.Sort(e.Bounds[from:])
	}
	return c.with(p, e)
}

func (c *chance) with(p *segment.Program, e segment.Epoch) *segment.Program {
	c.t.Helper()
	with, err := p.With(e)
	if err != nil {
		c.t.Fatal(err)
	}
	return with
}

// read is the naive reading of rules, with their bounds; scores are what it has for each of
// theirs, in more than one writing it may be.
func (c *chance) read(p *segment.Program) (r *naive.Rules, scores [][]naive.Score) {
	c.t.Helper()
	if known, ok := c.reads[p]; ok {
		return known.rules, known.scores
	}
	defer func() { c.reads[p] = read{r, scores} }()
	r = naive.Read(c.texts[p.Hash()]...)
	for _, s := range r.Scores() {
		i := slices.IndexFunc(scores, func(all []naive.Score) bool { return c.same(all[0], s) })
		if i < 0 {
			i = len(scores)
			scores = append(scores, nil)
		}
		scores[i] = append(scores[i], s)
	}
	if len(scores) != p.Quantiles() {
		c.t.Fatalf("the rules have the scores %v, and are read to have %d", p.Scores(), len(scores))
	}
	bounds := p.Epoch().Bounds
	if p.Epoch().Number > 0 {
		r.Bounds = map[string][]int64{}
	}
	for i, s := range p.Scores() {
		if s.Scores != scores[i][0].N {
			c.t.Fatalf("score %d of the rules is %s, and is read to be %s", i, s.Source, scores[i][0].Text)
		}
		for _, same := range scores[i] {
			if r.Bounds != nil {
				r.Bounds[same.Key] = bounds[:s.Scores-1]
			}
		}
		if r.Bounds != nil {
			bounds = bounds[s.Scores-1:]
		}
	}
	return r, scores
}

// same tells whether the compiler takes two scores for one, as it does last() and last("any").
func (c *chance) same(a, b naive.Score) bool {
	if strings.TrimPrefix(a.Key, a.Text) != strings.TrimPrefix(b.Key, b.Text) || a.N != b.N {
		return false
	}
	both := a.Text + " >= 2 && " + b.Text + " >= 2"
	if _, known := c.sames[both]; !known {
		p, err := segment.Compile(chanceOptions, segment.File{Text: []byte("set: x\nsegments:\n  - name: a\n    when: |\n      " + both + "\n  - {name: b, otherwise: true}\n")})
		if err != nil {
			c.t.Fatal(err)
		}
		c.sames[both] = p.Quantiles() == 1
	}
	return c.sames[both]
}

// know looks through a log for what counts.
func (c *chance) know(l *life) {
	if c.past != nil {
		return
	}
	c.past = map[string][]fact{}
	judged := judged(l.log, l.cfg)
	for _, r := range l.log {
		if _, refused := judged.DeadLetters[r.Offset]; r.Control || refused || judged.Duplicates[r.Offset] {
			continue
		}
		f := fact{offset: r.Offset}
		d, err := schemas.NewDecoder(contract) // whose memory it keeps
		if err == nil {
			err = d.Decode(r.Key, r.Value, &f.event)
		}
		if err != nil {
			c.t.Fatal(err)
		}
		c.past[string(f.event.User)] = append(c.past[string(f.event.User)], f)
	}
}

// did is what a user did, as far as the facts are wanted.
func did(facts []fact, want func(fact) bool) (events []schemas.Event) {
	for _, f := range facts {
		if want(f) {
			events = append(events, f.event)
		}
	}
	return events
}

// hold holds everybody, if the worker is at rest, against the naive reading of the rules; but
// for sets whose history has not been found.
func (c *chance) hold(l *life) {
	c.t.Helper()
	w := l.worker
	if w.Pending() || !w.Filling() && !w.Settled() {
		return
	}
	c.know(l)
	c.held++
	m, rules := w.Mark(), w.Rules()
	r, _ := c.read(rules)
	population := make([]map[string]int, rules.Sets())
	silent := make([]bool, rules.Sets())
	for name, facts := range c.past {
		events := did(facts, func(f fact) bool { return f.offset < m.Next })
		user := w.table.Find([]byte(name))
		if (user >= 0) != (len(events) > 0) {
			c.t.Fatalf("user %s is in row %d, and did %d things", name, user, len(events))
		}
		if user < 0 {
			continue
		}
		for set, want := range r.Segments(events, m.Clock) {
			if want == "" || w.waits(set) {
				silent[set] = true // what was said under other bounds or rules stands
				continue
			}
			got := "none"
			if s := w.member(user, w.place[set]); s.seq > 0 {
				got = w.names[w.place[set]].Segments[s.segment]
			}
			if got != want {
				c.t.Fatalf("at %d, offset %d: user %s is in %q of set %q, and the rules want %q\n%s", m.Clock, m.Next, name, got, rules.Names()[set].Name, want, strings.Join(c.texts[rules.Hash()], "\n"))
			}
			if population[set] == nil {
				population[set] = map[string]int{}
			}
			population[set][want]++
		}
	}
	for set, got := range w.Population() {
		for i, name := range rules.Names()[set].Segments {
			if !silent[set] && got[i] != population[set][name] {
				c.t.Fatalf("at offset %d segment %q of set %q has %d users, want %d", m.Next, name, rules.Names()[set].Name, got[i], population[set][name])
			}
		}
	}
}

// census begins to count users where it may and, now and then, does; what has been counted it
// holds against the naive reading, and gives the rules with bounds of it.
func (c *chance) census(l *life) (with *segment.Program) {
	c.t.Helper()
	w := l.worker
	rules := w.Rules()
	if w.census == nil {
		if !w.Pending() && !w.Filling() && rules.Quantiles() > 0 && c.rng.IntN(3) == 0 {
			w.Census()
			c.counting = w.Mark()
		}
		return nil
	}
	at, of, done := w.Counted()
	if !done {
		return nil
	}
	if at != c.counting.Clock {
		c.t.Fatalf("counted as of %d, want %d", at, c.counting.Clock)
	}
	c.know(l)
	_, scores := c.read(rules)
	var bounds []int64
	for i, same := range scores {
		var values []int64
		var want segment.Distribution
		for _, facts := range c.past {
			if value, ok := same[0].Value(did(facts, func(f fact) bool { return f.offset < c.counting.Next }), at); ok {
				values = append(values, value)
				want.Add(segment.Valued{Value: value, Users: 1})
			}
		}
		if got, want := binaryOf(c.t, &of[i]), binaryOf(c.t, &want); !bytes.Equal(got, want) {
			c.t.Fatalf("counted by %s: got %+v, want the values %v", same[0].Text, of[i], values)
		}
		if len(values) > 0 {
			bounds = append(bounds, same[0].Cut(values)...)
		}
	}
	c.epochs++
	epoch, ok := rules.Cut(c.epochs, at, of)
	if !ok {
		return nil // nobody has bought
	}
	if !slices.Equal(epoch.Bounds, bounds) {
		c.t.Fatalf("bounds: got %v, want %v of %v", epoch.Bounds, bounds, rules.Scores())
	}
	return c.with(rules, epoch)
}

func binaryOf(t *testing.T, d *segment.Distribution) []byte {
	b, err := d.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// holdChains holds what was said, all of it under the same rules, against the naive reading:
// each transition, and at some moments that nothing else was to be said.
func (c *chance) holdChains(l *life) {
	c.t.Helper()
	r, _ := c.read(l.cfg.Rules)
	names := l.cfg.Rules.Names()
	name := func(set, s uint16) string {
		if s == schemas.NoSegment {
			return ""
		}
		return names[set].Segments[s]
	}
	chains := map[string][]*schemas.Transition{}
	for i := range l.said {
		t := l.said[i].Transition
		if t == nil {
			continue
		}
		key := fmt.Sprint(t.User, " ", t.Set)
		chains[key] = append(chains[key], t)
		facts := c.past[t.User]
		now := did(facts, func(f fact) bool { return l.clocks[f.offset] < t.At })
		before, moment := now, t.At-1
		if t.Cause.Kind == schemas.ByEvent {
			now = did(facts, func(f fact) bool { return f.offset <= t.Cause.Pos.Offset })
			before, moment = now[:len(now)-1], t.At
		}
		in := r.Segments(now, t.At)
		for set, s := range t.Segments {
			if got := name(uint16(set), s); got != in[set] {
				c.t.Errorf("output %d, %s of %s at %d, %v: set %d is told to be in %q, want %q", l.said[i].N, names[t.Set].Name, t.User, t.At, t.Cause, set, got, in[set])
			}
		}
		from := ""
		if len(before) > 0 {
			from = r.Segments(before, moment)[t.Set]
		}
		if got := name(t.Set, t.From); got != from || t.Segments[t.Set] != t.To {
			c.t.Errorf("output %d, %s of %s at %d, %v: got it from %q to %q, want %q to %q", l.said[i].N, names[t.Set].Name, t.User, t.At, t.Cause, got, name(t.Set, t.To), from, in[t.Set])
		}
		if e := t.Expected; e.To != schemas.NoSegment {
			if was, will := r.Segments(now, e.At-1)[t.Set], r.Segments(now, e.At)[t.Set]; was != name(t.Set, t.To) || will != name(t.Set, e.To) {
				c.t.Errorf("output %d, %s of %s at %d: expected to go from %q to %q at %d, and goes from %q to %q", l.said[i].N, names[t.Set].Name, t.User, t.At, name(t.Set, t.To), name(t.Set, e.To), e.At, was, will)
			}
		}
	}
	c.holdSilence(l, r, func(user string, set int, upTo int64, at schemas.Millis) string {
		in := ""
		for _, t := range chains[fmt.Sprint(user, " ", set)] {
			if t.Cause.Kind == schemas.ByEvent && t.Cause.Pos.Offset <= upTo || t.Cause.Kind == schemas.ByTimer && t.At <= at {
				in = name(uint16(set), t.To)
			}
		}
		return in
	})
}

var spans = regexp.MustCompile(`(days|hours|minutes|seconds)\((\d+)\)`)

// holdSilence holds where users were said to be at some moments between their events.
func (c *chance) holdSilence(l *life, r *naive.Rules, said func(user string, set int, upTo int64, at schemas.Millis) string) {
	text := strings.Join(c.texts[l.cfg.Rules.Hash()], "")
	lengths := []schemas.Millis{0, 30 * schemas.Day}
	for _, m := range spans.FindAllStringSubmatch(text, -1) {
		n, _ := strconv.Atoi(m[2])
		unit := map[string]schemas.Millis{"days": schemas.Day, "hours": schemas.Hour, "minutes": schemas.Minute, "seconds": schemas.Second}[m[1]]
		lengths = append(lengths, schemas.Millis(n)*unit)
	}
	var users []string
	for user := range c.past {
		users = append(users, user)
	}
	slices.Sort(users)
	for range 150 {
		user := users[c.rng.IntN(len(users))]
		facts := c.past[user]
		i := c.rng.IntN(len(facts))
		from, to := l.clocks[facts[i].offset], l.worker.Mark().Fired
		if i+1 < len(facts) {
			to = l.clocks[facts[i+1].offset]
		}
		at := from + schemas.Millis(c.rng.Int64N(int64(to-from)+1))
		switch c.rng.IntN(4) {
		case 0:
			day := time.UnixMilli(int64(at)).UTC().Truncate(24 * time.Hour)
			at = schemas.Millis(day.UnixMilli()) - schemas.Millis(c.rng.IntN(3))*schemas.Hour - schemas.Millis(c.rng.IntN(2))
		case 1, 2:
			at = facts[c.rng.IntN(i+1)].event.At + lengths[c.rng.IntN(len(lengths))] + schemas.Millis(c.rng.IntN(3)-1)
		}
		at = min(max(at, from), to)
		events := did(facts[:i+1], func(fact) bool { return true })
		for set, want := range r.Segments(events, at) {
			if got := said(user, set, facts[i].offset, at); got != want {
				c.t.Errorf("%s after offset %d, at %d: said to be in %q of set %d, want %q", user, facts[i].offset, at, got, set, want)
			}
		}
	}
}
