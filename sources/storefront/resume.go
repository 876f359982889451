package storefront

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/segmentio/kafka-go"
)

// resumeWindow is how many records of a partition's end are searched for the series'
// last one where no place was kept: other producers may have written there too.
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

// records are those of a series that were seen in a partition: by their numbers, sums of
// what they are.
type records map[int64]uint64

// sum is of what a record is.
func sum(key, value []byte) uint64 {
	d := xxhash.New()
	_, _ = d.Write(key) // it takes all
	_, _ = d.Write([]byte{0})
	_, _ = d.Write(value)
	return d.Sum64()
}

// OtherSeriesError says that what was published under a series' name is not what is given
// to Publish now: another file of that name, or one that has changed.
type OtherSeriesError struct {
	Name   string
	Number int64 // of the first record that is known to be another
	fewer  bool
}

func (e *OtherSeriesError) Error() string {
	if e.fewer {
		return fmt.Sprintf("%s has been published before, and had more than these %d records", e.Name, e.Number)
	}
	return fmt.Sprintf("%s has been published before, and its record %d was another", e.Name, e.Number+1)
}

// same refuses a record that is not the one that an earlier run published under its number,
// as far as that is known: of the last one in each partition.
func (p *Publisher) same(number int64, rec *Record) error {
	if number > p.resumed {
		return nil
	}
	if was, ok := p.before[number]; ok && was != sum(rec.Key, rec.Value) {
		return &OtherSeriesError{Name: p.cfg.Name, Number: number}
	}
	return nil
}

// Whole refuses a series that has ended before it has come to where an earlier run was.
// It comes after the last Publish.
func (p *Publisher) Whole() error {
	if p.number <= p.resumed {
		return &OtherSeriesError{Name: p.cfg.Name, Number: p.number, fewer: true}
	}
	return nil
}

// Resume finds out how far an earlier run published the series Name: from the places
// that were kept, and from what follows them in every partition. Publish then skips what
// is there, given the same records in the same order. Nothing is lost and nothing doubled:
// each partition is published in order, so its last record says which ones it has. Other
// records than that are an *OtherSeriesError of Publish. It
// returns how many partitions had a record of the series, and must come before the first
// Publish.
func (p *Publisher) Resume(ctx context.Context) (found int, err error) {
	if p.cfg.Name == "" || p.number > 0 {
		return 0, errors.New("resume needs a series' name, and comes before the first record")
	}
	places, err := p.kept(ctx)
	if err != nil {
		return 0, err
	}
	for _, o := range p.parts {
		from, known := places[o.id]
		var at place
		var seen records
		// The whole search again after an error: a new topic has no leader yet, say.
		err := p.persist(ctx, func() (err error) {
			seen = records{}
			at, err = p.last(ctx, o.id, from, known, seen)
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("resume %s in %s/%d: %w", p.cfg.Name, p.cfg.Topic, o.id, err)
		}
		p.mu.Lock()
		o.place, o.kept, o.resumed = at, from, at.number
		if !known {
			o.kept = place{-1, -1}
		}
		p.mu.Unlock()
		if at.number >= 0 {
			found++
			p.resumed = max(p.resumed, at.number)
			if sum, ok := seen[at.number]; ok { // else retention has deleted it
				p.before[at.number] = sum
			}
		}
	}
	return found, p.keep(ctx)
}

// Restart begins the series anew, whatever was published of it before, so that a Resume
// after an interruption goes on with this run. It comes before the first Publish.
func (p *Publisher) Restart(ctx context.Context) error {
	for _, o := range p.parts {
		var end int64
		err := p.persist(ctx, func() (err error) {
			_, end, err = p.bounds(ctx, o.id)
			return err
		})
		if err != nil {
			return fmt.Errorf("restart %s in %s/%d: %w", p.cfg.Name, p.cfg.Topic, o.id, err)
		}
		p.mu.Lock()
		o.place, o.kept = place{end, -1}, place{-1, -1}
		p.mu.Unlock()
	}
	return p.keep(ctx)
}

// last returns how far the series is in a partition: at from, if that is known and still
// true, or further; else by what is found near the end.
// seen takes the record at the place, if it is still there.
func (p *Publisher) last(ctx context.Context, partition int, from place, known bool, seen records) (place, error) {
	first, end, err := p.bounds(ctx, partition)
	if err != nil {
		return place{}, err
	}
	if known {
		if known, err = p.holds(ctx, partition, from, first, end, seen); err != nil {
			return place{}, err
		}
	}
	at, found := max(first, end-resumeWindow), place{end, -1}
	if known {
		at, found = max(first, from.offset), from
	}
	for at < end {
		next, err := p.scan(ctx, partition, at, func(offset, number int64, sum uint64) {
			if number >= found.number { // a batch that was sent twice is there twice
				found = place{offset + 1, number}
				clear(seen)
				seen[number] = sum
			}
		})
		if err != nil {
			return place{}, err
		}
		if next <= at { // nothing left but what a fetch does not return
			break
		}
		at = next
	}
	if found.number < 0 {
		found.offset = end
	}
	return found, nil
}

// holds tells whether a place is one of this topic, and not of another of its name that
// was here before: the record before it is the series' own.
func (p *Publisher) holds(ctx context.Context, partition int, from place, first, end int64, seen records) (ok bool, err error) {
	switch before := from.offset - 1; {
	case from.offset > end:
		return false, nil
	case from.number < 0, before < first: // nothing was published, or retention has deleted it
		return true, nil
	default:
		_, err = p.scan(ctx, partition, before, func(offset, number int64, sum uint64) {
			if number == from.number {
				seen[number] = sum
			}
			ok = ok || offset == before && number == from.number
		})
		return ok, err
	}
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

// scan fetches from an offset, calls each with every record of the series, and returns
// the next offset.
func (p *Publisher) scan(ctx context.Context, partition int, at int64, each func(offset, number int64, sum uint64)) (next int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := p.client.Fetch(ctx, &kafka.FetchRequest{
		Topic: p.cfg.Topic, Partition: partition, Offset: at, MinBytes: 1, MaxBytes: 8 << 20, MaxWait: time.Second,
	})
	if err != nil {
		return 0, err
	}
	if res.Error != nil {
		return 0, res.Error
	}
	for next = at; ; {
		rec, err := res.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return next, nil
		}
		if err != nil {
			return 0, err
		}
		n, here, err := p.ours(rec)
		if err != nil {
			return 0, err
		}
		if here && rec.Offset >= at { // a batch may begin before
			key, err := kafka.ReadAll(rec.Key)
			if err != nil {
				return 0, err
			}
			value, err := kafka.ReadAll(rec.Value)
			if err != nil {
				return 0, err
			}
			each(rec.Offset, n, sum(key, value))
		}
		next = max(next, rec.Offset+1)
		for _, b := range []io.Closer{rec.Key, rec.Value} {
			if b != nil {
				if err := b.Close(); err != nil {
					return 0, err
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
