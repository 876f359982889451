package profile

import (
	"cmp"
	"slices"

	"footfall/schemas"
)

// relayout is a change of layout under way. A row is moved when it is next looked at,
// or when its turn comes, so that a change costs nobody a pause.
type relayout struct {
	layout *Layout
	pieces [][]uint32
	from   []int    // of each cell of the new layout: the old one that holds the same, or -1
	gone   []int    // old cells with lists that nobody asks for any more
	moved  []uint64 // bit set of rows
	next   int32    // rows before it are moved
	end    int32    // rows at and after it were made in the new layout
}

// Holds tells whether a cell has what another asks for: the same, for as long.
func (c *Cell) Holds(want *Cell) bool {
	return c.Name == want.Name && c.Keeps == want.Keeps && c.Keep >= want.Keep && c.K >= want.K
}

// Relayout gives all rows another layout, and returns its cells of which the rows know
// nothing: they are empty. The old layout's cells in partial are forgotten. One relayout
// is brought to its end before the next begins.
func (r *Rows) Relayout(to *Layout, partial []int) (empty []int) {
	for r.Relaying() {
		r.Relay(1 << 10)
	}
	old := &relayout{layout: r.layout, pieces: r.pieces, moved: make([]uint64, (r.n+63)/64), end: int32(r.n)}
	kept := make([]bool, len(r.layout.cells))
	for i := range to.cells {
		from := slices.IndexFunc(r.layout.cells, func(c Cell) bool { return c.Holds(&to.cells[i]) })
		if slices.Contains(partial, from) {
			from = -1
		}
		old.from = append(old.from, from)
		if from < 0 {
			empty = append(empty, i)
		} else {
			kept[from] = true
		}
	}
	for i := range kept {
		if !kept[i] && r.layout.cells[i].Keeps.Lists() {
			old.gone = append(old.gone, i)
		}
	}
	r.layout, r.pieces, r.old = to, nil, old
	if w := to.words; w > 0 {
		for len(r.pieces)*slabRows < r.n {
			r.pieces = append(r.pieces, make([]uint32, slabRows*w))
		}
	}
	if r.n == 0 {
		r.old = nil
	}
	return empty
}

// Relaying tells that rows are still to be moved.
func (r *Rows) Relaying() bool { return r.old != nil }

// Relay moves at most budget rows, and returns what is left of the budget.
func (r *Rows) Relay(budget int) int {
	for ; budget > 0 && r.old != nil; budget-- {
		r.move(r.old.next)
		if r.old.next++; r.old.next == r.old.end {
			r.old = nil
		}
	}
	return budget
}

// move brings one row into the new layout, if it is not there yet.
func (r *Rows) move(i int32) {
	o := r.old
	if i >= o.end || o.moved[i/64]&(1<<(i%64)) != 0 {
		return
	}
	o.moved[i/64] |= 1 << (i % 64)
	was := words(o.pieces, o.layout.words, i)
	now := words(r.pieces, r.layout.words, i)
	for cell, from := range o.from {
		if from >= 0 {
			n := r.layout.cells[cell].Keeps.Words()
			copy(now[r.layout.at[cell]:][:n], was[o.layout.at[from]:])
		}
	}
	for _, cell := range o.gone {
		r.lists.drop(was[o.layout.at[cell]])
	}
}

// Merge adds to a user's cells what the same cells of another user's row hold. It comes to
// the same as if the events of both had been folded into one row, in any order; of more
// moments than are told apart, about to the same.
func (r *Rows) Merge(i int32, other View, cells []int, clock schemas.Millis) {
	row := r.row(i)
	for _, n := range cells {
		c := &r.layout.cells[n]
		w, o := row[r.layout.at[n]:], other.Words(n)
		switch c.Keeps {
		case Number:
			if sum := uint64(w[0]) + uint64(o[0]); sum < 1<<32 {
				w[0] = uint32(sum)
			} else {
				w[0] = 1<<32 - 1
			}
		case Total:
			put64(w, get64(w)+get64(o))
		case Earliest:
			if a, b := get64(w), get64(o); a == 0 || b != 0 && b < a {
				put64(w, b)
			}
		case Newest, Greatest:
			put64(w, max(get64(w), get64(o)))
		case FirstOf, LastOf:
			mergeText(c, w, o)
		case Recent, Moments, Distinct, Tally:
			w[0] = r.lists.set(w[0], c.merged(slices.Clone(r.lists.get(w[0])), other.List(n), clock))
		case Carts:
			r.mergeCarts(c, w, other.List(n))
		}
	}
}

func mergeText(c *Cell, w, o []uint32) {
	t, hash := get64(o), uint64(get64(o[2:]))
	has := uint64(get64(w[2:]))
	if hash == 0 {
		return
	}
	order := cmp.Compare(t, get64(w))
	if c.Keeps == LastOf {
		order = -order
	}
	if has == 0 || order < 0 || order == 0 && hash < has {
		copy(w[:4], o[:4])
	}
}

// merged joins two lists of a cell.
func (c *Cell) merged(a, b []Entry, clock schemas.Millis) []Entry {
	all := append(a, b...) //nolint:gocritic // a is the caller's copy
	switch c.Keeps {
	case Recent:
		slices.SortFunc(all, func(x, y Entry) int { return cmp.Compare(y.A, x.A) })
		return all[:min(len(all), c.K)]
	case Distinct:
		slices.SortFunc(all, func(x, y Entry) int { return cmp.Or(cmp.Compare(x.A, y.A), cmp.Compare(y.B, x.B)) })
		all = slices.CompactFunc(all, func(x, y Entry) bool { return x.A == y.A })
		for len(all) > c.K {
			oldest := 0
			for i := range all {
				if all[i].B < all[oldest].B {
					oldest = i
				}
			}
			all = slices.Delete(all, oldest, oldest+1)
		}
		return all
	default:
	}
	slices.SortFunc(all, func(x, y Entry) int { return cmp.Compare(x.A, y.A) })
	kept := all[:0]
	for _, e := range all {
		if n := len(kept); n > 0 && kept[n-1].A == e.A {
			kept[n-1].B += e.B
		} else {
			kept = append(kept, e)
		}
	}
	if c.Keeps == Tally {
		return kept[:min(len(kept), c.K)]
	}
	from := int64(c.from(clock))
	kept = slices.DeleteFunc(kept, func(e Entry) bool { return e.A < from })
	for len(kept) > c.K {
		at := crowded(kept)
		kept[at+1].B += kept[at].B
		kept = slices.Delete(kept, at, at+1)
	}
	return kept
}

func (r *Rows) mergeCarts(_ *Cell, w []uint32, other []Entry) {
	lines := r.carts.lines[:0]
	for _, list := range [][]Entry{r.lists.get(w[0]), other} {
		for i := range len(list) / lineEntries {
			lines = append(lines, lineAt(list, i))
		}
	}
	r.carts.lines = lines
	w[0] = r.lists.set(w[0], r.carts.write(r.carts.settle(lines)))
}
