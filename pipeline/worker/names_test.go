package worker

import (
	"fmt"
	"testing"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// Sets that are gone are kept, so that their chains go on should they come back. However
// many there have been, a snapshot can be read.
func TestASnapshotOfMoreSetsThanAByteCounts(t *testing.T) {
	w := viewers(t, config(t), 3)
	for i := range 300 {
		rules, err := segment.Compile(segment.Options{Exponent: 2}, segment.File{
			Name: "seen.yaml", Text: fmt.Appendf(nil, "set: seen%d\nsegments:\n  - {name: seen, when: count(\"view\") >= 1}\n  - {name: not, otherwise: true}\n", i),
		})
		if err != nil {
			t.Fatal(err)
		}
		w.cfg.Rules = rules
		w.worker.Switch(rules)
		w.settle(Conditions{Wall: base})
	}
	w.snapshot(t, base, 1<<20)
	w.commit()
	want := w.worker.memberships()
	w.said = nil
	w.worker = w.rebuild(t, w.snapshots[len(w.snapshots)-1], Conditions{Wall: base + schemas.Hour})
	if got := w.worker.memberships(); fmt.Sprint(got) != fmt.Sprint(want) || len(w.worker.names) != 301 {
		t.Errorf("got %d sets, %v, want %v", len(w.worker.names), got, want)
	}
}
