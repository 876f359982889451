package segment

import (
	"slices"

	"cel.dev/cel-go/cel"
)

// function is one of the language's functions: its declaration for the type
// checker and its page in the reference.
type function struct {
	name    string
	usage   []string
	about   string
	returns *cel.Type
	takes   [][]*cel.Type // the overloads
}

// Types that CEL does not have.
var windowType = cel.OpaqueType("window") //nolint:gochecknoglobals // a type, never changed

// The shapes of aggregations. A kind is a text ("view") or a list of them; a filter a
// condition on `event`; a window a duration (sliding) or calendar(...).
func kinds() []*cel.Type   { return []*cel.Type{cel.StringType, cel.ListType(cel.StringType)} }
func windows() []*cel.Type { return []*cel.Type{cel.DurationType, windowType} }

// shapes gives every overload of an aggregation: kinds, then what comes first, then
// an optional filter and an optional window.
func shapes(windowed bool, between ...*cel.Type) (all [][]*cel.Type) {
	for _, k := range kinds() {
		base := append([]*cel.Type{k}, between...)
		for _, s := range [][]*cel.Type{base, append(slices.Clone(base), cel.BoolType)} {
			all = append(all, s)
			for _, w := range windows() {
				if windowed {
					all = append(all, append(slices.Clone(s), w))
				}
			}
		}
	}
	return all
}

// optionalWindow gives the overloads of a function with nothing but a window.
func optionalWindow() [][]*cel.Type {
	return [][]*cel.Type{{}, {cel.DurationType}, {windowType}}
}

// functions are all functions of the language, in the order of the reference.
func functions() []function {
	str, dur, at := cel.StringType, cel.DurationType, cel.TimestampType
	everything := append([][]*cel.Type{{}}, shapes(false)...)
	return []function{
		{
			"since",
			[]string{"since(last())", "since(last(\"purchase\"))"},
			"how long ago a moment is; of what never happened: longer than any duration. Compare it with a duration.",
			dur,
			[][]*cel.Type{{at}},
		},
		{
			"last",
			[]string{"last()", "last(\"purchase\")", "last([\"view\", \"search\"], event.category == \"shoes\")"},
			"when the last such event happened; without arguments: the last of any type", at, everything,
		},
		{
			"first",
			[]string{"first()", "first(\"purchase\")"},
			"when the first such event happened", at, everything,
		},
		{
			"ever",
			[]string{"ever(\"purchase\")", "ever(\"view\", event.brand == \"acme\")"},
			"whether such an event ever happened", cel.BoolType, shapes(false),
		},
		{
			"count",
			[]string{"count(\"view\")", "count(\"view\", days(7))", "count(\"view\", event.category == \"tv\", calendar(\"month\"))"},
			"how many such events happened: ever, within a sliding window, or within a calendar period", cel.IntType, shapes(true),
		},
		{
			"orders",
			[]string{"orders()", "orders(days(365))", "orders(calendar(\"year\"))"},
			"how many purchases; a refund does not lower it", cel.IntType, optionalWindow(),
		},
		{
			"revenue",
			[]string{"revenue()", "revenue(days(90))"},
			"what purchases brought less what refunds gave back, in the reporting currency", cel.DoubleType, optionalWindow(),
		},
		{
			"spend",
			[]string{"spend()", "spend(calendar(\"year\", 1))"},
			"what purchases brought; refunds are not taken off", cel.DoubleType, optionalWindow(),
		},
		{
			"average_order",
			[]string{"average_order()", "average_order(days(365))"},
			"spend by orders, rounded half to even to the minor unit; 0 without orders", cel.DoubleType, optionalWindow(),
		},
		{
			"largest_order",
			[]string{"largest_order()"},
			"the largest purchase ever", cel.DoubleType,
			[][]*cel.Type{{}},
		},
		{
			"sum",
			[]string{"sum(\"purchase\", event.amount, event.channel == \"email\", days(30))"},
			"the sum of an amount of such events", cel.DoubleType, shapes(true, cel.DoubleType),
		},
		{
			"distinct",
			[]string{"distinct(\"view\", event.product_id, days(7))"},
			"how many different texts such events had", cel.IntType, shapes(true, str),
		},
		{
			"sessions",
			[]string{"sessions()", "sessions(days(30))"},
			"how many different sessions: distinct(\"any\", event.session_id)", cel.IntType, optionalWindow(),
		},
		{
			"first_value",
			[]string{"first_value(\"any\", event.channel)"},
			"the text of the earliest such event that has one: first touch", str, shapes(false, str),
		},
		{
			"last_value",
			[]string{"last_value(\"any\", event.channel)"},
			"the text of the newest such event that has one: last touch", str, shapes(false, str),
		},
		{
			"top",
			[]string{"top(\"view\", event.category)"},
			"the most frequent text of such events; of equally frequent ones the same one always", str, shapes(false, str),
		},
		{
			"top_hour",
			[]string{"top_hour(\"any\")"},
			"the hour of the day, 0 to 23 in the set's zone, with the most such events; -1 without any", cel.IntType, shapes(false),
		},
		{
			"top_weekday",
			[]string{"top_weekday(\"purchase\")"},
			"the day of the week, 1 (Monday) to 7, with the most such events; 0 without any", cel.IntType, shapes(false),
		},
		{
			"gap",
			[]string{"since(last(\"purchase\")) >= gap(\"purchase\")"},
			"the median time between this user's last such events (up to nine); of fewer than two: longer than any duration", dur, shapes(false),
		},
		{
			"followed",
			[]string{"followed(\"view\", \"purchase\", hours(24), days(30))"},
			"whether one of the first kind was followed by one of the second within a time, and that within a window", cel.BoolType,
			[][]*cel.Type{{str, str, dur, dur}, {str, cel.BoolType, str, cel.BoolType, dur, dur}},
		},
		{"open_carts", []string{"open_carts() > 0"}, "how many carts hold something that was not bought", cel.IntType, [][]*cel.Type{{}}},
		{"cart_changed", []string{"since(cart_changed()) >= hours(4)"}, "when the open cart that changed last was changed; never without one", at, [][]*cel.Type{{}}},
		{"cart_items", []string{"cart_items() >= 3"}, "pieces in that cart", cel.IntType, [][]*cel.Type{{}}},
		{"cart_value", []string{"cart_value() >= 50.0"}, "what that cart is worth, in the reporting currency", cel.DoubleType, [][]*cel.Type{{}}},
		{"segment", []string{"segment(\"lifecycle\") == \"lost\""}, "the user's segment of another set", str, [][]*cel.Type{{str}}},
		{"anniversary", []string{"anniversary(first(\"purchase\"))"}, "whether today, in the set's zone, is a moment's day of the year, from one year on", cel.BoolType, [][]*cel.Type{{at}}},
		{"birthday", []string{"birthday()"}, "whether today, in the set's zone, is the user's birthday, as the newest event that tells one has it", cel.BoolType, [][]*cel.Type{{}}},
		{"band", []string{"band(since(last(\"purchase\")), [days(30), days(60)])", "band(orders(), [2, 5])"}, "how many of the rising bounds a value has reached: 0 for none", cel.IntType, [][]*cel.Type{
			{dur, cel.ListType(dur)}, {cel.IntType, cel.ListType(cel.IntType)}, {cel.DoubleType, cel.ListType(cel.DoubleType)},
		}},
		{"score", []string{"score(orders(), 5)", "6 - score(since(last(\"purchase\")), 5)", "score(revenue(), 5, 1.0)"}, "1 to n by the shop's own quantiles of a value, among users who have purchased; 0 for who has not. A value is above a bound when it is greater than the quantile or, with a third argument, at least the quantile plus that", cel.IntType, [][]*cel.Type{
			{dur, cel.IntType},
			{cel.IntType, cel.IntType},
			{cel.DoubleType, cel.IntType},
			{dur, cel.IntType, dur},
			{cel.IntType, cel.IntType, cel.IntType},
			{cel.DoubleType, cel.IntType, cel.DoubleType},
		}},
		{"now", []string{"now() >= timestamp(\"2026-11-27T00:00:00Z\")"}, "the clock", at, [][]*cel.Type{{}}},
		{"days", []string{"days(30)"}, "a duration of so many times 24 hours", dur, [][]*cel.Type{{cel.IntType}}},
		{"hours", []string{"hours(12)"}, "a duration", dur, [][]*cel.Type{{cel.IntType}}},
		{"minutes", []string{"minutes(15)"}, "a duration", dur, [][]*cel.Type{{cel.IntType}}},
		{"seconds", []string{"seconds(30)"}, "a duration", dur, [][]*cel.Type{{cel.IntType}}},
		{
			"calendar",
			[]string{"calendar(\"month\")", "calendar(\"year\", 1)"},
			"the day, week (from Monday), month, quarter or year that now is in, in the set's zone; with a number: so many before it",
			windowType,
			[][]*cel.Type{{str}, {str, cel.IntType}},
		},
	}
}
