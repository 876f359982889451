package segment

import (
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// function lowers a call of one of the language's functions.
func (l *lowerer) function(e ast.Expr) (*node, error) {
	call := e.AsCall()
	args := call.Args()
	switch name := call.FunctionName(); name {
	case "days":
		return l.spanConst(e, schemas.Day)
	case "hours":
		return l.spanConst(e, schemas.Hour)
	case "minutes":
		return l.spanConst(e, schemas.Minute)
	case "seconds":
		return l.spanConst(e, schemas.Second)
	case "duration", "timestamp":
		return l.standardTime(e)
	case "now":
		return l.g.add(&node{op: opNow, typ: moment, source: "now()"}), nil
	case "since":
		x, err := l.still(args[0])
		if err != nil {
			return nil, err
		}
		return l.since(x), nil
	case "anniversary":
		x, err := l.still(args[0])
		if err != nil {
			return nil, err
		}
		return l.g.add(&node{op: opOnTheDay, args: []*node{x}, zone: l.zone, source: "anniversary(" + x.source + ")"}), nil
	case "birthday":
		return l.birthday(), nil
	case "band":
		return l.band(e)
	case "score":
		return l.score(e)
	case "segment":
		return nil, l.fault(e, "segment(...) is compared with the name of a segment, as in segment(\"lifecycle\") == \"lost\"")
	case "calendar":
		return nil, l.fault(e, "calendar(...) is the window of an aggregation, as in count(\"view\", calendar(\"month\"))")
	case "open_carts":
		return l.g.add(&node{op: opCarts, typ: integer, cell: l.g.carts(), source: "open_carts()"}), nil
	case "cart_changed", "cart_items", "cart_value":
		at := slices.Index([]string{"cart_changed", "cart_items", "cart_value"}, name)
		return l.g.add(&node{op: opCart, n: int64(at), typ: []typ{moment, integer, money}[at], cell: l.g.carts(), source: name + "()"}), nil
	case "followed":
		return l.followed(e)
	}
	return l.aggregate(e)
}

// still lowers an expression that must not move with the clock.
func (l *lowerer) still(e ast.Expr) (*node, error) {
	n, err := l.expr(e)
	if err == nil && n.moves {
		return nil, l.fault(e, "%s moves with the clock", n.source)
	}
	return n, err
}

func (l *lowerer) since(x *node) *node {
	return l.g.add(&node{op: opSince, typ: span, args: []*node{x}, source: "since(" + x.source + ")"})
}

// band counts the bounds that a value has reached.
func (l *lowerer) band(e ast.Expr) (*node, error) {
	args := e.AsCall().Args()
	x, err := l.expr(args[0])
	if err != nil {
		return nil, err
	}
	if args[1].Kind() != ast.ListKind {
		return nil, l.fault(args[1], "want a list of rising constants")
	}
	n := &node{op: opBand, typ: integer}
	var sources []string
	last := int64(0)
	for i, el := range args[1].AsList().Elements() {
		b, err := l.expr(el)
		if err != nil {
			return nil, err
		}
		a, b, err := l.alike(el, x, b)
		if err != nil {
			return nil, err
		}
		// Of alike ones only: 50 is more than 40.0, and in cents it is not 50.
		v, ok := b.isConst()
		if !ok || i > 0 && v <= last {
			return nil, l.fault(el, "the bounds of band(...) are constants, each above the one before")
		}
		last = v
		reached, err := l.less(el, a, b)
		if err != nil {
			return nil, err
		}
		n.args = append(n.args, l.g.not(reached))
		sources = append(sources, b.source)
	}
	n.source = "band(" + x.source + ", [" + strings.Join(sources, ", ") + "])"
	return l.g.add(n), nil
}

// asked is what an aggregation asks for.
type asked struct {
	kinds  profile.Kinds
	value  *filter // the text or amount it is about, or nil
	filter *filter // nil: all events of the kinds
	win    window
}

// events names the asked events.
func (a *asked) events() string {
	var names []string
	for k := range schemas.Kinds {
		if a.kinds.Has(k) {
			names = append(names, k.String())
		}
	}
	s := strings.Join(names, "|")
	if a.kinds == profile.AllKinds {
		s = "any"
	}
	if a.value != nil {
		s += ", " + a.value.source
	}
	if a.filter != nil {
		s += ", " + a.filter.source
	}
	return s
}

// ask reads the arguments of an aggregation: kinds, a value if it is about one, a
// filter, a window.
func (l *lowerer) ask(args []ast.Expr, value bool) (a asked, err error) {
	if len(args) == 0 {
		a.kinds = profile.AllKinds
		return a, nil
	}
	if a.kinds, err = l.kinds(args[0]); err != nil {
		return a, err
	}
	args = args[1:]
	if value {
		if a.value, err = l.eventValue(args[0]); err != nil {
			return a, err
		}
		args = args[1:]
	}
	for _, arg := range args {
		if l.ast.GetType(arg.ID()).Kind() == types.BoolKind {
			a.filter, err = l.eventFilter(arg)
		} else {
			a.win, err = l.window(arg)
		}
		if err != nil {
			return a, err
		}
	}
	return a, nil
}

// kinds reads "purchase", "any", or a list.
func (l *lowerer) kinds(e ast.Expr) (profile.Kinds, error) {
	names, err := l.texts(e)
	if err != nil {
		return 0, err
	}
	var all profile.Kinds
	known := []string{"any"}
	for k := range schemas.Kinds {
		known = append(known, k.String())
	}
	for _, name := range names {
		switch k, ok := schemas.ParseKind(name); {
		case name == "any":
			all |= profile.AllKinds
		case ok:
			all |= profile.KindsOf(k)
		default:
			return 0, l.fault(e, "unknown type of event %q%s; there are %s", name, suggest(name, known), strings.Join(known, ", "))
		}
	}
	if all == 0 {
		return 0, l.fault(e, "want at least one type of event")
	}
	return all, nil
}

// texts reads a constant text or a list of them.
func (l *lowerer) texts(e ast.Expr) ([]string, error) {
	if e.Kind() == ast.ListKind {
		var all []string
		for _, el := range e.AsList().Elements() {
			one, err := l.texts(el)
			if err != nil {
				return nil, err
			}
			all = append(all, one...)
		}
		return all, nil
	}
	if s, ok := e.AsLiteral().(types.String); ok && e.Kind() == ast.LiteralKind {
		return []string{string(s)}, nil
	}
	return nil, l.fault(e, "want a constant text, as in \"purchase\"")
}

// window reads days(30) or calendar("month", 1).
func (l *lowerer) window(e ast.Expr) (window, error) {
	if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == "calendar" {
		args := e.AsCall().Args()
		names, err := l.texts(args[0])
		if err != nil {
			return window{}, err
		}
		u := slices.Index(units(), names[0])
		if u <= 0 {
			return window{}, l.fault(args[0], "unknown calendar unit %q%s; there are %s", names[0], suggest(names[0], units()[1:]), strings.Join(units()[1:], ", "))
		}
		w := window{unit: unit(u), zone: l.zone}
		if len(args) == 2 {
			n, err := l.expr(args[1])
			if err != nil {
				return window{}, err
			}
			v, ok := n.isConst()
			if !ok || v < 0 || v > 120 {
				return window{}, l.fault(args[1], "want a constant of 0 to 120 periods back")
			}
			w.back = int(v)
		}
		return w, nil
	}
	n, err := l.expr(e)
	if err != nil {
		return window{}, err
	}
	v, ok := n.isConst()
	if !ok || v <= 0 {
		return window{}, l.fault(e, "a window is a constant duration above zero, as in days(30), or calendar(\"month\")")
	}
	return window{span: schemas.Millis(v)}, nil
}

// aggregate lowers what looks at events.
func (l *lowerer) aggregate(e ast.Expr) (*node, error) {
	call := e.AsCall()
	name, args := call.FunctionName(), call.Args()
	if !slices.ContainsFunc(functions(), func(f function) bool { return f.name == name }) { // one of CEL's own
		return nil, l.fault(e, "%s can't stand here", strings.Trim(name, "_@"))
	}
	var a asked
	var err error
	switch name {
	case "orders", "revenue", "spend", "average_order", "largest_order", "sessions":
		if len(args) == 1 {
			a.win, err = l.window(args[0])
		}
		a.kinds = profile.KindsOf(schemas.Purchase)
	case "sum", "distinct", "first_value", "last_value", "top":
		a, err = l.ask(args, true)
	default:
		a, err = l.ask(args, false)
	}
	if err != nil {
		return nil, err
	}
	switch name {
	case "orders", "count":
		return l.g.count(&a), nil
	case "revenue":
		a.kinds = profile.KindsOf(schemas.Purchase, schemas.Refund)
		return l.g.total(&a, netAmount()), nil
	case "spend":
		return l.g.total(&a, grossAmount()), nil
	case "average_order":
		total, orders := l.g.total(&a, grossAmount()), l.g.count(&a)
		return l.g.add(&node{op: opDiv, typ: money, args: []*node{total, orders}, source: "average_order(" + a.win.source() + ")"}), nil
	case "largest_order":
		c := l.g.cell(&cell{Cell: profile.Cell{Name: "greatest(purchase, event.amount)", Keeps: profile.Greatest, Kinds: a.kinds, Value: grossAmount().amount}, valueSQL: grossAmount().sql})
		return l.g.add(&node{op: opWhole, typ: money, cell: c, source: "largest_order()"}), nil
	case "sum":
		if a.value.amount == nil {
			return nil, l.fault(args[1], "only event.amount can be added up")
		}
		return l.g.total(&a, a.value), nil
	case "sessions":
		if a.win.back > 0 {
			return nil, l.fault(e, "how many sessions there were in a period that is past is not kept; leave the number out of calendar(...)")
		}
		a.kinds = profile.AllKinds
		a.value = fieldNamed("session_id")
		return l.g.distinct(&a), nil
	case "distinct":
		if a.win.back > 0 {
			return nil, l.fault(e, "how many different ones there were in a period that is past is not kept; leave the number out of calendar(...)")
		}
		return l.g.distinct(&a), l.wantText(args[1], &a)
	case "first_value", "last_value", "top":
		return l.g.textOf(name, &a), l.wantText(args[1], &a)
	case "last", "first":
		return l.g.when(name, &a), nil
	case "ever":
		return l.g.less(l.g.constant(integer, 0), l.g.count(&a)), nil
	case "top_hour", "top_weekday":
		return l.g.topTime(name, &a, l.zone), nil
	case "gap":
		c := l.g.recent(&cell{Cell: profile.Cell{Name: a.events(), Kinds: a.kinds, Filter: a.filter.truthOrNil()}, filter: a.filter})
		c.K = max(c.K, gapTimes)
		return l.g.add(&node{op: opGap, typ: span, cell: c, source: a.source("gap")}), nil
	}
	panic("segment: " + name + " is declared and not lowered")
}

// gapTimes is of how many events gap looks at the times between.
const gapTimes = 9

func (l *lowerer) wantText(e ast.Expr, a *asked) error {
	if a.value.text == nil {
		return l.fault(e, "%s is not a text", a.value.source)
	}
	return nil
}

func netAmount() *filter {
	return &filter{source: "net", sql: "if(type = 'refund', -amount_minor, amount_minor)", amount: func(ev *schemas.Event) int64 {
		if ev.Kind == schemas.Refund {
			return -ev.Amount
		}
		return ev.Amount
	}}
}

func grossAmount() *filter { return fieldNamed("amount") }

func fieldNamed(name string) *filter {
	for _, f := range eventFields() {
		if f.name == name {
			return &filter{source: "event." + name, sql: f.column, text: f.text, amount: f.amount, whole: f.whole}
		}
	}
	panic("segment: no field event." + name)
}

func (f *filter) truthOrNil() func(*schemas.Event) bool {
	if f == nil {
		return nil
	}
	return f.truth
}

// source is a window as a person would write it.
func (w window) source() string {
	switch {
	case w.unit != unitNone && w.back > 0:
		return fmt.Sprintf("calendar(%q, %d)", units()[w.unit], w.back)
	case w.unit != unitNone:
		return fmt.Sprintf("calendar(%q)", units()[w.unit])
	case w.span > 0:
		return spanSource(int64(w.span))
	}
	return ""
}

// call names an aggregation, for cells.
func (a *asked) call(name string) string {
	if w := a.win.source(); w != "" {
		return name + "(" + a.events() + ", " + w + ")"
	}
	return name + "(" + a.events() + ")"
}

// source writes an aggregation as a person would.
func (a *asked) source(name string) string {
	var args []string
	if a.kinds != profile.AllKinds {
		for k := range schemas.Kinds {
			if a.kinds.Has(k) {
				args = append(args, quote(k.String()))
			}
		}
		if len(args) > 1 {
			args = []string{"[" + strings.Join(args, ", ") + "]"}
		}
	} else if a.value != nil || a.filter != nil || name != "first" && name != "last" {
		args = append(args, `"any"`)
	}
	if name == "orders" {
		args = nil
	}
	if a.value != nil {
		args = append(args, a.value.source)
	}
	if a.filter != nil {
		args = append(args, a.filter.source)
	}
	if w := a.win.source(); w != "" {
		args = append(args, w)
	}
	return name + "(" + strings.Join(args, ", ") + ")"
}

// counted writes a count as a person would.
func (a *asked) counted() string {
	if a.kinds == profile.KindsOf(schemas.Purchase) && a.filter == nil {
		return a.source("orders")
	}
	return a.source("count")
}

// count is how many events: of what the Profile counts, a Number, or Moments.
func (g *graph) count(a *asked) *node {
	if a.win.open() && a.filter == nil {
		var sum *node
		for k := range schemas.Kinds {
			if !a.kinds.Has(k) {
				continue
			}
			single := asked{kinds: profile.KindsOf(k)}
			one := g.add(&node{op: opBase, n: int64(baseCount) + int64(k), typ: integer, source: single.counted()})
			if sum == nil {
				sum = one
			} else {
				sum = g.add(&node{op: opAdd, typ: integer, args: []*node{sum, one}, source: a.counted()})
			}
		}
		return sum
	}
	if a.win.open() {
		c := g.cell(&cell{Cell: profile.Cell{Name: a.call("number"), Keeps: profile.Number, Kinds: a.kinds, Filter: a.filter.truthOrNil()}, filter: a.filter})
		return g.add(&node{op: opNumber, typ: integer, cell: c, source: a.counted()})
	}
	one := func(*schemas.Event) int64 { return 1 }
	c := g.cell(&cell{
		Cell:   profile.Cell{Name: "moments(" + a.events() + ")", Keeps: profile.Moments, Kinds: a.kinds, Filter: a.filter.truthOrNil(), Value: one, K: profile.MomentsMax},
		filter: a.filter, source: a.events(),
	})
	return g.add(&node{op: opCount, typ: integer, cell: c, win: a.win, source: a.counted()})
}

// recent is the cell with the last times of the events of another.
func (g *graph) recent(of *cell) *cell {
	events := of.Name
	if of.source != "" {
		events = of.source
	}
	return g.cell(&cell{
		Cell:   profile.Cell{Name: "recent(" + events + ")", Keeps: profile.Recent, Kinds: of.Kinds, Filter: of.Filter},
		filter: of.filter, source: events,
	})
}

// total is the sum of an amount.
func (g *graph) total(a *asked, of *filter) *node {
	if a.win.open() && of.source == "net" && a.filter == nil {
		return g.add(&node{op: opBase, n: baseRevenue, typ: money, source: "revenue()"})
	}
	with := *a
	with.value = of
	source := with.source("sum")
	if of.source == "net" {
		source = "revenue(" + a.win.source() + ")"
	}
	if a.win.open() {
		c := g.cell(&cell{Cell: profile.Cell{Name: with.call("total"), Keeps: profile.Total, Kinds: a.kinds, Filter: a.filter.truthOrNil(), Value: of.amount}, filter: a.filter, valueSQL: of.sql})
		return g.add(&node{op: opWhole, typ: money, cell: c, source: source})
	}
	c := g.cell(&cell{
		Cell:   profile.Cell{Name: "moments(" + with.events() + ")", Keeps: profile.Moments, Kinds: a.kinds, Filter: a.filter.truthOrNil(), Value: of.amount, K: profile.MomentsMax},
		filter: a.filter, source: with.events(), valueSQL: of.sql,
	})
	return g.add(&node{op: opSum, typ: money, cell: c, win: a.win, source: source})
}

func (g *graph) distinct(a *asked) *node {
	c := g.cell(&cell{
		Cell:   profile.Cell{Name: "distinct(" + a.events() + ")", Keeps: profile.Distinct, Kinds: a.kinds, Filter: a.filter.truthOrNil(), Text: a.value.text, K: profile.DistinctMax},
		filter: a.filter, valueSQL: a.value.sql,
	})
	return g.add(&node{op: opDistinct, typ: integer, cell: c, win: a.win, source: a.source("distinct")})
}

// when is the first or the last time of events.
func (g *graph) when(name string, a *asked) *node {
	of := map[string]int64{"first": baseFirst, "last": baseLast}[name]
	if a.kinds == profile.KindsOf(schemas.Purchase) {
		of += baseFirstPurchase - baseFirst
	}
	source := a.source(name)
	if a.filter == nil && (a.kinds == profile.AllKinds || a.kinds == profile.KindsOf(schemas.Purchase)) {
		return g.add(&node{op: opBase, n: of, typ: moment, source: source})
	}
	keeps := map[string]profile.Keeps{"first": profile.Earliest, "last": profile.Newest}[name]
	c := g.cell(&cell{Cell: profile.Cell{Name: a.call(name), Keeps: keeps, Kinds: a.kinds, Filter: a.filter.truthOrNil()}, filter: a.filter})
	return g.add(&node{op: opWhole, typ: moment, cell: c, source: source})
}

func (g *graph) textOf(name string, a *asked) *node {
	keeps := map[string]profile.Keeps{"first_value": profile.FirstOf, "last_value": profile.LastOf, "top": profile.Tally}[name]
	c := g.cell(&cell{
		Cell:   profile.Cell{Name: a.call(name), Keeps: keeps, Kinds: a.kinds, Filter: a.filter.truthOrNil(), Text: a.value.text, K: profile.TallyMax},
		filter: a.filter, valueSQL: a.value.sql,
	})
	o := opTextOf
	if name == "top" {
		o = opTop
	}
	return g.add(&node{op: o, typ: text, cell: c, source: a.source(name)})
}

// topTime is the most frequent hour or day of the week in a zone.
func (g *graph) topTime(name string, a *asked, z *zone) *node {
	bucket := z.hour
	if name == "top_weekday" {
		bucket = z.weekday
	}
	c := g.cell(&cell{
		Cell:   profile.Cell{Name: a.call(name) + "@" + z.name, Keeps: profile.Tally, Kinds: a.kinds, Filter: a.filter.truthOrNil(), Bucket: bucket, K: profile.TallyMax},
		filter: a.filter,
	})
	none := int64(-1)
	if name == "top_weekday" {
		none = 0
	}
	return g.add(&node{op: opTopKey, typ: integer, n: none, cell: c, zone: z, source: a.source(name)})
}

// cartsKept is how long a cart is open after its last change, and how late an order
// may come to close it.
const cartsKept = 30 * schemas.Day

func (g *graph) carts() *cell {
	c := g.cell(&cell{Cell: profile.Cell{
		Name: "carts", Keeps: profile.Carts, Kinds: profile.KindsOf(schemas.AddToCart, schemas.RemoveFromCart, schemas.Purchase),
		Value: func(ev *schemas.Event) int64 { return ev.Worth },
	}})
	c.windows = []window{{span: cartsKept}}
	return c
}

// followed reads followed("a", "b", within, window), with or without filters.
func (l *lowerer) followed(e ast.Expr) (*node, error) {
	args := e.AsCall().Args()
	half := (len(args) - 2) / 2
	var of [2]*node
	var events [2]string
	for i := range of {
		a, err := l.ask(args[i*half:(i+1)*half], false)
		if err != nil {
			return nil, err
		}
		events[i] = strings.TrimSuffix(strings.TrimPrefix(a.source("count"), "count("), ")")
		a.win = window{span: schemas.Day} // any: it makes count keep the moments
		of[i] = l.g.count(&a)
	}
	within, err := l.window(args[2*half])
	if err != nil {
		return nil, err
	}
	win, err := l.window(args[2*half+1])
	if err != nil {
		return nil, err
	}
	return l.g.add(&node{
		op: opFollowed, n: int64(within.span), cell: of[0].cell, other: of[1].cell, win: win,
		source: fmt.Sprintf("followed(%s, %s, %s, %s)", events[0], events[1], within.source(), win.source()),
	}), nil
}

// textConst is a constant text.
func (l *lowerer) textConst(s string) *node {
	return l.g.add(&node{op: opConst, typ: text, n: int64(profile.HashText([]byte(s))), list: []string{s}, source: quote(s)})
}
