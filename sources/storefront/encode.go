package storefront

import (
	"strconv"
	"time"

	"footfall/schemas"
)

// event is what a shopper does, before it is written down.
type event struct {
	kind     schemas.Kind
	session  *session // nil for a refund
	shopper  *shopper
	at       schemas.Millis
	product  uint32
	quantity uint8
	order    uint64 // purchase, refund
	amount   int64  // minor units; purchase, refund
}

// remove takes a line out of the cart.
func (ev *event) remove(v *session, i int) {
	ev.product, ev.quantity = v.cart[i].product, v.cart[i].quantity
	v.cart = append(v.cart[:i], v.cart[i+1:]...)
}

// valueBytes is more than most values take; a larger one only costs a copy.
const valueBytes = 640

// value writes an event as the contract has it. No text in it needs escaping.
func (s *Shop) value(ev *event) []byte {
	b := s.memory.room(valueBytes)
	b = append(b, `{"event_id":"e`...)
	b = append(appendHex(b, s.eventID()), '"')
	b = text(b, "type", ev.kind.String())
	b = append(append(append(b, `,"user_id":"`...), ev.shopper.id...), '"')
	b = s.appendTime(append(b, `,"time":`...), ev)
	if v := ev.session; v != nil {
		b = append(append(append(b, `,"session_id":"`...), ev.shopper.id...), '-')
		b = append(strconv.AppendUint(b, uint64(v.number), 10), '"')
	}
	switch ev.kind {
	case schemas.View, schemas.AddToCart, schemas.RemoveFromCart:
		b = s.appendProduct(b, ev.product, "product_id")
		b = append(s.appendMoney(append(b, `,"price":`...), s.catalog.price(ev.product), ev.shopper.currency), `,"currency":"`...)
		b = append(append(b, ev.shopper.currency...), '"')
		if ev.quantity > 0 {
			b = strconv.AppendUint(append(b, `,"quantity":`...), uint64(ev.quantity), 10)
			b = cart(b, ev)
		}
	case schemas.Purchase, schemas.Refund:
		b = s.appendOrder(b, ev)
	case schemas.Search, schemas.Kinds:
	}
	if v := ev.session; v != nil {
		b = text(b, "channel", channels[v.channel])
		if v.campaign > 0 {
			b = text(b, "campaign", campaigns[v.campaign])
		}
	}
	b = s.appendPage(ev.appendPerson(b), ev)
	return s.memory.keep(append(b, '}'))
}

// appendTime writes milliseconds, as the app does, or RFC 3339 at the shopper's
// offset, as the web shop does.
func (s *Shop) appendTime(b []byte, ev *event) []byte {
	if ev.session == nil || ev.session.app {
		return strconv.AppendInt(b, int64(ev.at), 10)
	}
	return append(appendRFC3339(append(b, '"'), ev.at, int(ev.session.offset)), '"')
}

// appendRFC3339 writes a time with milliseconds. It is Format without the work of
// reading a layout: a third of an event's cost.
func appendRFC3339(b []byte, at schemas.Millis, offset int) []byte {
	t := time.UnixMilli(int64(at) + int64(offset)*60_000).UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	two := func(b []byte, n int) []byte { return append(b, byte('0'+n/10%10), byte('0'+n%10)) }
	b = two(two(b, year/100), year)
	b = two(append(b, '-'), int(month))
	b = two(append(b, '-'), day)
	b = two(append(b, 'T'), hour)
	b = two(append(b, ':'), minute)
	b = two(append(b, ':'), second)
	ms := int(at % 1000)
	b = append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
	if offset == 0 {
		return append(b, 'Z')
	}
	b = two(append(b, '+'), offset/60)
	return two(append(b, ':'), offset%60)
}

func (s *Shop) appendProduct(b []byte, product uint32, name string) []byte {
	b = append(append(append(b, ',', '"'), name...), `":"p`...)
	b = append(strconv.AppendUint(b, 10_000+uint64(product), 10), '"')
	b = text(b, "category", category(product))
	if br := brand(product); br != "" {
		b = text(b, "brand", br)
	}
	return b
}

// appendMoney writes minor units as a decimal of the currency.
func (s *Shop) appendMoney(b []byte, minor int64, currency string) []byte {
	decimals, _ := schemas.Exponent(currency) // New has looked it up
	if decimals == 0 {
		return strconv.AppendInt(b, minor, 10)
	}
	unit := int64(1)
	for range decimals {
		unit *= 10
	}
	b = append(strconv.AppendInt(b, minor/unit, 10), '.')
	for unit /= 10; unit > 0; unit /= 10 {
		b = append(b, byte('0'+minor/unit%10))
	}
	return b
}

// appendOrder writes a purchase's items, and its revenue unless the items say as
// much; or a refund's revenue.
func (s *Shop) appendOrder(b []byte, ev *event) []byte {
	b = text(b, "currency", ev.shopper.currency)
	if ev.kind == schemas.Purchase {
		b = cart(b, ev)
	}
	b = strconv.AppendUint(append(b, `,"order_id":"o`...), 1_000_000+ev.order, 10)
	b = append(b, '"')
	if ev.kind == schemas.Refund || ev.order%4 != 0 {
		b = s.appendMoney(append(b, `,"revenue":`...), ev.amount, ev.shopper.currency)
	}
	if ev.kind == schemas.Refund {
		return b
	}
	b = append(b, `,"items":[`...)
	for i, l := range ev.session.cart {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"product_id":"p`...)
		b = append(strconv.AppendUint(b, 10_000+uint64(l.product), 10), '"')
		b = text(b, "category", category(l.product))
		b = s.appendMoney(append(b, `,"price":`...), s.catalog.price(l.product), ev.shopper.currency)
		b = append(strconv.AppendUint(append(b, `,"quantity":`...), uint64(l.quantity), 10), '}')
	}
	return append(b, ']')
}

// appendPage writes where in the shop it happened, and what was searched for.
func (s *Shop) appendPage(b []byte, ev *event) []byte {
	switch ev.kind {
	case schemas.View:
		b = append(b, `,"url":"https://shop.example/p/`...)
		b = append(strconv.AppendUint(b, 10_000+uint64(ev.product), 10), '"')
	case schemas.Search:
		q := queries[int(ev.product)%len(queries)]
		b = append(b, `,"url":"https://shop.example/search","properties":{"query":"`...)
		b = append(append(b, q...), `"}`...)
	case schemas.AddToCart, schemas.RemoveFromCart, schemas.Purchase, schemas.Refund, schemas.Kinds:
	}
	return b
}

func cart(b []byte, ev *event) []byte {
	b = append(append(append(b, `,"cart_id":"c`...), ev.shopper.id...), '-')
	return append(strconv.AppendUint(b, uint64(ev.session.number), 10), '"')
}

// text writes a member whose value needs no escaping.
func text(b []byte, name, value string) []byte {
	b = append(append(b, ',', '"'), name...)
	b = append(append(b, '"', ':', '"'), value...)
	return append(b, '"')
}

const hexDigits = "0123456789abcdef"

func appendHex(b []byte, v uint64) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, hexDigits[v>>shift&15])
	}
	return b
}
