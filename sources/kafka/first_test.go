package kafka

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

// leaveOpen has a process die with a transaction of a partition open, offsets included, and
// returns the name of its producer.
func (e *env) leaveOpen(conf Config, partition int32, partitions int, value string) (id string) {
	e.t.Helper()
	cut := newSwitch()
	conf.Options = []kgo.Opt{kgo.Dialer(cut.dial)}
	s := e.session(conf)
	a := assigned(e.t, s, partitions)[partition]
	commitUntilDone(e.t, s, e.records(partition, "done"), output(a, 1, 1))
	p := <-s.idle
	c, _ := s.cutOf([]*worker.Output{output(a, 2, 2)})
	as, _ := s.owns.commitAs(c.epochs)
	pid, epoch, err := p.cl.ProducerID(e.t.Context())
	err = errors.Join(err, p.cl.BeginTransaction(), s.produce(e.t.Context(), p, e.records(partition, value)))
	if err = errors.Join(err, s.addOffsets(e.t.Context(), p, pid, epoch, as, c)); err != nil {
		e.t.Fatal(err)
	}
	cut.kill()
	s.idle <- p
	return p.id
}

// A process begins though coordinators of its producers do not answer. What the process before it
// left open there holds up its own partition, and no other one, and is not taken for committed.
func TestBeginsThoughCoordinatorsDoNotAnswer(t *testing.T) {
	e := local(t, 2)
	conf := e.config("a")
	conf.InstanceID = "a"
	conf.TransactionTimeout = 5 * limit
	open := e.leaveOpen(conf, 0, 2, "torn")
	away := []string{open, conf.transactional("marks")}
	faults := e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.CoordinatorNotAvailable, Count: -1, When: func(req kmsg.Request) bool {
		return slices.Contains(away, unwrap(req.(*kmsg.InitProducerIDRequest).TransactionalID))
	}})
	conf.TransactionTimeout = time.Second
	s := e.session(conf)
	a := assigned(t, s, 2)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := s.Transact(ctx, nil, []*worker.Output{output(a[1], 1, 0)}); !errors.Is(err, pipeline.ErrAborted) || ctx.Err() != nil {
		t.Errorf("marks alone: got %v, want it aborted at once", err)
	}
	for n := range uint64(2 * producers) {
		if err := s.Transact(t.Context(), e.records(1, "beside"), []*worker.Output{output(a[1], int64(n)+1, n+1)}); err != nil {
			t.Fatalf("of another producer: %v", err)
		}
	}
	if offset, _ := e.committed(1); offset != 2*producers { // by a stable fetch this cluster tells of no partition of the group
		t.Errorf("committed of the other partition: %d", offset)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if mark, found, err := s.Committed(ctx, 0); err == nil {
		t.Errorf("committed while a transaction is undecided: got %+v, %v", mark, found)
	}
	if _, stable, end, err := s.Range(t.Context(), e.out[0], 0); err != nil || stable == end {
		t.Errorf("decided up to %d of %d (%v), and a transaction is open", stable, end, err)
	}
	eventually(t, "others take its turns", func() bool { return len(s.idle) == producers })

	faults.Remove()
	if mark, found, err := s.Committed(t.Context(), 0); err != nil || !found || mark.N != 1 {
		t.Errorf("committed when it is ended: got %+v, %v, %v", mark, found, err)
	}
	eventually(t, "both are back", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.marking) == 1 && len(s.idle)+len(s.resting) == producers+1
	})
	if err := s.Transact(t.Context(), nil, []*worker.Output{output(a[1], 9, 2*producers)}); err != nil {
		t.Errorf("marks alone: %v", err)
	}
	commitUntilDone(t, s, e.records(0, "again"), output(a[0], 2, 2))
	if got := e.visible(e.out[0], 0); !slices.Equal(got, []string{"done", "again"}) {
		t.Errorf("said: %q", got)
	}
}

// Where no coordinator answers it is waited for; what does not go by itself is told at once,
// whichever producer it is that of.
func TestBeginsWithAProducer(t *testing.T) {
	e := local(t, 1)
	conf := e.config("a")
	conf.TransactionTimeout = time.Second
	faults := e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.CoordinatorNotAvailable, Count: -1})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := New(ctx, conf, e.out...); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want it to wait", err)
	}
	time.AfterFunc(2*time.Second, func() { faults.Remove() })
	s := e.session(conf)
	commitUntilDone(t, s, e.records(0, "1"), output(assigned(t, s, 1)[0], 1, 1))
	for _, name := range []string{"1", "marks"} {
		e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TxnID: conf.transactional(name), Err: kerr.TransactionalIDAuthorizationFailed, Count: -1})
		if _, err := New(t.Context(), conf, e.out...); err == nil || !strings.Contains(err.Error(), "missing ACL: Write") {
			t.Errorf("%s: got %v, want the right that is missing", name, err)
		}
	}
}
