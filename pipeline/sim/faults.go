package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"footfall/pipeline"
	"footfall/pipeline/archive"
	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// housekeep is what happens to topics, offsets and the bucket while footfall lives.
func (w *world) housekeep() {
	if w.calm() {
		return
	}
	if w.opt.Rules && w.chance("other rules", 40) {
		w.using = (w.using + 1) % len(w.rules)
	}
	for _, p := range w.parts {
		if w.opt.Retain && w.chance("retention", 12) {
			w.retain(p)
		}
		if w.opt.Overtake && w.chance("retention overtakes", 60) {
			w.overtake(p)
		}
		if w.opt.Expire && len(w.group.members) == 0 && len(w.undecided()) == 0 && p.found && w.chance("offsets expired", 6) {
			w.expire(p)
		}
		if w.opt.SetBack && p.found && len(w.group.members) == 0 && len(w.undecided()) == 0 && len(p.earlier) > 0 && w.chance("offset set back", 30) {
			w.setBack(p)
		}
		if w.opt.Rules && p.found && p.owner == nil && p.pending == nil && w.chance("other rules said otherwise", 20) {
			w.otherwise(p)
		}
		if w.opt.Strays && w.chance("stray snapshot", 10) {
			w.stray(p)
		}
		if w.opt.Vanish && p.found {
			w.bucket.vanish(p)
		}
		if w.opt.Foreign && p.found && w.chance("foreign object", 15) {
			w.foreign(p)
		}
	}
}

// expire forgets a partition's committed offset, as a group's offsets are when nobody
// was in it for a week.
func (w *world) expire(p *part) {
	p.found, p.committed = false, ""
	for _, s := range p.streams {
		for len(s.open) > 0 { // after a week
			s.mark(0)
		}
	}
	if len(p.outputs) == 0 {
		p.mark, p.hashes = schemas.Mark{}, map[uint64]uint64{0: 0} // as if it had never been
	}
	w.trace("the offset of partition %d expires", p.number)
}

// earlierMost is how many of the marks before may come back.
const earlierMost = 8

// setBack makes an earlier mark the committed one. No request of footfall's does that,
// however late a broker gets to it. What does is beyond it: the group's offsets are
// restored from a copy, or another broker takes over that had not got them all.
func (w *world) setBack(p *part) {
	i := w.rng.IntN(len(p.earlier))
	m := p.earlier[i]
	p.earlier = p.earlier[:i]
	text, err := m.AppendText(nil)
	if err != nil {
		panic(err) // it could be written before
	}
	p.mark, p.next, p.committed = m, m.Next, string(text)
	w.trace("partition %d is set back to %d with n=%d", p.number, m.Next, m.N)
}

// doom ends all lives, and makes the input another one.
func (w *world) doom() {
	w.powerCut()
	for _, t := range w.undecided() {
		w.decide(t, false)
	}
	w.group.members, w.group.targets, w.doomed = nil, nil, true
	for _, p := range w.parts {
		w.free(p)
	}
	if w.opt.Doom == Expanded {
		w.parts = append(w.parts, newPart(int32(len(w.parts))))
		return
	}
	w.topic = "b"
	for _, p := range w.parts {
		p.input, p.said, p.stepped, p.start, p.ends = nil, nil, nil, 0, 0
		p.found, p.committed = false, "" // a broker forgets the offsets of a topic that is gone
	}
}

// retain removes what is older than the second newest snapshot needs, as a
// retention does that is long enough.
func (w *world) retain(p *part) {
	keys, ids := w.bucket.sounds(p)
	if !p.found || len(ids) == 0 {
		return
	}
	second := max(0, len(ids)-2)
	start := w.bucket.tells(p, keys[second]).window
	if w.bins != nil {
		start = min(start, w.bins.next(archive.Partition{Topic: events, Number: p.number}))
	}
	p.start = max(p.start, start)
	n := ids[second].N
	if w.opt.Expire { // the youngest stays: without it nobody could know how many there were
		n = min(n, max(1, p.last())-1)
	}
	for _, s := range p.streams {
		w.retainOutputs(p, s, n)
	}
	w.retained = w.steps
	w.trace("retention: partition %d begins at %d", p.number, p.start)
}

// retainOutputs removes the outputs of one topic up to a number.
func (w *world) retainOutputs(p *part, s *stream, n uint64) {
	start := s.stable()
	for i := p.after(n); i < len(p.where); i++ {
		if p.where[i].stream == s {
			start = min(start, p.where[i].offset)
			break
		}
	}
	if w.bins != nil && !w.opt.Overtake {
		start = min(start, w.bins.next(archive.Partition{Topic: s.topic, Number: p.number}))
	}
	s.start = max(s.start, start)
}

// overtake removes anything: also what every snapshot needs. Only the dedup window of one
// that is there is never cut in half.
func (w *world) overtake(p *part) {
	start := p.start + w.rng.Int64N(p.ends-p.start+1)
	keys, ids := w.bucket.sounds(p)
	for i, id := range slices.Backward(ids) {
		if id.Next >= start {
			start = min(start, w.bucket.tells(p, keys[i]).window)
		}
	}
	p.start = max(p.start, start)
	s := p.streams[w.rng.IntN(3)] // each topic has its own retention
	if n := len(p.outputs); n > 0 {
		gone := w.rng.IntN(n + 1)
		if w.opt.Expire { // the youngest stays: without it and the mark nobody could know how many there were
			gone = min(gone, n-1)
		}
		if gone > 0 {
			w.retainOutputs(p, s, p.outputs[gone-1].Item.N)
		}
	}
	w.retained = w.steps
	w.trace("retention overtakes: partition %d begins at %d, its %s at %d", p.number, p.start, s.topic, s.start)
}

// rebuilt is what a rebuild had left of the outputs there were.
type rebuilt struct {
	start   int64 // of the input
	count   int   // of outputs, until then
	known   map[chain]*Said
	refused map[int64]bool
}

// forgotten is what a recovery could not remember of its dedup window: from cut on, nothing
// that was before start was known.
type forgotten struct{ start, cut int64 }

// forgets notes that a recovery has gone on without a part of its dedup window, because
// retention had overtaken that.
func (p *process) forgets(f pipeline.Recovered) {
	id, _ := snapshot.ParseID(f.Snapshot)
	of := p.parts[f.Partition]
	if p.led[f.Snapshot[:6]] && p.retained < p.polled {
		_ = p.breach("partition %d: recovered from %s without %d offsets of its dedup window, and there was a snapshot whose window the log had", f.Partition, f.Snapshot, f.Forgotten)
	}
	p.fault("dedup window overtaken by retention")
	of.forgot = append(of.forgot, forgotten{of.start, id.Next})
}

// countedTwice tells whether a record may have counted though it repeats another, because
// that was forgotten. Nobody can say then where everybody has to end up: what a life has
// said before it was killed was of profiles in which it did not count.
func (p *part) countedTwice() bool {
	for _, f := range p.forgot {
		before := map[string]bool{}
		for i := range p.input {
			id := eventID(p.input[i].Value)
			if o := p.input[i].Offset; o < f.start {
				before[id] = true
			} else if o >= f.cut && id != "" && before[id] {
				return true
			}
		}
	}
	return false
}

// eventID is the id in what is an event; else it is empty.
func eventID(value []byte) string {
	var event struct {
		ID string `json:"event_id"`
	}
	if json.Unmarshal(value, &event) != nil {
		return ""
	}
	return event.ID
}

// stray puts a snapshot into the bucket of a future that never came to be: the
// same input, but said while triggers were paused, and sometimes after a silence
// that there never was. Nothing but its outputs tells it from a good one.
func (w *world) stray(p *part) {
	keys, _ := w.bucket.sounds(p)
	if !p.found || len(keys) == 0 || len(w.bucket.keys(keys[0][:6])) > len(keys) {
		return // there is a bad one already
	}
	from := keys[w.rng.IntN(len(keys))]
	k, err := w.read(p, w.bucket.objects[from], w.rules[w.using])
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
	at := worker.Conditions{Wall: w.now(), Paused: true}
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
	id := snapshot.ID{Partition: p.number, Next: k.Mark().Next, N: k.Mark().N, Tag: snapshot.Tag(int64(w.now()), "stray")}
	if said == 0 || w.bucket.objects[id.String()] != nil {
		return
	}
	if _, can := k.Changed(); can && w.opt.Deltas > 0 && w.rng.IntN(2) == 0 {
		upon := snapshot.Link{ID: w.bucket.heads[from].id, Sum: w.bucket.heads[from].sum}
		if id.After(upon.ID) {
			w.bucket.plant(id.String(), snapshotOf(k, w.now(), &upon))
			w.fault("stray delta stored")
			return
		}
	}
	w.bucket.plant(id.String(), snapshotOf(k, w.now(), nil))
	w.fault("stray snapshot stored")
}

// snapshotOf gives the bytes of a worker's snapshot: a delta upon another, or a whole one.
func snapshotOf(k *worker.Worker, wall schemas.Millis, upon *snapshot.Link) []byte {
	var buf bytes.Buffer
	to, err := snapshot.NewWriter(&buf)
	if upon == nil {
		k.Snapshot(wall)
	} else {
		k.Delta(wall)
		buf.Reset()
		to, err = snapshot.NewDeltaWriter(&buf, *upon)
	}
	for done := false; !done && err == nil; {
		done, err = k.Slice(to, 1<<20)
	}
	if err == nil {
		err = to.Close()
	}
	if err != nil {
		panic(err) // a buffer takes everything
	}
	return buf.Bytes()
}

// foreign puts an object of another cluster into the bucket, of the same partition
// and with a name like ours: of another log, and so another past. Or something that
// is no snapshot at all.
func (w *world) foreign(p *part) {
	prefix := snapshot.ID{Partition: p.number}.String()[:7]
	if w.bucket.damaged(prefix) {
		return
	}
	if w.rng.IntN(4) == 0 {
		name := []string{"README", "tmp-17", "0000000000000000007-1.snap", "manifest.json"}[w.rng.IntN(4)]
		w.bucket.objects[prefix+name] = []byte("nothing of ours")
		return
	}
	cfg := w.workerConfig(100, w.rules[w.using])
	cfg.Decoder = w.rules[w.using].decoder()
	k := worker.New(p.number, cfg)
	k.Begin(w.rng.Int64N(p.ends+1), 0)
	var out worker.Output
	var records []worker.Record
	for range w.rng.IntN(4) {
		n := k.Mark().Next + int64(len(records))
		user := fmt.Sprintf("p%d-u%d", p.number, w.rng.IntN(6))
		records = append(records, worker.Record{
			Offset: n, Time: w.now(), Key: []byte(user),
			Value: fmt.Appendf(nil, `{"event_id":"f%d","type":"view","user_id":%q,"time":%d}`, n, user, w.now()),
		})
	}
	k.Apply(records, worker.Conditions{Wall: w.now()}, &out)
	id := snapshot.ID{Partition: p.number, Next: k.Mark().Next, N: k.Mark().N, Tag: snapshot.Tag(int64(w.now()), "foreign")}.String()
	w.bucket.plant(id, snapshotOf(k, w.now(), nil))
	w.fault("foreign snapshot stored")
}

// otherwise ends a life that was lived under other rules: it has moved somebody to
// where ours would not, and its mark says whose rules these were.
func (w *world) otherwise(p *part) {
	keys, _ := w.bucket.sounds(p)
	if len(keys) == 0 {
		return
	}
	k, err := w.read(p, w.bucket.objects[keys[len(keys)-1]], w.rules[w.using])
	for i := range p.outputs {
		if it := &p.outputs[i].Item; err == nil && it.N > k.Mark().N {
			err = k.Said(it)
		}
	}
	last, broken := p.members()
	if err == nil {
		err = broken
	}
	if err != nil {
		_ = w.breach("a sound snapshot and what was said after it do not fit: %w", err)
		return
	}
	said := map[string]*Said{}
	for c, o := range last {
		said[c.user] = o // there is one set
	}
	for _, user := range slices.Sorted(maps.Keys(said)) {
		if w.rng.IntN(2) == 0 {
			continue
		}
		t := *said[user].Item.Transition
		t.From, t.Seq, t.At = t.To, t.Seq+1, p.mark.Clock
		t.To = uint16((int(t.From) + 1 + w.rng.IntN(5)) % 6)
		t.Segments = []uint16{t.To}
		t.Cause, t.Muted = schemas.Cause{Kind: schemas.ByRules}, schemas.MutedRules
		it := worker.Item{N: k.Mark().N + 1, Next: p.mark.Next, Clock: p.mark.Clock, Fired: p.mark.Fired, Transition: &t}
		if err := k.Said(&it); err != nil {
			panic(err) // it is made to fit
		}
		s := p.streamOf(&it)
		o := w.encode(p, &it, s.end, w.names)
		p.outputs, p.where = append(p.outputs, o), append(p.where, s.add(&o, &transaction{state: done}))
	}
	p.epoch++ // somebody had it, and has left
	p.readBy = p.epoch
	m := p.mark
	m.N, m.Hash, m.Rules = k.Mark().N, k.Mark().Hash, 0xbad
	text, err := m.AppendText(nil)
	if err != nil {
		panic(err) // it could be written before
	}
	p.mark, p.reached, p.committed, p.hashes[m.N] = m, m, string(text), m.Hash
}

// helpless tells whether a process was right to end with an error: there is a
// partition that it could not bring to life without a person's word.
func (w *world) helpless(err error, hopeless bool) bool {
	if !w.opt.lineageBroken() || !strings.Contains(err.Error(), "--rebuild") {
		return false
	}
	if forgotten, ok := errors.AsType[*pipeline.ErrForgotten](err); ok {
		p := w.parts[forgotten.Partition]
		return w.opt.Expire && (len(p.outputs) > 0 || len(w.bucket.keys(snapshot.ID{Partition: p.number}.String()[:6])) > 0)
	}
	if hopeless { // one may have come since
		return true
	}
	for _, p := range w.parts {
		if keys, _ := w.bucket.sounds(p); p.found && len(keys) == 0 || p.mark.N < p.last() {
			return true
		}
	}
	return false
}
