package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// ErrAway is wrapped by errors of a bucket that may go by themselves: it does not
// answer, it is full, or an object that was listed has been removed since.
var ErrAway = errors.New("the bucket is away")

// ErrGone is wrapped, with ErrAway, by what a bucket says of an object that is not there.
var ErrGone = errors.New("there is no such object")

// Blob is a Bucket in any store that gocloud.dev/blob opens.
type Blob struct{ Bucket *blob.Bucket }

// ErrNotRemoved is wrapped by what Publish says where only the snapshots beyond those that
// are kept could not be removed, as where the bucket denies it.
var ErrNotRemoved = errors.New("the bucket keeps what should be removed")

// away tells the errors that may go by themselves from those that need a person.
func away(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	switch gcerrors.Code(err) {
	case gcerrors.PermissionDenied, gcerrors.InvalidArgument, gcerrors.Unimplemented:
		return err
	case gcerrors.NotFound:
		return fmt.Errorf("%w: %w: %w", ErrAway, ErrGone, err)
	default:
		return fmt.Errorf("%w: %w", ErrAway, err)
	}
}

// Put stores an object; when write fails, the object does not appear.
func (b Blob) Put(ctx context.Context, key string, write func(io.Writer) error) error {
	ctx, abandon := context.WithCancel(ctx)
	defer abandon()
	w, err := b.Bucket.NewWriter(ctx, key, nil)
	if err != nil {
		return away(ctx, err)
	}
	if err := write(writer{w, ctx}); err != nil {
		abandon() // a writer whose context has ended publishes nothing when closed
		_ = w.Close()
		return err
	}
	return away(ctx, w.Close())
}

// writer is an object being written.
type writer struct {
	io.Writer
	ctx context.Context //nolint:containedctx // of the Put that it is of
}

func (w writer) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	return n, away(w.ctx, err)
}

// Get opens an object.
func (b Blob) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	r, err := b.Bucket.NewReader(ctx, key, nil)
	if err != nil {
		return nil, away(ctx, err)
	}
	return reader{r, ctx}, nil
}

// reader is an object being read.
type reader struct {
	io.ReadCloser
	ctx context.Context //nolint:containedctx // of the Get that it is of
}

func (r reader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = away(r.ctx, err)
	}
	return n, err
}

// List gives the keys with a prefix.
func (b Blob) List(ctx context.Context, prefix string) ([]string, error) {
	var keys []string
	it := b.Bucket.List(&blob.ListOptions{Prefix: prefix})
	for {
		o, err := it.Next(ctx)
		if errors.Is(err, io.EOF) {
			return keys, nil
		}
		if err != nil {
			return nil, away(ctx, err)
		}
		keys = append(keys, o.Key)
	}
}

// Delete removes an object; one that somebody else has removed is gone just as well.
func (b Blob) Delete(ctx context.Context, key string) error {
	err := b.Bucket.Delete(ctx, key)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil
	}
	return away(ctx, err)
}
