package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"footfall/pipeline/pipelinetest/engine"

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

// start makes a group's topics, and starts footfall in it.
func (b *bench) start(ctx context.Context, group, events, lane string) (*engine.Run, error) {
	if err := os.MkdirAll(filepath.Join(b.dir, group), 0o700); err != nil {
		return nil, err
	}
	settings := b.settings(group, events, lane)
	topics := exec.CommandContext(ctx, b.binary, append([]string{"topics", "create"}, settings...)...) //nolint:gosec // our own binary
	if out, err := topics.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("topics create: %w\n%s", err, out)
	}
	return engine.Start(ctx, b.binary, filepath.Join(b.dir, group+".log"), settings...)
}

// begin has a group begin on the empty topic.
func (b *bench) begin(ctx context.Context, group string) error {
	p, err := b.start(ctx, group, topic, "replay")
	if err != nil {
		return err
	}
	return errors.Join(engine.Until(ctx, func() (bool, error) {
		committed, _ := b.admin.FetchOffsets(ctx, group) // there may be no coordinator yet
		return len(committed[topic]) == partitions, nil
	}, p), p.Stop())
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
	err = engine.Until(ctx, func() (bool, error) { return b.through(ctx, group, topic) }, p)
	if err != nil {
		return errors.Join(err, p.Stop())
	}
	wall := time.Since(p.Began).Seconds()
	if one.CPU, one.RSS, err = engine.Usage(p.Process.Pid); err != nil {
		return err
	}
	if err := p.Stop(); err != nil {
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
func (b *bench) keepProfile(ctx context.Context, p *engine.Run, name string) {
	time.Sleep(time.Second) // it has begun to listen
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.HTTP+"/debug/pprof/profile?seconds=5", nil)
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
func counter(ctx context.Context, p *engine.Run, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.HTTP+"/metrics", nil)
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
