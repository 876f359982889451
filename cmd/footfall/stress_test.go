//go:build chaos

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"footfall/schemas"
	"footfall/sinks/clickhouse/chdbtest"
	"footfall/sources/storefront"
)

var (
	stress = flag.Duration("stress", 0, "how long the tests of stress keep what we need away; 0: they are skipped")
	timers = flag.Int("stress.timers", 1_000_000, "shoppers of whom silence is due in one second, in TestStressTimers")
)

// The tests of stress take minutes, and run in the campaign only. What they measure is
// told; what they hold is that memory is bounded, that nothing is lost or doubled, and
// that what was away is caught up with.
func stressed(t *testing.T, lane schemas.Lane) *rig {
	if *stress == 0 {
		t.Skip("takes minutes: only with -stress DURATION, as the campaign does")
	}
	return newRig(t, realKafka(t), lane)
}

// growthMax is by how much a process may grow under stress: what it buffers of batches,
// fetches and connections, with the garbage of the Go runtime.
const growthMax = 300 << 20

// gauge samples how much memory a process has.
type gauge struct {
	mu         sync.Mutex // guards what follows
	first, max int64
}

func (p *process) gauge(ctx context.Context) *gauge {
	g := &gauge{}
	go func() { // until ctx ends
		for ctx.Err() == nil {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.Process.Pid))
			if fields := strings.Fields(string(text)); err == nil && len(fields) > 1 {
				pages, _ := strconv.ParseInt(fields[1], 10, 64)
				g.mu.Lock()
				if g.first == 0 {
					g.first = pages * int64(os.Getpagesize())
				}
				g.max = max(g.max, pages*int64(os.Getpagesize()))
				g.mu.Unlock()
			}
			time.Sleep(200 * time.Millisecond)
		}
	}()
	return g
}

// bounded fails the test if the process has grown too much.
func (g *gauge) bounded(t *testing.T, details map[string]any) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	details["rss_before_mb"], details["rss_max_mb"] = g.first>>20, g.max>>20
	if g.max-g.first > growthMax {
		t.Errorf("it grew from %d to %d MiB", g.first>>20, g.max>>20)
	}
}

// watch measures the latency of triggers, as a consumer sees it.
func (r *rig) watch(ctx context.Context) *demoWatch {
	r.t.Helper()
	rules, err := r.conf.rules()
	if err != nil {
		r.t.Fatal(err)
	}
	w, err := newDemoWatch(r.conf, rules.Names())
	if err != nil {
		r.t.Fatal(err)
	}
	go func() { _ = w.run(ctx) }() // until ctx ends; while Kafka is away it fails, and measures no more
	return w
}

// since gives the latency of what it has seen since it was last asked.
func (w *demoWatch) since() demoLatency {
	l := w.latency()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latencies = w.latencies[:0]
	return l
}

// unaffected fails the test where triggers came much later than before in the same run,
// or not at all. A pause of the machine is not yet an effect, hence the two seconds.
func unaffected(t *testing.T, before, during demoLatency, details map[string]any) {
	t.Helper()
	if before.N == 0 || during.N == 0 {
		t.Errorf("the latency of %d triggers was measured before and of %d during", before.N, during.N)
		return
	}
	details["before_p50_ms"], details["before_p99_ms"], details["before_n"] = *before.P50, *before.P99, before.N
	details["latency_p50_ms"], details["latency_p99_ms"], details["latency_n"] = *during.P50, *during.P99, during.N
	if limit := 10**before.P99 + 2000; *during.P99 > limit {
		t.Errorf("99%% of the triggers came within %.0f ms, %.0f ms before: the limit is %.0f ms", *during.P99, *before.P99, limit)
	}
}

// outage is something kept away.
type outage struct {
	what       string
	gone, back func()
	unnoticed  bool // by those who wait for triggers
}

// away keeps something away for as long as the flag says, while a shop publishes, and
// has everything judged when it is back and caught up with.
func (r *rig) away(o outage) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	p := r.start()
	r.ready()
	w := r.watch(ctx)
	r.open(500)
	r.goesOn([]*process{p})
	w.since() // of the start
	time.Sleep(*stress / 4)
	before, g := w.since(), p.gauge(ctx)
	o.gone()
	time.Sleep(*stress)
	during := w.since()
	details := map[string]any{"stressed_by": o.what, "seed": r.seed, "lane": r.conf.Kafka.Lane.String()}
	if o.unnoticed {
		unaffected(r.t, before, during, details)
	}
	o.back()
	returned := time.Now()
	r.close()
	r.applied()
	details["applied_after_s"] = time.Since(returned).Seconds()
	r.archived()
	details["archived_after_s"] = time.Since(returned).Seconds()
	g.bounded(r.t, details)
	r.verify(p).details(details)
	tell(r.t, "stress", 1, details)
}

// ClickHouse is away, and nobody who waits for a trigger notices.
func TestStressClickHouseAway(t *testing.T) {
	r := stressed(t, schemas.Live)
	addr := r.engine.Addr()
	r.away(outage{what: "clickhouse", unnoticed: true, gone: func() {
		if err := r.engine.Kill(); err != nil {
			t.Fatal(err)
		}
	}, back: func() { r.engine = chdbtest.StartIn(t, r.dir, addr) }})
}

// ClickHouse is there, and stands still for most of the time, for moments or for longer
// than anybody waits: nobody who waits for a trigger notices that either.
func TestStressClickHouseSlow(t *testing.T) {
	r := stressed(t, schemas.Live)
	signal := func(s syscall.Signal) {
		if err := syscall.Kill(r.engine.Pid(), s); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	r.away(outage{what: "slow clickhouse", unnoticed: true, gone: func() {
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				signal(syscall.SIGSTOP)
				select {
				case <-ctx.Done():
				case <-time.After(time.Duration(1+r.rng.IntN(15)) * time.Second):
				}
				signal(syscall.SIGCONT)
				time.Sleep(300 * time.Millisecond)
			}
		}()
	}, back: func() {
		cancel()
		<-done
	}})
}

// Kafka is away: everything waits for it, and goes on.
func TestStressKafkaAway(t *testing.T) {
	r := stressed(t, schemas.Replay)
	r.away(outage{what: "kafka", gone: func() { broker(t, "kill9", brokerDir()) }, back: func() { broker(t, "restart", brokerDir()) }})
}

// Kafka is there, and stands still for most of the time, though never for as long as a
// session lasts: everything is late, and nothing else.
func TestStressKafkaSlow(t *testing.T) {
	r := stressed(t, schemas.Replay)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	r.away(outage{what: "slow kafka", gone: func() {
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				signalBroker(t, syscall.SIGSTOP)
				time.Sleep(time.Duration(200+r.rng.IntN(1300)) * time.Millisecond)
				signalBroker(t, syscall.SIGCONT)
				time.Sleep(time.Duration(100+r.rng.IntN(400)) * time.Millisecond)
			}
		}()
	}, back: func() {
		cancel()
		<-done
	}})
}

// The bucket is away: a file stands where its folder was. Who waits for a trigger does
// not notice.
func TestStressBucketAway(t *testing.T) {
	r := stressed(t, schemas.Replay)
	dir := strings.TrimPrefix(r.conf.Snapshots.Bucket, "file://")
	r.away(outage{what: "bucket", unnoticed: true, gone: func() {
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}, back: func() {
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
	}})
}

// One shopper has half the traffic, and a tenth of the rest is rubbish: the largest
// values there may be, deep nesting, endless numbers, bytes that are no text.
func TestStressHotUserAndPoison(t *testing.T) {
	r := stressed(t, schemas.Live)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := r.start()
	r.ready()
	g, w := p.gauge(ctx), r.watch(ctx)
	pub, err := r.conf.publisher(ctx, storefront.PublisherConfig{Rate: 3000})
	if err != nil {
		t.Fatal(err)
	}
	poison := [][]byte{
		bytes.Repeat([]byte("["), 1<<16), []byte(`{"event_id":1` + strings.Repeat("0", 1<<15) + `}`),
		{0xff, 0xfe, 0},
		nil,
		[]byte(`{"event_id":"x","type":"view","user_id":"poison","time":1e308}`), append([]byte(`{"properties":"`), bytes.Repeat([]byte("x"), 1<<19)...),
		[]byte(`{"event_id":"x","type":"view","user_id":"other","time":1}`), []byte(`{"a":` + strings.Repeat(`{"a":`, 4000) + strings.Repeat("}", 4001)),
	}
	sent := 0
	for end := time.Now().Add(*stress); time.Now().Before(end); sent++ {
		user := "hot"
		if sent%2 == 1 {
			user = fmt.Sprint("u", r.rng.IntN(20_000))
		}
		rec := storefront.Record{
			Key:   []byte(user),
			Value: fmt.Appendf(nil, `{"event_id":"e%d","type":"view","user_id":%q,"time":%d}`, sent, user, wall()),
		}
		if sent%20 == 19 {
			rec = storefront.Record{Key: []byte("poison"), Value: poison[r.rng.IntN(len(poison))]}
		}
		if err := pub.Publish(ctx, rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := pub.Close(); err != nil {
		t.Fatal(err)
	}
	details := map[string]any{"stressed_by": "hot user and poison", "seed": r.seed, "sent": sent}
	if l := w.latency(); l.N > 0 {
		details["latency_p50_ms"], details["latency_p99_ms"], details["latency_n"] = *l.P50, *l.P99, l.N
	}
	g.bounded(t, details)
	v := r.verify(p)
	if v.DeadLetters != sent/20 {
		t.Errorf("%d dead letters, want the %d poisoned records", v.DeadLetters, sent/20)
	}
	v.details(details)
	tell(t, "stress", 1, details)
}

// Silence is due of a million shoppers in one second, beside live traffic: each is said
// once, and what lives goes on meanwhile.
func TestStressTimers(t *testing.T) {
	r := stressed(t, schemas.Live)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := r.start()
	r.ready()
	w := r.watch(ctx)
	pub, err := r.conf.publisher(ctx, storefront.PublisherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	// By what is seen here, publishing and applying a million takes less than a minute.
	due := wall() + 3*schemas.Minute
	for i := range *timers {
		value := fmt.Appendf(nil, `{"event_id":"s%d","type":"purchase","user_id":"s%d","order_id":"s%d","revenue":1,"time":%d}`, i, i, i, due-30*schemas.Day)
		if err := pub.Publish(ctx, storefront.Record{Key: fmt.Appendf(nil, "s%d", i), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	if err := pub.Flush(); err != nil {
		t.Fatal(err)
	}
	const calm = 20 * schemas.Second
	r.until("all are applied and seen", func() bool { return r.behind() == 0 && w.moves() == *timers })
	if wall() > due-calm {
		t.Fatalf("this machine has not applied %d shoppers before they were due: fewer with -stress.timers", *timers)
	}
	live := 0
	lively := func(until func() bool) demoLatency {
		w.since()
		for ; !until(); live++ {
			value := fmt.Appendf(nil, `{"event_id":"l%d","type":"view","user_id":"l%d","time":%d}`, live, live, wall())
			if err := pub.Publish(ctx, storefront.Record{Key: fmt.Appendf(nil, "l%d", live), Value: value}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Millisecond)
		}
		return w.since()
	}
	before := lively(func() bool { return wall() >= due-2*schemas.Second })
	g, began := p.gauge(ctx), time.Now()
	during := lively(func() bool {
		if time.Since(began) > 10*time.Minute {
			t.Fatalf("after ten minutes %d transitions are seen, of %d silent shoppers and %d lively ones", w.moves(), *timers, live)
		}
		return w.moves() >= 2**timers+live-200 // those of the last second may be under way
	})
	if err := pub.Close(); err != nil {
		t.Fatal(err)
	}
	details := map[string]any{"stressed_by": "timers", "timers": *timers, "live": live, "fired_after_s": time.Since(began).Seconds() - 2}
	unaffected(t, before, during, details)
	g.bounded(t, details)
	v := r.verify(p)
	if v.Report != nil && v.Triggers+v.Muted != 2**timers+live {
		t.Errorf("%d transitions, want two of each of %d silent shoppers and one of each of %d lively ones", v.Triggers+v.Muted, *timers, live)
	}
	v.details(details)
	tell(t, "stress", 1, details)
}

// moves is how many transitions it has seen.
func (w *demoWatch) moves() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.triggers + w.muted
}

// behind is how many input offsets are not committed, 1 while that is not known.
func (r *rig) behind() (n int64) {
	r.t.Helper()
	cl := r.reader()
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(r.t.Context(), r.conf.Kafka.Topics.Events)
	if err != nil || ends.Error() != nil {
		return 1
	}
	committed := r.offsets()
	ends.Each(func(o kadm.ListedOffset) { n += max(0, o.Offset-committed[o.Partition]) })
	return n
}

// spoken is the sum of the numbers n that are committed.
func (r *rig) spoken() (n int) {
	r.t.Helper()
	for _, m := range r.committedMarks() {
		n += int(m.N)
	}
	return n
}

// mixedUp puts another cluster's snapshots where ours were: of topics, a group and
// partitions of the same names, and of other shoppers. Its layout says whose they are.
func mixedUp(layout bool) func(t *testing.T, r *rig) {
	return func(t *testing.T, r *rig) {
		k := &r.conf.Kafka
		other := newRig(t, startCluster(t, "start").addresses, schemas.Replay, "snapshots.every=1s", "kafka.group="+k.Group,
			"kafka.topics.events="+k.Topics.Events, "kafka.topics.triggers="+k.Topics.Triggers,
			"kafka.topics.muted="+k.Topics.Muted, "kafka.topics.dead_letters="+k.Topics.DeadLetters)
		other.seed = r.seed + 1
		other.history()
		folder := func(r *rig) string {
			return filepath.Join(strings.TrimPrefix(r.conf.Snapshots.Bucket, "file://"), k.Group)
		}
		if err := errors.Join(os.RemoveAll(folder(r)), os.CopyFS(folder(r), os.DirFS(folder(other)))); err != nil {
			t.Fatal(err)
		}
		for _, f := range r.snapshots() {
			if strings.HasPrefix(filepath.Base(f), strings.Repeat("0", 19)+"-") { // the empty one of the beginning fits any log
				if err := os.Remove(f); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !layout {
			if err := os.Remove(filepath.Join(folder(r), "layout")); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// history is a life until each partition has some snapshots; nothing is published after
// it, and the instance lives.
func (r *rig) history() *process {
	r.t.Helper()
	p := r.start()
	r.ready()
	r.open(500)
	r.until("snapshots are taken", func() bool { return r.generations() >= 3 })
	r.close()
	r.applied()
	return p
}

// madeAnew deletes the input and makes it anew under its name.
func madeAnew(t *testing.T, r *rig) {
	cl := r.reader()
	defer cl.Close()
	admin, topic := kadm.NewClient(cl), r.conf.Kafka.Topics.Events
	if _, err := admin.DeleteTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	r.until("it is made anew", func() bool {
		_, err := admin.CreateTopic(t.Context(), int32(r.conf.Kafka.Partitions), 1, nil, topic)
		return err == nil
	})
}

// expanded gives the input two more partitions.
func expanded(t *testing.T, r *rig) {
	cl := r.reader()
	defer cl.Close()
	admin, topic := kadm.NewClient(cl), r.conf.Kafka.Topics.Events
	if _, err := admin.UpdatePartitions(t.Context(), r.conf.Kafka.Partitions+2, topic); err != nil {
		t.Fatal(err)
	}
	r.until("it has them", func() bool {
		topics, err := admin.ListTopics(t.Context(), topic)
		return err == nil && len(topics[topic].Partitions) == r.conf.Kafka.Partitions+2
	})
}

// History that is not what it was, between two lives or beside a living instance: each is
// refused, with what to do, or mended; nothing begins from nothing, and no trigger is
// sent again.
func TestStressHistoryChanged(t *testing.T) {
	if *stress == 0 {
		t.Skip("only with -stress DURATION, as the campaign does")
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, r *rig)
		says   string
		beside bool // a living instance
	}{
		"the group's offsets have expired": {change: func(t *testing.T, r *rig) {
			cl := r.reader()
			defer cl.Close()
			r.until("the group is deleted", func() bool {
				_, err := kadm.NewClient(cl).DeleteGroup(t.Context(), r.conf.Kafka.Group)
				return err == nil
			})
		}, says: "--rebuild"},
		"retention has passed the snapshots": {change: func(t *testing.T, r *rig) {
			for _, files := range r.byPartition() {
				for _, f := range files[1:] { // all but the empty one, where there is one
					if err := os.Remove(f); err != nil {
						t.Fatal(err)
					}
				}
			}
			cl := r.reader()
			defer cl.Close()
			var before kadm.Offsets
			for p, offset := range r.offsets() {
				before.Add(kadm.Offset{Topic: r.conf.Kafka.Topics.Events, Partition: p, At: offset})
			}
			if _, err := kadm.NewClient(cl).DeleteRecords(t.Context(), before); err != nil {
				t.Fatal(err)
			}
		}, says: "--rebuild"},
		"the snapshots are another cluster's":                 {change: mixedUp(false), says: "--rebuild"},
		"the snapshots are another cluster's, and its layout": {change: mixedUp(true), says: "is another cluster's"},
		"the input has more partitions":                       {change: expanded, says: "move to a new one"},
		"the input gets more partitions":                      {change: expanded, says: "Publish to a new topic", beside: true},
		"the input was made anew":                             {change: madeAnew, says: "a bucket of its own"},
		"the input is made anew":                              {change: madeAnew, says: "begin anew", beside: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, realKafka(t), schemas.Replay, "snapshots.every=1s")
			p := r.history()
			if !c.beside {
				p.kill()
			}
			said := r.spoken()
			c.change(t, r)
			if !c.beside {
				p = r.start()
			}
			select {
			case <-p.done:
			case <-time.After(2 * time.Minute):
				t.Fatalf("it runs on:\n%s", p.last(20))
			}
			if p.err == nil || !strings.Contains(p.last(20), c.says) {
				t.Errorf("it ended with %v and does not say what to do:\n%s", p.err, p.last(8))
			}
			dump, _ := r.readTopics()
			if n := len(dump.Triggers) + len(dump.Muted) + len(dump.DeadLetters); n != said {
				t.Errorf("%d outputs were said, and there are %d now", said, n)
			}
		})
	}
	tell(t, "stress", 1, map[string]any{"stressed_by": "history changed"})
}
