package kafka

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// strayed notes that it is not known whether records were written, or will be.
func (p *producer) strayed(records ...*kgo.Record) { p.astray = oneEach(p.astray, records) }

// oneEach adds a copy of one record of each partition that has none yet: what records are
// made of is used again.
func oneEach(into, records []*kgo.Record) []*kgo.Record {
	for _, r := range records {
		if !slices.ContainsFunc(into, func(o *kgo.Record) bool { return o.Topic == r.Topic && o.Partition == r.Partition }) {
			into = append(into, &kgo.Record{
				Topic: r.Topic, Partition: r.Partition, Timestamp: r.Timestamp, Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Headers: cloneHeaders(r.Headers),
			})
		}
	}
	return into
}

func cloneHeaders(headers []kgo.RecordHeader) []kgo.RecordHeader {
	headers = slices.Clone(headers)
	for i := range headers {
		headers[i].Value = bytes.Clone(headers[i].Value)
	}
	return headers
}

// lost notes a transaction that ends because of an error before its commit was asked for,
// where the error says that a broker may have died: its coordinator may come back without
// it. One whose commit was asked for may be committed: see Session.forgotten.
func (p *producer) lost(records []*kgo.Record, marks []markText, because error) {
	if !transient(because) || outdated(because) {
		return
	}
	p.strayed(records...)
	if len(marks) > 0 {
		p.marks = slices.Clone(marks)
	}
}

// doubt is a transaction whose commit was asked for and not confirmed.
type doubt struct {
	pid     int64
	epoch   int16
	parts   []part
	records []*kgo.Record // one of each partition
	marks   []markText
	late    bool // others may have committed the same marks since
}

// learn asks the coordinator of a transaction in doubt how that has ended, or will, and has it
// aborted where it has not: it tells until the producer is renewed. The epoch of one that has
// ended, by transactions of version 2, is the next one. What was aborted is swept, so that
// nothing of it is left without a marker. Where it is not known where the group's offsets are,
// what was committed is left to traces: their marker is to be written with the others.
func (s *Session) learn(ctx context.Context, p *producer) error {
	d := p.doubt
	if d == nil || !s.v2 {
		return nil
	}
	described, err := kadm.NewClient(s.admin).DescribeTransactions(ctx, p.id)
	txn := described[p.id]
	if err = cmp.Or(err, txn.Err); err != nil {
		return passing(err)
	}
	ended := txn.ProducerID == d.pid && txn.ProducerEpoch == d.epoch+1
	old := txn.ProducerID == d.pid && txn.ProducerEpoch == d.epoch+2 // aborted for its age, before which it is fenced
	switch {
	case txn.ProducerID == d.pid && txn.ProducerEpoch == d.epoch && txn.State == "Ongoing":
		if err := s.giveUp(ctx, p.id, d); err != nil {
			return err
		}
		p.doubt = nil
		p.lost(d.records, d.marks, errGivenUp)
	case (ended || old) && (txn.State == "PrepareAbort" || txn.State == "CompleteAbort"):
		p.doubt = nil
		p.lost(d.records, d.marks, errGivenUp)
	case ended && (txn.State == "PrepareCommit" || txn.State == "CompleteCommit") && s.offsetsAt.Load() >= 0:
		p.doubt = nil
		s.noteEnd(p, d.parts, true)
	}
	return nil
}

var errGivenUp = errors.New("it is aborted")

// giveUp aborts a transaction that is under way. It fails, and may be asked again, where that
// has ended meanwhile.
func (s *Session) giveUp(ctx context.Context, id string, d *doubt) error {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = id, d.pid, d.epoch, false
	resp, err := req.RequestWith(ctx, s.admin)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("abort: %v", err) //nolint:errorlint // whatever it is, the coordinator is asked again
	}
	return nil
}

// forgotten looks at a transaction in doubt when its coordinator is done with it, and has told
// nothing of it. Where it has no marker in any of its partitions, the coordinator has forgotten
// it (package comment): it is committed nowhere, and is swept. Where its marks are committed it
// was, and what lacks a marker gets it (markers.go). Else it is left alone: to abort the rest of
// what is committed would lose what it said. So is one of which nothing can be learnt: by
// brokers before transactions of version 2, of which the oldest do not describe producers, or
// by an error that stays.
func (s *Session) forgotten(ctx context.Context, p *producer) error {
	d := p.doubt
	if d == nil || !s.v2 {
		p.doubt = nil
		return nil
	}
	committed, open, err := s.traces(ctx, d)
	if err != nil {
		return err
	}
	p.doubt = nil
	switch {
	case open:
		p.lost(d.records, d.marks, errForgotten)
	case committed:
		s.noteEnd(p, d.parts, true)
	}
	return nil
}

var errForgotten = errors.New("its coordinator has forgotten it")

// traces tells that a transaction was committed, by its marks, or that it is open: undecided in
// every partition that it has written to. That other marks are committed says nothing (package
// comment).
func (s *Session) traces(ctx context.Context, d *doubt) (done, open bool, err error) {
	var partitions []int32
	for _, m := range d.marks {
		partitions = append(partitions, m.partition)
	}
	offsets, err := s.fetchOffsets(ctx, true, partitions...)
	switch {
	case err == nil:
		return !d.late && !slices.ContainsFunc(d.marks, func(m markText) bool { return offsets[m.partition] != committed{m.next, m.text} }), false, nil
	case !errors.Is(err, kerr.UnstableOffsetCommit):
		return false, false, passing(err)
	}
	var set kadm.TopicsSet
	for _, r := range d.records {
		set.Add(r.Topic, r.Partition)
	}
	if len(set) == 0 {
		return false, true, nil
	}
	described, err := kadm.NewClient(s.admin).DescribeProducers(ctx, set)
	if err != nil {
		return false, false, passing(err)
	}
	for topic, of := range set {
		for number := range of {
			part, ok := described[topic].Partitions[number]
			if unknownTopic(part.Err) { // as a broker says that has just started
				return false, false, part.Err
			}
			if !ok || part.Err != nil {
				return false, false, passing(part.Err)
			}
			if p, ok := part.ActiveProducers[d.pid]; !ok || p.ProducerEpoch != d.epoch || p.CurrentTxnStartOffset < 0 {
				return false, false, nil
			}
		}
	}
	return false, true, nil
}

// passing gives an error that may go by itself, and nil for others.
func passing(err error) error {
	if err == nil || !transient(err) {
		return nil
	}
	return err
}

// sweep makes a transaction of one record for each partition to which something went
// astray, and of the marks that did, and aborts it. The marker ends what was written there
// of an earlier epoch, and has the partition's leader refuse what may still come.
//
// By its coordinator's account a transaction that was given up is aborted everywhere. But
// brokers have been seen to let a late request in while they were loading their state
// after a kill -9 (Apache Kafka 4.3.1, see the package comment): (1) the producer's epoch
// is moved on, and what it had open is aborted in the partitions that the coordinator
// knows; (2) a batch of before is written to another one, verified by a state that is
// older than (1); (3) the next transaction's marker commits it, and it was said twice. Or
// no marker ever comes, and readers wait for ever: nor does one where (1) comes to a state
// that is older than the whole transaction.
//
// The marks are sent in nobody's name, as the protocol allows of a transaction: whoever
// owns the partitions now, they are aborted.
func (s *Session) sweep(ctx context.Context, p *producer) error {
	if len(p.astray) == 0 && len(p.marks) == 0 {
		return nil
	}
	if len(p.astray) > 0 {
		if err := p.cl.BeginTransaction(); err != nil {
			return err
		}
		if err := s.produce(ctx, p, slices.Clone(p.astray)); err != nil {
			return err
		}
		if err := p.settle(ctx, p.astray); err != nil {
			return err
		}
	}
	id, epoch, err := p.cl.ProducerID(ctx)
	if err == nil && len(p.marks) > 0 {
		err = s.addOffsets(ctx, p, id, epoch, membership{generation: -1}, cut{marks: p.marks})
	}
	if err != nil {
		return err
	}
	parts := s.partsOf(p, id, epoch, p.astray, true)
	for i := range parts {
		parts[i].offset = -1 // what it is to end comes before it
		parts[i].acked = parts[i].acked || len(p.marks) > 0
	}
	if len(p.astray) == 0 {
		if err = p.end(ctx, false); err == nil {
			err = p.reconnect(ctx, s)
		}
	} else if err = p.cl.EndTransaction(ctx, kgo.TryAbort); err == nil {
		p.pid, p.epoch, err = p.cl.ProducerID(ctx)
	}
	s.noteEnd(p, parts, false)
	if err == nil {
		p.astray, p.marks = nil, nil
	}
	return err
}
