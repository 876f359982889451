//go:build chaos

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/pipelinetest"
	"footfall/schemas"
	"footfall/sinks/clickhouse/chdb"
	"footfall/sinks/clickhouse/chdbtest"
	"footfall/sources/kafka"
	"footfall/sources/storefront"
)

// The tests of chaos run footfall as processes on a real Kafka, and ClickHouse in a
// process of its own, and kill and stop all three, at failpoints and at random moments,
// while a storefront publishes. In the end everything is judged by programs that share
// nothing with the engine (chaos_verify_test.go). What a run does follows from its
// seed, but not when: it is logged, and `-chaos.seed` chooses the same again.
//
// Their flags say how much; the defaults are CI's share.
var chaosSeed = flag.Uint64("chaos.seed", 0, "what the tests of chaos choose follows from it; 0: from the time")

// rig is a house in which everything can be killed.
type rig struct {
	*house
	rng    *rand.Rand
	seed   uint64
	engine *chdb.Local // ClickHouse
	dir    string      // of its tables
	shop   *publishing
	saw    *witness

	// silence is when the last shopper's silence is due, by the wall; the publisher's
	// goroutine moves it, and it is read after close.
	silence schemas.Millis

	hits       map[string]int // by failpoint
	random     int            // kills at moments of no name
	recoveries []recovery
}

// recovery is how long a process took from its start after a kill until it went on.
type recovery struct {
	users, partitions int
	records           int64
	live              time.Duration // until the last of the partitions that it was given first had recovered
}

func newRig(t *testing.T, broker string, lane schemas.Lane, more ...string) *rig {
	return newRigOn(t, t.TempDir(), broker, lane, more...)
}

// newRigOn makes one whose ClickHouse keeps its tables in a folder.
func newRigOn(t *testing.T, tables, broker string, lane schemas.Lane, more ...string) *rig {
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	protocol := []kafka.Protocol{kafka.Classic, kafka.Consumer}[seed%2]
	t.Logf("-chaos.seed %d, group protocol %s", seed, protocol)
	r := &rig{rng: rand.New(rand.NewPCG(seed, uint64(lane))), seed: seed, dir: tables, hits: map[string]int{}}
	r.engine = chdbtest.StartIn(t, r.dir, "")
	settings := []string{"clickhouse.batch.age=100ms", "kafka.transaction_timeout=3s", "kafka.partitions=4", "kafka.protocol=" + string(protocol)}
	if lane == schemas.Replay {
		settings = append(settings, "clock.max_age=3650d")
	}
	r.house = prepareHouse(t, broker, r.engine.DSN("footfall"), lane, append(settings, more...)...)
	binary, err := withFailpoints()
	if err != nil {
		t.Fatal(err)
	}
	r.binary = binary
	r.run("topics", "create")
	t.Cleanup(r.clear)
	r.saw = watching(r)
	return r
}

// withFailpoints builds footfall with its failpoints, once for all tests of a run.
var withFailpoints = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "footfall-chaos-")
	if err != nil {
		return "", err
	}
	shared = append(shared, dir)
	root := filepath.Join("..", "..")
	spec, err := pipelinetest.FailpointOverlay(root, dir, pipelinetest.Edit{
		File: "sources/kafka/hanging.go",
		Old:  "\t\tresponses, err := kadm.NewClient(cl).WriteTxnMarkers(ctx, marker)\n",
		New: "\t\tif failpointDenies(\"kafka.markers\") {\n\t\t\treturn kerr.ClusterAuthorizationFailed\n\t\t}\n" +
			"\t\tresponses, err := kadm.NewClient(cl).WriteTxnMarkers(ctx, marker)\n",
	})
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "footfall")
	c := exec.Command("go", "build", "-overlay", spec, "-o", binary, "./cmd/footfall")
	c.Dir = root
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build footfall with failpoints: %w\n%s", err, out)
	}
	return binary, nil
})

// tell says what a test has done: in its log, and, where FOOTFALL_TEST_LEDGER names a
// file, as a line of JSON in it, for the campaign.
func tell(t *testing.T, what string, count int, details map[string]any) {
	t.Helper()
	details["what"], details["count"], details["failed"] = what, count, t.Failed()
	line, err := json.Marshal(details)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", line)
	path := os.Getenv("FOOTFALL_TEST_LEDGER")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// clear removes the topics of a run that has found nothing: a broker that is killed
// takes the longer to come back, the more it has.
func (r *rig) clear() {
	if r.t.Failed() {
		return
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.conf.Kafka.Brokers...))
	if err != nil {
		r.t.Error(err)
		return
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).DeleteTopics(context.Background(), r.conf.topicNames()...); err != nil {
		r.t.Error(err)
	}
}

// arm is what a failpoint does at a random one of the first times that it is come to.
func (r *rig) arm(at failpoint, do string) pipelinetest.Armed {
	return pipelinetest.Armed{Name: at.name, N: 1 + r.rng.IntN(at.often), Do: do}
}

// withoutMarkers starts an instance that has the rights of SECURITY.md: it may not write
// markers, and ends by itself what a broker has left without.
func (r *rig) withoutMarkers(more ...string) *process {
	r.t.Helper()
	return r.startWith([]string{pipelinetest.Arm(pipelinetest.Armed{Name: "kafka.markers", N: 1, Do: "DENY"})}, more...)
}

// launch starts an instance that is killed at a failpoint.
func (r *rig) launch(at failpoint, more ...string) *process {
	r.t.Helper()
	return r.startWith([]string{pipelinetest.Arm(r.arm(at, "KILL"))}, more...)
}

// hit waits until a process has come to a failpoint, or has ended.
func (r *rig) hit(p *process, name string) {
	r.t.Helper()
	r.until("an instance comes to "+name, func() bool { return p.ended() || len(p.logged(pipelinetest.FailpointHit+name)) > 0 })
}

// alive waits until a process has brought a partition to life, or has ended.
func (r *rig) alive(p *process) {
	r.t.Helper()
	r.until("an instance is live", func() bool { return p.ended() || lives(p) > 0 })
}

// lives is how many partitions it has brought to life.
func lives(p *process) int {
	return len(p.logged("partition recovered")) + len(p.logged("partition began from nothing"))
}

// dies waits until a process has been killed at its failpoint; past the limit it is
// killed wherever it is. It says whether the failpoint was hit.
func (r *rig) dies(p *process, limit time.Duration) (hit bool) {
	r.t.Helper()
	select {
	case <-p.done:
		hit = true
	case <-time.After(limit):
		p.kill()
	}
	r.killed(p)
	points := p.logged(pipelinetest.FailpointHit)
	if !hit || len(points) == 0 {
		r.random++
		return false
	}
	r.hits[strings.TrimPrefix(points[len(points)-1].Message, pipelinetest.FailpointHit)]++
	return true
}

// killed fails the test if a process ended by itself and not by our signal.
func (r *rig) killed(p *process) {
	r.t.Helper()
	status, ok := p.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		r.t.Errorf("footfall ended by itself: %v\n%s", p.err, p.last(5))
	}
	r.note(p)
}

// slow is a recovery that is worth a look.
const slow = 20 * time.Second

// note keeps how its recovery went.
func (r *rig) note(p *process) {
	rec := recovery{}
	for _, l := range p.logged("partition recovered") {
		at := l.when(r.t)
		if rec.partitions > 0 && at.Sub(p.began) > rec.live+time.Second {
			break // given later, by a rebalance
		}
		rec.users += l.Users
		rec.records += l.Records
		rec.partitions++
		rec.live = max(rec.live, at.Sub(p.began))
	}
	if rec.partitions > 0 {
		r.recoveries = append(r.recoveries, rec)
	}
	if rec.live > slow {
		r.t.Logf("it took %s until its last partition was live:\n%s", rec.live.Round(time.Millisecond), p.last(40))
	}
}

// when is the time of a line.
func (l logLine) when(t *testing.T) time.Time {
	t.Helper()
	at, err := time.Parse("2006-01-02T15:04:05.000Z0700", l.At)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// last gives the last lines that it has logged.
func (p *process) last(n int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var text strings.Builder
	for _, l := range p.lines[max(0, len(p.lines)-n):] {
		fmt.Fprintf(&text, "  %s %s %s\n", l.At, l.Message, l.Error)
	}
	return text.String()
}

// killEngine kills ClickHouse, and starts it again at the same address.
func (r *rig) killEngine(pause time.Duration) {
	r.t.Helper()
	addr := r.engine.Addr()
	if err := r.engine.Kill(); err != nil {
		r.t.Fatal(err)
	}
	time.Sleep(pause)
	r.engine = chdbtest.StartIn(r.t, r.dir, addr)
}

// broker runs a command of the script that has started the broker.
func broker(t *testing.T, args ...string) {
	t.Helper()
	script := os.Getenv("FOOTFALL_TEST_BROKER")
	if script == "" {
		t.Skip("needs the script that has started the broker: make test-kafka and make chaos name it in FOOTFALL_TEST_BROKER")
	}
	c := exec.CommandContext(t.Context(), script, args...)
	c.Env = append(os.Environ(), "KAFKA_WAIT=300")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", script, strings.Join(args, " "), err, out)
	}
}

// brokerDir is where it keeps its data.
func brokerDir() string { return os.Getenv("FOOTFALL_TEST_BROKER_DIR") }

// signalBroker sends the brokers' processes a signal.
func signalBroker(t *testing.T, signal syscall.Signal) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(brokerDir(), "n*", "pid"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no broker's pid below FOOTFALL_TEST_BROKER_DIR %q: %v", brokerDir(), err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
	}
}

// publishing is a storefront at work.
type publishing struct {
	published atomic.Int64
	end       context.CancelFunc
	done      chan error
}

// open begins to publish, at about rate records a second, until close.
func (r *rig) open(rate float64) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &publishing{end: cancel, done: make(chan error, 1)}
	pub, err := r.conf.publisher(context.Background(), storefront.PublisherConfig{Lane: r.conf.Kafka.Lane, Rate: rate})
	if err != nil {
		r.t.Fatal(err)
	}
	next := r.shoppers()
	go func() {
		var err error
		for ctx.Err() == nil && err == nil {
			if err = pub.Publish(ctx, next()); err == nil {
				p.published.Add(1)
			}
		}
		if ctx.Err() != nil {
			err = nil
		}
		if failed := pub.Close(); err == nil {
			err = failed
		}
		p.done <- err
	}()
	r.t.Cleanup(cancel)
	r.shop = p
}

// close ends it, when all is acknowledged.
func (r *rig) close() {
	r.t.Helper()
	r.shop.end()
	if err := <-r.shop.done; err != nil {
		r.t.Fatalf("publish: %v", err)
	}
}

// verify judges when every silence has been said: what is said while the last instance
// stops is archived by the next one, and here there is none.
func (r *rig) verify(running ...*process) *verdict {
	r.t.Helper()
	r.until("every silence is due", func() bool { return wall() > r.silence+10*schemas.Second })
	v := r.house.verify(running...)
	dump, _ := r.readTopics()
	r.saw.holds(r.t, dump)
	return v
}

// shoppers gives an endless series of records: of a shop whose days pass quickly, in
// log time, or of shoppers of whom silence is due within the next minute.
func (r *rig) shoppers() func() storefront.Record {
	if r.conf.Kafka.Lane == schemas.Live {
		return r.silent()
	}
	// Ten years before they reach today, and are refused as future.
	shop, err := storefront.New(storefront.Config{Seed: r.seed, Start: 1_483_228_800_000, Shoppers: 150, Currency: "EUR"})
	if err != nil {
		r.t.Fatal(err)
	}
	return func() storefront.Record {
		rec, _ := shop.Next()
		return rec
	}
}

// silent gives the first and only events of shoppers, months ago but for some seconds,
// so that the wall alone will move them; repeats, returns and rubbish among them.
func (r *rig) silent() func() storefront.Record {
	rng := rand.New(rand.NewPCG(r.seed, 3))
	users, events := 0, 0
	var again storefront.Record
	return func() storefront.Record {
		choice := rng.IntN(100)
		switch {
		case choice < 3 && again.Value != nil:
			return again
		case choice < 5:
			return storefront.Record{Key: []byte("rubbish"), Value: fmt.Appendf(nil, `{"event_id":"r%d","type":`, events)}
		}
		user := users
		if choice < 20 && users > 0 {
			user = rng.IntN(users)
		} else {
			users++
		}
		days, kind, order := schemas.Millis(90), "view", ""
		if rng.IntN(2) == 0 {
			days, kind, order = []schemas.Millis{30, 180}[rng.IntN(2)], "purchase", fmt.Sprintf(`,"order_id":"o%d","revenue":%d.25`, events, rng.IntN(100))
		}
		at := wall() - days*schemas.Day + schemas.Millis(rng.IntN(30_000))
		r.silence = max(r.silence, at+days*schemas.Day)
		events++
		again = storefront.Record{
			Key:   fmt.Appendf(nil, "u%d", user),
			Value: fmt.Appendf(nil, `{"event_id":"e%d","type":%q,"user_id":"u%d","time":%d%s}`, events, kind, user, at, order),
		}
		return again
	}
}

// leftovers are files in the bucket that are no snapshots: what a kill leaves of one
// that was being written.
func (r *rig) leftovers() (files []string) {
	r.t.Helper()
	root := strings.TrimPrefix(r.conf.Snapshots.Bucket, "file://")
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".snap") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}

// logged returns the lines with a message of this beginning, so far.
func (p *process) logged(message string) (found []logLine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		if strings.HasPrefix(l.Message, message) {
			found = append(found, l)
		}
	}
	return found
}

// ended tells whether it has.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
