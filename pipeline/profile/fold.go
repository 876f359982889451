package profile

import (
	"cmp"
	"math"
	"slices"

	"footfall/schemas"
)

// Limits of what one user may take (R4). What lies beyond is told in the
// reference of the rule language.
const (
	MomentsMax  = 1024 // different moments of a Moments cell
	DistinctMax = 4096 // texts of a Distinct cell
	TallyMax    = 256  // texts of a Tally cell
)

// foldMoment adds a value at the event's time.
func (r *Rows) foldMoment(c *Cell, w []uint32, ev *schemas.Event, clock schemas.Millis) bool {
	// What windows let go goes by what the log says, and not by a clock that ticks have moved:
	// a replay knows no ticks, and would have others crowded out.
	list, newest := r.lists.get(w[0]), ev.At
	if n := len(list); n > 0 {
		newest = max(newest, schemas.Millis(list[n-1].A))
	}
	from := c.from(min(clock, newest))
	if ev.At < from {
		return false
	}
	r.undo.save(w, list)
	gone := 0
	for gone < len(list) && list[gone].A < int64(from) {
		gone++
	}
	if gone > 0 {
		w[0] = r.lists.cut(w[0], 0, gone)
		list = r.lists.get(w[0])
	}
	value := c.Value(ev)
	at, found := slices.BinarySearchFunc(list, int64(ev.At), func(e Entry, t int64) int { return cmp.Compare(e.A, t) })
	if found {
		list[at].B += value
		return true
	}
	w[0] = r.lists.insert(w[0], at, Entry{A: int64(ev.At), B: value})
	if list = r.lists.get(w[0]); len(list) > c.K {
		at := crowded(list)
		list[at+1].B += list[at].B
		w[0] = r.lists.cut(w[0], at, at+1)
	}
	return true
}

// crowded finds the entry whose neighbours are nearest to each other: it goes, and what it
// holds is the later one's. Were it always the oldest, the next would gather all that
// windows have long let go, and never leave them.
func crowded(list []Entry) (at int) {
	least := int64(math.MaxInt64)
	for i := 1; i < len(list)-1; i++ {
		if span := list[i+1].A - list[i-1].A; span < least {
			at, least = i, span
		}
	}
	return at
}

func byHash(e Entry, hash int64) int { return cmp.Compare(e.A, hash) }

// foldDistinct notes when a text was last seen.
func (r *Rows) foldDistinct(c *Cell, w []uint32, ev *schemas.Event, clock schemas.Millis) bool {
	hash := int64(HashText(c.Text(ev)))
	if hash == 0 || ev.At < c.from(clock) {
		return false
	}
	list := r.lists.get(w[0])
	at, found := slices.BinarySearchFunc(list, hash, byHash)
	if found && list[at].B >= int64(ev.At) {
		return false
	}
	r.undo.save(w, list)
	if found {
		list[at].B = int64(ev.At)
		return true
	}
	if n := len(list); n > 0 && n&(n-1) == 0 { // before it would take more memory
		w[0] = r.sweep(c, w[0], clock)
		list = r.lists.get(w[0])
		at, _ = slices.BinarySearchFunc(list, hash, byHash)
	}
	if len(list) >= c.K {
		oldest := 0
		for i := range list {
			if list[i].B < list[oldest].B {
				oldest = i
			}
		}
		if list[oldest].B >= int64(ev.At) {
			return false
		}
		w[0] = r.lists.cut(w[0], oldest, oldest+1)
		at, _ = slices.BinarySearchFunc(r.lists.get(w[0]), hash, byHash)
	}
	w[0] = r.lists.insert(w[0], at, Entry{A: hash, B: int64(ev.At)})
	return true
}

// sweep drops the texts of which nothing matters any more at a clock.
func (r *Rows) sweep(c *Cell, handle uint32, clock schemas.Millis) uint32 {
	list, from := r.lists.get(handle), int64(c.from(clock))
	kept := 0
	for _, e := range list {
		if e.B >= from {
			list[kept] = e
			kept++
		}
	}
	return r.lists.cut(handle, kept, len(list))
}

// foldTally counts a text, or the bucket that the event's time falls into.
func (r *Rows) foldTally(c *Cell, w []uint32, ev *schemas.Event) bool {
	var key int64
	if c.Text != nil {
		if key = int64(HashText(c.Text(ev))); key == 0 {
			return false
		}
	} else {
		key = c.Bucket(ev.At)
	}
	list := r.lists.get(w[0])
	at, found := slices.BinarySearchFunc(list, key, byHash)
	switch {
	case found:
		r.undo.save(w, list)
		list[at].B += int64(b2u(list[at].B < math.MaxInt64))
	case len(list) >= c.K:
		return false
	default:
		r.undo.save(w, list)
		w[0] = r.lists.insert(w[0], at, Entry{A: key, B: 1})
	}
	return true
}

// undo is what a row was before the last Fold, for who has to tell what an event
// has changed. Lists that the event changed are kept as they were.
type undo struct {
	words []uint32
	saved []saved
	pool  []Entry
}

// saved is a list as it was: pool[from:to].
type saved struct {
	handle   uint32 // then
	from, to int
}

func (u *undo) begin(words []uint32) {
	u.words = append(u.words[:0], words...)
	u.saved, u.pool = u.saved[:0], u.pool[:0]
}

// save keeps a list, whose handle is w[0], before it is changed.
func (u *undo) save(w []uint32, list []Entry) {
	if w[0] == 0 {
		return
	}
	from := len(u.pool)
	u.pool = append(u.pool, list...)
	u.saved = append(u.saved, saved{w[0], from, len(u.pool)})
}

// list is a list as it was, where it has been changed since.
func (u *undo) list(handle uint32) ([]Entry, bool) {
	for i := range u.saved {
		if s := &u.saved[i]; s.handle == handle {
			return u.pool[s.from:s.to], true
		}
	}
	return nil, false
}

// Before is the row of the last Fold as it was before it. It is good until the next.
func (r *Rows) Before() View { return View{words: r.undo.words, rows: r, before: true} }
