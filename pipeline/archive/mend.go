package archive

import (
	"cmp"
	"context"
	"fmt"
)

// takeUp makes a partition one that is copied. Whatever may be in the table behind the
// committed offset is settled first: what the commit says was under way, and what is there
// although no commit says so (the commits have expired, or were moved by hand). Where that
// ends with an *unanswered, it may be tried again and goes on from there.
func (a *Archive) takeUp(ctx context.Context, s *aside) error {
	if s.part == nil {
		if err := a.look(ctx, s); err != nil {
			return err
		}
	}
	p, doubt := s.part, &s.doubt
	doubt.next = max(doubt.next, s.polled)
	if doubt.next == p.committed {
		return nil
	}
	if err := a.mend(ctx, p.partition, doubt); err != nil {
		return err
	}
	//failpoint:archive.mended
	p.ledger.add(p.committed, doubt.next, doubt.sum, a.cfg.SealRows)
	p.committed, p.next = doubt.next, doubt.next
	m := Mark{Ledger: p.ledger}
	lost, err := a.write(ctx, []Commit{{p.partition, p.epoch, p.committed, m.Encode(p.committed)}})
	if len(lost) > 0 {
		return errLost
	}
	return err
}

// look finds out where a partition stands that was assigned.
func (a *Archive) look(ctx context.Context, s *aside) error {
	p := &part{partition: s.Partition, epoch: s.Epoch}
	start, end, err := a.bounds(ctx, p.partition)
	if err != nil {
		return err
	}
	p.committed = start
	if s.Committed {
		p.committed = s.Next
	}
	var after int64
	err = a.retry(ctx, fmt.Sprintf("look for rows of %s/%d", p.partition.Topic, p.partition.Number), func() (err error) {
		if err := a.cfg.Table.Settle(ctx); err != nil {
			return err
		}
		after, err = a.cfg.Table.After(ctx, p.partition, p.committed)
		return err
	})
	if err != nil {
		return err
	}
	mark, unreadable := ParseMark(s.Metadata, p.committed)
	p.ledger = mark.Ledger
	doubtful := after
	if mark.UnderWay {
		doubtful = max(doubtful, mark.Next)
	}
	if max(p.committed, doubtful) > end { // which was asked for before the others were: it may have grown
		if start, end, err = a.bounds(ctx, p.partition); err != nil {
			return err
		}
	}
	p.end = end
	if err := inLog(p, start, doubtful); err != nil {
		return err
	}
	if unreadable != nil {
		// It only makes the audit forget: what is in the table is looked up anyway.
		a.cfg.Report(Forgotten{Partition: p.partition, Err: unreadable})
	}
	s.part, s.doubt = p, mending{first: p.committed, at: p.committed, next: p.committed}
	if doubtful > p.committed {
		a.stats.Doubts.Add(1)
		a.cfg.Report(TakenOver{Partition: p.partition, First: p.committed, Next: doubtful})
		//failpoint:archive.taken-over
		s.doubt.next = doubtful
	}
	p.next, p.since = s.doubt.next, s.doubt.next
	return nil
}

// bounds asks how far a partition's log reaches.
func (a *Archive) bounds(ctx context.Context, p Partition) (start, end int64, err error) {
	asked := a.now()
	start, end, err = a.cfg.Log.Bounds(ctx, p)
	return start, end, a.answer(ctx, fmt.Sprintf("look at %s/%d", p.Topic, p.Number), asked, err)
}

// inLog refuses a partition whose log does not have what was committed, or not
// what is in the table.
func inLog(p *part, start, doubtful int64) error {
	switch at := p.partition; {
	case p.committed < start:
		return &FatalError{fmt.Errorf("archive: %s/%d: offset %d is next, but the log begins at %d: %d offsets were deleted before they were archived; "+
			"to go on without them, stop the archive and set its group's offset of this partition to %d; make the topic's retention longer than the archive may be down",
			at.Topic, at.Number, p.committed, start, start-p.committed, start)}
	case p.committed > p.end || doubtful > p.end:
		return &FatalError{fmt.Errorf("archive: %s/%d: offset %d is next, but the log ends at %d: the topic was made anew or has lost records, and the tables have rows of the old one; "+
			"give the new topic a new name, or delete the rows with this _topic and _partition and the group's offset of this partition",
			at.Topic, at.Number, max(p.committed, doubtful), p.end)}
	}
	return nil
}

// mending is a span that is made whole in the table: every row of first <= offset < at is
// there, and adds up to sum.
type mending struct {
	first, at, next int64
	sum             Sum
}

// mend makes the table have every row of a span. It reads the records again and sends what
// a read-back does not find, until it finds everything. It waits for the table as long as it
// takes, and first for what is under way: an insert that gave no answer may still be carried
// out, and its rows would be there twice. Where the log does not answer it ends with an
// *unanswered, and goes on from there when it is called again.
func (a *Archive) mend(ctx context.Context, p Partition, m *mending) error {
	what := fmt.Sprintf("mend %s/%d offsets %d to %d", p.Topic, p.Number, m.first, m.next-1)
	var silence error
	err := a.retry(ctx, what, func() error {
		if err := a.cfg.Table.Settle(ctx); err != nil {
			return err
		}
		var table error
		asked := a.now()
		err := a.cfg.Log.Read(ctx, p, m.at, m.next, func(run []Record) error {
			s, err := a.mendRun(ctx, p, run)
			if err == nil { // else this run is read again
				m.sum.plus(s)
				m.at = run[len(run)-1].Offset + 1
			}
			table, asked = err, a.now()
			return err
		})
		if err != nil && table == nil {
			silence = a.answer(ctx, what, asked, err)
			return nil
		}
		return err
	})
	return cmp.Or(err, silence)
}

// mendRun makes the table have the rows of a run of records. Rows that were sent and
// acknowledged, and are still not there, are an error: sent again at once they would
// only fill a table that is behind, or hides them.
func (a *Archive) mendRun(ctx context.Context, p Partition, run []Record) (Sum, error) {
	rows := a.cfg.Table.Rows()
	span := Span{Partition: p, First: run[0].Offset, Next: run[len(run)-1].Offset + 1}
	for sent := false; ; sent = true {
		there, err := a.cfg.Table.Present(ctx, span)
		if err != nil {
			return Sum{}, fmt.Errorf("read back: %w", err)
		}
		has := make(map[Row]bool, len(there))
		for _, r := range there {
			has[r] = true
		}
		var sum Sum
		rows.Reset()
		for i := range run {
			if run[i].Control || !rows.Decode(p, &run[i]) {
				continue
			}
			h := Hash(&run[i])
			sum.add(h)
			if !has[Row{run[i].Offset, h}] {
				rows.Add(h)
			}
		}
		if rows.Len() == 0 {
			return sum, nil
		}
		if sent {
			return Sum{}, fmt.Errorf("%d rows were sent and acknowledged, and are not there", rows.Len())
		}
		//failpoint:mend.read-back
		// A token that was used before may be remembered by a server that has lost
		// the rows. The clock makes it new after a restart of this process too.
		a.fixes++
		span.Sum = sum
		token := fmt.Sprintf("%s/mend/%d/%d", token([]Span{span}), a.cfg.Now(), a.fixes)
		if err := rows.Insert(ctx, token); err != nil {
			return Sum{}, fmt.Errorf("send %d missing rows: %w", rows.Len(), err)
		}
		//failpoint:mend.sent
		a.stats.Mended.Add(int64(rows.Len()))
		a.cfg.Report(Mended{Partition: p, First: span.First, Next: span.Next, Rows: rows.Len()})
	}
}
