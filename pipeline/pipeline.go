package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"footfall/pipeline/segment"
	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Config is what a pipeline is made of.
type Config struct {
	Worker  worker.Config // all but the Decoder; its Rules are those to begin with
	Decoder func() *schemas.Decoder

	Source    Source
	Committer Committer
	History   History
	Past      Past // of what the log has no more; nil: there is no archive
	Snapshots *snapshot.Store
	Layout    Layout // of the input; empty: not checked

	// Now is the only clock of the process. Spans below are of this clock.
	Now func() schemas.Millis

	// Elapsed is a clock of how long things take, finer than Now; nil: nobody wants to know.
	Elapsed func() time.Duration

	JumpMax       schemas.Millis // how far beyond the furthest clock here a tick may move one; 0: any
	Grace         schemas.Millis // events still under way when a partition's end was asked for
	LazyCommit    schemas.Millis // how long progress with nothing to say waits for its commit
	SnapshotEvery schemas.Millis // at least, between two snapshots of a partition
	DeltasMax     int            // snapshots that hold no more than what has changed, after a whole one

	// Backoff waits before attempt n (from 1) to ask again after a failure, or
	// until ctx ends.
	Backoff func(ctx context.Context, attempt int)

	Paused  func() bool // the kill switch: every transition is muted while it says so
	Address string      // of this instance, for who looks for a partition's owner
	Rebuild bool        // bring partitions without a usable snapshot to life from the log
	Report  func(Fact)  // called from several goroutines

	// What is done at once, at most; zero is the default. A simulation has little
	// data and meets these limits only when they are small.
	TransactionMax int // outputs in one transaction, about
	TimersAhead    int // outputs waiting for their commit, of all partitions, from which on timers wait
	SliceBytes     int // of a snapshot, between two tasks
	DeltaShare     int // percent of a whole snapshot that deltas come to before the next is whole

	// Counted takes what a partition has counted for an epoch of the quantiles of its
	// rules; nil: nobody wants to know. It must not block.
	Counted func(partition int32, rules *segment.Program, of segment.Count)

	// Inline runs everything on Run's own goroutine, for simulation: the order of
	// all that happens is then the Source's.
	Inline bool

	// Beside, with Inline, runs what else has a goroutine of its own beside the live
	// partitions; nil: at once.
	Beside func(run func())
}

// Limits of what is in memory (R4).
const (
	inboxMax       = 8         // tasks a partition has waiting before Poll stops
	itemsAheadMax  = 20_000    // outputs of a partition waiting for their commit before it stops
	transactionMax = 10_000    // Config.TransactionMax
	itemBytes      = 1 << 10   // about what a transition takes
	timersAhead    = 2_048     // Config.TimersAhead
	timersARecord  = 8         // that fire with a record, whatever waits: else a load without a pause would starve them
	sliceBytes     = 128 << 10 // Config.SliceBytes: a thousand rows, none of them in the cache, are a third of a millisecond
	deltaShare     = 50        // Config.DeltaShare
	recoveriesMax  = 2         // partitions recovering at once
)

// Pipeline runs the partitions that the source assigns.
type Pipeline struct {
	cfg     Config
	commits *commits
	errs    chan error // the first fatal error

	rules      atomic.Pointer[segment.Program]
	recoveries chan struct{} // a place for each recovery under way
	fillings   chan struct{} // the one place for a filling under way
	snapshots  chan struct{} // the one place for a snapshot under way
	wg         sync.WaitGroup

	layoutHolds atomic.Bool // the bucket is of this input
	reached     reached

	mu    sync.Mutex
	parts map[int32]*partition // ours, recovering or live
	last  map[int32]taken      // what was ours before
}

// New makes a pipeline; Run runs it, once.
func New(cfg Config) *Pipeline {
	p := &Pipeline{
		cfg:        cfg,
		errs:       make(chan error, 1),
		recoveries: make(chan struct{}, recoveriesMax),
		fillings:   make(chan struct{}, 1),
		snapshots:  make(chan struct{}, 1),
		parts:      map[int32]*partition{},
		last:       map[int32]taken{},
	}
	p.cfg.TransactionMax = cmp.Or(cfg.TransactionMax, transactionMax)
	p.cfg.TimersAhead = cmp.Or(cfg.TimersAhead, timersAhead)
	p.cfg.SliceBytes = cmp.Or(cfg.SliceBytes, sliceBytes)
	if cfg.Elapsed == nil {
		p.cfg.Elapsed = func() time.Duration { return 0 }
	}
	p.cfg.DeltaShare = cmp.Or(cfg.DeltaShare, deltaShare)
	p.commits = newCommits(&p.cfg)
	p.rules.Store(cfg.Worker.Rules)
	return p
}

// Run fetches, routes, applies and commits until ctx ends, and then drains: what
// was applied is committed, a snapshot taken of every partition, and everything
// released. It returns after all goroutines it started have ended: nil after a
// drain, else what made it stop.
func (p *Pipeline) Run(ctx context.Context) error {
	// What is under way outlives ctx, so that it can be drained.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer p.wg.Wait()
	defer stop()
	committed := make(chan struct{})
	if !p.cfg.Inline {
		go func() {
			defer close(committed)
			p.fail(p.commits.run(work))
		}()
		defer func() { <-committed }()
		defer stop()
	}
	err := p.fetch(ctx, work)
	if err == nil {
		err = p.drainAll()
	}
	return err
}

// fetch is the fetcher: it polls and routes until ctx ends (nil) or something fails.
func (p *Pipeline) fetch(ctx, work context.Context) error {
	polling, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	watched := make(chan struct{})
	if !p.cfg.Inline {
		go func() {
			defer close(watched)
			select {
			case failed = <-p.errs:
				cancel()
			case <-polling.Done():
			}
		}()
	}
	var batch Batch
	for {
		err := p.cfg.Source.Poll(polling, &batch)
		if err == nil {
			err = p.route(polling, work, &batch)
		}
		if err == nil {
			continue
		}
		if !p.cfg.Inline {
			cancel()
			<-watched
		}
		switch {
		case failed != nil:
			return failed
		case ctx.Err() != nil && errors.Is(err, ctx.Err()):
			return nil
		}
		return err
	}
}

// route gives each partition what a poll brought it.
func (p *Pipeline) route(ctx, work context.Context, b *Batch) error {
	for _, n := range b.Lost {
		p.lose(n)
	}
	for _, n := range b.Revoked {
		if err := p.revoke(n); err != nil {
			return err
		}
	}
	for _, a := range b.Assigned {
		if err := p.assign(work, a); err != nil {
			return err
		}
	}
	for i := range b.Fetched {
		f := &b.Fetched[i]
		if err := p.give(ctx, f.Partition, task{records: f.Records, free: f.Free}); err != nil {
			return err
		}
		f.Records, f.Free = nil, nil // the partition's now; the next poll must not fill it
	}
	for _, e := range b.Ends {
		if err := p.give(ctx, e.Partition, task{end: &e}); err != nil {
			return err
		}
	}
	if !p.cfg.Inline {
		p.resume()
		return nil
	}
	return p.inline(work)
}

// inline does, on the caller's goroutine, a step for everyone who has something left
// to do, so that what the source brings next comes between two steps, as it does in
// a process with goroutines.
func (p *Pipeline) inline(ctx context.Context) error {
	for _, n := range slices.Sorted(maps.Keys(p.parts)) {
		if part := p.parts[n]; part.busy() && !part.stream.isLost() {
			if err := part.step(task{}); err != nil {
				return err
			}
		}
	}
	return p.commits.step(ctx)
}

// give puts a task before a partition; a full inbox makes the fetcher wait, and
// the queue grows in Kafka instead of here. What is full because its outputs can't be
// written is not waited for: its records are left out, and read again by resume.
func (p *Pipeline) give(ctx context.Context, n int32, t task) error {
	part := p.partition(n)
	if part == nil {
		return nil // given up since the source read it
	}
	if p.cfg.Inline {
		return part.step(t)
	}
	if part.behind >= 0 && len(t.records) > 0 {
		part.leave(t)
		return nil
	}
	select {
	case part.inbox <- t:
	case <-part.gone:
	case <-part.stream.stuck():
		select {
		case part.inbox <- t:
		default:
			part.leave(t)
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// resume has what was left out of partitions read again, when their outputs are written.
// It comes between two polls: what the last one brought is of where the source was before.
func (p *Pipeline) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, part := range p.parts {
		if part.behind >= 0 && !part.stream.isHeld() {
			p.cfg.Source.Start(n, part.behind)
			part.behind = -1
		}
	}
}

func (p *Pipeline) partition(n int32) *partition {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.parts[n]
}

// startReading makes a recovered partition live. It does so before the fetcher takes
// it away, or not at all: the source would take a later start for one of the
// ownership that comes next.
func (p *Pipeline) startReading(part *partition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parts[part.number] == part {
		p.reached.note(part.worker.Mark().Clock)
		part.live.Store(true)
		p.cfg.Source.Start(part.number, part.worker.Mark().Next)
	}
}

// taken is what is left of a partition that is ours no more, and may not have ended yet.
type taken struct {
	gone   <-chan struct{}
	stream *stream
	cancel context.CancelFunc
}

// take removes a partition from what is ours, so that nothing more reaches it.
func (p *Pipeline) take(n int32) *partition {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := p.parts[n]
	if part != nil {
		delete(p.parts, n)
		p.last[n] = taken{part.gone, part.stream, part.cancel}
	}
	return part
}

// assign brings a partition to life, beside the live ones.
func (p *Pipeline) assign(work context.Context, a Assignment) error {
	part := newPartition(work, p, a)
	p.mu.Lock()
	if old := p.parts[a.Partition]; old != nil {
		p.mu.Unlock()
		panic(fmt.Sprintf("pipeline: partition %d assigned while it is ours", a.Partition))
	}
	p.parts[a.Partition] = part
	part.before = p.last[a.Partition].gone
	p.mu.Unlock()
	p.cfg.Report(Assigned(a))
	if p.cfg.Inline {
		return part.recover()
	}
	p.wg.Go(func() { p.fail(part.run()) })
	return nil
}

// lose drops a partition of which nothing can be committed any more.
func (p *Pipeline) lose(n int32) {
	part := p.take(n)
	p.mu.Lock()
	last, ok := p.last[n] // it may be draining
	p.mu.Unlock()
	if !ok || part == nil && last.stream.isLost() {
		return
	}
	p.cfg.Report(Lost{Partition: n})
	last.stream.lose()
	last.cancel()
}

// revoke drains a partition and hands it over. In a process with goroutines the
// drain goes on beside the others, and so does the wait for it: the inbox may be
// full, or the partition have ended already. It is released when its goroutine has
// ended, whatever ended it. What is held by then, or comes to be, is lost: there is no
// telling for how long, and the next owner says it.
func (p *Pipeline) revoke(n int32) error {
	part := p.take(n)
	if part == nil {
		p.cfg.Source.Release(n)
		return nil
	}
	if p.cfg.Inline {
		err := part.drain()
		p.cfg.Source.Release(n)
		return err
	}
	p.wg.Go(func() {
		if !part.live.Load() || !part.drained() { // a recovery has nothing to hand over
			part.stream.lose()
			part.cancel()
		}
		<-part.gone
		p.cfg.Source.Release(n)
	})
	return nil
}

// drainAll drains every partition, at the end.
func (p *Pipeline) drainAll() error {
	p.mu.Lock()
	parts := slices.Collect(maps.Values(p.parts))
	p.mu.Unlock()
	slices.SortFunc(parts, func(a, b *partition) int { return int(a.number - b.number) })
	for _, part := range parts {
		if err := p.revoke(part.number); err != nil {
			return err
		}
	}
	if p.cfg.Inline {
		return nil
	}
	ended := make(chan struct{})
	go func() {
		p.wg.Wait()
		close(ended)
	}()
	select {
	case err := <-p.errs:
		return err
	case <-ended:
	}
	select {
	case err := <-p.errs:
		return err
	default:
		return nil
	}
}

// fail makes Run return err, unless something failed before.
func (p *Pipeline) fail(err error) {
	if err == nil {
		return
	}
	select {
	case p.errs <- err:
	default:
	}
}

// ErrNotHere says that a partition is not live in this process.
var ErrNotHere = errors.New("partition is not live here")

// Ask runs a function on a partition's worker, between two tasks. It must be short
// and keep nothing of the worker.
func (p *Pipeline) Ask(ctx context.Context, partition int32, fn func(*worker.Worker)) error {
	part := p.partition(partition)
	if part == nil || !part.live.Load() {
		return ErrNotHere
	}
	done := make(chan struct{})
	ask := task{ask: func(w *worker.Worker) { fn(w); close(done) }}
	select {
	case part.inbox <- ask:
	case <-part.gone:
		return ErrNotHere
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-part.gone:
		return ErrNotHere
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status gives what each of our partitions last published, in order of number.
func (p *Pipeline) Status() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Status
	for _, part := range p.parts {
		if s := part.status.Load(); s != nil {
			all = append(all, *s)
		} else {
			all = append(all, Status{Partition: part.number, Recovering: true})
		}
	}
	slices.SortFunc(all, func(a, b Status) int { return int(a.Partition - b.Partition) })
	return all
}
