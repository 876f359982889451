package kafka

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

// A transaction that the broker calls committed, and has left without its markers when it
// died, gets them before its producer is used again: what that aborts there is its own.
func TestCommittedWithoutItsMarkers(t *testing.T) {
	for _, forbidden := range []bool{false, true} {
		t.Run(fmt.Sprintf("forbidden %v", forbidden), func(t *testing.T) {
			e := local(t, 2)
			s := e.session(e.config("a"))
			a := assigned(t, s, 2)
			leave := func(r kmsg.Request) (kmsg.Response, error, bool) {
				req := r.(*kmsg.EndTxnRequest)
				resp := req.ResponseKind().(*kmsg.EndTxnResponse)
				resp.ProducerID, resp.ProducerEpoch = req.ProducerID, req.ProducerEpoch
				return resp, nil, true
			}
			e.cluster.ControlKey(int16(kmsg.EndTxn), leave)
			n := uint64(0)
			say := func() error {
				n++
				return s.Transact(t.Context(), e.records(0, fmt.Sprint(n)), []*worker.Output{output(a[0], int64(n), n)})
			}
			if err := say(); err != nil {
				t.Fatal(err)
			}
			if _, stable, _, err := s.Range(t.Context(), e.out[0], 0); err != nil || stable != 0 {
				t.Fatalf("decided up to %d (%v), and it has no marker", stable, err)
			}
			if forbidden {
				e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.WriteTxnMarkers}, Err: kerr.ClusterAuthorizationFailed, Count: -1})
			}
			for range producers - 1 { // the others
				if err := say(); err != nil {
					t.Fatal(err)
				}
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
			if forbidden { // that right is not needed to go on; what lacks its marker is named elsewhere
				return
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
		})
	}
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

// One that was aborted, and has no marker either, is not committed with what its producer
// commits next.
func TestAbortedWithoutItsMarkers(t *testing.T) {
	e := local(t, 1)
	s := e.session(e.config("a"))
	p := <-s.idle
	lost := e.records(0, "aborted")
	id, _, err := p.cl.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.cl.BeginTransaction(), s.produce(t.Context(), p, lost)); err != nil {
		t.Fatal(err)
	}
	s.noteEnd(p, id, lost, false)
	s.broken.Add(1)
	if err := s.seen(t.Context(), p, e.records(0, "next")); err != nil {
		t.Fatal(err)
	}
	s.idle <- p
	if got := e.visible(e.out[0], 0); len(got) != 0 {
		t.Errorf("visible: %q, and it was aborted", got)
	}
	if got := s.MarkersWritten(); got != 1 {
		t.Errorf("%d markers written, want 1", got)
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
	records := []*kgo.Record{{Topic: "t", Partition: 3, Offset: 70}, {Topic: "t", Partition: 3, Offset: 71}, {Topic: "u", Partition: 3, Offset: 4}}
	p.said.note(9, records[:2], true)
	p.said.note(9, records[2:], false)
	if commit, known := s.ours(&r); !commit || !known {
		t.Error("it was committed")
	}
	if commit, known := s.ours(&Hang{Topic: "u", Partition: 3, Offset: 4, ID: "x", ProducerID: 9, Epoch: 5, IDEpoch: 6, v2: true}); commit || !known {
		t.Error("it was aborted")
	}
	for name, change := range map[string]func(h *Hang){
		"another record":                   func(h *Hang) { h.Offset = 71 },
		"another producer":                 func(h *Hang) { h.ProducerID = 8 },
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
	if look := p.said.unseen(1, records[2:]); len(look) != 1 || look[0].topic != "u" {
		t.Errorf("to be looked at: got %v, want what is written to", look)
	}
	p.said.forget(p.said.unseen(1, records))
	if _, known := s.ours(&r); known {
		t.Error("it was seen to be there")
	}
}
