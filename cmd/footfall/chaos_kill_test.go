//go:build chaos

package main

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"footfall/pipeline/pipelinetest"
	"footfall/schemas"
)

var chaosKills = flag.Int("chaos.kills", 15, "kills -9 of footfall, over its failpoints, in TestChaosKills")

// An instance is killed at one failpoint after the other, and started again, beside
// another one that is killed now and then: once in log time, and once by the wall,
// where silence moves shoppers.
func TestChaosKills(t *testing.T) {
	for i, lane := range []schemas.Lane{schemas.Replay, schemas.Live} {
		t.Run(lane.String(), func(t *testing.T) { kills(t, lane, (*chaosKills+i)/2) })
	}
}

func kills(t *testing.T, lane schemas.Lane, n int) {
	k := &killing{rig: newRig(t, realKafka(t), lane)}
	points := failpoints()
	k.rng.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	// Where nothing was ever said is only at the start.
	first := slices.IndexFunc(points, func(f failpoint) bool { return f.when == beginning })
	k.killAt(points[first])
	points = slices.DeleteFunc(points, func(f failpoint) bool { return f.when == beginning })

	k.beside = k.start("--set", "kafka.instance=two")
	k.ready()
	rate := 800.0
	if lane == schemas.Live {
		rate = 200
	}
	k.open(rate)
	for i := 0; k.kills < n; i++ {
		if os.Getenv("FOOTFALL_TEST_BROKER") == "" && points[i%len(points)].when == unknown {
			continue
		}
		k.killAt(points[i%len(points)])
		k.others()
	}
	k.close()
	one := k.start()
	k.alive(one)
	k.report("kills", k.verify(one, k.beside))
}

// killing is a rig whose instance is killed again and again.
type killing struct {
	*rig
	kills   int
	engines int // kills of ClickHouse
	brokers int // stops of the broker
	beside  *process
}

const (
	// hitMax is how long a process may take to come to a failpoint; then it is killed
	// where it is.
	hitMax = 10 * time.Second

	// away is beyond the session's time-out: the others take over.
	away = 7 * time.Second

	// silenced is how long a broker must not answer for the outcome of a transaction to
	// be unknown: twice the transaction's time-out.
	silenced = 8 * time.Second
)

// killAt brings an instance to a failpoint, where it is killed.
func (k *killing) killAt(at failpoint) {
	k.t.Helper()
	switch at.when {
	case running, starting, beginning:
		k.die(k.launch(at))
	case stopping:
		p := k.launch(at)
		k.alive(p)
		_ = p.Process.Signal(os.Interrupt)
		select {
		case <-p.done:
		case <-time.After(hitMax):
		}
		if p.ended() && p.err == nil { // it had less to do than that
			k.note(p)
			return
		}
		k.die(p)
	case joined:
		p := k.launch(at)
		k.alive(p)
		q := k.start("--set", "kafka.instance=")
		k.die(p)
		k.leave(q)
	case doubting:
		k.die(k.launch(failpoint{name: "archive.marked", often: 2}))
		k.die(k.launch(at))
	case unheard:
		p := k.launch(at)
		k.alive(p)
		for range 4 {
			if !p.ended() {
				k.killEngine(time.Duration(k.rng.IntN(300)) * time.Millisecond)
				k.engines++
				time.Sleep(time.Second)
			}
		}
		k.die(p)
	case unknown:
		p := k.startWith([]string{pipelinetest.Arm(k.arm(failpoint{name: "txn.offsets-added", often: 20}, "WAIT"), k.arm(at, "KILL"))})
		k.hit(p, "txn.offsets-added") // the commit will be asked for, and not be answered
		signalBroker(k.t, syscall.SIGSTOP)
		time.Sleep(silenced)
		signalBroker(k.t, syscall.SIGCONT)
		k.brokers++
		k.die(p)
	case rebuilt:
		k.leave(k.beside) // it would stop for want of a snapshot
		k.forget()
		k.die(k.launch(at, "--rebuild"))
		p := k.start("--rebuild") // what it was killed in is done, before anyone starts without
		k.until("every partition is rebuilt", func() bool { return p.ended() || lives(p) >= k.conf.Kafka.Partitions })
		k.leave(p)
		k.beside = k.start("--set", "kafka.instance=two")
	}
}

// die waits for the kill at a failpoint, and counts it.
func (k *killing) die(p *process) {
	k.t.Helper()
	k.kills++
	if !k.dies(p, hitMax) {
		k.t.Logf("killed elsewhere than asked for: %s", armed(p))
	}
	if k.rng.IntN(12) == 0 {
		time.Sleep(away)
	}
}

// armed is how a process was armed.
func armed(p *process) string {
	i := slices.IndexFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, pipelinetest.FailpointVariable) })
	return p.Env[max(i, 0)]
}

// leave stops an instance cleanly.
func (k *killing) leave(p *process) {
	k.t.Helper()
	k.until("it listens to signals", func() bool { return p.ended() || len(p.logged("running")) > 0 })
	k.note(p)
	k.stop(p)
}

// others kills the instance beside now and then, at any moment, and starts it again.
func (k *killing) others() {
	k.t.Helper()
	if k.beside.ended() {
		k.t.Fatalf("the instance beside ended by itself: %v\n%s", k.beside.err, k.beside.last(5))
	}
	if k.rng.IntN(8) > 0 {
		return
	}
	k.beside.kill()
	k.kills++
	k.random++
	k.note(k.beside)
	k.beside = k.start("--set", "kafka.instance=two")
}

// forget removes all snapshots.
func (k *killing) forget() {
	k.t.Helper()
	root := strings.TrimPrefix(k.conf.Snapshots.Bucket, "file://")
	files, err := filepath.Glob(filepath.Join(root, "*", "p*", "*.snap"))
	if err != nil {
		k.t.Fatal(err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil && !os.IsNotExist(err) {
			k.t.Fatal(err)
		}
	}
}

// report says what the run came to.
func (k *killing) report(what string, v *verdict) {
	k.t.Helper()
	if files := k.leftovers(); len(files) > k.conf.Kafka.Partitions { // the next snapshot of each would remove its one
		k.t.Errorf("%d files in the bucket that are no snapshots: %v", len(files), files[:1])
	}
	hits, points := map[string]int{}, 0
	for _, f := range failpoints() {
		if hits[f.name] = k.hits[f.name]; hits[f.name] > 0 {
			points++
		}
	}
	details := map[string]any{
		"seed": k.seed, "points": points, "hits": hits, "random": k.random, "clickhouse_kills": k.engines, "broker_stops": k.brokers,
	}
	v.details(details)
	recoveryDetails(details, k.recoveries)
	tell(k.t, what, k.kills, details)
}

func (v *verdict) details(into map[string]any) {
	into["broker_faults"] = v.mended
	into["records"], into["triggers"], into["muted"], into["dead_letters"], into["users"] = v.records, v.Triggers, v.Muted, v.DeadLetters, v.Users
	into["rows_resent"], into["verify_s"] = v.resent, v.duration.Seconds()
}

// recoveryDetails adds the median and the longest recovery.
func recoveryDetails(into map[string]any, all []recovery) {
	if len(all) == 0 {
		return
	}
	slices.SortFunc(all, func(a, b recovery) int { return int(a.live - b.live) })
	into["recoveries"], into["recovery_p50_s"], into["recovery_max_s"] = len(all), all[len(all)/2].live.Seconds(), all[len(all)-1].live.Seconds()
}
