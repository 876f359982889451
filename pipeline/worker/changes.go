package worker

import (
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// changes knows what a delta has to hold: the rows that have changed since the cut of
// the snapshot that it builds upon. An event costs it one bit.
//
//	kept ──────────── cut ─────────── now
//	     taken holds      rows holds
//
// taken is what the snapshot under way has, or the one of which nobody knows yet whether
// it was stored. When it was, it is what the next builds upon (SnapshotKept); else what it
// had is owed by the next.
type changes struct {
	rows  []uint64 // bit set: changed since the last cut. A word for each 64 rows there are
	taken []uint64 // bit set, of the rows there were at the last cut; nil: nothing is under way
	spare []uint64 // memory that rows uses next

	kept    basis // what deltas build upon
	cut     basis // of taken
	written bool  // all its bytes have been given
}

// basis is a snapshot that a delta may build upon.
type basis struct {
	mark  schemas.Mark
	shape uint64 // of its rows
	known bool
}

// note remembers that a row has changed, or is about to.
func (c *changes) note(row int32) { c.rows[row>>6] |= 1 << (row & 63) }

// noted tells whether a row has changed since the last cut.
func (c *changes) noted(row int32) bool { return c.rows[row>>6]&(1<<(row&63)) != 0 }

// noteAll remembers that each of n rows has.
func (c *changes) noteAll(n int) {
	for i := range n / 64 {
		c.rows[i] = ^uint64(0)
	}
	if n%64 > 0 {
		c.rows[n/64] |= 1<<(n%64) - 1
	}
}

// grow makes room for a new row, and remembers it.
func (c *changes) grow(row int32) {
	if int(row>>6) == len(c.rows) {
		c.rows = append(c.rows, 0)
	}
	c.note(row)
}

// count is how many rows have changed since the last one kept.
func (c *changes) count() (n int) {
	for i, word := range c.rows {
		if i < len(c.taken) {
			word |= c.taken[i]
		}
		n += bits.OnesCount64(word)
	}
	return n
}

// owed is how many rows a delta that is being taken has.
func (c *changes) owed() (n int) {
	for _, word := range c.taken {
		n += bits.OnesCount64(word)
	}
	return n
}

// take cuts: what has changed by now is the snapshot's.
func (c *changes) take(cut basis) {
	c.owe()
	next := slices.Grow(c.spare[:0], len(c.rows)+1)[:len(c.rows)] // never nil
	clear(next)
	c.rows, c.taken, c.spare = next, c.rows, nil
	c.cut, c.written = cut, false
}

// owe gives what the last snapshot has to the next: it was given up, or not stored.
func (c *changes) owe() {
	if c.taken == nil {
		return
	}
	for i, word := range c.taken {
		c.rows[i] |= word
	}
	c.taken, c.spare, c.written = nil, c.taken, false
}

// keep makes the last snapshot the one that deltas build upon.
func (c *changes) keep() {
	if !c.written {
		panic("worker: a snapshot was kept that was never written")
	}
	c.kept, c.spare, c.taken, c.written = c.cut, c.taken, nil, false
}

// read makes a snapshot that was just read the one that deltas build upon.
func (c *changes) read(of basis) {
	clear(c.rows)
	c.kept = of
}

// shape tells of what the rows of a snapshot are made. Its parts are sorted, so that it
// does not depend on how a worker has numbered its sets.
type shape []string

func (s *shape) add(format string, args ...any) { *s = append(*s, fmt.Sprintf(format, args...)) }

func (s *shape) segment(set, name string) { s.add("segment %q of %q", name, set) }

func (s *shape) cell(c *profile.Cell) { s.add("cell %q %d %d %d", c.Name, c.Keeps, c.Keep, c.K) }

func (s *shape) spoken(set, name string, carts bool) { s.add("said %q of %q %t", name, set, carts) }

func (s *shape) recent(n int) { s.add("recent %d", n) }

func (s *shape) sum() uint64 {
	slices.Sort(*s)
	return xxhash.Sum64String(strings.Join(*s, "\n"))
}

// shape is that of a snapshot with so many cells of the rules.
func (w *Worker) shape(cells []int) uint64 {
	var s shape
	for _, set := range w.names {
		for _, name := range set.Segments {
			s.segment(set.Name, name)
		}
	}
	for _, i := range cells {
		s.cell(&w.cfg.Rules.Layout().Cells()[i])
	}
	for i := range w.spoken.entries {
		e := &w.spoken.entries[i]
		s.spoken(w.names[e.set].Name, w.names[e.set].Segments[e.segment], e.counts())
	}
	s.recent(len(w.spoken.recent))
	return s.sum()
}

// Changed is how many users a delta would hold now; ok tells that one can be made: there
// is a snapshot that it would build upon, whose rows are made of the same.
func (w *Worker) Changed() (users int, ok bool) {
	if !w.changes.kept.known || w.changes.kept.shape != w.shape(w.kept()) {
		return w.rows.Len(), false
	}
	return w.changes.count(), true
}

// Delta is Snapshot, of no more than what has changed since the one that was kept last.
// Changed must say that it can be made.
func (w *Worker) Delta(wall schemas.Millis) schemas.Mark {
	w.begin(wall, true)
	if c := &w.changes; !c.kept.known || c.kept.shape != c.cut.shape {
		panic(fmt.Sprintf("worker %d: a delta that builds upon nothing", w.mark.Partition))
	}
	return w.Mark()
}

// SnapshotKept tells that the snapshot that was written last is stored: the next delta
// builds upon it.
func (w *Worker) SnapshotKept() { w.changes.keep() }

// ReadChain makes a worker of a whole snapshot and the deltas upon it, or of a whole one
// alone: each gives the bytes of one after the other to read.
func ReadChain(each func(read func(io.Reader) error) error, partition int32, cfg Config) (w *Worker, err error) {
	err = each(func(from io.Reader) (err error) {
		if w == nil {
			w, err = Read(from, partition, cfg)
			return err
		}
		return w.ReadDelta(from)
	})
	return w, err
}

// ReadDelta brings a worker made by Read to the cut of a delta that builds upon the cut
// where it stands. After an error it is good for nothing.
func (w *Worker) ReadDelta(from io.Reader) error {
	if w.replaying == nil || !w.changes.kept.known {
		panic(fmt.Sprintf("worker %d: a delta for a worker that is not as its snapshot was", w.mark.Partition))
	}
	w.replaying.touched, w.filling, w.dead.runs = nil, nil, nil
	r := newReader(from)
	before := w.changes.kept.shape
	rows, in := w.readHeader(r, true)
	if r.err == nil && in.shape.sum() != before {
		r.fail("its rows are made of other things than those of the snapshot that it builds upon")
	}
	return w.readRows(r, rows, in)
}
