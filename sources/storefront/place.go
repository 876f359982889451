package storefront

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

// place is how far a series has come in a partition: every record of it before the
// offset has a number up to number, -1 for none.
//
// A series' places are kept in the offsets of a consumer group of its own, the number and
// the topic's partitions in a commit's metadata. They need not be the newest: Resume reads the partition from there
// to its end. They are committed before the first record, so without a commit a series
// has never begun (or its commits have expired, after seven days by default: then only
// the last records of each partition are searched).
type place struct {
	offset, number int64
}

// How often places are kept while publishing, and how long that may take at the end.
const (
	keepEvery = 2 * time.Second
	keepMax   = 10 * time.Second
)

// group is the consumer group of the series; "": places are not kept.
func (p *Publisher) group() string {
	if p.cfg.Group == "" || p.cfg.Name == "" {
		return ""
	}
	return p.cfg.Group + "-" + p.cfg.Name
}

// kept reads the places that were kept, by partition.
func (p *Publisher) kept(ctx context.Context) (places map[int]place, err error) {
	places = map[int]place{}
	if p.group() == "" {
		return places, nil
	}
	err = p.persist(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		res, err := p.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: p.group(), Topics: map[string][]int{p.cfg.Topic: p.ids}})
		if err == nil {
			err = res.Error
		}
		if errors.Is(err, kafka.GroupIdNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, o := range res.Topics[p.cfg.Topic] {
			if o.Error != nil && !errors.Is(o.Error, kafka.GroupIdNotFound) {
				return o.Error
			}
			var number int64
			var partitions int
			if _, err := fmt.Sscanf(o.Metadata, "%d/%d", &number, &partitions); err != nil || o.CommittedOffset < 0 {
				continue
			}
			if number >= 0 && partitions != len(p.parts) {
				return &repartitionedError{p.cfg.Name, partitions, len(p.parts)}
			}
			places[o.Partition] = place{o.CommittedOffset, number}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("where %s was, from consumer group %s: %w%s", p.cfg.Name, p.group(), err, hint(err))
	}
	return places, nil
}

// keep commits the places that have changed.
func (p *Publisher) keep(ctx context.Context) error {
	if p.group() == "" {
		return nil
	}
	var commits []kafka.OffsetCommit
	p.mu.Lock()
	taken := make([]place, len(p.parts))
	for i, o := range p.parts {
		if taken[i] = o.place; o.place != o.kept {
			commits = append(commits, kafka.OffsetCommit{Partition: o.id, Offset: o.place.offset, Metadata: fmt.Sprintf("%d/%d", o.place.number, len(p.parts))})
		}
	}
	p.mu.Unlock()
	if len(commits) == 0 {
		return nil
	}
	err := p.persist(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		res, err := p.client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
			GroupID: p.group(), GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{p.cfg.Topic: commits},
		})
		if err != nil {
			return err
		}
		for _, o := range res.Topics[p.cfg.Topic] {
			if o.Error != nil {
				return o.Error
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep where %s is, in consumer group %s: %w%s", p.cfg.Name, p.group(), err, hint(err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, o := range p.parts {
		o.kept = taken[i]
	}
	return nil
}

// reached notes that a batch is in its partition from an offset on.
func (p *Publisher) reached(partition int, base int64, batch []entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parts[partition].place = place{base + int64(len(batch)), batch[len(batch)-1].number}
}

// keepNow keeps the places if that is due: by one of the senders, while the others go
// on. That it fails is not told: it only makes the next Resume read more.
func (p *Publisher) keepNow(ctx context.Context) {
	p.mu.Lock()
	due := p.group() != "" && !p.keeping && time.Since(p.keptAt) > keepEvery
	if due {
		p.keeping, p.keptAt = true, time.Now()
	}
	p.mu.Unlock()
	if !due {
		return
	}
	_ = p.keep(ctx)
	p.mu.Lock()
	p.keeping = false
	p.mu.Unlock()
}
