package oracle

import (
	"fmt"
	"math"
	"sort"
)

// mark is what a run of outputs says of itself: the state after every record
// before next, every timer due up to fired said, all by output number last.
type mark struct{ next, clock, fired, last int64 }

// marksOf gathers the marks of the outputs, which are in order of n, and checks
// that none goes back. The final mark, if known, is the last.
func (j *judge) marksOf(outs []*output) {
	for _, o := range outs {
		if o.stray {
			continue
		}
		m := mark{next: o.next, clock: o.clock, fired: o.fired, last: o.n}
		if k := len(j.marks) - 1; k >= 0 {
			before := j.marks[k]
			if m.next == before.next && m.clock == before.clock && m.fired == before.fired {
				j.marks[k].last = m.last
				continue
			}
			if m.next < before.next || m.clock < before.clock || m.fired < before.fired {
				j.r.wrong(j.finding(o, fmt.Sprintf("the mark %v", m), fmt.Sprintf("none before %v", before)))
			}
		}
		if m.fired > m.clock {
			j.r.wrong(j.finding(o, fmt.Sprintf("the mark %v", m), "fired up to the clock at most"))
		}
		j.marks = append(j.marks, m)
	}
	final, ok := j.c.Marks[j.id]
	if !ok {
		return
	}
	m := mark{next: final.Next, clock: final.Clock, fired: final.Fired, last: final.N}
	before := mark{clock: unset, fired: unset}
	if k := len(j.marks) - 1; k >= 0 {
		before = j.marks[k]
	}
	if m.next < before.next || m.clock < before.clock || m.fired < before.fired || m.last != before.last || m.fired > m.clock {
		j.r.wrong(j.at(-1, fmt.Sprintf("the last mark %v", m), fmt.Sprintf("one that covers the last output's, %v", before)))
	}
	j.marks = append(j.marks, m)
}

// String writes a mark in words.
func (m mark) String() string {
	return fmt.Sprintf("{next %d, clock %d, fired %d, n %d}", m.next, m.clock, m.fired, m.last)
}

// checkClocks compares the marks' clocks with the records': exactly in log time,
// as a lower bound with wall ticks.
func (j *judge) checkClocks() {
	i, clock := 0, int64(unset)
	for _, m := range j.marks {
		for ; i < len(j.h.events) && j.h.events[i].offset < m.next; i++ {
			clock = max(clock, j.h.events[i].stamp)
		}
		switch {
		case m.clock < clock:
			j.r.wrong(j.at(-1, fmt.Sprintf("the mark %v", m), fmt.Sprintf("a clock of at least %d, of a record before", clock)))
		case j.c.WallTicks || m.clock == clock || clock == unset && m.clock <= 0:
		default:
			j.r.wrong(j.at(-1, fmt.Sprintf("the mark %v", m), fmt.Sprintf("in log time, the clock %d", clock)))
		}
	}
}

// bound narrows down the clock of each record, with wall ticks. From the read,
// lo is what the records and marks before it give.
func (j *judge) bound(spoken map[int64]int64) {
	g := 0
	for i := range j.h.events {
		ev := &j.h.events[i]
		for g < len(j.marks) && j.marks[g].next <= ev.offset {
			g++
		}
		ev.hi = math.MaxInt64
		if g < len(j.marks) {
			ev.hi = max(ev.lo, j.marks[g].clock)
		}
	}
	least := int64(unset)
	for i := range j.h.events {
		ev := &j.h.events[i]
		ev.lo = min(ev.hi, max(ev.lo, least))
		if at, ok := spoken[ev.offset]; ok && at >= ev.lo && at <= ev.hi {
			ev.lo, ev.hi = at, at
		}
		least = ev.lo
	}
	most := int64(math.MaxInt64)
	for i := len(j.h.events) - 1; i >= 0; i-- {
		ev := &j.h.events[i]
		most = min(most, ev.hi)
		ev.hi = max(ev.lo, most)
	}
}

// due is the number of the last output that may say what comes of everything
// before offset, or, if fired is not unset, of the timers up to it too; false if
// no mark has promised it yet.
func (j *judge) due(offset, fired int64) (n int64, ok bool) {
	g := sort.Search(len(j.marks), func(g int) bool { return j.marks[g].next > offset && j.marks[g].fired >= fired })
	if g == len(j.marks) {
		return 0, false
	}
	return j.marks[g].last, true
}

// ends are the times up to which timers may have fired, and must have. A run
// that was not cut short has fired all that is due.
func (j *judge) ends() (may, must int64) {
	final, known := j.c.Marks[j.id]
	may = j.h.clock
	switch k := len(j.marks) - 1; {
	case known && j.c.WallTicks:
		may = max(may, final.Clock)
	case j.c.WallTicks && k >= 0:
		return max(may, j.marks[k].clock), j.marks[k].fired
	case j.c.WallTicks:
		return may, unset
	}
	if known && j.c.Partial {
		return may, final.Fired
	}
	return may, may
}
