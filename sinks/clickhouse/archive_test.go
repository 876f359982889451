package clickhouse

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/archive"
	"footfall/schemas"
	"footfall/sinks/clickhouse/chdbtest"
)

const partitions = 4

var sets = []schemas.SetNames{{Name: "lifecycle", Segments: []string{"lost", "dormant", "new", "active", "cooling", "prospect"}}}

// kafka is a broker with the four topics, and what was put into them.
type kafka struct {
	t       testing.TB
	cluster *kfake.Cluster
	opts    []kgo.Opt
	client  *kgo.Client

	mu    sync.Mutex // guards facts
	facts []string
}

func startKafka(t testing.TB) *kafka {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "in", "triggers", "muted", "dead"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	k := &kafka{t: t, cluster: cluster, opts: []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.HeartbeatInterval(100 * time.Millisecond), kgo.MetadataMinAge(50 * time.Millisecond)}}
	k.client = k.connect()
	return k
}

func (k *kafka) connect(more ...kgo.Opt) *kgo.Client {
	k.t.Helper()
	client, err := kgo.NewClient(append(append([]kgo.Opt{}, k.opts...), append(more, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)...)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(client.Close)
	return client
}

func (k *kafka) produce(records ...*kgo.Record) {
	k.t.Helper()
	if err := k.client.ProduceSync(k.t.Context(), records...).FirstErr(); err != nil {
		k.t.Fatal(err)
	}
}

// transact produces in a transaction, which is aborted or committed.
func (k *kafka) transact(commit bool, records ...*kgo.Record) {
	k.t.Helper()
	client := k.connect(kgo.TransactionalID("test"))
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		k.t.Fatal(err)
	}
	if err := client.ProduceSync(k.t.Context(), records...).FirstErr(); err != nil {
		k.t.Fatal(err)
	}
	if err := client.EndTransaction(k.t.Context(), kgo.TransactionEndTry(commit)); err != nil {
		k.t.Fatal(err)
	}
}

// at is the record timestamp of the test's records: the hour i of 2026.
func at(i int) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Hour)
}

func event(i int, fields string) *kgo.Record {
	user := fmt.Sprintf("u%d", i%7)
	value := fmt.Sprintf(`{"event_id":"e%d","user_id":"%s","time":"%s"%s}`, i, user, at(i).Format(time.RFC3339), fields)
	return &kgo.Record{Topic: "in", Partition: int32(i % 7 % partitions), Key: []byte(user), Value: []byte(value), Timestamp: at(i)}
}

func toKafka(headers []schemas.Header) (out []kgo.RecordHeader) {
	for _, h := range headers {
		out = append(out, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return out
}

func transitionRecord(topic string, n uint64, t *schemas.Transition) *kgo.Record {
	out := schemas.OutputHeaders{ID: schemas.OutputID("shop", 1, n), N: n, Next: 9, Clock: t.At, Fired: t.At}
	value := t.AppendJSON(nil, &schemas.TransitionContext{ID: out.ID, Topic: "in", Sets: sets, Currency: "EUR"})
	headers, _ := schemas.AppendTransitionHeaders[schemas.Header](nil, nil, &out, schemas.SourceOf("shop"), t)
	return &kgo.Record{
		Topic: topic, Partition: 1, Key: []byte(t.User), Value: value, Timestamp: time.UnixMilli(int64(t.At)),
		Headers: toKafka(headers),
	}
}

func deadRecord(n uint64, of *kgo.Record, offset int64, reason schemas.Refusal) *kgo.Record {
	d := schemas.DeadLetter{
		Pos: schemas.Position{Partition: of.Partition, Offset: offset}, Time: schemas.Millis(of.Timestamp.UnixMilli()), Reason: reason, Detail: "time", Key: of.Key, Value: of.Value,
		Headers: []schemas.Header{{Key: "trace", Value: []byte{0xff, 1}}, {Key: "trace", Value: nil}},
	}
	r := d.Encode("in", &schemas.OutputHeaders{N: n, Next: offset + 1, Clock: 5, Fired: 4}, false)
	return &kgo.Record{Topic: "dead", Partition: of.Partition, Key: r.Key, Value: r.Value, Headers: toKafka(r.Headers), Timestamp: of.Timestamp}
}

// archive starts an archive, and returns how to stop it.
func (k *kafka) archive(db *DB, change func(*ArchiveConfig)) (a *Archive, stop func()) {
	k.t.Helper()
	c := ArchiveConfig{
		DB: db, Client: k.opts, Group: "shop", Inputs: []InputTopic{{Name: "in"}}, Triggers: "triggers", Muted: "muted", Dead: "dead",
		Contract: schemas.Contract{Currency: "EUR", Rates: map[string]string{"USD": "0.5"}},
		AgeMax:   50 * time.Millisecond, AuditEvery: 100 * time.Millisecond, AuditAgain: 200 * time.Millisecond,
		Report: func(f archive.Fact) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.facts = append(k.facts, f.String())
		},
	}
	if change != nil {
		change(&c)
	}
	a, err := NewArchive(c)
	if err != nil {
		k.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				k.t.Errorf("Run: %v", err)
			}
		})
	}
	k.t.Cleanup(stop)
	return a, stop
}

func (k *kafka) reported() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.facts[max(0, len(k.facts)-40):], "\n")
}

// times is how often a fact was reported that has text in it.
func (k *kafka) times(text string) (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range k.facts {
		if strings.Contains(f, text) {
			n++
		}
	}
	return n
}

// patience is how long a test waits for what must happen: on a busy machine an engine
// takes long to come up again.
const patience = 10 * time.Minute

// eventually waits for something that other goroutines bring about.
func (k *kafka) eventually(what string, f func() bool) {
	k.t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			k.t.Fatalf("waited %v for: %s\n%s", patience, what, k.reported())
		}
	}
}

// drain waits until everything is archived.
func (k *kafka) drain(a *Archive) {
	k.t.Helper()
	k.eventually("the archive to be up to date", func() bool {
		behind, err := a.Behind(k.t.Context())
		return err == nil && behind == 0
	})
}

func expect(t testing.TB, dsn, sql, want string) {
	t.Helper()
	if got := chdbtest.Exec(t, dsn, sql); got != want {
		t.Errorf("%s\ngot:\n%s\nwant:\n%s", sql, got, want)
	}
}

func TestArchiveCopiesEveryTopic(t *testing.T) { protocols(t, archiveCopiesEveryTopic) }

func archiveCopiesEveryTopic(t *testing.T, over func(dsn string) string) {
	dsn := chdbtest.Database(t)
	db := openAt(t, over(dsn))
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	k := startKafka(t)
	full := `,"type":"purchase","session_id":"s","product_id":"p","category":"c","brand":"b","price":1.5,"quantity":2,"currency":"USD","cart_id":"k","order_id":"o","revenue":9.99,` +
		`"items":[{"product_id":"p","price":4.995,"quantity":2}],"channel":"mail","campaign":"x","url":"/é","timezone":"Europe/Berlin","birthday":"--04-15","properties":{"a":1},"own":{"b":2}`
	first := event(1, full)
	first.Headers = []kgo.RecordHeader{{Key: "lane", Value: []byte("backfill")}}
	future := event(3, `,"type":"view","time":"2226-01-01T00:00:00Z"`)
	refused := event(2, `,"type":"dance"`)
	k.produce(first, event(1, full), refused, future)
	k.produce(event(4, `,"type":"add_to_cart","event_id":"cart","price":2.5,"quantity":3,"currency":"USD"`))
	for i := range 2000 { // of three months: 24 hours a day
		k.produce(event(10+i, `,"type":"view"`))
	}
	tr := schemas.Transition{
		User: "u1", From: schemas.NoSegment, To: 2, Seq: 1, At: schemas.Millis(at(1).UnixMilli()),
		Cause: schemas.Cause{Kind: schemas.ByEvent, Event: schemas.Purchase, ID: "e1", Pos: schemas.Position{Partition: 1, Offset: 0}},
		Facts: schemas.Facts{First: 1000, Last: 2000, FirstPurchase: 2000, LastPurchase: 2000, Orders: 1, Revenue: -500}, Segments: []uint16{2},
		Expected: schemas.Expected{To: 4, At: schemas.Millis(at(721).UnixMilli())}, Rules: 0xabc,
	}
	timer := tr
	timer.From, timer.To, timer.Seq, timer.Cause, timer.Muted = 2, 0, 2, schemas.Cause{Kind: schemas.ByTimer, Due: tr.At + 5}, schemas.MutedStale
	timer.Evidence = schemas.Evidence{Clause: "since(last()) >= days(180)", Kind: schemas.SpanValue, Was: int64(schemas.Never), Is: int64(180 * schemas.Day)}
	timer.Cart = 0xcafe
	timer.Expected = schemas.Expected{To: schemas.NoSegment, At: schemas.Never}
	timer.Contact = schemas.Contact{NotBefore: tr.At + 6*schemas.Hour, BestHour: 18, Zone: "Europe/Berlin", ZoneFrom: schemas.ZoneEvent}
	k.transact(false, transitionRecord("triggers", 1, &tr), transitionRecord("triggers", 2, &tr))
	k.transact(true, transitionRecord("triggers", 1, &tr), transitionRecord("muted", 2, &timer), deadRecord(3, refused, refused.Offset, schemas.UnknownType), deadRecord(4, future, future.Offset, schemas.Future),
		&kgo.Record{Topic: "triggers", Partition: 0, Value: []byte("somebody else's")})

	a, stop := k.archive(db, nil)
	k.drain(a)
	stop()

	expect(t, dsn, "SELECT count(), uniqExact(_topic, _partition, _offset), count(DISTINCT toYYYYMM(_time)) FROM events", "2004\t2004\t3")
	expect(t, dsn, "SELECT count() FROM events_accepted", "2003")
	expect(t, dsn, "SELECT count() FROM events_once", "2002")
	expect(t, dsn, "SELECT * EXCEPT (_hash) FROM events WHERE _partition = 1 AND _offset = 0",
		"in\t1\t0\t2026-01-01 01:00:00.000\tbackfill\te1\tpurchase\tu1\t2026-01-01 01:00:00.000\ts\tp\tc\tb\t1.5\t2\tUSD\tk\to\t9.99\t"+
			`[{"product_id":"p","price":4.995,"quantity":2}]`+"\tmail\tx\t/é\t"+`{"a":1}`+"\t"+`{"own":{"b":2}}`+"\t500\t5\tEUR\t0\tEurope/Berlin\t--04-15")
	expect(t, dsn, "SELECT worth_minor FROM events WHERE event_id = 'cart'", "375")
	expect(t, dsn, "SELECT * EXCEPT (_hash, _offset) FROM transitions ORDER BY seq",
		"triggers\t1\t2026-01-01 01:00:00.000\tshop/1/1\t1\t9\t2026-01-01 01:00:00.000\t2026-01-01 01:00:00.000\tu1\tlifecycle\t1\t\tnew\t2026-01-01 01:00:00.000\t\t"+
			"event\tpurchase\te1\tin\t1\t0\t\\N\t1767229198\t1\t-500\t-5\tEUR\t1970-01-01 00:00:01.000\t1970-01-01 00:00:02.000\t1970-01-01 00:00:02.000\t1970-01-01 00:00:02.000\t{'lifecycle':'new'}\tcooling\t2026-01-31 01:00:00.000\t0000000000000abc\t\t\t\t\\N\t\t\\N\t\\N\t\t\n"+
			"muted\t1\t2026-01-01 01:00:00.000\tshop/1/2\t2\t9\t2026-01-01 01:00:00.000\t2026-01-01 01:00:00.000\tu1\tlifecycle\t2\tnew\tlost\t2026-01-01 01:00:00.000\tstale\t"+
			"timer\t\t\t\t\\N\t\\N\t2026-01-01 01:00:00.005\t1767229198\t1\t-500\t-5\tEUR\t1970-01-01 00:00:01.000\t1970-01-01 00:00:02.000\t1970-01-01 00:00:02.000\t1970-01-01 00:00:02.000\t{'lifecycle':'new'}\t\t\\N\t0000000000000abc\tsince(last()) >= days(180)\tnull\t15552000\t\\N\t000000000000cafe\t2026-01-01 07:00:00.000\t18\tEurope/Berlin\tevent")
	expect(t, dsn, "SELECT reason, detail, source_topic, source_partition, source_offset, source_time, n, key, value LIKE '%dance%', value_size = length(value), value_sha256, arrayMap(h -> (h.key, hex(h.value)), headers) FROM dead_letters WHERE reason = 'unknown_type'",
		fmt.Sprintf("unknown_type\ttime\tin\t%d\t%d\t2026-01-01 02:00:00.000\t3\tu2\t1\t1\t\t[('trace','FF01'),('trace','')]", refused.Partition, refused.Offset))
	expect(t, dsn, "SELECT count() FROM dead_letters", "2")
	s := a.Stats()
	if got := []int64{s.Events.Load(), s.Transitions.Load(), s.DeadLetters.Load(), s.Foreign.Load(), s.Mended.Load()}; fmt.Sprint(got) != "[2004 2 2 1 0]" {
		t.Errorf("stats: got %v events, transitions, dead letters, foreign, mended; want [2004 2 2 1 0]", got)
	}

	// Another one has nothing to do, and what comes next is archived once.
	k.produce(event(5000, `,"type":"view"`))
	b, _ := k.archive(db, nil)
	k.drain(b)
	expect(t, dsn, "SELECT count(), uniqExact(_topic, _partition, _offset) FROM events", "2005\t2005")
}

// A member that was expelled and has joined again begins anew with what it is given, and
// nothing that it had collected before is committed.
func TestExpelledArchiveBeginsAnew(t *testing.T) {
	all := map[string][]int32{"in": {0, 1}}
	p := func(n int32) archive.Partition { return archive.Partition{Topic: "in", Number: n} }
	for name, c := range map[string]struct {
		back            func(*Log)
		lost, again, no []archive.Partition
	}{
		"and keeps all":         {func(l *Log) { l.gain("again", nil) }, []archive.Partition{p(0), p(1)}, []archive.Partition{p(0), p(1)}, nil},
		"and gets one more":     {func(l *Log) { l.gain("again", map[string][]int32{"in": {2}}) }, []archive.Partition{p(0), p(1)}, []archive.Partition{p(0), p(1)}, nil},
		"and one is revoked":    {func(l *Log) { l.revoke(t.Context(), "again", map[string][]int32{"in": {0}}) }, []archive.Partition{p(0), p(1)}, []archive.Partition{p(1)}, []archive.Partition{p(0)}},
		"and one is lost":       {func(l *Log) { l.lose(map[string][]int32{"in": {0}}) }, []archive.Partition{p(0)}, nil, []archive.Partition{p(0)}},
		"never having been out": {func(l *Log) { l.gain("m", nil) }, nil, nil, nil},
	} {
		l := &Log{owned: map[archive.Partition]int64{}, again: map[archive.Partition]bool{}}
		l.gain("m", all)
		l.assigned = nil // they were reported
		epochs := maps.Clone(l.owned)
		c.back(l)
		order := func(a, b archive.Partition) int { return int(a.Number - b.Number) }
		slices.SortFunc(l.lost, order)
		again := slices.SortedFunc(maps.Keys(l.again), order)
		if !slices.Equal(l.lost, c.lost) || !slices.Equal(again, c.again) {
			t.Errorf("%s: lost %v, read again %v; want %v and %v", name, l.lost, again, c.lost, c.again)
		}
		for _, at := range c.again {
			if l.owned[at] <= epochs[at] || !slices.Contains(l.assigned, at) {
				t.Errorf("%s: %v has epoch %d after %d, reported %v", name, at, l.owned[at], epochs[at], l.assigned)
			}
		}
		for _, at := range c.no {
			if l.owned[at] != 0 {
				t.Errorf("%s: %v is still ours", name, at)
			}
		}
		for _, at := range c.lost { // there is no client: it would panic
			if lost, err := l.Commit(t.Context(), []archive.Commit{{Partition: at, Epoch: epochs[at], Next: 5}}); err != nil || !slices.Equal(lost, []archive.Partition{at}) {
				t.Errorf("%s: a commit of before: lost %v, %v", name, lost, err)
			}
		}
	}
}
