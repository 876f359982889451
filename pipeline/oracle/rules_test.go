package oracle

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// log is an input written by hand: one partition, offsets 0, 1, 2 and so on, all
// times relative to t0.
type log struct{ records []Record }

// add appends an event; its time is its record's timestamp less late.
func (l *log) add(stamp, late int64, user, kind string, fields ...string) *log {
	offset := int64(len(l.records))
	set := append([]string{
		fmt.Sprintf(`event_id="e%d"`, offset), fmt.Sprintf("type=%q", kind), fmt.Sprintf("user_id=%q", user), fmt.Sprintf("time=%d", t0+stamp-late),
	}, fields...)
	l.records = append(l.records, Record{Topic: inputTopic, Offset: offset, Time: t0 + stamp, Key: []byte(user), Value: []byte(value(set...))})
	return l
}

func (l *log) view(stamp int64, user string, fields ...string) *log {
	return l.add(stamp, 0, user, "view", fields...)
}

// buy adds a purchase for 1.00 with an order id of its own.
func (l *log) buy(stamp int64, user string, fields ...string) *log {
	order := fmt.Sprintf(`order_id="o%d"`, len(l.records))
	return l.add(stamp, 0, user, "purchase", append([]string{order, "revenue=1"}, fields...)...)
}

// span writes a time since t0 as days and what is left in ms.
func span(ms int64) string {
	switch d, rest := ms/day, ms%day; {
	case rest == 0:
		return fmt.Sprintf("%dd", d)
	case d == 0:
		return fmt.Sprintf("%dms", rest)
	default:
		return fmt.Sprintf("%dd%+dms", d, rest)
	}
}

// brief writes transitions one a line: user seq from>to @at by cause, orders
// revenue recency, and what is expected when.
func brief(list []Transition) string {
	var b strings.Builder
	for _, t := range list {
		cause := "timer"
		if t.Cause == "event" {
			cause = fmt.Sprintf("%s %s@%d", t.CauseType, t.CauseID, t.CauseOffset)
		} else if t.Due != t.At {
			cause += " at another time"
		}
		fmt.Fprintf(&b, "%s %d %s>%s @%s by %s; %d for %d, %ds", t.User, t.Seq, t.From, t.To, span(t.At-t0), cause, t.Orders, t.RevenueMinor, t.Recency)
		if t.ExpectedAt != 0 {
			fmt.Fprintf(&b, "; %s @%s", t.ExpectedTo, span(t.ExpectedAt-t0))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestRules(t *testing.T) {
	for _, tc := range []struct {
		name string
		log  *log
		want string
	}{
		{"a first visit", new(log).view(0, "a"), `
a 1 >prospect @0d by view e0@0; 0 for 0, 0s; dormant @90d
`},
		{"a first purchase", new(log).buy(0, "a"), `
a 1 >new @0d by purchase e0@0; 1 for 100, 0s; cooling @30d
`},
		{"silence, long: dormant and then lost, each with its own at", new(log).buy(0, "a").view(200*day, "b"), `
a 1 >new @0d by purchase e0@0; 1 for 100, 0s; cooling @30d
a 2 new>cooling @30d by timer; 1 for 100, 2592000s; dormant @90d
a 3 cooling>dormant @90d by timer; 1 for 100, 7776000s; lost @180d
a 4 dormant>lost @180d by timer; 1 for 100, 15552000s
b 1 >prospect @200d by view e1@1; 0 for 0, 0s; dormant @290d
`},
		{"timers before the event that ends the silence", new(log).buy(0, "a").view(200*day, "a"), `
a 1 >new @0d by purchase e0@0; 1 for 100, 0s; cooling @30d
a 2 new>cooling @30d by timer; 1 for 100, 2592000s; dormant @90d
a 3 cooling>dormant @90d by timer; 1 for 100, 7776000s; lost @180d
a 4 dormant>lost @180d by timer; 1 for 100, 15552000s
`},
		{"and back", new(log).buy(0, "a").buy(200*day, "a"), `
a 1 >new @0d by purchase e0@0; 1 for 100, 0s; cooling @30d
a 2 new>cooling @30d by timer; 1 for 100, 2592000s; dormant @90d
a 3 cooling>dormant @90d by timer; 1 for 100, 7776000s; lost @180d
a 4 dormant>lost @180d by timer; 1 for 100, 15552000s
a 5 lost>active @200d by purchase e1@1; 2 for 200, 0s; cooling @230d
`},
		{"30 d: a millisecond before", new(log).buy(0, "a").view(30*day-1, "a"), `
a 1 >new @0d by purchase e0@0; 1 for 100, 0s; cooling @30d
`},
		{"30 d to the millisecond: the timer, then the event", new(log).buy(0, "a").view(30*day, "a"), `
a 1 >new @0d by purchase e0@0; 1 for 100, 0s; cooling @30d
a 2 new>cooling @30d by timer; 1 for 100, 2592000s; dormant @90d
`},
		{"90 d of silence are counted from the last event of any kind", new(log).buy(0, "a").view(20*day, "a").view(110*day-1, "b").view(110*day, "b"), `
a 1 >new @0d by purchase e0@0; 1 for 100, 0s; cooling @30d
b 1 >prospect @109d+86399999ms by view e2@2; 0 for 0, 0s; dormant @199d+86399999ms
a 2 new>cooling @30d by timer; 1 for 100, 864000s; dormant @110d
a 3 cooling>dormant @110d by timer; 1 for 100, 7776000s; lost @180d
`},
		{"90 d, a millisecond before", new(log).view(0, "a").view(90*day-1, "a"), `
a 1 >prospect @0d by view e0@0; 0 for 0, 0s; dormant @90d
`},
		{"90 d to the millisecond", new(log).view(0, "a").view(90*day, "a"), `
a 1 >prospect @0d by view e0@0; 0 for 0, 0s; dormant @90d
a 2 prospect>dormant @90d by timer; 0 for 0, 7776000s
a 3 dormant>prospect @90d by view e1@1; 0 for 0, 0s; dormant @180d
`},
		{"lost though still visiting", new(log).buy(0, "a").view(60*day, "a").view(120*day, "a").view(180*day-1, "a").view(180*day, "a"), `
a 1 >new @0d by purchase e0@0; 1 for 100, 0s; cooling @30d
a 2 new>cooling @30d by timer; 1 for 100, 2592000s; dormant @90d
a 3 cooling>lost @180d by timer; 1 for 100, 0s
`},
		{"new, active, cooling", new(log).buy(0, "a").buy(10*day, "a").view(50*day, "a"), `
a 1 >new @0d by purchase e0@0; 1 for 100, 0s; cooling @30d
a 2 new>active @10d by purchase e1@1; 2 for 200, 0s; cooling @40d
a 3 active>cooling @40d by timer; 2 for 200, 2592000s; dormant @100d
`},
		{"a late purchase counts, without its time", new(log).view(0, "a").add(100, 40*day, "a", "purchase", `order_id="o"`), `
a 1 >prospect @0d by view e0@0; 0 for 0, 0s; dormant @90d
a 2 prospect>cooling @100ms by purchase e1@1; 1 for 0, 0s; dormant @90d
`},
		{"a purchase very late is lost at once", new(log).view(0, "a").add(100, 180*day, "a", "purchase", `order_id="o"`), `
a 1 >prospect @0d by view e0@0; 0 for 0, 0s; dormant @90d
a 2 prospect>lost @100ms by purchase e1@1; 1 for 0, 0s
`},
		{"a late view as the first event", new(log).add(0, 90*day, "a", "view").add(0, 90*day-1, "b", "view"), `
a 1 >dormant @0d by view e0@0; 0 for 0, 7776000s
b 1 >prospect @0d by view e1@1; 0 for 0, 7775999s; dormant @1ms
`},
		{"an older purchase doesn't move the last", new(log).buy(0, "a").add(5*day, 20*day, "a", "purchase", `order_id="x"`).view(30*day, "a"), `
a 1 >new @0d by purchase e0@0; 1 for 100, 0s; cooling @30d
a 2 new>active @5d by purchase e1@1; 2 for 100, 432000s; cooling @30d
a 3 active>cooling @30d by timer; 2 for 100, 2592000s; dormant @90d
`},
		{"an event from the near future counts as now", new(log).add(0, -5*minute, "a", "view").view(90*day+5*minute-1, "b").view(90*day+5*minute, "b"), `
a 1 >prospect @0d by view e0@0; 0 for 0, 0s; dormant @90d+300000ms
b 1 >prospect @90d+299999ms by view e1@1; 0 for 0, 0s; dormant @180d+299999ms
a 2 prospect>dormant @90d+300000ms by timer; 0 for 0, 7776000s
`},
		{"the clock doesn't go back", new(log).view(100, "a").view(0, "b"), `
a 1 >prospect @100ms by view e0@0; 0 for 0, 0s; dormant @90d+100ms
b 1 >prospect @100ms by view e1@1; 0 for 0, 0s; dormant @90d
`},
		{"a refund takes money, no order", new(log).buy(0, "a").add(1000, 0, "a", "refund", `order_id="o0"`, "revenue=3").buy(2000, "a"), `
a 1 >new @0d by purchase e0@0; 1 for 100, 0s; cooling @30d
a 2 new>active @2000ms by purchase e2@2; 2 for -100, 0s; cooling @30d+2000ms
`},
		{"a refund is an interaction", new(log).add(0, 0, "a", "refund", `order_id="o"`, "price=2"), `
a 1 >prospect @0d by refund e0@0; 0 for -200, 0s; dormant @90d
`},
		{"an order once, a refund of it twice", new(log).buy(0, "a", `order_id="x"`).buy(1, "a", `order_id="x"`).
			add(2, 0, "a", "refund", `order_id="x"`, "revenue=1").add(3, 0, "a", "refund", `order_id="x"`, "revenue=1").buy(4, "a", `order_id="y"`), `
a 1 >new @0d by purchase e0@0; 1 for 100, 0s; cooling @30d
a 2 new>active @4ms by purchase e4@4; 2 for 0, 0s; cooling @30d+4ms
`},
		{"an order of another user", new(log).buy(0, "a", `order_id="x"`).buy(1, "b", `order_id="x"`), `
a 1 >new @0d by purchase e0@0; 1 for 100, 0s; cooling @30d
b 1 >new @1ms by purchase e1@1; 1 for 100, 0s; cooling @30d+1ms
`},
		{"a duplicate lets timers fire", new(log).view(0, "a").view(90*day, "b", `event_id="x"`).view(90*day, "a", `event_id="x"`), `
a 1 >prospect @0d by view e0@0; 0 for 0, 0s; dormant @90d
a 2 prospect>dormant @90d by timer; 0 for 0, 7776000s
b 1 >prospect @90d by view x@1; 0 for 0, 0s; dormant @180d
`},
		{"a refused record moves no clock", new(log).view(0, "a").view(90*day, "b", `type="x"`), `
a 1 >prospect @0d by view e0@0; 0 for 0, 0s; dormant @90d
`},
		{"recency in whole seconds, rounded down", new(log).add(1999, 0, "a", "view").add(2998, 999, "a", "purchase", `order_id="o"`), `
a 1 >prospect @1999ms by view e0@0; 0 for 0, 0s; dormant @90d+1999ms
a 2 prospect>new @2998ms by purchase e1@1; 1 for 0, 0s; cooling @30d+1999ms
`},
	} {
		got := brief(Generate(tc.log.records, options(false))[0].Transitions)
		if diff := cmp.Diff(sorted(tc.want), sorted(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

// sorted puts the lines of a chain together: order across users is free.
func sorted(text string) []string {
	byUser := map[string][]string{}
	var users []string
	for line := range strings.Lines(strings.TrimSpace(text)) {
		user, _, _ := strings.Cut(line, " ")
		if byUser[user] == nil {
			users = append(users, user)
		}
		byUser[user] = append(byUser[user], strings.TrimSpace(line))
	}
	var out []string
	for _, user := range []string{"a", "b"} {
		out = append(out, byUser[user]...)
	}
	if len(users) > 2 {
		out = append(out, "more users than expected")
	}
	return out
}

func TestDuplicates(t *testing.T) {
	orders := func(n int, again string) *log {
		l := new(log)
		for i := range n {
			l.buy(int64(i), "a", fmt.Sprintf(`order_id="n%d"`, i))
		}
		return l.buy(int64(n), "a", fmt.Sprintf("order_id=%q", again))
	}
	between := func(n int) *log {
		l := new(log).view(0, "a", `event_id="x"`)
		for range n {
			l.view(0, "b")
		}
		return l.view(0, "a", `event_id="x"`)
	}
	for _, tc := range []struct {
		name string
		log  *log
		want []int64
	}{
		{"within the hour", new(log).view(0, "a", `event_id="x"`).view(hour-1, "a", `event_id="x"`), []int64{1}},
		{"after the hour", new(log).view(0, "a", `event_id="x"`).view(hour, "a", `event_id="x"`), nil},
		{"another user's event id", new(log).view(0, "a", `event_id="x"`).view(1, "b", `event_id="x"`), []int64{1}},
		{"a repeat refreshes the window", new(log).view(0, "a", `event_id="x"`).view(hour-1, "a", `event_id="x"`).view(2*hour-2, "a", `event_id="x"`), []int64{1, 2}},
		{"until an hour after the last repeat", new(log).view(0, "a", `event_id="x"`).view(hour-1, "a", `event_id="x"`).view(2*hour-1, "a", `event_id="x"`), []int64{1}},
		{"by the greatest timestamp so far, not the record's own", new(log).view(hour, "b").view(0, "a", `event_id="x"`).view(hour+1, "a", `event_id="x"`), []int64{2}},
		{"the record's own timestamp included", new(log).view(0, "a", `event_id="x"`).view(hour, "b").view(0, "a", `event_id="x"`), nil},
		{"a refused record is not remembered", new(log).view(0, "a", `event_id="x"`, "price=-1").view(1, "a", `event_id="x"`), nil},
		{"a record from the future neither", new(log).add(0, -6*minute, "a", "view", `event_id="x"`).view(1, "a", `event_id="x"`), nil},
		{"an order's repeat is remembered by its event id", new(log).buy(0, "a", `order_id="o"`).buy(1, "a", `order_id="o"`, `event_id="x"`).view(2, "a", `event_id="x"`), []int64{1, 2}},
		{"the eighth last order", orders(8, "n0"), []int64{8}},
		{"the ninth last order", orders(9, "n0"), nil},
		{"repeats take no place among the last eight", new(log).buy(0, "a", `order_id="n0"`).buy(1, "a", `order_id="n1"`).buy(2, "a", `order_id="n1"`).
			buy(3, "a", `order_id="n2"`).buy(4, "a", `order_id="n3"`).buy(5, "a", `order_id="n4"`).buy(6, "a", `order_id="n5"`).
			buy(7, "a", `order_id="n6"`).buy(8, "a", `order_id="n7"`).buy(9, "a", `order_id="n0"`), []int64{2, 9}},
		{"three records between, with a budget of three", between(3), []int64{4}},
		{"four records between, with a budget of three", between(4), nil},
	} {
		opt := options(false)
		if strings.Contains(tc.name, "budget") {
			opt.DedupBudget = 3
		}
		got := Generate(tc.log.records, opt)[0].Duplicates
		want := map[int64]bool{}
		for _, offset := range tc.want {
			want[offset] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestSightingsForgetOnlyWhatIsOut(t *testing.T) {
	small := sightings{window: 10, budget: 1 << 20, last: map[string]sighting{}}
	for i := range int64(20_000) {
		id := fmt.Sprint(i % 7000)
		want := false // 7,000 other records lie between, 700 ms
		if i >= 7000 && i%3 == 0 {
			id = fmt.Sprint((i - 1) % 7000)
			want = true
		}
		if got := small.look(id, i/10); got != want {
			t.Fatalf("record %d: repeated %v, want %v", i, got, want)
		}
	}
	if len(small.last) > 4000 {
		t.Errorf("%d ids kept, want about a window of them", len(small.last))
	}
}

func TestWallDecidesWhatIsAhead(t *testing.T) {
	l := new(log).view(0, "a").view(10*minute, "b").view(1, "a")
	opt := options(false)
	opt.Wall = func(*Record) int64 { return t0 + 5*minute - 1 }
	e := Generate(l.records, opt)[0]
	if e.DeadLetters[1] != "future" || e.Applied != 2 || e.Clock != t0+1 {
		t.Errorf("got %+v, want record 1 refused as future", e)
	}
	opt.Wall = func(*Record) int64 { return t0 + 5*minute }
	if e := Generate(l.records, opt)[0]; len(e.DeadLetters) != 0 {
		t.Errorf("got %v, want nothing refused", e.DeadLetters)
	}
}
