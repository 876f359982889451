//go:build chaos

package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
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

// growthMax is by how much a process may grow while something is away: what it buffers
// of batches, fetches and connections, with the garbage of the Go runtime.
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

// away keeps something away for as long as the flag says, while a shop publishes, and
// has everything judged when it is back and caught up with.
func (r *rig) away(what string, lane schemas.Lane, gone, back func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	p := r.start()
	r.ready()
	r.open(500)
	r.goesOn([]*process{p})
	g := p.gauge(ctx)
	w := r.watch(ctx)
	gone()
	time.Sleep(*stress)
	details := map[string]any{"stressed_by": what, "seed": r.seed, "lane": lane.String()}
	if l := w.latency(); l.N > 0 {
		details["latency_p50_ms"], details["latency_p99_ms"], details["latency_n"] = *l.P50, *l.P99, l.N
	}
	back()
	returned := time.Now()
	r.close()
	r.applied(5 * time.Minute)
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
	r.away("clickhouse", schemas.Live, func() {
		if err := r.engine.Kill(); err != nil {
			t.Fatal(err)
		}
	}, func() { r.engine = chdbtest.StartIn(t, r.dir, addr) })
}

// Kafka is away: everything waits for it, and goes on.
func TestStressKafkaAway(t *testing.T) {
	r := stressed(t, schemas.Replay)
	r.away("kafka", schemas.Replay, func() { broker(t, "kill9", brokerDir()) }, func() { broker(t, "restart", brokerDir()) })
}

// The bucket is away: a file stands where its folder was.
func TestStressBucketAway(t *testing.T) {
	r := stressed(t, schemas.Replay)
	dir := strings.TrimPrefix(r.conf.Snapshots.Bucket, "file://")
	r.away("bucket", schemas.Replay, func() {
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}, func() {
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
	})
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
	if len(v.hangs) == 0 && v.DeadLetters != sent/20 {
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
	pub, err := r.conf.publisher(ctx, storefront.PublisherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	// By what is seen here, publishing and applying a million takes less than a minute.
	due := wall() + 2*schemas.Minute
	for i := range *timers {
		value := fmt.Appendf(nil, `{"event_id":"s%d","type":"purchase","user_id":"s%d","order_id":"s%d","revenue":1,"time":%d}`, i, i, i, due-30*schemas.Day)
		if err := pub.Publish(ctx, storefront.Record{Key: fmt.Appendf(nil, "s%d", i), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	if err := pub.Flush(); err != nil {
		t.Fatal(err)
	}
	r.until("all are applied", 5*time.Minute, func() bool { return r.behind() == 0 })
	if wall() > due {
		t.Skipf("this machine has not applied %d shoppers before they were due", *timers)
	}
	w := r.watch(ctx)
	w.skip() // all that was said before
	live := 0
	for end := due + 30*schemas.Second; wall() < end; live++ {
		value := fmt.Appendf(nil, `{"event_id":"l%d","type":"view","user_id":"l%d","time":%d}`, live, live, wall())
		if err := pub.Publish(ctx, storefront.Record{Key: fmt.Appendf(nil, "l%d", live), Value: value}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := pub.Close(); err != nil {
		t.Fatal(err)
	}
	details := map[string]any{"stressed_by": "timers", "timers": *timers, "live": live}
	if l := w.latency(); l.N > 0 {
		details["latency_p50_ms"], details["latency_p99_ms"], details["latency_n"] = *l.P50, *l.P99, l.N
	}
	r.until("all shoppers are cooling", 10*time.Minute, func() bool { return r.behind() == 0 && r.spoken() == 2**timers+live })
	r.archived()
	r.stop(p)
	if n := r.number("SELECT count() FROM segment_now WHERE segment = 'cooling' AND seq = 2"); n != *timers {
		t.Errorf("%d shoppers are cooling in ClickHouse, want %d", n, *timers)
	}
	if n := r.number("SELECT count() FROM segment_now WHERE segment = 'prospect' AND seq = 1"); n != live {
		t.Errorf("%d shoppers are prospects in ClickHouse, want %d", n, live)
	}
	tell(t, "stress", 1, details)
}

// skip forgets what was watched so far.
func (w *demoWatch) skip() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latencies = w.latencies[:0]
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

// History that is not what it was: each is refused, with what to do, or mended; nothing
// begins from nothing, and no trigger is sent again.
func TestStressHistoryChanged(t *testing.T) {
	if *stress == 0 {
		t.Skip("only with -stress DURATION, as the campaign does")
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, r *rig)
		says   string
	}{
		"the group's offsets have expired": {func(t *testing.T, r *rig) {
			cl := r.reader()
			defer cl.Close()
			r.until("the group is deleted", time.Minute, func() bool {
				_, err := kadm.NewClient(cl).DeleteGroup(t.Context(), r.conf.Kafka.Group)
				return err == nil
			})
		}, "--rebuild"},
		"retention has passed the snapshots": {func(t *testing.T, r *rig) {
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
		}, "--rebuild"},
		"the snapshots are another cluster's": {func(t *testing.T, r *rig) {
			all := r.byPartition()
			for i, files := range all { // under the names that are looked for
				other, err := os.ReadFile(all[(i+1)%len(all)][0])
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range files {
					if err := os.WriteFile(f, other, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
		}, "--rebuild"},
		"the input has more partitions": {func(t *testing.T, r *rig) {
			cl := r.reader()
			defer cl.Close()
			if _, err := kadm.NewClient(cl).UpdatePartitions(t.Context(), 6, r.conf.Kafka.Topics.Events); err != nil {
				t.Fatal(err)
			}
			r.until("it has", time.Minute, func() bool {
				topics, err := kadm.NewClient(cl).ListTopics(t.Context(), r.conf.Kafka.Topics.Events)
				return err == nil && len(topics[r.conf.Kafka.Topics.Events].Partitions) == 6
			})
		}, "partitions"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, realKafka(t), schemas.Replay, "snapshots.every=1s")
			p := r.start()
			r.ready()
			r.open(500)
			r.until("snapshots are taken", time.Minute, func() bool { return r.generations() >= 3 })
			r.close()
			r.applied(time.Minute)
			p.kill()
			said := r.spoken()
			c.change(t, r)
			p = r.start()
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
