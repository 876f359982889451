package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"footfall/pipeline/oracle"
	"footfall/schemas"
	"footfall/sinks/clickhouse"
	"footfall/sinks/clickhouse/chdbtest"
	"footfall/sources/kafka"
	"footfall/sources/storefront"
)

// house is one installation: a broker's address, topics of its own, a ClickHouse.
type house struct {
	t       *testing.T
	conf    *Config
	sets    []string
	binary  string // footfall; "": this test binary
	started []*process

	mended int // partitions in which a transaction hung, by the broker's fault, and was ended

	mu  sync.Mutex // guards log
	log bytes.Buffer
}

// Write takes what the processes log, to be shown when the test fails.
func (h *house) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Write(p)
}

func realKafka(t *testing.T) string {
	addr := os.Getenv("FOOTFALL_TEST_KAFKA")
	if addr == "" {
		t.Skip("needs a real Kafka: make test-kafka starts one and sets FOOTFALL_TEST_KAFKA")
	}
	return addr
}

func localKafka(t *testing.T) string {
	broker, err := kafka.StartLocal(kafka.LocalConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	return broker.Addr()
}

// newHouse makes one with a database in the engine that the tests share, and its topics.
func newHouse(t *testing.T, broker string, lane schemas.Lane, more ...string) *house {
	h := prepareHouse(t, broker, chdbtest.Database(t), lane, more...)
	h.run("topics", "create")
	return h
}

// prepareHouse makes one whose topics are still to be made.
func prepareHouse(t *testing.T, broker, clickhouseDSN string, lane schemas.Lane, more ...string) *house {
	dsn, err := url.Parse(clickhouseDSN)
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile("[^a-z0-9]+").ReplaceAllString(strings.ToLower(t.Name()), "-") + fmt.Sprintf("-%d", time.Now().UnixNano())
	h := &house{t: t}
	h.sets = append([]string{
		"kafka.brokers=" + broker, "kafka.group=" + name, "kafka.instance=one", "kafka.lane=" + lane.String(),
		"kafka.topics.events=" + name + "-events", "kafka.topics.triggers=" + name + "-triggers",
		"kafka.topics.muted=" + name + "-muted", "kafka.topics.dead_letters=" + name + "-dead",
		"snapshots.bucket=file://" + filepath.ToSlash(t.TempDir()), "snapshots.every=1s",
		"clickhouse.dsn=http://" + dsn.Host, "clickhouse.database=" + strings.Trim(dsn.Path, "/"), "clickhouse.batch.age=300ms",
		"http.listen=127.0.0.1:0", "log.format=json", "shop.currency=EUR",
	}, more...)
	var src sources
	for _, s := range h.sets {
		key, value, _ := strings.Cut(s, "=")
		src.flags = append(src.flags, setting{key: key, value: value, from: "test"})
	}
	conf, err := load(src)
	if err != nil {
		t.Fatal(err)
	}
	h.conf = conf
	t.Cleanup(func() {
		if t.Failed() {
			h.mu.Lock()
			defer h.mu.Unlock()
			t.Logf("log of the processes (last 20 kB):\n%s", h.log.Bytes()[max(0, h.log.Len()-20_000):])
			if f, err := os.CreateTemp("", name+"-*.log"); err == nil {
				_, _ = f.Write(h.log.Bytes())
				t.Logf("all of it: %s (%v)", f.Name(), f.Close())
			}
		}
	})
	return h
}

// command is footfall with the settings of the house: a binary of its own, or this
// test binary, which then runs as footfall (see TestMain).
func (h *house) command(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	if h.binary != "" {
		self = h.binary
	}
	for _, s := range h.sets {
		args = append(args, "--set", s)
	}
	c := exec.Command(self, args...) //nolint:gosec // our own binary
	c.Args[0] = "footfall"
	c.Stderr = h
	return c
}

// run runs a command to its end and returns what it prints.
func (h *house) run(args ...string) string {
	h.t.Helper()
	c := h.command(args...)
	out, err := c.Output()
	if err != nil {
		h.t.Fatalf("footfall %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// process is a `footfall run`: a process, and what it has logged.
//
// A goroutine waits for its end; it takes the process's result, so that everyone
// else may ask for it.
type process struct {
	*exec.Cmd
	h     *house
	began time.Time
	done  chan struct{} // closed when it has ended
	err   error         // of the end; read after done

	mu    sync.Mutex // guards what follows
	tail  []byte     // a line that is not whole yet
	lines []logLine  // all but debug, and what is of interest there
}

// logLine is a line of JSON on standard error.
type logLine struct {
	At      string `json:"time"`
	Level   string `json:"level"`
	Message string `json:"msg"`
	Error   string `json:"error"`

	Partition int32  `json:"partition"`
	Snapshot  string `json:"snapshot"`
	Next      int64  `json:"next"`
	Records   int64  `json:"records_replayed"`
	Outputs   int64  `json:"outputs_read"`
	Users     int    `json:"users"`
	TookMS    int64  `json:"took_ms"`
	Load      int64  `json:"load_ms"`
	ReadBack  int64  `json:"read_back_ms"`
	Replay    int64  `json:"replay_ms"`
}

// start starts `footfall run` with arguments behind the house's own settings, so that
// these win.
func (h *house) start(more ...string) *process { return h.startWith(nil, more...) }

// startWith does so with variables added to its environment.
func (h *house) startWith(env []string, more ...string) *process {
	p := &process{Cmd: h.command("run"), h: h, began: time.Now(), done: make(chan struct{})}
	p.Args = append(p.Args, more...)
	p.Stderr = p
	p.Env = append(os.Environ(), env...)
	if err := p.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		p.err = p.Cmd.Wait()
		close(p.done)
	}()
	h.t.Cleanup(p.kill)
	h.started = append(h.started, p)
	return p
}

// Write takes what the process logs.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	p.tail = append(p.tail, b...)
	for {
		line, rest, whole := bytes.Cut(p.tail, []byte{'\n'})
		if !whole {
			break
		}
		l := logLine{Message: string(line)} // what is not JSON: a panic, a failpoint
		if json.Unmarshal(line, &l) == nil || len(line) > 0 {
			p.lines = append(p.lines, l)
		}
		p.tail = rest
	}
	p.mu.Unlock()
	return p.h.Write(b)
}

// Wait waits for its end, and returns how it ended.
func (p *process) Wait() error {
	<-p.done
	return p.err
}

// kill ends it by SIGKILL, if it has not ended, and waits for that.
func (p *process) kill() {
	_ = p.Process.Kill()
	<-p.done
}

// stop ends it cleanly and fails the test if it did not.
func (h *house) stop(p *process) {
	h.t.Helper()
	if err := p.Process.Signal(os.Interrupt); err != nil {
		h.t.Fatalf("stop: %v", err)
	}
	if err := p.Wait(); err != nil {
		h.t.Fatalf("footfall run ended with %v", err)
	}
}

// patience is for how long a test waits for what has to come, before it says that it never
// will: far more than it takes on a machine that is crowded.
const patience = 6 * time.Minute

// until looks again and again until something holds.
func (h *house) until(what string, holds func() bool) {
	h.t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			h.standStill()
			h.t.Fatalf("after %s still not: %s", patience, what)
		}
	}
}

// standStill ends the running processes with all that their goroutines do in the log.
func (h *house) standStill() {
	for _, p := range h.started {
		if p.Process.Signal(syscall.SIGQUIT) == nil {
			select {
			case <-p.done:
			case <-time.After(10 * time.Second):
			}
		}
	}
}

// ready waits until the running instance has begun with every partition.
func (h *house) ready() {
	h.t.Helper()
	h.until("every partition has a committed mark", func() bool {
		return len(h.marks()) == h.conf.Kafka.Partitions
	})
}

func (h *house) marks() map[int32]schemas.Mark {
	h.t.Helper()
	cl, err := h.conf.connect(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	defer cl.Close()
	m, err := marks(h.t.Context(), h.conf, cl)
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

// applied waits until everything published is committed and every due timer is said.
func (h *house) applied() {
	h.t.Helper()
	h.until("everything published is applied and said", func() bool {
		for _, d := range h.lags() {
			if d > 0 {
				return false
			}
		}
		for _, m := range h.marks() {
			if m.Fired < m.Clock {
				return false
			}
		}
		return true
	})
}

// lags is how many input offsets of each partition are not committed.
func (h *house) lags() map[int32]int64 {
	cl, err := h.conf.connect(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	defer cl.Close()
	s, err := readStatus(h.t.Context(), h.conf)
	if err != nil {
		h.t.Fatal(err)
	}
	out := map[int32]int64{}
	for _, p := range s.Partitions {
		out[p.Partition] = p.Lag
	}
	return out
}

// archived waits until all that is committed is in ClickHouse.
func (h *house) archived() {
	h.t.Helper()
	cl, err := h.conf.connect(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	defer cl.Close()
	t := &h.conf.Kafka.Topics
	var n int64
	defer func() {
		if h.t.Failed() {
			h.t.Logf("it lacks %d records (%v)", n, err)
		}
	}()
	h.until("everything is in ClickHouse", func() bool {
		n, err = clickhouse.Behind(h.t.Context(), cl, h.conf.Kafka.Group+"-archive", t.Events, t.Triggers, t.Muted, t.DeadLetters)
		return err == nil && n == 0
	})
}

// setNames are the segment sets that the processes run.
func (h *house) setNames() []string {
	h.t.Helper()
	rules, err := h.conf.rules()
	if err != nil {
		h.t.Fatal(err)
	}
	return setNames(rules.Names())
}

// judge has the oracle compare the topics, and counts ClickHouse's rows.
func (h *house) judge(ticks bool) (*oracle.Report, *demoReport) {
	h.t.Helper()
	d := &demonstration{conf: h.conf, lane: h.conf.Kafka.Lane}
	dump, committed, err := d.readBack(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	report := dump.Judge(oracle.Options{
		Currency: h.conf.Shop.Currency, Rates: h.conf.Shop.Rates, InputTopic: h.conf.Kafka.Topics.Events,
		Group: h.conf.Kafka.Group, Lane: h.conf.Kafka.Lane.String(), WallTicks: ticks, Marks: committed, Sets: h.setNames(),
	})
	if err := report.Err(); err != nil {
		h.t.Errorf("the oracle says: %v", err)
	}
	counts := &demoReport{EventsApplied: report.Applied, Duplicates: report.Duplicates, Transitions: report.Triggers + report.Muted}
	if err := d.judgeClickHouse(h.t.Context(), counts, len(dump.DeadLetters)); err != nil {
		h.t.Fatal(err)
	}
	if counts.Lost+counts.Doubled+counts.wrong > 0 {
		h.t.Errorf("ClickHouse: %d rows lost, %d doubled, %d too many", counts.Lost, counts.Doubled, counts.wrong)
		found, err := h.command("audit").Output()
		h.t.Logf("footfall audit: %v\n%s", err, found)
	}
	return report, counts
}

// publishShop publishes events of a simulated shop, over about a year: a few thousand at
// least, since a handful of shoppers may stay away until after today.
func (h *house) publishShop(events int) {
	const days = 400
	shop, err := storefront.New(storefront.Config{
		Seed: 5, Start: demoStart, Shoppers: events / days, Currency: "EUR",
	})
	if err != nil {
		h.t.Error(err)
		return
	}
	ctx := context.Background()
	pub, err := h.conf.publisher(ctx, storefront.PublisherConfig{Lane: schemas.Replay, Rate: float64(events) / 12})
	if err != nil {
		h.t.Error(err)
		return
	}
	for range events {
		r, _ := shop.Next()
		if err := pub.Publish(ctx, r); err != nil {
			h.t.Error(err)
			break
		}
	}
	if err := pub.Close(); err != nil {
		h.t.Error(err)
	}
}

// peek judges what is there, without an opinion on what is still to come.
func (h *house) peek() (*oracle.Report, error) {
	d := &demonstration{conf: h.conf, lane: h.conf.Kafka.Lane}
	dump, committed, err := d.readBack(h.t.Context())
	if err != nil {
		return nil, err
	}
	return dump.Judge(oracle.Options{Currency: "EUR", InputTopic: h.conf.Kafka.Topics.Events, WallTicks: true, Marks: committed, Partial: true}), nil
}

func freePort(t *testing.T) string {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
