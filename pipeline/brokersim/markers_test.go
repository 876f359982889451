package brokersim

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/sources/kafka"
)

// A transaction that its coordinator calls complete without having written its markers keeps
// no reader waiting for longer than it takes to see that nobody ends it, unless it may be at
// work still, or footfall may not write markers.
func TestMarkersLeftOut(t *testing.T) {
	for _, c := range []struct {
		name, state string
		later       int16 // how much further the coordinator's epoch is
		forbidden   bool
		ends        bool
	}{
		{name: "aborted", state: "CompleteAbort", later: 1, ends: true},
		{name: "may be the one before", state: "CompleteAbort", later: 0},
		{name: "long over", state: "CompleteAbort", later: 7},
		{name: "emptied since", state: "Empty", later: 1},
		{name: "at work", state: "PrepareAbort", later: 1},
		{name: "not allowed", state: "CompleteAbort", later: 1, forbidden: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, options{wait: 24 * time.Hour}, func(t *testing.T, w *world) {
				a := w.run("a")
				w.say("before")
				left := w.leave(c.state, c.later)
				var denied *kfake.FaultHandle
				if c.forbidden {
					denied = w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.WriteTxnMarkers}, Err: kerr.ClusterAuthorizationFailed, Count: -1})
				}
				time.Sleep(time.Minute)
				for p := range int32(partCount) {
					stable, end := w.stable(triggers, p)
					if decided := stable == end; decided != c.ends {
						t.Errorf("partition %d: decided up to %d of %d", p, stable, end)
					}
				}
				if denied != nil {
					denied.Remove()
					time.Sleep(time.Minute)
					if stable, end := w.stable(triggers, 0); stable != end {
						t.Errorf("it may write them now, and has not: decided up to %d of %d", stable, end)
					}
				}
				left()
				w.say("after")
				a.leave()
				if err := w.recovered(); err != nil {
					t.Error(err)
				}
				for _, end := range w.ended {
					t.Errorf("a process ended: %s", end)
				}
			})
		})
	}
}

// leave leaves a transaction of somebody else's open in the trigger topic, of which the
// coordinator says that it is in a state, with its epoch so much further, and returns how
// to have it aborted after all.
func (w *world) leave(state string, later int16) (abort func()) {
	opts, err := kafka.Options(kafka.Config{Brokers: brokers(), Options: []kgo.Opt{kgo.Dialer(w.net.virtual.DialContext)}})
	if err != nil {
		w.t.Fatal(err)
	}
	const id = "left"
	cl, err := kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID(id), kgo.TransactionTimeout(15*time.Minute))...)
	if err == nil {
		err = cl.BeginTransaction()
	}
	for p := int32(0); err == nil && p < partCount; p++ {
		err = cl.ProduceSync(w.ctx, &kgo.Record{Topic: triggers, Partition: p, Value: []byte("left")}).FirstErr()
	}
	if err != nil {
		w.t.Fatalf("leave: %v", err)
	}
	pid, epoch, err := cl.ProducerID(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	var mu sync.Mutex
	over := false
	w.cluster.ControlKey(int16(kmsg.DescribeTransactions), func(r kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		req := r.(*kmsg.DescribeTransactionsRequest)
		mu.Lock()
		defer mu.Unlock()
		if over || len(req.TransactionalIDs) != 1 || req.TransactionalIDs[0] != id {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
		s := kmsg.NewDescribeTransactionsResponseTransactionState()
		s.TransactionalID, s.ProducerID, s.ProducerEpoch, s.State = id, pid, epoch+later, state
		resp.TransactionStates = append(resp.TransactionStates, s)
		return resp, nil, true
	})
	return func() {
		mu.Lock()
		over = true
		mu.Unlock()
		if err := cl.EndTransaction(w.ctx, kgo.TryAbort); err != nil {
			w.fault(fmt.Errorf("leave: %w", err))
		}
		cl.Close()
	}
}

// stable is up to where a partition is decided, and its end.
func (w *world) stable(topic string, partition int32) (stable, end int64) {
	w.t.Helper()
	committed, err := w.adm.ListCommittedOffsets(w.ctx, topic)
	ends, err2 := w.adm.ListEndOffsets(w.ctx, topic)
	if err := errors.Join(err, err2); err != nil {
		w.t.Fatal(err)
	}
	s, _ := committed.Lookup(topic, partition)
	e, _ := ends.Lookup(topic, partition)
	return s.Offset, e.Offset
}
