package segment

import (
	"bytes"
	"strings"

	"footfall/schemas"
)

// filter is a condition on an event, or a value of it: what stands within an
// aggregation, where `event` is the event that is looked at.
type filter struct {
	source string // canonical: equal sources are equal filters
	sql    string // over a row of events_once
	truth  func(*schemas.Event) bool
	text   func(*schemas.Event) []byte
	amount func(*schemas.Event) int64 // minor units of the reporting currency
	whole  func(*schemas.Event) int64 // millionths
}

// eventField is a field of `event` that a rule may ask for.
type eventField struct {
	name   string
	about  string
	column string // of events_once
	text   func(*schemas.Event) []byte
	amount func(*schemas.Event) int64
	whole  func(*schemas.Event) int64
}

func eventFields() []eventField {
	return []eventField{
		{name: "type", about: "its type, such as \"view\"", column: "type", text: func(ev *schemas.Event) []byte { return kindBytes(ev.Kind) }},
		{name: "product_id", about: "the product", column: "product_id", text: func(ev *schemas.Event) []byte { return ev.ProductID }},
		{name: "category", about: "the product's category", column: "category", text: func(ev *schemas.Event) []byte { return ev.Category }},
		{name: "brand", about: "the product's brand", column: "brand", text: func(ev *schemas.Event) []byte { return ev.Brand }},
		{name: "channel", about: "the marketing channel", column: "channel", text: func(ev *schemas.Event) []byte { return ev.Channel }},
		{name: "campaign", about: "the campaign", column: "campaign", text: func(ev *schemas.Event) []byte { return ev.Campaign }},
		{name: "url", about: "the page's address", column: "url", text: func(ev *schemas.Event) []byte { return ev.URL }},
		{name: "timezone", about: "the shopper's time zone, as sent", column: "timezone", text: func(ev *schemas.Event) []byte { return ev.Timezone }},
		{name: "session_id", about: "the session", column: "session_id", text: func(ev *schemas.Event) []byte { return ev.SessionID }},
		{name: "cart_id", about: "the cart", column: "cart_id", text: func(ev *schemas.Event) []byte { return ev.CartID }},
		{name: "order_id", about: "the order", column: "order_id", text: func(ev *schemas.Event) []byte { return ev.OrderID }},
		{name: "currency", about: "the currency it was sent in", column: "currency", text: func(ev *schemas.Event) []byte { return ev.Currency[:] }},
		{name: "amount", about: "what a purchase brought or a refund gave back, in the reporting currency; 0 for other types", column: "amount_minor", amount: func(ev *schemas.Event) int64 { return ev.Amount }},
		{name: "quantity", about: "pieces; 1 where none were sent", column: "ifNull(quantity, 1)", whole: func(ev *schemas.Event) int64 { return ev.Quantity }},
	}
}

// itemField is a field of an item of event.items.
type itemField struct {
	name string
	of   func(*schemas.Item) []byte
}

func itemFields() []itemField {
	return []itemField{
		{"product_id", func(it *schemas.Item) []byte { return it.ProductID }},
		{"category", func(it *schemas.Item) []byte { return it.Category }},
		{"brand", func(it *schemas.Item) []byte { return it.Brand }},
	}
}

func kindBytes(k schemas.Kind) []byte { return []byte(k.String()) }

// The parts that filters are made of. Each has its SQL beside it.

func textEquals(a *filter, b string) *filter {
	get, want := a.text, []byte(b)
	return &filter{
		source: a.source + " == " + quote(b), sql: a.sql + " = " + sqlText(b),
		truth: func(ev *schemas.Event) bool { return bytes.Equal(get(ev), want) },
	}
}

func textIn(a *filter, list []string) *filter {
	get := a.text
	set := make(map[string]bool, len(list))
	var sources, sqls []string
	for _, s := range list {
		set[s] = true
		sources, sqls = append(sources, quote(s)), append(sqls, sqlText(s))
	}
	return &filter{
		source: a.source + " in [" + strings.Join(sources, ", ") + "]", sql: a.sql + " IN (" + strings.Join(sqls, ", ") + ")",
		truth: func(ev *schemas.Event) bool { return set[string(get(ev))] },
	}
}

// textLike is startsWith, endsWith or contains.
func textLike(name string, a *filter, part string) *filter {
	get, want := a.text, []byte(part)
	f := &filter{source: a.source + "." + name + "(" + quote(part) + ")"}
	switch name {
	case "startsWith":
		f.sql = "startsWith(" + a.sql + ", " + sqlText(part) + ")"
		f.truth = func(ev *schemas.Event) bool { return bytes.HasPrefix(get(ev), want) }
	case "endsWith":
		f.sql = "endsWith(" + a.sql + ", " + sqlText(part) + ")"
		f.truth = func(ev *schemas.Event) bool { return bytes.HasSuffix(get(ev), want) }
	default:
		f.sql = "position(" + a.sql + ", " + sqlText(part) + ") > 0"
		f.truth = func(ev *schemas.Event) bool { return bytes.Contains(get(ev), want) }
	}
	return f
}

func filterNot(a *filter) *filter {
	is := a.truth
	return &filter{source: "!(" + a.source + ")", sql: "NOT (" + a.sql + ")", truth: func(ev *schemas.Event) bool { return !is(ev) }}
}

func filterAnd(a, b *filter) *filter {
	x, y := a.truth, b.truth
	return &filter{
		source: "(" + a.source + " && " + b.source + ")", sql: "(" + a.sql + " AND " + b.sql + ")",
		truth: func(ev *schemas.Event) bool { return x(ev) && y(ev) },
	}
}

func filterOr(a, b *filter) *filter {
	x, y := a.truth, b.truth
	return &filter{
		source: "(" + a.source + " || " + b.source + ")", sql: "(" + a.sql + " OR " + b.sql + ")",
		truth: func(ev *schemas.Event) bool { return x(ev) || y(ev) },
	}
}

// compareNumbers compares a value of the event with a constant of the same scale.
func compareNumbers(get func(*schemas.Event) int64, operator string, n int64) func(*schemas.Event) bool {
	switch operator {
	case "<":
		return func(ev *schemas.Event) bool { return get(ev) < n }
	case "<=":
		return func(ev *schemas.Event) bool { return get(ev) <= n }
	case ">":
		return func(ev *schemas.Event) bool { return get(ev) > n }
	case ">=":
		return func(ev *schemas.Event) bool { return get(ev) >= n }
	case "==":
		return func(ev *schemas.Event) bool { return get(ev) == n }
	}
	return func(ev *schemas.Event) bool { return get(ev) != n }
}

// anyItem holds when an item of the event satisfies what is asked.
func anyItem(of itemField, test func([]byte) bool, source, sql string) *filter {
	get := of.of
	return &filter{
		source: "event.items.exists(i, i." + source + ")",
		sql:    "arrayExists(i -> " + sql + ", " + itemsSQL + ")",
		truth: func(ev *schemas.Event) bool {
			found := false
			schemas.EachItem(ev.Items, func(it schemas.Item) { found = found || test(get(&it)) })
			return found
		},
	}
}

func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch r {
		case '"', '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case '\n':
			b.WriteString(`\n`)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// sqlText is a text as a ClickHouse literal.
func sqlText(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
