package brokersim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/sources/kafka"
)

// say lets a process say something in every partition, and waits until it is
// committed.
func (w *world) say(user string) {
	w.t.Helper()
	for p := range int32(partCount) {
		r := view(fmt.Sprint(user, p), 1)
		r.Partition = p
		w.publish(r)
	}
	if err := w.rest(0); err != nil {
		w.t.Fatal(err)
	}
}

// refuses waits until the engine of a process has ended with an error that says all
// of this, and holds that it never ends otherwise.
func (w *world) refuses(name string, want ...string) {
	w.t.Helper()
	deadline := time.Now().Add(restless)
	for time.Now().Before(deadline) {
		w.mu.Lock()
		ended := strings.Join(w.ended, "\n")
		w.mu.Unlock()
		for line := range strings.SplitSeq(ended, "\n") {
			if !strings.HasPrefix(line, name+"/engine: ") {
				continue
			}
			for _, text := range want {
				if !strings.Contains(line, text) {
					w.t.Fatalf("%s: want %q in it", line, text)
				}
			}
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Fatalf("%s does not end; want it refused with %q", name, want)
}

const anew = "egin anew"

// A topic that is deleted and made anew beside a running process ends it, and so does
// one that is found so by the next; nothing is said that was not said before.
func TestTopicMadeAnew(t *testing.T) {
	for _, topic := range []string{events, triggers, dead} {
		t.Run(topic, func(t *testing.T) {
			inBubble(t, options{}, func(t *testing.T, w *world) {
				a := w.run("a")
				w.say("u")
				said := len(w.records(triggers))
				if err := w.cluster.DeleteTopic(topic); err != nil {
					t.Fatal(err)
				}
				if err := w.cluster.CreateTopic(topic, partCount, nil); err != nil {
					t.Fatal(err)
				}
				w.client.Close() // knows the topic of before
				w.connect()
				w.refuses("a", "topic "+topic+" was deleted and made anew after this process started", anew)
				a.leave()
				if topic != events {
					return
				}
				for p := range int32(partCount) { // as long as the one before, and of other users
					for n := range 5 {
						r := view(fmt.Sprint("new", n), n)
						r.Partition = p
						w.publish(r)
					}
				}
				b := w.run("b")
				w.refuses("b", "has no committed offset, but committed outputs", "deleted and made anew", anew)
				b.leave()
				c := w.rebuild("c")
				w.refuses("c", "was deleted and made anew", anew)
				c.leave()
				if got := len(w.records(triggers)); got != said {
					t.Errorf("%d triggers, want the %d of before", got, said)
				}
			})
		})
	}
}

// A topic that is gone ends it with what it is.
func TestTopicDeleted(t *testing.T) {
	for _, topic := range []string{events, triggers} {
		t.Run(topic, func(t *testing.T) {
			inBubble(t, options{}, func(t *testing.T, w *world) {
				a := w.run("a")
				w.say("u")
				if err := w.cluster.DeleteTopic(topic); err != nil {
					t.Fatal(err)
				}
				if topic == triggers {
					w.publish(view("v", 1))
				}
				w.refuses("a", "topic "+topic+" does not exist any more", anew)
				a.leave()
			})
		})
	}
}

// More partitions are refused beside a running process, and by one that starts when
// all topics have them.
func TestPartitionsAdded(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, w *world) {
		a := w.run("a")
		w.say("u")
		add := func(topics ...string) {
			for _, topic := range topics {
				if _, err := w.adm.UpdatePartitions(w.ctx, partCount+1, topic); err != nil {
					t.Fatal(err)
				}
			}
		}
		add(events)
		w.refuses("a", "topic events had 2 partitions when this process started and has 3 now", "profiles have not", anew)
		a.leave()
		b := w.run("b")
		w.refuses("b", "topic triggers has 2 partitions and the input events has 3")
		b.leave()
		add(outputs()...)
		c := w.run("c")
		w.refuses("c", "topic events had 2 partitions when offset", "has 3 now", anew)
		c.leave()
	})
}

// Offsets that have expired are not a beginning from nothing.
func TestOffsetsExpired(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, w *world) {
		a := w.run("a")
		w.say("u")
		a.leave()
		time.Sleep(time.Minute) // the group is empty
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = []string{group}
		if _, err := req.RequestWith(w.ctx, w.client); err != nil {
			t.Fatal(err)
		}
		said := len(w.records(triggers))
		b := w.run("b")
		w.refuses("b", "no committed offset, but committed outputs", "--rebuild")
		b.leave()
		if got := len(w.records(triggers)); got != said {
			t.Errorf("%d triggers, want the %d of before", got, said)
		}
	})
}

// unrest runs the usual scene while something happens to the cluster every few seconds,
// and judges what comes of it; no process may end.
func unrest(t *testing.T, w *world, every time.Duration, quiet bool, happen func()) {
	t.Helper()
	closing := time.Now().Add(working)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for time.Sleep(every); time.Now().Before(closing); time.Sleep(every) {
			happen()
		}
	}()
	w.scene(quiet)
	<-done
	if err := w.recovered(); err != nil {
		t.Error(err)
	}
	if err := w.judge(); err != nil {
		t.Error(err)
	}
	for _, end := range w.ended {
		if !strings.Contains(end, "no broker at") { // it is started while there is none
			t.Errorf("a process ended: %s", end)
		}
	}
}

// Coordinators and leaders that move are followed.
func TestCoordinatorsAndLeadersMove(t *testing.T) {
	for seed := range uint64(3) {
		inBubble(t, options{seed: seed}, func(t *testing.T, w *world) {
			unrest(t, w, 3*time.Second, false, func() {
				switch w.rng2.IntN(3) {
				case 0:
					w.note("coordinators move")
					w.cluster.RehashCoordinators()
				case 1:
					w.note("leaders move")
					w.cluster.ShufflePartitionLeaders()
				case 2:
					w.note("coordinators and leaders move")
					w.cluster.RehashCoordinators()
					w.cluster.ShufflePartitionLeaders()
				}
			})
		})
	}
}

// Brokers that are stopped and started again with their data are waited for.
func TestBrokersRestart(t *testing.T) {
	for seed := range uint64(3) {
		inBubble(t, options{seed: seed, disk: true}, func(t *testing.T, w *world) {
			// The broker in this process keeps the partitions of a member for ever whose
			// session ends while it is down, under the protocol Consumer.
			quiet, most := false, 8000
			if w.opt.protocol == kafka.Consumer {
				quiet, most = true, 3000
			}
			unrest(t, w, 12*time.Second, quiet, func() {
				w.note("brokers stop")
				w.cluster.Close()
				time.Sleep(time.Duration(w.rng2.IntN(most)) * time.Millisecond)
				w.note("brokers start")
				w.start()
			})
		})
	}
}
