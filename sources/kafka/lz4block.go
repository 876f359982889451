package kafka

import (
	"encoding/binary"
	"math/bits"
	"sync"
)

// A block of LZ4 (LZ4 Block Format Description) is sequences: a token, literals, and a
// match, that is, how far back the bytes that follow are found again. The token has the
// numbers of literals and of bytes of the match, less four, in four bits each; 15 means
// that more is added, in bytes, up to one below 255.
const (
	matchLeast  = 4
	matchWindow = 64<<10 - 1 // how far back
	blockTail   = 12         // no match begins in the last bytes of a block
	literalTail = 5          // the last ones are literals
	wildCopy    = 16         // literals are copied so many at a time
)

// packTable is where the bytes of a hash were seen last. It fits into a core's first cache:
// events and outputs look like the one before, so what is far back is rarely needed.
type packTable [1 << packTableBits]uint32

const packTableBits = 13

//nolint:gochecknoglobals // memory that anyone may use
var packTables sync.Pool

// packedMost is how many bytes n take at most, with room for a copy that goes too far.
func packedMost(n int) int { return n + n/255 + 2*wildCopy }

// pack packs src into dst, which has packedMost of it, and returns how many bytes it takes.
//
// It looks where the last match came from before it looks into the table: two records of
// the same form differ in numbers and ids of the same length, and go on alike after them.
func (t *packTable) pack(dst, src []byte) int {
	*t = packTable{}
	d, anchor, back := 0, 0, 1
	last, end := len(src)-blockTail, len(src)-literalTail
	for at := 1; at < last; {
		v := binary.LittleEndian.Uint64(src[at:])
		ref := at - back
		n := -1
		if ref >= 0 {
			n = fourAlike(v ^ binary.LittleEndian.Uint64(src[ref:]))
		}
		if n >= 0 {
			at, ref = at+n, ref+n
		} else if ref = t.seen(v, at); at-ref > matchWindow || binary.LittleEndian.Uint32(src[ref:]) != uint32(v) {
			if ref = t.seen(v>>16, at+2); at+2-ref > matchWindow || binary.LittleEndian.Uint32(src[ref:]) != uint32(v>>16) {
				at += 4 + (at-anchor)>>6
				continue
			}
			at += 2
		}
		for at > anchor && ref > 0 && src[at-1] == src[ref-1] {
			at--
			ref--
		}
		back = at - ref
		n = matchLeast + alike(src[at+matchLeast:end], src[ref+matchLeast:])
		d = putLiterals(dst, d, src, anchor, at, min(n-matchLeast, 15))
		binary.LittleEndian.PutUint16(dst[d:], uint16(back))
		if d += 2; n-matchLeast >= 15 {
			d = putMore(dst, d, n-matchLeast-15)
		}
		at += n
		anchor = at
		if at < last {
			t.seen(binary.LittleEndian.Uint64(src[at-2:]), at-2)
		}
	}
	return putLiterals(dst, d, src, anchor, len(src), 0)
}

// seen tells where the first five of six bytes may have been before, and notes that they
// are at a place now.
func (t *packTable) seen(v uint64, at int) (before int) {
	cell := &t[(v<<24)*889523592379>>(64-packTableBits)] // as lz4.c does
	before, *cell = int(*cell), uint32(at)
	return before
}

// fourAlike gives the first place of four bytes of 0, one after another, or -1.
func fourAlike(v uint64) int {
	const low7 = ^uint64(0) / 255 * 0x7f
	zero := ^(v&low7 + low7 | v | low7) // the highest bit of each byte that is 0
	zero &= zero >> 8
	if zero &= zero >> 16; zero == 0 {
		return -1
	}
	return bits.TrailingZeros64(zero) / 8
}

// putLiterals writes a token and the literals src[from:to].
func putLiterals(dst []byte, d int, src []byte, from, to, match int) int {
	n := to - from
	if n < 15 && from+wildCopy <= len(src) {
		dst[d] = byte(n<<4 | match)
		copy(dst[d+1:d+1+wildCopy], src[from:from+wildCopy])
		return d + 1 + n
	}
	dst[d] = byte(min(n, 15)<<4 | match)
	if d++; n >= 15 {
		d = putMore(dst, d, n-15)
	}
	return d + copy(dst[d:], src[from:to])
}

// putMore writes what goes beyond a token's four bits.
func putMore(dst []byte, d, n int) int {
	for ; n >= 255; n -= 255 {
		dst[d] = 255
		d++
	}
	dst[d] = byte(n)
	return d + 1
}

// alike is how many bytes a has in common with the beginning of b, which is longer.
func alike(a, b []byte) int {
	n := 0
	for ; len(a)-n >= 8; n += 8 {
		if diff := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); diff != 0 {
			return n + bits.TrailingZeros64(diff)/8
		}
	}
	for n < len(a) && a[n] == b[n] {
		n++
	}
	return n
}
