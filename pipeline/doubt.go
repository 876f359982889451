package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math"

	"footfall/schemas"
)

// A transaction whose outcome is not known is in doubt: each of its streams waits until it is
// known, by what the broker says of its partition, whether it happened. Where one gets no
// answer, as while an output partition is away, the others have nothing to do with that.

// questionWaits is for how many of Backoff's waits the committer waits for a first answer: some
// four seconds. Most come in milliseconds, and what is held would be given away without a drain.
const questionWaits = 8

// resolve asks what became of a transaction, or of what is still in doubt. It waits until each
// stream has asked once, and not for long; those that have no answer by then are held, and go on
// asking beside the committer.
func (c *commits) resolve(ctx context.Context, all []sending) error {
	c.mu.Lock()
	for _, s := range all {
		if !s.lost {
			s.doubt, s.unlikely = s.outs, 0
		}
	}
	c.mu.Unlock()
	if c.cfg.Inline {
		for _, s := range all {
			if err := c.ask(ctx, s, 1); err != nil && !passes(ctx, err) {
				return err
			}
		}
		return nil
	}
	asked := make(chan struct{}, len(all))
	for _, s := range all {
		c.waiting.Go(func() { c.askOn(ctx, s, asked) })
	}
	late := make(chan struct{})
	waits, answered := context.WithCancel(ctx)
	defer answered()
	c.waiting.Go(func() {
		defer close(late)
		for attempt := 1; attempt <= questionWaits && waits.Err() == nil; attempt++ {
			c.cfg.Backoff(waits, attempt)
		}
	})
	for range all {
		select {
		case <-asked:
			continue
		case <-late:
			c.holdDoubted()
		}
		break
	}
	select {
	case err := <-c.failed:
		return err
	default:
		return ctx.Err()
	}
}

// holdDoubted holds what is in doubt.
func (c *commits) holdDoubted() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		if s.doubt != nil {
			s.holdLocked()
		}
	}
}

// doubted gives what is in doubt.
func (c *commits) doubted() (all []sending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		if s.doubt != nil {
			all = append(all, sending{s, s.doubt})
		}
	}
	return all
}

// askOn asks until there is an answer, and tells that it has asked once.
func (c *commits) askOn(ctx context.Context, s sending, once chan<- struct{}) {
	for attempt := 1; ; attempt++ {
		err := c.ask(ctx, s, attempt)
		again := passes(ctx, err)
		if err != nil && !again && ctx.Err() == nil {
			select {
			case c.failed <- err:
			default:
			}
		}
		if attempt == 1 {
			once <- struct{}{}
		}
		if !again {
			return
		}
		c.cfg.Backoff(ctx, attempt)
		if s.isLost() {
			return
		}
	}
}

// passes tells an error that asking again may mend.
func passes(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() == nil && !errors.Is(err, ErrPermanent) && !errors.Is(err, ErrFenced) && !errors.Is(err, errSetBack)
}

// ask finds out, once, whether a stream's part of a transaction has happened: the broker's mark
// is either the one before (it is to be sent again) or the one it carried (done). Any other is
// another owner's: ours is lost. Without an answer the stream is held, and the error passes.
//
// Brokers have been seen to answer with an old mark, from a state that they were still
// loading (sources/kafka, doc.go), which would have outputs sent again. So a mark is
// held against the outputs that there are.
func (c *commits) ask(ctx context.Context, s sending, attempt int) error {
	before, after := s.mark(), s.last().Mark
	mark, found, err := c.cfg.Committer.Committed(ctx, s.number)
	if err != nil {
		err = fmt.Errorf("ask for the committed mark of partition %d: %w", s.number, err)
	} else if !same(mark, after) {
		mark, found, err = c.beyondDoubt(ctx, s, before)
	}
	switch {
	case passes(ctx, err):
		c.cfg.Report(InDoubt{Partition: s.number, Attempt: attempt, Err: err})
		c.mu.Lock()
		defer c.mu.Unlock()
		s.holdLocked()
		return err
	case err != nil:
		return err
	case found && same(mark, after):
		//failpoint:commit.resolved
		c.settle([]sending{s})
		signal(c.wake) // for what it has said meanwhile
	case same(mark, before): // both zero where there was none
		c.again(s)
	default:
		s.lose()
	}
	return nil
}

// again has what did not happen be sent again.
func (c *commits) again(s sending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.doubt, s.retries = nil, s.held
	s.putBack()
	signal(c.wake)
}

// beyondDoubt asks for a partition's committed mark, and gives one that can be: one that counts
// what is sent, if that is there, and is not older than the one that we know of. Any other is
// asked for again, a few times; one that stays so is nobody's that we could go on from.
func (c *commits) beyondDoubt(ctx context.Context, s sending, before schemas.Mark) (mark schemas.Mark, found bool, err error) {
	last, err := c.cfg.History.Last(ctx, s.number)
	if err != nil {
		return mark, false, fmt.Errorf("ask for the last output of partition %d: %w", s.number, err)
	}
	if mark, found, err = c.cfg.Committer.Committed(ctx, s.number); err != nil {
		return mark, false, fmt.Errorf("ask for the committed mark of partition %d: %w", s.number, err)
	}
	first := s.first()
	if uncounted := first <= last && mark.N < first; !uncounted && mark.N >= before.N && mark.Next >= before.Next {
		return mark, found, nil
	}
	why := errSetBack
	if s.unlikely++; s.unlikely <= doubtsMax && !c.cfg.Inline {
		why = errors.New("asking again")
	}
	return mark, false, fmt.Errorf("partition %d: the committed mark counts n=%d at offset %d; before, n=%d at offset %d were committed, and n=%d was said: %w",
		s.number, mark.N, mark.Next, before.N, before.Next, last, why)
}

// errSetBack says that somebody else has committed an offset of the group's.
var errSetBack = errors.New("the group's offset was set back")

// first is the number of the first output that is sent; the highest there is where
// there is none.
func (s *sending) first() uint64 {
	for _, out := range s.outs {
		if len(out.Items) > 0 {
			return out.Items[0].N
		}
	}
	return math.MaxUint64
}

// same compares what two marks promise, and not who made them.
func same(a, b schemas.Mark) bool {
	return a.Next == b.Next && a.N == b.N && a.Hash == b.Hash && a.Clock == b.Clock && a.Fired == b.Fired
}
