package segment

import (
	"fmt"
	"slices"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// frame is one evaluation under way: one user, one moment. What an expression comes
// to until when depends on the clock is noted in due.
type frame struct {
	now schemas.Millis
	due schemas.Millis // the earliest moment at which something looked at changes by silence
	p   *profile.Profile
	v   profile.View
	in  []uint16 // the user's segment in each set, for sets that are evaluated earlier

	generation uint32
	stamps     []uint32 // [nodes], the generation in which memo holds
	memo       []int64  // [nodes]
	carts      []profile.Cart
	gaps       []int64
	programs   *Program
}

// at notes that something changes at a moment, with no further event.
func (fr *frame) at(t schemas.Millis) {
	if t < fr.due {
		fr.due = t
	}
}

// A node is compiled to a function: no tree is walked, and nothing allocated, when
// an event is evaluated.
type (
	number    func(*frame) int64
	condition func(*frame) bool
)

// compiler turns nodes into functions, each node once.
type compiler struct {
	numbers    map[*node]number
	conditions map[*node]condition
}

// remembered makes what several rules ask be found out once in an evaluation.
func (n *node) remembered() bool {
	switch n.op {
	case opAtLeast, opFollowed, opOnTheDay, opBirthday, opCount, opSum, opDistinct, opTop, opTopKey, opGap, opCarts, opCart, opBand:
		return n.uses > 1
	default:
	}
	return false
}

func (c *compiler) condition(n *node) condition {
	if f := c.conditions[n]; f != nil {
		return f
	}
	f := c.makeCondition(n)
	if n.remembered() {
		inner, id := f, n.id
		f = func(fr *frame) bool {
			if fr.stamps[id] != fr.generation {
				v := int64(0)
				if inner(fr) {
					v = 1
				}
				fr.stamps[id], fr.memo[id] = fr.generation, v
			}
			return fr.memo[id] != 0
		}
	}
	c.conditions[n] = f
	return f
}

func (c *compiler) makeCondition(n *node) condition {
	switch n.op {
	case opConst:
		v := n.n != 0
		return func(*frame) bool { return v }
	case opAnd:
		a, b := c.condition(n.args[0]), c.condition(n.args[1])
		return func(fr *frame) bool { return a(fr) && b(fr) }
	case opOr:
		a, b := c.condition(n.args[0]), c.condition(n.args[1])
		return func(fr *frame) bool { return a(fr) || b(fr) }
	case opNot:
		a := c.condition(n.args[0])
		return func(fr *frame) bool { return !a(fr) }
	case opChoose:
		a, x, y := c.condition(n.args[0]), c.condition(n.args[1]), c.condition(n.args[2])
		return func(fr *frame) bool {
			if a(fr) {
				return x(fr)
			}
			return y(fr)
		}
	case opLess:
		return c.less(n)
	case opEqual:
		a, b := c.number(n.args[0]), c.number(n.args[1])
		return func(fr *frame) bool { return a(fr) == b(fr) }
	case opReached:
		a := c.number(n.args[0])
		return func(fr *frame) bool {
			t := schemas.Millis(a(fr))
			if fr.now >= t {
				return true
			}
			fr.at(t)
			return false
		}
	case opSinceIs:
		return c.sinceIs(n)
	case opIsSegment:
		return isSegment(n)
	case opAtLeast:
		return atLeast(n)
	case opFollowed:
		return followed(n)
	case opOnTheDay:
		a, z := c.number(n.args[0]), n.zone
		return func(fr *frame) bool {
			t := schemas.Millis(a(fr))
			if t == 0 {
				return false
			}
			yes, changes := z.onTheDay(t, fr.now)
			fr.at(changes)
			return yes
		}
	case opBirthday:
		return birthday(n)
	default:
	}
	panic(fmt.Sprintf("segment: %s is no condition", n.source))
}

// less has its most frequent shapes written out.
func (c *compiler) less(n *node) condition {
	if v, ok := n.args[1].isConst(); ok {
		a := c.number(n.args[0])
		return func(fr *frame) bool { return a(fr) < v }
	}
	if v, ok := n.args[0].isConst(); ok {
		b := c.number(n.args[1])
		return func(fr *frame) bool { return v < b(fr) }
	}
	a, b := c.number(n.args[0]), c.number(n.args[1])
	return func(fr *frame) bool { return a(fr) < b(fr) }
}

// sinceIs holds when x is never, or lies at least d back; an event from the near
// future counts as now.
func (c *compiler) sinceIs(n *node) condition {
	x, d := c.number(n.args[0]), c.number(n.args[1])
	if v, ok := n.args[1].isConst(); ok {
		return func(fr *frame) bool { return fr.sinceIs(x(fr), v) }
	}
	return func(fr *frame) bool { return fr.sinceIs(x(fr), d(fr)) }
}

func (fr *frame) sinceIs(x, d int64) bool {
	switch {
	case x == 0 || d <= 0:
		return true
	case d >= forever:
		return false
	}
	t := schemas.Millis(x + d)
	if fr.now >= t {
		return true
	}
	fr.at(t)
	return false
}

// forever is longer than any duration: since(never), and the gap of fewer than two.
const forever = int64(schemas.Never) / 4

func isSegment(n *node) condition {
	set := int(n.n)
	return func(fr *frame) bool {
		names, in := fr.programs.names[set].Segments, int(fr.in[set])
		return in < len(names) && slices.Contains(n.list, names[in])
	}
}

// atLeast looks at the n-th last time: it leaves the window first.
func atLeast(n *node) condition {
	cell, k, win := n.cell, int(n.n), n.win
	return func(fr *frame) bool {
		list := fr.v.List(cell.number)
		if len(list) < k {
			return false
		}
		t := schemas.Millis(list[k-1].A)
		if win.span > 0 {
			if fr.now-t >= win.span {
				return false
			}
			fr.at(t + win.span)
			return true
		}
		from, _, ends := win.bounds(fr.now)
		if t < from {
			return false
		}
		fr.at(ends)
		return true
	}
}

// followed holds while an answer in the window has something before it within n.
func followed(n *node) condition {
	first, second, within, win := n.cell, n.other, n.n, n.win
	return func(fr *frame) bool {
		from, to, ends := win.bounds(fr.now)
		a, b := fr.v.List(first.number), fr.v.List(second.number)
		// From the newest answer on: the first one found holds the longest.
		for _, answer := range slices.Backward(b) {
			t := answer.A
			if t < int64(from) {
				break
			}
			if t >= int64(to) {
				continue
			}
			j, _ := slices.BinarySearchFunc(a, t, func(e profile.Entry, t int64) int { return int(e.A - t) })
			if j > 0 && t-a[j-1].A <= within {
				fr.at(ends)
				if win.span > 0 {
					fr.at(schemas.Millis(t) + win.span)
				}
				return true
			}
		}
		return false
	}
}

func (c *compiler) number(n *node) number {
	if f := c.numbers[n]; f != nil {
		return f
	}
	f := c.makeNumber(n)
	if n.remembered() {
		inner, id := f, n.id
		f = func(fr *frame) int64 {
			if fr.stamps[id] != fr.generation {
				v := inner(fr)
				fr.stamps[id], fr.memo[id] = fr.generation, v
			}
			return fr.memo[id]
		}
	}
	c.numbers[n] = f
	return f
}

func (c *compiler) makeNumber(n *node) number {
	switch n.op {
	case opConst:
		v := n.n
		return func(*frame) int64 { return v }
	case opAdd, opSub, opMul, opDiv:
		a, b, o := c.number(n.args[0]), c.number(n.args[1]), n.op
		if at := n.shifts(); at >= 0 {
			return func(fr *frame) int64 { return shifted(o, a(fr), b(fr), at) }
		}
		return func(fr *frame) int64 { return compute(o, a(fr), b(fr)) }
	case opChoose:
		a, x, y := c.condition(n.args[0]), c.number(n.args[1]), c.number(n.args[2])
		return func(fr *frame) int64 {
			if a(fr) {
				return x(fr)
			}
			return y(fr)
		}
	case opBase:
		return baseNumber(n.n)
	case opNumber:
		cell := n.cell
		return func(fr *frame) int64 { return fr.v.Number(cell.number) }
	case opWhole:
		cell := n.cell
		return func(fr *frame) int64 { return fr.v.Integer(cell.number) }
	case opCount, opSum:
		return inWindow(n)
	case opDistinct:
		return distinct(n)
	case opTextOf:
		cell := n.cell
		return func(fr *frame) int64 { return int64(fr.v.Text(cell.number)) }
	case opTop, opTopKey:
		return top(n)
	case opGap:
		return gap(n)
	case opCarts, opCart:
		return cart(n)
	case opBand:
		return c.band(n)
	case opQuantile:
		i := n.n
		return func(fr *frame) int64 { return fr.programs.epoch.Bounds[i] }
	default:
	}
	panic(fmt.Sprintf("segment: %s is no number", n.source))
}

func baseNumber(which int64) number {
	switch which {
	case baseFirst:
		return func(fr *frame) int64 { return int64(fr.p.First) }
	case baseLast:
		return func(fr *frame) int64 { return int64(fr.p.Last) }
	case baseFirstPurchase:
		return func(fr *frame) int64 { return int64(fr.p.FirstPurchase) }
	case baseLastPurchase:
		return func(fr *frame) int64 { return int64(fr.p.LastPurchase) }
	case baseRevenue:
		return func(fr *frame) int64 { return fr.p.Revenue }
	}
	kind := which - baseCount
	return func(fr *frame) int64 { return int64(fr.p.Counts[kind]) }
}

// inWindow counts or adds up the moments in a window. The oldest of them leaves a
// sliding window first.
func inWindow(n *node) number {
	cell, win := n.cell, n.win
	return func(fr *frame) int64 {
		from, to, ends := win.bounds(fr.now)
		list := fr.v.List(cell.number)
		i, _ := slices.BinarySearchFunc(list, int64(from), func(e profile.Entry, t int64) int { return compareTimes(e.A, t) })
		if i < len(list) && win.span > 0 {
			fr.at(schemas.Millis(list[i].A) + win.span)
		}
		if i < len(list) { // what lies before the window does not come back
			fr.at(ends)
		}
		sum := int64(0)
		for ; i < len(list) && list[i].A < int64(to); i++ {
			sum = compute(opAdd, sum, list[i].B)
		}
		return sum
	}
}

func compareTimes(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// distinct counts the texts that were last seen in a window. In a period that is past
// a text counts when it was last seen there.
func distinct(n *node) number {
	cell, win := n.cell, n.win
	return func(fr *frame) int64 {
		list := fr.v.List(cell.number)
		if win.open() {
			return int64(len(list))
		}
		from, to, ends := win.bounds(fr.now)
		count, oldest, later := int64(0), int64(schemas.Never), false
		for _, e := range list {
			switch {
			case e.B >= int64(to):
				later = true
			case e.B >= int64(from):
				count++
				oldest = min(oldest, e.B)
			}
		}
		if count > 0 && win.span > 0 {
			fr.at(schemas.Millis(oldest) + win.span)
		}
		if count > 0 || later {
			fr.at(ends)
		}
		return count
	}
}

// top is the most frequent text or bucket; of equally frequent ones the smallest.
func top(n *node) number {
	cell, none := n.cell, n.n
	return func(fr *frame) int64 {
		best, most := none, int64(0)
		for _, e := range fr.v.List(cell.number) {
			if e.B > most {
				best, most = e.A, e.B
			}
		}
		return best
	}
}

// gap is the median of the spans between the last times: of an even number of them
// the lower one, so that it is a span that there was.
func gap(n *node) number {
	cell := n.cell
	return func(fr *frame) int64 {
		list := fr.v.List(cell.number)
		list = list[:min(len(list), gapTimes)]
		if len(list) < 2 {
			return forever
		}
		fr.gaps = fr.gaps[:0]
		for i := 1; i < len(list); i++ {
			fr.gaps = append(fr.gaps, list[i-1].A-list[i].A)
		}
		slices.Sort(fr.gaps)
		return fr.gaps[(len(fr.gaps)-1)/2]
	}
}

func cart(n *node) number {
	cell, which, all := n.cell, n.n, n.op == opCarts
	return func(fr *frame) int64 {
		var oldest schemas.Millis
		if fr.carts, oldest = fr.v.Carts(cell.number, fr.now, fr.carts); oldest != schemas.Never {
			fr.at(oldest + cartsKept)
		}
		switch {
		case all:
			return int64(len(fr.carts))
		case len(fr.carts) == 0:
			return 0
		case which == cartChanged:
			return int64(fr.carts[0].Changed)
		case which == cartItems:
			return divide(fr.carts[0].Items, 1_000_000)
		}
		return fr.carts[0].Value
	}
}

// band counts the bounds that are reached; they rise, so the first that is not ends it.
func (c *compiler) band(n *node) number {
	reached := make([]condition, len(n.args))
	for i, a := range n.args {
		reached[i] = c.condition(a)
	}
	return func(fr *frame) int64 {
		for i, r := range reached {
			if !r(fr) {
				return int64(i)
			}
		}
		return int64(len(reached))
	}
}
