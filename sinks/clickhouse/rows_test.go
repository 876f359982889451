package clickhouse

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/archive"
	"footfall/schemas"
)

// testTables are tables without a server.
func testTables() *tables {
	t := &tables{
		contract: schemas.Contract{Currency: "EUR"}, exponent: 2, stats: &Stats{},
		events: newTable("events", eventColumns), transitions: newTable("transitions", transitionColumns), deadLetters: newTable("dead_letters", deadLetterColumns),
	}
	t.topics = map[string]topic{"in": {table: t.events}, "triggers": {table: t.transitions}, "dead": {table: t.deadLetters}}
	return t
}

// A batch is one block for each month of record timestamps and table.
func TestBlocksAreTablePartitions(t *testing.T) {
	r := testTables().Rows().(*rows)
	add := func(at time.Time) {
		rec := archive.Record{
			Time: schemas.Millis(at.UnixMilli()), Key: []byte("u"),
			Value: []byte(`{"event_id":"e","type":"view","user_id":"u","time":"2026-01-01T00:00:00Z"}`),
		}
		if !r.Decode(archive.Partition{Topic: "in"}, &rec) {
			t.Fatal("the event was refused")
		}
		r.Add(archive.Hash(&rec))
	}
	add(time.Date(2026, 1, 31, 23, 59, 59, 999_000_000, time.UTC))
	add(time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC))
	add(time.Date(2026, 2, 28, 0, 0, 0, 0, time.FixedZone("", -5*3600)))
	add(time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC))
	add(time.UnixMilli(-1 << 60))
	got := map[int]int{}
	for key, b := range r.blocks {
		got[key.month] = b.rows
	}
	if d := cmp.Diff(map[int]int{202601: 1, 202602: 2, 226204: 1, 190001: 1}, got); d != "" {
		t.Errorf("rows by month (-want +got):\n%s", d)
	}
	if r.Len() != 5 || r.Size() == 0 {
		t.Errorf("got %d rows of %d bytes, want 5 of some", r.Len(), r.Size())
	}
	r.Reset()
	r.Reset()
	if r.Len() != 0 || len(r.blocks) != 0 {
		t.Errorf("after two resets: got %d rows, %d blocks, want none: months go by", r.Len(), len(r.blocks))
	}
}

// A time that a column can't hold becomes the nearest that it can, and is no other.
func TestTimesBeyondTheColumns(t *testing.T) {
	db, dsn := open(t)
	tables := testTables()
	tables.db = db
	r := tables.Rows()
	for i, at := range []schemas.Millis{-1 << 60, 0, 1767225600001, 10413791999999, 1 << 60} {
		rec := archive.Record{
			Offset: int64(i), Time: at, Key: []byte("u"),
			Value: []byte(`{"event_id":"e","type":"view","user_id":"u","time":"2026-01-01T00:00:00Z"}`),
		}
		if !r.Decode(archive.Partition{Topic: "in"}, &rec) {
			t.Fatal("the event was refused")
		}
		r.Add(archive.Hash(&rec))
	}
	if err := r.Insert(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	expect(t, dsn, "SELECT _time FROM events ORDER BY _offset",
		"1900-01-01 00:00:00.000\n1970-01-01 00:00:00.000\n2026-01-01 00:00:00.001\n2262-04-11 23:47:16.854\n2262-04-11 23:47:16.854")
}

// Whatever is in the topics, a record gives a row or it does not: nothing panics.
func FuzzRows(f *testing.F) {
	tr := schemas.Transition{
		User: "u1", From: 5, To: 2, Seq: 3, At: 1767225600000, Cause: schemas.Cause{Kind: schemas.ByTimer, Due: 1767225600000},
		Facts: schemas.Facts{First: 1, Last: 2, Orders: 1, Revenue: 500}, Segments: []uint16{2}, Expected: schemas.Expected{To: 4, At: 1769817600000}, Muted: schemas.MutedStale,
	}
	ctx := schemas.TransitionContext{ID: "shop/1/1", Topic: "in", Sets: sets, Currency: "EUR"}
	f.Add(uint8(0), int64(0), []byte("u"), []byte(`{"event_id":"e","type":"purchase","user_id":"u","time":1767225600000,"order_id":"o","revenue":1.25,"items":[{"price":2}]}`))
	f.Add(uint8(1), int64(1767225600000), []byte("u1"), tr.AppendJSON(nil, &ctx))
	f.Add(uint8(2), int64(-1), []byte(nil), []byte("no json"))
	f.Fuzz(func(t *testing.T, which uint8, at int64, key, value []byte) {
		r := testTables().Rows().(*rows)
		name := []string{"in", "triggers", "dead"}[which%3]
		rec := archive.Record{Time: schemas.Millis(at), Key: key, Value: value}
		out := schemas.OutputHeaders{ID: "shop/1/1", N: 1}
		switch name {
		case "triggers":
			rec.Headers, _ = schemas.AppendTransitionHeaders[schemas.Header](nil, nil, &out, "s", &tr)
		case "dead":
			d := schemas.DeadLetter{Reason: schemas.NotJSON, Key: key, Value: value}
			rec.Headers = d.Encode("in", &out, len(value)%2 == 0).Headers
		}
		if !r.Decode(archive.Partition{Topic: name, Number: 1}, &rec) {
			return
		}
		r.Add(archive.Hash(&rec)) // panics unless every column got a value
		for _, b := range r.blocks {
			for i, c := range b.columns {
				if n := c.length(); n != 1 {
					t.Fatalf("%s, column %s: got %d values, want 1", b.table.name, b.table.columns[i].Name, n)
				}
			}
		}
	})
}

// The archive reads a transition by itself, so as not to depend on the rules in
// force; what it reads is what schemas writes.
func TestTransitionIsReadInFull(t *testing.T) {
	tr := schemas.Transition{
		User: "ü\"1", From: schemas.NoSegment, To: 2, Seq: 7, At: 1767225600123,
		Cause:    schemas.Cause{Kind: schemas.ByEvent, Event: schemas.Refund, ID: "e", Pos: schemas.Position{Partition: 3, Offset: 1 << 40}},
		Facts:    schemas.Facts{First: 1, Last: 1767225590000, FirstPurchase: 5, LastPurchase: 6, Orders: 9, Revenue: -12345},
		Segments: []uint16{2}, Expected: schemas.Expected{To: 4, At: 1769817600000}, Rules: 0xfeed, Muted: schemas.MutedBackfill,
		Evidence: schemas.Evidence{Clause: "revenue() >= 500", Kind: schemas.MoneyValue, Was: 49_999, Is: 50_001},
		Contact:  schemas.Contact{NotBefore: 1767250800000, BestHour: 7, Zone: "Asia/Kolkata", ZoneFrom: schemas.ZoneEvent},
	}
	value := tr.AppendJSON(nil, &schemas.TransitionContext{ID: "shop/3/1", Topic: "in", Sets: sets, Currency: "EUR"})
	var got transition
	if err := json.Unmarshal(value, &got); err != nil {
		t.Fatal(err)
	}
	back, err := schemas.DecodeTransition(value, sets)
	if err != nil {
		t.Fatal(err)
	}
	due, _ := got.Cause.Due.millis()
	last, bought := got.Profile.LastPurchase.millis()
	notBefore, _ := got.NotBefore.millis()
	type facts struct {
		User, Set, From, To, Muted, Kind, Type, ID, Topic, Expected string
		Clause, Was, Is, Zone, ZoneFrom                             string
		Seq, Orders                                                 uint32
		At, Due, Last, Bought, ExpectedAt, NotBefore                schemas.Millis
		Recency, Revenue, Offset                                    int64
		Partition                                                   int32
		BestHour                                                    int8
		Purchased                                                   bool
	}
	want := facts{
		back.User, "lifecycle", "", "new", "backfill", "event", "refund", "e", "in", "cooling",
		"revenue() >= 500", "499.99", "500.01", back.Contact.Zone, back.Contact.ZoneFrom.String(),
		7, 9, back.At, 0, back.Facts.Last, back.Facts.LastPurchase, back.Expected.At, back.Contact.NotBefore, 10, -12345, 1 << 40, 3, back.Contact.BestHour, true,
	}
	have := facts{
		got.User, got.Set, got.From, got.To, got.Muted, got.Cause.Kind, got.Cause.Type, got.Cause.ID, got.Cause.Topic, got.Expected.To,
		got.Evidence.Clause, string(got.Evidence.Was), string(got.Evidence.Is), got.Zone, got.ZoneFrom,
		got.Seq, got.Profile.Orders, schemas.Millis(got.At), due, schemas.Millis(got.Profile.Last), last, schemas.Millis(got.Expected.At), notBefore, got.Profile.RecencySeconds, got.Profile.RevenueMinor,
		*got.Cause.Offset, *got.Cause.Partition, int8(*got.BestHour), bought,
	}
	if d := cmp.Diff(want, have); d != "" {
		t.Errorf("transition (-want +got):\n%s\nof %s", d, value)
	}
}

// What an evidence looked at is a text, whatever it is in JSON.
func TestEvidenceIsText(t *testing.T) {
	for _, c := range []struct{ json, want string }{
		{`12`, "12"}, {`-7`, "-7"}, {`true`, "true"}, {`null`, "null"}, {`"12.50"`, "12.50"}, {`"2026-01-01T00:00:00.000Z"`, "2026-01-01T00:00:00.000Z"},
	} {
		var got transition
		if err := json.Unmarshal([]byte(`{"evidence":{"clause":"c","was":`+c.json+`,"is":1},"cause":{"kind":"threshold_epoch","epoch":21}}`), &got); err != nil {
			t.Fatal(err)
		}
		if string(got.Evidence.Was) != c.want || got.Cause.Epoch == nil || *got.Cause.Epoch != 21 {
			t.Errorf("%s: got %q and %v, want %q and epoch 21", c.json, got.Evidence.Was, got.Cause.Epoch, c.want)
		}
	}
}

// What the server is carrying out when it is asked has ended when Settle returns.
func TestSettleWaitsForInserts(t *testing.T) {
	db, _ := open(t)
	exec := func(sql string) {
		if err := db.Exec(t.Context(), sql); err != nil {
			t.Error(err)
		}
	}
	exec("CREATE TABLE slow (n UInt8) ENGINE = MergeTree ORDER BY n")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		exec("INSERT INTO slow SELECT sleepEachRow(0.2) FROM numbers(10) SETTINGS max_block_size = 1, insert_deduplication_token = 'token'")
	}()
	defer func() { <-ended }()
	count := func(sql string) (n uint64) {
		if err := db.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for count("SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO slow%'") == 0 {
		select {
		case <-ended:
			t.Fatal("it had ended before it was seen")
		default:
		}
	}
	tables := testTables()
	tables.db = db
	if err := tables.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := count("SELECT count() FROM slow"); got != 10 {
		t.Errorf("%d rows are there, want the 10 of an insert that was under way", got)
	}
}
