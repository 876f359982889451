package pipeline_test

import (
	"testing"
	"testing/synctest"
	"time"

	"footfall/pipeline"
	"footfall/schemas"
)

// A partition that nobody writes to any more goes on saying what silence means. Snapshots
// follow that, so that nothing of it is needed when retention has removed it; and where
// nothing more was said there is none.
func TestSnapshotsFollowWhatSilenceSays(t *testing.T) {
	for name, every := range map[string]time.Duration{"one that is due": time.Minute, "the last one": 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, b *bubble) {
				b.member.Give(0)
				l := b.run()
				b.log.Publish(0, users(10)...)
				b.committed(0)
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
				b.next()
				b.member.Ends = time.Minute
				b.cfg.SnapshotEvery = schemas.Millis(every.Milliseconds())
				b.member.Give(0)
				l = b.run()
				time.Sleep(100 * 24 * time.Hour) // dormant after 90
				synctest.Wait()
				b.said(0, 20)
				before := count[pipeline.SnapshotPublished](b)
				time.Sleep(10 * 24 * time.Hour)
				synctest.Wait()
				if after := count[pipeline.SnapshotPublished](b); after != before {
					t.Errorf("%d snapshots of a partition that has said nothing more", after-before)
				}
				if at := l.Status()[0].SnapshotAt; every == time.Minute && at < now()-2*schemas.Minute {
					t.Errorf("the snapshot, which lacks nothing, is said to be of %d, %d before now", at, now()-at)
				}
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
				b.next()
				b.facts = nil
				b.member.Give(0)
				l = b.run()
				synctest.Wait()
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
				for _, f := range b.facts {
					if f, ok := f.(pipeline.Recovered); ok && f.Outputs > 0 {
						t.Errorf("recovery needs %d outputs that are 20 days old", f.Outputs)
					}
				}
			})
		})
	}
}

// A partition that hears nothing any more, not even where it ends, keeps no other from
// taking snapshots.
func TestASnapshotIsOverWhenItIsWritten(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, b *bubble) {
		b.member.Give(0, 1)
		l := b.run()
		time.Sleep(2 * time.Minute)
		b.log.Publish(0, users(3)...) // with a snapshot that is due
		synctest.Wait()
		for i := range 5 {
			b.log.Publish(1, view("u", i))
			synctest.Wait()
			time.Sleep(2 * time.Minute)
		}
		for p, least := range map[int32]int{0: 1, 1: 4} {
			if n := snapshotsOf(b, p); n < least {
				t.Errorf("partition %d: got %d snapshots, want %d or more", p, n, least)
			}
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}

func snapshotsOf(b *bubble, partition int32) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.facts {
		if f, ok := f.(pipeline.SnapshotPublished); ok && f.Partition == partition {
			n++
		}
	}
	return n
}
