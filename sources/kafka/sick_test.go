package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

// sicken has a partition of an output topic take no writes: those of a transaction that
// has tried can't be ended either, since its markers can't be written. tried counts.
func (e *env) sicken(topic string, partition int32) (heal func(), tried *atomic.Int64) {
	tried = new(atomic.Int64)
	stuck := map[string]bool{} // the cluster's own
	faults := e.cluster.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Partitions: []int32{partition}, Err: kerr.NotEnoughReplicas, Count: -1, When: func(req kmsg.Request) bool {
			stuck[*req.(*kmsg.ProduceRequest).TransactionID] = true
			tried.Add(1)
			return true
		}},
		kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.ConcurrentTransactions, Count: -1, When: func(req kmsg.Request) bool {
			return stuck[unwrap(req.(*kmsg.InitProducerIDRequest).TransactionalID)]
		}},
	)
	return faults.Remove, tried
}

// A partition of an output topic that takes no writes holds up what goes there, and nothing
// else, until it does again.
func TestSickPartition(t *testing.T) {
	e := local(t, 2)
	conf := e.config("a")
	conf.TransactionTimeout = time.Second
	s := e.session(conf)
	a := assigned(t, s, 2)
	topic := e.out[0]
	heal, tried := e.sicken(topic, 1)

	both := slices.Concat(e.records(0, "well 1"), e.records(1, "sick 1"))
	outs := []*worker.Output{output(a[0], 1, 1), output(a[1], 1, 1)}
	var unwritable *pipeline.UnwritableError
	if err := s.Transact(t.Context(), both, outs); !errors.As(err, &unwritable) || !slices.Equal(unwritable.Partitions, []int32{1}) || !unwritable.Tried || !errors.Is(err, pipeline.ErrAborted) {
		t.Fatalf("got %v, want partition 1 named", err)
	}
	if got := s.Unwritable(); got != 1 {
		t.Errorf("%d partitions are said to take no writes, want 1", got)
	}
	for n := range uint64(2 * producers) {
		if err := s.Transact(t.Context(), e.records(0, fmt.Sprintf("well %d", n+1)), []*worker.Output{output(a[0], int64(n)+1, n+1)}); err != nil {
			t.Fatalf("of the other partition: %v", err)
		}
		before := tried.Load()
		err := s.Transact(t.Context(), both, outs)
		if unwritable = nil; !errors.As(err, &unwritable) || unwritable.Tried || !slices.Equal(unwritable.Partitions, []int32{1}) {
			t.Fatalf("got %v, want it refused at once", err)
		}
		if tried.Load() != before {
			t.Error("it was tried again by another producer, which is stuck now too")
		}
	}
	if mark, found, err := s.Committed(t.Context(), 0); err != nil || !found || mark.N != 2*producers {
		t.Errorf("committed of the other partition: got %+v, %v, %v", mark, found, err)
	}

	heal()
	eventually(t, "it takes writes", func() bool { return s.Unwritable() == 0 })
	for n := range uint64(2 * producers) { // the one that was stuck among them
		commitUntilDone(t, s, e.records(1, fmt.Sprintf("sick %d", n+1)), output(a[1], int64(n)+1, n+1))
	}
	for p, name := range []string{"well", "sick"} {
		var want []string
		for n := range 2 * producers {
			want = append(want, fmt.Sprintf("%s %d", name, n+1))
		}
		if got := e.visible(topic, int32(p)); !slices.Equal(got, want) {
			t.Errorf("partition %d: visible %q, want %q", p, got, want)
		}
	}
}

// A session ends though a partition is sick.
func TestCloseWhileAPartitionIsSick(t *testing.T) {
	e := local(t, 1)
	conf := e.config("a")
	conf.TransactionTimeout = time.Second
	s := e.session(conf)
	a := assigned(t, s, 1)
	heal, _ := e.sicken(e.out[0], 0)
	defer heal()
	if err := s.Transact(t.Context(), e.records(0, "one"), []*worker.Output{output(a[0], 1, 1)}); !errors.Is(err, pipeline.ErrAborted) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if s.Close(ctx); ctx.Err() != nil {
		t.Error("it waits for the producer that is stuck")
	}
}

// A producer that is stuck because the markers of its last transaction can't be written is
// set aside, and no partition is blamed for it.
func TestProducerWhoseMarkersWait(t *testing.T) {
	e := local(t, 1)
	conf := e.config("a")
	conf.TransactionTimeout = time.Second
	s := e.session(conf)
	a := assigned(t, s, 1)
	commitUntilDone(t, s, e.records(0, "1"), output(a[0], 1, 1))
	stuck := whoseTurn(s)
	s.met[place{e.out[0], 0}] = s.marker // another has met it
	faults := e.cluster.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TxnID: stuck.id, Err: kerr.ConcurrentTransactions, Count: -1},
		kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: e.out[0], Err: kerr.ConcurrentTransactions, Count: -1, When: func(req kmsg.Request) bool {
			return unwrap(req.(*kmsg.ProduceRequest).TransactionID) == stuck.id
		}},
	)
	e.cluster.ControlKey(int16(kmsg.DescribeTransactions), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
		state := kmsg.NewDescribeTransactionsResponseTransactionState()
		state.TransactionalID, state.State = stuck.id, "PrepareCommit"
		resp.TransactionStates = append(resp.TransactionStates, state)
		return resp, nil, true
	})
	failed := 0
	say := func(n uint64) {
		records := e.records(0, fmt.Sprint(n))
		for {
			err := s.Transact(t.Context(), records, []*worker.Output{output(a[0], int64(n), n)})
			if err == nil {
				return
			}
			if unwritable := (*pipeline.UnwritableError)(nil); errors.As(err, &unwritable) || !errors.Is(err, pipeline.ErrAborted) {
				t.Fatalf("got %v, want it aborted, and no partition blamed", err)
			}
			failed++
		}
	}
	for n := range uint64(2 * producers) {
		say(n + 2)
	}
	if failed != 1 {
		t.Errorf("%d transactions failed, want the one of the producer that was stuck", failed)
	}
	faults.Remove()
	eventually(t, "it is back", func() bool { return len(s.idle) == producers })
	for n := range uint64(producers) {
		say(n + 2 + 2*producers)
	}
	if got := e.visible(e.out[0], 0); len(got) != 1+3*producers {
		t.Errorf("visible: %q", got)
	}
}

// A coordinator that can't write has every partition of its producer's transactions refuse
// records. None of them is blamed, and others write to them.
func TestCoordinatorThatCannotWrite(t *testing.T) {
	e := local(t, 2)
	conf := e.config("a")
	conf.TransactionTimeout = time.Second
	s := e.session(conf)
	a := assigned(t, s, 2)
	stuck := whoseTurn(s)
	faults := e.cluster.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TxnID: stuck.id, Err: kerr.CoordinatorNotAvailable, Count: -1},
		kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: e.out[0], Err: kerr.NotEnoughReplicas, Count: -1, When: func(req kmsg.Request) bool {
			return unwrap(req.(*kmsg.ProduceRequest).TransactionID) == stuck.id
		}},
	)
	failed := 0
	say := func(n uint64) {
		both := slices.Concat(e.records(0, fmt.Sprint(n)), e.records(1, fmt.Sprint(n)))
		for {
			err := s.Transact(t.Context(), both, []*worker.Output{output(a[0], int64(n), n), output(a[1], int64(n), n)})
			if err == nil {
				return
			}
			if _, named := errors.AsType[*pipeline.UnwritableError](err); named || !errors.Is(err, pipeline.ErrAborted) {
				t.Fatalf("got %v, want it aborted, and no partition blamed", err)
			}
			failed++
		}
	}
	for n := range uint64(2 * producers) {
		say(n + 1)
	}
	if failed != 1 || s.Unwritable() != 0 {
		t.Errorf("%d transactions failed, and %d partitions are said to take no writes; want the one of that producer, and none", failed, s.Unwritable())
	}
	faults.Remove()
	eventually(t, "it rests, or takes turns", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.idle)+len(s.resting) == producers+1 && len(s.met) == 0
	})
}

// A producer that can't be renewed does not keep those who would use it waiting, the one of
// marks included.
func TestProducersThatCannotBeRenewedAreSetAside(t *testing.T) {
	e := local(t, 1)
	conf := e.config("a")
	conf.TransactionTimeout = time.Second
	s := e.session(conf)
	a := assigned(t, s, 1)
	stuck := []string{whoseTurn(s).id, s.marker.id}
	faults := e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.CoordinatorNotAvailable, Count: -1, When: func(req kmsg.Request) bool {
		return slices.Contains(stuck, unwrap(req.(*kmsg.InitProducerIDRequest).TransactionalID))
	}})
	aborted := e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.UnknownServerError, Count: -1, When: func(req kmsg.Request) bool {
		return slices.Contains(stuck, req.(*kmsg.TxnOffsetCommitRequest).TransactionalID)
	}})
	one := []*worker.Output{output(a[0], 1, 1)}
	if err := s.Transact(t.Context(), e.records(0, "1"), one); !errors.Is(err, pipeline.ErrAborted) {
		t.Fatalf("got %v, want it aborted", err)
	}
	if err := s.Transact(t.Context(), nil, one); !errors.Is(err, pipeline.ErrAborted) {
		t.Fatalf("got %v, want it aborted", err)
	}
	aborted.Remove()
	if err := s.Transact(t.Context(), nil, one); !errors.Is(err, pipeline.ErrAborted) {
		t.Errorf("marks alone: got %v, want it aborted at once", err)
	}
	for n := range uint64(2 * producers) {
		if err := s.Transact(t.Context(), e.records(0, fmt.Sprint(n+1)), []*worker.Output{output(a[0], int64(n)+1, n+1)}); err != nil {
			t.Fatalf("of another producer: %v", err)
		}
	}
	if _, found, err := s.Committed(t.Context(), 0); err != nil || !found {
		t.Errorf("what is committed: %v, %v", found, err)
	}
	faults.Remove()
	eventually(t, "both are back", func() bool { return len(s.idle) == producers && len(s.marking) == 1 })
	if err := s.Transact(t.Context(), nil, []*worker.Output{output(a[0], 7, 7)}); err != nil {
		t.Errorf("marks alone: %v", err)
	}
}

// Partitions that sicken one after the other, and stay so, take a producer or two each, and others
// take these' turns: what is well goes on. Afterwards there are as many as before.
func TestPartitionsSickenOneAfterTheOther(t *testing.T) {
	const sick = 2 * producers
	e := local(t, sick+1)
	conf := e.config("a")
	conf.TransactionTimeout = time.Second
	s := e.session(conf)
	a := assigned(t, s, sick+1)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var heal []func()
	n := uint64(0)
	for p := range int32(sick) {
		cure, _ := e.sicken(e.out[0], p)
		heal = append(heal, cure)
		for met := range 2 { // it looks well, and the first one's coordinator may be at fault
			err := s.Transact(ctx, e.records(p, "sick"), []*worker.Output{output(a[p], 1, 1)})
			unwritable, named := errors.AsType[*pipeline.UnwritableError](err)
			if named != (met == 1) || named && !slices.Equal(unwritable.Partitions, []int32{p}) || !errors.Is(err, pipeline.ErrAborted) {
				t.Fatalf("producer %d: got %v, want partition %d named by the second one", met, err, p)
			}
		}
		n++
		if err := s.Transact(ctx, e.records(sick, fmt.Sprint(n)), []*worker.Output{output(a[sick], int64(n), n)}); err != nil {
			t.Fatalf("beside %d that are sick: %v", n, err)
		}
	}
	if got := s.Unwritable(); got != sick {
		t.Errorf("%d partitions are said to take no writes, want %d", got, sick)
	}
	for _, cure := range heal {
		cure()
	}
	eventually(t, "all take writes", func() bool { return s.Unwritable() == 0 })
	for p := range int32(sick) {
		commitUntilDone(t, s, e.records(p, "well"), output(a[p], 1, 1))
		if got := e.visible(e.out[0], p); !slices.Equal(got, []string{"well"}) {
			t.Errorf("partition %d: visible %q", p, got)
		}
	}
	if got := e.visible(e.out[0], sick); len(got) != sick {
		t.Errorf("visible beside them: %q", got)
	}
	eventually(t, "the others rest", func() bool { return len(s.idle) == producers })
}

// What is as sick as what was met is not met one by one: topics tell of it, until they have a
// leader.
func TestPartitionsWithoutALeader(t *testing.T) {
	e := local(t, 2)
	conf := e.config("a")
	conf.TransactionTimeout = time.Second
	s := e.session(conf)
	a := assigned(t, s, 2)
	away := e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: e.out[1], Partitions: []int32{0, 1}, Err: kerr.LeaderNotAvailable, Count: -1})
	heal, _ := e.sicken(e.out[0], 0)
	for range 2 {
		if err := s.Transact(t.Context(), e.records(0, "sick"), []*worker.Output{output(a[0], 1, 1)}); !errors.Is(err, pipeline.ErrAborted) {
			t.Fatalf("got %v", err)
		}
	}
	if got := s.Unwritable(); got != 3 {
		t.Errorf("%d partitions are said to take no writes, want the one that was met and both of a topic", got)
	}
	of := func(topic string) []*kgo.Record {
		return []*kgo.Record{{Topic: topic, Partition: 1, Key: []byte("k"), Value: []byte("1")}}
	}
	outs := []*worker.Output{output(a[1], 1, 1)}
	var unwritable *pipeline.UnwritableError
	if err := s.Transact(t.Context(), of(e.out[1]), outs); !errors.As(err, &unwritable) || unwritable.Tried {
		t.Fatalf("got %v, want it refused at once", err)
	}
	if err := s.Transact(t.Context(), of(e.out[0]), outs); err != nil {
		t.Fatalf("the other topic: %v", err)
	}
	heal()
	eventually(t, "what was met is well", func() bool { return s.Unwritable() == 2 })
	away.Remove()
	eventually(t, "all are well", func() bool { return s.Unwritable() == 0 })
	outs[0].Mark.Next, outs[0].Mark.N = 2, 2
	commitUntilDone(t, s, of(e.out[1]), outs[0])
}

// Nor is what has too few replicas in sync, of those that its topic can have.
func TestPartitionsWithoutReplicas(t *testing.T) {
	topics := kadm.TopicDetails{}
	for name, replicas := range map[string][2]int{"one": {1, 1}, "two of three": {2, 3}, "one of three": {1, 3}} {
		all := []int32{1, 2, 3}
		topics[name] = kadm.TopicDetail{Topic: name, Partitions: kadm.PartitionDetails{0: {Leader: 1, ISR: all[:replicas[0]], Replicas: all[:replicas[1]]}}}
	}
	if got := poorOf(topics, map[string]int{"one": 2, "two of three": 2, "one of three": 2}); len(got) != 1 || got[0].topic != "one of three" {
		t.Errorf("got %v, want the one that lacks a replica", got)
	}
	if got := poorOf(topics, nil); len(got) != 0 {
		t.Errorf("got %v, and nobody says how many they need", got)
	}
}

// A partition whose leader does not answer when a producer looks for its markers there holds up
// no other one.
func TestLeaderThatDoesNotTellOfMarkers(t *testing.T) {
	e := local(t, 2)
	s := e.session(e.config("a"))
	a := assigned(t, s, 2)
	say := func(n uint64, partitions ...int32) error {
		var records []*kgo.Record
		var outs []*worker.Output
		for _, p := range partitions {
			records = append(records, e.records(p, fmt.Sprint(n))...)
			outs = append(outs, output(a[p], int64(n), n))
		}
		return s.Transact(t.Context(), records, outs)
	}
	for n := range uint64(producers) {
		if err := say(n+1, 0, 1); err != nil {
			t.Fatal(err)
		}
	}
	s.broken.Add(1)
	fault := e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeProducers}, Topic: e.out[0], Partitions: []int32{1}, Err: kerr.NotLeaderForPartition, Count: -1})
	var unwritable *pipeline.UnwritableError
	if err := say(producers+1, 0, 1); !errors.As(err, &unwritable) || !slices.Equal(unwritable.Partitions, []int32{1}) {
		t.Fatalf("got %v, want partition 1 named", err)
	}
	for n := range uint64(2 * producers) {
		if err := say(producers+n+1, 0); err != nil {
			t.Fatalf("the other partition: %v", err)
		}
	}
	fault.Remove()
	eventually(t, "it answers", func() bool { return s.Unwritable() == 0 })
	for n := range uint64(2 * producers) {
		if err := say(producers+n+1, 1); err != nil {
			t.Fatal(err)
		}
	}
	for p := range int32(2) {
		if got := e.visible(e.out[0], p); len(got) != 3*producers {
			t.Errorf("partition %d: visible %q", p, got)
		}
	}
}

// What was taken from us is lost, whether it can be written or not.
func TestLostWhileSick(t *testing.T) {
	e := local(t, 1)
	conf := e.config("a")
	conf.TransactionTimeout = time.Second
	s := e.session(conf)
	a := assigned(t, s, 1)
	heal, _ := e.sicken(e.out[0], 0)
	defer heal()
	out := output(a[0], 1, 1)
	for s.Unwritable() == 0 {
		if err := s.Transact(t.Context(), e.records(0, "one"), []*worker.Output{out}); !errors.Is(err, pipeline.ErrAborted) {
			t.Fatal(err)
		}
	}
	out.Epoch--
	var lost *pipeline.LostError
	if err := s.Transact(t.Context(), e.records(0, "one"), []*worker.Output{out}); !errors.As(err, &lost) {
		t.Errorf("got %v, want it lost", err)
	}
}
