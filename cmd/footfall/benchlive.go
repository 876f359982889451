package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
	"footfall/sources/storefront"
)

// live sends events when they are due, and reads the triggers as a consumer of them does.
func (b *benching) live(ctx context.Context, e *benchEngine) error {
	r := &b.result.Live
	reader, err := b.newBenchReader(ctx)
	if err != nil {
		return err
	}
	before, err := e.metrics(ctx)
	if err != nil {
		return err
	}
	others := b.usage.cpu()
	_, _ = e.paused() // that was before
	watched := e.watch(ctx, func(series) {})
	var reading sync.WaitGroup
	reading.Go(reader.run)
	r.Events = int64(b.o.rate) * int64(b.o.seconds)
	late, err := b.send(ctx, r.Events, reader.begin)
	after, failed := e.metrics(ctx)
	r.Rate, r.Seconds, r.SentLate = b.o.rate, b.o.seconds, float64(late.Microseconds())/1000
	r.CPU, r.OthersCPU = after[cpuMetric]-before[cpuMetric], b.usage.cpu()-others
	if err = errors.Join(err, failed); err == nil {
		after, err = b.allSaid(ctx, e, reader)
	}
	b.result.Memory.Peak = max(b.result.Memory.Peak, int64(watched()))
	if err != nil {
		reader.client.Close()
	}
	reading.Wait()
	if err = errors.Join(err, reader.err); err != nil {
		return err
	}
	r.Transitions = int64(after[transitionsMetric] - before[transitionsMetric])
	r.Triggers, r.Latency = reader.triggers, quantilesOf(reader.latencies)
	m := &b.result.Memory
	m.Resident = int64(after[residentMetric])
	m.Peak = max(m.Peak, m.Resident)
	if taken, longest := e.paused(); taken > 0 {
		ms := float64(longest.Microseconds()) / 1000
		b.result.Snapshots.Taken, b.result.Snapshots.Pause = taken, &ms
	}
	b.done("sent %s events live, and had %s triggers", grouped(r.Events), grouped(r.Triggers))
	return nil
}

// send sends events in lane live, each when it is due, and returns by how much the last of
// them to be sent was late at most. begin is told when the first is due.
func (b *benching) send(ctx context.Context, events int64, begin func(first int64, at time.Time, every time.Duration)) (late time.Duration, err error) {
	pub, err := b.conf.publisher(ctx, storefront.PublisherConfig{})
	if err != nil {
		return 0, err
	}
	bar := newBenchBar(b.say, "live", events)
	every := time.Second / time.Duration(b.o.rate)
	start := time.Now().Add(100 * time.Millisecond)
	begin(b.o.events, start, every)
	for n := int64(0); n < events && err == nil; n++ {
		due := start.Add(time.Duration(n) * every)
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		} else {
			late = max(late, -wait)
		}
		err = pub.Publish(ctx, b.crowd.Next(schemas.Millis(due.UnixMilli())))
		bar.set(n + 1)
	}
	bar.end()
	return late, errors.Join(err, pub.Close())
}

// allSaid waits until everything sent is applied and committed, and the reader has it.
func (b *benching) allSaid(ctx context.Context, e *benchEngine, reader *benchReader) (series, error) {
	if err := b.committed(ctx, e); err != nil {
		return nil, err
	}
	m, err := b.counted(ctx, e, b.result.Live.Events)
	if err != nil {
		return nil, err
	}
	err = e.until(ctx, func() (bool, error) {
		committed, err := marks(ctx, b.conf, b.client)
		n := uint64(0)
		for _, mark := range committed {
			n += mark.N
		}
		return n >= uint64(m[outputsMetric]), err
	})
	if err != nil {
		return nil, err
	}
	ends, err := kadm.NewClient(b.client).ListCommittedOffsets(ctx, b.conf.Kafka.Topics.Triggers)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("kafka: end of topic %s: %w", b.conf.Kafka.Topics.Triggers, err)
	}
	reader.end(ends)
	return m, nil
}

// benchReader reads the trigger topic from where it ends now. One goroutine (run) fills
// it; what it has found may be read when that has ended.
type benchReader struct {
	client *kgo.Client
	names  []schemas.SetNames
	next   map[int32]int64 // by partition: the first offset not read yet

	triggers  int64
	latencies []float64 // ms
	err       error

	mu    sync.Mutex // guards what follows
	first int64      // number of the first event
	start time.Time  // when it is due
	every time.Duration
	ends  map[int32]int64 // where to stop; nil: not known yet
}

func (b *benching) newBenchReader(ctx context.Context) (*benchReader, error) {
	topic := b.conf.Kafka.Topics.Triggers
	ends, err := kadm.NewClient(b.client).ListCommittedOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("kafka: end of topic %s: %w", topic, err)
	}
	rules, err := b.conf.rules()
	if err != nil {
		return nil, err
	}
	r := &benchReader{names: rules.Names(), next: map[int32]int64{}}
	from := map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		r.next[o.Partition], from[o.Partition] = o.Offset, kgo.NewOffset().At(o.Offset)
	})
	r.client, err = b.conf.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	return r, err
}

// begin tells which event is due when.
func (r *benchReader) begin(first int64, at time.Time, every time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.first, r.start, r.every = first, at, every
}

// end tells where to stop.
func (r *benchReader) end(ends kadm.ListedOffsets) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ends = map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) { r.ends[o.Partition] = o.Offset })
}

// run reads until the ends are known and reached, or the client is closed.
func (r *benchReader) run() {
	defer r.client.Close()
	for r.err == nil && !r.ended() {
		soon, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond) // the ends may be known
		fetches := r.client.PollFetches(soon)
		cancel()
		if fetches.IsClientClosed() {
			return
		}
		now := time.Now()
		for _, f := range fetches.Errors() {
			if !errors.Is(f.Err, context.DeadlineExceeded) {
				r.err = fmt.Errorf("kafka: read %s/%d: %w", f.Topic, f.Partition, f.Err)
			}
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			r.next[rec.Partition] = rec.Offset + 1
			if !rec.Attrs.IsControl() && r.err == nil {
				r.err = r.trigger(rec, now)
			}
		})
	}
}

func (r *benchReader) ended() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, end := range r.ends {
		if r.next[p] < end {
			return false
		}
	}
	return r.ends != nil
}

// trigger takes the latency of a trigger that one of the events has caused.
func (r *benchReader) trigger(rec *kgo.Record, now time.Time) error {
	t, err := schemas.DecodeTransition(rec.Value, r.names)
	if err != nil {
		return fmt.Errorf("kafka: %s/%d at offset %d: %w", rec.Topic, rec.Partition, rec.Offset, err)
	}
	n, ok := storefront.NumberOf(t.Cause.ID)
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.Cause.Kind != schemas.ByEvent || !ok || n < r.first {
		return nil
	}
	r.triggers++
	r.latencies = append(r.latencies, float64(now.Sub(r.start.Add(time.Duration(n-r.first)*r.every)).Microseconds())/1000)
	return nil
}

// quantilesOf sorts latencies.
func quantilesOf(ms []float64) benchLatency {
	slices.Sort(ms)
	l := benchLatency{N: len(ms)}
	if l.N > 0 {
		at := func(q float64) *float64 { return &ms[min(l.N-1, int(q*float64(l.N)))] }
		l.P50, l.P99, l.P999, l.Max = at(.5), at(.99), at(.999), &ms[l.N-1]
	}
	return l
}
