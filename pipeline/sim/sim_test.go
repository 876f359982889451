package sim

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
)

// How many seeds, or which one: by flag, else by environment (make sim sets it).
var (
	seeds = flag.Uint64("seeds", number("FOOTFALL_TEST_SEEDS", 40), "how many seeds to run")
	from  = flag.Uint64("from", 1, "the first seed")
	most  = flag.Int("most", 3, "violations after which to stop")
	seed  = flag.Uint64("seed", number("FOOTFALL_TEST_SEED", 0), "run this one seed only")
)

func number(env string, otherwise uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv(env), 10, 64); err == nil {
		return n
	}
	return otherwise
}

// summary is the last line of output of a run that was asked for by environment.
var summary string

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if os.Getenv("FOOTFALL_TEST_SEEDS") != "" && summary != "" {
		fmt.Println(summary)
	}
	os.Exit(code)
}

// options gives a seed its world. Not every world has everything: faults that
// never come alone hide each other.
func options(seed uint64) Options {
	o := Options{Seed: seed, Steps: 150 + int(seed%7)*50, LogTime: seed%2 == 0, Calm: seed%20 == 0 || seed%20 == 11}
	if seed%3 == 0 {
		o.History = int(seed % 50)
	}
	o.Zombies = seed%5 < 2
	if seed%9 == 4 {
		o.Slice, o.Crash = 1, 4
	}
	o.Strays = seed%4 == 1
	o.Pause = seed%6 == 1
	o.Retain = seed%4 == 2
	if seed%8 == 4 {
		o.Wall = seed
	}
	switch seed % 11 {
	case 3:
		o.Overtake = true
	case 5:
		o.Expire = true
	case 7:
		o.Rules = true
	case 9:
		o.Overtake, o.Expire, o.Rules = true, true, true
	}
	return o
}

// TestSeeds holds the invariants of design 3 on seeded runs: after all faults, the
// oracle finds nothing lost, doubled or wrong.
func TestSeeds(t *testing.T) {
	first, last := *from, *from+*seeds-1
	if *seed > 0 {
		first, last = *seed, *seed
	}
	var all Result
	violations := 0
	faults := map[string]int{}
	for s := first; s <= last; s++ {
		o := options(s)
		r, err := Run(o)
		if err != nil {
			violations++
			t.Errorf("seed %d: %v\n%+v\nrepeat: make sim SEED=%d", s, err, o, s)
			if violations == *most {
				break
			}
		}
		all.Crashes += r.Crashes
		all.Commits += r.Commits
		all.Refusals += r.Refusals
		all.Rebuilds += r.Rebuilds
		all.Reviewed += r.Reviewed
		for k, n := range r.Faults {
			faults[k] += n
		}
	}
	for _, k := range slices.Sorted(maps.Keys(faults)) {
		t.Logf("%6d %s", faults[k], k)
	}
	t.Logf("%d crashes, %d commits, %d refusals to begin, %d rebuilds, %d transitions for new rules", all.Crashes, all.Commits, all.Refusals, all.Rebuilds, all.Reviewed)
	summary = fmt.Sprintf("%d seeds, %d violations", last-first+1, violations)
	t.Log(summary)
}

// TestHistoryIsMuted holds that a first start mutes what the log held already, and
// nothing beyond, through any number of crashes: short lives around the end of
// history, timers in small slices.
func TestHistoryIsMuted(t *testing.T) {
	for s := uint64(1); s <= 150; s++ {
		o := Options{Seed: s, Steps: 25, History: 1 + int(s%90), Slice: 1, Crash: 6, LogTime: s%2 == 0, Zombies: s%5 == 0, Retain: s%3 == 0}
		if _, err := Run(o); err != nil {
			t.Fatalf("seed %d: %v\n%+v", s, err, o)
		}
	}
}
