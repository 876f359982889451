package sim

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"footfall/schemas"
)

// TestClickHouseDelaysNoTrigger runs one seed with a table, without one, with one that
// takes its time, and with one that cannot be reached until the end: every output is the same, at the same offset
// and under the same timestamp, whatever else goes wrong meanwhile.
func TestClickHouseDelaysNoTrigger(t *testing.T) {
	for seed := uint64(1); seed <= 16; seed++ {
		o := Options{Seed: seed, Steps: 200, Processes: 1 + int(seed%3), Zombies: seed%2 == 0, Strays: seed%4 == 1, Archives: 2}
		with := early(t, o)
		without := o
		without.Archives = 0
		if diff := cmp.Diff(with, early(t, without)); diff != "" {
			t.Fatalf("seed %d: with a table (-), without (+):\n%s", seed, diff)
		}
		slow := o
		slow.Outage = TableSlow
		without.Outage = TableSlow // so that as much time passes
		if diff := cmp.Diff(early(t, slow), early(t, without)); diff != "" {
			t.Fatalf("seed %d: with a slow table (-), without (+):\n%s", seed, diff)
		}
		absent := o
		absent.absent = true
		if diff := cmp.Diff(with, early(t, absent)); diff != "" {
			t.Fatalf("seed %d: with a table (-), with an absent one (+):\n%s", seed, diff)
		}
	}
}

// early gives what was said before faults stopped.
func early(t *testing.T, o Options) (all [][]string) {
	t.Helper()
	r, err := Run(o)
	if err != nil {
		t.Fatalf("%v\n%+v", err, o)
	}
	for _, outputs := range r.Early {
		var said []string
		for i := range outputs {
			rec := &outputs[i].Record
			said = append(said, fmt.Sprintf("%s/%d@%d at %d: %s %s", rec.Topic, rec.Partition, rec.Offset, rec.Time, rec.Key, rec.Value))
		}
		all = append(all, said)
	}
	return all
}

// TestABurstHoldsNobodyUp: a thousand timers are due within one second, and a few of
// them fire in one call. What shoppers do meanwhile is committed as soon as ever.
func TestABurstHoldsNobodyUp(t *testing.T) {
	for seed := uint64(1); seed <= 4; seed++ {
		o := Options{Seed: seed, Steps: 400, Calm: true, LogTime: seed%2 == 0, Slice: 3, Large: true}
		quiet, err := Run(o)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		o.Crowd = 1000
		burst, err := Run(o)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		timers := 0
		for i := range burst.Outputs {
			if tr := burst.Outputs[i].Item.Transition; tr != nil && tr.Cause.Kind == schemas.ByTimer && strings.Contains(tr.User, "-c") {
				timers++
			}
		}
		if timers != o.Crowd {
			t.Errorf("seed %d: %d of %d who fell silent were said", seed, timers, o.Crowd)
		}
		if burst.Waited > quiet.Waited {
			t.Errorf("seed %d: a record waited %d steps for its commit, and %d without the burst", seed, burst.Waited, quiet.Waited)
		}
	}
}
