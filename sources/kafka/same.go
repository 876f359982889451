package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"footfall/pipeline"
)

// A topic can be deleted and made anew under its name, or get more partitions, beside
// a running process or while there is none. Offsets, numbers and users then mean
// something else, and nothing in the records tells. So a session knows each topic by
// its id and its number of partitions, writes those of the input into every mark,
// and refuses what has changed.

// topicInfo is what we know of a topic.
type topicInfo struct {
	name    string
	id      kadm.TopicID
	leaders []int32 // by partition
}

// hash stands for the topic's id in a mark; 0 where brokers give topics none.
func (t topicInfo) hash() uint64 {
	if t.id == (kadm.TopicID{}) {
		return 0
	}
	return xxhash.Sum64(t.id[:])
}

// started is when a session gets to know its topics.
const started = "this process started"

// changed tells of a topic that was another one then, or had another number of
// partitions; zero is not known.
func (t topicInfo) changed(hash uint64, partitions int32, then string) error {
	now := int32(len(t.leaders))
	switch {
	case hash != 0 && t.hash() != 0 && hash != t.hash():
		return fmt.Errorf("kafka: topic %s was deleted and made anew after %s: %w: offsets, snapshots and outputs speak of the one before. "+
			"If that one is gone for good, begin anew: another kafka.group, other output topics, another snapshots.bucket",
			t.name, then, pipeline.ErrPermanent)
	case partitions != 0 && partitions != now:
		return fmt.Errorf("kafka: topic %s had %d partitions when %s and has %d now: %w: users have moved between partitions and their profiles have not. "+
			"Publish to a new topic with the count that is wanted, and begin anew there: another kafka.group, other output topics, another snapshots.bucket",
			t.name, partitions, then, now, pipeline.ErrPermanent)
	}
	return nil
}

// lookAround gets to know the topics.
func (s *Session) lookAround(ctx context.Context) error {
	var err error
	if s.metas, err = lookUpMade(ctx, s.admin, s.names...); err != nil {
		return err
	}
	s.topic = s.metas[s.conf.Topic]
	for _, name := range s.names {
		t, ok := s.metas[name]
		if !ok {
			return noTopic(name)
		}
		if len(t.leaders) != len(s.topic.leaders) {
			return fmt.Errorf("kafka: topic %s has %d partitions and the input %s has %d: an output goes to its user's input partition; see: footfall check",
				name, len(t.leaders), s.conf.Topic, len(s.topic.leaders))
		}
	}
	return nil
}

func noTopic(name string) error {
	return fmt.Errorf("kafka: there is no topic %s; create it with: footfall topics create", name)
}

// known refuses a topic that is not what it was when the session began.
func (s *Session) known(now topicInfo) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, ok := s.metas[now.name]
	if !ok {
		return nil
	}
	return now.changed(was.hash(), int32(len(was.leaders)), started)
}

// look refuses topics that are not what they were, and tells of one that is not there.
func (s *Session) look(ctx context.Context) (gone, err error) {
	infos, err := lookUp(ctx, s.admin, s.names...)
	if err != nil {
		return nil, nil //nolint:nilerr // it can't be told now; whoever needs to know looks again
	}
	for _, name := range s.names {
		now, ok := infos[name]
		if !ok {
			gone = fmt.Errorf("kafka: topic %s does not exist any more: %w: if it is gone for good, begin anew: "+
				"another kafka.group, other output topics, another snapshots.bucket", name, pipeline.ErrPermanent)
		} else if err := s.known(now); err != nil {
			return nil, err
		}
	}
	return gone, nil
}

// missing explains an error that says that a topic, or its id, is unknown: nil if all
// topics are there as they were, so that it goes by itself. A broker that has just started
// may not know them yet, and be the one that is asked.
func (s *Session) missing(ctx context.Context) error {
	var gone error
	err := insistOnTopic(ctx, describeTimeout, func(ctx context.Context) (err error) {
		if gone, err = s.look(ctx); gone != nil {
			return kerr.UnknownTopicOrPartition
		}
		return err
	})
	if gone != nil {
		return gone
	}
	return err
}

// unknownTopic tells the errors that missing explains.
func unknownTopic(err error) bool {
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID)
}

// watchEvery is how often the topics are looked at. A storefront's producers begin to
// write to new partitions within minutes (metadata.max.age.ms). One that is not there
// goneLooks times in a row is gone: a broker that has just started may not know it yet.
const (
	watchEvery = 10 * time.Second
	goneLooks  = 3
)

// watchTopics ends the session when one of the topics is not what it was. It ends
// with ctx.
func (s *Session) watchTopics(ctx context.Context) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for missed := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		gone, err := s.look(ctx)
		if missed++; gone == nil {
			missed = 0
		}
		if err == nil && missed >= goneLooks {
			err = gone
		}
		if err != nil {
			s.owns.fail(err)
			return
		}
	}
}
