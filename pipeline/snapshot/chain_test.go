package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"
)

// extend publishes a delta upon a chain, or a whole snapshot upon none.
func extend(t *testing.T, s *Store, upon *Chain, id ID) *Chain {
	t.Helper()
	chain, err := s.Publish(t.Context(), id, upon, content(id))
	if err != nil {
		t.Fatalf("publish %s: %v", id, err)
	}
	return chain
}

// told is what a chain gives to read.
func told(t *testing.T, s *Store, id ID) (text string, chain *Chain, err error) {
	t.Helper()
	var all []string
	chain, err = s.Open(t.Context(), id, func(r io.Reader) error {
		b, err := io.ReadAll(r)
		all = append(all, string(b))
		return err
	})
	return strings.Join(all, "; "), chain, err
}

// wholeOf is what a snapshot was written to hold.
func wholeOf(id ID) string {
	var b strings.Builder
	_ = content(id)(&b)
	return b.String()
}

func TestAChainIsReadFromItsBeginning(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		s := NewStore(Blob{bucket}, 3)
		var chain *Chain
		var want []string
		for i := range 4 {
			id := ID{1, int64(10 * i), uint64(i), 0}
			chain = extend(t, s, chain, id)
			want = append(want, wholeOf(id))
			text, read, err := told(t, NewStore(Blob{bucket}, 3), id)
			if err != nil || text != strings.Join(want, "; ") {
				t.Errorf("open %s: got %q, %v, want %q", id, text, err, want)
			}
			if err == nil && *read != *chain {
				t.Errorf("open %s: got %+v, and published was %+v", id, *read, *chain)
			}
		}
		if chain.Deltas != 3 || chain.Whole != int64(len(want[0])) || chain.Changed != int64(len(want[1])+len(want[2])+len(want[3])+3*linkBytes) {
			t.Errorf("got %+v of %q", *chain, want)
		}
	})
}

// Whatever has become of a link, no chain is read that is not the one that was written:
// not one byte of any of its files may be another.
func TestEveryFlippedBitOfAChainIsFound(t *testing.T) {
	bucket := memblob.OpenBucket(nil)
	defer bucket.Close()
	s := NewStore(Blob{bucket}, 3)
	ids := []ID{{1, 10, 1, 0}, {1, 20, 2, 7}, {1, 30, 3, 8}}
	var chain *Chain
	for _, id := range ids {
		chain = extend(t, s, chain, id)
	}
	want, _, err := told(t, s, chain.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		good, err := bucket.ReadAll(t.Context(), id.key())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 8 * len(good) {
			bad := slices.Clone(good)
			bad[i/8] ^= 1 << (i % 8)
			if err := bucket.WriteAll(t.Context(), id.key(), bad, nil); err != nil {
				t.Fatal(err)
			}
			if text, _, err := told(t, s, chain.ID); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), chain.ID.String()) {
				t.Errorf("%s: bit %d of byte %d of %d: got %q, %v, want one that wraps %q and names %s", id, i%8, i/8, len(good), text, err, ErrDamaged, chain.ID)
			}
		}
		if err := bucket.WriteAll(t.Context(), id.key(), good, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got, _, err := told(t, s, chain.ID); err != nil || got != want {
		t.Errorf("mended: got %q, %v", got, err)
	}
}

// A link that is whole and is not the one that was built upon: of another cluster, of a
// past that was given up, or the same once more.
func TestALinkIsOfOneChainAlone(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		s := NewStore(Blob{bucket}, 9)
		base, first, second, third := ID{1, 10, 1, 0}, ID{1, 20, 2, 0}, ID{1, 30, 3, 0}, ID{1, 40, 4, 0}
		chain := extend(t, s, nil, base)
		one := extend(t, s, chain, first)
		two := extend(t, s, one, second)
		extend(t, s, two, third)
		good := map[ID][]byte{}
		for _, id := range []ID{base, first, second, third} {
			b, err := bucket.ReadAll(t.Context(), id.key())
			if err != nil {
				t.Fatal(err)
			}
			good[id] = b
		}
		elsewhere := memblob.OpenBucket(nil)
		defer elsewhere.Close()
		other := NewStore(Blob{elsewhere}, 9)
		if _, err := other.Publish(t.Context(), second, nil, func(w io.Writer) error { return content(third)(w) }); err != nil {
			t.Fatal(err)
		}
		whole, err := elsewhere.ReadAll(t.Context(), second.key())
		if err != nil {
			t.Fatal(err)
		}
		for what, put := range map[string][]byte{
			"a whole one of its name": whole, "the one after it": good[third], "the one before it": good[first], "the first": good[base], "nothing": nil,
		} {
			if put == nil {
				err = bucket.Delete(t.Context(), second.key())
			} else {
				err = bucket.WriteAll(t.Context(), second.key(), put, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			if text, _, err := told(t, s, third); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), third.String()) {
				t.Errorf("%s: got %q, %v, want one that wraps %q and names %s", what, text, err, ErrDamaged, third)
			}
			if text, _, err := told(t, s, first); err != nil || text != wholeOf(base)+"; "+wholeOf(first) {
				t.Errorf("%s: the chain before it: got %q, %v", what, text, err)
			}
		}
	})
}

// A chain that somebody is removing is not damaged: its end goes first, and who lists once
// more sees what has taken its place.
func TestAChainThatGoesIsAway(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		s := NewStore(Blob{bucket}, 9)
		base, delta := ID{1, 10, 1, 0}, ID{1, 20, 2, 0}
		extend(t, s, extend(t, s, nil, base), delta)
		b := &going{Blob: Blob{bucket}, gone: base.key(), then: delta.key()}
		if _, _, err := told(t, NewStore(b, 9), delta); !errors.Is(err, ErrAway) || errors.Is(err, ErrDamaged) {
			t.Errorf("got %v, want %q", err, ErrAway)
		}
	})
}

// going is a bucket that loses two objects when the first is asked for.
type going struct {
	Blob
	gone, then string
}

func (b *going) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	if key == b.gone {
		_ = b.Bucket.Delete(ctx, b.then)
		_ = b.Bucket.Delete(ctx, b.gone)
	}
	return b.Blob.Get(ctx, key)
}

// Retention counts whole ones, and keeps what builds upon those that it keeps.
func TestWholeOnesAreCountedAndKeptWithTheirDeltas(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		s := NewStore(Blob{bucket}, 2)
		id := func(i int) ID { return ID{1, int64(10 * i), uint64(i), 0} }
		var chain *Chain
		for i := range 9 { // 0 1 2, 3 4 5, 6 7 8: three whole ones, two deltas upon each
			if i%3 == 0 {
				chain = nil
			}
			chain = extend(t, s, chain, id(i))
		}
		listed(t, s, 1, id(8), id(7), id(6), id(5), id(4), id(3))
		for _, i := range []int{3, 4, 5, 6, 7, 8} {
			if _, _, err := told(t, s, id(i)); err != nil {
				t.Error(err)
			}
		}
	})
}

// What somebody is ahead with builds upon what would else be too old; all of it stays.
func TestALinkInUseStays(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		ahead := NewStore(Blob{bucket}, 9)
		old := extend(t, ahead, nil, ID{1, 10, 1, 0})
		older := extend(t, ahead, old, ID{1, 20, 2, 0})
		tip := extend(t, ahead, older, ID{1, 90, 9, 0})
		behind := NewStore(Blob{bucket}, 1)
		for i := 3; i < 6; i++ {
			extend(t, behind, nil, ID{1, int64(10 * i), uint64(i), 0})
		}
		if _, _, err := told(t, behind, tip.ID); err != nil {
			t.Errorf("the chain of who is ahead: %v", err)
		}
		listed(t, behind, 1, tip.ID, ID{1, 50, 5, 0}, older.ID, old.ID)
	})
}

// A link that was seen to be damaged takes all that builds upon it along; a chain that has
// lost a link is no longer built upon.
func TestWhatBuildsUponADamagedOneGoes(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		s := NewStore(Blob{bucket}, 2)
		base := extend(t, s, nil, ID{1, 10, 1, 0})
		one := extend(t, s, base, ID{1, 20, 2, 0})
		two := extend(t, s, one, ID{1, 30, 3, 0})
		damage(t, bucket, one.ID)
		if _, _, err := told(t, s, two.ID); !errors.Is(err, ErrDamaged) {
			t.Errorf("got %v, want %q", err, ErrDamaged)
		}
		last := ID{1, 40, 4, 0}
		if _, err := s.Publish(t.Context(), last, two, content(last)); !errors.Is(err, ErrDamaged) {
			t.Errorf("published upon a chain that is damaged: got %v, want %q", err, ErrDamaged)
		}
		extend(t, s, nil, ID{1, 50, 5, 0})
		listed(t, s, 1, ID{1, 50, 5, 0}, base.ID)
	})
}

// What only looked damaged, because the bucket gave half of it once, stays.
func TestWhatOnlyLookedDamagedStays(t *testing.T) {
	bucket := memblob.OpenBucket(nil)
	defer bucket.Close()
	b := &cutting{Blob: Blob{bucket}}
	s := NewStore(b, 2)
	base := extend(t, s, nil, ID{1, 10, 1, 0})
	one := extend(t, s, base, ID{1, 20, 2, 0})
	b.cut = one.ID.key()
	if _, _, err := told(t, s, one.ID); !errors.Is(err, ErrDamaged) {
		t.Errorf("half of it: got %v, want %q", err, ErrDamaged)
	}
	b.cut = ""
	extend(t, s, base, ID{1, 30, 3, 0})
	listed(t, s, 1, ID{1, 30, 3, 0}, one.ID, base.ID)
}

// cutting is a bucket that gives half of an object.
type cutting struct {
	Blob
	cut string
}

func (b *cutting) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	r, err := b.Blob.Get(ctx, key)
	if err != nil || key != b.cut {
		return r, err
	}
	all, err := io.ReadAll(r)
	return io.NopCloser(bytes.NewReader(all[:len(all)/2])), errors.Join(err, r.Close())
}

// Somebody who has lost the partition long ago publishes the cut that he was at, upon which
// others have built since: theirs is read as before.
func TestWhoComesLateReplacesNothing(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		s, late := NewStore(Blob{bucket}, 3), NewStore(Blob{bucket}, 3)
		base := extend(t, s, nil, ID{1, 10, 1, Tag(1000, "one")})
		tip := extend(t, s, base, ID{1, 20, 2, Tag(2000, "one")})
		same := ID{1, 10, 1, Tag(1000, "two")}
		if _, err := late.Publish(t.Context(), same, nil, func(w io.Writer) error { _, err := fmt.Fprint(w, "the same in other words"); return err }); err != nil {
			t.Fatal(err)
		}
		if _, _, err := told(t, s, tip.ID); err != nil {
			t.Error(err)
		}
		if ids, err := s.List(t.Context(), 1); err != nil || len(ids) != 3 {
			t.Errorf("got %v, %v, want all three", ids, err)
		}
	})
}

// Two that publish under one name: the first one finds out that the file is not its own.
func TestAFileOfSomebodyElseIsNotTakenForOnesOwn(t *testing.T) {
	bucket := memblob.OpenBucket(nil)
	defer bucket.Close()
	id := ID{1, 10, 1, 0}
	s := NewStore(&overtaken{Blob: Blob{bucket}, by: NewStore(Blob{bucket}, 3), id: id}, 3)
	if _, err := s.Publish(t.Context(), id, nil, content(id)); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want %q", err, ErrDamaged)
	}
}

// overtaken is a bucket in which somebody writes the same name right after each Put.
type overtaken struct {
	Blob
	by *Store
	id ID
}

func (b *overtaken) Put(ctx context.Context, key string, write func(io.Writer) error) error {
	if err := b.Blob.Put(ctx, key, write); err != nil {
		return err
	}
	_, err := b.by.Publish(ctx, b.id, nil, func(w io.Writer) error {
		_, err := fmt.Fprint(w, "of somebody else")
		return err
	})
	return err
}

// Another cluster's snapshots may look newer than what ours builds upon, and push it out
// as little as they push out ours.
func TestTheChainJustPublishedStays(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		foreign := NewStore(Blob{bucket}, 9)
		s := NewStore(Blob{bucket}, 2)
		chain := extend(t, s, nil, ID{1, 10, 1, 0})
		for i := 2; i < 6; i++ {
			extend(t, foreign, nil, ID{1, int64(10 * i), uint64(i), 0})
		}
		chain = extend(t, s, chain, ID{1, 60, 6, 0})
		if _, _, err := told(t, s, chain.ID); err != nil {
			t.Error(err)
		}
		listed(t, s, 1, chain.ID, ID{1, 50, 5, 0}, ID{1, 10, 1, 0})
	})
}

// A list of some time ago tells neither that a chain is whole nor that it is not.
func TestAnOldListCostsNoLink(t *testing.T) {
	each(t, func(t *testing.T, bucket *blob.Bucket) {
		b := &forgetful{Blob: Blob{bucket}}
		s := NewStore(b, 2)
		base := extend(t, s, nil, ID{1, 10, 1, 0})
		one := extend(t, s, base, ID{1, 20, 2, 0})
		b.unlisted = base.ID.key()
		two := extend(t, s, one, ID{1, 30, 3, 0})
		extend(t, s, nil, ID{1, 40, 4, 0})
		b.unlisted = ""
		if _, _, err := told(t, s, two.ID); err != nil {
			t.Error(err)
		}
		listed(t, s, 1, ID{1, 40, 4, 0}, two.ID, one.ID, base.ID)
	})
}

// forgetful is a bucket that does not list one object.
type forgetful struct {
	Blob
	unlisted string
}

func (b *forgetful) List(ctx context.Context, prefix string) ([]string, error) {
	keys, err := b.Blob.List(ctx, prefix)
	return slices.DeleteFunc(keys, func(k string) bool { return k == b.unlisted }), err
}
