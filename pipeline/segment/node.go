package segment

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// typ is the type of an expression. All but texts and truths are int64s: money is
// minor units of the reporting currency, a moment Unix milliseconds (0: never), a
// span milliseconds. A text is the hash of its bytes, 0 for none.
type typ uint8

const (
	truth typ = iota
	integer
	money
	moment
	span
	text
)

func (t typ) String() string {
	return [...]string{"true or false", "a number", "an amount", "a moment", "a duration", "a text"}[t]
}

// op is what a node does.
type op uint8

const (
	opConst op = iota // n

	opAnd // of args
	opOr
	opNot
	opChoose // args[0] ? args[1] : args[2]

	opLess      // args[0] < args[1]
	opEqual     // args[0] == args[1]
	opIn        // args[0] is one of list
	opReached   // the clock has reached args[0], which must not move; 0 never
	opSinceIs   // args[0] is never, or lies at least args[1] back: since(args[0]) >= args[1]
	opIsSegment // the user is in segment list of set n
	opAtLeast   // there are at least n events in cell's window win
	opFollowed  // an event of cell is followed by one of other within n, the latter in win
	opOnTheDay  // the clock's day of the year is that of moment args[0], in zone
	opBirthday  // the clock's day of the year is that of a birthday's cell, in zone

	opAdd // args[0] + args[1]; of a moment: shifts
	opSub
	opMul
	opDiv // rounded half to even; by zero: 0

	opBase     // a field of the Profile: base
	opNumber   // a Number cell
	opWhole    // a Total, Earliest, Newest or Greatest cell
	opCount    // events of a Moments cell in win
	opSum      // sum of a Moments cell's values in win
	opDistinct // texts of a Distinct cell in win
	opTextOf   // text of a FirstOf or LastOf cell
	opTop      // most frequent text of a Tally cell
	opTopKey   // most frequent bucket of a Tally cell
	opGap      // median span between the times of a Recent cell
	opCarts    // how many carts are open
	opCart     // of the open cart changed last: cart
	opNow      // the clock; it moves
	opSince    // since(args[0]); it moves
	opBand     // how many of the bounds' conditions args hold; they rise
	opQuantile // bound n of the shop's own quantiles
)

// Fields of the Profile, for opBase.
const (
	baseFirst = iota
	baseLast
	baseFirstPurchase
	baseLastPurchase
	baseRevenue
	baseCount // + kind
)

// Values of the open cart, for opCart.
const (
	cartChanged = iota
	cartItems
	cartValue
)

// node is one part of a checked expression. Equal nodes are one node, so that what
// several rules ask is found out once.
type node struct {
	op    op
	typ   typ
	args  []*node
	n     int64  // opConst: the value; opBase, opCart: which; else see op
	cell  *cell  // what is looked at
	other *cell  // opFollowed
	win   window // opAtLeast, opCount, opSum, opDistinct, opFollowed
	list  []string
	zone  *zone

	source string // as a person would write it
	id     int    // in the order of making
	uses   int    // how many nodes and rules have it
	moves  bool   // changes with every tick of the clock
}

// isConst tells whether a node is a constant, and gives it.
func (n *node) isConst() (int64, bool) { return n.n, n.op == opConst }

// shifts tells which argument is the moment that a duration is added to or taken from; -1
// where that is not what the node does.
func (n *node) shifts() int {
	switch {
	case n.typ != moment || n.op != opAdd && n.op != opSub:
		return -1
	case n.args[0].typ == moment:
		return 0
	}
	return 1
}

// shifting tells whether a node, or one that it is made of, shifts a moment.
func (n *node) shifting() bool {
	return n.shifts() >= 0 || slices.ContainsFunc(n.args, (*node).shifting)
}

// cell is a cell in the making: what all expressions together ask of it.
type cell struct {
	profile.Cell
	source   string // as a person would write it
	filter   *filter
	valueSQL string   // of Value or Text
	windows  []window // that it is looked at through; one that is open: forever
	id       int      // in the order of making
	number   int      // in the layout
}

// key identifies a node: equal keys, equal meaning.
func (n *node) key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d %d %q %v", n.op, n.typ, n.n, n.list, n.win)
	for _, a := range n.args {
		b.WriteByte(' ')
		b.WriteString(strconv.Itoa(a.id))
	}
	for _, c := range []*cell{n.cell, n.other} {
		if c != nil {
			fmt.Fprintf(&b, " cell %d", c.id)
		}
	}
	if n.zone != nil {
		b.WriteString(" " + n.zone.name)
	}
	return b.String()
}

// graph holds the nodes and cells of all sets.
type graph struct {
	nodes []*node
	byKey map[string]*node
	cells []*cell
	byID  map[string]*cell

	quantiles []*quantile
	exponent  int // of the reporting currency
}

func newGraph(exponent int) *graph {
	return &graph{byKey: map[string]*node{}, byID: map[string]*cell{}, exponent: exponent}
}

// add gives the one node that is like n.
func (g *graph) add(n *node) *node {
	key := n.key()
	if known := g.byKey[key]; known != nil {
		return known
	}
	n.id = len(g.nodes)
	g.nodes = append(g.nodes, n)
	g.byKey[key] = n
	for _, a := range n.args {
		a.uses++
		if n.typ != truth || n.op == opChoose {
			n.moves = n.moves || a.moves
		}
	}
	if n.op == opNow || n.op == opSince {
		n.moves = true
	}
	return n
}

// cell gives the one cell that keeps what c keeps, by its Name.
func (g *graph) cell(c *cell) *cell {
	if known := g.byID[c.Name]; known != nil {
		return known
	}
	c.id = len(g.cells)
	g.cells = append(g.cells, c)
	g.byID[c.Name] = c
	return c
}

// constant has one source for what it is worth, however it was written or worked out: by
// their sources filters, cells, rules and quantiles are told apart, and of two that are worth
// the same the first in all sets is kept.
func (g *graph) constant(t typ, n int64) *node {
	source := strconv.FormatInt(n, 10)
	switch t {
	case truth:
		source = strconv.FormatBool(n != 0)
	case money:
		source = decimal(n, g.exponent)
		if g.exponent > 0 {
			source = strings.TrimRight(strings.TrimRight(source, "0"), ".")
		}
	case span:
		source = spanSource(n)
	case moment:
		source = fmt.Sprintf("timestamp(%q)", time.UnixMilli(n).UTC().Format(time.RFC3339Nano))
	default:
	}
	return g.add(&node{op: opConst, typ: t, n: n, source: source})
}

func (g *graph) yes(v bool) *node {
	if v {
		return g.constant(truth, 1)
	}
	return g.constant(truth, 0)
}

func (g *graph) not(a *node) *node {
	if v, ok := a.isConst(); ok {
		return g.yes(v == 0)
	}
	if a.op == opNot {
		return a.args[0]
	}
	return g.add(&node{op: opNot, args: []*node{a}, source: "!(" + a.source + ")"})
}

// days is a span as a person would write it.
func spanSource(ms int64) string {
	for _, u := range []struct {
		name string
		ms   schemas.Millis
	}{{"days", schemas.Day}, {"hours", schemas.Hour}, {"minutes", schemas.Minute}, {"seconds", schemas.Second}} {
		if ms%int64(u.ms) == 0 {
			return fmt.Sprintf("%s(%d)", u.name, ms/int64(u.ms))
		}
	}
	return fmt.Sprintf("duration(\"%dms\")", ms)
}
