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
	// touched is the clock at which each row's last record was applied, or something was
	// said of it: [rows], 0 for rows of which neither is known since the snapshot, which
	// tells of those that were ahead of fired.
	touched []schemas.Millis

	// dedupFrom is the offset from which the dedup window is to be remembered.
	dedupFrom int64

	// lenient leaves out records that are refused today, at wall time wall: a rebuild
	// cannot know what became of them when retention has removed their dead letters.
	lenient bool
	wall    schemas.Millis

	// unsaid tells that nothing was ever said of these records, as far as anybody
	// knows: what is left out is kept in letters, to be said.
	unsaid  bool
	letters []*schemas.DeadLetter
}

// reviewing is what a change of rules has left to do: rows next..end-1, but for
// those in early, have not been evaluated under the new rules.
type reviewing struct {
	sweep
	last  *replay        // when each row's last record was applied
	since schemas.Millis // what was due by then was said under the old ones, and nothing that is due later
	cause schemas.Cause
	muted schemas.Muted
}

// offsets is a growing set of offsets as half-open runs in ascending order: a
// storm of refused records is one run.
type offsets struct{ runs []offsetRun }

type offsetRun struct{ from, to int64 }

// add takes one more. It is the greatest, but for what a rebuild refuses, or reads back of
// one before it: that is O(runs).
func (o *offsets) add(offset int64) {
	i := len(o.runs)
	for i > 0 && o.runs[i-1].from > offset {
		i--
	}
	switch {
	case i > 0 && o.runs[i-1].to > offset:
		return
	case i > 0 && o.runs[i-1].to == offset:
		o.runs[i-1].to++
	default:
		o.runs = slices.Insert(o.runs, i, offsetRun{offset, offset + 1})
	}
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
	if since := it.since(); since < w.mark.Next {
		// Equal numbers and hashes do not tell: a snapshot without outputs has the same
		// as any other without.
		return fmt.Errorf("partition %d: output n=%d is due to the input before offset %d, and is not among the %d that were said up to there: %w",
			w.mark.Partition, it.N, w.mark.Next, w.mark.N, ErrLineage)
	}
	if d := it.DeadLetter; d != nil {
		w.dead.add(d.Pos.Offset)
		w.chain(it)
		return nil
	}
	t := it.Transition
	user, err := w.userOf(t)
	if err != nil {
		return err
	}
	set, from, to := w.numbers(t)
	m := w.member(user, set)
	was := schemas.NoSegment
	if m.seq > 0 {
		was = m.segment
	}
	if t.Seq != m.seq+1 || from != was {
		return fmt.Errorf("partition %d: output n=%d moves user %q of set %q from segment %d with seq %d, but what was said before is segment %d with seq %d (design 3.4): %w",
			w.mark.Partition, it.N, t.User, w.names[set].Name, int16(from), t.Seq, int16(was), m.seq, ErrLineage)
	}
	w.touch(user)
	w.move(user, set, to, t.Seq, t.At)
	w.replaying.touch(user, t.At)
	if t.Muted == schemas.NotMuted {
		w.remember(set, to, t)
		w.noteSaid(user, set, to, t)
	}
	w.chain(it)
	return nil
}

// userOf gives the row of a transition's user, who may be new.
func (w *Worker) userOf(t *schemas.Transition) (int32, error) {
	if n := len(t.User); n < 1 || n > profile.IDMax {
		return 0, fmt.Errorf("partition %d: a transition of a user whose id has %d bytes: it is none of ours", w.mark.Partition, n)
	}
	if user := w.table.Find([]byte(t.User)); user >= 0 {
		return user, nil
	}
	return w.add([]byte(t.User)), nil
}

// numbers gives the worker's own numbers for a transition's set and segments, those
// included that the rules have not any more.
func (w *Worker) numbers(t *schemas.Transition) (set int, from, to uint16) {
	names := schemas.RetiredNames{}
	if t.Names != nil {
		names = *t.Names
	}
	segment := func(s uint16, retired string) uint16 {
		switch s {
		case schemas.NoSegment:
			return s
		case schemas.Retired:
			return w.segmentNumber(set, retired)
		}
		return w.to[t.Set][s]
	}
	if t.Set == schemas.Retired {
		set = w.setNumber(names.Set)
	} else {
		set = w.place[t.Set]
	}
	return set, segment(t.From, names.From), segment(t.To, names.To)
}

// since is the least cut before which the output cannot have been said.
func (it *Item) since() int64 {
	switch t := it.Transition; {
	case t == nil:
		return it.DeadLetter.Pos.Offset
	case t.Cause.Kind == schemas.ByEvent:
		return t.Cause.Pos.Offset
	}
	return it.Next
}

// Retell is Said for a rebuild, where retention may have removed outputs, of each
// topic by itself: any number may come after a smaller one, and a user's chain goes
// on from wherever the next of its outputs says that it stood.
func (w *Worker) Retell(it *Item) error {
	w.mark.N = max(w.mark.N, it.N-1)
	if t := it.Transition; t != nil {
		user, err := w.userOf(t)
		if err != nil {
			return err
		}
		set, from, _ := w.numbers(t)
		if m := w.member(user, set); t.Seq > m.seq+1 && from != schemas.NoSegment {
			w.touch(user)
			w.move(user, set, from, t.Seq-1, t.At)
		}
	}
	return w.Said(it)
}

// Skip makes a new worker begin at an offset, for a rebuild at wall time wall. unsaid
// tells that neither marks nor outputs say what has become of the records from there
// on: those that are refused today are dead letters then, perhaps again.
func (w *Worker) Skip(next int64, wall schemas.Millis, unsaid bool) {
	w.mark.Next = next
	rp := w.replaying
	rp.dedupFrom, rp.lenient, rp.wall, rp.unsaid = next, true, wall, unsaid
}

// leaveOut leaves a record out of a rebuild.
func (rp *replay) leaveOut(partition int32, r *Record, reason schemas.Refusal, detail string) {
	if rp.unsaid {
		rp.letters = append(rp.letters, letterOf(partition, r, reason, detail))
	}
}

// HistoryEnds tells a worker that is not live at which input offset history ended when
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
		if i%warmAhead == 0 {
			w.warm(records[i:min(i+warmAhead, len(records))])
		}
		r := &records[i]
		if r.Offset < w.mark.Next {
			return fmt.Errorf("partition %d: record %d read after %d", w.mark.Partition, r.Offset, w.mark.Next-1)
		}
		w.mark.Next = r.Offset + 1
		if r.Control || w.dead.has(r.Offset) {
			continue
		}
		if err := w.cfg.Decoder.Decode(r.Key, r.Value, &w.event); err != nil {
			var refused *schemas.RefusedError
			if w.replaying.lenient && errors.As(err, &refused) {
				w.replaying.leaveOut(w.mark.Partition, r, refused.Reason, refused.Detail)
				continue
			}
			return fmt.Errorf("partition %d: record %d was accepted when it came and is refused now: %w; start with the currency rates of that time, or the footfall of that time, or with --rebuild: %w",
				w.mark.Partition, r.Offset, err, ErrLineage)
		}
		if w.replaying.lenient {
			if detail := w.tooEarly(r, w.replaying.wall); detail != "" {
				w.replaying.leaveOut(w.mark.Partition, r, schemas.Future, detail)
				continue
			}
		}
		w.advance(r)
		// The user will not be evaluated before this record's clock (Resume): what cells let
		// go at it is what the live worker's did, or a user with very many moments has others.
		if user, _, _ := w.count(r, w.table.FindGuessed(w.event.User, w.guesses[i%warmAhead]), w.mark.Clock); user >= 0 {
			w.replaying.touch(user, w.mark.Clock)
		}
	}
	return nil
}

func (rp *replay) touch(user int32, clock schemas.Millis) {
	for int(user) >= len(rp.touched) {
		rp.touched = append(rp.touched, 0)
	}
	rp.touched[user] = max(rp.touched[user], clock)
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
// fired; the snapshot tells of those who had one by then, and had not fired. The
// clock at a record is the greatest timestamp up to it, or a tick's; but a tick
// moves the clock only as far as timers have fired (see tick), so a tick's is never
// later than fired, and the replay, which sees no ticks, knows e.
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
	// Timers that have fired since and said nothing are no reason to commit: the
	// snapshot may know of more of them, and forget who was ahead of those.
	mark.Fired = max(mark.Fired, w.mark.Fired)
	rules, epoch := w.cfg.Rules.Hash(), w.cfg.Rules.Epoch().Number
	dues := w.mark.Rules == mark.Rules && w.mark.Epoch == mark.Epoch && w.mark.Since == 0
	w.mark = mark
	w.mark.Address = ""
	out.Items = out.Items[:0]
	rp := w.replaying
	w.replaying = nil
	for row, at := range rp.touched {
		if at > mark.Fired {
			w.ahead = append(w.ahead, evaluated{int32(row), at})
		}
	}
	if w.waiting() { // everyone was evaluated under them, by cells that this snapshot has not
		w.mark.Rules = 0
	}
	if w.mark.Rules != rules || mark.Epoch != epoch || mark.Since != 0 {
		if mark.Since == 0 {
			w.mark.Since = mark.Fired
		}
		w.wheel.restart(mark.Fired + 1)
		w.reviewAll(rp)
	} else {
		w.rearm(rp, dues, mark.Fired, at, out)
	}
	out.Mark, out.Sets = w.Mark(), w.cfg.Rules.Names()
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
		w.touch(user)
		w.evaluate(user, e, segment.Everything(), schemas.Cause{Kind: schemas.ByRecovery}, schemas.NotMuted, at, out)
	}
}

// agrees tells whether the rules make of a user at time now what was last said of it.
func (w *Worker) agrees(user int32, now schemas.Millis) bool {
	w.eval.Eval(w.profileOf(user), w.cells.View(user), now, w.segments)
	for set, to := range w.segments {
		m := w.member(user, w.place[set])
		if to < schemas.Retired && !w.waits(set) && (m.seq == 0 || m.segment != w.to[set][to]) {
			return false
		}
	}
	return true
}

// reviewAll begins to evaluate everyone under new rules, which took over at the mark's
// Since: in slices, behind live records. Until it is done the mark is of no rules, or,
// where only the bounds of quantiles have changed, of the epoch before, so that a crash
// begins it again, whichever rules the next worker has. rp tells when each user had its
// last record since the snapshot, where the worker has just been rebuilt.
func (w *Worker) reviewAll(rp *replay) {
	rv := reviewing{sweep: newSweep(w.rows.Len()), last: rp, since: w.fired()}
	if w.mark.Rules == w.cfg.Rules.Hash() {
		rv.cause = schemas.Cause{Kind: schemas.ByEpoch, Epoch: w.cfg.Rules.Epoch().Number}
		if w.mark.Epoch == 0 {
			rv.muted = schemas.MutedRules // the first bounds there are: nobody moves, all get a place
		}
	} else {
		if rv.cause = (schemas.Cause{Kind: schemas.ByRules}); !w.cfg.Rules.SaysChanges() {
			rv.muted = schemas.MutedRules
		}
		w.mark.Rules = 0
	}
	for user := range rv.end {
		w.wheel.take(user)
	}
	w.changes.noteAll(int(rv.end)) // nobody has a timer
	w.reviewing = rv
	w.finishReview()
}

// reviewSlice evaluates users under new rules, at most budget of them.
func (w *Worker) reviewSlice(budget int, at Conditions, out *Output) int {
	for ; budget > 0 && !w.reviewing.over(); budget-- {
		if user := w.reviewing.turn(); user >= 0 {
			w.reviewRow(user, at, out)
		}
	}
	w.finishReview()
	return budget
}

// review evaluates one user under new rules, if that is still to be done.
func (w *Worker) review(user int32, at Conditions, out *Output) {
	if w.reviewing.take(user) {
		w.reviewRow(user, at, out)
	}
}

// reviewRow evaluates a user under new rules, as of the moment when it was last evaluated:
// when the rules took over or, after a crash, at its last record or when timers were last
// fired. What the rules make of that moment is theirs; what silence comes to after it is
// said by timers, as it would have been anyway. These wait until everyone is through, so
// that fired stays what it promises (see fire).
func (w *Worker) reviewRow(user int32, at Conditions, out *Output) {
	rv := &w.reviewing
	w.touch(user)
	now := max(rv.since, rv.last.at(user))
	w.evaluate(user, now, segment.Everything(), rv.cause, rv.muted, at, out)
}

// finishReview notes that everybody has been evaluated under the rules, in every set.
func (w *Worker) finishReview() {
	if w.reviewing.over() && !w.Filling() && !w.Settled() {
		w.mark.Rules, w.mark.Epoch, w.mark.Since = w.cfg.Rules.Hash(), w.cfg.Rules.Epoch().Number, 0
		w.reviewing = reviewing{}
	}
}

// rebuildPiece is about how much a rebuild says at once.
const rebuildPiece = 4096

// Rebuild makes a worker live that was rebuilt without a snapshot, from what the
// log still has and all committed outputs: the differences are said, muted. Where retention
// has removed most outputs, that is something of nearly everybody, more than a transaction
// has time for; so it is given to say in pieces, each an Output of its own. An error of say
// ends it, and the worker is good for nothing then.
func (w *Worker) Rebuild(mark schemas.Mark, at Conditions, say func(*Output) error) error {
	w.mark.Next = max(w.mark.Next, mark.Next)
	w.mark.Clock = max(w.mark.Clock, mark.Clock)
	w.mark.N = max(w.mark.N, mark.N)
	w.leave()
	letters := w.replaying.letters
	w.replaying = nil
	w.wheel.restart(w.mark.Clock + 1)
	out := &Output{}
	for _, d := range letters { // with the first mark, or a rebuild after a crash would take them for said
		w.stats.DeadLetters[d.Reason]++
		w.dead.add(d.Pos.Offset)
		w.number(&Item{DeadLetter: d}, out)
	}
	for user := range int32(w.rows.Len()) {
		if len(out.Items) >= rebuildPiece {
			out.Mark, out.Sets = w.Mark(), w.cfg.Rules.Names()
			if err := say(out); err != nil {
				return err
			}
			out = &Output{}
		}
		w.evaluate(user, w.mark.Clock, segment.Everything(), schemas.Cause{Kind: schemas.ByRecovery}, schemas.MutedBootstrap, at, out)
	}
	out.Mark, out.Sets = w.Mark(), w.cfg.Rules.Names()
	return say(out)
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
