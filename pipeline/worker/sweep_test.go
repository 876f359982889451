package worker

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Every row has one turn, in order, but for those that were done before it; whatever is
// taken early, and however few of them there are.
func TestASweepDoesEveryRowOnce(t *testing.T) {
	seeds(t, 300, func(t *testing.T, rng *rand.Rand) {
		n := rng.IntN(1 << rng.IntN(11))
		of := make([]uint64, (n+63)/64)
		var want, got []int32
		s := newSweep(n)
		some := rng.IntN(2) == 0
		rare := 1 << rng.IntN(9)
		for row := range int32(n) {
			if in := rng.IntN(rare) == 0; in || !some {
				want = append(want, row)
				of[row/64] |= 1 << (row % 64)
			}
		}
		if some {
			s = newSweepOf(of, n)
		}
		for !s.over() {
			if early := int32(rng.IntN(n + 10)); rng.IntN(4) == 0 && s.take(early) {
				got = append(got, early)
			}
			if row := s.turn(); row >= 0 {
				got = append(got, row)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("of %d rows: got %v, want %v", n, got, want)
		}
		if s.next != s.end || s.turn() >= 0 {
			t.Errorf("over at %d of %d", s.next, s.end)
		}
	})
}
