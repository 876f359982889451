//go:build chaos

package main

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"footfall/schemas"
	"footfall/sources/storefront"
)

var (
	chaosRecoveries = flag.Int("chaos.recoveries", 1, "recoveries after a kill -9 that are timed, in TestChaosRecoveryTime")
	chaosUsers      = flag.Int("chaos.users", 10_000, "users in the snapshots then")
)

// An instance with many users is killed and started again while the shop goes on. It
// comes back with all of them from its snapshots; how long that takes, in all and in
// parts, is told and not judged.
func TestChaosRecoveryTime(t *testing.T) {
	r := newRig(t, realKafka(t), schemas.Live)
	p := r.start()
	r.ready()
	r.fill(*chaosUsers)
	r.open(200)
	timed := recoveryParts{}
	for range *chaosRecoveries {
		r.covered(p)
		time.Sleep(time.Duration(r.rng.IntN(1000)) * time.Millisecond)
		p.kill()
		r.killed(p)
		before := r.offsets()
		p = r.start()
		r.until("every partition commits again", func() bool { return p.ended() || r.beyond(before) })
		timed.note(t, p, time.Since(p.began))
	}
	r.close()
	details := map[string]any{"seed": r.seed}
	r.verify(p).details(details)
	timed.details(details)
	tell(t, "recoveries", *chaosRecoveries, details)
}

// fill publishes one event of each of n users, and waits until they are applied.
func (r *rig) fill(n int) {
	r.t.Helper()
	pub, err := r.conf.publisher(r.t.Context(), storefront.PublisherConfig{})
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range n {
		rec := storefront.Record{
			Key:   fmt.Appendf(nil, "f%d", i),
			Value: fmt.Appendf(nil, `{"event_id":"f%d","type":"view","user_id":"f%d","time":%d}`, i, i, wall()),
		}
		if err := pub.Publish(r.t.Context(), rec); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := pub.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.until("all are applied", func() bool { return r.behind() == 0 })
}

// covered waits until a process has published two more snapshots of every partition: the
// second was begun after this was called.
func (r *rig) covered(p *process) {
	r.t.Helper()
	published := func() map[int32]int {
		all := map[int32]int{}
		for _, l := range p.logged("snapshot published") {
			all[l.Partition]++
		}
		return all
	}
	before := published()
	r.until("two more snapshots of every partition", func() bool {
		now := published()
		for n := range int32(r.conf.Kafka.Partitions) {
			if now[n] < before[n]+2 {
				return p.ended()
			}
		}
		return true
	})
}

// beyond tells whether every partition has committed more than that.
func (r *rig) beyond(before map[int32]int64) bool {
	now := r.offsets()
	for n, offset := range before {
		if now[n] <= offset {
			return false
		}
	}
	return true
}

// recoveryParts are the longest of what recoveries took, from the process's start on and
// in seconds; of the parts, those of the slowest partition, for they recover at once.
type recoveryParts struct {
	all      []recovery
	users    int // the fewest
	records  int64
	load     float64
	readBack float64
	replay   float64
	commit   float64 // until every partition had committed
}

// note reads what a process has logged of its recovery, and when it committed first.
func (s *recoveryParts) note(t *testing.T, p *process, committed time.Duration) {
	t.Helper()
	rec := recovery{}
	var load, readBack, replay int64 // ms
	for _, l := range p.logged("partition recovered") {
		rec.users += l.Users
		rec.records += l.Records
		rec.partitions++
		rec.live = max(rec.live, l.when(t).Sub(p.began))
		load, readBack, replay = max(load, l.Load), max(readBack, l.ReadBack), max(replay, l.Replay)
	}
	if rec.users < *chaosUsers {
		t.Errorf("it came back with %d users of %d:\n%s", rec.users, *chaosUsers, p.last(20))
	}
	t.Logf("%d users: live after %.2f s (load %d ms, read back %d ms, replay of %d records %d ms), every partition has committed after %.2f s",
		rec.users, rec.live.Seconds(), load, readBack, rec.records, replay, committed.Seconds())
	if len(s.all) == 0 || rec.users < s.users {
		s.users = rec.users
	}
	s.all = append(s.all, rec)
	s.records = max(s.records, rec.records)
	s.load, s.readBack, s.replay = max(s.load, float64(load)/1000), max(s.readBack, float64(readBack)/1000), max(s.replay, float64(replay)/1000)
	s.commit = max(s.commit, committed.Seconds())
}

func (s *recoveryParts) details(into map[string]any) {
	recoveryDetails(into, s.all)
	into["recovery_users"], into["recovery_records"] = s.users, s.records
	into["recovery_load_s"], into["recovery_read_back_s"], into["recovery_replay_s"] = s.load, s.readBack, s.replay
	into["recovery_commit_s"] = s.commit
}
