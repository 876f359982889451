package sim

import (
	"encoding/binary"
	"maps"
	"slices"

	"footfall/pipeline/archive"
)

// note takes something that happened into the run's hash.
func (w *world) note(what string, numbers ...uint64) {
	_, _ = w.digest.WriteString(what) // a digest never fails
	var b [8]byte
	for _, n := range append(numbers, uint64(w.steps)) {
		binary.LittleEndian.PutUint64(b[:], n)
		_, _ = w.digest.Write(b[:])
	}
}

// hash is the hash of what has happened and of what is there in the end: two runs of
// one seed that differ in a byte, or in an order, have different ones.
func (w *world) hash() uint64 {
	for _, p := range w.parts {
		w.note(p.committed, uint64(p.next), uint64(p.start), uint64(p.ends))
		for i := range p.outputs {
			r := &p.outputs[i].Record
			w.note(p.outputs[i].Topic, uint64(r.Offset), uint64(r.Time))
			w.note(string(r.Key), uint64(len(r.Key)))
			w.note(string(r.Value), uint64(len(r.Value)))
			for _, h := range r.Headers {
				w.note(h.Key+string(h.Value), uint64(len(h.Key)))
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(w.bucket.objects)) {
		w.note(key)
		w.note(string(w.bucket.objects[key]))
	}
	if w.bins != nil {
		for _, c := range w.bins.parts {
			w.note(c.committed.Metadata, uint64(c.committed.Next))
			w.bins.table.Each(c.Partition, func(r archive.Row, n int) { w.note(c.Topic, uint64(r.Offset), r.Hash, uint64(n)) })
		}
	}
	return w.digest.Sum64()
}
