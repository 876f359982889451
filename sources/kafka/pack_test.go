package kafka

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

// checkPacked holds that what is packed is a frame that the library reads, and that we do. It
// gives the frame's size.
func checkPacked(tb testing.TB, p *packer, data []byte) int {
	tb.Helper()
	var dst bytes.Buffer
	packed, codec := p.Compress(&dst, data)
	if codec != kgo.CodecLz4 {
		tb.Fatalf("codec %v", codec)
	}
	if most := packedMost(len(data)); len(packed) > most {
		tb.Fatalf("%d bytes became %d, want %d at most", len(data), len(packed), most)
	}
	theirs, err := io.ReadAll(lz4.NewReader(bytes.NewReader(packed)))
	if err != nil || !bytes.Equal(theirs, data) {
		tb.Fatalf("%d bytes, %d of them packed: the library reads %d: %v", len(data), len(packed), len(theirs), err)
	}
	if ours, ok := unpackFrame(nil, packed, 64<<20); len(data) > 0 && (!ok || !bytes.Equal(ours, data)) {
		tb.Fatalf("%d bytes, %d of them packed: we read %d, %v", len(data), len(packed), len(ours), ok)
	}
	return len(packed)
}

func TestPack(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	p := newPacker()
	for _, n := range sizes(r) {
		checkPacked(t, p, batchOf(r, n))
		checkPacked(t, p, make([]byte, n))
		noise := make([]byte, n)
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		checkPacked(t, p, noise)
		few := make([]byte, n)
		for i := range few {
			few[i] = byte(r.IntN(2))
		}
		checkPacked(t, p, few)
	}
	data := triggersOf(500)
	if size := checkPacked(t, p, data); size > len(data)/3 {
		t.Errorf("%d bytes of triggers take %d, want a third at most", len(data), size)
	}
}

func FuzzPack(f *testing.F) {
	f.Add([]byte("abcdabcdabcdabcdabcd"), 3)
	f.Add(triggersOf(3), 1)
	p := newPacker()
	f.Fuzz(func(t *testing.T, data []byte, times int) {
		checkPacked(t, p, bytes.Repeat(data, 1+times&0x3f))
	})
}

// triggersOf is a batch of triggers, about as they are.
func triggersOf(n int) []byte {
	r := rand.New(rand.NewPCG(5, 6))
	var b []byte
	for i := range n {
		user, at := r.IntN(1e6), 1767225600000+int64(i)*37
		b = append(b, 0, 0, byte(i), 0, 32)
		b = fmt.Appendf(b, "u%015d", user)
		b = fmt.Appendf(b, `{"id":"footfall/3/%d","user_id":"u%015d","set":"lifecycle","from":"%s","to":"%s","seq":%d,"at":"2026-01-%02dT%02d:%02d:%02d.%03dZ","cause":{"kind":"event","topic":"events","partition":3,"offset":%d,"event_id":"%016x"},"evidence":{"views":%d,"orders":%d,"revenue":%d.%02d,"last_seen":%d}}`,
			123456+i, user, []string{"new", "active", "dormant"}[r.IntN(3)], []string{"active", "cooling", "lost"}[r.IntN(3)], r.IntN(5)+1,
			r.IntN(28)+1, r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1000), 88123456+i*7, r.Uint64(), r.IntN(30), r.IntN(4), r.IntN(300), r.IntN(100), at)
		for _, h := range []string{"ce_specversion", "1.0", "ce_id", "ce_source", "footfall/lifecycle", "ce_type", "footfall.transition.v1", "content-type", "application/json"} {
			b = append(append(b, byte(2*len(h))), h...)
		}
	}
	return b
}

func BenchmarkPack(b *testing.B) {
	theirs, err := kgo.DefaultCompressor(kgo.Lz4Compression())
	if err != nil {
		b.Fatal(err)
	}
	const n = 500
	data := triggersOf(n)
	for _, c := range []struct {
		name string
		by   kgo.Compressor
	}{{"ours", newPacker()}, {"theirs", theirs}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			var dst bytes.Buffer
			size := 0
			for b.Loop() {
				dst.Reset()
				packed, _ := c.by.Compress(&dst, data)
				size = len(packed)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/record")
			b.ReportMetric(float64(size)/n, "B/record")
		})
	}
}
