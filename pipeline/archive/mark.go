package archive

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// Mark is the metadata of an archive's commit: what is under way, and what the
// partition's rows before the committed offset must add up to.
//
// Its text is base64 (URL alphabet, no padding) of:
//
//	size 1        version, 1
//	uvarint       number of spans that are under way: 0 or 1
//	  uvarint     its length: it begins at the committed offset
//	  uvarint     its rows
//	  size 8      its hash, little endian
//	uvarint       number of spans of the ledger
//	varint        where the first of them begins
//	  uvarint     length of a span
//	  uvarint     its rows
//	  size 8      its hash, little endian
//	size 4        xxhash64 of all before, its low half, little endian
//
// It is never longer than 1,100 bytes: Kafka allows 4,096.
type Mark struct {
	UnderWay bool
	Next     int64 // UnderWay: the span from the committed offset to here may be in the table
	Sum      Sum
	Ledger   Ledger
}

const markVersion = 1

// Encode returns the text of a mark that is committed with the offset at.
func (m *Mark) Encode(at int64) string {
	b := make([]byte, 0, 800)
	b = append(b, markVersion)
	if m.UnderWay {
		b = append(b, 1)
		b = appendSpan(b, m.Next-at, m.Sum)
	} else {
		b = append(b, 0)
	}
	spans := m.Ledger.spans
	b = binary.AppendUvarint(b, uint64(len(spans)))
	if len(spans) > 0 {
		b = binary.AppendVarint(b, spans[0].first)
	}
	for _, e := range spans {
		b = appendSpan(b, e.next-e.first, e.sum)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(xxhash.Sum64(b)))
	return base64.RawURLEncoding.EncodeToString(b)
}

func appendSpan(b []byte, length int64, sum Sum) []byte {
	b = binary.AppendUvarint(b, uint64(length))
	b = binary.AppendUvarint(b, uint64(sum.Rows))
	return binary.LittleEndian.AppendUint64(b, sum.Hash)
}

// ParseMark is the inverse of Encode. The empty text is the empty mark: offsets
// that were set by hand have no metadata.
func ParseMark(text string, at int64) (Mark, error) {
	if text == "" {
		return Mark{}, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return Mark{}, fmt.Errorf("metadata of the archive's commit: %w", err)
	}
	if len(b) < 5 || uint32(xxhash.Sum64(b[:len(b)-4])) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return Mark{}, errors.New("metadata of the archive's commit: checksum does not match")
	}
	if b[0] != markVersion {
		return Mark{}, fmt.Errorf("metadata of the archive's commit: version %d, this footfall reads %d", b[0], markVersion)
	}
	r := markReader{b: b[1 : len(b)-4]}
	m := r.mark(at)
	if r.bad || len(r.b) > 0 {
		return Mark{}, errors.New("metadata of the archive's commit: does not make sense")
	}
	return m, nil
}

// markReader reads the fields of a mark. After the first that is out of range, bad.
type markReader struct {
	b   []byte
	bad bool
}

func (r *markReader) mark(at int64) (m Mark) {
	if r.uvarint(1) == 1 {
		m.UnderWay = true
		m.Next, m.Sum = r.span(at)
	}
	n := r.uvarint(ledgerMax)
	if n == 0 {
		return m
	}
	first, size := binary.Varint(r.b)
	if size <= 0 || first < 0 {
		r.bad = true
		return m
	}
	r.b = r.b[size:]
	for range n {
		next, sum := r.span(first)
		m.Ledger.spans = append(m.Ledger.spans, entry{first: first, next: next, sum: sum})
		first = next
	}
	return m
}

// span reads a span that begins at first. No partition has 2^56 records.
func (r *markReader) span(first int64) (next int64, sum Sum) {
	next = first + int64(r.uvarint(1<<56))
	sum.Rows = int64(r.uvarint(1 << 56))
	if len(r.b) < 8 {
		r.bad = true
		return next, sum
	}
	sum.Hash = binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return next, sum
}

func (r *markReader) uvarint(most uint64) uint64 {
	v, size := binary.Uvarint(r.b)
	if size <= 0 || v > most {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return v
}
