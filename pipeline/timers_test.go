package pipeline_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Of timers that are due all at once only so many are said ahead of what events say, while
// nothing is committed; and all of them in the end.
func TestTimersWaitForCommits(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		const silent = 15_000
		b.member.Give(0)
		l := b.run()
		synctest.Wait()
		seen := now() - 90*schemas.Day + schemas.Hour // dormant in an hour
		records := make([]worker.Record, silent)
		for i := range records {
			user := fmt.Sprintf("silent%d", i)
			records[i] = worker.Record{Key: []byte(user), Value: fmt.Appendf(nil, `{"event_id":"%s","type":"view","user_id":%q,"time":%d}`, user, user, seen)}
		}
		b.log.Publish(0, records...)
		b.committed(0)
		b.said(0, silent)
		time.Sleep(time.Hour + time.Millisecond - time.Duration(now()-(seen+90*schemas.Day-schemas.Hour))*time.Millisecond)
		free := make(chan struct{})
		b.member.BeforeCommit.Set(func(ctx context.Context, _ []*worker.Output) error {
			select {
			case <-free:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
		b.log.Publish(0, view("first", 0))
		synctest.Wait()
		b.log.Publish(0, view("second", 0))
		synctest.Wait()
		close(free)
		b.committed(0)
		for range 100 {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		b.said(0, 2*silent+2)
		for _, it := range b.log.Told(0) {
			ahead := int(it.N) - silent
			if it.Transition.User == "second" && ahead > pipeline.TimersAhead+2*b.cfg.Worker.Slice {
				t.Errorf("%d outputs of timers stand before what an event says, want no more than about %d", ahead, pipeline.TimersAhead)
			}
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	})
}
