package segment

import (
	"cmp"
	"slices"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// Behind is the event that decides what a question of a clause comes to: the first, the
// last, the greatest; of a count or a sum the newest that is in it.
type Behind struct {
	Question string // as a person would write it: last("purchase")
	Event    int    // which of those given
	Of       int    // so many answer it
	Newest   bool   // it is the newest of them: what came before plays no part
	Text     string // where a text was asked for: what it is
}

// Behind finds the events behind the clauses of a segment's rule, by clause, in the
// order of Clauses. events are all that count of the user, in any order.
func (p *Program) Behind(set int, segment uint16, now schemas.Millis, events []schemas.Event) (all [][]Behind) {
	when := p.sets[set].rules[segment].when
	if when == nil {
		return nil
	}
	for _, n := range clauseNodes(when) {
		var found []Behind
		for _, q := range asking(n, nil) {
			found = append(found, q.behind(now, events)...)
		}
		all = append(all, found)
	}
	return all
}

// clauseNodes are the conditions of a rule, in the order of writing.
func clauseNodes(n *node) []*node {
	switch n.op {
	case opAnd, opOr:
		return append(clauseNodes(n.args[0]), clauseNodes(n.args[1])...)
	case opNot:
		return clauseNodes(n.args[0])
	default:
		return []*node{n}
	}
}

// asking are the parts of a condition that look at events, each once.
func asking(n *node, seen []*node) []*node {
	if n.cell != nil || n.op == opBase {
		if !slices.Contains(seen, n) {
			seen = append(seen, n)
		}
		return seen
	}
	for _, a := range n.args {
		seen = asking(a, seen)
	}
	return seen
}

// behind finds the event behind a question.
func (n *node) behind(now schemas.Millis, events []schemas.Event) []Behind {
	if n.op == opFollowed {
		return n.pair(now, events)
	}
	var among []int
	for i := range events {
		if n.asksFor(&events[i], now) {
			among = append(among, i)
		}
	}
	b := Behind{Question: n.source, Event: -1, Of: len(among), Newest: n.newest()}
	if among, b.Text = n.alike(events, among); len(among) > 0 {
		b.Event = slices.MinFunc(among, func(i, j int) int { return n.order(&events[i], &events[j]) })
	}
	if b.Event < 0 {
		return nil
	}
	return []Behind{b}
}

// asksFor tells whether a question counts an event.
func (n *node) asksFor(ev *schemas.Event, now schemas.Millis) bool {
	if n.op == opBase {
		return n.baseKinds().Has(ev.Kind)
	}
	c := n.cell
	win := n.win
	if c.Keeps == profile.Carts {
		win = window{span: cartsKept}
	}
	if !c.Kinds.Has(ev.Kind) || c.Filter != nil && !c.Filter(ev) || c.Text != nil && len(c.Text(ev)) == 0 {
		return false
	}
	from, to, _ := win.bounds(now)
	return win.open() || ev.At >= from && ev.At < to
}

// baseKinds are the kinds of events of a field of the Profile.
func (n *node) baseKinds() profile.Kinds {
	switch n.n {
	case baseFirst, baseLast:
		return profile.AllKinds
	case baseFirstPurchase, baseLastPurchase:
		return profile.KindsOf(schemas.Purchase)
	case baseRevenue:
		return profile.KindsOf(schemas.Purchase, schemas.Refund)
	}
	return profile.KindsOf(schemas.Kind(n.n - baseCount))
}

// alike leaves, of a question for the most frequent text or time, the events with it,
// and gives the text that the answer is.
func (n *node) alike(events []schemas.Event, among []int) (some []int, text string) {
	if n.op != opTop && n.op != opTopKey {
		if n.ofText() && len(among) > 0 {
			i := slices.MinFunc(among, func(i, j int) int { return n.order(&events[i], &events[j]) })
			text = string(n.cell.Text(&events[i]))
		}
		return among, text
	}
	key := func(i int) int64 {
		if n.cell.Text != nil {
			return int64(profile.HashText(n.cell.Text(&events[i])))
		}
		return n.cell.Bucket(events[i].At)
	}
	counts := map[int64]int{}
	for _, i := range among {
		counts[key(i)]++
	}
	best, most := int64(0), 0
	for k, count := range counts {
		if count > most || count == most && k < best {
			best, most = k, count
		}
	}
	for _, i := range among {
		if key(i) == best {
			some = append(some, i)
			if n.cell.Text != nil {
				text = string(n.cell.Text(&events[i]))
			}
		}
	}
	return some, text
}

// order puts the event first that decides what a question comes to.
func (n *node) order(a, b *schemas.Event) int {
	switch {
	case n.greatest():
		return cmp.Or(cmp.Compare(n.cell.Value(b), n.cell.Value(a)), cmp.Compare(a.At, b.At))
	case n.oldest():
		return cmp.Or(cmp.Compare(a.At, b.At), n.texts(a, b))
	}
	return cmp.Or(cmp.Compare(b.At, a.At), n.texts(a, b))
}

func (n *node) greatest() bool { return n.op == opWhole && n.cell.Keeps == profile.Greatest }

func (n *node) oldest() bool {
	switch n.op {
	case opBase:
		return n.n == baseFirst || n.n == baseFirstPurchase
	case opWhole:
		return n.cell.Keeps == profile.Earliest
	case opTextOf:
		return n.cell.Keeps == profile.FirstOf
	default:
		return false
	}
}

// ofText tells that the text of one event is the answer, or decides it.
func (n *node) ofText() bool { return n.op == opTextOf || n.op == opBirthday }

// newest tells that the newest event decides, whatever came before.
func (n *node) newest() bool {
	return !n.greatest() && !n.oldest() && n.op != opTop && n.op != opTopKey
}

// texts puts the text of the smaller hash first, as cells do at one moment.
func (n *node) texts(a, b *schemas.Event) int {
	if !n.ofText() {
		return 0
	}
	return cmp.Compare(profile.HashText(n.cell.Text(a)), profile.HashText(n.cell.Text(b)))
}

// pair is the newest answer of followed, and what it answers.
func (n *node) pair(now schemas.Millis, events []schemas.Event) []Behind {
	from, to, _ := n.win.bounds(now)
	takes := func(c *cell, ev *schemas.Event) bool {
		return c.Kinds.Has(ev.Kind) && (c.Filter == nil || c.Filter(ev))
	}
	first, second := -1, -1
	for j := range events {
		b := &events[j]
		if !takes(n.other, b) || b.At < from || b.At >= to || second >= 0 && events[second].At >= b.At {
			continue
		}
		before := -1
		for i := range events {
			a := &events[i]
			if takes(n.cell, a) && a.At < b.At && int64(b.At-a.At) <= n.n && (before < 0 || events[before].At < a.At) {
				before = i
			}
		}
		if before >= 0 {
			first, second = before, j
		}
	}
	if second < 0 {
		return nil
	}
	return []Behind{{Question: n.source, Event: first, Of: 2, Newest: true}, {Question: n.source, Event: second, Of: 2, Newest: true}}
}
