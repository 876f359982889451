package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"footfall/pipeline"
	"footfall/pipeline/pipelinetest"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// mute gives no answer of partition 1 while it is silent, as when its output topic has no leader.
type mute struct {
	*pipelinetest.Member
	silent atomic.Bool
	asked  atomic.Int64
	wait   time.Duration // until it is said that there is none
	mark   bool          // the committed mark is not told, either
	err    error
	ever   atomic.Bool // nothing mends it
}

func (m *mute) Last(ctx context.Context, partition int32) (uint64, error) {
	if err := m.answer(ctx, partition); err != nil {
		return 0, err
	}
	return m.Member.Last(ctx, partition)
}

func (m *mute) Committed(ctx context.Context, partition int32) (schemas.Mark, bool, error) {
	if m.mark {
		if err := m.answer(ctx, partition); err != nil {
			return schemas.Mark{}, false, err
		}
	}
	return m.Member.Committed(ctx, partition)
}

func (m *mute) answer(ctx context.Context, partition int32) error {
	if partition != 1 || !m.silent.Load() {
		return nil
	}
	m.asked.Add(1)
	select {
	case <-time.After(m.wait):
	case <-ctx.Done():
	}
	if m.ever.Load() {
		return fmt.Errorf("no such group: %w", pipeline.ErrPermanent)
	}
	return m.err
}

// inDoubt has a transaction of two partitions have an outcome that is not known, of which
// nobody can tell what became of the part of partition 1. happened tells whether it did.
func (b *bubble) inDoubt(t *testing.T, m *mute, happened bool) *life {
	t.Helper()
	b.cfg.History, b.cfg.Committer = m, m
	b.member.Ends = time.Second
	b.member.Give(0, 1)
	l := b.run()
	synctest.Wait()
	commits, of := 0, 0
	hook := func(of int) error {
		if of < 2 || count[pipeline.Unknown](b) > 0 {
			return nil
		}
		m.silent.Store(true)
		return errTest
	}
	b.member.BeforeCommit.Set(func(_ context.Context, outs []*worker.Output) error {
		if commits++; commits == 1 {
			time.Sleep(time.Second) // what is published meanwhile makes the next transaction
		}
		parts := map[int32]bool{}
		for _, out := range outs {
			parts[out.Mark.Partition] = true
		}
		if of = len(parts); happened {
			return nil
		}
		return hook(of)
	})
	b.member.AfterCommit.Set(func() error {
		if !happened {
			return nil
		}
		return hook(of)
	})
	b.log.Publish(0, view("first", 0))
	synctest.Wait()
	b.log.Publish(1, view("doubt", 0))
	b.log.Publish(0, view("second", 0))
	time.Sleep(time.Minute)
	if n := count[pipeline.Unknown](b); n != 1 {
		t.Errorf("%d outcomes unknown, want 1", n)
	}
	return l
}

// A partition of which nobody can tell whether what it said has happened holds up no other
// one, keeps nobody from ending, and says what it has to, once, when there is an answer.
func TestADoubtHoldsUpNoOther(t *testing.T) {
	for _, happened := range []bool{true, false} {
		for _, mark := range []bool{true, false} {
			if happened && !mark {
				continue // the mark says so
			}
			for _, ends := range []bool{true, false} {
				t.Run(fmt.Sprintf("happened=%v mark=%v ends=%v", happened, mark, ends), func(t *testing.T) {
					inBubble(t, 2, func(t *testing.T, b *bubble) {
						m := &mute{Member: b.member, wait: 30 * time.Second, mark: mark, err: errors.Join(errTest, pipeline.ErrAway)}
						l := b.inDoubt(t, m, happened)
						for n := range 20 {
							b.log.Publish(0, view(fmt.Sprint("well", n), 0))
							b.log.Publish(1, view(fmt.Sprint("waits", n), 0))
							time.Sleep(time.Second)
							synctest.Wait()
							b.said(0, n+3)
							time.Sleep(time.Minute)
						}
						if n := m.asked.Load(); n < 20 {
							t.Errorf("asked %d times", n)
						}
						if n := count[pipeline.InDoubt](b); n < 20 {
							t.Errorf("told %d times", n)
						}
						if n := count[pipeline.Unknown](b); n != 1 {
							t.Errorf("%d outcomes unknown, want 1", n)
						}
						b.sick(0, 0) // what is held is tried again, and not what is in doubt
						b.log.Publish(0, view("held", 0))
						time.Sleep(time.Minute)
						b.well()
						b.said(1, map[bool]int{true: 1}[happened])
						if ends {
							if err := l.end(t); err != nil {
								t.Fatal(err)
							}
							b.next()
							b.member.Give(0, 1)
							l = b.run()
						}
						m.silent.Store(false)
						b.committed(1)
						b.said(1, 21)
						b.said(0, 23)
						if err := l.end(t); err != nil {
							t.Fatal(err)
						}
					})
				})
			}
		}
	}
}

// Nor does a question that takes ten minutes, the first time, hold up any other one; what
// waited for its answer is said when that comes, and need not wait for anything else.
func TestAQuestionThatTakesLongHoldsUpNoOther(t *testing.T) {
	for _, happened := range []bool{true, false} {
		t.Run(fmt.Sprintf("happened=%v", happened), func(t *testing.T) {
			inBubble(t, 2, func(t *testing.T, b *bubble) {
				b.cfg.LazyCommit = schemas.Hour
				const long = 10 * time.Minute
				m := &mute{Member: b.member, wait: long, mark: true}
				began := time.Now()
				l := b.inDoubt(t, m, happened)
				b.said(0, 2)
				m.silent.Store(false)
				for n := range 5 {
					b.log.Publish(0, view(fmt.Sprint("well", n), 0))
					b.log.Publish(1, view(fmt.Sprint("waits", n), 0))
					time.Sleep(time.Second)
					synctest.Wait()
					b.said(0, n+3)
					time.Sleep(time.Minute)
				}
				b.said(1, map[bool]int{true: 1}[happened])
				time.Sleep(long - time.Since(began) + 2*time.Second)
				synctest.Wait()
				b.said(1, 6)
				if n := m.asked.Load(); n != 1 {
					t.Errorf("asked %d times, want once", n)
				}
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// Nor does one keep the process from ending with an error.
func TestADoubtBesideAnError(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		m := &mute{Member: b.member, wait: 30 * time.Second, mark: true, err: errors.Join(errTest, pipeline.ErrAway)}
		l := b.inDoubt(t, m, false)
		b.member.BeforeCommit.Set(func(context.Context, []*worker.Output) error { return fmt.Errorf("end: %w", pipeline.ErrFenced) })
		b.log.Publish(0, view("last", 0))
		if err := l.ended(t); !errors.Is(err, pipeline.ErrFenced) {
			t.Errorf("got %v, want that it is fenced", err)
		}
	})
}

// An answer that nothing mends ends the process, also when it comes late.
func TestADoubtThatNothingMends(t *testing.T) {
	for name, wait := range map[string]time.Duration{"of many answers": time.Second, "the first answer": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 2, func(t *testing.T, b *bubble) {
				m := &mute{Member: b.member, wait: wait, mark: true, err: errTest}
				l := b.inDoubt(t, m, false)
				m.ever.Store(true)
				if err := l.ended(t); !errors.Is(err, pipeline.ErrPermanent) {
					t.Errorf("got %v, want what nothing mends", err)
				}
			})
		})
	}
}
