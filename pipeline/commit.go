package pipeline

import (
	"context"
	"errors"
	"slices"
	"sync"

	"footfall/pipeline/worker"
	"footfall/schemas"
)

// commits is the committer: one goroutine that makes transactions out of what the
// partitions say, one after the other. A transaction is opened by the first output
// that waits and closed at once; what arrives meanwhile goes into the next one
// (group commit), so latency is the broker's commit time and not an interval.
//
// The partitions fill the streams, this goroutine empties them. While the broker
// is slow the streams fill, and the partitions wait for room. It ends with its
// context, or with an error that no sending again can mend.
type commits struct {
	cfg *Config

	// The committer's own.
	most   int // outputs in the next transaction, about: fewer after aborts
	aborts int // one after the other

	waiting sync.WaitGroup // of wait and askOn
	failed  chan error     // the first error that ends them; capacity 1

	mu      sync.Mutex
	streams []*stream // in order of assignment; lost ones are removed by collect
	first   int       // whose turn it is to begin a transaction
	lazyAt  schemas.Millis
	refused int           // times in a row that those that are held were
	waits   bool          // wait is waiting for the next time
	wake    chan struct{} // capacity 1
}

// stream is what one partition, under one ownership, has said and not yet committed.
type stream struct {
	commits *commits
	number  int32
	epoch   int64

	// Guarded by commits.mu.
	changed   chan struct{}    // closed, and made anew, when something was committed or lost
	outs      []*worker.Output // in order, with items but where marks without were put back
	items     int              // in outs, in doubt and in the transaction under way, as weigh counts them
	idle      *worker.Output   // the newest mark without items after outs, or nil
	demanded  bool             // idle is not to wait
	doubt     []*worker.Output // what was sent, where it is not known whether it happened; or nil
	held      bool             // what it says can't be written now, or it can't be told whether it was
	unlikely  int              // marks we were told of that can't be; who asks is one at a time
	retries   bool             // it is time to try again
	holding   chan struct{}    // closed while held
	committed schemas.Mark
	anything  bool // committed is one, and not the absence of any
	lost      bool
}

func newCommits(cfg *Config) *commits {
	return &commits{cfg: cfg, most: cfg.TransactionMax, failed: make(chan error, 1), wake: make(chan struct{}, 1)}
}

// stream begins the stream of an assignment.
func (c *commits) stream(a Assignment) *stream {
	s := &stream{commits: c, number: a.Partition, epoch: a.Epoch, changed: make(chan struct{}), holding: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams = append(c.streams, s)
	return s
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// push adds an output; one without items only moves the mark, and may wait.
func (s *stream) push(out *worker.Output) {
	s.commits.mu.Lock()
	defer s.commits.mu.Unlock()
	if len(out.Items) == 0 {
		s.idle = out
		return
	}
	s.idle = nil
	s.outs = append(s.outs, out)
	s.items += weigh(out)
	signal(s.commits.wake)
}

// weigh counts the items of an output. A dead letter has the bytes of what was refused, which
// may be a megabyte: it counts for as many as are about as large. Else a transaction of them
// would be gigabytes, and none that the broker takes before it times out.
func weigh(out *worker.Output) int {
	weight := len(out.Items)
	for i := range out.Items {
		if d := out.Items[i].DeadLetter; d != nil {
			bytes := len(d.Key) + len(d.Value)
			for _, h := range d.Headers {
				bytes += len(h.Key) + len(h.Value)
			}
			weight += bytes / itemBytes
		}
	}
	return weight
}

// demand adds a mark that is to be committed soon.
func (s *stream) demand(out *worker.Output) {
	s.commits.mu.Lock()
	defer s.commits.mu.Unlock()
	s.idle, s.demanded = out, true
	signal(s.commits.wake)
}

// begin sets what was committed before this ownership.
func (s *stream) begin(mark schemas.Mark, found bool) {
	s.commits.mu.Lock()
	defer s.commits.mu.Unlock()
	s.committed, s.anything = mark, found
}

// lose drops everything: nothing of this ownership can be committed any more.
func (s *stream) lose() {
	s.commits.mu.Lock()
	defer s.commits.mu.Unlock()
	s.loseLocked()
}

func (s *stream) loseLocked() {
	s.lost, s.outs, s.items, s.idle, s.doubt = true, nil, 0, nil, nil
	s.tell()
}

// tell wakes everyone who awaits a change.
func (s *stream) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *stream) isLost() bool {
	s.commits.mu.Lock()
	defer s.commits.mu.Unlock()
	return s.lost
}

// mark is what was committed last.
func (s *stream) mark() schemas.Mark {
	s.commits.mu.Lock()
	defer s.commits.mu.Unlock()
	return s.committed
}

// covers tells whether everything up to a mark has been committed.
func (s *stream) covers(mark schemas.Mark) bool {
	s.commits.mu.Lock()
	defer s.commits.mu.Unlock()
	return s.coversLocked(mark)
}

func (s *stream) coversLocked(mark schemas.Mark) bool {
	c := &s.committed
	return s.anything && c.Next >= mark.Next && c.N >= mark.N && c.Clock >= mark.Clock &&
		(c.N > mark.N || c.Hash == mark.Hash) // a rebuild's past is another, though nothing more was said
}

// await waits until ready (called with mu held) or the stream is lost.
func (s *stream) await(ctx context.Context, ready func() bool) {
	for {
		s.commits.mu.Lock()
		ok, changed := ready() || s.lost, s.changed
		s.commits.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// awaitRoom waits until little enough is uncommitted, and once more, after held, where
// nothing will be for a while.
func (s *stream) awaitRoom(ctx context.Context, held func()) {
	room := func() bool { return s.items < itemsAheadMax }
	s.await(ctx, func() bool { return room() || s.held })
	if s.isHeld() {
		held()
	}
	s.await(ctx, room)
}

// room is how many outputs of timers may join those that wait for their commit: what an
// event has to say waits behind them. The partitions share it. changed is closed when it
// may have grown.
func (s *stream) room() (n int, changed <-chan struct{}) {
	c := s.commits
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(1, c.cfg.TimersAhead/max(1, len(c.streams))) - s.items, s.changed
}

func (s *stream) awaitCommit(ctx context.Context, mark schemas.Mark) {
	s.await(ctx, func() bool { return s.coversLocked(mark) })
}

// run commits until ctx ends.
func (c *commits) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer c.waiting.Wait()
	defer cancel() // who asks what became of something would not end by itself
	for {
		select {
		case <-c.wake:
		case err := <-c.failed:
			return err
		case <-ctx.Done():
			return nil
		}
		if err := c.step(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// nudge lets marks be committed that have waited long enough.
func (c *commits) nudge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lazy(c.cfg.Now()) {
		signal(c.wake)
	}
}

// lazy tells that marks have waited long enough, or the clock went back.
func (c *commits) lazy(now schemas.Millis) bool {
	return now >= c.lazyAt || now < c.lazyAt-c.cfg.LazyCommit
}

// step makes transactions until nothing is left that has to be committed now.
func (c *commits) step(ctx context.Context) error {
	if c.cfg.Inline { // nobody waits
		if err := c.resolve(ctx, c.doubted()); err != nil {
			return err
		}
		c.mu.Lock()
		c.retryHeld()
		c.mu.Unlock()
	}
	for {
		sent := c.collect()
		if len(sent) == 0 {
			return nil
		}
		if err := c.send(ctx, sent); err != nil {
			return err
		}
	}
}

// sending is one partition's part of a transaction.
type sending struct {
	*stream
	outs []*worker.Output
}

func (s *sending) last() *worker.Output { return s.outs[len(s.outs)-1] }

// marksMax is of how many partitions a transaction takes marks. The group's coordinator writes
// them as one batch, and one of 400 bytes each, which may be as large as a batch can (1 MB).
const marksMax = 1000

// collect takes what the next transaction is made of: outputs of every partition
// up to a limit, and marks without outputs where they have waited long enough. Those
// that are held are left out, but now and then, and those in doubt until it is resolved.
func (c *commits) collect() []sending {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()
	lazy, left := c.lazy(now), false
	c.streams = slices.DeleteFunc(c.streams, func(s *stream) bool { return s.lost })
	var all []sending
	total, first, n := 0, c.first, len(c.streams)
	for i := range n {
		s := c.streams[(first+i)%n]
		if s.doubt != nil || s.held && !s.retries {
			continue
		}
		part := sending{stream: s}
		room := len(all) < marksMax
		for len(s.outs) > 0 && total < c.most && room {
			part.outs = append(part.outs, s.outs[0])
			total += max(1, weigh(s.outs[0])) // a mark alone is something, too: of too many it must become fewer
			s.outs = s.outs[1:]
			c.first = first + i + 1 // one that always has as much to say would else keep the others back
		}
		switch {
		case len(s.outs) > 0 || s.idle == nil:
		case len(part.outs) > 0, (lazy || s.demanded) && total < c.most && room:
			if len(part.outs) == 0 {
				total++
			}
			part.outs = append(part.outs, s.idle)
			s.idle, s.demanded = nil, false
		case lazy:
			left = true // for the next transaction, at once
		}
		if len(part.outs) > 0 {
			all = append(all, part)
		}
	}
	if lazy && !left {
		c.lazyAt = now + c.cfg.LazyCommit
	}
	c.first %= max(1, n)
	return all
}

// abortsMax is how often a transaction is sent as it is.
const abortsMax = 3

// send commits one transaction, again and again until it is known to have happened, nobody
// is left to whom it belongs, it was put back, or its outcome is in doubt.
func (c *commits) send(ctx context.Context, all []sending) error {
	for attempt := 1; ; attempt++ {
		all = c.stillOurs(all)
		if len(all) == 0 {
			return nil
		}
		var outs []*worker.Output
		for i := range all {
			outs = append(outs, all[i].outs...)
		}
		//failpoint:commit.collected
		err := c.cfg.Committer.Commit(ctx, outs)
		var lost *LostError
		var unwritable *UnwritableError
		switch {
		case err == nil:
			//failpoint:commit.done
			c.aborts, c.most = 0, min(c.most+c.most/8+1, c.cfg.TransactionMax)
			c.settle(all)
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &lost):
			c.drop(all, lost)
		case errors.As(err, &unwritable) && names(all, unwritable):
			if unwritable.Tried {
				c.aborts++
				c.cfg.Report(Aborted{Attempt: c.aborts, Err: err})
			}
			all = c.hold(ctx, all, unwritable)
			attempt = 0
		case errors.Is(err, ErrAborted):
			c.aborts++
			c.cfg.Report(Aborted{Attempt: c.aborts, Err: err})
			c.cfg.Backoff(ctx, c.aborts)
			if attempt >= abortsMax {
				c.putBack(all)
				return nil
			}
		case errors.Is(err, ErrFenced), errors.Is(err, ErrPermanent):
			return err
		default:
			c.cfg.Report(Unknown{Err: err})
			//failpoint:commit.unknown
			return c.resolve(ctx, all)
		}
	}
}

// putBack has what was aborted, again and again, go in smaller transactions: it may be more
// than a broker takes before one times out, as where a quota slows it down. Marks alone that
// others follow are left out: with every time one more would be put back.
func (c *commits) putBack(all []sending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range all {
		s.putBack()
	}
	c.most = max(1, c.most/2)
}

// putBack is called with mu held.
func (s *sending) putBack() {
	if s.lost {
		return
	}
	back := slices.Concat(s.outs, s.stream.outs)
	last := back[len(back)-1]
	s.stream.outs = slices.DeleteFunc(back, func(out *worker.Output) bool { return len(out.Items) == 0 && out != last })
}

func (c *commits) stillOurs(all []sending) []sending {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ours []sending
	for _, s := range all {
		if !s.lost {
			ours = append(ours, s)
		}
	}
	return ours
}

// settle notes that a transaction has happened.
func (c *commits) settle(all []sending) {
	c.mu.Lock()
	items := 0
	for _, s := range all {
		for _, out := range s.outs {
			items += len(out.Items)
			s.items = max(0, s.items-weigh(out))
		}
		s.committed, s.anything, s.doubt = s.last().Mark, true, nil
		if s.held {
			s.held, s.retries, s.holding = false, false, make(chan struct{})
			c.refused = 0
		}
		s.tell()
	}
	c.mu.Unlock()
	c.cfg.Report(Committed{Partitions: len(all), Outputs: items})
}

func (c *commits) drop(all []sending, lost *LostError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range all {
		for _, n := range lost.Partitions {
			if s.number == n {
				s.loseLocked()
			}
		}
	}
}
