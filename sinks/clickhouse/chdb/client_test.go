package chdb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"footfall/sinks/clickhouse/chdbtest"
)

// open connects clickhouse-go to a database of the test's own.
func open(t testing.TB, compression string) driver.Conn {
	t.Helper()
	return connect(t, chdbtest.Database(t), compression)
}

func connect(t testing.TB, dsn, compression string) driver.Conn {
	t.Helper()
	if compression != "" {
		dsn += "?compress=" + compression
	}
	opt, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	opt.DialTimeout = 30 * time.Second
	opt.MaxOpenConns = 32
	conn, err := clickhouse.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func exec(t testing.TB, conn driver.Conn, sql string, args ...any) {
	t.Helper()
	if err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// row has a column of every type that footfall's tables use, and some they may.
type row struct {
	S    string            `ch:"s"`
	LC   string            `ch:"lc"`
	U8   uint8             `ch:"u8"`
	U16  uint16            `ch:"u16"`
	U32  uint32            `ch:"u32"`
	U64  uint64            `ch:"u64"`
	I32  int32             `ch:"i32"`
	I64  int64             `ch:"i64"`
	F    float64           `ch:"f"`
	B    bool              `ch:"b"`
	At   time.Time         `ch:"at"`
	Day  time.Time         `ch:"day"`
	D    decimal.Decimal   `ch:"d"`
	A    []string          `ch:"a"`
	AA   [][]uint32        `ch:"aa"`
	M    map[string]string `ch:"m"`
	N    *string           `ch:"n"`
	NI   *int64            `ch:"ni"`
	LN   *string           `ch:"ln"`
	ID   uuid.UUID         `ch:"id"`
	E    string            `ch:"e"`
	Fix  string            `ch:"fix"`
	LArr []string          `ch:"larr"`
}

const rowTable = `CREATE TABLE all_types (
	s String, lc LowCardinality(String), u8 UInt8, u16 UInt16, u32 UInt32, u64 UInt64, i32 Int32, i64 Int64,
	f Float64, b Bool, at DateTime64(3, 'UTC'), day Date, d Decimal(18, 4), a Array(String), aa Array(Array(UInt32)),
	m Map(LowCardinality(String), String), n Nullable(String), ni Nullable(Int64), ln LowCardinality(Nullable(String)),
	id UUID, e Enum8('event' = 1, 'timer' = 2), fix FixedString(3), larr Array(LowCardinality(String))
) ENGINE = MergeTree ORDER BY u64`

func makeRow(i int) row {
	s := fmt.Sprintf("user-%d", i)
	r := row{
		S: s, LC: []string{"view", "purchase", ""}[i%3], U8: uint8(i), U16: uint16(i * 7), U32: uint32(i * 70001),
		U64: uint64(i), I32: int32(-i), I64: -int64(i) << 33, F: float64(i) / 3, B: i%2 == 0,
		At:  time.UnixMilli(1_700_000_000_123 + int64(i)).UTC(),
		Day: time.Date(2026, 1, 1+i%28, 0, 0, 0, 0, time.UTC),
		D:   decimal.New(int64(i)*10001, -4), A: []string{}, AA: [][]uint32{{1, uint32(i)}, {}},
		M: map[string]string{"k": s}, ID: uuid.NewSHA1(uuid.NameSpaceOID, []byte(s)),
		E: []string{"event", "timer"}[i%2], Fix: "EUR", LArr: []string{"x", s, "x"},
	}
	if i%4 == 1 {
		r.N, r.LN, r.A = &s, &s, []string{"", s}
		ni := int64(i)
		r.NI = &ni
	}
	return r
}

func TestEveryColumnTypeComesBackAsItWasSent(t *testing.T) {
	for _, compression := range []string{"", "lz4", "zstd", "gzip", "deflate"} {
		t.Run("compress="+compression, func(t *testing.T) {
			conn := open(t, compression)
			exec(t, conn, rowTable)
			batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO all_types")
			if err != nil {
				t.Fatal(err)
			}
			var want []row
			for i := range 100 {
				want = append(want, makeRow(i))
				if err := batch.AppendStruct(&want[i]); err != nil {
					t.Fatal(err)
				}
			}
			if err := batch.Send(); err != nil {
				t.Fatal(err)
			}
			var got []row
			if err := conn.Select(t.Context(), &got, "SELECT * FROM all_types ORDER BY u64"); err != nil {
				t.Fatal(err)
			}
			equal := cmp.Comparer(func(a, b decimal.Decimal) bool { return a.Equal(b) })
			if diff := cmp.Diff(want, got, equal); diff != "" {
				t.Errorf("rows sent (-) and read (+):\n%s", diff)
			}
		})
	}
}

func TestJSONColumn(t *testing.T) {
	conn := open(t, "lz4")
	exec(t, conn, "CREATE TABLE j (id UInt32, p JSON) ENGINE = MergeTree ORDER BY id")
	exec(t, conn, `INSERT INTO j FORMAT JSONEachRow {"id": 1, "p": {"a": {"b": 42}, "c": "x"}} {"id": 2, "p": {}}`)
	var b int64
	if err := conn.QueryRow(t.Context(), "SELECT sum(p.a.b::Int64) FROM j WHERE id = 1").Scan(&b); err != nil || b != 42 {
		t.Errorf("p.a.b = %d, %v; want 42", b, err)
	}
	var text string
	if err := conn.QueryRow(t.Context(), "SELECT toString(p) FROM j WHERE id = 1").Scan(&text); err != nil || text != `{"a":{"b":42},"c":"x"}` {
		t.Errorf("p = %s, %v", text, err)
	}
}

// Two line breaks in a row end the inline data of an INSERT in the library's
// statements, so Native must not go that way.
func TestLineBreaksInNativeData(t *testing.T) {
	for _, compression := range []string{"", "lz4"} {
		conn := open(t, compression)
		exec(t, conn, "CREATE TABLE breaks (n UInt32, s String) ENGINE = MergeTree ORDER BY n")
		batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO breaks")
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"\n\n", "a\n\nb", "\n\n\n\n", ";\n\n;", "\x00\n\n", "\r\n\r\n", `\N`, "'", "\xff\xfe"}
		for i, s := range want {
			if err := batch.Append(uint32(0x0a0a0a0a+i), s); err != nil {
				t.Fatal(err)
			}
		}
		if err := batch.Send(); err != nil {
			t.Fatal(err)
		}
		var got []string
		rows, err := conn.Query(t.Context(), "SELECT s FROM breaks ORDER BY n")
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				t.Fatal(err)
			}
			got = append(got, s)
		}
		if diff := cmp.Diff(want, got); diff != "" || rows.Err() != nil {
			t.Errorf("compress=%q: %v\n%s", compression, rows.Err(), diff)
		}
	}
}

func TestLargeBatchesAndResults(t *testing.T) {
	const n = 100_000
	conn := open(t, "lz4")
	exec(t, conn, rowTable)
	for b := range 2 {
		batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO all_types")
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			r := makeRow(b*n + i)
			if err := batch.AppendStruct(&r); err != nil {
				t.Fatal(err)
			}
		}
		if err := batch.Send(); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := conn.Query(t.Context(), "SELECT u64, s FROM all_types ORDER BY u64")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for ; rows.Next(); count++ {
		var u uint64
		var s string
		if err := rows.Scan(&u, &s); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("user-%d", count); u != uint64(count) || s != want {
			t.Fatalf("row %d is (%d, %s), want (%d, %s)", count, u, s, count, want)
		}
	}
	if rows.Err() != nil || count != 2*n {
		t.Errorf("%d rows, %v; want %d", count, rows.Err(), 2*n)
	}
	var parts uint64
	if err := conn.QueryRow(t.Context(), "SELECT uniqExact(_block_number) FROM all_types").Scan(&parts); err == nil && parts != 2 {
		t.Errorf("two batches became %d blocks, want 2: one insert is one block", parts)
	}
}

func TestParametersAndParameterisedViews(t *testing.T) {
	conn := open(t, "")
	exec(t, conn, "CREATE TABLE e (user String, at DateTime64(3, 'UTC'), kind LowCardinality(String)) ENGINE = MergeTree ORDER BY (user, at)")
	exec(t, conn, `CREATE VIEW funnel AS SELECT level, count() AS users FROM (
		SELECT user, windowFunnel({window:UInt64})(toDateTime(at), kind = 'view', kind = 'add_to_cart', kind = 'purchase') AS level
		FROM e WHERE at >= {from:DateTime64(3, 'UTC')} AND at < {to:DateTime64(3, 'UTC')} GROUP BY user) GROUP BY level`)
	exec(t, conn, `INSERT INTO e VALUES
		('a', '2026-01-01 10:00:00.000', 'view'), ('a', '2026-01-01 10:01:00.000', 'add_to_cart'), ('a', '2026-01-01 10:02:00.000', 'purchase'),
		('b', '2026-01-01 10:00:00.000', 'view'), ('b', '2026-01-01 12:00:00.000', 'add_to_cart'),
		('c', '2026-01-01 10:00:00.000', 'view'), ('c', '2026-01-01 10:30:00.000', 'add_to_cart'),
		('d', '2026-02-01 10:00:00.000', 'view')`)
	for name, query := range map[string]struct {
		sql  string
		args []any
	}{
		"literals":   {"SELECT level, users FROM funnel(window = 3600, from = '2026-01-01 00:00:00', to = '2026-01-02 00:00:00') ORDER BY level", nil},
		"parameters": {"SELECT level, users FROM funnel(window = {w:UInt64}, from = {f:String}, to = {t:String}) ORDER BY level", []any{clickhouse.Named("w", 3600), clickhouse.Named("f", "2026-01-01 00:00:00"), clickhouse.Named("t", "2026-01-02 00:00:00")}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []struct {
				Level uint8  `ch:"level"`
				Users uint64 `ch:"users"`
			}
			if err := conn.Select(t.Context(), &got, query.sql, query.args...); err != nil {
				t.Fatal(err)
			}
			if s := fmt.Sprint(got); s != "[{1 1} {2 1} {3 1}]" {
				t.Errorf("levels and users %s, want [{1 1} {2 1} {3 1}]", s)
			}
		})
	}
	awkward := "it's {x} \\ \t\n\n \x01 ü"
	var got string
	if err := conn.QueryRow(t.Context(), "SELECT {x:String}", clickhouse.Named("x", "ü 'quoted'")).Scan(&got); err != nil || got != "ü 'quoted'" {
		t.Errorf("a parameter came back as %q, %v", got, err)
	}
	if err := conn.QueryRow(t.Context(), "SELECT $1", awkward).Scan(&got); err != nil || got != awkward {
		t.Errorf("a bound value came back as %q, %v; want %q", got, err, awkward)
	}
}

func TestErrorsKeepTheirCode(t *testing.T) {
	for _, compression := range []string{"", "lz4", "gzip"} {
		conn := open(t, compression)
		exec(t, conn, "CREATE TABLE n (a UInt32) ENGINE = MergeTree ORDER BY a")
		for _, c := range []struct {
			code int32
			sql  string
		}{
			{60, "SELECT * FROM nosuch"},
			{62, "SELECT FROM WHERE"},
			{62, "SELECT 1; SELECT 2"},
			{47, "SELECT nosuch"},
			{46, "SELECT nosuch(1)"},
			{115, "SELECT 1 SETTINGS nosuch = 1"},
			{395, "SELECT throwIf(1)"},
			{395, "SELECT throwIf(number = 900000) FROM numbers(1000000) SETTINGS max_block_size = 1000, max_threads = 1"}, // midway
			{57, "CREATE TABLE n (a UInt32) ENGINE = MergeTree ORDER BY a"},
			{241, "SELECT groupArray(number) FROM numbers(100000000) SETTINGS max_memory_usage = 10000000"},
			{159, "SELECT sleepEachRow(1) FROM numbers(3) SETTINGS max_block_size = 1, max_execution_time = 1, timeout_overflow_mode = 'throw', function_sleep_max_microseconds_per_block = 5000000"},
		} {
			rows, err := conn.Query(t.Context(), c.sql)
			if err == nil {
				for rows.Next() {
				}
				err = rows.Err()
			}
			var ex *clickhouse.Exception
			if !errors.As(err, &ex) || ex.Code != c.code {
				t.Errorf("compress=%q: %s: %v; want code %d", compression, c.sql, err, c.code)
			}
		}
		batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO nosuch")
		var ex *clickhouse.Exception
		if !errors.As(err, &ex) || ex.Code != 60 {
			t.Errorf("insert into no table: %v, %v; want code 60", batch, err)
		}
		ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"nosuch_setting": 1}))
		if err := conn.Exec(ctx, "SELECT 1"); !errors.As(err, &ex) || ex.Code != 115 {
			t.Errorf("unknown setting: %v; want code 115", err)
		}
	}
}

func TestInsertOfBadDataInsertsNothing(t *testing.T) {
	conn := open(t, "")
	exec(t, conn, "CREATE TABLE n (a UInt32, CONSTRAINT small CHECK a < 100) ENGINE = MergeTree ORDER BY a")
	ctx := clickhouse.Context(t.Context(), clickhouse.WithColumnNamesAndTypes([]clickhouse.ColumnNameAndType{{Name: "a", Type: "UInt32"}}))
	batch, err := conn.PrepareBatch(ctx, "INSERT INTO n (a)")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if err := batch.Append(uint32(i)); err != nil {
			t.Fatal(err)
		}
	}
	var ex *clickhouse.Exception
	if err := batch.Send(); !errors.As(err, &ex) || ex.Code != 469 {
		t.Errorf("%v; want code 469, VIOLATED_CONSTRAINT", err)
	}
	var n uint64
	if err := conn.QueryRow(t.Context(), "SELECT count() FROM n").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows, %v; want none", n, err)
	}
}

func TestDeduplicationToken(t *testing.T) {
	conn := open(t, "lz4")
	exec(t, conn, "CREATE TABLE f (o Int64) ENGINE = MergeTree ORDER BY o SETTINGS non_replicated_deduplication_window = 1000")
	insert := func(token string, from int) {
		ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"insert_deduplication_token": token, "async_insert": 0}))
		batch, err := conn.PrepareBatch(ctx, "INSERT INTO f")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 1000 {
			if err := batch.Append(int64(from + i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := batch.Send(); err != nil {
			t.Fatal(err)
		}
	}
	insert("events/0/0..999", 0)
	insert("events/0/0..999", 0)
	insert("it's \\ odd", 1000)
	insert("it's \\ odd", 1000)
	var n, distinct uint64
	if err := conn.QueryRow(t.Context(), "SELECT count(), uniqExact(o) FROM f").Scan(&n, &distinct); err != nil || n != 2000 || distinct != 2000 {
		t.Errorf("%d rows, %d distinct, %v; want 2000 and 2000", n, distinct, err)
	}
}

// A statement whose client has gone is stopped: else its slot would be held until
// it ends by itself, which for this one is never.
func TestCancellation(t *testing.T) {
	conn := open(t, "")
	exec(t, conn, "CREATE TABLE sink (n UInt64) ENGINE = Null")
	running := func() uint64 {
		var n uint64
		if err := conn.QueryRow(t.Context(), "SELECT count() FROM system.processes WHERE query LIKE '%numbers(100000000000)%' AND query NOT LIKE '%processes%'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for name, sql := range map[string]string{
		"streamed": "SELECT number FROM numbers(100000000000)",
		"silent":   "SELECT count() FROM numbers(100000000000) WHERE NOT ignore(sipHash64(number))",
		"whole":    "SELECT max(sipHash64(number)) FROM numbers(100000000000) FORMAT JSON",
		"insert":   "INSERT INTO sink SELECT number FROM numbers(100000000000)",
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // more than there are connections, were they not given back
				ctx, cancel := context.WithCancel(clickhouse.Context(t.Context(), clickhouse.WithQueryID(`it's \ mine`)))
				ended := make(chan error, 1)
				go func() {
					rows, err := conn.Query(ctx, sql)
					for err == nil && rows.Next() {
					}
					if err == nil {
						err = errors.Join(rows.Err(), rows.Close())
					}
					ended <- err
				}()
				for running() == 0 {
				}
				cancel()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Fatalf("ended with %v, want context canceled", err)
				}
				for running() > 0 {
				}
			}
		})
	}
}

func TestManyClients(t *testing.T) {
	dsn := chdbtest.Database(t)
	chdbtest.Exec(t, dsn, "CREATE TABLE c (client UInt32, n UInt32) ENGINE = MergeTree ORDER BY (client, n)")
	const clients, batches, size = 32, 10, 100
	var wg sync.WaitGroup
	for id := range clients {
		wg.Go(func() {
			conn := connect(t, dsn, []string{"", "lz4", "zstd"}[id%3])
			for b := range batches {
				batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO c")
				if err != nil {
					t.Errorf("client %d: %v", id, err)
					return
				}
				for i := range size {
					if err := batch.Append(uint32(id), uint32(b*size+i)); err != nil {
						t.Errorf("client %d: %v", id, err)
					}
				}
				if err := batch.Send(); err != nil {
					t.Errorf("client %d: %v", id, err)
					return
				}
				var n uint64
				if err := conn.QueryRow(t.Context(), "SELECT count() FROM c WHERE client = $1", id).Scan(&n); err != nil || n != uint64((b+1)*size) {
					t.Errorf("client %d sees %d of its rows, %v; want %d", id, n, err, (b+1)*size)
				}
			}
		})
	}
	wg.Wait()
	if got, want := chdbtest.Exec(t, dsn, "SELECT count(), uniqExact(client, n) FROM c"), fmt.Sprintf("%d\t%[1]d", clients*batches*size); got != want {
		t.Errorf("rows and distinct rows %q, want %q", got, want)
	}
}

// What was acknowledged is there after kill -9, and a batch in doubt can be sent
// again with its token.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	dir, addr := t.TempDir(), ""
	var acked int
	for round := range 4 {
		l := chdbtest.StartIn(t, dir, addr)
		addr = l.Addr()
		dsn := l.DSN("")
		chdbtest.Exec(t, dsn, "CREATE TABLE IF NOT EXISTS k (n UInt64) ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 1000")
		send := func(b int) error {
			conn, err := clickhouse.Open(options(t, dsn))
			if err != nil {
				return err
			}
			defer conn.Close()
			ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"insert_deduplication_token": fmt.Sprint("batch ", b)}))
			batch, err := conn.PrepareBatch(ctx, "INSERT INTO k")
			if err != nil {
				return err
			}
			for i := range 1000 {
				if err := batch.Append(uint64(b*1000 + i)); err != nil {
					return err
				}
			}
			return batch.Send()
		}
		killed := make(chan struct{})
		for b := 0; ; b++ {
			if b == 10 {
				go func() {
					defer close(killed)
					if err := l.Kill(); err != nil {
						t.Errorf("round %d: kill: %v", round, err)
					}
				}()
			}
			if err := send(acked); err != nil {
				if b < 10 {
					t.Fatalf("round %d: batch %d: %v", round, b, err)
				}
				break // in doubt: sent again, with its token, in the next round
			}
			acked++
		}
		<-killed
		if err := l.Err(); err == nil {
			t.Errorf("round %d: a killed engine ended without an error", round)
		}
	}
	l := chdbtest.StartIn(t, dir, addr)
	got := chdbtest.Exec(t, l.DSN(""), fmt.Sprintf("SELECT countIf(n < %d), uniqExactIf(n, n < %[1]d), count() - uniqExact(n) FROM k", acked*1000))
	if want := fmt.Sprintf("%d\t%[1]d\t0", acked*1000); got != want {
		t.Errorf("acknowledged rows, distinct ones, doubled ones: %q, want %q", got, want)
	}
	if err := l.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func options(t testing.TB, dsn string) *clickhouse.Options {
	t.Helper()
	opt, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return opt
}

// A round trip of n rows with 7 columns through clickhouse-go, LZ4 and the helper
// process.
func BenchmarkInsert(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("rows=%d", n), func(b *testing.B) {
			conn := open(b, "lz4")
			exec(b, conn, `CREATE TABLE bench (_partition Int32, _offset Int64, user String, at DateTime64(3, 'UTC'), kind LowCardinality(String),
				amount Int64, currency LowCardinality(String)) ENGINE = MergeTree ORDER BY (user, at)`)
			at, rows := time.UnixMilli(1_700_000_000_000), 0
			for b.Loop() {
				batch, err := conn.PrepareBatch(b.Context(), "INSERT INTO bench")
				if err != nil {
					b.Fatal(err)
				}
				for i := range n {
					if err := batch.Append(int32(1), int64(rows+i), "user-123456", at, "view", int64(i), "EUR"); err != nil {
						b.Fatal(err)
					}
				}
				if err := batch.Send(); err != nil {
					b.Fatal(err)
				}
				rows += n
			}
			b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func BenchmarkSelectOne(b *testing.B) {
	conn := open(b, "")
	for b.Loop() {
		if err := conn.Exec(b.Context(), "SELECT 1"); err != nil {
			b.Fatal(err)
		}
	}
}

// The ways of ClickHouse that footfall's tables and views rely on.
func TestEngineFeatures(t *testing.T) {
	dsn := chdbtest.Database(t)
	for _, sql := range []string{
		"CREATE TABLE r (k UInt32, v UInt32, at DateTime64(3, 'UTC')) ENGINE = ReplacingMergeTree(v) PARTITION BY toYYYYMM(at) ORDER BY k COMMENT 'latest wins'",
		"INSERT INTO r VALUES (1, 1, '2026-01-01'), (1, 2, '2026-01-01'), (2, 1, '2026-01-01')",
		"INSERT INTO r VALUES (2, 9, '2026-01-02')",
		"CREATE TABLE agg (day Date, users AggregateFunction(uniq, UInt32)) ENGINE = AggregatingMergeTree ORDER BY day",
		"CREATE MATERIALIZED VIEW to_agg TO agg AS SELECT toDate(at) AS day, uniqState(k) AS users FROM r GROUP BY day",
		"INSERT INTO r VALUES (3, 1, '2026-01-03'), (4, 1, '2026-01-03')",
		"ALTER TABLE r ADD COLUMN note String DEFAULT 'x' COMMENT 'why'",
		"ALTER TABLE r MODIFY TTL toDateTime(at) + INTERVAL 10 YEAR",
		"DELETE FROM r WHERE k = 4",
		"OPTIMIZE TABLE r FINAL",
	} {
		chdbtest.Exec(t, dsn, sql)
	}
	for sql, want := range map[string]string{
		"SELECT k, v FROM r FINAL ORDER BY k":                                                                    "1\t2\n2\t9\n3\t1",
		"SELECT day, uniqMerge(users) FROM agg GROUP BY day":                                                     "2026-01-03\t2",
		"SELECT comment FROM system.tables WHERE database = currentDatabase() AND name = 'r'":                    "latest wins",
		"SELECT name FROM system.columns WHERE database = currentDatabase() AND table = 'r' AND comment = 'why'": "note",
		"SELECT retention(1, 0)": "[1,0]",
		"SELECT arrayStringConcat(groupArray(x), ',') FROM (SELECT * FROM VALUES('x String', 'a', 'b'))": "a,b",
		"EXISTS TABLE r": "1",
		"SHOW TABLES":    "agg\nr\nto_agg",
	} {
		if got := chdbtest.Exec(t, dsn, sql); got != want {
			t.Errorf("%s: got %q, want %q", sql, got, want)
		}
	}
	if got := chdbtest.Exec(t, dsn, "SHOW CREATE TABLE r"); !strings.Contains(got, "TTL") {
		t.Errorf("no TTL in %s", got)
	}
}
