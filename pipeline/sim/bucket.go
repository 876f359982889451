package sim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
)

// bucket is an object store that tears, loses, damages and lists late.
type bucket struct {
	world   *world
	objects map[string][]byte
	hashes  map[string]uint64 // of the outputs, as the snapshot says, where it was looked up
	bad     map[string]bool   // torn, damaged or stray; recovery is owed one that is none of it
}

// bucketOf is the bucket as one process reaches it.
type bucketOf struct{ *process }

var errBucket = errors.New("simulated bucket failure")

// Put is snapshot.Bucket.
func (b bucketOf) Put(_ context.Context, key string, write func(io.Writer) error) error {
	if err := b.mishap("before put", 40); err != nil {
		return err
	}
	if b.chance("put fails", 20) {
		return errBucket
	}
	var buf bytes.Buffer
	if err := write(&buf); err != nil {
		return err
	}
	if err := b.mishap("amid put", 80); err != nil {
		return err
	}
	if err := b.checkPut(key); err != nil {
		return err
	}
	data, of := buf.Bytes(), b.bucket
	if of.good(key) > 1 && b.chance("torn put", 20) {
		of.objects[key], of.bad[key] = data[:b.rng.IntN(len(data))], true
		return b.mishap("torn put", 2)
	}
	of.objects[key] = data
	delete(of.bad, key)
	delete(of.hashes, key)
	return b.mishap("after put", 40)
}

// Get is snapshot.Bucket.
func (b bucketOf) Get(_ context.Context, key string) (io.ReadCloser, error) {
	if err := b.mishap("get", 80); err != nil {
		return nil, err
	}
	data, ok := b.bucket.objects[key]
	if !ok {
		return nil, errBucket
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// List is snapshot.Bucket.
func (b bucketOf) List(_ context.Context, prefix string) ([]string, error) {
	if err := b.mishap("list", 80); err != nil {
		return nil, err
	}
	of := b.bucket
	keys := of.keys(prefix)
	if len(keys) == 0 {
		return nil, nil
	}
	newest := keys[len(keys)-1]
	if of.good(newest) == len(keys)-1 && len(keys) > 2 && b.chance("bit flip", 10) {
		if d := slices.Clone(of.objects[newest]); len(d) > 0 {
			d[b.rng.IntN(len(d))] ^= 1 << b.rng.IntN(8)
			of.objects[newest], of.bad[newest] = d, true
		}
	}
	if of.good(newest) > 0 && b.chance("stale list", 10) {
		keys = keys[:len(keys)-1]
	}
	return keys, nil
}

// Delete is snapshot.Bucket.
func (b bucketOf) Delete(_ context.Context, key string) error {
	if err := b.mishap("delete", 80); err != nil {
		return err
	}
	delete(b.bucket.objects, key)
	delete(b.bucket.bad, key)
	return nil
}

// keys gives the keys with a prefix, sorted: the oldest snapshot first.
func (b *bucket) keys(prefix string) []string {
	var keys []string
	for _, k := range slices.Sorted(maps.Keys(b.objects)) {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	return keys
}

// good counts the snapshots of a key's partition, besides the key's own, that a
// recovery can begin with.
func (b *bucket) good(key string) (n int) {
	id, _ := snapshot.ParseID(key)
	p := b.world.parts[id.Partition]
	for _, k := range b.keys(key[:6]) {
		if k != key && b.sound(p, k) {
			n++
		}
	}
	return n
}

// sound tells whether a recovery can begin with a snapshot.
func (b *bucket) sound(p *part, key string) bool {
	id, ok := snapshot.ParseID(key)
	if !ok || b.bad[key] || id.Next < p.start {
		return false
	}
	if !p.found {
		return true
	}
	if id.Next > p.next || id.N > p.mark.N {
		return false
	}
	if !b.world.opt.lineageBroken() {
		return true
	}
	hash, known := p.hashes[id.N]
	if !known {
		return false
	}
	own, known := b.hashes[key]
	if !known {
		w, err := b.read(key)
		if err != nil {
			return false
		}
		own = w.Mark().Hash
		b.hashes[key] = own
	}
	return own == hash
}

// sounds gives a partition's sound snapshots, the oldest first.
func (b *bucket) sounds(p *part) (keys []string, ids []snapshot.ID) {
	prefix := snapshot.ID{Partition: p.number}.String()[:6]
	for _, k := range b.keys(prefix) {
		if b.sound(p, k) {
			id, _ := snapshot.ParseID(k)
			keys, ids = append(keys, k), append(ids, id)
		}
	}
	return keys, ids
}

// read makes a worker of a snapshot.
func (b *bucket) read(key string) (*worker.Worker, error) {
	id, _ := snapshot.ParseID(key)
	cfg := b.world.workerConfig(100)
	cfg.Decoder = b.world.rules[b.world.using].decoder()
	return worker.Read(snapshot.NewReader(bytes.NewReader(b.objects[key])), id.Partition, cfg)
}
