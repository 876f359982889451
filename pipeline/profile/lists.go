package profile

import (
	"fmt"
	"math/bits"
)

// Entry is one entry of a list. What its two numbers are depends on the cell:
//
//	Recent    A event time
//	Moments   A event time   B sum of the values at that time
//	Distinct  A text's hash  B last event time
//	Tally     A text's hash  B how many
//	Carts     see carts.go
type Entry struct{ A, B int64 }

// lists keeps the lists of all rows, in blocks of a power of two of entries. A
// handle is the block's class (the exponent plus one) in its upper 5 bits and its
// number within the class below; 0 is the empty list, which takes no memory. Blocks
// that a list has outgrown or emptied are used again.
//
// There are no pointers in the blocks, so the garbage collector looks at pieces
// only, of which there is one for thousands of lists.
type lists struct {
	classes [classesMax]class
}

// ListMax is the most entries a list has.
const ListMax = 1 << (classesMax - 1)

const (
	classesMax = 17 // blocks of 1 to 65,536 entries
	handleBits = 27
	pieceBytes = 64 << 10
)

// class holds the blocks of one size: [pieces][perPiece * size]Entry.
type class struct {
	pieces [][]Entry
	counts Slab[uint32] // entries in use, by number of block
	free   []uint32     // numbers of blocks that nobody uses
}

func handleOf(class int, block uint32) uint32 { return uint32(class+1)<<handleBits | block }

func split(handle uint32) (class int, block uint32) {
	return int(handle>>handleBits) - 1, handle & (1<<handleBits - 1)
}

// perPiece is how many blocks of a class one piece holds.
func perPiece(class int) uint32 {
	return uint32(max(1, pieceBytes/16>>class))
}

// get gives a list's entries: good until the list is changed.
func (l *lists) get(handle uint32) []Entry {
	if handle == 0 {
		return nil
	}
	class, block := split(handle)
	return l.block(class, block)[:*l.classes[class].counts.At(int32(block))]
}

// block gives all of a block.
func (l *lists) block(class int, block uint32) []Entry {
	per, size := perPiece(class), uint32(1)<<class
	at := block % per * size
	return l.classes[class].pieces[block/per][at : at+size : at+size]
}

// make gives a block with room for n entries, of which n are in use.
func (l *lists) make(n int) uint32 {
	class := bits.Len32(uint32(n - 1))
	if class >= classesMax {
		panic(fmt.Sprintf("profile: a list of %d entries, and %d are the most", n, ListMax))
	}
	c := &l.classes[class]
	var block uint32
	if last := len(c.free) - 1; last >= 0 {
		block, c.free = c.free[last], c.free[:last]
	} else {
		block = uint32(c.counts.Append())
		if block >= 1<<handleBits {
			panic(fmt.Sprintf("profile: %d lists of %d entries; split the users over more partitions", block, 1<<class))
		}
		if block/perPiece(class) == uint32(len(c.pieces)) {
			c.pieces = append(c.pieces, make([]Entry, perPiece(class)<<class))
		}
	}
	*c.counts.At(int32(block)) = uint32(n)
	return handleOf(class, block)
}

// drop gives a list's block back.
func (l *lists) drop(handle uint32) {
	if handle == 0 {
		return
	}
	class, block := split(handle)
	l.classes[class].free = append(l.classes[class].free, block)
}

// insert puts an entry before the one at place at, and returns the list's new handle.
func (l *lists) insert(handle uint32, at int, e Entry) uint32 {
	old := l.get(handle)
	n := len(old) + 1
	into := handle
	if handle == 0 || n > len(l.whole(handle)) {
		into = l.make(n)
	} else {
		class, block := split(handle)
		*l.classes[class].counts.At(int32(block)) = uint32(n)
	}
	list := l.get(into)
	copy(list[at+1:], old[at:])
	if into != handle {
		copy(list, old[:at])
		l.drop(handle)
	}
	list[at] = e
	return into
}

func (l *lists) whole(handle uint32) []Entry {
	class, block := split(handle)
	return l.block(class, block)
}

// cut removes the entries from..to-1, and returns the list's new handle.
func (l *lists) cut(handle uint32, from, to int) uint32 {
	list := l.get(handle)
	n := len(list) - (to - from)
	if n == 0 {
		l.drop(handle)
		return 0
	}
	copy(list[from:], list[to:])
	class, block := split(handle)
	*l.classes[class].counts.At(int32(block)) = uint32(n)
	if class > 1 && n <= 1<<(class-2) { // a quarter is left: a smaller block will do
		into := l.make(n)
		copy(l.get(into), list[:n])
		l.drop(handle)
		return into
	}
	return handle
}

// set makes a list of entries, in the place of another.
func (l *lists) set(handle uint32, entries []Entry) uint32 {
	l.drop(handle)
	if len(entries) == 0 {
		return 0
	}
	handle = l.make(len(entries))
	copy(l.get(handle), entries)
	return handle
}

// bytes is what the blocks in use take.
func (l *lists) bytes() int {
	total := 0
	for class := range l.classes {
		c := &l.classes[class]
		total += (c.counts.Len() - len(c.free)) * 16 << class
	}
	return total
}
