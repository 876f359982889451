package archive

import (
	"math"
	"slices"
)

// Stock is what a table has of a partition.
type Stock struct {
	Partition   Partition
	Rows        int64 // those there twice counted twice
	First, Last int64 // offsets
}

// Extent is how far a partition of the log reaches. It must have been asked for after
// the Stock: rows come from the log, so none is behind an end that was seen later.
type Extent struct {
	Partition  Partition
	Start, End int64 // first offset, and last stable one
	Since      int64 // first offset that was asked for, by time; 0: all
	Committed  int64 // by the archive: every row before it is in the table; -1: nothing is
}

// Selection is which part of the log is asked for.
type Selection struct {
	First, Next int64 // offsets; Next 0: to the end
	Partitions  []int32
}

// Share is a partition's part of a comparison: the records with First <= offset <
// Next. Start and End are the whole log's.
type Share struct {
	Partition   Partition
	First, Next int64
	Start, End  int64
	Behind      int64 // offsets that the archive has not come to
	Stock       Stock
}

// Reach returns the offset before which every record must have its row. What comes
// behind what the archive has committed is under way. Where nothing is committed,
// because the commits have expired or were deleted, the last row stands for it,
// unless an archive is at work (running): its first rows may be half there.
func (e Extent) Reach(s Stock, running bool) int64 {
	until := e.Committed
	if until < 0 && !running && s.Rows > 0 {
		until = s.Last + 1
	}
	return min(max(until, e.Start), e.End)
}

// Plan divides a comparison into shares, one a partition of the log, in the order of
// the extents, and tells what rows there are of partitions that the log does not have:
// of its topics (foreign), and of other topics, which are nobody's here.
func Plan(stock []Stock, extents []Extent, sel Selection, running bool) (shares []Share, foreign, others []Stock) {
	known := map[Partition]bool{}
	topics := map[string]bool{}
	have := map[Partition]Stock{}
	for _, s := range stock {
		have[s.Partition] = s
	}
	for _, e := range extents {
		known[e.Partition], topics[e.Partition.Topic] = true, true
		if len(sel.Partitions) > 0 && !slices.Contains(sel.Partitions, e.Partition.Number) {
			continue
		}
		s := have[e.Partition]
		until := e.Reach(s, running)
		next := sel.Next
		if next == 0 {
			next = math.MaxInt64
		}
		share := Share{Partition: e.Partition, Start: e.Start, End: e.End, Stock: s, Behind: e.End - until}
		share.First = min(max(e.Start, e.Since, sel.First), until)
		share.Next = min(max(share.First, next), until)
		shares = append(shares, share)
	}
	for _, s := range stock {
		switch {
		case known[s.Partition]:
		case topics[s.Partition.Topic]:
			foreign = append(foreign, s)
		default:
			others = append(others, s)
		}
	}
	return shares, foreign, others
}
