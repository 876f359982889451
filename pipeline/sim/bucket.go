package sim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
)

// bucket is an object store that tears, loses, damages and lists late.
type bucket struct {
	world   *world
	objects map[string][]byte
	bad     map[string]bool // torn or damaged; recovery is owed one that is neither
}

var errBucket = errors.New("simulated bucket failure")

// Put is snapshot.Bucket.
func (b *bucket) Put(_ context.Context, key string, write func(io.Writer) error) error {
	w := b.world
	if err := w.crash("before put", 40); err != nil {
		return err
	}
	if w.chance("put fails", 20) {
		return errBucket
	}
	var buf bytes.Buffer
	if err := write(&buf); err != nil {
		return err
	}
	data := buf.Bytes()
	if b.good(key) > 1 && w.chance("torn put", 20) {
		b.objects[key], b.bad[key] = data[:w.rng.IntN(len(data))], true
		return w.crash("torn put", 2)
	}
	b.objects[key] = data
	delete(b.bad, key)
	return w.crash("after put", 40)
}

// good counts the undamaged snapshots of a key's partition besides the key's own.
func (b *bucket) good(key string) (n int) {
	for k := range b.objects {
		if k != key && k[:6] == key[:6] && !b.bad[k] {
			n++
		}
	}
	return n
}

// Get is snapshot.Bucket.
func (b *bucket) Get(_ context.Context, key string) (io.ReadCloser, error) {
	if err := b.world.crash("get", 80); err != nil {
		return nil, err
	}
	data, ok := b.objects[key]
	if !ok {
		return nil, errBucket
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// List is snapshot.Bucket.
func (b *bucket) List(_ context.Context, prefix string) ([]string, error) {
	if err := b.world.crash("list", 80); err != nil {
		return nil, err
	}
	var keys []string
	for _, k := range slices.Sorted(maps.Keys(b.objects)) {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, nil
	}
	newest := keys[len(keys)-1]
	if b.good(newest) == len(keys)-1 && len(keys) > 2 && b.world.chance("bit flip", 10) {
		if d := slices.Clone(b.objects[newest]); len(d) > 0 {
			d[b.world.rng.IntN(len(d))] ^= 1 << b.world.rng.IntN(8)
			b.objects[newest], b.bad[newest] = d, true
		}
	}
	if b.good(newest) > 0 && b.world.chance("stale list", 10) {
		keys = keys[:len(keys)-1]
	}
	return keys, nil
}

// Delete is snapshot.Bucket.
func (b *bucket) Delete(_ context.Context, key string) error {
	if err := b.world.crash("delete", 80); err != nil {
		return err
	}
	delete(b.objects, key)
	delete(b.bad, key)
	return nil
}
