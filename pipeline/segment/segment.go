// Package segment decides which segment of each set a profile is in, and until
// when silence alone leaves it there.
//
// It is pure: a segment is a function of (profile, clock, rules) and of nothing
// else (design 3.2). It may not block, read a clock, or remember anything.
//
// A set is an ordered list of rules: the first that holds wins, and the last one
// holds always, so that every user is in exactly one segment of each set. A rule
// is a conjunction of half-open ranges:
//
//	orders in [lo, hi)            how many purchases
//	since_last in [lo, hi)        time since the last event of any kind
//	since_purchase in [lo, hi)    time since the last purchase; forever without one
//
// "since" is never negative: an event from the near future counts as now. The
// moments at which a segment can change by silence follow from the rules
// themselves: wherever a since reaches a bound.
package segment

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/cespare/xxhash/v2"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// field is what a condition looks at.
type field uint8

const (
	orders field = iota
	sinceLast
	sincePurchase
)

// forever is the upper bound of an open range, and the since of what never happened.
const forever = math.MaxInt64

// condition holds when lo <= field < hi.
type condition struct {
	field  field
	lo, hi int64
}

// rule puts a profile into its segment when all conditions hold.
type rule struct {
	segment    string
	conditions []condition
}

// set is a segment set: the first rule that holds wins.
type set struct {
	name  string
	rules []rule
}

// edge is a bound of a since: something may change when it is reached.
type edge struct {
	field field
	at    schemas.Millis
}

// Program is a checked and compiled list of segment sets. It is immutable and
// may be shared.
type Program struct {
	sets  []set
	edges []edge
	names []schemas.SetNames
	hash  uint64
}

// lifecycle is the built-in set (design 4).
var lifecycle = set{ //nolint:gochecknoglobals // a table, never changed
	name: "lifecycle",
	rules: []rule{
		{"lost", []condition{{orders, 1, forever}, {sincePurchase, int64(180 * schemas.Day), forever}}},
		{"dormant", []condition{{sinceLast, int64(90 * schemas.Day), forever}}},
		{"new", []condition{{orders, 1, 2}, {sincePurchase, 0, int64(30 * schemas.Day)}}},
		{"active", []condition{{orders, 2, forever}, {sincePurchase, 0, int64(30 * schemas.Day)}}},
		{"cooling", []condition{{orders, 1, forever}}},
		{"prospect", nil},
	},
}

// semantics is part of the rules' hash: it grows when the same rules come to mean
// something else.
const semantics = 1

// Lifecycle compiles the built-in lifecycle set. contract is the hash of what
// else decides a segment: the version of the event contract and the currencies' rates.
func Lifecycle(contract uint64) *Program { return compile(contract, lifecycle) }

func compile(contract uint64, sets ...set) *Program {
	p := &Program{sets: sets}
	sum := binary.LittleEndian.AppendUint64(nil, semantics)
	sum = binary.LittleEndian.AppendUint64(sum, contract)
	count := func(n int) { sum = binary.LittleEndian.AppendUint32(sum, uint32(n)) }
	text := func(s string) {
		count(len(s))
		sum = append(sum, s...)
	}
	seen := map[edge]bool{}
	for _, s := range sets {
		text(s.name)
		count(len(s.rules))
		names := schemas.SetNames{Name: s.name}
		for _, r := range s.rules {
			text(r.segment)
			count(len(r.conditions))
			names.Segments = append(names.Segments, r.segment)
			for _, c := range r.conditions {
				sum = append(sum, byte(c.field))
				sum = binary.LittleEndian.AppendUint64(sum, uint64(c.lo))
				sum = binary.LittleEndian.AppendUint64(sum, uint64(c.hi))
				for _, bound := range []int64{c.lo, c.hi} {
					e := edge{c.field, schemas.Millis(bound)}
					if c.field == orders || bound == 0 || bound == forever || seen[e] {
						continue
					}
					seen[e] = true
					p.edges = append(p.edges, e)
				}
			}
		}
		p.names = append(p.names, names)
	}
	p.hash = xxhash.Sum64(sum)
	return p
}

// Hash is equal for programs that decide equally.
func (p *Program) Hash() uint64 { return p.hash }

// Names are the names of the sets and of their segments, by the numbers that Eval gives.
func (p *Program) Names() []schemas.SetNames { return p.names }

// Sets is how many sets there are.
func (p *Program) Sets() int { return len(p.sets) }

// Eval writes the segment of each set into into, [sets]segment, and returns when
// that could change with no further event, or Never. It changes nothing.
func (p *Program) Eval(pr *profile.Profile, now schemas.Millis, into []uint16) (due schemas.Millis) {
	for i := range p.sets {
		into[i] = p.sets[i].eval(pr, now)
	}
	return p.next(pr, now)
}

// Expected gives the next transition of a set that silence alone would bring
// after now, when the profile is in segment current.
func (p *Program) Expected(pr *profile.Profile, now schemas.Millis, set int, current uint16) schemas.Expected {
	for at := p.next(pr, now); at != schemas.Never; at = p.next(pr, at) {
		if to := p.sets[set].eval(pr, at); to != current {
			return schemas.Expected{To: to, At: at}
		}
	}
	return schemas.Expected{To: schemas.NoSegment, At: schemas.Never}
}

// next is the first moment after now at which a since reaches a bound.
func (p *Program) next(pr *profile.Profile, now schemas.Millis) schemas.Millis {
	due := schemas.Never
	for _, e := range p.edges {
		if from := base(pr, e.field); from != 0 && from+e.at > now {
			due = min(due, from+e.at)
		}
	}
	return due
}

func (s *set) eval(pr *profile.Profile, now schemas.Millis) uint16 {
	for i := range s.rules {
		if s.rules[i].holds(pr, now) {
			return uint16(i)
		}
	}
	panic("segment: no rule of set " + s.name + " holds; the last must hold always")
}

func (r *rule) holds(pr *profile.Profile, now schemas.Millis) bool { return r.fails(pr, now) == nil }

// fails returns the first condition that does not hold, or nil.
func (r *rule) fails(pr *profile.Profile, now schemas.Millis) *condition {
	for i := range r.conditions {
		c := &r.conditions[i]
		var v int64
		if c.field == orders {
			v = int64(pr.Orders())
		} else if from := base(pr, c.field); from == 0 {
			v = forever - 1 // beyond every bound but the open one
		} else {
			v = max(0, int64(now-from))
		}
		if v < c.lo || v >= c.hi {
			return c
		}
	}
	return nil
}

// base is the moment a since counts from, 0 where there is none.
func base(pr *profile.Profile, f field) schemas.Millis {
	if f == sincePurchase {
		return pr.LastPurchase
	}
	return pr.Last
}

// Explain says, in words, why the profile is in a segment of a set: the rule, and
// the profile's value for each of its conditions.
func (p *Program) Explain(pr *profile.Profile, now schemas.Millis, set int, segment uint16) string {
	r := &p.sets[set].rules[segment]
	if len(r.conditions) == 0 {
		return "no rule before it holds"
	}
	var parts []string
	for _, c := range r.conditions {
		parts = append(parts, c.explain(pr, now))
	}
	return strings.Join(parts, ", ")
}

// Passed is a segment that a profile is not in, although its rule comes before that of
// its own, and why.
type Passed struct{ Segment, Why string }

// Passed says why the profile is in none of the segments before the one given: of each
// rule, the condition that does not hold.
func (p *Program) Passed(pr *profile.Profile, now schemas.Millis, set int, segment uint16) (passed []Passed) {
	for i := range p.sets[set].rules[:segment] {
		r := &p.sets[set].rules[i]
		if c := r.fails(pr, now); c != nil {
			passed = append(passed, Passed{r.segment, c.explain(pr, now)})
		}
	}
	return passed
}

func (c *condition) explain(pr *profile.Profile, now schemas.Millis) string {
	if c.field == orders {
		return fmt.Sprintf("%d orders (%s)", pr.Orders(), bounds(c, func(v int64) string { return fmt.Sprint(v) }))
	}
	what := map[field]string{sinceLast: "the last event", sincePurchase: "the last purchase"}[c.field]
	from := base(pr, c.field)
	if from == 0 {
		return what + " has never been"
	}
	days := func(v int64) string { return fmt.Sprintf("%dd", v/int64(schemas.Day)) }
	return fmt.Sprintf("%s since %s (%s)", span(max(0, now-from)), what, bounds(c, days))
}

// bounds writes the range of a condition.
func bounds(c *condition, write func(int64) string) string {
	switch {
	case c.hi == forever:
		return "at least " + write(c.lo)
	case c.field == orders && c.hi == c.lo+1:
		return "exactly " + write(c.lo)
	case c.lo == 0:
		return "less than " + write(c.hi)
	}
	return "at least " + write(c.lo) + ", less than " + write(c.hi)
}

// span writes a time as days and hours.
func span(t schemas.Millis) string {
	return fmt.Sprintf("%dd %dh", t/schemas.Day, t%schemas.Day/schemas.Hour)
}
