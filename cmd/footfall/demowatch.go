package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/oracle"
	"footfall/schemas"
	"footfall/sources/storefront"
)

// demoWatch reads the topics as a consumer of triggers would, read_committed, and
// keeps what the live view and the latency need. One goroutine (run) fills it; any
// other may look. It ends with its context.
type demoWatch struct {
	client *kgo.Client
	conf   *Config
	names  []schemas.SetNames

	mu        sync.Mutex
	sent      map[int32]map[int64]int64 // by partition and offset: Unix microseconds
	latencies []float64                 // ms
	last      []watched                 // newest last, at most watchedMax
	triggers  int
	muted     int
	records   int
}

// watched is a transition as it went by.
type watched struct {
	user, set, from, to, cause, muted string
	at                                schemas.Millis
}

const (
	watchedMax   = 200
	latenciesMax = 1 << 20
	sentMax      = 1 << 20 // per partition, of records whose transition may still come
)

func newDemoWatch(c *Config, names []schemas.SetNames) (*demoWatch, error) {
	t := &c.Kafka.Topics
	client, err := c.client(
		kgo.ConsumeTopics(t.Events, t.Triggers, t.Muted),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(50*time.Millisecond),
	)
	if err != nil {
		return nil, err
	}
	return &demoWatch{client: client, conf: c, names: names, sent: map[int32]map[int64]int64{}}, nil
}

func (w *demoWatch) run(ctx context.Context) error {
	defer w.client.Close()
	for {
		fetches := w.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		now := time.Now().UnixMicro()
		if err := errors.Join(fetchErrors(fetches)...); err != nil {
			return fmt.Errorf("watch the topics: %w", err)
		}
		w.mu.Lock()
		// Input first: a transition is never committed before its cause is readable,
		// but both may come in one poll.
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Topic == w.conf.Kafka.Topics.Events {
				w.input(r)
			}
		})
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Topic != w.conf.Kafka.Topics.Events {
				w.output(r, now)
			}
		})
		w.mu.Unlock()
	}
}

func fetchErrors(fetches kgo.Fetches) (errs []error) {
	for _, f := range fetches.Errors() {
		errs = append(errs, fmt.Errorf("%s/%d: %w", f.Topic, f.Partition, f.Err))
	}
	return errs
}

// input remembers when a record was sent, unless it is history.
func (w *demoWatch) input(r *kgo.Record) {
	w.records++
	lane, _ := schemas.LaneOf(headers(r), w.conf.Kafka.Lane)
	if lane == schemas.Backfill {
		return
	}
	for _, h := range r.Headers {
		if h.Key != storefront.SentHeader {
			continue
		}
		at, err := strconv.ParseInt(string(h.Value), 10, 64)
		if err != nil {
			return
		}
		p := w.sent[r.Partition]
		if p == nil || len(p) >= sentMax {
			p = map[int64]int64{}
			w.sent[r.Partition] = p
		}
		p[r.Offset] = at
	}
}

func (w *demoWatch) output(r *kgo.Record, now int64) {
	t, err := schemas.DecodeTransition(r.Value, w.names)
	if err != nil {
		return // the oracle will say so
	}
	if t.Muted == schemas.NotMuted {
		w.triggers++
	} else {
		w.muted++
	}
	if t.Cause.Kind == schemas.ByEvent {
		if at, ok := w.sent[t.Cause.Pos.Partition][t.Cause.Pos.Offset]; ok && len(w.latencies) < latenciesMax {
			w.latencies = append(w.latencies, float64(now-at)/1000)
		}
	}
	if t.Names != nil {
		return // of other rules than the demo's; the oracle will say so
	}
	segments := w.names[t.Set].Segments
	from := "-"
	if t.From != schemas.NoSegment {
		from = segments[t.From]
	}
	cause := t.Cause.Kind.String()
	if t.Cause.Kind == schemas.ByEvent {
		cause = t.Cause.Event.String()
	}
	w.last = append(w.last, watched{t.User, w.names[t.Set].Name, from, segments[t.To], cause, t.Muted.String(), t.At})
	if len(w.last) > watchedMax {
		w.last = w.last[len(w.last)-watchedMax/2:]
	}
}

// latency is from a record's sending to a read_committed consumer having the
// transition that it caused; history, published at once, is left out.
func (w *demoWatch) latency() demoLatency {
	w.mu.Lock()
	sorted := slices.Clone(w.latencies)
	w.mu.Unlock()
	slices.Sort(sorted)
	l := demoLatency{N: len(sorted)}
	if l.N > 0 {
		p50, p99 := sorted[l.N/2], sorted[l.N*99/100]
		l.P50, l.P99 = &p50, &p99
	}
	return l
}

// readBack reads the topics whole, and the committed marks.
func (d *demonstration) readBack(ctx context.Context) (*oracle.Dump, map[int32]oracle.Mark, error) {
	t := &d.conf.Kafka.Topics
	dump := &oracle.Dump{}
	for _, topic := range []struct {
		name string
		into *[]oracle.Record
	}{{t.Events, &dump.Input}, {t.Triggers, &dump.Triggers}, {t.Muted, &dump.Muted}, {t.DeadLetters, &dump.DeadLetters}} {
		err := readTopic(ctx, d.conf, topic.name, 0, func(r *kgo.Record) error {
			rec := oracle.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Time: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
			for _, h := range r.Headers {
				rec.Headers = append(rec.Headers, oracle.Header{Key: h.Key, Value: h.Value})
			}
			*topic.into = append(*topic.into, rec)
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	cl, err := d.conf.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer cl.Close()
	committed, err := marks(ctx, d.conf, cl)
	if err != nil {
		return nil, nil, err
	}
	out := map[int32]oracle.Mark{}
	for p, m := range committed {
		out[p] = oracle.Mark{Next: m.Next, Clock: int64(m.Clock), Fired: int64(m.Fired), N: int64(m.N)}
	}
	return dump, out, nil
}

// writeDump keeps the topics as NDJSON, as oracle.ReadDump reads them.
func writeDump(dir string, d *oracle.Dump) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return errors.Join(
		writeRecords(filepath.Join(dir, "input.ndjson"), d.Input),
		writeRecords(filepath.Join(dir, "triggers.ndjson"), d.Triggers),
		writeRecords(filepath.Join(dir, "muted.ndjson"), d.Muted),
		writeRecords(filepath.Join(dir, "deadletters.ndjson"), d.DeadLetters),
	)
}

func writeRecords(path string, records []oracle.Record) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	encode := json.NewEncoder(w)
	type header struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	text := func(b []byte) *string {
		if b == nil {
			return nil
		}
		s := base64.StdEncoding.EncodeToString(b)
		return &s
	}
	for i := range records {
		r := &records[i]
		all := []header{}
		for _, h := range r.Headers {
			all = append(all, header{h.Key, base64.StdEncoding.EncodeToString(h.Value)})
		}
		err = encode.Encode(map[string]any{
			"topic": r.Topic, "partition": r.Partition, "offset": r.Offset, "timestamp": r.Time,
			"key": text(r.Key), "headers": all, "value": text(r.Value),
		})
		if err != nil {
			break
		}
	}
	return errors.Join(err, w.Flush(), f.Close())
}
