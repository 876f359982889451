package clickhouse

import (
	"strings"
	"testing"

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

func TestMigrateTwice(t *testing.T) {
	db, dsn := open(t)
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := chdbtest.Exec(t, dsn, "SELECT groupArray(version) FROM (SELECT version FROM schema_versions ORDER BY version)")
	if want := "[1,2,3,4,5]"; got != want {
		t.Errorf("versions: got %s, want %s", got, want)
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
