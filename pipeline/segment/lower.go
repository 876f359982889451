package segment

import (
	"fmt"
	"math"
	"time"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"footfall/schemas"
)

// lowerer turns checked expressions of one set into nodes.
type lowerer struct {
	g        *graph
	ast      *ast.AST // of the expression under way
	zone     *zone    // of the set
	exponent int      // of the reporting currency
	defined  map[string]*node
	sets     func(name string) (index int, segments []string) // -1: there is no such set
	setNames []string
}

func (l *lowerer) fault(e ast.Expr, format string, args ...any) error {
	return inside(l.ast, e, format, args...)
}

// rule lowers a condition.
func (l *lowerer) rule(a *ast.AST) (*node, error) {
	l.ast = a
	n, err := l.expr(a.Expr())
	switch {
	case err != nil:
		return nil, err
	case n.typ != truth:
		return nil, l.fault(a.Expr(), "a rule is a condition, and this is %v", n.typ)
	}
	return n, nil
}

// definition lowers an expression that others may name.
func (l *lowerer) definition(a *ast.AST) (*node, error) {
	l.ast = a
	return l.expr(a.Expr())
}

// expr lowers an expression, unless it stands for far more than itself: twenty
// definitions that each name the one before twice stand for a million of the first.
func (l *lowerer) expr(e ast.Expr) (*node, error) {
	n, err := l.lower(e)
	if err != nil {
		return nil, err
	}
	return n, l.fits(e, n)
}

func (l *lowerer) fits(e ast.Expr, n *node) error {
	if len(n.source) > sourceMax {
		return l.fault(e, "with its definitions written out it has more than %d characters", sourceMax)
	}
	return nil
}

func (l *lowerer) lower(e ast.Expr) (*node, error) {
	switch e.Kind() {
	case ast.LiteralKind:
		return l.literal(e)
	case ast.IdentKind:
		if n := l.defined[e.AsIdent()]; n != nil {
			return n, nil
		}
		return nil, l.fault(e, "%s", outsideEvent)
	case ast.CallKind:
		return l.call(e)
	case ast.SelectKind:
		return nil, l.fault(e, "%s", outsideEvent)
	default:
	}
	return nil, l.fault(e, "this is not something a rule can ask; see the reference")
}

const outsideEvent = "event is the event that an aggregation looks at; use it within one, as in count(\"view\", event.category == \"shoes\")"

func (l *lowerer) literal(e ast.Expr) (*node, error) {
	switch v := e.AsLiteral().(type) {
	case types.Bool:
		return l.g.yes(bool(v)), nil
	case types.Int:
		return l.g.constant(integer, int64(v)), nil
	case types.Double:
		n, err := l.minor(e, float64(v))
		if err != nil {
			return nil, err
		}
		return l.g.constant(money, n), nil
	case types.String:
		return l.textConst(string(v)), nil
	}
	return nil, l.fault(e, "a %s can't stand in a rule", e.AsLiteral().Type().TypeName())
}

// minor is an amount in minor units.
func (l *lowerer) minor(e ast.Expr, v float64) (int64, error) {
	scaled := v * math.Pow10(l.exponent)
	n := math.RoundToEven(scaled)
	if math.Abs(n-scaled) > 1e-15*math.Abs(scaled) || math.Abs(n) > 1<<52 { // what a float of v may be off, and no more
		return 0, l.fault(e, "%v is not an amount of the reporting currency, which has %d decimals", v, l.exponent)
	}
	return int64(n), nil
}

func (l *lowerer) call(e ast.Expr) (*node, error) {
	call := e.AsCall()
	switch name := call.FunctionName(); name {
	case operators.LogicalAnd, operators.LogicalOr:
		return l.logic(name, call.Args())
	case operators.LogicalNot:
		a, err := l.expr(call.Args()[0])
		if err != nil {
			return nil, err
		}
		return l.g.not(a), nil
	case operators.Conditional:
		return l.choose(e)
	case operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals, operators.Equals, operators.NotEquals:
		return l.comparison(e)
	case operators.In:
		return l.in(e)
	case operators.Add, operators.Subtract, operators.Multiply, operators.Divide:
		return l.arithmetic(e)
	case operators.Negate:
		a, err := l.expr(call.Args()[0])
		if err != nil {
			return nil, err
		}
		return l.binary(e, opSub, l.g.constant(a.typ, 0), a)
	default:
		return l.function(e)
	}
}

func (l *lowerer) args(exprs []ast.Expr) ([]*node, error) {
	all := make([]*node, len(exprs))
	for i, e := range exprs {
		n, err := l.expr(e)
		if err != nil {
			return nil, err
		}
		all[i] = n
	}
	return all, nil
}

// logic folds constants away, and flattens nothing: short circuits are in the order
// of writing.
func (l *lowerer) logic(name string, exprs []ast.Expr) (*node, error) {
	args, err := l.args(exprs)
	if err != nil {
		return nil, err
	}
	return l.g.logic(name == operators.LogicalAnd, args[0], args[1]), nil
}

func (g *graph) logic(and bool, a, b *node) *node {
	for _, pair := range [][2]*node{{a, b}, {b, a}} {
		if v, ok := pair[0].isConst(); ok {
			if (v != 0) == and {
				return pair[1]
			}
			return pair[0]
		}
	}
	o, sign := opOr, " || "
	if and {
		o, sign = opAnd, " && "
	}
	return g.add(&node{op: o, args: []*node{a, b}, source: "(" + a.source + sign + b.source + ")"})
}

func (l *lowerer) choose(e ast.Expr) (*node, error) {
	args, err := l.args(e.AsCall().Args())
	if err != nil {
		return nil, err
	}
	if args[1].moves || args[2].moves {
		return nil, l.fault(e, "both sides of ?: must stand still; compare since(...) within them")
	}
	if args[1].typ != args[2].typ {
		return nil, l.fault(e, "both sides of ?: must be of one kind: got %v and %v", args[1].typ, args[2].typ)
	}
	return l.g.add(&node{op: opChoose, typ: args[1].typ, args: args, source: fmt.Sprintf("(%s ? %s : %s)", args[0].source, args[1].source, args[2].source)}), nil
}

// alike makes whole numbers amounts where they stand beside one.
func (l *lowerer) alike(e ast.Expr, a, b *node) (*node, *node, error) {
	lift := func(n *node) *node {
		if v, ok := n.isConst(); ok && n.typ == integer && v < 1<<40 && v > -1<<40 {
			for range l.exponent {
				v *= 10
			}
			return l.g.constant(money, v)
		}
		return n
	}
	if a.typ == money {
		b = lift(b)
	}
	if b.typ == money {
		a = lift(a)
	}
	if a.typ != b.typ {
		return nil, nil, l.fault(e, "%s is %v and %s is %v: they can't be compared or added", a.source, a.typ, b.source, b.typ)
	}
	return a, b, nil
}

func (l *lowerer) comparison(e ast.Expr) (*node, error) {
	call := e.AsCall()
	name := call.FunctionName()
	if n, err := l.isSegment(e, call.Args(), name == operators.NotEquals); n != nil || err != nil {
		return n, err
	}
	args, err := l.args(call.Args())
	if err != nil {
		return nil, err
	}
	a, b, err := l.alike(e, args[0], args[1])
	if err != nil {
		return nil, err
	}
	if ordered := name != operators.Equals && name != operators.NotEquals; ordered && (a.typ == text || a.typ == truth) {
		return nil, l.fault(e, "%v is compared by ==, != and in", a.typ)
	}
	switch name {
	case operators.Greater:
		return l.less(e, b, a)
	case operators.LessEquals:
		n, err := l.less(e, b, a)
		return l.negated(n, err)
	case operators.GreaterEquals:
		n, err := l.less(e, a, b)
		return l.negated(n, err)
	case operators.Less:
		return l.less(e, a, b)
	}
	n, err := l.equal(e, a, b)
	if name == operators.NotEquals {
		return l.negated(n, err)
	}
	return n, err
}

func (l *lowerer) negated(n *node, err error) (*node, error) {
	if err != nil {
		return nil, err
	}
	return l.g.not(n), nil
}

// less makes a < b. What moves with the clock becomes a question of whether it has
// reached a moment, which has an answer until when it holds.
func (l *lowerer) less(e ast.Expr, a, b *node) (*node, error) {
	switch {
	case a.moves && b.moves:
		return nil, l.fault(e, "both sides move with the clock; compare moments instead, as in last(\"view\") < last(\"purchase\")")
	case a.moves: // since(x) < d: not yet reached d
		n, err := l.reaches(e, a, b, 0)
		return l.negated(n, err)
	case b.moves: // d < since(x): reached d and a millisecond
		return l.reaches(e, b, a, 1)
	}
	if n := l.g.countLess(a, b); n != nil {
		return n, nil
	}
	return l.g.less(a, b), nil
}

func (g *graph) less(a, b *node) *node {
	x, xOK := a.isConst()
	if y, ok := b.isConst(); ok && xOK {
		return g.yes(x < y)
	}
	return g.add(&node{op: opLess, args: []*node{a, b}, source: a.source + " < " + b.source})
}

// reaches makes moving >= still + more.
func (l *lowerer) reaches(e ast.Expr, moving, still *node, more int64) (*node, error) {
	if more != 0 {
		still = l.g.sum(still, l.g.constant(still.typ, more))
	}
	switch moving.op {
	case opNow:
		return l.g.add(&node{op: opReached, args: []*node{still}, source: "now() >= " + still.source}), nil
	case opSince:
		x := moving.args[0]
		return l.g.add(&node{op: opSinceIs, args: []*node{x, still}, source: "since(" + x.source + ") >= " + still.source}), nil
	default:
	}
	return nil, l.fault(e, "%s moves with the clock in a way that gives no moment at which this changes; compare since(...) or now() itself", moving.source)
}

func (l *lowerer) equal(e ast.Expr, a, b *node) (*node, error) {
	if a.moves || b.moves {
		return nil, l.fault(e, "what moves with the clock equals something for an instant only; use >= or <")
	}
	if a.typ == truth {
		return l.g.logic(false, l.g.logic(true, a, b), l.g.logic(true, l.g.not(a), l.g.not(b))), nil
	}
	x, xOK := a.isConst()
	y, yOK := b.isConst()
	switch {
	case xOK && yOK:
		return l.g.yes(x == y), nil
	case a.op == opCount && yOK, b.op == opCount && xOK:
		less, more := l.g.countLess(a, b), l.g.countLess(b, a)
		if less != nil && more != nil {
			return l.g.logic(true, l.g.not(less), l.g.not(more)), nil
		}
	}
	return l.g.add(&node{op: opEqual, args: []*node{a, b}, source: a.source + " == " + b.source}), nil
}

// atLeastMost is how many event times a user's Recent cell may keep: a count in a
// window that is compared with more keeps all of them instead.
const atLeastMost = 64

// countLess makes a < b where one is a count in a window and the other a constant:
// that many of the last event times are all that has to be kept.
func (g *graph) countLess(a, b *node) *node {
	if n, ok := a.isConst(); ok && b.op == opCount { // n < count
		return g.atLeast(b, n+1)
	}
	if n, ok := b.isConst(); ok && a.op == opCount { // count < n
		if m := g.atLeast(a, n); m != nil {
			return g.not(m)
		}
	}
	return nil
}

func (g *graph) atLeast(count *node, n int64) *node {
	switch {
	case n <= 0:
		return g.yes(true)
	case n > atLeastMost || count.win.back > 0:
		return nil // one of a period past is not among the last ones
	}
	return g.add(&node{
		op: opAtLeast, n: n, cell: g.recent(count.cell), win: count.win,
		source: fmt.Sprintf("%s >= %d", count.source, n),
	})
}

func (l *lowerer) in(e ast.Expr) (*node, error) {
	args := e.AsCall().Args()
	if args[1].Kind() != ast.ListKind {
		return nil, l.fault(args[1], "want a list of constants, as in [\"a\", \"b\"]")
	}
	elements := args[1].AsList().Elements()
	if set := l.segmentOf(args[0]); set != nil {
		names, err := l.texts(args[1])
		if err != nil {
			return nil, err
		}
		return l.inSegments(e, set, names)
	}
	a, err := l.expr(args[0])
	if err != nil {
		return nil, err
	}
	var either *node
	for _, el := range elements {
		b, err := l.expr(el)
		if err != nil {
			return nil, err
		}
		if _, ok := b.isConst(); !ok {
			return nil, l.fault(el, "want constants in a list")
		}
		x, y, err := l.alike(el, a, b)
		if err != nil {
			return nil, err
		}
		one, err := l.equal(el, x, y)
		if err != nil {
			return nil, err
		}
		if either == nil {
			either = one
		} else {
			either = l.g.logic(false, either, one)
		}
		if err := l.fits(el, either); err != nil {
			return nil, err
		}
	}
	if either == nil {
		return l.g.yes(false), nil
	}
	return either, nil
}

func (l *lowerer) arithmetic(e ast.Expr) (*node, error) {
	call := e.AsCall()
	args, err := l.args(call.Args())
	if err != nil {
		return nil, err
	}
	a, b := args[0], args[1]
	o := map[string]op{operators.Add: opAdd, operators.Subtract: opSub, operators.Multiply: opMul, operators.Divide: opDiv}[call.FunctionName()]
	if o == opSub && a.op == opNow && b.typ == moment {
		return l.since(b), nil
	}
	return l.binary(e, o, a, b)
}

// binary makes an arithmetic node. The types are as the checker allows them; a
// division or multiplication of amounts by amounts has no meaning here.
func (l *lowerer) binary(e ast.Expr, o op, a, b *node) (*node, error) {
	if a.moves || b.moves {
		return nil, l.fault(e, "since(...) and now() move with the clock and can only be compared; add to the other side, as in since(x) >= days(3) + gap(\"purchase\")")
	}
	t := a.typ
	switch {
	case (o == opMul || o == opDiv) && (a.typ != integer || b.typ != integer):
		return nil, l.fault(e, "only whole numbers are multiplied or divided; for an average there is average_order()")
	case a.typ == moment && b.typ == moment && o == opSub:
		t = span
	case a.typ == span && b.typ == moment:
		t = moment
	case a.typ == text || a.typ == truth:
		return nil, l.fault(e, "%v can't be added", a.typ)
	}
	x, xOK := a.isConst()
	y, yOK := b.isConst()
	if xOK && yOK {
		return l.g.constant(t, compute(o, x, y)), nil
	}
	sign := map[op]string{opAdd: " + ", opSub: " - ", opMul: " * ", opDiv: " / "}[o]
	return l.g.add(&node{op: o, typ: t, args: []*node{a, b}, source: "(" + a.source + sign + b.source + ")"}), nil
}

// sum is a + b for spans and moments.
func (g *graph) sum(a, b *node) *node {
	x, xOK := a.isConst()
	if y, ok := b.isConst(); ok && xOK {
		return g.constant(a.typ, x+y)
	}
	return g.add(&node{op: opAdd, typ: a.typ, args: []*node{a, b}, source: "(" + a.source + " + " + b.source + ")"})
}

// shifted is compute where a, with at 0, or b, with 1, is a moment: never stays never.
func shifted(o op, a, b int64, at int) int64 {
	if at == 0 && a == 0 || at == 1 && b == 0 {
		return 0
	}
	return compute(o, a, b)
}

// compute is what an arithmetic node does, saturating.
func compute(o op, a, b int64) int64 {
	switch o {
	case opAdd:
		if c := a + b; (c > a) == (b > 0) {
			return c
		}
		return saturated(b > 0)
	case opSub:
		if c := a - b; (c < a) == (b > 0) {
			return c
		}
		return saturated(b < 0)
	case opMul:
		if a == 0 || b == 0 {
			return 0
		}
		if c := a * b; c/b == a && (a != -1 || b != math.MinInt64) && (b != -1 || a != math.MinInt64) {
			return c
		}
		return saturated((a > 0) == (b > 0))
	case opDiv:
		return divide(a, b)
	default:
	}
	panic(fmt.Sprintf("segment: no arithmetic: %d", o))
}

func saturated(high bool) int64 {
	if high {
		return math.MaxInt64
	}
	return math.MinInt64
}

// divide rounds half to even; by zero it gives 0.
func divide(a, b int64) int64 {
	if b == 0 || a == math.MinInt64 && b == -1 {
		return 0
	}
	q, r := a/b, a%b
	twice := absolute(r)
	switch half := absolute(b) - twice; {
	case twice > half, twice == half && q%2 != 0:
		if (a < 0) == (b < 0) {
			return q + 1
		}
		return q - 1
	}
	return q
}

func absolute(v int64) uint64 {
	if v < 0 {
		return uint64(-v)
	}
	return uint64(v)
}

// spanConst is the duration of a literal call such as days(30) or duration("1h").
func (l *lowerer) spanConst(e ast.Expr, unit schemas.Millis) (*node, error) {
	n, err := l.expr(e.AsCall().Args()[0])
	if err != nil {
		return nil, err
	}
	v, ok := n.isConst()
	switch {
	case !ok:
		return nil, l.fault(e, "want a constant number")
	case v < 0 || v > 200*365*int64(schemas.Day)/int64(unit):
		return nil, l.fault(e, "%d: want 0 or more, and less than 200 years", v)
	}
	ms := v * int64(unit)
	return l.g.constant(span, ms), nil
}

// standardTime lowers CEL's own duration("...") and timestamp("...").
func (l *lowerer) standardTime(e ast.Expr) (*node, error) {
	call := e.AsCall()
	arg := call.Args()[0]
	s, ok := arg.AsLiteral().(types.String)
	if arg.Kind() != ast.LiteralKind || !ok {
		return nil, l.fault(e, "want a constant text")
	}
	if call.FunctionName() == "duration" {
		d, err := time.ParseDuration(string(s))
		if err != nil || d < 0 || d%time.Millisecond != 0 {
			return nil, l.fault(arg, "%q is not a duration of whole milliseconds; write days(30), hours(12), or \"1h30m\"", string(s))
		}
		return l.g.constant(span, d.Milliseconds()), nil
	}
	t, err := time.Parse(time.RFC3339Nano, string(s))
	if err != nil {
		return nil, l.fault(arg, "%q is not a time; write it like \"2026-11-27T00:00:00Z\"", string(s))
	}
	return l.g.constant(moment, t.UnixMilli()), nil
}
