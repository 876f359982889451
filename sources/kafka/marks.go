package kafka

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline"
)

// Marks that nothing was said for are committed in a transaction too, of a producer
// of their own, although a plain offset commit is one request less. A plain commit
// is fenced by nothing but the generation: one that a broker gets to long after its
// sender gave it up (it hung, or the network kept it) is carried out then, over
// what was committed since, and sets the partition back: from there on everything
// would be said again. A transaction has an epoch. When its outcome is not known the
// epoch is moved on, and what is still under way is refused whenever it arrives.
//
// kgo ends no transaction in which nothing was produced, so the requests are made
// here.

// commitMarks commits marks alone.
func (s *Session) commitMarks(ctx context.Context, cut cut) error {
	if len(cut.marks) == 0 {
		return nil
	}
	var p *producer
	select {
	case p = <-s.marking:
	default:
		if s.markless.Load() {
			return fmt.Errorf("kafka: %w: %s is being renewed", pipeline.ErrAborted, s.marker.id)
		}
		select {
		case p = <-s.marking:
		case <-ctx.Done():
			return fmt.Errorf("kafka: %w: %w", pipeline.ErrAborted, ctx.Err())
		}
	}
	used, err := s.transactMarks(ctx, p, cut)
	if p.ails {
		p.ails = false
		s.tendMarks(p)
	} else {
		s.marking <- p
	}
	if outdated(err) {
		return s.hear(ctx, used, cut, err)
	}
	return err
}

// transactMarks is transact without records.
func (s *Session) transactMarks(ctx context.Context, p *producer, cut cut) (used membership, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*s.conf.TransactionTimeout)
	defer cancel()
	if !p.sound {
		if err := p.renew(ctx, s); err != nil {
			p.ails = s.spared(p, err)
			return used, s.failed(p, fmt.Errorf("renew %s: %w", p.id, err))
		}
	}
	if err := s.seen(ctx, p, nil, cut.marks); err != nil {
		return used, s.failed(p, err)
	}
	used, gone := s.owns.commitAs(cut.epochs)
	if len(gone) > 0 {
		return used, &pipeline.LostError{Partitions: gone}
	}
	p.began = time.Now().Round(0)
	//failpoint:marks.adding
	parts := s.partsOf(p, p.pid, p.epoch, nil, false)
	if err := s.addOffsets(ctx, p, p.pid, p.epoch, used, cut); err != nil {
		p.lost(nil, cut.marks, err)
		s.abort(ctx, p, err)
		s.noteEnd(p, parts, false)
		return used, s.refused(p, err)
	}
	//failpoint:marks.committing
	acknowledged(parts)
	if p.said.behind(s.broken.Load(), parts) {
		s.abort(ctx, p, errBehind)
		s.noteEnd(p, parts, false)
		return used, s.failed(p, errBehind)
	}
	pid, epoch := p.pid, p.epoch
	if err := p.end(ctx, true); err != nil {
		p.doubt = &doubt{pid: pid, epoch: epoch, parts: parts, marks: slices.Clone(cut.marks)}
		return used, s.unknown(ctx, p, cut, err)
	}
	//failpoint:marks.committed
	p.fenced = 0
	s.noteEnd(p, parts, true)
	return used, nil
}

// end commits a transaction of marks, or aborts it.
func (p *producer) end(ctx context.Context, commit bool) error {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = p.id, p.pid, p.epoch, commit
	return retry(ctx, func() error {
		resp, err := req.RequestWith(ctx, p.cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err == nil && resp.Version >= 5 && resp.ProducerID >= 0 { // transactions v2: the epoch of the next one
			p.pid, p.epoch = resp.ProducerID, resp.ProducerEpoch
		}
		return err
	})
}
