package worker

import (
	"fmt"
	"slices"
	"strings"

	"footfall/pipeline/profile"
	"footfall/pipeline/segment"
	"footfall/schemas"
)

// Explanation is why a user is where it is, and until when. It owns its memory.
type Explanation struct {
	User    string
	Clock   schemas.Millis
	Next    int64 // first input offset that is not in it
	Profile profile.Profile
	Rules   *segment.Program
	Sets    []SetExplanation // [sets]

	moment segment.Moment // of a copy of the user
}

// Acts are what the user could do now, and where it would lead. They are tried on the
// explanation's copy of the user: for who has asked, not for the worker's goroutine.
func (ex *Explanation) Acts() []segment.Act { return ex.Rules.Evaluator().Acts(ex.moment) }

// SetExplanation is a user's place in one segment set.
type SetExplanation struct {
	Set, Segment string
	Number       int              // of the set in the rules
	Clauses      []segment.Clause // of the segment's rule; none: no rule before it holds
	Passed       []segment.Passed // the segments before it in the set, and why not
	Seq          uint32
	Since        schemas.Millis // whole seconds
	NextSegment  string         // what silence alone leads to; empty: nowhere
	NextAt       schemas.Millis
}

// Rule is why the user is in the segment, on one line.
func (s *SetExplanation) Rule() string {
	if len(s.Clauses) == 0 {
		return "no rule before it holds"
	}
	var parts []string
	for _, c := range s.Clauses {
		if c.Holds {
			parts = append(parts, fmt.Sprintf("%s (%s)", c.Source, c.Value))
		}
	}
	return strings.Join(parts, ", ")
}

// Explain tells of one user; ok is false for one that was never seen.
func (w *Worker) Explain(id string) (ex Explanation, ok bool) {
	user := w.table.Find([]byte(id))
	if user < 0 {
		return ex, false
	}
	pr, v := *w.profileOf(user), w.cells.View(user)
	ex = Explanation{User: id, Clock: w.mark.Clock, Next: w.mark.Next, Profile: pr, Rules: w.cfg.Rules}
	w.eval.Eval(&pr, v, w.mark.Clock, w.segments)
	ex.moment = segment.Moment{Profile: &pr, View: v.Copy().View(0), Now: w.mark.Clock, In: slices.Clone(w.segments)}
	for set, names := range w.cfg.Rules.Names() {
		m := w.member(user, w.place[set])
		in := schemas.Retired
		if m.seq > 0 {
			in = w.from[set][m.segment]
		}
		if in == schemas.Retired || w.waits(set) {
			continue
		}
		s := SetExplanation{
			Set: names.Name, Number: set, Segment: names.Segments[in], Seq: m.seq,
			Since: schemas.Millis(m.since) * schemas.Second,
		}
		now := segment.Moment{Profile: &pr, View: v, Now: w.mark.Clock, In: w.segments}
		s.Clauses, s.Passed = w.eval.Clauses(now, set, in), w.eval.Passed(now, set, in)
		if next := w.eval.Expected(&pr, v, w.mark.Clock, set, in, w.others); next.To != schemas.NoSegment {
			s.NextSegment, s.NextAt = names.Segments[next.To], next.At
		}
		ex.Sets = append(ex.Sets, s)
	}
	return ex, true
}
