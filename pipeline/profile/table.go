package profile

import (
	"fmt"
	"hash/maphash"
)

// Table gives every user id a row number, from 0, in order of arrival. Rows are
// never removed. What a row holds is kept elsewhere, in slabs indexed by it.
type Table struct {
	index   index
	ids     ids
	seed    maphash.Seed
	touched uint32 // scratch of hashes
}

// hash is of this table alone: ids come from browsers, and who knew it could choose a million
// that share a bucket.
func (t *Table) hash(id []byte) uint64 {
	if t.seed == (maphash.Seed{}) {
		t.seed = maphash.MakeSeed()
	}
	return maphash.Bytes(t.seed, id)
}

// Len is the number of users.
func (t *Table) Len() int { return t.ids.n }

// Bytes is how many bytes the ids have.
func (t *Table) Bytes() int { return t.ids.bytes }

// ID gives the id of a row. It aliases the table: it stays good, and must not be changed.
func (t *Table) ID(row int32) []byte { return t.ids.get(row) }

// Find gives the row of an id, or -1.
func (t *Table) Find(id []byte) int32 { return t.find(id, t.hash(id)) }

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

// Ask and what follows are for who knows early whom it will look for, and wants the memory
// to answer many questions at once. Each step loads lines into the cache which the next one
// needs: Ask that in which a hash is looked for first, Guess none, Touch that which says
// where a row's id is, and ID(row)[0] the id. What Ask and Touch return is of no use but
// that the loads are made.
func (t *Table) Ask(id []byte) (hash, loaded uint64) {
	hash = t.hash(id)
	if t.index.parts == nil {
		return hash, 0
	}
	if p := t.index.part(hash); len(p.buckets) > 0 {
		loaded = p.buckets[p.home(hash)].low
	}
	return hash, loaded
}

// Guess gives the row that the id of a hash has, in all likelihood, or -1 where that takes
// more than a look at one line.
func (t *Table) Guess(hash uint64) int32 {
	if t.index.parts == nil {
		return -1
	}
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

// FindGuessed is Find, for who has a guess.
func (t *Table) FindGuessed(id []byte, guess int32) int32 {
	if guess >= 0 && string(t.ids.get(guess)) == string(id) {
		return guess
	}
	return t.Find(id)
}

// Touch is told of at Ask.
func (t *Table) Touch(row int32) uint32 { return t.ids.group(row).at }

// Expect tells how many users there are going to be in all likelihood, which spares some
// growing.
func (t *Table) Expect(users int) { t.index.expected = users }

// FindOrAdd gives the row of an id and whether it is new. id is copied; it has from 1
// to IDMax bytes.
func (t *Table) FindOrAdd(id []byte) (row int32, added bool) {
	hash := t.hash(id)
	if row := t.find(id, hash); row >= 0 {
		return row, false
	}
	if len(id) < 1 || len(id) > IDMax {
		panic(fmt.Sprintf("profile: an id of %d bytes, want 1 to %d", len(id), IDMax))
	}
	row = int32(t.ids.n)
	t.ids.append(id)
	t.index.add(hash, row, t.hashes)
	return row, true
}

// hashes gives the hashes of rows. It asks for all that it needs from the memory before it
// waits for any of it: who came about the same time as others has its id near theirs, but
// here are those of one part.
func (t *Table) hashes(rows []int32, into []uint64) {
	var ids [bucketRows][]byte
	var loaded uint32 // of no use but that the loads are made
	for _, row := range rows {
		loaded += t.ids.group(row).at
	}
	for i, row := range rows {
		ids[i] = t.ids.get(row)
		loaded += uint32(ids[i][0])
	}
	t.touched = loaded
	for i, id := range ids[:len(rows)] {
		into[i] = t.hash(id)
	}
}
