package worker

import (
	"fmt"
	"testing"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// view is a record of a view, at its record's time.
func view(offset int64, user string, at schemas.Millis) Record {
	value := fmt.Appendf(nil, `{"event_id":"e%d","type":"view","user_id":%q,"time":%d}`, offset, user, at)
	return Record{Offset: offset, Time: at, Key: []byte(user), Value: value}
}

// viewers is a world with n users, one view each.
func viewers(t *testing.T, cfg Config, n int) *world {
	w := newWorld(t, cfg, 0)
	for i := range n {
		w.log = append(w.log, view(int64(i), fmt.Sprintf("u%d", i), base+schemas.Millis(i)))
	}
	w.apply(w.log, Conditions{Wall: base})
	w.settle(Conditions{Wall: base})
	w.commit()
	return w
}

// 1. The rules change; everyone is to be evaluated again. 2. A snapshot is taken
// when some have been. 3. The rest are, and the mark says so. 4. A crash. What is
// read back then has no due time of those that came late in 2.
func TestASnapshotAmidAChangeOfRulesForgetsNoTimer(t *testing.T) {
	cfg := config(t)
	cfg.Slice = 1
	w := viewers(t, cfg, 10)
	w.snapshot(t, base, 1<<20)
	w.commit()
	cfg.Rules = segment.Lifecycle(1)
	at := Conditions{Wall: base}
	w.crash(t, len(w.snapshots)-1, cfg, at)
	for range 3 {
		w.apply(nil, at)
	}
	w.snapshot(t, base, 1<<20)
	w.settle(at)
	w.commit()
	if got := w.committed.Rules; got != cfg.Rules.Hash() {
		t.Fatalf("rules of the mark: got %x, want %x", got, cfg.Rules.Hash())
	}
	w.crash(t, len(w.snapshots)-1, cfg, at)
	w.worker.digest(t, true) // looks at every timer
}
