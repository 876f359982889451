package worker

import (
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"

	"footfall/schemas"
)

// member is what was last said of a user in one set.
func (w *Worker) member(user int32, set int) *member {
	return w.members.At(user*int32(w.sets) + int32(set))
}

// move notes what was said of a user.
func (w *Worker) move(user int32, set int, to uint16, seq uint32, at schemas.Millis) {
	m := w.member(user, set)
	if m.seq > 0 {
		w.population[set][m.segment]--
	}
	w.population[set][to]++
	*m = member{segment: to, seq: seq, since: uint32(at / schemas.Second)}
}

// evaluate says every difference, and arms the user's timer.
func (w *Worker) evaluate(user int32, now schemas.Millis, cause schemas.Cause, muted schemas.Muted, at Conditions, out *Output) {
	w.wheel.arm(user, w.differences(user, now, cause, muted, at, out))
}

// differences says every difference between what the rules make of a user at time
// now and what was last said of it (design 3.3), and returns when silence may
// bring the next. The caller has called touch.
func (w *Worker) differences(user int32, now schemas.Millis, cause schemas.Cause, muted schemas.Muted, at Conditions, out *Output) (due schemas.Millis) {
	row := w.rows.At(user)
	due = w.cfg.Rules.Eval(&row.profile, now, w.segments)
	for set, to := range w.segments {
		m := w.member(user, set)
		if m.seq > 0 && m.segment == to {
			continue
		}
		from := schemas.NoSegment
		if m.seq > 0 {
			from = m.segment
		}
		w.move(user, set, to, m.seq+1, now)
		w.say(user, &schemas.Transition{Set: uint16(set), From: from, To: to, Seq: m.seq, At: now, Cause: cause, Muted: muted}, at, out)
	}
	return due
}

// say completes a transition and gives it its number.
func (w *Worker) say(user int32, t *schemas.Transition, at Conditions, out *Output) {
	pr := &w.rows.At(user).profile
	t.User = string(w.table.ID(user))
	if t.Cause.Kind == schemas.ByEvent {
		t.Cause.ID = string(w.event.ID)
	}
	switch {
	case t.Muted != schemas.NotMuted:
	case at.Paused:
		t.Muted = schemas.MutedPaused
	case t.At < at.Wall-w.cfg.MaxAge:
		t.Muted = schemas.MutedStale
	}
	t.Facts = pr.Facts()
	t.Segments = slices.Clone(w.segments)
	t.Expected = w.cfg.Rules.Expected(pr, t.At, int(t.Set), t.To)
	t.Rules = w.cfg.Rules.Hash()
	w.stats.Transitions++
	w.number(&Item{Transition: t}, out)
}

// sayDead gives a refused record its number. The record's bytes are copied: they
// must outlive the batch.
func (w *Worker) sayDead(r *Record, reason schemas.Refusal, detail string, out *Output) {
	w.number(&Item{DeadLetter: letterOf(w.mark.Partition, r, reason, detail)}, out)
}

func letterOf(partition int32, r *Record, reason schemas.Refusal, detail string) *schemas.DeadLetter {
	d := &schemas.DeadLetter{
		Pos:  schemas.Position{Partition: partition, Offset: r.Offset},
		Time: r.Time, Reason: reason, Detail: detail,
		Key: slices.Clone(r.Key), Value: slices.Clone(r.Value),
	}
	for _, h := range r.Headers {
		d.Headers = append(d.Headers, schemas.Header{Key: h.Key, Value: slices.Clone(h.Value)})
	}
	return d
}

func (w *Worker) number(it *Item, out *Output) {
	it.N = w.mark.N + 1
	it.Next, it.Clock, it.Fired = w.mark.Next, w.mark.Clock, w.fired()
	w.chain(it)
	out.Items = append(out.Items, *it)
}

// chain takes an output into the running number and hash. The hash covers what a
// reader of the topics can see: who moved where and when, or what was refused.
func (w *Worker) chain(it *Item) {
	b := binary.LittleEndian.AppendUint64(w.sum[:0], w.mark.Hash)
	b = binary.LittleEndian.AppendUint64(b, it.N)
	text := func(s string) {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	if t := it.Transition; t != nil {
		set := w.cfg.Rules.Names()[t.Set]
		b = append(b, 't', byte(t.Muted))
		text(t.User)
		text(set.Name)
		text(set.Segments[t.To])
		b = binary.LittleEndian.AppendUint32(b, t.Seq)
		b = binary.LittleEndian.AppendUint64(b, uint64(t.At))
	} else {
		b = append(b, 'd', byte(it.DeadLetter.Reason))
		b = binary.LittleEndian.AppendUint64(b, uint64(it.DeadLetter.Pos.Offset))
	}
	w.sum = b
	w.mark.N = it.N
	w.mark.Hash = xxhash.Sum64(b)
}
