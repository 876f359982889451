package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/memblob"
)

// each runs a claim on a bucket in memory and on a folder.
func each(t *testing.T, claim func(t *testing.T, bucket *blob.Bucket)) {
	t.Run("mem", func(t *testing.T) {
		bucket := memblob.OpenBucket(nil)
		t.Cleanup(func() { _ = bucket.Close() })
		claim(t, bucket)
	})
	t.Run("file", func(t *testing.T) {
		bucket, err := fileblob.OpenBucket(t.TempDir(), &fileblob.Options{NoTempDir: true, Metadata: fileblob.MetadataDontWrite})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = bucket.Close() })
		claim(t, bucket)
	})
}

// content writes a snapshot of a few blocks that says which it is.
func content(id ID) func(io.Writer) error {
	return func(w io.Writer) error {
		for i := range 3 {
			if _, err := fmt.Fprintf(w, "block %d of %s", i, id); err != nil {
				return err
			}
		}
		return nil
	}
}

func publish(t *testing.T, s *Store, ids ...ID) {
	t.Helper()
	for _, id := range ids {
		if _, err := s.Publish(t.Context(), id, nil, content(id)); err != nil {
			t.Fatalf("publish %s: %v", id, err)
		}
	}
}

func listed(t *testing.T, s *Store, partition int32, want ...ID) {
	t.Helper()
	got, err := s.List(t.Context(), partition)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("snapshots of partition %d, %v (-want +got):\n%s", partition, err, diff)
	}
}

// damage flips a bit of a stored snapshot.
func damage(t *testing.T, bucket *blob.Bucket, id ID) {
	t.Helper()
	b, err := bucket.ReadAll(t.Context(), id.key())
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := bucket.WriteAll(t.Context(), id.key(), b, nil); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsPublishedIsListedAndRead(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		s := NewStore(Blob{bucket}, 3)
		listed(t, s, 7)
		first, second, other := ID{7, 5, 2, 0}, ID{7, 1200, 9, 0}, ID{70, 6, 1, 0}
		publish(t, s, second, first, other)
		listed(t, s, 7, second, first)
		listed(t, s, 70, other)
		var got strings.Builder
		_, err := s.Open(t.Context(), first, func(r io.Reader) error {
			_, err := io.Copy(&got, r)
			return err
		})
		var want strings.Builder
		_ = content(first)(&want)
		if err != nil || got.String() != want.String() {
			t.Errorf("open %s: got %q, %v, want %q", first, got.String(), err, want.String())
		}
		if n, _, err := s.Verify(t.Context(), first); err != nil || n != int64(want.Len()) {
			t.Errorf("verify %s: got %d, %v, want %d", first, n, err, want.Len())
		}
	})
}

// Newest first by the cut, then by the number of outputs, though an object store
// lists as it likes; what isn't a snapshot is not ours.
func TestListIsTheNewestFirst(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		s := NewStore(Blob{bucket}, 10)
		ids := []ID{{1, 1 << 60, 0, 0}, {1, 100, 1 << 63, 0}, {1, 100, 20, 9}, {1, 100, 20, 0}, {1, 100, 3, 1 << 63}, {1, 99, 50, 0}, {1, 9, 0, 0}, {1, 0, 0, 0}}
		for i := range ids {
			publish(t, s, ids[(i*3+2)%len(ids)])
		}
		for _, foreign := range []string{"p00001/notes.txt", "p00001/0000000000000000009-00000000000000000001.snap.tmp", "p000010/x.snap"} {
			if err := bucket.WriteAll(t.Context(), foreign, []byte("x"), nil); err != nil {
				t.Fatal(err)
			}
		}
		listed(t, s, 1, ids...)
	})
}

// What a bucket's snapshots rest upon is what its first user has said, and is no
// snapshot.
func TestTheFirstClaimStays(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		s := NewStore(Blob{bucket}, 3)
		publish(t, s, ID{1, 5, 5, 0})
		for _, text := range []string{"ours", "theirs"} {
			if got, err := s.Claim(t.Context(), text); err != nil || got != "ours" {
				t.Errorf("claim %q: got %q, %v, want what was there first", text, got, err)
			}
		}
		listed(t, s, 1, ID{1, 5, 5, 0})
	})
}

func TestANameIsReadBack(t *testing.T) {
	for _, id := range []ID{{0, 0, 0, 0}, {7, 120331, 9, 0}, {7, 120331, 9, 1}, {99999, 1<<63 - 1, 1<<64 - 1, 1<<64 - 1}} {
		if got, ok := ParseID(id.String()); !ok || got != id {
			t.Errorf("%s: got %+v, %t", id, got, ok)
		}
		if got, ok := ParseID("group/topic/" + id.String()); !ok || got != id {
			t.Errorf("under a prefix: %s: got %+v, %t", id, got, ok)
		}
	}
	for _, key := range []string{"", "p1/1-1.snap", "p00001/9999999999999999999-00000000000000000000.snap", "xp00001/0000000000000000001-00000000000000000001.snap"} {
		if id, ok := ParseID(key); ok {
			t.Errorf("%q was read as %+v", key, id)
		}
	}
}

// Publishing removes what is more than the store keeps, of this partition alone.
func TestTheNewestAreKept(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		s := NewStore(Blob{bucket}, 2)
		a, b, c, d := ID{1, 10, 1, 0}, ID{1, 20, 2, 0}, ID{1, 30, 3, 0}, ID{1, 30, 4, 0}
		other := ID{2, 1, 1, 0}
		publish(t, s, other, a, b)
		listed(t, s, 1, b, a)
		publish(t, s, c)
		listed(t, s, 1, c, b)
		publish(t, s, d)
		listed(t, s, 1, d, c)
		listed(t, s, 2, other)
	})
}

// A damaged one doesn't count as kept: two good ones stay, and it goes.
func TestDamagedOnesDoNotPushGoodOnesOut(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		s := NewStore(Blob{bucket}, 2)
		a, b, c := ID{1, 10, 1, 0}, ID{1, 20, 2, 0}, ID{1, 30, 3, 0}
		publish(t, s, a, b)
		damage(t, bucket, b)
		if _, _, err := s.Verify(t.Context(), b); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), b.String()) {
			t.Errorf("verify: got %v, want one that wraps %q and names %s", err, ErrDamaged, b)
		}
		publish(t, s, c)
		listed(t, s, 1, c, a)
		publish(t, s, b) // once more, and good
		if _, _, err := s.Verify(t.Context(), b); err != nil {
			t.Errorf("verify what was published again: %v", err)
		}
		publish(t, s, ID{1, 40, 4, 0})
		listed(t, s, 1, ID{1, 40, 4, 0}, c)
	})
}

// What is newer than the one published now belongs to a lineage that was given up,
// or to somebody who is ahead: it is left alone, and doesn't count.
func TestNewerOnesAreLeftAlone(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		old, now := ID{1, 10, 1, 0}, ID{1, 20, 4, 0}
		sameNumber, sameCut, later := ID{1, 20, 4, 7}, ID{1, 20, 9, 0}, ID{1, 30, 2, 0}
		publish(t, NewStore(Blob{bucket}, 10), old, sameNumber, sameCut, later)
		publish(t, NewStore(Blob{bucket}, 1), now)
		listed(t, NewStore(Blob{bucket}, 1), 1, later, sameCut, sameNumber, now)
	})
}

// Of a snapshot whose writer was killed a folder keeps a file; the next one removes it.
func TestWhatIsLeftOfTornOnesGoes(t *testing.T) {
	dir := t.TempDir()
	bucket, err := fileblob.OpenBucket(dir, &fileblob.Options{NoTempDir: true, Metadata: fileblob.MetadataDontWrite})
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	s := NewStore(Blob{bucket}, 2)
	other := filepath.Join(dir, ID{2, 5, 1, 0}.key()+".18eb.tmp")
	publish(t, s, ID{1, 10, 1, 0}, ID{2, 10, 1, 0})
	w, err := bucket.NewWriter(t.Context(), ID{1, 20, 2, 0}.key(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("footfal1")); err != nil { // and here it is killed
		t.Fatal(err)
	}
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	listed(t, s, 1, ID{1, 10, 1, 0})
	publish(t, s, ID{1, 30, 3, 0})
	files, err := filepath.Glob(filepath.Join(dir, "p*", "*"))
	want := []string{filepath.Join(dir, ID{1, 10, 1, 0}.key()), filepath.Join(dir, ID{1, 30, 3, 0}.key()), filepath.Join(dir, ID{2, 5, 1, 0}.key()+".18eb.tmp"), filepath.Join(dir, ID{2, 10, 1, 0}.key())}
	if diff := cmp.Diff(want, files); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// A write that fails stores nothing, and removes nothing.
func TestAFailedWriteStoresNothing(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		s := NewStore(Blob{bucket}, 1)
		kept, next := ID{1, 10, 1, 0}, ID{1, 20, 2, 0}
		publish(t, s, kept)
		gone := errors.New("abandoned")
		_, err := s.Publish(t.Context(), next, nil, func(w io.Writer) error {
			_ = content(next)(w)
			return gone
		})
		if !errors.Is(err, gone) || !strings.Contains(err.Error(), next.String()) {
			t.Errorf("got %v, want one that wraps %q and names %s", err, gone, next)
		}
		listed(t, s, 1, kept)
		if _, _, err := s.Verify(t.Context(), next); err == nil {
			t.Errorf("%s can be read", next)
		}
		ctx, cancel := context.WithCancel(t.Context())
		_, err = s.Publish(ctx, next, nil, func(w io.Writer) error {
			defer cancel()
			return content(next)(w)
		})
		if err == nil {
			t.Errorf("published though its context had ended")
		}
		listed(t, s, 1, kept)
	})
}

// A folder holds nothing of a write that failed: no half file, under no name.
func TestAFailedWriteLeavesNoFile(t *testing.T) {
	dir := t.TempDir()
	bucket, err := fileblob.OpenBucket(dir, &fileblob.Options{NoTempDir: true, Metadata: fileblob.MetadataDontWrite})
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	_, _ = NewStore(Blob{bucket}, 1).Publish(t.Context(), ID{1, 1, 1, 0}, nil, func(w io.Writer) error {
		_ = content(ID{})(w)
		return errors.New("abandoned")
	})
	var files []string
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) > 0 {
		t.Errorf("got %v, %v, want no file", files, err)
	}
}

// Whatever the reader makes of damaged bytes, the error says that they are damaged.
func TestDamageIsSaidWhateverTheReaderMakesOfIt(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		s, id := NewStore(Blob{bucket}, 1), ID{1, 10, 1, 0}
		publish(t, s, id)
		damage(t, bucket, id)
		for what, read := range map[string]func(io.Reader) error{
			"stops early":     func(io.Reader) error { return nil },
			"swallows it":     func(r io.Reader) error { _, _ = io.ReadAll(r); return nil },
			"says other":      func(r io.Reader) error { _, _ = io.ReadAll(r); return errors.New("row 3 cannot be") },
			"says end of all": func(r io.Reader) error { _, _ = io.ReadAll(r); return io.EOF },
		} {
			if _, err := s.Open(t.Context(), id, read); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: got %v, want %q", what, err, ErrDamaged)
			}
		}
	})
}

// What the reader says of good bytes is passed on, and they are not damaged.
func TestTheReadersErrorIsPassedOn(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		s, id, unusable := NewStore(Blob{bucket}, 1), ID{1, 10, 1, 0}, errors.New("cannot be used")
		publish(t, s, id)
		_, err := s.Open(t.Context(), id, func(io.Reader) error { return unusable })
		if !errors.Is(err, unusable) || errors.Is(err, ErrDamaged) {
			t.Errorf("got %v, want %v", err, unusable)
		}
	})
}

// tearing is a bucket that stores less than it was given and doesn't say so.
type tearing struct {
	Blob
	lose int
}

func (b tearing) Put(ctx context.Context, key string, write func(io.Writer) error) error {
	return b.Blob.Put(ctx, key, func(w io.Writer) error {
		var all strings.Builder
		if err := write(&all); err != nil {
			return err
		}
		_, err := io.WriteString(w, all.String()[:all.Len()-b.lose])
		return err
	})
}

// What was published is read back before anything older goes.
func TestATornWriteIsNoticedAndNothingGoes(t *testing.T) {
	bucket := memblob.OpenBucket(nil)
	defer bucket.Close()
	old, torn := ID{1, 10, 1, 0}, ID{1, 20, 2, 0}
	publish(t, NewStore(Blob{bucket}, 1), old)
	s := NewStore(tearing{Blob{bucket}, 1}, 1)
	if _, err := s.Publish(t.Context(), torn, nil, content(torn)); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want %q", err, ErrDamaged)
	}
	ids, err := s.List(t.Context(), 1)
	if err != nil || !slices.Contains(ids, old) {
		t.Errorf("got %v, %v, want %s among them", ids, err, old)
	}
}

// Whatever lies in the bucket, a name that is read as a snapshot's is that snapshot's,
// and sorts as it does.
func FuzzParseID(f *testing.F) {
	f.Add(ID{7, 120331, 99, 0}.String(), int32(7), int64(120331), uint64(98))
	f.Add("g/p00001/0000000000000000001-00000000000000000002.snap", int32(0), int64(0), uint64(0))
	f.Add("p00001/0000000000000000001-00000000000000000002_00000199ac0ff1ce.snap", int32(1), int64(1), uint64(2))
	f.Add("p00001/0000000000000000001-00000000000000000002_0000000000000000.snap", int32(1), int64(1), uint64(2))
	f.Add("p99999/9999999999999999999-99999999999999999999.snap", int32(99999), int64(1<<62), uint64(1<<63))
	f.Fuzz(func(t *testing.T, key string, partition int32, next int64, n uint64) {
		if id, ok := ParseID(key); ok && !strings.HasSuffix(key, id.String()) {
			t.Errorf("%q is read as %s", key, id)
		}
		id := ID{partition & 0xffff % 100_000, next &^ (-1 << 63), n, n ^ n>>7}
		back, ok := ParseID("prefix/" + id.String())
		if !ok || back != id {
			t.Errorf("%s is read as %s, %v", id, back, ok)
		}
		if other, ok := ParseID(key); ok && other.Partition == id.Partition && (strings.Compare(other.String(), id.String()) < 0) != (other.compare(id) < 0) {
			t.Errorf("%s and %s sort otherwise than the snapshots", other, id)
		}
	})
}
