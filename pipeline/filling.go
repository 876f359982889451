package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Switch makes every partition go by other rules: those that are live at their next
// step at which everything due has been said, those that come later from the beginning.
// It returns at once; facts tell how it goes on.
func (p *Pipeline) Switch(rules *segment.Program) {
	p.rules.Store(rules)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, part := range p.parts {
		part.wake()
	}
}

// Rules are those that partitions go by, or will when they have been switched.
func (p *Pipeline) Rules() *segment.Program { return p.rules.Load() }

// follow switches the worker to the pipeline's rules when it may be, has missing
// histories filled, and has its users counted; caughtUp tells that its input has ended
// for now.
func (part *partition) follow(caughtUp bool) error {
	p := part.p
	if rules := p.rules.Load(); rules != part.rules && !part.worker.Pending() {
		part.abandonSnapshot()
		part.giveUpFilling()
		part.worker.Switch(rules)
		if part.worker.Filling() { // what was refused so far is to be read back
			if err := part.demandCommit(part.worker.Mark()); err != nil {
				return err
			}
		}
		part.ruled(rules)
		p.cfg.Report(Switched{Partition: part.number, Rules: rules.Hash(), Epoch: rules.Epoch().Number, Filling: part.worker.Filling()})
	}
	part.takeCensus(caughtUp)
	return part.fill()
}

// takeCensus has users counted by the values of quantiles when an epoch begins, and hands
// out what was found. History before its end is not counted: it is of no epoch.
func (part *partition) takeCensus(caughtUp bool) {
	w, cfg := part.worker, &part.p.cfg
	if cfg.Counted == nil || part.rules.Quantiles() == 0 {
		return
	}
	if at, of, done := w.Counted(); done {
		cfg.Counted(part.number, part.rules, segment.Count{Number: part.epochNumber, At: at, Still: part.epochStill, Of: of})
	}
	m := w.Mark()
	if m.Clock < part.epochNext || m.Bootstrap > 0 || m.Lane != schemas.Live && !caughtUp || w.Pending() || w.Filling() {
		return
	}
	part.epochNumber, part.epochNext = part.rules.EpochAt(m.Clock)
	part.epochStill = m.Lane != schemas.Live
	if part.epochNumber > part.rules.Epoch().Number || part.epochStill {
		w.Census()
	}
}

// ruled notes which rules the worker goes by.
func (part *partition) ruled(rules *segment.Program) {
	part.rules, part.switched, part.settled = rules, part.p.cfg.Now(), false
	part.epochNext = 0
}

// noteSettled reports when everyone has been evaluated under the rules.
func (part *partition) noteSettled(now schemas.Millis) {
	if !part.settled && part.worker.Settled() {
		part.settled = true
		took := max(0, now-part.switched) // now is the task's, which may be older than the switch
		part.p.cfg.Report(Settled{Partition: part.number, Rules: part.rules.Hash(), Epoch: part.rules.Epoch().Number, Took: took})
	}
}

// filling is the search for the history of cells that the rules ask for and the
// partition never kept: a goroutine of its own reads the log from its beginning, and of
// what retention has removed from it the archive, into a filler and hands it back; the live worker goes on meanwhile. It ends when it is done,
// when the rules are switched, or with the ownership.
type filling struct {
	cancel  context.CancelFunc
	done    chan filled // capacity 1
	attempt int         // from 1
	n       uint64      // outputs up to this number tell what was refused
}

// filled is what came of it.
type filled struct {
	filler   *worker.Worker
	from     int64 // first offset found, or where the log begins
	records  int64
	archived int64 // of them, from the archive
	missing  int64 // offsets that the log has no more, and the archive has not
	err      error
}

// fill begins to look for a missing history, or gives the worker what was found.
func (part *partition) fill() error {
	f := part.filling
	switch {
	case f == nil && part.worker.Filling() && !part.worker.Joining():
		if said := part.stream.mark(); said.Next >= part.worker.FilledUpTo() {
			part.beginFilling(said.N, 1)
		}
		return nil
	case f == nil:
		return nil
	}
	var got filled
	select {
	case got = <-f.done:
	default:
		return nil
	}
	part.giveUpFilling()
	switch {
	case got.err != nil && part.ctx.Err() != nil:
		return nil //nolint:nilerr // it is over with the ownership
	case errors.Is(got.err, ErrAway), errors.Is(got.err, ErrExpired):
		part.p.cfg.Report(FillingWaits{Partition: part.number, Attempt: f.attempt, Err: got.err})
		part.beginFilling(f.n, f.attempt+1)
		return nil
	case got.err != nil:
		return fmt.Errorf("partition %d: fill what new rules ask for: %w", part.number, got.err)
	}
	part.worker.Fill(got.filler)
	part.refresh = true
	part.p.cfg.Report(Filled{
		Partition: part.number, From: got.from, To: part.worker.FilledUpTo(),
		Records: got.records, Archived: got.archived, Missing: got.missing,
	})
	return nil
}

// beginFilling begins the search, once more after it was in vain; outputs up to n tell
// what was refused.
func (part *partition) beginFilling(n uint64, attempt int) {
	ctx, cancel := context.WithCancel(part.ctx)
	f := &filling{cancel: cancel, done: make(chan filled, 1), attempt: attempt, n: n}
	part.filling = f
	to := part.worker.FilledUpTo()
	got := filled{filler: part.worker.Filler(0, part.p.cfg.Decoder())}
	find := func() {
		part.findHistory(ctx, &got, to, n)
		f.done <- got
		part.wake()
	}
	switch beside := part.p.cfg.Beside; {
	case part.p.cfg.Inline && beside != nil:
		beside(find)
		return
	case part.p.cfg.Inline:
		find()
		return
	}
	part.p.wg.Go(func() {
		if attempt > 1 {
			part.p.cfg.Backoff(ctx, attempt-1)
		}
		select {
		case part.p.fillings <- struct{}{}:
			defer func() { <-part.p.fillings }()
			find()
		case <-ctx.Done():
		}
	})
}

// findHistory replays the archive and the log up to offset to into a filler, without the
// records that were refused.
func (part *partition) findHistory(ctx context.Context, got *filled, to int64, n uint64) {
	history, past := part.p.cfg.History, part.p.cfg.Past
	start, _, err := history.Bounds(ctx, part.number)
	if err != nil {
		got.err = err
		return
	}
	start = min(start, to) // the log's
	got.from, got.missing = start, start
	defer got.filler.Reach(to)
	if start == to && past == nil {
		return
	}
	got.err = part.findRefused(ctx, got.filler, to, n)
	replay := func(run []worker.Record) error {
		if got.records == 0 {
			got.from = run[0].Offset
		}
		got.records += int64(len(run))
		return got.filler.Replay(run)
	}
	if got.err == nil && start > 0 && past != nil {
		var kept int64
		kept, got.err = past.Older(ctx, part.number, start, replay)
		got.archived, got.missing = got.records, start-kept
	}
	if got.err == nil && start < to {
		got.filler.Reach(start)
		got.err = history.Input(ctx, part.number, start, to, replay)
	}
}

// findRefused tells a filler which records up to an offset were refused, as the log says
// with its outputs up to n, and the archive.
func (part *partition) findRefused(ctx context.Context, filler *worker.Worker, to int64, n uint64) error {
	var refused []int64
	err := part.p.cfg.History.SaidAll(ctx, part.number, n, func(it *worker.Item) error {
		if d := it.DeadLetter; d != nil {
			refused = append(refused, d.Pos.Offset)
		}
		return nil
	})
	if past := part.p.cfg.Past; err == nil && past != nil {
		var more []int64
		more, err = past.Refused(ctx, part.number, to)
		refused = append(refused, more...)
	}
	slices.Sort(refused)
	for _, offset := range slices.Compact(refused) {
		filler.Refuse(offset)
	}
	return err
}

// giveUpFilling ends a search under way.
func (part *partition) giveUpFilling() {
	if part.filling != nil {
		part.filling.cancel()
		part.filling = nil
	}
}

// wake has a partition without traffic do a step; one with a full inbox has steps to come.
func (part *partition) wake() {
	select {
	case part.inbox <- task{}:
	default:
	}
}

// Facts of rules that change.
type (
	// Switched says that a partition goes by other rules; everyone is evaluated under
	// them, behind live records.
	Switched struct {
		Partition int32
		Rules     uint64
		Epoch     uint64
		Filling   bool // they ask for what was not kept: some sets say nothing yet
	}
	// Filled says that the history was found of what new rules ask for.
	Filled struct {
		Partition int32
		From, To  int64 // input offsets
		Records   int64
		Archived  int64 // of them, from the archive: the log has them no more
		Missing   int64 // offsets that the log has no more and the archive has not; markers of transactions too
	}
	// FillingWaits says that the search for it begins again: the log or the archive is away,
	// or retention has removed some of what was being read.
	FillingWaits struct {
		Partition int32
		Attempt   int
		Err       error
	}
	// Settled says that everyone has been evaluated under the rules.
	Settled struct {
		Partition int32
		Rules     uint64
		Epoch     uint64
		Took      schemas.Millis
	}
)
