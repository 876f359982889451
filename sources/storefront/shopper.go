package storefront

import (
	"math"

	"footfall/schemas"
)

// How shoppers behave. The chances are of one session, the gaps in days.
const (
	gapMedian, gapSigma   = 9.0, 0.8 // between visits: lognormal over shoppers
	gapMin, gapMax        = 1.0, 60.0
	buyers                = 0.45 // share of shoppers who come to buy
	buyMin, buyMax        = 0.15, 0.45
	browseMax             = 0.04 // chance of a purchase by the others
	dropOut               = 0.03 // chance that a visit is the last, for now
	comeBack              = 0.25 // of those who dropped out
	awayMin, awayMean     = 60.0, 120.0
	sentBack              = 0.06 // of orders
	sentBackMin           = 2.0
	sentBackMean          = 6.0
	stepMedian, stepSigma = 25_000.0, 0.9 // between two steps of a session, ms
	pagesMean             = 4.0
	cartAdds              = 0.10 // chance that who does not mean to buy puts a view into the cart
	searches              = 0.12
	removals              = 0.15 // of steps with something in the cart
	cartMax               = 8
)

// shopper is one person; between sessions nothing more is known of it.
type shopper struct {
	id       []byte
	gap      float64 // mean time between visits, ms
	buy      float32 // chance that a session ends with a purchase
	taste    uint16  // favourite category
	sessions uint32
	currency string
}

// session is a visit under way.
type session struct {
	shopper  uint32
	pages    uint16 // still to look at
	buying   bool
	app      bool  // times as milliseconds, else RFC 3339
	offset   int16 // of the shopper's clock, minutes from UTC
	channel  uint8
	campaign uint8 // 0: none
	number   uint32
	cart     []line
}

// line is a product in a cart.
type line struct {
	product  uint32
	quantity uint8
}

// arrive makes a new shopper.
func (s *Shop) arrive() uint32 {
	p := shopper{
		id:       userID(s.born),
		gap:      math.Min(gapMax, math.Max(gapMin, gapMedian*math.Exp(gapSigma*s.rng.NormFloat64()))) * float64(schemas.Day),
		buy:      float32(s.rng.Float64() * browseMax),
		taste:    uint16(s.rng.IntN(len(categories))),
		currency: s.cfg.Currency,
	}
	s.born++
	if s.rng.Float64() < buyers {
		p.buy = float32(buyMin + s.rng.Float64()*(buyMax-buyMin))
	}
	if len(s.cfg.Foreign) > 0 && s.rng.IntN(50) == 0 {
		p.currency = s.cfg.Foreign[s.rng.IntN(len(s.cfg.Foreign))]
	}
	if n := len(s.free); n > 0 {
		i := s.free[n-1]
		s.free = s.free[:n-1]
		s.shoppers[i] = p
		return i
	}
	s.shoppers = append(s.shoppers, p)
	return uint32(len(s.shoppers) - 1)
}

// begin opens a session; its first step is now.
func (s *Shop) begin(i uint32, now schemas.Millis) {
	p := &s.shoppers[i]
	p.sessions++
	v := session{
		shopper: i, number: p.sessions,
		pages:   uint16(1 + s.rng.ExpFloat64()*pagesMean),
		buying:  s.rng.Float64() < float64(p.buy),
		app:     s.rng.IntN(10) < 3,
		channel: s.channel(),
	}
	if !v.app && s.rng.IntN(2) == 0 {
		v.offset = int16(60 * (1 + s.rng.IntN(2)))
	}
	if paid(v.channel) {
		v.campaign = uint8(1 + s.rng.IntN(len(campaigns)-1))
	}
	if v.buying {
		v.pages += 2
	}
	n := uint32(len(s.sessions))
	if k := len(s.idle); k > 0 {
		n = s.idle[k-1]
		s.idle = s.idle[:k-1]
		v.cart = s.sessions[n].cart[:0]
		s.sessions[n] = v
	} else {
		s.sessions = append(s.sessions, v)
	}
	s.agenda.push(now, step, n)
}

// step lets a session's shopper do one thing, and plans the next. It returns false
// if the record arrives later.
func (s *Shop) step(n uint32, now schemas.Millis) (Record, Note, bool) {
	v := &s.sessions[n]
	ev := event{session: v, shopper: &s.shoppers[v.shopper], at: now}
	ends := false
	switch {
	case v.pages == 0 && v.buying && len(v.cart) > 0:
		ev.kind, ends = schemas.Purchase, true
		s.orders++
		ev.order = s.orders
		ev.amount = s.total(v)
		s.mayReturn(v, &ev)
	case v.pages == 0 && len(v.cart) > 0:
		// Looks into the cart once more and leaves it.
		ev.kind, ends = schemas.View, true
		ev.product = v.cart[len(v.cart)-1].product
	case len(v.cart) > 0 && s.rng.Float64() < removals:
		ev.kind = schemas.RemoveFromCart
		ev.remove(v, s.rng.IntN(len(v.cart)))
	case s.rng.Float64() < searches:
		ev.kind = schemas.Search
		ev.product = s.catalog.choose(s.rng, s.shoppers[v.shopper].taste)
	default:
		s.look(v, &ev)
	}
	if v.pages > 0 {
		v.pages--
	}
	ends = ends || v.pages == 0 && len(v.cart) == 0
	rec, note, ok := s.say(&ev)
	if ends {
		s.leave(n, now)
	} else {
		gap := stepMedian * math.Exp(stepSigma*s.rng.NormFloat64())
		s.agenda.push(now+max(200, schemas.Millis(math.Min(gap, float64(20*schemas.Minute)))), step, n)
	}
	return rec, note, ok
}

// look is a view, or what was viewed goes into the cart.
func (s *Shop) look(v *session, ev *event) {
	ev.kind = schemas.View
	ev.product = s.catalog.choose(s.rng, s.shoppers[v.shopper].taste)
	chance := cartAdds
	if v.buying {
		chance = 0.45
		if v.pages <= 1 && len(v.cart) == 0 {
			chance = 1
		}
	}
	if len(v.cart) < cartMax && s.rng.Float64() < chance {
		ev.kind = schemas.AddToCart
		ev.quantity = 1
		if s.rng.IntN(6) == 0 {
			ev.quantity = uint8(2 + s.rng.IntN(3))
		}
		v.cart = append(v.cart, line{ev.product, ev.quantity})
	}
}

func (s *Shop) total(v *session) (amount int64) {
	for _, l := range v.cart {
		amount += s.catalog.price(l.product) * int64(l.quantity)
	}
	return amount
}

// mayReturn plans that a few orders are sent back, days later.
func (s *Shop) mayReturn(v *session, ev *event) {
	if s.rng.Float64() >= sentBack {
		return
	}
	amount := ev.amount
	if l := v.cart[0]; s.rng.IntN(2) == 0 { // only one of the lines
		amount = s.catalog.price(l.product) * int64(l.quantity)
	}
	days := sentBackMin + s.rng.ExpFloat64()*sentBackMean
	at := s.daytime(ev.at+schemas.Millis(days*float64(schemas.Day)), ev.at)
	s.agenda.push(at, refund, s.refunds.put(order{
		user: ev.shopper.id, number: ev.order, amount: amount, currency: ev.shopper.currency,
	}))
}

// sendBack says the refund of an order.
func (s *Shop) sendBack(i uint32, now schemas.Millis) (Record, Note, bool) {
	o := s.refunds.take(i)
	p := shopper{id: o.user, currency: o.currency}
	return s.say(&event{kind: schemas.Refund, shopper: &p, at: now, order: o.number, amount: o.amount})
}

// leave ends a session and plans the shopper's next, if there is one.
func (s *Shop) leave(n uint32, now schemas.Millis) {
	i := s.sessions[n].shopper
	s.idle = append(s.idle, n)
	p := &s.shoppers[i]
	gap := schemas.Millis(p.gap * s.rng.ExpFloat64() / season(now))
	if s.rng.Float64() < dropOut {
		if s.rng.Float64() >= comeBack {
			s.shoppers[i] = shopper{}
			s.free = append(s.free, i)
			return
		}
		gap = schemas.Millis((awayMin + awayMean*s.rng.ExpFloat64()) * float64(schemas.Day))
	}
	s.agenda.push(s.daytime(now+gap, now), visit, i)
}

// hours is how many visits begin in each hour of the day, relatively.
var hours = [24]uint8{14, 8, 4, 3, 3, 6, 14, 26, 38, 46, 50, 52, 56, 52, 48, 48, 50, 56, 66, 78, 86, 78, 54, 28} //nolint:gochecknoglobals // a table

// hourSum is the sum of hours, hourless the sums before each.
const hourSum = 964

// weekdays is how readily people visit, from Sunday, in percent.
var weekdays = [7]int{100, 86, 80, 80, 82, 76, 90} //nolint:gochecknoglobals // a table

// daytime moves a time to a day people like, and to an hour at which they are awake,
// after now.
func (s *Shop) daytime(t, now schemas.Millis) schemas.Millis {
	day := t / schemas.Day
	for s.rng.IntN(100) >= weekdays[(day+4)%7] { // 1970-01-01 was a Thursday
		day++
	}
	r, hour := s.rng.IntN(hourSum), 0
	for r >= int(hours[hour]) {
		r -= int(hours[hour])
		hour++
	}
	at := day*schemas.Day + schemas.Millis(hour)*schemas.Hour + schemas.Millis(s.rng.Int64N(int64(schemas.Hour)))
	if at <= now {
		at += schemas.Day
	}
	return at
}

// season is how often people visit by the day of the year, 1 on average: a low summer,
// a high December, and the week of Black Friday.
func season(now schemas.Millis) float64 {
	day := float64(now%(365*schemas.Day+6*schemas.Hour)) / float64(schemas.Day)
	f := 1 + 0.2*math.Cos(2*math.Pi*(day-345)/365.25)
	if day >= 325 && day < 333 {
		f *= 1.5
	}
	return f
}
