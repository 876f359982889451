package segment

import (
	"fmt"
	"slices"
	"sort"
)

// Limits of the search for rules that nobody can reach (R4): combinations of values, and
// conditions asked in all of them together, which takes a second. A set that has more is
// not looked at.
const (
	regionsMax = 1 << 18
	askedMax   = 1 << 27
)

// quantity is something that conditions of a set compare with constants. Its values
// fall into regions, within which every condition has the same answer.
type quantity struct {
	cuts  []int64  // ordered: region i is [cuts[i-1], cuts[i])
	texts []string // not ordered: region i+1 is texts[i], 0 any other
}

func (q *quantity) regions() int { return 1 + max(len(q.cuts), len(q.texts)) }

// question is a condition without conditions in it, as one about a quantity.
type question struct {
	on  int                   // index of the quantity
	yes func(region int) bool // whether it holds in a region
}

// regions finds out which rules of a set somebody can reach.
type regions struct {
	quantities []quantity
	byKey      map[string]int
	questions  map[*node]question
	conditions int // of all rules, those made of conditions too
}

// unreachable refuses rules that can never hold, or only where a rule before them
// holds too. Quantities are taken to be independent of each other, so a rule that is
// refused is truly out of reach; one that is not may still be.
func unreachable(s *set, names []string) (errs []error) {
	r := &regions{byKey: map[string]int{}, questions: map[*node]question{}}
	for i := range s.rules {
		r.cut(s.rules[i].when)
	}
	total := 1
	for i := range r.quantities {
		if total *= r.quantities[i].regions(); total > regionsMax || total*r.conditions > askedMax {
			return nil
		}
	}
	for i := range s.rules {
		r.ask(s.rules[i].when)
	}
	first, holds := make([]bool, len(s.rules)), make([]bool, len(s.rules))
	at := make([]int, len(r.quantities))
	for {
		taken := false
		for i := range s.rules {
			if s.rules[i].when == nil || r.holds(s.rules[i].when, at) {
				holds[i] = true
				first[i] = first[i] || !taken
				taken = true
			}
		}
		if !r.next(at) {
			break
		}
	}
	for i, rule := range s.rules {
		if first[i] {
			continue
		}
		e := *rule.where
		switch {
		case rule.when == nil:
			e.What = fmt.Sprintf("segment %q: nobody is left for it; the rules before it take everybody", names[i])
		case !holds[i]:
			e.What = fmt.Sprintf("segment %q: its condition can never hold", names[i])
		default:
			e.What = fmt.Sprintf("segment %q: nobody can reach it; wherever its condition holds, a rule before it does too", names[i])
		}
		errs = append(errs, &e)
	}
	return errs
}

// next goes on to the next combination of regions.
func (r *regions) next(at []int) bool {
	for i := range at {
		if at[i]++; at[i] < r.quantities[i].regions() {
			return true
		}
		at[i] = 0
	}
	return false
}

func (r *regions) quantity(key string) *quantity {
	i, known := r.byKey[key]
	if !known {
		i = len(r.quantities)
		r.byKey[key] = i
		r.quantities = append(r.quantities, quantity{})
	}
	return &r.quantities[i]
}

func (q *quantity) cut(at int64) {
	if i, found := slices.BinarySearch(q.cuts, at); !found {
		q.cuts = slices.Insert(q.cuts, i, at)
	}
}

// region is the one that begins at a cut.
func (q *quantity) region(at int64) int {
	i := sort.Search(len(q.cuts), func(i int) bool { return q.cuts[i] >= at })
	return i + 1
}

// keyOf is what a question is about.
func keyOf(n *node) (key string) {
	switch n.op {
	case opSinceIs:
		if _, ok := n.args[1].isConst(); ok {
			return "since " + n.args[0].source
		}
	case opReached:
		if _, ok := n.args[0].isConst(); ok {
			return "now"
		}
	case opAtLeast:
		return "count " + n.cell.Name + n.win.String()
	case opIsSegment:
		return fmt.Sprintf("segment %d", n.n)
	case opLess, opEqual:
		for i, a := range n.args {
			if _, ok := n.args[1-i].isConst(); ok {
				return "value " + a.source
			}
		}
	default:
	}
	return "condition " + n.source
}

// cut notes at which values the answers of a condition change.
func (r *regions) cut(n *node) {
	if n == nil {
		return
	}
	r.conditions++
	switch n.op {
	case opAnd, opOr, opNot, opChoose:
		for _, a := range n.args {
			r.cut(a)
		}
		return
	case opConst:
		return
	default:
	}
	q := r.quantity(keyOf(n))
	switch n.op {
	case opSinceIs:
		if d, ok := n.args[1].isConst(); ok {
			q.cut(d)
			return
		}
	case opReached:
		if t, ok := n.args[0].isConst(); ok {
			q.cut(t)
			return
		}
	case opAtLeast:
		q.cut(n.n)
		return
	case opIsSegment:
		for _, name := range n.list {
			if !slices.Contains(q.texts, name) {
				q.texts = append(q.texts, name)
			}
		}
		return
	case opLess:
		if v, ok := n.args[1].isConst(); ok { // a < v
			q.cut(v)
			return
		}
		if v, ok := n.args[0].isConst(); ok { // v < b
			q.cut(v + 1)
			return
		}
	case opEqual:
		for i := range n.args {
			v, ok := n.args[i].isConst()
			if !ok {
				continue
			}
			if n.args[i].typ == text {
				if name := fmt.Sprint(v); !slices.Contains(q.texts, name) {
					q.texts = append(q.texts, name)
				}
				return
			}
			q.cut(v)
			q.cut(v + 1)
			return
		}
	default:
	}
	q.cut(1) // false below, true from there on
}

// ask makes the questions of a condition, after all cuts are known.
func (r *regions) ask(n *node) {
	if n == nil || n.op == opConst {
		return
	}
	if n.op == opAnd || n.op == opOr || n.op == opNot || n.op == opChoose {
		for _, a := range n.args {
			r.ask(a)
		}
		return
	}
	on := r.byKey[keyOf(n)]
	q := &r.quantities[on]
	from := func(at int64) func(int) bool {
		least := q.region(at)
		return func(region int) bool { return region >= least }
	}
	not := func(f func(int) bool) func(int) bool { return func(region int) bool { return !f(region) } }
	yes := from(1)
	switch n.op {
	case opSinceIs:
		if d, ok := n.args[1].isConst(); ok {
			yes = from(d)
		}
	case opReached:
		if t, ok := n.args[0].isConst(); ok {
			yes = from(t)
		}
	case opAtLeast:
		yes = from(n.n)
	case opIsSegment:
		yes = func(region int) bool { return region > 0 && slices.Contains(n.list, q.texts[region-1]) }
	case opLess:
		if v, ok := n.args[1].isConst(); ok {
			yes = not(from(v))
		} else if v, ok := n.args[0].isConst(); ok {
			yes = from(v + 1)
		}
	case opEqual:
		for i := range n.args {
			v, ok := n.args[i].isConst()
			if !ok {
				continue
			}
			if n.args[i].typ == text {
				want := 1 + slices.Index(q.texts, fmt.Sprint(v))
				yes = func(region int) bool { return region == want }
			} else {
				want := q.region(v)
				yes = func(region int) bool { return region == want }
			}
		}
	default:
	}
	r.questions[n] = question{on, yes}
}

// holds tells whether a condition holds in a combination of regions.
func (r *regions) holds(n *node, at []int) bool {
	switch n.op {
	case opConst:
		return n.n != 0
	case opAnd:
		return r.holds(n.args[0], at) && r.holds(n.args[1], at)
	case opOr:
		return r.holds(n.args[0], at) || r.holds(n.args[1], at)
	case opNot:
		return !r.holds(n.args[0], at)
	case opChoose:
		if r.holds(n.args[0], at) {
			return r.holds(n.args[1], at)
		}
		return r.holds(n.args[2], at)
	default:
	}
	q := r.questions[n]
	return q.yes(at[q.on])
}
