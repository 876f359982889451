package triggers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
	"footfall/sources/kafka"
)

var (
	_ pipeline.Committer = (*Sink)(nil)
	_ Session            = (*kafka.Session)(nil)
	_ pipeline.History   = struct { // what cmd puts together
		input
		*Sink
	}{}
)

// input is the half of the history that the source has.
type input interface {
	Bounds(ctx context.Context, partition int32) (start, end int64, err error)
	Input(ctx context.Context, partition int32, from, to int64, each func([]worker.Record) error) error
}

const now schemas.Millis = 1767225600000

func config(name string) Config {
	return Config{
		Group: "shop", Input: "in" + name, Triggers: "triggers" + name, Muted: "muted" + name, DeadLetters: "dead" + name,
		Currency: "EUR",
		Now:      func() schemas.Millis { return now },
		Wait:     300 * time.Millisecond,
	}
}

// transition is output n, a trigger, or muted.
func transition(n uint64, muted schemas.Muted) worker.Item {
	return worker.Item{
		N: n, Next: int64(10 * n), Clock: schemas.Millis(1000 * n), Fired: schemas.Millis(900 * n),
		Transition: &schemas.Transition{
			User: fmt.Sprint("user-", n), From: schemas.NoSegment, To: 2, Seq: 1, At: 1700000000000,
			Cause:    schemas.Cause{Kind: schemas.ByEvent, Pos: schemas.Position{Partition: 1, Offset: 7}, Event: schemas.Purchase, ID: "e1"},
			Muted:    muted,
			Facts:    schemas.Facts{First: 1699999999000, Last: 1700000000000, Orders: 1, Revenue: 1999},
			Segments: []uint16{2}, Expected: schemas.Expected{To: 1, At: 1707776000000}, Rules: 77,
		},
	}
}

func deadLetter(n uint64, value string) worker.Item {
	return worker.Item{
		N: n, Next: int64(10 * n), Clock: 5, Fired: 4,
		DeadLetter: &schemas.DeadLetter{
			Pos: schemas.Position{Partition: 1, Offset: int64(n)}, Time: 1700000000000, Reason: schemas.NotJSON, Detail: "at 3",
			Key: []byte("k"), Value: []byte(value),
			// A record may have our own headers: it was a dead letter before, or lies.
			Headers: []schemas.Header{{Key: "n", Value: []byte("999")}, {Key: "ce_id", Value: []byte("x")}, {Key: "dlq_n", Value: []byte("1")}},
		},
	}
}

func outputOf(a pipeline.Assignment, items ...worker.Item) *worker.Output {
	last := items[len(items)-1]
	return &worker.Output{
		Epoch: a.Epoch, Items: items, Sets: []schemas.SetNames{{Name: "lifecycle", Segments: []string{"lost", "dormant", "new"}}},
		Mark: schemas.Mark{Partition: a.Partition, Next: last.Next, Clock: last.Clock, Fired: last.Fired, N: last.N},
	}
}

// onBrokers runs a test against the broker in this process and, if there is one, a
// real one.
func onBrokers(t *testing.T, test func(t *testing.T, s *Sink, session *kafka.Session, a pipeline.Assignment)) {
	t.Run("local", func(t *testing.T) {
		broker, err := kafka.StartLocal(kafka.LocalConfig{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(broker.Close)
		s, session, a := open(t, broker.Addr())
		test(t, s, session, a)
	})
	t.Run("real", func(t *testing.T) {
		addr := os.Getenv("FOOTFALL_TEST_KAFKA")
		if addr == "" {
			t.Skip("FOOTFALL_TEST_KAFKA is not set: give host:port of a real Kafka to run this on it too")
		}
		s, session, a := open(t, addr)
		test(t, s, session, a)
	})
}

// open makes topics of two partitions, and a sink whose session owns partition 1.
func open(t *testing.T, addr string) (*Sink, *kafka.Session, pipeline.Assignment) {
	t.Helper()
	conf := config("-" + strings.ToLower(rand.Text()[:8]))
	outputs := []string{conf.Triggers, conf.Muted, conf.DeadLetters}
	source := kafka.Config{
		Brokers: []string{addr}, Group: "g" + conf.Input, Instance: "a", Topic: conf.Input, Now: conf.Now,
		HeartbeatInterval: 100 * time.Millisecond, SessionTimeout: 6 * time.Second,
	}
	opts, err := kafka.Options(source)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	problems, err := kafka.CreateTopics(t.Context(), cl, kafka.TopicPlan{Input: conf.Input, Outputs: outputs, Partitions: 2})
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	session, err := kafka.New(t.Context(), source, outputs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		session.Close(ctx)
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var b pipeline.Batch
	for {
		if err := session.Poll(ctx, &b); err != nil {
			t.Fatal(err)
		}
		for _, a := range b.Assigned {
			if a.Partition == 1 {
				conf.Wait = 10 * time.Second
				s, err := New(conf, session)
				if err != nil {
					t.Fatal(err)
				}
				return s, session, a
			}
		}
	}
}

// The record of a transition: topic, key, partition, timestamp and headers.
func TestRecords(t *testing.T) {
	m := newMemory()
	s := newSink(t, m)
	out := outputOf(pipeline.Assignment{Partition: 3}, transition(4, schemas.NotMuted), transition(5, schemas.MutedPaused), deadLetter(6, "{"))
	if err := s.Commit(t.Context(), []*worker.Output{out}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ topic, key, id string }{
		{"triggers", "user-4", "shop/3/4"}, {"muted", "user-5", "shop/3/5"}, {"dead", "k", "x"},
	} {
		rs := m.logs[c.topic].records
		if len(rs) != 1 {
			t.Fatalf("%s: got %d records", c.topic, len(rs))
		}
		r := rs[0]
		if string(r.Key) != c.key || r.Partition != 3 || r.Timestamp.UnixMilli() != int64(now) {
			t.Errorf("%s: got key %q, partition %d, time %v; want %q, 3, the wall's now", c.topic, r.Key, r.Partition, r.Timestamp, c.key)
		}
		id := ""
		for _, h := range r.Headers {
			if h.Key == schemas.HeaderID {
				id = string(h.Value)
			}
		}
		if id != c.id {
			t.Errorf("%s: got ce_id %q, want %q", c.topic, id, c.id)
		}
	}
}

// A dead letter too large for its topic goes without its value; the others, and
// everything said with it, go whole.
func TestDeadLetterTooLarge(t *testing.T) {
	onBrokers(t, func(t *testing.T, s *Sink, _ *kafka.Session, a pipeline.Assignment) {
		huge := strings.Repeat("x", 3<<20)
		items := []worker.Item{deadLetter(1, "small"), deadLetter(2, huge), transition(3, schemas.NotMuted), deadLetter(4, huge)}
		if err := s.Commit(t.Context(), []*worker.Output{outputOf(a, items...)}); err != nil {
			t.Fatal(err)
		}
		var got []string
		err := s.Said(t.Context(), 1, 0, 4, func(it *worker.Item) error {
			if it.DeadLetter != nil {
				got = append(got, fmt.Sprintf("%d %d %q", it.N, it.DeadLetter.Pos.Offset, it.DeadLetter.Value))
			}
			return nil
		})
		if want := []string{`1 1 "small"`, `2 2 ""`, `4 4 ""`}; err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, error %v; want %q", got, err, want)
		}
	})
}

// A broker refuses a whole batch. The small ones in it are not to blame, and keep
// their values; nothing is said twice or lost on the way.
func TestBatchTooLarge(t *testing.T) {
	m := newMemory()
	m.max, m.whole = 1000, true
	s := newSink(t, m)
	huge, large := strings.Repeat("x", 5000), strings.Repeat("x", 1500)
	say(t, s, deadLetter(1, "small"), deadLetter(2, huge), transition(3, schemas.NotMuted), deadLetter(4, large), deadLetter(5, huge))
	var got []int
	for _, r := range m.logs["dead"].records {
		got = append(got, len(r.Value))
	}
	if want := []int{5, 0, 0, 0}; !slices.Equal(got, want) {
		t.Errorf("values of %v bytes, want %v", got, want)
	}
	if ns, err := said(t, s, 0, 5); err != nil || len(ns) != 5 {
		t.Errorf("said %v, %v", ns, err)
	}
}

// A transition too large is an error that stops, not one that is sent for ever.
func TestTransitionTooLarge(t *testing.T) {
	m := newMemory()
	m.max = 100 // bytes, less than any transition
	s := newSink(t, m)
	out := outputOf(pipeline.Assignment{Partition: 0}, transition(1, schemas.NotMuted))
	if err := s.Commit(t.Context(), []*worker.Output{out}); !errors.Is(err, pipeline.ErrPermanent) {
		t.Errorf("got %v, want ErrPermanent", err)
	}
}

// A bad configuration is told in full.
func TestNewRefuses(t *testing.T) {
	_, err := New(Config{Triggers: "a", Muted: "a"}, nil)
	for _, want := range []string{"group", "input topic", "dead-letter topic", "currency", "must be three", "Now"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %q", err, want)
		}
	}
}

func newSink(t *testing.T, m *memory) *Sink {
	t.Helper()
	s, err := New(config(""), m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func say(t *testing.T, s *Sink, items ...worker.Item) {
	t.Helper()
	if err := s.Commit(t.Context(), []*worker.Output{outputOf(pipeline.Assignment{}, items...)}); err != nil {
		t.Fatal(err)
	}
}

// memory is a log whose commit markers lag as a test says: records at or after a
// topic's stable offset are written and not visible.
type memory struct {
	logs    map[string]*memoryLog
	max     int    // largest value; 0: any
	whole   bool   // refuse all of a topic's records for one too large
	ranges  int    // how often Range was called
	fetches int    // how many records were read, or found to be aborted
	shown   func() // called by Range
}

type memoryLog struct {
	records       []*kgo.Record
	start, stable int64
}

func newMemory() *memory {
	return &memory{logs: map[string]*memoryLog{"triggers": {}, "muted": {}, "dead": {}}, shown: func() {}}
}

func (m *memory) append(r *kgo.Record) {
	l := m.logs[r.Topic]
	r.Offset = int64(len(l.records))
	l.records = append(l.records, r)
	l.stable = int64(len(l.records))
}

type memoryTooLarge struct{ records []*kgo.Record }

func (e memoryTooLarge) Error() string           { return "too large" }
func (e memoryTooLarge) TooLarge() []*kgo.Record { return e.records }

func (m *memory) Transact(_ context.Context, records []*kgo.Record, _ []*worker.Output) error {
	for _, r := range records {
		if m.max > 0 && len(r.Value) > m.max {
			refused := []*kgo.Record{r}
			for _, other := range records {
				if m.whole && other != r && other.Topic == r.Topic {
					refused = append(refused, other)
				}
			}
			return memoryTooLarge{refused}
		}
	}
	for _, r := range records {
		kept := *r // the sink's again when this has returned
		kept.Key, kept.Value, kept.Headers = slices.Clone(r.Key), slices.Clone(r.Value), slices.Clone(r.Headers)
		for i, h := range kept.Headers {
			kept.Headers[i].Value = slices.Clone(h.Value)
		}
		m.append(&kept)
	}
	return nil
}

func (m *memory) Committed(context.Context, int32) (schemas.Mark, bool, error) {
	return schemas.Mark{}, false, nil
}

func (m *memory) Range(_ context.Context, topic string, _ int32) (start, stable, end int64, err error) {
	m.ranges++
	m.shown()
	l := m.logs[topic]
	return l.start, l.stable, int64(len(l.records)), nil
}

func (m *memory) Fetch(_ context.Context, topic string, _ int32, offset int64) ([]*kgo.Record, int64, error) {
	l := m.logs[topic]
	if offset >= l.stable {
		return nil, offset, nil
	}
	m.fetches++
	if l.records[offset] == nil {
		return nil, offset + 1, nil // of a transaction that was aborted
	}
	return l.records[offset : offset+1], offset + 1, nil
}

func (m *memory) Peek(ctx context.Context, topic string, partition int32, offset int64) ([]*kgo.Record, int64, error) {
	return m.Fetch(ctx, topic, partition, offset)
}

func (m *memory) Hanging(_ context.Context, topic string, partition int32) string {
	return fmt.Sprintf("%s/%d hangs", topic, partition)
}
