package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"footfall/pipeline"
	"footfall/pipeline/pipelinetest"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// 1. A partition begins with a history, of which nothing is to be said aloud. 2. Before all
// of it is applied the process ends, and the snapshots are lost. 3. A rebuild: what is left
// of the history is history still.
func TestARebuildAmidHistorySaysNothingOfItAloud(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.log.Publish(0, users(10)...)
		b.member.Give(0)
		b.member.BeforeCommit.Set(func(_ context.Context, outs []*worker.Output) error {
			for _, out := range outs {
				if len(out.Items) > 0 {
					return fmt.Errorf("killed: %w", pipeline.ErrFenced)
				}
			}
			return nil
		})
		if err := b.run().ended(t); !errors.Is(err, pipeline.ErrFenced) {
			t.Fatal(err)
		}
		if m, found := b.log.Mark(0); !found || m.Next != 0 || m.Bootstrap != 10 {
			t.Fatalf("got the mark %+v, found %t, want one amid the history", m, found)
		}
		for _, k := range b.bucket.Keys() {
			b.bucket.Set(k, nil)
		}
		b.next()
		b.cfg.Rebuild = true
		b.member.Give(0)
		l := b.run()
		b.committed(0)
		b.log.Publish(0, view("new", 0))
		b.committed(0)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		b.said(0, 11)
		for _, o := range b.log.Outputs(0) {
			if old := o.Transition.User != "new"; old != (o.Transition.Muted == schemas.MutedBootstrap) {
				t.Errorf("%q is muted %q, want that of the history alone", o.Transition.User, o.Transition.Muted)
			}
		}
	})
}

// A partition lives through a replay. Its snapshots are lost, and retention has removed what
// it has read: a rebuild takes from the mark that the wall moves no clock there.
func TestARebuildStaysInItsLane(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Ends = time.Minute
		replayed := func(user string, at schemas.Millis) worker.Record {
			r := view(user, 0)
			r.Value = fmt.Appendf(nil, `{"event_id":%q,"type":"view","user_id":%q,"time":%d}`, user, user, at)
			r.Time, r.Lane = at, schemas.Replay
			return r
		}
		begin := now()
		time.Sleep(30 * 24 * time.Hour)
		b.member.Give(0)
		l := b.run()
		b.log.Publish(0, replayed("first", begin))
		b.committed(0)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		for _, k := range b.bucket.Keys() {
			b.bucket.Set(k, nil)
		}
		b.log.Retain(0, 1)
		b.next()
		b.cfg.Rebuild = true
		b.member.Ends = time.Minute
		b.member.Give(0)
		l = b.run()
		time.Sleep(time.Hour)
		b.log.Publish(0, replayed("second", begin+schemas.Day))
		b.committed(0)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		outs := b.log.Outputs(0)
		if last := outs[len(outs)-1].Transition; last.User != "second" || last.At != begin+schemas.Day {
			t.Errorf("%q is moved at %d, want the second user at the record's %d: the wall has moved the clock of a replay", last.User, last.At, begin+schemas.Day)
		}
	})
}

// A partition begins with a history. Amid it the process ends, and the group's offsets
// expire. A rebuild, which has no mark to tell where history ended: what was said last is
// of the history, so what the log holds by now is history still.
func TestARebuildWithoutAMarkAmidHistory(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.log.Publish(0, users(10)...)
		b.member.PollMax = 5
		b.cfg.Source = &once{Member: b.member}
		b.member.Give(0)
		l := b.run()
		time.Sleep(20 * time.Second)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		if m, found := b.log.Mark(0); !found || m.Next != 5 || m.Bootstrap != 10 {
			t.Fatalf("got the mark %+v, found %t, want one amid the history", m, found)
		}
		b.log.Forget(0)
		b.next()
		b.cfg.Rebuild = true
		b.member.Give(0)
		l = b.run()
		b.committed(0)
		b.log.Publish(0, view("new", 0))
		b.committed(0)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		b.said(0, 11)
		for _, o := range b.log.Outputs(0) {
			if old := o.Transition.User != "new"; old != (o.Transition.Muted == schemas.MutedBootstrap) {
				t.Errorf("%q is muted %q, want that of the history alone", o.Transition.User, o.Transition.Muted)
			}
		}
	})
}

// once gives records once.
type once struct {
	*pipelinetest.Member
	gave bool
}

func (s *once) Poll(ctx context.Context, into *pipeline.Batch) error {
	if s.gave {
		<-ctx.Done()
		return ctx.Err()
	}
	err := s.Member.Poll(ctx, into)
	s.gave = len(into.Fetched) > 0
	return err
}
