package worker

import (
	"footfall/pipeline/profile"
	"footfall/pipeline/segment"
	"footfall/schemas"
)

// Explanation is why a user is where it is, and until when. It owns its memory.
type Explanation struct {
	User    string
	Clock   schemas.Millis
	Profile profile.Profile
	Sets    []SetExplanation // [sets]
}

// SetExplanation is a user's place in one segment set.
type SetExplanation struct {
	Set, Segment string
	Rule         string // why, in words
	Passed       []segment.Passed
	Seq          uint32
	Since        schemas.Millis // whole seconds
	NextSegment  string         // what silence alone leads to; empty: nowhere
	NextAt       schemas.Millis
}

// Explain tells of one user; ok is false for one that was never seen.
func (w *Worker) Explain(id string) (ex Explanation, ok bool) {
	user := w.table.Find([]byte(id))
	if user < 0 {
		return ex, false
	}
	pr := w.rows.At(user).profile
	ex = Explanation{User: id, Clock: w.mark.Clock, Profile: pr}
	for set, names := range w.cfg.Rules.Names() {
		m := w.member(user, set)
		if m.seq == 0 {
			continue
		}
		s := SetExplanation{
			Set: names.Name, Segment: names.Segments[m.segment], Seq: m.seq,
			Since: schemas.Millis(m.since) * schemas.Second,
			Rule:  w.cfg.Rules.Explain(&pr, w.mark.Clock, set, m.segment), Passed: w.cfg.Rules.Passed(&pr, w.mark.Clock, set, m.segment),
		}
		if next := w.cfg.Rules.Expected(&pr, w.mark.Clock, set, m.segment); next.To != schemas.NoSegment {
			s.NextSegment, s.NextAt = names.Segments[next.To], next.At
		}
		ex.Sets = append(ex.Sets, s)
	}
	return ex, true
}
