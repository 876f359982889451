package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// renewed is how the first renewal of a producer has ended.
type renewed struct {
	p   *producer
	err error
}

// firstProducers makes the producers of a session that begins, and renews them all at once.
//
// Coordinators may not answer, as while brokers are restarted, or be unable to write: a partition
// of __transaction_state has no leader, or an output partition that an earlier process has written
// to takes no marker. The session begins without those: each producer is renewed like one that
// meets that later (sick.go), until it is there others take its turns, and no marks are committed
// alone while it is that of marks.
func (s *Session) firstProducers(ctx context.Context) error {
	for i := range producers {
		s.producers = append(s.producers, s.newProducer(strconv.Itoa(i)))
	}
	s.numbered = producers
	s.marker = s.newProducer("marks")
	s.markless.Store(true)
	s.producers = append(s.producers, s.marker)
	answers := make(chan renewed, len(s.producers))
	for _, p := range s.producers {
		s.tenders.Go(func() {
			err := s.renewFirst(s.tending, p)
			if err != nil {
				answers <- renewed{p, err}
				s.persist(p)
			}
			if p == s.marker {
				s.markless.Store(false)
				s.marking <- p
			} else {
				s.giveBack(p)
			}
			if err == nil {
				answers <- renewed{p, nil}
			}
		})
	}
	there, err := s.awaitFirst(ctx, answers)
	if err != nil {
		return err
	}
	for _, p := range s.everyProducer() {
		if there[p] {
			continue
		}
		s.conf.Log.Warn("a producer can't be renewed yet; the session begins without it: look for partitions of __transaction_state without a leader",
			zap.String("transactional_id", p.id))
		if p != s.marker {
			s.tenders.Go(s.replace)
		}
	}
	return nil
}

// awaitFirst waits until one is there to take turns, and for the others a transaction's time more,
// and returns which are. An error that does not go by itself is told at once, and one that may
// when none is there.
func (s *Session) awaitFirst(ctx context.Context, answers <-chan renewed) (there map[*producer]bool, err error) {
	there = map[*producer]bool{}
	var enough <-chan time.Time
	for range cap(answers) {
		select {
		case a := <-answers:
			switch {
			case a.err == nil:
				there[a.p] = true
				if enough == nil && a.p != s.marker {
					enough = time.After(s.conf.TransactionTimeout)
				}
				continue
			case !transient(a.err):
				return nil, a.err
			case err == nil:
				err = a.err
			}
			continue
		case <-enough:
		case <-ctx.Done():
			return nil, fmt.Errorf("kafka: renew %s: %w", s.marker.id, ctx.Err())
		}
		break
	}
	if enough == nil {
		return nil, err
	}
	return there, nil
}

func (s *Session) newProducer(name string) *producer {
	return &producer{id: s.conf.transactional(name), made: time.Now(), predecessors: 1}
}

// renewFirst renews a producer that is new. A coordinator that gives no answer, as while brokers
// are restarted, is waited for.
func (s *Session) renewFirst(ctx context.Context, p *producer) error {
	err := insist(ctx, startWait, func(ctx context.Context) error { return p.renew(ctx, s) })
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fmt.Errorf("no answer from its coordinator for %v, the broker that leads its partition of __transaction_state: %w", startWait, err)
	}
	if err != nil {
		return fmt.Errorf("kafka: transactional id %s: %w", p.id, Lack{OnTransactionalID, s.conf.Group + "/", true, kmsg.ACLOperationWrite}.Named(err))
	}
	return nil
}
