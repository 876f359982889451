//go:build chaos

package main

import (
	"flag"
	"testing"
	"time"

	"footfall/schemas"
)

var (
	chaosBrokers    = flag.Int("chaos.brokers", 3, "kills -9 of the broker, in TestChaosBroker")
	chaosClickHouse = flag.Int("chaos.clickhouse", 10, "kills -9 of ClickHouse, in TestChaosClickHouse")
)

// The broker is killed and started again under two instances, and sometimes one of them
// with it.
func TestChaosBroker(t *testing.T) {
	r := newRig(t, realKafka(t), schemas.Replay)
	names := []string{"one", "two"}
	members := []*process{r.start(), r.start("--set", "kafka.instance=two")}
	r.ready()
	r.open(600)
	for i := range *chaosBrokers {
		time.Sleep(time.Duration(200+r.rng.IntN(1500)) * time.Millisecond)
		broker(t, "kill9", brokerDir())
		victim := r.rng.IntN(4)
		if victim < len(members) && i%2 == 1 {
			members[victim].kill()
			r.killed(members[victim])
			r.random++
		}
		broker(t, "restart", brokerDir())
		if victim < len(members) && i%2 == 1 {
			members[victim] = r.start("--set", "kafka.instance="+names[victim])
		}
		before := r.offsets()
		r.until("it goes on after the broker has come back", 3*time.Minute, func() bool {
			for _, p := range members {
				if p.ended() {
					t.Fatalf("an instance ended by itself: %v\n%s", p.err, p.last(8))
				}
			}
			now := r.offsets()
			for p := range int32(r.conf.Kafka.Partitions) {
				if _, known := before[p]; !known || now[p] <= before[p] {
					if !known {
						before = now
					}
					return false
				}
			}
			return true
		})
	}
	r.close()
	details := map[string]any{"seed": r.seed, "random": r.random}
	r.verify(members...).details(details)
	tell(t, "broker kills", *chaosBrokers, details)
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
		before := r.offsets()
		r.killEngine(pause)
		r.until("triggers are committed without ClickHouse", time.Minute, func() bool {
			now, moved := r.offsets(), 0
			for n, offset := range before {
				if now[n] > offset {
					moved++
				}
			}
			return moved == len(before)
		})
	}
	r.close()
	details := map[string]any{
		"seed": r.seed, "taken_over": len(p.logged(r.conf.Kafka.Group)),
	}
	r.verify(p).details(details)
	tell(t, "clickhouse kills", *chaosClickHouse, details)
}
