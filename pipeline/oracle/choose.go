package oracle

import "slices"

// path is one assumption about the clock at a user's counted events, and how
// many of the things said, or not said, of this user it fails to explain.
type path struct {
	clock int64
	cost  int
	prev  *path
}

// words is what was said of a user, as far as it tells the clock.
type words struct {
	events map[int64]int64       // at, by the offset of the event that caused it
	timers map[int64]*Transition // by due time
	dues   []int64               // of timers, in order
}

// choose assumes a clock for each counted event, within its bounds, such that
// what was said is explained best. Where a record is silent and its clock known
// only within bounds, only the lowest and those at which a rule changes make a
// difference.
func (u *user) choose(w words, may, must int64) []int64 {
	if !slices.ContainsFunc(u.events, func(ev *event) bool { return ev.lo != ev.hi }) {
		return u.clocks()
	}
	var before profile
	paths := []*path{{}}
	for i, ev := range u.events {
		after := before
		after.fold(ev)
		at, spoke := w.events[ev.offset]
		var grown []*path
		for _, p := range paths {
			for _, c := range candidates(&before, &after, ev, p.clock, at, spoke) {
				cost := p.cost
				if i > 0 {
					cost += before.unexplained(&w, p.clock, c, c)
				}
				if changes := i == 0 || before.segment(c) != after.segment(c); changes != spoke {
					cost++
				}
				grown = keep(grown, &path{clock: c, cost: cost, prev: p})
			}
		}
		paths, before = grown, after
	}
	best, lowest := paths[0], -1
	for _, p := range paths {
		if cost := p.cost + before.unexplained(&w, p.clock, may, must); lowest < 0 || cost < lowest {
			best, lowest = p, cost
		}
	}
	clocks := make([]int64, len(u.events))
	for i := range slices.Backward(clocks) {
		clocks[i], best = best.clock, best.prev
	}
	return clocks
}

// candidates are the clocks worth trying for an event that follows an evaluation
// at time evaluated.
func candidates(before, after *profile, ev *event, evaluated, at int64, spoke bool) []int64 {
	low := max(ev.lo, evaluated)
	high := max(ev.hi, low)
	if spoke {
		return []int64{min(max(at, low), high)}
	}
	out := []int64{low}
	for _, p := range []*profile{before, after} {
		for _, b := range p.boundaries() {
			if b > low && b <= high {
				out = append(out, b)
			}
		}
	}
	return out
}

// unexplained counts the timers in (from, may] that the profile does not explain
// though they were said, or were said otherwise, and those in (from, must] that
// were not said though it does.
func (p *profile) unexplained(w *words, from, may, must int64) int {
	n := 0
	for _, due := range w.dues {
		if due > from && due <= may {
			n++
		}
	}
	for at := from; ; {
		to, due := p.next(at)
		if due == 0 || due > may {
			return n
		}
		switch said := w.timers[due]; {
		case said == nil && due <= must:
			n++
		case said != nil && p.saidAs(said, to):
			n--
		}
		at = due
	}
}

// saidAs tells whether a timer's transition shows this profile.
func (p *profile) saidAs(t *Transition, to string) bool {
	return t.To == to && t.Orders == p.orders && t.RevenueMinor == p.revenue && t.First == p.first && t.Last == p.last &&
		t.FirstPurchase == p.firstPurchase && t.LastPurchase == p.lastPurchase
}

// keep adds a path unless one with the same clock is as good.
func keep(paths []*path, p *path) []*path {
	for i, q := range paths {
		if q.clock == p.clock {
			if p.cost < q.cost {
				paths[i] = p
			}
			return paths
		}
	}
	return append(paths, p)
}
