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

// answerMax is how long a member of the group waits for a leader: all its other partitions wait
// meanwhile. readIdleMax is how long Read waits for the next record of one that answers: an old
// one may come from an object store.
const (
	answerMax   = 4 * time.Second
	readIdleMax = 30 * time.Second
)

// newReader returns a log that is no member of any group: for Bounds and Read. Nobody else
// waits with it, and it waits for leaders as long as for records.
func newReader(base []kgo.Opt, report func(archive.Fact)) (*Log, error) {
	client, err := kgo.NewClient(base...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return &Log{base: base, client: client, admin: kadm.NewClient(client), now: now, report: report, patience: readIdleMax}, nil
}

// Bounds returns a partition's first offset and its last stable one.
func (l *Log) Bounds(ctx context.Context, p archive.Partition) (start, end int64, err error) {
	waiting, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	if start, err = l.offset(waiting, p, atStart, 0); err == nil {
		end, err = l.offset(waiting, p, atEnd, committed)
	}
	if err != nil {
		return 0, 0, l.unanswered(waiting, err)
	}
	return start, end, nil
}

// What offset asks for.
const (
	atStart, atEnd = -2, -1
	committed      = 1 // isolation
)

// unanswered is the error of a question that was asked with patience.
func (l *Log) unanswered(waiting context.Context, err error) error {
	if errors.Is(waiting.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %v: %w", l.patience, err)
	}
	return err
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

// Read gives a range of records again, through a client of its own. While nothing comes it asks
// the partition's leader now and then, which tells where there is none.
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
	heard, quiet := time.Now(), true
	for at := first; at < next; {
		if quiet {
			if err := l.answers(ctx, p); err != nil {
				return fmt.Errorf("kafka: read %s/%d from offset %d: %w", p.Topic, p.Number, at, err)
			}
		}
		waiting, cancel := context.WithTimeout(ctx, l.patience)
		fetches := client.PollRecords(waiting, archive.RunMax)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
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
		was := at
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
		if quiet = at == was; !quiet {
			heard = time.Now()
		} else if time.Since(heard) >= readIdleMax {
			return fmt.Errorf("kafka: read %s/%d: nothing after offset %d for %s, want all before %d", p.Topic, p.Number, at-1, readIdleMax, next)
		}
	}
	return nil
}

// answers tells, by its error, that a partition's leader does not.
func (l *Log) answers(ctx context.Context, p archive.Partition) error {
	waiting, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	if _, err := l.offset(waiting, p, atEnd, committed); err != nil {
		return l.unanswered(waiting, err)
	}
	return nil
}
