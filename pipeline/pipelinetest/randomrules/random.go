// Package randomrules writes rules by chance, of all that the language has: for tests that
// hold what is made of rules against what rules mean. Not all of them make sense: some are
// refused, because nobody could reach a segment.
package randomrules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// Rules makes rules by chance.
type Rules struct {
	Scores bool // whether they score by quantiles, too

	r    *rand.Rand
	asks []asked // sets that the one under way may ask for
}

// asked is a set and how many segments it has besides the rest.
type asked struct {
	name string
	n    int
}

// New makes one.
func New(r *rand.Rand) *Rules { return &Rules{r: r} }

// Sets are sets that may ask for each other's segments, none for its own in the end.
type Sets struct {
	Names, Texts []string

	zones []string
	sizes []int // rules of each
	order []int // each may ask for those before it
	depth int
}

// Sets writes sets of one to so many rules, as YAML, each in one of the zones. Which stands
// before which does not tell which asks for which.
func (g *Rules) Sets(names, zones []string, most, depth int) *Sets {
	s := &Sets{Names: names, Texts: make([]string, len(names)), order: g.r.Perm(len(names)), depth: depth}
	for range names {
		s.zones, s.sizes = append(s.zones, g.of(zones...)), append(s.sizes, 1+g.n(most))
	}
	for i := range names {
		s.Texts[i] = g.set(s, i)
	}
	return s
}

// Rewrite is the same with one set written anew; what others ask for is still there.
func (g *Rules) Rewrite(s *Sets) *Sets {
	again := *s
	again.Texts = slices.Clone(s.Texts)
	i := g.n(len(s.Texts))
	again.Texts[i] = g.set(s, i)
	return &again
}

func (g *Rules) set(s *Sets, i int) string {
	g.asks = nil
	for _, other := range s.order[:slices.Index(s.order, i)] {
		g.asks = append(g.asks, asked{s.Names[other], s.sizes[other]})
	}
	var b strings.Builder
	fmt.Fprintf(&b, "set: %s\nzone: %s\nsegments:\n", s.Names[i], s.zones[i])
	for rule := range s.sizes[i] {
		fmt.Fprintf(&b, "  - name: s%d\n    when: |\n      %s\n", rule, g.cond(1+g.n(s.depth)))
	}
	b.WriteString("  - name: rest\n    otherwise: true\n")
	return b.String()
}

// Asking writes sets of one rule each that ask for sets by chance: in circles, too.
func (g *Rules) Asking(names []string) (texts []string) {
	for _, name := range names {
		g.asks = nil
		for _, other := range names {
			if g.n(2*len(names)) < 3 {
				g.asks = append(g.asks, asked{other, 1})
			}
		}
		rule := "orders() >= 1"
		for range g.asks {
			rule = "(" + g.of(rule+" && "+g.segment(), g.segment()+" || "+rule, rule+" ? "+g.segment()+" : ever(\"view\")") + ")"
		}
		texts = append(texts, fmt.Sprintf("set: %s\nsegments:\n  - name: s0\n    when: |\n      %s\n  - name: rest\n    otherwise: true\n", name, rule))
	}
	return texts
}

// segment asks for the segment of another set.
func (g *Rules) segment() string {
	of := g.asks[g.n(len(g.asks))]
	name := func() string {
		if i := g.n(of.n + 1); i < of.n {
			return fmt.Sprintf("\"s%d\"", i)
		}
		return `"rest"`
	}
	call := fmt.Sprintf("segment(%q)", of.name)
	switch g.n(8) {
	case 0:
		return name() + g.of(" == ", " != ") + call
	case 1, 2:
		var list []string
		for range g.n(4) {
			list = append(list, name())
		}
		return call + " in [" + strings.Join(list, ", ") + "]"
	case 3:
		return call + " != " + name()
	}
	return call + " == " + name()
}

func (g *Rules) of(s ...string) string { return s[g.r.IntN(len(s))] }
func (g *Rules) n(k int) int           { return g.r.IntN(k) }

func (g *Rules) kinds() string {
	switch g.n(4) {
	case 0:
		return `"any"`
	case 1:
		return `["view", "purchase", "refund"]`
	}
	return `"` + g.of("view", "purchase", "refund", "add_to_cart", "remove_from_cart", "search") + `"`
}

func (g *Rules) filter(d int) string {
	if d > 0 {
		switch g.n(5) {
		case 0:
			return "(" + g.filter(d-1) + " || " + g.filter(d-1) + ")"
		case 1:
			return g.filter(d-1) + " && " + g.filter(d-1)
		case 2:
			return "!(" + g.filter(d-1) + ")"
		}
	}
	return g.of(`event.category == "tv"`, `event.brand != "acme"`, `event.channel in ["email", "ads"]`, `event.quantity >= 2`, `event.quantity < 2.5`, `event.amount >= 50.0`,
		`50.0 < event.amount`, `event.amount == 0.0`, `event.product_id.contains("1")`, `event.category.endsWith("s")`, `event.items.exists(i, i.category == "tv")`, `event.session_id == ""`, `event.type != "view"`, `event.amount <= 20.0 + 30.0`)
}

func (g *Rules) span() string {
	switch g.n(6) {
	case 0:
		return fmt.Sprintf("hours(%d)", 1+g.n(72))
	case 1:
		return fmt.Sprintf("minutes(%d)", 1+g.n(100))
	case 2:
		return fmt.Sprintf("seconds(%d)", 1+g.n(100))
	}
	return fmt.Sprintf("days(%d)", 1+g.n(70))
}

func (g *Rules) win(back bool) string {
	if g.n(2) == 0 {
		return g.span()
	}
	u := g.of("day", "week", "month", "quarter", "year")
	if back && g.n(3) == 0 {
		return fmt.Sprintf("calendar(%q, %d)", u, 1+g.n(3))
	}
	return fmt.Sprintf("calendar(%q)", u)
}

// agg writes name(kinds[, value][, filter][, window]).
func (g *Rules) agg(name, value string, windowed, back bool) string {
	a := []string{g.kinds()}
	if value != "" {
		a = append(a, value)
	}
	if g.n(2) == 0 {
		a = append(a, g.filter(1))
	}
	if windowed && g.n(4) > 0 {
		a = append(a, g.win(back))
	}
	return name + "(" + strings.Join(a, ", ") + ")"
}

func (g *Rules) optwin(name string, back bool) string {
	if g.n(4) == 0 {
		return name + "()"
	}
	return name + "(" + g.win(back) + ")"
}

func (g *Rules) text() string {
	return "event." + g.of("product_id", "category", "brand", "channel", "session_id", "cart_id")
}

func (g *Rules) integer(d int) string {
	if d > 0 {
		switch g.n(7) {
		case 0:
			return "(" + g.integer(d-1) + " " + g.of("+", "-", "*", "/") + " " + g.integer(d-1) + ")"
		case 1:
			return "(" + g.cond(d-1) + " ? " + g.integer(d-1) + " : " + g.integer(d-1) + ")"
		case 2:
			switch g.n(4) {
			case 0:
				return "band(since(" + g.moment(d-1) + "), [hours(3), days(2), days(30)])"
			case 1:
				return "band(" + g.money(d-1) + ", [0.0, 50.5, 100.0])"
			case 2:
				return "band(" + g.integer(d-1) + ", [1, 2, 5])"
			}
			return "band(" + g.duration(d-1) + ", [minutes(1), hours(30), days(9)])"
		case 3:
			return "-" + g.integer(d-1)
		}
	}
	if g.Scores && g.n(6) == 0 {
		switch g.n(5) {
		case 0:
			return "score(orders(), 3)"
		case 1:
			return "score(since(" + g.moment(0) + "), 4)"
		case 2:
			return "score(" + g.money(0) + ", 3, 1.0)"
		case 3:
			return "score(" + g.agg("gap", "", false, false) + ", 3)"
		}
		return "score(" + g.agg("count", "", true, true) + ", 5)"
	}
	switch g.n(9) {
	case 0:
		return g.optwin("orders", true)
	case 1:
		return g.agg("distinct", g.text(), true, false)
	case 2:
		return g.optwin("sessions", false)
	case 3:
		return g.of("open_carts()", "cart_items()")
	case 4:
		return g.agg(g.of("top_hour", "top_weekday"), "", false, false)
	case 5:
		return strconv.Itoa(g.n(7))
	}
	return g.agg("count", "", true, true)
}

func (g *Rules) money(d int) string {
	if d > 0 {
		switch g.n(5) {
		case 0:
			return "(" + g.money(d-1) + " " + g.of("+", "-") + " " + g.money(d-1) + ")"
		case 1:
			return "(" + g.cond(d-1) + " ? " + g.money(d-1) + " : " + g.money(d-1) + ")"
		case 2:
			return "-" + g.money(d-1)
		}
	}
	switch g.n(7) {
	case 0:
		return g.agg("sum", "event.amount", true, true)
	case 1:
		return g.optwin(g.of("spend", "average_order"), true)
	case 2:
		return "largest_order()"
	case 3:
		return "cart_value()"
	case 4:
		return fmt.Sprintf("%d.%d", g.n(120), g.n(100))
	}
	return g.optwin("revenue", true)
}

func (g *Rules) moment(d int) string {
	if d > 0 {
		switch g.n(5) {
		case 0:
			return "(" + g.moment(d-1) + " " + g.of("+", "-") + " " + g.span() + ")"
		case 1:
			return "(" + g.cond(d-1) + " ? " + g.moment(d-1) + " : " + g.moment(d-1) + ")"
		}
	}
	switch g.n(5) {
	case 0:
		return "cart_changed()"
	case 1:
		return g.of("last()", "first()", `last("purchase")`, `first("purchase")`)
	}
	return g.agg(g.of("last", "first"), "", false, false)
}

func (g *Rules) duration(d int) string {
	if d > 0 {
		switch g.n(5) {
		case 0:
			return "(" + g.cond(d-1) + " ? " + g.duration(d-1) + " : " + g.duration(d-1) + ")"
		case 1:
			return "(" + g.agg("gap", "", false, false) + " + " + g.span() + ")"
		case 2:
			return "(" + g.moment(d-1) + " - " + g.moment(d-1) + ")"
		}
	}
	if g.n(3) == 0 {
		return g.agg("gap", "", false, false)
	}
	return g.span()
}

func (g *Rules) cmp() string   { return g.of("<", "<=", ">", ">=") }
func (g *Rules) equal() string { return g.of("<", "<=", ">", ">=", "==", "!=") }

func (g *Rules) cond(d int) string {
	if d > 0 {
		switch g.n(8) {
		case 0, 1:
			return "(" + g.cond(d-1) + " && " + g.cond(d-1) + ")"
		case 2, 3:
			return "(" + g.cond(d-1) + " || " + g.cond(d-1) + ")"
		case 4:
			return "!(" + g.cond(d-1) + ")"
		case 5:
			return "(" + g.cond(d-1) + " ? " + g.cond(d-1) + " : " + g.cond(d-1) + ")"
		}
	}
	d = max(0, d-1)
	if len(g.asks) > 0 && g.n(3) == 0 {
		return g.segment()
	}
	switch g.n(15) {
	case 0, 1, 2:
		return g.integer(d) + " " + g.equal() + " " + g.integer(d)
	case 3:
		return g.agg("count", "", true, true) + " " + g.equal() + " " + strconv.Itoa(g.n(4))
	case 4, 5:
		return g.money(d) + " " + g.equal() + " " + g.money(d)
	case 6, 7, 8:
		if g.n(2) == 0 {
			return g.duration(d) + " " + g.cmp() + " since(" + g.moment(d) + ")"
		}
		return "since(" + g.moment(d) + ") " + g.cmp() + " " + g.duration(d)
	case 9:
		return "now() " + g.cmp() + " " + g.moment(d)
	case 10:
		return g.moment(d) + " " + g.equal() + " " + g.moment(d)
	case 11:
		if g.n(2) == 0 {
			return fmt.Sprintf("followed(%q, %q, %s, %s)", g.of("view", "purchase", "any"), g.of("view", "purchase", "refund"), g.span(), g.span())
		}
		return fmt.Sprintf("followed(%q, %s, %q, %s, %s, %s)", g.of("view", "any"), g.filter(0), g.of("view", "purchase"), g.filter(0), g.span(), g.span())
	case 12:
		return g.of("anniversary("+g.moment(d)+")", "birthday()")
	case 13:
		return g.duration(d) + " " + g.equal() + " " + g.duration(d)
	}
	return g.agg(g.of("first_value", "last_value", "top"), "event.channel", false, false) + g.of(` == "email"`, ` != ""`, ` in ["ads", "seo"]`)
}
