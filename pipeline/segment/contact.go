package segment

import (
	"fmt"
	"slices"
	"time"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// How a user's zone is inferred, where no event tells it: people sleep. Of the events by
// the hour of the day, the sleepHours hours on end with the fewest are looked for. Where
// they hold less than sleepShare percent of at least zoneEvents events, they are the
// night, and their middle is sleepMiddle o'clock. The zone is a whole number of hours
// from UTC, without summer time.
const (
	zoneEvents  = 20
	sleepHours  = 8
	sleepShare  = 10
	sleepMiddle = 4
)

// bestHourEvents is how many events a user must have for one hour to be called the best.
const bestHourEvents = 5

// contacts is what a program with quiet hours knows of every user: how many events at
// which hour of the day, in UTC, and the zone that the newest event tells.
type contacts struct {
	hours, told *node
	zones       map[uint64]*zone // by the hash of their names
	inferred    [24]*zone        // from UTC-11 on
	shop        *zone
}

// contacts adds what quiet hours ask for, where a set has any.
func (c *compilation) contacts() {
	if !slices.ContainsFunc(c.sets, func(s set) bool { return !s.quiet.None() }) {
		return
	}
	zones, err := zonesByHash()
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("the time zones that footfall knows: %w", err))
		return
	}
	every := asked{kinds: profile.AllKinds}
	telling := asked{kinds: profile.AllKinds, value: fieldNamed("timezone")}
	c.contact = &contacts{
		hours: c.graph.topTime("top_hour", &every, &zone{"UTC", time.UTC}),
		told:  c.graph.textOf("last_value", &telling),
		zones: zones, shop: c.zone,
	}
	for i := range c.contact.inferred {
		c.contact.inferred[i] = fixedZone(i - west)
	}
}

// west is how far behind UTC a zone is inferred to be at most; what would lie beyond is
// UTC+12.
const west = 11

// Contact tells when a user of whom a transition of a set is said is best spoken to. The
// cells in missing are without their history: what they have is not looked at.
func (e *Evaluator) Contact(v profile.View, set int, at schemas.Millis, missing []int) schemas.Contact {
	c := e.p.contact
	if c == nil {
		return schemas.Contact{}
	}
	var hours dayHours
	z, from := c.shop, schemas.ZoneShop
	if !slices.Contains(missing, c.hours.cell.number) {
		for _, entry := range v.List(c.hours.cell.number) {
			hours[entry.A] = entry.B
		}
		if ahead, found := hours.ahead(); found {
			z, from = c.inferred[ahead+west], schemas.ZoneActivity
		}
	}
	if !slices.Contains(missing, c.told.cell.number) {
		if told := c.zones[v.Text(c.told.cell.number)]; told != nil {
			z, from = told, schemas.ZoneEvent
		}
	}
	out := schemas.Contact{Zone: z.name, ZoneFrom: from, BestHour: hours.best(z, at)}
	if q := e.p.sets[set].quiet; !q.None() {
		if after := z.after(q, at); after != at {
			out.NotBefore = after
		}
	}
	return out
}

// dayHours are a user's events by the hour of the day, in UTC.
type dayHours [24]int64

func (h *dayHours) total() (n int64) {
	for _, events := range h {
		n += events
	}
	return n
}

// ahead infers how many hours the user's clock is ahead of UTC.
func (h *dayHours) ahead() (hours int, found bool) {
	total := h.total()
	if total < zoneEvents {
		return 0, false
	}
	first, events := h.night()
	if events*100 >= total*sleepShare {
		return 0, false
	}
	return (sleepMiddle-sleepHours/2-first+west+2*24)%24 - west, true
}

// night finds the quietest hours on end. Of several that are equally quiet it takes
// the first of the longest run of them, for the night begins when the user stops: who is
// seen in the evening only is asleep after it, not before.
func (h *dayHours) night() (first int, events int64) {
	var sums [24]int64
	for i := range sums {
		for j := range sleepHours {
			sums[i] += h[(i+j)%24]
		}
	}
	events = slices.Min(sums[:])
	longest := 0
	for i := range sums {
		if sums[i] != events || sums[(i+23)%24] == events {
			continue // not the first of a run
		}
		run := 1
		for sums[(i+run)%24] == events {
			run++
		}
		if run > longest {
			first, longest = i, run
		}
	}
	return first, events
}

// best is the hour of the day in a zone, as its clocks go at a moment, with the most
// events; of equals the smaller; -1 where there are too few. Where a zone is not whole
// hours from UTC, an hour in UTC counts for that in which its middle lies.
func (h *dayHours) best(z *zone, at schemas.Millis) int8 {
	if h.total() < bestHourEvents {
		return -1
	}
	const hour, day = 60 * 60, 24 * 60 * 60
	_, offset := time.UnixMilli(int64(at)).In(z.loc).Zone()
	var local dayHours
	for utc, events := range h {
		local[(utc*hour+hour/2+offset+2*day)/hour%24] = events
	}
	best := 0
	for i, events := range local {
		if events > local[best] {
			best = i
		}
	}
	return int8(best)
}
