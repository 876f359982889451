package worker

import (
	"fmt"
	"math/bits"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// wheelLevels times six bits hold every due time.
const wheelLevels = 11

// wheel holds one due time a row, in levels of 64 slots (Varghese & Lauck,
// "Hashed and Hierarchical Timing Wheels", SOSP 1987, scheme 7). A slot of level l
// spans 64^l milliseconds; one of level 0 is a single millisecond, so rows fire in
// the order of their due times.
//
// Invariants:
//   - A row is in at most one slot, the one that slot() names.
//   - Every row in the wheel has now <= due, as the wheel knows it.
//   - The due time the wheel knows is never later than the true one.
//
// The third allows lazy re-arming: an event that only moves a due time later
// leaves its row where it is, to be checked when it fires. Active users move
// theirs with every event, so this saves a removal an event for one more check a
// span.
type wheel struct {
	now      schemas.Millis // every timer due before it has fired
	occupied [wheelLevels]uint64
	slots    [wheelLevels][64]int32 // first row of each slot's list, where occupied
	rows     *profile.Slab[row]     // the links are theirs
	armed    int
}

// link is a row's place in the wheel: 16 bytes of the row.
type link struct {
	due        schemas.Millis // Never: not in the wheel
	next, prev int32          // rows of the same slot, -1 at either end
}

// slot returns where a due time belongs, seen from now: the level of the highest
// base-64 digit in which the two differ (0 where none does), and due's digit
// there. It needs now <= due.
func slot(due, now schemas.Millis) (level, index int) {
	level = max(0, bits.Len64(uint64(due)^uint64(now))-1) / 6
	return level, int(uint64(due)>>(6*level)) & 63
}

func (w *wheel) link(row int32) *link { return &w.rows.At(row).link }

// grow adds a row, not in the wheel.
func (w *wheel) grow() {
	*w.link(w.rows.Append()) = link{due: schemas.Never, next: -1, prev: -1}
}

// due is when a row fires, as the wheel knows it.
func (w *wheel) due(row int32) schemas.Millis { return w.link(row).due }

// arm sees to it that row fires at due at the latest: a row that fires earlier
// anyway is left where it is.
func (w *wheel) arm(row int32, due schemas.Millis) {
	if l := w.link(row); l.due > due {
		w.remove(row)
		w.insert(row, due)
	}
}

func (w *wheel) insert(row int32, due schemas.Millis) {
	if due < w.now {
		panic(fmt.Sprintf("worker: timer of row %d set for %d, before %d, to which its wheel has turned", row, due, w.now))
	}
	l := w.link(row)
	l.due, l.prev, l.next = due, -1, -1
	if due == schemas.Never {
		return
	}
	level, i := slot(due, w.now)
	if w.occupied[level]&(1<<i) != 0 {
		l.next = w.slots[level][i]
		w.link(l.next).prev = row
	}
	w.slots[level][i] = row
	w.occupied[level] |= 1 << i
	w.armed++
}

// remove takes a row out of its slot, if it is in one.
func (w *wheel) remove(row int32) {
	l := w.link(row)
	if l.due == schemas.Never {
		return
	}
	if l.prev >= 0 {
		w.link(l.prev).next = l.next
	} else {
		level, i := slot(l.due, w.now)
		w.slots[level][i] = l.next
		if l.next < 0 {
			w.occupied[level] &^= 1 << i
		}
	}
	if l.next >= 0 {
		w.link(l.next).prev = l.prev
	}
	l.due = schemas.Never
	w.armed--
}

// restart empties every slot and turns the wheel to now. Each row must be given
// to take before it is armed again.
func (w *wheel) restart(now schemas.Millis) {
	w.now, w.armed = now, 0
	w.occupied = [wheelLevels]uint64{}
}

// take returns what a row's due time was before a restart, and forgets it.
func (w *wheel) take(row int32) (due schemas.Millis) {
	l := w.link(row)
	due, l.due = l.due, schemas.Never
	return due
}

// turn turns the wheel to the earliest due time that is not after to and returns
// a row of that moment, still in the wheel; -1, and the wheel turned past to, when
// there is none. The caller removes the row, fires it, and may arm it again, later
// than it was due.
func (w *wheel) turn(to schemas.Millis) (row int32, due schemas.Millis) {
	for {
		level, i, start := w.first()
		switch {
		case level == 0 && start <= to:
			w.now = start
			return w.slots[0][i], start
		case level > 0 && start <= to+1:
			// Also where the span starts just behind to: rows in it belong to
			// lower levels once the wheel has turned that far.
			w.cascade(level, i, start)
		default:
			w.now = max(w.now, to+1)
			return -1, 0
		}
	}
}

// first finds the earliest slot that is not empty and the first moment of it;
// level -1 when there is none. A lower level's slots all lie before a higher
// level's: their rows differ from now in lower digits only.
func (w *wheel) first() (level, index int, start schemas.Millis) {
	for level := range wheelLevels {
		if o := w.occupied[level]; o != 0 {
			i := bits.TrailingZeros64(o)
			shift := 6 * level
			above := uint64(w.now) >> shift >> 6 << 6 << shift
			return level, i, schemas.Millis(above | uint64(i)<<shift)
		}
	}
	return -1, 0, 0
}

// cascade turns the wheel to the start of a slot's span and moves the slot's rows
// to the levels below: amortised, once a level for each row.
func (w *wheel) cascade(level, i int, start schemas.Millis) {
	row := w.slots[level][i]
	w.occupied[level] &^= 1 << i
	w.now = start
	for row >= 0 {
		l := w.link(row)
		next := l.next
		w.armed--
		w.insert(row, l.due)
		row = next
	}
}
