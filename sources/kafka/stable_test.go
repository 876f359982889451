package kafka

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline/worker"
	"footfall/schemas"
)

// A mark is not told while a transaction is undecided that has added one of the same
// partition: whoever recovers to the mark before would say again what that commits.
func TestCommittedWaitsForTheUndecided(t *testing.T) {
	e := local(t, 1)
	s := e.session(e.config("a"))
	a := assigned(t, s, 1)[0]
	if err := s.Transact(t.Context(), e.records(0, "done"), []*worker.Output{output(a, 4, 1)}); err != nil {
		t.Fatal(err)
	}
	other := e.session(e.config("b")) // asks from outside: our own it would end
	p := <-s.idle
	if err := p.cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := s.produce(t.Context(), p, e.records(0, "under way")); err != nil {
		t.Fatal(err)
	}
	c, err := s.cutOf([]*worker.Output{output(a, 6, 2)})
	if err != nil {
		t.Fatal(err)
	}
	for added := false; !added; { // the other one may be joining
		as, _ := s.owns.commitAs(c.epochs)
		added = s.addOffsets(t.Context(), p, p.pid, p.epoch, as, c) == nil
	}

	asked := make(chan struct{}, 1000)
	e.cluster.ControlKey(int16(kmsg.OffsetFetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		select {
		case asked <- struct{}{}:
		default:
		}
		return nil, nil, false
	})
	type answer struct {
		mark schemas.Mark
		err  error
	}
	told := make(chan answer, 1)
	go func() {
		mark, _, err := other.Committed(t.Context(), 0)
		told <- answer{mark, err}
	}()
	for range 3 {
		select {
		case <-asked:
		case got := <-told:
			t.Fatalf("told %+v, error %v, while a transaction is undecided", got.mark, got.err)
		}
	}
	if err := p.cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	s.idle <- p
	if got := <-told; got.err != nil || got.mark.N != 2 || got.mark.Next != 6 {
		t.Errorf("told %+v, error %v, want what the transaction has committed", got.mark, got.err)
	}
}
