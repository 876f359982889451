package storefront

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"footfall/schemas"
)

// Headers of what is published, beside schemas.LaneHeader.
const (
	// SentHeader is when a record was sent, by the real clock whatever the lane: Unix
	// microseconds, in decimal. Latency is measured from it.
	SentHeader = "sent"

	// PublishHeader is which record of which series this is, so that an interrupted
	// series can go on where it was: name/partitions/number, the number from 0.
	PublishHeader = "publish"
)

// Limits of a Publisher.
const (
	batchBytesMax   = 1_000_000 // a broker takes 1,048,588 bytes by default
	batchRecordsMax = 20_000
	recordOverhead  = 96 // bytes of a record beside its key and value, headers included
	requestTimeout  = 30 * time.Second
	backoffMin      = 50 * time.Millisecond
	backoffMax      = 2 * time.Second
)

// PublisherConfig says where and how to publish.
type PublisherConfig struct {
	Brokers []string
	Topic   string

	// Lane is that of every record that names none. In lane replay a record's timestamp is its Time,
	// else what Wall says.
	Lane schemas.Lane

	// Name, if set, numbers the records as a series that Resume can take up again. It
	// must say what is published: two series of one name are the same records.
	Name string

	// Group begins the name of the consumer group that keeps how far the series Name has
	// come: Resume is then exact, whatever others have written to the topic since.
	Group string

	Wall func() schemas.Millis // nil: the real clock

	Compression   string        // lz4 (also if empty), none, gzip, snappy or zstd
	InFlightBytes int           // of records not acknowledged yet; 0: 64 MiB
	Rate          float64       // records a second; 0: as fast as it goes
	RetryFor      time.Duration // how long a batch is tried again; 0: 2 minutes

	TLS      *tls.Config // nil: none
	SASL     string      // plain, scram-sha-256 or scram-sha-512; empty: none
	User     string
	Password string
}

// Record is one record to publish. A nil Key is none; a nil Value is a tombstone.
type Record struct {
	Key, Value []byte
	Time       schemas.Millis // when it is sent, in the time of whoever made it
	Headers    []schemas.Header
	Lane       schemas.Lane // Live: the publisher's
}

// Counts is what became of the records given to Publish.
type Counts struct {
	Taken   int64 // records given to Publish
	Skipped int64 // published by an earlier run, as Resume found
	Acked   int64 // acknowledged by all replicas in sync
	Refused int64 // larger than the broker or the topic takes; nothing else is dropped
	Bytes   int64 // keys and values acknowledged
}

// Publisher publishes records to one topic, to the partition that Kafka's Java client
// would choose: murmur2 of the key. Records of one partition are acknowledged in the
// order of Publish, whatever is retried, because one batch of a partition is under way
// at a time. A record without a key (nil; an empty one is a key like any other) goes
// to the partition of its number, round robin.
//
// An error on the way, such as a connection lost before the answer, is met by sending
// again, so a record may be published twice; consumers tell by its event id.
//
// One goroutine calls Publish, Flush and Resume. One more a partition sends: it takes
// what has gathered whenever the batch before is acknowledged, so batches grow with the
// load and nothing waits for a full one. When the brokers are slow, Publish blocks. The
// goroutines end with the context of NewPublisher, at Close, or at the first error that
// trying again does not mend.
type Publisher struct {
	cfg         PublisherConfig
	client      *kafka.Client
	ids         []int // of the topic's partitions, 0 to n-1
	compression kafka.Compression
	number      int64 // of the next record
	resumed     int64 // number of the last record an earlier run published anywhere, or -1
	before      records
	pace        pace

	mu      sync.Mutex
	changed sync.Cond // a batch was acknowledged, or err or closed was set
	parts   []*outbox
	free    []*batch
	bytes   int // queued and under way, in all partitions
	counts  Counts
	err     error
	closed  bool
	keeping bool      // a sender is at it
	keptAt  time.Time // places, last

	senders sync.WaitGroup
	unwatch func() bool // stops waiting for the context's end
}

// outbox is what one partition has still to be sent. Publisher.mu guards it.
type outbox struct {
	id      int
	ready   sync.Cond // queue has grown, or err or closed was set
	queue   []*batch
	resumed int64 // number of the last record an earlier run published here, or -1
	place   place // how far the series is
	kept    place // the same, as it was committed
}

// NewPublisher connects to the brokers and finds the topic's partitions.
func NewPublisher(ctx context.Context, cfg PublisherConfig) (*Publisher, error) {
	cfg.InFlightBytes = cmp.Or(cfg.InFlightBytes, 64<<20)
	cfg.RetryFor = cmp.Or(cfg.RetryFor, 2*time.Minute)
	if cfg.Wall == nil {
		cfg.Wall = func() schemas.Millis { return schemas.Millis(time.Now().UnixMilli()) }
	}
	p := &Publisher{cfg: cfg, resumed: -1, before: records{}, pace: pace{rate: cfg.Rate}}
	p.changed.L = &p.mu
	if name := cmp.Or(cfg.Compression, "lz4"); name != "none" {
		if err := p.compression.UnmarshalText([]byte(name)); err != nil {
			return nil, fmt.Errorf("compression %q: use lz4, none, gzip, snappy or zstd", name)
		}
	}
	mechanism, err := mechanism(cfg)
	if err != nil {
		return nil, err
	}
	p.client = &kafka.Client{
		Addr: kafka.TCP(cfg.Brokers...),
		Transport: &kafka.Transport{
			ClientID: "footfall-publish", TLS: cfg.TLS, SASL: mechanism, MetadataTopics: []string{cfg.Topic},
			IdleTimeout: 5 * time.Minute, // longer than a pause in the night of a simulated shop
		},
	}
	if p.ids, err = p.partitions(ctx); err != nil {
		p.disconnect()
		return nil, err
	}
	for _, id := range p.ids {
		o := &outbox{id: id, resumed: -1}
		o.ready.L = &p.mu
		p.parts = append(p.parts, o)
		p.senders.Go(func() { p.send(ctx, o) })
	}
	p.unwatch = context.AfterFunc(ctx, func() { p.fail(context.Cause(ctx)) })
	return p, nil
}

func mechanism(cfg PublisherConfig) (sasl.Mechanism, error) {
	switch strings.ToLower(cfg.SASL) {
	case "":
		return nil, nil //nolint:nilnil // no mechanism is kafka-go's way to say none
	case "plain":
		return plain.Mechanism{Username: cfg.User, Password: cfg.Password}, nil
	case "scram-sha-256":
		return scram.Mechanism(scram.SHA256, cfg.User, cfg.Password)
	case "scram-sha-512":
		return scram.Mechanism(scram.SHA512, cfg.User, cfg.Password)
	}
	return nil, fmt.Errorf("sasl mechanism %q: use plain, scram-sha-256 or scram-sha-512", cfg.SASL)
}

// partitions returns the ids of the topic's partitions, 0 to n-1.
func (p *Publisher) partitions(ctx context.Context) ([]int, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	meta, err := p.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{p.cfg.Topic}})
	if err != nil {
		return nil, fmt.Errorf("metadata of topic %s from %s: %w", p.cfg.Topic, strings.Join(p.cfg.Brokers, ","), err)
	}
	var ids []int
	for _, t := range meta.Topics {
		if errors.Is(t.Error, kafka.UnknownTopicOrPartition) {
			return nil, fmt.Errorf("topic %s does not exist; create it, for example by `footfall topics create`", p.cfg.Topic)
		}
		if t.Error != nil {
			return nil, fmt.Errorf("metadata of topic %s: %w", p.cfg.Topic, t.Error)
		}
		for _, part := range t.Partitions {
			ids = append(ids, part.ID)
		}
	}
	slices.Sort(ids)
	for i, id := range ids {
		if i != id {
			return nil, fmt.Errorf("topic %s: partitions are %v, not numbered from 0", p.cfg.Topic, ids)
		}
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("topic %s has no partitions", p.cfg.Topic)
	}
	return ids, nil
}

// Partitions returns how many partitions the topic has.
func (p *Publisher) Partitions() int { return len(p.parts) }

// Partition returns the partition of a key, as Kafka's Java client chooses it; number
// is the record's, for one without a key.
func (p *Publisher) Partition(key []byte, number int64) int {
	if key == nil {
		return int(number % int64(len(p.parts)))
	}
	return kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: key}, p.ids...)
}

// Publish takes a record, whose memory is no longer the caller's, and returns before
// it is acknowledged. It blocks while too much is in flight, or for the rate. An error
// may be that of an earlier record, and is final.
func (p *Publisher) Publish(ctx context.Context, rec Record) error {
	number := p.number
	if err := p.same(number, &rec); err != nil {
		return err
	}
	p.number++
	o := p.parts[p.Partition(rec.Key, number)]
	if number <= o.resumed {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.counts.Taken++
		p.counts.Skipped++
		return p.err
	}
	if err := p.pace.wait(ctx); err != nil {
		return err
	}
	if rec.Lane == schemas.Live {
		rec.Lane = p.cfg.Lane
	}
	e := entry{Record: rec, number: number, sent: time.Now().UnixMicro(), stamp: rec.Time}
	if rec.Lane != schemas.Replay {
		e.stamp = p.cfg.Wall()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.room(ctx, e.size()); err != nil {
		return err
	}
	p.counts.Taken++
	p.add(o, e)
	o.ready.Signal()
	return nil
}

// room waits until size more bytes may be in flight. The caller holds p.mu.
func (p *Publisher) room(ctx context.Context, size int) error {
	full := func() bool { return p.bytes > 0 && p.bytes+size > p.cfg.InFlightBytes && p.err == nil && !p.closed }
	if full() {
		stop := context.AfterFunc(ctx, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.changed.Broadcast()
		})
		defer stop()
		for full() && ctx.Err() == nil {
			p.changed.Wait()
		}
	}
	switch {
	case p.err != nil:
		return p.err
	case p.closed:
		return errors.New("publish after close")
	default:
		return context.Cause(ctx)
	}
}

// Flush waits until all that was given to Publish is acknowledged.
func (p *Publisher) Flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.bytes > 0 && p.err == nil {
		p.changed.Wait()
	}
	return p.err
}

// Counts returns what became of the records so far. Any goroutine may ask.
func (p *Publisher) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

// Close flushes, ends the goroutines, and keeps how far the series is. It returns the
// first error of any record.
func (p *Publisher) Close() error {
	err := p.Flush()
	p.mu.Lock()
	p.closed = true
	p.wake()
	p.mu.Unlock()
	p.unwatch()
	p.senders.Wait()
	keeping, cancel := context.WithTimeout(context.Background(), keepMax)
	defer cancel()
	_ = p.keep(keeping) // the next Resume reads more, then
	p.disconnect()
	return err
}

func (p *Publisher) disconnect() {
	if t, ok := p.client.Transport.(*kafka.Transport); ok {
		t.CloseIdleConnections()
	}
}

// fail ends everything; the first error is kept.
func (p *Publisher) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	p.wake()
}

func (p *Publisher) wake() {
	p.changed.Broadcast()
	for _, o := range p.parts {
		o.ready.Broadcast()
	}
}
