package parity

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// Reason is what a difference comes from.
type Reason string

// The reasons.
const (
	Unexplained Reason = "unexplained" // and so a fault, of footfall or of what ClickHouse has
	OtherRules  Reason = "rules"       // the partition goes by other rules than are compared
	Taking      Reason = "taking_over" // not everybody has been evaluated under the rules yet
	Timers      Reason = "timers"      // a silence is due, and was not said yet
	Window      Reason = "window"      // an event id was repeated when the workers had forgotten it
	Orders      Reason = "orders"      // an order id was, likewise
	Elsewhere   Reason = "elsewhere"   // an event id is in another partition too, where it counts for ClickHouse
	Limits      Reason = "limits"      // the user has more than the workers tell apart
	Retention   Reason = "retention"   // ClickHouse has not kept it all
)

// Reasons are all of them, for who counts them.
func Reasons() []Reason {
	return []Reason{Unexplained, OtherRules, Taking, Timers, Window, Orders, Elsewhere, Limits, Retention}
}

// Finding is a reason in words.
type Finding struct {
	Reason Reason
	Why    string
}

// ordersKept is how many order ids of a user the workers remember (design 3.1).
const ordersKept = 8

// general is what makes users of a whole partition differ, whoever they are.
func (c *Config) general(mark schemas.Mark) Finding {
	switch {
	case mark.Rules == 0:
		return Finding{Taking, "not everybody has been evaluated under the rules yet"}
	case mark.Rules != c.Rules.Hash():
		return Finding{OtherRules, fmt.Sprintf("the partition goes by rules %016x, and these are %016x", mark.Rules, c.Rules.Hash())}
	}
	return Finding{Reason: Unexplained}
}

// examination is a user that differs, looked into.
type examination struct {
	c    *Config
	mark schemas.Mark
	h    *History

	profile *profile.Profile // by the events as a worker counts them
	rows    *profile.Rows
	notes   []Finding         // records that count for one engine only
	worker  map[string]string // segments by them
}

// examine folds a user's events as a worker does, and evaluates them.
func (c *Config) examine(mark schemas.Mark, h *History) *examination {
	x := &examination{c: c, mark: mark, h: h}
	x.fold()
	x.worker = x.segments(mark.Clock)
	return x
}

// segments evaluates at a moment. Who has no event is nowhere.
func (x *examination) segments(now schemas.Millis) map[string]string {
	out := map[string]string{}
	if x.profile.First == 0 {
		return out
	}
	rules := x.c.Rules
	into := make([]uint16, rules.Sets())
	rules.Evaluator().Eval(x.profile, x.rows.View(0), now, into)
	for set, names := range rules.Names() {
		if into[set] != schemas.NoSegment {
			out[names.Name] = names.Segments[into[set]]
		}
	}
	return out
}

// fold takes the events in that count for a worker: an id counts again when the dedup
// window has forgotten it, an order when the user's last orders have.
func (x *examination) fold() {
	x.profile, x.rows = &profile.Profile{}, profile.NewRows(x.c.Rules.Layout())
	x.rows.Append()
	var orders []uint64
	clock := schemas.Millis(0)
	for i := range x.h.Events {
		ev := &x.h.Events[i]
		clock = max(clock, ev.Time)
		if b := ev.Before; b != nil && b.Ago < x.c.DedupWindow && b.Between <= int64(x.c.DedupBudget) {
			x.note(ev, false)
			continue
		}
		if ev.Kind == schemas.Purchase {
			id := xxhash.Sum64(ev.OrderID)
			if slices.Contains(orders, id) {
				x.note(ev, false)
				continue
			}
			if orders = append(orders, id); len(orders) > ordersKept {
				orders = orders[1:]
			}
		}
		x.note(ev, true)
		x.profile.Fold(&ev.Event)
		x.rows.Fold(0, &ev.Event, clock)
	}
}

// full tells whether something that a set looks at is at the limit of what a worker
// keeps of a user, and may have lost something.
func (x *examination) full(set string) bool {
	rules := x.c.Rules
	number := slices.IndexFunc(rules.Names(), func(s schemas.SetNames) bool { return s.Name == set })
	for i, cell := range rules.Layout().Cells() {
		most := cell.K
		switch cell.Keeps {
		case profile.Moments, profile.Distinct, profile.Tally:
		case profile.Carts:
			most = profile.CartEntriesMax
		default:
			continue
		}
		if rules.Asks(number, i) && len(x.rows.View(0).List(i)) >= most {
			return true
		}
	}
	return false
}

// note takes down a record that counts for one engine and not for the other.
func (x *examination) note(ev *Event, counts bool) {
	if counts == ev.Counts {
		return
	}
	switch b := ev.Before; {
	case !counts:
		x.notes = append(x.notes, Finding{Elsewhere, fmt.Sprintf("event %q at offset %d counts for ClickHouse only: a record of another user had its id", ev.ID, ev.Offset)})
	case ev.First != "":
		x.notes = append(x.notes, Finding{Elsewhere, fmt.Sprintf("event %q at offset %d is in %s too, and ClickHouse counts it there", ev.ID, ev.Offset, ev.First)})
	case b != nil:
		x.notes = append(x.notes, Finding{Window, fmt.Sprintf("event %q counts twice: offset %d repeats offset %d, %s later, and %s", ev.ID, ev.Offset, b.Offset, span(b.Ago), x.forgotten(b))})
	default:
		x.notes = append(x.notes, Finding{Orders, fmt.Sprintf("order %q counts twice: offset %d repeats it after more than %d other orders", ev.OrderID, ev.Offset, ordersKept)})
	}
}

func (x *examination) forgotten(b *Before) string {
	if b.Between > int64(x.c.DedupBudget) {
		return fmt.Sprintf("ids are remembered for %d records (dedup.budget)", x.c.DedupBudget)
	}
	return fmt.Sprintf("ids are remembered for %s (dedup.window)", span(x.c.DedupWindow))
}

// why explains one set.
func (x *examination) why(set, said, asked string) Finding {
	if len(x.h.Events) > EventsMax {
		return Finding{Unexplained, fmt.Sprintf("the user has more than %d events, and was not looked into", EventsMax)}
	}
	if x.worker[set] == said {
		switch {
		case len(x.notes) > 0:
			f := Finding{Reason: x.notes[0].Reason}
			var parts []string
			for _, n := range x.notes[:min(len(x.notes), notesShown)] {
				parts = append(parts, n.Why)
			}
			if more := len(x.notes) - notesShown; more > 0 {
				parts = append(parts, fmt.Sprintf("and %d more", more))
			}
			f.Why = strings.Join(parts, "; ")
			return f
		case x.full(set):
			return Finding{Limits, "the user has more events than footfall tells apart (SEGMENTS.md, limits)"}
		}
		return Finding{Unexplained, "the events of ClickHouse give the same in Go: its statement is at fault"}
	}
	if f := x.pending(set, said); f.Reason != Unexplained {
		return f
	}
	if f := x.kept(set, said, asked); f.Reason != Unexplained {
		return f
	}
	return Finding{Unexplained, fmt.Sprintf("by the events that ClickHouse has the user belongs into %s", named(x.worker[set]))}
}

// notesShown is how many records a reason names.
const notesShown = 3

func named(segment string) string {
	if segment == "" {
		return "no segment"
	}
	return segment
}

// pending looks whether what was said held when the last timers had fired, or later.
func (x *examination) pending(set, said string) Finding {
	if x.mark.Fired >= x.mark.Clock {
		return Finding{Reason: Unexplained}
	}
	e, into := x.c.Rules.Evaluator(), make([]uint16, x.c.Rules.Sets())
	for now := x.mark.Fired; now < x.mark.Clock; {
		if x.segments(now)[set] == said {
			return Finding{Timers, fmt.Sprintf("silence is due by %s, and has been said up to %s so far", moment(x.mark.Clock), moment(x.mark.Fired))}
		}
		now = e.Eval(x.profile, x.rows.View(0), now, into)
	}
	return Finding{Reason: Unexplained}
}

// kept looks whether ClickHouse still has all of it: what was said tells since when the
// user was known, and how many orders there were.
func (x *examination) kept(set, said, asked string) Finding {
	var first schemas.Millis
	orders := uint32(0)
	for i := range x.h.Events {
		if ev := &x.h.Events[i]; first == 0 || ev.At < first {
			first = ev.At
		}
		if x.h.Events[i].Kind == schemas.Purchase {
			orders++
		}
	}
	for _, s := range x.h.Said {
		switch {
		case s.FirstSeen > 0 && (first == 0 || s.FirstSeen < first):
			return Finding{Retention, fmt.Sprintf("the user was first seen at %s, and ClickHouse has no event from before %s", moment(s.FirstSeen), orNever(first))}
		case s.Orders > orders:
			return Finding{Retention, fmt.Sprintf("the user had %d orders at transition %d of %s, and ClickHouse has %d", s.Orders, s.Seq, s.Set, orders)}
		}
	}
	if said == "" && asked != "" && x.h.FromN > 1 {
		return Finding{Retention, fmt.Sprintf("ClickHouse has no transition from before output %d of the partition", x.h.FromN)}
	}
	return Finding{Reason: Unexplained}
}

func orNever(t schemas.Millis) string {
	if t == 0 {
		return "now"
	}
	return moment(t)
}

func moment(t schemas.Millis) string {
	return time.UnixMilli(int64(t)).UTC().Format("2006-01-02 15:04:05")
}

func span(d schemas.Millis) string {
	return (time.Duration(d) * time.Millisecond).Round(time.Second).String()
}
