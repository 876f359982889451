package sim

import (
	"encoding/binary"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"footfall/schemas"
)

// How many seeds, or which one: by flag, else by environment (make sim sets it).
var (
	seeds = flag.Uint64("seeds", number("FOOTFALL_TEST_SEEDS", 40), "how many seeds to run")
	from  = flag.Uint64("from", 1, "the first seed")
	most  = flag.Int("most", 3, "violations after which to stop")
	trace = flag.Bool("trace", false, "with -seed: tell all that happens")
	seed  = flag.Uint64("seed", number("FOOTFALL_TEST_SEED", 0), "run this one seed only")
)

func number(env string, otherwise uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv(env), 10, 64); err == nil {
		return n
	}
	return otherwise
}

func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(2000) // worlds are small, and short-lived
	debug.SetMemoryLimit(1 << 30)
	os.Exit(m.Run())
}

// options gives a seed its world. Not every world has everything: faults that
// never come alone hide each other.
func options(seed uint64) Options {
	o := Options{Seed: seed, Steps: 150 + int(seed%7)*50, LogTime: seed%2 == 0, Calm: seed%20 == 0 || seed%20 == 11}
	o.Processes = 1 + int(seed/2%3)
	if o.Calm && seed%3 > 0 {
		o.Processes = 1
	}
	o.Archives = int(seed % 5 / 2)
	if seed%3 == 0 {
		o.History = int(seed % 50)
	}
	o.Zombies = seed%5 < 3
	o.Twins = o.Zombies && seed%7 == 1
	if seed%9 == 4 {
		o.Slice, o.Crash = 1, 4
	}
	o.Strays = seed%4 == 1
	o.Foreign = seed%12 == 3
	o.Pause = seed%6 == 1
	o.Retain = seed%4 == 2
	o.Deltas = int(seed / 3 % 5) // 0: every snapshot is whole
	o.Hot = seed%13 == 5
	o.Poison = seed%10 == 7
	if seed%17 == 8 {
		o.Crowd = 120
	}
	if seed%8 == 4 || seed%8 == 3 {
		o.Wall, o.Years = seed, seed%16 == 3
	}
	if seed%3 > 0 {
		o.Jump = 7 * schemas.Day
	}
	if seed%7 == 5 {
		o.Outage = 1 + Outage(seed/7%3)
	}
	if seed%14 == 9 {
		o.Outage = BucketSlow + Outage(seed/14%2)
	}
	if seed%21 == 11 {
		o.Outage = KafkaSlow
	}
	o.Vanish = seed%16 == 6
	o.Sick = seed%19 == 2 || seed%19 == 14
	switch seed % 11 {
	case 3:
		o.Overtake = true
	case 5:
		o.Expire = true
	case 7:
		o.Rules = true
	case 8:
		o.SetBack = seed%2 == 1
	case 9:
		o.Overtake, o.Expire, o.Rules = true, true, true
	}
	o.Sets = seed/3%4 == 1 && !o.Rules
	o.Past = o.Sets && seed%5 < 3
	o.Retain = o.Retain || o.Past && !o.SetBack
	if o.lineageBroken() {
		o.Years = false // whoever rebuilds looks at the clock first
	}
	return o
}

// TestSeeds holds the invariants of design 3 on seeded runs: after all faults, the
// oracle finds nothing lost, doubled or wrong, and the table has what the topics
// have. Seeds run side by side, and are reported in their order.
func TestSeeds(t *testing.T) {
	first, last := *from, *from+*seeds-1
	if *seed > 0 {
		first, last = *seed, *seed
	}
	runs, violations := runAll(first, last)
	all := Result{Faults: map[string]int{}}
	hash := xxhash.New()
	for i, r := range runs {
		if r.err != nil {
			t.Errorf("seed %d: %v\n%+v\nrepeat: make sim SEED=%d", first+uint64(i), r.err, options(first+uint64(i)), first+uint64(i))
		}
		all.add(r.Result)
		_ = binary.Write(hash, binary.LittleEndian, r.Hash)
	}
	for _, k := range slices.Sorted(maps.Keys(all.Faults)) {
		t.Logf("%7d %s", all.Faults[k], k)
	}
	t.Logf("%d processes, %d killed, %d commits, %d refusals to begin, %d rebuilds, %d transitions for new rules, %d rows in tables",
		all.Lives, all.Crashes, all.Commits, all.Refusals, all.Rebuilds, all.Reviewed, all.Rows)
	t.Logf("%d snapshots held what had changed, %d recoveries read some of these, %d seeds lost what the oracle needs", all.Deltas, all.FromDeltas, all.Untold)
	t.Logf("%d rules switched, %d histories filled, %d with the archive, %d transitions for other epochs, %d withheld by policies, %d recomputed, %d segments rehearsed",
		all.Switches, all.Filled, all.Archived, all.Epochs, all.Withheld, all.Remade, all.Rehearsed)
	if spent := cpu(); spent > 0 {
		t.Logf("%.0f seeds a minute a core", float64(len(runs))/spent.Minutes())
	}
	t.Logf("hash %016x", hash.Sum64())
	t.Logf("%d seeds, %d violations", len(runs), violations)
}

// run is one seed's.
type run struct {
	*Result
	err error
}

// runAll runs seeds, as many at once as there are processors, until too many have
// failed. It returns those that ran, without a gap.
func runAll(first, last uint64) (runs []run, violations int) {
	runs = make([]run, last-first+1)
	next := make(chan int)
	var failed atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				o := options(first + uint64(i))
				if *trace {
					o.Trace = func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
				}
				if runs[i].Result, runs[i].err = Run(o); runs[i].err != nil {
					failed.Add(1)
				}
				runs[i].Outputs, runs[i].Early, runs[i].Report = nil, nil, nil // they are large, and the hash is of them
			}
		})
	}
	for i := range runs {
		if failed.Load() >= int64(*most) {
			runs = runs[:i]
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	return runs, int(failed.Load())
}

func (r *Result) add(o *Result) {
	r.Lives += o.Lives
	r.Crashes += o.Crashes
	r.Commits += o.Commits
	r.Deltas += o.Deltas
	r.FromDeltas += o.FromDeltas
	r.Refusals += o.Refusals
	r.Rebuilds += o.Rebuilds
	r.Untold += o.Untold
	r.Reviewed += o.Reviewed
	r.Rows += o.Rows
	r.Switches += o.Switches
	r.Filled += o.Filled
	r.Archived += o.Archived
	r.Epochs += o.Epochs
	r.Withheld += o.Withheld
	r.Remade += o.Remade
	r.Rehearsed += o.Rehearsed
	for k, n := range o.Faults {
		r.Faults[k] += n
	}
}

// cpu is how long the process has kept processors busy.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestOneSeedIsOneRun holds that a seed decides everything: run again, and on one
// processor or two, it comes to the same hash of all that happened and is there in
// the end.
func TestOneSeedIsOneRun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for s := uint64(1); s <= 24; s++ {
		var first uint64
		for i, procs := range []int{2, 1, 2} {
			runtime.GOMAXPROCS(procs)
			r, err := Run(options(s))
			if err != nil {
				t.Fatalf("seed %d: %v", s, err)
			}
			if i == 0 {
				first = r.Hash
			} else if r.Hash != first {
				t.Errorf("seed %d: hash %016x, and %016x on %d processors", s, first, r.Hash, procs)
			}
		}
	}
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

// TestSetsAreMet holds that worlds of many sets meet what they are for: rules are switched,
// histories found, epochs begun, and what comes of it is recomputed.
func TestSetsAreMet(t *testing.T) {
	all := Result{Faults: map[string]int{}}
	for s := uint64(1); s <= 30; s++ {
		o := Options{Seed: s, Steps: 250, Sets: true, LogTime: s%2 == 0, Processes: 1 + int(s%3), Zombies: s%5 == 0, Retain: s%3 != 1, Past: s%3 != 1, Calm: s%10 == 0}
		r, err := Run(o)
		if err != nil {
			t.Fatalf("seed %d: %v\n%+v", s, err, o)
		}
		all.add(r)
	}
	for what, n := range map[string]int{
		"rules switched": all.Switches, "histories filled": all.Filled, "histories of what the log had no more": all.Archived, "transitions for other epochs": all.Epochs, "transitions for new rules": all.Reviewed,
		"transitions withheld by policies": all.Withheld, "transitions recomputed": all.Remade, "segments rehearsed": all.Rehearsed,
	} {
		if n < 20 {
			t.Errorf("%d %s, want at least 20", n, what)
		}
	}
}
