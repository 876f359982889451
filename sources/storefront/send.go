package storefront

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"

	"footfall/schemas"
)

// batch is records of one partition that go in one request.
type batch struct {
	entries []entry
	bytes   int
}

// entry is a record on its way.
type entry struct {
	Record
	number int64
	sent   int64          // Unix microseconds
	stamp  schemas.Millis // record timestamp
}

func (e *entry) size() int { return len(e.Key) + len(e.Value) + recordOverhead }

// add puts an entry into the last batch of an outbox, or into a new one if it is full.
func (p *Publisher) add(o *outbox, e entry) {
	size := e.size()
	p.bytes += size
	last := len(o.queue) - 1
	if last < 0 || len(o.queue[last].entries) >= batchRecordsMax || o.queue[last].bytes+size > batchBytesMax {
		b := &batch{}
		if n := len(p.free); n > 0 {
			b, p.free = p.free[n-1], p.free[:n-1]
		}
		o.queue = append(o.queue, b)
		last++
	}
	b := o.queue[last]
	b.entries = append(b.entries, e)
	b.bytes += size
}

// send sends one partition's batches until the publisher is closed or has failed.
func (p *Publisher) send(ctx context.Context, o *outbox) {
	for {
		b := p.take(o)
		if b == nil {
			return
		}
		refused, err := p.produce(ctx, o.id, b.entries)
		if err != nil {
			p.fail(err)
			return
		}
		p.acked(b, refused)
		p.keepNow(ctx)
	}
}

// take waits for a batch, full or not; nil is the end.
func (p *Publisher) take(o *outbox) *batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(o.queue) == 0 && !p.closed && p.err == nil {
		o.ready.Wait()
	}
	if len(o.queue) == 0 || p.err != nil {
		return nil
	}
	b := o.queue[0]
	o.queue = slices.Delete(o.queue, 0, 1)
	return b
}

func (p *Publisher) acked(b *batch, refused int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes -= b.bytes
	p.counts.Acked += int64(len(b.entries) - refused)
	p.counts.Refused += int64(refused)
	p.counts.Bytes += int64(b.bytes - len(b.entries)*recordOverhead)
	clear(b.entries) // their keys and values are garbage now
	*b = batch{entries: b.entries[:0]}
	p.free = append(p.free, b)
	p.changed.Broadcast()
}

// produce sends a batch until it is acknowledged. A batch too large is halved; a
// record too large alone is refused, and counted.
func (p *Publisher) produce(ctx context.Context, partition int, batch []entry) (refused int, err error) {
	err = p.produceOnce(ctx, partition, batch)
	switch {
	case err == nil:
		return 0, nil
	case !tooLarge(err):
		return 0, fmt.Errorf("publish to %s/%d: %w%s", p.cfg.Topic, partition, err, hint(err))
	case len(batch) == 1:
		return 1, nil
	}
	half := len(batch) / 2
	for _, part := range [][]entry{batch[:half], batch[half:]} {
		n, err := p.produce(ctx, partition, part)
		if err != nil {
			return 0, err
		}
		refused += n
	}
	return refused, nil
}

// produceOnce sends one request, and sends it again while the error may pass.
func (p *Publisher) produceOnce(ctx context.Context, partition int, batch []entry) error {
	return p.persist(ctx, func() error { return p.request(ctx, partition, batch) })
}

// persist does something until it succeeds or its error will not pass by waiting.
func (p *Publisher) persist(ctx context.Context, do func() error) error {
	began, backoff := time.Now(), backoffMin
	for {
		err := do()
		if err == nil || tooLarge(err) || ctx.Err() != nil {
			return err
		}
		if !passes(err) {
			return err
		}
		if time.Since(began) > p.cfg.RetryFor {
			return fmt.Errorf("given up after %s: %w", p.cfg.RetryFor, err)
		}
		if err := sleep(ctx, backoff); err != nil {
			return err
		}
		backoff = min(2*backoff, backoffMax)
	}
}

func (p *Publisher) request(ctx context.Context, partition int, batch []entry) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := p.client.Produce(ctx, &kafka.ProduceRequest{
		Topic: p.cfg.Topic, Partition: partition, RequiredAcks: kafka.RequireAll, Compression: p.compression,
		Records: p.reader(batch),
	})
	if err == nil {
		err = res.Error
	}
	if err == nil {
		p.reached(partition, res.BaseOffset, batch)
	}
	return err
}

// passes tells whether an error may pass by waiting: those of the network do, and
// those that Kafka calls temporary.
func passes(err error) bool {
	var ke kafka.Error
	var re *repartitionedError
	return !errors.As(err, &re) && (!errors.As(err, &ke) || ke.Temporary())
}

func tooLarge(err error) bool {
	return errors.Is(err, kafka.MessageSizeTooLarge) || errors.Is(err, kafka.RecordListTooLarge)
}

// hint says what to do about the errors that people meet.
func hint(err error) string {
	switch {
	case errors.Is(err, kafka.InvalidTimestamp):
		return "; lane replay needs a topic of its own with message.timestamp.before.max.ms and message.timestamp.after.max.ms at their maximum"
	case errors.Is(err, kafka.TopicAuthorizationFailed):
		return "; this user needs the ACL WRITE and DESCRIBE on the topic"
	case errors.Is(err, kafka.GroupAuthorizationFailed):
		return "; this user needs the ACL READ on that group (by prefix)"
	}
	return ""
}

// recordReader gives a batch's records to kafka-go, which encodes each before it asks
// for the next: all of them share one record's memory.
type recordReader struct {
	batch      []entry
	lanes      [schemas.Replay + 1][]byte
	series     string
	partitions int
	rec        kafka.Record
	key, value view
	headers    []kafka.Header
	text       []byte
}

func (p *Publisher) reader(batch []entry) *recordReader {
	r := &recordReader{batch: batch, series: p.cfg.Name, partitions: len(p.parts)}
	for l := range r.lanes {
		r.lanes[l] = []byte(schemas.Lane(l).String())
	}
	return r
}

func (r *recordReader) ReadRecord() (*kafka.Record, error) {
	if len(r.batch) == 0 {
		return nil, io.EOF
	}
	e := &r.batch[0]
	r.batch = r.batch[1:]
	r.rec = kafka.Record{Time: time.UnixMilli(int64(e.stamp)), Key: r.key.of(e.Key), Value: r.value.of(e.Value)}
	r.text = strconv.AppendInt(r.text[:0], e.sent, 10)
	sent := len(r.text)
	r.headers = append(r.headers[:0], kafka.Header{Key: schemas.LaneHeader, Value: r.lanes[e.Lane]})
	if r.series != "" {
		r.text = appendSeries(r.text, r.series, r.partitions, e.number)
		r.headers = append(r.headers, kafka.Header{Key: PublishHeader, Value: r.text[sent:]})
	}
	r.headers = append(r.headers, kafka.Header{Key: SentHeader, Value: r.text[:sent:sent]})
	for _, h := range e.Headers {
		r.headers = append(r.headers, kafka.Header{Key: h.Key, Value: h.Value})
	}
	r.rec.Headers = r.headers
	return &r.rec, nil
}

// view is bytes as kafka-go wants them.
type view struct{ bytes.Reader }

func (v *view) of(b []byte) kafka.Bytes {
	if b == nil {
		return nil
	}
	v.Reset(b)
	return v
}

func (*view) Close() error { return nil }

// catchUpMax is how late a rate may be and still be caught up with.
const catchUpMax = time.Second

// pace holds a rate: record n is due n/rate seconds after the first. A delay is caught
// up with, but for more than catchUpMax, so that a long one is no flood later.
type pace struct {
	rate  float64
	start time.Time
	n     int64
}

func (p *pace) wait(ctx context.Context) error {
	if p.rate <= 0 {
		return nil
	}
	if p.n == 0 {
		p.start = time.Now()
	}
	due := time.Duration(float64(p.n) / p.rate * float64(time.Second))
	p.n++
	ahead := due - time.Since(p.start)
	if ahead < -catchUpMax {
		p.start = p.start.Add(-ahead - catchUpMax)
	}
	// Below a millisecond a sleep costs more than it waits.
	if ahead > time.Millisecond {
		return sleep(ctx, ahead)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
