package worker

import (
	"fmt"
	"slices"

	"footfall/pipeline/profile"
	"footfall/pipeline/segment"
	"footfall/schemas"
)

// naming is how the numbers of the rules' sets and segments become the worker's own,
// and back. The worker's stay what they are when the rules change.
type naming struct {
	place []int      // of each set of the rules: its number in names
	to    [][]uint16 // of each set and segment of the rules: its number in names
	from  [][]uint16 // of each set of names that the rules have: the rules' segment, or Retired
}

// name gives every set and segment of the rules a number of the worker's own.
func (w *Worker) name(sets []schemas.SetNames) {
	w.naming = naming{}
	for _, s := range sets {
		set := w.setNumber(s.Name)
		w.place = append(w.place, set)
		to := make([]uint16, len(s.Segments))
		for i, segment := range s.Segments {
			to[i] = w.segmentNumber(set, segment)
		}
		from := make([]uint16, len(w.names[set].Segments))
		for i := range from {
			from[i] = schemas.Retired
		}
		for i, own := range to {
			from[own] = uint16(i)
		}
		w.to, w.from = append(w.to, to), append(w.from, from)
	}
}

// setNumber is the worker's number of a set. What was said of a set that the rules
// have not any more is kept, so that its chains go on should it come back.
func (w *Worker) setNumber(name string) int {
	if set := slices.IndexFunc(w.names, func(s schemas.SetNames) bool { return s.Name == name }); set >= 0 {
		return set
	}
	w.names = append(w.names, schemas.SetNames{Name: name})
	w.population = append(w.population, nil)
	w.members = append(w.members, profile.Slab[said]{})
	w.members[len(w.members)-1].Extend(w.rows.Len())
	return len(w.names) - 1
}

// segmentNumber is the worker's number of a segment of a set.
func (w *Worker) segmentNumber(set int, name string) uint16 {
	s := &w.names[set]
	i := slices.Index(s.Segments, name)
	if i < 0 {
		i = len(s.Segments)
		s.Segments = append(s.Segments, name)
		w.population[set] = append(w.population[set], 0)
		for rules, place := range w.place {
			if place == set && rules < len(w.from) {
				w.from[rules] = append(w.from[rules], schemas.Retired)
			}
		}
	}
	return uint16(i)
}

// use makes the worker go by rules.
func (w *Worker) use(rules *segment.Program) {
	w.cfg.Rules, w.eval = rules, rules.Evaluator()
	w.segments, w.others = make([]uint16, rules.Sets()), make([]uint16, rules.Sets())
	w.name(rules.Names())
	w.usePolicies()
}

// Switch makes a live worker go by other rules, from its clock on. Everyone is
// evaluated under them, in slices between batches and before their next event; what
// the rules make of the moment of the switch is theirs (cause rules, muted; where only
// the bounds of quantiles are others, cause threshold_epoch), and what silence comes to
// after it is said as it would have been anyway. Sets whose cells have no history yet
// say nothing until Fill. A snapshot under way is given up. It must not be Pending.
func (w *Worker) Switch(rules *segment.Program) {
	if w.replaying != nil || w.Pending() {
		panic(fmt.Sprintf("worker %d: switched before it had come to rest", w.mark.Partition))
	}
	w.GiveUpSnapshot()
	w.census = nil
	before := w.cfg.Rules
	w.use(rules)
	if before.Layout() != rules.Layout() {
		w.filling = w.cells.Relayout(rules.Layout(), w.filling)
		w.filler, w.filledUpTo = nil, w.mark.Next
	}
	if before.Hash() == rules.Hash() && before.Epoch().Number == rules.Epoch().Number {
		return
	}
	w.reviewNow()
}

// reviewNow evaluates everyone under rules that take over at the present clock.
func (w *Worker) reviewNow() {
	w.mark.Since = w.mark.Clock
	w.wheel.restart(w.mark.Clock + 1)
	w.reviewAll(&replay{})
}

// Settled tells that everyone has been evaluated under the rules, in every set.
func (w *Worker) Settled() bool {
	return w.mark.Rules == w.cfg.Rules.Hash() && w.mark.Epoch == w.cfg.Rules.Epoch().Number && w.mark.Since == 0
}

// Reviewed is how many users have been evaluated under the rules, and how many there were
// when they took over; both 0 when all have been.
func (w *Worker) Reviewed() (done, of int) { return int(w.reviewing.next), int(w.reviewing.end) }

// Filling tells that cells of the rules have no history yet.
func (w *Worker) Filling() bool { return len(w.filling) > 0 }

// Joining tells that they are given their history.
func (w *Worker) Joining() bool { return w.filler != nil }

// Reach tells a filler that the log has nothing more before an offset.
func (w *Worker) Reach(next int64) { w.mark.Next = max(w.mark.Next, next) }

// FilledUpTo is the input offset up to which their history is missing.
func (w *Worker) FilledUpTo() int64 { return w.filledUpTo }

// Filler makes a worker that finds the history of the missing cells: it is to Replay
// the input from offset first up to FilledUpTo, without the records that were refused,
// and then given to Fill.
func (w *Worker) Filler(first int64, decoder *schemas.Decoder) *Worker {
	cfg := w.cfg
	cfg.Decoder = decoder
	f := New(w.mark.Partition, cfg)
	f.Skip(first, w.mark.Clock, false) // what was accepted came by the present clock
	return f
}

// Refuse tells a filler that a record was refused when it came; offsets rise.
func (w *Worker) Refuse(offset int64) { w.dead.add(offset) }

// Fill gives the missing cells the history that a filler has found. They are joined in
// slices between batches, and before a user's next event; then the sets that look at
// them begin to speak: what they say first is the rules', and muted.
func (w *Worker) Fill(from *Worker) {
	if from.mark.Next < w.filledUpTo {
		panic(fmt.Sprintf("worker %d: filled up to offset %d, and %d is missing", w.mark.Partition, from.mark.Next, w.filledUpTo))
	}
	w.filler, w.joining = from, newSweep(w.rows.Len())
}

// join gives a user's cells their history, if that is still to be done.
func (w *Worker) join(user int32) {
	if w.filler == nil || !w.joining.take(user) {
		return
	}
	w.joinRow(user)
}

func (w *Worker) joinRow(user int32) {
	if other := w.filler.table.Find(w.table.ID(user)); other >= 0 {
		w.touch(user)
		w.cells.Merge(user, w.filler.cells.View(other), w.filling, w.mark.Clock)
	}
}

// joinSlice joins users, at most budget of them; when all are joined everyone is
// evaluated again. A snapshot under way ends before that: a review takes everybody's timer
// out of the wheel at once, and rows that were still to be written would be without one.
func (w *Worker) joinSlice(budget int) int {
	if w.filler == nil {
		return budget
	}
	for ; budget > 0 && !w.joining.over(); budget-- {
		if user := w.joining.turn(); user >= 0 {
			w.joinRow(user)
		}
	}
	if w.joining.over() && !w.Pending() && w.snap == nil {
		w.filler, w.filling = nil, nil
		w.mark.Rules = 0 // not of all sets
		w.reviewNow()
	}
	return budget
}

// waits tells that a set of the rules looks at cells without history.
func (w *Worker) waits(set int) bool {
	return len(w.filling) > 0 && slices.ContainsFunc(w.filling, func(cell int) bool { return w.cfg.Rules.Asks(set, cell) })
}

// waiting tells that any set of the rules does.
func (w *Worker) waiting() bool {
	for set := range w.place {
		if w.waits(set) {
			return true
		}
	}
	return false
}

// Census begins to count users by the values of the rules' quantiles, as they are at
// the present clock. It must not be Pending.
func (w *Worker) Census() {
	w.census = &census{sweep: newSweep(w.rows.Len()), at: w.mark.Clock, of: make([]segment.Distribution, w.cfg.Rules.Quantiles())}
}

// census is a Census under way.
type census struct {
	sweep
	at schemas.Millis
	of []segment.Distribution
}

// Counted gives what a census has found, when it is over.
func (w *Worker) Counted() (at schemas.Millis, of []segment.Distribution, done bool) {
	c := w.census
	if c == nil || !c.over() {
		return 0, nil, false
	}
	w.census = nil
	return c.at, c.of, true
}

// countUser counts a user as it is, if that is still to be done.
func (w *Worker) countUser(user int32) {
	if w.census != nil && w.census.take(user) {
		w.countRow(user)
	}
}

func (w *Worker) countRow(user int32) {
	pr, v := w.profileOf(user), w.cells.View(user)
	for i := range w.census.of {
		if value, ok := w.eval.Quantity(i, pr, v, w.census.at); ok {
			w.census.of[i].Add(segment.Valued{Value: value, Users: 1})
		}
	}
}

// censusSlice counts users, at most budget of them.
func (w *Worker) censusSlice(budget int) int {
	if w.census == nil {
		return budget
	}
	for ; budget > 0 && !w.census.over(); budget-- {
		if user := w.census.turn(); user >= 0 {
			w.countRow(user)
		}
	}
	return budget
}
