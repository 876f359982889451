package worker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"footfall/schemas"
)

// reader reads little-endian integers and remembers the first error; after one it
// gives zeros. What it gives aliases its window: it is good until the next call.
type reader struct {
	from   io.Reader
	window []byte // as large as what is asked for at once
	rest   []byte // of the window, read and not yet given
	err    error
}

// readerWindow is how many bytes are asked for at once; no text is as long.
const readerWindow = math.MaxUint16 + 1

func newReader(from io.Reader) *reader {
	return &reader{from: from, window: make([]byte, readerWindow)}
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// take gives the next n bytes.
func (r *reader) take(n int) []byte {
	if len(r.rest) < n {
		r.fill(n)
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// fill reads until n bytes are there, or makes them zeros.
func (r *reader) fill(n int) {
	have := copy(r.window, r.rest)
	for have < n && r.err == nil {
		more, err := r.from.Read(r.window[have:])
		if have += more; err != nil && have < n {
			if r.err = err; errors.Is(err, io.EOF) && have > 0 {
				r.err = io.ErrUnexpectedEOF
			}
		}
	}
	if r.err != nil {
		clear(r.window[:n])
		have = n
	}
	r.rest = r.window[:have]
}

// ended tells that there is not a byte more.
func (r *reader) ended() bool {
	if r.err != nil {
		return false
	}
	r.take(1)
	return errors.Is(r.err, io.EOF)
}

func (r *reader) u8() uint8   { return r.take(1)[0] }
func (r *reader) u16() uint16 { return binary.LittleEndian.Uint16(r.take(2)) }
func (r *reader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

// bytes gives a text, good until the next call.
func (r *reader) bytes() []byte { return r.take(int(r.u16())) }

func (r *reader) text() string { return string(r.bytes()) }

// name gives the name of a set or of a segment. A set's is written out beside each of its
// segments': one as long as a text may be, with as many segments, would be gigabytes.
func (r *reader) name() string {
	b := r.bytes()
	if len(b) > schemas.NameMax {
		r.fail("a name of %d bytes, and %d are the most", len(b), schemas.NameMax)
	}
	return string(b)
}
