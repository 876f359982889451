package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/schemas"
	"footfall/sources/kafka"
)

// brokersFlag is --brokers, which every command that talks to Kafka has.
type brokersFlag struct{ brokers string }

func (b *brokersFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&b.brokers, "brokers", "", "`addresses` of brokers, HOST:PORT,... (kafka.brokers)")
}

func (b *brokersFlag) settings() []setting {
	if b.brokers == "" {
		return nil
	}
	return []setting{{"kafka.brokers", b.brokers, "--brokers"}}
}

// wall is the wall clock.
func wall() schemas.Millis { return schemas.Millis(time.Now().UnixMilli()) }

// kafka is what sources/kafka needs of the configuration.
func (c *Config) kafka() kafka.Config {
	k := kafka.Config{
		Brokers:            c.Kafka.Brokers,
		Group:              c.Kafka.Group,
		Instance:           c.instance(),
		InstanceID:         c.Kafka.Instance,
		Protocol:           kafka.Protocol(c.Kafka.Protocol),
		Topic:              c.Kafka.Topics.Events,
		Compression:        c.Kafka.Compression,
		SessionTimeout:     c.Kafka.SessionTimeout,
		TransactionTimeout: c.Kafka.TransactionTimeout,
		TickInterval:       c.Clock.Tick,
		Lane:               c.Kafka.Lane,
		BatchMax:           c.Kafka.BatchMax,
		Now:                wall,
	}
	if c.Kafka.TLS.Enabled {
		t := &c.Kafka.TLS
		k.TLS = &kafka.TLS{CAFile: t.CAFile, CertFile: t.CertFile, KeyFile: t.KeyFile, ServerName: t.ServerName}
	}
	if c.Kafka.SASL.Mechanism != "" {
		s := &c.Kafka.SASL
		k.SASL = &kafka.SASL{Mechanism: s.Mechanism, User: s.Username, Password: string(s.Password)}
	}
	return k
}

// instance is this process's name in the group: the configured one, or one that no
// other process has.
func (c *Config) instance() string {
	if c.Kafka.Instance != "" {
		return c.Kafka.Instance
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s-%d-%x", host, os.Getpid(), time.Now().UnixNano())
}

// client opens a Kafka client for a command. Closing it is the caller's.
func (c *Config) client(opts ...kgo.Opt) (*kgo.Client, error) {
	k := c.kafka()
	k.Options = append(k.Options, opts...)
	shared, err := kafka.Options(k)
	if err != nil {
		return nil, &usageError{err}
	}
	cl, err := kgo.NewClient(shared...)
	if err != nil {
		return nil, &usageError{fmt.Errorf("kafka: %w", err)}
	}
	return cl, nil
}

// connect opens a client and makes sure that a broker answers.
func (c *Config) connect(ctx context.Context, opts ...kgo.Opt) (*kgo.Client, error) {
	cl, err := c.client(opts...)
	if err != nil {
		return nil, err
	}
	pingCtx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := cl.Ping(pingCtx); err != nil {
		cl.Close()
		return nil, fmt.Errorf("kafka: no broker at %s answers: %w; check kafka.brokers, kafka.tls and kafka.sasl",
			strings.Join(c.Kafka.Brokers, ","), err)
	}
	return cl, nil
}

// partitions asks how many partitions a topic has.
func partitions(ctx context.Context, cl *kgo.Client, topic string) (int, error) {
	topics, err := kadm.NewClient(cl).ListTopics(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("kafka: topic %s: %w", topic, err)
	}
	t := topics[topic]
	if errors.Is(t.Err, kerr.UnknownTopicOrPartition) {
		return 0, fmt.Errorf("kafka: there is no topic %s; `footfall topics create` makes it", topic)
	}
	if t.Err != nil {
		return 0, fmt.Errorf("kafka: topic %s: %w", topic, t.Err)
	}
	return len(t.Partitions), nil
}

// topicStarts asks for the first offset of each partition of a topic.
func topicStarts(ctx context.Context, cl *kgo.Client, topic string) (map[int32]int64, error) {
	listed, err := kadm.NewClient(cl).ListStartOffsets(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("kafka: start of topic %s: %w", topic, err)
	}
	starts := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { starts[o.Partition] = o.Offset })
	return starts, nil
}

// readTopic reads a topic from its start (or, where since is above zero, from the first
// record not older) to the end it has now, read_committed, and calls each with every
// record; those of a partition come in order.
func readTopic(ctx context.Context, c *Config, topic string, since schemas.Millis, each func(*kgo.Record) error) error {
	return readFrom(ctx, c, topic, each, func(adm *kadm.Client, _ kadm.ListedOffsets) (kadm.ListedOffsets, error) {
		if since > 0 {
			return adm.ListOffsetsAfterMilli(ctx, int64(since), topic)
		}
		return adm.ListStartOffsets(ctx, topic)
	})
}

// readTail reads the last records of a topic, up to most of each partition.
func readTail(ctx context.Context, c *Config, topic string, most int, each func(*kgo.Record) error) error {
	return readFrom(ctx, c, topic, each, func(adm *kadm.Client, ends kadm.ListedOffsets) (kadm.ListedOffsets, error) {
		starts, err := adm.ListStartOffsets(ctx, topic)
		for partition, end := range ends[topic] {
			if s, ok := starts[topic][partition]; ok {
				s.Offset = max(s.Offset, end.Offset-int64(most))
				starts[topic][partition] = s
			}
		}
		return starts, err
	})
}

// readFrom reads a topic from where begin says to its end.
func readFrom(ctx context.Context, c *Config, topic string, each func(*kgo.Record) error, begin func(*kadm.Client, kadm.ListedOffsets) (kadm.ListedOffsets, error)) error {
	cl, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := c.allowed(ctx, cl, []kafka.Need{{On: kafka.OnTopic, Name: topic, Do: []kmsg.ACLOperation{canRead}}}); err != nil {
		return err
	}
	if _, err := partitions(ctx, cl, topic); err != nil {
		return err
	}
	adm := kadm.NewClient(cl)
	ends, err := adm.ListCommittedOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("kafka: end of topic %s: %w", topic, err)
	}
	starts, err := begin(adm, ends)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("kafka: start of topic %s: %w", topic, err)
	}
	from, to := map[int32]kgo.Offset{}, map[int32]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(topic, end.Partition)
		if start.Offset >= 0 && start.Offset < end.Offset {
			from[end.Partition] = kgo.NewOffset().At(start.Offset)
			to[end.Partition] = end.Offset
		}
	})
	if len(from) == 0 {
		return nil
	}
	// The end may be a transaction's marker, which is no record: KeepControlRecords
	// shows it, so that we know when we are there.
	reader, err := c.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.KeepControlRecords())
	if err != nil {
		return err
	}
	defer reader.Close()
	return readUntil(ctx, reader, topic, to, each)
}

// readUntil polls until every partition has been read to its end.
func readUntil(ctx context.Context, cl *kgo.Client, topic string, to map[int32]int64, each func(*kgo.Record) error) error {
	for len(to) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, f := range fetches.Errors() {
			return fmt.Errorf("kafka: read %s/%d: %w", topic, f.Partition, kafka.Unreadable(f.Err))
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			end, open := to[r.Partition]
			if !open || r.Offset >= end {
				delete(to, r.Partition)
				continue
			}
			if !r.Attrs.IsControl() {
				if err := each(r); err != nil {
					return err
				}
			}
			if r.Offset == end-1 {
				delete(to, r.Partition)
			}
		}
	}
	return nil
}

// headers are a record's, as schemas has them.
func headers(r *kgo.Record) []schemas.Header {
	all := make([]schemas.Header, len(r.Headers))
	for i, h := range r.Headers {
		all[i] = schemas.Header{Key: h.Key, Value: h.Value}
	}
	return all
}
