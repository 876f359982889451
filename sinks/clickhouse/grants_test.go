package clickhouse

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/archive"
	"footfall/pipeline/parity"
	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas"
	"footfall/sinks/clickhouse/chdb"
	"footfall/sinks/clickhouse/chdbtest"
)

var grantLine = regexp.MustCompile(`(?m)^    GRANT (.+ ON \S+) TO (\w+);`)

// documented reads the grants of a role from README.md.
func documented(t *testing.T, role string) (grants []string) {
	t.Helper()
	page, err := os.ReadFile("../../schemas/clickhouse/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range grantLine.FindAllStringSubmatch(string(page), -1) {
		if m[2] == role {
			grants = append(grants, m[1])
		}
	}
	if len(grants) == 0 {
		t.Fatalf("README.md grants nothing to %s", role)
	}
	return grants
}

// each gives every right of the grants by itself, "SELECT(a, b) ON t" as one.
func each(grants []string) (rights []string) {
	for _, g := range grants {
		what, on, _ := strings.Cut(g, " ON ")
		depth, from := 0, 0
		for i, c := range what + "," {
			switch {
			case c == '(':
				depth++
			case c == ')':
				depth--
			case c == ',' && depth == 0:
				rights = append(rights, strings.TrimSpace(what[from:i])+" ON "+on)
				from = i + 1
			}
		}
	}
	return rights
}

// granted starts an engine on a folder whose one user has these rights, and returns
// the DSN of footfall's database.
func granted(t *testing.T, dir string, rights []string) (l *chdb.Local, dsn string) {
	t.Helper()
	l, err := chdb.StartLocal(t.Context(), chdb.LocalOptions{Library: chdbtest.Library(t), Dir: dir, Grants: rights})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Kill() })
	return l, l.DSN("footfall")
}

// stop ends an engine, so that another can have its folder.
func stop(t *testing.T, l *chdb.Local) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := l.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

// Each role does its work with just the rights that README.md gives it, and fails
// without any one of them, with an error that names it.
func TestGrants(t *testing.T) {
	dir, k := t.TempDir(), startKafka(t)
	owner, writer := each(documented(t, "footfall_owner")), each(documented(t, "footfall_writer"))
	for i := range owner {
		l, dsn := granted(t, t.TempDir(), slices.Delete(slices.Clone(owner), i, i+1))
		denied(t, owner[i], openAt(t, dsn).Migrate(t.Context()))
		stop(t, l)
	}
	l, dsn := granted(t, dir, owner)
	if err := openAt(t, dsn).Migrate(t.Context()); err != nil {
		t.Fatalf("migrations with the owner's rights: %v", err)
	}
	stop(t, l)
	l, dsn = granted(t, dir, writer)
	archives(t, k, dsn)
	stop(t, l)
	l, dsn = granted(t, dir, nil) // everything is allowed
	for _, table := range []string{"events", "transitions", "dead_letters"} {
		chdbtest.Exec(t, dsn, "TRUNCATE TABLE "+table) // for the mender to mend
	}
	stop(t, l)

	known := []string{"SELECT ON footfall.schema_versions"} // who may do nothing does not even see the database
	for _, role := range []struct {
		name  string
		has   []string // rights besides
		works func(t *testing.T, k *kafka, dsn string) error
	}{
		{"footfall_mender", writer, mends},
		{"footfall_mender", writer, samplesParity},
		{"footfall_historian", writer, readsHistory},
		{"footfall_reader", known, seesParity},
		{"footfall_reader", known, looks},
		{"footfall_writer", nil, works},
	} {
		rights := each(documented(t, role.name))
		l, dsn := granted(t, dir, append(slices.Clone(role.has), rights...))
		if err := role.works(t, k, dsn); err != nil {
			t.Errorf("with the rights of %s: %v", role.name, err)
		}
		stop(t, l)
		for i := range rights {
			l, dsn := granted(t, dir, append(slices.Delete(slices.Clone(rights), i, i+1), role.has...))
			denied(t, rights[i], role.works(t, k, dsn))
			stop(t, l)
		}
	}
}

// denied checks that an error says which right is missing.
func denied(t *testing.T, right string, err error) {
	t.Helper()
	what, on, _ := strings.Cut(right, " ON ")
	what, _, _ = strings.Cut(what, " ") // DROP TABLE is DROP VIEW too
	what, _, _ = strings.Cut(what, "(")
	on = strings.TrimSuffix(on, ".*")
	if err == nil || codeOf(err) != codeAccessDenied || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), on) {
		t.Errorf("without %s: got %v, want code 497 and its name", right, err)
	}
}

// archives copies all topics, and audits and mends them.
func archives(t *testing.T, k *kafka, dsn string) {
	t.Helper()
	db := openAt(t, dsn)
	if err := db.Migrate(t.Context()); err != nil { // there is nothing to do
		t.Fatalf("migrations with the writer's rights: %v", err)
	}
	refused := event(2, `,"type":"dance"`)
	k.produce(event(1, `,"type":"view"`), refused)
	tr := schemas.Transition{User: "u1", From: schemas.NoSegment, To: 2, Seq: 1, At: 1767225600000, Segments: []uint16{2}, Expected: schemas.Expected{To: schemas.NoSegment, At: schemas.Never}}
	k.transact(true, transitionRecord("triggers", 1, &tr), deadRecord(2, refused, refused.Offset, schemas.UnknownType))
	a, stop := k.archive(db, nil)
	k.drain(a)
	audited(t, k, a)
	stop()
	s := a.Stats()
	if got := fmt.Sprint(s.Events.Load(), s.Transitions.Load(), s.DeadLetters.Load(), s.Wrong.Load()); got != "1 1 1 0" {
		t.Errorf("got %s events, transitions, dead letters, differences; want 1 1 1 0\n%s", got, k.reported())
	}
}

// mends has footfall audit --mend send what is missing. Its first error is returned.
func mends(t *testing.T, k *kafka, dsn string) error {
	t.Helper()
	a := k.audit(openAt(t, dsn), nil)
	plan, err := a.Plan(t.Context(), AuditSelection{})
	if err != nil {
		return err
	}
	found, err := a.Compare(t.Context(), plan, AuditOptions{Mend: true})
	if err != nil {
		return err
	}
	for _, c := range found {
		if c.Wrong() > 0 {
			t.Errorf("after mending: %+v", c)
		}
	}
	_, err = a.Chains(t.Context(), nil)
	return err
}

// seesParity compares all users, as footfall parity --all does.
func seesParity(t *testing.T, _ *kafka, dsn string) error {
	t.Helper()
	return compares(t, dsn, parity.Selection{})
}

// samplesParity compares some users, as run does.
func samplesParity(t *testing.T, _ *kafka, dsn string) error {
	t.Helper()
	return compares(t, dsn, parity.Selection{Sample: 10, Draw: parity.Draw{Cheap: true}})
}

// compares compares a user of whom nothing was said in a set with what the events give,
// and has the difference looked into.
func compares(t *testing.T, dsn string, sel parity.Selection) error {
	t.Helper()
	rules, err := segment.Compile(segment.Options{Exponent: 2}, segment.File{Name: "tested.yaml", Text: []byte(paritySet)})
	if err != nil {
		t.Fatal(err)
	}
	mark := schemas.Mark{Partition: 1, Next: 10, N: 10, Rules: rules.Hash(), Clock: 1767225600000, Fired: 1767225600000}
	r, err := parity.Compare(t.Context(), parity.Config{Rules: rules, Tables: parityOf(openAt(t, dsn)), Named: 1}, mark, sel)
	if err == nil && len(r.Differences) != 1 {
		t.Errorf("got %+v, want one user who differs", r)
	}
	return err
}

// readsHistory reads what the topic has no more, for a new segment set.
func readsHistory(t *testing.T, _ *kafka, dsn string) error {
	t.Helper()
	past := Past{DSN: dsn, Topic: "in"}
	kept, err := past.Older(t.Context(), 2, 10, func([]worker.Record) error { return nil })
	if err != nil {
		return err
	}
	refused, err := past.Refused(t.Context(), 2, 10)
	if err == nil && (kept != 1 || len(refused) != 1) {
		t.Errorf("got %d records kept and %d refused, want 1 and 1", kept, len(refused))
	}
	return err
}

// looks reads every table and view, audits, and may change nothing.
func looks(t *testing.T, k *kafka, dsn string) error {
	t.Helper()
	db := openAt(t, dsn)
	rows, err := db.Query(t.Context(), "SELECT name, create_table_query LIKE '%{from:%' FROM system.tables WHERE database = currentDatabase()")
	if err != nil {
		return err
	}
	var names []string
	for rows.Next() {
		var name string
		var asks uint8
		if err := rows.Scan(&name, &asks); err != nil {
			t.Fatal(err)
		}
		if asks == 1 {
			name += "(from = '2026-01-01', to = '2026-02-01', window = 86400)"
		}
		names = append(names, name)
	}
	if err := rows.Close(); err != nil {
		return err
	}
	for _, sql := range []string{"INSERT INTO events (event_id) SELECT 'x'", "TRUNCATE TABLE events", "ALTER TABLE events DELETE WHERE 1", "DROP TABLE events", "CREATE TABLE x (a Int8) ENGINE = Memory", "SELECT * FROM url('http://127.0.0.1:1')", "SELECT * FROM file('/etc/passwd', 'LineAsString')"} {
		if err := db.Exec(t.Context(), sql); codeOf(err) != codeAccessDenied {
			t.Errorf("a reader may %s: %v", sql, err)
		}
	}
	for _, name := range append(names, "events", "forecast_now") { // who may read nothing is shown nothing
		if err := db.Exec(t.Context(), "SELECT * FROM "+name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(names) < 20 {
		t.Errorf("a reader is shown only %v", names)
	}
	a := k.audit(db, nil)
	plan, err := a.Plan(t.Context(), AuditSelection{})
	if err != nil {
		return err
	}
	_, err = a.Compare(t.Context(), plan, AuditOptions{})
	return err
}

// works does what the archive does of each kind, once for each table, and returns the
// first error.
func works(t *testing.T, _ *kafka, dsn string) error {
	t.Helper()
	db := openAt(t, dsn)
	if err := db.Migrate(t.Context()); err != nil {
		return err
	}
	tables := testTables()
	tables.db = db
	refused := event(2, `,"type":"dance"`)
	tr := schemas.Transition{User: "u1", From: schemas.NoSegment, To: 2, Seq: 1, At: 1767225600000, Segments: []uint16{2}, Expected: schemas.Expected{To: schemas.NoSegment, At: schemas.Never}}
	rows, from := tables.Rows(), &Log{}
	for _, r := range []*kgo.Record{event(1, `,"type":"view"`), transitionRecord("triggers", 1, &tr), deadRecord(2, refused, 0, schemas.UnknownType)} {
		p, rec := archive.Partition{Topic: r.Topic, Number: 1}, from.record(r)
		if !rows.Decode(p, &rec) {
			t.Fatalf("a record of %s gives no row", r.Topic)
		}
		rows.Add(archive.Hash(&rec))
		span := archive.Span{Partition: p, First: 0, Next: 10}
		if _, err := tables.Present(t.Context(), span); err != nil {
			return err
		}
		if _, err := tables.Sums(t.Context(), []archive.Span{span}); err != nil {
			return err
		}
		if _, err := tables.After(t.Context(), p, 0); err != nil {
			return err
		}
	}
	if _, err := tables.Epoch(t.Context()); err != nil {
		return err
	}
	if err := tables.Settle(t.Context()); err != nil {
		return err
	}
	if err := db.WriteForecast(t.Context(), 1, 1767225600000, []Forecast{{Set: "lifecycle", From: "new", To: "cooling", Hour: 1767225600000, Users: 3}}); err != nil {
		return err
	}
	return rows.Insert(t.Context(), "token")
}
