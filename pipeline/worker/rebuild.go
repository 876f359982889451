package worker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/cespare/xxhash/v2"

	"footfall/pipeline/profile"
	"footfall/pipeline/segment"
	"footfall/schemas"
)

// replay is the state of a worker that is being rebuilt.
type replay struct {
	// touched is the clock at which each row's last record was applied: [rows], 0
	// for rows without a record since the snapshot.
	touched []schemas.Millis

	// dedupFrom is the offset from which the dedup window is to be remembered.
	dedupFrom int64

	// lenient leaves out records that are refused today: a rebuild cannot know
	// what became of them when retention has removed their dead letters.
	lenient bool
}

// reviewing is what a change of rules has left to do: rows next..end-1, but for
// those in early, have not been evaluated under the new rules.
type reviewing struct {
	next, end int32
	early     []uint64       // bit set of rows that a record brought forward
	last      *replay        // when each row's last record was applied
	fired     schemas.Millis // up to where timers were said under the old rules
}

func (rv *reviewing) pending(user int32) bool {
	return user >= rv.next && user < rv.end && rv.early[user/64]&(1<<(user%64)) == 0
}

// offsets is a growing set of offsets as half-open runs in ascending order: a
// storm of refused records is one run.
type offsets struct{ runs []offsetRun }

type offsetRun struct{ from, to int64 }

func (o *offsets) add(offset int64) {
	if n := len(o.runs); n > 0 && o.runs[n-1].to == offset {
		o.runs[n-1].to++
		return
	}
	o.runs = append(o.runs, offsetRun{offset, offset + 1})
}

func (o *offsets) has(offset int64) bool {
	i := sort.Search(len(o.runs), func(i int) bool { return o.runs[i].to > offset })
	return i < len(o.runs) && o.runs[i].from <= offset
}

// forget drops the runs before an offset.
func (o *offsets) forget(before int64) {
	i := sort.Search(len(o.runs), func(i int) bool { return o.runs[i].to > before })
	o.runs = append(o.runs[:0], o.runs[i:]...)
}

// Said takes the next committed output into the membership. An error is a broken
// invariant: the topics do not hold what this worker's past can have said. Where
// it is ErrLineage the past may be at fault, and an older snapshot's may do.
func (w *Worker) Said(it *Item) error {
	if it.N != w.mark.N+1 {
		return fmt.Errorf("partition %d: output n=%d follows n=%d: outputs are missing or doubled (design 3.4)", w.mark.Partition, it.N, w.mark.N)
	}
	if d := it.DeadLetter; d != nil {
		w.dead.add(d.Pos.Offset)
		w.chain(it)
		return nil
	}
	t := it.Transition
	user := w.table.Find([]byte(t.User))
	if user < 0 {
		user = w.add([]byte(t.User))
	}
	set, from, to := w.place(t)
	m := w.member(user, set)
	was := schemas.NoSegment
	if m.seq > 0 {
		was = m.segment
	}
	if t.Seq != m.seq+1 || from != was {
		return fmt.Errorf("partition %d: output n=%d moves user %q of set %q from segment %d with seq %d, but what was said before is segment %d with seq %d (design 3.4): %w",
			w.mark.Partition, it.N, t.User, w.names[set].Name, int16(from), t.Seq, int16(was), m.seq, ErrLineage)
	}
	w.move(user, set, to, t.Seq, t.At)
	w.chain(it)
	return nil
}

// place gives the worker's own numbers for a transition's set and segments, those
// included that the rules have not any more.
func (w *Worker) place(t *schemas.Transition) (set int, from, to uint16) {
	set, from, to = int(t.Set), t.From, t.To
	if t.Set == schemas.Retired {
		set = w.retiredSet(t.Names.Set)
	}
	if t.From == schemas.Retired {
		from = w.retiredSegment(set, t.Names.From)
	}
	if t.To == schemas.Retired {
		to = w.retiredSegment(set, t.Names.To)
	}
	return set, from, to
}

// retiredSet is the number of a set that the rules have not any more. What was said of
// it is kept, so that its chains go on should it come back.
func (w *Worker) retiredSet(name string) int {
	for set := range w.names {
		if w.names[set].Name == name {
			return set
		}
	}
	old, sets := w.members, w.sets()
	w.members = profile.Slab[member]{}
	for i := range old.Len() {
		*w.members.At(w.members.Append()) = *old.At(int32(i))
		if i%sets == sets-1 {
			w.members.Append()
		}
	}
	w.names = append(w.names, schemas.SetNames{Name: name})
	w.population = append(w.population, nil)
	return sets
}

// retiredSegment is the number of a segment that the rules may not have any more.
func (w *Worker) retiredSegment(set int, name string) uint16 {
	s := &w.names[set]
	i := slices.Index(s.Segments, name)
	if i < 0 {
		i = len(s.Segments)
		s.Segments = append(s.Segments, name)
		w.population[set] = append(w.population[set], 0)
	}
	return uint16(i)
}

// Retell is Said for a rebuild, where retention may have removed the oldest
// outputs: a user's first one may have any from and seq, and the first of all any n.
func (w *Worker) Retell(it *Item) error {
	if w.mark.N == 0 {
		w.mark.N = it.N - 1
	}
	if t := it.Transition; t != nil {
		user := w.table.Find([]byte(t.User))
		if user < 0 {
			user = w.add([]byte(t.User))
		}
		set, from, _ := w.place(t)
		if m := w.member(user, set); m.seq == 0 && from != schemas.NoSegment {
			w.move(user, set, from, t.Seq-1, t.At)
		}
	}
	return w.Said(it)
}

// Skip makes a new worker begin at an offset, for a rebuild.
func (w *Worker) Skip(next int64) {
	w.mark.Next = next
	w.replaying.dedupFrom, w.replaying.lenient = next, true
}

// HistoryEnds tells a worker made by Read at which input offset history ended when
// the partition began, as the mark says to which it is rebuilt. A snapshot says it
// too, but the empty one is published before anything is committed: of two
// processes that begin a partition, one stopped while the other does, either may
// have written it, and only one has committed.
func (w *Worker) HistoryEnds(bootstrap int64) {
	if bootstrap > 0 {
		w.mark.Bootstrap = bootstrap
	}
}

// Remember takes records before the snapshot's cut into the dedup window.
func (w *Worker) Remember(records []Record) {
	for i := range records {
		r := &records[i]
		if r.Control || w.dead.has(r.Offset) || w.cfg.Decoder.Decode(r.Key, r.Value, &w.event) != nil {
			continue
		}
		w.dedup.add(xxhash.Sum64(w.event.ID), r.Time, r.Offset)
	}
}

// DedupStart is the offset from which Remember wants the records, up to Mark().Next.
func (w *Worker) DedupStart() int64 { return w.replaying.dedupFrom }

// Replay folds the input between the snapshot's cut and the mark to which the
// worker is rebuilt. No rules run and nothing is said. Records that were refused
// then are skipped: decisions are read back, not taken again (design 5).
func (w *Worker) Replay(records []Record) error {
	for i := range records {
		r := &records[i]
		if r.Offset < w.mark.Next {
			return fmt.Errorf("partition %d: record %d read after %d", w.mark.Partition, r.Offset, w.mark.Next-1)
		}
		w.mark.Next = r.Offset + 1
		if r.Control || w.dead.has(r.Offset) {
			continue
		}
		if err := w.cfg.Decoder.Decode(r.Key, r.Value, &w.event); err != nil {
			if w.replaying.lenient {
				continue
			}
			return fmt.Errorf("partition %d: record %d was accepted when it came and is refused now: %w; start with the currency rates of that time, or with --rebuild: %w",
				w.mark.Partition, r.Offset, err, ErrLineage)
		}
		w.advance(r)
		if user, _, _ := w.count(r, w.table.Find(w.event.User), w.mark.Fired); user >= 0 {
			w.replaying.touch(user, w.mark.Clock)
		}
	}
	return nil
}

func (rp *replay) touch(user int32, clock schemas.Millis) {
	for int(user) >= len(rp.touched) {
		rp.touched = append(rp.touched, 0)
	}
	rp.touched[user] = clock
}

func (rp *replay) at(user int32) schemas.Millis {
	if int(user) < len(rp.touched) {
		return rp.touched[user]
	}
	return 0
}

// ErrLineage says that a worker's outputs are not those that the mark counts: its
// snapshot belongs to a past that was never committed.
var ErrLineage = errors.New("not the outputs that were committed")

// Resume makes a rebuilt worker live at the mark that was committed. What it has
// to say already (a difference that nobody caused) goes to out.
//
// Which timers are pending follows from the mark and the log alone. A user was
// last evaluated at e, and what was last said of it is what the rules make of it
// at e; so its next timer is the first edge after e. For a user with a record
// since the snapshot, e is the clock at that record or, if later, the mark's
// fired. The clock at a record is the greatest timestamp up to it, or a tick's;
// but a tick moves the clock only as far as timers have fired (see tick), so a
// tick's is never later than fired, and the replay, which sees no ticks, knows e.
// For a user without a record the snapshot has the next timer; if it was due
// by fired it has been said since, and e is fired.
func (w *Worker) Resume(mark schemas.Mark, at Conditions, out *Output) error {
	if mark.N != w.mark.N || mark.Hash != w.mark.Hash {
		return fmt.Errorf("partition %d: rebuilt outputs n=%d hash=%016x, committed n=%d hash=%016x: %w",
			w.mark.Partition, w.mark.N, w.mark.Hash, mark.N, mark.Hash, ErrLineage)
	}
	if w.mark.Next > mark.Next || w.mark.Clock > mark.Clock {
		return fmt.Errorf("partition %d: rebuilt up to offset %d and clock %d, committed are %d and %d: %w",
			w.mark.Partition, w.mark.Next, w.mark.Clock, mark.Next, mark.Clock, ErrLineage)
	}
	dues := w.mark.Rules == mark.Rules
	w.mark = mark
	w.mark.Address = ""
	out.Items = out.Items[:0]
	rp := w.replaying
	w.replaying = nil
	if mark.Rules != w.cfg.Rules.Hash() {
		w.reviewAll(rp, mark.Fired)
	} else {
		w.rearm(rp, dues, mark.Fired, at, out)
	}
	out.Mark = w.Mark()
	return nil
}

// rearm puts every user's next timer into a wheel turned to fired. dues tells
// whether the snapshot's due times are those of the mark's rules: where the rules
// have changed since, everyone has been evaluated again by fired.
func (w *Worker) rearm(rp *replay, dues bool, fired schemas.Millis, at Conditions, out *Output) {
	w.wheel.restart(fired + 1)
	for user := range int32(w.rows.Len()) {
		due, last := w.wheel.take(user), rp.at(user)
		if dues && last == 0 && due > fired {
			w.wheel.arm(user, due)
			continue
		}
		e := max(last, fired)
		// A tick that ran out of its budget within a millisecond leaves the clock
		// there and fired one before it: a user with a record meanwhile was
		// evaluated in that millisecond.
		if fired < w.mark.Clock && last <= fired && !w.agrees(user, fired) && w.agrees(user, fired+1) {
			e = fired + 1
		}
		w.evaluate(user, e, segment.Everything(), schemas.Cause{Kind: schemas.ByRecovery}, schemas.NotMuted, at, out)
	}
}

// agrees tells whether the rules make of a user at time now what was last said of it.
func (w *Worker) agrees(user int32, now schemas.Millis) bool {
	w.eval.Eval(&w.rows.At(user).profile, w.cells.View(user), now, w.segments)
	for set, to := range w.segments {
		if m := w.member(user, set); to != schemas.NoSegment && (m.seq == 0 || m.segment != to) {
			return false
		}
	}
	return true
}

// reviewAll begins to evaluate everyone under new rules: in slices, behind live
// records. The mark is of no rules until it is done, so that a crash begins it
// again, whichever rules the next worker has.
func (w *Worker) reviewAll(rp *replay, fired schemas.Millis) {
	w.wheel.restart(fired + 1)
	n := int32(w.rows.Len())
	for user := range n {
		w.wheel.take(user)
	}
	w.reviewing = reviewing{end: n, early: make([]uint64, (int(n)+63)/64), last: rp, fired: fired}
	w.mark.Rules = 0
	w.finishReview()
}

// reviewSlice evaluates users under new rules, at most budget of them.
func (w *Worker) reviewSlice(budget int, at Conditions, out *Output) int {
	for ; budget > 0 && w.reviewing.next < w.reviewing.end; budget-- {
		w.review(w.reviewing.next, at, out)
		w.reviewing.next++
	}
	w.finishReview()
	return budget
}

// review evaluates one user under new rules, if that is still to be done. What the
// rules make of the moment at which the user was last evaluated is theirs, and
// muted; what silence has come to since then is said as it would have been anyway.
//
// (A crash within a review begins it at a later fired: silences of users that it
// had not come to are then muted with the rest.)
func (w *Worker) review(user int32, at Conditions, out *Output) {
	rv := &w.reviewing
	if !rv.pending(user) {
		return
	}
	rv.early[user/64] |= 1 << (user % 64)
	w.touch(user)
	due := w.differences(user, max(rv.last.at(user), rv.fired), segment.Everything(), schemas.Cause{Kind: schemas.ByRules}, schemas.MutedRules, at, out)
	for due <= w.mark.Clock {
		due = w.differences(user, due, segment.Everything(), schemas.Cause{Kind: schemas.ByTimer, Due: due}, w.mutedTimer(due), at, out)
	}
	w.wheel.arm(user, due)
}

func (w *Worker) finishReview() {
	if w.reviewing.next == w.reviewing.end && w.mark.Rules != w.cfg.Rules.Hash() {
		w.mark.Rules = w.cfg.Rules.Hash()
		w.reviewing = reviewing{}
	}
}

// Rebuild makes a worker live that was rebuilt without a snapshot, from what the
// log still has and all committed outputs: the differences are said, muted.
func (w *Worker) Rebuild(mark schemas.Mark, at Conditions, out *Output) {
	w.mark.Next = max(w.mark.Next, mark.Next)
	w.mark.Clock = max(w.mark.Clock, mark.Clock)
	w.mark.N = max(w.mark.N, mark.N)
	w.leave()
	w.replaying = nil
	out.Items = out.Items[:0]
	w.wheel.restart(w.mark.Clock + 1)
	for user := range int32(w.rows.Len()) {
		w.evaluate(user, w.mark.Clock, segment.Everything(), schemas.Cause{Kind: schemas.ByRecovery}, schemas.MutedBootstrap, at, out)
	}
	out.Mark = w.Mark()
}

// leave changes the running hash: what is said from here on belongs to another past
// than the snapshots taken before. Their profiles are of records that the log had
// then and a rebuild has not seen; without this, one of them that lies ahead of the
// rebuilt mark would be taken for ours as soon as the mark has passed it.
func (w *Worker) leave() {
	b := append(w.sum[:0], "rebuilt"...)
	for _, v := range []uint64{w.mark.Hash, w.cfg.Rules.Hash(), uint64(w.replaying.dedupFrom), uint64(w.mark.Next)} {
		b = binary.LittleEndian.AppendUint64(b, v) // what the profiles are made of
	}
	w.sum, w.mark.Hash = b, xxhash.Sum64(b)
}

// Begin makes a new worker live on a partition of which nothing was ever said;
// what is caused by records before offset bootstrap is muted.
func (w *Worker) Begin(next, bootstrap int64) schemas.Mark {
	w.mark.Next, w.mark.Bootstrap = next, bootstrap
	w.replaying = nil
	return w.Mark()
}
