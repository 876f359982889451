package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// benchEngine is the engine that is measured: `footfall run`, in a process of its own.
//
// A goroutine reads its log, and takes the process's result when that ends.
type benchEngine struct {
	cmd   *exec.Cmd
	conf  *Config
	began time.Time
	ready chan struct{} // closed when every partition is live
	done  chan struct{} // closed when the process has ended
	err   error         // of the end; read after done

	mu        sync.Mutex // guards what follows
	http      string
	live      map[int32]benchLive
	snapshots int      // published
	pause     int64    // the longest of any of them, in microseconds
	last      []string // lines of the log
}

// benchLive is when a partition came to life, and what the log said of that.
type benchLive struct {
	at   time.Time
	line benchLine
}

// benchLine is what bench reads of a line of the log.
type benchLine struct {
	Message   string `json:"msg"`
	HTTP      string `json:"http"`
	Partition int32  `json:"partition"`
	Replayed  int64  `json:"records_replayed"`
	Users     int64  `json:"users"`
	Load      int64  `json:"load_ms"`
	ReadBack  int64  `json:"read_back_ms"`
	Replay    int64  `json:"replay_ms"`
	Pause     int64  `json:"pause_us"`
}

// benchLinesMax is how many lines of a failed engine's log are shown.
const benchLinesMax = 10

// start starts the engine, and waits until every partition is live.
func (b *benching) start(ctx context.Context) (*benchEngine, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"run"}
	if b.g.path != "" {
		args = append(args, "--config", b.g.path)
	}
	for _, s := range slices.Concat(b.g.sets, b.settings()) {
		args = append(args, "--set", s)
	}
	e := &benchEngine{conf: b.conf, ready: make(chan struct{}), done: make(chan struct{}), live: map[int32]benchLive{}}
	e.cmd = exec.CommandContext(ctx, self, args...) //nolint:gosec // this program
	e.cmd.Args[0] = "footfall"
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, variable("kafka.sasl.")) && !strings.HasPrefix(v, variable("kafka.tls.")) {
			e.cmd.Env = append(e.cmd.Env, v)
		}
	}
	log, err := e.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	e.began = time.Now()
	if err := e.cmd.Start(); err != nil {
		return nil, err
	}
	go e.read(log, b.conf.Kafka.Partitions)
	select {
	case <-e.ready:
		return e, nil
	case <-e.done:
		return nil, e.failed()
	}
}

// settings are what bench sets beside what the user has set.
func (b *benching) settings() []string {
	k := &b.conf.Kafka
	return []string{
		"kafka.brokers=" + k.Brokers[0], "kafka.instance=bench", "kafka.lane=" + k.Lane.String(), "kafka.replication=1",
		"kafka.tls.enabled=false", "kafka.tls.ca_file=", "kafka.tls.cert_file=", "kafka.tls.key_file=",
		"kafka.sasl.mechanism=", "kafka.sasl.username=", "kafka.sasl.password_file=",
		"snapshots.bucket=" + b.conf.Snapshots.Bucket, "snapshots.every=" + formatDuration(b.conf.Snapshots.Every),
		"clickhouse.enabled=false", "http.listen=127.0.0.1:0", "http.advertise=", "log.level=info", "log.format=json",
	}
}

// read reads the log until the process closes it.
func (e *benchEngine) read(log io.Reader, partitions int) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		e.note(lines.Text(), partitions)
	}
	_, _ = io.Copy(io.Discard, log) // a line too long to be read is no reason to stop the engine
	e.err = e.cmd.Wait()
	close(e.done)
}

func (e *benchEngine) note(text string, partitions int) {
	var line benchLine
	if json.Unmarshal([]byte(text), &line) != nil {
		line = benchLine{}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last = append(e.last, text)
	e.last = e.last[max(0, len(e.last)-benchLinesMax):]
	switch line.Message {
	case "running":
		e.http = line.HTTP
	case "partition began from nothing", "partition recovered":
		if _, twice := e.live[line.Partition]; twice {
			return
		}
		e.live[line.Partition] = benchLive{time.Now(), line}
		if len(e.live) == partitions {
			close(e.ready)
		}
	case "snapshot published":
		e.snapshots, e.pause = e.snapshots+1, max(e.pause, line.Pause)
	}
}

// firstLive is when the first partition came to life.
func (e *benchEngine) firstLive() (first time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.live {
		if first.IsZero() || l.at.Before(first) {
			first = l.at
		}
	}
	return first
}

// paused is how many snapshots were published, and the longest that any of them has kept
// events waiting, since it was asked last.
func (e *benchEngine) paused() (snapshots int, longest time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	snapshots, longest = e.snapshots, time.Duration(e.pause)*time.Microsecond
	e.snapshots, e.pause = 0, 0
	return snapshots, longest
}

// stop stops the engine as an operator does, when all of it is ready: a partition that has
// come to life this moment would have nothing to hand over.
func (e *benchEngine) stop(ctx context.Context) error {
	err := e.until(ctx, func() (bool, error) {
		_, err := e.get(ctx, "/readyz")
		return err == nil, nil
	})
	if err != nil {
		return err
	}
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the engine: %w", err)
	}
	<-e.done
	if e.err != nil {
		return e.failed()
	}
	return nil
}

// kill ends the engine as an accident does; one that has ended stays as it is.
func (e *benchEngine) kill() {
	if e == nil {
		return
	}
	_ = e.cmd.Process.Kill() // it may have ended
	<-e.done
}

// failed is why an engine has ended. The caller knows that it has.
func (e *benchEngine) failed() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	why := e.err
	if why == nil {
		why = errors.New("it has stopped")
	}
	return fmt.Errorf("footfall run: %w\n%s", why, strings.Join(e.last, "\n"))
}

// until looks again and again until something holds.
func (e *benchEngine) until(ctx context.Context, holds func() (bool, error)) error {
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-e.done:
			return e.failed()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// series are metrics by name, each the sum over its labels.
type series map[string]float64

// The metrics that bench reads.
const (
	appliedMetric     = "footfall_events_applied_total"
	duplicatesMetric  = "footfall_duplicates_total"
	transitionsMetric = "footfall_transitions_total"
	timersMetric      = "footfall_timers_total"
	usersMetric       = "footfall_users"
	outputsMetric     = "footfall_outputs_total"
	cpuMetric         = "process_cpu_seconds_total"
	residentMetric    = "process_resident_memory_bytes"
	heapIdleMetric    = "go_memstats_heap_idle_bytes"
	heapGivenMetric   = "go_memstats_heap_released_bytes"
)

// metrics is what /metrics says.
func (e *benchEngine) metrics(ctx context.Context) (series, error) {
	text, err := e.get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	return parseSeries(text), nil
}

// parseSeries reads Prometheus's text format, as far as it is of numbers.
func parseSeries(text string) series {
	s := series{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || name == "#" {
			continue
		}
		if i := strings.IndexByte(name, '{'); i >= 0 {
			value, name = line[strings.LastIndexByte(line, '}')+1:], name[:i]
		}
		if v, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
			s[name] += v
		}
	}
	return s
}

func (e *benchEngine) get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.http+path, nil)
	if err != nil {
		return "", err
	}
	if e.conf.HTTP.Token != "" {
		req.Header.Set("Authorization", "Bearer "+string(e.conf.HTTP.Token))
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s of the engine: %s", path, res.Status)
	}
	return string(body), err
}

// held is how many bytes of memory the engine can't do without: what is resident, after
// garbage is collected, but for what Go keeps to use it again. It is looked at a few times,
// since something is always under way.
func (e *benchEngine) held(ctx context.Context) (least float64, err error) {
	for i := range 5 {
		if _, err := e.get(ctx, "/debug/pprof/heap?gc=1"); err != nil {
			return 0, err
		}
		m, err := e.metrics(ctx)
		if err != nil {
			return 0, err
		}
		if held := m[residentMetric] - (m[heapIdleMetric] - m[heapGivenMetric]); i == 0 || held < least {
			least = held
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return least, nil
}

// watch reads the metrics every half second until the function that it returns is called,
// which returns the most memory that was resident.
func (e *benchEngine) watch(ctx context.Context, each func(series)) func() float64 {
	ctx, stop := context.WithCancel(ctx)
	peak := make(chan float64)
	go func() {
		most := 0.0
		for {
			if m, err := e.metrics(ctx); err == nil {
				most = max(most, m[residentMetric])
				each(m)
			}
			select {
			case <-time.After(500 * time.Millisecond):
			case <-ctx.Done():
				peak <- most
				return
			}
		}
	}()
	return func() float64 {
		stop()
		return <-peak
	}
}

// selfUsage is the CPU that this process has used, read as an engine's metrics are.
type selfUsage struct{ registry *prometheus.Registry }

func newSelfUsage() *selfUsage {
	u := &selfUsage{prometheus.NewRegistry()}
	u.registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return u
}

func (u *selfUsage) cpu() float64 {
	families, err := u.registry.Gather()
	if err != nil {
		return 0 // it can't be told here
	}
	for _, f := range families {
		if f.GetName() == cpuMetric {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}
