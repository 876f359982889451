package oracle

import (
	"cmp"
	"math"
	"slices"
)

// unset is a clock before the first record.
const unset = math.MinInt64

// Transition is one transition as it should be said. Times are Unix ms, 0 for
// none.
type Transition struct {
	Partition int32
	User      string
	Set       string
	Seq       int64
	From      string // "" for a user's first
	To        string
	At        int64

	Cause       string // event or timer
	CauseType   string // event: its type, id and offset
	CauseID     string
	CauseOffset int64
	Due         int64 // timer

	Recency                     int64 // whole seconds from the last interaction to At
	Orders, RevenueMinor        int64
	First, Last                 int64
	FirstPurchase, LastPurchase int64

	ExpectedTo string // the next by silence alone; "" for none
	ExpectedAt int64
}

// Expected is what the input of one partition comes to in log time.
type Expected struct {
	Transitions []Transition // by (At, User, Seq); only each user's order is specified
	DeadLetters map[int64]string
	Duplicates  map[int64]bool
	Applied     int
	Clock       int64 // the greatest record timestamp, 0 if no record was applied
}

// Generate says what footfall should say of the input in log time, by partition.
// Every timer due at the last clock has fired.
func Generate(input []Record, opt Options) map[int32]*Expected {
	c := compile(opt)
	out := map[int32]*Expected{}
	for p, records := range byPartition(input) {
		l := c.read(records, nil, nil)
		e := &Expected{DeadLetters: map[int64]string{}, Duplicates: map[int64]bool{}, Clock: max(0, l.clock)}
		for offset, bad := range l.refused {
			e.DeadLetters[offset] = bad.reason
		}
		for i := range l.events {
			if l.events[i].duplicate {
				e.Duplicates[l.events[i].offset] = true
			} else {
				e.Applied++
			}
		}
		for _, u := range l.users {
			for _, x := range chain(p, u, u.clocks(), l.clock) {
				e.Transitions = append(e.Transitions, x.Transition)
			}
		}
		slices.SortFunc(e.Transitions, func(a, b Transition) int {
			return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.User, b.User), cmp.Compare(a.Seq, b.Seq))
		})
		out[p] = e
	}
	return out
}

func byPartition(records []Record) map[int32][]Record {
	parts := map[int32][]Record{}
	for _, r := range records {
		parts[r.Partition] = append(parts[r.Partition], r)
	}
	for _, list := range parts {
		slices.SortStableFunc(list, func(a, b Record) int { return cmp.Compare(a.Offset, b.Offset) })
	}
	return parts
}

// history is one partition's input, read once.
type history struct {
	events  []event            // the well-formed, in offset order
	refused map[int64]*refusal // the others, by offset
	users   []*user            // in order of appearance
	byName  map[string]*user
	clock   int64 // greatest timestamp of events, unset if there are none
}

// user is one user's counted events, in offset order.
type user struct {
	name   string
	events []*event
	repeat []*event // duplicates: they only let time pass
	recent []string // ids of the last 8 counted orders
}

// clocks are those the counted events were applied at, where they are known
// exactly: in log time.
func (u *user) clocks() []int64 {
	at := make([]int64, len(u.events))
	for i, ev := range u.events {
		at[i] = ev.lo
	}
	return at
}

// read decides, in offset order, what is refused, what is a duplicate and what
// counts, and the least clock of every record. Marks are of the outputs, in
// order, nil in log time. said tells whether a dead letter says that this record
// was ahead of the wall.
func (c *contract) read(records []Record, marks []mark, said func(offset int64) bool) *history {
	h := &history{refused: map[int64]*refusal{}, byName: map[string]*user{}, clock: unset}
	seen := sightings{window: c.DedupWindow, budget: c.DedupBudget, last: map[string]sighting{}}
	least := int64(unset)
	h.events = make([]event, 0, len(records))
	for i := range records {
		r := &records[i]
		for len(marks) > 0 && marks[0].next <= r.Offset {
			least, marks = max(least, marks[0].clock), marks[1:]
		}
		ev, bad := c.decode(r)
		if bad == nil && c.ahead(r, least, said) {
			bad = refused("future", "record timestamp %d, clock %d", r.Time, least)
		}
		if bad != nil {
			h.refused[r.Offset] = bad
			continue
		}
		least, h.clock = max(least, ev.stamp), max(h.clock, ev.stamp)
		ev.lo, ev.hi = least, least
		h.events = append(h.events, *ev)
		h.add(&h.events[len(h.events)-1], &seen)
	}
	return h
}

// ahead tells whether a record's timestamp was too far ahead of the wall.
func (c *contract) ahead(r *Record, clock int64, said func(offset int64) bool) bool {
	if c.Wall != nil {
		return r.Time > c.Wall(r)+c.MaxSkew
	}
	// The clock is never more than max_skew ahead of the wall, so what is not
	// ahead of the clock cannot be ahead of both.
	return c.WallTicks && said != nil && r.Time > clock && said(r.Offset)
}

// add gives an event to its user, unless it is a duplicate.
func (h *history) add(ev *event, seen *sightings) {
	repeated := seen.look(ev.id, h.clock)
	u := h.byName[ev.user]
	if u == nil {
		// A duplicate of another user's event makes no user.
		if repeated {
			ev.duplicate = true
			return
		}
		u = &user{name: ev.user}
		h.byName[ev.user] = u
		h.users = append(h.users, u)
	}
	ev.user = u.name
	if repeated || ev.kind == "purchase" && slices.Contains(u.recent, ev.order) {
		ev.duplicate = true
		u.repeat = append(u.repeat, ev)
		return
	}
	if ev.kind == "purchase" {
		u.recent = append(u.recent, ev.order)
		u.recent = u.recent[max(0, len(u.recent)-8):]
	}
	u.events = append(u.events, ev)
}

// sightings is the dedup window: where each event id was seen last.
type sightings struct {
	window, budget int64
	count          int64
	last           map[string]sighting
	sweep          int // size at which what is out of the window is forgotten
}

type sighting struct{ stamp, ordinal int64 }

// look tells whether id was seen within the window, and remembers it. Stamp is
// the greatest record timestamp so far, this record's included.
func (s *sightings) look(id string, stamp int64) bool {
	before, known := s.last[id]
	repeated := known && s.within(before, stamp)
	s.last[id] = sighting{stamp: stamp, ordinal: s.count}
	s.count++
	if len(s.last) > s.sweep {
		for id, at := range s.last {
			if !s.within(at, stamp) {
				delete(s.last, id)
			}
		}
		s.sweep = 2*len(s.last) + 1024
	}
	return repeated
}

func (s *sightings) within(at sighting, stamp int64) bool {
	return stamp-at.stamp < s.window && s.count-at.ordinal-1 <= s.budget
}

// step is one transition of a chain, with where in the input it falls: after
// the user's counted events up to and including the one at offset after, and,
// for a timer, before until, the offset of the event that fired it at the
// latest (-1: none did, time alone).
type step struct {
	Transition
	after, until int64
	cause        *event
}

// chain is all that should be said of a user, given the clock at each counted
// event, up to time end.
func chain(partition int32, u *user, clocks []int64, end int64) []step {
	var out []step
	var p profile
	segment, evaluated, after := "", int64(0), int64(-1)
	say := func(to string, at int64, until int64) *step {
		s := step{after: after, until: until, Transition: Transition{
			Partition: partition, User: u.name, Set: setName, Seq: int64(len(out)) + 1, From: segment, To: to, At: at,
			Recency: max(0, at-p.last) / 1000, Orders: p.orders, RevenueMinor: p.revenue,
			First: p.first, Last: p.last, FirstPurchase: p.firstPurchase, LastPurchase: p.lastPurchase,
		}}
		s.ExpectedTo, s.ExpectedAt = p.next(at)
		out = append(out, s)
		segment = to
		return &out[len(out)-1]
	}
	fire := func(clock, until int64) {
		if segment == "" {
			return
		}
		for {
			to, due := p.next(evaluated)
			if due == 0 || due > clock {
				return
			}
			s := say(to, due, until)
			s.Cause, s.Due = "timer", due
			evaluated = due
		}
	}
	for i, ev := range u.events {
		fire(clocks[i], ev.offset)
		p.fold(ev)
		evaluated, after = max(evaluated, clocks[i]), ev.offset
		if to := p.segment(evaluated); to != segment {
			s := say(to, evaluated, -1)
			s.Cause, s.CauseType, s.CauseID, s.CauseOffset, s.cause = "event", ev.kind, ev.id, ev.offset, ev
		}
	}
	fire(end, -1)
	return out
}
