package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

// A transaction that the broker calls committed, and has left without its markers when it
// died, gets them before its producer is used again: what that aborts there is its own.
func TestCommittedWithoutItsMarkers(t *testing.T) {
	e := local(t, 2)
	s := e.session(e.config("a"))
	a := assigned(t, s, 2)
	leaveOut(e)
	n := uint64(0)
	say := func() error {
		n++
		return s.Transact(t.Context(), e.records(0, fmt.Sprint(n)), []*worker.Output{output(a[0], int64(n), n)})
	}
	for range producers {
		if err := say(); err != nil {
			t.Fatal(err)
		}
	}
	if _, stable, _, err := s.Range(t.Context(), e.out[0], 0); err != nil || stable != 0 {
		t.Fatalf("decided up to %d (%v), and it has no marker", stable, err)
	}
	s.broken.Add(1) // as the end of any connection does
	e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.UnknownServerError})
	if err := say(); !errors.Is(err, pipeline.ErrAborted) {
		t.Fatalf("got %v, want it aborted", err)
	}
	n-- // it is to be said again
	for range 2 * producers {
		if err := say(); err != nil {
			t.Fatal(err)
		}
	}
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint(i+1))
	}
	if got := e.visible(e.out[0], 0); !slices.Equal(got, want) {
		t.Errorf("visible: %q, want %q", got, want)
	}
	if got := s.MarkersWritten(); got != 1 {
		t.Errorf("%d markers written, want 1", got)
	}
}

// Who may write no markers has its producer end what it has committed, in each partition that
// lacks one and that of the group's offsets, before it says anything else. How a real broker
// takes that is TestCompleteOnARealBroker's.
func TestCompletedByItsProducer(t *testing.T) {
	e := local(t, 2)
	s := e.session(e.config("a"))
	a := assigned(t, s, 2)
	commitUntilDone(t, s, e.records(0, "0"), output(a[0], 1, 1))
	p := whoseTurn(s)
	f := part{place: place{e.out[0], 0}, pid: p.pid, epoch: p.epoch, offset: 0, acked: true, commit: true}
	offsets := f
	offsets.place, offsets.offset = place{OffsetsTopic, 0}, -1
	p.said.parts = append(p.said.parts, f)
	p.unmarked = []part{offsets} // as if it had been looked at: this cluster has no such topic
	s.broken.Add(1)
	e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.WriteTxnMarkers}, Err: kerr.ClusterAuthorizationFailed, Count: -1})
	var mu sync.Mutex
	var seen []string
	ended := false
	note := func(id, what string) {
		mu.Lock()
		defer mu.Unlock()
		if id == p.id {
			seen = append(seen, what)
		}
	}
	e.cluster.ControlKey(int16(kmsg.DescribeProducers), func(r kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		resp := r.ResponseKind().(*kmsg.DescribeProducersResponse)
		for _, t := range r.(*kmsg.DescribeProducersRequest).Topics {
			topic := kmsg.NewDescribeProducersResponseTopic()
			topic.Topic = t.Topic
			for _, n := range t.Partitions {
				of := kmsg.NewDescribeProducersResponseTopicPartition()
				of.Partition = n
				if !ended {
					open := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
					open.ProducerID, open.ProducerEpoch, open.CurrentTxnStartOffset = f.pid, int32(f.epoch), f.offset
					of.ActiveProducers = append(of.ActiveProducers, open)
				}
				topic.Partitions = append(topic.Partitions, of)
			}
			resp.Topics = append(resp.Topics, topic)
		}
		return resp, nil, true
	})
	once := true
	e.cluster.ControlKey(int16(kmsg.EndTxn), func(r kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		req := r.(*kmsg.EndTxnRequest)
		note(req.TransactionalID, fmt.Sprint("end ", req.Commit))
		mu.Lock()
		defer mu.Unlock()
		if req.TransactionalID == p.id && !ended && once { // it is asked again
			once = false
			resp := req.ResponseKind().(*kmsg.EndTxnResponse)
			resp.ErrorCode = kerr.UnknownServerError.Code
			return resp, nil, true
		}
		ended = ended || req.TransactionalID == p.id && req.Commit
		return nil, nil, false
	})
	for _, key := range []kmsg.Key{kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn, kmsg.Produce} {
		e.cluster.ControlKey(int16(key), func(r kmsg.Request) (kmsg.Response, error, bool) {
			e.cluster.KeepControl()
			switch req := r.(type) {
			case *kmsg.AddPartitionsToTxnRequest:
				note(req.TransactionalID, fmt.Sprint("add ", req.Topics[0].Topic == e.out[0], req.Topics[0].Partitions))
			case *kmsg.AddOffsetsToTxnRequest:
				note(req.TransactionalID, "add offsets")
			case *kmsg.ProduceRequest:
				note(unwrap(req.TransactionID), "produce")
			}
			return nil, nil, false
		})
	}
	for n := range uint64(2 * producers) {
		commitUntilDone(t, s, e.records(0, fmt.Sprint(n+1)), output(a[0], int64(n)+2, n+2))
	}
	want := []string{"add offsets", "add true [0]", "end true", "end true", "produce", "end true", "produce", "end true"}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(seen, want) {
		t.Errorf("%s: got %q, want %q", p.id, seen, want)
	}
	if len(p.unmarked) > 0 || slices.Contains(p.said.all(), f) {
		t.Errorf("still to be completed: %v; said: %v", p.unmarked, p.said.all())
	}
	if got := e.visible(e.out[0], 0); !slices.Equal(got, []string{"0", "1", "2", "3", "4", "5", "6"}) {
		t.Errorf("visible: %q", got)
	}
}

// leaveOut has the broker call the next transaction ended, and write no markers.
func leaveOut(e *env) {
	e.cluster.ControlKey(int16(kmsg.EndTxn), func(r kmsg.Request) (kmsg.Response, error, bool) {
		req := r.(*kmsg.EndTxnRequest)
		resp := req.ResponseKind().(*kmsg.EndTxnResponse)
		resp.ProducerID, resp.ProducerEpoch = req.ProducerID, req.ProducerEpoch
		return resp, nil, true
	})
}

// Nobody looks where no connection has ended, nor at partitions that are not written to.
func TestMarkersAreLookedForWhereTheyMayLack(t *testing.T) {
	e := local(t, 2)
	s := e.session(e.config("a"))
	a := assigned(t, s, 2)
	looks := e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeProducers}, Count: -1, Observe: true})
	n := uint64(0)
	say := func(partition int32) {
		t.Helper()
		n++
		commitUntilDone(t, s, e.records(partition, fmt.Sprint(n)), output(a[partition], int64(n), n))
	}
	for range 2 * producers {
		say(0)
	}
	if got := looks.Hits(); got != 0 {
		t.Errorf("looked %d times, and no connection has ended", got)
	}
	s.broken.Add(1)
	n = 0
	for range producers {
		say(1)
	}
	if got := looks.Hits(); got != 0 {
		t.Errorf("looked %d times for partitions that are not written to", got)
	}
	n = 2 * producers
	for range 2 * producers {
		say(0)
	}
	if got := looks.Hits(); got != producers {
		t.Errorf("looked %d times, want once for each producer", got)
	}
}

// A producer whose marks alone were swept goes on: its client has not ended that transaction.
func TestMarksAloneAreSwept(t *testing.T) {
	e := local(t, 1)
	s := e.session(e.config("a"))
	a := assigned(t, s, 1)
	commitUntilDone(t, s, e.records(0, "1"), output(a[0], 1, 1))
	next, text := e.committed(0)
	p := whoseTurn(s)
	p.sound, p.marks = false, []markText{{0, next, text}}
	for n := range uint64(2 * producers) {
		if err := s.Transact(t.Context(), e.records(0, fmt.Sprint(n+2)), []*worker.Output{output(a[0], int64(n)+2, n+2)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := e.visible(e.out[0], 0); len(got) != 1+2*producers || len(p.marks) > 0 {
		t.Errorf("visible: %q; to be swept: %v", got, p.marks)
	}
}

// Real brokers take a transaction in which nothing is written, have its marker end what its
// producer has open of an earlier epoch, and ask for no right to the cluster.
func TestCompleteOnARealBroker(t *testing.T) {
	addr := os.Getenv(realBroker)
	if addr == "" {
		t.Skipf("%s is not set: give host:port of a real Kafka to run this on it", realBroker)
	}
	e := newEnv(t, addr, nil, 2)
	s := e.session(e.config("a"))
	a := assigned(t, s, 2)
	commitUntilDone(t, s, e.records(0, "1"), output(a[0], 1, 1))
	adm := kadm.NewClient(e.cl)
	unverified := kadm.AlterConfig{Op: kadm.SetConfig, Name: "transaction.partition.verification.enable", Value: new("false")}
	if _, err := adm.AlterBrokerConfigs(t.Context(), []kadm.AlterConfig{unverified}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unverified.Op = kadm.DeleteConfig
		if _, err := adm.AlterBrokerConfigs(context.WithoutCancel(t.Context()), []kadm.AlterConfig{unverified}); err != nil {
			t.Error(err)
		}
	})
	p := <-s.idle
	id, epoch, err := p.cl.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broker takes it", func() bool { return e.append(e.out[0], 1, id, epoch, "left open") == nil })
	p.unmarked = []part{{place: place{e.out[0], 1}, pid: id, epoch: epoch, commit: true}, {place: place{OffsetsTopic, 0}}}
	if err := p.renew(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if got := e.visible(e.out[0], 1); !slices.Equal(got, []string{"left open"}) {
		t.Errorf("visible: %q, want what was left open", got)
	}
	s.idle <- p
	for n := range uint64(2 * producers) {
		commitUntilDone(t, s, e.records(1, fmt.Sprint(n+1)), output(a[1], int64(n)+1, n+1))
	}
	if got := e.visible(e.out[0], 1); len(got) != 1+2*producers {
		t.Errorf("visible: %q, want what came after it, too", got)
	}
}

// append writes a record of a transaction that no coordinator knows of, as far as the broker
// lets it.
func (e *env) append(topic string, partition int32, id int64, epoch int16, value string) error {
	e.t.Helper()
	now := time.Now().UnixMilli()
	record := kmsg.Record{Value: []byte(value)}
	record.Length = int32(len(record.AppendTo(nil)) - 1)
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, Attributes: 1 << 4, FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: id, ProducerEpoch: epoch, NumRecords: 1, Records: record.AppendTo(nil),
	}
	raw := batch.AppendTo(nil)
	batch.Length = int32(len(raw) - 12)
	raw = batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis, req.TransactionID = -1, 5000, new(e.group+"/a/1")
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	of := kmsg.NewProduceRequestTopicPartition()
	of.Partition, of.Records = partition, raw
	t.Partitions = append(t.Partitions, of)
	req.Topics = append(req.Topics, t)
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(int16(kmsg.Produce), 11) // from 12 on the broker has the coordinator know of it
	cl, err := kgo.NewClient(kgo.SeedBrokers(e.addr), kgo.MaxVersions(versions))
	if err != nil {
		e.t.Fatal(err)
	}
	defer cl.Close()
	resp, err := req.RequestWith(e.t.Context(), cl)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
}

// One that was aborted, and has no marker either, is not committed with what its producer
// commits next.
func TestAbortedWithoutItsMarkers(t *testing.T) {
	e := local(t, 1)
	s := e.session(e.config("a"))
	a := assigned(t, s, 1)
	p := <-s.idle
	lost := e.records(0, "aborted")
	id, epoch, err := p.cl.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.cl.BeginTransaction(), s.produce(t.Context(), p, lost)); err != nil {
		t.Fatal(err)
	}
	s.noteEnd(p, s.partsOf(p, id, epoch, lost, true), false)
	s.broken.Add(1)
	e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.WriteTxnMarkers}, Err: kerr.ClusterAuthorizationFailed, Count: -1}) // it takes no rights
	if err := s.seen(t.Context(), p, e.records(0, "next"), nil); err == nil || p.sound || len(p.astray) != 1 {
		t.Fatalf("got %v, sound %v, and %d to be swept, want it told", err, p.sound, len(p.astray))
	}
	if err := p.renew(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	s.idle <- p
	for n := range uint64(producers) {
		commitUntilDone(t, s, e.records(0, fmt.Sprint(n+1)), output(a[0], int64(n)+1, n+1))
	}
	if got := e.visible(e.out[0], 0); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("visible: %q, want what was not aborted", got)
	}
}

// A transaction that hangs is known for one of ours, and how it ended, though its coordinator
// has ended others of that producer since and tells nothing of it any more.
func TestOwnTransactionIsKnown(t *testing.T) {
	p := &producer{}
	s := &Session{producers: []*producer{{}, p}}
	r := Hang{Topic: "t", Partition: 3, Offset: 70, ID: "x", ProducerID: 9, Epoch: 5, IDEpoch: 70, State: "CompleteCommit", v2: true}
	if _, known := s.ours(&r); known {
		t.Error("nothing was said")
	}
	s.offsetsAt.Store(-1)
	records := []*kgo.Record{{Topic: "t", Partition: 3, Offset: 70}, {Topic: "t", Partition: 3, Offset: 71}, {Topic: "u", Partition: 3, Offset: 4}}
	p.said.note(1, s.partsOf(p, 9, 5, records[:2], true), true)
	p.said.note(1, s.partsOf(p, 9, 6, records[2:], false), false)
	if commit, known := s.ours(&r); !commit || !known {
		t.Error("it was committed")
	}
	if commit, known := s.ours(&Hang{Topic: "u", Partition: 3, Offset: 4, ID: "x", ProducerID: 9, Epoch: 6, IDEpoch: 7, v2: true}); commit || !known {
		t.Error("it was aborted")
	}
	for name, change := range map[string]func(h *Hang){
		"another record":                   func(h *Hang) { h.Offset = 71 },
		"another producer":                 func(h *Hang) { h.ProducerID = 8 },
		"another transaction":              func(h *Hang) { h.Epoch = 6 },
		"another partition":                func(h *Hang) { h.Partition = 2 },
		"another topic":                    func(h *Hang) { h.Topic = "u" },
		"the producer may be in it":        func(h *Hang) { h.IDEpoch = 5 },
		"of which epochs say nothing (v1)": func(h *Hang) { h.v2 = false },
	} {
		h := r
		change(&h)
		if _, known := s.ours(&h); known {
			t.Errorf("%s: taken for known", name)
		}
	}
	if look := p.said.begin(1, records[2:]); len(look) != 1 || look[0].topic != "u" {
		t.Errorf("to be looked at: got %v, want what is written to", look)
	}
	p.said.forget(p.said.begin(1, records))
	if _, known := s.ours(&r); known {
		t.Error("it was seen to be there")
	}
}

// What a transaction has written is known until a later one shows that it has its markers: that
// it was acknowledged, and no connection has ended since, or that it was written behind it.
func TestSaidIsForgotten(t *testing.T) {
	s := &Session{}
	s.offsetsAt.Store(7)
	var p *producer
	of := func(epoch int16, acked bool, partitions ...int32) []part {
		var records []*kgo.Record
		for _, p := range partitions {
			records = append(records, &kgo.Record{Topic: "t", Partition: p})
		}
		return s.partsOf(p, 1, epoch, records, acked)
	}
	for name, c := range map[string]struct {
		broken int64 // when the second one has ended
		acked  bool
		swept  bool // a third is noted before it
		want   string
	}{
		"it is acknowledged":                    {0, true, false, "t/1@2 t/2@2 __consumer_offsets/7@2"},
		"it is not":                             {0, false, false, "t/0@1 t/1@1 __consumer_offsets/7@1 t/1@2 t/2@2 __consumer_offsets/7@2"},
		"a connection has ended, and it is":     {1, true, false, "t/0@1 __consumer_offsets/7@1 t/1@2 t/2@2 __consumer_offsets/7@2"},
		"a connection has ended, and it is not": {1, false, false, "t/0@1 t/1@1 __consumer_offsets/7@1 t/1@2 t/2@2 __consumer_offsets/7@2"},
		"it was swept before it is noted":       {1, true, true, "t/0@1 __consumer_offsets/7@1 t/1@3 t/2@2 __consumer_offsets/7@2"},
	} {
		p = &producer{}
		d := &p.said
		first := of(1, true, 0, 1)
		acknowledged(first)
		d.note(0, first, true)
		d.begin(0, nil)
		second := of(2, c.acked, 1, 2)
		d.begin(c.broken, nil)
		if c.swept {
			d.note(c.broken, of(3, true, 1)[:1], false)
		}
		d.note(c.broken, second, true)
		var got []string
		for _, f := range d.all() {
			got = append(got, fmt.Sprintf("%s@%d", f.place, f.epoch))
			if f.epoch == 2 && f.broken != 0 {
				t.Errorf("%s: %s is noted as of a connection that ended amid it", name, f.place)
			}
		}
		if got := strings.Join(got, " "); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

// One that was committed is known still when the next one has begun: a broker that dies amid
// that, and leaves its markers out, does not lose it.
func TestCommittedWithoutItsMarkersAmidTheNext(t *testing.T) {
	e := local(t, 1)
	s := e.session(e.config("a"))
	a := assigned(t, s, 1)
	leaveOut(e)
	n := uint64(0)
	say := func() error {
		n++
		return s.Transact(t.Context(), e.records(0, fmt.Sprint(n)), []*worker.Output{output(a[0], int64(n), n)})
	}
	for range producers {
		if err := say(); err != nil {
			t.Fatal(err)
		}
	}
	e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidTxnState, When: func(kmsg.Request) bool {
		s.broken.Add(1)
		return true
	}})
	if err := say(); !errors.Is(err, pipeline.ErrAborted) {
		t.Fatalf("got %v, want it aborted", err)
	}
	n--
	commitUntilDone(t, s, e.records(0, "4"), output(a[0], 4, 4))
	if got, want := e.visible(e.out[0], 0), []string{"1", "2", "3", "4"}; !slices.Equal(got, want) {
		t.Errorf("visible: %q, want %q", got, want)
	}
}

// One that was aborted, and may lack its marker, is not committed by one that was written behind
// it while a broker died.
func TestAbortedWithoutItsMarkersAmidTheNext(t *testing.T) {
	e := local(t, 1)
	s := e.session(e.config("a"))
	a := assigned(t, s, 1)
	p := whoseTurn(s)
	lost := e.records(0, "aborted")
	id, epoch, err := p.cl.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.noteEnd(p, s.partsOf(p, id, epoch, lost, true), false)
	e.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		s.broken.Add(1)
		return nil, nil, false
	})
	failed := 0
	for n := range uint64(producers) {
		records := e.records(0, fmt.Sprint(n+1))
		for {
			err := s.Transact(t.Context(), records, []*worker.Output{output(a[0], int64(n)+1, n+1)})
			if err == nil {
				break
			}
			if failed++; !errors.Is(err, errBehind) || !errors.Is(err, pipeline.ErrAborted) {
				t.Fatalf("got %v, want it aborted", err)
			}
		}
	}
	if failed != 1 {
		t.Errorf("%d were aborted, want the one of that producer", failed)
	}
}

// A transaction whose end was not confirmed gets the markers that it lacks when its coordinator
// says how it has ended.
func TestUnknownOutcomeGetsItsMarkers(t *testing.T) {
	for state, want := range map[string][]string{"CompleteCommit": {"1"}, "PrepareCommit": {"1"}, "CompleteAbort": nil, "Ongoing": nil} {
		t.Run(state, func(t *testing.T) {
			e := local(t, 1)
			s := e.session(e.config("a"))
			a := assigned(t, s, 1)
			s.offsetsAt.Store(0)
			e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.UnknownServerError, When: func(kmsg.Request) bool {
				s.broken.Add(1)
				return true
			}})
			p := whoseTurn(s)
			e.cluster.ControlKey(int16(kmsg.DescribeTransactions), func(r kmsg.Request) (kmsg.Response, error, bool) {
				if state == "Ongoing" { // as it is
					return nil, nil, false
				}
				req := r.(*kmsg.DescribeTransactionsRequest)
				resp := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
				txn := kmsg.NewDescribeTransactionsResponseTransactionState()
				txn.TransactionalID, txn.State = req.TransactionalIDs[0], state
				txn.ProducerID, txn.ProducerEpoch = p.doubt.pid, p.doubt.epoch+1
				resp.TransactionStates = append(resp.TransactionStates, txn)
				return resp, nil, true
			})
			err := s.Transact(t.Context(), e.records(0, "1"), []*worker.Output{output(a[0], 1, 1)})
			if err == nil || errors.Is(err, pipeline.ErrAborted) {
				t.Fatalf("got %v, want its outcome unknown", err)
			}
			if got := e.visible(e.out[0], 0); !slices.Equal(got, want) {
				t.Errorf("visible: %q, want %q", got, want)
			}
			_, _, end, err := s.Range(t.Context(), e.out[0], 0)
			if err != nil || want == nil && end != 4 { // a record and a marker, twice
				t.Errorf("it ends at %d (%v), want it swept", end, err)
			}
		})
	}
}

// Marks that are there tell that their transaction was committed, but where others may have
// committed the same since.
func TestTracesOfADoubt(t *testing.T) {
	e := local(t, 1)
	s := e.session(e.config("a"))
	commitUntilDone(t, s, e.records(0, "1"), output(assigned(t, s, 1)[0], 1, 1))
	next, text := e.committed(0)
	for _, c := range []struct {
		doubt
		want bool
	}{
		{doubt{marks: []markText{{0, next, text}}}, true},
		{doubt{marks: []markText{{0, next, text}}, late: true}, false},
		{doubt{marks: []markText{{0, next + 1, text}}}, false},
	} {
		if done, open, err := s.traces(t.Context(), &c.doubt); done != c.want || open || err != nil {
			t.Errorf("%+v: got %v, %v, %v", c.doubt, done, open, err)
		}
	}
}
