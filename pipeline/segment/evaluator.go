package segment

import (
	"math"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// Evaluator runs a program. It is for one goroutine.
type Evaluator struct {
	p  *Program
	fr frame
}

// Evaluator makes one.
func (p *Program) Evaluator() *Evaluator {
	return &Evaluator{p: p, fr: frame{
		programs: p, stamps: make([]uint32, p.nodes), memo: make([]int64, p.nodes),
	}}
}

func (e *Evaluator) begin(pr *profile.Profile, v profile.View, now schemas.Millis, in []uint16) *frame {
	fr := &e.fr
	fr.p, fr.v, fr.now, fr.in, fr.due = pr, v, now, in, schemas.Never
	if fr.generation++; fr.generation == 0 { // once in four thousand million evaluations
		clear(fr.stamps)
		fr.generation = 1
	}
	return fr
}

// Evaluations is how many there have been, for who bounds them; from the greatest number on
// it begins again.
func (e *Evaluator) Evaluations() uint32 { return e.fr.generation }

// Eval writes the segment of each set into into, [sets]segment, and returns when that
// could change with no further event, or Never. It changes nothing. A set that cannot
// be answered yet is in NoSegment.
func (e *Evaluator) Eval(pr *profile.Profile, v profile.View, now schemas.Millis, into []uint16) (due schemas.Millis) {
	fr := e.begin(pr, v, now, into)
	for _, i := range e.p.order {
		into[i] = e.p.eval(i, fr)
	}
	return fr.due
}

// EvalTouched is Eval where into has the segments as they were at the same moment,
// and only what touched says has changed since. The due time is of the sets that
// were evaluated; the others' is what it was.
func (e *Evaluator) EvalTouched(pr *profile.Profile, v profile.View, now schemas.Millis, touched Touched, into []uint16) (due schemas.Millis) {
	fr := e.begin(pr, v, now, into)
	for _, i := range e.p.order {
		if s := &e.p.sets[i]; s.touched.meets(touched) {
			into[i] = e.p.eval(i, fr)
		}
	}
	return fr.due
}

func (p *Program) eval(set int, fr *frame) uint16 {
	s := &p.sets[set]
	if s.scores && p.epoch.Number == 0 {
		return schemas.NoSegment
	}
	for i := range s.rules {
		if holds := s.rules[i].holds; holds == nil || holds(fr) {
			return uint16(i)
		}
	}
	panic("segment: no rule of set " + s.name + " holds; the last must hold always")
}

// Expected gives the next transition of a set that silence alone would bring after
// now, when the user is in segment current; none where more than a few moments have to be
// looked at for it. segments is scratch of [sets].
func (e *Evaluator) Expected(pr *profile.Profile, v profile.View, now schemas.Millis, set int, current uint16, segments []uint16) schemas.Expected {
	return e.expected(pr, v, now, schemas.Latest, expectedMost, set, current, segments)
}

// Foreseen is Expected up to a moment, however much has to be looked at.
func (e *Evaluator) Foreseen(pr *profile.Profile, v profile.View, now, until schemas.Millis, set int, current uint16, segments []uint16) schemas.Expected {
	return e.expected(pr, v, now, min(until, schemas.Latest), math.MaxInt, set, current, segments)
}

func (e *Evaluator) expected(pr *profile.Profile, v profile.View, now, until schemas.Millis, most, set int, current uint16, segments []uint16) schemas.Expected {
	at := e.evalSet(pr, v, now, set, segments)
	for range most {
		if at > until {
			break
		}
		next := e.evalSet(pr, v, at, set, segments)
		if segments[set] != current {
			return schemas.Expected{To: segments[set], At: at}
		}
		at = next
	}
	return schemas.Expected{To: schemas.NoSegment, At: schemas.Never}
}

// expectedMost is how many moments Expected looks at: a rule of anniversaries or of
// calendar days would else be followed for ever.
const expectedMost = 64

// evalSet evaluates one set, and those it uses, into segments.
func (e *Evaluator) evalSet(pr *profile.Profile, v profile.View, now schemas.Millis, set int, segments []uint16) (due schemas.Millis) {
	fr := e.begin(pr, v, now, segments)
	for _, i := range e.p.order {
		if e.p.sets[set].needs>>i&1 == 1 {
			segments[i] = e.p.eval(i, fr)
		}
	}
	return fr.due
}
