package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"footfall/pipeline/pipelinetest/engine"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// warm is left out of the latencies, from the first event on.
const warm = 10 * time.Second

// quantiles are latencies, in milliseconds.
type quantiles struct {
	Name         string  `json:"name"`
	Rate         int     `json:"events_per_s"`
	Timers       int     `json:"timers,omitempty"` // that fell due meanwhile
	P50          float64 `json:"p50"`
	P99          float64 `json:"p99"`
	P999         float64 `json:"p999"`
	Max          float64 `json:"max"`
	N            int     `json:"n"`
	Transactions float64 `json:"transactions_per_s,omitempty"`
	CPU          float64 `json:"cpu_s"`
	BrokerCPU    float64 `json:"broker_cpu_s"`
	TimersMax    float64 `json:"timers_said_after_ms,omitempty"` // the last of them
}

func (q *quantiles) of(ms []float64) {
	slices.Sort(ms)
	q.N = len(ms)
	if q.N > 0 {
		at := func(p float64) float64 { return ms[min(q.N-1, int(p*float64(q.N)))] }
		q.P50, q.P99, q.P999, q.Max = at(.5), at(.99), at(.999), ms[q.N-1]
	}
}

// latencies runs everybody who can at each of the rates, and footfall once more with timers
// that fall due meanwhile.
func (b *bench) latencies(ctx context.Context) (all []quantiles, err error) {
	if len(b.rates) > 0 && b.settle > 0 {
		// A broker's first transactions are slow: its code is not compiled yet.
		if _, err := b.footfallLatency(ctx, "settle", load{rate: b.rates[0], seconds: b.settle}); err != nil {
			return nil, err
		}
	}
	for _, rate := range b.rates {
		for _, name := range contestants() {
			if !b.runs(name) {
				continue
			}
			var q quantiles
			switch name {
			case footfall:
				q, err = b.footfallLatency(ctx, fmt.Sprintf("rate-%d", rate), load{rate: rate, seconds: b.seconds})
			case "streams-memory", "streams-rocksdb", "flink-memory":
				q, err = b.peerLatency(ctx, name, rate)
			default:
				continue
			}
			if err != nil {
				return nil, err
			}
			all = b.note(all, q)
		}
	}
	if b.timers > 0 && len(b.rates) > 0 && b.runs(footfall) {
		q, err := b.footfallLatency(ctx, "timers", load{rate: b.rates[0], seconds: b.seconds, timers: b.timers})
		if err != nil {
			return nil, err
		}
		all = b.note(all, q)
	}
	return all, nil
}

func (b *bench) note(all []quantiles, q quantiles) []quantiles {
	fmt.Fprintf(b.log, "%-16s %6d/s p50 %.1f ms, p99 %.1f ms, p99.9 %.1f ms of %d triggers; %.0f transactions/s\n", q.Name, q.Rate, q.P50, q.P99, q.P999, q.N, q.Transactions)
	return append(all, q)
}

func (b *bench) peerLatency(ctx context.Context, name string, rate int) (q quantiles, err error) {
	before, err := b.brokerCPU(ctx)
	if err != nil {
		return q, err
	}
	out, err := b.with("RATE="+strconv.Itoa(rate)).output(ctx, "run", "latency", name)
	if err != nil {
		return q, err
	}
	i := strings.Index(out, "LATENCY ")
	if i < 0 {
		return q, fmt.Errorf("%s has no latency:\n%s", name, out)
	}
	line, rest, _ := strings.Cut(out[i:], "\n")
	f := fields(line)
	q = quantiles{Name: name, Rate: rate, P50: f["p50_ms"], P99: f["p99_ms"], P999: f["p999_ms"], Max: f["max_ms"], N: int(f["n"]), CPU: fields(rest)["cpu_s"]}
	after, err := b.brokerCPU(ctx)
	q.BrokerCPU = after - before
	return q, err
}

// load is what a latency run is made with.
type load struct {
	rate, seconds int
	timers        int // users who fall silent for 90 days within one second, half-way
}

// Timers are those of the job's rule of 90 days: users who were seen that long before a
// moment of the run, and never again. Of the users that may occur some don't, and some
// come back with the load.
const (
	silence      = 90 * 24 * time.Hour
	usersATimer  = 1.1
	eventsATimer = 3.3
	loadUsers    = 100_000
)

// footfallLatency paces the same load, live, and reads the triggers as a consumer of them
// does. An event's time is when it was due to be sent; so a sender that is late counts.
func (b *bench) footfallLatency(ctx context.Context, name string, l load) (q quantiles, err error) {
	events, group := "events-"+name, "footfall-"+name
	if _, err := b.tool(ctx, "gen", "-topic", events, "-create"); err != nil {
		return q, err
	}
	p, err := b.start(ctx, group, events, "live")
	if err != nil {
		return q, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	err = engine.Until(ctx, func() (bool, error) {
		committed, _ := b.admin.FetchOffsets(ctx, group) // there may be no coordinator yet
		return len(committed[events]) == partitions, nil
	}, p)
	if err != nil {
		return q, err
	}
	users := loadUsers
	if l.timers > 0 {
		users += int(float64(l.timers) * usersATimer)
		if err := b.setTimers(ctx, p, group, events, l); err != nil {
			return q, err
		}
	}
	return b.paced(ctx, p, group, events, users, l)
}

// setTimers has users seen 90 days before half of the run will be over, waits until footfall
// is through with them, and then until the run is to begin.
func (b *bench) setTimers(ctx context.Context, p *engine.Run, group, events string, l load) error {
	prepare := 30*time.Second + time.Duration(l.timers)*60*time.Microsecond
	begin := time.Now().Add(prepare)
	due := begin.Add(time.Duration(l.seconds) * time.Second / 2).Truncate(time.Second)
	_, err := b.tool(ctx, "gen", "-topic", events, "-users", strconv.Itoa(int(float64(l.timers)*usersATimer)), "-n", strconv.Itoa(int(float64(l.timers)*eventsATimer)),
		"-zipf-v", "1000000000", "-start", due.Add(-silence).UTC().Format(time.RFC3339), "-days", strconv.FormatFloat(1./86400, 'g', -1, 64), "-jitter", "0")
	if err != nil {
		return err
	}
	if err := engine.Until(ctx, func() (bool, error) { return b.through(ctx, group, events) }, p); err != nil {
		return err
	}
	if left := time.Until(begin); left > 0 {
		fmt.Fprintf(b.log, "%d events of users who fall silent are known; waiting %v\n", int(float64(l.timers)*eventsATimer), left.Round(time.Second))
		select {
		case <-time.After(left):
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	return fmt.Errorf("%d timers were not set in %v: give fewer (-timers)", l.timers, prepare)
}

// through tells whether a group has committed all of a topic.
func (b *bench) through(ctx context.Context, group, events string) (bool, error) {
	ends, err := b.admin.ListEndOffsets(ctx, events)
	if err != nil {
		return false, err
	}
	committed, err := b.admin.FetchOffsets(ctx, group)
	if err != nil {
		return false, err
	}
	done := len(committed[events]) == partitions
	ends.Each(func(o kadm.ListedOffset) {
		c, _ := committed.Lookup(events, o.Partition)
		done = done && c.At >= o.Offset
	})
	return done, nil
}

// paced sends the load, and measures.
func (b *bench) paced(ctx context.Context, p *engine.Run, group, events string, users int, l load) (q quantiles, err error) {
	q = quantiles{Name: footfall, Rate: l.rate}
	starts, err := b.admin.ListEndOffsets(ctx, events)
	if err != nil {
		return q, err
	}
	w := &watch{causes: map[int32]map[int64]time.Time{}}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	ready, failed := make(chan struct{}), error(nil)
	var wg sync.WaitGroup
	wg.Go(func() { failed = w.run(reading, b.brokers, group+"-triggers", ready) })
	<-ready
	meters := func() (ours, broker, transactions float64, err error) {
		ours, _, err1 := engine.Usage(p.Process.Pid)
		broker, err2 := b.brokerCPU(ctx)
		transactions, err3 := counter(ctx, p, "footfall_commits_total")
		return ours, broker, transactions, errors.Join(err1, err2, err3)
	}
	ours, broker, transactions, err := meters()
	if err != nil {
		return q, err
	}
	_, err = b.tool(ctx, "gen", "-topic", events, "-rate", strconv.Itoa(l.rate), "-duration", strconv.Itoa(l.seconds)+"s", "-users", strconv.Itoa(users))
	if err == nil {
		err = engine.Until(ctx, func() (bool, error) { return b.through(ctx, group, events) }, p) // a load too heavy for it
	}
	time.Sleep(3 * time.Second) // the last ones
	stop()
	wg.Wait()
	if err := errors.Join(err, failed); err != nil {
		return q, err
	}
	oursNow, brokerNow, transactionsNow, err := meters()
	if err != nil {
		return q, err
	}
	q.CPU, q.BrokerCPU, q.Transactions = oursNow-ours, brokerNow-broker, (transactionsNow-transactions)/float64(l.seconds)
	q.Timers, q.TimersMax = w.timers, w.timersMax
	late, err := b.sinceDue(ctx, events, starts, w)
	q.of(late)
	return q, err
}

// watch reads triggers, and notes when it had which.
type watch struct {
	causes    map[int32]map[int64]time.Time // when the first trigger of an input record was there
	timers    int
	timersMax float64 // ms from due to said
}

func (w *watch) run(ctx context.Context, brokers, triggers string, ready chan<- struct{}) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.ConsumeTopics(triggers), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()))
	if err == nil {
		err = client.Ping(ctx)
	}
	close(ready)
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		now := time.Now()
		var wrong error
		fetches.EachRecord(func(r *kgo.Record) {
			if err := w.record(r.Value, now); err != nil {
				wrong = err
			}
		})
		if wrong != nil {
			return wrong
		}
	}
}

// record looks at a trigger's cause alone: a consumer that takes every one apart would take
// the processor from those who are measured.
func (w *watch) record(trigger []byte, now time.Time) error {
	_, rest, ok := bytes.Cut(trigger, []byte(`"cause":`))
	end := bytes.IndexByte(rest, '}')
	if !ok || end < 0 {
		return fmt.Errorf("a trigger without a cause: %s", trigger)
	}
	var cause struct {
		Kind      string    `json:"kind"`
		Partition int32     `json:"partition"`
		Offset    int64     `json:"offset"`
		Due       time.Time `json:"due"`
	}
	if err := json.Unmarshal(rest[:end+1], &cause); err != nil {
		return fmt.Errorf("%w in %s", err, trigger)
	}
	if cause.Kind != "event" {
		w.timers++
		w.timersMax = max(w.timersMax, float64(now.Sub(cause.Due).Microseconds())/1000)
		return nil
	}
	if w.causes[cause.Partition] == nil {
		w.causes[cause.Partition] = map[int64]time.Time{}
	}
	if _, ok := w.causes[cause.Partition][cause.Offset]; !ok {
		w.causes[cause.Partition][cause.Offset] = now
	}
	return nil
}

// sinceDue reads when the events were due to be sent, once the load is over: their record
// timestamps say so. It gives the milliseconds from there to the trigger.
func (b *bench) sinceDue(ctx context.Context, events string, starts kadm.ListedOffsets, w *watch) (late []float64, err error) {
	from := map[int32]kgo.Offset{}
	starts.Each(func(o kadm.ListedOffset) { from[o.Partition] = kgo.NewOffset().At(o.Offset) })
	ends, err := b.admin.ListEndOffsets(ctx, events)
	if err != nil {
		return nil, err
	}
	left := 0
	ends.Each(func(o kadm.ListedOffset) {
		s, _ := starts.Lookup(events, o.Partition)
		left += int(o.Offset - s.Offset)
	})
	client, err := kgo.NewClient(kgo.SeedBrokers(b.brokers), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{events: from}))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	type pair struct{ due, seen time.Time }
	var pairs []pair
	var first time.Time
	for left > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		left -= fetches.NumRecords()
		fetches.EachRecord(func(r *kgo.Record) {
			if first.IsZero() || r.Timestamp.Before(first) {
				first = r.Timestamp
			}
			if seen, ok := w.causes[r.Partition][r.Offset]; ok {
				pairs = append(pairs, pair{r.Timestamp, seen})
			}
		})
	}
	for _, p := range pairs {
		if p.due.Sub(first) >= warm {
			late = append(late, float64(p.seen.Sub(p.due).Microseconds())/1000)
		}
	}
	return late, nil
}
