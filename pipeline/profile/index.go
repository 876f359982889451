package profile

import "math/bits"

// index finds rows by the hashes of their ids. It is many small parts, each of them
// nearly full, which grow one by one: so growing keeps nobody waiting, and needs no
// second index as large as the first.
//
// A bucket is a cache line of twelve rows, each with eight bits of its hash, its tag. A
// row that finds its bucket full stands in the next one that is not. So most often one
// line tells who is meant, and no id is looked at but the right one.
//
// Invariants:
//   - Every row stands in exactly one bucket, and those from its home to there are full.
//   - A part has fewer rows than slots, so looking through it ends.
type index struct {
	parts    []part // [1 << partBits], by the upper bits of the hash; none before the first row
	expected int    // rows there are going to be, as far as is known
}

type part struct {
	buckets []bucket
	rows    int
}

// bucket holds rows in the order in which they came.
type bucket struct {
	low  uint64 // the tags of the first eight, the first in the lowest byte; 0: nobody
	high uint32 // those of the other four
	n    uint32
	rows [bucketRows]int32
}

const (
	bucketRows = 12
	partBits   = 10

	// A part grows by a quarter when there are eleven rows for each of its buckets: so a
	// user takes 5.8 to 7.3 bytes of it. Smaller steps would make a new user dearer, for
	// whose sake more are moved.
	bucketFull = 11
	growth     = 4

	// expectedGrowth is by how much it grows at most where more rows are expected: not at
	// once to what they would need, for who expects them may be wrong.
	expectedGrowth = 8
)

// part gives the part of a hash.
func (x *index) part(hash uint64) *part { return &x.parts[hash>>(64-partBits)] }

// tag is what a bucket knows of a hash.
func tag(hash uint64) uint8 { return uint8(max(1, hash&0xff)) }

// home is the bucket in which a hash is looked for first.
func (p *part) home(hash uint64) int {
	return int(uint64(uint32(hash>>8)) * uint64(len(p.buckets)) >> 32)
}

// next is the bucket after one.
func (p *part) next(i int) int {
	if i++; i < len(p.buckets) {
		return i
	}
	return 0
}

// matches marks the tags of a bucket that are the one, in the highest bit of their bytes.
// Behind one that is, one that is not may be marked too.
func (b *bucket) matches(tag uint8) (low uint64, high uint32) {
	const ones, ones32 = 0x0101010101010101, 0x01010101
	low, high = b.low^ones*uint64(tag), b.high^ones32*uint32(tag)
	return (low - ones) &^ low & (ones << 7), (high - ones32) &^ high & (ones32 << 7)
}

// first is the row of the first match.
func (b *bucket) first(low uint64, high uint32) int32 {
	if low != 0 {
		return b.rows[bits.TrailingZeros64(low)/8]
	}
	return b.rows[8+bits.TrailingZeros32(high)/8]
}

// add adds the row of a hash. hashes gives those of others, where they have to make room.
func (x *index) add(hash uint64, row int32, hashes func(rows []int32, into []uint64)) {
	if x.parts == nil {
		x.parts = make([]part, 1<<partBits)
	}
	p := x.part(hash)
	if has := len(p.buckets); p.rows >= bucketFull*has {
		share := x.expected>>partBits/bucketFull + 1
		p.grow(max(has+has/growth+1, min(share, expectedGrowth*has)), hashes)
	}
	p.put(hash, row)
	p.rows++
}

func (p *part) put(hash uint64, row int32) {
	i := p.home(hash)
	for p.buckets[i].n == bucketRows {
		i = p.next(i)
	}
	b := &p.buckets[i]
	if b.n < 8 {
		b.low |= uint64(tag(hash)) << (8 * b.n)
	} else {
		b.high |= uint32(tag(hash)) << (8 * (b.n - 8))
	}
	b.rows[b.n] = row
	b.n++
}

// grow makes it so many buckets, and as many more as the allocator rounds up to.
func (p *part) grow(n int, hashes func(rows []int32, into []uint64)) {
	old := p.buckets
	p.buckets = append([]bucket(nil), make([]bucket, n)...)
	p.buckets = p.buckets[:cap(p.buckets)]
	var into [bucketRows]uint64
	for i := range old {
		rows := old[i].rows[:old[i].n]
		hashes(rows, into[:])
		for j, row := range rows {
			p.put(into[j], row)
		}
	}
}
