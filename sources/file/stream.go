package file

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// zstdWindowMax limits what a zstd frame may ask of memory: as zstd itself does
// unless it is given --long.
const zstdWindowMax = 128 << 20

// Decompress tells gzip and zstd by their first bytes and returns the plain bytes
// and what to call at the end.
func Decompress(in io.Reader) (io.Reader, func() error, error) {
	b := bufio.NewReaderSize(in, 256<<10)
	magic, err := b.Peek(4)
	if err != nil && len(magic) < 4 && err != io.EOF {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, nil, err // it names gzip
		}
		return ended{z, "gzip"}, func() error { _ = z.Close(); return nil }, nil // it would repeat the error of Read
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}): // a frame to skip (RFC 8878, 3.1.2)
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(zstdWindowMax))
		if err != nil {
			return nil, nil, fmt.Errorf("zstd: %w", err)
		}
		return ended{windowed{z}, "zstd"}, func() error { z.Close(); return nil }, nil
	default:
		return b, func() error { return nil }, nil
	}
}

// unmarked leaves out the byte order mark with which Excel and others begin a UTF-8 file:
// it is no part of the first name or value.
func unmarked(in io.Reader) (io.Reader, error) {
	const mark = "\ufeff"
	b := bufio.NewReaderSize(in, 16) // so small that all that follows is read around it
	begin, err := b.Peek(len(mark))
	if string(begin) == mark {
		_, err = b.Discard(len(mark))
	}
	if err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}

// windowed says what to do about a frame whose window is too large.
type windowed struct{ io.Reader }

func (w windowed) Read(b []byte) (int, error) {
	n, err := w.Reader.Read(b)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = fmt.Errorf("zstd: %w of %d MiB; compress it again without --long", err, zstdWindowMax>>20)
	}
	return n, err
}

// ended says of which stream it is that the end is missing.
type ended struct {
	io.Reader
	format string
}

func (e ended) Read(b []byte) (int, error) {
	n, err := e.Reader.Read(b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%s: the end is missing (%w); is the file complete?", e.format, err)
	}
	return n, err
}

// counter counts what is read through it.
type counter struct {
	io.Reader
	n *atomic.Int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}
