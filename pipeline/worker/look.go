package worker

import (
	"footfall/pipeline/profile"
	"footfall/schemas"
)

// Seen is one user, as who looks at all of them sees it. It is the worker's memory: good
// until the call returns, and not to be changed.
type Seen struct {
	Row      int32
	ID       []byte
	Profile  *profile.Profile
	Segments []uint16 // [sets of the rules]; NoSegment where nothing was said that the rules have
}

// Look calls each with the users from a row on, at most n of them, in the order in which
// they came. It returns the row to go on with, or -1 after the last one.
func (w *Worker) Look(row int32, n int, each func(*Seen)) (next int32) {
	end := min(row+int32(n), int32(w.rows.Len()))
	for ; row < end; row++ {
		w.membership(row, w.others)
		each(&Seen{Row: row, ID: w.table.ID(row), Profile: w.profileOf(row), Segments: w.others})
	}
	if int(end) == w.rows.Len() {
		return -1
	}
	return end
}

// membership writes what was last said of a user into into, [sets of the rules].
func (w *Worker) membership(user int32, into []uint16) {
	for set, place := range w.place {
		into[set] = schemas.NoSegment
		if m := w.member(user, place); m.seq > 0 && w.from[set][m.segment] != schemas.Retired {
			into[set] = w.from[set][m.segment]
		}
	}
}
