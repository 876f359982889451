package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// warm is left out of the latencies, from the first event on.
const warm = 10 * time.Second

// latencies runs everybody who can at a paced load.
func (b *bench) latencies(ctx context.Context) (all []quantiles, err error) {
	for _, name := range contestants() {
		if !b.runs(name) {
			continue
		}
		var q quantiles
		switch name {
		case footfall:
			q, err = b.footfallLatency(ctx)
		case "streams-memory", "streams-rocksdb", "flink-memory":
			q, err = b.peerLatency(ctx, name)
		default:
			continue
		}
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(b.log, "%-16s p50 %.1f ms, p99 %.1f ms, p99.9 %.1f ms of %d triggers\n", q.Name, q.P50, q.P99, q.P999, q.N)
		all = append(all, q)
	}
	return all, nil
}

func (b *bench) peerLatency(ctx context.Context, name string) (q quantiles, err error) {
	before, err := b.brokerCPU(ctx)
	if err != nil {
		return q, err
	}
	out, err := b.output(ctx, "run", "latency", name)
	if err != nil {
		return q, err
	}
	i := strings.Index(out, "LATENCY ")
	if i < 0 {
		return q, fmt.Errorf("%s has no latency:\n%s", name, out)
	}
	line, rest, _ := strings.Cut(out[i:], "\n")
	f := fields(line)
	q = quantiles{Name: name, P50: f["p50_ms"], P99: f["p99_ms"], P999: f["p999_ms"], Max: f["max_ms"], N: int(f["n"]), CPU: fields(rest)["cpu_s"]}
	after, err := b.brokerCPU(ctx)
	q.BrokerCPU = after - before
	return q, err
}

// footfallLatency paces the same load, live, and reads the triggers as a consumer of them
// does. An event's time is when it was due to be sent; so a sender that is late counts.
func (b *bench) footfallLatency(ctx context.Context) (q quantiles, err error) {
	const events, group = "events-latency", "footfall-latency"
	if _, err := b.tool(ctx, "gen", "-topic", events, "-create"); err != nil {
		return q, err
	}
	p, err := b.start(ctx, group, events, "live")
	if err != nil {
		return q, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	err = b.until(ctx, p, func() (bool, error) {
		committed, _ := b.admin.FetchOffsets(ctx, group) // there may be no coordinator yet
		return len(committed[events]) == partitions, nil
	})
	if err != nil {
		return q, err
	}
	before, err := b.brokerCPU(ctx)
	if err != nil {
		return q, err
	}
	began, _, err := usage(p.Process.Pid)
	if err != nil {
		return q, err
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	w := &watch{sent: map[int32]map[int64]time.Time{}}
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() { failed = w.run(reading, b.brokers, events, group+"-triggers") })
	_, err = b.tool(ctx, "gen", "-topic", events, "-rate", strconv.Itoa(b.rate), "-duration", strconv.Itoa(b.seconds)+"s", "-users", "100000")
	time.Sleep(3 * time.Second) // the last ones
	stop()
	wg.Wait()
	if err := errors.Join(err, failed); err != nil {
		return q, err
	}
	q = quantilesOf(footfall, w.latencies)
	ended, _, err := usage(p.Process.Pid)
	if err != nil {
		return q, err
	}
	after, err := b.brokerCPU(ctx)
	q.CPU, q.BrokerCPU = ended-began, after-before
	return q, err
}

// watch reads events and triggers.
type watch struct {
	sent      map[int32]map[int64]time.Time // when each event was due to be sent
	first     time.Time
	latencies []float64
}

func (w *watch) run(ctx context.Context, brokers, events, triggers string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.ConsumeTopics(events, triggers), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		now := time.Now()
		if err := fetches.Err(); err != nil {
			return err
		}
		for _, topic := range []string{events, triggers} { // an event is there before its trigger
			var wrong error
			fetches.EachRecord(func(r *kgo.Record) {
				if r.Topic == topic && wrong == nil {
					wrong = w.record(r, topic == events, now)
				}
			})
			if wrong != nil {
				return wrong
			}
		}
	}
}

func (w *watch) record(r *kgo.Record, event bool, now time.Time) error {
	if event {
		var ev struct {
			Time time.Time `json:"time"`
		}
		if err := json.Unmarshal(r.Value, &ev); err != nil {
			return err
		}
		if w.first.IsZero() {
			w.first = ev.Time
		}
		if w.sent[r.Partition] == nil {
			w.sent[r.Partition] = map[int64]time.Time{}
		}
		w.sent[r.Partition][r.Offset] = ev.Time
		return nil
	}
	var t transition
	if err := json.Unmarshal(r.Value, &t); err != nil {
		return err
	}
	at, ok := w.sent[t.Cause.Partition][t.Cause.Offset]
	if t.Cause.Kind == "event" && ok && at.Sub(w.first) >= warm {
		w.latencies = append(w.latencies, float64(now.Sub(at).Microseconds())/1000)
	}
	return nil
}
