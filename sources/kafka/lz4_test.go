package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

func unpackerOf(tb testing.TB, most int) *unpacker {
	tb.Helper()
	u, err := newUnpacker([]kgo.Opt{kgo.MaxDecompressBatchBytes(most), kgo.WithPools(fetchMemory{})})
	if err != nil {
		tb.Fatal(err)
	}
	if u.max != most || u.others == nil {
		tb.Fatalf("the client's own decompressor %v, bounded by %d, want %d", u.others, u.max, most)
	}
	return u
}

// batchOf is n bytes as batches have them: much of it was there before.
func batchOf(r *rand.Rand, n int) []byte {
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, `{"id":"g/%d/%d","user":"u%07d","set":"lifecycle","noise":"%x"}`, r.IntN(9), r.Uint32(), r.IntN(1e6), make([]byte, r.IntN(3)*r.IntN(40)))
		for range r.IntN(2) * r.IntN(64) {
			b = append(b, byte(r.Uint32()))
		}
	}
	return b[:n]
}

func sizes(r *rand.Rand) []int {
	all := []int{0, 1, 2, 11, 12, 13, 14, 64, 65, 1000, 64 << 10, 64<<10 + 1, 256 << 10, 300_000, 1 << 20, 1<<20 + 7, 4<<20 + 1, 9 << 20}
	for range 40 {
		all = append(all, r.IntN(200), r.IntN(100_000))
	}
	return all
}

// What the client itself packs is of the usual form, and is read here.
func TestUnpackWhatTheClientPacks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	theirs, err := kgo.DefaultCompressor(kgo.Lz4Compression())
	if err != nil {
		t.Fatal(err)
	}
	var dst bytes.Buffer
	for _, n := range sizes(r) {
		want := batchOf(r, n)
		if n%3 == 0 { // nothing can be packed
			for i := range want {
				want[i] = byte(r.Uint32())
			}
		}
		dst.Reset()
		packed, _ := theirs.Compress(&dst, want)
		if got, ok := unpackFrame(nil, packed, 64<<20); n > 0 && !ok || ok && !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: %d bytes, taken %v", n, len(got), ok)
		}
	}
}

// frame packs as other clients do.
func frame(tb testing.TB, data []byte, opts ...lz4.Option) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := lz4.NewWriter(&out)
	if err := w.Apply(opts...); err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func TestUnpackWhatOthersPack(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	u := unpackerOf(t, 64<<20)
	for _, size := range []lz4.BlockSize{lz4.Block64Kb, lz4.Block256Kb, lz4.Block1Mb, lz4.Block4Mb} {
		for _, n := range sizes(r) {
			data := batchOf(r, n)
			for _, c := range []struct {
				name string
				ours bool // the form is the usual one
				opts []lz4.Option
			}{
				{"a checksum at the end", true, nil},
				{"none", true, []lz4.Option{lz4.ChecksumOption(false)}},
				{"checksums of blocks", false, []lz4.Option{lz4.BlockChecksumOption(true)}},
				{"its size", false, []lz4.Option{lz4.SizeOption(uint64(n))}},
			} {
				packed := frame(t, data, append(c.opts, lz4.BlockSizeOption(size))...)
				if got, ok := unpackFrame(nil, packed, 64<<20); ok && !bytes.Equal(got, data) || c.ours != ok && n > 0 {
					t.Errorf("%s, blocks of %v, %d bytes: %d bytes, taken %v, want %v", c.name, size, n, len(got), ok, c.ours)
				}
				got, err := u.Decompress(packed, kgo.CodecLz4)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s, blocks of %v, %d bytes: %d bytes, %v", c.name, size, n, len(got), err)
				}
				fetchMemory{}.PutDecompressBytes(got)
			}
		}
	}
}

func TestUnpackKeepsToTheLimit(t *testing.T) {
	u := unpackerOf(t, 1<<20)
	for _, codec := range []kgo.CompressionCodec{kgo.Lz4Compression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.ZstdCompression()} {
		theirs, err := kgo.DefaultCompressor(codec)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1 << 20, 1<<20 + 1, 8 << 20} {
			packed, used := theirs.Compress(&bytes.Buffer{}, make([]byte, n))
			got, err := u.Decompress(packed, used)
			if n > 1<<20 != errors.Is(err, kgo.ErrMaxDecompress) || err == nil && len(got) != n {
				t.Errorf("%v, %d bytes: %d, %v", codec, n, len(got), err)
			}
		}
	}
	if got, err := u.Decompress([]byte("as it is"), kgo.CodecNone); err != nil || string(got) != "as it is" {
		t.Errorf("not packed: %q, %v", got, err)
	}
}

// A batch that expands very much does not have those after it take as much memory.
func TestUnpackAfterABatchOfNothing(t *testing.T) {
	u := unpackerOf(t, 64<<20)
	if _, err := u.Decompress(frame(t, make([]byte, 1<<20)), kgo.CodecLz4); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 256<<10)
	for i := range noise {
		noise[i] = byte(r.IntN(256))
	}
	taken := 0
	for range 10 {
		out, err := u.Decompress(frame(t, noise), kgo.CodecLz4)
		if err != nil || !bytes.Equal(out, noise) {
			t.Fatalf("got %d bytes, %v", len(out), err)
		}
		taken += cap(out)
	}
	if most := 10 * 10 * len(noise); taken > most {
		t.Errorf("10 batches of %d bytes take %d, want %d at most", len(noise), taken, most)
	}
}

// FuzzUnpack holds our reading of a frame against the library's: what that reads we read
// likewise or leave to it, and what we read it reads too, but for the checksum at the end.
func FuzzUnpack(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	theirs, err := kgo.DefaultCompressor(kgo.Lz4Compression())
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range []int{0, 1, 30, 500, 5000} {
		f.Add(frame(f, batchOf(r, n)), uint16(n))
		f.Add(frame(f, batchOf(r, n), lz4.ChecksumOption(false), lz4.BlockSizeOption(lz4.Block64Kb)), uint16(0))
		packed, _ := theirs.Compress(&bytes.Buffer{}, batchOf(r, n))
		f.Add(packed, uint16(3))
	}
	f.Fuzz(func(t *testing.T, src []byte, room uint16) {
		const most = 8 << 20
		got, ok := unpackFrame(make([]byte, 0, room), bytes.Clone(src), most)
		if !ok {
			return
		}
		if src[4]&frameChecksum != 0 {
			src = bytes.Clone(src[:len(src)-4])
			src[4], src[6] = frameFlags, headerSums[0][src[5]>>4-4]
		}
		want, err := io.ReadAll(lz4.NewReader(bytes.NewReader(src)))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, want %d, %v", len(got), len(want), err)
		}
	})
}

func TestMemoryClasses(t *testing.T) {
	for n := 1; n < 64<<20; n += 1 + n/97 {
		class, size := classOf(n)
		if again, same := classOf(size); size < n || n > bytesLeast && size > n+n/4 || again != class || same != size || class >= bytesClasses {
			t.Fatalf("%d bytes: class %d of %d bytes, and that is of class %d, %d bytes", n, class, size, again, same)
		}
	}
}

func BenchmarkUnpack(b *testing.B) {
	packed := frame(b, batchOf(rand.New(rand.NewPCG(1, 1)), 1_000_000))
	for _, c := range []struct {
		name string
		by   kgo.Decompressor
	}{{"ours", unpackerOf(b, 64<<20)}, {"client", kgo.DefaultDecompressor(fetchMemory{})}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(1_000_000)
			for b.Loop() {
				out, err := c.by.Decompress(packed, kgo.CodecLz4)
				if err != nil {
					b.Fatal(err)
				}
				clear(out[:cap(out)]) // as the client does
				fetchMemory{}.PutDecompressBytes(out)
			}
		})
	}
}

// A frame of another maker is not ours to read.
func TestUnpackRefuses(t *testing.T) {
	good := frame(t, []byte("some text, some text, some text, some text"), lz4.ChecksumOption(false))
	for name, change := range map[string]func(b []byte) []byte{
		"no frame":         func([]byte) []byte { return nil },
		"another magic":    func(b []byte) []byte { b[0]++; return b },
		"another version":  func(b []byte) []byte { b[4] ^= 0x80; return b },
		"a block size":     func(b []byte) []byte { b[5] = 0x30; return b },
		"a wrong sum":      func(b []byte) []byte { b[6]++; return b },
		"no end":           func(b []byte) []byte { return b[:len(b)-4] },
		"more than an end": func(b []byte) []byte { return append(b, 0) },
		"a large block":    func(b []byte) []byte { binary.LittleEndian.PutUint32(b[7:], 5<<20); return b },
		"a broken block":   func(b []byte) []byte { b[11] = 0xff; return b },
	} {
		if out, ok := unpackFrame(nil, change(bytes.Clone(good)), 1<<20); ok {
			t.Errorf("%s: taken, %q", name, out)
		}
	}
}
