package kafka

import (
	"fmt"
	"time"

	"footfall/pipeline"
)

// twin tells whether a producer was fenced by another process of the same name, and
// not because the broker has aborted a transaction that grew too old: that takes
// at least the timeout, and a transaction that has just begun is never too old.
//
// Taking the id back from a twin would fence it in turn, for ever. So the victim
// stops. It may have been fenced by itself, though: by an InitProducerID that the
// broker got to long after we had given it up, or by one of the process that had its name
// before.
func (s *Session) twin(p *producer, err error) bool {
	if !fencing(err) {
		return false
	}
	if p.stragglers > 0 {
		p.stragglers--
		return false
	}
	if p.predecessors > 0 && time.Since(p.made) < youth {
		p.predecessors--
		return false
	}
	p.fenced++
	return !s.aged(p.began) || p.fenced > producers
}

// aged tells that a transaction may have been aborted for its age.
func (s *Session) aged(began time.Time) bool {
	return time.Now().Round(0).Sub(began) >= s.conf.TransactionTimeout/2
}

// fence ends the session.
func (s *Session) fence(p *producer, err error) error {
	err = fmt.Errorf("kafka: %w: transactional id %q has been taken over; give each running instance its own: %w", pipeline.ErrFenced, p.id, err)
	s.owns.fail(err)
	return err
}
