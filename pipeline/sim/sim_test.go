package sim

import (
	"flag"
	"maps"
	"slices"
	"testing"
)

var (
	seeds = flag.Uint64("seeds", 300, "how many seeds to run")
	seed  = flag.Uint64("seed", 0, "run this one seed only")
)

// TestSeeds holds the invariants of design 3 on seeded runs: after all faults, the
// oracle finds nothing lost, doubled or wrong.
func TestSeeds(t *testing.T) {
	first, last := uint64(1), *seeds
	if *seed > 0 {
		first, last = *seed, *seed
	}
	crashes, commits, violations := 0, 0, 0
	faults := map[string]int{}
	for s := first; s <= last; s++ {
		r, err := Run(Options{Seed: s, Steps: 150 + int(s%7)*50, LogTime: s%2 == 0, Calm: s%10 == 0})
		if err == nil {
			err = r.Report.Err()
		}
		if err != nil {
			violations++
			t.Errorf("seed %d: %v\nrepeat: go test ./pipeline/sim -run Seeds -seed %d", s, err, s)
			if violations == 3 {
				t.FailNow()
			}
		}
		crashes += r.Crashes
		commits += r.Commits
		for k, n := range r.Faults {
			faults[k] += n
		}
	}
	for _, k := range slices.Sorted(maps.Keys(faults)) {
		t.Logf("%6d %s", faults[k], k)
	}
	t.Logf("%d crashes, %d commits", crashes, commits)
	t.Logf("%d seeds, %d violations", last-first+1, violations)
}
