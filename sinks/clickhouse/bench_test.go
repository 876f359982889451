package clickhouse

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/archive"
	"footfall/schemas"
)

func benchEvent(i int) *kgo.Record {
	user := fmt.Sprintf("user-%d", i*7919%50_000)
	value := fmt.Sprintf(`{"event_id":"0190b6d2-5a5e-7cc3-98c4-%012x","type":"view","user_id":"%s","time":%d,"session_id":"s-%d","product_id":"p-%d","category":"electronics.phone","brand":"acme","price":%d.99,"currency":"EUR","channel":"organic","url":"/p/%d"}`,
		i, user, 1767225600000+i, i/9, i%6000, i%500, i%6000)
	return &kgo.Record{Topic: "in", Partition: int32(i % partitions), Key: []byte(user), Value: []byte(value), Timestamp: time.UnixMilli(1767225600000 + int64(i))}
}

// BenchmarkRows is what a row costs before it is sent.
func BenchmarkRows(b *testing.B) {
	stats := &Stats{}
	t := &tables{contract: schemas.Contract{Currency: "EUR"}, exponent: 2, stats: stats, events: newTable("events", eventColumns)}
	t.topics = map[string]topic{"in": {table: t.events}}
	const n = 10_000
	records := make([]archive.Record, n)
	for i := range records {
		r := benchEvent(i)
		records[i] = archive.Record{Offset: int64(i), Time: schemas.Millis(r.Timestamp.UnixMilli()), Key: r.Key, Value: r.Value}
	}
	rows := t.Rows()
	b.ReportAllocs()
	for b.Loop() {
		rows.Reset()
		for i := range records {
			if rows.Decode(archive.Partition{Topic: "in"}, &records[i]) {
				rows.Add(archive.Hash(&records[i]))
			}
		}
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkInsert is what sending 50,000 rows costs, the engine's work included.
func BenchmarkInsert(b *testing.B) {
	db, _ := open(b)
	stats := &Stats{}
	t := &tables{db: db, contract: schemas.Contract{Currency: "EUR"}, exponent: 2, stats: stats, events: newTable("events", eventColumns)}
	t.topics = map[string]topic{"in": {table: t.events}}
	const n = 50_000
	rows := t.Rows()
	for i := range n {
		r := benchEvent(i)
		rec := archive.Record{Offset: int64(i), Time: schemas.Millis(r.Timestamp.UnixMilli()), Key: r.Key, Value: r.Value}
		if rows.Decode(archive.Partition{Topic: "in"}, &rec) {
			rows.Add(archive.Hash(&rec))
		}
	}
	i := 0
	for b.Loop() {
		i++
		if err := rows.Insert(b.Context(), fmt.Sprint("bench/", i)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkArchive is the whole way, from the broker in process to the engine.
func BenchmarkArchive(b *testing.B) {
	const n = 200_000
	for b.Loop() {
		b.StopTimer()
		db, _ := open(b)
		k := startKafka(b)
		for i := range n {
			k.client.Produce(b.Context(), benchEvent(i), nil)
		}
		if err := k.client.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		a, stop := k.archive(db, func(c *ArchiveConfig) { c.AgeMax, c.AuditEvery = 0, 0 })
		k.drain(a)
		stop()
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "rows/s")
}
