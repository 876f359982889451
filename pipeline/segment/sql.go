package segment

import (
	"fmt"
	"slices"
	"strings"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// SQL writes the program as one ClickHouse statement: the segment of every user in
// every set at a moment, from the events themselves. Its columns are user_id and one
// for each set, with the set's name; where restricts the events, "" not at all.
//
// It is the same definition for the other engine, so that what BI counts is what the
// triggers say. Windows become literal times. A set that cannot be answered yet is left
// out.
func (p *Program) SQL(now schemas.Millis, where string) string {
	return p.SQLOver("events_once", now, where)
}

// SQLOver is SQL over another table, or subquery, of events that count, with the
// columns of events_once.
func (p *Program) SQLOver(events string, now schemas.Millis, where string) string {
	w := &sqlWriter{p: p, now: now, alias: map[string]string{}}
	var columns []string
	for _, i := range p.order {
		s := &p.sets[i]
		if s.scores && p.epoch.Number == 0 {
			continue
		}
		columns = append(columns, w.set(i, s)+" AS "+sqlName(s.name))
	}
	var b strings.Builder
	b.WriteString("SELECT\n    user_id")
	for _, c := range columns {
		b.WriteString(",\n    " + c)
	}
	b.WriteString("\nFROM\n(\n    SELECT\n        user_id")
	for _, a := range w.aggregates {
		b.WriteString(",\n        " + a + " AS " + w.alias[a])
	}
	b.WriteString("\n    FROM (SELECT *, toUnixTimestamp64Milli(time) AS t FROM " + events + ")")
	if where != "" {
		b.WriteString("\n    WHERE " + where)
	}
	b.WriteString("\n    GROUP BY user_id\n)")
	return b.String()
}

// sqlWriter writes one statement.
type sqlWriter struct {
	p          *Program
	now        schemas.Millis
	aggregates []string          // of the inner query
	alias      map[string]string // of each
}

// sqlName is a name as an identifier. Names of sets are letters, digits and _.
func sqlName(name string) string { return "`" + name + "`" }

// set is the column of a set: its first rule that holds.
func (w *sqlWriter) set(index int, s *set) string {
	names := w.p.names[index].Segments
	if len(s.rules) == 1 {
		return sqlText(names[0])
	}
	var b strings.Builder
	b.WriteString("multiIf(")
	for i, r := range s.rules {
		if r.when == nil {
			b.WriteString(sqlText(names[i]) + ")")
			break
		}
		fmt.Fprintf(&b, "%s, %s, ", w.expr(r.when), sqlText(names[i]))
	}
	return b.String()
}

// aggregate names a value of the inner query, as no set can be named: with a capital.
func (w *sqlWriter) aggregate(sql string) string {
	name, known := w.alias[sql]
	if !known {
		name = fmt.Sprintf("A%d", len(w.aggregates))
		w.alias[sql] = name
		w.aggregates = append(w.aggregates, sql)
	}
	return name
}

// expr writes a node.
func (w *sqlWriter) expr(n *node) string {
	args := make([]string, len(n.args))
	for i, a := range n.args {
		args[i] = w.expr(a)
	}
	switch n.op {
	case opConst:
		if n.typ == text {
			return sqlText(n.list[0])
		}
		return fmt.Sprint(n.n)
	case opAnd:
		return "(" + args[0] + " AND " + args[1] + ")"
	case opOr:
		return "(" + args[0] + " OR " + args[1] + ")"
	case opNot:
		return "NOT (" + args[0] + ")"
	case opChoose:
		return "if(" + strings.Join(args, ", ") + ")"
	case opLess:
		return "(" + args[0] + " < " + args[1] + ")"
	case opEqual:
		return "(" + args[0] + " = " + args[1] + ")"
	case opReached:
		return fmt.Sprintf("(%d >= %s)", w.now, args[0])
	case opSinceIs:
		if d, ok := n.args[1].isConst(); ok && d > 0 && d < forever {
			return fmt.Sprintf("(%s = 0 OR %d - %s >= %d)", args[0], w.now, args[0], d)
		}
		return fmt.Sprintf("(%s = 0 OR %s <= 0 OR (%s < %d AND %d - %s >= %s))", args[0], args[1], args[1], forever, w.now, args[0], args[1])
	case opIsSegment:
		return fmt.Sprintf("(%s IN (%s))", sqlName(w.p.names[n.n].Name), sqlTexts(n.list))
	case opAtLeast:
		return fmt.Sprintf("(%s >= %d)", w.count(n), n.n)
	case opFollowed:
		return w.followed(n)
	case opOnTheDay:
		return w.onTheDay(n, args[0])
	case opBirthday:
		return w.birthday(n)
	case opAdd, opSub:
		sign := map[op]string{opAdd: " + ", opSub: " - "}[n.op]
		if at := n.shifts(); at >= 0 { // shifted; what NULL is added to is NULL
			args[at] = "nullIf(" + args[at] + ", 0)"
			return "ifNull(" + args[0] + sign + args[1] + ", 0)"
		}
		return "(" + args[0] + sign + args[1] + ")"
	case opMul:
		return "(" + args[0] + " * " + args[1] + ")"
	case opDiv:
		return sqlDivide(args[0], args[1])
	case opBand:
		return "(" + strings.Join(asNumbers(args), " + ") + ")"
	case opQuantile:
		return fmt.Sprint(w.p.epoch.Bounds[n.n])
	default:
	}
	return w.look(n)
}

func asNumbers(conditions []string) (out []string) {
	for _, c := range conditions {
		out = append(out, "toInt64("+c+")")
	}
	return out
}

func sqlTexts(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = sqlText(s)
	}
	return strings.Join(out, ", ")
}

// sqlDivide is divide: half to even, 0 by zero.
func sqlDivide(a, b string) string {
	return fmt.Sprintf("arrayMap((x, y) -> if(y = 0, 0, intDiv(x, y) + if(2 * abs(x %% y) > abs(y) OR (2 * abs(x %% y) = abs(y) AND intDiv(x, y) %% 2 != 0), if((x < 0) = (y < 0), 1, -1), 0)), [toInt64(%s)], [toInt64(%s)])[1]", a, b)
}

// events is the condition for the events of a cell.
func (c *cell) events() string {
	parts := []string{}
	if c.Kinds != profile.AllKinds {
		var names []string
		for k := range schemas.Kinds {
			if c.Kinds.Has(k) {
				names = append(names, k.String())
			}
		}
		parts = append(parts, "type IN ("+sqlTexts(names)+")")
	}
	if c.filter != nil {
		parts = append(parts, c.filter.sql)
	}
	if len(parts) == 0 {
		return "1"
	}
	return strings.Join(parts, " AND ")
}

// within adds a window to a condition.
func (w *sqlWriter) within(condition string, win window) string {
	if win.open() {
		return condition
	}
	from, to, _ := win.bounds(w.now)
	if condition += fmt.Sprintf(" AND t >= %d", from); to != schemas.Never {
		condition += fmt.Sprintf(" AND t < %d", to)
	}
	return condition
}

func (w *sqlWriter) count(n *node) string {
	return w.aggregate("toInt64(countIf(" + w.within(n.cell.events(), n.win) + "))")
}

// look writes a node that looks at events.
func (w *sqlWriter) look(n *node) string {
	switch n.op {
	case opBase:
		return w.base(n.n)
	case opNumber, opCount:
		return w.count(n)
	case opWhole:
		return w.whole(n)
	case opSum:
		return w.aggregate("sumIf(toInt64(" + n.cell.valueSQL + "), " + w.within(n.cell.events(), n.win) + ")")
	case opDistinct:
		col := n.cell.valueSQL
		return w.aggregate("toInt64(uniqExactIf(" + col + ", " + w.within(n.cell.events(), n.win) + " AND " + col + " != ''))")
	case opTextOf:
		return w.textOf(n)
	case opTop:
		col := "toString(" + n.cell.valueSQL + ")"
		return w.most("groupArrayIf("+col+", "+n.cell.events()+" AND "+n.cell.valueSQL+" != '')", "reinterpretAsInt64(xxHash64(x.1))", "''")
	case opTopKey:
		part := "toHour"
		if strings.HasPrefix(n.cell.Name, "top_weekday") {
			part = "toDayOfWeek"
		}
		return w.most(fmt.Sprintf("groupArrayIf(toInt64(%s(toTimeZone(time, %s))), %s)", part, sqlText(n.zone.name), n.cell.events()), "x.1", fmt.Sprint(n.n))
	case opGap:
		times := w.aggregate("arraySlice(arrayReverseSort(groupArrayIf(t, " + n.cell.events() + ")), 1, 9)")
		return fmt.Sprintf("if(length(%s) < 2, %d, arraySort(arrayMap((a, b) -> a - b, arrayPopBack(%s), arrayPopFront(%s)))[intDiv(length(%s) - 2, 2) + 1])", times, forever, times, times, times)
	case opCarts, opCart:
		return w.cart(n)
	default:
	}
	panic(fmt.Sprintf("segment: no SQL for %s", n.source))
}

func (w *sqlWriter) base(which int64) string {
	switch which {
	case baseFirst:
		return w.aggregate("min(t)")
	case baseLast:
		return w.aggregate("max(t)")
	case baseFirstPurchase:
		return w.aggregate("minIf(t, type = 'purchase')")
	case baseLastPurchase:
		return w.aggregate("maxIf(t, type = 'purchase')")
	case baseRevenue:
		return w.aggregate("sumIf(toInt64(" + netAmount().sql + "), type IN ('purchase', 'refund'))")
	}
	return w.aggregate("toInt64(countIf(type = " + sqlText(schemas.Kind(which-baseCount).String()) + "))")
}

func (w *sqlWriter) whole(n *node) string {
	events := n.cell.events()
	switch n.cell.Keeps {
	case profile.Earliest:
		return w.aggregate("minIf(t, " + events + ")")
	case profile.Newest:
		return w.aggregate("maxIf(t, " + events + ")")
	case profile.Greatest:
		return w.aggregate("maxIf(toInt64(" + n.cell.valueSQL + "), " + events + ")")
	default:
		return w.aggregate("sumIf(toInt64(" + n.cell.valueSQL + "), " + events + ")")
	}
}

// textOf is the first or the last text; of two at one moment that of the smaller hash.
func (w *sqlWriter) textOf(n *node) string {
	col, order := n.cell.valueSQL, "t"
	if n.cell.Keeps == profile.LastOf {
		order = "-t"
	}
	return w.aggregate(fmt.Sprintf("argMinIf(toString(%s), (%s, xxHash64(%s)), %s AND %s != '')", col, order, col, n.cell.events(), col))
}

// most is the most frequent element of an array; of equally frequent ones that with the
// smallest key.
func (w *sqlWriter) most(array, key, none string) string {
	all := w.aggregate(array)
	return fmt.Sprintf("if(empty(%s), %s, arraySort(x -> (-x.2, %s), arrayMap(v -> (v, countEqual(%s, v)), arrayDistinct(%s)))[1].1)", all, none, key, all, all)
}

func (w *sqlWriter) followed(n *node) string {
	from, to, _ := n.win.bounds(w.now)
	first := w.aggregate("groupArrayIf(t, " + n.cell.events() + ")")
	second := w.aggregate("groupArrayIf(t, " + n.other.events() + ")")
	return fmt.Sprintf("arrayExists(b -> b >= %d AND b < %d AND arrayExists(a -> a < b AND b - a <= %d, %s), %s)", from, to, n.n, first, second)
}

// onTheDay is zone.onTheDay: 29 February is 1 March in other years.
func (w *sqlWriter) onTheDay(n *node, of string) string {
	zone := sqlText(n.zone.name)
	born := fmt.Sprintf("fromUnixTimestamp64Milli(toInt64(%s), %s)", of, zone)
	now := fmt.Sprintf("fromUnixTimestamp64Milli(toInt64(%d), %s)", w.now, zone)
	return fmt.Sprintf("(%s != 0 AND toYear(%s) > toYear(%s) AND toDate(%s) = addDays(makeDate(toYear(%s), toMonth(%s), 1), toDayOfMonth(%s) - 1))",
		of, now, born, now, now, born, born)
}

// cart works the open carts out of their lines, as profile.Carts does.
func (w *sqlWriter) cart(n *node) string {
	lines := w.aggregate("groupArrayIf((t, type, cart_id, product_id, least(toInt64(ifNull(quantity, 1) * 1000000), toInt64(" + fmt.Sprint(profile.CartQuantityMax) + ")), worth_minor, " +
		"arrayFilter(x -> x != '', arrayPushBack(arrayMap(i -> JSONExtractString(i, 'product_id'), " + itemsSQL + "), product_id))), " +
		"type IN ('add_to_cart', 'remove_from_cart', 'purchase') AND t >= " + fmt.Sprint(w.now-cartsKept+1) + ")")
	orders := "arrayFilter(o -> o.2 = 'purchase', " + lines + ")"
	open := "arrayFilter(l -> l.2 != 'purchase' AND NOT arrayExists(o -> o.1 >= l.1 AND ((o.3 != '' AND o.3 = l.3) OR has(o.7, l.4) OR (o.3 = '' AND empty(o.7))), " + orders + "), " + lines + ")"
	// By product, in the order of time; what is put in sorts before what is taken out.
	sign := "if(l.2 = 'add_to_cart', 1, -1)"
	balance := "arrayFold((b, l) -> if(b.1 + " + sign + " * l.5 <= 0, (toInt64(0), toInt64(0)), (toInt64(b.1 + " + sign + " * l.5), toInt64(b.2 + " + sign + " * l.6))), " +
		"arraySort(l -> (l.1, l.2), arrayFilter(l -> l.3 = c AND l.4 = p, ls)), (toInt64(0), toInt64(0)))"
	balances := "arrayMap(p -> " + balance + ", arrayDistinct(arrayMap(l -> l.4, arrayFilter(l -> l.3 = c, ls))))"
	carts := "arrayMap(c -> arrayMap(bs -> (arrayMax(l -> if(l.3 = c, l.1, 0), ls), arraySum(b -> b.1, bs), arraySum(b -> b.2, bs), " +
		"if(c = '', 0, xxHash64(c))), [" + balances + "])[1], arrayDistinct(arrayMap(l -> l.3, ls)))"
	all := "arrayMap(ls -> arraySort(c -> (-c.1, c.4), arrayFilter(c -> c.2 > 0, if(empty(ls), [], " + carts + "))), [" + open + "])[1]"
	switch {
	case n.op == opCarts:
		return "toInt64(length(" + all + "))"
	case n.n == cartChanged:
		return "(" + all + ")[1].1"
	case n.n == cartItems:
		return sqlDivide("("+all+")[1].2", "1000000")
	}
	return "(" + all + ")[1].3"
}

// itemsSQL is the items of an event, each as JSON. ClickHouse's parser refuses a text with
// a number that it cannot hold (123456789012345678901234, 1e999), and all items would be
// gone: numbers of such items are read as texts, since no rule looks at them.
const itemsSQL = `JSONExtractArrayRaw(if(isValidJSON(items), items, replaceRegexpAll(items, '"((?:[^"\\\\]|\\\\.)*)"|(-?[0-9][-+.0-9eE]*)', '"\\1\\2"')))`

// Columns are the names of the sets that SQL answers, in the order of the program.
func (p *Program) Columns() (names []string) {
	for i := range p.sets {
		if !p.sets[i].scores || p.epoch.Number > 0 {
			names = append(names, p.sets[i].name)
		}
	}
	slices.Sort(names)
	return names
}
