package segment

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"footfall/pipeline/profile"
	"footfall/schemas"
	"footfall/sinks/clickhouse/chdbtest"
)

func TestMain(m *testing.M) { chdbtest.Main(m) }

// One definition, two engines: the statement that a program writes for ClickHouse puts
// every user where the evaluator does, at any moment.
func TestSQLIsTheEvaluators(t *testing.T) {
	dsn := chdbtest.Database(t)
	chdbtest.Exec(t, dsn, `CREATE TABLE events_once (user_id String, type LowCardinality(String), time DateTime64(3, 'UTC'), session_id String, product_id String,
		category LowCardinality(String), brand LowCardinality(String), channel LowCardinality(String), campaign String, url String, order_id String, currency String,
		cart_id String, timezone LowCardinality(String), birthday String, quantity Nullable(Decimal(19, 6)), items String, amount_minor Int64, worth_minor Int64) ENGINE = MergeTree ORDER BY user_id`)
	rng := rand.New(rand.NewPCG(1, 5))
	histories := map[string][]schemas.Event{}
	var insert strings.Builder
	insert.WriteString("INSERT INTO events_once FORMAT JSONEachRow\n")
	for i := range 150 {
		user := fmt.Sprintf("u%d", i)
		histories[user] = someHistory(rng)
		for _, ev := range histories[user] {
			row, err := json.Marshal(map[string]any{
				"user_id": user, "type": ev.Kind.String(), "time": time.UnixMilli(int64(ev.At)).UTC().Format("2006-01-02 15:04:05.000"),
				"session_id": string(ev.SessionID), "product_id": string(ev.ProductID), "category": string(ev.Category), "brand": string(ev.Brand), "channel": string(ev.Channel),
				"cart_id": string(ev.CartID), "timezone": string(ev.Timezone), "birthday": string(ev.Birthday), "quantity": ev.Quantity / 1_000_000, "items": string(ev.Items), "amount_minor": ev.Amount, "worth_minor": ev.Worth,
			})
			if err != nil {
				t.Fatal(err)
			}
			insert.Write(append(row, '\n'))
		}
	}
	chdbtest.Exec(t, dsn, insert.String())
	zones := []string{"UTC", "Europe/Berlin", "America/Sao_Paulo"}
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 6))
		var qs []string
		for range 1 + rng.IntN(3) {
			qs = append(qs, someQuestion(rng))
		}
		zone := zones[rng.IntN(len(zones))]
		sets := []string{someSet(rng, "one", zone, qs), someSet(rng, "two", zone, []string{`segment("one") == "rest" && orders() >= 1`, `segment("one") in ["s0", "rest"] || ever("refund")`})}
		p, err := Compile(Options{Exponent: 2}, File{"one.yaml", []byte(sets[0])}, File{"two.yaml", []byte(sets[1])})
		if err != nil {
			continue // what was drawn makes no sense
		}
		now := start + schemas.Millis(rng.Int64N(int64(120*day)))
		compareEngines(t, dsn, p, histories, now, strings.Join(sets, "\n"))
	}
	for _, name := range []string{"lifecycle", "loyalty", "cart", "browse", "replenishment", "engagement", "milestones"} {
		p, err := Shipped(Options{Exponent: 2}, name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range schemas.Millis(4) {
			compareEngines(t, dsn, p, histories, start+(5+30*i)*day, name)
		}
		if name != "milestones" {
			continue
		}
		for _, birthday := range []string{"2026-01-17", "2026-03-01", "2026-12-31", "2028-02-29", "2028-03-01"} {
			for i := range schemas.Millis(2) {
				compareEngines(t, dsn, p, histories, schemas.Millis(date(t, birthday))+i*day-i, birthday)
			}
		}
	}
}

// A quantity is compared with the decimal that the rule has, and not with what a float
// makes of it: 8.2 would be 8.199999.
func TestQuantitiesInSQL(t *testing.T) {
	dsn := chdbtest.Database(t)
	for _, c := range []struct{ rule, quantity, want string }{
		{"event.quantity > 8.2", "8.2", "out"},
		{"event.quantity >= 8.2", "8.2", "in"},
		{"event.quantity == 4.02", "4.02", "in"},
		{"event.quantity <= 1000000.5", "1000000.5", "in"},
		{"event.quantity < 3", "2.999999", "in"},
		{"event.quantity >= 3", "3", "in"},
	} {
		p, err := Compile(Options{Exponent: 2}, File{"a.yaml", []byte("set: a\nsegments:\n  - name: in\n    when: ever(\"view\", " + c.rule + ")\n  - name: out\n    otherwise: true\n")})
		if err != nil {
			t.Fatal(err)
		}
		row := "(SELECT 'u' AS user_id, 'view' AS type, toDateTime64('2026-01-01', 3, 'UTC') AS time, toDecimal64('" + c.quantity + "', 6) AS quantity)"
		if got := chdbtest.Exec(t, dsn, "SELECT a FROM ("+p.SQLOver(row, 1767312000000, "")+")"); strings.TrimSpace(got) != c.want {
			t.Errorf("%s of %s: got %s, want %s", c.rule, c.quantity, got, c.want)
		}
	}
}

// Quantities that come to more than an integer holds are many pieces, and none too few.
func TestAbsurdQuantitiesInSQL(t *testing.T) {
	dsn := chdbtest.Database(t)
	p, err := Compile(Options{Exponent: 2}, everybody("open_carts() == 1 && cart_items() > 2000000000"))
	if err != nil {
		t.Fatal(err)
	}
	const rows = "(SELECT 'u' AS user_id, arrayJoin(['p', 'p']) AS product_id, 'add_to_cart' AS type, toDateTime64('2026-01-01', 3, 'UTC') AS time, " +
		"'' AS cart_id, '' AS items, toInt64(0) AS worth_minor, toNullable(toDecimal128('9223372036854.775807', 6)) AS quantity)"
	if got := chdbtest.Exec(t, dsn, "SELECT a FROM ("+p.SQLOver(rows, 1767398400000, "")+")"); got != "b" {
		t.Errorf("got %s, want b", got)
	}
}

// A number that ClickHouse's parser does not read takes nothing else of the items with it.
func TestLargeNumbersOfItemsInSQL(t *testing.T) {
	dsn := chdbtest.Database(t)
	p, err := Compile(Options{Exponent: 2}, File{"a.yaml", []byte(`set: a
segments:
  - name: shoes
    when: ever("purchase", event.items.exists(i, i.category == "shoes")) && open_carts() == 0
  - name: rest
    otherwise: true
`)})
	if err != nil {
		t.Fatal(err)
	}
	const event = "'u' AS user_id, '' AS cart_id, toNullable(toDecimal64(1, 6)) AS quantity, toInt64(5) AS worth_minor, "
	const rows = "(SELECT " + event + "'add_to_cart' AS type, toDateTime64('2026-01-01', 3, 'UTC') AS time, 'p' AS product_id, '' AS items UNION ALL SELECT " +
		event + `'purchase', toDateTime64('2026-01-02', 3, 'UTC'), '', '[{"serial":123456789012345678901234,"product_id":"p","category":"shoes"}]')`
	if got := chdbtest.Exec(t, dsn, "SELECT a FROM ("+p.SQLOver(rows, 1767398400000, "")+")"); got != "shoes" {
		t.Errorf("got %s, want shoes: bought, and with them what was in the cart", got)
	}
}

// A set may have any name, also one like those that the statement gives of its own.
func TestSetNamesInSQL(t *testing.T) {
	dsn := chdbtest.Database(t)
	const row = "(SELECT 'u' AS user_id, 'view' AS type, toDateTime64('2026-01-01', 3, 'UTC') AS time)"
	for _, name := range []string{"a0", "a1", "t", "type", "x"} {
		p, err := Compile(Options{Exponent: 2},
			File{"one.yaml", []byte("set: " + name + "\nsegments:\n  - name: in\n    when: ever(\"view\") && !ever(\"purchase\")\n  - name: out\n    otherwise: true\n")},
			File{"two.yaml", []byte("set: other\nsegments:\n  - name: both\n    when: segment(\"" + name + "\") == \"in\" && orders() == 0\n  - name: out\n    otherwise: true\n")})
		if err != nil {
			t.Fatal(err)
		}
		if got := chdbtest.Exec(t, dsn, "SELECT user_id, "+name+", other FROM ("+p.SQLOver(row, 1767312000000, "")+") FORMAT TSV"); got != "u\tin\tboth" {
			t.Errorf("set %s: got %q, want u in both", name, got)
		}
	}
}

func date(t *testing.T, text string) int64 {
	t.Helper()
	at, err := time.Parse("2006-01-02", text)
	if err != nil {
		t.Fatal(err)
	}
	return at.UnixMilli()
}

func compareEngines(t *testing.T, dsn string, p *Program, histories map[string][]schemas.Event, now schemas.Millis, what string) {
	t.Helper()
	sql := p.SQL(now, fmt.Sprintf("t <= %d", now))
	names := p.Names()
	var columns []string
	for _, s := range names {
		columns = append(columns, s.Name)
	}
	got := chdbtest.Exec(t, dsn, "SELECT user_id, "+strings.Join(columns, ", ")+" FROM ("+sql+") ORDER BY user_id FORMAT TSV")
	found := map[string]string{}
	for line := range strings.Lines(got) {
		user, segments, _ := strings.Cut(strings.TrimSpace(line), "\t")
		found[user] = segments
	}
	e := p.Evaluator()
	for user, events := range histories {
		rows := profile.NewRows(p.Layout())
		rows.Append()
		var pr profile.Profile
		for i := range events {
			if events[i].At <= now {
				pr.Fold(&events[i])
				rows.Fold(0, &events[i], now)
			}
		}
		if pr.Last == 0 {
			continue
		}
		into := make([]uint16, p.Sets())
		e.Eval(&pr, rows.View(0), now, into)
		var want []string
		for i, s := range into {
			want = append(want, names[i].Segments[s])
		}
		if w := strings.Join(want, "\t"); found[user] != w {
			for i := range events {
				ev := &events[i]
				t.Logf("%s %v amount %d worth %d quantity %d: %s %s %s %s session %s cart %s %s", time.UnixMilli(int64(ev.At)).UTC(), ev.Kind, ev.Amount, ev.Worth, ev.Quantity,
					ev.ProductID, ev.Category, ev.Brand, ev.Channel, ev.SessionID, ev.CartID, ev.Items)
			}
			t.Fatalf("user %s at %s: ClickHouse says %q, the evaluator %q\n%s\n%s", user, time.UnixMilli(int64(now)).UTC(), found[user], w, what, sql)
		}
	}
}
