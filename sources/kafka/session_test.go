package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

var _ pipeline.Source = (*Session)(nil)

// What a transaction says, its offsets and their metadata become visible together.
func TestTransactCommitsRecordsAndMarksTogether(t *testing.T) {
	onBrokers(t, 2, func(t *testing.T, e *env) {
		s := e.session(e.config("a"))
		owned := assigned(t, s, 2)
		if _, found, err := s.Committed(t.Context(), 0); found || err != nil {
			t.Fatalf("committed before anything was: found %t, error %v", found, err)
		}
		outs := []*worker.Output{output(owned[0], 5, 1), output(owned[0], 7, 2), output(owned[1], 3, 1)}
		records := append(e.records(0, "x1", "x2"), e.records(1, "y1")...)
		if err := s.Transact(t.Context(), records, outs); err != nil {
			t.Fatal(err)
		}
		for i, want := range []*worker.Output{outs[1], outs[2]} {
			got, found, err := s.Committed(t.Context(), int32(i))
			if err != nil || !found {
				t.Fatalf("partition %d: found %t, error %v", i, found, err)
			}
			if diff := cmp.Diff(want.Mark, got); diff != "" {
				t.Errorf("partition %d: mark (-want +got):\n%s", i, diff)
			}
			offset, metadata := e.committed(int32(i))
			there := want.Mark
			there.Topic, there.Of = s.topic.hash(), 2
			text, _ := there.AppendText(nil)
			if offset != want.Mark.Next || metadata != string(text) {
				t.Errorf("partition %d: another tool reads offset %d, metadata %q; want %d, %q", i, offset, metadata, want.Mark.Next, text)
			}
		}
		if got := e.visible(e.out[0], 0); !slices.Equal(got, []string{"x1", "x2"}) {
			t.Errorf("records of partition 0: got %q", got)
		}
		if got := e.visible(e.out[0], 1); !slices.Equal(got, []string{"y1"}) {
			t.Errorf("records of partition 1: got %q", got)
		}
	})
}

// Nothing to say: the mark alone is committed, and by the same fence.
func TestTransactWithoutRecords(t *testing.T) {
	onBrokers(t, 1, func(t *testing.T, e *env) {
		s := e.session(e.config("a"))
		a := assigned(t, s, 1)[0]
		want := output(a, 9, 0)
		if err := s.Transact(t.Context(), nil, []*worker.Output{want}); err != nil {
			t.Fatal(err)
		}
		got, found, err := s.Committed(t.Context(), 0)
		if err != nil || !found || got != want.Mark {
			t.Errorf("got %+v, found %t, error %v; want %+v", got, found, err, want.Mark)
		}
		stale := output(a, 10, 0)
		stale.Epoch--
		var lost *pipeline.LostError
		if err := s.Transact(t.Context(), nil, []*worker.Output{stale}); !errors.As(err, &lost) {
			t.Errorf("under an old epoch: got %v, want a *LostError", err)
		}
	})
}

// Many transactions in a row, over all producers, lose and double nothing.
func TestProducersTakeTurns(t *testing.T) {
	onBrokers(t, 1, func(t *testing.T, e *env) {
		s := e.session(e.config("a"))
		a := assigned(t, s, 1)[0]
		var want []string
		for i := range 20 {
			v := fmt.Sprint("v", i)
			want = append(want, v)
			if err := s.Transact(t.Context(), e.records(0, v), []*worker.Output{output(a, int64(i+1), uint64(i+1))}); err != nil {
				t.Fatalf("transaction %d: %v", i, err)
			}
		}
		if diff := cmp.Diff(want, e.visible(e.out[0], 0)); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
	})
}

// Records come in order from where Start said, markers included, with key, value,
// headers, lane and time as they were published; no record comes before Start.
func TestPollGivesRecordsFromStart(t *testing.T) {
	onBrokers(t, 2, func(t *testing.T, e *env) {
		e.publish(0, "a", "b")
		e.transactional(0, kgo.TryAbort, "never")
		e.transactional(0, kgo.TryCommit, "c")
		last := &kgo.Record{
			Topic: e.input, Partition: 0, Timestamp: time.UnixMilli(1767225600123),
			Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("1")}, {Key: "lane", Value: []byte("backfill")}},
		}
		if err := e.cl.ProduceSync(t.Context(), last).FirstErr(); err != nil {
			t.Fatal(err)
		}
		e.publish(1, "not started")

		s := e.session(e.config("a"))
		assigned(t, s, 2)
		s.Start(0, 1)
		got := read(t, s, 0, 5)
		type seen struct {
			Offset  int64
			Value   string
			Control bool
		}
		var order []seen
		for _, r := range got {
			order = append(order, seen{r.Offset, string(r.Value), r.Control})
		}
		// 0 a, 1 b, 2 never, 3 marker, 4 c, 5 marker, 6 the last
		want := []seen{{1, "b", false}, {3, "", true}, {4, "c", false}, {5, "", true}, {6, "", false}}
		if diff := cmp.Diff(want, order); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
		tombstone := worker.Record{
			Offset: 6, Time: 1767225600123, Lane: schemas.Backfill,
			Headers: []schemas.Header{{Key: "h", Value: []byte("1")}, {Key: "lane", Value: []byte("backfill")}},
		}
		if diff := cmp.Diff(tombstone, got[len(got)-1]); diff != "" {
			t.Errorf("a record without key and value (-want +got):\n%s", diff)
		}
		s.Start(0, 4) // again
		if got := read(t, s, 0, 3); got[0].Offset != 4 {
			t.Errorf("started again at 4: the first record is at %d", got[0].Offset)
		}
	})
}

// An end is asked for while a partition is read, and its wall was taken before.
func TestPollGivesEnds(t *testing.T) {
	onBrokers(t, 1, func(t *testing.T, e *env) {
		e.publish(0, "a", "b", "c")
		open := e.producer("open")
		defer open.Close()
		e.begin(open, 0, "undecided")
		conf := e.config("a")
		before := conf.Now()
		s := e.session(conf)
		assigned(t, s, 1)
		s.Start(0, 0)
		var end pipeline.End
		poll(t, s, func(b *pipeline.Batch) bool {
			if len(b.Ends) > 0 {
				end = b.Ends[0]
			}
			return len(b.Ends) > 0
		})
		if end.Partition != 0 || end.Offset != 3 {
			t.Errorf("got end %+v, want offset 3: that is where the undecided begins", end)
		}
		if end.Wall < before || end.Wall > conf.Now() {
			t.Errorf("got wall %d, want one in [%d, now]", end.Wall, before)
		}
		if err := open.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
		poll(t, s, func(b *pipeline.Batch) bool { return len(b.Ends) > 0 && b.Ends[0].Offset == 5 })
	})
}

// Reading from an offset that the log does not have is an error that says so, and
// never a jump.
func TestPollRefusesOffsetOutOfRange(t *testing.T) {
	onBrokers(t, 1, func(t *testing.T, e *env) {
		e.publish(0, "a")
		s := e.session(e.config("a"))
		assigned(t, s, 1)
		s.Start(0, 100)
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		var b pipeline.Batch
		var err error
		for err == nil {
			err = s.Poll(ctx, &b)
			if len(b.Fetched) > 0 {
				t.Fatalf("got records %+v", b.Fetched)
			}
		}
		var gone *GoneError
		if !errors.As(err, &gone) || gone.Offset != 100 {
			t.Errorf("got %v, want a *GoneError of offset 100", err)
		}
	})
}

// A range is read to its end, also where it ends with markers or with records that
// were aborted, and also if what comes next is undecided.
func TestInputEndsReliably(t *testing.T) {
	onBrokers(t, 1, func(t *testing.T, e *env) {
		e.publish(0, "a", "b")                         // 0 1
		e.transactional(0, kgo.TryCommit, "c")         // 2, marker 3
		e.transactional(0, kgo.TryAbort, "no", "none") // 4 5, marker 6
		open := e.producer("open")
		defer open.Close()
		e.begin(open, 0, "undecided") // 7
		s := e.session(e.config("a"))
		start, end, err := s.Bounds(t.Context(), 0)
		if err != nil || start != 0 || end != 7 {
			t.Fatalf("bounds: got %d, %d, %v; want 0, 7", start, end, err)
		}
		for _, c := range []struct {
			from, to int64
			want     string
		}{
			{0, 7, "0a 1b 2c 3 6 "},
			{1, 3, "1b 2c "},
			{2, 4, "2c 3 "},
			{4, 6, ""},
			{4, 7, "6 "},
			{5, 5, ""},
		} {
			got := ""
			err := s.Input(t.Context(), 0, c.from, c.to, func(records []worker.Record) error {
				for _, r := range records {
					got += fmt.Sprintf("%d%s ", r.Offset, r.Value)
				}
				return nil
			})
			if err != nil || got != c.want {
				t.Errorf("[%d, %d): got %q, error %v; want %q", c.from, c.to, got, err, c.want)
			}
		}
	})
}

// What retention has removed is an error that names where the log begins.
func TestInputBeforeLogStart(t *testing.T) {
	e := local(t, 1)
	e.publish(0, "a", "b", "c")
	if err := e.cluster.DeleteRecords(e.input, 0, 2); err != nil {
		t.Fatal(err)
	}
	s := e.session(e.config("a"))
	var gone *GoneError
	err := s.Input(t.Context(), 0, 1, 3, func([]worker.Record) error { return nil })
	if !errors.As(err, &gone) || gone.Start != 2 {
		t.Errorf("got %v, want a *GoneError with start 2", err)
	}
}

// Two members share the partitions; what moves is revoked and released before the
// other has it, and both end with what the group says.
func TestRebalanceHandsOver(t *testing.T) {
	onBrokers(t, 8, func(t *testing.T, e *env) {
		first := drive(t, e.session(e.config("a")))
		eventually(t, "the first has all", func() bool { return len(first.owns()) == 8 })
		second := drive(t, e.session(e.config("b")))
		eventually(t, "they share", func() bool { return len(first.owns()) == 4 && len(second.owns()) == 4 })

		// What is owned may be committed, by its owner and nobody else.
		for _, d := range []*driver{first, second} {
			for _, p := range d.owns() {
				a, _ := d.assignment(p)
				commitUntilDone(t, d.s, e.records(p, fmt.Sprint("p", p)), output(a, 1, 1))
			}
		}
		moved := second.owns()[0]
		var lost *pipeline.LostError
		err := first.s.Transact(t.Context(), e.records(moved, "zombie"), []*worker.Output{output(pipeline.Assignment{Partition: moved, Epoch: 1}, 9, 9)})
		if !errors.As(err, &lost) || !slices.Equal(lost.Partitions, []int32{moved}) {
			t.Errorf("partition %d, handed over: got %v, want a *LostError naming it", moved, err)
		}

		// A clean leave gives everything back.
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		second.stop()
		<-second.done
		second.s.Close(ctx)
		eventually(t, "the first has all again", func() bool { return len(first.owns()) == 8 })
		first.mu.Lock()
		defer first.mu.Unlock()
		for p := range int32(8) {
			var own []string
			for _, l := range first.log {
				if l[len(l)-1] == byte('0'+p) {
					own = append(own, l[:len(l)-2])
				}
			}
			if !slices.Equal(own, []string{"assigned"}) && !slices.Equal(own, []string{"assigned", "revoked", "assigned"}) {
				t.Errorf("partition %d: got %v, want it assigned, and revoked and assigned again if it moved", p, own)
			}
		}
	})
}

// A member has joined when it has been told its share, and one that is spare when it has
// been told that there is nothing for it.
func TestJoined(t *testing.T) {
	onBrokers(t, 1, func(t *testing.T, e *env) {
		s := e.session(e.config("a"))
		if s.Joined() {
			t.Error("it has joined before Poll has told of anything")
		}
		first := drive(t, s)
		eventually(t, "the first has joined", func() bool { return s.Joined() && len(first.owns()) == 1 })
		spare := drive(t, e.session(e.config("b")))
		eventually(t, "the spare one has joined", spare.s.Joined)
	})
}

// Until it is released, a revoked partition may still be committed; not after.
func TestRevokedMayCommitUntilReleased(t *testing.T) {
	onBrokers(t, 2, func(t *testing.T, e *env) {
		s := e.session(e.config("a"))
		owned := assigned(t, s, 2)
		other := drive(t, e.session(e.config("b")))
		var revoked []int32
		poll(t, s, func(b *pipeline.Batch) bool {
			revoked = append(revoked, b.Revoked...)
			return len(revoked) > 0
		})
		p := revoked[0]
		if err := s.Transact(t.Context(), e.records(p, "last words"), []*worker.Output{output(owned[p], 4, 1)}); err != nil {
			t.Fatalf("before release: %v", err)
		}
		if got := other.owns(); len(got) != 0 {
			t.Fatalf("the other has %v before partition %d was released", got, p)
		}
		s.Release(p)
		var lost *pipeline.LostError
		if err := s.Transact(t.Context(), e.records(p, "too late"), []*worker.Output{output(owned[p], 5, 2)}); !errors.As(err, &lost) {
			t.Errorf("after release: got %v, want a *LostError", err)
		}
		eventually(t, "handed over", func() bool { return slices.Equal(other.owns(), []int32{p}) })
		mark, found, err := other.s.Committed(t.Context(), p)
		if err != nil || !found || mark.Next != 4 {
			t.Errorf("the next owner reads %+v, found %t, error %v; want next 4", mark, found, err)
		}
		if got := e.visible(e.out[0], p); !slices.Equal(got, []string{"last words"}) {
			t.Errorf("said: %q", got)
		}
	})
}

// A partition that stays is committed under the new generation after a rebalance,
// without being assigned anew; outputs made before it are sent again and done once.
func TestKeptPartitionOverRebalance(t *testing.T) {
	onBrokers(t, 4, func(t *testing.T, e *env) {
		first := drive(t, e.session(e.config("a")))
		eventually(t, "the first has all", func() bool { return len(first.owns()) == 4 })
		epochs := make(map[int32]pipeline.Assignment)
		for _, p := range first.owns() {
			epochs[p], _ = first.assignment(p)
		}
		second := drive(t, e.session(e.config("b")))
		eventually(t, "they share", func() bool { return len(first.owns()) == 2 && len(second.owns()) == 2 })
		p := first.owns()[0]
		n := uint64(0)
		for range 3 {
			n++
			commitUntilDone(t, first.s, e.records(p, fmt.Sprint(n)), output(epochs[p], int64(n), n))
		}
		if got := e.visible(e.out[0], p); !slices.Equal(got, []string{"1", "2", "3"}) {
			t.Errorf("got %q, want each once", got)
		}
	})
}

// commitUntilDone does what the pipeline does with its outputs.
func commitUntilDone(t testing.TB, s *Session, records []*kgo.Record, out *worker.Output) {
	t.Helper()
	for range 100 {
		err := s.Transact(t.Context(), records, []*worker.Output{out})
		switch {
		case err == nil:
			return
		case errors.Is(err, pipeline.ErrAborted):
		default:
			mark, found, asked := s.Committed(t.Context(), out.Mark.Partition)
			if asked != nil {
				t.Fatalf("after %v: %v", err, asked)
			}
			if found && mark.N == out.Mark.N {
				return
			}
		}
	}
	t.Fatal("not committed after 100 tries")
}

// A partition without a leader keeps no other's end back.
func TestEndsBesideAPartitionWithoutALeader(t *testing.T) {
	e := local(t, 2, kfake.NumBrokers(2))
	for p := range int32(2) {
		if err := e.cluster.MoveTopicPartition(e.input, p, p); err != nil {
			t.Fatal(err)
		}
	}
	conf := e.config("a")
	conf.Options = []kgo.Opt{kgo.RetryTimeout(time.Second)}
	s := e.session(conf)
	assigned(t, s, 2)
	e.cluster.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		for _, topic := range req.(*kmsg.ListOffsetsRequest).Topics {
			to := kmsg.ListOffsetsResponseTopic{Topic: topic.Topic}
			for _, p := range topic.Partitions {
				if p.Partition != 1 {
					return nil, nil, false
				}
				part := kmsg.NewListOffsetsResponseTopicPartition()
				part.Partition, part.ErrorCode = p.Partition, kerr.NotLeaderForPartition.Code
				to.Partitions = append(to.Partitions, part)
			}
			resp.Topics = append(resp.Topics, to)
		}
		return resp, nil, true
	})
	s.Start(0, 0)
	s.Start(1, 0)
	poll(t, s, func(b *pipeline.Batch) bool { return len(b.Ends) > 0 && b.Ends[0].Partition == 0 })
}

// What is fetched ahead does not grow with the number of brokers.
func TestFetchBytes(t *testing.T) {
	for brokers, want := range map[int]int32{1: fetchMaxBytes, 8: fetchMaxBytes, 50: fetchAllBytes / 50, 1000: fetchLeastBytes} {
		s := &Session{}
		for p := range 3000 {
			s.topic.leaders = append(s.topic.leaders, int32(p%brokers))
		}
		if got := s.fetchBytes(); got != want {
			t.Errorf("%d brokers: %d bytes of each, want %d", brokers, got, want)
		}
	}
}
