package archive

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Span is a run of a partition's offsets, First <= offset < Next, and the rows
// that its records give. Offsets are not dense, and a record may give no row, so
// the rows are counted, never computed.
type Span struct {
	Partition   Partition
	First, Next int64
	Sum         Sum
}

// Sum is a number of rows and the sum of their records' hashes, modulo 2^64. Sets of
// rows that differ have equal sums once in 2^64. Sums can be added as spans are joined.
type Sum struct {
	Rows int64
	Hash uint64
}

func (s *Sum) add(hash uint64) { s.Rows, s.Hash = s.Rows+1, s.Hash+hash }
func (s *Sum) plus(t Sum)      { s.Rows, s.Hash = s.Rows+t.Rows, s.Hash+t.Hash }

// Hash returns the hash that stands for a record in sums: of its offset, its
// timestamp, and its bytes. The position's partition is not in it, because sums
// are compared within one.
func Hash(r *Record) uint64 {
	var d xxhash.Digest
	d.Reset()
	var b [17]byte
	binary.LittleEndian.PutUint64(b[0:], uint64(r.Offset))
	binary.LittleEndian.PutUint64(b[8:], uint64(r.Time))
	write := func(kind byte, bytes []byte) {
		b[16] = kind
		if bytes == nil {
			b[16] |= 0x80 // no key is not an empty key
		}
		binary.LittleEndian.PutUint64(b[8:], uint64(len(bytes)))
		_, _ = d.Write(b[8:])
		_, _ = d.Write(bytes)
	}
	_, _ = d.Write(b[:16])
	write(1, r.Key)
	write(2, r.Value)
	for i := range r.Headers {
		_, _ = d.WriteString(r.Headers[i].Key)
		write(3, r.Headers[i].Value)
	}
	return d.Sum64()
}

// token names a batch by what is in it: its spans and their sums, whatever order
// they came in.
func token(spans []Span) string {
	sorted := slices.Clone(spans)
	slices.SortFunc(sorted, func(a, b Span) int {
		if c := strings.Compare(a.Partition.Topic, b.Partition.Topic); c != 0 {
			return c
		}
		return int(a.Partition.Number) - int(b.Partition.Number)
	})
	var d xxhash.Digest
	d.Reset()
	for _, s := range sorted {
		fmt.Fprintf(&d, "%q %d %d %d %d %x\n", s.Partition.Topic, s.Partition.Number, s.First, s.Next, s.Sum.Rows, s.Sum.Hash)
	}
	s := sorted[0]
	return fmt.Sprintf("%s/%d/%d-%d+%d/%016x", s.Partition.Topic, s.Partition.Number, s.First, s.Next, len(sorted)-1, d.Sum64())
}
