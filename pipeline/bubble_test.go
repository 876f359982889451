package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"footfall/pipeline"
	"footfall/pipeline/pipelinetest"
	"footfall/pipeline/segment"
	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// bubble is a pipeline with goroutines, in a synctest bubble, on a log and a
// bucket in memory. Time passes only when everybody waits.
type bubble struct {
	t      *testing.T
	log    *pipelinetest.Log
	member *pipelinetest.Member
	bucket *pipelinetest.Bucket
	cfg    pipeline.Config

	mu    sync.Mutex
	facts []pipeline.Fact
}

// inBubble runs a test. A goroutine that is left behind fails it.
func inBubble(t *testing.T, partitions int, test func(t *testing.T, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, bucket: pipelinetest.NewBucket()}
		b.log = pipelinetest.NewLog(partitions, now)
		b.next()
		test(t, b)
	})
}

func now() schemas.Millis { return schemas.Millis(time.Now().UnixMilli()) }

// contract is what the test's shop configures.
var contract = schemas.Contract{Currency: "EUR", Rates: map[string]string{"USD": "0.9"}}

// next prepares the next life: another member of the group, on the same log and bucket.
func (b *bubble) next() {
	b.member = b.log.Join()
	b.configure(contract)
}

func (b *bubble) configure(c schemas.Contract) {
	probe, err := schemas.NewDecoder(c)
	if err != nil {
		b.t.Fatal(err)
	}
	b.cfg = pipeline.Config{
		Worker: worker.Config{
			Rules: segment.Lifecycle(probe.Hash()),
			Ahead: 5 * schemas.Minute, MaxSkew: 5 * schemas.Minute, MaxAge: schemas.Day,
			DedupWindow: schemas.Hour, DedupBudget: 1 << 20, Slice: 1000,
		},
		Decoder: func() *schemas.Decoder {
			d, err := schemas.NewDecoder(c)
			if err != nil {
				panic(err)
			}
			return d
		},
		Source: b.member, Committer: b.member, History: b.member,
		Snapshots: snapshot.NewStore(b.bucket, 3),
		Now:       now,
		Grace:     2 * schemas.Second, LazyCommit: 5 * schemas.Second, SnapshotEvery: schemas.Minute, DeltasMax: 3,
		Backoff: func(ctx context.Context, _ int) {
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		},
		Paused: func() bool { return false },
		Report: func(f pipeline.Fact) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.facts = append(b.facts, f)
		},
	}
}

// life is a pipeline that runs.
type life struct {
	*pipeline.Pipeline
	stop func()
	done chan error
}

func (b *bubble) run() *life {
	ctx, cancel := context.WithCancel(b.t.Context())
	l := &life{Pipeline: pipeline.New(b.cfg), stop: cancel, done: make(chan error, 1)}
	go func() { l.done <- l.Run(ctx) }()
	return l
}

// end stops a life and returns how it ended.
func (l *life) end(t *testing.T) error {
	t.Helper()
	l.stop()
	return l.ended(t)
}

// ended waits for a life to end by itself.
func (l *life) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-l.done:
		l.stop()
		return err
	case <-time.After(time.Hour):
		t.Fatal("Run does not return within an hour")
		return nil
	}
}

// count tells how often a fact was reported.
func count[F pipeline.Fact](b *bubble) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.facts {
		if _, ok := f.(F); ok {
			n++
		}
	}
	return n
}

// view is an event of a user; a new user's first says a transition.
func view(user string, id int) worker.Record {
	return event("view", user, id, "")
}

func event(kind, user string, id int, more string) worker.Record {
	return worker.Record{
		Key:   []byte(user),
		Value: fmt.Appendf(nil, `{"event_id":"%s-%s-%d","type":%q,"user_id":%q,"time":%d%s}`, kind, user, id, kind, user, now(), more),
	}
}

// users gives the first events of n users.
func users(n int) (records []worker.Record) {
	for i := range n {
		records = append(records, view(fmt.Sprintf("u%d", i), 0))
	}
	return records
}

// committed waits until everything published to a partition is committed.
func (b *bubble) committed(partition int32) {
	b.t.Helper()
	for range 1000 {
		synctest.Wait()
		_, end, _ := b.member.Bounds(b.t.Context(), partition)
		if m, found := b.log.Mark(partition); found && m.Next >= end {
			return
		}
		time.Sleep(time.Second) // of the bubble
	}
	m, _ := b.log.Mark(partition)
	b.t.Fatalf("partition %d: %+v is all that is committed", partition, m)
}

// said holds that the outputs of a partition are so many, numbered without a gap.
func (b *bubble) said(partition int32, want int) {
	b.t.Helper()
	outs := b.log.Outputs(partition)
	if len(outs) != want {
		b.t.Fatalf("partition %d: got %d outputs, want %d", partition, len(outs), want)
	}
	for i, o := range outs {
		if o.N != uint64(i+1) {
			b.t.Fatalf("partition %d: output %d has number %d", partition, i+1, o.N)
		}
	}
}

func TestShutdownDrains(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, b *bubble) {
		b.cfg.LazyCommit = schemas.Hour // so that only the drain commits what says nothing
		b.member.Give(0, 1, 2)
		l := b.run()
		synctest.Wait()
		for n := range int32(3) {
			b.log.Publish(n, users(10)...)
		}
		synctest.Wait()
		b.log.Publish(1, view("u1", 1)) // says nothing
		synctest.Wait()
		if err := l.end(t); err != nil {
			t.Fatalf("Run: got %v, want nil after a drain", err)
		}
		for n := range int32(3) {
			b.said(n, 10)
			_, end, _ := b.member.Bounds(t.Context(), n)
			m, _ := b.log.Mark(n)
			if m.Next != end {
				t.Errorf("partition %d: committed up to %d, want all %d", n, m.Next, end)
			}
			hand := strings.TrimSuffix(snapshot.ID{Partition: n, Next: m.Next, N: m.N}.String(), ".snap")
			if keys, _ := b.bucket.List(t.Context(), hand); len(keys) != 1 {
				t.Errorf("no snapshot %s to hand over; there are %v", hand, b.bucket.Keys())
			}
		}
		if got := count[pipeline.Released](b); got != 3 {
			t.Errorf("%d partitions released, want 3", got)
		}
		if s := l.Status(); len(s) != 0 {
			t.Errorf("after the end there are still %+v", s)
		}
	})
}

func TestSecondLifeGoesOn(t *testing.T) {
	inBubble(t, 4, func(t *testing.T, b *bubble) {
		for round := range 4 {
			if round > 0 {
				b.next()
			}
			b.member.Give(0, 1, 2, 3)
			l := b.run()
			synctest.Wait()
			for n := range int32(4) {
				b.log.Publish(n, view("old", round), view(fmt.Sprintf("new%d", round), 0))
				b.committed(n)
				b.said(n, 2+round)
			}
			if err := l.end(t); err != nil {
				t.Fatal(err)
			}
		}
		if got := count[pipeline.Recovered](b); got != 12 {
			t.Errorf("%d recoveries, want 12", got)
		}
	})
}

// A committer that hangs, for an hour, stops the partitions, and they stop Poll: what is in
// memory has a bound, and the queue grows in the log.
func TestSlowCommitterStopsPoll(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		free := make(chan struct{})
		b.member.Give(0, 1)
		l := b.run()
		synctest.Wait()
		b.member.BeforeCommit.Set(func(ctx context.Context, _ []*worker.Output) error {
			select {
			case <-free:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
		const total = 100_000
		for range total / 1000 {
			b.log.Publish(0, users0(1000)...)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		read := b.member.Read(0)
		// What may wait, what is in the inbox, and one task each in the hands of the
		// fetcher and of the partition.
		if most := pipeline.ItemsAheadMax + (pipeline.InboxMax+3)*b.member.PollMax; read > most || read < pipeline.ItemsAheadMax {
			t.Errorf("%d records polled while nothing could be committed, want %d to %d", read, pipeline.ItemsAheadMax, most)
		}
		close(free)
		b.committed(0)
		b.said(0, total)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// users0 gives n records of which each is a dead letter: an output for every record.
func users0(n int) []worker.Record {
	records := make([]worker.Record, n)
	for i := range records {
		records[i] = worker.Record{Key: []byte("u"), Value: []byte("?")}
	}
	return records
}

func TestGroupCommit(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, b *bubble) {
		b.member.Give(0, 1, 2)
		l := b.run()
		synctest.Wait()
		free := make(chan struct{})
		var sizes []int
		b.member.BeforeCommit.Set(func(_ context.Context, outs []*worker.Output) error {
			items := 0
			for _, o := range outs {
				items += len(o.Items)
			}
			if sizes = append(sizes, items); len(sizes) == 1 {
				<-free
			}
			return nil
		})
		b.log.Publish(0, view("first", 0))
		synctest.Wait()
		for n := range int32(3) { // while the first is under way
			for i := range 5 {
				b.log.Publish(n, view(fmt.Sprint("later", i), 0))
				synctest.Wait()
			}
		}
		close(free)
		synctest.Wait()
		if len(sizes) != 2 || sizes[0] != 1 || sizes[1] != 15 {
			t.Errorf("transactions of %v outputs, want [1 15]: one at once, then all that waited", sizes)
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRevokeDrainsThenReleases(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		b.member.Give(0, 1)
		l := b.run()
		synctest.Wait()
		free := make(chan struct{})
		b.member.BeforeCommit.Set(func(context.Context, []*worker.Output) error { <-free; return nil })
		b.log.Publish(0, users(7)...)
		synctest.Wait()
		b.member.Take(0)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !b.log.Owned(0) {
			t.Error("released before what it has said was committed")
		}
		close(free)
		synctest.Wait()
		if b.log.Owned(0) {
			t.Error("not released after its drain")
		}
		b.said(0, 7)
		if m, _ := b.log.Mark(0); m.Next != 7 {
			t.Errorf("committed up to %d before the release, want 7", m.Next)
		}
		b.log.Publish(1, users(2)...) // the other one goes on
		b.committed(1)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

func TestLostDropsAtOnce(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		b.member.Give(0, 1)
		l := b.run()
		synctest.Wait()
		b.member.BeforeCommit.Set(func(ctx context.Context, outs []*worker.Output) error {
			for _, o := range outs {
				if o.Mark.Partition == 0 {
					return pipeline.ErrAborted // for as long as it is in it
				}
			}
			return nil
		})
		for range pipeline.ItemsAheadMax/1000 + 5 { // so many that it waits for room
			b.log.Publish(0, users0(1000)...)
		}
		synctest.Wait()
		b.member.Lose(0)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := l.Status(); len(s) != 1 || s[0].Partition != 1 {
			t.Errorf("after the loss of partition 0 there are %+v, want partition 1 only", s)
		}
		b.log.Publish(1, users(3)...)
		b.committed(1)
		b.said(0, 0)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		b.said(0, 0)
	})
}

// The commit finds out before the group tells. Then the partition is revoked, which
// has to be answered all the same.
func TestLostByCommitThenRevoked(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		b.member.Give(0, 1)
		l := b.run()
		synctest.Wait()
		for i := range 50 {
			if i > 0 {
				b.member.Give(0)
				synctest.Wait()
			}
			var once sync.Once
			b.member.BeforeCommit.Set(func(_ context.Context, outs []*worker.Output) (err error) {
				if outs[0].Mark.Partition == 0 {
					once.Do(func() { err = &pipeline.LostError{Partitions: []int32{0}} })
				}
				return err
			})
			b.log.Publish(0, view("u", 0), view("v", 0), view("w", i))
			b.log.Publish(0, users0(1)...)
			synctest.Wait()
			b.log.Publish(0, users0(1)...)
			synctest.Wait()
			b.member.Take(0)
			time.Sleep(time.Minute)
			synctest.Wait()
			if b.log.Owned(0) {
				t.Fatalf("round %d: a revoked partition is not released", i)
			}
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRevokedWhileRecovering(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		b.member.Give(0, 1)
		l := b.run()
		synctest.Wait()
		b.log.Publish(0, users(3)...)
		b.committed(0)
		b.member.Lose(0)
		synctest.Wait()
		b.bucket.Set(snapshot.ID{Partition: 0, Next: 3, N: 3}.String(), nil) // so that it reads what was said
		b.member.BeforeSaid.Set(func(ctx context.Context, _ int32) error { <-ctx.Done(); return ctx.Err() })
		b.member.Give(0)
		synctest.Wait()
		if s := l.Status(); len(s) != 2 || !s[0].Recovering {
			t.Fatalf("got %+v, want partition 0 recovering", s)
		}
		b.member.Take(0)
		synctest.Wait()
		if b.log.Owned(0) {
			t.Error("a partition revoked while it recovers is not released")
		}
		b.member.BeforeSaid.Clear()
		b.member.Give(0)
		b.log.Publish(0, view("after", 0))
		b.committed(0)
		b.said(0, 4)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

// A partition that comes back to the process it left has a new epoch. What the old
// ownership had left to say must not go out under the old one.
func TestGivenBackAtOnce(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Ends = 100 * time.Millisecond
		b.cfg.Worker.Lane = schemas.Replay // ends move no clock, so marks without news wait
		b.member.Give(0)
		l := b.run()
		synctest.Wait()
		for i := range 20 {
			b.log.Publish(0, worker.Record{Lane: schemas.Replay, Key: []byte("u"), Value: view("u", i).Value})
			time.Sleep(time.Duration(i) * 50 * time.Millisecond)
			b.committed(0)
			time.Sleep(time.Duration(i) * 70 * time.Millisecond)
			b.member.Take(0)
			synctest.Wait()
			b.member.Give(0)
			time.Sleep(10 * time.Second)
		}
		b.committed(0)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRecoveryBesideLiveOnes(t *testing.T) {
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
		b.bucket.Set(snapshot.ID{Partition: 1, Next: 3, N: 3}.String(), nil)
		free := make(chan struct{})
		b.member.BeforeSaid.Set(func(context.Context, int32) error { <-free; return nil })
		b.member.Give(1)
		b.log.Publish(1, view("late", 0))
		for i := range 10 {
			b.log.Publish(0, view(fmt.Sprint("meanwhile", i), 0))
			b.committed(0)
		}
		b.said(0, 13)
		b.said(1, 3)
		s := l.Status()
		if len(s) != 2 || s[0].Recovering || !s[1].Recovering {
			t.Errorf("got %+v, want partition 0 live and 1 recovering", s)
		}
		if err := l.Ask(t.Context(), 1, func(*worker.Worker) {}); !errors.Is(err, pipeline.ErrNotHere) {
			t.Errorf("Ask of a partition that recovers: got %v, want ErrNotHere", err)
		}
		close(free)
		b.committed(1)
		b.said(1, 4)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAskAndStatus(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		b.member.Ends = time.Second
		b.member.Give(0)
		l := b.run()
		synctest.Wait()
		b.log.Publish(0, users(5)...)
		b.log.Publish(0, users0(1)...)
		b.committed(0)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		var ex worker.Explanation
		err := l.Ask(t.Context(), 0, func(w *worker.Worker) { ex, _ = w.Explain("u3") })
		if err != nil || ex.User != "u3" || ex.Sets[0].Segment != "prospect" {
			t.Errorf("Ask: got %+v, %v", ex, err)
		}
		if err := l.Ask(t.Context(), 1, func(*worker.Worker) {}); !errors.Is(err, pipeline.ErrNotHere) {
			t.Errorf("Ask of a partition elsewhere: got %v, want ErrNotHere", err)
		}
		s := l.Status()
		if len(s) != 1 {
			t.Fatalf("got %+v, want one partition", s)
		}
		if s := s[0]; s.Recovering || s.Users != 5 || s.Stats.Applied != 5 || s.End != 6 || s.Mark.Next != 6 || s.Committed.N != 6 ||
			s.Stats.DeadLetters[schemas.NotJSON] != 1 || s.Population[0][5] != 5 {
			t.Errorf("got %+v", s)
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		if err := l.Ask(t.Context(), 0, func(*worker.Worker) {}); !errors.Is(err, pipeline.ErrNotHere) {
			t.Errorf("Ask after the end: got %v, want ErrNotHere", err)
		}
	})
}

// A silent shopper becomes dormant by the wall alone, within grace and the second
// between two questions for the end.
func TestSilenceIsSaidInTime(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Give(0)
		l := b.run()
		synctest.Wait()
		b.log.Publish(0, view("silent", 0))
		b.committed(0)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		time.Sleep(90*24*time.Hour - 20*time.Second) // with nobody there
		b.next()
		b.member.Ends = time.Second
		b.member.Give(0)
		l = b.run()
		time.Sleep(19 * time.Second)
		synctest.Wait()
		b.said(0, 1)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		b.said(0, 2)
		if tr := b.log.Outputs(0)[1].Transition; tr.Cause.Kind != schemas.ByTimer || tr.To != 1 {
			t.Errorf("got %+v, want dormant by a timer", tr)
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}
