package pipeline

import (
	"context"
	"slices"
)

// A stream is held while what it says can't be written (UnwritableError). The committer puts
// it back, and tries it again now and then; the other streams have nothing to do with that.
// So it is while nobody can tell whether what it said was written (resolve).

// stuck returns a channel that is closed while the stream is held.
func (s *stream) stuck() <-chan struct{} {
	s.commits.mu.Lock()
	defer s.commits.mu.Unlock()
	return s.holding
}

func (s *stream) isHeld() bool {
	s.commits.mu.Lock()
	defer s.commits.mu.Unlock()
	return s.held
}

func (s *stream) holdLocked() {
	if !s.held && !s.lost {
		s.held = true
		close(s.holding)
		s.tell()
	}
}

// names tells that an error is of some of what was sent.
func names(all []sending, e *UnwritableError) bool {
	return slices.ContainsFunc(all, func(s sending) bool { return slices.Contains(e.Partitions, s.number) })
}

// hold puts back what can't be written, to be tried again in a while, and gives the rest,
// which need not wait for it.
func (c *commits) hold(ctx context.Context, all []sending, e *UnwritableError) (rest []sending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range all {
		if !slices.Contains(e.Partitions, s.number) {
			rest = append(rest, s)
			continue
		}
		s.holdLocked()
		s.retries = false
		s.putBack()
	}
	if e.Tried {
		c.most = max(1, c.most/2)
	}
	if c.refused++; !c.waits && !c.cfg.Inline {
		c.waits = true
		refused := c.refused
		c.waiting.Go(func() { c.wait(ctx, refused) })
	}
	return rest
}

// wait lets what is held be tried again in a while.
func (c *commits) wait(ctx context.Context, refused int) {
	c.cfg.Backoff(ctx, refused)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waits = false
	c.retryHeld()
	signal(c.wake)
}

// retryHeld has what is held be tried again: each when there is room for it in a transaction,
// and until it is known whether it can be written. It is called with mu held.
func (c *commits) retryHeld() {
	for _, s := range c.streams {
		s.retries = s.held
	}
}
