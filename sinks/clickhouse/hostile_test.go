package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/parity"
	"footfall/pipeline/worker"
	"footfall/schemas"
	source "footfall/sources/kafka"
)

// A batch that expands without measure stops the archive with what to do. The client
// tells of it once, and then reads that partition no more: nothing would come of
// waiting. The words are the source's, which knows the setting.
func TestBatchBombStopsTheArchive(t *testing.T) {
	db, _ := open(t)
	k := startKafka(t)
	bomber := k.connect(kgo.ProducerBatchMaxBytes(32<<20), kgo.ProducerBatchCompression(kgo.GzipCompression()))
	bomb := &kgo.Record{Topic: "in", Value: []byte(strings.Repeat("0", 8<<20))}
	if err := bomber.ProduceSync(t.Context(), bomb).FirstErr(); err != nil {
		t.Fatal(err)
	}
	a, err := NewArchive(ArchiveConfig{
		DB: db, Client: append(slices.Clone(k.opts), kgo.MaxDecompressBatchBytes(4<<20)), Group: "shop", Inputs: []InputTopic{{Name: "in"}},
		Triggers: "triggers", Muted: "muted", Dead: "dead", Contract: schemas.Contract{Currency: "EUR"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := source.Unreadable(a.Run(ctx)); !errors.Is(err, kgo.ErrMaxDecompress) || !strings.Contains(err.Error(), "in/0") || !strings.Contains(err.Error(), "kafka.batch_max") {
		t.Errorf("got %v, want an error that names the partition and what to do", err)
	}
}

// A database's name goes into SQL as it is, so it must be one.
func TestOpenRefusesWhatIsNoName(t *testing.T) {
	for _, name := range []string{"a;b", "a b", "a`b", "a'b", "a-b", "1a", "a%3Bb", "\u00fc", "a/b"} {
		if db, err := Open("http://127.0.0.1:1/" + name); err == nil {
			db.Close()
			t.Errorf("%q: taken for the name of a database", name)
		}
	}
}

// hostileIDs are ids that would be something else, were they part of a statement.
func hostileIDs() []string {
	ids := []string{
		"'", "''", `\`, `\'`, `\\'`, "' OR 1=1 --", "x') OR ('1'='1", "'; DROP TABLE events; --", "?", "??", "$1", "@topic", "{topic:String}", "{users:Array(String)}",
		"{x:String}", "{", "`", `"`, "/*", "--", "#", "\x00", "a\x00b", "\t", "\n", "\r\n", `\n`, `\N`, "NULL", "[]", "['a']", "\xff\xfe", "a\xc3", "\u2028", "%27", "+", "&a=b", " ", "\x1b", "\b\f",
	}
	// More than a parameter takes, each as long as an id may be.
	for i := range 300 {
		ids = append(ids, fmt.Sprintf("%d", i)+strings.Repeat(`'\`, 120))
	}
	return ids
}

// Whatever a user or a topic is called, it is a value and nothing else.
func TestHostileIDs(t *testing.T) {
	db, dsn := open(t)
	p := parityOf(db)
	p.topic = `in'\{x:String}?$1`
	p.audit.conf.Triggers, p.audit.conf.Muted, p.audit.conf.Dead = `tr'ig\`, "mu?ted", "de{topic:String}ad"
	ids := hostileIDs()
	// One by one, as texts; what is asked later gives them as a list.
	for i, id := range ids {
		for _, sql := range []string{
			"INSERT INTO events (_topic, _partition, _offset, _time, event_id, type, user_id, time) SELECT {topic:String}, 1, {i:Int64}, '2026-01-20 00:00:00', {id:String}, 'view', {id:String}, '2026-01-20 00:00:00'",
			"INSERT INTO transitions (_topic, _partition, _offset, _time, n, user_id, segment_set, seq, from_segment, to_segment) SELECT {triggers:String}, 1, {i:Int64}, '2026-01-20 00:00:00', {i:UInt64} + 1, {id:String}, 'tested', 1, '', 'none'",
		} {
			if err := db.Exec(t.Context(), sql, p.args(nil, clickhouse.Named("id", id), clickhouse.Named("i", i))...); err != nil {
				t.Fatalf("%q: %v", id, err)
			}
		}
	}
	mark := schemas.Mark{Partition: 1, Next: int64(len(ids)), N: uint64(len(ids))}
	drawn, err := p.Draw(t.Context(), mark, 2*len(ids), parity.Draw{})
	slices.Sort(drawn)
	if want := slices.Sorted(slices.Values(ids)); err != nil || !slices.Equal(drawn, want) {
		t.Errorf("drawn: got %.200q, %v; want %.200q", drawn, err, want)
	}
	if _, err := p.Draw(t.Context(), mark, 10, parity.Draw{Seed: 1, Cheap: true}); err != nil {
		t.Errorf("drawn cheaply: %v", err)
	}
	histories, err := p.Histories(t.Context(), mark, ids)
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range histories {
		if len(h.Events) != 1 || h.Events[0].Offset != int64(i) || !h.Events[0].Counts || len(h.Said) != 1 || h.FromN != 1 {
			t.Errorf("%q: got %d events, %+v", ids[i], len(h.Events), h)
		}
		if i < 40 {
			if came, err := p.Came(t.Context(), mark, ids[i]); err != nil || came["tested"].To != "none" {
				t.Errorf("%q: came as %+v, %v", ids[i], came, err)
			}
		}
	}
	answer, err := p.Ask(t.Context(), &parity.Question{Mark: mark, Sets: []string{"tested"}, Users: ids, Named: 3, SQL: func(events string) string {
		return "SELECT user_id, 'none' AS tested FROM " + events + " AS e GROUP BY user_id"
	}})
	if err != nil || answer.Users != int64(len(ids)) || answer.Same[0] != int64(len(ids)) || answer.Different[0] != 0 {
		t.Errorf("asked: got %+v, %v; want %d users alike", answer, err, len(ids))
	}
	n, err := db.CountEvents(t.Context(), EventSelection{Topic: p.topic})
	if err != nil || n != uint64(len(ids)) {
		t.Errorf("counted %d events, %v; want %d", n, err, len(ids))
	}
	past := Past{DSN: dsn, Topic: p.topic}
	kept, err := past.Older(t.Context(), 1, mark.Next, func([]worker.Record) error { return nil })
	if _, err2 := past.Refused(t.Context(), 1, mark.Next); err != nil || err2 != nil || kept != mark.Next {
		t.Errorf("%d events are kept (%v, %v), want %d", kept, err, err2, mark.Next)
	}
}
