package pipeline

import (
	"context"
	"sync/atomic"

	"footfall/pipeline/segment"
	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// task is one thing for a partition to do.
type task struct {
	records []worker.Record
	free    func() // of their memory, when they are applied; or nil
	end     *End
	ask     func(*worker.Worker)
	drain   bool // commit, snapshot, and end
}

// A partition is one goroutine and the worker it alone may touch (R1).
//
// The fetcher fills the inbox; the committer empties the stream of outputs. A
// task's records belong to this goroutine from receive on, an output from push on
// to the committer. Both are bounded: when the stream is full the goroutine waits,
// when the inbox is full the fetcher stops polling, and the queue grows in Kafka
// instead of here. Of a partition whose outputs can't be written it leaves out what comes,
// and reads it again later: the others have nothing to do with that. It ends when it is
// drained, when its ownership is lost, and when recovery fails; gone is closed then.
type partition struct {
	number int32
	epoch  int64
	p      *Pipeline
	worker *worker.Worker
	inbox  chan task
	stream *stream
	ctx    context.Context //nolint:containedctx // the life of this partition's ownership
	cancel context.CancelFunc
	before <-chan struct{} // closed when the ownership before this one has ended here; nil: there was none
	gone   chan struct{}
	live   atomic.Bool
	status atomic.Pointer[Status]

	behind int64 // the fetcher's: the first offset that it left out, to read it again; -1: none

	itemsLast int // outputs of the last task, and some more: the next says about as many

	doubts int    // how often recovery was told what cannot be
	yield  func() // recovery lets the next one begin

	rules    *segment.Program // that the worker goes by
	filling  *filling         // the search under way for what they ask for
	refresh  bool             // a snapshot is wanted as soon as they are settled
	settled  bool             // everyone has been evaluated under them
	switched schemas.Millis   // when they took over here

	epochNumber uint64         // the last epoch of their quantiles that was looked at
	epochNext   schemas.Millis // the clock at which the next begins
	epochStill  bool           // history has ended, and the clock stands still

	snapping *snapping
	chain    *snapshot.Chain // that the next delta builds upon; nil: the next is whole
	lastSnap snapshot.ID
	snapAt   schemas.Millis // when the last snapshot was begun, or this partition came to life
	taken    schemas.Millis // when lastSnap was begun, or was found to be as good as one begun then
}

// Status is an immutable copy of what a partition is and does.
type Status struct {
	Partition  int32
	Recovering bool
	Mark       schemas.Mark // applied
	Committed  schemas.Mark
	End        int64          // of the input, when it was last asked for
	Asked      schemas.Millis // the wall then
	Users      int
	Window     schemas.Millis // effective dedup window
	Stats      worker.Stats
	PerSecond  float64            // records applied, between the last two times the end was asked for
	Names      []schemas.SetNames // of the rules that it goes by
	Population [][]int            // users by set and segment of these
	Epoch      uint64             // of their quantiles; 0: none
	Filling    bool               // the history of what they ask for is looked for; some sets say nothing yet
	Settled    bool               // everyone has been evaluated under them
	Reviewed   float64            // the share of users who have been
	Snapshot   int64              // input offset of the last snapshot
	SnapshotAt schemas.Millis     // when it was begun, or was found to lack nothing
}

// reviewed is the share of users who have been evaluated under the rules in force.
func reviewed(w *worker.Worker) float64 {
	done, of := w.Reviewed()
	if of == 0 {
		return 1
	}
	return float64(done) / float64(of)
}

func newPartition(work context.Context, p *Pipeline, a Assignment) *partition {
	ctx, cancel := context.WithCancel(work)
	part := &partition{
		number: a.Partition, epoch: a.Epoch, p: p,
		inbox: make(chan task, inboxMax), behind: -1,
		ctx: ctx, cancel: cancel,
		gone: make(chan struct{}),
	}
	part.stream = p.commits.stream(a)
	return part
}

// run recovers the partition and serves tasks until it is drained or lost.
func (part *partition) run() error {
	defer close(part.gone)
	defer part.cancel()
	defer part.abandonSnapshot()
	defer part.giveUpFilling()
	if part.before != nil {
		// A lost recovery that is at its last step would else have the source begin
		// at its own mark, after this one has.
		select {
		case <-part.before:
		case <-part.ctx.Done():
			return nil
		}
	}
	if err := part.recover(); err != nil {
		if part.ctx.Err() != nil || part.stream.isLost() {
			return nil // no longer ours: not a failure
		}
		return err
	}
	for {
		t, ok := part.receive()
		if !ok || part.stream.isLost() {
			return nil
		}
		if t.drain {
			return part.drain()
		}
		if err := part.step(t); err != nil {
			return err
		}
	}
}

// receive waits for a task, or gives an empty one when there is something to do
// without. Timers wait, too, while much of what they have said is uncommitted: a
// million of them that are due at once would else stand before every event's trigger.
func (part *partition) receive() (task, bool) {
	if part.busy() {
		if room, changed := part.stream.room(); room <= 0 && !part.pressing() {
			select {
			case t := <-part.inbox:
				return t, true
			case <-part.ctx.Done():
				return task{}, false
			case <-changed:
				return task{}, true
			}
		}
		select {
		case t := <-part.inbox:
			return t, true
		case <-part.ctx.Done():
			return task{}, false
		default:
			return task{}, true
		}
	}
	select {
	case t := <-part.inbox:
		return t, true
	case <-part.ctx.Done():
		return task{}, false
	}
}

// busy tells that a step without a task has something to do.
func (part *partition) busy() bool {
	return part.worker != nil && (part.worker.Busy() || part.pressing())
}

// pressing tells that some of it says nothing, and so need not wait for commits.
func (part *partition) pressing() bool {
	return part.slicing() || part.filling != nil && len(part.filling.done) > 0
}

// step does one task, then a slice of what else there is to do.
func (part *partition) step(t task) error {
	if t.ask != nil {
		t.ask(part.worker)
		return nil
	}
	at := worker.Conditions{Wall: part.p.cfg.Now(), Paused: part.p.cfg.Paused()}
	if t.end != nil && part.worker.Mark().Next >= t.end.Offset {
		at.Tick = part.p.tick(t.end, part.worker.Mark().Lane)
	}
	if err := part.follow(at.Tick > 0); err != nil {
		return err
	}
	room, _ := part.stream.room()
	at.Most = max(1, room, timersARecord*len(t.records))
	if len(t.records) > 0 || at.Tick > 0 || room > 0 && part.worker.Busy() {
		out := &worker.Output{Items: make([]worker.Item, 0, part.itemsLast)}
		//failpoint:step.applying
		part.worker.Apply(t.records, at, out)
		part.p.reached.note(part.worker.Mark().Clock)
		if t.free != nil {
			t.free()
		}
		part.itemsLast = len(out.Items) + len(out.Items)/4
		//failpoint:step.applied
		if err := part.push(out); err != nil {
			return err
		}
	}
	part.noteSettled(at.Wall)
	if t.end != nil {
		part.publishStatus(t.end)
		part.p.commits.nudge()
	}
	return part.snapshot(at.Wall)
}

// leave gives up a task that the inbox has no room for. The fetcher's own.
func (part *partition) leave(t task) {
	if len(t.records) > 0 && part.behind < 0 {
		part.behind = t.records[0].Offset
	}
	if t.free != nil {
		t.free()
	}
}

// push gives an output to the committer, and waits while too much is uncommitted.
func (part *partition) push(out *worker.Output) error {
	out.Epoch = part.epoch
	out.Mark.Address = part.p.cfg.Address
	part.stream.push(out)
	if part.p.cfg.Inline {
		return nil
	}
	part.stream.awaitRoom(part.ctx, part.abandonSnapshot)
	return nil
}

// drained has it drain, and tells whether it has ended: not where what it says can't be
// written.
func (part *partition) drained() bool {
	select {
	case part.inbox <- task{drain: true}:
	case <-part.gone:
	case <-part.stream.stuck():
		return false
	}
	select {
	case <-part.gone:
		return true
	case <-part.stream.stuck():
		return false
	}
}

// drain commits what was applied, takes a snapshot for a warm hand-over, and ends.
func (part *partition) drain() error {
	defer part.cancel()
	// What is left in the stream would go out later, under an epoch that is over.
	defer part.stream.lose()
	if part.worker == nil || part.stream.isLost() {
		return nil
	}
	part.abandonSnapshot()
	//failpoint:drain.begun
	mark := part.worker.Mark()
	if err := part.demandCommit(mark); err != nil {
		return err
	}
	if part.stream.isHeld() { // nobody waits for that: the next owner says it
		return nil
	}
	if err := part.settle(mark); err != nil {
		return err
	}
	if part.stream.isLost() {
		return nil
	}
	//failpoint:drain.settled
	part.handOver()
	//failpoint:drain.handed-over
	part.p.cfg.Report(Released{Partition: part.number, Next: part.worker.Mark().Next})
	return nil
}

// settle waits until everything up to a mark has been committed, or the ownership
// is lost.
func (part *partition) settle(mark schemas.Mark) error {
	if err := part.demandCommit(mark); err != nil {
		return err
	}
	if !part.p.cfg.Inline {
		part.stream.awaitCommit(part.ctx, mark)
		return nil
	}
	for attempt := 1; part.stream.isHeld() && !part.stream.isLost(); attempt++ {
		part.p.cfg.Backoff(part.ctx, attempt)
		if err := part.p.commits.step(part.ctx); err != nil {
			return err
		}
	}
	return nil
}

// demandCommit has a commit of the worker's present mark made soon; mark is what it
// has to cover.
func (part *partition) demandCommit(mark schemas.Mark) error {
	if part.stream.covers(mark) {
		return nil
	}
	now := part.worker.Mark()
	now.Address = part.p.cfg.Address
	part.stream.demand(&worker.Output{Mark: now, Epoch: part.epoch})
	if part.p.cfg.Inline {
		return part.p.commits.step(part.ctx)
	}
	return nil
}

func (part *partition) publishStatus(end *End) {
	w := part.worker
	perSecond := 0.0
	if last := part.status.Load(); last != nil && end.Wall > last.Asked {
		perSecond = float64(w.Stats().Applied-last.Stats.Applied) * 1000 / float64(end.Wall-last.Asked)
	}
	part.status.Store(&Status{
		PerSecond: perSecond,
		Partition: part.number, Mark: w.Mark(), Committed: part.stream.mark(),
		End: end.Offset, Asked: end.Wall,
		Users: w.Users(), Window: w.Window(), Stats: w.Stats(),
		Names: part.rules.Names(), Population: w.Population(), Epoch: part.rules.Epoch().Number, Filling: w.Filling(), Settled: w.Settled(), Reviewed: reviewed(w),
		Snapshot: part.lastSnap.Next, SnapshotAt: part.taken,
	})
}
