package profile

// Slab is a growing array of T in pieces that never move, so growth copies nothing
// and a pointer to a row stays good. With a T that holds no
// pointers the garbage collector never looks inside.
type Slab[T any] struct {
	pieces [][]T
	n      int
}

// Len is the number of rows.
func (s *Slab[T]) Len() int { return s.n }

// At gives row i, which must exist.
func (s *Slab[T]) At(i int32) *T {
	return &s.pieces[uint32(i)/slabRows][uint32(i)%slabRows]
}

// Extend adds zero rows until there are n.
func (s *Slab[T]) Extend(n int) {
	for len(s.pieces)*slabRows < n {
		s.pieces = append(s.pieces, make([]T, slabRows))
	}
	s.n = max(s.n, n)
}

// Append adds a zero row and returns its index.
func (s *Slab[T]) Append() int32 {
	if s.n == len(s.pieces)*slabRows {
		s.pieces = append(s.pieces, make([]T, slabRows))
	}
	s.n++
	return int32(s.n - 1)
}
