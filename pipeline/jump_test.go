package pipeline_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"footfall/pipeline"
	"footfall/pipeline/pipelinetest"
	"footfall/schemas"
)

// astray gives the bubble a wall that is off by what it holds.
func (b *bubble) astray() (off *atomic.Int64) {
	off = new(atomic.Int64)
	wall := func() schemas.Millis { return now() + schemas.Millis(off.Load()) }
	b.log = pipelinetest.NewLog(2, wall)
	b.next()
	b.cfg.Now, b.cfg.JumpMax = wall, 7*schemas.Day
	b.member.Ends = time.Hour
	return off
}

// A wall that is set wrong, by years, in a life or before it begins, has nobody lost; nor
// is anybody late who comes when it is right again.
func TestAWallThatIsSetWrong(t *testing.T) {
	for _, before := range []bool{false, true} {
		t.Run(fmt.Sprint("before it begins: ", before), func(t *testing.T) {
			inBubble(t, 2, func(t *testing.T, b *bubble) {
				off := b.astray()
				b.member.Give(0, 1)
				l := b.run()
				b.log.Publish(0, view("u", 0))
				b.log.Publish(1, view("v", 0))
				b.committed(0)
				b.committed(1)
				if before {
					if err := l.end(t); err != nil {
						t.Fatal(err)
					}
					b.member = b.log.Join()
					b.member.Ends = time.Hour
					b.cfg.Source, b.cfg.Committer, b.cfg.History = b.member, b.member, b.member
				}
				off.Store(int64(10 * 365 * schemas.Day))
				if before {
					b.member.Give(0, 1)
					l = b.run()
				}
				time.Sleep(5 * time.Hour)
				synctest.Wait()
				b.said(0, 1)
				b.said(1, 1)
				off.Store(0)
				time.Sleep(5 * time.Hour)
				if n := count[pipeline.TimeHeld](b); n != 2 {
					t.Errorf("told %d times, want that time is held, and that it goes on", n)
				}
				time.Sleep(91 * 24 * time.Hour) // dormant, at the right time
				synctest.Wait()
				b.said(0, 2)
				b.said(1, 2)
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// A wall that is right, and far ahead of all that was seen, as after a month's rest, is
// believed from the next event on, in all partitions.
func TestAnEventShowsThatTheWallIsRight(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		off := b.astray()
		b.member.Give(0, 1)
		l := b.run()
		b.log.Publish(0, view("u", 0))
		b.committed(0)
		off.Store(int64(100 * schemas.Day))
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		b.said(0, 1)
		b.log.Publish(1, view("v", 0))
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		b.said(0, 2) // u is dormant
		b.said(1, 1)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}
