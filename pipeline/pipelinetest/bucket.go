package pipelinetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"footfall/pipeline/snapshot"
)

// Bucket is an object store in memory.
type Bucket struct {
	// What a test puts in the way; may block, and is not called with a lock held.
	BeforePut    Hook[func(ctx context.Context, key string) error]
	BeforeGet    Hook[func(key string) error]
	BeforeList   Hook[func() error]
	BeforeDelete Hook[func(key string) error]

	mu      sync.Mutex
	objects map[string][]byte
	putting int // under way
	most    int // puts under way at once, at most
}

// NewBucket makes an empty bucket.
func NewBucket() *Bucket { return &Bucket{objects: map[string][]byte{}} }

// Keys are the objects there are, sorted.
func (b *Bucket) Keys() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.objects))
}

// Count begins to count anew how many puts are under way at once.
func (b *Bucket) Count() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.most = 0
}

// Most is how many puts were under way at once at most, since Count.
func (b *Bucket) Most() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.most
}

// Set changes an object behind everybody's back; nil removes it.
func (b *Bucket) Set(key string, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if data == nil {
		delete(b.objects, key)
		return
	}
	b.objects[key] = data
}

// Put is snapshot.Bucket.
func (b *Bucket) Put(ctx context.Context, key string, write func(io.Writer) error) error {
	b.mu.Lock()
	b.putting++
	b.most = max(b.most, b.putting)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.putting--
	}()
	if hook, ok := b.BeforePut.get(); ok {
		if err := hook(ctx, key); err != nil {
			return err
		}
	}
	var data bytes.Buffer
	if err := write(&data); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	b.Set(key, append([]byte{}, data.Bytes()...))
	return nil
}

// Get is snapshot.Bucket.
func (b *Bucket) Get(_ context.Context, key string) (io.ReadCloser, error) {
	if hook, ok := b.BeforeGet.get(); ok {
		if err := hook(key); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	data, ok := b.objects[key]
	if !ok {
		return nil, fmt.Errorf("%s: %w: %w", key, snapshot.ErrGone, snapshot.ErrAway)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// List is snapshot.Bucket.
func (b *Bucket) List(_ context.Context, prefix string) ([]string, error) {
	if hook, ok := b.BeforeList.get(); ok {
		if err := hook(); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(b.Keys(), func(k string) bool { return !strings.HasPrefix(k, prefix) }), nil
}

// Delete is snapshot.Bucket.
func (b *Bucket) Delete(_ context.Context, key string) error {
	if hook, ok := b.BeforeDelete.get(); ok {
		if err := hook(key); err != nil {
			return err
		}
	}
	b.Set(key, nil)
	return nil
}
