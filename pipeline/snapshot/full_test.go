package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"gocloud.dev/blob/memblob"
)

// full is a bucket with room for so many bytes of an object, and no more.
type full struct {
	Blob
	room int // less than none: any number
	ends ending
}

// ending is what becomes of an object for which there is no room.
type ending int

const (
	nothing ending = iota // there is none, and an error
	begun                 // its beginning is there, and an error
	unheard               // its beginning is there, and all is said to be well
)

var errFull = fmt.Errorf("no space left: %w", ErrAway)

func (b *full) Put(ctx context.Context, key string, write func(io.Writer) error) error {
	if b.room < 0 {
		return b.Blob.Put(ctx, key, write)
	}
	to := limitedBuffer{room: b.room}
	err := write(&to)
	if !errors.Is(err, errFull) {
		return errors.Join(errors.New("the limit is not met"), err)
	}
	if b.ends != nothing {
		if err := b.Bucket.WriteAll(ctx, key, to.held, nil); err != nil {
			return err
		}
	}
	if b.ends == unheard {
		return nil
	}
	return err
}

// limitedBuffer takes so many bytes. A write that does not fit is done in part.
type limitedBuffer struct {
	held []byte
	room int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	n := min(len(p), b.room)
	b.room -= n
	b.held = append(b.held, p[:n]...)
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

// A bucket becomes full at every single byte of a snapshot, a whole one or a delta. What
// of it is there is never taken for one, the one before is there as it was, and when there
// is room again the next is stored, under another name or the same.
func TestABucketIsFullAtEveryByte(t *testing.T) {
	for _, delta := range []bool{false, true} {
		for _, ends := range []ending{nothing, begun, unheard} {
			t.Run(fmt.Sprint("delta=", delta, "/ends=", ends), func(t *testing.T) {
				bucket := memblob.OpenBucket(nil)
				defer func() { _ = bucket.Close() }()
				fullAtEveryByte(t, &full{Blob: Blob{bucket}, ends: ends}, delta)
			})
		}
	}
}

func fullAtEveryByte(t *testing.T, b *full, delta bool) {
	id, next := ID{1, 20, 2, 0}, ID{1, 30, 3, 0}
	for b.room = 0; ; b.room++ {
		room := b.room
		b.room = -1
		for _, of := range []ID{{1, 10, 1, 0}, id, next} {
			_ = b.Delete(t.Context(), of.key()) // it may not be there
		}
		s := NewStore(b, 3)
		before := extend(t, s, nil, ID{1, 10, 1, 0})
		upon := before
		if !delta {
			upon = nil
		}
		extend(t, s, upon, id)
		size, err := b.Bucket.Attributes(t.Context(), id.key())
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(t.Context(), id.key()); err != nil {
			t.Fatal(err)
		}
		if int64(room) == size.Size {
			return
		}
		b.room = room
		if chain, err := s.Publish(t.Context(), id, upon, content(id)); chain != nil || !errors.Is(err, ErrAway) {
			t.Fatalf("with room for %d of %d bytes: got %v, %v, want %v", room, size.Size, chain, err, ErrAway)
		}
		b.room = -1
		for _, reader := range []*Store{s, NewStore(b, 3)} { // who wrote it, and who comes after
			if text, _, err := told(t, reader, id); err == nil {
				t.Fatalf("of %d bytes %d are taken for a snapshot: %q", size.Size, room, text)
			}
			if text, _, err := told(t, reader, before.ID); err != nil || text != wholeOf(before.ID) {
				t.Fatalf("after %d bytes of another the one before gives %q, %v", room, text, err)
			}
		}
		for _, after := range []ID{next, id} {
			chain := extend(t, s, upon, after)
			want := wholeOf(after)
			if delta {
				want = wholeOf(before.ID) + "; " + want
			}
			if text, _, err := told(t, NewStore(b, 3), chain.ID); err != nil || text != want {
				t.Fatalf("after %d bytes of %s, %s gives %q, %v, want %q", room, id, after, text, err, want)
			}
		}
		b.room = room
	}
}
