package clickhouse

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"footfall/pipeline/parity"
	"footfall/pipeline/segment"
	"footfall/schemas"
	"footfall/sinks/clickhouse/chdbtest"
)

// parityOf is a Parity without a broker.
func parityOf(db *DB) *Parity {
	t := testTables()
	t.db = db
	return &Parity{topic: "in", audit: &Audit{tables: t, conf: ArchiveConfig{Group: "shop", Inputs: []InputTopic{{Name: "in"}}, Triggers: "triggers", Muted: "muted", Dead: "dead"}}}
}

// The events that count, found by some users' ids alone, are those of the view that goes
// through all of them: whatever is repeated where, refused, or there twice.
func TestSomeUsersEventsOnce(t *testing.T) {
	db, dsn := open(t)
	unmerged(t, dsn)
	p := parityOf(db)
	rng := rand.New(rand.NewPCG(1, 9))
	var rows, dead []string
	for i := range 3000 {
		partition := rng.IntN(3)
		kind := []string{"view", "purchase", "purchase", "refund"}[rng.IntN(4)]
		topic := "in"
		if rng.IntN(10) == 0 {
			topic = "history"
		}
		row := fmt.Sprintf("('%s', %d, %d, '2026-01-01 00:00:00', 'e%d', '%s', 'u%d', '2026-01-01 00:00:00', 'o%d')", topic, partition, i, rng.IntN(1500), kind, rng.IntN(90), rng.IntN(40))
		rows = append(rows, row)
		if rng.IntN(10) == 0 {
			rows = append(rows, row) // sent twice
		}
		if rng.IntN(10) == 0 {
			dead = append(dead, fmt.Sprintf("('dead', %d, %d, 'future', '%s', %d, %d)", partition, i, topic, partition, i))
		}
	}
	chdbtest.Exec(t, dsn, "INSERT INTO events (_topic, _partition, _offset, _time, event_id, type, user_id, time, order_id) VALUES "+strings.Join(rows, ", "))
	chdbtest.Exec(t, dsn, "INSERT INTO dead_letters (_topic, _partition, _offset, reason, source_topic, source_partition, source_offset) VALUES "+strings.Join(dead, ", "))
	for partition := range int32(3) {
		for _, next := range []int64{3000, 1700} {
			mark := schemas.Mark{Partition: partition, Next: next}
			var users []string
			for i := range 90 {
				if i%4 != 0 {
					users = append(users, fmt.Sprintf("u%d", i))
				}
			}
			want, err := p.texts(t.Context(), "SELECT toString(_offset) FROM "+p.once(mark, nil)+" WHERE 1"+among(users)+" ORDER BY _offset", p.args(users))
			got, err2 := p.texts(t.Context(), "SELECT toString(_offset) FROM "+p.once(mark, users)+" ORDER BY _offset", p.args(users))
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) || len(want) < 50 {
				t.Errorf("partition %d before %d: got\n%s\nwant\n%s", partition, next, got, want)
			}
		}
	}
}

// paritySet is a set that tells apart what the cases need.
const paritySet = `
set: tested
segments:
  - name: explorer
    when: distinct("view", event.product_id) >= 5000
  - name: many
    when: orders() >= 10
  - name: away
    when: since(last()) >= days(30)
  - name: two
    when: orders() >= 2
  - name: one
    when: orders() == 1
  - name: none
    otherwise: true
`

// parityCase is what one user did, what was said of it, and what must come of that.
type parityCase struct {
	user   string
	events []row    // offsets are given out
	said   []string // segments, one after the other; "-": nothing
	more   string   // columns of the transitions
	reason parity.Reason
	why    string
}

func parityCases() []parityCase {
	buy := func(id, order, at string) row {
		return row{id: id, kind: "purchase", time: at, more: "order_id='" + order + "'"}
	}
	var nine []row
	for i := range 9 {
		nine = append(nine, buy(fmt.Sprintf("n%d", i), fmt.Sprintf("o%d", i), fmt.Sprintf("2026-01-0%d 10:00:00", i+1)))
	}
	return []parityCase{
		{user: "same", events: []row{buy("s1", "o1", "2026-01-20 10:00:00")}, said: []string{"one"}},
		{user: "moved", events: []row{buy("m1", "o1", "2025-12-20 10:00:00")}, said: []string{"one", "away"}},
		{user: "dropped", events: []row{buy("d1", "o1", "2026-01-19 10:00:00"), buy("d1", "o2", "2026-01-19 10:59:00")}, said: []string{"one"}},
		{
			user: "window", events: []row{buy("w1", "o1", "2026-01-20 10:00:00"), buy("w1", "o2", "2026-01-20 12:30:00")}, said: []string{"two"},
			reason: parity.Window, why: `event "w1" counts twice: offset 5 repeats offset 4, 2h30m0s later, and ids are remembered for 1h0m0s (dedup.window)`,
		},
		{
			user: "orders", events: append(slices.Clone(nine), buy("n9", "o0", "2026-01-20 10:00:00")), said: []string{"many"},
			reason: parity.Orders, why: `order "o0" counts twice: offset 15 repeats it after more than 8 other orders`,
		},
		{
			user: "elsewhere", events: []row{buy("x1", "o1", "2026-01-20 10:00:00"), buy("x2", "o2", "2026-01-20 11:00:00")}, said: []string{"two"},
			reason: parity.Elsewhere, why: `event "x2" at offset 17 is in in/0 at offset 7 too, and ClickHouse counts it there`,
		},
		{
			user: "old", events: []row{buy("r2", "o2", "2026-01-20 10:00:00")}, said: []string{"two"}, more: "first_seen='2025-06-01 00:00:00', orders=2",
			reason: parity.Retention, why: "the user was first seen at 2025-06-01 00:00:00, and ClickHouse has no event from before 2026-01-20 10:00:00",
		},
		{
			user: "older", events: []row{buy("q2", "o2", "2026-01-20 10:00:00")}, said: []string{"two"}, more: "first_seen='2026-01-20 10:00:00', orders=2",
			reason: parity.Retention, why: "the user had 2 orders at transition 1 of tested, and ClickHouse has 1",
		},
		{
			user: "gone", said: []string{"one"}, more: "first_seen='2026-01-20 10:00:00'",
			reason: parity.Retention, why: "the user was first seen at 2026-01-20 10:00:00, and ClickHouse has no event from before now",
		},
		{
			user: "wrong", events: []row{buy("f1", "o1", "2026-01-20 10:00:00")}, said: []string{"two"}, more: "first_seen='2026-01-20 10:00:00', orders=1",
			reason: parity.Unexplained, why: "by the events that ClickHouse has the user belongs into one",
		},
		{
			user: "silent", events: []row{buy("g1", "o1", "2026-01-20 10:00:00")}, said: []string{"-"},
			reason: parity.Unexplained, why: "by the events that ClickHouse has the user belongs into one",
		},
		{
			user: "due", events: []row{buy("t1", "o1", "2026-01-01 23:59:59")}, said: []string{"one"},
			reason: parity.Timers, why: "silence is due by 2026-02-01 00:00:00, and has been said up to 2026-01-31 23:59:00 so far",
		},
	}
}

// Every kind of difference is told from every other, on the real engine.
func TestParityExplains(t *testing.T) {
	db, dsn := open(t)
	rules, err := segment.Compile(segment.Options{Exponent: 2}, segment.File{Name: "tested.yaml", Text: []byte(paritySet)})
	if err != nil {
		t.Fatal(err)
	}
	insert(t, dsn, row{0, 7, "x2", "view", "another", "2026-01-20 11:00:00", ""})
	offset, n, want := 0, 0, map[string]parityCase{}
	for _, c := range parityCases() {
		want[c.user] = c
		for _, ev := range c.events {
			ev.partition, ev.offset, ev.user = 1, offset, c.user
			insert(t, dsn, ev)
			offset++
		}
		from := ""
		for i, to := range c.said {
			if to == "-" {
				continue
			}
			n++
			say(t, dsn, n, c.user, i+1, from, to, c.more)
			from = to
		}
	}
	// One who has seen more than is told apart: 5,000 products, of which 4,096 are.
	chdbtest.Exec(t, dsn, fmt.Sprintf("INSERT INTO events (_topic, _partition, _offset, _time, event_id, type, user_id, time, product_id) SELECT 'in', 1, %d + number, '2026-01-30 00:00:00', concat('p', toString(number)), 'view', 'explorer', '2026-01-30 00:00:00', concat('product', toString(number)) FROM numbers(5000)", offset))
	n++
	say(t, dsn, n, "explorer", 1, "", "none", "")
	want["explorer"] = parityCase{reason: parity.Limits, why: "the user has more events than footfall tells apart (SEGMENTS.md, limits)"}
	// What comes after the mark plays no part.
	insert(t, dsn, row{1, offset + 5000, "z", "purchase", "same", "2026-01-30 00:00:00", "order_id='o9'"})
	say(t, dsn, n+1, "same", 2, "one", "two", "")

	mark := schemas.Mark{
		Partition: 1, Next: int64(offset + 5000), N: uint64(n), Rules: rules.Hash(),
		Clock: millisAt(t, "2026-02-01 00:00:00"), Fired: millisAt(t, "2026-01-31 23:59:00"),
	}
	config := parity.Config{Rules: rules, Tables: parityOf(db), DedupWindow: schemas.Hour, DedupBudget: 1 << 20, Named: 100}
	for name, sel := range map[string]parity.Selection{
		"all": {}, "a sample": {Sample: 1000, Draw: parity.Draw{Seed: 3}}, "neighbours": {Sample: 1000, Draw: parity.Draw{Seed: 3, Cheap: true}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := parity.Compare(t.Context(), config, mark, sel)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]parity.Difference{}
			for _, d := range r.Differences {
				got[d.User] = d
			}
			for user, c := range want {
				d := got[user]
				if name != "all" && d.User == "" && c.reason != "" {
					continue // it was not drawn
				}
				if d.Reason != c.reason || d.Why != c.why {
					t.Errorf("%s: got %q, %q; want %q, %q", user, d.Reason, d.Why, c.reason, c.why)
				}
			}
			if name != "all" && r.Users == 0 {
				t.Error("nobody was drawn")
			}
			if name != "neighbours" && (r.Users != int64(len(want)) || r.Sets[0].Unexplained != 2 || r.Sets[0].Same != 3 || r.Sets[0].Explained != int64(len(want)-5)) {
				t.Errorf("got %d users, %+v; want %d, of whom 3 are the same and 2 unexplained", r.Users, r.Sets[0], len(want))
			}
		})
	}
	for rules, reason := range map[uint64]parity.Reason{0: parity.Taking, 5: parity.OtherRules} {
		mark.Rules = rules
		r, err := parity.Compare(t.Context(), config, mark, parity.Selection{Users: []string{"wrong", "same"}})
		if err != nil || r.Users != 2 || len(r.Differences) != 1 || r.Differences[0].Reason != reason || r.Unexplained() != 0 {
			t.Errorf("under rules %d: got %+v, %v; want one difference for reason %s", rules, r, err, reason)
		}
	}
}

// Where more users differ than are looked into, the rest is not explained.
func TestParityNamesSome(t *testing.T) {
	db, dsn := open(t)
	rules, err := segment.Compile(segment.Options{Exponent: 2}, segment.File{Name: "tested.yaml", Text: []byte(paritySet)})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		say(t, dsn, i+1, fmt.Sprintf("u%d?", i), 1, "", "one", "first_seen='2026-01-20 10:00:00'")
	}
	mark := schemas.Mark{Partition: 1, N: 20, Rules: rules.Hash(), Clock: 5, Fired: 5}
	r, err := parity.Compare(t.Context(), parity.Config{Rules: rules, Tables: parityOf(db), Named: 7}, mark, parity.Selection{})
	if err != nil || len(r.Differences) != 7 || r.Sets[0].Explained != 7 || r.Sets[0].Unexplained != 13 || r.Unexplained() != 13 {
		t.Errorf("got %+v, %v; want 7 of 20 explained", r, err)
	}
}

// Sets may have names like those that the statement gives of its own.
func TestParityOfAnySetName(t *testing.T) {
	db, dsn := open(t)
	insert(t, dsn, row{1, 0, "e", "view", "u", "2026-01-20 10:00:00", ""})
	var files []segment.File
	sets := []string{"a1", "s0", "s1"}
	for i, set := range sets {
		files = append(files, segment.File{Name: set + ".yaml", Text: fmt.Appendf(nil, "set: %s\nsegments:\n  - name: seen%d\n    when: ever(\"view\") && orders() == 0\n  - name: other\n    otherwise: true\n", set, i)})
		say(t, dsn, i+1, "u", 1, "", fmt.Sprintf("seen%d", i), "")
		chdbtest.Exec(t, dsn, fmt.Sprintf("ALTER TABLE transitions UPDATE segment_set = '%s' WHERE n = %d SETTINGS mutations_sync = 1", set, i+1))
	}
	rules, err := segment.Compile(segment.Options{Exponent: 2}, files...)
	if err != nil {
		t.Fatal(err)
	}
	mark := schemas.Mark{Partition: 1, Next: 1, N: 3, Rules: rules.Hash(), Clock: millisAt(t, "2026-02-01 00:00:00"), Fired: millisAt(t, "2026-02-01 00:00:00")}
	r, err := parity.Compare(t.Context(), parity.Config{Rules: rules, Tables: parityOf(db), Named: 7}, mark, parity.Selection{Sets: sets})
	if err != nil || r.Users != 1 || len(r.Differences) != 0 {
		t.Errorf("got %+v, %v; want one user without a difference", r, err)
	}
}

// say puts a transition into the table.
func say(t testing.TB, dsn string, n int, user string, seq int, from, to, more string) {
	t.Helper()
	columns, values := "", ""
	for assignment := range strings.SplitSeq(more, ", ") {
		if column, value, ok := strings.Cut(assignment, "="); ok {
			columns += ", " + column
			values += ", " + value
		}
	}
	chdbtest.Exec(t, dsn, fmt.Sprintf("INSERT INTO transitions (_topic, _partition, _offset, _time, n, user_id, segment_set, seq, from_segment, to_segment%s) VALUES ('%s', 1, %d, '2026-01-20 00:00:00', %d, '%s', 'tested', %d, '%s', '%s'%s)",
		columns, []string{"triggers", "muted"}[n%2], n, n, user, seq, from, to, values))
}

func millisAt(t testing.TB, text string) schemas.Millis {
	t.Helper()
	at, err := time.Parse(time.DateTime, text)
	if err != nil {
		t.Fatal(err)
	}
	return schemas.Millis(at.UnixMilli())
}
