package segment

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"footfall/pipeline/pipelinetest/naive"
	"footfall/pipeline/profile"
	"footfall/schemas"
)

// questions are expressions of every kind, some with a hole %d that is filled with
// something around what histories have.
func questions() []string {
	return []string{
		`since(last()) >= days(%d)`, `since(last("purchase")) < days(%d)`, `since(first()) > days(%d)`, `since(last("view", event.category == "tv")) <= hours(%d)`,
		`last("view") > last("purchase")`, `last("purchase") - first("purchase") >= days(%d)`, `ever("search")`, `ever("view", event.brand in ["acme", "umbra"])`,
		`orders() >= %d`, `orders() == %d`, `orders(days(30)) >= %d`, `orders(days(7)) == %d`, `orders(calendar("month")) < %d`, `orders(calendar("month", 1)) > %d`,
		`count("view", days(3)) > %d`, `count("view", event.category.startsWith("t"), days(10)) >= %d`, `count(["view", "search"], hours(36)) <= %d`, `count("any") >= %d`,
		`count("view", calendar("day")) >= %d`, `count("view", calendar("week")) != %d`, `count("any", event.channel != "email", calendar("quarter")) >= %d`,
		`count("view", days(3)) > count("add_to_cart", days(3))`, `count("view", event.category == "tv") >= %d`,
		`revenue() >= %d`, `revenue(days(60)) > %d.5`, `spend(calendar("year")) < %d0.0`, `spend(days(20)) >= revenue()`, `average_order() >= %d0`, `average_order(days(45)) < %d5`, `largest_order() > %d0`,
		`sum("purchase", event.amount, event.channel == "email", days(90)) >= %d`, `sum("refund", event.amount) > 0.0`, `spend(calendar("month", 1)) >= %d`,
		`distinct("view", event.product_id, days(14)) >= %d`, `distinct("any", event.category) > %d`, `sessions(days(2)) >= %d`, `sessions() < %d`,
		`first_value("any", event.channel) == "email"`, `last_value("any", event.channel) in ["ads", "seo"]`, `first_value("any", event.channel) == last_value("any", event.channel)`,
		`top("view", event.category) == "tv"`, `top_hour("any") >= %d`, `top_weekday("purchase") == %d`,
		`since(last("purchase")) >= gap("purchase")`, `gap("view") > hours(%d)`, `since(last("view")) < gap("view") + hours(2)`,
		`followed("view", "purchase", hours(%d), days(30))`, `followed("view", event.category == "tv", "add_to_cart", event.quantity >= 2, days(1), days(9))`,
		`open_carts() > %d`, `since(cart_changed()) >= hours(%d)`, `cart_items() >= %d`, `cart_value() >= %d0.0`,
		`anniversary(first())`, `anniversary(first("purchase"))`, `anniversary(first("purchase") - days(%d))`, `birthday()`, `birthday() && orders() > %d`,
		`last_value("any", event.timezone) == "Europe/Berlin"`, `count("any", event.timezone.startsWith("Europe/"), days(9)) > %d`,
		`band(since(last("purchase")), [days(3), days(30), days(60)]) >= %d`, `band(orders(), [2, 4]) == %d`, `band(revenue(), [50, 100.5]) < %d`,
		`now() >= timestamp("2026-03-01T00:00:00Z")`, `now() - last() >= days(%d)`, `first() + days(40) <= now()`, `hours(%d) + last("search") > last("purchase") - days(2)`, `since(cart_changed() + hours(%d) - gap("view")) < days(9)`,
		`count("purchase", event.items.exists(i, i.category == "tv")) >= %d`, `(orders() > %d ? revenue() : 0.5) < 70`, `orders() * 2 - 1 > %d`, `orders() / 2 == %d`,
		`count("view", !(event.brand == "acme") || event.quantity > 1.5) > %d`, `count("view", event.type == "view" && event.product_id.endsWith("1"), days(5)) >= %d`,
	}
}

func someQuestion(rng *rand.Rand) string {
	all := questions()
	q := all[rng.IntN(len(all))]
	if strings.Contains(q, "%d") {
		n := rng.IntN(4)
		if strings.Contains(q, "hours") || strings.Contains(q, "days(%d") {
			n = rng.IntN(70)
		}
		q = fmt.Sprintf(q, n)
	}
	switch rng.IntN(6) {
	case 0:
		return "!(" + q + ")"
	case 1:
		return q + " && " + someQuestion(rng)
	case 2:
		return "(" + q + " || " + someQuestion(rng) + ")"
	}
	return q
}

// someSet is a set of a few rules, as YAML.
func someSet(rng *rand.Rand, name, zone string, questions []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "set: %s\nzone: %s\nsegments:\n", name, zone)
	for i, q := range questions {
		fmt.Fprintf(&b, "  - name: s%d\n    when: |\n      %s\n", i, q)
	}
	b.WriteString("  - name: rest\n    otherwise: true\n")
	return b.String()
}

// someHistory is what a user did: events around each other rather than spread out.
func someHistory(rng *rand.Rand) []schemas.Event {
	pick := func(texts ...string) []byte {
		if s := texts[rng.IntN(len(texts))]; s != "" {
			return []byte(s)
		}
		return nil
	}
	events := make([]schemas.Event, rng.IntN(25))
	at := start
	for i := range events {
		switch rng.IntN(5) {
		case 0:
			at += schemas.Millis(rng.IntN(60_000))
		case 1, 2:
			at += schemas.Millis(rng.Int64N(int64(5 * schemas.Hour)))
		case 3:
			at += schemas.Millis(rng.Int64N(int64(4 * day)))
		default:
			at += schemas.Millis(rng.Int64N(int64(25 * day)))
		}
		ev := &events[i]
		*ev = schemas.Event{
			At: at, Kind: schemas.Kind(rng.IntN(int(schemas.Kinds))), Quantity: 1_000_000 * int64(1+rng.IntN(3)),
			ProductID: pick("p1", "p2", "p3", "p11", ""), Category: pick("tv", "toys", "shoes", ""), Brand: pick("acme", "umbra", ""),
			Channel: pick("email", "ads", "seo", ""), SessionID: pick("s1", "s2", "s3", ""), CartID: pick("c1", "c2", ""),
			Timezone: pick("Europe/Berlin", "Europe/Lisbon", "Mars", "", ""),
			Birthday: pick("1990-01-17", "--02-29", "2000-02-29", "1999-02-29", "--03-01", "1985-12-31", "--12-31", "--13-31", "soon", "", "", ""),
		}
		if rng.IntN(6) == 0 { // as many as an event can say
			ev.Quantity = math.MaxInt64 / 1_000_000 * 1_000_000
		}
		switch ev.Kind {
		case schemas.Purchase, schemas.Refund:
			ev.Amount = rng.Int64N(12_000)
			if rng.IntN(3) == 0 {
				ev.Items = []byte(`[{"product_id":"p1","category":"tv"},{"product_id":"p3"}]`)
			}
		case schemas.AddToCart, schemas.RemoveFromCart:
			ev.Worth = rng.Int64N(5000)
		default:
		}
	}
	return events
}

// moments are the times at which something can change by silence, and their
// neighbours.
func moments(events []schemas.Event, text string, loc *time.Location, from schemas.Millis) []schemas.Millis {
	spans := map[schemas.Millis]bool{30 * day: true}
	for _, unit := range []struct {
		name string
		ms   schemas.Millis
	}{{"days", day}, {"hours", schemas.Hour}} {
		for _, part := range strings.Split(text, unit.name+"(")[1:] {
			var n int
			if _, err := fmt.Sscanf(part, "%d", &n); err == nil {
				spans[schemas.Millis(n)*unit.ms] = true
			}
		}
	}
	var all []schemas.Millis
	for i := range events {
		for s := range spans {
			all = append(all, events[i].At+s)
		}
		for j := range i { // what gaps come to
			all = append(all, events[i].At+events[i].At-events[j].At, events[i].At+events[i].At-events[j].At+2*schemas.Hour)
		}
	}
	t := time.UnixMilli(int64(from)).In(loc)
	for range 75 {
		t = time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, loc)
		all = append(all, schemas.Millis(t.UnixMilli()))
	}
	for i := range 3 { // anniversaries and years
		all = append(all, schemas.Millis(time.Date(2027+i, 1, 1, 0, 0, 0, 0, loc).UnixMilli()))
		for j := range events {
			y, m, d := time.UnixMilli(int64(events[j].At)).In(loc).Date()
			for k := range 2 {
				all = append(all, schemas.Millis(time.Date(y+1+i, m, d+k, 0, 0, 0, 0, loc).UnixMilli()))
				for _, born := range []time.Time{time.Date(2000, 1, 17, 0, 0, 0, 0, loc), time.Date(2000, 2, 29, 0, 0, 0, 0, loc), time.Date(2000, 3, 1, 0, 0, 0, 0, loc), time.Date(2000, 12, 31, 0, 0, 0, 0, loc)} {
					all = append(all, schemas.Millis(time.Date(2026+i, born.Month(), born.Day()+k, 0, 0, 0, 0, loc).UnixMilli()))
				}
			}
		}
	}
	for _, at := range slices.Clone(all) {
		all = append(all, at-1, at+1)
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(at schemas.Millis) bool { return at <= from })
}

// Every question, alone and with others, has the answer of the oracle at every
// moment at which it could change by silence; the due time is never later than the
// first change; and the order of events decides nothing.
func TestLanguageIsTheOracles(t *testing.T) {
	seeds := 300
	if n, err := strconv.Atoi(os.Getenv("FOOTFALL_TEST_SEEDS")); err == nil {
		seeds = n
	}
	zones := []string{"UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe"}
	for seed := range uint64(seeds / raceSlower) {
		rng := rand.New(rand.NewPCG(seed, 3))
		zone := zones[rng.IntN(len(zones))]
		var qs []string
		for range 1 + rng.IntN(4) {
			qs = append(qs, someQuestion(rng))
		}
		sets := []string{
			someSet(rng, "one", zone, qs),
			someSet(rng, "two", zone, []string{`segment("one") == "rest" && orders() >= 1`, `segment("one") in ["s0", "rest"] || ever("refund")`}),
		}
		loc := location(t, zone)
		againstOracle(t, seed, rng, sets, loc, someHistory(rng), moments)
	}
}

// filesOf are sets as files.
func filesOf(sets []string) (files []File) {
	for i, text := range sets {
		files = append(files, File{fmt.Sprintf("%d.yaml", i), []byte(text)})
	}
	return files
}

func location(t *testing.T, zone string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// againstOracle holds sets against the oracle, over what a user did, at the moments that are
// given for their text, and what an event touches against all of it.
func againstOracle(t *testing.T, seed uint64, rng *rand.Rand, sets []string, loc *time.Location, events []schemas.Event, moments func([]schemas.Event, string, *time.Location, schemas.Millis) []schemas.Millis) {
	t.Helper()
	text := strings.Join(sets, "\n")
	p, err := Compile(Options{Exponent: 2}, filesOf(sets)...)
	if err != nil {
		if strings.Contains(err.Error(), "nobody") || strings.Contains(err.Error(), "never hold") {
			return // what was drawn makes no sense
		}
		t.Fatalf("seed %d: %v\n%s", seed, err, text)
	}
	local := func(at schemas.Millis) time.Time { return time.UnixMilli(int64(at)).In(loc) }
	fail := func(format string, args ...any) {
		t.Helper()
		for i := range events {
			ev := &events[i]
			t.Logf("%s %v amount %d worth %d quantity %d: %s %s %s %s session %s cart %s %s", local(ev.At), ev.Kind, ev.Amount, ev.Worth, ev.Quantity,
				ev.ProductID, ev.Category, ev.Brand, ev.Channel, ev.SessionID, ev.CartID, ev.Items)
		}
		t.Fatalf("seed %d: %s\n%s", seed, fmt.Sprintf(format, args...), text)
	}
	// The user, row 1, has a neighbour. The clock is where the last event is.
	rows := profile.NewRows(p.Layout())
	rows.Append()
	rows.Append()
	var pr profile.Profile
	shuffled := slices.Clone(events)
	rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	clock := start
	if len(events) > 0 {
		clock = events[0].At
	}
	for i := range events {
		clock = max(clock, events[i].At)
	}
	clock -= schemas.Millis(rng.Int64N(int64(schemas.Minute))) // the last may be from the near future
	oldest := clock
	for i := range events {
		oldest = min(oldest, events[i].At)
	}
	e := p.Evaluator()
	got, touched := make([]uint16, p.Sets()), make([]uint16, p.Sets())
	e.Eval(&pr, rows.View(1), clock, touched)
	for i := range shuffled {
		pr.Fold(&shuffled[i])
		at := clock
		if rng.IntN(2) == 0 { // as if the clock had still to come there
			at = oldest
		}
		what := TouchedBy(shuffled[i].Kind, rows.Fold(1, &shuffled[i], at))
		if i == 0 { // a user who was nobody is evaluated whole
			what = Everything()
		}
		e.EvalTouched(&pr, rows.View(1), clock, what, touched)
		if e.Eval(&pr, rows.View(1), clock, got); !slices.Equal(got, touched) {
			fail("event %d: by what it touches %v, by all %v", i, touched, got)
		}
		if rng.IntN(4) == 0 {
			rows.Fold(0, &shuffled[i], at)
		}
	}
	read, now := naive.Read(sets...), clock
	oracle := func(at schemas.Millis) (in []uint16) {
		for set, name := range read.Segments(events, at) {
			in = append(in, uint16(slices.Index(p.Names()[set].Segments, name)))
		}
		return in
	}
	due := e.Eval(&pr, rows.View(1), now, got)
	if want := oracle(now); !slices.Equal(got, want) {
		fail("at %s: got %v, want %v", local(now), got, want)
	}
	before := slices.Clone(got)
	for _, at := range moments(events, text, loc, now) {
		want := oracle(at)
		for due <= at { // the worker fires every due time, one after the other
			if due <= now {
				fail("at %d: due %d, which is not later", now, due)
			}
			now = due
			due = e.Eval(&pr, rows.View(1), now, before)
		}
		if !slices.Equal(before, want) {
			fail("at %s: still in %v, want %v; the next due time is %s", local(at), before, want, local(due))
		}
		if e.Eval(&pr, rows.View(1), at, got); !slices.Equal(got, want) {
			fail("at %s: got %v, want %v", local(at), got, want)
		}
	}
}
