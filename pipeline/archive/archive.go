// Package archive is how rows reach a table once, although the table forgets what
// it acknowledged and applies what it refused. It may decide what is sent, when,
// and again; it may not know SQL, Kafka, or what a row means, nor read a clock.
//
// # A batch's way
//
//  1. Records are polled, and their rows collected, until there are enough or the
//     oldest has waited long enough. A partition's part of the batch is a span.
//  2. Every span is written down, in the metadata of its partition's commit, with
//     the offset as it was: from here on, that span may be in the table.
//  3. The rows are inserted, under a token made of the spans.
//  4. The offsets behind the spans are committed, and the spans' sums go into the
//     ledgers, which are in the same metadata.
//
// Whenever it is not known what the table has (an insert that failed in any way,
// a partition taken over with a span under way, rows behind the committed offset),
// the span is mended: its records are read from the log again, its rows are read
// back, what is missing is sent under a token never used before, and that until
// the table has them all. There is no other way to settle a doubt. All wait for a table
// that does not answer; but a partition whose log does not (it has no leader) is set
// aside until it does, and holds up no other.
//
// An insert that was acknowledged is not believed for ever either: the audit
// compares the ledgers with the table, the newest spans every few seconds and the
// old ones now and then, all of them soon after an error or a restart of the
// server, and mends what differs.
//
// A ledger knows nothing of a record that was never sent, or was sent as something else.
// So now and then a run of records is read again that was copied since the archive began,
// and their hashes are compared with the rows'. Not all of them: a topic read twice would
// cost as much as the archive itself.
//
// A Comparison asks more, and is asked for by a person: it reads the topics again and
// compares each record with its row, contents too.
//
// # Non-obvious
//
// A token alone is not enough: a server that is killed between remembering the
// token and keeping the rows drops the second attempt, too, and reports success
// (measured: 3 acknowledged batches lost in 180 kills).
//
// A partition that is revoked is let go when its rows are sent and committed, and
// who takes one over first waits for inserts that are under way. But a member that
// was thrown out of the group without knowing may still begin an insert, beside the
// partition's new owner. The same rows are then there twice, with the same position:
// a table that keeps one row a position makes them one. Nothing can be lost by it,
// because an offset is committed only when every row before it is there.
package archive

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"footfall/schemas"
)

// Config is what an archive needs. Zero values of the limits are the defaults.
type Config struct {
	Log   Log
	Table Table

	Now   func() schemas.Millis                             // the wall clock, which may be set back
	Sleep func(ctx context.Context, d schemas.Millis) error // until d has passed or ctx ends

	Report func(Fact) // must not block; nil: nobody listens

	RowsMax    int            // rows in a batch; 50,000
	BytesMax   int            // bytes in a batch, about; 16 MiB
	AgeMax     schemas.Millis // how long a row may wait; 1 s
	AuditEvery schemas.Millis // time between two rounds of the audit; 10 s
	AuditAgain schemas.Millis // an unchanged span is audited again after this, and a sample taken; 1 h
	SealRows   int64          // rows after which a span of a ledger grows no more; 1 Mi
}

func (c *Config) setDefaults() {
	def := func(v *schemas.Millis, d schemas.Millis) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.AgeMax, schemas.Second)
	def(&c.AuditEvery, 10*schemas.Second)
	def(&c.AuditAgain, schemas.Hour)
	if c.RowsMax == 0 {
		c.RowsMax = 50_000
	}
	if c.BytesMax == 0 {
		c.BytesMax = 16 << 20
	}
	if c.SealRows == 0 {
		c.SealRows = sealRows
	}
	if c.Report == nil {
		c.Report = func(Fact) {}
	}
}

// Archive copies the partitions of a Log into a Table. One goroutine runs it.
type Archive struct {
	cfg   Config
	stats Stats

	parts map[Partition]*part
	aside []*aside       // partitions that wait for their logs, in the order in which they are asked
	pause schemas.Millis // no log that gave no answer is asked again before, by the clock
	rows  Rows           // of the batch
	batch []*span        // of the batch, in the order in which they began
	since schemas.Millis // when the batch began, by the clock
	in    Batch          // what was polled last

	audit auditor
	fixes uint64 // inserts that mended something; part of their tokens

	clock, wall schemas.Millis // see now
}

// part is one partition that is ours.
type part struct {
	partition Partition
	epoch     int64 // of the ownership
	since     int64 // the first offset that this archive has copied
	committed int64 // every row before it is in the table
	next      int64 // first offset that was not polled; committed <= next
	end       int64 // of the partition, as far as known
	ledger    Ledger
	open      *span          // of the batch; nil: none
	trimmed   schemas.Millis // when the ledger last was, by the clock

	mending mending // the span of the ledger that is mended, and how far that has come
	silent  backoff // the log gave no answer for it
}

// span is a partition's share of the batch. part is nil once the partition is lost.
type span struct {
	Span
	part *part
}

// Stats are an archive's counters. They may be read at any time.
type Stats struct {
	Records    atomic.Int64 // archived, those that give no row included
	Rows       atomic.Int64 // archived
	Foreign    atomic.Int64 // of the records: those that nobody of ours wrote
	Batches    atomic.Int64 // inserted
	Doubts     atomic.Int64 // times it was not known what the table has
	Mended     atomic.Int64 // rows that were missing and sent again
	Retries    atomic.Int64 // attempts at something that failed before
	Audited    atomic.Int64 // spans compared
	Wrong      atomic.Int64 // spans that differed
	Unmendable atomic.Int64 // of them: those that sending again does not mend
	Surplus    atomic.Int64 // spans that have rows too many, as of the last look

	Sampled      atomic.Int64 // records that were read again and compared with their rows
	WrongSamples atomic.Int64 // samples in which the rows were not those that the records give

	Oldest     atomic.Int64 // Unix milliseconds: every span was seen whole since, or is younger; 0: not audited yet
	Last       atomic.Int64 // Unix milliseconds: when the last batch was in; 0: none
	Lag        atomic.Int64 // records polled by nobody yet, in the partitions that are ours
	Partitions atomic.Int64 // that are ours
}

// New returns an archive that owns nothing yet.
func New(cfg Config) *Archive {
	cfg.setDefaults()
	return &Archive{cfg: cfg, parts: map[Partition]*part{}, rows: cfg.Table.Rows()}
}

// Stats returns the archive's counters.
func (a *Archive) Stats() *Stats { return &a.stats }

// Run copies until ctx ends, sends what is in the making, and then returns ctx's
// error, or the one for which that could not be sent; or until something is wrong that
// waiting does not mend. What is under way when ctx ends goes on until work ends: an
// insert that is broken off may be carried out all the same, behind the next owner's back.
func (a *Archive) Run(ctx, work context.Context) error {
	now := a.now()
	a.audit.due, a.audit.sampling = now+a.cfg.AuditEvery, now+a.cfg.AuditAgain
	for {
		until := a.audit.due
		if len(a.batch) > 0 {
			until = min(until, a.since+a.cfg.AgeMax)
		}
		for _, s := range a.aside {
			until = min(until, a.again(&s.backoff))
		}
		wait := max(0, until-a.now()) // by the clock; the log goes by the wall
		if err := a.cfg.Log.Poll(ctx, a.wall+wait, &a.in); err != nil {
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				if failed := a.flush(work); failed != nil && work.Err() == nil {
					return failed
				}
				return err
			}
			return err
		}
		//failpoint:archive.polled
		if err := a.take(work); err != nil {
			return err
		}
		now := a.now()
		if a.rows.Len() >= a.cfg.RowsMax || a.rows.Size() >= a.cfg.BytesMax || len(a.batch) > 0 && now >= a.since+a.cfg.AgeMax {
			if err := a.flush(work); err != nil {
				return err
			}
		}
		if now >= a.audit.due && ctx.Err() == nil {
			if err := a.round(work); err != nil {
				return err
			}
			if err := a.sample(work); err != nil {
				return err
			}
		}
	}
}

// now is the clock that intervals are measured by. It goes on as the wall does, and
// stands still where that is set back: what has waited by then has waited, and nothing
// waits for a time of day to come a second time.
func (a *Archive) now() schemas.Millis {
	wall := a.cfg.Now()
	a.clock += max(0, wall-a.wall)
	a.wall = wall
	return a.clock
}

// take deals with what was polled.
func (a *Archive) take(ctx context.Context) error {
	if err := a.lose(ctx, a.in.Lost); err != nil {
		return err
	}
	if len(a.in.Revoked)+len(a.in.Assigned) > 0 {
		// The batch goes first: what is revoked is still ours to send and to commit,
		// and a partition that comes back at an earlier offset would add the same rows
		// to the same batch.
		if err := a.flush(ctx); err != nil {
			return err
		}
	}
	for _, p := range a.in.Revoked {
		a.drop(p)
	}
	for _, as := range a.in.Assigned {
		a.aside = append(a.aside, &aside{Assignment: as})
	}
	if err := a.ask(ctx); err != nil {
		return err
	}
	for i := range a.in.Runs {
		a.collect(&a.in.Runs[i])
	}
	lag := int64(0)
	for p := range a.ours {
		lag += max(0, p.end-p.next)
	}
	a.stats.Lag.Store(lag)
	a.stats.Partitions.Store(int64(len(a.parts) + len(a.aside)))
	return nil
}

// lose forgets the partitions that are gone. Their rows are their new owner's to
// send. Where the batch has some it is given up, and what it has of the others is
// read and sent again, which is rare enough not to need a way of its own.
func (a *Archive) lose(ctx context.Context, lost []Partition) error {
	given := false
	for _, p := range lost {
		if pt := a.parts[p]; pt != nil && pt.open != nil {
			pt.open.part, given = nil, true
		}
		a.drop(p)
	}
	if !given {
		return nil
	}
	a.rows.Reset()
	if err := a.mendBatch(ctx); err != nil {
		return err
	}
	return a.flush(ctx)
}

// collect adds a run's rows to the batch.
func (a *Archive) collect(run *Run) {
	p := a.parts[run.Partition]
	if p == nil {
		for _, s := range a.aside { // else it is lost since
			if n := len(run.Records); n > 0 && s.Partition == run.Partition {
				s.polled = max(s.polled, run.Records[n-1].Offset+1)
			}
		}
		return
	}
	p.end = max(p.end, run.End)
	for i := range run.Records {
		r := &run.Records[i]
		if r.Offset < p.next {
			continue // mended when the partition was assigned
		}
		if p.open == nil {
			if len(a.batch) == 0 {
				a.since = a.now()
			}
			p.open = &span{Span: Span{Partition: p.partition, First: p.committed}, part: p}
			a.batch = append(a.batch, p.open)
		}
		p.next = r.Offset + 1
		p.open.Next = p.next
		a.stats.Records.Add(1)
		switch {
		case r.Control:
		case a.rows.Decode(p.partition, r):
			h := Hash(r)
			p.open.Sum.add(h)
			a.rows.Add(h)
		case a.rows.Foreign(): // counted here alone: mending and samples read it again
			a.stats.Foreign.Add(1)
		}
	}
}

// flush takes the batch into the table and commits it.
func (a *Archive) flush(ctx context.Context) error {
	if len(a.batch) == 0 {
		return nil
	}
	if rows := a.rows.Len(); rows > 0 {
		//failpoint:archive.collected
		lost, err := a.commit(ctx, true)
		if err != nil {
			return err
		}
		//failpoint:archive.marked
		if len(lost) > 0 { // no mark tells their new owners what would come behind their backs
			return a.lose(ctx, lost)
		}
		spans := make([]Span, len(a.batch))
		for i, s := range a.batch {
			spans[i] = s.Span
		}
		began := a.now()
		if err := a.rows.Insert(ctx, token(spans)); err != nil {
			if err := a.doubt(ctx, err); err != nil {
				return err
			}
		}
		//failpoint:archive.inserted
		a.stats.Batches.Add(1)
		a.stats.Rows.Add(int64(rows))
		a.cfg.Report(Inserted{Rows: rows, Spans: len(spans), Took: a.now() - began})
		a.stats.Last.Store(int64(a.wall))
	}
	for _, s := range a.batch {
		if s.part != nil { // the partition was not lost
			s.part.committed, s.part.open = s.Next, nil
			s.part.ledger.add(s.First, s.Next, s.Sum, a.cfg.SealRows)
		}
	}
	lost, err := a.commit(ctx, false)
	//failpoint:archive.committed
	a.batch = a.batch[:0]
	a.rows.Reset()
	return errors.Join(err, a.lose(ctx, lost))
}

// doubt mends the batch's spans after an insert that failed for the reason given.
// A span whose partition is lost is left to its new owner.
func (a *Archive) doubt(ctx context.Context, reason error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if fatal := (*FatalError)(nil); errors.As(reason, &fatal) {
		return reason
	}
	a.stats.Doubts.Add(1)
	a.audit.suspect(a)
	a.cfg.Report(Doubted{Spans: len(a.batch), Err: reason})
	//failpoint:archive.doubted
	return a.mendBatch(ctx)
}

// commit writes the marks of the batch's partitions: with their spans under way,
// or behind them. It gives those of partitions that are lost, and have none.
func (a *Archive) commit(ctx context.Context, underWay bool) (lost []Partition, err error) {
	marks := make([]Commit, 0, len(a.batch))
	for _, s := range a.batch {
		if s.part == nil {
			continue
		}
		m := Mark{Ledger: s.part.ledger}
		if underWay {
			m.UnderWay, m.Next, m.Sum = true, s.Next, s.Sum
		}
		marks = append(marks, Commit{s.Partition, s.part.epoch, s.part.committed, m.Encode(s.part.committed)})
	}
	return a.write(ctx, marks)
}

// write commits marks, however long it takes.
func (a *Archive) write(ctx context.Context, marks []Commit) (lost []Partition, err error) {
	if len(marks) == 0 {
		return nil, nil
	}
	err = a.retry(ctx, "commit the archive's offsets", func() (err error) {
		lost, err = a.cfg.Log.Commit(ctx, marks)
		return err
	})
	return lost, err
}

// retry does f until it succeeds, ctx ends, or it fails fatally; it waits longer
// and longer between attempts, and reports each failure.
func (a *Archive) retry(ctx context.Context, what string, f func() error) error {
	for again := (backoff{}); ; {
		err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if final(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
		again.failed(a.now())
		a.stats.Retries.Add(1)
		a.cfg.Report(Waiting{What: what, Err: err, Attempt: again.attempt, Wait: again.wait})
		if err := a.cfg.Sleep(ctx, again.wait); err != nil {
			return err
		}
	}
}
