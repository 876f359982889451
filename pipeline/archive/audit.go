package archive

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"footfall/schemas"
)

// auditor is when the audit was where, by the clock.
type auditor struct {
	due      schemas.Millis // the next round
	sampling schemas.Millis // the next sample is due
	epoch    string         // the server's, at the last round
}

// Limits of one round of the audit.
const (
	roundSpans = 64
	roundRows  = 8 << 20 // unless one span has more
)

// suspect makes every span one that must be looked at soon: something has happened
// that may have made the server lose rows.
func (d *auditor) suspect(a *Archive) {
	for p := range a.ours {
		for i := range p.ledger.spans {
			p.ledger.spans[i].checked = 0
		}
	}
	d.due = min(d.due, a.now()+schemas.Second)
}

// target is a span of a ledger to be audited.
type target struct {
	part  *part
	entry *entry
}

// round audits the spans that have grown, and some of those that have not been
// looked at for long. Errors of the table are reported, and the next round comes
// soon; only what mending returns is fatal.
func (a *Archive) round(ctx context.Context) error {
	wait := a.cfg.AuditEvery
	defer func() { a.audit.due = a.now() + wait }() // from its end on: one that takes longer would leave no time for what arrives
	epoch, err := a.cfg.Table.Epoch(ctx)
	if err == nil && epoch != a.audit.epoch {
		if a.audit.epoch != "" {
			a.cfg.Report(Restarted{Epoch: epoch})
			a.audit.suspect(a)
		}
		a.audit.epoch = epoch
	}
	if err := a.trim(ctx); err != nil {
		return err
	}
	defer a.age()
	targets, more := a.targets()
	if len(targets) == 0 {
		return nil
	}
	var sums []Sum
	if err == nil {
		spans := make([]Span, len(targets))
		for i, t := range targets {
			spans[i] = Span{t.part.partition, t.entry.first, t.entry.next, t.entry.sum}
		}
		sums, err = a.cfg.Table.Sums(ctx, spans)
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.cfg.Report(Waiting{What: "audit", Err: err, Attempt: 1, Wait: a.cfg.AuditEvery})
		return nil
	}
	wrong, rows := 0, int64(0)
	for i, t := range targets {
		rows += sums[i].Rows
		e := t.entry
		if sums[i] == e.sum {
			e.extra = Sum{}
		}
		known := e.sum
		known.plus(e.extra)
		if sums[i] != known || e.wrong {
			if a.now() < a.again(&t.part.silent) {
				continue // since this round began
			}
			if !e.wrong {
				wrong++
				a.cfg.Report(Differed{Span: Span{t.part.partition, e.first, e.next, e.sum}, Got: sums[i]})
			}
			if err := a.repair(ctx, t); err != nil {
				return err
			}
			continue // and look again
		}
		e.checked = a.now()
		e.since = e.checked
	}
	a.stats.Audited.Add(int64(len(targets)))
	a.stats.Wrong.Add(int64(wrong))
	a.cfg.Report(Audited{Spans: len(targets), Wrong: wrong, Rows: rows})
	if more || wrong > 0 {
		wait = min(wait, schemas.Second)
	}
	return nil
}

// age notes how long ago the span was seen whole that was seen so longest ago, and how
// many have rows that are too many.
func (a *Archive) age() {
	now := a.now()
	oldest, surplus := now, int64(0)
	for p := range a.ours {
		for i := range p.ledger.spans {
			e := &p.ledger.spans[i]
			if e.since == 0 {
				e.since = now
			}
			oldest = min(oldest, e.since)
			if e.extra != (Sum{}) {
				surplus++
			}
		}
	}
	a.stats.Oldest.Store(int64(a.wall - (now - oldest)))
	a.stats.Surplus.Store(surplus)
}

// trim makes one partition's ledger forget what lies before the beginning of the
// log: the one whose turn it is, if one is due.
func (a *Archive) trim(ctx context.Context) error {
	var turn *part
	for _, p := range a.parts {
		if turn == nil || cmp.Or(cmp.Compare(p.trimmed, turn.trimmed),
			cmp.Compare(p.partition.Topic, turn.partition.Topic), cmp.Compare(p.partition.Number, turn.partition.Number)) < 0 {
			turn = p
		}
	}
	now := a.now()
	if turn == nil || now-turn.trimmed < a.cfg.AuditAgain {
		return nil
	}
	start, _, err := a.cfg.Log.Bounds(ctx, turn.partition)
	if err != nil {
		turn.trimmed = now // it may have no leader, and the others their turns
		return ctx.Err()
	}
	turn.ledger.trim(start)
	if err := a.behead(ctx, turn, start); err != nil {
		return ctx.Err()
	}
	turn.trimmed = now
	turn.since = max(turn.since, min(start, turn.committed)) // samples are of what is still there
	return nil
}

// behead takes off the first span of a ledger what the log does not have any more. Whoever
// lets old months go in the table then loses nothing that could be mended; and of what was
// lost before, nothing could be either.
func (a *Archive) behead(ctx context.Context, p *part, start int64) error {
	if len(p.ledger.spans) == 0 {
		return nil
	}
	switch e := &p.ledger.spans[0]; {
	case start <= e.first:
	case start >= e.next:
		e.first, e.sum, e.extra = e.next, Sum{}, Sum{}
	case e.extra != Sum{}: // nobody knows on which side of start they lie; it is said that they are there
	default:
		got, err := a.cfg.Table.Sums(ctx, []Span{{p.partition, e.first, start, Sum{}}})
		if err != nil {
			return err
		}
		e.first, e.sum = start, Sum{e.sum.Rows - got[0].Rows, e.sum.Hash - got[0].Hash}
	}
	return nil
}

// targets returns the spans of a round: of those that have grown since they were seen in
// the table, and those not looked at for AuditAgain, the ones that were seen longest ago. So
// each has its turn, however fast others grow. more says that some of those that are left
// over have waited for longer than there is between two rounds.
func (a *Archive) targets() (chosen []target, more bool) {
	now := a.now()
	for _, p := range a.parts {
		for i := range p.ledger.spans {
			e := &p.ledger.spans[i]
			if e.wrong && now < a.again(&p.silent) {
				continue // it would have the first turn each time, and can't be mended
			}
			if e.checked == 0 || now-e.checked >= a.cfg.AuditAgain {
				chosen = append(chosen, target{p, e})
			}
		}
	}
	slices.SortFunc(chosen, func(x, y target) int {
		return cmp.Or(
			cmp.Compare(x.entry.since, y.entry.since),
			cmp.Compare(y.entry.next, x.entry.next),
			cmp.Compare(x.part.partition.Topic, y.part.partition.Topic),
			cmp.Compare(x.part.partition.Number, y.part.partition.Number))
	})
	rows := int64(0)
	for i, t := range chosen {
		if rows += t.entry.sum.Rows; i >= roundSpans || i > 0 && rows > roundRows {
			return chosen[:i], now-t.entry.since > a.cfg.AuditEvery
		}
	}
	return chosen, false
}

// repair mends a span whose rows are not the ledger's, or not the log's. What the log no
// longer has can only be reported, and rows too many are left: a person must look. Where the
// log gives no answer, a later round asks again.
func (a *Archive) repair(ctx context.Context, t target) error {
	p, e := t.part, t.entry
	start, _, err := a.bounds(ctx, p.partition)
	from := min(max(start, e.first), e.next)
	m := &p.mending
	if err == nil {
		if m.first != from || m.at > e.next { // else it goes on
			*m = mending{first: from, at: from}
		}
		if m.next = e.next; from < e.next { // else the log has nothing of it any more, and may say so for ever
			err = a.mend(ctx, p.partition, m)
		}
	}
	switch {
	case a.unheard(err, &p.silent):
		e.wrong, e.checked = true, 0
		return nil
	case errors.Is(err, ErrGone):
		return nil // retention was faster: the next round knows the new beginning
	case err != nil:
		return err
	}
	want := m.sum
	p.mending, p.silent, e.wrong = mending{}, backoff{}, false
	if from > e.first {
		gone := Span{p.partition, e.first, from, Sum{e.sum.Rows - want.Rows, e.sum.Hash - want.Hash}}
		if left, err := a.cfg.Table.Sums(ctx, []Span{gone}); err == nil && left[0] != gone.Sum {
			a.stats.Unmendable.Add(1)
			a.cfg.Report(Unmendable{Span: gone, Got: left[0], Start: start})
		}
		p.ledger.trim(e.first)
	}
	e.first, e.sum, e.extra = from, want, Sum{} // the log is right, also where the contract has changed since
	now, err := a.cfg.Table.Sums(ctx, []Span{{p.partition, e.first, e.next, e.sum}})
	if err == nil && now[0].Rows > want.Rows {
		a.stats.Unmendable.Add(1)
		a.cfg.Report(Unmendable{Span: Span{p.partition, e.first, e.next, want}, Got: now[0], Start: start})
		e.extra = Sum{now[0].Rows - want.Rows, now[0].Hash - want.Hash} // said once
	}
	return nil // an error is not lost: the next round asks again
}
