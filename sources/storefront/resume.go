package storefront

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// resumeWindow is how many records of a partition's end are searched for the series'
// last one: other producers may have written there too.
const resumeWindow = 5_000

// appendSeries writes the value of PublishHeader.
func appendSeries(b []byte, name string, partitions int, number int64) []byte {
	b = append(append(b, name...), '/')
	b = append(strconv.AppendInt(b, int64(partitions), 10), '/')
	return strconv.AppendInt(b, number, 10)
}

// parseSeries reads the value of PublishHeader.
func parseSeries(value string) (name string, partitions int, number int64, ok bool) {
	rest, last, ok := cutLast(value)
	if !ok {
		return "", 0, 0, false
	}
	name, middle, ok := cutLast(rest)
	if !ok {
		return "", 0, 0, false
	}
	partitions, err := strconv.Atoi(middle)
	number, err2 := strconv.ParseInt(last, 10, 64)
	return name, partitions, number, err == nil && err2 == nil && number >= 0
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// Resume finds out how far an earlier run published the series Name, from the end of
// every partition; Publish then skips what is there, given the same records in the
// same order. Nothing is lost and nothing doubled: each partition is published in
// order, so its last record says which ones it has. It returns how many partitions
// had a record of the series, and must come before the first Publish.
func (p *Publisher) Resume(ctx context.Context) (found int, err error) {
	if p.cfg.Name == "" || p.number > 0 {
		return 0, errors.New("resume needs a series' name, and comes before the first record")
	}
	for _, o := range p.parts {
		var number int64
		var ok bool
		// The whole search again after an error: a new topic has no leader yet, say.
		err := p.persist(ctx, func() (err error) {
			number, ok, err = p.last(ctx, o.id)
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("resume %s in %s/%d: %w", p.cfg.Name, p.cfg.Topic, o.id, err)
		}
		if ok {
			o.resumed = number
			found++
		}
	}
	return found, nil
}

// last returns the number of the series' last record in a partition.
func (p *Publisher) last(ctx context.Context, partition int) (number int64, ok bool, err error) {
	first, end, err := p.bounds(ctx, partition)
	if err != nil {
		return 0, false, err
	}
	for at := max(first, end-resumeWindow); at < end; {
		next, n, here, err := p.scan(ctx, partition, at)
		if err != nil {
			return 0, false, err
		}
		if here {
			number, ok = n, true
		}
		if next <= at { // nothing left but what a fetch does not return
			break
		}
		at = next
	}
	return number, ok, nil
}

func (p *Publisher) bounds(ctx context.Context, partition int) (first, end int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := p.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		p.cfg.Topic: {kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition)},
	}})
	if err != nil {
		return 0, 0, err
	}
	for _, o := range res.Topics[p.cfg.Topic] {
		if o.Error != nil {
			return 0, 0, o.Error
		}
		first, end = o.FirstOffset, o.LastOffset
	}
	return first, end, nil
}

// scan fetches from an offset and returns the next one, and the number of the last
// record of the series in what it got.
func (p *Publisher) scan(ctx context.Context, partition int, at int64) (next, number int64, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := p.client.Fetch(ctx, &kafka.FetchRequest{
		Topic: p.cfg.Topic, Partition: partition, Offset: at, MinBytes: 1, MaxBytes: 8 << 20, MaxWait: time.Second,
	})
	if err != nil {
		return 0, 0, false, err
	}
	if res.Error != nil {
		return 0, 0, false, res.Error
	}
	for next = at; ; {
		rec, err := res.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return next, number, ok, nil
		}
		if err != nil {
			return 0, 0, false, err
		}
		n, here, err := p.ours(rec)
		if err != nil {
			return 0, 0, false, err
		}
		if here {
			number, ok = n, true
		}
		next = max(next, rec.Offset+1)
		for _, b := range []io.Closer{rec.Key, rec.Value} {
			if b != nil {
				if err := b.Close(); err != nil {
					return 0, 0, false, err
				}
			}
		}
	}
}

// repartitionedError says that a series cannot go on: its keys are elsewhere now.
type repartitionedError struct {
	name     string
	was, now int
}

func (e *repartitionedError) Error() string {
	return fmt.Sprintf("%s was published when the topic had %d partitions, now it has %d; publish it to a new topic", e.name, e.was, e.now)
}

// ours returns a record's number if it is of our series.
func (p *Publisher) ours(rec *kafka.Record) (number int64, ok bool, err error) {
	for _, h := range rec.Headers {
		if h.Key != PublishHeader {
			continue
		}
		name, partitions, number, ok := parseSeries(string(h.Value))
		if !ok || name != p.cfg.Name {
			continue
		}
		if partitions != len(p.parts) {
			return 0, false, &repartitionedError{name, partitions, len(p.parts)}
		}
		return number, true, nil
	}
	return 0, false, nil
}
