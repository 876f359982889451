package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"footfall/pipeline"
	"footfall/pipeline/pipelinetest"
	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// A log or a bucket that does not answer makes a recovery wait, and nobody else: what
// is live goes on, and the recovery is done when there is an answer.
func TestRecoveryWaitsForWhoIsAway(t *testing.T) {
	for name, away := range map[string]func(b *bubble, away func() error){
		"the log": func(b *bubble, away func() error) {
			b.member.BeforeSaid.Set(func(context.Context, int32) error { return away() })
		},
		"the bucket's listing": func(b *bubble, away func() error) { b.bucket.BeforeList.Set(away) },
		"the bucket's objects": func(b *bubble, away func() error) { b.bucket.BeforeGet.Set(func(string) error { return away() }) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 2, func(t *testing.T, b *bubble) {
				b.member.Give(0, 1)
				l := b.run()
				synctest.Wait()
				for n := range int32(2) {
					b.log.Publish(n, users(3)...)
					b.committed(n)
				}
				b.member.Lose(1)
				synctest.Wait()
				var back atomic.Bool
				away(b, func() error {
					if back.Load() {
						return nil
					}
					return errors.Join(errTest, pipeline.ErrAway, snapshot.ErrAway)
				})
				b.member.Give(1)
				b.log.Publish(1, view("late", 0))
				time.Sleep(30 * time.Minute)
				b.log.Publish(0, view("meanwhile", 0))
				b.committed(0)
				b.said(0, 4)
				b.said(1, 3)
				if n := count[pipeline.RecoveryWaits](b); n < 100 {
					t.Errorf("it was tried again %d times in half an hour", n)
				}
				back.Store(true)
				b.committed(1)
				b.said(1, 4)
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// Partitions whose log is away, a broker's say, or whose mark is not decided, take nobody's
// turn to recover.
func TestRecoveriesThatWaitTakeNobodysTurn(t *testing.T) {
	for name, away := range map[string]func(b *bubble, away func(partition int32) error){
		"the log": func(b *bubble, away func(int32) error) {
			b.member.BeforeSaid.Set(func(_ context.Context, partition int32) error { return away(partition) })
		},
		"the mark": func(b *bubble, away func(int32) error) { b.cfg.Committer.(*undecided).away.Store(&away) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 4, func(t *testing.T, b *bubble) {
				b.cfg.Committer = &undecided{Member: b.member}
				b.member.Give(0, 1, 2, 3)
				l := b.run()
				synctest.Wait()
				for n := range int32(4) {
					b.log.Publish(n, users(3)...)
					b.committed(n)
					b.member.Lose(n)
				}
				synctest.Wait()
				away(b, func(partition int32) error {
					if partition < 3 {
						return errors.Join(errTest, pipeline.ErrAway)
					}
					return nil
				})
				b.member.Give(0, 1, 2)
				synctest.Wait()
				b.member.Give(3)
				b.log.Publish(3, view("late", 0))
				b.committed(3)
				b.said(3, 4)
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// Nor do those whose output topic has no leader, which it takes long to be told, and those
// whose rebuild can't be committed.
func TestWhoCannotSpeakTakesNobodysTurn(t *testing.T) {
	for _, rebuild := range []bool{false, true} {
		t.Run(fmt.Sprint("rebuild: ", rebuild), func(t *testing.T) {
			inBubble(t, 4, func(t *testing.T, b *bubble) {
				b.member.Give(0, 1, 2, 3)
				l := b.run()
				synctest.Wait()
				for n := range int32(4) {
					b.log.Publish(n, users(3)...)
					b.committed(n)
				}
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
				if rebuild {
					for _, k := range b.bucket.Keys() {
						b.bucket.Set(k, nil)
					}
				}
				b.next()
				b.cfg.Rebuild = rebuild
				if rebuild {
					b.member.BeforeCommit.Set(func(_ context.Context, outs []*worker.Output) error {
						e := &pipeline.UnwritableError{Err: errTest}
						for _, out := range outs {
							if n := out.Mark.Partition; n < 3 && !slices.Contains(e.Partitions, n) {
								e.Partitions = append(e.Partitions, n)
							}
						}
						if len(e.Partitions) == 0 {
							return nil
						}
						return e
					})
				} else {
					b.cfg.History = leaderless{b.member}
				}
				b.member.Give(0, 1, 2)
				l = b.run()
				synctest.Wait()
				b.member.Give(3)
				b.log.Publish(3, view("late", 0))
				time.Sleep(20 * time.Second)
				b.said(3, 4)
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// leaderless has no leader of the output topics' partitions below 3.
type leaderless struct{ *pipelinetest.Member }

func (l leaderless) Last(ctx context.Context, partition int32) (uint64, error) {
	if partition < 3 {
		select {
		case <-time.After(30 * time.Second):
		case <-ctx.Done():
		}
		return 0, errors.Join(errTest, pipeline.ErrAway)
	}
	return l.Member.Last(ctx, partition)
}

// undecided is a member that is not told some marks.
type undecided struct {
	*pipelinetest.Member
	away atomic.Pointer[func(partition int32) error]
}

func (u *undecided) Committed(ctx context.Context, partition int32) (schemas.Mark, bool, error) {
	if away := u.away.Load(); away != nil {
		if err := (*away)(partition); err != nil {
			return schemas.Mark{}, false, err
		}
	}
	return u.Member.Committed(ctx, partition)
}

// A snapshot that can't be read now is passed over for the one before; where there is
// none it is waited for, and nothing is rebuilt meanwhile.
func TestASnapshotThatCannotBeReadNow(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Give(0)
		l := b.run()
		for i := range 3 {
			b.log.Publish(0, view(fmt.Sprint("u", i), 0))
			b.committed(0)
			time.Sleep(2 * time.Minute)
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		keys := b.bucket.Keys()
		if len(keys) < 2 {
			t.Fatalf("got the snapshots %v, want several", keys)
		}
		newest, all := keys[len(keys)-1], false
		var mu sync.Mutex
		b.bucket.BeforeGet.Set(func(key string) error {
			mu.Lock()
			defer mu.Unlock()
			if all || key == newest {
				return fmt.Errorf("%w: %w", snapshot.ErrAway, errTest)
			}
			return nil
		})
		b.next()
		b.member.Give(0)
		l = b.run()
		b.log.Publish(0, view("more", 0))
		b.committed(0)
		b.said(0, 4)
		if count[pipeline.SnapshotSkipped](b) != 1 || count[pipeline.RecoveryWaits](b) != 0 {
			t.Errorf("%d skipped, %d waits, want the one before to be used at once", count[pipeline.SnapshotSkipped](b), count[pipeline.RecoveryWaits](b))
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		all = true
		mu.Unlock()
		b.next()
		b.cfg.Rebuild = true
		b.member.Give(0)
		l = b.run()
		time.Sleep(time.Minute)
		b.said(0, 4)
		if count[pipeline.RecoveryWaits](b) == 0 {
			t.Error("it does not wait though no snapshot can be read")
		}
		b.bucket.BeforeGet.Clear()
		b.log.Publish(0, view("yet more", 0))
		b.committed(0)
		b.said(0, 5)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// A bucket that takes nothing, for an hour, holds up no partition, however much of a snapshot
// waits for it: events are said at once all the while.
func TestABucketThatHangsHoldsUpNobody(t *testing.T) {
	for n := range 12 {
		t.Run(fmt.Sprint("users: ", 50*n+1), func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, b *bubble) {
				b.cfg.SliceBytes = 4 << 10
				b.member.Ends = time.Second
				b.member.Give(0)
				l := b.run()
				synctest.Wait()
				free := make(chan struct{})
				b.bucket.BeforePut.Set(func(ctx context.Context, _ string) error {
					select {
					case <-free:
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
				said := 50*n + 1
				b.log.Publish(0, users(said)...)
				time.Sleep(2 * time.Minute)
				for i := range 3 {
					b.log.Publish(0, view(fmt.Sprint("meanwhile", i), 0))
					time.Sleep(time.Second)
					synctest.Wait()
					said++
					b.said(0, said)
					time.Sleep(20 * time.Minute)
				}
				close(free)
				time.Sleep(time.Minute)
				if count[pipeline.SnapshotPublished](b) == 0 {
					t.Error("no snapshot is published when the bucket takes it")
				}
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// forgetful is a Committer that answers with an old mark for a while, as a broker does
// that is still loading what was committed.
type forgetful struct {
	pipeline.Committer
	mu    sync.Mutex
	old   schemas.Mark
	found bool
	times int // left
}

func (f *forgetful) Committed(ctx context.Context, partition int32) (schemas.Mark, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.times > 0 {
		f.times--
		return f.old, f.found, nil
	}
	return f.Committer.Committed(ctx, partition)
}

// A commit whose outcome is not known has happened, and the broker answers with the
// mark of before: what was said is not said again.
func TestAnOldMarkAfterAnUnknownOutcome(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		old := &forgetful{Committer: b.member}
		b.cfg.Committer = old
		b.member.Give(0)
		l := b.run()
		b.log.Publish(0, users(3)...)
		b.committed(0)
		before, found := b.log.Mark(0)
		b.member.AfterCommit.Set(func() error {
			b.member.AfterCommit.Clear()
			old.mu.Lock()
			defer old.mu.Unlock()
			old.old, old.found, old.times = before, found, 5
			return errTest
		})
		b.log.Publish(0, view("once", 0))
		b.committed(0)
		time.Sleep(time.Minute)
		b.log.Publish(0, view("next", 0))
		b.committed(0)
		b.said(0, 5)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// A recovery that is answered with an old mark, or with none, asks again before it
// draws its conclusions.
func TestAnOldMarkInRecovery(t *testing.T) {
	for name, found := range map[string]bool{"an old one": true, "none": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, b *bubble) {
				b.member.Give(0)
				l := b.run()
				b.log.Publish(0, users(1)...)
				b.committed(0)
				old := &forgetful{found: found, times: 5}
				if found {
					old.old, _ = b.log.Mark(0)
				}
				b.log.Publish(0, view("late", 0))
				b.committed(0)
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
				b.next()
				old.Committer = b.member
				b.cfg.Committer = old
				b.member.Give(0)
				l = b.run()
				b.log.Publish(0, view("new", 0))
				b.committed(0)
				b.said(0, 3)
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// overtaken answers as a broker does while the owner before commits something more: that
// is visible from the moment on at which somebody asks what is committed, and the answer,
// and some more after it, are from before.
type overtaken struct {
	*pipelinetest.Member
	mark  schemas.Mark // as it was
	asked int          // what is committed
	old   int          // so many answers are from before
}

func (o *overtaken) Last(ctx context.Context, partition int32) (uint64, error) {
	if o.asked == 0 {
		return o.mark.N, nil
	}
	return o.Member.Last(ctx, partition)
}

func (o *overtaken) Committed(ctx context.Context, partition int32) (schemas.Mark, bool, error) {
	if o.asked++; o.asked <= o.old {
		return o.mark, true, nil
	}
	return o.Member.Committed(ctx, partition)
}

// What was committed while a recovery asked is not said again, whatever is told of it.
func TestAnOldMarkBesideANewOutput(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Give(0)
		l := b.run()
		b.log.Publish(0, users(2)...)
		b.committed(0)
		was, _ := b.log.Mark(0)
		b.log.Publish(0, view("late", 0))
		b.committed(0)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		b.next()
		b.member.Give(0)
		asked := &overtaken{Member: b.member, mark: was, old: 4}
		b.cfg.Committer, b.cfg.History = asked, asked
		l = b.run()
		time.Sleep(time.Minute)
		b.log.Publish(0, view("next", 0))
		b.committed(0)
		b.said(0, 4)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// A recovery goes on without what retention has removed of the dedup window, before it or
// while it reads that, and tells how much that is. (A restart would find no more.)
func TestRecoveriesTellWhatTheyHaveForgotten(t *testing.T) {
	for name, c := range map[string]struct {
		before, amid int64 // which the log begins at
		want         int64
	}{
		"nothing":          {0, 0, 0},
		"before":           {2, 0, 2},
		"while it reads":   {0, 2, 2},
		"before and while": {1, 2, 2},
		"all of it":        {3, 0, 3},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, b *bubble) {
				b.member.Give(0)
				l := b.run()
				b.log.Publish(0, users(3)...)
				b.committed(0)
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
				b.next()
				b.member.Give(0)
				b.log.Retain(0, c.before)
				var once sync.Once
				b.member.BeforeInput.Set(func(context.Context, int32) error {
					once.Do(func() { b.log.Retain(0, max(c.before, c.amid)) })
					return nil
				})
				b.log.Publish(0, view("u2", 0), view("late", 0)) // the first is known if the log has it, the second new
				l = b.run()
				b.committed(0)
				b.said(0, 4)
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
				if n := count[pipeline.Recovered](b); n != 1 {
					t.Fatalf("%d recoveries, want 1", n)
				}
				for _, f := range b.facts {
					if f, ok := f.(pipeline.Recovered); ok && f.Forgotten != c.want {
						t.Errorf("forgotten: got %d, want %d", f.Forgotten, c.want)
					}
				}
			})
		})
	}
}
