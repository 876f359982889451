package pipelinetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"footfall/pipeline/snapshot"
)

// RunBucket holds what snapshots rest upon, in any object store.
func RunBucket(t *testing.T, open func(t *testing.T) snapshot.Bucket) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(t *testing.T, b snapshot.Bucket)
	}{
		{"an object is read back as it was written", bucketRoundTrip},
		{"an object whose writing fails does not appear", bucketTorn},
		{"an object is replaced whole", bucketReplace},
		{"keys are listed by prefix", bucketList},
		{"a deleted object is gone", bucketDelete},
		{"a store of snapshots works on it", bucketStore},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// put writes an object in pieces.
func put(t *testing.T, b snapshot.Bucket, key string, data []byte) {
	t.Helper()
	err := b.Put(t.Context(), key, func(w io.Writer) error {
		for piece := range slices.Chunk(data, 1000) {
			if _, err := w.Write(piece); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func get(t *testing.T, b snapshot.Bucket, key string) ([]byte, error) {
	t.Helper()
	r, err := b.Get(t.Context(), key)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

func holdsObject(t *testing.T, b snapshot.Bucket, key string, want []byte) {
	t.Helper()
	if got, err := get(t, b, key); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: got %d bytes, %v, want the %d written", key, len(got), err, len(want))
	}
}

func bucketRoundTrip(t *testing.T, b snapshot.Bucket) {
	for _, size := range []int{0, 1, 999, 1000, 1 << 20} {
		key := fmt.Sprintf("p00001/%d.snap", size)
		data := bytes.Repeat([]byte{7, 0, 255}, size/3+1)[:size]
		put(t, b, key, data)
		holdsObject(t, b, key, data)
	}
	if data, err := get(t, b, "p00001/absent.snap"); !errors.Is(err, snapshot.ErrGone) || !errors.Is(err, snapshot.ErrAway) {
		t.Errorf("an object that was never written: got %d bytes, %v, want ErrGone and ErrAway", len(data), err)
	}
}

func bucketTorn(t *testing.T, b snapshot.Bucket) {
	enough := errors.New("enough")
	for _, before := range []int{0, 10, 1 << 20} {
		err := b.Put(t.Context(), "p00001/torn.snap", func(w io.Writer) error {
			if _, err := w.Write(make([]byte, before)); err != nil {
				return err
			}
			return enough
		})
		if !errors.Is(err, enough) {
			t.Errorf("got %v, want the writer's error", err)
		}
		if data, err := get(t, b, "p00001/torn.snap"); err == nil {
			t.Errorf("after %d bytes and a failure there are %d", before, len(data))
		}
		if keys, err := b.List(t.Context(), "p00001/"); err != nil || len(keys) > 0 {
			t.Errorf("got keys %v, %v", keys, err)
		}
	}
}

func bucketReplace(t *testing.T, b snapshot.Bucket) {
	put(t, b, "p00001/a.snap", []byte("old, and longer"))
	put(t, b, "p00001/a.snap", []byte("new"))
	holdsObject(t, b, "p00001/a.snap", []byte("new"))
	failed := errors.New("failed")
	if err := b.Put(t.Context(), "p00001/a.snap", func(io.Writer) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v, want the writer's error", err)
	}
	holdsObject(t, b, "p00001/a.snap", []byte("new"))
}

func bucketList(t *testing.T, b snapshot.Bucket) {
	for _, key := range []string{"p00001/2.snap", "p00001/1.snap", "p00010/1.snap", "p00002/1.snap"} {
		put(t, b, key, []byte(key))
	}
	for prefix, want := range map[string][]string{
		"p00001/": {"p00001/1.snap", "p00001/2.snap"}, "p00002/": {"p00002/1.snap"}, "p00003/": nil,
		"": {"p00001/1.snap", "p00001/2.snap", "p00002/1.snap", "p00010/1.snap"},
	} {
		keys, err := b.List(t.Context(), prefix)
		slices.Sort(keys)
		if err != nil || !slices.Equal(keys, want) {
			t.Errorf("prefix %q: got %v, %v, want %v", prefix, keys, err, want)
		}
	}
}

func bucketDelete(t *testing.T, b snapshot.Bucket) {
	put(t, b, "p00001/a.snap", []byte("a"))
	put(t, b, "p00001/b.snap", []byte("b"))
	if err := b.Delete(t.Context(), "p00001/a.snap"); err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, b, "p00001/a.snap"); err == nil {
		t.Error("a deleted object is still there")
	}
	holdsObject(t, b, "p00001/b.snap", []byte("b"))
}

// bucketStore: generations are kept, the newest is found first, and a damaged one is
// told from a whole one.
func bucketStore(t *testing.T, b snapshot.Bucket) {
	s := snapshot.NewStore(b, 2)
	text := bytes.Repeat([]byte("profiles"), 100_000)
	for n := range int64(5) {
		id := snapshot.ID{Partition: 3, Next: n * 10, N: uint64(n)}
		if _, err := s.Publish(t.Context(), id, nil, func(w io.Writer) error { _, err := w.Write(text); return err }); err != nil {
			t.Fatal(err)
		}
	}
	ids, err := s.List(t.Context(), 3)
	if err != nil || len(ids) != 2 || ids[0].Next != 40 || ids[1].Next != 30 {
		t.Fatalf("got %v, %v, want the two newest, the newest first", ids, err)
	}
	data, err := get(t, b, ids[0].String())
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	put(t, b, ids[0].String(), data)
	if _, _, err := s.Verify(t.Context(), ids[0]); !errors.Is(err, snapshot.ErrDamaged) {
		t.Errorf("a snapshot with a flipped bit: got %v, want ErrDamaged", err)
	}
	if n, _, err := s.Verify(t.Context(), ids[1]); err != nil || n != int64(len(text)) {
		t.Errorf("the one before: got %d bytes, %v, want %d", n, err, len(text))
	}
}
