package segment

import (
	"fmt"
	"strings"
	"time"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// Clause is one condition of a rule, with the value that it looked at.
type Clause struct {
	Source string // as the rule has it, or as a person would write it
	Value  string // what it compares, in words
	Holds  bool
}

// Clauses are the conditions that put the user into a segment of a set at a moment:
// those of its rule. Of the segment that takes everybody who is left there are none.
func (e *Evaluator) Clauses(pr *profile.Profile, v profile.View, now schemas.Millis, set int, segment uint16, in []uint16) []Clause {
	when := e.p.sets[set].rules[segment].when
	if when == nil {
		return nil
	}
	fr := e.begin(pr, v, now, in)
	var all []Clause
	var walk func(n *node, not bool)
	walk = func(n *node, not bool) {
		switch n.op {
		case opAnd, opOr:
			for _, a := range n.args {
				walk(a, not)
			}
		case opNot:
			walk(n.args[0], !not)
		default:
			c := Clause{Source: n.source, Value: e.value(fr, n), Holds: e.truth(fr, n) != not}
			if not {
				c.Source = denied(n)
			}
			all = append(all, c)
		}
	}
	walk(when, false)
	return all
}

// denied writes the negation of a condition.
func denied(n *node) string {
	for _, pair := range [][2]string{{" >= ", " < "}, {" < ", " >= "}, {" == ", " != "}} {
		if (n.op == opLess || n.op == opSinceIs || n.op == opReached || n.op == opAtLeast || n.op == opEqual) && strings.Count(n.source, pair[0]) == 1 {
			return strings.Replace(n.source, pair[0], pair[1], 1)
		}
	}
	return "!(" + n.source + ")"
}

// Explaining compiles what it needs anew: it is asked for by people, now and then.

func (e *Evaluator) truth(fr *frame, n *node) bool {
	c := &compiler{numbers: map[*node]number{}, conditions: map[*node]condition{}}
	return c.condition(n)(fr)
}

func (e *Evaluator) number(fr *frame, n *node) int64 {
	c := &compiler{numbers: map[*node]number{}, conditions: map[*node]condition{}}
	return c.number(n)(fr)
}

// value tells what a condition looks at.
func (e *Evaluator) value(fr *frame, n *node) string {
	switch n.op {
	case opSinceIs:
		x := e.number(fr, n.args[0])
		if x == 0 {
			return n.args[0].source + " was never"
		}
		return fmt.Sprintf("%s was %s, %s ago", n.args[0].source, momentText(x), spanText(max(0, int64(fr.now)-x)))
	case opReached:
		return "now is " + momentText(int64(fr.now))
	case opIsSegment:
		names := fr.programs.names[n.n]
		return fmt.Sprintf("%s is %s", names.Name, names.Segments[fr.in[n.n]])
	case opAtLeast:
		list := fr.v.List(n.cell.number)
		from, _, _ := n.win.bounds(fr.now)
		count := 0
		for _, entry := range list {
			if entry.A >= int64(from) {
				count++
			}
		}
		more := ""
		if count >= n.cell.K {
			more = " or more"
		}
		return fmt.Sprintf("%d%s", count, more)
	case opLess, opEqual:
		var parts []string
		for _, a := range n.args {
			if a.op != opConst {
				parts = append(parts, a.source+" is "+e.shown(a, e.number(fr, a)))
			}
		}
		return strings.Join(parts, ", ")
	case opOnTheDay:
		return n.args[0].source + " was " + momentText(e.number(fr, n.args[0]))
	}
	return ""
}

// shown writes a value of a node.
func (e *Evaluator) shown(n *node, v int64) string {
	switch n.typ {
	case money:
		return decimal(v, e.p.exponent)
	case moment:
		return momentText(v)
	case span:
		if v >= forever {
			return "for ever"
		}
		return spanText(v)
	case text:
		if v == 0 {
			return "none"
		}
		return fmt.Sprintf("#%016x", uint64(v))
	}
	return fmt.Sprint(v)
}

func decimal(v int64, exponent int) string {
	sign := ""
	if v < 0 {
		sign = "-"
	}
	s := fmt.Sprintf("%0*d", exponent+1, absolute(v))
	if exponent == 0 {
		return sign + s
	}
	return sign + s[:len(s)-exponent] + "." + s[len(s)-exponent:]
}

func momentText(v int64) string {
	if v == 0 {
		return "never"
	}
	return time.UnixMilli(v).UTC().Format("2006-01-02 15:04:05")
}

// spanText writes a time in its two greatest units.
func spanText(ms int64) string {
	switch {
	case ms >= int64(schemas.Day):
		return fmt.Sprintf("%dd %dh", ms/int64(schemas.Day), ms%int64(schemas.Day)/int64(schemas.Hour))
	case ms >= int64(schemas.Hour):
		return fmt.Sprintf("%dh %dm", ms/int64(schemas.Hour), ms%int64(schemas.Hour)/int64(schemas.Minute))
	}
	return fmt.Sprintf("%dm %ds", ms/int64(schemas.Minute), ms%int64(schemas.Minute)/int64(schemas.Second))
}

// Rule is the rule of a segment as it is understood, on one line; empty for the one
// that takes everybody who is left.
func (p *Program) Rule(set int, segment uint16) string {
	if when := p.sets[set].rules[segment].when; when != nil {
		return when.source
	}
	return ""
}
