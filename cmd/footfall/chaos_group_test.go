//go:build chaos

package main

import (
	"flag"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"footfall/pipeline/pipelinetest"
	"footfall/schemas"
	"footfall/sources/kafka"
)

var (
	chaosStops      = flag.Int("chaos.stops", 2, "processes stopped for longer than their time-outs, in TestChaosStops")
	chaosRebalances = flag.Int("chaos.rebalances", 20, "instances that join, leave and die, in TestChaosRebalances")
)

// An instance is stopped (SIGSTOP) until its session and its transaction are over and
// another one has its partitions, and wakes up: what it still has to say, and to insert,
// belongs to nobody any more, nor do the silences that its clock says are due.
func TestChaosStops(t *testing.T) {
	for i, lane := range []schemas.Lane{schemas.Replay, schemas.Live} {
		t.Run(lane.String(), func(t *testing.T) { stops(t, lane, (*chaosStops+i)/2) })
	}
}

func stops(t *testing.T, lane schemas.Lane, n int) {
	r := newRig(t, realKafka(t), lane)
	other := r.start("--set", "kafka.instance=two")
	r.ready()
	r.open(map[schemas.Lane]float64{schemas.Replay: 600, schemas.Live: 200}[lane])
	points := slices.DeleteFunc(failpoints(), func(f failpoint) bool { return f.when != running && f.when != starting })
	r.rng.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	fenced := 0
	for i := range n {
		at := points[i%len(points)]
		p := r.startWith([]string{pipelinetest.Arm(r.arm(at, "STOP"))})
		r.hit(p, at.name)
		r.hits[at.name]++
		r.overtaken()
		if err := p.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(r.rng.IntN(3000)) * time.Millisecond)
		if p.ended() {
			t.Errorf("stopped at %s, it ended by itself when it woke: %v\n%s", at.name, p.err, p.last(8))
		}
		if len(p.logged("partition lost")) > 0 {
			fenced++
		}
		if other.ended() {
			t.Fatalf("the other instance ended by itself: %v\n%s", other.err, other.last(8))
		}
		p.kill()
	}
	r.close()
	one := r.start()
	r.alive(one)
	details := map[string]any{"seed": r.seed, "hits": r.hits, "lost_their_partitions": fenced}
	r.verify(one, other).details(details)
	tell(t, "stops", n, details)
}

// overtaken waits until every partition is committed by who runs, and the time-outs of
// who does not are over.
func (r *rig) overtaken() {
	r.t.Helper()
	stopped := time.Now()
	before := r.offsets()
	r.until("others have taken over", func() bool {
		now := r.offsets()
		for p, offset := range before {
			if now[p] <= offset {
				return false
			}
		}
		return len(before) == r.conf.Kafka.Partitions && time.Since(stopped) > r.conf.Kafka.SessionTimeout+r.conf.Kafka.TransactionTimeout
	})
}

// offsets are those that the group has committed.
func (r *rig) offsets() map[int32]int64 {
	r.t.Helper()
	cl := r.reader()
	defer cl.Close()
	found := map[int32]int64{}
	offsets, err := kadm.NewClient(cl).FetchOffsets(r.t.Context(), r.conf.Kafka.Group)
	if err != nil {
		return found // a broker that is away; who asks looks again
	}
	for p, o := range offsets[r.conf.Kafka.Topics.Events] {
		found[p] = o.At
	}
	return found
}

// Instances come and go: one becomes three, each of them is restarted in turn, others
// join, leave and are killed, until one is left.
func TestChaosRebalances(t *testing.T) {
	g := &group{rig: newRig(t, realKafka(t), schemas.Replay)}
	g.add()
	g.ready()
	g.open(600)
	for len(g.members) < 3 {
		g.add()
		g.settled()
	}
	for range 3 { // a rolling restart
		g.leave(0)
		g.add()
		g.settled()
	}
	for g.changes < *chaosRebalances-2 {
		for range 1 + g.rng.IntN(2) {
			switch choice := g.rng.IntN(10); {
			case len(g.members) < 2, choice < 5 && len(g.members) < 5:
				g.add()
			case choice < 9:
				g.leave(g.rng.IntN(len(g.members)))
			default:
				g.die(g.rng.IntN(len(g.members)))
			}
		}
		g.settled()
	}
	for len(g.members) > 1 {
		g.leave(0)
		g.settled()
	}
	g.close()
	details := map[string]any{"seed": g.seed, "joined": g.joined, "killed": g.killedCount}
	g.verify(g.members...).details(details)
	tell(t, "rebalances", g.changes, details)
}

// group is a rig of many instances, without names of their own but for every third.
type group struct {
	*rig
	members                      []*process
	changes, joined, killedCount int
}

// add starts one more.
func (g *group) add() {
	g.t.Helper()
	name := ""
	if g.joined%3 == 2 {
		name = fmt.Sprint("named-", g.joined)
	}
	g.members = append(g.members, g.start("--set", "kafka.instance="+name))
	g.joined++
	g.changes++
}

// leave stops one cleanly. Rebalances may be under way.
func (g *group) leave(i int) {
	g.t.Helper()
	p := g.members[i]
	g.until("it listens to signals", func() bool { return p.ended() || len(p.logged("running")) > 0 })
	g.stop(p)
	g.members = slices.Delete(g.members, i, i+1)
	g.changes++
}

func (g *group) die(i int) {
	g.t.Helper()
	g.members[i].kill()
	g.killed(g.members[i])
	g.members = slices.Delete(g.members, i, i+1)
	g.changes++
	g.killedCount++
}

// settled waits until the group is what the instances that run make it.
func (g *group) settled() {
	g.t.Helper()
	cl := g.reader()
	defer cl.Close()
	g.until(fmt.Sprintf("the group is stable with %d members", len(g.members)), func() bool {
		for _, p := range g.members {
			if p.ended() {
				g.t.Fatalf("an instance ended by itself: %v\n%s", p.err, p.last(8))
			}
		}
		state, members, err := g.describe(kadm.NewClient(cl))
		return err == nil && state == "Stable" && members == len(g.members)
	})
}

// describe asks for the state of the group and how many are in it, as its protocol wants.
func (r *rig) describe(admin *kadm.Client) (state string, members int, err error) {
	if name := r.conf.Kafka.Group; r.conf.Kafka.Protocol == string(kafka.Consumer) {
		groups, err := admin.DescribeConsumerGroups(r.t.Context(), name)
		return groups[name].State, len(groups[name].Members), err
	}
	groups, err := admin.DescribeGroups(r.t.Context(), r.conf.Kafka.Group)
	described := groups[r.conf.Kafka.Group]
	return described.State, len(described.Members), err
}
