package worker

import "footfall/schemas"

// Due is a transition that silence alone will bring.
type Due struct {
	Set, From, To uint16
	At            schemas.Millis
}

// duesMost is how many transitions of one user in one set are foreseen (R4): rules of
// calendar days may move somebody every day for ever.
const duesMost = 64

// forecastMoments is how many moments a call of Forecast looks at (R4), but for those of its
// last user: there is one for everything that passes out of a window, and for each period of
// the calendar.
const forecastMoments = 1 << 13

// Forecast calls each with the users from a row on, at most n of them, of whom silence
// alone will move some: with all their transitions up to a moment, by set and then in the
// order of time. It is the worker's memory: good until the call returns. Forecast returns
// the row to go on with, or -1 after the last one, and changes nothing.
func (w *Worker) Forecast(row int32, n int, until schemas.Millis, each func(user []byte, dues []Due)) (next int32) {
	end := int32(min(int64(row)+int64(n), int64(w.rows.Len())))
	for looked := w.eval.Evaluations(); row < end && w.eval.Evaluations()-looked < forecastMoments; row++ {
		if w.dues = w.foresee(row, until, w.dues[:0]); len(w.dues) > 0 {
			each(w.table.ID(row), w.dues)
		}
	}
	if row >= int32(w.rows.Len()) {
		return -1
	}
	return row
}

// foresee adds a user's transitions.
func (w *Worker) foresee(row int32, until schemas.Millis, dues []Due) []Due {
	pr, v := w.profileOf(row), w.cells.View(row)
	w.membership(row, w.segments)
	for set, in := range w.segments {
		if in == schemas.NoSegment || w.waits(set) {
			continue
		}
		at := w.mark.Clock
		for range duesMost {
			e := w.eval.Foreseen(pr, v, at, until, set, in, w.others)
			if e.To == schemas.NoSegment {
				break
			}
			dues = append(dues, Due{uint16(set), in, e.To, e.At})
			at, in = e.At, e.To
		}
	}
	return dues
}
