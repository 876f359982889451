package worker

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
// does it now.
func (s *sweep) turn() int32 {
	for s.next < s.end {
		row := s.next
		s.next++
		if s.early[row/64]&(1<<(row%64)) == 0 {
			return row
		}
	}
	return -1
}
