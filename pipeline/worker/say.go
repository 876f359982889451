package worker

import (
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// member is what was last said of a user in one set of names. Seq 0: nothing yet.
type member struct {
	segment uint16
	seq     uint32
	since   uint32 // at of the transition, in whole seconds, for who asks
}

// said is a member as it is kept: 8 bytes a user and set.
type said struct {
	since   uint32
	segment uint16
	seq     uint16 // longSeq: that or more, and the worker's long has it
}

// chain names what was said of a user in one set of names.
type chain struct{ user, set int32 }

// member is what was last said of a user in one set of names.
func (w *Worker) member(user int32, set int) member {
	s := w.members[set].At(user)
	m := member{segment: s.segment, seq: uint32(s.seq), since: s.since}
	if s.seq == longSeq {
		m.seq = w.long[chain{user, int32(set)}]
	}
	return m
}

// move notes what was said of a user.
func (w *Worker) move(user int32, set int, to uint16, seq uint32, at schemas.Millis) {
	m := w.member(user, set)
	if m.seq > 0 {
		w.population[set][m.segment]--
	}
	w.population[set][to]++
	*w.members[set].At(user) = said{segment: to, seq: uint16(min(seq, longSeq)), since: uint32(at / schemas.Second)}
	if seq >= longSeq {
		if w.long == nil {
			w.long = map[chain]uint32{}
		}
		w.long[chain{user, int32(set)}] = seq
	}
}

// evaluate says every difference, and arms the user's timer.
func (w *Worker) evaluate(user int32, now schemas.Millis, touched segment.Touched, cause schemas.Cause, muted schemas.Muted, at Conditions, out *Output) {
	w.wheel.arm(user, w.differences(user, now, touched, cause, muted, at, out))
}

// differences says every difference between what the rules make of a user at time
// now and what was last said of it (design 3.3), and returns when silence may
// bring the next. Only sets that look at what was touched are looked at: of the others
// it was said before now. The caller has called touch.
func (w *Worker) differences(user int32, now schemas.Millis, touched segment.Touched, cause schemas.Cause, muted schemas.Muted, at Conditions, out *Output) (due schemas.Millis) {
	for set := range w.segments {
		w.segments[set] = schemas.NoSegment
		if m := w.member(user, w.place[set]); m.seq > 0 {
			w.segments[set] = w.from[set][m.segment]
		}
	}
	due = w.eval.EvalTouched(w.profileOf(user), w.cells.View(user), now, touched, w.segments)
	if len(w.filling) > 0 { // first of all: each transition tells where the user is in all sets
		for set := range w.segments {
			if w.waits(set) {
				w.segments[set] = schemas.NoSegment
			}
		}
	}
	for set, to := range w.segments {
		place := w.place[set]
		m := w.member(user, place)
		if to >= schemas.Retired || m.seq > 0 && m.segment == w.to[set][to] {
			continue
		}
		t := w.blanks.transition()
		*t = schemas.Transition{Set: uint16(set), From: schemas.NoSegment, To: to, Seq: m.seq + 1, At: now, Cause: cause, Muted: muted}
		if m.seq > 0 {
			if t.From = w.from[set][m.segment]; t.From == schemas.Retired {
				t.Names = &schemas.RetiredNames{From: w.names[place].Segments[m.segment]}
			}
			t.Evidence = w.evidence(user, t)
		}
		w.move(user, place, w.to[set][to], m.seq+1, now)
		if cause.Kind == schemas.ByTimer {
			w.noteAhead(user, now)
		}
		w.say(user, t, at, out)
	}
	return due
}

// evidence finds the clause that flipped. Before an event is the profile as it was
// before it was folded, and before a timer the millisecond before it.
func (w *Worker) evidence(user int32, t *schemas.Transition) schemas.Evidence {
	if t.From == schemas.Retired {
		return schemas.Evidence{}
	}
	copy(w.others, w.segments)
	pr, v := w.profileOf(user), w.cells.View(user)
	after := segment.Moment{Profile: pr, View: v, Now: t.At, In: w.segments}
	before := after
	before.In = w.others
	before.In[t.Set] = t.From
	switch t.Cause.Kind {
	case schemas.ByEvent:
		before.Profile, before.View = &w.before, w.cells.Before()
	case schemas.ByTimer:
		before.Now--
	default:
		return schemas.Evidence{}
	}
	return w.eval.Evidence(before, after, int(t.Set), t.From, t.To)
}

// say completes a transition and gives it its number.
func (w *Worker) say(user int32, t *schemas.Transition, at Conditions, out *Output) {
	pr := w.profileOf(user)
	id := w.table.ID(user)
	if t.Cause.Kind == schemas.ByEvent {
		w.sum = append(append(w.sum[:0], id...), w.event.ID...)
		both := string(w.sum) // one piece of memory for two
		t.User, t.Cause.ID = both[:len(id)], both[len(id):]
	} else {
		t.User = string(id)
	}
	t.Cart = w.cartOf(user, t)
	switch {
	case t.Muted != schemas.NotMuted:
	case w.mark.Bootstrap > 0 && t.Cause.Kind != schemas.ByEvent && t.Cause.Kind != schemas.ByTimer:
		t.Muted = schemas.MutedBootstrap // of others it was looked at whether they are of the history
	case at.Paused:
		t.Muted = schemas.MutedPaused
	case t.At < at.Wall-w.cfg.MaxAge:
		t.Muted = schemas.MutedStale
	default:
		if t.Muted = w.mutedPolicy(user, t); t.Muted == schemas.NotMuted {
			w.noteSaid(user, w.place[t.Set], w.to[t.Set][t.To], t)
		}
	}
	t.Facts = pr.Facts()
	t.Segments = w.blanks.segments(w.segments)
	for set, segment := range t.Segments {
		if segment == schemas.Retired {
			t.Segments[set] = schemas.NoSegment
		}
	}
	t.Expected = w.eval.Expected(pr, w.cells.View(user), t.At, int(t.Set), t.To, w.others)
	t.Contact = w.eval.Contact(w.cells.View(user), int(t.Set), t.At, w.filling)
	t.Rules = w.cfg.Rules.Hash()
	w.stats.Transitions++
	w.number(&Item{Transition: t}, out)
}

// blanks is memory for transitions, which are the committer's when they are said: taken from
// the heap in pieces, since most of a shop's first events say something. A piece goes when
// the last of it has been committed.
type blanks struct {
	transitions []schemas.Transition
	numbers     []uint16
}

// Sizes of the pieces.
const (
	blankTransitions = 16
	blankNumbers     = 256
)

func (b *blanks) transition() *schemas.Transition {
	if len(b.transitions) == 0 {
		b.transitions = make([]schemas.Transition, blankTransitions)
	}
	t := &b.transitions[0]
	b.transitions = b.transitions[1:]
	return t
}

// segments copies the segments of all sets.
func (b *blanks) segments(of []uint16) []uint16 {
	if len(b.numbers)+len(of) > cap(b.numbers) {
		b.numbers = make([]uint16, 0, max(blankNumbers, len(of)))
	}
	from := len(b.numbers)
	b.numbers = append(b.numbers, of...)
	return slices.Clip(b.numbers[from:])
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

// nameOf is the name of a transition's set and of the segment it leads to.
func (w *Worker) nameOf(t *schemas.Transition) (set, to string) {
	if t.Set == schemas.Retired {
		return t.Names.Set, t.Names.To
	}
	names := &w.cfg.Rules.Names()[t.Set]
	if t.To == schemas.Retired {
		return names.Name, t.Names.To
	}
	return names.Name, names.Segments[t.To]
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
		b = append(b, 't', byte(t.Muted))
		text(t.User)
		set, to := w.nameOf(t)
		text(set)
		text(to)
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
