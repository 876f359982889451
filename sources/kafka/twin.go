package kafka

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"footfall/pipeline"
)

// twin tells whether a producer was fenced by another process of the same name, and
// not because the broker has aborted a transaction that grew too old: that takes
// at least the timeout, and a transaction that has just begun is never too old.
//
// Taking the id back from a twin would fence it in turn, for ever. So the victim
// stops. It may have been fenced by itself, though: by an InitProducerID that the
// broker got to long after we had given it up, or by one of the process that had its name
// before. Or by nobody: a coordinator that is still loading its state takes a newer epoch than
// it knows for a wrong one, and a machine that was paused does not know how old its transaction
// is. So once in a while the id is taken back (see also rejoin): of two processes that live one
// is fenced again at once, and stops. What was sent is swept then, as if a broker had died. That
// both lived for a moment does no harm: by the group's generation each speaks for what it owns.
func (s *Session) twin(p *producer, err error) bool {
	switch {
	case !fencing(err), p.older:
		return false
	case p.stragglers > 0:
		p.stragglers--
		return false
	case p.predecessors > 0 && time.Since(p.made) < youth:
		p.predecessors--
		return false
	}
	again := !p.fencedAt.IsZero() && time.Since(p.fencedAt) < youth
	p.fencedAt = time.Now()
	p.fenced++
	if s.aged(p.began) {
		again = false
	}
	if again || p.fenced > producers {
		return true
	}
	s.conf.Log.Warn("a producer was fenced, and takes its id back; if another process has that, one of them ends",
		zap.String("transactional_id", p.id), zap.Error(err))
	return false
}

// bears notes the name that a producer has. One that its coordinator has just given it is older
// than one it has had if the coordinator goes by a state from before that, as one that is loading
// does (package comment): until renewals have moved the epoch past it, partitions that know the
// newer one refuse what is sent.
func (p *producer) bears(id int64, epoch int16) {
	if id != p.newest.id || epoch > p.newest.epoch {
		p.newest, p.older = called{id, epoch}, false
	}
}

// called is the brokers' for a producer.
type called struct {
	id    int64
	epoch int16
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
