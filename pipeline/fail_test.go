package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"footfall/pipeline"
	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

var errTest = errors.New("a failure of the test's")

// TestFatalErrorsEndRun holds that Run returns the error that ended it, and that no
// goroutine is left: the bubble fails otherwise.
func TestFatalErrorsEndRun(t *testing.T) {
	for name, c := range map[string]struct {
		want error
		when func(b *bubble)
	}{
		"fenced by a twin": {pipeline.ErrFenced, func(b *bubble) {
			b.member.BeforeCommit.Set(func(context.Context, []*worker.Output) error { return fmt.Errorf("end: %w", pipeline.ErrFenced) })
		}},
		"permanent": {pipeline.ErrPermanent, func(b *bubble) {
			b.member.BeforeCommit.Set(func(context.Context, []*worker.Output) error {
				return fmt.Errorf("too large: %w", pipeline.ErrPermanent)
			})
		}},
		"bucket cannot be listed": {errTest, func(b *bubble) {
			b.bucket.BeforeList.Set(func() error { return errTest })
		}},
		"bucket takes nothing before the first commit": {errTest, func(b *bubble) {
			b.bucket.BeforePut.Set(func(context.Context, string) error { return errTest })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 3, func(t *testing.T, b *bubble) {
				c.when(b)
				b.member.Give(0, 1, 2)
				l := b.run()
				for n := range int32(3) {
					for range 30 {
						b.log.Publish(n, users0(1000)...)
					}
				}
				if err := l.ended(t); !errors.Is(err, c.want) {
					t.Errorf("Run: got %v, want %v", err, c.want)
				}
			})
		})
	}
}

func TestSourceFailure(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		b.member.Give(0, 1)
		failing := &failingSource{Source: b.member}
		b.cfg.Source = failing
		l := b.run()
		synctest.Wait()
		b.log.Publish(0, users(10)...)
		b.committed(0)
		failing.now.Store(true)
		b.log.Publish(0, users(1)...)
		if err := l.ended(t); !errors.Is(err, errTest) {
			t.Errorf("Run: got %v, want what Poll returned", err)
		}
	})
}

type failingSource struct {
	pipeline.Source
	now atomic.Bool
}

func (s *failingSource) Poll(ctx context.Context, into *pipeline.Batch) error {
	err := s.Source.Poll(ctx, into)
	if s.now.Load() {
		return errTest
	}
	return err
}

// The end comes while the fetcher waits for a full inbox, with a revocation and a
// commit that hangs behind it.
func TestShutdownWhileEverythingIsFull(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		b.member.Give(0, 1)
		l := b.run()
		synctest.Wait()
		free := make(chan struct{})
		b.member.BeforeCommit.Set(func(context.Context, []*worker.Output) error { <-free; return nil })
		for range 60 {
			b.log.Publish(0, users0(1000)...)
		}
		synctest.Wait()
		b.member.Take(0)
		b.member.Take(1)
		synctest.Wait()
		l.stop()
		time.Sleep(time.Second)
		close(free)
		if err := l.ended(t); err != nil {
			t.Errorf("Run: got %v, want nil after a drain", err)
		}
		m, _ := b.log.Mark(0)
		if outs := b.log.Outputs(0); uint64(len(outs)) != m.N || m.Next != int64(m.N) {
			t.Errorf("%d outputs under the mark %+v", len(outs), m)
		}
	})
}

// The outcome of a commit is not known; it has happened, or not. Nothing is lost or
// doubled either way.
func TestUnknownOutcomes(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		b.member.Give(0, 1)
		l := b.run()
		synctest.Wait()
		turn := 0
		b.member.BeforeCommit.Set(func(context.Context, []*worker.Output) error {
			if turn++; turn%3 == 1 {
				return errTest
			}
			return nil
		})
		b.member.AfterCommit.Set(func() error {
			if turn%3 == 2 {
				return errTest
			}
			return nil
		})
		for i := range 30 {
			b.log.Publish(int32(i%2), view(fmt.Sprint("u", i), 0))
			synctest.Wait()
		}
		b.committed(0)
		b.committed(1)
		b.said(0, 15)
		b.said(1, 15)
		if count[pipeline.Unknown](b) == 0 {
			t.Error("no outcome was unknown")
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// Snapshots are made one at a time, and not one byte is visible before a commit
// covers the cut.
func TestSnapshotsOneAtATimeAndCovered(t *testing.T) {
	inBubble(t, 4, func(t *testing.T, b *bubble) {
		b.member.Ends = time.Second
		b.member.Give(0, 1, 2, 3)
		l := b.run()
		synctest.Wait()
		first := len(b.bucket.Keys()) // the empty ones, one of each recovery
		b.bucket.Count()
		free := make(chan struct{})
		b.member.BeforeCommit.Set(func(context.Context, []*worker.Output) error { <-free; return nil })
		b.bucket.BeforePut.Set(func(context.Context, string) error { time.Sleep(500 * time.Millisecond); return nil })
		time.Sleep(2 * time.Minute) // snapshots are due
		for n := range int32(4) {
			b.log.Publish(n, users(200)...)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if keys := b.bucket.Keys(); len(keys) != first {
			t.Errorf("published while nothing could be committed: %v", keys[first:])
		}
		close(free)
		for range 10 {
			for n := range int32(4) {
				b.log.Publish(n, view("more", 0))
			}
			time.Sleep(2 * time.Minute)
		}
		if most := b.bucket.Most(); most != 1 {
			t.Errorf("%d snapshots under way at once, want 1", most)
		}
		if n := count[pipeline.SnapshotPublished](b); n < 20 {
			t.Errorf("%d snapshots published, want one of each partition every two minutes", n)
		}
		b.bucket.BeforePut.Clear()
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// A bucket that fails costs snapshots and no more; when it works again, they go on.
func TestBucketFailsForAWhile(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		b.member.Ends = time.Second
		b.member.Give(0, 1)
		l := b.run()
		synctest.Wait()
		var failing atomic.Bool
		failing.Store(true)
		b.bucket.BeforePut.Set(func(context.Context, string) error {
			if failing.Load() {
				return errTest
			}
			return nil
		})
		for i := range 20 { // so many users that a snapshot has more chunks than wait
			b.log.Publish(0, users(20_000)[i*1000:(i+1)*1000]...)
		}
		time.Sleep(10 * time.Minute)
		b.log.Publish(0, view("more", 0))
		b.log.Publish(1, view("more", 0))
		time.Sleep(10 * time.Minute)
		if count[pipeline.SnapshotFailed](b) < 2 || count[pipeline.SnapshotPublished](b) > 0 {
			t.Errorf("%d snapshots failed and %d were published", count[pipeline.SnapshotFailed](b), count[pipeline.SnapshotPublished](b))
		}
		failing.Store(false)
		b.log.Publish(0, view("yet more", 0))
		b.log.Publish(1, view("yet more", 0))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if count[pipeline.SnapshotPublished](b) < 2 {
			t.Errorf("%d snapshots published since the bucket works, want one of each partition", count[pipeline.SnapshotPublished](b))
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		b.next()
		b.member.Ends = time.Second
		b.member.Give(0, 1)
		l = b.run()
		b.log.Publish(0, view("u17", 1))
		b.committed(0)
		b.said(0, 20_002)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// A recovery that is overtaken by the loss of its partition, and by its return, must
// not start the source at its own, older mark.
func TestOvertakenRecovery(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Give(0)
		l := b.run()
		synctest.Wait()
		b.log.Publish(0, users(3)...)
		b.committed(0)
		b.member.Lose(0)
		synctest.Wait()
		b.bucket.Set(snapshot.ID{Partition: 0, Next: 3, N: 3}.String(), nil)
		free := make(chan struct{})
		first := true
		b.member.BeforeSaid.Set(func(context.Context, int32) error {
			if first {
				first = false
				<-free // does not hear that it is too late
			}
			return nil
		})
		b.member.Give(0)
		synctest.Wait()
		b.member.Lose(0)
		b.member.Give(0)
		synctest.Wait()
		b.log.Publish(0, view("new", 0))
		time.Sleep(time.Minute)
		close(free)
		b.committed(0)
		b.said(0, 4)
		b.log.Publish(0, view("newer", 0))
		b.committed(0)
		b.said(0, 5)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// Beginning from nothing is only where there is nothing.
func TestForgottenOffsetsStopIt(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		begin := func() *life {
			b.next()
			b.member.Give(0)
			return b.run()
		}
		l := begin()
		b.log.Publish(0, users(5)...)
		b.committed(0)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		b.log.Forget(0)
		var forgotten *pipeline.ErrForgotten
		if err := begin().ended(t); !errors.As(err, &forgotten) || !forgotten.Spoken || !strings.Contains(err.Error(), "--rebuild") {
			t.Fatalf("with outputs and no offset: got %v, want ErrForgotten that says what to do", err)
		}
		b.said(0, 5)

		b.next()
		b.cfg.Rebuild = true
		b.member.Give(0)
		l = b.run()
		b.log.Publish(0, view("u0", 1), view("new", 0))
		b.committed(0)
		b.said(0, 6)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		if err := b.again(t, view("newer", 0)); err != nil {
			t.Fatal(err)
		}
		b.said(0, 7)
	})
}

// again lives one more life, in which a record is committed.
func (b *bubble) again(t *testing.T, r worker.Record) error {
	t.Helper()
	b.next()
	b.member.Give(0)
	l := b.run()
	b.log.Publish(0, r)
	b.committed(0)
	return l.end(t)
}

// Only snapshots know that there was something.
func TestSnapshotsWithoutOffsetStopIt(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		if err := b.again(t, view("u", 0)); err != nil {
			t.Fatal(err)
		}
		b.log.Forget(0)
		b.log.RetainOutputs(0, 1)
		b.next()
		b.member.Give(0)
		var forgotten *pipeline.ErrForgotten
		if err := b.run().ended(t); !errors.As(err, &forgotten) || forgotten.Spoken {
			t.Errorf("got %v, want ErrForgotten, not spoken", err)
		}
		b.next()
		b.cfg.Rebuild = true
		b.member.Give(0)
		l := b.run()
		time.Sleep(time.Minute)
		b.log.Publish(0, view("v", 0))
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		for i, o := range b.log.Outputs(0) {
			if o.N != uint64(2+i) {
				t.Errorf("after output 1, which nobody has any more, comes %d as number %d: %+v", i+1, o.N, o.Transition)
			}
			if old := o.Transition.User == "u"; old != (o.Transition.Muted == schemas.MutedBootstrap) {
				t.Errorf("%q is muted %q: what may have been said before must be, and nothing else", o.Transition.User, o.Transition.Muted)
			}
		}
	})
}

// Retention has removed what every snapshot needs, records and their dead letters:
// it stops, says so, and --rebuild folds what is left, once.
func TestRebuildAfterRetention(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Give(0)
		l := b.run()
		buy := event("purchase", "buyer", 0, `,"order_id":"o1","revenue":5`)
		b.log.Publish(0, view("early", 0), buy, worker.Record{Key: []byte("x"), Value: []byte("?")}, view("late", 0))
		b.committed(0)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		for _, k := range b.bucket.Keys() {
			b.bucket.Set(k, nil)
		}
		b.log.Retain(0, 2)
		b.next()
		b.member.Give(0)
		if err := b.run().ended(t); err == nil || !strings.Contains(err.Error(), "no snapshot leads there") || !strings.Contains(err.Error(), "--rebuild") {
			t.Fatalf("without a snapshot: got %v, want an error that says what to do", err)
		}
		b.said(0, 4)

		b.log.RetainOutputs(0, 3) // with the dead letter of record 2, which is still there
		b.next()
		b.cfg.Rebuild = true
		b.member.Give(0)
		l = b.run()
		b.log.Publish(0, view("late", 1), view("new", 0))
		b.committed(0)
		outs := b.log.Outputs(0)
		if len(outs) != 2 || outs[0].N != 4 || outs[1].N != 5 || outs[1].Transition.User != "new" {
			t.Fatalf("got %+v, want number 4 of before, and 5 for the new user", outs)
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// Retention has removed outputs that the only snapshot needs: it stops, and what its
// error asks for works.
func TestRebuildAfterRetentionOfOutputs(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		for i := range 2 {
			if err := b.again(t, view(fmt.Sprint("u", i), 0)); err != nil {
				t.Fatal(err)
			}
		}
		for _, k := range b.bucket.Keys() {
			if !strings.Contains(k, "0000000000000000000-") { // all but the empty one
				b.bucket.Set(k, nil)
			}
		}
		b.log.RetainOutputs(0, 1)
		b.next()
		b.member.Give(0)
		if err := b.run().ended(t); !errors.Is(err, pipeline.ErrExpired) || !strings.Contains(err.Error(), "--rebuild") {
			t.Fatalf("got %v, want ErrExpired and what to do", err)
		}
		b.next()
		b.cfg.Rebuild = true
		b.member.Give(0)
		l := b.run()
		b.log.Publish(0, view("new", 0))
		b.committed(0)
		if err := l.end(t); err != nil {
			t.Fatalf("with --rebuild: %v", err)
		}
		outs := b.log.Outputs(0)
		if len(outs) != 3 || outs[1].Transition.User != "u0" || outs[1].Transition.Muted != schemas.MutedBootstrap || outs[2].Transition.User != "new" {
			t.Errorf("got %+v, want u1 of before, u0 again and muted, and new", outs)
		}
	})
}

// With --rebuild, a question that goes unanswered is not taken for the answer that
// the group's offset was set back.
func TestRebuildWaitsForTheAnswer(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		if err := b.again(t, view("u", 0)); err != nil {
			t.Fatal(err)
		}
		before, _ := b.log.Mark(0)
		b.next()
		b.cfg.Rebuild = true
		b.cfg.History = lastless{b.member}
		b.member.Give(0)
		if err := b.run().ended(t); !errors.Is(err, errTest) {
			t.Errorf("got %v, want the failure", err)
		}
		if after, _ := b.log.Mark(0); after != before {
			t.Errorf("the mark was %+v and is %+v", before, after)
		}
	})
}

// lastless cannot say which output was the last.
type lastless struct{ pipeline.History }

func (lastless) Last(context.Context, int32) (uint64, error) { return 0, errTest }

// A rebuild has another past, though it may have nothing to say: its snapshot waits
// for the commit that says so. Else a bucket that was given back to the owner before
// would hold a snapshot that leads nowhere, in the place of one that did.
func TestRebuildCommitsBeforeItPublishes(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		if err := b.again(t, view("u", 0)); err != nil {
			t.Fatal(err)
		}
		for _, k := range b.bucket.Keys() {
			b.bucket.Set(k, nil)
		}
		b.next()
		b.cfg.Rebuild = true
		free := make(chan struct{})
		b.member.BeforeCommit.Set(func(context.Context, []*worker.Output) error { <-free; return nil })
		empty := len(b.bucket.Keys())
		b.member.Give(0)
		l := b.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		if keys := b.bucket.Keys(); len(keys) != empty {
			t.Errorf("published before the commit: %v", keys)
		}
		close(free)
		synctest.Wait()
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		if err := b.again(t, view("v", 0)); err != nil {
			t.Errorf("the next life, without --rebuild: %v", err)
		}
	})
}

// A process that was stopped amid a recovery wakes up, and another has its partition
// and has committed since. What it then reads does not fit together, which is not
// the group's offset having been set back.
func TestRobbedWhileRecovering(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		if err := b.again(t, view("u", 0)); err != nil {
			t.Fatal(err)
		}
		b.next()
		victim, robbed := b.member, false
		b.cfg.History = hooked{victim, func() {
			if robbed {
				return
			}
			robbed = true
			victim.Rob(0)
			if err := b.again(t, view("v", 0)); err != nil {
				t.Errorf("the other process: %v", err)
			}
		}}
		victim.Give(0)
		l := b.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		if !robbed {
			t.Error("nobody was robbed")
		}
		if err := l.end(t); err != nil {
			t.Errorf("got %v, want an end without an error", err)
		}
		b.said(0, 2)
	})
}

// hooked does something before the last output is looked at.
type hooked struct {
	pipeline.History
	before func()
}

func (h hooked) Last(ctx context.Context, partition int32) (uint64, error) {
	h.before()
	return h.History.Last(ctx, partition)
}

// All outputs are gone too: their numbers go on all the same.
func TestRebuildWithoutOutputs(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Give(0)
		l := b.run()
		b.log.Publish(0, users(4)...)
		b.committed(0)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		for _, k := range b.bucket.Keys() {
			b.bucket.Set(k, nil)
		}
		b.log.RetainOutputs(0, 4)
		b.next()
		b.cfg.Rebuild = true
		b.member.Give(0)
		l = b.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		outs := b.log.Outputs(0)
		if len(outs) != 4 || outs[0].N != 5 {
			t.Fatalf("got %+v, want every user's difference, from number 5 on", outs)
		}
		for _, o := range outs {
			if o.Transition.Muted != schemas.MutedBootstrap || o.Transition.Cause.Kind != schemas.ByRecovery {
				t.Errorf("got %+v, want it muted, by recovery", o.Transition)
			}
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// A record that was accepted is refused by the rates of today. Its amount is not
// guessed; with --rebuild the record is left out.
func TestRatesOfThatTime(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		if err := b.again(t, view("u", 0)); err != nil {
			t.Fatal(err)
		}
		if err := b.again(t, event("purchase", "u", 0, `,"order_id":"o1","revenue":5,"currency":"USD"`)); err != nil {
			t.Fatal(err)
		}
		ids, err := snapshot.NewStore(b.bucket, 3).List(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		b.bucket.Set(ids[0].String(), nil) // so that the purchase is replayed
		without := schemas.Contract{Currency: "EUR"}
		b.next()
		b.configure(without)
		b.member.Give(0)
		if err := b.run().ended(t); err == nil || !strings.Contains(err.Error(), "rates of that time") {
			t.Errorf("got %v, want an error that asks for the rates of that time", err)
		}
		b.next()
		b.configure(without)
		b.cfg.Rebuild = true
		b.member.Give(0)
		l := b.run()
		b.log.Publish(0, view("v", 0))
		b.committed(0)
		if err := l.end(t); err != nil {
			t.Errorf("with --rebuild: %v", err)
		}
		b.said(0, 4) // u, its purchase, taken back as unknown, v
	})
}

// A record at or before the last one applied is a broken promise of the source, and
// never folded again.
func TestRecordsGivenAgain(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.cfg.Inline = true
		again := &againSource{Source: b.member}
		b.cfg.Source = again
		b.member.Give(0)
		b.log.Publish(0, users(3)...)
		defer func() {
			if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "R3") {
				t.Errorf("got %v, want a panic that names R3", r)
			}
		}()
		err := pipeline.New(b.cfg).Run(t.Context())
		t.Errorf("Run: got %v, want a panic", err)
	})
}

// againSource gives everything twice.
type againSource struct {
	pipeline.Source
	last *pipeline.Fetched
}

func (s *againSource) Poll(ctx context.Context, into *pipeline.Batch) error {
	if s.last != nil {
		*into = pipeline.Batch{Fetched: []pipeline.Fetched{*s.last}}
		return nil
	}
	err := s.Source.Poll(ctx, into)
	if len(into.Fetched) > 0 {
		again := into.Fetched[0]
		s.last = &again
	}
	return err
}
