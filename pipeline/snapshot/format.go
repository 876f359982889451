// Package snapshot is bytes that survive: written in slices, checksummed in
// blocks, published whole, kept for some generations, and verified before they are
// believed. It does not know what the bytes mean, and it names no cloud.
//
// A snapshot is whole, or a delta: what has changed since another one, its predecessor,
// which may be a delta too. A whole one and the deltas that lead from it to a cut are that
// cut's chain. A delta names its predecessor and the sum of its bytes, so that it is never
// taken for what has changed since anything else.
//
// A file is
//
//	magic    8 bytes "footfal1", or "footdel1" of a delta
//	blocks   u32 length, u64 xxhash64 of the bytes, the bytes
//	footer   u32 0, u64 blocks, u64 bytes, u64 xxhash64 of all block hashes, 8 bytes "1laftoof"
//
// with little-endian integers. A block holds at most BlockMax bytes. A file
// without its footer is torn; one with bytes after it is foreign. The first block of a
// delta is its predecessor:
//
//	i64 next, u64 n, u64 the last sum of its footer, u64 tag (not of old ones)
package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
)

// BlockMax is how many bytes a block holds at most.
const BlockMax = 256 << 10

const (
	magicHead  = "footfal1"
	magicDelta = "footdel1"
	magicTail  = "1laftoof"
)

// Link names a snapshot and its bytes.
type Link struct {
	ID  ID
	Sum uint64 // of all block hashes
}

// linkBytes is how many a delta's first block has, and had when there were no tags.
const linkBytes, linkBytesUntagged = 32, 24

// Writer frames blocks.
type Writer struct {
	to     io.Writer
	blocks uint64
	bytes  uint64
	sum    *xxhash.Digest
	head   [12]byte
}

// NewWriter begins the file of a whole snapshot.
func NewWriter(to io.Writer) (*Writer, error) {
	w := &Writer{to: to, sum: xxhash.New()}
	_, err := io.WriteString(to, magicHead)
	return w, err
}

// NewDeltaWriter begins the file of a delta.
func NewDeltaWriter(to io.Writer, upon Link) (*Writer, error) {
	w := &Writer{to: to, sum: xxhash.New()}
	if _, err := io.WriteString(to, magicDelta); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	b := le.AppendUint64(nil, uint64(upon.ID.Next))
	b = le.AppendUint64(le.AppendUint64(b, upon.ID.N), upon.Sum)
	err := w.block(le.AppendUint64(b, upon.ID.Tag))
	return w, err
}

// Sum is that of what was written, when it is closed.
func (w *Writer) Sum() uint64 { return w.sum.Sum64() }

// Write adds one block, or several where p is larger than one may be.
func (w *Writer) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 {
		block := p[:min(len(p), BlockMax)]
		p = p[len(block):]
		if err := w.block(block); err != nil {
			return n, err
		}
		n += len(block)
	}
	return n, nil
}

func (w *Writer) block(p []byte) error {
	binary.LittleEndian.PutUint32(w.head[:], uint32(len(p)))
	binary.LittleEndian.PutUint64(w.head[4:], xxhash.Sum64(p))
	_, _ = w.sum.Write(w.head[4:]) // a digest never fails
	w.blocks++
	w.bytes += uint64(len(p))
	if _, err := w.to.Write(w.head[:]); err != nil {
		return err
	}
	_, err := w.to.Write(p)
	return err
}

// Close writes the footer; it does not close what is written to.
func (w *Writer) Close() error {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0)
	b = le.AppendUint64(b, w.blocks)
	b = le.AppendUint64(b, w.bytes)
	b = le.AppendUint64(b, w.sum.Sum64())
	_, err := w.to.Write(append(b, magicTail...))
	return err
}

// ErrDamaged is wrapped by every error that says a file's bytes are not those that
// were written.
var ErrDamaged = errors.New("damaged")

// Reader gives the bytes of the blocks, each verified before the first byte of it
// is given, and io.EOF only after the footer has been verified.
type Reader struct {
	from   io.Reader
	block  []byte
	rest   []byte
	blocks uint64
	bytes  uint64
	sum    *xxhash.Digest
	upon   *Link
	err    error
}

// NewReader begins to read a file.
func NewReader(from io.Reader) *Reader {
	r := &Reader{from: from, sum: xxhash.New()}
	var magic [len(magicHead)]byte
	if r.full(magic[:], "magic"); r.err != nil {
		return r
	}
	switch string(magic[:]) {
	case magicHead:
	case magicDelta:
		r.readLink()
	default:
		r.fail("begins with %q, which is not a snapshot's beginning", magic[:])
	}
	return r
}

// readLink reads the first block of a delta.
func (r *Reader) readLink() {
	if r.next(); r.err != nil {
		if errors.Is(r.err, io.EOF) {
			r.fail("a delta without a predecessor")
		}
		return
	}
	le, b := binary.LittleEndian, r.rest
	if len(b) != linkBytes && len(b) != linkBytesUntagged {
		r.fail("a delta's predecessor of %d bytes, and %d are one", len(b), linkBytes)
		return
	}
	r.upon = &Link{ID{Next: int64(le.Uint64(b)), N: le.Uint64(b[8:])}, le.Uint64(b[16:])}
	if len(b) == linkBytes {
		r.upon.ID.Tag = le.Uint64(b[24:])
	}
	r.rest = nil
}

// Upon is the predecessor of a delta, its partition not set; nil of a whole snapshot. It is
// verified no more than its block is, until all has been read.
func (r *Reader) Upon() *Link { return r.upon }

// Sum is that of the file, when all has been read.
func (r *Reader) Sum() uint64 { return r.sum.Sum64() }

func (r *Reader) fail(format string, args ...any) {
	r.rest = nil
	r.err = fmt.Errorf(format+": %w", append(args, ErrDamaged)...)
}

func (r *Reader) full(p []byte, what string) {
	switch _, err := io.ReadFull(r.from, p); {
	case err == nil:
	case errors.Is(err, ErrAway): // a connection that ended too soon says nothing of the file
		r.err = err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		r.fail("block %d: ends within its %s", r.blocks+1, what)
	default:
		r.err = err
	}
}

// Read gives verified bytes.
func (r *Reader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 && r.err == nil {
		r.next()
	}
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// next reads one block, or the footer.
func (r *Reader) next() {
	var head [12]byte
	if r.full(head[:], "head"); r.err != nil {
		return
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n == 0 {
		r.footer(binary.LittleEndian.Uint64(head[4:]))
		return
	}
	if n > BlockMax {
		r.fail("block %d: says it has %d bytes, more than a block may", r.blocks+1, n)
		return
	}
	if cap(r.block) < int(n) {
		r.block = make([]byte, min(max(int(n), 2*cap(r.block)), BlockMax))
	}
	r.block = r.block[:n]
	if r.full(r.block, "bytes"); r.err != nil {
		return
	}
	if xxhash.Sum64(r.block) != binary.LittleEndian.Uint64(head[4:]) {
		r.fail("block %d: checksum does not match", r.blocks+1)
		return
	}
	_, _ = r.sum.Write(head[4:])
	r.blocks++
	r.bytes += uint64(n)
	r.rest = r.block
}

func (r *Reader) footer(blocks uint64) {
	var b [16 + len(magicTail) + 1]byte
	n, err := io.ReadFull(r.from, b[:])
	if err != nil && (errors.Is(err, ErrAway) || !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF)) {
		r.err = err
		return
	}
	le := binary.LittleEndian
	switch {
	case n != len(b)-1:
		r.fail("footer has %d bytes more or less than a footer", n-len(b)+1)
	case string(b[16:n]) != magicTail || blocks != r.blocks || le.Uint64(b[:]) != r.bytes || le.Uint64(b[8:]) != r.sum.Sum64():
		r.fail("footer does not match the %d blocks before it", r.blocks)
	default:
		r.err = io.EOF
	}
}
