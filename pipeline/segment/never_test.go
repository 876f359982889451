package segment

import (
	"testing"

	"footfall/pipeline/profile"
	"footfall/schemas"
	"footfall/sinks/clickhouse/chdbtest"
)

// neverRule is a rule that adds to a moment, or takes from it.
type neverRule struct {
	rule          string
	viewed, whole bool   // whether it holds for who has viewed alone, and for who has bought, too
	value         string // what it looks at of the former
}

// On 25 December: time zero less seven days is such a day, too.
const neverAt = "2026-12-25"

func neverRules() []neverRule {
	return []neverRule{
		{`anniversary(first("purchase") - days(7))`, false, false, `first("purchase") - days(7) was never`},
		{`anniversary(days(358) + first("purchase"))`, false, false, `days(358) + first("purchase") was never`},
		{`anniversary((first("purchase") - days(8)) + days(1))`, false, false, `(first("purchase") - days(8)) + days(1) was never`},
		{`since(last("purchase") + days(30)) >= days(30000)`, true, false, `last("purchase") + days(30) was never`},
		{`last("purchase") + days(30) > cart_changed()`, false, true, `cart_changed() is never, last("purchase") + days(30) is never`},
		{`last("purchase") - days(30) < cart_changed()`, false, false, `last("purchase") - days(30) is never, cart_changed() is never`},
		{`last("purchase") - gap("purchase") == cart_changed()`, true, false, `last("purchase") - gap("purchase") is never, cart_changed() is never`},
		{`now() > last("purchase") - days(7)`, true, true, "now is 2026-12-25 00:00:00"},
	}
}

// What never happened did not happen a week before either: whatever is added to never or
// taken from it, it is never, and nobody waits for it.
func TestNeverStaysNever(t *testing.T) {
	now := schemas.Millis(date(t, neverAt))
	for _, c := range neverRules() {
		p, err := Compile(Options{Exponent: 2}, everybody(c.rule))
		if err != nil {
			t.Fatal(err)
		}
		e, in := p.Evaluator(), make([]uint16, 1)
		var pr profile.Profile
		rows := profile.NewRows(p.Layout())
		rows.Append()
		does := func(kind schemas.Kind) (holds bool, due schemas.Millis) {
			ev := schemas.Event{At: now, Kind: kind}
			pr.Fold(&ev)
			rows.Fold(0, &ev, now)
			due = e.Eval(&pr, rows.View(0), now, in)
			return in[0] == 0, due
		}
		holds, due := does(schemas.View)
		if holds != c.viewed || due != schemas.Never {
			t.Errorf("%s of who has never bought: got %v until %d, want %v for ever", c.rule, holds, due, c.viewed)
		}
		if got := e.Clauses(Moment{&pr, rows.View(0), now, in}, 0, 0)[0].Value; got != c.value {
			t.Errorf("%s of who has never bought looks at %q, want %q", c.rule, got, c.value)
		}
		if holds, _ := does(schemas.Purchase); holds != c.whole {
			t.Errorf("%s of who has bought: got %v, want %v", c.rule, holds, c.whole)
		}
	}
}

func TestNeverStaysNeverInSQL(t *testing.T) {
	dsn := chdbtest.Database(t)
	const event = "(SELECT user, arrayJoin(types) AS type, toDateTime64('" + neverAt + "', 3, 'UTC') AS time, user AS user_id, '' AS cart_id, '' AS product_id, '' AS items, " +
		"toNullable(toDecimal64(1, 6)) AS quantity, toInt64(0) AS worth_minor FROM VALUES('user String, types Array(String)', ('viewed', ['view']), ('whole', ['view', 'purchase'])))"
	for _, c := range neverRules() {
		p, err := Compile(Options{Exponent: 2}, everybody(c.rule))
		if err != nil {
			t.Fatal(err)
		}
		want := map[bool]string{true: "b", false: "c"}
		got := chdbtest.Exec(t, dsn, "SELECT a FROM ("+p.SQLOver(event, schemas.Millis(date(t, neverAt)), "")+") ORDER BY user_id")
		if got != want[c.viewed]+"\n"+want[c.whole] {
			t.Errorf("%s: ClickHouse says %q, want %s of who has never bought and %s of who has", c.rule, got, want[c.viewed], want[c.whole])
		}
	}
}

// Of the rules' hash: only those that shift moments have come to mean something else.
func TestRulesThatShiftMomentsAreTold(t *testing.T) {
	for rule, want := range map[string]bool{
		`anniversary(first("purchase") - days(7))`:                                 true,
		`orders() > 0 && !(score(since(days(3) + last("purchase")), 5) == 2)`:      true,
		`since(last("purchase")) >= days(3) + gap("purchase") && orders() + 1 > 2`: false,
		`last("purchase") - first("purchase") > days(7)`:                           false,
	} {
		p, err := Compile(Options{Exponent: 2}, everybody(rule))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.sets[0].rules[0].when.shifting(); got != want {
			t.Errorf("%s: got %v, want %v", rule, got, want)
		}
	}
}
