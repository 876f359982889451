package profile

import "encoding/binary"

// IDMax is how many bytes an id has at most; at least it has one.
const IDMax = 256

// groupRows is how many ids a group holds: with where they are it is half a cache line.
const groupRows = 24

// ids keeps the users' ids by their rows, in large pieces that never move. They come in
// the order of the rows and never change, so only the first of a group needs to be told
// where it stands: a user takes one byte besides its id, and a third.
type ids struct {
	groups Slab[group]
	pieces [][]byte
	n      int
	bytes  int // of all ids
}

// group is where the ids of 24 rows stand: one behind the other, in one piece.
type group struct {
	piece, at uint32
	lengths   [groupRows]uint8 // less one
}

// span gives the place of the id number i of a group in its piece. It adds up the lengths
// before it eight at a time.
func (g *group) span(i int32) (from, to uint32) {
	const odd = 0x00ff00ff00ff00ff
	var sum uint64 // of four lanes
	for at := 0; at < groupRows; at += 8 {
		lengths := binary.LittleEndian.Uint64(g.lengths[at:]) & (1<<(8*uint(max(0, int(i)-at))) - 1)
		sum += lengths&odd + lengths>>8&odd
	}
	from = g.at + uint32(i) + uint32(sum*0x0001000100010001>>48)
	return from, from + uint32(g.lengths[i]) + 1
}

func (s *ids) group(row int32) *group { return s.groups.At(row / groupRows) }

func (s *ids) get(row int32) []byte {
	g := s.group(row)
	from, to := g.span(row % groupRows)
	return s.pieces[g.piece][from:to:to]
}

// append adds the id of the next row. A piece that has no room for it is left, and the
// ids of its group go with it: who has been given one of them keeps what he was given.
func (s *ids) append(id []byte) {
	i := int32(s.n % groupRows)
	last := len(s.pieces) - 1
	if i == 0 {
		g := s.groups.At(s.groups.Append())
		if last >= 0 {
			g.piece, g.at = uint32(last), uint32(len(s.pieces[last]))
		}
	}
	g := s.groups.At(int32(s.n / groupRows))
	if last < 0 || len(s.pieces[last])+len(id) > cap(s.pieces[last]) {
		var before []byte
		if i > 0 {
			before = s.pieces[last][g.at:]
		}
		s.pieces = append(s.pieces, append(make([]byte, 0, max(arenaBlock, len(before)+len(id))), before...))
		last++
		g.piece, g.at = uint32(last), 0
	}
	s.pieces[last] = append(s.pieces[last], id...)
	g.lengths[i] = uint8(len(id) - 1)
	s.n++
	s.bytes += len(id)
}
