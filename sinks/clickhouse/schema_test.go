package clickhouse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"footfall/schemas"
	migrations "footfall/schemas/clickhouse"
	"footfall/sinks/clickhouse/chdbtest"
)

func TestMain(m *testing.M) { chdbtest.Main(m) }

// open returns a migrated database of the test's own.
func open(t testing.TB) (*DB, string) {
	t.Helper()
	dsn := chdbtest.Database(t)
	db := openAt(t, dsn)
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db, dsn
}

func openAt(t testing.TB, dsn string) *DB {
	t.Helper()
	db, err := Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestVersionTellsOfADatabaseThatIsMissing(t *testing.T) {
	db := openAt(t, chdbtest.Database(t)+"_none")
	if _, err := db.Version(t.Context()); !errors.Is(err, ErrNoDatabase) {
		t.Errorf("before anything is migrated: got %v, want %v", err, ErrNoDatabase)
	}
}

func TestMigrateTwice(t *testing.T) {
	db, dsn := open(t)
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := chdbtest.Exec(t, dsn, "SELECT groupArray(version) FROM (SELECT version FROM schema_versions ORDER BY version)")
	if want := "[1,2,3,4,5,6,7,8,9,10,11,12,13,14]"; got != want {
		t.Errorf("versions: got %s, want %s", got, want)
	}
}

// Who migrates beside somebody who is faster does not go back to views that are newer by
// then: were it to end amid that, they would stay the old ones.
func TestMigrateBesideAnother(t *testing.T) {
	dsn := chdbtest.Database(t)
	fast := openAt(t, dsn)
	server, err := url.Parse(dsn[:strings.LastIndexByte(dsn, '/')])
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(server)
	var once sync.Once
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sql, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(sql))
		switch {
		case bytes.Contains(sql, []byte("CREATE TABLE IF NOT EXISTS transitions")): // amid the first
			once.Do(func() {
				if err := fast.Migrate(t.Context()); err != nil {
					t.Error(err)
				}
			})
		case bytes.Contains(sql, []byte("VIEW")):
			t.Errorf("made again: %.60s", sql)
		}
		forward.ServeHTTP(w, r)
	}))
	defer slow.Close()
	if err := openAt(t, slow.URL+dsn[strings.LastIndexByte(dsn, '/'):]).Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestMigrateMakesTheDatabase(t *testing.T) {
	dsn := chdbtest.Database(t) + "_new"
	db := openAt(t, dsn)
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := chdbtest.Exec(t, dsn, "SELECT count() FROM events_once"); got != "0" {
		t.Errorf("events: got %s, want 0", got)
	}
	chdbtest.Exec(t, dsn, "DROP DATABASE "+db.Database()+" SYNC")
}

func TestMigrateRefusesAnotherText(t *testing.T) {
	db, dsn := open(t)
	chdbtest.Exec(t, dsn, "TRUNCATE TABLE schema_versions")
	chdbtest.Exec(t, dsn, "INSERT INTO schema_versions VALUES (1, '001_tables.sql', 'other', now64(3))")
	err := db.Migrate(t.Context())
	if err == nil || !strings.Contains(err.Error(), "001_tables.sql was applied with another text") {
		t.Errorf("got %v, want an error that names the migration", err)
	}
}

func TestMigrateRefusesANewerSchema(t *testing.T) {
	db, dsn := open(t)
	chdbtest.Exec(t, dsn, "INSERT INTO schema_versions SELECT number+1, 'x', 'y', now64(3) FROM numbers(5, 20)")
	err := db.Migrate(t.Context())
	if err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("got %v, want an error that asks for a newer footfall", err)
	}
}

// The columns that are sent are those that the migrations make.
func TestColumnsAreTheTables(t *testing.T) {
	_, dsn := open(t)
	for name, columns := range map[string]string{"events": eventColumns, "transitions": transitionColumns, "dead_letters": deadLetterColumns} {
		var want []string
		for _, c := range newTable(name, columns).columns {
			want = append(want, c.Name+" "+c.Type)
		}
		got := chdbtest.Exec(t, dsn, "SELECT arrayStringConcat(groupArray(name || ' ' || type), '|') FROM (SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = '"+name+"' ORDER BY position)")
		if got = strings.ReplaceAll(got, `\'`, `'`); got != strings.Join(want, "|") {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, strings.Join(want, "|"))
		}
	}
}

// Every table, view and column says what it is.
func TestEverythingHasAComment(t *testing.T) {
	_, dsn := open(t)
	for what, sql := range map[string]string{
		"tables":  "SELECT name FROM system.tables WHERE database = currentDatabase() AND comment = ''",
		"columns": "SELECT table || '.' || name FROM system.columns WHERE database = currentDatabase() AND comment = ''",
		// The columns of a view with parameters are in its definition only.
		"funnels": "SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE 'funnel%' AND length(extractAll(create_table_query, ' COMMENT ''')) < 9",
	} {
		if got := chdbtest.Exec(t, dsn, sql); got != "" {
			t.Errorf("%s without a comment:\n%s", what, got)
		}
	}
}

// Rows that were archived before carts had a worth have it all the same, where no rate
// was needed: the column's default is the contract's arithmetic.
func TestWorthOfRowsFromBefore(t *testing.T) {
	dsn := chdbtest.Database(t)
	all, err := migrations.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all[:5] {
		for _, s := range m.Statements {
			chdbtest.Exec(t, dsn, s)
		}
	}
	const huge = "9223372036854.775807"
	var want []string
	var values []string
	for _, reporting := range []string{"EUR", "JPY", "KWD", "CLF"} {
		decoder, err := schemas.NewDecoder(schemas.Contract{Currency: reporting})
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"add_to_cart", "remove_from_cart", "view"} {
			for _, money := range [][2]string{
				{"1", "1"},
				{"0.005", "1"},
				{"0.015", "1"},
				{"0.0050", "1.5"},
				{"2.5", "1"},
				{"1.5", "1"},
				{"0.000001", "0.5"},
				{"0.0005", "1"},
				{"0.00005", "1"},
				{"0.00015", "1"},
				{"19.99", "3"},
				{"", "3"},
				{"7.25", ""},
				{huge, "1"},
				{huge, huge},
				{"1234567.891", "987.654321"},
			} {
				text := fmt.Sprintf(`{"event_id":"e","type":"%s","user_id":"u","time":1767225600000`, kind)
				columns := [2]string{"NULL", "NULL"}
				for i, name := range []string{"price", "quantity"} {
					if money[i] != "" {
						text += fmt.Sprintf(`,"%s":%s`, name, money[i])
						columns[i] = "'" + money[i] + "'"
					}
				}
				var ev schemas.Event
				if err := decoder.Decode([]byte("u"), []byte(text+"}"), &ev); err != nil {
					t.Fatal(err)
				}
				values = append(values, fmt.Sprintf("('in', %d, '%s', %s, %s, '%s', '%s')", len(want), kind, columns[0], columns[1], reporting, reporting))
				want = append(want, fmt.Sprintf("%d\t%s\t%s\t%s\t%s\t%d", len(want), reporting, kind, money[0], money[1], ev.Worth))
			}
		}
	}
	values = append(values, fmt.Sprintf("('in', %d, 'add_to_cart', 5, 1, 'USD', 'EUR')", len(want)))
	want = append(want, fmt.Sprintf("%d\tEUR\tadd_to_cart\t5\t1\t0", len(want)))
	chdbtest.Exec(t, dsn, "INSERT INTO events (_topic, _offset, type, price, quantity, currency, reporting_currency) VALUES "+strings.Join(values, ", "))
	for _, s := range all[5].Statements {
		chdbtest.Exec(t, dsn, s)
	}
	got := strings.Split(chdbtest.Exec(t, dsn, "SELECT _offset, worth_minor FROM events_accepted ORDER BY _offset"), "\n")
	if len(got) != len(want) {
		t.Fatalf("got %d rows, want %d", len(got), len(want))
	}
	for i := range want {
		if worth := want[i][strings.LastIndexByte(want[i], '\t')+1:]; got[i] != fmt.Sprintf("%d\t%s", i, worth) {
			t.Errorf("%s: got %s", want[i], got[i])
		}
	}
}

// Rows that were archived before events had a time zone and a birthday have what their
// sender sent as fields of its own.
func TestZonesOfRowsFromBefore(t *testing.T) {
	dsn := chdbtest.Database(t)
	all, err := migrations.All()
	if err != nil {
		t.Fatal(err)
	}
	apply := func(some []migrations.Migration) {
		for _, m := range some {
			for _, s := range m.Statements {
				chdbtest.Exec(t, dsn, s)
			}
		}
	}
	apply(all[:6])
	chdbtest.Exec(t, dsn, `INSERT INTO events (_topic, _offset, extra) VALUES ('in', 0, ''), ('in', 1, '{"timezone":"Europe/Berlin","x":1}'), ('in', 2, '{"timezone":120,"birthday":"--04-15"}')`)
	apply(all[6:])
	chdbtest.Exec(t, dsn, `INSERT INTO events (_topic, _offset, extra, timezone, birthday) VALUES ('in', 3, '{"x":1}', 'Asia/Tokyo', '')`)
	want := "0\t\t\n1\tEurope/Berlin\t\n2\t\t--04-15\n3\tAsia/Tokyo\t"
	for _, view := range []string{"events_accepted", "events_once"} {
		if view == "events_once" {
			chdbtest.Exec(t, dsn, "ALTER TABLE events UPDATE event_id = toString(_offset) WHERE 1 SETTINGS mutations_sync = 2")
		}
		if got := chdbtest.Exec(t, dsn, "SELECT _offset, timezone, birthday FROM "+view+" ORDER BY _offset"); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", view, got, want)
		}
	}
}

// The TTL that the README gives deletes what is old, and nothing else: what is stamped far
// ahead, by a wrong clock, would be sent again for ever.
func TestTTLOfTheReadme(t *testing.T) {
	_, dsn := open(t)
	readme, err := os.ReadFile("../../schemas/clickhouse/README.md")
	if err != nil {
		t.Fatal(err)
	}
	statements := 0
	for line := range strings.Lines(string(readme)) {
		if sql := strings.TrimSpace(line); strings.HasPrefix(sql, "ALTER TABLE events MODIFY") && strings.Contains(sql, "ttl") || strings.Contains(sql, "MODIFY TTL") {
			chdbtest.Exec(t, dsn, strings.TrimSuffix(sql, ";"))
			statements++
		}
	}
	for range 2 { // one part alone would not be merged
		chdbtest.Exec(t, dsn, "INSERT INTO events (_topic, _offset, _time) VALUES ('in', 1, '2262-04-11 23:47:16.854'), ('in', 2, '2106-02-07 06:28:16'), ('in', 3, now64(3)), ('in', 4, '1995-01-01')")
	}
	chdbtest.Exec(t, dsn, "OPTIMIZE TABLE events FINAL")
	if got := chdbtest.Exec(t, dsn, "SELECT groupArray(_offset) FROM (SELECT DISTINCT _offset FROM events ORDER BY _offset)"); got != "[1,2,3]" || statements != 2 {
		t.Errorf("after %d statements: kept %s, want [1,2,3]", statements, got)
	}
}
