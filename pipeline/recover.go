package pipeline

import (
	"errors"
	"fmt"
	"io"

	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// recover brings the partition's worker to life: the only way there is, for start
// and rebalance (R5, design 5). Afterwards the source reads it from the mark on.
func (part *partition) recover() error {
	cfg := &part.p.cfg
	mark, found, err := part.p.commits.committed(part.ctx, part.number)
	if err != nil {
		return err
	}
	part.stream.begin(mark, found)
	ids, err := cfg.Snapshots.List(part.ctx, part.number)
	if err != nil {
		return err
	}
	out := &worker.Output{}
	if found {
		err = part.restore(mark, ids, out)
	} else {
		err = part.begin(ids)
	}
	if err != nil || part.stream.isLost() {
		return err
	}
	part.ruled(part.rules)
	part.snapAt = cfg.Now()
	if len(out.Items) > 0 {
		if err := part.push(out); err != nil {
			return err
		}
	}
	part.publishStatus(&End{Partition: part.number, Offset: part.worker.Mark().Next, Wall: cfg.Now()})
	part.live.Store(true)
	cfg.Source.Start(part.number, part.worker.Mark().Next)
	return nil
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
func (part *partition) begin(ids []snapshot.ID) error {
	cfg := &part.p.cfg
	start, end, err := cfg.History.Bounds(part.ctx, part.number)
	if err != nil {
		return err
	}
	last, err := cfg.History.Last(part.ctx, part.number)
	if err != nil {
		return err
	}
	beyond := len(ids) > 0 && (ids[0].N > 0 || ids[0].Next > start)
	if last > 0 || beyond {
		if cfg.Rebuild {
			return part.rebuild(schemas.Mark{Partition: part.number, Next: start})
		}
		return &ErrForgotten{Partition: part.number, Spoken: last > 0}
	}
	w := worker.New(part.number, part.workerConfig())
	mark := w.Begin(start, end)
	part.worker = w
	if err := part.publishWhole(mark); err != nil {
		return err
	}
	if err := part.settle(mark); err != nil {
		return err
	}
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
	return fmt.Sprintf("partition %d has no committed offset, but %s: its commit has expired (offsets.retention.minutes) or the group's name has changed. "+
		"Beginning from nothing would send every trigger again. Set the group's name back, or start once with --rebuild: "+
		"it folds what the log still has and mutes the differences", e.Partition, what)
}

// restore rebuilds the worker that committed mark, from the newest snapshot that
// verifies and leads there.
func (part *partition) restore(mark schemas.Mark, ids []snapshot.ID, out *worker.Output) error {
	cfg := &part.p.cfg
	start, _, err := cfg.History.Bounds(part.ctx, part.number)
	if err != nil {
		return err
	}
	if err := part.overtaken(mark); err != nil {
		if cfg.Rebuild {
			return part.rebuild(schemas.Mark{Partition: part.number, Next: start})
		}
		return err
	}
	var problems []error
	for _, id := range ids {
		if id.Next > mark.Next || id.N > mark.N {
			continue // of a past that was never committed, or just published by nobody's future
		}
		if id.Next < start {
			problems = append(problems, fmt.Errorf("snapshot %s: the input it needs begins at offset %d and the topic at %d: retention is shorter than the snapshot gap", id, id.Next, start))
			continue
		}
		err := part.restoreFrom(id, mark, out)
		if err == nil {
			return nil
		}
		if part.ctx.Err() != nil || part.stream.isLost() {
			return err
		}
		if !errors.Is(err, snapshot.ErrDamaged) && !errors.Is(err, worker.ErrLineage) && !errors.Is(err, errUnreadable) {
			return err
		}
		cfg.Report(SnapshotSkipped{Partition: part.number, Snapshot: id.String(), Err: err})
		problems = append(problems, err)
	}
	if cfg.Rebuild {
		return part.rebuild(mark)
	}
	problems = append(problems, fmt.Errorf("partition %d: offset %d is committed and no snapshot leads there (%d found). "+
		"Give the bucket that holds the snapshots, or start once with --rebuild: it folds what the log still has and mutes the differences",
		part.number, mark.Next, len(ids)))
	return errors.Join(problems...)
}

// overtaken refuses a mark that is older than what has been said: going on from it
// would say it again. A commit that a broker carried out long after its sender had
// given it up, or another tool that set the group's offset, can do that.
func (part *partition) overtaken(mark schemas.Mark) error {
	last, err := part.p.cfg.History.Last(part.ctx, part.number)
	if err != nil {
		return err
	}
	if last <= mark.N {
		return nil
	}
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
	var w *worker.Worker
	var opaque error
	err := cfg.Snapshots.Open(part.ctx, id, func(r io.Reader) error {
		var err error
		if w, err = worker.Read(r, part.number, part.workerConfig()); err != nil {
			opaque = fmt.Errorf("snapshot %s: %w: %w", id, err, errUnreadable)
		}
		return opaque
	})
	if err != nil {
		return err
	}
	cut := w.Mark()
	if cut.Next != id.Next || cut.N != id.N {
		return fmt.Errorf("snapshot %s: holds the cut %d with n=%d: %w", id, cut.Next, cut.N, errUnreadable)
	}
	w.HistoryEnds(mark.Bootstrap)
	if mark.N > cut.N {
		err = cfg.History.Said(part.ctx, part.number, cut.N, mark.N, w.Taken(), w.Said)
		if err != nil {
			return err
		}
	}
	replayed, err := part.replay(w, cut.Next, mark.Next)
	if err != nil {
		return err
	}
	if err := w.Resume(mark, part.conditions(), out); err != nil {
		return err
	}
	part.worker, part.lastSnap, part.taken = w, id, w.Taken()
	cfg.Report(Recovered{
		Partition: part.number, Snapshot: id.String(), Next: mark.Next, N: mark.N,
		Records: replayed, Outputs: mark.N - cut.N, Users: w.Users(), Differences: len(out.Items), Took: cfg.Now() - began,
	})
	return nil
}

func (part *partition) conditions() worker.Conditions {
	return worker.Conditions{Wall: part.p.cfg.Now(), Paused: part.p.cfg.Paused()}
}

// replay gives a worker its dedup window and the input between its cut and to.
func (part *partition) replay(w *worker.Worker, cut, to int64) (replayed int64, err error) {
	from := min(w.DedupStart(), cut)
	start, _, err := part.p.cfg.History.Bounds(part.ctx, part.number)
	if err != nil {
		return 0, err
	}
	// What retention has removed of the dedup window cannot be remembered.
	from = max(from, min(start, cut))
	if from >= to {
		return 0, nil
	}
	err = part.p.cfg.History.Input(part.ctx, part.number, from, to, func(records []worker.Record) error {
		i := 0
		for i < len(records) && records[i].Offset < cut {
			i++
		}
		w.Remember(records[:i])
		replayed += int64(len(records) - i)
		return w.Replay(records[i:])
	})
	return replayed, err
}

// rebuild makes a worker without a snapshot: from all committed outputs and what
// the log still has.
func (part *partition) rebuild(mark schemas.Mark) error {
	cfg := &part.p.cfg
	start, end, err := cfg.History.Bounds(part.ctx, part.number)
	if err != nil {
		return err
	}
	w := worker.New(part.number, part.workerConfig())
	last := worker.Item{N: mark.N, Next: mark.Next, Clock: mark.Clock, Fired: mark.Fired}
	err = cfg.History.SaidAll(part.ctx, part.number, mark.N, func(it *worker.Item) error {
		last = worker.Item{N: it.N, Next: max(last.Next, it.Next), Clock: max(last.Clock, it.Clock), Fired: max(last.Fired, it.Fired)}
		return w.Retell(it)
	})
	if err != nil {
		return err
	}
	mark.N, mark.Next, mark.Clock, mark.Fired = last.N, max(last.Next, start), last.Clock, last.Fired
	if mark.Next > end {
		return fmt.Errorf("partition %d: outputs speak of input up to offset %d, and the topic ends at %d: it was deleted and made again", part.number, mark.Next, end)
	}
	w.Skip(start)
	replayed, err := part.replay(w, start, mark.Next)
	if err != nil {
		return err
	}
	out := &worker.Output{}
	w.Rebuild(mark, part.conditions(), out)
	part.worker = w
	if err := part.push(out); err != nil {
		return err
	}
	settled := w.Mark()
	if err := part.settle(settled); err != nil {
		return err
	}
	if part.stream.isLost() {
		return nil
	}
	if err := part.publishWhole(settled); err != nil {
		return err
	}
	cfg.Report(Recovered{
		Partition: part.number, Snapshot: "none (--rebuild)", Next: mark.Next, N: mark.N,
		Records: replayed, Outputs: mark.N, Users: w.Users(), Differences: len(out.Items),
	})
	return nil
}
