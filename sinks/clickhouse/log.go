package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline/archive"
	"footfall/schemas"
)

// Limits of what is fetched ahead. While a batch is being inserted nothing is
// polled, and the client holds no more than this for each broker.
const (
	fetchBytes          = 4 << 20   // compressed
	fetchPartitionBytes = 512 << 10 // compressed; a larger batch comes alone
	pollRecords         = 5_000     // a batch may be larger by so many than it should
	pollMax             = schemas.Second
)

// revokeMax is how long a rebalance waits for the batch under way; below the
// rebalance timeout, 60 s, after which the group goes on without this member.
const revokeMax = 30 * time.Second

// Log is the archive's member of its consumer group. It implements archive.Log.
//
// Poll and Commit are the archive's goroutine's. The client calls back on its own,
// one at a time: a revocation waits there until the archive has sent and committed
// what it has of the partitions, that is, until the Poll after the one that
// reported it. What was called back before a poll returned holds for that poll's
// records: those of partitions that are not owned are left out.
type Log struct {
	group  string
	base   []kgo.Opt // to connect
	client *kgo.Client
	admin  *kadm.Client
	now    func() schemas.Millis
	report func(archive.Fact)

	patience time.Duration // with a leader that does not answer

	mu       sync.Mutex                  // guards what follows; held by callbacks of the client
	member   string                      // our id in the group, as of the last callback
	epoch    int64                       // the last one given
	owned    map[archive.Partition]int64 // epochs
	lost     []archive.Partition
	assigned []archive.Partition
	again    map[archive.Partition]bool // of assigned: the client is elsewhere than at the committed offset
	going    *revocation                // that waits, or nil
	wake     context.CancelFunc         // ends the wait of a poll; nil: none waits
	closed   bool

	headers []schemas.Header // of the records polled last
	rest    time.Time        // no leader is asked where its partition begins before
}

// revocation is partitions that are to go.
type revocation struct {
	partitions []archive.Partition
	reported   bool
	settled    chan struct{} // closed when they may go
}

// NewLog joins the group at once. The options say how to connect, and may say how to
// be a member; unless they choose a balancer, the group is a classic one.
func NewLog(group string, topics []string, base []kgo.Opt, now func() schemas.Millis, report func(archive.Fact)) (*Log, error) {
	base = append([]kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer())}, base...)
	l := &Log{group: group, base: base, now: now, report: report, patience: answerMax, owned: map[archive.Partition]int64{}, again: map[archive.Partition]bool{}}
	client, err := kgo.NewClient(append(append(slices.Clone(base), l.reading()...),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topics...),
		kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(_ context.Context, cl *kgo.Client, m map[string][]int32) { l.gain(memberOf(cl), m) }),
		kgo.OnPartitionsRevoked(func(ctx context.Context, cl *kgo.Client, m map[string][]int32) { l.revoke(ctx, memberOf(cl), m) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, m map[string][]int32) { l.lose(m) }),
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	l.client, l.admin = client, kadm.NewClient(client)
	return l, nil
}

// reading is how committed records are read, with the markers of transactions, and
// never from anywhere else than asked for.
func (l *Log) reading() []kgo.Opt {
	return []kgo.Opt{
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxBytes(fetchBytes),
		kgo.FetchMaxPartitionBytes(fetchPartitionBytes),
	}
}

// Close leaves the group. Nothing is in the making any more.
func (l *Log) Close() {
	l.mu.Lock()
	l.closed = true
	l.letGo()
	l.mu.Unlock()
	l.client.Close()
}

func memberOf(cl *kgo.Client) string {
	member, _ := cl.GroupMetadata()
	return member
}

func (l *Log) gain(member string, m map[string][]int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.comeBack(member, m)
	for p := range partitionsOf(m) {
		l.own(p)
	}
}

// own begins an ownership. mu is held.
func (l *Log) own(p archive.Partition) {
	l.epoch++
	l.owned[p] = l.epoch
	l.assigned = append(l.assigned, p)
}

// comeBack begins a new ownership of every partition but some where the member was
// expelled since the last callback, and has joined again under another id: its client
// (franz-go 1.22.2) has told nobody that it had lost them, and reads on where it was,
// whatever others have committed meanwhile. mu is held.
func (l *Log) comeBack(member string, but map[string][]int32) (expelled bool) {
	expelled = l.member != "" && member != l.member && len(l.owned) > 0
	l.member = member
	if !expelled {
		return false
	}
	for p := range l.owned {
		if slices.Contains(but[p.Topic], p.Number) {
			continue
		}
		l.lost = append(l.lost, p)
		l.assigned = slices.DeleteFunc(l.assigned, func(q archive.Partition) bool { return q == p })
		l.own(p)
		l.again[p] = true
	}
	return true
}

func (l *Log) lose(m map[string][]int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropAll(m)
}

// dropAll takes partitions for lost. mu is held.
func (l *Log) dropAll(m map[string][]int32) {
	l.going = nil
	for p := range partitionsOf(m) {
		if l.owned[p] > 0 {
			delete(l.owned, p)
			delete(l.again, p)
			l.lost = append(l.lost, p)
		}
		l.assigned = slices.DeleteFunc(l.assigned, func(q archive.Partition) bool { return q == p })
	}
}

// revoke keeps the rebalance waiting until the archive has settled what it has of the
// partitions, or for too long: they are lost then.
func (l *Log) revoke(ctx context.Context, member string, m map[string][]int32) {
	r := &revocation{settled: make(chan struct{})}
	l.mu.Lock()
	if l.comeBack(member, m) { // others may have had them meanwhile
		l.dropAll(m)
		l.mu.Unlock()
		return
	}
	for p := range partitionsOf(m) {
		fresh := len(l.assigned)
		l.assigned = slices.DeleteFunc(l.assigned, func(q archive.Partition) bool { return q == p })
		switch {
		case len(l.assigned) < fresh: // not reported yet: nothing of it is in the making
			delete(l.owned, p)
			delete(l.again, p)
		case l.owned[p] > 0:
			r.partitions = append(r.partitions, p)
		}
	}
	if len(r.partitions) == 0 || l.closed {
		l.mu.Unlock()
		return
	}
	l.going = r
	if l.wake != nil {
		l.wake()
	}
	l.mu.Unlock()
	limit := time.NewTimer(revokeMax)
	defer limit.Stop()
	select {
	case <-r.settled:
	case <-limit.C:
		l.lose(m)
	case <-ctx.Done():
		l.lose(m)
	}
}

// letGo ends the wait of a revocation that was reported. mu is held.
func (l *Log) letGo() {
	r := l.going
	if r == nil || !r.reported && !l.closed {
		return
	}
	for _, p := range r.partitions {
		delete(l.owned, p)
	}
	l.going = nil
	close(r.settled)
}

func partitionsOf(m map[string][]int32) func(yield func(archive.Partition) bool) {
	return func(yield func(archive.Partition) bool) {
		for topic, numbers := range m {
			for _, n := range numbers {
				if !yield(archive.Partition{Topic: topic, Number: n}) {
					return
				}
			}
		}
	}
}

// Poll waits for records or changes of ownership, until at the latest, but never long:
// an assignment does not end the wait. What is there it gives though until is over: the
// client gives nothing to who does not wait at all.
func (l *Log) Poll(ctx context.Context, until schemas.Millis, into *archive.Batch) error {
	into.Lost, into.Revoked, into.Assigned = into.Lost[:0], into.Revoked[:0], into.Assigned[:0]
	for i := range into.Runs {
		clear(into.Runs[i].Records) // all that was fetched with them would stay in memory
	}
	wait := time.Duration(min(max(1, until-l.now()), pollMax)) * time.Millisecond
	waiting, cancel := context.WithTimeout(ctx, wait)
	l.mu.Lock()
	l.letGo()
	if l.wake = cancel; l.going != nil {
		cancel() // came before there was somebody to wake
	}
	l.mu.Unlock()
	fetches := l.client.PollRecords(waiting, pollRecords)
	cancel()
	l.mu.Lock()
	l.wake = nil
	lost, assigned, again := l.lost, l.assigned, l.again
	l.lost, l.assigned, l.again = nil, nil, map[archive.Partition]bool{}
	for _, p := range assigned { // what was polled of it may be of the ownership that is over
		again[p] = again[p] || slices.Contains(lost, p)
	}
	if r := l.going; r != nil {
		into.Revoked, r.reported = append(into.Revoked, r.partitions...), true
	}
	l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	into.Lost = append(into.Lost, lost...)
	if err := l.committed(ctx, assigned, into); err != nil {
		return err
	}
	if err := l.errors(fetches); err != nil {
		return err
	}
	if err := l.rewind(ctx, again, into.Assigned); err != nil {
		return err
	}
	l.fill(fetches, again, into)
	return nil
}

// rewind has the client read partitions from where they are committed. Where nothing is, it
// asks the leader for the beginning. One that does not answer is asked again behind a later
// poll, and holds up no other partition: the longer the answer took, the later that is, and
// nothing of the partition is given until then.
func (l *Log) rewind(ctx context.Context, again map[archive.Partition]bool, assigned []archive.Assignment) error {
	to := map[string]map[int32]kgo.EpochOffset{}
	for p, is := range again { // in any order: each has its turn
		if !is || l.epochOf(p) == 0 {
			continue
		}
		next := int64(-1)
		for _, a := range assigned {
			if a.Partition == p && a.Committed {
				next = a.Next
			}
		}
		if next < 0 {
			var err error
			if next, err = l.beginning(ctx, p); err != nil {
				return err
			}
		}
		if next < 0 {
			l.mu.Lock()
			if l.owned[p] > 0 {
				l.again[p] = true
			}
			l.mu.Unlock()
			continue
		}
		if to[p.Topic] == nil {
			to[p.Topic] = map[int32]kgo.EpochOffset{}
		}
		to[p.Topic][p.Number] = kgo.EpochOffset{Epoch: -1, Offset: next}
	}
	if len(to) > 0 {
		l.client.SetOffsets(to)
	}
	return nil
}

// beginning asks where a partition begins; -1: it has no answer yet. Any error is final.
func (l *Log) beginning(ctx context.Context, p archive.Partition) (int64, error) {
	asked := time.Now()
	if asked.Before(l.rest) {
		return -1, nil
	}
	start, _, err := l.Bounds(ctx, p)
	switch {
	case err == nil:
		return start, nil
	case ctx.Err() != nil:
		return -1, ctx.Err()
	}
	what := fmt.Sprintf("look at %s/%d", p.Topic, p.Number)
	if fatal(err) {
		return -1, fmt.Errorf("kafka: %s: %w", what, err)
	}
	wait := max(4*time.Since(asked), time.Second)
	l.rest = time.Now().Add(wait)
	l.report(archive.Waiting{What: what, Err: err, Attempt: 1, Wait: schemas.Millis(wait.Milliseconds())})
	return -1, nil
}

// committed reads what was committed for partitions that are new here. The client
// has read it too and begins there, but does not tell the metadata. A commit that
// another member made in between only moves it ahead: what the client gives before
// that offset is skipped.
func (l *Log) committed(ctx context.Context, assigned []archive.Partition, into *archive.Batch) error {
	if len(assigned) == 0 {
		return nil
	}
	for attempt := 1; ; attempt++ {
		offsets, err := l.admin.FetchOffsets(ctx, l.group)
		if err == nil {
			for _, p := range assigned {
				a := archive.Assignment{Partition: p, Epoch: l.epochOf(p)}
				if a.Epoch == 0 {
					continue // lost meanwhile
				}
				if o, ok := offsets.Lookup(p.Topic, p.Number); ok {
					if o.Err != nil {
						err = o.Err
						break
					}
					a.Committed, a.Next, a.Metadata = o.At >= 0, o.At, o.Metadata
				}
				into.Assigned = append(into.Assigned, a)
			}
		}
		if err == nil {
			return nil
		}
		into.Assigned = into.Assigned[:0]
		if err := l.wait(ctx, "read the archive's offsets", err, attempt); err != nil {
			return err
		}
	}
}

// wait reports a failure that is tried again, and waits a second.
func (l *Log) wait(ctx context.Context, what string, err error, attempt int) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if fatal(err) {
		return fmt.Errorf("kafka: %s: %w", what, err)
	}
	l.report(archive.Waiting{What: what, Err: err, Attempt: attempt, Wait: schemas.Second})
	return sleep(ctx, schemas.Second)
}

// errors deals with what a poll says about partitions.
func (l *Log) errors(fetches kgo.Fetches) (fail error) {
	fetches.EachError(func(topic string, partition int32, err error) {
		var loss *kgo.ErrDataLoss
		switch {
		case fail != nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		case errors.Is(err, kerr.OffsetOutOfRange), errors.As(err, &loss):
			fail = fmt.Errorf("archive: %s/%d: the offset committed for group %s is not in the log any more (%w): records were deleted before they were archived, or the topic was made anew; "+
				"to go on without them, stop the archive and reset this partition's offset in the group (kafka-consumer-groups --reset-offsets --to-earliest); make the topic's retention longer than the archive may be down", topic, partition, l.group, err)
		case errors.Is(err, kerr.UnknownTopicID):
			// The client goes on to ask for the topic that it knew, without a pause.
			fail = fmt.Errorf("archive: topic %s was deleted, or deleted and made anew (%w): a row is known by its topic, partition and offset, "+
				"so the new topic's rows can't stand beside the old one's; give the topic another name, or the archive another clickhouse.database", topic, err)
		case fatal(err), errors.Is(err, kgo.ErrMaxDecompress): // the client says the latter once, and reads the partition no more
			fail = fmt.Errorf("kafka: fetch %s/%d: %w", topic, partition, err)
		default:
			l.report(archive.Waiting{What: fmt.Sprintf("fetch %s/%d", topic, partition), Err: err, Attempt: 1, Wait: 0})
		}
	})
	return fail
}

// fatal tells of errors that trying again does not mend.
func fatal(err error) bool {
	for _, e := range []error{
		kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed,
		kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.UnsupportedVersion,
		kerr.InvalidGroupID, kerr.OffsetMetadataTooLarge, kerr.GroupMaxSizeReached, kgo.ErrClientClosed,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// epochOf is the epoch of a partition that is ours; 0: it is not.
func (l *Log) epochOf(p archive.Partition) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owned[p]
}

// fill gives what was fetched, but of partitions that will be read again.
func (l *Log) fill(fetches kgo.Fetches, again map[archive.Partition]bool, into *archive.Batch) {
	clear(l.headers)
	l.headers = l.headers[:0]
	runs := into.Runs
	into.Runs = into.Runs[:0]
	l.mu.Lock()
	defer l.mu.Unlock()
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		at := archive.Partition{Topic: p.Topic, Number: p.Partition}
		if len(p.Records) == 0 || l.owned[at] == 0 || again[at] || l.again[at] {
			return
		}
		run := archive.Run{Partition: at, End: p.LastStableOffset}
		if n := len(into.Runs); n < cap(runs) {
			run.Records = runs[:cap(runs)][n].Records[:0] // its memory
		}
		for _, r := range p.Records {
			run.Records = append(run.Records, l.record(r))
		}
		into.Runs = append(into.Runs, run)
	})
}

func (l *Log) record(r *kgo.Record) archive.Record {
	from := len(l.headers)
	for _, h := range r.Headers {
		l.headers = append(l.headers, schemas.Header{Key: h.Key, Value: h.Value})
	}
	return archive.Record{
		Offset: r.Offset, Time: schemas.Millis(r.Timestamp.UnixMilli()),
		Key: r.Key, Value: r.Value, Headers: l.headers[from:len(l.headers):len(l.headers)], Control: r.Attrs.IsControl(),
	}
}

// Commit writes marks for partitions that are still ours, and were all the time since
// they were reported under that epoch, and gives the others.
func (l *Log) Commit(ctx context.Context, marks []archive.Commit) (lost []archive.Partition, err error) {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	current := map[archive.Partition]archive.Commit{}
	l.mu.Lock()
	for _, m := range marks {
		p := m.Partition
		if l.owned[p] != m.Epoch {
			lost = append(lost, p)
			continue
		}
		if offsets[p.Topic] == nil {
			offsets[p.Topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[p.Topic][p.Number] = kgo.EpochOffset{Epoch: -1, Offset: m.Next}
		current[p] = m
	}
	l.mu.Unlock()
	if len(current) == 0 {
		return lost, nil
	}
	// By now the request says under which membership it is made. One that has joined again
	// since would have it accepted for partitions that others had in between.
	with := kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				part := &req.Topics[i].Partitions[j]
				m := current[archive.Partition{Topic: req.Topics[i].Topic, Number: part.Partition}]
				if l.epochOf(m.Partition) != m.Epoch {
					return fmt.Errorf("kafka: %s/%d has another owner, or had", m.Partition.Topic, m.Partition.Number)
				}
				part.Metadata = &m.Metadata
			}
		}
		return nil
	})
	l.client.CommitOffsetsSync(with, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, res *kmsg.OffsetCommitResponse, fail error) {
		if err = fail; err != nil {
			return
		}
		for _, t := range res.Topics {
			for _, p := range t.Partitions {
				err = errors.Join(err, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	})
	if err != nil && fatal(err) {
		err = &archive.FatalError{Err: err}
	}
	return lost, err
}

// sleep waits until d has passed or ctx ends.
func sleep(ctx context.Context, d schemas.Millis) error {
	t := time.NewTimer(time.Duration(d) * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
