package snapshot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/cespare/xxhash/v2"
)

// file frames the pieces, a Write each.
func file(tb testing.TB, pieces ...[]byte) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b)
	if err != nil {
		tb.Fatal(err)
	}
	for _, p := range pieces {
		if n, err := w.Write(p); err != nil || n != len(p) {
			tb.Fatalf("write: got %d, %v, want %d", n, err, len(p))
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func noise(seed uint64, n int) []byte {
	rng, b := rand.New(rand.NewPCG(seed, 1)), make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestWhatIsReadIsWhatWasWritten(t *testing.T) {
	for _, pieces := range [][][]byte{
		{},
		{{}},
		{[]byte("a")},
		{[]byte("a"), {}, []byte("bc")},
		{noise(1, BlockMax)},
		{noise(2, BlockMax+1)},
		{noise(3, 3*BlockMax-1), noise(4, 7)},
	} {
		want := bytes.Join(pieces, nil)
		written := file(t, pieces...)
		got, err := io.ReadAll(NewReader(bytes.NewReader(written)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d pieces of %d bytes: got %d bytes, %v", len(pieces), len(want), len(got), err)
		}
		got, err = io.ReadAll(NewReader(iotest.OneByteReader(bytes.NewReader(written))))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d pieces of %d bytes, a byte at a time: got %d bytes, %v", len(pieces), len(want), len(got), err)
		}
	}
}

// The format never changes; a file of version 1 is this one.
func TestTheBytesOfAFile(t *testing.T) {
	le := binary.LittleEndian
	block := func(b []byte, s string) []byte {
		b = le.AppendUint64(le.AppendUint32(b, uint32(len(s))), xxhash.Sum64String(s))
		return append(b, s...)
	}
	want := block(block([]byte("footfal1"), "ann"), "bob!")
	hashes := le.AppendUint64(le.AppendUint64(nil, xxhash.Sum64String("ann")), xxhash.Sum64String("bob!"))
	want = le.AppendUint64(le.AppendUint64(le.AppendUint32(want, 0), 2), 7)
	want = append(le.AppendUint64(want, xxhash.Sum64(hashes)), "1laftoof"...)
	if got := file(t, []byte("ann"), []byte("bob!")); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

// mustBeDamaged reads a file to its end, which must be an error that says so. What
// came before it may be given, and must be what was written.
func mustBeDamaged(t *testing.T, what string, b, want []byte) {
	t.Helper()
	got, err := io.ReadAll(NewReader(bytes.NewReader(b)))
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("%s: got %v, want one that wraps %q", what, err, ErrDamaged)
	}
	if !bytes.HasPrefix(want, got) {
		t.Errorf("%s: gave bytes that were never written: %x", what, got)
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	want := []byte("a snapshot of three blocks, one of which has a single byte, and ends here")
	good := file(t, want[:40], want[40:41], want[41:])
	for i := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		mustBeDamaged(t, fmt.Sprintf("bit %d of byte %d", i%8, i/8), bad, want)
	}
}

func TestEveryTruncationAndEveryByteTooManyIsFound(t *testing.T) {
	want := []byte("a snapshot of two blocks")
	good := file(t, want[:10], want[10:])
	for n := range good {
		mustBeDamaged(t, fmt.Sprintf("the first %d of %d bytes", n, len(good)), good[:n], want)
	}
	for b := range 256 {
		mustBeDamaged(t, fmt.Sprintf("byte %#x after the end", b), append(bytes.Clone(good), byte(b)), want)
	}
	mustBeDamaged(t, "the file twice", append(bytes.Clone(good), good...), want)
}

// Blocks that are good by themselves, but not all of the file's, in its order.
func TestBlocksLeftOutDoubledOrSwappedAreFound(t *testing.T) {
	good := file(t, []byte("aaaa"), []byte("bbbb"))
	head, a, b, foot := good[:8], good[8:24], good[24:40], good[40:]
	for what, parts := range map[string][][]byte{
		"left out": {head, a, foot}, "doubled": {head, a, a, b, foot}, "swapped": {head, b, a, foot}, "none": {head, foot},
	} {
		_, err := io.ReadAll(NewReader(bytes.NewReader(bytes.Join(parts, nil))))
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v, want %q", what, err, ErrDamaged)
		}
	}
}

// Random damage to a file of several large blocks.
func TestRandomDamageIsFound(t *testing.T) {
	want := noise(5, 2*BlockMax+1000)
	good := file(t, want)
	n := uint64(300)
	if testing.Short() {
		n = 30
	}
	for seed := range n {
		rng := rand.New(rand.NewPCG(seed, 2))
		bad := bytes.Clone(good)
		switch rng.IntN(3) {
		case 0:
			bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		case 1:
			bad = bad[:rng.IntN(len(bad))]
		case 2:
			from := rng.IntN(len(bad) - 1)
			clear(bad[from:min(len(bad), from+4096)])
		}
		if !bytes.Equal(bad, good) {
			mustBeDamaged(t, fmt.Sprintf("seed %d", seed), bad, want)
		}
	}
}

// An error of the store is not damage: it may go away.
func TestAnErrorOfTheStoreIsNotDamage(t *testing.T) {
	good := file(t, []byte("aaaa"))
	gone := errors.New("connection reset")
	for n := range good {
		_, err := io.ReadAll(NewReader(io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(gone))))
		if !errors.Is(err, gone) || errors.Is(err, ErrDamaged) {
			t.Errorf("after %d bytes: got %v, want %v", n, err, gone)
		}
	}
}

// A length that a hostile file claims takes no memory before its bytes are there.
func TestAClaimedLengthTakesNoMemory(t *testing.T) {
	bad := append([]byte(magicHead), 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0)
	mustBeDamaged(t, "a block of 4 GiB", bad, nil)
	n := testing.AllocsPerRun(10, func() { _, _ = io.Copy(io.Discard, NewReader(bytes.NewReader(bad))) })
	if n > 20 {
		t.Errorf("got %v allocations, want few", n)
	}
}

// A writer gives back the store's error, wherever it comes.
func TestAWriterGivesBackTheError(t *testing.T) {
	full := errors.New("disk full")
	size := len(file(t, []byte("aaaa"), []byte("bbbb")))
	for room := range size {
		w, err := NewWriter(&limited{room, full})
		for _, p := range []string{"aaaa", "bbbb"} {
			if err == nil {
				_, err = io.WriteString(w, p)
			}
		}
		if err == nil {
			err = w.Close()
		}
		if !errors.Is(err, full) {
			t.Errorf("room for %d of %d bytes: got %v, want %v", room, size, err, full)
		}
	}
}

// limited is a disk with room for some bytes.
type limited struct {
	room int
	full error
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.room)
	if l.room -= n; n < len(p) {
		return n, l.full
	}
	return n, nil
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{})
	f.Add(file(f))
	good := file(f, []byte("aaaa"), noise(6, 300))
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append([]byte(magicHead), 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := io.ReadAll(NewReader(bytes.NewReader(b)))
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("got %v, want one that wraps %q", err, ErrDamaged)
			}
			return
		}
		again, err := io.ReadAll(NewReader(bytes.NewReader(file(t, got))))
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("written again: got %d bytes, %v, want %d", len(again), err, len(got))
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	block := noise(7, BlockMax)
	w, err := NewWriter(io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(BlockMax)
	for b.Loop() {
		if _, err := w.Write(block); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReader(b *testing.B) {
	whole := file(b, noise(8, 64*BlockMax))
	b.SetBytes(int64(len(whole)))
	for b.Loop() {
		if _, err := io.Copy(io.Discard, NewReader(bytes.NewReader(whole))); err != nil {
			b.Fatal(err)
		}
	}
}
