package worker

import (
	"slices"

	"footfall/pipeline/profile"
	"footfall/pipeline/segment"
	"footfall/schemas"
)

// spoken is what was said aloud of users, as far as the rules' policies ask for it.
type spoken struct {
	// entries hold a word of each row for each segment with a policy: when it was said
	// last, in whole seconds, or the low half of the cart's identity for which it was.
	entries []entrySlot
	slots   [][]int // [sets of names][segments]: index in entries, or -1

	// recent are the times, in whole seconds, of the last transitions said of a user, the
	// oldest first: as many as the cap has.
	recent []profile.Slab[uint32]
}

// entrySlot is where it is kept when a segment was said last.
type entrySlot struct {
	set     int // of names
	segment uint16
	kind    segment.ReentryKind
	words   profile.Slab[uint32]
}

// usePolicies makes room for what the policies of the rules ask for, and keeps what is
// known: of sets and policies that are gone too, for they may come back, and once is once
// ever.
func (w *Worker) usePolicies() {
	before := w.spoken
	w.spoken = spoken{recent: before.recent}
	for set, place := range w.place {
		for own := range w.to[set] {
			if p := w.cfg.Rules.Reentry(set, uint16(own)); p.Kind != segment.ReentryAlways {
				w.addEntrySlot(entrySlot{set: place, segment: w.to[set][own], kind: p.Kind}, before.entries)
			}
		}
	}
	for _, slot := range before.entries {
		if w.spoken.slot(slot.set, slot.segment) == nil {
			w.addEntrySlot(slot, before.entries)
		}
	}
	most := w.cfg.Rules.Cap().Triggers
	for len(w.spoken.recent) > most {
		w.spoken.recent = w.spoken.recent[1:] // the oldest
	}
	for len(w.spoken.recent) < most {
		var s profile.Slab[uint32]
		s.Extend(w.rows.Len())
		w.spoken.recent = slices.Insert(w.spoken.recent, 0, s)
	}
}

func (w *Worker) addEntrySlot(slot entrySlot, before []entrySlot) {
	same := func(s entrySlot) bool {
		return s.set == slot.set && s.segment == slot.segment && s.counts() == slot.counts()
	}
	if i := slices.IndexFunc(before, same); i >= 0 {
		slot.words = before[i].words
	} else {
		slot.words.Extend(w.rows.Len())
	}
	s := &w.spoken
	for len(s.slots) <= slot.set {
		s.slots = append(s.slots, nil)
	}
	for len(s.slots[slot.set]) <= int(slot.segment) {
		s.slots[slot.set] = append(s.slots[slot.set], -1)
	}
	s.slots[slot.set][slot.segment] = len(s.entries)
	s.entries = append(s.entries, slot)
}

// counts tells whether the words are of carts, else of times.
func (s *entrySlot) counts() bool { return s.kind == segment.ReentryCart }

// append makes room for a row.
func (s *spoken) append() {
	for i := range s.entries {
		s.entries[i].words.Append()
	}
	for i := range s.recent {
		s.recent[i].Append()
	}
}

// slot gives the slot of a segment of names, or nil.
func (s *spoken) slot(set int, segment uint16) *entrySlot {
	if set >= len(s.slots) || int(segment) >= len(s.slots[set]) || s.slots[set][segment] < 0 {
		return nil
	}
	return &s.entries[s.slots[set][segment]]
}

// seconds is a time as a word: 0 is never.
func seconds(at schemas.Millis) uint32 { return uint32(max(1, at/schemas.Second)) }

// mutedPolicy mutes what the rules' policies do not let be said of a user.
func (w *Worker) mutedPolicy(user int32, t *schemas.Transition) schemas.Muted {
	set := int(t.Set)
	if slot := w.spoken.slot(w.place[set], w.to[set][t.To]); slot != nil {
		last, p := *slot.words.At(user), w.cfg.Rules.Reentry(set, t.To)
		switch {
		case last == 0:
		case p.Kind == segment.ReentryOnce,
			p.Kind == segment.ReentryCart && last == uint32(t.Cart),
			p.Kind == segment.ReentryAfter && seconds(t.At)-last < uint32(p.After/schemas.Second):
			return schemas.MutedReentry
		}
	}
	if limit := w.cfg.Rules.Cap(); w.cfg.Rules.Capped(set) {
		oldest := *w.spoken.recent[0].At(user)
		if oldest > 0 && seconds(t.At)-oldest < uint32(limit.Within/schemas.Second) {
			return schemas.MutedCap
		}
	}
	return schemas.NotMuted
}

// cartOf is the identity of the cart that a transition is about, where it is said once
// for each.
func (w *Worker) cartOf(user int32, t *schemas.Transition) uint64 {
	if w.cfg.Rules.Reentry(int(t.Set), t.To).Kind != segment.ReentryCart {
		return 0
	}
	return w.eval.Cart(w.profileOf(user), w.cells.View(user), t.At)
}

// remember makes room for what was said aloud of somebody under other rules, where these do
// not ask for it: once is once ever, and they may come back. What outputs do not say is
// whether a segment that is still there had another policy, unless they are about a cart.
func (w *Worker) remember(set int, to uint16, t *schemas.Transition) {
	policy, there := w.policyOf(set, to)
	if policy != segment.ReentryAlways {
		return
	}
	slot := w.spoken.slot(set, to)
	switch {
	case t.Cart != 0 && slot != nil && !slot.counts(): // of a policy before that
		*slot = entrySlot{set: set, segment: to, kind: segment.ReentryCart}
		slot.words.Extend(w.rows.Len())
	case t.Cart != 0 && slot == nil:
		w.addEntrySlot(entrySlot{set: set, segment: to, kind: segment.ReentryCart}, nil)
	case slot == nil && !there:
		w.addEntrySlot(entrySlot{set: set, segment: to, kind: segment.ReentryOnce}, nil)
	}
}

// policyOf is what the rules have for a segment of names, if it is there.
func (w *Worker) policyOf(set int, to uint16) (policy segment.ReentryKind, there bool) {
	own := slices.Index(w.place, set)
	if own < 0 {
		return segment.ReentryAlways, false
	}
	at := slices.Index(w.to[own], to)
	if at < 0 {
		return segment.ReentryAlways, false
	}
	return w.cfg.Rules.Reentry(own, uint16(at)).Kind, true
}

// noteSaid keeps that a transition into a segment of names was said aloud.
func (w *Worker) noteSaid(user int32, set int, to uint16, t *schemas.Transition) {
	if slot := w.spoken.slot(set, to); slot != nil {
		word := slot.words.At(user)
		if *word = seconds(t.At); slot.counts() {
			*word = uint32(t.Cart)
		}
	}
	if len(w.spoken.recent) == 0 || !w.cappedPlace(set) {
		return
	}
	for i := range w.spoken.recent[1:] {
		*w.spoken.recent[i].At(user) = *w.spoken.recent[i+1].At(user)
	}
	*w.spoken.recent[len(w.spoken.recent)-1].At(user) = seconds(t.At)
}

// cappedPlace tells whether transitions of a set of names are capped; those of one that
// the rules have not any more are.
func (w *Worker) cappedPlace(place int) bool {
	set := slices.Index(w.place, place)
	return set < 0 || w.cfg.Rules.Capped(set)
}
