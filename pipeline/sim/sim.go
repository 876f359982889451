// Package sim is a deterministic simulation: the real pipeline, workers, snapshots
// and recovery on a simulated log, bucket and clock, one goroutine, one seed. The
// seed decides everything: shoppers, batches, crashes, commits that abort or whose
// outcome is unknown, rebalances, torn snapshots, commit markers that lag, clocks
// that jump.
//
// It may not name Kafka or ClickHouse, nor decide what is right: that is package
// oracle's, which shares nothing with the worker.
package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"footfall/pipeline"
	"footfall/pipeline/oracle"
	"footfall/pipeline/segment"
	"footfall/pipeline/snapshot"
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
	Seed  uint64
	Steps int // polls before faults stop
	// LogTime has everything come in lane replay: no wall ticks, and the chains are
	// a function of the log alone.
	LogTime bool
	// Calm leaves out every fault.
	Calm bool
}

// Result is what a run came to.
type Result struct {
	Report  *oracle.Report
	Crashes int
	Commits int
	Faults  map[string]int
}

// errCrash is the process's sudden end: nothing after it is seen by anyone.
var errCrash = fmt.Errorf("crashed: %w", pipeline.ErrPermanent)

// world is the simulated outside: the log, the bucket and the clock.
type world struct {
	opt    Options
	rng    *rand.Rand
	now    schemas.Millis
	names  []schemas.SetNames
	parts  []*part
	bucket *bucket
	shop   *shop

	steps    int
	crashed  bool
	finished bool
	cancel   context.CancelFunc
	result   Result

	decoder func() *schemas.Decoder
	rules   *segment.Program
}

// part is one partition of every topic.
type part struct {
	number    int32
	input     []worker.Record
	ends      int64 // offset after the last input record
	outputs   []output
	visible   int // outputs that a read_committed reader sees: markers come late
	committed string
	next      int64 // offset committed with it
	found     bool

	epoch   int64
	owned   bool
	going   bool // revoked, not yet released
	started bool
	read    int // index of the next record to fetch
}

// output is one committed output, as a record.
type output struct {
	n      uint64
	topic  string
	record oracle.Record
}

// Run runs one seed.
func Run(opt Options) (*Result, error) {
	contract := schemas.Contract{Currency: "EUR", Rates: map[string]string{"USD": "0.905"}}
	probe, err := schemas.NewDecoder(contract)
	if err != nil {
		return nil, err
	}
	rules := segment.Lifecycle(probe.Hash())
	w := &world{
		opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 7)), //nolint:gosec // a simulation wants to be repeatable
		now: 1_767_225_600_000, names: rules.Names(), rules: rules,
		decoder: func() *schemas.Decoder {
			d, err := schemas.NewDecoder(contract)
			if err != nil {
				panic(err)
			}
			return d
		},
	}
	w.result.Faults = map[string]int{}
	w.bucket = &bucket{world: w, objects: map[string][]byte{}, bad: map[string]bool{}}
	for i := range 1 + w.rng.IntN(3) {
		w.parts = append(w.parts, &part{number: int32(i)})
	}
	w.shop = newShop(w)
	for !w.finished {
		if err := w.live(); err != nil {
			return &w.result, fmt.Errorf("seed %d, step %d: %w", opt.Seed, w.steps, err)
		}
	}
	w.judge()
	return &w.result, nil
}

// live runs one process until it crashes or everything is through.
func (w *world) live() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.cancel, w.crashed = cancel, false
	for _, p := range w.parts {
		p.owned, p.going, p.started = false, false, false
	}
	err := pipeline.New(pipeline.Config{
		Worker: worker.Config{
			Rules: w.rules,
			Ahead: 5 * schemas.Minute, MaxSkew: 5 * schemas.Minute, MaxAge: schemas.Day,
			DedupWindow: schemas.Hour, DedupBudget: 1 << 20, Slice: 1 + w.rng.IntN(20),
		},
		Decoder: w.decoder, Source: w, Committer: w, History: w,
		Snapshots: snapshot.NewStore(w.bucket, 3),
		Now:       func() schemas.Millis { return w.now },
		Grace:     2 * schemas.Second, LazyCommit: 5 * schemas.Second, SnapshotEvery: schemas.Minute,
		Backoff: func(context.Context, int) { w.now += 100 },
		Paused:  func() bool { return false },
		Report:  func(pipeline.Fact) {},
		Inline:  true,
	}).Run(ctx)
	switch {
	case w.crashed, errors.Is(err, errBucket):
		w.result.Crashes++ // a failing bucket stops the process when nothing can begin without
		return nil
	case err != nil:
		return err
	}
	w.finished = true
	return nil
}

// crash ends the process here, sometimes.
func (w *world) crash(where string, oneIn int) error {
	if w.crashed {
		return errCrash
	}
	if w.calm() || w.rng.IntN(oneIn) != 0 {
		return nil
	}
	w.fault("crash " + where)
	w.crashed = true
	return errCrash
}

func (w *world) fault(name string) { w.result.Faults[name]++ }

// calm tells that faults are over, so that everything can come through.
func (w *world) calm() bool { return w.opt.Calm || w.steps >= w.opt.Steps }

// chance is true in one of oneIn cases, and never when it is calm.
func (w *world) chance(name string, oneIn int) bool {
	if w.calm() || w.rng.IntN(oneIn) != 0 {
		return false
	}
	w.fault(name)
	return true
}

// judge has the oracle compare input and outputs.
func (w *world) judge() {
	var input, triggers, muted, dead []oracle.Record
	marks := map[int32]oracle.Mark{}
	for _, p := range w.parts {
		for i := range p.input {
			r := &p.input[i]
			if r.Control {
				continue
			}
			input = append(input, oracleRecord(events, p.number, r.Offset, r.Time, r.Key, r.Value, r.Headers))
		}
		for _, o := range p.outputs {
			switch o.topic {
			case "triggers":
				triggers = append(triggers, o.record)
			case "muted":
				muted = append(muted, o.record)
			default:
				dead = append(dead, o.record)
			}
		}
		m, err := schemas.ParseMark(p.number, p.next, p.committed)
		if err != nil {
			panic(err) // we wrote it
		}
		marks[p.number] = oracle.Mark{Next: m.Next, Clock: int64(m.Clock), Fired: int64(m.Fired), N: int64(m.N)}
	}
	opt := oracle.Options{
		Currency: "EUR", Rates: map[string]string{"USD": "0.905"}, InputTopic: events, Group: group,
		Rules: fmt.Sprintf("%016x", w.rules.Hash()), WallTicks: !w.opt.LogTime, Marks: marks,
	}
	w.result.Report = oracle.Judge(input, triggers, muted, dead, opt)
}

func oracleRecord(topic string, partition int32, offset int64, time schemas.Millis, key, value []byte, headers []schemas.Header) oracle.Record {
	r := oracle.Record{Topic: topic, Partition: partition, Offset: offset, Time: int64(time), Key: key, Value: value}
	for _, h := range headers {
		r.Headers = append(r.Headers, oracle.Header{Key: h.Key, Value: h.Value})
	}
	return r
}

// errTimeout is a commit whose outcome its sender does not learn.
var errTimeout = errors.New("simulated time-out")
