package sim

import (
	"fmt"
	"slices"

	"footfall/pipeline/oracle"
	"footfall/pipeline/profile"
	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// checkSets holds what can be said of sets that the oracle does not know: what policies
// mute, and where everybody is in the end.
func (w *world) checkSets(p *part) error {
	if w.opt.lineageBroken() {
		return nil // what was forgotten may be said again
	}
	if err := w.checkPolicies(p); err != nil {
		return err
	}
	if p.start > p.folded && (!w.opt.Past || p.folded > 0) {
		return nil // the history of a set may have been gone when it came
	}
	if err := w.checkMade(p); err != nil {
		return err
	}
	return w.rehearse(p)
}

// samples are how many outputs of a partition are recomputed.
const samples = 12

// checkMade recomputes some transitions from nothing but the user's events up to there: so
// it finds also what a set has said before its history was known, though it was put right
// later.
func (w *world) checkMade(p *part) error {
	var some []*Said
	for i := range p.outputs {
		o := &p.outputs[i]
		if o.Item.Transition != nil && o.Set != lifecycle && !w.rules[o.by].program.NeedsEpoch(o.Set) {
			some = append(some, o)
		}
	}
	w.aside.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	if len(some) == 0 {
		return nil
	}
	opt := w.oracleOptions()
	opt.Wall = p.wallFor
	decided := oracle.Generate(w.inputOf(p), opt)[p.number]
	for _, o := range some[:min(len(some), samples)] {
		t := o.Item.Transition
		last := o.Item.Next - 1
		made, err := w.make(p, o, decided, last)
		if err == nil && made != o.To && t.Cause.Kind != schemas.ByEvent {
			made, err = w.make(p, o, decided, last-1) // a record's user is looked at first
		}
		if err != nil {
			return err
		}
		if made != o.To {
			return fmt.Errorf("partition %d: output %d moves user %q of set %s to %q at %d by %+v; what the user has done until then comes to %q under rules %d",
				p.number, o.Item.N, t.User, o.Set, o.To, t.At, t.Cause, made, o.by)
		}
		w.result.Remade++
	}
	return nil
}

// make gives the segment to which a user's records up to an offset lead, at the moment of
// an output and in its set.
func (w *world) make(p *part, o *Said, decided *oracle.Expected, last int64) (string, error) {
	t, by := o.Item.Transition, w.rules[o.by]
	if t.Cause.Kind == schemas.ByEvent {
		last = t.Cause.Pos.Offset
	}
	rows, decoder := profile.NewRows(by.program.Layout()), by.decoder()
	rows.Append()
	var pr profile.Profile
	var ev schemas.Event
	for i := range p.input {
		r := &p.input[i]
		refused := decided.DeadLetters[r.Offset] != "" || decided.Duplicates[r.Offset]
		if r.Control || r.Offset < p.folded || r.Offset > last || refused || string(r.Key) != t.User {
			continue
		}
		if err := decoder.Decode(r.Key, r.Value, &ev); err != nil {
			return "", fmt.Errorf("partition %d: record %d, that was accepted: %w", p.number, r.Offset, err)
		}
		pr.Fold(&ev)
		rows.Fold(0, &ev, 0)
	}
	into := make([]uint16, by.program.Sets())
	by.program.Evaluator().Eval(&pr, rows.View(0), t.At, into)
	return by.program.Names()[t.Set].Segments[into[t.Set]], nil
}

// rehearse plays what was accepted to a worker that has had the rules, and the epoch, from
// the beginning on: everybody is where it puts them.
func (w *world) rehearse(p *part) error {
	using := w.rules[w.using]
	if epoch := w.inForce(); epoch.Number > 0 {
		var err error
		if using.program, err = using.program.With(epoch); err != nil {
			return err
		}
	}
	cfg := w.workerConfig(1000, using)
	cfg.Decoder = using.decoder()
	k := worker.New(p.number, cfg)
	k.Begin(p.folded, 0)
	var out worker.Output
	apply := func(r worker.Record) {
		k.Apply([]worker.Record{r}, worker.Conditions{Wall: r.Time}, &out)
		for k.Pending() {
			k.Apply(nil, worker.Conditions{Wall: r.Time}, &out)
		}
	}
	refused := map[int64]bool{}
	for i := range p.outputs {
		if d := p.outputs[i].Item.DeadLetter; d != nil {
			refused[d.Pos.Offset] = true
		}
	}
	for _, r := range p.input {
		if r.Offset >= p.folded && !refused[r.Offset] {
			apply(r)
		}
	}
	const nobody = "nobody" // lets time pass up to the clock
	apply(worker.Record{
		Offset: p.ends, Time: p.mark.Clock, Key: []byte(nobody),
		Value: fmt.Appendf(nil, `{"event_id":"clock","type":"view","user_id":%q,"time":%d}`, nobody, p.mark.Clock),
	})
	return w.compare(p, using.program, k, nobody)
}

// compare holds that everybody was last said to be where a worker has them.
func (w *world) compare(p *part, by *segment.Program, k *worker.Worker, except string) error {
	at, err := p.members()
	if err != nil {
		return err
	}
	names := by.Names()
	k.Look(0, k.Users(), func(s *worker.Seen) {
		for set, segment := range s.Segments {
			if string(s.ID) == except || err != nil {
				continue
			}
			want, said := "nowhere", "nowhere"
			if segment != schemas.NoSegment {
				want = names[set].Segments[segment]
			}
			if o := at[chain{string(s.ID), names[set].Name}]; o != nil {
				said = o.To
			}
			if want != said {
				err = fmt.Errorf("partition %d: user %q was last said to be in %q of set %s; under rules %d and epoch %d from the beginning on it is in %q",
					p.number, s.ID, said, names[set].Name, w.using, by.Epoch().Number, want)
			}
			w.result.Rehearsed++
		}
	})
	return err
}

// spoken is what has been said aloud of a user.
type spoken struct {
	into   map[string]*Said // by set and segment: last
	capped []schemas.Millis // when, in whole seconds
}

// checkPolicies recounts, where policies are the same in all rules, what they mute.
// Where they differ it holds only that nothing is muted of which nothing was said.
func (w *world) checkPolicies(p *part) error {
	users := map[string]*spoken{}
	for i := range p.outputs {
		o := &p.outputs[i]
		t := o.Item.Transition
		if t == nil || t.Muted != schemas.NotMuted && t.Muted != schemas.MutedReentry && t.Muted != schemas.MutedCap {
			continue
		}
		s := users[t.User]
		if s == nil {
			s = &spoken{into: map[string]*Said{}}
			users[t.User] = s
		}
		by := w.rules[o.by].program
		want := s.muted(by, o)
		switch exact := w.family == constant && o.Set != "tastes"; {
		case want == t.Muted:
		case !exact && t.Muted == schemas.NotMuted, !exact && w.family != constant && want == schemas.MutedReentry: // as much as it can know
		case !exact && t.Muted == schemas.MutedCap:
		default:
			return fmt.Errorf("partition %d: output %d moves user %q of set %s to %q at %d and is muted %q; by what was said before, under rules %d, %q",
				p.number, o.Item.N, t.User, o.Set, o.To, t.At, t.Muted, o.by, want)
		}
		if t.Muted != schemas.NotMuted {
			w.result.Withheld++
			continue
		}
		s.into[o.Set+" "+o.To] = o
		if by.Capped(setIn(by, o.Set)) {
			s.capped = append(s.capped, t.At/schemas.Second)
		}
	}
	return nil
}

func setIn(p *segment.Program, name string) int {
	return slices.IndexFunc(p.Names(), func(s schemas.SetNames) bool { return s.Name == name })
}

// muted tells how the policies of rules mute a transition.
func (s *spoken) muted(by *segment.Program, o *Said) schemas.Muted {
	t := o.Item.Transition
	at := t.At / schemas.Second
	if last := s.into[o.Set+" "+o.To]; last != nil {
		before := last.Item.Transition
		switch policy := by.Reentry(int(t.Set), t.To); {
		case policy.Kind == segment.ReentryOnce,
			policy.Kind == segment.ReentryCart && uint32(before.Cart) == uint32(t.Cart),
			policy.Kind == segment.ReentryAfter && at-before.At/schemas.Second < policy.After/schemas.Second:
			return schemas.MutedReentry
		}
	}
	limit := by.Cap()
	if n := len(s.capped) - limit.Triggers; by.Capped(int(t.Set)) && n >= 0 && at-s.capped[n] < limit.Within/schemas.Second {
		return schemas.MutedCap
	}
	return schemas.NotMuted
}
