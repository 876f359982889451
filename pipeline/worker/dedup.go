package worker

import (
	"hash/maphash"
	"math/bits"

	"footfall/schemas"
)

// dedup remembers the event ids of the last window of record timestamps, as long
// as at most budget records have come since. Everything is in terms of the log, never of the
// wall, so that a replay decides the same.
//
// A repetition refreshes its id: what is remembered is "an event with this id was
// seen within the window", a function of the log's last window alone, so that it
// can be rebuilt by reading the log from the oldest offset it holds (design 4).
//
// Ids are kept as xxhash64: two different ids within one window are taken for one
// with a chance of (events in the window)^2 / 2^65, 3e-8 for a million.
//
// Invariants:
//   - at is never decreasing from the oldest entry to the newest.
//   - index holds the place of each remembered hash's newest entry, plus one, and
//     is at most half full, but for two entries.
//
// A record takes 24 bytes of the ring, which never has more places than the budget needs,
// and 16 to 32 of the index.
type dedup struct {
	window schemas.Millis
	budget int
	ring   []seen
	head   uint64 // oldest entry
	tail   uint64 // one past the newest; at most the ring's length after head
	lap    uint64 // the entry that stood or would stand in the ring's first place: lap <= head
	index  []cell
	latest schemas.Millis // greatest record timestamp so far

	// Nobody's to know: who chooses ids could else have all of them share a place. Both are odd.
	spread [2]uint64
}

// seen is one record: its event id's hash, the latest record timestamp when it
// was seen, and where it stands.
type seen struct {
	hash   uint64
	at     schemas.Millis
	offset int64
}

// cell is a place of the index: what is told of a hash by spreads, and the place in the ring
// of its newest entry, plus one; 0: it is free. So to look for a hash, or to free a place, asks
// the memory for one line of the index, and of the ring for what is meant.
type cell uint64

func cellOf(spread, place uint32) cell { return cell(spread)<<32 | cell(place+1) }

func (c cell) spread() uint32 { return uint32(c >> 32) }
func (c cell) place() uint32  { return uint32(c) - 1 }

// span is the effective window: how far back the ids are known.
func (d *dedup) span() schemas.Millis {
	if d.head == d.tail {
		return 0
	}
	return d.latest - d.at(d.head).at
}

// start is the offset from which the log must be read again to rebuild the window
// at a cut before next, and the latest record timestamp as of that record.
func (d *dedup) start(next int64) (offset int64, latest schemas.Millis) {
	if d.head == d.tail {
		return next, d.latest
	}
	oldest := d.at(d.head)
	return oldest.offset, oldest.at
}

// add remembers an id and tells whether it was known. Records come in offset order.
func (d *dedup) add(hash uint64, time schemas.Millis, offset int64) (known bool) {
	d.latest = max(d.latest, time)
	for d.head != d.tail {
		if d.latest-d.at(d.head).at < d.window && d.tail-d.head-1 <= uint64(d.budget) {
			break
		}
		d.evict()
	}
	if d.tail-d.head == uint64(len(d.ring)) {
		d.grow()
	}
	spread := d.spreads(hash)
	i, known := d.find(hash, spread)
	*d.at(d.tail) = seen{hash, d.latest, offset}
	d.index[i] = cellOf(spread, d.place(d.tail))
	d.tail++
	return known
}

// place is where the i-th entry stands in the ring.
func (d *dedup) place(i uint64) uint32 {
	if i -= d.lap; i >= uint64(len(d.ring)) {
		i -= uint64(len(d.ring))
	}
	return uint32(i)
}

func (d *dedup) at(i uint64) *seen { return &d.ring[d.place(i)] }

// spreads gives each hash another one, as MurmurHash3 ends (Austin Appleby), by numbers of our
// own. One product alone leaves hashes in a row in few places, for some of these numbers;
// maphash.Comparable costs a third more of a whole add.
func (d *dedup) spreads(hash uint64) uint32 {
	hash ^= hash >> 33
	hash *= d.spread[0]
	hash ^= hash >> 33
	hash *= d.spread[1]
	return uint32(hash ^ hash>>33)
}

// home is the cell in which a hash is looked for first.
func (d *dedup) home(spread uint32) int { return int(spread) & (len(d.index) - 1) }

// find gives the cell of a hash: the one it is in, or the free one it would take.
func (d *dedup) find(hash uint64, spread uint32) (i int, known bool) {
	mask := len(d.index) - 1
	for i = d.home(spread); ; i = (i + 1) & mask {
		c := d.index[i]
		if c == 0 {
			return i, false
		}
		if c.spread() == spread && d.ring[c.place()].hash == hash {
			return i, true
		}
	}
}

// evict forgets the oldest entry, and its id unless a newer entry repeats it.
func (d *dedup) evict() {
	old := d.place(d.head)
	hash := d.ring[old].hash
	if i, known := d.find(hash, d.spreads(hash)); known && d.index[i].place() == old {
		d.vacate(i)
	}
	if d.head++; d.head-d.lap == uint64(len(d.ring)) {
		d.lap = d.head
	}
}

// vacate frees a cell and moves those after it back, so that probing never meets a hole
// before what it looks for (Knuth, TAOCP 3, 6.4, algorithm R).
func (d *dedup) vacate(free int) {
	mask := len(d.index) - 1
	for i := (free + 1) & mask; d.index[i] != 0; i = (i + 1) & mask {
		if home := d.home(d.index[i].spread()); (i-home)&mask >= (i-free)&mask {
			d.index[free] = d.index[i]
			free = i
		}
	}
	d.index[free] = 0
}

// grow doubles the ring, as far as the budget asks for it: at most two records more than
// that are in it. It builds the index anew, about twice as large or more.
func (d *dedup) grow() {
	n := min(max(64, 2*len(d.ring)), d.budget+2)
	ring := make([]seen, n)
	for i := d.head; i < d.tail; i++ {
		ring[i-d.head] = *d.at(i)
	}
	d.ring, d.lap = ring, d.head
	d.index = make([]cell, 2<<bits.Len(uint(max(8, n)-3)))
	if d.spread[0] == 0 {
		seed := maphash.MakeSeed()
		d.spread = [2]uint64{maphash.String(seed, "first") | 1, maphash.String(seed, "second") | 1}
	}
	for i := d.head; i < d.tail; i++ {
		hash := d.at(i).hash
		spread := d.spreads(hash)
		at, _ := d.find(hash, spread)
		d.index[at] = cellOf(spread, d.place(i))
	}
}
