package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

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

// patience is how long a bucket may take over one step of an object: what a store sends at
// once is some megabytes. One that takes what it is given and never answers would else keep
// the place for all snapshots, or a recovery, for ever.
const patience = 5 * time.Minute

var errSilent = fmt.Errorf("%w: no answer for %v", ErrAway, patience)

// watch ends its context when a step takes longer than that.
type watch struct {
	ctx   context.Context //nolint:containedctx // of the object that it is of
	end   context.CancelCauseFunc
	timer *time.Timer
}

func newWatch(ctx context.Context) *watch {
	w := &watch{}
	w.ctx, w.end = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(patience, func() { w.end(errSilent) }) //nolint:forbidigo // how long a store takes decides nothing that is said
	w.timer.Stop()
	return w
}

// step does one step, whose error is the bucket's.
func (w *watch) step(f func() error) error {
	w.timer.Reset(patience)
	err := f()
	w.timer.Stop()
	if err != nil && errors.Is(context.Cause(w.ctx), errSilent) {
		return errSilent
	}
	return away(w.ctx, err)
}

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
	watch := newWatch(ctx)
	defer watch.end(nil)
	var w *blob.Writer
	err := watch.step(func() (err error) {
		w, err = b.Bucket.NewWriter(watch.ctx, key, nil)
		return err
	})
	if err != nil {
		return err
	}
	if err := write(writer{w, watch}); err != nil {
		watch.end(nil) // a writer whose context has ended publishes nothing when closed
		_ = w.Close()
		return err
	}
	return watch.step(w.Close)
}

// writer is an object being written.
type writer struct {
	to io.Writer
	*watch
}

func (w writer) Write(p []byte) (n int, err error) {
	err = w.step(func() (err error) {
		n, err = w.to.Write(p)
		return err
	})
	return n, err
}

// Get opens an object.
func (b Blob) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	r := reader{watch: newWatch(ctx)}
	err := r.step(func() (err error) {
		r.from, err = b.Bucket.NewReader(r.ctx, key, nil)
		return err
	})
	if err != nil {
		r.end(nil)
		return nil, err
	}
	return r, nil
}

// reader is an object being read.
type reader struct {
	from io.ReadCloser
	*watch
}

func (r reader) Read(p []byte) (n int, err error) {
	ended := false
	err = r.step(func() (err error) {
		n, err = r.from.Read(p)
		if ended = errors.Is(err, io.EOF); ended {
			return nil
		}
		return err
	})
	if ended {
		err = io.EOF
	}
	return n, err
}

func (r reader) Close() error {
	defer r.end(nil)
	return r.from.Close()
}

// List gives the keys with a prefix.
func (b Blob) List(ctx context.Context, prefix string) ([]string, error) {
	watch := newWatch(ctx)
	defer watch.end(nil)
	var keys []string
	for it := b.Bucket.List(&blob.ListOptions{Prefix: prefix}); ; {
		var o *blob.ListObject
		err := watch.step(func() (err error) {
			if o, err = it.Next(watch.ctx); errors.Is(err, io.EOF) { // and there is none
				return nil
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if o == nil {
			return keys, nil
		}
		keys = append(keys, o.Key)
	}
}

// Delete removes an object; one that somebody else has removed is gone just as well.
func (b Blob) Delete(ctx context.Context, key string) error {
	watch := newWatch(ctx)
	defer watch.end(nil)
	return watch.step(func() error {
		err := b.Bucket.Delete(watch.ctx, key)
		if gcerrors.Code(err) == gcerrors.NotFound {
			return nil
		}
		return err
	})
}
