package segment

import (
	"fmt"
	"slices"
	"strings"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// Description is a set as it is understood, and what it costs.
type Description struct {
	Set, About, File, Zone string
	Uses                   []string // sets that its rules name
	Apart                  bool     // its transitions are not capped
	Quiet                  Quiet
	Segments               []DescribedSegment
	Kept                   []Kept   // besides the profile that everybody has
	Bytes                  int      // of Kept, a user, lists not counted
	Scores                 []string // values by whose quantiles it scores
}

// DescribedSegment is a segment and its rule.
type DescribedSegment struct {
	Name, About string
	Rule        string // on one line; empty: everybody who is left
	Kept        []int  // of Description.Kept, what the rule looks at
	Reentry     Reentry
}

// Kept is something that is kept of every user because rules ask for it.
type Kept struct {
	Asked  []string // the questions that it answers, as a person would write them
	What   string   // in words
	Bytes  int      // of every user
	Entry  int      // bytes of an entry of its list; 0: it has none
	Most   int      // entries of a user at most
	Shared []string // other sets that ask for it too
}

// Describe describes every set.
func (p *Program) Describe() []Description {
	all := make([]Description, len(p.sets))
	asking := make([][]int, len(p.cells)) // sets, by cell
	for i := range p.sets {
		for n, c := range p.cells {
			if slices.ContainsFunc(p.sets[i].rules, func(r rule) bool { return asks(r.when, c) }) || p.quietAsks(i, c) {
				asking[n] = append(asking[n], i)
			}
		}
	}
	for i := range p.sets {
		all[i] = p.describe(i, asking)
	}
	return all
}

func (p *Program) describe(set int, asking [][]int) Description {
	s := &p.sets[set]
	d := Description{Set: s.name, About: s.about, File: s.file, Zone: s.zone.name, Apart: s.apart, Quiet: s.quiet}
	for _, u := range s.uses {
		d.Uses = append(d.Uses, p.sets[u].name)
	}
	place := map[*cell]int{}
	for n, c := range p.cells {
		if !slices.Contains(asking[n], set) {
			continue
		}
		k := c.kept()
		k.Asked = p.questions(set, c)
		if p.quietAsks(set, c) {
			k.Asked = append(k.Asked, "quiet: "+quote(s.quiet.String()))
		}
		for _, other := range asking[n] {
			if other != set {
				k.Shared = append(k.Shared, p.sets[other].name)
			}
		}
		place[c] = len(d.Kept)
		d.Kept = append(d.Kept, k)
		d.Bytes += k.Bytes
	}
	for i, r := range s.rules {
		seg := DescribedSegment{Name: p.names[set].Segments[i], About: s.abouts[i], Rule: p.Rule(set, uint16(i)), Reentry: r.reentry}
		for _, c := range p.cells {
			if n, ok := place[c]; ok && asks(r.when, c) {
				seg.Kept = append(seg.Kept, n)
			}
		}
		d.Segments = append(d.Segments, seg)
	}
	for _, q := range p.quantiles {
		if slices.ContainsFunc(s.rules, func(r rule) bool { return scoresBy(r.when, q) }) {
			d.Scores = append(d.Scores, q.source)
		}
	}
	return d
}

// quietAsks tells whether a set's quiet hours look at a cell.
func (p *Program) quietAsks(set int, c *cell) bool {
	return !p.sets[set].quiet.None() && (asks(p.contact.hours, c) || asks(p.contact.told, c))
}

// asks tells whether a node looks at a cell.
func asks(n *node, c *cell) bool {
	return n != nil && (n.cell == c || n.other == c || slices.ContainsFunc(n.args, func(a *node) bool { return asks(a, c) }))
}

// scoresBy tells whether a node looks at a bound of a quantile.
func scoresBy(n *node, q *quantile) bool {
	if n == nil {
		return false
	}
	bound := n.op == opQuantile && n.n >= int64(q.first) && n.n < int64(q.first+q.n-1)
	return bound || slices.ContainsFunc(n.args, func(a *node) bool { return scoresBy(a, q) })
}

// questions are what a set asks of a cell.
func (p *Program) questions(set int, c *cell) (all []string) {
	var walk func(n *node)
	walk = func(n *node) {
		if n == nil {
			return
		}
		if q := plain(n); (n.cell == c || n.other == c) && !slices.Contains(all, q) {
			all = append(all, q)
		}
		for _, a := range n.args {
			walk(a)
		}
	}
	for _, r := range p.sets[set].rules {
		walk(r.when)
	}
	return all
}

// kept says in words what a cell keeps.
func (c *cell) kept() Kept {
	k := Kept{Bytes: 4 * c.Keeps.Words()}
	span := ""
	if c.Keep < profile.Forever {
		span = " of the last " + shortSpan(c.Keep)
	}
	list := func(what string, entry, most int) {
		k.What, k.Entry, k.Most = what, entry, most
	}
	switch c.Keeps {
	case profile.Number:
		k.What = "how many"
	case profile.Total:
		k.What = "a sum"
	case profile.Earliest, profile.Newest:
		k.What = "a time"
	case profile.Greatest:
		k.What = "the greatest amount"
	case profile.FirstOf, profile.LastOf:
		k.What = "a text, as its hash, and its time"
	case profile.Recent:
		list(fmt.Sprintf("the last %d times", c.K), entryBytes, c.K)
	case profile.Moments:
		list("each moment"+span+" with what happened in it", entryBytes, c.most(profile.MomentsMax))
	case profile.Distinct:
		list("each different text"+span, entryBytes, c.most(profile.DistinctMax))
	case profile.Tally:
		list("each different text or hour, and how often", entryBytes, c.most(profile.TallyMax))
	case profile.Carts:
		list("lines of carts and orders"+span, 3*entryBytes, profile.CartLinesMax)
	}
	return k
}

// entryBytes is what an entry of a list takes; lists have room for a power of two.
const entryBytes = 16

func (c *cell) most(limit int) int {
	if c.K > 0 {
		return min(c.K, limit)
	}
	return limit
}

// shortSpan writes a span in its greatest unit.
func shortSpan(ms schemas.Millis) string {
	for _, u := range []struct {
		name string
		ms   schemas.Millis
	}{{"days", schemas.Day}, {"hours", schemas.Hour}, {"minutes", schemas.Minute}} {
		if ms >= u.ms {
			return fmt.Sprintf("%d %s", ms/u.ms, u.name)
		}
	}
	return fmt.Sprintf("%d seconds", ms/schemas.Second)
}

// Rule is the rule of a segment as it is understood, on one line; empty for the one
// that takes everybody who is left.
func (p *Program) Rule(set int, segment uint16) string {
	return plain(p.sets[set].rules[segment].when)
}

// plain writes a node as a person would: without the negations and the brackets that
// its source has for the machine's sake.
func plain(n *node) string {
	switch {
	case n == nil:
		return ""
	case slices.Contains([]op{opChoose, opAdd, opSub, opMul, opDiv}, n.op) && !strings.HasPrefix(n.source, "("):
		return n.source // a function that is made of others, such as score(...)
	case n.op == opAnd:
		return bracketed(n.args[0], opOr, opChoose) + " && " + bracketed(n.args[1], opOr, opChoose)
	case n.op == opOr:
		if x, values := among(n); len(values) > 1 {
			return operand(x) + " in [" + strings.Join(values, ", ") + "]"
		}
		return bracketed(n.args[0], opAnd, opChoose) + " || " + bracketed(n.args[1], opAnd, opChoose)
	case n.op == opChoose:
		return bracketed(n.args[0], opChoose) + " ? " + bracketed(n.args[1], opChoose) + " : " + bracketed(n.args[2], opChoose)
	case n.op == opLess:
		return compared(n, " < ", " > ")
	case n.op == opEqual:
		return compared(n, " == ", " == ")
	case n.op == opSinceIs:
		return lapsed(n, " >= ", " > ")
	case n.op == opNot:
		return negated(n.args[0])
	case n.op == opAdd, n.op == opSub, n.op == opMul, n.op == opDiv:
		sign := map[op]string{opAdd: " + ", opSub: " - ", opMul: " * ", opDiv: " / "}[n.op]
		return operand(n.args[0]) + sign + operand(n.args[1])
	case n.op == opSince:
		return "since(" + plain(n.args[0]) + ")"
	}
	return n.source
}

// among gives the values one of which a node wants something to be, where it is no more
// than that.
func among(n *node) (x *node, values []string) {
	switch n.op {
	case opEqual:
		for i, a := range n.args {
			if _, ok := a.isConst(); ok {
				return n.args[1-i], []string{a.source}
			}
		}
	case opOr:
		x, values = among(n.args[0])
		y, more := among(n.args[1])
		if x != nil && x == y {
			return x, append(values, more...)
		}
	default:
	}
	return nil, nil
}

func negated(n *node) string {
	switch n.op {
	case opLess:
		return compared(n, " >= ", " <= ")
	case opEqual:
		return compared(n, " != ", " != ")
	case opSinceIs:
		return lapsed(n, " < ", " <= ")
	case opNot:
		return plain(n.args[0])
	case opReached, opAtLeast:
		return denied(n)
	case opIsSegment:
		if len(n.list) == 1 {
			return strings.Replace(n.source, " == ", " != ", 1)
		}
	default:
	}
	return "!(" + plain(n) + ")"
}

// lapsed writes a comparison of a since(...). More than a day is, to the machine, at
// least a day and a millisecond.
func lapsed(n *node, sign, beyond string) string {
	since := "since(" + plain(n.args[0]) + ")"
	if d, ok := n.args[1].isConst(); ok && d%int64(schemas.Second) == 1 {
		return since + beyond + spanSource(d-1)
	}
	return since + sign + operand(n.args[1])
}

// compared writes a comparison, what moves on the left.
func compared(n *node, sign, mirrored string) string {
	if _, ok := n.args[0].isConst(); ok {
		return operand(n.args[1]) + mirrored + operand(n.args[0])
	}
	return operand(n.args[0]) + sign + operand(n.args[1])
}

// operand brackets what binds less than a comparison or a sum.
func operand(n *node) string {
	return bracketed(n, opAnd, opOr, opChoose, opAdd, opSub, opMul, opDiv)
}

func bracketed(n *node, ops ...op) string {
	s := plain(n)
	if _, values := among(n); s == n.source && !strings.HasPrefix(s, "(") || len(values) > 1 || !slices.Contains(ops, n.op) {
		return s
	}
	return "(" + s + ")"
}
