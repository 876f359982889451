package oracle

import "slices"

const day = 86_400_000 // milliseconds

// setName is the built-in segment set, the one the oracle knows.
const setName = "lifecycle"

// profile is what the lifecycle set asks of a user. Times are Unix
// milliseconds, 0 for none: the contract takes none before 1990.
type profile struct {
	first, last                 int64
	firstPurchase, lastPurchase int64
	orders, revenue             int64
}

// fold adds an event. The order of events doesn't matter.
func (p *profile) fold(ev *event) {
	p.first, p.last = earliest(p.first, ev.time), max(p.last, ev.time)
	switch ev.kind {
	case "purchase":
		p.orders++
		p.revenue += ev.amount
		p.firstPurchase, p.lastPurchase = earliest(p.firstPurchase, ev.time), max(p.lastPurchase, ev.time)
	case "refund":
		p.revenue -= ev.amount
	}
}

func earliest(known, t int64) int64 {
	if known == 0 {
		return t
	}
	return min(known, t)
}

// segment says where the user is at time t: the first rule that holds.
func (p *profile) segment(t int64) string {
	since := func(x int64) int64 { return max(0, t-x) }
	switch {
	case p.orders >= 1 && since(p.lastPurchase) >= 180*day:
		return "lost"
	case since(p.last) >= 90*day:
		return "dormant"
	case p.orders == 1 && since(p.lastPurchase) < 30*day:
		return "new"
	case p.orders >= 2 && since(p.lastPurchase) < 30*day:
		return "active"
	case p.orders >= 1:
		return "cooling"
	}
	return "prospect"
}

// boundaries are the times at which a rule can come to hold, or cease to, with
// no further event; in order.
func (p *profile) boundaries() []int64 {
	at := []int64{p.last + 90*day}
	if p.orders > 0 {
		at = append(at, p.lastPurchase+30*day, p.lastPurchase+180*day)
	}
	slices.Sort(at)
	return at
}

// next is the next change by silence alone after time t; at is 0 for never.
func (p *profile) next(t int64) (to string, at int64) {
	now := p.segment(t)
	for _, b := range p.boundaries() {
		if b > t && p.segment(b) != now {
			return p.segment(b), b
		}
	}
	return "", 0
}
