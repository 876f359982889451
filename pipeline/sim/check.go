package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"footfall/pipeline/oracle"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// checkCommit holds what every commit has to keep: numbers without a gap over all
// outputs of the partition, a mark that covers them and never goes back, an owner
// that nobody has taken over from, and nothing but muted transitions while triggers
// are paused.
func (w *world) checkCommit(p *part, out *worker.Output, by *process) error {
	if out.Epoch < p.readBy {
		return w.breach("partition %d: %s commits under epoch %d what epoch %d has taken over", p.number, by.name, out.Epoch, p.readBy)
	}
	n := max(p.last(), p.skipped)
	if first := out.Mark.N - uint64(len(out.Items)); by.rebuilds(out) != nil && !p.found && first > n {
		n = first // it could not know how many there were
	}
	for i := range out.Items {
		it := &out.Items[i]
		if n++; it.N != n {
			return w.breach("partition %d: output %d is committed as number %d: lost, doubled or out of order", p.number, it.N, n)
		}
		if it.Next > out.Mark.Next || it.Clock > out.Mark.Clock || it.Fired > it.Clock {
			return w.breach("partition %d: output %d of mark {next %d, clock %d, fired %d} is committed with mark %+v", p.number, it.N, it.Next, it.Clock, it.Fired, out.Mark)
		}
		if err := w.checkItem(p, it, out.Mark.Paused, by, out.Epoch); err != nil {
			return err
		}
	}
	if out.Mark.N != n {
		return w.breach("partition %d: mark %+v is committed after output %d", p.number, out.Mark, n)
	}
	if err := w.checkMark(p, &out.Mark); err != nil {
		return err
	}
	if by.rebuilds(out) != nil || p.mark == (schemas.Mark{}) {
		return nil // it leaves out what is refused today, or begins after it
	}
	return w.checkAccepted(p, out)
}

// misplaced tells whether what is said for an epoch is the rules' though there was one
// before, or is said aloud though there was none: of which nobody was told where it is.
// The mark of the one before may not have been committed yet.
func (w *world) misplaced(p *part, t *schemas.Transition, by *process) bool {
	if t.Muted == schemas.MutedRules {
		return p.mark.Epoch > 0
	}
	return p.mark.Epoch == 0 && by.settled[p.number] == 0
}

// checkItem looks at one output of a process.
func (w *world) checkItem(p *part, it *worker.Item, paused bool, by *process, epoch int64) error {
	since := by.polled
	if p.waiting == (ownership{p.number, epoch}) {
		since = min(since, p.waits)
	}
	if d := it.DeadLetter; d != nil {
		return w.checkFuture(p, it)
	}
	switch t := it.Transition; {
	case paused && t.Muted == schemas.NotMuted || !paused && t.Muted == schemas.MutedPaused:
		return w.breach("partition %d: output %d is muted %q while paused is %v", p.number, it.N, t.Muted, paused)
	case t.Cause.Kind == schemas.ByRules && t.Muted != schemas.MutedRules:
		return w.breach("partition %d: output %d is said for new rules and muted %q", p.number, it.N, t.Muted)
	case t.Cause.Kind == schemas.ByEpoch && !w.opt.lineageBroken() && w.misplaced(p, t, by):
		return w.breach("partition %d: output %d is said for epoch %d after epoch %d, and muted %q", p.number, it.N, t.Cause.Epoch, p.mark.Epoch, t.Muted)
	case t.Cause.Kind == schemas.ByRecovery && w.opt.Sets && !w.opt.lineageBroken():
		return w.breach("partition %d: output %d is a difference that nobody caused", p.number, it.N)
	case t.Cause.Kind == schemas.ByRecovery && t.Muted == schemas.NotMuted:
		return w.breach("partition %d: output %d is a difference that nobody caused, and a trigger", p.number, it.N)
	case t.Muted == schemas.MutedStale && t.At >= w.shownSince(since).most-schemas.Day:
		return w.breach("partition %d: output %d is muted as stale, and no wall was a day after %d", p.number, it.N, t.At)
	case t.Muted == schemas.NotMuted && t.At < w.shownSince(since).least-schemas.Day:
		return w.breach("partition %d: output %d is of %d, and a trigger more than a day later", p.number, it.N, t.At)
	}
	return nil
}

// checkAccepted holds that no record was applied whose timestamp was too far ahead of
// every wall since it was published.
func (w *world) checkAccepted(p *part, out *worker.Output) error {
	refused := map[int64]bool{}
	for i := range out.Items {
		if d := out.Items[i].DeadLetter; d != nil {
			refused[d.Pos.Offset] = true
		}
	}
	i, _ := slices.BinarySearchFunc(p.input, max(p.mark.Next, p.reached.Next), func(r worker.Record, o int64) int { return int(r.Offset - o) })
	for ; i < len(p.input) && p.input[i].Offset < out.Mark.Next; i++ {
		if r := &p.input[i]; !r.Control && !refused[r.Offset] && w.impossible(p, i) {
			return w.breach("partition %d: record %d of time %d is applied, and every wall was too far before it", p.number, r.Offset, r.Time)
		}
	}
	return nil
}

// impossible tells that the i-th record was too far ahead of every wall that anybody
// has seen since it was published.
func (w *world) impossible(p *part, i int) bool {
	return p.input[i].Time > w.now()+schemas.Hour && p.input[i].Time > w.shownSince(p.stepped[i]).most+maxSkew
}

// checkFuture holds that a record is refused for its timestamp only if somebody's wall
// was behind it, since it was published.
func (w *world) checkFuture(p *part, it *worker.Item) error {
	if it.DeadLetter.Reason != schemas.Future {
		return nil
	}
	i, _ := slices.BinarySearchFunc(p.input, it.DeadLetter.Pos.Offset, func(r worker.Record, o int64) int { return int(r.Offset - o) })
	r := &p.input[i]
	if least := w.shownSince(p.stepped[i]).least; r.Time <= least+maxSkew && !aheadOfItself(r) {
		return w.breach("partition %d: record %d of time %d is refused as one from the future, and no wall was before %d", p.number, r.Offset, r.Time, least)
	}
	return nil
}

// aheadOfItself tells whether an event says that it comes after its record's timestamp.
func aheadOfItself(r *worker.Record) bool {
	var event struct {
		Time json.Number `json:"time"`
	}
	at, err := int64(0), json.Unmarshal(r.Value, &event)
	if err == nil {
		at, err = event.Time.Int64()
	}
	return err == nil && at > int64(r.Time+5*schemas.Minute)
}

// furthest is how far any event, and any committed clock, has come.
func (w *world) furthest() schemas.Millis {
	most := schemas.Millis(0)
	for _, p := range w.parts {
		most = max(most, p.mark.Clock)
		for i := range p.input {
			if !w.impossible(p, i) {
				most = max(most, p.input[i].Time)
			}
		}
	}
	return most
}

func (w *world) checkMark(p *part, m *schemas.Mark) error {
	before := &p.mark
	most := w.latest - grace // the furthest that ticks may have moved the clock
	for i := range p.input {
		if p.input[i].Offset < m.Next && !w.impossible(p, i) {
			most = max(most, p.input[i].Time)
		}
	}
	switch {
	case w.opt.Jump > 0 && m.Clock > before.Clock+2*w.opt.Jump && m.Clock > w.furthest()+2*w.opt.Jump: // twice: two ticks between two commits
		return w.breach("partition %d: mark %+v is further than %d ms beyond every event", p.number, *m, w.opt.Jump)
	case m.Clock > most && m.Clock > before.Clock:
		return w.breach("partition %d: mark %+v: neither a record nor the wall less grace is later than %d", p.number, *m, most)
	case m.Fired > m.Clock:
		return w.breach("partition %d: mark %+v has fired more than its clock", p.number, *m)
	case m.Next > p.ends:
		return w.breach("partition %d: mark %+v, and the log ends at %d", p.number, *m, p.ends)
	case p.found && (m.Next < before.Next || m.Clock < before.Clock || m.Fired < before.Fired):
		return w.breach("partition %d: mark %+v after %+v: it goes back", p.number, *m, *before)
	}
	return nil
}

func countOf(items []worker.Item, cause schemas.CauseKind) (n int) {
	for i := range items {
		if t := items[i].Transition; t != nil && t.Cause.Kind == cause {
			n++
		}
	}
	return n
}

// heldMost is how many outputs of a partition may wait for their commit: some times what
// one poll, and the timers beside it, make a simulated shop say. It is far below the
// pipeline's own limit, since nothing may pile up while something is away.
const heldMost = 1_000

// checkHeld holds that what is away or slow makes nobody hold more and more: neither
// outputs that wait for their commit, nor records that wait for the table.
func (w *world) checkHeld() {
	if w.away == NoOutage {
		return
	}
	for _, p := range w.lives {
		for _, s := range p.pipeline.Status() {
			if held := int64(s.Mark.N - s.Committed.N); !s.Recovering && held > heldMost {
				_ = w.breach("partition %d: %s holds %d outputs while %s, the limit is %d", s.Partition, p.name, held, w.away, heldMost)
			}
		}
	}
	if w.bins == nil {
		return
	}
	for _, a := range w.bins.lives {
		if held, most := a.held(); held > most {
			_ = w.breach("%s holds %d rows while %s, the limit is %d", a.name, held, w.away, most)
		}
	}
}

// judge looks at all that was said.
func (w *world) judge() error {
	if w.bins != nil {
		if fault := w.bins.differs(); fault != "" {
			return errors.New(fault)
		}
		w.result.Rows = w.bins.count()
		if most := rowsMost + runMost*len(w.bins.parts); w.bins.table.Most > most {
			return fmt.Errorf("a batch of %d rows, the limit is %d", w.bins.table.Most, most)
		}
	}
	untold := slices.ContainsFunc(w.parts, (*part).countedTwice)
	for _, p := range w.parts {
		err := w.checkSaid(p)
		if err == nil && w.opt.Sets && !untold {
			err = w.checkSets(p)
		}
		if err != nil {
			return err
		}
	}
	if untold {
		w.result.Untold++
		return nil
	}
	if w.opt.lineageBroken() {
		for _, p := range w.parts {
			if err := w.checkEnds(p); err != nil {
				return err
			}
		}
		return nil
	}
	return w.ask()
}

// checkSaid holds what can be seen without knowing any rule: chains without a gap,
// one dead letter a record, and history muted up to its end and not beyond.
func (w *world) checkSaid(p *part) error {
	refused, rebuilt := map[int64]bool{}, p.rebuilt
	for i := range p.outputs {
		for len(rebuilt) > 0 && rebuilt[0].count <= i { // what it did not know it may say again
			refused, rebuilt = maps.Clone(rebuilt[0].refused), rebuilt[1:]
		}
		if d := p.outputs[i].Item.DeadLetter; d != nil {
			if refused[d.Pos.Offset] {
				return fmt.Errorf("partition %d: two dead letters for record %d", p.number, d.Pos.Offset)
			}
			refused[d.Pos.Offset] = true
		}
	}
	if _, err := p.members(); err != nil || w.opt.lineageBroken() {
		return err
	}
	return w.checkBootstrap(p, refused)
}

// members follows everybody's chain in every set to where it ends. Where a rebuild had
// only a part of the outputs left, chains go on from what it could know.
func (p *part) members() (map[chain]*Said, error) {
	last := map[chain]*Said{}
	rebuilt := p.rebuilt
	for i := range p.outputs {
		for len(rebuilt) > 0 && rebuilt[0].count <= i {
			last, rebuilt = maps.Clone(rebuilt[0].known), rebuilt[1:]
		}
		o := &p.outputs[i]
		t := o.Item.Transition
		if t == nil {
			continue
		}
		from, seq := "", uint32(0)
		if before := last[o.chain()]; before != nil {
			from, seq = before.To, before.Item.Transition.Seq
		}
		if o.From != from || t.Seq != seq+1 || o.To == from {
			return last, fmt.Errorf("partition %d: user %q in set %s, output %d: segment %q to %q with seq %d, after segment %q with seq %d",
				p.number, t.User, o.Set, o.Item.N, o.From, o.To, t.Seq, from, seq)
		}
		last[o.chain()] = o
	}
	for len(rebuilt) > 0 {
		last, rebuilt = maps.Clone(rebuilt[0].known), rebuilt[1:]
	}
	return last, nil
}

// checkBootstrap: what the records that were there before the first start cause is
// muted, timers due by the clock of the last of them included, and nothing else is
// for that reason. What nothing of the user's caused is muted too, until the history has
// been read, and what it makes due been said.
func (w *world) checkBootstrap(p *part, refused map[int64]bool) error {
	clock := schemas.Millis(0)
	for _, r := range p.input {
		if r.Offset >= p.folded && r.Offset < p.boot && !r.Control && !refused[r.Offset] {
			clock = max(clock, r.Time)
		}
	}
	for i := range p.outputs {
		t := p.outputs[i].Item.Transition
		if t == nil {
			continue
		}
		history := t.Cause.Kind == schemas.ByEvent && t.Cause.Pos.Offset < p.boot || t.Cause.Kind == schemas.ByTimer && t.Cause.Due <= clock
		if t.Cause.Kind != schemas.ByEvent && t.Cause.Kind != schemas.ByTimer {
			if t.Muted == schemas.MutedRules || p.outputs[i].Item.Next >= p.boot {
				continue
			}
			history = true
		}
		if history != (t.Muted == schemas.MutedBootstrap) {
			return fmt.Errorf("partition %d: history ends at offset %d with clock %d: output %d of cause %+v is muted %q",
				p.number, p.boot, clock, p.outputs[i].Item.N, t.Cause, t.Muted)
		}
	}
	return nil
}

// checkEnds holds, where the oracle cannot say what had to be said on the way, that
// everybody has ended up where the log leads: a segment is a function of profile,
// clock and rules, and the difference is always said. A user of whom the log has
// nothing left since the last rebuild has been silent for ever.
func (w *world) checkEnds(p *part) error {
	at, err := p.members()
	if err != nil {
		return err
	}
	input := w.inputOf(p)
	clock := int64(p.mark.Clock)
	input = append(input, oracle.Record{ // lets time pass up to the clock
		Topic: events, Partition: p.number, Offset: p.ends, Time: clock, Key: []byte("clock"),
		Value: []byte(`{"event_id":"clock","type":"view","user_id":"clock","time":` + strconv.FormatInt(clock, 10) + `}`),
	})
	opt := w.oracleOptions()
	opt.Wall = p.wallFor
	want := map[string]string{}
	for c := range at {
		if c.set == lifecycle {
			want[c.user] = "dormant"
		}
	}
	for _, t := range oracle.Generate(input, opt)[p.number].Transitions {
		want[t.User] = t.To
	}
	delete(want, "clock")
	for _, user := range slices.Sorted(maps.Keys(want)) {
		said := "nowhere"
		if o := at[chain{user, lifecycle}]; o != nil {
			said = o.To
		}
		if said != want[user] {
			return fmt.Errorf("partition %d: user %q was last said to be in %q; the log from offset %d on leads to %q at clock %d",
				p.number, user, said, p.folded, want[user], clock)
		}
	}
	return nil
}

// wallFor is what the wall was when a record was applied, as far as its being refused
// tells; checkFuture has held that against the walls there were.
func (p *part) wallFor(r *oracle.Record) int64 {
	for i := range p.outputs {
		if n := len(p.rebuilt); n > 0 && i < p.rebuilt[n-1].count && !p.rebuilt[n-1].refused[r.Offset] {
			continue // retention had removed it: the rebuild knew nothing of it
		}
		if d := p.outputs[i].Item.DeadLetter; d != nil && d.Reason == schemas.Future && d.Pos.Offset == r.Offset {
			return r.Time - 24*int64(schemas.Hour)
		}
	}
	return r.Time
}

func (w *world) inputOf(p *part) []oracle.Record {
	var input []oracle.Record
	for i := range p.input {
		r := &p.input[i]
		if !r.Control && r.Offset >= p.folded {
			input = append(input, oracleRecord(events, p.number, r.Offset, r.Time, r.Key, r.Value, r.Headers))
		}
	}
	return input
}

func (w *world) oracleOptions() oracle.Options {
	opt := oracle.Options{
		Currency: "EUR", Rates: contracts()[0].Rates, InputTopic: events, Group: group,
		Rules: fmt.Sprintf("%016x", w.rules[0].program.Hash()), WallTicks: !w.opt.LogTime,
	}
	if w.opt.Sets {
		opt.Rules, opt.Sets = "", w.setNames()
	}
	return opt
}

// ask has the oracle compare input and outputs.
func (w *world) ask() error {
	var input, triggers, muted, dead []oracle.Record
	opt := w.oracleOptions()
	opt.Marks = map[int32]oracle.Mark{}
	if w.opt.Years {
		opt.Wall = func(r *oracle.Record) int64 { return w.parts[r.Partition].wallFor(r) }
	}
	for _, p := range w.parts {
		input = append(input, w.inputOf(p)...)
		for i := range p.outputs {
			switch o := &p.outputs[i]; o.Topic {
			case "triggers":
				triggers = append(triggers, o.Record)
			case "muted":
				muted = append(muted, o.Record)
			default:
				dead = append(dead, o.Record)
			}
		}
		m := p.mark
		opt.Marks[p.number] = oracle.Mark{Next: m.Next, Clock: int64(m.Clock), Fired: int64(m.Fired), N: int64(m.N)}
	}
	w.result.Report = oracle.Judge(input, triggers, muted, dead, opt)
	if err := w.result.Report.Err(); err != nil || w.stats == nil {
		return err
	}
	return w.checkCounts()
}

// checkCounts holds that input = applied + duplicates + dead letters, each as many
// as the oracle says, where one worker of each partition saw it all.
func (w *world) checkCounts() error {
	var applied, duplicates uint64
	for _, s := range w.stats {
		applied += s.Stats.Applied
		duplicates += s.Stats.Duplicates
	}
	if r := w.result.Report; applied != uint64(r.Applied) || duplicates != uint64(r.Duplicates) {
		return fmt.Errorf("applied %d records and found %d duplicates; the oracle says %d and %d", applied, duplicates, r.Applied, r.Duplicates)
	}
	return nil
}
