package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"footfall/schemas"
)

// aside is a partition of ours that waits until its log answers: how far it reaches, or
// what it has of a span that is in doubt. It may have no leader for hours, and holds up no
// other meanwhile. What is polled of it is not taken in, but in doubt too: it is read again.
type aside struct {
	Assignment
	part   *part   // nil: nothing was answered yet
	doubt  mending // from what is committed on
	polled int64   // behind what was polled meanwhile
	backoff
}

// unanswered is an error of one partition's log that may end without our doing.
type unanswered struct {
	what string
	took schemas.Millis // to find that out
	error
}

func (u *unanswered) Unwrap() error { return u.error }

// answer makes an error of a partition's log, which was asked at a time, an *unanswered
// one, unless waiting does not mend it.
func (a *Archive) answer(ctx context.Context, what string, asked schemas.Millis, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case final(err):
		return fmt.Errorf("%s: %w", what, err)
	}
	return &unanswered{what, a.now() - asked, err}
}

// errLost says that a partition is ours no more. Poll reports it.
var errLost = errors.New("the partition is lost")

// final tells of errors that waiting does not mend.
func final(err error) bool {
	_, fatal := errors.AsType[*FatalError](err)
	return fatal || errors.Is(err, ErrGone)
}

// backoff is when something that failed is tried again: after longer and longer.
type backoff struct {
	attempt   int
	wait, due schemas.Millis // due by the clock
}

func (b *backoff) failed(now schemas.Millis) {
	const shortest, longest = 100, 10 * schemas.Second
	b.attempt++
	b.wait = min(max(2*b.wait, shortest), longest)
	b.due = now + b.wait
}

// again is when a log that gave no answer is asked again.
func (a *Archive) again(b *backoff) schemas.Millis {
	if b.attempt == 0 {
		return 0
	}
	return max(b.due, a.pause)
}

// unheard tells whether an error is that a log gave no answer, and says so. An edge may
// need half a minute to find that out, in which nothing else is done: so the longer it
// took, the longer no such log is asked.
func (a *Archive) unheard(err error, b *backoff) bool {
	none, ok := errors.AsType[*unanswered](err)
	if !ok {
		return false
	}
	now := a.now()
	b.failed(now)
	a.pause = max(a.pause, now+min(4*none.took, schemas.Minute))
	a.stats.Retries.Add(1)
	a.cfg.Report(Waiting{What: none.what, Err: none.error, Attempt: b.attempt, Wait: a.again(b) - now})
	return true
}

// ask takes up the partitions that are set aside, those that are due. Who gives no answer
// comes behind the others.
func (a *Archive) ask(ctx context.Context) error {
	began := a.now()
	for _, s := range slices.Clone(a.aside) {
		if a.now() < a.again(&s.backoff) {
			continue
		}
		err := a.takeUp(ctx, s)
		a.drop(s.Partition)
		switch {
		case errors.Is(err, errLost):
		case err == nil:
			a.parts[s.Partition] = s.part
		case a.unheard(err, &s.backoff):
			a.aside = append(a.aside, s)
			if a.now()-began >= a.cfg.AgeMax {
				return nil // what the others have has waited long enough
			}
		default:
			return err
		}
	}
	return nil
}

// drop forgets a partition, and that it was set aside.
func (a *Archive) drop(p Partition) {
	delete(a.parts, p)
	a.aside = slices.DeleteFunc(a.aside, func(s *aside) bool { return s.Partition == p })
}

// mendBatch mends the spans of the batch whose partitions are still ours. A partition whose
// log does not answer is set aside, and its span leaves the batch.
func (a *Archive) mendBatch(ctx context.Context) error {
	for _, s := range a.batch {
		if s.part == nil {
			continue
		}
		doubt := mending{first: s.First, at: s.First, next: s.Next}
		err := a.mend(ctx, s.Partition, &doubt)
		if err == nil {
			continue
		}
		of := &aside{Assignment: Assignment{Partition: s.Partition, Epoch: s.part.epoch}, part: s.part, doubt: doubt, polled: s.part.next}
		if !a.unheard(err, &of.backoff) {
			return err
		}
		a.drop(s.Partition)
		a.aside = append(a.aside, of)
		s.part.open, s.part = nil, nil
	}
	return nil
}

// ours gives the partitions that are ours, as far as anything is known of them.
func (a *Archive) ours(yield func(*part) bool) {
	for _, p := range a.parts {
		if !yield(p) {
			return
		}
	}
	for _, s := range a.aside {
		if s.part != nil && !yield(s.part) {
			return
		}
	}
}
