package storefront

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"footfall/schemas"
)

// Fault is what is wrong with a record, on purpose.
type Fault uint8

// The faults.
const (
	NoFault    Fault = iota
	Duplicate        // the same bytes again, within half an hour
	Late             // sent minutes to days after it happened
	OutOfOrder       // sent up to a minute after it happened, so others overtake it
	Broken           // to be refused, for the Note's Refusal
	FaultKinds       // how many there are
)

// String returns the fault's name, as Faults has it; the names of Broken are those of
// the refusals.
func (f Fault) String() string {
	switch f {
	case NoFault:
		return "good"
	case Duplicate:
		return "duplicate"
	case Late:
		return "late"
	case OutOfOrder:
		return "out_of_order"
	case Broken:
		return "broken"
	case FaultKinds:
	}
	return fmt.Sprintf("Fault(%d)", uint8(f))
}

// Faults gives the share of events that have a fault, by its name: duplicate, late,
// out_of_order, or the reason it is refused for (future, truncated, no_key and so on).
type Faults map[string]float64

// DefaultFaults are those of a shop with a few old clients.
func DefaultFaults() Faults {
	f := Faults{"duplicate": 0.005, "late": 0.004, "out_of_order": 0.01}
	for r := schemas.Accepted + 1; r < schemas.Refusals; r++ {
		f[r.String()] = 0.0001
	}
	f["too_large"] = 0.000_004 // a megabyte each
	return f
}

// chance is a slice of the range 0 to 1 that a fault takes.
type chance struct {
	below   float64
	fault   Fault
	refusal schemas.Refusal
}

type chances []chance

func (f Faults) chances() (chances, error) {
	var errs []error
	var list chances
	sum := 0.0
	for _, name := range slices.Sorted(maps.Keys(f)) {
		c := chance{fault: Broken}
		switch name {
		case "duplicate":
			c.fault = Duplicate
		case "late":
			c.fault = Late
		case "out_of_order":
			c.fault = OutOfOrder
		default:
			var ok bool
			if c.refusal, ok = schemas.ParseRefusal(name); !ok || c.refusal == schemas.Accepted {
				errs = append(errs, fmt.Errorf("unknown fault %q: use duplicate, late, out_of_order, or a reason for dead letters: %s", name, strings.Join(reasons(), ", ")))
			}
		}
		if !(f[name] >= 0 && f[name] <= 1) {
			errs = append(errs, fmt.Errorf("fault %s: %g is not a share from 0 to 1", name, f[name]))
		}
		sum += f[name]
		c.below = sum
		list = append(list, c)
	}
	if sum > 1 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("the faults' shares add up to %.4g, more than 1", sum))
	}
	return list, errors.Join(errs...)
}

// reasons are the names of all refusals.
func reasons() (names []string) {
	for r := schemas.Accepted + 1; r < schemas.Refusals; r++ {
		names = append(names, r.String())
	}
	return names
}

func (c chances) draw(r float64) chance {
	if len(c) > 0 && r < c[len(c)-1].below {
		for _, ch := range c {
			if r < ch.below {
				return ch
			}
		}
	}
	return chance{}
}

// say turns an event into a record, with whatever fault befalls it. It returns false
// if the record arrives later. Events before the shop goes live have none.
func (s *Shop) say(ev *event) (Record, Note, bool) {
	rec := Record{Key: ev.shopper.id, Time: ev.at}
	if ev.at < s.cfg.Start {
		rec.Value = s.value(ev)
		return rec, Note{Kind: ev.kind}, true
	}
	c := s.faults.draw(s.rng.Float64())
	note := Note{Fault: c.fault, Refusal: c.refusal, Kind: ev.kind}
	switch c.fault {
	case Broken:
		s.spoil(&rec, ev, c.refusal)
	case Duplicate:
		rec.Value = s.value(ev)
		s.deliver(ev.at+min(s.wait(float64(2*schemas.Minute)), 30*schemas.Minute), rec, note)
		note.Fault = NoFault // the first of the two
	case Late:
		// Log-uniform from two minutes to three days.
		delay := float64(2*schemas.Minute) * math.Pow(2160, s.rng.Float64())
		rec.Value = s.value(ev)
		s.deliver(ev.at+schemas.Millis(delay), rec, note)
		return Record{}, Note{}, false
	case OutOfOrder:
		rec.Value = s.value(ev)
		s.deliver(ev.at+1+schemas.Millis(s.rng.Int64N(int64(schemas.Minute))), rec, note)
		return Record{}, Note{}, false
	case NoFault, FaultKinds:
		rec.Value = s.value(ev)
	}
	return rec, note, true
}

func (s *Shop) deliver(at schemas.Millis, rec Record, note Note) {
	s.agenda.push(at, delivery, s.deferred.put(parcel{rec, note}))
}

// tooLargeBytes is just more than the contract's mebibyte.
const tooLargeBytes = 1<<20 + 1000

// spoil makes a record that must be refused for the reason given.
func (s *Shop) spoil(rec *Record, ev *event, reason schemas.Refusal) {
	if reason == schemas.Future {
		ahead := *ev
		ahead.at += s.cfg.Ahead + schemas.Millis(s.rng.Int64N(int64(s.cfg.Ahead)))
		rec.Value = s.value(&ahead)
		return
	}
	v := s.value(ev)
	pick := func(of ...string) string { return of[s.rng.IntN(len(of))] }
	switch reason {
	case schemas.Tombstone:
		v = nil
	case schemas.TooLarge:
		v = set(v, "properties", `{"page":"`+string(bytes.Repeat([]byte("<div>"), tooLargeBytes/5))+`"}`)
	case schemas.InvalidUTF8:
		v = set(v, "campaign", pick("\"caf\xe9\"", "\"\xff\"", `"\ud83d"`))
	case schemas.Truncated:
		v = v[:s.rng.IntN(len(v))]
	case schemas.NotJSON:
		v = s.notJSON(v)
	case schemas.WrongType:
		v = s.wrongType(v)
	case schemas.MissingField:
		required := []string{"event_id", "type", "user_id", "time"}
		if ev.order > 0 {
			required = append(required, "order_id")
		}
		v = drop(v, pick(required...))
	case schemas.EmptyField:
		v = set(v, pick("event_id", "type", "user_id", "time", "session_id"), `""`)
	case schemas.IDTooLong:
		v = set(v, pick("event_id", "user_id", "product_id", "order_id"), `"`+string(bytes.Repeat([]byte("x"), 257))+`"`)
	case schemas.UnknownType:
		v = set(v, "type", pick(`"pageview"`, `"View"`, `"checkout"`, `"add-to-cart"`))
	case schemas.BadTime:
		v = set(v, "time", pick(`"yesterday"`, `"2024-02-30T10:00:00Z"`, `"2024-01-01T10:00:00"`, `"01/02/2024 10:00"`, "1700000000000.5"))
	case schemas.Before1990:
		v = set(v, "time", pick("0", strconv.FormatInt(int64(ev.at)/1000, 10), `"1970-01-01T00:00:00Z"`, `"0001-01-01T00:00:00Z"`))
	case schemas.NegativeAmount:
		v = set(v, pick("price", "quantity", "revenue"), pick("-1", "-0.01", "-19.90"))
	case schemas.TooManyDecimals:
		v = set(v, pick("price", "revenue"), pick("19.9000001", "1e-7", "0.30000000000000004"))
	case schemas.UnknownCurrency:
		v = set(v, "currency", pick(`"EURO"`, `"eur"`, `"XYZ"`, `"$"`))
	case schemas.AmountOverflow:
		v = set(v, pick("price", "revenue"), pick("1e30", "9300000000000"))
	case schemas.NoKey:
		rec.Key = nil
		if s.rng.IntN(4) == 0 {
			rec.Key = []byte{}
		}
	case schemas.KeyMismatch:
		rec.Key = userID(s.born + 1)
	case schemas.Accepted, schemas.Future, schemas.Refusals:
		panic(fmt.Sprintf("shop: no record is refused as %s", reason))
	}
	rec.Value = v
}

func (s *Shop) notJSON(v []byte) []byte {
	switch s.rng.IntN(5) {
	case 0:
		return []byte("undefined")
	case 1:
		return append(slices.Clone(v), '}')
	case 2:
		return bytes.ReplaceAll(v, []byte(`"`), []byte("'"))
	case 3:
		return set(v, "price", "NaN")
	default:
		return append(slices.Clone(v[:len(v)-1]), ",}"...)
	}
}

func (s *Shop) wrongType(v []byte) []byte {
	switch s.rng.IntN(6) {
	case 0:
		return set(v, "user_id", "12345")
	case 1:
		return set(v, "price", `"19.90"`)
	case 2:
		return set(v, "time", "true")
	case 3:
		return set(v, "items", `{"product_id":"p1"}`)
	case 4:
		return set(v, "properties", "[]")
	default:
		return append(append([]byte{'['}, v...), ']')
	}
}

// set returns an event's JSON, as value writes it, with a member replaced or added.
func set(v []byte, name, raw string) []byte {
	start, end, ok := member(v, name)
	if !ok {
		out := append(make([]byte, 0, len(v)+len(name)+len(raw)+4), v[:len(v)-1]...)
		out = append(append(append(out, ',', '"'), name...), '"', ':')
		return append(append(out, raw...), '}')
	}
	return slices.Concat(v[:start], []byte(`"`+name+`":`+raw), v[end:])
}

// drop returns an event's JSON without a member, which must not be the only one.
func drop(v []byte, name string) []byte {
	start, end, ok := member(v, name)
	switch {
	case !ok:
		return v
	case v[start-1] == ',':
		start--
	default:
		end++
	}
	return slices.Concat(v[:start], v[end:])
}

// member finds a member at the top of an event's JSON as value writes it: without
// blanks, and without quotes or braces inside strings.
func member(v []byte, name string) (start, end int, ok bool) {
	key := append(append([]byte{'"'}, name...), '"', ':')
	for i, depth := 1, 0; i < len(v)-1; i++ {
		switch v[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',':
			if ok && depth == 0 {
				return start, i, true
			}
		case '"':
			if !ok && depth == 0 && bytes.HasPrefix(v[i:], key) {
				start, ok = i, true
			}
		}
	}
	return start, len(v) - 1, ok
}
