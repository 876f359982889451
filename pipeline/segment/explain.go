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

// Moment is a user at a moment: what an evaluation looks at.
type Moment struct {
	Profile *profile.Profile
	View    profile.View
	Now     schemas.Millis
	In      []uint16 // the segment in each set of the rules
}

// clause is one condition of a rule, compiled to be asked by itself.
type clause struct {
	source, denied string // as a person would write it, and its negation
	not            bool
	holds          condition
	kind           schemas.ValueKind
	value          number // what it looks at; nil: only whether it holds
}

// clausesOf are the conditions of a rule, in the order of writing.
func (c *compiler) clausesOf(n *node, not bool) []clause {
	switch {
	case n == nil:
		return nil
	case n.op == opAnd, n.op == opOr:
		return append(c.clausesOf(n.args[0], not), c.clausesOf(n.args[1], not)...)
	case n.op == opNot:
		return c.clausesOf(n.args[0], !not)
	}
	cl := clause{source: plain(n), denied: negated(n), not: not, holds: c.condition(n)}
	switch n.op {
	case opSinceIs:
		x := c.number(n.args[0])
		cl.kind, cl.value = schemas.SpanValue, func(fr *frame) int64 {
			if at := x(fr); at != 0 {
				return max(0, int64(fr.now)-at)
			}
			return int64(schemas.Never)
		}
	case opAtLeast:
		cl.kind, cl.value = schemas.NumberValue, counted(n)
	case opLess, opEqual:
		for i, a := range n.args {
			if _, ok := n.args[1-i].isConst(); ok && a.typ != text {
				cl.kind = map[typ]schemas.ValueKind{integer: schemas.NumberValue, money: schemas.MoneyValue, moment: schemas.MomentValue, span: schemas.SpanValue}[a.typ]
				cl.value = c.number(a)
				if a.typ == span {
					cl.value = endless(cl.value)
				}
			}
		}
	default:
	}
	return []clause{cl}
}

// endless makes a duration longer than any what evidence has for it.
func endless(span number) number {
	return func(fr *frame) int64 {
		if v := span(fr); v < forever {
			return v
		}
		return int64(schemas.Never)
	}
}

// counted is how many events are in a window, as far as the cell keeps them.
func counted(n *node) number {
	cell, win := n.cell, n.win
	return func(fr *frame) int64 {
		from, _, _ := win.bounds(fr.now)
		count := int64(0)
		for _, e := range fr.v.List(cell.number) {
			if e.A >= int64(from) {
				count++
			}
		}
		return count
	}
}

func (cl *clause) name(holds bool) string {
	if holds {
		return cl.source
	}
	return cl.denied
}

// Evidence gives the clause that made a user move in a set: the first of the new
// segment's rule that holds after and did not before; where there is none, the first
// that no longer holds of the rule of the segment that was left.
func (e *Evaluator) Evidence(before, after Moment, set int, from, to uint16) schemas.Evidence {
	for _, segment := range []uint16{to, from} {
		for i := range e.p.sets[set].rules[segment].clauses {
			cl := &e.p.sets[set].rules[segment].clauses[i]
			fr := e.begin(before.Profile, before.View, before.Now, before.In)
			was, value := cl.holds(fr), int64(0)
			if cl.value != nil {
				value = cl.value(fr)
			}
			fr = e.begin(after.Profile, after.View, after.Now, after.In)
			is := cl.holds(fr)
			if was == is {
				continue
			}
			ev := schemas.Evidence{Clause: cl.name(is), Kind: cl.kind, Was: value}
			if cl.value != nil {
				ev.Is = cl.value(fr)
			} else {
				ev.Was, ev.Is = 0, 1 // it, as it is written, did not hold, and holds
			}
			return ev
		}
	}
	return schemas.Evidence{}
}

// Clauses are the conditions that put the user into a segment of a set at a moment:
// those of its rule. Of the segment that takes everybody who is left there are none, and
// of a set that scores by quantiles there are none without an epoch.
func (e *Evaluator) Clauses(m Moment, set int, segment uint16) []Clause {
	s := &e.p.sets[set]
	when := s.rules[segment].when
	if when == nil || s.scores && e.p.epoch.Number == 0 {
		return nil
	}
	fr := e.begin(m.Profile, m.View, m.Now, m.In)
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
			c := Clause{Source: plain(n), Value: e.value(fr, n), Holds: e.truth(fr, n) != not}
			if not {
				c.Source = negated(n)
			}
			all = append(all, c)
		}
	}
	walk(when, false)
	return all
}

// Passed is a segment that a user is not in, although its rule comes before that of
// its own, and why.
type Passed struct {
	Segment, Why string
	Clause       int // of the segment's rule, as Clauses has them
}

// Passed says why a user is in none of the segments of a set before the one given: of
// each rule, the first condition that does not hold.
func (e *Evaluator) Passed(m Moment, set int, segment uint16) (passed []Passed) {
	for i := range segment {
		for at, c := range e.Clauses(m, set, i) {
			if !c.Holds {
				passed = append(passed, Passed{e.p.names[set].Segments[i], fmt.Sprintf("%s (%s)", c.Source, c.Value), at})
				break
			}
		}
	}
	return passed
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
			return plain(n.args[0]) + " was never"
		}
		return fmt.Sprintf("%s was %s, %s ago", plain(n.args[0]), momentText(x), spanText(max(0, int64(fr.now)-x)))
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
		if n.args[0].typ == text {
			return e.texts(fr, n.args[0], n.args[1])
		}
		var parts []string
		for _, a := range n.args {
			if a.op != opConst {
				parts = append(parts, plain(a)+" is "+e.shown(a, e.number(fr, a)))
			}
		}
		return strings.Join(parts, ", ")
	case opOnTheDay:
		return plain(n.args[0]) + " was " + momentText(e.number(fr, n.args[0]))
	case opBirthday:
		return birthdayText(fr.v.Text(n.cell.number))
	default:
	}
	return ""
}

// texts tells of two texts whether they are the same. A user's own is kept as a hash, so
// it is known only as far as the rule has it, too.
func (e *Evaluator) texts(fr *frame, a, b *node) string {
	if _, ok := a.isConst(); ok {
		a, b = b, a
	}
	x, y := e.number(fr, a), e.number(fr, b)
	_, literal := b.isConst()
	switch {
	case x == 0:
		return plain(a) + " is none"
	case literal && x == y:
		return plain(a) + " is " + plain(b)
	case literal:
		return plain(a) + " is another one"
	case x == y:
		return plain(a) + " and " + plain(b) + " are the same"
	}
	return plain(a) + " and " + plain(b) + " are not the same"
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
	case text, truth, integer:
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
