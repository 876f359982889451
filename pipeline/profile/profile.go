// Package profile is what footfall knows of a shopper, and the table that finds
// it by the shopper's id.
//
// It is pure: no clock, no lock, no I/O, and no rule about what a profile means;
// it may panic on a broken invariant.
package profile

import (
	"math"

	"footfall/schemas"
)

// Profile is one shopper's recency, frequency and monetary value: 64 bytes, one
// cache line, without pointers. The zero value is a shopper of whom nothing is
// known.
type Profile struct {
	First, Last                 schemas.Millis // first and last event time, as sent
	FirstPurchase, LastPurchase schemas.Millis // 0 without purchase
	Revenue                     int64          // purchases less refunds, minor units of the reporting currency
	Counts                      [schemas.Kinds]uint32
}

// Orders is how many purchases there were; refunds do not lower it.
func (p *Profile) Orders() uint32 { return p.Counts[schemas.Purchase] }

// Fold adds an event. It is commutative and associative (design 3.1): minima,
// maxima and integer sums only, so that late events need no special case.
// Event times are kept as sent; who looks at them clamps them to the clock.
func (p *Profile) Fold(ev *schemas.Event) {
	if p.First == 0 || ev.At < p.First {
		p.First = ev.At
	}
	p.Last = max(p.Last, ev.At)
	if c := &p.Counts[ev.Kind]; *c < math.MaxUint32 {
		*c++
	}
	switch ev.Kind {
	case schemas.Purchase:
		if p.FirstPurchase == 0 || ev.At < p.FirstPurchase {
			p.FirstPurchase = ev.At
		}
		p.LastPurchase = max(p.LastPurchase, ev.At)
		p.Revenue += ev.Amount
	case schemas.Refund:
		p.Revenue -= ev.Amount
	case schemas.View, schemas.AddToCart, schemas.RemoveFromCart, schemas.Search:
	default:
		panic("profile: fold of an unknown kind of event")
	}
}

// Facts is the profile as transitions tell it.
func (p *Profile) Facts() schemas.Facts {
	return schemas.Facts{
		First: p.First, Last: p.Last,
		FirstPurchase: p.FirstPurchase, LastPurchase: p.LastPurchase,
		Orders: p.Orders(), Revenue: p.Revenue,
	}
}
