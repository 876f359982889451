package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"

	"footfall/pipeline"
	"footfall/pipeline/archive"
	"footfall/pipeline/oracle"
	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Topics of the simulated broker.
const (
	group       = "sim"
	events      = "events"
	triggers    = "triggers"
	muted       = "muted"
	deadLetters = "deadletters"
)

// Options are what a run varies besides its seed.
type Options struct {
	Seed  uint64 // of the shop: the log is a function of it, of Steps, LogTime, History, Hot, Crowd, Poison and Sets
	Fault uint64 // seed of everything else; Seed if 0
	Steps int    // of the world before faults stop, and publishing with them

	Processes int // of footfall, at most at once; 1 if 0
	Archives  int // processes that fill the table, at most at once; 0: there is no table

	LogTime bool // everything comes in lane replay: the chains are a function of the log alone
	Calm    bool // no fault at all
	History int  // rounds of publishing before the first start
	Hot     bool // half of all records are of one user
	Crowd   int  // users who come within one second, and never again
	Poison  bool // hostile records

	Wall    uint64         // seed of walls that jump: by years in log time or with Years, else by minutes; 0: none does
	Years   bool           // walls jump by years, and nobody lives in log time
	Jump    schemas.Millis // how far ticks may go at once; 0: any
	Pause   bool           // triggers are paused and resumed
	Zombies bool           // processes are stopped in the middle of anything, and wake up robbed
	Twins   bool           // a process that is stopped is started a second time, under the same name
	Strays  bool           // the bucket gets snapshots of futures that were never committed
	Foreign bool           // the bucket gets objects of another cluster, and rubbish
	Deltas  int            // snapshots that may follow a whole one and hold what has changed
	Retain  bool           // retention removes what nobody needs any more
	Slice   int            // timers fired in one call at most; 0: any number, another in each life
	Crash   int            // how many times likelier a kill is; 0: once
	Large   bool           // polls, transactions and slices of snapshots are as large as in production: never cut
	Outage  Outage         // what is away for an hour, or slow
	Sick    bool           // partitions of output topics take no writes for a while
	Vanish  bool           // an acknowledged snapshot is not there, or goes later: a tidy person, a bucket that forgets
	Doom    Doom           // what happens to the input half-way, after which nothing may be said any more

	// With any of these the oracle cannot say what to expect: what was said then
	// depends on when it happened. Chains, numbers and where everybody ends up are
	// checked all the same.
	Overtake bool // retention removes what is needed, of the input and of the outputs: only --rebuild helps
	Expire   bool // the group's offsets expire
	Rules    bool // a life begins with other rules, or after one that had others and said otherwise
	SetBack  bool // a committed offset is set back to one that was committed before

	// Sets has rules of several sets, which are switched while lives live (sets.go). The
	// oracle judges lifecycle among them.
	Sets bool
	Past bool // an archive has what retention has removed, for histories of new sets

	absent bool // the table cannot be reached until faults stop; no time passes for it

	// Controls: what is wrong on purpose, see TestNaiveSinkIsFound.
	naive   func(archive.Log, archive.Table) func(context.Context) error // takes the archive's place
	ignores bool                                                         // records that a broker refuses are missing from what is committed

	// Trace is told what happens, to look at one seed.
	Trace func(format string, args ...any)
}

// Outage is what cannot be reached for an hour or longer, or takes its time.
type Outage int

// What there is to be away.
const (
	NoOutage Outage = iota
	BucketAway
	KafkaAway
	TableAway
	BucketSlow
	TableSlow
	KafkaSlow
)

// String says it.
func (o Outage) String() string {
	return [...]string{"nothing is away", "bucket away for an hour", "Kafka away for an hour", "table away for an hour", "bucket slow for an hour", "table slow for an hour", "Kafka slow for an hour"}[o]
}

// Doom is what no footfall can go on after.
type Doom int

// What there is to be doomed by.
const (
	NoDoom   Doom = iota
	MadeAnew      // the topic is deleted, and made again under its name
	Expanded      // all topics get more partitions
)

// lineageBroken tells that the oracle cannot be asked.
func (o *Options) lineageBroken() bool { return o.Overtake || o.Expire || o.Rules || o.SetBack }

// Result is what a run came to.
type Result struct {
	Hash       uint64         // of everything that happened and is there in the end
	Report     *oracle.Report // nil where the oracle cannot be asked
	Lives      int
	Crashes    int
	Commits    int
	Deltas     int            // snapshots published that hold what has changed
	FromDeltas int            // recoveries that read some
	Refusals   int            // lives that ended with an error that asks for a person, rightly
	Rebuilds   int            // partitions brought back by --rebuild
	Untold     int            // worlds of which nobody can say what had to be said (countedTwice)
	Reviewed   int            // transitions said for new rules
	Switches   int            // of a process's rules, while it lived
	Filled     int            // histories found
	Archived   int            // of them, with records that the log had no more
	Epochs     int            // transitions said for other bounds of quantiles
	Withheld   int            // transitions muted by policies
	Remade     int            // transitions recomputed from the user's events
	Rehearsed  int            // segments compared with those of a worker that had the rules from the beginning
	Rows       int            // in the table
	Waited     int            // steps from a record's publication to its commit, at most; of those after settledIn
	Faults     map[string]int // how often each happened
	Outputs    []Said         // everything committed, by partition, in order of n
	Early      [][]Said       // of each partition: those of Outputs that there were when faults stopped
}

// Said is one committed output, as a reader of the topics sees it.
type Said struct {
	Item   worker.Item
	Topic  string
	Record oracle.Record

	Set, From, To string // of a transition, by their names
	by            int    // which of the world's rules it was said under

	decoded *schemas.Transition // see world.decode
}

// chain is of what a transition is: a user in a set.
type chain struct{ user, set string }

func (o *Said) chain() chain { return chain{o.Item.Transition.User, o.Set} }

// settledIn is how many steps a run is given to settle: a crowd comes before.
const settledIn = 40

// grace is how far ticks stay behind the wall (design 3.5).
const grace = 2 * schemas.Second

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

// world is the simulated outside: topics, groups, bucket, table and clocks, and who
// lives in it.
type world struct {
	opt    Options
	rng    *rand.Rand // faults, batches, slices, whose turn it is
	walls  *rand.Rand
	dice   *rand.Rand // of the table and its archives, which must not change what is said
	sets   *rand.Rand // of rules, and the control log
	gone   *rand.Rand // of snapshots that vanish, and of outputs that can't be written: a seed without is what it was
	aside  *rand.Rand // of what must not change anything else: which checks are made, in which order keys are listed
	digest xxhash.Digest

	jump   schemas.Millis // of the wall, against the shop's time
	drift  schemas.Millis // time spent waiting, which the shop does not see
	latest schemas.Millis // that any wall has ever shown
	shown  []walls        // by step

	names  []schemas.SetNames
	parts  []*part
	group  groupOf
	bucket *bucket
	shop   *shop
	rules  []rules
	using  int // index in rules: what is configured
	family int // of recipes, that rules are of

	control []segment.LogRecord // by which epochs of quantiles are agreed on
	agreed  inForce
	slots   []*slot
	lives   []*process // in order of their beginning
	bins    *archives  // nil: none
	limits  limits

	steps    int
	retained int    // step in which retention was last at work
	away     Outage // what cannot be reached now
	back     int    // step at which it can be reached again
	paused   bool
	rebuild  bool // the next life is started with --rebuild
	ending   bool // all is done; everybody is told to end
	doomed   bool
	topic    string // id of the input topic
	broken   error  // an invariant that does not hold
	result   Result
	stats    []pipeline.Status // of the process that saw it all, where one did
}

// limits vary by seed, in steps.
type limits struct {
	session     int // in which a process must be heard of
	transaction int // after which an open one is aborted
	revoke      int // a rebalance waits for so long
}

// lifecycles are the lifecycle's rules by each contract. All worlds share the programs, which
// are immutable.
//
//nolint:gochecknoglobals // to compile them takes a part of the time of a seed
var lifecycles = sync.OnceValue(func() (all []rules) {
	for _, c := range contracts() {
		decoder := func() *schemas.Decoder {
			d, err := schemas.NewDecoder(c)
			if err != nil {
				panic(err)
			}
			return d
		}
		all = append(all, rules{segment.Lifecycle(decoder().Hash()), decoder})
	}
	return all
})

// Run runs one seed.
func Run(opt Options) (*Result, error) {
	if opt.Fault == 0 {
		opt.Fault = opt.Seed
	}
	w := &world{
		opt: opt,
		rng: rand.New(rand.NewPCG(opt.Fault, 7)), walls: rand.New(rand.NewPCG(opt.Wall, 9)), //nolint:gosec // a simulation wants to be repeatable
		dice: rand.New(rand.NewPCG(opt.Fault, 10)), aside: rand.New(rand.NewPCG(opt.Fault, 11)), sets: rand.New(rand.NewPCG(opt.Fault, 12)), gone: rand.New(rand.NewPCG(opt.Fault, 13)), //nolint:gosec // a simulation wants to be repeatable
	}
	w.digest.Reset()
	w.topic = "a"
	w.rules = slices.Clone(lifecycles())
	if w.rules[0].program.Hash() == w.rules[1].program.Hash() {
		return &Result{}, errors.New("contracts with other rates have rules of the same hash")
	}
	if opt.Sets {
		w.chooseRules(w.rules[0].decoder)
	}
	w.names = w.rules[0].program.Names()
	w.result.Faults = map[string]int{}
	w.limits = limits{session: 2 + w.rng.IntN(6), transaction: 2 + w.rng.IntN(8), revoke: 2 + w.rng.IntN(6)}
	w.bucket = newBucket(w)
	w.shop = newShop(w)
	for range opt.History {
		w.shop.round()
	}
	for i := range max(1, opt.Processes) {
		w.slots = append(w.slots, &slot{name: fmt.Sprintf("footfall-%d", i), startAt: w.rng.IntN(1 + i*opt.Steps/3)})
	}
	if opt.Archives > 0 {
		w.bins = newArchives(w)
	}
	err := w.run()
	for _, p := range w.parts {
		w.result.Outputs = append(w.result.Outputs, p.outputs...)
	}
	switch {
	case err != nil:
	case !w.doomed:
		err = w.judge()
	case w.result.Refusals == 0:
		err = errors.New("nobody has refused to go on")
	}
	w.result.Hash = w.hash()
	r := w.result // not the world's own: it would keep the world
	if err != nil {
		return &r, fmt.Errorf("step %d: %w", w.steps, err)
	}
	return &r, nil
}

// restless is how many steps more than it has a run may take to come to rest.
const restless = 3000

// run lets the world go on, step by step, until all is through and everybody has ended.
func (w *world) run() error {
	defer w.endAll()
	for {
		if w.steps++; w.steps > w.opt.Steps+restless {
			return fmt.Errorf("does not come to rest: %d steps after the last record something is still to be done: %s", restless, w.unfinished())
		}
		w.advance()
		w.manage()
		w.reconfigure()
		w.agree()
		for _, p := range w.turns() {
			if p.resume(); p.over {
				w.took(p)
			}
			if w.broken != nil {
				return w.broken
			}
		}
		if w.bins != nil {
			if w.bins.step(); w.broken != nil {
				return w.broken
			}
		}
		if w.checkHeld(); w.broken != nil {
			return w.broken
		}
		if w.finished() {
			return w.broken
		}
	}
}

// finished ends the processes when all is done, then the archives when they have
// copied what the processes said last; it tells that everybody has ended.
func (w *world) finished() bool {
	switch {
	case !w.ended() || !w.doomed && w.unfinished() != "":
		return false
	case !w.ending:
		w.finish()
	case len(w.lives) > 0:
	case w.bins == nil || w.bins.ending && len(w.bins.lives) == 0:
		return true
	default:
		w.bins.finish()
	}
	return false
}

// turns gives the processes in the order in which they go on in this step; not all do.
func (w *world) turns() []*process {
	var turns []*process
	for _, p := range w.lives {
		if w.calm() || w.rng.IntN(5) > 0 {
			turns = append(turns, p)
		}
	}
	w.rng.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
	return turns
}

// finish tells everybody to end.
func (w *world) finish() {
	w.ending = true
	for _, p := range w.lives {
		// A worker counts from when it came to life: a partition that was taken away and
		// given back has another.
		again := func(p *part) bool { return p.epoch > 1 }
		if w.result.Lives == 1 && !slices.ContainsFunc(w.parts, again) {
			w.stats = p.pipeline.Status()
		}
		p.cancel()
	}
}

// endAll leaves no coroutine behind.
func (w *world) endAll() {
	for _, p := range w.lives {
		p.kill()
	}
	if w.bins != nil {
		for _, a := range w.bins.lives {
			a.kill()
		}
	}
}

// unfinished says what is still to be done, if anything is: read and committed all,
// under the rules that are in force, and copied.
func (w *world) unfinished() string {
	for _, p := range w.parts {
		switch {
		case w.ending:
		case p.owner == nil:
			return fmt.Sprintf("partition %d is nobody's", p.number)
		case !p.found || p.next < p.ends:
			return fmt.Sprintf("partition %d is committed up to %d of %d", p.number, p.next, p.ends)
		case p.mark.Fired < p.mark.Clock || p.mark.Rules != w.rules[w.using].program.Hash():
			return fmt.Sprintf("partition %d is at %+v, the rules are %016x", p.number, p.mark, w.rules[w.using].program.Hash())
		case w.opt.Sets && (p.mark.Since != 0 || p.mark.Epoch != w.inForce().Number):
			return fmt.Sprintf("partition %d is at %+v, the epoch is %d", p.number, p.mark, w.inForce().Number)
		}
	}
	if s := w.disagrees(); s != "" && !w.ending {
		return s
	}
	if w.bins == nil || w.bins.ending || len(w.lives) > 0 && w.ending {
		return ""
	}
	return w.bins.unfinished()
}

// workerConfig is what workers decide by, all but the decoder.
func (w *world) workerConfig(slice int, using rules) worker.Config {
	c := worker.Config{
		Rules: using.program,
		Ahead: 5 * schemas.Minute, MaxSkew: maxSkew, MaxAge: schemas.Day,
		DedupWindow: schemas.Hour, DedupBudget: 1 << 20, Slice: slice,
	}
	if w.opt.LogTime {
		c.Lane = schemas.Replay
	}
	return c
}

// maxSkew is how far a record's timestamp may be ahead of the wall.
const maxSkew = 5 * schemas.Minute

// breach notes that an invariant does not hold, and ends what saw it.
func (w *world) breach(format string, args ...any) error {
	if w.broken == nil {
		w.broken = fmt.Errorf(format, args...)
	}
	return w.broken
}

func (w *world) trace(format string, args ...any) {
	if w.opt.Trace != nil {
		w.opt.Trace("%4d "+format, append([]any{w.steps}, args...)...)
	}
}

func (w *world) fault(name string) { w.result.Faults[name]++ }

// calm tells that faults are over, so that everything can come through.
func (w *world) calm() bool { return w.opt.Calm || w.ended() }

// ended tells that nothing is published any more.
func (w *world) ended() bool { return w.steps > w.opt.Steps }

// chance is true in one of oneIn cases, and never when it is calm.
func (w *world) chance(name string, oneIn int) bool {
	if w.calm() || w.rng.IntN(oneIn) != 0 {
		return false
	}
	w.fault(name)
	return true
}
