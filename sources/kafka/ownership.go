package kafka

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"footfall/pipeline"
)

// membership is who may commit: a member of the group and its generation.
type membership struct {
	member     string
	generation int32
}

// ownership is the table of the partitions that are ours. The member's callbacks
// write it, one at a time; Poll reads what changed; commits read under which
// membership they may go.
//
// Invariants:
//   - as is what the member was in the last callback, read inside it; never empty
//     while the table has a partition. Under the protocol Consumer, where the epoch
//     moves on without a callback, commits ask live instead, while they hold mu.
//   - A partition in the table was given or kept by that callback, or taken away by
//     it with nobody else having it before we let go. So a commit under as is
//     refused, or harms nobody.
//   - It was ours all the time since its epoch was given. Another member id says that
//     we were expelled meanwhile, and others may have had it: then it is taken for lost,
//     and for given anew where it is ours again.
//   - An epoch is given once.
//
// mu is never held while waiting for anything: the callbacks need it, and what
// commits wait for are the callbacks.
type ownership struct {
	mu      sync.Mutex
	as      membership
	live    func() membership // what the member is now; nil: as is what counts
	epoch   int64             // the last one given
	given   bool              // the group has said what is ours, and its session has not ended since
	owned   map[int32]*owned
	changes []change      // not yet polled
	starts  []start       // not yet polled
	moved   chan struct{} // closed and replaced at every callback
	closing bool          // no callback waits any more
	fatal   error         // what ends the session; sticks
	wake    func()        // interrupts the Poll under way; nil if there is none
}

// owned is one partition of ours.
type owned struct {
	epoch   int64
	told    bool          // Poll has given the assignment to the pipeline
	going   bool          // revoked; committable until released
	gone    chan struct{} // closed when it is not ours any more
	started bool          // Start has been called; ends are asked for
}

// change is news for the pipeline, in the order it happened.
type change struct {
	kind       changeKind
	partitions []pipeline.Assignment
}

type changeKind uint8

// In the order in which a batch gives them.
const (
	changeLost changeKind = iota
	changeRevoked
	changeAssigned
)

// start is a call of Start that Poll has yet to act upon.
type start struct {
	partition     int32
	offset, epoch int64
}

func newOwnership() *ownership {
	return &ownership{owned: make(map[int32]*owned), moved: make(chan struct{})}
}

// follow has commits go under what the member is when they begin, and not under what
// it was in the last callback. That is safe where the broker gives a partition away
// only after its member has said that it let go, which it says after the callback
// that takes the partition out of the table: a partition in the table is then ours
// under whatever the member is now, or the member is expelled, and refused. Table and
// member are looked at together, under mu.
func (o *ownership) follow(live func() membership) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.live = live
}

// assigned is the callback that gives partitions, and keeps all others.
func (o *ownership) assigned(as membership, partitions []int32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.given = true
	if o.closing {
		o.move(as)
		return
	}
	lost, given := o.comeBack(as, partitions)
	o.move(as)
	slices.Sort(partitions)
	for _, p := range partitions {
		if old := o.owned[p]; old != nil { // given without having been taken: a new ownership all the same
			lost = append(lost, pipeline.Assignment{Partition: p, Epoch: old.epoch})
			o.drop(p)
		}
		o.epoch++
		o.owned[p] = &owned{epoch: o.epoch, gone: make(chan struct{})}
		given = append(given, pipeline.Assignment{Partition: p, Epoch: o.epoch})
	}
	o.tell(changeLost, lost)
	o.tell(changeAssigned, given)
}

// comeBack gives every partition but some a new ownership where the member was expelled
// since the last callback, and has joined again under another id: its client (franz-go
// 1.22.2) has told nobody that it had lost them. (1) Our session expires, and another
// member gets them and commits; (2) it leaves, or gives them back; (3) we join again,
// claim them, and are given what we claim. Nothing is revoked and nothing assigned, so
// what was applied in (1) would be committed twice.
func (o *ownership) comeBack(as membership, but []int32) (lost, given []pipeline.Assignment) {
	if !o.expelled(as) {
		return nil, nil
	}
	for _, p := range slices.Sorted(maps.Keys(o.owned)) {
		if slices.Contains(but, p) {
			continue
		}
		old := o.owned[p]
		lost = append(lost, pipeline.Assignment{Partition: p, Epoch: old.epoch})
		o.drop(p)
		if old.going {
			continue
		}
		o.epoch++
		o.owned[p] = &owned{epoch: o.epoch, gone: make(chan struct{})}
		given = append(given, pipeline.Assignment{Partition: p, Epoch: o.epoch})
	}
	return lost, given
}

// expelled tells that a member was, since the last callback. (Under the protocol Consumer
// its client says so.)
func (o *ownership) expelled(as membership) bool {
	return o.live == nil && len(o.owned) > 0 && as.member != o.as.member
}

// revoked is the callback that takes partitions away. Those of them that nobody
// else has yet, as free says, may be committed until they are released, or until
// the limit; it returns then.
//
// The broker would accept a commit of ours for any partition as long as our
// generation is current, whoever has it. In a cooperative rebalance a partition is
// given to its next owner only after we have joined again, that is, after this has
// returned; but that is the doing of the member that leads the group, which may be
// another client with other ideas. So it is not assumed. With the membership
// unchanged since the partition was given (we are leaving), nobody else can have
// it. Otherwise free asks the broker for the assignment of the generation. What was before
// that generation it can't tell: where we were expelled, or were in a generation that we
// have not heard of, nothing may be committed.
func (o *ownership) revoked(as membership, partitions []int32, limit time.Duration, free func([]int32) []int32) {
	o.mu.Lock()
	was := o.as
	o.mu.Unlock()
	going := partitions
	switch next := (membership{was.member, was.generation + 1}); {
	case as == was || len(partitions) == 0:
	case as == next || o.live != nil:
		going = free(partitions)
	default:
		going = nil
	}

	o.mu.Lock()
	lost, given := o.comeBack(as, partitions)
	o.move(as)
	var revoked []pipeline.Assignment
	var wait []*owned
	slices.Sort(partitions)
	for _, p := range partitions {
		own := o.owned[p]
		if own == nil {
			continue
		}
		a := pipeline.Assignment{Partition: p, Epoch: own.epoch}
		if o.closing || !slices.Contains(going, p) {
			o.drop(p)
			lost = append(lost, a)
			continue
		}
		own.going = true
		revoked = append(revoked, a)
		wait = append(wait, own)
	}
	o.tell(changeLost, lost)
	o.tell(changeRevoked, revoked)
	o.tell(changeAssigned, given)
	o.mu.Unlock()

	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for _, own := range wait {
		select {
		case <-own.gone:
			continue
		case <-timeout.C:
		}
		o.mu.Lock()
		o.lose(as, partitions)
		o.mu.Unlock()
		return
	}
}

// lost is the callback that says that a session with the group has ended, and partitions are
// gone already. Its client joins again, and is told what is its own then, if only nothing.
func (o *ownership) lost(as membership, partitions []int32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.given = false
	o.lose(as, partitions)
}

// lose takes partitions out of the table that are gone, or were never released. mu is held.
func (o *ownership) lose(as membership, partitions []int32) {
	if o.expelled(as) {
		partitions = slices.Collect(maps.Keys(o.owned))
	}
	o.move(as)
	var lost []pipeline.Assignment
	slices.Sort(partitions)
	for _, p := range partitions {
		if own := o.owned[p]; own != nil {
			lost = append(lost, pipeline.Assignment{Partition: p, Epoch: own.epoch})
			o.drop(p)
		}
	}
	o.tell(changeLost, lost)
}

// release lets a revoked partition go.
func (o *ownership) release(partition int32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if own := o.owned[partition]; own != nil && own.going {
		o.drop(partition)
	}
}

// start notes that a partition is to be read from offset. Who asks speaks of the
// ownership that Poll has told last. 1. A partition is lost and given again, and Poll
// has told neither yet. 2. The recovery of the old ownership comes to its end and starts
// it. Were that taken for the new one, its records would be polled before it has
// recovered, and once more after.
func (o *ownership) start(partition int32, offset int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	own := o.owned[partition]
	if own == nil || own.going || !own.told {
		return // lost meanwhile; Poll tells, or has told
	}
	own.started = true
	o.starts = append(o.starts, start{partition, offset, own.epoch})
	o.rouse()
}

// commitAs returns the membership under which partitions may be committed that
// were taken over under the given epochs, and those that are not ours any more.
func (o *ownership) commitAs(epochs map[int32]int64) (as membership, gone []int32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for p, epoch := range epochs {
		if own := o.owned[p]; own == nil || own.epoch != epoch {
			gone = append(gone, p)
		}
	}
	slices.Sort(gone)
	return o.now(), gone
}

// lookEvery is how often a membership is looked at that moves without a callback.
const lookEvery = 10 * time.Millisecond

// await waits until the membership used has been replaced, at most until ctx ends.
// No lock is held: the callback needs mu.
func (o *ownership) await(ctx context.Context, used membership) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		o.mu.Lock()
		moved, now, over := o.moved, o.now(), o.closing || o.fatal != nil
		o.mu.Unlock()
		if now != used || over {
			return
		}
		select {
		case <-moved:
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// reading says whether records of a partition may be given out.
func (o *ownership) reading(partition int32, epoch int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	own := o.owned[partition]
	return own != nil && own.epoch == epoch && !own.going
}

// all returns the partitions that are ours, sorted.
func (o *ownership) all() []int32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Sorted(maps.Keys(o.owned))
}

// startedPartitions returns those whose ends are asked for, sorted.
func (o *ownership) startedPartitions() []int32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	var ps []int32
	for p, own := range o.owned {
		if own.started && !own.going {
			ps = append(ps, p)
		}
	}
	slices.Sort(ps)
	return ps
}

// joined tells that the group has said what is ours, if only nothing, and Poll has told it.
func (o *ownership) joined() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.given && len(o.changes) == 0
}

// fail ends the session with err; the first one sticks.
func (o *ownership) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fatal == nil {
		o.fatal = err
	}
	o.move(o.as) // nobody awaits a callback any more
	o.rouse()
}

func (o *ownership) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fatal
}

// close lets every callback through from now on. It says whether it was the first.
func (o *ownership) close() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing {
		return false
	}
	o.closing = true
	for p := range o.owned {
		o.drop(p)
	}
	o.move(o.as)
	o.rouse()
	return true
}

// poll moves what is new into the batch and returns the starts to act upon. If
// there is nothing new, wake is what ends the wait for records that follows.
//
// One batch lists Lost, Revoked, Assigned in this order, so a change that would
// break it, or that names a partition again, waits for the next.
func (o *ownership) poll(into *pipeline.Batch, wake func()) (starts []start, news bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	named := make(map[int32]bool)
	last := changeLost
	for len(o.changes) > 0 {
		c := o.changes[0]
		if c.kind < last || slices.ContainsFunc(c.partitions, func(a pipeline.Assignment) bool { return named[a.Partition] }) {
			break
		}
		last = c.kind
		for _, a := range c.partitions {
			named[a.Partition] = true
			switch c.kind {
			case changeLost:
				into.Lost = append(into.Lost, a.Partition)
			case changeRevoked:
				into.Revoked = append(into.Revoked, a.Partition)
			case changeAssigned:
				into.Assigned = append(into.Assigned, a)
				if own := o.owned[a.Partition]; own != nil && own.epoch == a.Epoch {
					own.told = true
				}
			}
		}
		o.changes = o.changes[1:]
	}
	starts, o.starts = o.starts, nil
	news = len(named) > 0
	o.wake = nil
	if !news {
		o.wake = wake
	}
	return starts, news
}

// polled says that Poll does not wait any more.
func (o *ownership) polled() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wake = nil
}

// interrupt ends the wait of the Poll under way, if there is one.
func (o *ownership) interrupt() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rouse()
}

// The rest needs mu.

// now is the membership that a commit which begins now goes under.
func (o *ownership) now() membership {
	if o.live != nil {
		return o.live()
	}
	return o.as
}

// move notes the membership of a callback and wakes the commits waiting for it.
func (o *ownership) move(as membership) {
	o.as = as
	close(o.moved)
	o.moved = make(chan struct{})
}

func (o *ownership) drop(partition int32) {
	close(o.owned[partition].gone)
	delete(o.owned, partition)
}

func (o *ownership) tell(kind changeKind, partitions []pipeline.Assignment) {
	if len(partitions) == 0 {
		return
	}
	o.changes = append(o.changes, change{kind, partitions})
	o.rouse()
}

func (o *ownership) rouse() {
	if o.wake != nil {
		o.wake()
	}
}
