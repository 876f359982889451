package kafka

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

// What a transaction has written is undecided until its marker is there, whichever epoch that
// has, and however far back what is undecided begins.
func TestOpenIsWhatLacksItsMarker(t *testing.T) {
	for name, c := range map[string]struct {
		v2     bool
		epoch  int16
		begins int64
		offset int64
		want   bool
	}{
		"it begins there":                                      {true, 5, 70, 70, true},
		"where it begins is not known":                         {true, 5, 70, -1, true},
		"something undecided is before it":                     {true, 5, 60, 70, true},
		"its epoch was given again, for another":               {true, 5, 71, 70, false},
		"its marker moved the epoch on":                        {true, 6, -1, 70, false},
		"the next one is under way":                            {true, 6, 80, 70, false},
		"before version 2, it begins there":                    {false, 5, 70, 70, true},
		"before version 2, where it begins is not known":       {false, 5, 70, -1, true},
		"before version 2, its marker has its epoch":           {false, 5, -1, 70, false},
		"before version 2, the producer was renewed meanwhile": {false, 6, 70, 70, true},
		"before version 2, the next one is under way":          {false, 5, 80, 70, false},
	} {
		f := part{pid: 9, epoch: 5, offset: c.offset}
		in := kadm.DescribedProducersPartition{ActiveProducers: kadm.DescribedProducers{
			9: {ProducerID: 9, ProducerEpoch: c.epoch, CurrentTxnStartOffset: c.begins},
			8: {ProducerID: 8, ProducerEpoch: 5, CurrentTxnStartOffset: 70},
		}}
		if _, open := f.open(&in, c.v2); open != c.want {
			t.Errorf("%s: open %v, want %v", name, open, c.want)
		}
	}
}

// A partition of which nothing need be known goes on beside the only one that is looked at, whose
// leader does not tell.
func TestOnlyLeaderThatIsAsked(t *testing.T) {
	e := local(t, 2)
	s := e.session(e.config("a"))
	a := assigned(t, s, 2)
	for n := range uint64(producers) {
		commitUntilDone(t, s, e.records(1, fmt.Sprint(n+1)), output(a[1], int64(n)+1, n+1))
	}
	s.broken.Add(1)
	e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeProducers}, Topic: e.out[0], Partitions: []int32{1}, Err: kerr.NotLeaderForPartition, Count: -1})
	both := slices.Concat(e.records(0, "1"), e.records(1, "4"))
	outs := []*worker.Output{output(a[0], 1, 1), output(a[1], 4, 4)}
	var unwritable *pipeline.UnwritableError
	if err := s.Transact(t.Context(), both, outs); !errors.As(err, &unwritable) || !slices.Equal(unwritable.Partitions, []int32{1}) {
		t.Fatalf("got %v, want partition 1 named", err)
	}
	if err := s.Transact(t.Context(), both[:1], outs[:1]); err != nil {
		t.Errorf("the other partition: %v", err)
	}
}

// A leader that gives no answer at all takes none from the others: what is committed there gets
// its markers, before a renewal has what is open aborted.
//
// The client may ask any broker where a partition is, the one that hangs too, and waits for that
// then: so it is enough that one of some tries does it.
func TestLeaderThatHangs(t *testing.T) {
	var written int64
	for range 6 {
		if written = besideAHangingLeader(t); written > 0 {
			break
		}
	}
	if written != 1 {
		t.Errorf("%d markers written, want that of the other partition", written)
	}
}

// besideAHangingLeader has one of two leaders give no answer, and tells how many markers are
// written.
func besideAHangingLeader(t *testing.T) int64 {
	t.Helper()
	e := local(t, 2, kfake.NumBrokers(2))
	for p := range int32(2) {
		if err := e.cluster.MoveTopicPartition(e.out[0], p, p); err != nil {
			t.Fatal(err)
		}
	}
	s := e.session(e.config("a"))
	a := assigned(t, s, 2)
	p := whoseTurn(s)
	leaveOut(e)
	both := slices.Concat(e.records(0, "1"), e.records(1, "1"))
	if err := s.Transact(t.Context(), both, []*worker.Output{output(a[0], 1, 1), output(a[1], 1, 1)}); err != nil {
		t.Fatal(err)
	}
	look := append(p.said.all(), part{place: place{OffsetsTopic, 0}, pid: p.pid, epoch: p.epoch, offset: -1, commit: true})
	hung := make(chan struct{})
	defer close(hung)
	e.cluster.ControlKey(int16(kmsg.DescribeProducers), func(req kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		if topic := req.(*kmsg.DescribeProducersRequest).Topics[0]; slices.Contains(topic.Partitions, 1) {
			e.cluster.SleepControl(func() { <-hung })
		}
		return nil, nil, false
	})
	left, mute, err := s.lookAt(t.Context(), p, look)
	written := s.MarkersWritten()
	// No broker here has a topic of offsets: any may be asked for that, this one too.
	mute = slices.DeleteFunc(mute, func(at place) bool { return at.topic == OffsetsTopic })
	if err == nil || len(left) > 0 || !slices.Contains(mute, place{e.out[0], 1}) || len(mute) != 2-int(written) {
		t.Errorf("left %v, mute %v (%v), and %d markers written, want the partition whose leader hangs, alone where the other's is written", left, mute, err, written)
	}
	return written
}
