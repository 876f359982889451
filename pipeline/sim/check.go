package sim

import (
	"fmt"
	"strconv"

	"footfall/pipeline/oracle"
	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// checkCommit holds what every commit has to keep: numbers without a gap over all
// outputs of the partition, a mark that covers them and never goes back, and
// nothing but muted transitions while triggers are paused.
func (w *world) checkCommit(p *part, out *worker.Output) error {
	n := uint64(len(p.outputs))
	for i := range out.Items {
		it := &out.Items[i]
		if n++; it.N != n {
			return w.breach("partition %d: output %d is committed as number %d: lost, doubled or out of order", p.number, it.N, n)
		}
		if it.Next > out.Mark.Next || it.Clock > out.Mark.Clock || it.Fired > it.Clock {
			return w.breach("partition %d: output %d of mark {next %d, clock %d, fired %d} is committed with mark %+v", p.number, it.N, it.Next, it.Clock, it.Fired, out.Mark)
		}
		t := it.Transition
		if t == nil {
			continue
		}
		if w.paused && t.Muted == schemas.NotMuted || !w.paused && t.Muted == schemas.MutedPaused {
			return w.breach("partition %d: output %d is muted %q while paused is %v", p.number, it.N, t.Muted, w.paused)
		}
		if t.Cause.Kind == schemas.ByRules && t.Muted != schemas.MutedRules {
			return w.breach("partition %d: output %d is said for new rules and muted %q", p.number, it.N, t.Muted)
		}
		if t.Cause.Kind == schemas.ByRecovery && t.Muted == schemas.NotMuted {
			return w.breach("partition %d: output %d is a difference that nobody caused, and a trigger", p.number, it.N)
		}
	}
	m, before := &out.Mark, &p.mark
	most := w.latest - grace // the furthest that ticks may have moved the clock
	for i := range p.input {
		if p.input[i].Offset < m.Next {
			most = max(most, p.input[i].Time)
		}
	}
	switch {
	case m.Clock > most && m.Clock > before.Clock:
		return w.breach("partition %d: mark %+v: neither a record nor the wall less grace is later than %d", p.number, *m, most)
	case m.N != n:
		return w.breach("partition %d: mark %+v is committed after output %d", p.number, *m, n)
	case m.Fired > m.Clock:
		return w.breach("partition %d: mark %+v has fired more than its clock", p.number, *m)
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

// checkPut holds that a snapshot is published only when a commit covers it.
func (p *process) checkPut(key string) error {
	id, ok := snapshot.ParseID(key)
	if !ok {
		return p.breach("a snapshot is stored as %q", key)
	}
	part := p.parts[id.Partition]
	if empty := id.N == 0 && !part.found; !empty && (id.N > part.mark.N || id.Next > part.mark.Next) {
		return p.breach("snapshot %s is published, and %+v is the last that was committed", key, part.mark)
	}
	return nil
}

// judge looks at all that was said.
func (w *world) judge() error {
	for _, p := range w.parts {
		if err := w.checkSaid(p); err != nil {
			return err
		}
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
	last := map[string]*schemas.Transition{}
	refused := map[int64]bool{}
	for i := range p.outputs {
		if d := p.outputs[i].Item.DeadLetter; d != nil {
			if refused[d.Pos.Offset] {
				return fmt.Errorf("partition %d: two dead letters for record %d", p.number, d.Pos.Offset)
			}
			refused[d.Pos.Offset] = true
			continue
		}
		t := p.outputs[i].Item.Transition
		from, seq := schemas.NoSegment, uint32(0)
		if before := last[t.User]; before != nil {
			from, seq = before.To, before.Seq
		}
		if t.From != from || t.Seq != seq+1 || t.To == from {
			return fmt.Errorf("partition %d: user %q, output %d: segment %d to %d with seq %d, after segment %d with seq %d",
				p.number, t.User, p.outputs[i].Item.N, int16(t.From), t.To, t.Seq, int16(from), seq)
		}
		last[t.User] = t
	}
	if w.opt.lineageBroken() {
		return nil
	}
	return w.checkBootstrap(p, refused)
}

// checkBootstrap: what the records that were there before the first start cause is
// muted, timers due by the clock of the last of them included, and nothing else is
// for that reason.
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
	future := map[int64]bool{}
	at := map[string]string{}
	for i := range p.outputs {
		it := &p.outputs[i].Item
		if it.Transition != nil {
			at[it.Transition.User] = w.names[0].Segments[it.Transition.To]
		} else if it.DeadLetter.Reason == schemas.Future {
			future[it.DeadLetter.Pos.Offset] = true
		}
	}
	input := w.inputOf(p)
	clock := int64(p.mark.Clock)
	input = append(input, oracle.Record{ // lets time pass up to the clock
		Topic: events, Partition: p.number, Offset: p.ends, Time: clock, Key: []byte("clock"),
		Value: []byte(`{"event_id":"clock","type":"view","user_id":"clock","time":` + strconv.FormatInt(clock, 10) + `}`),
	})
	opt := w.oracleOptions()
	opt.Wall = func(r *oracle.Record) int64 {
		if future[r.Offset] {
			return r.Time - 24*int64(schemas.Hour)
		}
		return r.Time
	}
	want := map[string]string{}
	for user := range at {
		want[user] = "dormant"
	}
	for _, t := range oracle.Generate(input, opt)[p.number].Transitions {
		want[t.User] = t.To
	}
	delete(want, "clock")
	for user, segment := range want {
		if at[user] != segment {
			return fmt.Errorf("partition %d: user %q was last said to be in %q; the log from offset %d on leads to %q at clock %d",
				p.number, user, at[user], p.folded, segment, clock)
		}
	}
	return nil
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
	return oracle.Options{
		Currency: "EUR", Rates: contracts()[0].Rates, InputTopic: events, Group: group,
		Rules: fmt.Sprintf("%016x", w.rules[0].program.Hash()), WallTicks: !w.opt.LogTime,
	}
}

// ask has the oracle compare input and outputs.
func (w *world) ask() error {
	var input, triggers, muted, dead []oracle.Record
	opt := w.oracleOptions()
	opt.Marks = map[int32]oracle.Mark{}
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
	if err := w.result.Report.Err(); err != nil || !w.opt.Calm {
		return err
	}
	return w.checkCounts()
}

// checkCounts holds that input = applied + duplicates + dead letters, each as many
// as the oracle says, where one life saw it all.
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
