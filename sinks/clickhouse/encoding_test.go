package clickhouse

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"footfall/pipeline/archive"
	"footfall/schemas"
	"footfall/sinks/clickhouse/chdbtest"
)

// drawn puts a random value into the next column of a block, and returns what the driver
// would have been given for it.
func drawn(rng *rand.Rand, b *block) (v any) {
	n := rng.Int64N(2_000_000) - 1_000_000
	switch rng.IntN(10) {
	case 0:
		n = math.MinInt64
	case 1:
		n = math.MaxInt64
	case 2:
		n = 0
	}
	text := fmt.Sprint(n)[:rng.IntN(2)] + []string{"", "a", "ünicode", "a much longer text, of which there are not many, with \x00 and\nmore than 127 bytes, so that its length takes two of them: it does now"}[rng.IntN(4)]
	null := rng.IntN(2) == 0
	power := rng.IntN(5)
	switch chType := b.table.columns[b.at].Type; chType {
	case "String", "LowCardinality(String)":
		if v = text; null {
			b.text([]byte(text))
		} else {
			b.string(text)
		}
	case "Nullable(String)":
		if null {
			b.textOrNull(nil)
			return nil
		}
		b.textOrNull([]byte(text))
		return text
	case "Int32":
		put(b, int32(n))
		v = int32(n)
	case "Int64":
		put(b, n)
		v = n
	case "UInt32":
		put(b, uint32(n))
		v = uint32(n)
	case "UInt64":
		put(b, uint64(n))
		v = uint64(n)
	case "DateTime64(3, 'UTC')", "Nullable(DateTime64(3, 'UTC'))":
		at := clamp(schemas.Millis(n))
		switch {
		case chType[0] == 'D':
			b.time(schemas.Millis(n))
		case null:
			b.timeOrNull(0, false)
			return nil
		default:
			b.timeOrNull(schemas.Millis(n), true)
		}
		v = time.UnixMilli(int64(at)).UTC()
	case "Decimal(38, 4)":
		b.decimal(n, power)
		v = decimal.New(n, int32(-power))
	case "Nullable(Decimal(19, 6))":
		b.decimalOrNull(n, 6, !null)
		if null {
			return nil
		}
		v = decimal.New(n, -6)
	case "Nullable(Int32)":
		small := int32(n)
		v = orNothing(b, small, null)
	case "Nullable(Int64)":
		v = orNothing(b, n, null)
	case "Nullable(UInt64)":
		v = orNothing(b, uint64(n), null)
	case "Nullable(UInt8)":
		v = orNothing(b, uint8(n), null)
	default:
		panic(chType)
	}
	return v
}

func orNothing[T number](b *block, n T, null bool) any {
	if null {
		putOrNull[T](b, nil)
		return nil
	}
	putOrNull(b, &n)
	return n
}

// What the driver sends of a column that we filled is what it sends of one that was given
// the same values one by one, in its own way.
func TestColumnsAreWhatTheDriverMakes(t *testing.T) {
	for _, columns := range []string{eventColumns, transitionColumns, deadLetterColumns} {
		for seed := range uint64(30) {
			rng := rand.New(rand.NewPCG(seed, 1))
			b, c := newBlock(newTable("t", columns), 0), newCourier()
			for i, of := range b.columns {
				if _, single := of.(*others); single {
					continue
				}
				chType := column.Type(b.table.columns[i].Type)
				filled, err := chType.Column("", &column.ServerContext{})
				if err != nil {
					t.Fatal(err)
				}
				if filled.Type() != chType {
					t.Fatalf("the driver calls %s %s: it would go the slow way", chType, filled.Type())
				}
				appended, _ := chType.Column("", &column.ServerContext{})
				for range 1 + rng.IntN(400) {
					b.at = i
					if err := appended.AppendRow(drawn(rng, b)); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.fill(filled, of); err != nil {
					t.Fatal(err)
				}
				want, got := encoded(appended), encoded(filled)
				if chType == "LowCardinality(String)" { // keys may be of another width
					want, got = readBack(t, chType, want, of.length()), readBack(t, chType, got, of.length())
				}
				if !bytes.Equal(want, got) {
					t.Fatalf("seed %d, %s: sent otherwise (-want +got):\n%s", seed, chType, cmp.Diff(want, got))
				}
			}
		}
	}
}

// readBack is the values of an encoded column, as text.
func readBack(t *testing.T, chType column.Type, b []byte, rows int) (all []byte) {
	c, err := chType.Column("", &column.ServerContext{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Decode(readerOf(b), rows); err != nil {
		t.Fatal(err)
	}
	for row := range rows {
		all = fmt.Appendf(all, "%q\n", c.Row(row, false))
	}
	return all
}

func encoded(c column.Interface) []byte {
	var b proto.Buffer
	c.Encode(&b)
	return b.Buf
}

func readerOf(b []byte) *proto.Reader {
	c := newCourier()
	c.from.bytes = b
	return c.to
}

// A table whose columns somebody has altered takes the rows all the same.
func TestAlteredColumnsOverEitherProtocol(t *testing.T) {
	protocols(t, func(t *testing.T, over func(string) string) {
		dsn := chdbtest.Database(t)
		db := openAt(t, over(dsn))
		if err := db.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, change := range []string{"brand Nullable(String)", "product_id LowCardinality(String)", "price Nullable(Decimal(38, 6))"} {
			chdbtest.Exec(t, dsn, "ALTER TABLE events MODIFY COLUMN "+change)
		}
		tables := testTables()
		tables.db = db
		r := tables.Rows()
		for i := range 3 {
			rec := archive.Record{
				Offset: int64(i), Time: 1767225600000, Key: []byte("u"),
				Value: fmt.Appendf(nil, `{"event_id":"e%d","type":"view","user_id":"u","time":"2026-01-01T00:00:00Z","brand":"b%[1]d","product_id":"p%[1]d","price":%[1]d.25}`, i),
			}
			if !r.Decode(archive.Partition{Topic: "in"}, &rec) {
				t.Fatal("the event was refused")
			}
			r.Add(archive.Hash(&rec))
		}
		if err := r.Insert(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		expect(t, dsn, "SELECT brand, product_id, price FROM events ORDER BY _offset", "b0\tp0\t0.25\nb1\tp1\t1.25\nb2\tp2\t2.25")
	})
}

// A row of an event costs no allocation before it is sent.
func TestAnEventsRowAllocatesNothing(t *testing.T) {
	r := testTables().Rows().(*rows)
	rec := archive.Record{Time: 1767225600000, Key: []byte("u"), Value: benchEvent(7).Value}
	rec.Key = benchEvent(7).Key
	add := func() {
		if !r.Decode(archive.Partition{Topic: "in"}, &rec) {
			t.Fatal("the event was refused")
		}
		r.Add(archive.Hash(&rec))
	}
	for range 1000 { // memory grows
		add()
	}
	r.Reset()
	if n := testing.AllocsPerRun(500, add); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}
