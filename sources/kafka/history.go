package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

// History is read request by request and not by a consumer: a consumer says
// nothing of offsets that hold no record for us (markers, aborted records), so it
// can't tell that a range has been read to its end.

// Offsets that have names in ListOffsets. The end depends on the isolation level;
// only the stable one is asked for with read_committed.
const (
	offsetStart  = -2
	offsetEnd    = -1 // high watermark
	offsetStable = -3 // last stable offset; not Kafka's number
)

// readBytes is how much one request of History asks for, peekBytes one that looks for a
// place in the log. A broker gives one batch at least, however large.
const (
	readBytes = 8 << 20
	peekBytes = 16 << 10
)

// Bounds returns the input partition's first offset and its last stable one.
func (s *Session) Bounds(ctx context.Context, partition int32) (start, end int64, err error) {
	start, end, _, err = s.Range(ctx, s.conf.Topic, partition)
	return start, end, err
}

// Range returns a partition's first offset, the end of what is decided (last
// stable offset), and the end of the log.
func (s *Session) Range(ctx context.Context, topic string, partition int32) (start, stable, end int64, err error) {
	for _, q := range []struct {
		at   int64
		into *int64
	}{{offsetStart, &start}, {offsetStable, &stable}, {offsetEnd, &end}} {
		if *q.into, err = s.offset(ctx, topic, partition, q.at); err != nil {
			return 0, 0, 0, err
		}
	}
	return start, stable, end, nil
}

// offset asks for one kind of offset of a partition. Whoever needs it can't go on
// without, so it is asked for again for as long as brokers may need to find a leader.
func (s *Session) offset(ctx context.Context, topic string, partition int32, at int64) (offset int64, err error) {
	err = insist(ctx, s.conf.TransactionTimeout+undecidedLimit, func(ctx context.Context) error {
		offsets, err := s.listOffsets(ctx, topic, []int32{partition}, at)
		offset = offsets[partition]
		return err
	})
	return offset, err
}

// offsetsRequest asks for one kind of offset of partitions of a topic.
func offsetsRequest(topic string, partitions []int32, at int64) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	req.TimeoutMillis = int32(requestTimeout.Milliseconds())
	if at == offsetStable {
		req.IsolationLevel, at = 1, offsetEnd
	}
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for _, p := range partitions {
		part := kmsg.NewListOffsetsRequestTopicPartition()
		part.Partition, part.Timestamp = p, at
		t.Partitions = append(t.Partitions, part)
	}
	req.Topics = append(req.Topics, t)
	return req
}

// listOffsets asks for one kind of offset of partitions of a topic.
func (s *Session) listOffsets(ctx context.Context, topic string, partitions []int32, at int64) (map[int32]int64, error) {
	req := offsetsRequest(topic, partitions, at)
	offsets := make(map[int32]int64, len(partitions))
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := retry(ctx, func() error {
		resp, err := req.RequestWith(ctx, s.admin)
		if err != nil {
			return err
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return err
				}
				offsets[p.Partition] = p.Offset
			}
		}
		if len(offsets) != len(partitions) {
			return fmt.Errorf("the brokers answered for %d of %d partitions", len(offsets), len(partitions))
		}
		return nil
	})
	if err != nil {
		return nil, asked(fmt.Errorf("kafka: offsets of %s %v: %w", topic, partitions, err))
	}
	return offsets, nil
}

// Input gives the committed input records with from <= offset < to, and the markers
// between them.
func (s *Session) Input(ctx context.Context, partition int32, from, to int64, each func([]worker.Record) error) error {
	return s.readRange(ctx, s.conf.Topic, partition, from, to, func(batch []*kgo.Record) error {
		r := newRun(batch)
		defer r.free()
		if err := r.read(s.conf.Lane); err != nil {
			return err
		}
		return each(r.records)
	})
}

// readRange reads [from, to), one request ahead of each. What is not decided yet is
// waited for, within a limit.
func (s *Session) readRange(ctx context.Context, topic string, partition int32, from, to int64, each func([]*kgo.Record) error) error {
	type chunk struct {
		records []*kgo.Record
		err     error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	chunks := make(chan chunk, 1)
	go func() {
		defer close(chunks)
		stalled := time.Now()
		for at := from; at < to; {
			records, next, err := s.Fetch(ctx, topic, partition, at)
			if err == nil && next == at && time.Since(stalled) > s.conf.TransactionTimeout+undecidedLimit {
				err = fmt.Errorf("kafka: %s/%d: offset %d of %d is not readable: %s", topic, partition, at, to, s.Hanging(ctx, topic, partition))
			}
			if next > at {
				stalled = time.Now()
			}
			at = next
			for len(records) > 0 && records[len(records)-1].Offset >= to {
				records = records[:len(records)-1]
			}
			if len(records) == 0 && err == nil {
				continue
			}
			select {
			case chunks <- chunk{records, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for c := range chunks {
		if c.err != nil {
			return c.err
		}
		if err := each(c.records); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Fetch reads committed records, and markers, from an offset on, and returns the
// offset to go on from; that one alone tells how far the log was read, since
// aborted records are left out. It waits a moment if there is nothing yet.
func (s *Session) Fetch(ctx context.Context, topic string, partition int32, offset int64) ([]*kgo.Record, int64, error) {
	return s.fetch(ctx, topic, partition, offset, readBytes)
}

// Peek is Fetch of no more than a few batches.
func (s *Session) Peek(ctx context.Context, topic string, partition int32, offset int64) ([]*kgo.Record, int64, error) {
	return s.fetch(ctx, topic, partition, offset, peekBytes)
}

func (s *Session) fetch(ctx context.Context, topic string, partition int32, offset int64, most int32) ([]*kgo.Record, int64, error) {
	fresh, wait, began := false, historyWait, time.Now()
	for tries := 0; ; tries++ {
		records, next, err := s.fetchOnce(ctx, topic, partition, offset, most, wait, fresh)
		if err == nil {
			return records, next, nil
		}
		var gone *GoneError
		if errors.Is(err, errUnread) {
			if time.Since(began) > s.conf.TransactionTimeout+undecidedLimit {
				return nil, offset, fmt.Errorf("%w: %w", pipeline.ErrAway, err)
			}
			tries, wait = 0, min(2*wait, unreadWait)
		}
		again := transient(err) && !errors.As(err, &gone) && !errors.Is(err, kgo.ErrMaxDecompress)
		if unknownTopic(err) { // a broker that has just started may not know it yet
			if err := s.missing(ctx); err != nil {
				return nil, offset, err
			}
			again = true
		}
		if ctx.Err() != nil || tries > 20 || !again {
			return nil, offset, asked(err)
		}
		fresh = true // the leader may have moved
		select {
		case <-time.After(backoff(tries)):
		case <-ctx.Done():
			return nil, offset, ctx.Err()
		}
	}
}

// errUnread says that a broker has given nothing of what it says is there. Before Kafka 3.8
// one whose old segments lie in an object store (KIP-405) reads them no longer than a fetch
// may wait (KIP-1018), and answers with nothing then.
var errUnread = errors.New("the broker gives nothing of what lies there")

// unreadWait is how long a broker is given for that in the end.
const unreadWait = 5 * time.Second

func (s *Session) fetchOnce(ctx context.Context, topic string, partition int32, offset int64, most int32, wait time.Duration, fresh bool) ([]*kgo.Record, int64, error) {
	info, err := s.meta(ctx, topic, fresh)
	if err != nil {
		return nil, offset, err
	}
	if int(partition) >= len(info.leaders) {
		return nil, offset, fmt.Errorf("kafka: %s has %d partitions; there is no partition %d", topic, len(info.leaders), partition)
	}
	if info.leaders[partition] < 0 {
		return nil, offset, fmt.Errorf("kafka: fetch %s/%d: %w", topic, partition, kerr.LeaderNotAvailable)
	}
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis = int32(wait.Milliseconds())
	req.MinBytes, req.MaxBytes, req.IsolationLevel = 1, most, 1
	req.SessionEpoch = -1 // no session
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic, info.id
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.PartitionMaxBytes = partition, offset, most
	t.Partitions = append(t.Partitions, part)
	req.Topics = append(req.Topics, t)
	kresp, err := s.admin.Broker(int(info.leaders[partition])).Request(ctx, req)
	if err != nil {
		return nil, offset, fmt.Errorf("kafka: fetch %s/%d: %w", topic, partition, err)
	}
	resp := kresp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, offset, fmt.Errorf("kafka: fetch %s/%d: %w", topic, partition, err)
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, offset, nil // a broker may answer with nothing
	}
	got := &resp.Topics[0].Partitions[0]
	decompressor, _ := s.admin.OptValue(kgo.WithDecompressor).(kgo.Decompressor) // with the client's limit
	fetched, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		KeepControlRecords: true, Offset: offset, IsolationLevel: kgo.ReadCommitted(), Topic: topic, Partition: partition,
	}, got, decompressor, nil)
	switch {
	case errors.Is(fetched.Err, kerr.OffsetOutOfRange):
		start, err := s.offset(ctx, topic, partition, offsetStart)
		if err != nil {
			return nil, offset, err
		}
		return nil, offset, &GoneError{Topic: topic, Partition: partition, Offset: offset, Start: start}
	case fetched.Err != nil:
		return nil, offset, fmt.Errorf("kafka: fetch %s/%d: %w", topic, partition, Unreadable(fetched.Err))
	case len(got.RecordBatches) == 0 && got.LastStableOffset > offset:
		return nil, offset, fmt.Errorf("kafka: fetch %s/%d: offset %d of %d: %w", topic, partition, offset, got.LastStableOffset, errUnread)
	}
	return fetched.Records, next, nil
}

// meta returns what is known of a topic, asking the brokers if it is not, or if
// it must be fresh.
func (s *Session) meta(ctx context.Context, topic string, fresh bool) (topicInfo, error) {
	s.mu.Lock()
	info, ok := s.metas[topic]
	s.mu.Unlock()
	if ok && !fresh {
		return info, nil
	}
	infos, err := lookUp(ctx, s.admin, topic)
	if err != nil {
		return info, err
	}
	info, ok = infos[topic]
	if !ok {
		return info, noTopic(topic)
	}
	if err := s.known(info); err != nil {
		return info, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metas[topic] = info
	return info, nil
}

// lookUp asks the brokers for topics, and returns those that exist. It does not go
// through kadm, which answers from a cache that may be seconds old.
func lookUp(ctx context.Context, cl *kgo.Client, topics ...string) (map[string]topicInfo, error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = new(name)
		req.Topics = append(req.Topics, t)
	}
	infos := make(map[string]topicInfo, len(topics))
	err := retry(ctx, func() error {
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		for _, t := range resp.Topics {
			err := kerr.ErrorForCode(t.ErrorCode)
			switch {
			case t.Topic == nil || errors.Is(err, kerr.UnknownTopicOrPartition):
				continue
			case err != nil:
				return fmt.Errorf("%s: %w", *t.Topic, err)
			}
			info := topicInfo{name: *t.Topic, id: t.TopicID, leaders: make([]int32, len(t.Partitions))}
			for _, p := range t.Partitions {
				if int(p.Partition) >= len(info.leaders) {
					return fmt.Errorf("%s: the brokers list partition %d of %d", *t.Topic, p.Partition, len(info.leaders))
				}
				info.leaders[p.Partition] = p.Leader
			}
			infos[info.name] = info
		}
		return nil
	})
	if err != nil {
		return nil, asked(fmt.Errorf("kafka: look up topics: %w", err))
	}
	return infos, nil
}

// lookUpMade is lookUp for topics that have been made, perhaps a moment ago: those that are
// not known are looked for again, and missing from what it returns only then.
func lookUpMade(ctx context.Context, cl *kgo.Client, topics ...string) (infos map[string]topicInfo, err error) {
	err = insistOnTopic(ctx, startWait, func(ctx context.Context) (err error) {
		if infos, err = lookUp(ctx, cl, topics...); err != nil || len(infos) == len(topics) {
			return err
		}
		return kerr.UnknownTopicOrPartition
	})
	if unknownTopic(err) {
		err = nil
	}
	return infos, err
}
