package clickhouse

import (
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline/archive"
)

// logOf is a log of a broker that owns nothing, and what it reported as waiting for.
func logOf(t *testing.T) (l *Log, k *kafka, waited *[]archive.Fact) {
	k, waited = startKafka(t), new([]archive.Fact)
	return &Log{
		group: "shop-archive", client: k.client, admin: kadm.NewClient(k.client), now: now, report: func(f archive.Fact) { *waited = append(*waited, f) },
		owned: map[archive.Partition]int64{}, again: map[archive.Partition]bool{},
	}, k, waited
}

// A partition that is lost while its offset is read is not given out: under no epoch it
// would be committed for, as if it were ours.
func TestLostWhileItsOffsetIsRead(t *testing.T) {
	l, _, _ := logOf(t)
	kept, lost := archive.Partition{Topic: "in", Number: 0}, archive.Partition{Topic: "in", Number: 1}
	var at kadm.Offsets
	at.AddOffset("in", 0, 0, -1)
	if err := l.admin.CommitAllOffsets(t.Context(), l.group, at); err != nil { // there is a group
		t.Fatal(err)
	}
	l.gain("m", map[string][]int32{"in": {0, 1}})
	l.lose(map[string][]int32{"in": {1}})
	var into archive.Batch
	if err := l.committed(t.Context(), []archive.Partition{kept, lost}, &into); err != nil {
		t.Fatal(err)
	}
	if len(into.Assigned) != 1 || into.Assigned[0].Partition != kept || into.Assigned[0].Epoch != l.owned[kept] {
		t.Errorf("got %+v, want %v only", into.Assigned, kept)
	}
}

// Where a partition begins is asked again when Kafka does not know it at the moment.
func TestRewindAsksAgain(t *testing.T) {
	l, k, waited := logOf(t)
	var asked atomic.Int64
	k.cluster.ControlKey(kmsg.ListOffsets.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		asked.Add(1)
		res := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		for _, t := range req.(*kmsg.ListOffsetsRequest).Topics {
			topic := kmsg.ListOffsetsResponseTopic{Topic: t.Topic}
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.ListOffsetsResponseTopicPartition{Partition: p.Partition, ErrorCode: kerr.UnknownServerError.Code})
			}
			res.Topics = append(res.Topics, topic)
		}
		return res, nil, true
	})
	p := archive.Partition{Topic: "in"}
	if err := l.rewind(t.Context(), map[archive.Partition]bool{p: true}, []archive.Assignment{{Partition: p}}); err != nil {
		t.Error(err)
	}
	if asked.Load() != 1 || len(*waited) != 1 {
		t.Errorf("asked %d times in vain, waited %d times; want 1 and 1", asked.Load(), len(*waited))
	}
}

// A partition that is lost and given again while what was polled of it is on its way here is
// read again from where it is committed: what lies between is nobody else's to send.
func TestLostAndGivenAgainBehindAPoll(t *testing.T) {
	k := startKafka(t)
	for i := range 10 {
		k.produce(&kgo.Record{Topic: "in", Value: []byte{byte('0' + i)}})
	}
	l, err := NewLog("shop-archive", []string{"in"}, k.opts, now, func(archive.Fact) {})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := archive.Partition{Topic: "in"}
	next := func() (b archive.Batch) {
		t.Helper()
		for range 50 {
			if err := l.Poll(t.Context(), now()+pollMax, &b); err != nil {
				t.Fatal(err)
			}
			for _, r := range b.Runs {
				if r.Partition == p {
					return b
				}
			}
		}
		t.Fatal("nothing is polled")
		return b
	}
	if b := next(); len(b.Runs[0].Records) != 10 {
		t.Fatalf("got %d records, want 10", len(b.Runs[0].Records))
	}
	k.produce(&kgo.Record{Topic: "in", Value: []byte("late")})
	for l.client.BufferedFetchRecords() == 0 {
		time.Sleep(time.Millisecond)
	}
	l.lose(map[string][]int32{"in": {0}}) // as if its client had called back behind the poll
	l.gain(memberOf(l.client), map[string][]int32{"in": {0}})
	if b := next(); b.Runs[0].Records[0].Offset != 0 {
		t.Errorf("got offset %d, and nothing is committed: want 0", b.Runs[0].Records[0].Offset)
	}
}

// A partition without a leader keeps nobody from learning how far another one reaches.
func TestBoundsBesideAPartitionWithoutALeader(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(2, "in"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	for n := range int32(2) {
		if err := cluster.MoveTopicPartition("in", n, n); err != nil {
			t.Fatal(err)
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RetryTimeout(500*time.Millisecond), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "in"}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	cluster.ControlKey(kmsg.Metadata.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		res := req.ResponseKind().(*kmsg.MetadataResponse)
		for n, addr := range cluster.ListenAddrs() {
			host, port, _ := net.SplitHostPort(addr)
			number, _ := strconv.Atoi(port)
			res.Brokers = append(res.Brokers, kmsg.MetadataResponseBroker{NodeID: int32(n), Host: host, Port: int32(number)})
		}
		res.Topics = []kmsg.MetadataResponseTopic{{Topic: new("in"), TopicID: cluster.TopicInfo("in").TopicID, Partitions: []kmsg.MetadataResponseTopicPartition{
			{Partition: 0, Leader: 0}, {Partition: 1, Leader: -1, ErrorCode: kerr.LeaderNotAvailable.Code},
		}}}
		return res, nil, true
	})
	if client, err = kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RetryTimeout(500*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	l := &Log{client: client, admin: kadm.NewClient(client)}
	if start, end, err := l.Bounds(t.Context(), archive.Partition{Topic: "in"}); start != 0 || end != 1 || err != nil {
		t.Errorf("got %d, %d, %v, want 0, 1", start, end, err)
	}
	if _, _, err := l.Bounds(t.Context(), archive.Partition{Topic: "in", Number: 1}); err == nil {
		t.Error("nobody answers for the other one, and there is no error")
	}
}

// What is there is given to who asks too late as well: a batch or an audit may be due all
// the time.
func TestPollWhoseTimeIsUp(t *testing.T) {
	k := startKafka(t)
	k.produce(&kgo.Record{Topic: "in", Value: []byte("a")})
	l, err := NewLog("shop-archive", []string{"in"}, k.opts, now, func(archive.Fact) {})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	k.eventually("a record", func() bool {
		var b archive.Batch
		if err := l.Poll(t.Context(), now()-1, &b); err != nil {
			t.Fatal(err)
		}
		return len(b.Runs) > 0
	})
}
