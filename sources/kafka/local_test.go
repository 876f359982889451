package kafka

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

// What was committed before the broker was closed is there when it is started again
// on the same directory, at the address asked for.
func TestLocalPersists(t *testing.T) {
	conf := LocalConfig{DataDir: t.TempDir()}
	broker, err := StartLocal(conf)
	if err != nil {
		t.Fatal(err)
	}
	e := newEnv(t, broker.Addr(), broker.Cluster(), 1)
	s := e.session(e.config("a"))
	a := assigned(t, s, 1)[0]
	out := output(a, 3, 1)
	if err := s.Transact(t.Context(), e.records(0, "kept"), []*worker.Output{out}); err != nil {
		t.Fatal(err)
	}
	s.Close(t.Context())
	e.cl.Close()
	conf.Addr = broker.Addr()
	broker.Close()

	if broker, err = StartLocal(conf); err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	if broker.Addr() != conf.Addr {
		t.Errorf("address: got %s, want %s", broker.Addr(), conf.Addr)
	}
	if e.cl, err = kgo.NewClient(kgo.SeedBrokers(broker.Addr())); err != nil {
		t.Fatal(err)
	}
	defer e.cl.Close()
	again := e.session(e.config("a"))
	mark, found, err := again.Committed(t.Context(), 0)
	if err != nil || !found || mark != out.Mark {
		t.Errorf("got %+v, found %t, error %v; want %+v", mark, found, err, out.Mark)
	}
	if got := e.visible(e.out[0], 0); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("said: %q", got)
	}
	if again.TopicID() != s.TopicID() || again.TopicID() == "" {
		t.Errorf("the topic's id was %q and is %q", s.TopicID(), again.TopicID())
	}
	again.Close(t.Context())
}

func TestLocalRefusesOpenAddresses(t *testing.T) {
	for addr, want := range map[string]string{"0.0.0.0:9092": "not on loopback", "nonsense": "give 127.0.0.1:port", "127.0.0.1:99999": "value out of range"} {
		if _, err := StartLocal(LocalConfig{Addr: addr}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", addr, err, want)
		}
	}
}

// Transactions work the same on brokers before transactions v2.
func TestTransactionsV1(t *testing.T) {
	e := local(t, 1, kfake.MaxVersions(kversion.V3_7_0()))
	s := e.session(e.config("a"))
	if s.v2 {
		t.Fatal("the broker offers transactions v2; the test proves nothing")
	}
	a := assigned(t, s, 1)[0]
	var want []string
	for n := range uint64(5) {
		v := string(rune('a' + n))
		want = append(want, v)
		if err := s.Transact(t.Context(), e.records(0, v), []*worker.Output{output(a, int64(n+1), n+1)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := e.visible(e.out[0], 0); !slices.Equal(got, want) {
		t.Errorf("said: got %q, want %q", got, want)
	}
	if offset, _ := e.committed(0); offset != 5 {
		t.Errorf("committed: got %d, want 5", offset)
	}
}

// A group's partition of __consumer_offsets is found as the broker finds it: Java's
// hash, of UTF-16, without its sign.
func TestGroupPartition(t *testing.T) {
	for group, want := range map[string]int32{"": 0, "footfall": 23, "lifecycle": 12, "polygenelubricants": 0} { // positive, negative, the least
		if got := GroupPartition(group, 50); got != want {
			t.Errorf("%q: got partition %d of 50, want %d", group, got, want)
		}
	}
	for s, want := range map[string]int32{"": 0, "a": 97, "footfall": 394788073, "h\u00e9\U0001F600": 5095076} {
		if got := javaHash(s); got != want {
			t.Errorf("%q: got %d, want %d", s, got, want)
		}
	}
}

// Batches keep Lost, Revoked, Assigned in this order and name a partition once.
func TestChangesKeepTheirOrder(t *testing.T) {
	o := newOwnership()
	o.assigned(membership{"m", 1}, []int32{0, 1})
	o.lost(membership{"m", 1}, []int32{0})
	o.assigned(membership{"m", 2}, []int32{0, 2})
	o.assigned(membership{"m", 3}, []int32{1}) // again, without having been taken
	want := []pipeline.Batch{
		{Assigned: []pipeline.Assignment{{Partition: 0, Epoch: 1}, {Partition: 1, Epoch: 2}}},
		{Lost: []int32{0}},
		{Assigned: []pipeline.Assignment{{Partition: 0, Epoch: 3}, {Partition: 2, Epoch: 4}}},
		{Lost: []int32{1}},
		{Assigned: []pipeline.Assignment{{Partition: 1, Epoch: 5}}},
		{},
	}
	var got []pipeline.Batch
	for range want {
		var b pipeline.Batch
		o.poll(&b, nil)
		got = append(got, b)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
}

// A start comes from the ownership that Poll has told. One that was given meanwhile is
// not read before it has been recovered.
func TestStartOfAnOwnershipThatIsOver(t *testing.T) {
	o := newOwnership()
	as := membership{"m", 1}
	poll := func() (b pipeline.Batch, starts []start) {
		starts, _ = o.poll(&b, func() {})
		return b, starts
	}
	o.assigned(as, []int32{0})
	first, _ := poll()
	o.lost(as, []int32{0})
	o.assigned(membership{"m", 2}, []int32{0})
	o.start(0, 5)
	if b, starts := poll(); len(b.Lost) != 1 || len(starts) != 0 {
		t.Errorf("got %+v, starts %+v, want the loss and no start", b, starts)
	}
	b, starts := poll()
	if len(b.Assigned) != 1 || b.Assigned[0].Epoch <= first.Assigned[0].Epoch || len(starts) != 0 || len(o.startedPartitions()) != 0 {
		t.Errorf("got %+v, starts %+v, want the new assignment and no start", b, starts)
	}
	o.start(0, 7)
	if _, starts := poll(); len(starts) != 1 || starts[0].offset != 7 || starts[0].epoch != b.Assigned[0].Epoch {
		t.Errorf("got starts %+v, want one at 7 under the new epoch", starts)
	}
}

// However little a reader takes at once, what was aborted is not read as committed.
func TestLocalTellsOfAborts(t *testing.T) {
	broker, err := StartLocal(LocalConfig{Options: []kfake.Opt{kfake.SeedTopics(1, "out")}})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	writer, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr()), kgo.TransactionalID("a"), kgo.DefaultProduceTopic("out"))
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for i, commit := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryAbort, kgo.TryCommit} {
		if err := writer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for range 3 { // batches
			if err := writer.ProduceSync(t.Context(), kgo.StringRecord(strconv.Itoa(i))).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := writer.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr()), kgo.ConsumeTopics("out"), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(1), kgo.FetchMaxPartitionBytes(1))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var got []string
	for len(got) < 6 {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	if want := []string{"0", "0", "0", "3", "3", "3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
