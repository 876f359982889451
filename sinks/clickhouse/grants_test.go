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
	dir := t.TempDir()
	owner, writer, reader := each(documented(t, "footfall_owner")), each(documented(t, "footfall_writer")), each(documented(t, "footfall_reader"))

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
	archives(t, dsn)
	if err := works(t, dsn); err != nil {
		t.Errorf("with the writer's rights: %v", err)
	}
	stop(t, l)
	for i := range writer {
		l, dsn := granted(t, dir, slices.Delete(slices.Clone(writer), i, i+1))
		denied(t, writer[i], works(t, dsn))
		stop(t, l)
	}

	l, dsn = granted(t, dir, reader)
	db := openAt(t, dsn)
	for _, view := range []string{
		"events", "transitions", "dead_letters", "events_accepted", "events_once", "event_repeats", "order_repeats", "segment_now", "segment_history", "segment_daily",
		"funnel(from = '2026-01-01', to = '2026-02-01', window = 86400)", "funnel_daily", "funnel_by_product(from = '2026-01-01', to = '2026-02-01', window = 86400)",
		"funnel_by_category(from = '2026-01-01', to = '2026-02-01', window = 86400)", "funnel_by_channel(from = '2026-01-01', to = '2026-02-01', window = 86400)", "revenue_daily", "cohort_retention",
	} {
		if err := db.Exec(t.Context(), "SELECT * FROM "+view); err != nil {
			t.Errorf("a reader of %s: %v", view, err)
		}
	}
	for _, sql := range []string{"INSERT INTO events (event_id) SELECT 'x'", "TRUNCATE TABLE events", "ALTER TABLE events DELETE WHERE 1", "DROP TABLE events", "CREATE TABLE x (a Int8) ENGINE = Memory", "SELECT * FROM url('http://127.0.0.1:1')", "SELECT * FROM file('/etc/passwd', 'LineAsString')"} {
		if err := db.Exec(t.Context(), sql); codeOf(err) != codeAccessDenied {
			t.Errorf("a reader may %s: %v", sql, err)
		}
	}
	stop(t, l)
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
func archives(t *testing.T, dsn string) {
	t.Helper()
	db := openAt(t, dsn)
	if err := db.Migrate(t.Context()); err != nil { // there is nothing to do
		t.Fatalf("migrations with the writer's rights: %v", err)
	}
	k := startKafka(t)
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

// works does what the archive does of each kind, once for each table, and returns the
// first error.
func works(t *testing.T, dsn string) error {
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
