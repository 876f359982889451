package snapshot

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

// silent is a bucket that takes what it is given, and of which one step never ends.
type silent struct {
	driver.Bucket
	step string
	slow time.Duration // how long the others take
}

func (s *silent) wait(ctx context.Context, step string) error {
	if step == s.step {
		<-ctx.Done()
		return ctx.Err()
	}
	time.Sleep(s.slow)
	return nil
}

func (s *silent) ErrorCode(error) gcerrors.ErrorCode { return gcerrors.Unknown }
func (s *silent) ErrorAs(error, any) bool            { return false }
func (s *silent) Close() error                       { return nil }

func (s *silent) Delete(ctx context.Context, _ string, _ *driver.DeleteOptions) error {
	return s.wait(ctx, "delete")
}

func (s *silent) ListPaged(ctx context.Context, _ *driver.ListOptions) (*driver.ListPage, error) {
	return &driver.ListPage{}, s.wait(ctx, "list")
}

func (s *silent) NewTypedWriter(ctx context.Context, _, _ string, _ *driver.WriterOptions) (driver.Writer, error) {
	return silentObject{ctx, s}, s.wait(ctx, "open to write")
}

func (s *silent) NewRangeReader(ctx context.Context, _ string, _, _ int64, _ *driver.ReaderOptions) (driver.Reader, error) {
	return silentObject{ctx, s}, s.wait(ctx, "open to read")
}

type silentObject struct {
	ctx context.Context
	*silent
}

func (o silentObject) Write(p []byte) (int, error) { return len(p), o.wait(o.ctx, "write") }

func (o silentObject) Read(p []byte) (int, error) {
	if err := o.wait(o.ctx, "read"); err != nil {
		return 0, err
	}
	return len(p), io.EOF
}

func (o silentObject) Close() error                         { return o.wait(o.ctx, "close") }
func (o silentObject) As(any) bool                          { return false }
func (o silentObject) Attributes() *driver.ReaderAttributes { return &driver.ReaderAttributes{} }

// A bucket that never answers is one that is away, whatever it was asked; one that is slow is
// waited for, and so is whoever gives the bytes.
func TestNeverAnswers(t *testing.T) {
	put := func(ctx context.Context, b Blob) error {
		return b.Put(ctx, "a", func(to io.Writer) error {
			for range 3 {
				time.Sleep(2 * patience) // a snapshot waits for its commit
				if _, err := to.Write(make([]byte, 1<<20)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	get := func(ctx context.Context, b Blob) error {
		r, err := b.Get(ctx, "a")
		if err != nil {
			return err
		}
		defer r.Close()
		time.Sleep(2 * patience)
		_, err = io.ReadAll(r)
		return err
	}
	for step, do := range map[string]func(context.Context, Blob) error{
		"open to write": put, "write": put, "close": put, "open to read": get, "read": get,
		"list":   func(ctx context.Context, b Blob) error { _, err := b.List(ctx, "a"); return err },
		"delete": func(ctx context.Context, b Blob) error { return b.Delete(ctx, "a") },
	} {
		synctest.Test(t, func(t *testing.T) {
			of := &silent{step: step}
			b := Blob{blob.NewBucket(of)}
			defer b.Bucket.Close()
			if err := do(t.Context(), b); !errors.Is(err, ErrAway) || !errors.Is(err, errSilent) {
				t.Errorf("%s: got %v, want that the bucket is away", step, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := do(ctx, b); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrAway) {
				t.Errorf("%s: got %v, want the caller's own end", step, err)
			}
			of.step, of.slow = "", patience-time.Second
			if err := do(t.Context(), b); err != nil {
				t.Errorf("slow: %v", err)
			}
		})
	}
}
