package profile

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"footfall/schemas"
)

// Keeps is what a cell keeps of the events that it counts. All of them are
// commutative and associative (design 3.1): sums, minima, maxima, and sets of which
// the least or the greatest are kept.
type Keeps uint8

// What a cell can keep.
const (
	Number   Keeps = iota // how many events: one u32
	Total                 // the sum of a value: one i64
	Earliest              // the first event time: one i64, 0 for none
	Newest                // the last event time
	Greatest              // the greatest value: one i64
	FirstOf               // the text of the earliest event that has one: its time and hash
	LastOf                // the text of the newest event that has one
	Recent                // the K last event times, the newest first: a list
	Moments               // event times and values within Keep of the clock, by time: a list
	Distinct              // the last time of each text: a list, by hash
	Tally                 // how many events of each text: a list, by hash
	Carts                 // lines of carts that no order has closed: a list
)

// Lists tells whether a cell keeps a list, of which its words hold the handle.
func (k Keeps) Lists() bool { return k >= Recent }

// Valid tells whether there is such a kind of cell.
func (k Keeps) Valid() bool { return k <= Carts }

// Words is how many 32-bit words of a row a cell takes.
func (k Keeps) Words() int {
	switch k {
	case Number, Recent, Moments, Distinct, Tally, Carts:
		return 1
	case Total, Earliest, Newest, Greatest:
		return 2
	case FirstOf, LastOf:
		return 4
	}
	panic(fmt.Sprintf("profile: no such kind of cell: %d", k))
}

// Forever is how long a cell keeps what never goes by.
const Forever = schemas.Never

// Cell says what is kept of which events. Cells of one Name keep the same: the name
// tells a snapshot's cells from those of the rules.
type Cell struct {
	Name   string
	Keeps  Keeps
	Kinds  Kinds                               // of events that count
	Filter func(*schemas.Event) bool           // which of them do; nil: all
	Value  func(*schemas.Event) int64          // Total, Greatest, Moments: what is added or compared
	Text   func(*schemas.Event) []byte         // FirstOf, LastOf, Distinct, Tally: empty is left out
	Bucket func(schemas.Millis) int64          // Tally without Text: what an event time is counted under
	Keep   schemas.Millis                      // Moments, Distinct, Carts: how long an entry can matter
	Since  func(schemas.Millis) schemas.Millis // Moments, Distinct: the first moment that matters at a clock, where that may be before Keep
	K      int                                 // Recent: how many; else the most entries a user has
}

// Kinds is a set of event kinds.
type Kinds uint16

// KindsOf makes a set.
func KindsOf(kinds ...schemas.Kind) (s Kinds) {
	for _, k := range kinds {
		s |= 1 << k
	}
	return s
}

// AllKinds are all there are.
const AllKinds Kinds = 1<<schemas.Kinds - 1

// Has tells whether a kind is in the set.
func (s Kinds) Has(k schemas.Kind) bool { return s&(1<<k) != 0 }

// Layout is what a program keeps of every user besides the Profile, compiled from
// its rules: what no rule asks for takes no memory (design 3.9). It is immutable.
type Layout struct {
	cells  []Cell
	at     []int                  // first word of each cell
	words  int                    // of a row
	byKind [schemas.Kinds][]uint8 // cells that an event of a kind may change
}

// CellsMax is how many cells a Layout has at most (R4): their numbers are bytes.
const CellsMax = 255

// NewLayout lays cells out. Their names are different, and sorted by the caller's
// order of need; there are at most CellsMax.
func NewLayout(cells []Cell) *Layout {
	if len(cells) > CellsMax {
		panic(fmt.Sprintf("profile: %d cells, and %d are the most", len(cells), CellsMax))
	}
	l := &Layout{cells: cells, at: make([]int, len(cells))}
	for i := range cells {
		l.at[i] = l.words
		l.words += cells[i].Keeps.Words()
		for kind := range schemas.Kinds {
			if cells[i].Kinds.Has(kind) {
				l.byKind[kind] = append(l.byKind[kind], uint8(i))
			}
		}
	}
	return l
}

// Cells are the cells, in the order of their numbers.
func (l *Layout) Cells() []Cell { return l.cells }

// Words is how many 32-bit words a row takes.
func (l *Layout) Words() int { return l.words }

// Bytes is how many bytes a user takes, lists not counted.
func (l *Layout) Bytes() int { return 4 * l.words }

// Rows holds a row of words for each user, and their lists.
type Rows struct {
	layout *Layout
	pieces [][]uint32
	n      int
	lists  lists
	undo   undo
	carts  cartScratch
	old    *relayout // the layout before, while rows are still in it
}

// NewRows makes rows of a layout.
func NewRows(l *Layout) *Rows { return &Rows{layout: l} }

// Append adds an empty row.
func (r *Rows) Append() {
	if w := r.layout.words; w > 0 && r.n == len(r.pieces)*slabRows {
		r.pieces = append(r.pieces, make([]uint32, slabRows*w))
	}
	r.n++
}

// Len is the number of rows.
func (r *Rows) Len() int { return r.n }

// Bytes is what all rows take, and of that what their lists do.
func (r *Rows) Bytes() (total, lists int) {
	lists = r.lists.bytes()
	return r.n*r.layout.Bytes() + lists, lists
}

// row gives the words of a row.
func (r *Rows) row(i int32) []uint32 {
	if r.old != nil {
		r.move(i)
	}
	return words(r.pieces, r.layout.words, i)
}

// words gives row i of pieces of rows of w words.
func words(pieces [][]uint32, w int, i int32) []uint32 {
	if w == 0 {
		return nil
	}
	at := int(uint32(i)%slabRows) * w
	return pieces[uint32(i)/slabRows][at : at+w : at+w]
}

// View is one user's row, to be read. It is good until the next change of any row.
type View struct {
	words  []uint32
	rows   *Rows
	before bool // the row as it was before the last Fold
}

// View gives a user's row.
func (r *Rows) View(i int32) View { return View{words: r.row(i), rows: r} }

func get64(w []uint32) int64    { return int64(uint64(w[0]) | uint64(w[1])<<32) }
func put64(w []uint32, v int64) { w[0], w[1] = uint32(v), uint32(uint64(v)>>32) }

// Number is a Number cell's count.
func (v View) Number(cell int) int64 { return int64(v.words[v.rows.layout.at[cell]]) }

// Integer is the value of a Total, Earliest, Newest or Greatest cell, or the time of
// a FirstOf or LastOf cell.
func (v View) Integer(cell int) int64 { return get64(v.words[v.rows.layout.at[cell]:]) }

// Text is the hash of a FirstOf or LastOf cell's text, 0 for none.
func (v View) Text(cell int) uint64 { return uint64(get64(v.words[v.rows.layout.at[cell]+2:])) }

// List is the entries of a cell that keeps a list.
func (v View) List(cell int) []Entry {
	handle := v.words[v.rows.layout.at[cell]]
	if v.before {
		if list, changed := v.rows.undo.list(handle); changed {
			return list
		}
	}
	return v.rows.lists.get(handle)
}

// Words are the words of a cell, to be read or, of a cell that keeps no list, written.
func (v View) Words(cell int) []uint32 {
	at := v.rows.layout.at[cell]
	return v.words[at : at+v.rows.layout.cells[cell].Keeps.Words()]
}

// Copy makes rows of one user, the one that the view shows, to try things on.
func (v View) Copy() *Rows {
	r := &Rows{layout: v.rows.layout, n: 1}
	if w := r.layout.words; w > 0 {
		r.pieces = [][]uint32{make([]uint32, w)}
	}
	r.Take(v)
	return r
}

// Take makes the row of a Copy what another view of the same layout shows.
func (r *Rows) Take(v View) {
	to := r.View(0)
	for i := range r.layout.cells {
		if r.layout.cells[i].Keeps.Lists() {
			r.SetList(0, i, v.List(i))
		} else {
			copy(to.Words(i), v.Words(i))
		}
	}
}

// SetList sets the entries of a user's cell that keeps a list.
func (r *Rows) SetList(i int32, cell int, entries []Entry) {
	w := r.row(i)[r.layout.at[cell]:]
	w[0] = r.lists.set(w[0], entries)
}

// HashText is what a text is kept as; 0 is no text.
func HashText(b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	return max(1, xxhash.Sum64(b))
}

// Fold adds an event to a user's row, and returns the cells that it changed as a bit
// set of the first 64 (all above are one bit, the last). Entries of lists that no
// evaluation at or after clock can see any more are dropped.
func (r *Rows) Fold(i int32, ev *schemas.Event, clock schemas.Millis) (changed Changed) {
	words := r.row(i)
	r.undo.begin(words) // also where nothing is asked of the kind: Before is of this row
	for _, n := range r.layout.byKind[ev.Kind] {
		c := &r.layout.cells[n]
		if c.Filter != nil && !c.Filter(ev) {
			continue
		}
		if r.foldCell(c, words[r.layout.at[n]:], ev, clock) {
			changed |= bit(int(n))
		}
	}
	return changed
}

// Changed is a set of cells. Those from the 64th on share one bit.
type Changed uint64

func bit(cell int) Changed { return 1 << min(cell, 63) }

// ChangedBy gives the set of cells.
func ChangedBy(cells ...int) (s Changed) {
	for _, c := range cells {
		s |= bit(c)
	}
	return s
}

func (r *Rows) foldCell(c *Cell, w []uint32, ev *schemas.Event, clock schemas.Millis) bool {
	switch c.Keeps {
	case Number:
		w[0] += b2u(w[0] != 1<<32-1)
	case Total:
		put64(w, get64(w)+c.Value(ev))
	case Earliest:
		if t := get64(w); t != 0 && t <= int64(ev.At) {
			return false
		}
		put64(w, int64(ev.At))
	case Newest:
		if get64(w) >= int64(ev.At) {
			return false
		}
		put64(w, int64(ev.At))
	case Greatest:
		if v := c.Value(ev); v > get64(w) {
			put64(w, v)
			return true
		}
		return false
	case FirstOf, LastOf:
		return foldText(c, w, ev)
	case Recent:
		return r.foldRecent(c, w, ev)
	case Moments:
		r.foldMoment(c, w, ev, clock)
	case Distinct:
		return r.foldDistinct(c, w, ev, clock)
	case Tally:
		return r.foldTally(c, w, ev)
	case Carts:
		return r.foldCarts(c, w, ev, clock)
	}
	return true
}

func b2u(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// foldText keeps the text of the earliest or the newest event; of two at the same
// moment that of the smaller hash, so that their order does not matter.
func foldText(c *Cell, w []uint32, ev *schemas.Event) bool {
	hash := HashText(c.Text(ev))
	if hash == 0 {
		return false
	}
	t, has := get64(w), uint64(get64(w[2:]))
	order := cmp.Compare(int64(ev.At), t)
	if c.Keeps == LastOf {
		order = -order
	}
	if has != 0 && (order > 0 || order == 0 && hash >= has) {
		return false
	}
	put64(w, int64(ev.At))
	put64(w[2:], int64(hash))
	return true
}

// from is the first moment of which a cell keeps entries at a clock: never after Keep before
// it, though a window of the calendar that has just begun would ask for less. Other rules
// may look at what is there by then (Holds).
func (c *Cell) from(clock schemas.Millis) schemas.Millis {
	if c.Keep >= Forever {
		return 0
	}
	from := max(0, clock-c.Keep+1)
	if c.Since != nil {
		from = min(from, c.Since(clock))
	}
	return from
}

// foldRecent keeps the K greatest event times, the newest first.
func (r *Rows) foldRecent(c *Cell, w []uint32, ev *schemas.Event) bool {
	list := r.lists.get(w[0])
	at, _ := slices.BinarySearchFunc(list, ev.At, func(e Entry, t schemas.Millis) int { return cmp.Compare(int64(t), e.A) })
	if at >= c.K {
		return false
	}
	r.undo.save(w, list)
	if len(list) > c.K { // rules before these kept more of them
		w[0] = r.lists.cut(w[0], c.K, len(list))
		list = r.lists.get(w[0])
	}
	if len(list) == c.K {
		copy(list[at+1:], list[at:c.K-1])
		list[at] = Entry{A: int64(ev.At)}
		return true
	}
	w[0] = r.lists.insert(w[0], at, Entry{A: int64(ev.At)})
	return true
}
