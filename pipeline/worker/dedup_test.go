package worker

import (
	"math/rand/v2"
	"testing"

	"footfall/schemas"
)

// naiveDedup is the list of all records, looked through every time.
type naiveDedup struct {
	window schemas.Millis
	budget int
	list   []seen
	latest schemas.Millis
}

func (n *naiveDedup) add(hash uint64, time schemas.Millis) (known bool) {
	n.latest = max(n.latest, time)
	for i, s := range n.list {
		between := len(n.list) - i - 1
		known = known || s.hash == hash && n.latest-s.at < n.window && between <= n.budget
	}
	n.list = append(n.list, seen{hash: hash, at: n.latest})
	return known
}

// someHash chooses among a few ids, most of which fall onto each other's cells,
// around the end of the index too.
func someHash(rng *rand.Rand, ids int) uint64 {
	id := uint64(rng.IntN(ids))
	switch rng.IntN(3) {
	case 0:
		return id << 32 // all at home in cell 0
	case 1:
		return id<<32 | 0xffffffff // in the last one
	}
	return id * 0x9e3779b97f4a7c15
}

func TestDedupIsTheListOfAllRecords(t *testing.T) {
	seeds(t, 300, func(t *testing.T, rng *rand.Rand) {
		window := schemas.Millis(1 + rng.IntN(200))
		budget := 1 + rng.IntN(1<<rng.IntN(10))
		d := dedup{window: window, budget: budget}
		naive := naiveDedup{window: window, budget: budget}
		ids, now, offset := 1+rng.IntN(300), base, int64(0)
		for i := range 1500 {
			now += schemas.Millis(rng.IntN(4))
			if rng.IntN(300) == 0 {
				now += window - 1 + schemas.Millis(rng.IntN(3))
			}
			time := now
			if rng.IntN(5) == 0 {
				time -= schemas.Millis(rng.Int64N(int64(2 * window)))
			}
			offset += 1 + rng.Int64N(3)
			hash := someHash(rng, ids)
			got, want := d.add(hash, time, offset), naive.add(hash, time)
			if got != want {
				t.Fatalf("record %d, id %x at %d (latest %d): got known %t, want %t", i, hash, time, naive.latest, got, want)
			}
			if n := int(d.tail - d.head); n > budget+2 || d.span() >= window {
				t.Fatalf("record %d: %d records over %d ms are remembered, want at most %d of them and less than %d ms", i, n, d.span(), budget+2, window)
			}
			if len(d.ring) > max(64, budget+2) {
				t.Fatalf("a ring of %d places for a budget of %d", len(d.ring), budget)
			}
			if i%100 == 0 {
				d.check(t)
			}
		}
	})
}

// check looks at every cell of the index.
func (d *dedup) check(t *testing.T) {
	t.Helper()
	newest := map[uint64]uint32{}
	for i := d.head; i != d.tail; i++ {
		newest[d.at(i).hash] = d.place(i)
	}
	taken := 0
	for _, c := range d.index {
		if c != 0 {
			taken++
			if h := d.ring[c.place()].hash; newest[h] != c.place() || c.spread() != d.spreads(h) {
				t.Fatalf("the index holds %d for %x, want its newest entry, %d", c.place(), h, newest[h])
			}
		}
	}
	if taken != len(newest) || 2*(taken-2) > len(d.index) {
		t.Fatalf("%d of %d cells are taken, for %d ids", taken, len(d.index), len(newest))
	}
	for h, place := range newest {
		if i, known := d.find(h, d.spreads(h)); !known || d.index[i].place() != place {
			t.Fatalf("id %x is not found", h)
		}
	}
}

// The window is a function of the log from the offset it names on.
func TestDedupIsRebuiltFromTheOffsetItNames(t *testing.T) {
	seeds(t, 200, func(t *testing.T, rng *rand.Rand) {
		live := dedup{window: schemas.Millis(1 + rng.IntN(100)), budget: 1 + rng.IntN(50)}
		var log []seen
		now := base
		for offset := range int64(rng.IntN(400)) {
			now += schemas.Millis(rng.IntN(20)) - 5
			log = append(log, seen{uint64(rng.IntN(40)), now, offset})
		}
		for _, s := range log {
			live.add(s.hash, s.at, s.offset)
		}
		next := int64(len(log))
		again := dedup{window: live.window, budget: live.budget}
		from, latest := live.start(next)
		again.latest = latest
		for _, s := range log[from:] {
			again.add(s.hash, s.at, s.offset)
		}
		if again.span() != live.span() || again.latest != live.latest || again.tail-again.head != live.tail-live.head {
			t.Fatalf("rebuilt from %d: got %d records over %d ms up to %d, want %d over %d up to %d",
				from, again.tail-again.head, again.span(), again.latest, live.tail-live.head, live.span(), live.latest)
		}
		for i := range int64(200) {
			now += schemas.Millis(rng.IntN(20)) - 5
			hash := uint64(rng.IntN(40))
			if got, want := again.add(hash, now, next+i), live.add(hash, now, next+i); got != want {
				t.Fatalf("record %d after the cut, id %d: got known %t, want %t", i, hash, got, want)
			}
		}
	})
}

// Ids that somebody has chosen, so that their hashes end alike, stand as near to their homes
// as any others.
func TestDedupSpreadsChosenIds(t *testing.T) {
	const ids = 10_000
	for name, hash := range map[string]func(i uint64) uint64{
		"low bits":  func(i uint64) uint64 { return i << 32 },
		"high bits": func(i uint64) uint64 { return i },
	} {
		d := dedup{window: schemas.Hour, budget: ids}
		for i := range uint64(ids) {
			d.add(hash(i), base, int64(i))
		}
		far := 0
		for cell, c := range d.index {
			if c > 0 {
				far += (cell - d.home(c.spread())) & (len(d.index) - 1)
			}
		}
		if far > 2*ids {
			t.Errorf("%s: %d cells from home in all, of %d ids: want about half a cell each", name, far, ids)
		}
	}
}
