package worker

import "math/bits"

// sweep is something that has to be done once with every row there was when it began:
// in their order, a few between two batches, and with a row that is about to change
// before that. So whatever it does with a row it does with the row as it was at the
// beginning.
type sweep struct {
	next, end int32
	early     []uint64 // bit set of rows that were done before their turn
}

// newSweep begins with n rows.
func newSweep(n int) sweep { return sweep{end: int32(n), early: make([]uint64, (n+63)/64)} }

// newSweepOf begins with those of n rows that are in a bit set.
func newSweepOf(rows []uint64, n int) sweep {
	s := newSweep(n)
	for i := range s.early {
		s.early[i] = ^rows[i]
	}
	return s
}

// over tells that every row is done.
func (s *sweep) over() bool { return s.next >= s.end }

// pending tells that a row is still to be done.
func (s *sweep) pending(row int32) bool {
	return row >= s.next && row < s.end && s.early[row/64]&(1<<(row%64)) == 0
}

// take tells that a row is still to be done, and that the caller does it now.
func (s *sweep) take(row int32) bool {
	if !s.pending(row) {
		return false
	}
	s.early[row/64] |= 1 << (row % 64)
	return true
}

// turn gives the next row whose turn it is, or -1 when every row is done. The caller
// does it now. Sixty-four rows that are done cost no more than one.
func (s *sweep) turn() int32 {
	for s.next < s.end {
		left := ^s.early[s.next/64] >> (s.next % 64)
		if left == 0 {
			s.next = min(s.end, (s.next/64+1)*64)
			continue
		}
		row := s.next + int32(bits.TrailingZeros64(left))
		if row >= s.end {
			break
		}
		s.next = row + 1
		return row
	}
	s.next = s.end
	return -1
}
