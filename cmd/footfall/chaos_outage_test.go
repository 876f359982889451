//go:build chaos

package main

import (
	"flag"
	"syscall"
	"testing"
	"time"

	"footfall/schemas"
)

var (
	chaosBrokers    = flag.Int("chaos.brokers", 3, "kills -9 of the broker, in TestChaosBroker")
	chaosClickHouse = flag.Int("chaos.clickhouse", 10, "kills -9 of ClickHouse, in TestChaosClickHouse")
)

// The broker is killed and started again under two instances, and sometimes one of them
// with it; or it is stopped for so long that everybody's sessions and transactions end. Now and
// then an instance has no right to write the markers that the broker leaves out.
func TestChaosBroker(t *testing.T) {
	r := newRig(t, realKafka(t), schemas.Replay)
	members := []*process{r.start(), r.withoutMarkers("--set", "kafka.instance=two")}
	r.ready()
	r.open(600)
	stops, kills := 0, 0
	for kills < *chaosBrokers {
		time.Sleep(time.Duration(200+r.rng.IntN(1500)) * time.Millisecond)
		if r.rng.IntN(4) == 0 {
			stops++
			signalBroker(t, syscall.SIGSTOP)
			time.Sleep(silenced)
			signalBroker(t, syscall.SIGCONT)
			r.goesOn(members)
		}
		kills++
		broker(t, "kill9", brokerDir())
		victim := r.rng.IntN(4)
		if victim < len(members) {
			members[victim].kill()
			r.killed(members[victim])
			r.random++
		}
		broker(t, "restart", brokerDir())
		if victim < len(members) {
			start := []func(...string) *process{r.start, r.withoutMarkers}[r.rng.IntN(2)]
			members[victim] = start("--set", "kafka.instance="+[]string{"one", "two"}[victim])
		}
		r.goesOn(members)
	}
	r.close()
	details := map[string]any{"seed": r.seed, "random": r.random, "broker_stops": stops}
	r.verify(members...).details(details)
	tell(t, "broker kills", kills, details)
}

// goesOn waits until something more is committed of every partition. What the broker has
// left without its markers is ended: an instance that needs to know what it holds waits for
// that, and says so again and again.
func (r *rig) goesOn(members []*process) {
	r.t.Helper()
	var before map[int32]int64
	began, looked := time.Now(), false
	r.until("every partition goes on", func() bool {
		for _, p := range members {
			if p.ended() {
				r.t.Fatalf("an instance ended by itself: %v\n%s", p.err, p.last(8))
			}
		}
		if !looked && time.Since(began) > time.Minute {
			looked = true
			r.mend()
		}
		now := r.offsets()
		if len(before) < r.conf.Kafka.Partitions {
			before = now
			return false
		}
		for p, offset := range before {
			if now[p] <= offset {
				return false
			}
		}
		return true
	})
}

// ClickHouse is killed amid inserts, again and again, for moments and for seconds. The
// triggers don't wait for it.
func TestChaosClickHouse(t *testing.T) {
	r := newRig(t, realKafka(t), schemas.Replay)
	p := r.start()
	r.ready()
	r.open(1500)
	for range *chaosClickHouse {
		time.Sleep(time.Duration(r.rng.IntN(800)) * time.Millisecond)
		pause := time.Duration(r.rng.IntN(300)) * time.Millisecond
		if r.rng.IntN(5) == 0 {
			pause = 3 * time.Second
		}
		r.killEngine(pause)
		if pause > time.Second {
			r.goesOn([]*process{p})
		}
	}
	r.close()
	details := map[string]any{"seed": r.seed}
	r.verify(p).details(details)
	tell(t, "clickhouse kills", *chaosClickHouse, details)
}
