package pipeline

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// recover brings the partition's worker to life: the only way there is, for start
// and rebalance (R5, design 5). Afterwards the source reads it from the mark on.
//
// One that fails only because the log or the bucket is away begins again: ending the
// process would take the live partitions down with it.
func (part *partition) recover() error {
	for attempt := 1; ; attempt++ {
		err := part.recoverOnce()
		switch {
		case err == nil, part.ctx.Err() != nil, part.stream.isLost():
			return err
		case errors.Is(err, errMoved):
			continue
		case !errors.Is(err, ErrAway) && !errors.Is(err, snapshot.ErrAway):
			return err
		}
		part.p.cfg.Report(RecoveryWaits{Partition: part.number, Attempt: attempt, Err: err})
		part.p.cfg.Backoff(part.ctx, attempt)
	}
}

// errMoved says that a mark was committed between the two questions, what is committed
// and what was said: by another owner, of whom we have not heard yet, or by a transaction
// of our own that ended late.
var errMoved = errors.New("committed meanwhile")

func (part *partition) recoverOnce() error {
	cfg := &part.p.cfg
	if err := part.p.checkLayout(part.ctx); err != nil {
		return err
	}
	// In this order: brokers have been seen to answer with an old mark (sources/kafka,
	// doc.go). What is seen to be said afterwards tells, in the other order it need not.
	mark, found, err := part.committed()
	if err != nil {
		return err
	}
	last, err := cfg.History.Last(part.ctx, part.number)
	if err != nil {
		return err
	}
	part.stream.begin(mark, found)
	//failpoint:recover.marked
	return part.recoverInTurn(mark, found, last)
}

// recoverInTurn keeps the number of recoveries at once bounded. One that waits for who is
// away waits outside: a broker that is gone may have led more partitions than there are
// places, and all others would never come to life.
func (part *partition) recoverInTurn(mark schemas.Mark, found bool, last uint64) error {
	cfg := &part.p.cfg
	select {
	case part.p.recoveries <- struct{}{}:
		part.yield = sync.OnceFunc(func() { <-part.p.recoveries })
		defer part.yield()
	case <-part.ctx.Done():
		return part.ctx.Err()
	}
	ids, err := cfg.Snapshots.List(part.ctx, part.number)
	if err != nil {
		return err
	}
	out := &worker.Output{}
	if found {
		err = part.restore(mark, last, ids, out)
	} else {
		err = part.begin(last, ids)
	}
	if err != nil || part.stream.isLost() {
		return err
	}
	part.ruled(part.rules)
	part.settled = part.worker.Settled()
	part.snapAt = cfg.Now()
	if len(out.Items) > 0 {
		if err := part.push(out); err != nil {
			return err
		}
	}
	part.publishStatus(&End{Partition: part.number, Offset: part.worker.Mark().Next, Wall: cfg.Now()})
	//failpoint:recover.done
	part.p.startReading(part)
	return nil
}

// committed asks for the partition's mark, once: one that a transaction holds undecided
// may stay so until a person has ended that.
func (part *partition) committed() (schemas.Mark, bool, error) {
	mark, found, err := part.p.cfg.Committer.Committed(part.ctx, part.number)
	switch {
	case err == nil:
		return mark, found, nil
	case part.ctx.Err() == nil && !errors.Is(err, ErrPermanent) && !errors.Is(err, ErrFenced):
		err = fmt.Errorf("%w: %w", ErrAway, err)
	}
	return mark, false, fmt.Errorf("ask for the committed mark of partition %d: %w", part.number, err)
}

// doubtsMax is how many times a recovery begins again because what it was told cannot
// be, before it believes it: some seconds.
const doubtsMax = 15

// doubt makes the recovery begin again, a few times, where the committed mark
// contradicts what else there is: brokers have been seen to answer from a state that
// they were still loading. Later it is taken for what it says.
func (part *partition) doubt(what string) error {
	if part.doubts++; part.doubts > doubtsMax || part.p.cfg.Inline {
		return nil
	}
	return fmt.Errorf("partition %d: %s; asking again: %w", part.number, what, ErrAway)
}

func (part *partition) workerConfig() worker.Config {
	c := part.p.cfg.Worker
	part.rules = part.p.rules.Load()
	c.Rules = part.rules
	c.Decoder = part.p.cfg.Decoder()
	return c
}

// begin makes a worker from nothing, where there is nothing: neither a commit nor
// an output nor a snapshot that knows more than nothing. What the log holds
// already is history, and what it causes is muted.
//
// An empty snapshot comes first and the commit after it, so that from the first
// commit on recovery always has a snapshot to begin with.
func (part *partition) begin(last uint64, ids []snapshot.ID) error {
	cfg := &part.p.cfg
	start, end, err := cfg.History.Bounds(part.ctx, part.number)
	if err != nil {
		return err
	}
	if last > 0 || len(ids) > 0 {
		if err := part.doubt("nothing is committed, and it has spoken or has a snapshot"); err != nil {
			return err
		}
	}
	beyond := len(ids) > 0 && (ids[0].N > 0 || ids[0].Next > start)
	if last > 0 || beyond {
		if cfg.Rebuild {
			return part.rebuild(schemas.Mark{Partition: part.number, Next: start}, false, ids)
		}
		return &ErrForgotten{Partition: part.number, Spoken: last > 0}
	}
	w := worker.New(part.number, part.workerConfig())
	mark := w.Begin(start, end)
	part.worker = w
	//failpoint:begin.bounded
	if err := part.publishNow(); err != nil {
		return err
	}
	//failpoint:begin.published
	if err := part.settle(mark); err != nil {
		return err
	}
	//failpoint:begin.committed
	cfg.Report(Began{Partition: part.number, Next: start, Bootstrap: end})
	return nil
}

// ErrForgotten says that a partition has a past which its committed offset does
// not tell any more.
type ErrForgotten struct { //nolint:errname // reads as what happened
	Partition int32
	Spoken    bool // the output topics hold outputs; else only snapshots are left
}

func (e *ErrForgotten) Error() string {
	what := "a snapshot"
	if e.Spoken {
		what = "committed outputs"
	}
	return fmt.Sprintf("partition %d has no committed offset, but %s: its commit has expired (offsets.retention.minutes), the group's name has changed, "+
		"or the input topic was deleted and made anew. Beginning from nothing would send every trigger again. Set the group's name back, or start once "+
		"with --rebuild: it folds what the log still has and mutes the differences. For another topic begin anew: another group, other output topics, another bucket",
		e.Partition, what)
}

// restore rebuilds the worker that committed mark, from the newest snapshot that
// verifies and leads there. last is the greatest output that was seen afterwards.
func (part *partition) restore(mark schemas.Mark, last uint64, ids []snapshot.ID, out *worker.Output) error {
	cfg := &part.p.cfg
	start, _, err := cfg.History.Bounds(part.ctx, part.number)
	if err != nil {
		return err
	}
	if last > mark.N {
		if now, _, err := part.committed(); err != nil {
			return err
		} else if !same(now, mark) {
			return errMoved
		}
		if err := part.doubt("the committed mark is older than what has been said"); err != nil {
			return err
		}
		if cfg.Rebuild {
			// The outputs themselves say how many there are; snapshots are not asked.
			return part.rebuild(schemas.Mark{Partition: part.number, Next: start, Bootstrap: mark.Bootstrap, Lane: mark.Lane}, false, nil)
		}
		return part.overtaken(mark, last)
	}
	// Going by an epoch of before would have users move back, aloud, and forth again.
	if rules := part.p.rules.Load(); mark.Rules == rules.Hash() && mark.Epoch > rules.Epoch().Number {
		if err := part.doubt(fmt.Sprintf("it goes by epoch %d of the quantiles, and the control topic has been read up to epoch %d", mark.Epoch, rules.Epoch().Number)); err != nil {
			return err
		}
	}
	var problems []error
	away := false
	for _, id := range ids {
		if id.Next > mark.Next || id.N > mark.N {
			continue // of a past that was never committed, or just published by nobody's future
		}
		if id.Next < start {
			problems = append(problems, fmt.Errorf("snapshot %s: it needs the input from offset %d on, and the topic begins at %d: %w: retention is shorter than the snapshot gap", id, id.Next, start, ErrExpired))
			continue
		}
		err := part.restoreFrom(id, mark, out)
		if err == nil {
			return nil
		}
		if part.ctx.Err() != nil || part.stream.isLost() {
			return err
		}
		if !slices.ContainsFunc(reasonsToSkip(), func(reason error) bool { return errors.Is(err, reason) }) {
			return err
		}
		away = away || errors.Is(err, snapshot.ErrAway)
		cfg.Report(SnapshotSkipped{Partition: part.number, Snapshot: id.String(), Err: err})
		problems = append(problems, err)
	}
	if away { // one that can't be read now may be the one that leads there
		return fmt.Errorf("partition %d: %w", part.number, errors.Join(problems...))
	}
	if cfg.Rebuild {
		return part.rebuild(mark, true, ids)
	}
	problems = append(problems, fmt.Errorf("partition %d: offset %d is committed and no snapshot leads there (%d found). "+
		"Give the bucket that holds the snapshots, or start once with --rebuild: it folds what the log still has and mutes the differences",
		part.number, mark.Next, len(ids)))
	return errors.Join(problems...)
}

// reasonsToSkip are the errors that say that a snapshot does not lead to the mark, and
// that another may.
func reasonsToSkip() []error {
	return []error{snapshot.ErrDamaged, snapshot.ErrAway, worker.ErrLineage, errUnreadable, ErrExpired}
}

// overtaken refuses a mark that counts less than what was seen to be said: going on
// from it would say that again. Another tool that set the group's offset can do that.
func (part *partition) overtaken(mark schemas.Mark, last uint64) error {
	return fmt.Errorf("partition %d: output n=%d is committed, and the committed mark at offset %d counts n=%d: the group's offset was set back. "+
		"Going on would send triggers again. Start once with --rebuild: it folds what the log still has and mutes the differences",
		part.number, last, mark.Next, mark.N)
}

// errUnreadable says that a snapshot's bytes are whole but cannot be understood.
var errUnreadable = errors.New("cannot be used")

// restoreFrom takes the four steps of recovery (design 5).
func (part *partition) restoreFrom(id snapshot.ID, mark schemas.Mark, out *worker.Output) error {
	cfg := &part.p.cfg
	began := cfg.Now()
	var chain *snapshot.Chain
	w, err := worker.ReadChain(func(read func(io.Reader) error) (err error) {
		chain, err = cfg.Snapshots.Open(part.ctx, id, func(r io.Reader) error {
			if err := read(r); err != nil {
				return fmt.Errorf("snapshot %s: %w: %w", id, err, errUnreadable)
			}
			return nil
		})
		return err
	}, part.number, part.workerConfig())
	if err != nil {
		return err
	}
	cut := w.Mark()
	if cut.Next != id.Next || cut.N != id.N {
		return fmt.Errorf("snapshot %s: holds the cut %d with n=%d: %w", id, cut.Next, cut.N, errUnreadable)
	}
	//failpoint:recover.loaded
	loaded := cfg.Now()
	w.HistoryEnds(mark.Bootstrap)
	if mark.N > cut.N {
		err = cfg.History.Said(part.ctx, part.number, cut.N, mark.N, w.Said)
		if err != nil {
			return err
		}
	}
	//failpoint:recover.read-back
	readBack := cfg.Now()
	replayed, forgotten, err := part.replay(w, cut.Next, mark.Next, nil)
	if err != nil {
		return err
	}
	//failpoint:recover.replayed
	caughtUp := cfg.Now()
	if err := w.Resume(mark, part.conditions(), out); err != nil {
		return err
	}
	part.worker, part.chain, part.lastSnap, part.taken = w, chain, id, w.Taken()
	cfg.Report(Recovered{
		Partition: part.number, Snapshot: id.String(), Next: mark.Next, N: mark.N,
		Records: replayed, Forgotten: forgotten, Outputs: mark.N - cut.N, Users: w.Users(), Differences: len(out.Items), Took: cfg.Now() - began,
		Deltas: chain.Deltas, Load: loaded - began, ReadBack: readBack - loaded, Replay: caughtUp - readBack,
	})
	return nil
}

func (part *partition) conditions() worker.Conditions {
	return worker.Conditions{Wall: part.p.cfg.Now(), Paused: part.p.cfg.Paused()}
}

// replay gives a worker its dedup window and the input between its cut and to, which
// witness sees first, if there is one. It counts what it has replayed, and the offsets of
// the window that it could not have remembered, because retention has removed them.
func (part *partition) replay(w *worker.Worker, cut, to int64, witness func([]worker.Record) error) (replayed, forgotten int64, err error) {
	from := min(w.DedupStart(), cut)
	start, _, err := part.p.cfg.History.Bounds(part.ctx, part.number)
	if err != nil {
		return 0, 0, err
	}
	for {
		if first := min(start, cut); first > from {
			forgotten += first - from
			from = first
		}
		if from >= to {
			return replayed, forgotten, nil
		}
		err = part.p.cfg.History.Input(part.ctx, part.number, from, to, func(records []worker.Record) error {
			if witness != nil {
				if err := witness(records); err != nil {
					return err
				}
			}
			i := 0
			for i < len(records) && records[i].Offset < cut {
				i++
			}
			w.Remember(records[:i])
			replayed += int64(len(records) - i)
			if len(records) > 0 {
				from = records[len(records)-1].Offset + 1
			}
			return w.Replay(records[i:])
		})
		if !errors.Is(err, ErrExpired) || from >= cut {
			return replayed, forgotten, err
		}
		// It has removed more since the beginning was asked for.
		was := start
		if now, _, away := part.p.cfg.History.Bounds(part.ctx, part.number); away != nil {
			return replayed, forgotten, away
		} else if start = now; start <= was || start > cut {
			return replayed, forgotten, err
		}
	}
}

// rebuild makes a worker without a snapshot: from all committed outputs and what
// the log still has. found tells that mark is what was committed, and not only where
// the log begins; ids are the snapshots there are, the newest first.
func (part *partition) rebuild(mark schemas.Mark, found bool, ids []snapshot.ID) error {
	cfg := &part.p.cfg
	start, end, err := cfg.History.Bounds(part.ctx, part.number)
	if err != nil {
		return err
	}
	c := part.workerConfig()
	if mark.Lane != schemas.Live {
		c.Lane = mark.Lane // the record that tells it may be gone
	}
	w := worker.New(part.number, c)
	w.HistoryEnds(mark.Bootstrap)
	said := retold{causes: causes{}, last: worker.Item{N: mark.N, Next: mark.Next, Clock: mark.Clock, Fired: mark.Fired}}
	err = cfg.History.SaidAll(part.ctx, part.number, mark.N, func(it *worker.Item) error {
		said.note(it)
		return w.Retell(it)
	})
	if err != nil {
		return err
	}
	if !found && said.amid {
		w.HistoryEnds(end) // only the mark has told where; what is here by now is taken for it
	}
	last := said.last
	counted := last.N // by a snapshot: each topic has a retention of its own, and the youngest outputs may be those that are gone
	for _, id := range ids {
		counted = max(counted, id.N)
	}
	unsaid := !found && (last.N == 0 || last.N < counted)
	if unsaid {
		// Neither a mark nor an output is left to tell what has been said of the
		// records that are here, so none of them is said aloud; nor how many outputs
		// there were, whose ids must not begin again.
		last.Next, last.N = end, counted
	}
	mark.N, mark.Next, mark.Clock, mark.Fired = last.N, max(last.Next, start), last.Clock, last.Fired
	if mark.Next > end {
		return &errOtherTopic{part.number, fmt.Sprintf("outputs speak of input up to offset %d, and the topic ends at %d", mark.Next, end)}
	}
	w.Skip(start, max(cfg.Now(), mark.Clock), unsaid) // the wall may have gone back since
	//failpoint:rebuild.read-back
	replayed, _, err := part.replay(w, start, mark.Next, func(records []worker.Record) error { return said.causes.check(part.number, records) })
	if err != nil {
		return err
	}
	differences := 0
	err = w.Rebuild(mark, part.conditions(), func(out *worker.Output) error {
		differences += len(out.Items)
		if part.ctx.Err() != nil || part.stream.isLost() {
			return errAbandoned
		}
		return part.push(out)
	})
	if err != nil {
		return err
	}
	part.worker = w
	//failpoint:rebuild.pushed
	settled := w.Mark()
	part.yield() // it may be long until that can be written
	if err := part.settle(settled); err != nil {
		return err
	}
	if part.stream.isLost() {
		return nil
	}
	//failpoint:rebuild.settled
	if err := part.publishNow(); err != nil {
		return err
	}
	cfg.Report(Recovered{
		Partition: part.number, Snapshot: "none (--rebuild)", Next: mark.Next, N: mark.N,
		Records: replayed, Outputs: mark.N, Users: w.Users(), Differences: differences,
	})
	return nil
}

// errOtherTopic says that the outputs that were said are not of this input.
type errOtherTopic struct { //nolint:errname // reads as what happened
	partition int32
	why       string
}

func (e *errOtherTopic) Error() string {
	return fmt.Sprintf("partition %d: %s: the topic was deleted and made anew, and what was said is of the one before. "+
		"Begin anew: another group, other output topics, another bucket", e.partition, e.why)
}

// retold is what committed outputs tell a rebuild.
type retold struct {
	causes causes
	last   worker.Item // the greatest of each
	amid   bool        // what was said last is of the history before the partition's beginning
}

func (r *retold) note(it *worker.Item) {
	r.causes.note(it)
	if t := it.Transition; t != nil && (t.Cause.Kind == schemas.ByEvent || t.Cause.Kind == schemas.ByTimer) {
		r.amid = t.Muted == schemas.MutedBootstrap
	}
	r.last = worker.Item{N: max(r.last.N, it.N), Next: max(r.last.Next, it.Next), Clock: max(r.last.Clock, it.Clock), Fired: max(r.last.Fired, it.Fired)}
}

// causes are who was moved by which record, as outputs say it, by the record's offset:
// those of the last outputs, so that a rebuild notices an input that is not theirs.
type causes map[int64]cause

type cause struct {
	user string
	n    uint64
}

// causesMax bounds them.
const causesMax = 1000

func (c causes) note(it *worker.Item) {
	t := it.Transition
	if t == nil || t.Cause.Kind != schemas.ByEvent {
		return
	}
	c[t.Cause.Pos.Offset] = cause{t.User, it.N}
	if len(c) > 2*causesMax { // numbers have no gaps: half of them at least are recent
		for offset, said := range c {
			if said.n+causesMax < it.N {
				delete(c, offset)
			}
		}
	}
}

// check holds that records are of those whom they have moved: an event's key is its
// user.
func (c causes) check(partition int32, records []worker.Record) error {
	for i := range records {
		if said, ok := c[records[i].Offset]; ok && string(records[i].Key) != said.user {
			return &errOtherTopic{partition, fmt.Sprintf("output n=%d moves user %q because of offset %d, where user %q is", said.n, said.user, records[i].Offset, records[i].Key)}
		}
	}
	return nil
}
