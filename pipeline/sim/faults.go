package sim

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"

	"footfall/pipeline"
	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// between is what happens to a world while nobody looks.
func (w *world) between() {
	if w.calm() {
		return
	}
	if w.opt.Rules && w.chance("other rules", 4) {
		w.using = (w.using + 1) % len(w.rules)
	}
	for _, p := range w.parts {
		if w.opt.Retain && w.chance("retention", 3) {
			w.retain(p)
		}
		if w.opt.Overtake && w.chance("retention overtakes", 8) {
			w.overtake(p)
		}
		if w.opt.Expire && p.found && w.chance("offsets expired", 8) {
			p.found, p.committed, p.visible = false, "", len(p.outputs)
			if len(p.outputs) == 0 {
				p.mark = schemas.Mark{} // as if it had never been
			}
		}
		if w.opt.Rules && p.found && w.chance("other rules said otherwise", 6) {
			w.otherwise(p)
		}
		if w.opt.Strays && w.chance("stray snapshot", 3) {
			w.stray(p)
		}
	}
}

// retain removes what is older than the second newest snapshot needs, as a
// retention does that is long enough.
func (w *world) retain(p *part) {
	_, ids := w.bucket.sounds(p)
	if !p.found || len(ids) == 0 {
		return
	}
	oldest := ids[max(0, len(ids)-2)]
	p.start = max(p.start, w.windowStart(p, oldest.Next))
}

// overtake removes anything: also what every snapshot needs. Only a snapshot's
// dedup window is never cut in half: what was forgotten of it would count again,
// rightly, and nobody could say afterwards where everybody has to end up.
func (w *world) overtake(p *part) {
	start := p.start + w.rng.Int64N(p.ends-p.start+1)
	_, ids := w.bucket.sounds(p)
	for _, id := range slices.Backward(ids) {
		if id.Next >= start {
			start = min(start, w.windowStart(p, id.Next))
		}
	}
	p.start = max(p.start, start)
}

// windowStart is an offset that is not after the first one of the dedup window at
// a cut. A record's timestamp is at most two hours ahead of the shop's time, and
// the window is one hour.
func (w *world) windowStart(p *part, next int64) int64 {
	i := len(p.input)
	for i > 0 && p.input[i-1].Offset >= next {
		i--
	}
	if i == 0 {
		return next
	}
	for oldest := p.said[i-1] - 3*schemas.Hour - 10*schemas.Second; i > 0 && p.said[i-1] >= oldest; {
		i--
	}
	return min(next, p.input[i].Offset)
}

// stray puts a snapshot into the bucket of a future that never came to be: the
// same input, but said while triggers were paused, and sometimes after a silence
// that there never was. Nothing but its outputs tells it from a good one.
func (w *world) stray(p *part) {
	keys, _ := w.bucket.sounds(p)
	if !p.found || len(keys) == 0 || len(w.bucket.keys(keys[0][:6])) > len(keys) {
		return // there is a bad one already
	}
	k, err := w.bucket.read(keys[w.rng.IntN(len(keys))])
	if err != nil {
		_ = w.breach("a sound snapshot cannot be read: %w", err)
		return
	}
	for _, r := range p.input { // so that it is a good one if the future comes to be after all
		if r.Offset >= k.DedupStart() && r.Offset < k.Mark().Next {
			k.Remember([]worker.Record{r})
		}
	}
	var out worker.Output
	at := worker.Conditions{Wall: w.wall(), Paused: true}
	if err := k.Resume(k.Mark(), at, &out); err != nil {
		_ = w.breach("a sound snapshot cannot be resumed where it was taken: %w", err)
		return
	}
	to := k.Mark().Next + w.rng.Int64N(p.next-k.Mark().Next+1)
	if w.rng.IntN(2) == 0 {
		at.Tick = k.Mark().Clock + 200*schemas.Day
	}
	said := 0
	apply := func(records []worker.Record) {
		k.Apply(records, at, &out)
		for said += len(out.Items); k.Pending(); said += len(out.Items) {
			k.Apply(nil, at, &out)
		}
	}
	apply(nil)
	at.Tick = 0
	for _, r := range p.input {
		if r.Offset >= k.Mark().Next && r.Offset < to {
			apply([]worker.Record{r})
		}
	}
	id := snapshot.ID{Partition: p.number, Next: k.Mark().Next, N: k.Mark().N}
	if said == 0 || w.bucket.objects[id.String()] != nil {
		return
	}
	k.Snapshot(w.wall())
	var buf bytes.Buffer
	to2, err := snapshot.NewWriter(&buf)
	if err == nil {
		for done := false; !done && err == nil; {
			done, err = k.Slice(to2, 1<<20)
		}
	}
	if err == nil {
		err = to2.Close()
	}
	if err != nil {
		panic(err) // a buffer takes everything
	}
	w.bucket.objects[id.String()], w.bucket.bad[id.String()] = buf.Bytes(), true
	delete(w.bucket.hashes, id.String())
	w.fault("stray snapshot stored")
}

// otherwise ends a life that was lived under other rules: it has moved somebody to
// where ours would not, and its mark says whose rules these were.
func (w *world) otherwise(p *part) {
	keys, _ := w.bucket.sounds(p)
	if len(keys) == 0 {
		return
	}
	k, err := w.bucket.read(keys[len(keys)-1])
	last := map[string]*schemas.Transition{}
	for i := range p.outputs {
		it := &p.outputs[i].Item
		if err == nil && it.N > k.Mark().N {
			err = k.Said(it)
		}
		if it.Transition != nil {
			last[it.Transition.User] = it.Transition
		}
	}
	if err != nil {
		_ = w.breach("a sound snapshot and what was said after it do not fit: %w", err)
		return
	}
	for _, user := range slices.Sorted(maps.Keys(last)) {
		if w.rng.IntN(2) == 0 {
			continue
		}
		t := *last[user]
		t.From, t.Seq, t.At = t.To, t.Seq+1, p.mark.Clock
		t.To = uint16((int(t.From) + 1 + w.rng.IntN(5)) % 6)
		t.Segments = []uint16{t.To}
		t.Cause, t.Muted = schemas.Cause{Kind: schemas.ByRules}, schemas.MutedRules
		it := worker.Item{N: k.Mark().N + 1, Next: p.mark.Next, Clock: p.mark.Clock, Fired: p.mark.Fired, Transition: &t}
		if err := k.Said(&it); err != nil {
			panic(err) // it is made to fit
		}
		p.outputs = append(p.outputs, w.encode(p, &it, w.names))
	}
	m := p.mark
	m.N, m.Hash, m.Rules = k.Mark().N, k.Mark().Hash, 0xbad
	text, err := m.AppendText(nil)
	if err != nil {
		panic(err) // it could be written before
	}
	p.mark, p.committed, p.hashes[m.N] = m, string(text), m.Hash
}

// helpless tells whether a process was right to end with an error: there is a
// partition that it could not bring to life without a person's word.
func (w *world) helpless(err error) bool {
	if forgotten, ok := errors.AsType[*pipeline.ErrForgotten](err); ok {
		p := w.parts[forgotten.Partition]
		return w.opt.Expire && !p.found && (len(p.outputs) > 0 || len(w.bucket.keys(snapshot.ID{Partition: p.number}.String()[:6])) > 0)
	}
	if !w.opt.lineageBroken() || !strings.Contains(err.Error(), "no snapshot leads there") {
		return false
	}
	for _, p := range w.parts {
		if keys, _ := w.bucket.sounds(p); p.found && len(keys) == 0 {
			return true
		}
	}
	return false
}
