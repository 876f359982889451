package kafka

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline/worker"
)

// slowly holds kgo where it has sent the first record to a topic that it has just heard
// of, and has not noted yet that the topic has partitions: while it deals with the next
// record that waited for the topic, one that the transaction knows nothing of.
type slowly struct {
	p       *producer
	topic   string
	other   int32 // partition of the second record, with another leader than 0 has
	once    sync.Once
	both    chan struct{} // closed when both records wait for the topic
	release chan struct{} // closed when kgo may go on
}

func (h *slowly) OnProduceRecordBuffered(r *kgo.Record) {
	if r.Topic == h.topic && r.Partition == 0 {
		h.once.Do(func() {
			cl := h.p.cl
			go func() {
				for cl.BufferedProduceRecords() == 0 {
					time.Sleep(time.Millisecond)
				}
				cl.Produce(context.Background(), &kgo.Record{Topic: h.topic, Partition: h.other, Value: []byte("another")}, nil)
				close(h.both)
			}()
		})
	}
}

func (h *slowly) OnProduceRecordPartitioned(r *kgo.Record, _ int32) {
	if r.Topic == h.topic && r.Partition == h.other {
		<-h.release
	}
}

// The first transaction of a new client commits what it says it has. kgo may not have
// noted then that anything was produced: it takes the transaction for empty, aborts it,
// and reports no error.
func TestFirstTransactionIsCommitted(t *testing.T) {
	e := local(t, 8, kfake.NumBrokers(2))
	info, err := e.asSession(e.out[0]).meta(t.Context(), e.out[0], true)
	if err != nil {
		t.Fatal(err)
	}
	other := slices.IndexFunc(info.leaders, func(leader int32) bool { return leader != info.leaders[0] })
	if other < 0 {
		t.Skip("all partitions have one leader this time")
	}
	h := &slowly{topic: e.out[0], other: int32(other), both: make(chan struct{}), release: make(chan struct{})}
	conf := e.config("a")
	conf.Options = []kgo.Opt{kgo.WithHooks(h)}
	s := e.session(conf)
	a := assigned(t, s, 8)[0]
	h.p = <-s.idle
	others := []*producer{<-s.idle, <-s.idle} // only the first is used
	s.idle <- h.p
	// The broker hears of both records before kgo hears of the topic, and kgo goes on
	// when it has ended the transaction, or waits for itself to be ready for that.
	var released sync.Once
	goOn := func() { released.Do(func() { close(h.release) }) }
	t.Cleanup(goOn)
	e.cluster.Control(func(req kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		switch r := req.(type) {
		case *kmsg.MetadataRequest:
			if len(r.Topics) > 0 {
				<-h.both
			}
		case *kmsg.TxnOffsetCommitRequest:
			time.AfterFunc(300*time.Millisecond, goOn)
		case *kmsg.EndTxnRequest:
			goOn()
		}
		return nil, nil, false
	})
	if err := s.Transact(t.Context(), e.records(0, "one"), []*worker.Output{output(a, 1, 1)}); err != nil {
		t.Fatal(err)
	}
	for _, p := range others {
		s.idle <- p
	}
	if got := e.visible(e.out[0], 0); len(got) != 1 {
		t.Errorf("said to be committed, and %q is", got)
	}
	if offset, _ := e.committed(0); offset != 1 {
		t.Errorf("committed offset: got %d, want 1", offset)
	}
}
