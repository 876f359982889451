package worker

import (
	"math/rand/v2"
	"testing"
)

func TestOffsetsAreASet(t *testing.T) {
	seeds(t, 200, func(t *testing.T, rng *rand.Rand) {
		var o offsets
		want := map[int64]bool{}
		next, runs := int64(0), 0
		for range rng.IntN(200) {
			gap := rng.Int64N(3) * rng.Int64N(5)
			if gap > 0 || runs == 0 {
				runs++
			}
			next += gap
			o.add(next)
			want[next] = true
			next++
		}
		if len(o.runs) > runs {
			t.Errorf("got %d runs, want at most %d: a storm of refused records is one", len(o.runs), runs)
		}
		before := int64(0)
		for range 4 {
			for offset := int64(-1); offset <= next+1; offset++ {
				// A run that reaches over the cut is kept whole.
				if got := o.has(offset); got != want[offset] && offset >= before {
					t.Fatalf("forgot before %d: has %d: got %t, want %t", before, offset, got, want[offset])
				}
			}
			before += rng.Int64N(next + 2)
			o.forget(before)
			if len(o.runs) > 0 && o.runs[0].to <= before {
				t.Fatalf("forgot before %d, and kept %+v", before, o.runs[0])
			}
		}
	})
}
