package clickhouse

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"footfall/pipeline"
	"footfall/pipeline/archive"
	"footfall/pipeline/worker"
	"footfall/schemas"
	"footfall/sinks/clickhouse/chdbtest"
)

// randomEvent is an event with some of everything that an event can have.
func randomEvent(rng *rand.Rand, offset int64) string {
	kind := []string{"view", "add_to_cart", "remove_from_cart", "purchase", "refund", "search"}[rng.IntN(6)]
	value := fmt.Sprintf(`{"event_id":"e%d","user_id":"u%d","type":"%s","time":%d`, rng.Int64N(offset+1), rng.IntN(9), kind, 1767225600000+rng.Int64N(1e9))
	if kind == "purchase" || kind == "refund" {
		value += fmt.Sprintf(`,"order_id":"o'%d\\","revenue":%d.%02d`, rng.IntN(50), rng.IntN(1000), rng.IntN(100))
	}
	for _, f := range []string{
		`"session_id":"s?1"`, `"product_id":"p \"1\""`, `"category":"tv/\u00e9"`, `"brand":"b"`, `"price":12.345678`, `"quantity":1.5`, `"cart_id":"c"`, `"currency":"USD"`,
		`"channel":"email"`, `"campaign":"spring"`, `"url":"https://shop.example/?a=b"`, `"timezone":"Europe/Berlin"`, `"birthday":"--04-15"`, `"items":[{"product_id":"p1","quantity":2,"price":0.1},{"product_id":"p2"}]`,
	} {
		if rng.IntN(3) == 0 {
			value += "," + f
		}
	}
	return value + "}"
}

var userOf = regexp.MustCompile(`"user_id":"(\w+)"`)

func decoder(t *testing.T, c schemas.Contract) *schemas.Decoder {
	t.Helper()
	d, err := schemas.NewDecoder(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Events come back as records in which the contract reads the same: those of a partition
// in offset order, also where timestamps went back, and otherwise in the order of time.
func TestEachEvent(t *testing.T) {
	db, dsn := open(t)
	rng := rand.New(rand.NewPCG(5, 5))
	tables := testTables()
	tables.contract.Rates = map[string]string{"USD": "0.9"}
	tables.db = db
	rows := tables.Rows()
	type place struct {
		partition int32
		offset    int64
	}
	written := map[place]archive.Record{}
	for partition := range int32(3) {
		clock := schemas.Millis(1767225600000)
		for offset := range int64(200) {
			clock += schemas.Millis(rng.IntN(60_000) - 20_000)
			rec := archive.Record{Offset: offset, Time: clock, Value: []byte(randomEvent(rng, offset))}
			rec.Key = []byte(userOf.FindStringSubmatch(string(rec.Value))[1])
			if !rows.Decode(archive.Partition{Topic: "in", Number: partition}, &rec) {
				t.Fatalf("%s gives no row", rec.Value)
			}
			rows.Add(archive.Hash(&rec))
			written[place{partition, offset}] = rec
		}
	}
	if err := rows.Insert(t.Context(), "token"); err != nil {
		t.Fatal(err)
	}
	chdbtest.Exec(t, dsn, "INSERT INTO dead_letters (_topic, _partition, _offset, reason, source_topic, source_partition, source_offset) VALUES ('dead', 1, 1, 'future', 'in', 1, 7)")
	delete(written, place{1, 7})

	sel := EventSelection{Topic: "in", Partitions: []int{0, 1}}
	if n, err := db.CountEvents(t.Context(), sel); err != nil || n != 400 {
		t.Errorf("counted %d events, %v, want 400", n, err)
	}
	next, latest := map[int32]int64{}, map[int32]schemas.Millis{}
	seen, last := 0, schemas.Millis(0)
	there, back := decoder(t, tables.contract), decoder(t, tables.contract)
	err := db.EachEvent(t.Context(), sel, func(ev *Event) error {
		seen++
		rec, ok := written[place{ev.Partition, ev.Offset}]
		if !ok || ev.Partition > 1 || ev.Offset < next[ev.Partition] || ev.Time != rec.Time || string(ev.Key) != string(rec.Key) {
			t.Fatalf("got %d/%d at %d, key %q after offset %d; want one that was written: %+v", ev.Partition, ev.Offset, ev.Time, ev.Key, next[ev.Partition]-1, rec)
		}
		next[ev.Partition] = ev.Offset + 1
		latest[ev.Partition] = max(latest[ev.Partition], ev.Time)
		if latest[ev.Partition] < last {
			t.Errorf("%d/%d at %d comes when time stands at %d", ev.Partition, ev.Offset, latest[ev.Partition], last)
		}
		last = latest[ev.Partition]
		var got, want schemas.Event
		if err := back.Decode(ev.Key, ev.Value, &got); err != nil {
			t.Fatalf("%s: %v", ev.Value, err)
		}
		if err := there.Decode(rec.Key, rec.Value, &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(schemas.Event{}, "Properties", "Extra"), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s came back as %s (-want +got):\n%s", rec.Value, ev.Value, diff)
		}
		return nil
	})
	if err != nil || seen != 399 {
		t.Errorf("got %d events, %v, want 399", seen, err)
	}
}

// Reading all events may take longer than the driver waits for an answer.
func TestEachEventTakesItsTime(t *testing.T) {
	protocols(t, func(t *testing.T, over func(string) string) {
		const rows, limit = 300_000, 20 * time.Millisecond
		_, dsn := open(t)
		chdbtest.Exec(t, dsn, fmt.Sprintf("INSERT INTO events (_topic, _partition, _offset, _time, user_id, event_id) SELECT 'in', 1, number, '2026-01-01', 'u', toString(number) FROM numbers(%d)", rows))
		db := openAt(t, over(dsn))
		db.options.ReadTimeout = limit
		n, began := 0, time.Now()
		err := db.EachEvent(t.Context(), EventSelection{Topic: "in"}, func(*Event) error {
			if n++; n == 1 {
				time.Sleep(2 * limit)
			}
			return nil
		})
		if err != nil || n != rows || time.Since(began) < limit {
			t.Errorf("got %d events, %v, want %d", n, err, rows)
		}
	})
}

// What the archive has of the input before an offset comes back in order, once, without what
// was refused, and says how much it is; over several spans, and with gaps.
func TestOlder(t *testing.T) {
	db, dsn := open(t)
	past := Past{DSN: dsn, Topic: "in"}
	var got []worker.Record
	take := func(run []worker.Record) error {
		for _, r := range run {
			if n := len(got); n > 0 && r.Offset <= got[n-1].Offset {
				t.Fatalf("offset %d after %d", r.Offset, got[n-1].Offset)
			}
			got = append(got, r)
		}
		return nil
	}
	if kept, err := past.Older(t.Context(), 1, 1000, take); kept != 0 || err != nil || len(got) > 0 {
		t.Errorf("of nothing: %d kept, %v, %d records", kept, err, len(got))
	}

	rng := rand.New(rand.NewPCG(6, 6))
	tables := testTables()
	tables.contract.Rates = map[string]string{"USD": "0.9"}
	tables.db = db
	rows := tables.Rows()
	written := map[int64]archive.Record{}
	clock := schemas.Millis(1767225600000)
	const last = 2*pastSpan + 50
	for range 2 { // some were sent twice
		for _, offset := range []int64{0, 1, 2, 7, pastSpan - 1, pastSpan, pastSpan + 700, last} {
			clock += schemas.Millis(rng.IntN(60_000))
			rec, again := written[offset]
			if !again {
				rec = archive.Record{Offset: offset, Time: clock, Value: []byte(randomEvent(rng, offset)), Headers: []schemas.Header{{Key: schemas.LaneHeader, Value: []byte("backfill")}}}
				rec.Key = []byte(userOf.FindStringSubmatch(string(rec.Value))[1])
			}
			for _, partition := range []int32{1, 2} {
				if !rows.Decode(archive.Partition{Topic: "in", Number: partition}, &rec) {
					t.Fatalf("%s gives no row", rec.Value)
				}
				rows.Add(archive.Hash(&rec))
			}
			written[offset] = rec
		}
	}
	if err := rows.Insert(t.Context(), "token"); err != nil {
		t.Fatal(err)
	}
	chdbtest.Exec(t, dsn, fmt.Sprintf("INSERT INTO dead_letters (_topic, _partition, _offset, reason, source_topic, source_partition, source_offset) VALUES ('dead', 1, 1, 'future', 'in', 1, 7), ('dead', 1, 2, 'json', 'in', 1, %d), ('dead', 2, 1, 'json', 'in', 2, 1)", pastSpan+3))

	kept, err := past.Older(t.Context(), 1, last, take)
	if kept != 8 || err != nil || len(got) != 6 {
		t.Fatalf("%d kept, %v, %d records, want 8 (two of them refused) and 6 records", kept, err, len(got))
	}
	there, back := decoder(t, tables.contract), decoder(t, tables.contract)
	for _, r := range got {
		rec := written[r.Offset]
		if r.Time != rec.Time || r.Lane != schemas.Backfill || string(r.Key) != string(rec.Key) {
			t.Errorf("got %+v, want %+v", r, rec)
		}
		var got, want schemas.Event
		if err := errors.Join(back.Decode(r.Key, r.Value, &got), there.Decode(rec.Key, rec.Value, &want)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(schemas.Event{}, "Properties", "Extra"), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s came back as %s (-want +got):\n%s", rec.Value, r.Value, diff)
		}
	}

	if refused, err := past.Refused(t.Context(), 1, last); err != nil || fmt.Sprint(refused) != fmt.Sprint([]int64{7, pastSpan + 3}) && fmt.Sprint(refused) != fmt.Sprint([]int64{pastSpan + 3, 7}) {
		t.Errorf("refused: got %v, %v", refused, err)
	}
	theirs := errors.New("enough")
	if _, err := past.Older(t.Context(), 1, last, func([]worker.Record) error { return theirs }); !errors.Is(err, theirs) || errors.Is(err, pipeline.ErrAway) {
		t.Errorf("the caller's error: got %v", err)
	}
	past.DSN = "http://127.0.0.1:1/footfall"
	if _, err := past.Older(t.Context(), 1, last, take); !errors.Is(err, pipeline.ErrAway) {
		t.Errorf("nobody there: got %v, want one that wraps ErrAway", err)
	}
}
