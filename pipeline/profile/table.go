package profile

import (
	"github.com/cespare/xxhash/v2"
)

// Table gives every user id a row number, from 0, in order of arrival. Rows are
// never removed. What a row holds is kept elsewhere, in slabs indexed by it.
//
// The index is open addressing with linear probing on the low 32 bits of
// xxhash64(id); a cell holds those 32 bits and the row, so that most misses never
// look at an id and growth never hashes again. The ids' bytes stand in an arena.
//
// Invariants:
//   - At most 7/8 of the cells are taken, so probing ends.
//   - Every row stands in exactly one cell.
type Table struct {
	cells []uint64 // hash<<32 | row+1; 0 is free. A power of two of them
	ids   arena
	refs  Slab[ref]
}

// ref is where an id stands in the arena.
type ref struct {
	at uint64
	n  uint16
}

// Len is the number of users.
func (t *Table) Len() int { return t.refs.Len() }

// ID gives the id of a row. It aliases the table: it stays good, and must not be changed.
func (t *Table) ID(row int32) []byte {
	r := t.refs.At(row)
	return t.ids.get(r.at, int(r.n))
}

// Find gives the row of an id, or -1.
func (t *Table) Find(id []byte) int32 {
	if len(t.cells) == 0 {
		return -1
	}
	row, _ := t.probe(id, uint32(xxhash.Sum64(id)))
	return row
}

// Guess gives the row that an id has, in all likelihood, or -1 where that takes more than
// a look at one cell. It is for who wants to know early where memory will be looked at.
func (t *Table) Guess(id []byte) int32 {
	if len(t.cells) == 0 {
		return -1
	}
	h := uint32(xxhash.Sum64(id))
	if c := t.cells[int(h)&(len(t.cells)-1)]; uint32(c>>32) == h {
		return int32(uint32(c)) - 1
	}
	return -1
}

// Touch loads the first bytes of a row's id into the cache, and what says where it is.
func (t *Table) Touch(row int32) byte {
	if r := t.refs.At(row); r.n > 0 {
		return t.ids.get(r.at, 1)[0]
	}
	return 0
}

// FindOrAdd gives the row of an id and whether it is new. id is copied.
func (t *Table) FindOrAdd(id []byte) (row int32, added bool) {
	if (t.Len()+1)*8 > len(t.cells)*7 {
		t.grow()
	}
	h := uint32(xxhash.Sum64(id))
	row, cell := t.probe(id, h)
	if row >= 0 {
		return row, false
	}
	row = t.refs.Append()
	*t.refs.At(row) = ref{at: t.ids.put(id), n: uint16(len(id))}
	t.cells[cell] = uint64(h)<<32 | uint64(row+1)
	return row, true
}

// probe gives the row of an id, or -1 and the free cell it would take.
func (t *Table) probe(id []byte, h uint32) (row int32, cell int) {
	mask := len(t.cells) - 1
	for i := int(h) & mask; ; i = (i + 1) & mask {
		c := t.cells[i]
		if c == 0 {
			return -1, i
		}
		if uint32(c>>32) == h {
			row := int32(uint32(c)) - 1
			if string(t.ID(row)) == string(id) {
				return row, i
			}
		}
	}
}

// grow doubles the index: O(users), amortised O(1) a user.
func (t *Table) grow() {
	old := t.cells
	t.cells = make([]uint64, max(64, 2*len(old)))
	mask := len(t.cells) - 1
	for _, c := range old {
		if c == 0 {
			continue
		}
		i := int(c>>32) & mask
		for t.cells[i] != 0 {
			i = (i + 1) & mask
		}
		t.cells[i] = c
	}
}

// arena keeps short byte strings in large pieces that never move.
type arena struct {
	blocks [][]byte
}

func (a *arena) put(b []byte) (at uint64) {
	last := len(a.blocks) - 1
	if last < 0 || len(a.blocks[last])+len(b) > arenaBlock {
		a.blocks = append(a.blocks, make([]byte, 0, arenaBlock))
		last++
	}
	at = uint64(last)*arenaBlock + uint64(len(a.blocks[last]))
	a.blocks[last] = append(a.blocks[last], b...)
	return at
}

func (a *arena) get(at uint64, n int) []byte {
	from := int(at % arenaBlock)
	return a.blocks[at/arenaBlock][from : from+n : from+n]
}
