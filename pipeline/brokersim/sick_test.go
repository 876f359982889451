package brokersim

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// sicken has a partition of an output topic take no writes, as below its
// min.insync.replicas: a transaction that has tried can't be ended either, since its markers
// can't be written, and so its producer does not begin anew.
func (w *world) sicken(topic string, partition int32) (heal func()) {
	w.note("%s/%d takes no writes", topic, partition)
	stuck := map[string]bool{} // the cluster's own
	faults := w.cluster.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Partitions: []int32{partition}, Err: kerr.NotEnoughReplicas, Count: -1, When: func(req kmsg.Request) bool {
			if id := req.(*kmsg.ProduceRequest).TransactionID; id != nil {
				stuck[*id] = true
			}
			return true
		}},
		kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.ConcurrentTransactions, Count: -1, When: func(req kmsg.Request) bool {
			id := req.(*kmsg.InitProducerIDRequest).TransactionalID
			return id != nil && stuck[*id]
		}},
	)
	return func() {
		w.note("%s/%d takes writes again", topic, partition)
		faults.Remove()
	}
}

// While a partition of the trigger topic takes no writes, for minutes, the triggers of the
// others leave within seconds, and those that wait leave when it does.
func TestOthersGoOnBesideASickPartition(t *testing.T) {
	inBubble(t, options{}, func(t *testing.T, w *world) {
		const sick = 1
		a := w.run("a")
		w.say("before")
		heal := w.sicken(triggers, sick)
		const rounds = 30
		for n := range rounds {
			for p := range int32(partCount) {
				r := view(fmt.Sprint("u", n, "-", p), 1)
				r.Partition = p
				w.publish(r)
			}
			time.Sleep(10 * time.Second)
			if n < 3 { // the first has to be found out, by a transaction that takes its time
				continue
			}
			for p, m := range w.marks() {
				if want := uint64(n + 2); p != sick && m.N != want {
					t.Fatalf("round %d: %d outputs of partition %d are committed, want %d", n, m.N, p, want)
				}
			}
		}
		if got := w.marks()[sick].N; got != 1 {
			t.Errorf("%d outputs are committed of the partition that takes none, want the one of before", got)
		}
		heal()
		if err := w.rest(0); err != nil {
			t.Error(err)
		}
		a.leave()
		if err := w.recovered(); err != nil {
			t.Error(err)
		}
		if got, want := len(w.records(triggers)), partCount*rounds; got != want { // what came before it started is muted
			t.Errorf("%d triggers, want %d", got, want)
		}
		for _, end := range w.ended {
			t.Errorf("a process ended: %s", end)
		}
	})
}

// Partitions of the output topics take no writes, one after the other, while members come and
// go.
func TestPartitionsSicken(t *testing.T) {
	for seed := range uint64(3) {
		inBubble(t, options{seed: seed}, func(t *testing.T, w *world) {
			unrest(t, w, 4*time.Second, false, func() {
				topic := outputs()[w.rng2.IntN(len(outputs()))]
				heal := w.sicken(topic, int32(w.rng2.IntN(partCount)))
				time.Sleep(time.Duration(w.rng2.IntN(20_000)) * time.Millisecond)
				heal()
			})
		})
	}
}
