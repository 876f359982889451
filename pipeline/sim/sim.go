package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"footfall/pipeline"
	"footfall/pipeline/oracle"
	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Topics of the simulated broker.
const (
	group  = "sim"
	events = "events"
)

// Options are what a run varies besides its seed.
type Options struct {
	Seed  uint64 // of the shop: the log is a function of it, of Steps, LogTime and History
	Fault uint64 // seed of everything else; Seed if 0
	Steps int    // polls before faults stop, and publishing with them

	LogTime bool // everything comes in lane replay: the chains are a function of the log alone
	Calm    bool // no fault at all
	History int  // rounds of publishing before the first start

	Wall    uint64 // seed of a wall that jumps; 0: the wall is the shop's. Years in log time, else minutes
	Pause   bool   // triggers are paused and resumed
	Zombies bool   // processes are stopped in the middle of anything, and wake up robbed
	Strays  bool   // the bucket gets snapshots of futures that were never committed
	Retain  bool   // retention removes what nobody needs any more
	Slice   int    // timers fired in one call at most; 0: any number, another in each life
	Crash   int    // how many times likelier a crash is; 0: once

	// With any of these the oracle cannot say what to expect: what was said then
	// depends on when it happened. Chains, numbers and where everybody ends up are
	// checked all the same.
	Overtake bool // retention removes what is needed: only --rebuild helps
	Expire   bool // the group's offsets expire
	Rules    bool // a life begins with other rules, or after one that had others and said otherwise
}

// lineageBroken tells that the oracle cannot be asked.
func (o *Options) lineageBroken() bool { return o.Overtake || o.Expire || o.Rules }

// Result is what a run came to.
type Result struct {
	Report   *oracle.Report // nil where the oracle cannot be asked
	Crashes  int
	Commits  int
	Refusals int            // lives that ended with an error that asks for a person, rightly
	Rebuilds int            // partitions brought back by --rebuild
	Reviewed int            // transitions said for new rules
	Faults   map[string]int // how often each happened
	Outputs  []Said         // everything committed, by partition, in order of n
}

// Said is one committed output, as a reader of the topics sees it.
type Said struct {
	Item   worker.Item
	Topic  string
	Record oracle.Record
}

// grace is how far ticks stay behind the wall (design 3.5).
const grace = 2 * schemas.Second

// errCrash is the process's sudden end: nothing after it is seen by anyone.
var errCrash = fmt.Errorf("crashed: %w", pipeline.ErrPermanent)

// errTimeout is a commit whose outcome its sender does not learn.
var errTimeout = errors.New("simulated time-out")

// errGone is a read before the log's start.
var errGone = errors.New("offset out of range")

// contracts are the rules that lives are lived under; all but Options.Rules know
// the first one only.
func contracts() []schemas.Contract {
	return []schemas.Contract{
		{Currency: "EUR", Rates: map[string]string{"USD": "0.905"}},
		{Currency: "EUR", Rates: map[string]string{"USD": "0.91"}},
	}
}

// rules is one of them, compiled.
type rules struct {
	program *segment.Program
	decoder func() *schemas.Decoder
}

// world is the simulated outside: the log, the group, the bucket and the clocks.
type world struct {
	opt    Options
	rng    *rand.Rand // faults, batches, slices
	walls  *rand.Rand
	jump   schemas.Millis // of the wall, against the shop's time
	drift  schemas.Millis // time spent waiting, which the shop does not see
	names  []schemas.SetNames
	parts  []*part
	bucket *bucket
	shop   *shop
	rules  []rules
	using  int // index in rules

	steps    int
	paused   bool
	rebuild  bool // the next life is started with --rebuild
	finished bool
	broken   error             // an invariant that does not hold
	latest   schemas.Millis    // that the wall has ever shown
	stats    []pipeline.Status // of the process that was the last
	result   Result
}

// part is one partition of every topic, and what the group knows of it.
type part struct {
	number int32

	start   int64 // of the input log; retention moves it
	ends    int64 // offset after the last input record
	input   []worker.Record
	said    []schemas.Millis // the shop's time when input[i] was published
	outputs []Said
	visible int // outputs that a read_committed reader sees: markers come late

	committed string
	next      int64 // offset committed with it
	found     bool
	mark      schemas.Mark // the last one ever committed, expired or not

	owner *process // nil: nobody
	epoch int64

	boot   int64             // first offset that is not history, as the first commit says
	folded int64             // profiles are made of what the log has from here on
	hashes map[uint64]uint64 // committed hash of outputs, by number: the lineage
}

// Run runs one seed.
func Run(opt Options) (*Result, error) {
	if opt.Fault == 0 {
		opt.Fault = opt.Seed
	}
	w := &world{
		opt: opt,
		rng: rand.New(rand.NewPCG(opt.Fault, 7)), walls: rand.New(rand.NewPCG(opt.Wall, 9)), //nolint:gosec // a simulation wants to be repeatable
	}
	for _, c := range contracts() {
		probe, err := schemas.NewDecoder(c)
		if err != nil {
			return nil, err
		}
		w.rules = append(w.rules, rules{segment.Lifecycle(probe.Hash()), func() *schemas.Decoder {
			d, err := schemas.NewDecoder(c)
			if err != nil {
				panic(err) // it worked a moment ago
			}
			return d
		}})
	}
	w.names = w.rules[0].program.Names()
	w.result.Faults = map[string]int{}
	w.bucket = &bucket{world: w, objects: map[string][]byte{}, hashes: map[string]uint64{}, bad: map[string]bool{}}
	w.shop = newShop(w)
	for range opt.History {
		w.shop.round()
	}
	if w.rules[0].program.Hash() == w.rules[1].program.Hash() {
		return nil, errors.New("contracts with other rates have rules of the same hash")
	}
	err := w.lives()
	for _, p := range w.parts {
		w.result.Outputs = append(w.result.Outputs, p.outputs...)
	}
	if err == nil {
		err = w.judge()
	}
	if err != nil {
		return &w.result, fmt.Errorf("step %d: %w", w.steps, err)
	}
	return &w.result, nil
}

// lives lives one process after the other, until all is through.
func (w *world) lives() error {
	for !w.finished {
		w.between()
		w.live(0, -1)
		if w.broken != nil {
			return w.broken
		}
	}
	return nil
}

// workerConfig is what workers decide by, all but the decoder.
func (w *world) workerConfig(slice int) worker.Config {
	c := worker.Config{
		Rules: w.rules[w.using].program,
		Ahead: 5 * schemas.Minute, MaxSkew: 5 * schemas.Minute, MaxAge: schemas.Day,
		DedupWindow: schemas.Hour, DedupBudget: 1 << 20, Slice: slice,
	}
	if w.opt.LogTime {
		c.Lane = schemas.Replay
	}
	return c
}

// breach notes that an invariant does not hold, and ends the process that saw it.
func (w *world) breach(format string, args ...any) error {
	if w.broken == nil {
		w.broken = fmt.Errorf(format, args...)
	}
	return errCrash
}

// now is the time in which the world lives, and wall what its clocks show.
func (w *world) now() schemas.Millis { return w.shop.now + w.drift }

func (w *world) wall() schemas.Millis {
	wall := w.now() + w.jump
	w.latest = max(w.latest, wall)
	return wall
}

func (w *world) fault(name string) { w.result.Faults[name]++ }

// calm tells that faults are over, so that everything can come through.
func (w *world) calm() bool { return w.opt.Calm || w.ended() }

// ended tells that nothing is published any more.
func (w *world) ended() bool { return w.steps >= w.opt.Steps }

// chance is true in one of oneIn cases, and never when it is calm.
func (w *world) chance(name string, oneIn int) bool {
	if w.calm() || w.rng.IntN(oneIn) != 0 {
		return false
	}
	w.fault(name)
	return true
}

// restless is how many polls more than it has steps a run may take to come to rest.
const restless = 3000

// advance lets the world go on by one step.
func (w *world) advance() error {
	if w.steps++; w.steps > w.opt.Steps+restless {
		return w.breach("does not come to rest: %d polls after the last record something is still to be done", restless)
	}
	for _, p := range w.parts { // some commit markers arrive
		if p.visible < len(p.outputs) {
			p.visible += w.rng.IntN(len(p.outputs) - p.visible + 1)
		}
	}
	if w.opt.Wall != 0 && w.walls.IntN(10) == 0 {
		w.jumpWall()
	}
	if w.ended() {
		w.drift += schemas.Minute
		return nil
	}
	w.shop.round()
	if w.opt.Pause && w.chance("paused or resumed", 15) {
		w.paused = !w.paused
	}
	return nil
}

// jumpWall sets the clocks of the machines. Forward by any number of years in log
// time, where the wall decides nothing; it never lies before the log, where every
// record would rightly be one from the future. Backward by minutes otherwise.
func (w *world) jumpWall() {
	if w.opt.LogTime {
		w.jump = schemas.Millis(w.walls.Int64N(int64(20 * 365 * schemas.Day)))
	} else {
		w.jump = -schemas.Millis(w.walls.Int64N(int64(4 * schemas.Minute)))
	}
}
