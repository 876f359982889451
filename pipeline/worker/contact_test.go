package worker

import (
	"math/rand/v2"
	"testing"

	"footfall/pipeline/profile"
	"footfall/pipeline/segment"
	"footfall/schemas"
)

// What a transition tells of contact is what the user's events up to it say, and nothing
// else: whatever the batches, the snapshots and the crashes.
func TestContactsFollowFromTheEvents(t *testing.T) {
	const quiet = "in quiet hours"
	var count tally
	seeds(t, 150, func(t *testing.T, rng *rand.Rand) {
		cfg := randomConfig(t, rng)
		cfg.Rules = manySets(t, cfg.Decoder.Hash())
		logger := newLogger(rng, schemas.Replay)
		logger.users = 3
		log := logger.write(20 + rng.IntN(300))
		l := newLife(t, rng, cfg, log, 0)
		l.run()
		decided := judged(log, cfg)
		e := cfg.Rules.Evaluator()
		for _, it := range l.said {
			tr := it.Transition
			if tr == nil {
				continue
			}
			rows := profile.NewRows(cfg.Rules.Layout())
			rows.Append()
			for _, r := range log {
				clock, accepted := l.clocks[r.Offset]
				before := clock < tr.At // a timer fires before the event that brings the clock there
				if tr.Cause.Kind == schemas.ByEvent {
					before = r.Offset <= tr.Cause.Pos.Offset
				}
				if !accepted || !before || decided.Duplicates[r.Offset] || string(r.Key) != tr.User {
					continue
				}
				var ev schemas.Event
				if err := cfg.Decoder.Decode(r.Key, r.Value, &ev); err != nil {
					t.Fatal(err)
				}
				rows.Fold(0, &ev, tr.At)
			}
			want := e.Contact(rows.View(0), int(tr.Set), tr.At, nil)
			if tr.Contact != want {
				t.Fatalf("output %d, %+v of %s: got %+v, want %+v", it.N, tr.Cause, tr.User, tr.Contact, want)
			}
			count.add(want.ZoneFrom.String(), 1)
			if want.NotBefore > 0 {
				count.add(quiet, 1)
			}
		}
	})
	if testing.Short() {
		return
	}
	if of := count.of; of[schemas.ZoneEvent.String()] < 100 || of[schemas.ZoneShop.String()] < 100 || of[schemas.NoZone.String()] > 0 || of[quiet] < 100 {
		t.Errorf("transitions by where their zone is from: %v: too few of a kind", of)
	}
}

// Quiet hours cost an event no allocation.
func TestApplyWithQuietHoursAllocatesNothing(t *testing.T) {
	cfg := config(t)
	cfg.DedupBudget = 1000 // full before it is measured
	p, err := segment.Shipped(segment.Options{Exponent: 2, Quiet: segment.Quiet{From: 21 * 60, To: 8 * 60}}, "lifecycle")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Rules = p
	w := newWorld(t, cfg, 0)
	tr, out := newTraffic(500, 100), &Output{}
	tr.fill(w.worker, out)
	for range 50 {
		w.worker.Apply(tr.batch(tr.anybody), Conditions{Wall: trafficAt}, out)
	}
	if n := testing.AllocsPerRun(100, func() {
		w.worker.Apply(tr.batch(tr.anybody), Conditions{Wall: trafficAt}, out)
	}); n != 0 {
		t.Errorf("100 events of known users: got %v allocations, want 0", n)
	}
}
