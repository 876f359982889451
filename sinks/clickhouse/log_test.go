package clickhouse

import (
	"net"
	"slices"
	"strconv"
	"strings"
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
		group: "shop-archive", client: k.client, admin: kadm.NewClient(k.client), now: now, report: func(f archive.Fact) { *waited = append(*waited, f) }, patience: time.Minute,
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

// Where a partition begins is asked again when Kafka does not know it at the moment; nothing
// of it is given until then.
func TestRewindAsksAgain(t *testing.T) {
	l, k, waited := logOf(t)
	p := archive.Partition{Topic: "in"}
	asked, _ := k.unknownBounds(p, 1)
	l.gain("m", map[string][]int32{"in": {0}})
	again := map[archive.Partition]bool{p: true}
	for tries := range 2 {
		l.again, l.rest = map[archive.Partition]bool{}, time.Time{}
		if err := l.rewind(t.Context(), again, nil); err != nil {
			t.Error(err)
		}
		if asked.Load() != 1 || len(*waited) != 1 || l.again[p] != (tries == 0) {
			t.Errorf("try %d: asked %d times in vain, waited %d times, to be read again: %v; want 1, 1, and that only at first", tries, asked.Load(), len(*waited), l.again[p])
		}
	}
}

// unknownBounds has the broker not know where a partition begins and ends, so many times. It
// returns how often it was asked in vain, and how many times are left.
func (k *kafka) unknownBounds(of archive.Partition, times int64) (asked, left *atomic.Int64) {
	asked, left = new(atomic.Int64), new(atomic.Int64)
	left.Store(times)
	k.cluster.ControlKey(kmsg.ListOffsets.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.cluster.KeepControl()
		res := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		is := false
		for _, t := range req.(*kmsg.ListOffsetsRequest).Topics {
			topic := kmsg.ListOffsetsResponseTopic{Topic: t.Topic}
			for _, p := range t.Partitions {
				is = is || t.Topic == of.Topic && p.Partition == of.Number
				topic.Partitions = append(topic.Partitions, kmsg.ListOffsetsResponseTopicPartition{Partition: p.Partition, ErrorCode: kerr.UnknownServerError.Code})
			}
			res.Topics = append(res.Topics, topic)
		}
		if !is || left.Load() == 0 {
			return nil, nil, false
		}
		asked.Add(1)
		left.Add(-1)
		return res, nil, true
	})
	return asked, left
}

// A partition that is to be read again from its beginning, which nobody knows at the moment,
// holds up no other one; when it is known, all of it is given.
func TestRewindHoldsUpNoOther(t *testing.T) {
	k := startKafka(t)
	l, err := NewLog("shop-archive", []string{"in"}, k.opts, now, func(archive.Fact) {})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := map[int32][]int64{}
	poll := func(what string, until func() bool) {
		t.Helper()
		k.eventually(what, func() bool {
			var b archive.Batch
			if err := l.Poll(t.Context(), now()+pollMax, &b); err != nil {
				t.Fatal(err)
			}
			for _, p := range b.Lost {
				got[p.Number] = nil
			}
			for _, r := range b.Runs {
				for _, rec := range r.Records {
					got[r.Partition.Number] = append(got[r.Partition.Number], rec.Offset)
				}
			}
			return until()
		})
	}
	k.produce(&kgo.Record{Topic: "in"}, &kgo.Record{Topic: "in", Partition: 1})
	poll("the first records", func() bool { return len(got[0])+len(got[1]) == 2 })
	asked, left := k.unknownBounds(archive.Partition{Topic: "in"}, 1_000_000)
	l.lose(map[string][]int32{"in": {0}}) // as if its client had called back behind the poll
	l.gain(memberOf(l.client), map[string][]int32{"in": {0}})
	poll("the question where it begins", func() bool { return asked.Load() > 0 })
	k.produce(&kgo.Record{Topic: "in"}, &kgo.Record{Topic: "in", Partition: 1})
	poll("a record beside it", func() bool { return len(got[1]) == 2 })
	if len(got[0]) > 0 {
		t.Errorf("got %v of it, want nothing yet", got[0])
	}
	left.Store(0)
	poll("all of it", func() bool { return len(got[0]) >= 2 })
	if !slices.Equal(got[0], []int64{0, 1}) {
		t.Errorf("got the offsets %v, want 0 and 1", got[0])
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

// leaderless is a cluster of two partitions of which the second, without a leader, or with one
// that hangs, holds one record as the first does; and how to connect to it.
func leaderless(t *testing.T, hangs bool, more ...kgo.Opt) []kgo.Opt {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(2, "in"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	for n := range int32(2) {
		if err := cluster.MoveTopicPartition("in", n, n); err != nil {
			t.Fatal(err)
		}
	}
	opts := append([]kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}, more...)
	client, err := kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "in"}, &kgo.Record{Topic: "in", Partition: 1}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	addrs, second := cluster.ListenAddrs(), kmsg.MetadataResponseTopicPartition{Partition: 1, Leader: -1, LeaderEpoch: -1, ErrorCode: kerr.LeaderNotAvailable.Code}
	if hangs {
		mute, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { mute.Close() })
		addrs[1], second.Leader, second.ErrorCode = mute.Addr().String(), 1, 0
	}
	cluster.ControlKey(kmsg.Metadata.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		res := req.ResponseKind().(*kmsg.MetadataResponse)
		for n, addr := range addrs {
			host, port, _ := net.SplitHostPort(addr)
			number, _ := strconv.Atoi(port)
			res.Brokers = append(res.Brokers, kmsg.MetadataResponseBroker{NodeID: int32(n), Host: host, Port: int32(number)})
		}
		res.Topics = []kmsg.MetadataResponseTopic{{Topic: new("in"), TopicID: cluster.TopicInfo("in").TopicID, Partitions: []kmsg.MetadataResponseTopicPartition{
			{Partition: 0, Leader: 0, LeaderEpoch: -1}, second,
		}}}
		return res, nil, true
	})
	return opts
}

// A partition without a leader keeps nobody from learning how far another one reaches.
func TestBoundsBesideAPartitionWithoutALeader(t *testing.T) {
	client, err := kgo.NewClient(leaderless(t, false, kgo.RetryTimeout(500*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	l := &Log{client: client, admin: kadm.NewClient(client), patience: time.Minute}
	if start, end, err := l.Bounds(t.Context(), archive.Partition{Topic: "in"}); start != 0 || end != 1 || err != nil {
		t.Errorf("got %d, %d, %v, want 0, 1", start, end, err)
	}
	if _, _, err := l.Bounds(t.Context(), archive.Partition{Topic: "in", Number: 1}); err == nil {
		t.Error("nobody answers for the other one, and there is no error")
	}
}

// Nor does it keep who asks for it longer than that has patience, nor does one whose leader
// hangs, whatever patience the client has.
func TestALeaderIsNotWaitedForLong(t *testing.T) {
	for name, want := range map[string]string{"none": "LEADER_NOT_AVAILABLE", "one that hangs": "no answer within 2s"} {
		t.Run(name, func(t *testing.T) {
			opts := leaderless(t, name != "none", kgo.RetryTimeout(time.Hour))
			client, err := kgo.NewClient(opts...)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			l := &Log{base: opts, client: client, report: func(archive.Fact) {}, patience: 2 * time.Second}
			read := func(n int32) (records int, err error) {
				err = l.Read(t.Context(), archive.Partition{Topic: "in", Number: n}, 0, 1, func(run []archive.Record) error {
					records += len(run)
					return nil
				})
				return records, err
			}
			if n, err := read(0); n != 1 || err != nil {
				t.Errorf("got %d records, %v, want 1 of the partition that has a leader", n, err)
			}
			_, _, err = l.Bounds(t.Context(), archive.Partition{Topic: "in", Number: 1})
			n, err2 := read(1)
			for _, err := range []error{err, err2} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
			if n > 0 {
				t.Errorf("got %d records of nobody", n)
			}
		})
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
