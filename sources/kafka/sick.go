package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"footfall/pipeline"
)

// A partition of an output topic may take no writes for a while: it has no leader, fewer
// replicas in sync than min.insync.replicas, or a bad disk. The others are to go on.
//
// The producer that met it is of no use meanwhile: its transaction is not ended before its
// marker is written there, too. So it is renewed apart, as long as that takes, and the
// partition is sick until it is: a renewal sweeps, and so has written to it. Until then
// Transact refuses what would go there at once, since the next producer that tried would be
// stuck as well.

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

func (p place) String() string { return fmt.Sprintf("%s/%d", p.topic, p.partition) }

// sickness is why a partition is sick, and whose renewal tells that it is not any more.
type sickness struct {
	of  *producer
	err error
}

// unackedError says that records were not acknowledged in time.
type unackedError struct {
	places []place
	err    error
}

func (e *unackedError) Error() string { return e.err.Error() }
func (e *unackedError) Unwrap() error { return e.err }

// unwritable refuses records of which some would go to a sick partition.
func (s *Session) unwritable(records []*kgo.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sick) == 0 {
		return nil
	}
	var e *pipeline.UnwritableError
	for _, r := range records {
		why, ok := s.sick[place{r.Topic, r.Partition}]
		switch {
		case !ok:
		case e == nil:
			e = &pipeline.UnwritableError{Partitions: []int32{r.Partition}, Err: why.err}
		case !slices.Contains(e.Partitions, r.Partition):
			e.Partitions = append(e.Partitions, r.Partition)
		}
	}
	if e == nil {
		return nil
	}
	return e
}

// Unwritable returns how many partitions of output topics take no writes.
func (s *Session) Unwritable() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sick)
}

// ails looks at why a transaction was not written in time. With an error its producer is to be
// tended: that is a partition's fault, or of the transaction before, the markers of which
// can't be written to a partition that this one may have nothing to do with. Where nothing can
// be learnt, as of brokers that do not answer, it returns nil.
func (s *Session) ails(ctx context.Context, p *producer, err error) error {
	late, ok := errors.AsType[*unackedError](err)
	if !ok || p.doubt != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	described, failed := kadm.NewClient(s.admin).DescribeTransactions(ctx, p.id)
	txn, known := described[p.id]
	if failed != nil || !known || txn.Err != nil {
		return nil
	}
	if strings.HasPrefix(txn.State, "Prepare") {
		s.conf.Log.Warn("a transaction can't be ended: the markers of the one before are not written; its producer is set aside until they are",
			zap.String("transactional_id", p.id), zap.String("state", txn.State))
		return fmt.Errorf("kafka: %w: %w", pipeline.ErrAborted, err)
	}
	e := &pipeline.UnwritableError{Tried: true, Err: fmt.Errorf("kafka: %w", err)}
	s.mu.Lock()
	for _, at := range late.places {
		s.sick[at] = sickness{p, e.Err}
		if !slices.Contains(e.Partitions, at.partition) {
			e.Partitions = append(e.Partitions, at.partition)
		}
	}
	s.mu.Unlock()
	s.conf.Log.Warn("output partitions take no writes; what goes there waits, and the others go on: look for partitions without a leader, or below min.insync.replicas",
		zap.Stringers("partitions", late.places), zap.Error(err))
	return e
}

// tend renews a producer that ails until that succeeds, or nothing will make it, and puts it
// back among the others.
func (s *Session) tend(p *producer) {
	if s.tending.Err() != nil { // the session ends
		s.idle <- p
		return
	}
	s.helpers.Go(func() {
		defer func() { s.idle <- p }()
		for {
			err := p.renew(s.tending, s)
			if err == nil || s.tending.Err() != nil {
				break
			}
			if fencing(err) {
				_ = s.fence(p, err) // Poll and Transact give it
				break
			}
			if !transient(err) {
				s.conf.Log.Warn("a producer can't be renewed", zap.String("transactional_id", p.id), zap.Error(err))
				break // whoever uses it next is told
			}
			select {
			case <-time.After(tendEvery):
			case <-s.tending.Done():
			}
		}
		s.cured(p)
	})
}

// tendEvery is how long a renewal that failed waits.
const tendEvery = time.Second

// cured takes back what a producer's renewal had to tell.
func (s *Session) cured(p *producer) {
	s.mu.Lock()
	var well []place
	for at, why := range s.sick {
		if why.of == p {
			well = append(well, at)
			delete(s.sick, at)
		}
	}
	s.mu.Unlock()
	if len(well) > 0 && p.sound {
		s.conf.Log.Info("output partitions take writes again", zap.Stringers("partitions", well))
	}
}
