package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// checkPut holds that a snapshot is published only when a commit covers it, that it
// is of the committed past, and that it is what recovery makes of the one before it.
func (p *process) checkPut(key string, data []byte) error {
	if !isPartition(key) {
		return nil
	}
	id, ok := snapshot.ParseID(key)
	if !ok {
		return p.breach("a snapshot is stored as %q", key)
	}
	part, s := p.parts[id.Partition], &p.sessions[id.Partition]
	// The empty one comes before the first commit, and whose that is is not decided yet.
	if covered := p.covered[id.Partition]; id.N > 0 && (id.N > covered.N || id.Next > covered.Next) {
		return p.breach("snapshot %s is published, and %+v is the last that the process can know to be committed", key, covered)
	}
	if id.N == 0 || part.owner != p || part.epoch != s.epoch || !s.told {
		return nil // who was robbed publishes what was the past once, though it has been given the partition again
	}
	k, err := p.read(part, data, p.using)
	if err != nil {
		return p.breach("snapshot %s cannot be read: %w", key, err)
	}
	mark, using := k.Mark(), p.using
	if p.opt.Sets {
		var ok bool
		if using, ok = p.goesBy(&mark); !ok {
			return nil // of rules that have not taken over yet
		}
		if k, err = p.read(part, data, using); err != nil {
			return p.breach("snapshot %s cannot be read: %w", key, err)
		}
	}
	if hash, known := part.hashes[id.N]; mark.Next != id.Next || mark.N != id.N || !known || hash != mark.Hash {
		return p.breach("snapshot %s holds %+v; the outputs committed up to there come to %016x", key, mark, hash)
	}
	if p.opt.lineageBroken() || p.aside.IntN(3) > 0 {
		return nil
	}
	return p.checkState(part, key, k, using)
}

// checkState compares the worker of a snapshot with what the newest one before it
// becomes by reading back and replaying: both see the same things happen from here
// on, and must say the same. That is all a worker is: profiles, memberships, timers
// and the dedup window.
func (p *process) checkState(part *part, key string, k *worker.Worker, using rules) error {
	mark := k.Mark()
	rebuilt, before, err := p.newestBefore(part, key, mark, using)
	if err != nil || rebuilt == nil {
		return err
	}
	if k.Filling() || rebuilt.Filling() {
		return nil // it has cells that the other has not
	}
	rebuilt.HistoryEnds(mark.Bootstrap) // as a recovery does: of two processes that began, the other may have written it
	for j := part.after(rebuilt.Mark().N); err == nil && j < len(part.outputs) && part.outputs[j].Item.N <= mark.N; j++ {
		it := &part.outputs[j].Item
		if p.opt.Sets { // its numbers are of other rules
			it, err = p.decode(&part.outputs[j])
		}
		if err == nil {
			err = rebuilt.Said(it)
		}
	}
	if err != nil {
		return p.breach("snapshot %s and what was said after it do not fit: %w", before, err)
	}
	want, err := part.future(rebuilt, mark, p.family == constant)
	if err != nil {
		return p.breach("snapshot %s does not become %s: %w", before, key, err)
	}
	got, err := part.future(k, mark, p.family == constant)
	if err != nil {
		return p.breach("snapshot %s does not become itself: %w", key, err)
	}
	if got != want {
		return p.breach("snapshot %s and what %s becomes by replay see another future:\n%s\n%s", key, before, got, want)
	}
	return nil
}

// newestBefore reads the newest snapshot of a partition that leads to a mark, but for the
// one of that name; nil if there is none.
func (p *process) newestBefore(part *part, but string, mark schemas.Mark, using rules) (*worker.Worker, string, error) {
	keys, ids := p.bucket.sounds(part)
	for i, id := range slices.Backward(ids) {
		if id.Next > mark.Next || id.N > mark.N || keys[i] == but {
			continue
		}
		w, err := p.read(part, p.bucket.objects[keys[i]], using)
		if err != nil {
			return nil, keys[i], p.breach("snapshot %s cannot be read: %w", keys[i], err)
		}
		if w.Mark().Clock <= mark.Clock { // of two owners the second may have published first
			return w, keys[i], nil
		}
	}
	return nil, "", nil
}

// future brings a worker to life at a mark and lets things happen to it: the last
// records are repeated, and then nobody comes for 400 days. It returns all that is
// said, and what was counted; of what is muted only where policies have always been these.
func (p *part) future(k *worker.Worker, mark schemas.Mark, policies bool) (string, error) {
	from, cut := min(k.DedupStart(), k.Mark().Next), k.Mark().Next
	for _, r := range p.input {
		switch {
		case r.Offset < from || r.Offset >= mark.Next:
		case r.Offset < cut:
			k.Remember([]worker.Record{r})
		default:
			if err := k.Replay([]worker.Record{r}); err != nil {
				return "", err
			}
		}
	}
	var out worker.Output
	wall := mark.Clock
	if err := k.Resume(mark, worker.Conditions{Wall: wall}, &out); err != nil {
		return "", err
	}
	said := slices.Clone(out.Items)
	apply := func(r worker.Record) {
		r.Offset = k.Mark().Next
		k.Apply([]worker.Record{r}, worker.Conditions{Wall: max(wall, r.Time)}, &out)
		for said = append(said, out.Items...); k.Pending(); said = append(said, out.Items...) {
			k.Apply(nil, worker.Conditions{Wall: max(wall, r.Time)}, &out)
		}
	}
	for i := max(0, len(p.input)-40); i < len(p.input); i++ {
		if r := p.input[i]; r.Offset < mark.Next && !r.Control {
			apply(r)
		}
	}
	later := mark.Clock + 400*schemas.Day
	apply(worker.Record{
		Time: later, Key: []byte("clock"), Lane: mark.Lane,
		Value: fmt.Appendf(nil, `{"event_id":"clock","type":"view","user_id":"clock","time":%d}`, later),
	})
	return describe(said, k, policies), nil
}

// describe tells what was said, of each user in order.
func describe(said []worker.Item, k *worker.Worker, policies bool) string {
	var b strings.Builder
	refused := len(said)
	said = slices.DeleteFunc(said, func(it worker.Item) bool { return it.Transition == nil })
	refused -= len(said)
	slices.SortStableFunc(said, func(x, y worker.Item) int { return strings.Compare(x.Transition.User, y.Transition.User) })
	for i := range said {
		t := said[i].Transition
		fmt.Fprintf(&b, "%s %d: %d->%d seq %d at %d %v", t.User, t.Set, int16(t.From), t.To, t.Seq, t.At, t.Facts)
		if policies {
			fmt.Fprintf(&b, " muted %q", t.Muted)
		}
		b.WriteByte('\n')
	}
	s := k.Stats()
	fmt.Fprintf(&b, "%d users, %d applied, %d duplicates, %d dead letters", k.Users(), s.Applied, s.Duplicates, refused)
	return b.String()
}

// read makes a worker of a snapshot's bytes, and of those that it was written upon.
func (w *world) read(p *part, data []byte, using rules) (*worker.Worker, error) {
	cfg := w.workerConfig(1000, using)
	cfg.Decoder = using.decoder()
	chain := w.bucket.chainOf(data)
	if chain == nil {
		return nil, errors.New("it builds upon what was never stored")
	}
	return worker.ReadChain(func(read func(io.Reader) error) error {
		for _, link := range chain {
			if err := read(snapshot.NewReader(bytes.NewReader(link))); err != nil {
				return err
			}
		}
		return nil
	}, p.number, cfg)
}
