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
	"footfall/pipeline/pipelinetest"
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
		"bucket cannot be used at the start": {errTest, func(b *bubble) {
			b.cfg.Layout = pipeline.Layout{Topic: "events", ID: "a", Partitions: 3}
			b.bucket.BeforeList.Set(func() error { return errTest })
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
		var looks atomic.Int64 // each finds that a millisecond has gone by
		b.cfg.Elapsed = func() time.Duration { return time.Duration(looks.Add(1)) * time.Millisecond }
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
		b.mu.Lock()
		for _, f := range b.facts {
			if s, ok := f.(pipeline.SnapshotPublished); ok && s.Pause != time.Millisecond {
				t.Errorf("%s: it kept events waiting for %s at a time, want %s", s.Snapshot, s.Pause, time.Millisecond)
			}
		}
		b.mu.Unlock()
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

// A bucket that denies to remove anything costs room and no more: what is stored counts, is
// built upon, and is recovered from.
func TestABucketThatKeepsEverything(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Ends = time.Second
		b.cfg.Snapshots = snapshot.NewStore(b.bucket, 1)
		b.cfg.DeltasMax = 1
		b.bucket.BeforeDelete.Set(func(string) error { return errTest })
		b.member.Give(0)
		l := b.run()
		for i := range 6 {
			b.log.Publish(0, users(1000)[100*i:100*(i+1)]...)
			b.committed(0)
			time.Sleep(2 * time.Minute)
		}
		if n := count[pipeline.SnapshotFailed](b); n > 0 {
			t.Errorf("%d snapshots failed, and all were stored", n)
		}
		if published, stay := count[pipeline.SnapshotPublished](b), count[pipeline.SnapshotsNotRemoved](b); published < 5 || stay == 0 {
			t.Errorf("%d snapshots were published, and %d times old ones were told to stay", published, stay)
		}
		newest := l.Status()[0].Snapshot
		if keys := b.bucket.Keys(); !strings.Contains(keys[len(keys)-1], fmt.Sprintf("/%019d-", newest)) {
			t.Errorf("the newest snapshot is told to be of offset %d, and is %s", newest, keys[len(keys)-1])
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// Partitions that come while the bucket fails wait for it, an hour if need be, and the
// live ones go on; a process that ended itself would take them with it.
func TestRecoveryWaitsForTheBucket(t *testing.T) {
	inBubble(t, 4, func(t *testing.T, b *bubble) {
		b.member.Ends = time.Second
		b.member.Give(0)
		l := b.run()
		synctest.Wait()
		var failing atomic.Bool
		failing.Store(true)
		fail := func() error {
			if failing.Load() {
				return errors.Join(errTest, snapshot.ErrAway)
			}
			return nil
		}
		b.bucket.BeforeList.Set(fail)
		b.bucket.BeforePut.Set(func(context.Context, string) error { return fail() })
		b.member.Give(1, 2, 3)
		for i := range 60 {
			b.log.Publish(0, view("live", i), view(fmt.Sprint("new", i), 0))
			time.Sleep(time.Minute)
			b.committed(0)
		}
		b.said(0, 61)
		if n := count[pipeline.RecoveryWaits](b); n < 60 {
			t.Errorf("asked %d times in an hour", n)
		}
		b.member.Take(3) // given back before it has come to life
		time.Sleep(time.Minute)
		failing.Store(false)
		for n := range int32(3) {
			b.log.Publish(n, view("after", 0))
			b.committed(n)
		}
		if b.log.Owned(3) {
			t.Error("partition 3 was asked back, and was not released")
		}
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

// early answers questions about what is committed with what was so earlier: the first
// one that is asked, or every one for the mark.
type early struct {
	*pipelinetest.Member
	mark  schemas.Mark // as it was
	every bool
	asked int
}

func (e *early) Last(ctx context.Context, partition int32) (uint64, error) {
	if e.asked++; e.asked == 1 && !e.every {
		return e.mark.N, nil
	}
	return e.Member.Last(ctx, partition)
}

func (e *early) Committed(ctx context.Context, partition int32) (schemas.Mark, bool, error) {
	if e.asked++; e.asked == 1 || e.every {
		return e.mark, true, nil
	}
	return e.Member.Committed(ctx, partition)
}

// A mark that counts less than was said was set back, and is refused; not so one that
// was asked for before a transaction ended, and the outputs after.
func TestMarkSetBackIsRefused(t *testing.T) {
	for _, every := range []bool{false, true} {
		inBubble(t, 1, func(t *testing.T, b *bubble) {
			b.member.Give(0)
			l := b.run()
			b.log.Publish(0, users(3)...)
			b.committed(0)
			was, _ := b.log.Mark(0)
			b.log.Publish(0, view("new", 0))
			b.committed(0)
			if err := l.end(t); err != nil {
				t.Fatal(err)
			}
			b.next()
			b.member.Give(0)
			asked := &early{Member: b.member, mark: was, every: every}
			b.cfg.Committer, b.cfg.History = asked, asked
			l = b.run()
			if every {
				if err := l.ended(t); err == nil || !strings.Contains(err.Error(), "was set back") || !strings.Contains(err.Error(), "--rebuild") {
					t.Errorf("got %v, want it refused, and what to do", err)
				}
				return
			}
			b.log.Publish(0, view("newer", 0))
			b.committed(0)
			b.said(0, 5)
			if err := l.end(t); err != nil {
				t.Fatal(err)
			}
		})
	}
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

// Large records that are refused, more of them than a broker takes before a transaction
// times out: they are said in several, and no more of them wait than there is room for.
func TestLargeDeadLettersAreSaidInManyTransactions(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		const most, large, records = 32 << 20, 64 << 10, 1500
		b.member.PollMax = 50 // a fetch is a few megabytes
		free := make(chan struct{})
		b.member.BeforeCommit.Set(func(ctx context.Context, outs []*worker.Output) error {
			bytes := 0
			for _, out := range outs {
				for _, it := range out.Items {
					bytes += len(it.DeadLetter.Value)
				}
			}
			if bytes == 0 {
				return nil // the beginning
			}
			select {
			case <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
			if bytes > most {
				return fmt.Errorf("%d bytes in one transaction: %w", bytes, pipeline.ErrAborted)
			}
			return nil
		})
		b.member.Give(0)
		l := b.run()
		synctest.Wait()
		for range records {
			b.log.Publish(0, worker.Record{Key: []byte("k"), Value: make([]byte, large)})
		}
		synctest.Wait()
		if n := b.member.Read(0); n*large > 3*most {
			t.Errorf("%d records of %d bytes are in memory while nothing can be committed", n, large)
		}
		close(free)
		b.committed(0)
		b.said(0, records)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// A broker that takes less than is said before a transaction times out, as where a quota
// slows it down, is given less at a time.
func TestATransactionThatIsTooMuch(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		const most = 700
		b.member.BeforeCommit.Set(func(_ context.Context, outs []*worker.Output) error {
			items := 0
			for _, out := range outs {
				items += len(out.Items)
			}
			time.Sleep(time.Duration(min(items, most)) * 10 * time.Millisecond)
			if items > most {
				return fmt.Errorf("%d outputs: %w", items, pipeline.ErrAborted)
			}
			return nil
		})
		b.member.PollMax = 100
		b.member.Give(0, 1)
		l := b.run()
		synctest.Wait()
		for n := range int32(2) {
			b.log.Publish(n, users(5000)...)
		}
		b.committed(0)
		b.committed(1)
		b.said(0, 5000)
		b.said(1, 5000)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// A broker that takes the marks of a few partitions at a time is given fewer, and what it
// refuses does not grow.
func TestMarksThatAreTooMany(t *testing.T) {
	const partitions = 8
	inBubble(t, partitions, func(t *testing.T, b *bubble) {
		most := 0
		b.member.Ends = time.Second // marks that say nothing go with them
		b.member.BeforeCommit.Set(func(_ context.Context, outs []*worker.Output) error {
			of := map[int32]bool{}
			for _, out := range outs {
				of[out.Mark.Partition] = true
			}
			most = max(most, len(outs))
			if len(of) > 3 {
				return fmt.Errorf("%d marks: %w", len(of), pipeline.ErrAborted)
			}
			return nil
		})
		b.member.Give(0, 1, 2, 3, 4, 5, 6, 7)
		l := b.run()
		for round := range 20 {
			for n := range int32(partitions) {
				b.log.Publish(n, view("u", 2*round), view("u", 2*round+1))
			}
			time.Sleep(10 * time.Second)
		}
		for n := range int32(partitions) {
			b.committed(n)
			b.said(n, 1)
		}
		if most > 20*partitions {
			t.Errorf("%d outputs in one transaction", most)
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}
