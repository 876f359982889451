package snapshot

import (
	"context"
	"errors"
	"io"

	"gocloud.dev/blob"
)

// Blob is a Bucket in any store that gocloud.dev/blob opens.
type Blob struct{ Bucket *blob.Bucket }

// Put stores an object; when write fails, the object does not appear.
func (b Blob) Put(ctx context.Context, key string, write func(io.Writer) error) error {
	ctx, abandon := context.WithCancel(ctx)
	defer abandon()
	w, err := b.Bucket.NewWriter(ctx, key, nil)
	if err != nil {
		return err
	}
	if err := write(w); err != nil {
		abandon() // a writer whose context has ended publishes nothing when closed
		_ = w.Close()
		return err
	}
	return w.Close()
}

// Get opens an object.
func (b Blob) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	return b.Bucket.NewReader(ctx, key, nil)
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
			return nil, err
		}
		keys = append(keys, o.Key)
	}
}

// Delete removes an object.
func (b Blob) Delete(ctx context.Context, key string) error { return b.Bucket.Delete(ctx, key) }
