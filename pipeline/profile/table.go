package profile

import (
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// Table gives every user id a row number, from 0, in order of arrival. Rows are
// never removed. What a row holds is kept elsewhere, in slabs indexed by it.
type Table struct {
	index index
	ids   ids
}

// Len is the number of users.
func (t *Table) Len() int { return t.ids.n }

// Bytes is how many bytes the ids have.
func (t *Table) Bytes() int { return t.ids.bytes }

// ID gives the id of a row. It aliases the table: it stays good, and must not be changed.
func (t *Table) ID(row int32) []byte { return t.ids.get(row) }

// Find gives the row of an id, or -1.
func (t *Table) Find(id []byte) int32 { return t.find(id, xxhash.Sum64(id)) }

func (t *Table) find(id []byte, hash uint64) int32 {
	if t.index.parts == nil {
		return -1
	}
	p := t.index.part(hash)
	if p.rows == 0 {
		return -1
	}
	for i := p.home(hash); ; i = p.next(i) {
		b := &p.buckets[i]
		low, high := b.matches(tag(hash))
		for low != 0 || high != 0 {
			row := b.first(low, high)
			if string(t.ids.get(row)) == string(id) {
				return row
			}
			if low != 0 {
				low &= low - 1
			} else {
				high &= high - 1
			}
		}
		if b.n < bucketRows {
			return -1
		}
	}
}

// Guess gives the row that an id has, in all likelihood, or -1 where that takes more than
// a look at one line. It is for who wants to know early where memory will be looked at.
func (t *Table) Guess(id []byte) int32 {
	if t.index.parts == nil {
		return -1
	}
	hash := xxhash.Sum64(id)
	p := t.index.part(hash)
	if p.rows == 0 {
		return -1
	}
	b := &p.buckets[p.home(hash)]
	low, high := b.matches(tag(hash))
	if low == 0 && high == 0 {
		return -1
	}
	return b.first(low, high)
}

// Touch loads the first bytes of a row's id into the cache, and what says where it is.
func (t *Table) Touch(row int32) byte { return t.ids.get(row)[0] }

// FindOrAdd gives the row of an id and whether it is new. id is copied; it has from 1
// to IDMax bytes.
func (t *Table) FindOrAdd(id []byte) (row int32, added bool) {
	hash := xxhash.Sum64(id)
	if row := t.find(id, hash); row >= 0 {
		return row, false
	}
	if len(id) < 1 || len(id) > IDMax {
		panic(fmt.Sprintf("profile: an id of %d bytes, want 1 to %d", len(id), IDMax))
	}
	row = int32(t.ids.n)
	t.ids.append(id)
	t.index.add(hash, row, t.hash)
	return row, true
}

func (t *Table) hash(row int32) uint64 { return xxhash.Sum64(t.ids.get(row)) }
