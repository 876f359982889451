package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

// producer is one transactional id and the client that has it now. Whoever took it
// from Session.idle owns it until it is back there.
type producer struct {
	id    string
	cl    *kgo.Client
	sound bool // false: renew before use, its last transaction may still be open
	ails  bool // it is tend's, and not to go back to Session.idle

	began  time.Time // of the transaction under way
	fenced int       // times in a row that it was fenced
	topics []string  // that cl is settled with

	// astray is a record of each partition to which something was sent that may be written
	// yet, or was, and that the transaction's coordinator may know nothing of; marks are
	// those that were sent in the same way.
	astray []*kgo.Record
	marks  []markText

	// said is what was committed, and may lack markers (markers.go); unmarked is what of it
	// was found to, and we may not write them.
	said     said
	unmarked []part

	// doubt is the transaction whose commit was asked for and not confirmed; nil: none is.
	doubt *doubt

	// pid and epoch are the broker's name for it, as of the last answer. Only marks go
	// by them (marks.go): elsewhere kgo knows better.
	pid   int64
	epoch int16

	// stragglers is how many InitProducerIDs of ours may still arrive at the broker,
	// sent by a renewal that took long. Each will fence us.
	stragglers int

	// predecessors is how many may that the process of this name before us has sent when it
	// was killed, as long as we are young.
	predecessors int
	made         time.Time
}

// youth is for how long a request of our predecessor may lie somewhere.
const youth = time.Minute

// A renewal that takes longer than slowRenewal has sent requests that may still be
// under way, at most stragglersMax.
const (
	slowRenewal   = 2 * time.Second
	stragglersMax = 3
)

// concurrentWait is how long a request waits that came while the broker was still
// writing the markers of the transaction before.
const concurrentWait = 2 * time.Millisecond

// renew replaces the client by one with the same id. InitProducerID ends whatever
// the old one left open: when renew has returned nil, no transaction of this id is
// undecided, and none can be committed late. What went astray is swept. Where the brokers
// do not answer it is tried again for a while.
func (p *producer) renew(ctx context.Context, s *Session) error {
	began := time.Now()
	defer func() {
		if time.Since(began) > slowRenewal {
			p.stragglers = stragglersMax
		}
	}()
	broken := s.broken.Load() // what we close ourselves is no sign of anything
	return insist(ctx, s.conf.TransactionTimeout+requestTimeout, func(ctx context.Context) error {
		p.close()
		err := s.learn(ctx, p)
		if err == nil && s.v2 { // what ends now would end what lacks its marker, too
			_, _, _ = s.lookAt(ctx, p, p.said.before(broken)) // where nobody answers, nothing is ended either
		}
		if err == nil {
			err = p.connect(ctx, s)
		}
		if err == nil {
			err = s.forgotten(ctx, p)
		}
		if err == nil {
			_, _, err = s.lookAt(ctx, p, p.said.begin(s.broken.Load(), p.astray)) // what is left is swept
		}
		if err == nil && len(p.unmarked) > 0 {
			if err = s.complete(ctx, p); err == nil {
				err = p.reconnect(ctx, s)
			}
		}
		if err == nil {
			began := time.Now().Round(0)
			if err = s.sweep(ctx, p); fencing(err) && s.aged(began) {
				err = fmt.Errorf("the broker has ended it for its age: %v", err) //nolint:errorlint // nobody has taken it over
			}
		}
		if err != nil {
			p.close()
			return err
		}
		p.sound = true
		return nil
	})
}

// connect makes the client.
func (p *producer) connect(ctx context.Context, s *Session) error {
	packed, err := compression(s.conf.Compression)
	if err != nil {
		return err
	}
	opts, err := s.options()
	if err != nil {
		return err
	}
	if !s.v2 {
		// From version 5 on these add the offsets partition by themselves, and move the
		// epoch on, which is for transactions v2 only.
		versions := kversion.Stable()
		versions.SetMaxKeyVersion(int16(kmsg.TxnOffsetCommit), 4)
		versions.SetMaxKeyVersion(int16(kmsg.EndTxn), 4)
		opts = append(opts, kgo.MaxVersions(versions))
	}
	p.cl, err = kgo.NewClient(append(opts,
		kgo.TransactionalID(p.id),
		kgo.TransactionTimeout(s.conf.TransactionTimeout),
		kgo.ConcurrentTransactionsBackoff(concurrentWait),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		packed,
		kgo.ProducerBatchMaxBytesFn(s.batchMax),
		kgo.ProducerLinger(0),
		kgo.UnknownTopicRetries(30),   // a broker that has just started may not know it yet
		kgo.MaxBufferedRecords(1<<20), // a transaction is bounded by the pipeline, not here
		kgo.ProduceRequestTimeout(s.conf.TransactionTimeout),
	)...)
	if err != nil {
		return err
	}
	if p.pid, p.epoch, err = p.cl.ProducerID(ctx); err != nil {
		return err
	}
	//failpoint:producer.renewed
	return nil
}

// reconnect replaces a client behind whose back a transaction was ended: it has the epoch of
// that still.
func (p *producer) reconnect(ctx context.Context, s *Session) error {
	p.close()
	return p.connect(ctx, s)
}

// batchMax is what a topic takes at most in one batch, before compression.
func (s *Session) batchMax(topic string) int32 {
	if n, ok := s.maxBytes[topic]; ok {
		return min(max(n, 512), 1<<30)
	}
	return 1_000_012 // kgo's default: the broker's, with room for an old format's overhead
}

func (p *producer) close() {
	if p.cl != nil {
		p.cl.Close()
	}
	p.cl, p.sound, p.topics = nil, false, nil
}

// Transact writes records and commits the last mark of each partition among outs,
// in one transaction, under the membership that goes with the epochs of outs. Only
// marks and epochs of outs are looked at. Without records the marks are committed
// alone.
//
// Its errors are those of pipeline.Committer. Besides, *TooLargeError: nothing
// happened, and nothing will until the records it names are smaller; and an error
// that is pipeline.ErrPermanent: nothing happened, and it needs a person.
func (s *Session) Transact(ctx context.Context, records []*kgo.Record, outs []*worker.Output) error {
	if err := s.owns.failed(); err != nil {
		return err
	}
	cut, err := s.cutOf(outs)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		return s.commitMarks(ctx, cut)
	}
	if _, gone := s.owns.commitAs(cut.epochs); len(gone) > 0 {
		return &pipeline.LostError{Partitions: gone}
	}
	if err := s.unwritable(records); err != nil {
		return err
	}
	var p *producer
	select {
	case p = <-s.idle:
	case <-ctx.Done():
		return fmt.Errorf("kafka: %w: %w", pipeline.ErrAborted, ctx.Err())
	}
	used, err := s.transact(ctx, p, records, cut)
	if p.ails {
		p.ails = false
		s.tend(p)
	} else {
		s.idle <- p
	}
	if outdated(err) {
		return s.hear(ctx, used, cut, err)
	}
	return err
}

// outdated tells the errors that say that the group has moved on without us, or
// with us but we have not heard of it yet.
func outdated(err error) bool {
	return errors.Is(err, kerr.IllegalGeneration) || errors.Is(err, kerr.RebalanceInProgress) ||
		errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.StaleMemberEpoch) || errors.Is(err, kerr.FencedInstanceID)
}

// hear waits until a callback has told us what we are, and says what that means for
// a commit that was refused as outdated. It holds neither a lock nor a producer.
//
// Being unknown to the group is not taken for the loss of the partitions by
// itself: if the group still counts us in, it would give them to nobody, and so
// nobody would read them. Nor is being fenced by another member of our instance id,
// which our own joining again may be, too: who has really been replaced hears it from
// the next heartbeat.
func (s *Session) hear(ctx context.Context, used membership, cut cut, err error) error {
	ctx, cancel := context.WithTimeout(ctx, s.conf.SessionTimeout)
	defer cancel()
	s.owns.await(ctx, used)
	if _, gone := s.owns.commitAs(cut.epochs); len(gone) > 0 {
		return &pipeline.LostError{Partitions: gone}
	}
	return fmt.Errorf("kafka: %w: %w", pipeline.ErrAborted, err)
}

// transact is one transaction from its beginning to its end. It leaves none open:
// what it can't end makes the producer unsound.
//
// Once begun it does not stop for ctx, since an interrupted request leaves its
// outcome unknown; it is bounded by the transaction timeout instead.
func (s *Session) transact(ctx context.Context, p *producer, records []*kgo.Record, cut cut) (used membership, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*s.conf.TransactionTimeout)
	defer cancel()
	if !p.sound {
		if err := p.renew(ctx, s); err != nil {
			p.ails = s.spared(p, err)
			return used, s.failed(p, fmt.Errorf("renew %s: %w", p.id, err))
		}
	}
	if err := s.seen(ctx, p, records, cut.marks); err != nil {
		return used, s.failed(p, err)
	}
	used, gone := s.owns.commitAs(cut.epochs)
	if len(gone) > 0 {
		return used, &pipeline.LostError{Partitions: gone}
	}
	p.began = time.Now().Round(0) // the wall: it also counts while the machine sleeps
	if err := p.cl.BeginTransaction(); err != nil {
		p.sound = false
		return used, s.failed(p, fmt.Errorf("begin: %w", err))
	}
	id, epoch, err := p.cl.ProducerID(ctx) // it has one, and asks nobody
	if err != nil {
		p.sound = false
		return used, s.failed(p, fmt.Errorf("begin: %w", err))
	}
	//failpoint:txn.begun
	if err := s.produce(ctx, p, records); err != nil {
		parts := s.partsOf(p, id, epoch, records, false)
		p.lost(records, nil, err)
		if why := s.ails(ctx, p, err); why != nil {
			p.ails, p.sound = true, false
			s.noteEnd(p, parts, false)
			return used, why
		}
		s.abort(ctx, p, err)
		s.noteEnd(p, parts, false)
		return used, s.failed(p, err)
	}
	//failpoint:txn.produced
	parts := s.partsOf(p, id, epoch, records, true)
	if err = s.addOffsets(ctx, p, id, epoch, used, cut); err != nil {
		p.lost(records, cut.marks, err)
		s.abort(ctx, p, err)
		s.noteEnd(p, parts, false)
		return used, s.refused(p, err)
	}
	//failpoint:txn.offsets-added
	acknowledged(parts)
	if err = p.settle(ctx, records); err == nil && p.said.behind(s.broken.Load(), parts) {
		err = errBehind
	}
	if err != nil {
		s.abort(ctx, p, err)
		s.noteEnd(p, parts, false)
		return used, s.failed(p, err)
	}
	if err := p.cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		p.doubt = &doubt{pid: id, epoch: epoch, parts: parts, records: oneEach(nil, records), marks: slices.Clone(cut.marks)}
		return used, s.unknown(ctx, p, cut, err)
	}
	//failpoint:txn.ended
	p.fenced = 0
	s.noteEnd(p, parts, true)
	return used, nil
}

// produce sends the records and waits for every one. kgo commits what succeeded,
// whatever else failed, so it is on us to see that all did.
func (s *Session) produce(ctx context.Context, p *producer, records []*kgo.Record) error {
	ctx, cancel := context.WithTimeout(ctx, s.conf.TransactionTimeout)
	defer cancel()
	// kgo does not give up records in flight. Past the timeout the broker aborts
	// the transaction anyway, so they are dropped, and the client with them.
	stop := context.AfterFunc(ctx, p.cl.UnsafeAbortBufferedRecords)
	defer stop()
	for _, r := range records {
		r.Context = nil //nolint:fatcontext // the record's own, of an earlier attempt
	}
	acked := 0
	var large []*kgo.Record
	var late []place
	var failed, tooLarge error
	for _, result := range p.cl.ProduceSync(ctx, records...) {
		switch {
		case result.Err == nil:
			acked++
		case errors.Is(result.Err, kerr.MessageTooLarge), errors.Is(result.Err, kerr.RecordListTooLarge):
			large, tooLarge = append(large, result.Record), result.Err
		default:
			if failed == nil {
				failed = fmt.Errorf("produce to %s/%d: %w", result.Record.Topic, result.Record.Partition, result.Err)
			}
			if !permanent(result.Err) {
				p.strayed(result.Record)
			}
			if at := (place{result.Record.Topic, result.Record.Partition}); !slices.Contains(late, at) {
				late = append(late, at)
			}
		}
	}
	if ctx.Err() != nil {
		p.sound = false
	}
	switch {
	case failed != nil && ctx.Err() != nil && transient(failed):
		return &unackedError{late, acked == 0, failed}
	case failed != nil:
		return failed
	case tooLarge != nil:
		slices.SortStableFunc(large, func(a, b *kgo.Record) int { return sizeOf(b) - sizeOf(a) })
		return &TooLargeError{Records: large, Err: tooLarge}
	case acked != len(records):
		return fmt.Errorf("produce: %d of %d records were acknowledged, and none failed", acked, len(records))
	}
	return nil
}

// settle waits until the client has noted that the topics it produced to have
// partitions. Without it the first transaction of a client could be lost (franz-go
// 1.22.2): (1) kgo hears of a topic, and sends the records that waited for it; (2) they
// are acknowledged; (3) EndTransaction looks through the partitions that kgo has noted,
// finds none that was produced to, takes the transaction for empty, aborts it and
// reports no error; (4) kgo notes the partitions.
//
// Purging a topic, one that is not there, waits for what kgo is doing with topics.
func (p *producer) settle(ctx context.Context, records []*kgo.Record) error {
	settled := len(p.topics)
	for _, r := range records {
		if !slices.Contains(p.topics, r.Topic) {
			p.topics = append(p.topics, r.Topic)
		}
	}
	if len(p.topics) == settled {
		return nil
	}
	done, cl := make(chan struct{}), p.cl
	go func() { // ends when kgo's update of topics does, or with the client
		defer close(done)
		cl.PurgeTopicsFromProducing("?") // no topic can have this name
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		p.sound = false
		return fmt.Errorf("topics: %w", ctx.Err())
	}
}

// abort ends the transaction without a trace, because of an error. Without an
// EndTxn that says commit it never becomes visible, so a failure here only makes
// the producer unsound. A fenced one is left alone: to take the id back would fence
// whoever has it now.
//
// The producer is renewed, which is an InitProducerID and a connection more than an
// EndTxn. But kgo sends that only where it knows that something was produced, and of a
// client's first transaction it may not know yet (settle): what is in it would go out with
// the next one. And before transactions v2 a broker that has written what it said had
// failed would take what is sent next for that same batch, drop it, and say that it is
// there.
func (s *Session) abort(ctx context.Context, p *producer, because error) {
	if !p.sound || fencing(because) {
		p.sound = false
		return
	}
	if err := p.renew(ctx, s); err != nil {
		p.sound, p.ails = false, s.spared(p, err)
	}
}

// addOffsets adds the marks to the transaction. There is no commit without it: it
// is what the broker checks the membership on.
func (s *Session) addOffsets(ctx context.Context, p *producer, id int64, epoch int16, as membership, cut cut) error {
	if !s.v2 {
		if err := s.addGroup(ctx, p, id, epoch); err != nil {
			return fmt.Errorf("add offsets to transaction: %w", err)
		}
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group = p.id, s.conf.Group
	req.ProducerID, req.ProducerEpoch = id, epoch
	req.MemberID, req.Generation = as.member, as.generation
	if s.conf.InstanceID != "" && as.member != "" {
		req.InstanceID = new(s.conf.InstanceID)
	}
	topic := kmsg.NewTxnOffsetCommitRequestTopic()
	topic.Topic, topic.TopicID = s.topic.name, s.topic.id
	for _, m := range cut.marks {
		part := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		part.Partition, part.Offset, part.LeaderEpoch = m.partition, m.next, -1
		part.Metadata = new(m.text)
		topic.Partitions = append(topic.Partitions, part)
	}
	req.Topics = append(req.Topics, topic)
	return retry(ctx, func() error {
		resp, err := req.RequestWith(ctx, p.cl)
		if err != nil {
			return fmt.Errorf("commit offsets: %w", err)
		}
		committed := 0
		for _, t := range resp.Topics {
			for _, part := range t.Partitions {
				if err := kerr.ErrorForCode(part.ErrorCode); err != nil {
					return fmt.Errorf("commit offset of %s/%d: %w", s.topic.name, part.Partition, err)
				}
				committed++
			}
		}
		if committed != len(cut.marks) {
			return fmt.Errorf("commit offsets: the broker answered for %d of %d partitions", committed, len(cut.marks))
		}
		return nil
	})
}

// addGroup is for brokers before transactions of version 2.
func (s *Session) addGroup(ctx context.Context, p *producer, id int64, epoch int16) error {
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.TransactionalID, req.Group = p.id, s.conf.Group
	req.ProducerID, req.ProducerEpoch = id, epoch
	return retry(ctx, func() error {
		resp, err := req.RequestWith(ctx, p.cl)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
}

// retry calls f until it gives no error that goes by itself.
func retry(ctx context.Context, f func() error) error {
	for tries := 0; ; tries++ {
		err := f()
		if err == nil || ctx.Err() != nil {
			return err
		}
		wait := concurrentWait
		if !errors.Is(err, kerr.ConcurrentTransactions) {
			var ke *kerr.Error
			if !errors.As(err, &ke) || !ke.Retriable || errors.Is(err, kerr.RebalanceInProgress) || tries > 20 {
				return err
			}
			wait = backoff(tries)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

// failed says what an error means that came before anything could be committed.
func (s *Session) failed(p *producer, err error) error {
	var large *TooLargeError
	switch {
	case errors.As(err, &large):
		return err
	case fencing(err), errors.Is(err, kerr.InvalidTxnState):
		p.sound = false
		if s.twin(p, err) {
			return s.fence(p, err)
		}
		return fmt.Errorf("kafka: %w: %w", pipeline.ErrAborted, err)
	case unknownTopic(err):
		if gone := s.missing(s.life); gone != nil {
			return gone
		}
		return fmt.Errorf("kafka: %w: %w", pipeline.ErrAborted, err)
	case permanent(err):
		return fmt.Errorf("kafka: %w: %w%s", pipeline.ErrPermanent, err, remedy(err))
	default:
		return fmt.Errorf("kafka: %w: %w", pipeline.ErrAborted, err)
	}
}

// refused says what an error of the offset commit means, which did not happen.
func (s *Session) refused(p *producer, err error) error {
	if outdated(err) {
		return err // Transact hears what has become of us
	}
	return s.failed(p, err)
}

// unknown ends a transaction whose commit was asked for and not confirmed, as far
// as it can, and says what that means.
func (s *Session) unknown(ctx context.Context, p *producer, cut cut, err error) error {
	if unattempted(err) {
		parts := p.doubt.parts
		p.doubt = nil
		s.abort(ctx, p, err)
		s.noteEnd(p, parts, false)
		return s.failed(p, fmt.Errorf("end: %w", err))
	}
	p.sound = false
	if fencing(err) && s.twin(p, err) {
		return s.fence(p, err)
	}
	// Renewed now, Committed need not wait for the transaction's timeout. If it
	// can't be, the next who needs the answer renews.
	again := p.renew(context.WithoutCancel(ctx), s)
	if p.doubt != nil {
		p.doubt.late = true
	}
	if s.twin(p, again) {
		return s.fence(p, again)
	}
	p.ails = again != nil && s.spared(p, again)
	return fmt.Errorf("kafka: end of the transaction of partitions %v: outcome unknown: %w", cut.partitions(), err)
}

// unattempted tells the errors of EndTxn of which kgo, or the broker, knows that nothing was
// committed.
func unattempted(err error) bool {
	return errors.Is(err, kerr.OperationNotAttempted) || errors.Is(err, kerr.TransactionAbortable)
}
