package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// settings are footfall's for a group, and what differs from its defaults: where things
// are, no archive (measured apart), the job's segment file, and transitions of event times
// long ago said aloud.
func (b *bench) settings(group, events, lane string) (args []string) {
	for _, s := range []string{
		"kafka.brokers=" + b.brokers, "kafka.group=" + group, "kafka.lane=" + lane,
		"kafka.topics.events=" + events, "kafka.topics.triggers=" + group + "-triggers",
		"kafka.topics.muted=" + group + "-muted", "kafka.topics.dead_letters=" + group + "-dead-letters",
		"snapshots.bucket=file://" + filepath.ToSlash(filepath.Join(b.dir, group)),
		"clickhouse.enabled=false", "segments.sets=" + b.job, "shop.currency=USD", "clock.max_age=3650d",
	} {
		args = append(args, "--set", s)
	}
	return args
}

// process is a `footfall run`.
type process struct {
	*exec.Cmd
	began time.Time
	http  string
	log   string
	done  chan struct{} // closed when it has ended
	err   error         // of its end
}

func (b *bench) start(ctx context.Context, group, events, lane string) (*process, error) {
	if err := os.MkdirAll(filepath.Join(b.dir, group), 0o700); err != nil {
		return nil, err
	}
	settings := b.settings(group, events, lane)
	topics := exec.CommandContext(ctx, b.binary, append([]string{"topics", "create"}, settings...)...) //nolint:gosec // our own binary
	if out, err := topics.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("topics create: %w\n%s", err, out)
	}
	log, err := os.Create(filepath.Join(b.dir, group+".log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &process{http: l.Addr().String(), log: log.Name(), done: make(chan struct{})}
	_ = l.Close()
	settings = append(settings, "--set", "http.listen="+p.http, "--set", "log.format=json")
	p.Cmd = exec.CommandContext(ctx, b.binary, append([]string{"run"}, settings...)...) //nolint:gosec // our own binary
	p.Stderr, p.began = log, time.Now()
	p.Cancel = func() error { return p.Process.Signal(syscall.SIGTERM) }
	p.WaitDelay = time.Minute
	if err := p.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) stop() error {
	_ = p.Process.Signal(syscall.SIGTERM) // it may have ended
	<-p.done
	if p.err == nil {
		return nil
	}
	log, err := os.ReadFile(p.log)
	return errors.Join(fmt.Errorf("footfall: %w\n%s", p.err, log[max(0, len(log)-1000):]), err)
}

// begin has a group begin on the empty topic.
func (b *bench) begin(ctx context.Context, group string) error {
	p, err := b.start(ctx, group, topic, "replay")
	if err != nil {
		return err
	}
	return errors.Join(b.until(ctx, p, func() (bool, error) {
		committed, _ := b.admin.FetchOffsets(ctx, group) // there may be no coordinator yet
		return len(committed[topic]) == partitions, nil
	}), p.stop())
}

// until looks every 200 ms until something holds.
func (b *bench) until(ctx context.Context, p *process, holds func() (bool, error)) error {
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return errors.New("footfall has ended")
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// footfall runs footfall on all events.
func (b *bench) footfall(ctx context.Context, group string, one *outcome) error {
	before, err := b.brokerCPU(ctx)
	if err != nil {
		return err
	}
	p, err := b.start(ctx, group, topic, "replay")
	if err != nil {
		return err
	}
	if b.profile != "" {
		go b.keepProfile(ctx, p, group)
	}
	err = b.until(ctx, p, func() (bool, error) { return b.through(ctx, group, topic) })
	if err != nil {
		return errors.Join(err, p.stop())
	}
	wall := time.Since(p.began).Seconds()
	if one.CPU, one.RSS, err = usage(p.Process.Pid); err != nil {
		return err
	}
	if err := p.stop(); err != nil {
		return err
	}
	after, err := b.brokerCPU(ctx)
	if err != nil {
		return err
	}
	one.BrokerCPU = after - before
	one.PerCPU, one.PerSecond = float64(b.events)/one.CPU, float64(b.events)/wall
	return b.count(ctx, group, one)
}

// keepProfile keeps a CPU profile of the first seconds of a run.
func (b *bench) keepProfile(ctx context.Context, p *process, name string) {
	time.Sleep(time.Second) // it has begun to listen
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.http+"/debug/pprof/profile?seconds=5", nil)
	if err != nil {
		return
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Fprintln(b.log, "profile:", err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	profile, err := io.ReadAll(resp.Body)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.profile, name+".pprof"), profile, 0o600)
	}
	fmt.Fprintln(b.log, "profile:", name+".pprof", err)
}

// counter asks a run for a metric.
func (p *process) counter(ctx context.Context, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.http+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(text), "\n"+name+" ")
	if !ok {
		return 0, fmt.Errorf("there is no metric %s", name)
	}
	value, _, _ := strings.Cut(rest, "\n")
	return strconv.ParseFloat(value, 64)
}

func (b *bench) brokerCPU(ctx context.Context) (float64, error) {
	out, err := b.output(ctx, "kafka/kafka", "cpu", b.data())
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(out), 64)
}

// usage is the CPU seconds of a process so far, and the most memory it had, in MB.
func usage(pid int) (cpu, rss float64, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	for _, i := range []int{11, 12} { // utime, stime
		ticks, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			return 0, 0, err
		}
		cpu += ticks / 100
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	_, err = fmt.Sscanf(peak, "%g kB", &rss)
	return cpu, rss / 1024, err
}

// transition is what the comparison needs of one.
type transition struct {
	ID    string  `json:"id"`
	User  string  `json:"user"`
	From  *string `json:"from"`
	To    string  `json:"to"`
	Cause struct {
		Kind      string `json:"kind"`
		Partition int32  `json:"partition"`
		Offset    int64  `json:"offset"`
	} `json:"cause"`
	Seq int `json:"seq"`
}

// count counts the committed triggers by kind, and those that are there twice.
func (b *bench) count(ctx context.Context, group string, one *outcome) error {
	name := group + "-triggers"
	ends, err := b.admin.ListCommittedOffsets(ctx, name)
	if err != nil {
		return err
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(b.brokers), kgo.ConsumeTopics(name), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		return err
	}
	defer reader.Close()
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	type place struct {
		user string
		seq  int
	}
	seen := map[place]bool{}
	one.Kinds = map[string]int{}
	for len(left) > 0 {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if r.Attrs.IsControl() {
				continue
			}
			var t transition
			if err := json.Unmarshal(r.Value, &t); err != nil {
				return fmt.Errorf("%s/%d at offset %d: %w", name, r.Partition, r.Offset, err)
			}
			from := "none"
			if t.From != nil {
				from = *t.From
			}
			at := place{t.User, t.Seq}
			if seen[at] {
				one.Duplicates++
			}
			seen[at] = true
			one.Kinds[from+">"+t.To]++
			one.Transitions++
		}
	}
	return nil
}
