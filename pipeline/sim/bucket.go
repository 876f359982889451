package sim

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"footfall/pipeline/snapshot"
)

// bucket is an object store that tears, loses, damages, answers late and lists what
// was there once.
type bucket struct {
	world   *world
	objects map[string][]byte
	told    map[string]told   // by snapshots, where it was looked up
	bad     map[string]bool   // torn, damaged, foreign or stray; recovery is owed one that is none of it
	planted map[string]bool   // bad for what they are of, and not damaged
	heads   map[string]head   // of partitions' objects
	ever    map[uint64][]byte // all that was ever stored of a partition, by its sum
	late    []latePut
	removed []string // the last ones
}

// told is what a snapshot says of its past.
type told struct {
	readable bool
	hash     uint64 // of the outputs
	window   int64  // the offset at which its dedup window begins
}

// head is what an object says of itself.
type head struct {
	upon *snapshot.Link // that it is a delta upon; nil: it is whole
	sum  uint64

	// What its key says: keys are looked at in every step, and read once.
	id     snapshot.ID
	named  bool   // as a partition's are
	before string // the key of what it is upon
}

// headOf reads an object's head, and tells whether the object is whole.
func headOf(data []byte) (h head, whole bool) {
	r := snapshot.NewReader(bytes.NewReader(data))
	_, err := io.Copy(io.Discard, r)
	return head{upon: r.Upon(), sum: r.Sum()}, err == nil
}

// latePut is one that its sender has given up, and that is still under way.
type latePut struct {
	key  string
	data []byte
	at   int // step
}

func newBucket(w *world) *bucket {
	return &bucket{
		world: w, objects: map[string][]byte{}, told: map[string]told{}, bad: map[string]bool{}, planted: map[string]bool{},
		heads: map[string]head{}, ever: map[uint64][]byte{},
	}
}

// bucketOf is the bucket as one process reaches it.
type bucketOf struct{ *process }

var errBucket = fmt.Errorf("simulated: %w", snapshot.ErrAway)

// step carries out what was given up long ago.
func (b *bucket) step() {
	for len(b.late) > 0 && b.late[0].at <= b.world.steps {
		l := b.late[0]
		b.late = b.late[1:]
		if b.objects[l.key] == nil || b.bad[l.key] {
			b.world.fault("put done late")
			b.put(l.key, l.data)
		}
	}
}

// vanish removes an object of a partition behind everybody's back, now and then.
func (b *bucket) vanish(p *part) {
	keys := b.keys(snapshot.ID{Partition: p.number}.String()[:6])
	if len(keys) == 0 {
		return
	}
	if key := keys[b.world.gone.IntN(len(keys))]; b.loses("snapshot removed by somebody", key, 20) {
		delete(b.objects, key)
		delete(b.bad, key)
		b.world.trace("somebody removes %s", key)
	}
}

// loses tells whether an object is lost: where others lead on, and nothing else is wrong.
func (b *bucket) loses(how, key string, oneIn int) bool {
	w := b.world
	if !w.opt.Vanish || w.calm() || w.gone.IntN(oneIn) != 0 || b.good(key) < 2 || b.spoilt(key[:6]) {
		return false
	}
	w.fault(how)
	return true
}

// put stores an object that is sound.
func (b *bucket) put(key string, data []byte) {
	b.objects[key] = data
	delete(b.bad, key)
	delete(b.told, key)
	if isPartition(key) {
		h := b.keep(data)
		h.id, h.named = snapshot.ParseID(key)
		if h.upon != nil {
			before := h.upon.ID
			before.Partition = h.id.Partition
			h.before = before.String()
		}
		b.heads[key] = h
	}
	b.world.note(key, xxhash.Sum64(data))
}

// keep keeps what was stored, whatever becomes of the object.
func (b *bucket) keep(data []byte) head {
	h, whole := headOf(data)
	if whole {
		b.ever[h.sum] = data
	}
	return h
}

// chainOf gives the bytes of a snapshot and of those that it was written upon, as they were
// written, the whole one first; nil where one of them never was.
func (b *bucket) chainOf(data []byte) (chain [][]byte) {
	for {
		chain = append(chain, data)
		h, _ := headOf(data)
		if h.upon == nil {
			slices.Reverse(chain)
			return chain
		}
		if data = b.ever[h.upon.Sum]; data == nil {
			return nil
		}
	}
}

// links gives the keys of a snapshot's chain, its own first; whole tells that all of them
// are there, and as they were written.
func (b *bucket) links(key string) (keys []string, whole bool) {
	for {
		keys = append(keys, key)
		if b.objects[key] == nil || b.bad[key] {
			return keys, false
		}
		h := b.heads[key]
		if h.upon == nil {
			return keys, true
		}
		if key = h.before; b.heads[key].sum != h.upon.Sum {
			return keys, false
		}
	}
}

// plant stores one that recovery must not take.
func (b *bucket) plant(key string, data []byte) {
	b.put(key, data)
	b.bad[key], b.planted[key] = true, true
	b.world.trace("planted: %s", key)
}

// fails tells whether a request to the bucket fails.
func (b bucketOf) fails(what string, oneIn int) bool {
	b.at("bucket: "+what, 80)
	b.waits(BucketSlow)
	return b.away == BucketAway || b.chance(what+" fails", oneIn)
}

// Put is snapshot.Bucket.
func (b bucketOf) Put(_ context.Context, key string, write func(io.Writer) error) error {
	if b.fails("put", 20) {
		return errBucket
	}
	var buf bytes.Buffer
	if err := write(&buf); err != nil {
		return err
	}
	b.at("bucket: amid put", 80)
	if err := b.checkPut(key, buf.Bytes()); err != nil {
		return err
	}
	data, of := buf.Bytes(), b.bucket
	switch {
	case isPartition(key) && of.good(key) > 1 && !of.spoilt(key[:6]) && b.chance("torn put", 20):
		of.put(key, data[:b.rng.IntN(len(data))])
		of.bad[key] = true
		return nil // whoever reads it back finds out
	case b.chance("put given up, done later", 25):
		of.late = append(of.late, latePut{key, data, b.steps + 1 + b.rng.IntN(30)})
		return errBucket
	}
	if isPartition(key) && b.bucket.loses("put acknowledged, nothing stored", key, 12) {
		return nil // whoever reads it back finds out
	}
	of.put(key, data)
	b.trace("%s puts %s", b.name, key)
	if b.chance("put done, no answer", 25) {
		return errBucket
	}
	b.at("bucket: after put", 60)
	return nil
}

// Get is snapshot.Bucket.
func (b bucketOf) Get(_ context.Context, key string) (io.ReadCloser, error) {
	if b.fails("get", 200) {
		return nil, errBucket
	}
	of := b.bucket
	data, ok := of.objects[key]
	if !ok {
		return nil, fmt.Errorf("%w: %w", errBucket, snapshot.ErrGone)
	}
	if isPartition(key) && !b.deceived && of.good(key, b.listed[key[:6]]...) > 0 && b.chance("truncated get", 40) {
		b.deceived = true
		data = data[:b.rng.IntN(len(data)+1)]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// List is snapshot.Bucket.
func (b bucketOf) List(_ context.Context, prefix string) ([]string, error) {
	if b.fails("list", 200) {
		return nil, errBucket
	}
	of := b.bucket
	keys := of.keys(prefix)
	if !isPartition(prefix) {
		return keys, nil
	}
	part := of.partOf(prefix)
	sound, _ := of.sounds(part)
	b.hopeless = b.hopeless || len(sound) == 0
	if len(sound) > 2 && !of.spoilt(prefix) && b.chance("bit flip", 10) {
		// The newest, or any that it builds upon, as long as two lead on.
		links, _ := of.links(sound[len(sound)-1])
		at := links[b.rng.IntN(len(links))]
		if of.good(at) < 2 {
			at = links[0]
		}
		d := slices.Clone(of.objects[at])
		d[b.rng.IntN(len(d))] ^= 1 << b.rng.IntN(8)
		if !of.lastOfAStaleList(at) {
			of.put(at, d)
			of.bad[at] = true
		}
		sound, _ = of.sounds(part)
	}
	if len(sound) > 0 && !b.deceived && b.chance("stale list", 10) {
		b.deceived = true
		keys = of.stale(keys, prefix, sound[b.rng.IntN(len(sound))])
	}
	b.listed[prefix[:6]], b.led[prefix[:6]] = slices.Clone(keys), len(sound) > 0
	b.aside.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return keys, nil
}

// stale makes a list one of some time ago: some are not in it yet, some are still in
// it that are gone. One that recovery can begin with stays.
func (b *bucket) stale(keys []string, prefix, stays string) []string {
	rng := b.world.rng
	var list []string
	for _, k := range keys {
		if k == stays || rng.IntN(2) == 0 {
			list = append(list, k)
		}
	}
	if b.spoilt(prefix) {
		return list // pruning counts what is in it: the last sound one might go for one that is gone
	}
	for _, k := range b.removed {
		if strings.HasPrefix(k, prefix) && rng.IntN(2) == 0 && b.objects[k] == nil {
			list = append(list, k)
		}
	}
	return list
}

// lastOfAStaleList tells whether somebody was given a list in which nothing else leads on.
// He would have to find both faults at once, his own and this.
func (b *bucket) lastOfAStaleList(key string) bool {
	return slices.ContainsFunc(b.world.lives, func(p *process) bool {
		listed := p.listed[key[:6]]
		return p.deceived && slices.Contains(listed, key) && b.good(key, listed...) == 0
	})
}

// isPartition tells a partition's objects from those that are of none.
func isPartition(key string) bool { return strings.Contains(key, "/") }

// partOf gives the partition whose snapshots have a prefix.
func (b *bucket) partOf(prefix string) *part {
	n, err := strconv.Atoi(prefix[1:6])
	if err != nil {
		panic(err) // the store's keys are p00000/...
	}
	return b.world.parts[n]
}

// Delete is snapshot.Bucket.
func (b bucketOf) Delete(_ context.Context, key string) error {
	if b.fails("delete", 100) {
		return errBucket
	}
	of := b.bucket
	delete(of.objects, key)
	delete(of.bad, key)
	of.removed = append(of.removed, key)
	of.removed = of.removed[max(0, len(of.removed)-4):]
	b.trace("%s deletes %s", b.name, key)
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

// damaged tells whether one is, unknown to who builds upon it: those of another cluster may
// push out the sound ones then.
func (b *bucket) damaged(prefix string) bool {
	for k := range b.bad {
		if strings.HasPrefix(k, prefix) && !b.planted[k] {
			return true
		}
	}
	return false
}

// spoilt tells whether there is one already that recovery must not take: it may push
// sound ones out, so a second fault would be one too many.
func (b *bucket) spoilt(prefix string) bool {
	for k := range b.bad {
		if strings.HasPrefix(k, prefix) {
			return true
		}
	}
	return false
}

// good counts the snapshots of a key's partition, besides the key's own, that a
// recovery can begin with: of those that it was told of, if it was. None of them builds
// upon the key's own.
func (b *bucket) good(key string, among ...string) (n int) {
	p := b.partOf(key)
	for _, k := range b.keys(key[:6]) {
		links, _ := b.links(k)
		if !slices.Contains(links, key) && (among == nil || slices.Contains(among, k)) && b.sound(p, k) {
			n++
		}
	}
	return n
}

// sound tells whether a recovery can begin with a snapshot: it is whole, of our past,
// and topics still have what came after it, and its dedup window: without that it can
// as well, and says so, but the oracle can't follow (countedTwice).
func (b *bucket) sound(p *part, key string) bool {
	h := b.heads[key]
	id := h.id
	if _, whole := b.links(key); !h.named || !whole || id.Partition != p.number || id.Next < p.start {
		return false
	}
	if p.start > p.folded && b.tells(p, key).window < p.start {
		return false
	}
	if !p.found {
		return true
	}
	if id.Next > p.next || id.N > p.mark.N {
		return false
	}
	if i := p.after(id.N); i < len(p.outputs) && p.outputs[i].cause() < id.Next {
		return false // the empty snapshot of a beginning that did not come to be
	}
	for i := p.after(id.N); i < len(p.where) && p.outputs[i].Item.N <= p.mark.N; i++ {
		if !p.where[i].kept() {
			return false
		}
	}
	if !b.world.opt.lineageBroken() {
		return true
	}
	hash, known := p.hashes[id.N]
	own := b.tells(p, key)
	return known && own.readable && own.hash == hash
}

// tells looks up what a snapshot says of its past.
func (b *bucket) tells(p *part, key string) told {
	t, known := b.told[key]
	if !known {
		w, err := b.world.read(p, b.objects[key], b.world.rules[b.world.using])
		if err != nil {
			return told{}
		}
		t = told{true, w.Mark().Hash, min(w.DedupStart(), w.Mark().Next)}
		b.told[key] = t
	}
	return t
}

// sounds gives a partition's sound snapshots, the oldest first.
func (b *bucket) sounds(p *part) (keys []string, ids []snapshot.ID) {
	prefix := snapshot.ID{Partition: p.number}.String()[:6]
	for _, k := range b.keys(prefix) {
		if b.sound(p, k) {
			keys, ids = append(keys, k), append(ids, b.heads[k].id)
		}
	}
	return keys, ids
}
