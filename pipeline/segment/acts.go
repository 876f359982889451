package segment

import (
	"slices"

	"footfall/schemas"
)

// Act is something a user could do now, and where it would lead.
type Act struct {
	Kind   schemas.Kind
	Set    int
	To     uint16
	Amount int64 // the least that leads there, minor units of the reporting currency; 0: any
}

const (
	amountMost = 100_000_000_000 // what an act may cost, minor units
	stepsMost  = 4               // segments that amounts of one act are told to lead to
)

// Acts tries, on a copy of a user, one event of each kind at the moment: what is bought,
// viewed or put into the cart is something new, of any price, and nothing else is known
// of it. Rules that ask for a category or a channel are thus not met. Nothing is taken out
// of a cart: what that leads to depends on what it is. What is folded and
// evaluated for it is bounded by the kinds, the sets and stepsMost: some milliseconds.
func (e *Evaluator) Acts(m Moment) (acts []Act) {
	into, rows := make([]uint16, e.p.Sets()), m.View.Copy()
	// try gives the segments after an event of a kind and an amount.
	try := func(kind schemas.Kind, amount int64) []uint16 {
		pr := *m.Profile
		rows.Take(m.View)
		ev := hypothetical(kind, m.Now, amount)
		pr.Fold(&ev)
		rows.Fold(0, &ev, m.Now)
		copy(into, m.In)
		e.Eval(&pr, rows.View(0), m.Now, into)
		return into
	}
	for kind := range schemas.Kinds {
		if kind == schemas.RemoveFromCart {
			continue
		}
		least := slices.Clone(try(kind, 0))
		most := least
		if priced(kind) {
			most = slices.Clone(try(kind, amountMost))
		}
		for set, to := range least {
			if to == schemas.NoSegment {
				continue
			}
			if to != m.In[set] {
				acts = append(acts, Act{Kind: kind, Set: set, To: to})
			}
			acts = append(acts, steps(kind, set, to, most[set], func(amount int64) uint16 { return try(kind, amount)[set] })...)
		}
	}
	return acts
}

// steps finds the least amounts that lead from one segment to others, up to the last:
// by halving, as if more money never led back.
func steps(kind schemas.Kind, set int, from, last uint16, at func(amount int64) uint16) (acts []Act) {
	low := int64(0)
	for from != last && len(acts) < stepsMost {
		high := int64(amountMost)
		for low+1 < high {
			if mid := low + (high-low)/2; at(mid) == from {
				low = mid
			} else {
				high = mid
			}
		}
		from, low = at(high), high
		acts = append(acts, Act{Kind: kind, Set: set, To: from, Amount: high})
	}
	return acts
}

// priced tells kinds of events whose amount may decide.
func priced(kind schemas.Kind) bool {
	return kind == schemas.Purchase || kind == schemas.Refund || kind == schemas.AddToCart
}

// hypothetical is an event of which nothing is known but its kind. A purchase closes
// every cart: it is of whatever was in them.
func hypothetical(kind schemas.Kind, at schemas.Millis, amount int64) schemas.Event {
	const one = 1_000_000
	ev := schemas.Event{ID: []byte{0}, User: []byte{0}, At: at, Kind: kind, Quantity: one, SessionID: []byte{0}}
	switch kind {
	case schemas.Purchase, schemas.Refund:
		ev.Amount, ev.OrderID = amount, []byte{0}
	case schemas.AddToCart:
		ev.Worth, ev.ProductID = amount, []byte{0}
	case schemas.View:
		ev.ProductID = []byte{0}
	case schemas.Search:
	default:
	}
	return ev
}
