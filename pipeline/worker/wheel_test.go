package worker

import (
	"math/rand/v2"
	"slices"
	"testing"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// naiveWheel is a due time a row, looked through every time.
type naiveWheel []schemas.Millis

// next gives the earliest due time that is not after to.
func (n naiveWheel) next(to schemas.Millis) (due schemas.Millis, ok bool) {
	due = slices.Min(n)
	return due, due <= to && due != schemas.Never
}

// check looks at every slot: each row that has a due time stands in the slot that
// it names, once, and no other does.
func (w *wheel) check(t *testing.T, want naiveWheel) {
	t.Helper()
	seen := make([]bool, len(want))
	for level := range wheelLevels {
		for i := range 64 {
			if w.occupied[level]&(1<<i) == 0 {
				continue
			}
			prev := int32(-1)
			for row := w.slots[level][i]; row >= 0; row = w.link(row).next {
				l := w.link(row)
				if lv, ix := slot(l.due, w.now); lv != level || ix != i || l.due < w.now || l.prev != prev || seen[row] {
					t.Fatalf("now %d: row %d due %d stands in slot %d/%d after row %d, want %d/%d after %d, once", w.now, row, l.due, level, i, l.prev, lv, ix, prev)
				}
				seen[row], prev = true, row
			}
		}
	}
	armed := 0
	for row, due := range want {
		if got := w.due(int32(row)); got != due || seen[row] != (due != schemas.Never) {
			t.Fatalf("now %d: row %d: got due %d, in a slot: %t, want %d", w.now, row, got, seen[row], due)
		}
		if due != schemas.Never {
			armed++
		}
	}
	if w.armed != armed {
		t.Fatalf("armed: got %d, want %d", w.armed, armed)
	}
}

// someDue chooses a due time from now on that seeks the wheel's edges: near and
// very far, ends of levels, and a few moments that many rows share.
func someDue(rng *rand.Rand, now schemas.Millis) schemas.Millis {
	switch rng.IntN(6) {
	case 0:
		return now
	case 1:
		return now + schemas.Millis(rng.Int64N(64))
	case 2: // the end of a span, and the beginning of the next
		level := 6 * rng.IntN(10)
		return max(now, ((now>>level)+1)<<level+schemas.Millis(rng.IntN(3)-1))
	case 3:
		return max(now, (now|0xfffff)+1)
	case 4: // as far as there is time
		return schemas.Never - 1 - schemas.Millis(rng.IntN(3))
	}
	return now + schemas.Millis(rng.Int64N(min(1<<(1+rng.IntN(60)), int64(schemas.Never-now))))
}

func TestWheelIsASortedList(t *testing.T) {
	seeds(t, 300, func(t *testing.T, rng *rand.Rand) {
		start := schemas.Millis(1)
		if rng.IntN(2) == 0 {
			start = base
		}
		w := wheel{now: start, rows: &profile.Slab[row]{}}
		rows := 1 + rng.IntN(60)
		want := make(naiveWheel, rows)
		for row := range want {
			w.grow()
			want[row] = schemas.Never
		}
		for range 200 {
			row := int32(rng.IntN(rows))
			switch rng.IntN(8) {
			case 0:
				w.remove(row)
				want[row] = schemas.Never
			case 1, 2:
				to := min(someDue(rng, w.now), schemas.Never-1000) // time has no end
				turnAndCompare(t, &w, want, to, 1+rng.IntN(rows), rng)
			default:
				due := min(someDue(rng, w.now), schemas.Never-2)
				w.arm(row, due)
				want[row] = min(want[row], due) // a later one leaves it where it is
			}
			w.check(t, want)
		}
	})
}

// turnAndCompare fires at most budget rows due by to, arming some of them again.
func turnAndCompare(t *testing.T, w *wheel, want naiveWheel, to schemas.Millis, budget int, rng *rand.Rand) {
	t.Helper()
	for ; budget > 0; budget-- {
		row, due := w.turn(to)
		next, ok := want.next(to)
		if ok != (row >= 0) || ok && (due != next || want[row] != due || w.now != due) {
			t.Fatalf("turn to %d: got row %d due %d, now %d; want one due %d (%t)", to, row, due, w.now, next, ok)
		}
		if !ok {
			if w.now <= to {
				t.Fatalf("turn to %d found nothing and left the wheel at %d", to, w.now)
			}
			return
		}
		w.remove(row)
		want[row] = schemas.Never
		if again := someDue(rng, due+1); rng.IntN(2) == 0 && again < schemas.Never-2 {
			w.arm(row, again)
			want[row] = again
		}
	}
}

// Rows of one millisecond fire in any order, and all of them.
func TestWheelFiresTenThousandRowsOfOneMillisecond(t *testing.T) {
	w := wheel{now: base, rows: &profile.Slab[row]{}}
	const n = 10_000
	due := base + 90*schemas.Day
	for row := range int32(n) {
		w.grow()
		w.arm(row, due)
	}
	if row, _ := w.turn(due - 1); row >= 0 {
		t.Fatalf("row %d fired a millisecond early", row)
	}
	fired := make([]bool, n)
	for range n {
		row, at := w.turn(due)
		if row < 0 || at != due || fired[row] {
			t.Fatalf("got row %d at %d, want another at %d", row, at, due)
		}
		fired[row] = true
		w.remove(row)
	}
	if row, _ := w.turn(due); row >= 0 || w.armed != 0 {
		t.Fatalf("got row %d and %d armed, want none", row, w.armed)
	}
}

// A timer set before the moment to which the wheel has turned would never fire: a
// broken promise of ours.
func TestWheelRefusesThePast(t *testing.T) {
	w := wheel{now: base, rows: &profile.Slab[row]{}}
	w.grow()
	defer func() {
		if recover() == nil {
			t.Errorf("armed at %d, before %d", base-1, base)
		}
	}()
	w.arm(0, base-1)
}
