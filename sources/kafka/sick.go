package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"footfall/pipeline"
)

// A partition of an output topic may take no writes for a while: it has no leader, fewer
// replicas in sync than min.insync.replicas, or a bad disk. The others are to go on.
//
// The producer that met it is of no use meanwhile: its transaction is not ended before its
// marker is written there, too. So it is renewed apart, as long as that takes, another takes
// its turns, and the partition is sick until it is: a renewal sweeps, and so has written to it.
// Until then Transact refuses what would go there at once, since the next producer that tried
// would be stuck as well. Whatever lacks a leader or replicas by then is sick too, until it
// does not: to find that out one by one takes a transaction's time each.

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

func (p place) String() string { return fmt.Sprintf("%s/%d", p.topic, p.partition) }

// sickness is why a partition is sick, and whose renewal tells that it is not any more; nil:
// its leader does.
type sickness struct {
	of  *producer
	err error
}

// unackedError says that records were not acknowledged in time.
type unackedError struct {
	places []place
	all    bool // no record was
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
	if poor, err := s.poor(ctx); err == nil {
		s.sicken(nil, poor, errPoor)
	}
	sick := late.places
	if late.all {
		if sick = s.blamed(p, sick); len(sick) == 0 {
			s.conf.Log.Warn("nothing of a transaction is acknowledged, and its partitions look well; its producer is set aside",
				zap.String("transactional_id", p.id), zap.Error(err))
			return fmt.Errorf("kafka: %w: %w", pipeline.ErrAborted, err)
		}
	}
	return s.sickens(p, sick, err)
}

// blamed gives those of the partitions of a transaction, of which nothing was acknowledged,
// whose fault that may be. Leaders add their partitions to it at its coordinator, which may be
// what can't write: so one that looks well is to blame if another producer has met it, too,
// that still is tended.
func (s *Session) blamed(p *producer, late []place) (sick []place) {
	well := s.recovered(late)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range late {
		by, met := s.met[at]
		if !slices.Contains(well, at) || met && by != p {
			sick = append(sick, at)
		} else {
			s.met[at] = p
		}
	}
	return sick
}

var errPoor = errors.New("it has no leader, or too few replicas in sync")

// sickens notes partitions that a transaction has found to be sick, and gives its error.
func (s *Session) sickens(of *producer, places []place, err error) error {
	e := &pipeline.UnwritableError{Tried: true, Err: fmt.Errorf("kafka: %w", err)}
	for _, at := range places {
		if !slices.Contains(e.Partitions, at.partition) {
			e.Partitions = append(e.Partitions, at.partition)
		}
	}
	s.sicken(of, places, e.Err)
	return e
}

// sicken notes sick partitions, and tells of those that were not known. What a producer's
// renewal tells of is left to that.
func (s *Session) sicken(of *producer, places []place, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var news []place
	for _, at := range places {
		was, known := s.sick[at]
		if !known {
			news = append(news, at)
		}
		if !known || was.of == nil {
			s.sick[at] = sickness{of, err}
		}
	}
	if len(news) > 0 {
		s.conf.Log.Warn("output partitions take no writes; what goes there waits, and the others go on: look for partitions without a leader, or below min.insync.replicas",
			zap.Stringers("partitions", news), zap.Error(err))
	}
	if of == nil && len(news) > 0 && !s.watching && s.tending.Err() == nil {
		s.watching = true
		s.tenders.Go(s.watchSick)
	}
}

// poor gives the partitions of output topics that have no leader, or fewer replicas in sync
// than their topic asks for, as far as that may be read.
func (s *Session) poor(ctx context.Context) (places []place, err error) {
	adm := kadm.NewClient(s.admin)
	topics, err := adm.ListTopics(ctx, s.names[1:]...)
	if err != nil {
		return nil, err
	}
	least := map[string]int{}
	configs, _ := adm.DescribeTopicConfigs(ctx, s.names[1:]...) // without the right to: none
	for _, c := range configs {
		for _, entry := range c.Configs {
			if entry.Key == "min.insync.replicas" {
				least[c.Name], _ = strconv.Atoi(unwrap(entry.Value))
			}
		}
	}
	return poorOf(topics, least), nil
}

// poorOf goes by what the broker does: a topic never needs more replicas in sync than it has
// (Partition.effectiveMinIsr).
func poorOf(topics kadm.TopicDetails, least map[string]int) (places []place) {
	for _, of := range topics {
		for _, p := range of.Partitions {
			if p.Leader < 0 || errors.Is(p.Err, kerr.LeaderNotAvailable) || len(p.ISR) < min(least[of.Topic], len(p.Replicas)) {
				places = append(places, place{of.Topic, p.Partition})
			}
		}
	}
	return places
}

// watchSick takes back what is sick until its leader answers, until nothing is.
func (s *Session) watchSick() {
	for {
		select {
		case <-time.After(tendEvery):
		case <-s.tending.Done():
		}
		s.mu.Lock()
		var look []place
		for at, why := range s.sick {
			if why.of == nil {
				look = append(look, at)
			}
		}
		if s.watching = len(look) > 0 && s.tending.Err() == nil; !s.watching {
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		s.take(s.recovered(look), true)
	}
}

// recovered gives the partitions that are not poor, and whose leaders answer.
func (s *Session) recovered(look []place) (well []place) {
	ctx, cancel := context.WithTimeout(s.tending, describeTimeout)
	defer cancel()
	poor, err := s.poor(ctx)
	if err != nil {
		return nil
	}
	var set kadm.TopicsSet
	for _, at := range look {
		set.Add(at.topic, at.partition)
	}
	topics, _ := kadm.NewClient(s.admin).DescribeProducers(ctx, set)
	for _, at := range look {
		if in, ok := topics[at.topic].Partitions[at.partition]; ok && passing(in.Err) == nil && !slices.Contains(poor, at) {
			well = append(well, at)
		}
	}
	return well
}

// take takes partitions back.
func (s *Session) take(well []place, tell bool) {
	s.mu.Lock()
	for _, at := range well {
		delete(s.sick, at)
	}
	s.mu.Unlock()
	if tell && len(well) > 0 {
		s.conf.Log.Info("output partitions take writes again", zap.Stringers("partitions", well))
	}
}

// tend renews a producer that ails until that succeeds, or nothing will make it. Another takes
// its turns meanwhile.
func (s *Session) tend(p *producer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tending.Err() != nil { // the session ends
		s.idle <- p
		return
	}
	s.turning--
	s.tenders.Go(s.replace)
	s.tenders.Go(func() {
		s.persist(p)
		s.cured(p)
		s.giveBack(p)
	})
}

// tendMarks does so with the producer of marks. None takes its turns: what is to be committed
// alone fails at once meanwhile, and is committed with what comes after it.
func (s *Session) tendMarks(p *producer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tending.Err() != nil {
		s.marking <- p
		return
	}
	s.markless.Store(true)
	s.tenders.Go(func() {
		s.persist(p)
		s.markless.Store(false)
		s.marking <- p
	})
}

// persist renews a producer until that succeeds, or nothing will make it.
func (s *Session) persist(p *producer) {
	for {
		err := p.renew(s.tending, s)
		if err == nil || s.tending.Err() != nil {
			return
		}
		if s.twin(p, err) {
			_ = s.fence(p, err) // Poll and Transact give it
			return
		}
		if !transient(err) && !fencing(err) {
			s.conf.Log.Warn("a producer can't be renewed", zap.String("transactional_id", p.id), zap.Error(err))
			return // whoever uses it next is told
		}
		select {
		case <-time.After(tendEvery):
		case <-s.tending.Done():
		}
	}
}

// spared tells that a producer that could not be renewed is to be tended: whoever used it would
// wait as long again. The last one that takes turns is not: where no broker answers at all,
// another would not help.
func (s *Session) spared(p *producer, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return transient(err) && (p == s.marker || s.turning > 1)
}

// replace has a producer take the turns of one that is tended: one that rests, or a new one.
func (s *Session) replace() {
	s.mu.Lock()
	var p *producer
	name := strconv.Itoa(s.numbered)
	switch rest := len(s.resting); {
	case s.turning >= producers, rest == 0 && s.numbered == producersMax:
		s.mu.Unlock()
		return
	case rest > 0:
		p, s.resting = s.resting[rest-1], s.resting[:rest-1]
	default:
		s.numbered++
	}
	s.mu.Unlock()
	for p == nil {
		made := s.newProducer(name)
		err := s.renewFirst(s.tending, made)
		switch {
		case err == nil:
			p = made
			s.mu.Lock()
			s.producers = append(s.producers, p)
			s.mu.Unlock()
		case s.tending.Err() != nil:
			return
		default:
			s.conf.Log.Warn("a producer that is stuck can't be replaced", zap.Error(err))
			if !transient(err) {
				return
			}
		}
	}
	s.giveBack(p)
}

// giveBack has a producer take turns, or rest where enough do.
func (s *Session) giveBack(p *producer) {
	s.mu.Lock()
	enough := s.turning >= producers && s.tending.Err() == nil
	if !enough {
		s.turning++
	}
	s.mu.Unlock()
	if !enough {
		s.idle <- p
		return
	}
	p.close()
	s.mu.Lock()
	s.resting = append(s.resting, p)
	s.mu.Unlock()
}

// producersMax is how many producers a session has at most, besides that of marks: each that is
// stuck has met other sick partitions.
const producersMax = 32

// tendEvery is how long a renewal that failed waits.
const tendEvery = time.Second

// cured takes back what a producer's renewal had to tell.
func (s *Session) cured(p *producer) {
	s.mu.Lock()
	var well []place
	for at, why := range s.sick {
		if why.of == p {
			well = append(well, at)
		}
	}
	maps.DeleteFunc(s.met, func(_ place, by *producer) bool { return by == p })
	s.mu.Unlock()
	s.take(well, p.sound)
}
