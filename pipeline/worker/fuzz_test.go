package worker

import (
	"math/rand/v2"
	"testing"

	"footfall/schemas"
)

// FuzzApply holds that whatever records hold, and whatever their timestamps, the worker
// says of them what the oracle says, which was written by the contract and not by the
// code: each is applied, repeats another or is a dead letter, for the same reason, and
// chains are the same, through snapshots and crashes.
func FuzzApply(f *testing.F) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 11))
		log := newLogger(rng, schemas.Replay).write(20)
		for i := 0; i+1 < len(log); i += 2 {
			a, b := log[i], log[i+1]
			f.Add(a.Key, a.Value, int64(a.Time), b.Key, b.Value, int64(b.Time), seed)
		}
	}
	view := []byte(`{"event_id":"e","type":"view","user_id":"u1","time":1767225600000}`)
	for _, at := range []int64{-1, 0, -1 << 63, int64(base) + 1, 1 << 40} {
		f.Add([]byte("u1"), view, at, []byte("u1"), view, int64(base), uint64(1))
	}
	cfg := config(f)
	cfg.MaxAge = 1 << 60 // nothing is stale: the wall stands still
	// What is later than the wall is refused for it, and the oracle knows of no wall.
	latest := base + 50*365*schemas.Day
	f.Fuzz(func(t *testing.T, key1, value1 []byte, time1 int64, key2, value2 []byte, time2 int64, seed uint64) {
		if schemas.Millis(time1) > latest || schemas.Millis(time2) > latest {
			t.Skip()
		}
		rng := rand.New(rand.NewPCG(seed, 12))
		logger := newLogger(rng, schemas.Replay)
		log := logger.write(2)
		add := func(key, value []byte, at int64) {
			log = append(log, Record{Offset: logger.next, Time: schemas.Millis(at), Key: key, Value: value, Lane: schemas.Replay})
			logger.next++
		}
		add(key1, value1, time1)
		log = append(log, logger.write(rng.IntN(3))...)
		add(key2, value2, time2)
		add(key1, value1, time2)
		log = append(log, logger.write(3)...)

		cfg := cfg
		cfg.Slice, cfg.DedupBudget = 1+rng.IntN(3), 1+rng.IntN(12)
		l := newLife(t, rng, cfg, log, 0)
		l.run()
		l.agrees(log)
	})
}
