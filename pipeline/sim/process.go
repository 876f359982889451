package sim

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"footfall/pipeline"
	"footfall/pipeline/segment"
	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// process is one life of footfall. It stands between a pipeline and the world, as
// its Source, Committer, History and Bucket.
type process struct {
	*life
	*world
	slot     *slot
	pipeline *pipeline.Pipeline
	cancel   context.CancelFunc
	sessions []session
	using    rules // that it was told to go by
	variant  int   // index of them in the world's
	epochs   *epochs
	programs []*segment.Program // that it has gone by, with their bounds
	settled  map[int32]uint64   // by partition: the epoch that everybody was evaluated under last
	slice    int                // timers fired in one call at most
	skew     schemas.Millis     // its clock is off by this
	paused   bool               // as it has heard
	tries    int                // commits since the last poll
	takes    int                // outputs in a transaction, before it is aborted for its age; 0: any number

	// rebuilding is what is being rebuilt without a snapshot, and not live yet.
	rebuilding map[ownership]*rebuilt

	covered []schemas.Mark      // by partition: the greatest that it has committed, or read
	listed  map[string][]string // snapshots, by their prefix: what it was told last
	led     map[string]bool     // whether any of them led anywhere

	member   bool
	fenced   bool         // another life has its name
	robbed   bool         // something was taken from it that it may not have heard of
	deceived bool         // since its last poll the bucket has not told it all
	hopeless bool         // since then it has listed a partition's snapshots, and none led anywhere
	polled   int          // step of its last poll
	news     []change     // told by the group, not yet heard
	heard    []change     // not yet polled
	open     *transaction // whose end it does not know
}

// session is what a process believes of one partition.
type session struct {
	epoch   int64
	owned   bool
	told    bool // Poll has given the assignment
	going   bool // revoked, not yet released
	started bool
	read    int // index of the next record to fetch

	start int64 // of the log, as it was told last
}

// ownership is a partition under one epoch.
type ownership struct {
	partition int32
	epoch     int64
}

// rebuilds tells what an output is the first of, if it is a rebuild's.
func (p *process) rebuilds(out *worker.Output) *rebuilt {
	return p.rebuilding[ownership{out.Mark.Partition, out.Epoch}]
}

// start begins a life in a slot.
func (w *world) start(s *slot) {
	ctx, cancel := context.WithCancel(context.Background())
	w.result.Lives++
	p := &process{
		life:  &life{w: w, name: fmt.Sprintf("%s/%d", s.name, w.result.Lives)},
		world: w, slot: s, sessions: make([]session, len(w.parts)), covered: make([]schemas.Mark, len(w.parts)), cancel: cancel,
		settled: map[int32]uint64{}, rebuilding: map[ownership]*rebuilt{}, listed: map[string][]string{}, led: map[string]bool{},
		slice: 1 + w.rng.IntN(20), using: w.rules[w.using], variant: w.using,
	}
	if w.opt.Slice > 0 {
		p.slice = w.opt.Slice
	}
	if len(w.slots) > 1 && !w.opt.LogTime {
		p.skew = schemas.Millis(w.rng.IntN(2000)) - schemas.Second
	}
	config := p.config(w.rebuild)
	if w.opt.Sets {
		p.newEpochs()
		config.Worker.Rules, config.Counted = p.programs[len(p.programs)-1], p.epochs.counted
	}
	p.pipeline = pipeline.New(config)
	w.trace("%s starts (rebuild %v)", p.name, w.rebuild)
	w.rebuild = false
	w.abortOf(s) // its first requests end what a life of the same name has left open
	s.process = p
	w.lives = append(w.lives, p)
	p.begin(func() error { return p.pipeline.Run(ctx) })
}

func (p *process) config(rebuild bool) pipeline.Config {
	outputs, bytes := 1+p.rng.IntN(30), 64<<p.rng.IntN(8)
	// No draws of their own: seeds that have found something stay what they are.
	timers := outputs
	if outputs%4 == 0 {
		p.takes = 1 + outputs/12
	}
	if p.opt.Large {
		outputs, bytes, timers = 0, 0, 0
	}
	var past pipeline.Past
	if p.opt.Past {
		past = p
	}
	return pipeline.Config{
		Worker:  p.workerConfig(p.slice, p.using),
		Decoder: p.using.decoder, Source: p, Committer: p, History: p, Past: past,
		Snapshots: snapshot.NewStore(bucketOf{p}, 3),
		Layout:    pipeline.Layout{Topic: events, ID: p.topic, Partitions: int32(len(p.parts))},
		Now:       p.now,
		Grace:     grace, JumpMax: p.opt.Jump, LazyCommit: 5 * schemas.Second, SnapshotEvery: schemas.Minute, DeltasMax: p.opt.Deltas, DeltaShare: 1000,
		Backoff:        p.backoff,
		Paused:         func() bool { return p.paused },
		Rebuild:        rebuild,
		Report:         p.report,
		TransactionMax: outputs, TimersAhead: timers, SliceBytes: bytes,
		Address: p.slot.name,
		Inline:  true,
		Beside:  p.alongside,
	}
}

// now is the clock of the process.
func (p *process) now() schemas.Millis { return p.wall(p.skew) }

func (p *process) backoff(context.Context, int) {
	p.drift += 100
	p.rest()
}

func (p *process) report(f pipeline.Fact) {
	if p.opt.Trace != nil {
		p.trace("%s reports %T %+v", p.name, f, f)
	}
	switch f := f.(type) {
	case pipeline.SnapshotPublished:
		if f.Delta {
			p.result.Deltas++
		}
	case pipeline.Recovered:
		if f.Deltas > 0 {
			p.result.FromDeltas++
		}
		if strings.HasPrefix(f.Snapshot, "none") {
			p.result.Rebuilds++
		}
		if f.Forgotten > 0 {
			p.forgets(f)
		}
	case pipeline.SnapshotSkipped:
		p.fault("snapshot skipped")
	case pipeline.Settled:
		p.settled[f.Partition] = f.Epoch
	case pipeline.Filled:
		p.result.Filled++
		if f.Archived > 0 {
			p.result.Archived++
		}
	case pipeline.FillingWaits:
		p.fault("a search for history waited")
	case pipeline.RecoveryWaits:
		p.fault("recovery waited")
	}
}

// errAway is what requests come to that nobody answers.
var errAway = fmt.Errorf("simulated: %w", pipeline.ErrAway)

// errTimeout is a commit whose outcome its sender does not learn.
var errTimeout = errors.New("simulated time-out")

// took notes that a life has ended, and judges how.
func (w *world) took(p *process) {
	for i, l := range w.lives {
		if l == p {
			w.lives = append(w.lives[:i], w.lives[i+1:]...)
			break
		}
	}
	p.cancel()
	if p.slot.process == p {
		p.slot.process, p.slot.startAt = nil, w.steps+1
		if !w.calm() {
			p.slot.startAt += w.rng.IntN(6)
		}
	}
	w.trace("%s has ended: %v", p.name, p.err)
	switch err := p.err; {
	case w.broken != nil:
	case errors.Is(err, errKilled):
		w.result.Crashes++ // the group will notice
		return
	case err == nil:
	case errors.Is(err, errAway):
		w.fault("ended itself: Kafka does not answer")
	case errors.Is(err, snapshot.ErrAway) && p.polled == 0:
		w.fault("did not start: the bucket fails")
	case errors.Is(err, pipeline.ErrFenced) && p.fenced:
		w.fault("ended itself: fenced")
	case p.robbed:
		// It read half of one state of the world and half of another. Ending itself
		// is fair; the next life shows whether it did harm.
		w.fault("ended itself: robbed")
	case w.doomed && errors.Is(err, pipeline.ErrPermanent) && strings.Contains(err.Error(), "a group, output topics and a bucket of its own"):
		w.fault("refused for good")
		w.result.Refusals++
		w.rebuild = w.rng.IntN(2) == 0 // which must not help
	case w.helpless(err, p.hopeless || w.retained >= p.polled):
		w.fault("refused to begin")
		w.result.Refusals++
		w.rebuild = true
	case w.opt.SetBack && strings.Contains(err.Error(), "the group's offset was set back"):
		w.fault("ended itself: set back") // the next life tells what a person has to do
	case errors.Is(err, pipeline.ErrExpired) && (w.retained >= p.polled || w.opt.Overtake && !strings.Contains(err.Error(), "no snapshot leads there")):
		w.fault("ended itself: overtaken by retention")
	default:
		_ = w.breach("%s ended with: %w", p.name, err)
	}
	w.leave(p, "it has left")
}
