package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

// sick has the committer refuse outputs of partitions, as where their topic takes no
// writes: the first time after it has tried. It returns how often that happened.
func (b *bubble) sick(tries time.Duration, partitions ...int32) (refused *atomic.Int64) {
	refused = new(atomic.Int64)
	b.member.BeforeCommit.Set(func(_ context.Context, outs []*worker.Output) error {
		e := &pipeline.UnwritableError{Err: errTest}
		for _, out := range outs {
			if n := out.Mark.Partition; len(out.Items) > 0 && slices.Contains(partitions, n) && !slices.Contains(e.Partitions, n) {
				e.Partitions = append(e.Partitions, n)
			}
		}
		if len(e.Partitions) == 0 {
			return nil
		}
		if e.Tried = refused.Add(1) == 1; e.Tried {
			time.Sleep(tries)
		}
		return e
	})
	return refused
}

func (b *bubble) well() {
	b.member.BeforeCommit.Set(func(context.Context, []*worker.Output) error { return nil })
}

// A partition whose outputs can't be written, for a quarter of an hour, holds up no other
// one, however much it has to say meanwhile, and says all of it afterwards, once.
func TestUnwritablePartitionHoldsUpNoOther(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		b.member.Ends = time.Second
		b.member.Give(0, 1)
		l := b.run()
		synctest.Wait()
		refused := b.sick(10*time.Second, 1)
		const total = 3 * pipeline.ItemsAheadMax
		for range total / 1000 {
			b.log.Publish(1, users0(1000)...)
		}
		const minutes = 15
		for n := range minutes {
			b.log.Publish(0, view(fmt.Sprint("well", n), 0))
			time.Sleep(time.Second)
			synctest.Wait()
			if n > 0 { // the first waits for the transaction that tries
				b.said(0, n+1) // within a second, each
			}
			time.Sleep(time.Minute - time.Second)
		}
		b.said(1, 0)
		if got := refused.Load(); got > 10*60*minutes || got < 9*60*minutes {
			t.Errorf("tried %d times, want ten times a second, as Backoff waits here", got)
		}
		if got := count[pipeline.Aborted](b); got != 1 {
			t.Errorf("%d aborted transactions reported, want the one that was tried", got)
		}
		b.well()
		b.committed(1)
		b.said(1, total)
		b.said(0, minutes)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// Nor does it keep the other partitions from their snapshots, whatever it was about to do.
func TestUnwritablePartitionHoldsUpNoSnapshot(t *testing.T) {
	for name, waits := range map[string]time.Duration{"before a snapshot": 0, "while a snapshot waits for its commit": 30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 2, func(t *testing.T, b *bubble) {
				b.member.Ends = time.Second
				b.member.Give(0, 1)
				l := b.run()
				synctest.Wait()
				refused := b.sick(waits, 1)
				time.Sleep(40 * time.Second)
				b.log.Publish(1, users0(10)...)
				time.Sleep(25 * time.Second) // meanwhile a snapshot is due
				for range 2 * pipeline.ItemsAheadMax / 1000 {
					b.log.Publish(1, users0(1000)...)
				}
				time.Sleep(time.Minute)
				before := count[pipeline.SnapshotPublished](b)
				for n := range 10 {
					b.log.Publish(0, view(fmt.Sprint("well", n), 0))
					time.Sleep(2 * time.Minute)
				}
				if got := count[pipeline.SnapshotPublished](b) - before; got < 9 {
					t.Errorf("%d snapshots in twenty minutes, want one for each of ten users", got)
				}
				if refused.Load() == 0 {
					t.Error("nothing was refused")
				}
				b.well()
				b.committed(1)
				time.Sleep(5 * time.Minute)
				if got := count[pipeline.SnapshotFailed](b); got != 0 {
					t.Errorf("%d snapshots failed", got)
				}
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// The only partition is tried again though nothing else happens.
func TestTheOnlyPartitionIsUnwritable(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Give(0)
		l := b.run()
		synctest.Wait()
		b.sick(10*time.Second, 0)
		b.log.Publish(0, users(10)...)
		time.Sleep(time.Hour)
		b.well()
		b.committed(0)
		b.said(0, 10)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// What is held is tried again though the other partitions fill every transaction: when they
// have more to say than one takes, and the turn is theirs.
func TestUnwritablePartitionIsTriedBesideBacklogs(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, b *bubble) {
		b.cfg.TransactionMax = 100
		b.member.Ends = time.Second
		b.member.Give(0, 1, 2)
		l := b.run()
		synctest.Wait()
		refused := b.sick(10*time.Second, 1)
		b.log.Publish(1, users0(10)...)
		time.Sleep(time.Minute)
		for range 40 {
			b.log.Publish(0, users0(1000)...)
			b.log.Publish(2, users0(1000)...)
			time.Sleep(100 * time.Millisecond)
		}
		if refused.Load() == 0 {
			t.Error("nothing was refused")
		}
		b.well()
		b.committed(1)
		b.said(1, 10)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// What is held, and aborted for another reason when it is tried, is tried again.
func TestHeldAndAborted(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Give(0)
		l := b.run()
		synctest.Wait()
		tries := 0
		b.member.BeforeCommit.Set(func(context.Context, []*worker.Output) error {
			switch tries++; {
			case tries == 1:
				return &pipeline.UnwritableError{Partitions: []int32{0}, Tried: true, Err: errTest}
			case tries < 10:
				return fmt.Errorf("%w: %w", pipeline.ErrAborted, errTest)
			}
			return nil
		})
		b.log.Publish(0, users(10)...)
		time.Sleep(time.Minute)
		b.said(0, 10)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// A partition whose outputs can't be written does not keep its process from giving it away,
// nor from ending; the next owner says what waited.
func TestUnwritablePartitionIsGivenAway(t *testing.T) {
	for name, many := range map[string]int{"with room": 1, "without": 2 * pipeline.ItemsAheadMax / 1000} {
		for _, ends := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, ends %v", name, ends), func(t *testing.T) {
				inBubble(t, 2, func(t *testing.T, b *bubble) {
					b.member.Ends = time.Second
					b.member.Give(0, 1)
					l := b.run()
					synctest.Wait()
					b.sick(10*time.Second, 1)
					for range many {
						b.log.Publish(1, users0(1000)...)
					}
					b.log.Publish(0, view("u", 0))
					time.Sleep(time.Minute)
					if !ends {
						b.member.Take(1)
						time.Sleep(time.Second)
					} else if err := l.end(t); err != nil {
						t.Fatal(err)
					}
					other := b.member
					b.next()
					b.member.Ends = time.Second
					b.member.Give(1)
					next := b.run()
					time.Sleep(time.Minute)
					b.said(1, 1000*many)
					b.said(0, 1)
					if b.member = other; !ends {
						if err := l.end(t); err != nil {
							t.Fatal(err)
						}
					}
					if err := next.end(t); err != nil {
						t.Fatal(err)
					}
				})
			})
		}
	}
}

// What can't be written is lost with its partition, and the next owner says it.
func TestUnwritablePartitionIsLost(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		b.member.Ends = time.Second
		b.member.Give(0, 1)
		l := b.run()
		synctest.Wait()
		b.sick(10*time.Second, 1)
		for range 2 * pipeline.ItemsAheadMax / 1000 {
			b.log.Publish(1, users0(1000)...)
		}
		time.Sleep(time.Minute)
		b.member.Lose(1)
		time.Sleep(time.Minute)
		b.member.Give(1)
		time.Sleep(time.Minute)
		b.well()
		b.committed(1)
		b.said(1, 2*pipeline.ItemsAheadMax)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// An error that names none of what was sent is an abort like any other, and what is sent
// whole too often goes in parts.
func TestUnwritableNamesNothing(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Give(0)
		l := b.run()
		synctest.Wait()
		tries := 0
		b.member.BeforeCommit.Set(func(context.Context, []*worker.Output) error {
			if tries++; tries < 10 {
				return &pipeline.UnwritableError{Partitions: []int32{7}, Tried: true, Err: errTest}
			}
			return nil
		})
		b.log.Publish(0, users(10)...)
		b.committed(0)
		b.said(0, 10)
		if got := count[pipeline.Aborted](b); got != 9 {
			t.Errorf("%d aborts reported, want 9", got)
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// What was too much at once goes in smaller transactions.
func TestTooMuchAtOnceIsUnwritable(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Give(0)
		l := b.run()
		synctest.Wait()
		b.member.BeforeCommit.Set(func(_ context.Context, outs []*worker.Output) error {
			if len(outs) > 3 {
				return &pipeline.UnwritableError{Partitions: []int32{0}, Tried: true, Err: errTest}
			}
			return nil
		})
		for range 500 {
			b.log.Publish(0, users0(20)...)
		}
		b.committed(0)
		b.said(0, 500*20)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// The error is what its users look for.
func TestUnwritableError(t *testing.T) {
	err := fmt.Errorf("commit: %w", &pipeline.UnwritableError{Partitions: []int32{1, 3}, Err: errTest})
	if !errors.Is(err, pipeline.ErrAborted) || !errors.Is(err, errTest) || err.Error() != "commit: the outputs of partitions [1 3] can't be written now: a failure of the test's" {
		t.Errorf("got %v", err)
	}
}

// A partition that is lost while it drains has nothing more to wait for.
func TestLostWhileItDrains(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		b.member.Give(0, 1)
		l := b.run()
		synctest.Wait()
		b.member.BeforeCommit.Set(func(ctx context.Context, outs []*worker.Output) error {
			for _, o := range outs {
				if o.Mark.Partition == 0 {
					return pipeline.ErrAborted
				}
			}
			return nil
		})
		b.log.Publish(0, users(7)...)
		synctest.Wait()
		b.member.Take(0)
		time.Sleep(time.Second)
		if !b.log.Owned(0) {
			t.Error("released before what it has said was committed")
		}
		b.member.Lose(0)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := count[pipeline.Lost](b); n != 1 {
			t.Errorf("%d partitions told as lost, want the one", n)
		}
		b.well()
		b.log.Publish(1, users(3)...)
		b.committed(1)
		b.said(0, 0)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		b.said(0, 0)
	})
}
