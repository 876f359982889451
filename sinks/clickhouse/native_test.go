package clickhouse

import (
	"context"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"footfall/pipeline/archive"
	"footfall/sinks/clickhouse/chdb"
	"footfall/sinks/clickhouse/chdbtest"
)

// protocols runs a test over HTTP and over the native protocol; over gives the DSN of
// the protocol for one of HTTP.
func protocols(t *testing.T, test func(t *testing.T, over func(dsn string) string)) {
	t.Run("http", func(t *testing.T) { test(t, func(dsn string) string { return dsn }) })
	t.Run("native", func(t *testing.T) { test(t, func(dsn string) string { return native(t, dsn) }) })
}

// What the archive asks of the tables, over either protocol.
func TestTablesOverEitherProtocol(t *testing.T) {
	protocols(t, func(t *testing.T, over func(string) string) {
		dsn := chdbtest.Database(t)
		db := openAt(t, over(dsn))
		for range 2 {
			if err := db.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		tables := &tables{db: db, topics: map[string]topic{"in": {table: newTable("events", eventColumns)}}}
		chdbtest.Exec(t, dsn, "INSERT INTO events (_topic, _partition, _offset, _hash, _time) SELECT 'in', 1, number, number * 18446744073709551557, '2026-01-01' FROM numbers(10, 200)")
		span := archive.Span{Partition: archive.Partition{Topic: "in", Number: 1}, First: 50, Next: 60}
		rows, err := tables.Present(t.Context(), span)
		if err != nil || len(rows) != 10 {
			t.Errorf("present: got %v, %v, want ten rows", rows, err)
		}
		sums, err := tables.Sums(t.Context(), []archive.Span{span, {Partition: archive.Partition{Topic: "in", Number: 9}, First: 0, Next: 5}, {Partition: span.Partition, First: 0, Next: 1000}})
		var want archive.Sum
		for _, r := range rows {
			want.Rows, want.Hash = want.Rows+1, want.Hash+r.Hash
		}
		if err != nil || len(sums) != 3 || sums[0] != want || sums[1] != (archive.Sum{}) || sums[2].Rows != 200 {
			t.Errorf("sums: got %v, %v, want %v, nothing, and 200 rows", sums, err, want)
		}
		for first, want := range map[int64]int64{0: 210, 209: 210, 210: 210, 500: 500} {
			if got, err := tables.After(t.Context(), span.Partition, first); err != nil || got != want {
				t.Errorf("after %d: got %d, %v, want %d", first, got, err, want)
			}
		}
		one, err := tables.Epoch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if two, err := tables.Epoch(t.Context()); err != nil || two != one {
			t.Errorf("epoch: got %s and %s, %v, want the same", one, two, err)
		}
		empty := archive.Span{Partition: archive.Partition{Topic: "in", Number: 2}, First: 0, Next: 10}
		if rows, err := tables.Present(t.Context(), empty); err != nil || len(rows) != 0 {
			t.Errorf("present, of nothing: got %v, %v", rows, err)
		}
		if err := db.Ping(t.Context()); err != nil {
			t.Errorf("ping: %v", err)
		}
	})
}

// A database that does not exist is made: a server refuses a native connection to it.
func TestMigrateMakesTheDatabaseOverEitherProtocol(t *testing.T) {
	protocols(t, func(t *testing.T, over func(string) string) {
		dsn := chdbtest.Database(t) + "_new"
		db := openAt(t, over(dsn))
		if err := db.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, dsn, "SELECT count() FROM events_once", "0")
		chdbtest.Exec(t, dsn, "DROP DATABASE "+db.Database()+" SYNC")
	})
}

// What the engine says is wrong comes with its code, and the connection goes on.
func TestErrorsOverEitherProtocol(t *testing.T) {
	protocols(t, func(t *testing.T, over func(string) string) {
		dsn := chdbtest.Database(t)
		db := openAt(t, over(dsn))
		for sql, code := range map[string]int32{
			"SELECT * FROM nosuch":                       60,
			"SELECT nosuch":                              47,
			"SELECT throwIf(number = 3) FROM numbers(5)": 395,
			"SELEC 1": 62,
		} {
			rows, err := db.Query(t.Context(), sql)
			if err == nil {
				for rows.Next() {
				}
				err = rows.Err()
				rows.Close()
			}
			if got := codeOf(err); got != code {
				t.Errorf("%s: got %v (code %d), want code %d", sql, err, got, code)
			}
		}
		if _, err := db.PrepareBatch(t.Context(), "INSERT INTO nosuch (a)"); codeOf(err) != 60 {
			t.Errorf("insert into nothing: got %v, want code 60", err)
		}
		ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"no_such_setting": 1}))
		if err := db.Exec(ctx, "SELECT 1"); codeOf(err) != 115 {
			t.Errorf("an unknown setting: got %v, want code 115", err)
		}
		short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := db.Exec(short, "SELECT sleepEachRow(1) FROM numbers(60) SETTINGS function_sleep_max_microseconds_per_block = 0, max_block_size = 1"); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a query that takes too long: got %v", err)
		}
		var one uint8
		if err := db.QueryRow(t.Context(), "SELECT 1").Scan(&one); err != nil || one != 1 {
			t.Errorf("afterwards: got %d, %v", one, err)
		}
	})
}

// A wrong password is refused with its code, and is in no error.
func TestPasswordOverEitherProtocol(t *testing.T) {
	engine, err := chdb.StartLocal(t.Context(), chdb.LocalOptions{Library: chdbtest.Library(t), Dir: t.TempDir(), User: "shop", Password: "s3cret/'&%"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Kill() })
	protocols(t, func(t *testing.T, over func(string) string) {
		db := openAt(t, over(engine.DSN("")))
		if err := db.Ping(t.Context()); err != nil {
			t.Errorf("the right password: %v", err)
		}
		u, err := url.Parse(engine.DSN(""))
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("shop", "hunter2/'&%")
		err = openAt(t, over(u.String())).Exec(t.Context(), "SELECT 1")
		if codeOf(err) != 516 || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a wrong password: got %v, want code 516 and no password", err)
		}
	})
}

// codeOf is ClickHouse's code of an error, 0 if it has none.
func codeOf(err error) int32 {
	if ex, ok := errors.AsType[*clickhouse.Exception](err); ok {
		return ex.Code
	}
	return 0
}
