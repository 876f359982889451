package storefront

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"

	"footfall/schemas"
)

// Config is a simulated shop. Zero fields take the defaults named; equal Configs give
// equal records, byte for byte (on one processor architecture: it calculates with
// floats).
type Config struct {
	Seed  uint64
	Start schemas.Millis // when it goes live

	// History is how long before Start the shop has been open. Records before Start
	// are free of faults; Run publishes them at once, as lane backfill, so that the
	// live part begins with shoppers in every segment.
	History schemas.Millis

	Shoppers int     // alive at the beginning; 5,000
	Arrivals float64 // new shoppers a day; 0.5% of Shoppers
	Products int     // 2,000
	Currency string  // EUR

	// Foreign are other currencies, which a shopper in fifty pays in. The contract
	// needs a rate for each.
	Foreign []string

	Faults Faults // DefaultFaults if nil

	// Ahead is how far the events that are to be refused as future lie ahead, at least
	// (and twice that at most); an hour. On a clock that runs fast it must be more than
	// what the clock runs while a record is on its way.
	Ahead schemas.Millis
}

// EventsPerShopperDay is about how many events a day a shop has for each of its first
// shoppers; so Shoppers = rate * 86400 / speed gives a rate a second at a speed.
const EventsPerShopperDay = 1.0

// Note says what a record is.
type Note struct {
	Fault   Fault
	Refusal schemas.Refusal // of a Broken one: the reason it must be refused for
	Kind    schemas.Kind    // of the event, before it was broken
}

// Shop is an endless, time-ordered stream of the events of a storefront. Shoppers
// come back after days or weeks, by daytime, weekday and season; they browse what is
// popular (Zipf), fill a cart, mostly abandon it, sometimes buy, seldom send back; some
// stay away for good, some for months, and new ones arrive. A visit drops the shopper
// out with a fixed chance, as in the BG/NBD model (Fader, Hardie, Lee, "Counting Your
// Customers the Easy Way", Marketing Science 24(2), 2005).
//
// A record costs O(log n): a heap has the next action of each shopper. One goroutine
// may use a Shop.
type Shop struct {
	cfg      Config
	rng      *rand.Rand
	agenda   agenda
	catalog  *catalog
	shoppers []shopper
	free     []uint32  // shoppers who will not come back
	sessions []session // of the shoppers who are in one
	idle     []uint32  // sessions not in use
	deferred slots[parcel]
	refunds  slots[order]
	faults   chances
	born     uint64 // shoppers so far
	events   uint64 // event ids so far
	orders   uint64
	memory   slab
}

// parcel is a record that arrives later than it was made.
type parcel struct {
	record Record
	note   Note
}

// order is a purchase that will be sent back.
type order struct {
	user     []byte // whose it is: the shopper may be gone by then
	number   uint64
	amount   int64
	currency string
}

// New returns a shop at its beginning, or all that is wrong with its Config.
func New(cfg Config) (*Shop, error) {
	cfg.Shoppers = cmp.Or(cfg.Shoppers, 5000)
	cfg.Arrivals = cmp.Or(cfg.Arrivals, float64(cfg.Shoppers)/200)
	cfg.Products = cmp.Or(cfg.Products, 2000)
	cfg.Currency = cmp.Or(cfg.Currency, "EUR")
	cfg.Ahead = cmp.Or(cfg.Ahead, schemas.Hour)
	if cfg.Faults == nil {
		cfg.Faults = DefaultFaults()
	}
	s := &Shop{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x666f6f7466616c6c))}
	var errs []error
	for _, c := range append([]string{cfg.Currency}, cfg.Foreign...) {
		if _, ok := schemas.Exponent(c); !ok {
			errs = append(errs, fmt.Errorf("currency %q is not in ISO 4217", c))
		}
	}
	if cfg.Shoppers < 1 || cfg.Shoppers > 1<<28 || cfg.Products < 1 || cfg.Products > 1<<24 || cfg.Arrivals <= 0 {
		errs = append(errs, fmt.Errorf("a shop needs 1 to %d shoppers, 1 to %d products and some arrivals, not %d, %d, %g",
			1<<28, 1<<24, cfg.Shoppers, cfg.Products, cfg.Arrivals))
	}
	if cfg.Start-cfg.History < earliest || cfg.History < 0 {
		errs = append(errs, fmt.Errorf("the shop must open in 1990 or later, not at %d ms", cfg.Start-cfg.History))
	}
	if cfg.Ahead < 0 {
		errs = append(errs, fmt.Errorf("future events lie ahead, not by %d ms", cfg.Ahead))
	}
	var err error
	if s.faults, err = cfg.Faults.chances(); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s.catalog = newCatalog(s.rng, cfg.Products)
	s.open()
	return s, nil
}

// earliest is 1991-01-01T00:00:00Z: a year after the contract's first event, so that
// nothing a shop says is before it by accident.
const earliest schemas.Millis = 662_688_000_000

// open lets in the first shoppers, each somewhere between two visits.
func (s *Shop) open() {
	at := s.cfg.Start - s.cfg.History
	for range s.cfg.Shoppers {
		i := s.arrive()
		first := at + schemas.Millis(s.rng.Float64()*float64(s.shoppers[i].gap))
		s.agenda.push(s.daytime(first, at), visit, i)
	}
	s.agenda.push(at, arrival, 0)
}

// Start is when the shop goes live; records before it are history.
func (s *Shop) Start() schemas.Millis { return s.cfg.Start }

// Next returns the next record and what it is. Times never decrease. The record is
// the caller's.
func (s *Shop) Next() (Record, Note) {
	for {
		now, what, i := s.agenda.pop()
		switch what {
		case arrival:
			s.agenda.push(now+s.wait(float64(schemas.Day)/s.cfg.Arrivals), arrival, 0)
			s.begin(s.arrive(), now)
		case visit:
			s.begin(i, now)
		case step:
			if rec, note, ok := s.step(i, now); ok {
				return rec, note
			}
		case delivery:
			p := s.deferred.take(i)
			p.record.Time = now
			return p.record, p.note
		case refund:
			if rec, note, ok := s.sendBack(i, now); ok {
				return rec, note
			}
		}
	}
}

// wait draws an exponential time of the given mean, at least a millisecond.
func (s *Shop) wait(mean float64) schemas.Millis {
	return max(1, schemas.Millis(s.rng.ExpFloat64()*mean))
}

// eventID returns a name that no other event of this shop has: a bijection of a
// counter (the finaliser of MurmurHash3).
func (s *Shop) eventID() uint64 {
	s.events++
	h := s.events ^ s.cfg.Seed<<20
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

func userID(n uint64) []byte {
	return strconv.AppendUint([]byte("u"), 100_000+n, 10)
}

// slots keep values by number and give the numbers out again.
type slots[T any] struct {
	values []T
	free   []uint32
}

func (s *slots[T]) put(v T) uint32 {
	if n := len(s.free); n > 0 {
		i := s.free[n-1]
		s.free = s.free[:n-1]
		s.values[i] = v
		return i
	}
	s.values = append(s.values, v)
	return uint32(len(s.values) - 1)
}

func (s *slots[T]) take(i uint32) T {
	var zero T
	v := s.values[i]
	s.values[i] = zero
	s.free = append(s.free, i)
	return v
}

// slab gives memory for records in large pieces, none of it twice: a piece is garbage
// once all its records are.
type slab struct{ rest []byte }

const slabBytes = 256 << 10

// room returns an empty slice with room for n bytes.
func (s *slab) room(n int) []byte {
	if n > slabBytes/8 {
		return make([]byte, 0, n)
	}
	if cap(s.rest) < n {
		s.rest = make([]byte, 0, slabBytes)
	}
	return s.rest[:0]
}

// keep takes what was written into room's slice.
func (s *slab) keep(b []byte) []byte {
	if cap(b) == cap(s.rest) { // it did not outgrow the slab
		s.rest = b[len(b):]
	}
	return slices.Clip(b)
}
