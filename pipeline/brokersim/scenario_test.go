package brokersim

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/sources/kafka"
)

// inBubble runs a scenario under both group protocols.
func inBubble(t *testing.T, opt options, test func(t *testing.T, w *world)) {
	t.Helper()
	if !virtual {
		t.Skip("needs -tags synctests: make brokersim")
	}
	for _, p := range []kafka.Protocol{kafka.Classic, kafka.Consumer} {
		t.Run(string(p), func(t *testing.T) {
			opt.dir = t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				opt.protocol = p
				w := newWorld(t, opt)
				defer func() {
					w.close()
					for _, err := range w.faults {
						t.Error(err)
					}
					if t.Failed() {
						t.Log(strings.Join(w.log, "\n"))
					}
				}()
				test(t, w)
			})
		})
	}
}

// view is an event of a user, who says something by the first.
func view(user string, n int) *kgo.Record {
	return &kgo.Record{
		Partition: 0, Key: []byte(user),
		Value: fmt.Appendf(nil, `{"event_id":"%s-%d","type":"view","user_id":%q,"time":%d}`, user, n, user, now()),
	}
}

// A commit of a mark alone that the broker gets to long after its sender has given it
// up sets nothing back: what was said since is not said again, and who comes next
// recovers.
func TestLateMark(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, w *world) {
		var kept atomic.Int32
		w.net.setRule(func(req *request) verdict {
			alone := req.key == int16(kmsg.OffsetCommit)
			if req.key == int16(kmsg.TxnOffsetCommit) {
				alone = strings.HasSuffix(parse(req).(*kmsg.TxnOffsetCommitRequest).TransactionalID, "/marks")
			}
			// The third: the first is that of the beginning, of each partition.
			if req.part != string(engine) || !alone {
				return verdict{}
			}
			if kept.Add(1) != 3 {
				return verdict{}
			}
			w.note("a mark is kept back")
			return verdict{phase: before, action: late, delay: 20 * time.Second}
		})
		a := w.run("a")
		time.Sleep(5 * time.Second)
		w.publish(view("u", 1))
		w.publish(view("u", 2)) // says nothing: its mark is committed alone
		for kept.Load() < 3 {
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(14 * time.Second) // longer than any request is waited for
		for n := range 5 {
			w.publish(view(fmt.Sprint("v", n), 1))
		}
		time.Sleep(2 * time.Second)
		a.kill() // before it can commit over what comes now
		time.Sleep(5 * time.Second)
		a.gone()
		w.net.setRule(nil)
		if err := w.recovered(); err != nil {
			t.Error(err)
		}
		for _, end := range w.ended {
			t.Errorf("a process ended: %s", end)
		}
		if got := len(w.records(triggers)); got != 6 {
			t.Errorf("%d triggers, want 6", got)
		}
	})
}
