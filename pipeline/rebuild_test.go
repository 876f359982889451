package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"footfall/pipeline"
	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

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

// Each topic has its own retention: the youngest outputs may be gone where older ones,
// of another topic, are still there. Their numbers are not given a second time, and
// what they have said is not said aloud again, with the committed mark or without.
func TestRebuildWithoutTheYoungestOutputs(t *testing.T) {
	for _, forgotten := range []bool{false, true} {
		t.Run(fmt.Sprintf("offset expired %v", forgotten), func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, b *bubble) {
				for i := range 3 {
					if err := b.again(t, view(fmt.Sprint("u", i), 0)); err != nil {
						t.Fatal(err)
					}
				}
				if forgotten {
					b.log.Forget(0)
				} else {
					for _, k := range b.bucket.Keys() {
						b.bucket.Set(k, nil)
					}
				}
				b.next()
				b.cfg.Rebuild = true
				b.cfg.History = youngest{b.member, 1}
				b.member.Give(0)
				l := b.run()
				time.Sleep(time.Minute)
				synctest.Wait()
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
				outs := b.log.Outputs(0)
				for i, o := range outs {
					if o.N != uint64(i+1) {
						t.Errorf("output %d has number %d: %+v", i+1, o.N, o.Transition)
					}
					if i >= 3 && (o.Transition.Muted != schemas.MutedBootstrap || o.Transition.User == "u0") {
						t.Errorf("said by the rebuild: %+v, want u1 and u2, muted", o.Transition)
					}
				}
				if len(outs) != 5 {
					t.Errorf("%d outputs, want 3 of before and 2 of the rebuild", len(outs))
				}
			})
		})
	}
}

// Of a partition with many users retention has removed the outputs, and its snapshots are
// gone: what a rebuild has to say goes out in transactions that have the time for it, and
// one that was ended in the midst of it begins again.
func TestARebuildSaysMuchInManyTransactions(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		const many, most = 50_000, 15_000
		b.member.Give(0)
		l := b.run()
		b.log.Publish(0, users(many)...)
		b.committed(0)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		for _, k := range b.bucket.Keys() {
			b.bucket.Set(k, nil)
		}
		b.log.RetainOutputs(0, many)
		life := func() *life {
			b.next()
			b.cfg.Rebuild = true
			b.member.Give(0)
			return b.run()
		}
		transactions := 0
		limit := func(_ context.Context, outs []*worker.Output) error {
			items := 0
			for _, out := range outs {
				items += len(out.Items)
			}
			if items > most {
				return fmt.Errorf("%d outputs in one transaction: %w", items, pipeline.ErrPermanent)
			}
			if transactions++; transactions == 3 {
				return fmt.Errorf("killed: %w", pipeline.ErrFenced)
			}
			return nil
		}
		l = life()
		b.member.BeforeCommit.Set(limit)
		if err := l.ended(t); !errors.Is(err, pipeline.ErrFenced) {
			t.Fatalf("got %v, want it to end in the midst", err)
		}
		l = life()
		b.member.BeforeCommit.Set(limit)
		b.log.Publish(0, view("new", 0))
		b.committed(0)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		outs := b.log.Outputs(0)
		for i, o := range outs {
			if o.N != uint64(many+1+i) || o.Transition.Seq != 1 {
				t.Fatalf("output %d has number %d and seq %d: %+v", i, o.N, o.Transition.Seq, o.Transition)
			}
		}
		if len(outs) != many+1 {
			t.Errorf("got %d outputs, want one of each of %d users and of the new one", len(outs), many)
		}
		if err := b.again(t, view("newer", 0)); err != nil {
			t.Fatal(err)
		}
	})
}

// youngest has lost all outputs after a number.
type youngest struct {
	pipeline.History
	last uint64
}

func (y youngest) Last(context.Context, int32) (uint64, error) { return y.last, nil }

func (y youngest) SaidAll(ctx context.Context, partition int32, to uint64, each func(*worker.Item) error) error {
	return y.History.SaidAll(ctx, partition, to, func(it *worker.Item) error {
		if it.N > y.last {
			return nil
		}
		return each(it)
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
