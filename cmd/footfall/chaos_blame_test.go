//go:build chaos

package main

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// The broker is blamed for a transaction only if its coordinator is done with it: one that
// is at work is waited for, or is ours to end.
func TestChaosBlame(t *testing.T) {
	here, elsewhere := kadm.TopicsSet{}, kadm.TopicsSet{}
	here.Add("triggers", 1)
	elsewhere.Add("triggers", 2)
	x := &hang{topic: "triggers", partition: 1}
	for _, c := range []struct {
		d    kadm.DescribedTransaction
		want bool
	}{
		{kadm.DescribedTransaction{State: "Ongoing", ProducerEpoch: 3, Topics: here}, false},
		{kadm.DescribedTransaction{State: "Ongoing", ProducerEpoch: 4, Topics: here}, true},
		{kadm.DescribedTransaction{State: "PrepareCommit", ProducerEpoch: 3, Topics: here}, false},
		{kadm.DescribedTransaction{State: "PrepareAbort", ProducerEpoch: 4, Topics: here}, false},
		{kadm.DescribedTransaction{State: "PrepareAbort", ProducerEpoch: 4, Topics: elsewhere}, true},
		{kadm.DescribedTransaction{State: "CompleteCommit", ProducerEpoch: 3}, true},
		{kadm.DescribedTransaction{State: "Empty", ProducerEpoch: 3}, true},
		{kadm.DescribedTransaction{Err: kerr.TransactionalIDNotFound}, true},
		{kadm.DescribedTransaction{Err: kerr.CoordinatorLoadInProgress}, false},
	} {
		if got := endedOf(c.d, 3, x); got != c.want {
			t.Errorf("%s at epoch %d, with %v (%v): got %v, want %v", c.d.State, c.d.ProducerEpoch, c.d.Topics, c.d.Err, got, c.want)
		}
	}
}
