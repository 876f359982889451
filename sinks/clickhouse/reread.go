package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline/archive"
)

// readIdleMax is how long Read waits for the next record.
const readIdleMax = 30 * time.Second

// newReader returns a log that is no member of any group: for Bounds and Read.
func newReader(base []kgo.Opt, report func(archive.Fact)) (*Log, error) {
	client, err := kgo.NewClient(base...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return &Log{base: base, client: client, admin: kadm.NewClient(client), now: now, report: report}, nil
}

// Bounds returns a partition's first offset and its last stable one.
func (l *Log) Bounds(ctx context.Context, p archive.Partition) (start, end int64, err error) {
	const atStart, atEnd, committed = -2, -1, 1
	if start, err = l.offset(ctx, p, atStart, 0); err != nil {
		return 0, 0, err
	}
	end, err = l.offset(ctx, p, atEnd, committed)
	return start, end, err
}

// offset asks for one partition alone: the answer for a whole topic is an error while one
// of its partitions has no leader, and nothing would be archived of the others.
func (l *Log) offset(ctx context.Context, p archive.Partition, at int64, isolation int8) (int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel = -1, isolation
	topic, part := kmsg.NewListOffsetsRequestTopic(), kmsg.NewListOffsetsRequestTopicPartition()
	part.Partition, part.Timestamp = p.Number, at
	topic.Topic, topic.Partitions = p.Topic, append(topic.Partitions, part)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, l.client)
	if err != nil {
		return 0, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, fmt.Errorf("kafka: no offsets of %s/%d", p.Topic, p.Number)
	}
	of := &resp.Topics[0].Partitions[0]
	return of.Offset, kerr.ErrorForCode(of.ErrorCode)
}

// Read gives a range of records again, through a client of its own.
func (l *Log) Read(ctx context.Context, p archive.Partition, first, next int64, each func([]archive.Record) error) error {
	if first >= next {
		return nil
	}
	client, err := kgo.NewClient(append(append(slices.Clone(l.base), l.reading()...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{p.Topic: {p.Number: kgo.NewOffset().At(first)}}))...)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	defer client.Close()
	of := Log{report: l.report}
	for at := first; at < next; {
		waiting, cancel := context.WithTimeout(ctx, readIdleMax)
		fetches := client.PollRecords(waiting, archive.RunMax)
		idle := waiting.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if idle {
			return fmt.Errorf("kafka: read %s/%d: nothing after offset %d for %s, want all before %d", p.Topic, p.Number, at-1, readIdleMax, next)
		}
		for _, e := range fetches.Errors() {
			if errors.Is(e.Err, kerr.OffsetOutOfRange) {
				return fmt.Errorf("kafka: read %s/%d from offset %d: %w", p.Topic, p.Number, at, archive.ErrGone)
			}
		}
		if err := of.errors(fetches); err != nil {
			return err
		}
		var run []archive.Record
		of.headers = nil // the records of a run are the callee's until it returns
		fetches.EachRecord(func(r *kgo.Record) {
			if at = r.Offset + 1; r.Offset < next {
				run = append(run, of.record(r))
			}
		})
		if len(run) > 0 {
			if err := each(run); err != nil {
				return err
			}
		}
	}
	return nil
}
