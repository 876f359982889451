package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// A broker that was killed amid transactions may come back, take up those that were ending,
// find no leader for their partitions because it does not know yet that it is that itself,
// take them for deleted, and call the transactions complete without having written their
// markers there ("Couldn't find leader endpoint for partitions ... these partitions are
// likely deleted already and hence can be skipped" is its log's word for it; Apache Kafka
// 4.3.1, at most kills of a single broker under load). Readers then wait for ever for what is
// committed, and whatever aborts the next transaction of that producer there would abort
// this one too. So whoever owns a partition looks, and writes what is missing, where there is
// no doubt: the coordinator says how the transaction has ended, and has moved its epoch on, so
// that the broker refuses a marker of ours that comes too late. And a producer looks at what
// it has committed itself, or had aborted, before it is used again after any connection has
// ended: what was committed gets its markers, by the producer's own means where we may write
// none (complete), and what was aborted is swept.

const (
	markersEvery = 5 * time.Second  // how often we look
	markersAfter = 20 * time.Second // beyond its timeout a transaction that still is undecided hangs
)

// disconnects counts the connections that have ended.
type disconnects struct{ n *atomic.Int64 }

// OnBrokerDisconnect is kgo's hook.
func (d disconnects) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) { d.n.Add(1) }

// said is what a producer has written in transactions that have ended, and are not known to
// have their markers.
type said struct {
	mu     sync.Mutex
	parts  []part
	broken int64 // Session.broken as the transaction under way began
	turns  int64 // transactions so far
}

// part is what a transaction has written to a partition.
type part struct {
	place
	pid    int64
	epoch  int16
	offset int64 // of its first record; -1: not known
	acked  bool  // it was written
	broken int64 // said.broken of then
	turn   int64 // said.turns of then
	commit bool  // it was committed, not aborted
}

// open tells that it is undecided, as the partition has its producer. Transactions of version
// 2 have another epoch each: if that is another one, the producer has gone on, with its next
// transaction in the same breath, and there is no telling them apart any more. If it is the same
// one, what is undecided may begin before it, with what the coordinator has forgotten: a marker
// ends both. Before version 2 all transactions of a producer have one epoch, and its markers too,
// and only where one begins tells it from others.
func (f *part) open(in *kadm.DescribedProducersPartition, v2 bool) (*kadm.DescribedProducer, bool) {
	p, ok := in.ActiveProducers[f.pid]
	begins := p.CurrentTxnStartOffset
	switch {
	case !ok || begins < 0:
		return &p, false
	case v2:
		return &p, p.ProducerEpoch == f.epoch && (f.offset < 0 || begins <= f.offset)
	default:
		return &p, f.offset < 0 || begins == f.offset
	}
}

// partsOf gives what a producer's transaction writes to: its records, which may be acknowledged,
// and the group's offsets. It is asked before the transaction ends.
func (s *Session) partsOf(p *producer, pid int64, epoch int16, records []*kgo.Record, acked bool) (parts []part) {
	at := -1
	broken, turn := p.said.turn()
	for _, r := range records {
		to := place{r.Topic, r.Partition}
		if at >= 0 && parts[at].place == to {
			continue // as most
		}
		if at = slices.IndexFunc(parts, func(f part) bool { return f.place == to }); at < 0 {
			at = len(parts)
			parts = append(parts, part{place: to, pid: pid, epoch: epoch, offset: -1, broken: broken, turn: turn, acked: acked})
			if acked {
				parts[at].offset = r.Offset
			}
		}
	}
	if partition := s.offsetsAt.Load(); partition >= 0 {
		parts = append(parts, part{place: place{OffsetsTopic, partition}, pid: pid, epoch: epoch, offset: -1, broken: broken, turn: turn})
	}
	return parts
}

// acknowledged notes that all was written.
func acknowledged(parts []part) {
	for i := range parts {
		parts[i].acked = true
	}
}

// noteEnd notes a transaction of which it is known how it has ended, or will.
func (s *Session) noteEnd(p *producer, parts []part, commit bool) {
	p.said.note(s.broken.Load(), parts, commit)
}

// note adds it. That something of it was acknowledged says that the coordinator was done with
// those before it, and, if it has lived since, has written the markers of these: so it forgets
// what is that old, and what this one has written behind.
func (d *said) note(broken int64, parts []part, commit bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, now := range parts {
		if now.acked {
			d.parts = slices.DeleteFunc(d.parts, func(f part) bool {
				return f.turn < now.turn && (f.broken == broken || f.place == now.place && f.pid == now.pid)
			})
		}
	}
	for _, f := range parts {
		if f.commit = commit; !slices.ContainsFunc(d.parts, func(later part) bool { return later.turn > f.turn && later.place == f.place && later.pid == f.pid }) {
			d.parts = append(d.parts, f)
		}
	}
}

// turn counts another transaction.
func (d *said) turn() (broken, turn int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turns++
	return d.broken, d.turns
}

// begin gives what is to be looked at before records are sent.
func (d *said) begin(broken int64, records []*kgo.Record) (look []part) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = broken
	for _, f := range d.parts {
		if f.broken != broken && (f.topic == OffsetsTopic || slices.ContainsFunc(records, func(r *kgo.Record) bool { return r.Partition == f.partition && r.Topic == f.topic })) {
			look = append(look, f)
		}
	}
	return look
}

// behind tells that a transaction has been written where one that was aborted may lack its
// marker, since a broker may have died amid this one: both would be committed.
func (d *said) behind(broken int64, parts []part) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.parts, func(f part) bool {
		return !f.commit && f.broken != broken && slices.ContainsFunc(parts, func(now part) bool { return now.place == f.place })
	})
}

var errBehind = errors.New("a connection has ended, and what was aborted before it may lack its markers: they are looked for first")

// before gives what may lack its markers since a connection has ended.
func (d *said) before(broken int64) []part {
	return slices.DeleteFunc(d.all(), func(f part) bool { return f.broken == broken })
}

// all gives all that there is.
func (d *said) all() []part {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.parts)
}

func (d *said) forget(seen []part) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.parts = slices.DeleteFunc(d.parts, func(f part) bool { return slices.Contains(seen, f) })
}

// seen looks whether what a producer has committed, or had aborted, in partitions that it is
// about to write to again has its markers, if a broker may have died since: else it would
// become of it what becomes of the producer's next transaction there. What was committed gets
// them; what was aborted is swept, for which nobody needs to be asked. A producer is
// in no transaction meanwhile. An error is one that may go by itself: a
// *pipeline.UnwritableError where some partitions do not answer, and others do, or need not.
func (s *Session) seen(ctx context.Context, p *producer, records []*kgo.Record, marks []markText) error {
	look := p.said.begin(s.broken.Load(), records)
	left, mute, err := s.lookAt(ctx, p, look)
	for _, f := range left {
		p.sound = false
		if f.topic == OffsetsTopic {
			p.marks = slices.Clone(marks)
			continue
		}
		i := slices.IndexFunc(records, func(r *kgo.Record) bool { return r.Topic == f.topic && r.Partition == f.partition })
		p.strayed(records[i])
	}
	switch {
	case len(p.unmarked) > 0:
		p.sound = false
		return fmt.Errorf("%s has a transaction that was committed, and lacks its marker in %s: it is written first", p.id, p.unmarked[0].place)
	case len(left) > 0:
		return fmt.Errorf("%s has a transaction that was aborted, and lacks its marker in %s: it is swept", p.id, left[0].place)
	case err == nil:
		return nil
	}
	err = fmt.Errorf("look for the markers of %s: %w", p.id, err)
	blocked := len(mute) == len(look) && !slices.ContainsFunc(records, func(r *kgo.Record) bool { return !slices.Contains(mute, place{r.Topic, r.Partition}) })
	if unknownTopic(err) || blocked || slices.ContainsFunc(mute, func(at place) bool { return at.topic == OffsetsTopic }) {
		return err
	}
	return s.sickens(nil, mute, err)
}

// lookAt does that, and returns what was aborted and lacks its marker, where nobody answers, and
// what came instead.
func (s *Session) lookAt(ctx context.Context, p *producer, look []part) (left []part, mute []place, err error) {
	if len(look) == 0 {
		return nil, nil, nil
	}
	var outputs, offsets kadm.TopicsSet
	for _, f := range look {
		if f.topic == OffsetsTopic {
			offsets.Add(f.topic, f.partition)
		} else {
			outputs.Add(f.topic, f.partition)
		}
	}
	answers := s.describeApart(ctx, outputs, offsets)
	ctx, cancel := context.WithTimeout(ctx, describeTimeout) // for markers
	defer cancel()
	var seen []part
	for _, f := range look {
		of := &answers[0]
		if f.topic == OffsetsTopic {
			of = &answers[1]
		}
		in, ok := of.topics[f.topic].Partitions[f.partition]
		why := in.Err
		if !ok {
			why = cmp.Or(of.err, errNoAnswer)
		} else if open, ok := f.open(&in, s.v2); ok && why == nil {
			if !f.commit {
				left = append(left, f)
				continue
			}
			h := &Hang{Topic: f.topic, Partition: f.partition, Offset: open.CurrentTxnStartOffset, ProducerID: f.pid, Epoch: open.ProducerEpoch, ID: p.id, coordinator: open.CoordinatorEpoch}
			if why = s.WriteMarker(ctx, h, true); errors.Is(why, kerr.ClusterAuthorizationFailed) {
				if !slices.Contains(p.unmarked, f) {
					p.unmarked = append(p.unmarked, f)
				}
				continue
			}
		}
		if !unknownTopic(why) || f.topic == OffsetsTopic { // as a broker says that has just started
			why = passing(why)
		}
		if why != nil {
			mute, err = append(mute, f.place), why
			continue
		}
		seen = append(seen, f)
	}
	p.said.forget(seen)
	return left, mute, err
}

// described is what leaders have told of the producers of their partitions.
type described struct {
	topics kadm.DescribedProducersTopics
	err    error
}

// describeApart asks for each set by itself, since who may not read one topic is told of none, and
// for all at once: a leader that gives no answer takes the time of the whole request.
func (s *Session) describeApart(ctx context.Context, sets ...kadm.TopicsSet) []described {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	answers := make([]described, len(sets))
	var asked sync.WaitGroup
	for i, set := range sets {
		if len(set) > 0 {
			asked.Go(func() { answers[i].topics, answers[i].err = kadm.NewClient(s.admin).DescribeProducers(ctx, set) })
		}
	}
	asked.Wait()
	return answers
}

var errNoAnswer = errors.New("no answer")

// complete writes the markers of what a producer has committed where we may not do that by
// themselves, which takes a right to the whole cluster: it adds those partitions to a
// transaction in which nothing is written, and commits that. A marker ends what its producer
// has open there, of earlier epochs too. From the moment in which the coordinator knows of
// them it has to be committed, so that is asked for until there is an answer, or the coordinator
// has aborted it for its age. The producer is to be connected again: its client has not ended
// this one.
func (s *Session) complete(ctx context.Context, p *producer) error {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = p.id, p.pid, p.epoch
	offsets := false
	for _, f := range p.unmarked {
		if f.topic == OffsetsTopic {
			offsets = true
			continue
		}
		at := slices.IndexFunc(req.Topics, func(t kmsg.AddPartitionsToTxnRequestTopic) bool { return t.Topic == f.topic })
		if at < 0 {
			at = len(req.Topics)
			topic := kmsg.NewAddPartitionsToTxnRequestTopic()
			topic.Topic = f.topic
			req.Topics = append(req.Topics, topic)
		}
		if of := &req.Topics[at]; !slices.Contains(of.Partitions, f.partition) {
			of.Partitions = append(of.Partitions, f.partition)
		}
	}
	if offsets {
		if err := s.addGroup(ctx, p, p.pid, p.epoch); err != nil {
			return fmt.Errorf("add what lacks a marker to a transaction: %w", err)
		}
	}
	if len(req.Topics) > 0 {
		if err := retry(ctx, func() error { return p.add(ctx, req) }); err != nil {
			return fmt.Errorf("add what lacks a marker to a transaction: %w", err)
		}
	}
	if err := insist(ctx, s.conf.TransactionTimeout, func(ctx context.Context) error { return p.end(ctx, true) }); err != nil {
		return fmt.Errorf("commit what lacks a marker: %w", err)
	}
	for _, f := range p.unmarked {
		s.conf.Log.Warn("the broker has left a transaction without its marker; its producer has written it",
			zap.Stringer("partition", f.place), zap.Int64("offset", f.offset), zap.String("transactional_id", p.id))
	}
	s.marked.Add(int64(len(p.unmarked)))
	p.unmarked = nil // and said until they are seen
	return nil
}

// add has the coordinator know of partitions.
func (p *producer) add(ctx context.Context, req *kmsg.AddPartitionsToTxnRequest) error {
	resp, err := req.RequestWith(ctx, p.cl)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for _, of := range t.Partitions {
			if err := kerr.ErrorForCode(of.ErrorCode); err != nil {
				return fmt.Errorf("%s/%d: %w", t.Topic, of.Partition, err)
			}
		}
	}
	return nil
}

// ours tells that a transaction that hangs is one of ours, how it has ended, and that its
// producer has gone on since: it is refused a marker of then where it has written again.
func (s *Session) ours(h *Hang) (commit, known bool) {
	if !h.Fenced() {
		return false, false
	}
	for _, p := range s.everyProducer() {
		for _, f := range p.said.all() {
			if f.place == (place{h.Topic, h.Partition}) && f.pid == h.ProducerID && f.epoch == h.Epoch && (f.offset < 0 || f.offset == h.Offset) {
				return f.commit, true
			}
		}
	}
	return false, false
}

// WriteMarker writes a marker that a broker has left out: see Hang.End.
func (s *Session) WriteMarker(ctx context.Context, h *Hang, commit bool) error {
	if err := h.End(ctx, s.admin, commit); err != nil {
		return err
	}
	s.marked.Add(1)
	s.conf.Log.Warn("the broker has left a transaction without its marker; it is written now",
		zap.String("topic", h.Topic), zap.Int32("partition", h.Partition), zap.Int64("offset", h.Offset), zap.String("transactional_id", h.ID), zap.Bool("commit", commit))
	return nil
}

// stand is up to where a partition is decided, since when.
type stand struct {
	stable int64
	since  time.Time
	told   bool // it hangs, and we have said so
}

// watchMarkers looks until ctx ends.
func (s *Session) watchMarkers(ctx context.Context) {
	ticker := time.NewTicker(markersEvery)
	defer ticker.Stop()
	stands := map[place]*stand{}
	for ticks := 0; ; ticks++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if ticks%12 == 0 && s.offsetsAt.Load() < 0 { // nobody has committed anything yet, or we may not read it
			if info, err := s.meta(ctx, OffsetsTopic, false); err == nil && len(info.leaders) > 0 {
				s.offsetsAt.Store(GroupPartition(s.conf.Group, int32(len(info.leaders))))
			}
		}
		s.lookForMarkers(ctx, stands)
	}
}

// lookForMarkers looks at the output partitions that we own, and at that of the group's
// offsets.
func (s *Session) lookForMarkers(ctx context.Context, stands map[place]*stand) {
	ctx, cancel := context.WithTimeout(ctx, markersEvery)
	defer cancel()
	owned := s.owns.all()
	look := map[string][]int32{}
	for _, topic := range s.names[1:] {
		look[topic] = owned
	}
	if partition := s.offsetsAt.Load(); partition >= 0 && len(owned) > 0 {
		look[OffsetsTopic] = []int32{partition}
	}
	maps.DeleteFunc(stands, func(at place, _ *stand) bool { return !slices.Contains(look[at.topic], at.partition) })
	now, hang := time.Now(), 0
	for topic, partitions := range look {
		if len(partitions) == 0 {
			continue
		}
		stable, ends := s.offsetsNow(ctx, topic, partitions, offsetStable), s.offsetsNow(ctx, topic, partitions, offsetEnd)
		for partition, offset := range stable {
			at := place{topic, partition}
			end, known := ends[partition]
			switch was := stands[at]; {
			case !known:
			case offset >= end:
				delete(stands, at)
			case was == nil || was.stable != offset:
				stands[at] = &stand{stable: offset, since: now}
			case !s.mend(ctx, at, was) && now.Sub(was.since) > s.conf.TransactionTimeout+markersAfter:
				hang++
			}
		}
	}
	s.hang.Store(int64(hang))
}

// mend writes the marker that a partition lacks, and returns whether it needs no more.
func (s *Session) mend(ctx context.Context, at place, was *stand) (done bool) {
	tell := func(why string, h fmt.Stringer) {
		if !was.told {
			was.told = true
			s.conf.Log.Error("a transaction keeps readers waiting; if it is not ended within two minutes: footfall topics hanging --end",
				zap.Stringer("hang", h), zap.String("why", why))
		}
	}
	h, err := steadyHang(ctx, s.admin, s.v2, at.topic, at.partition)
	switch {
	case err != nil && !transient(err):
		tell(err.Error(), at)
		return false
	case err != nil || h == nil: // no answer, or it moves
		return err == nil
	}
	verdict, why := h.Verdict()
	commit, known := s.ours(h)
	if !known {
		commit = verdict == Commits
	}
	if known || h.leftOut() {
		if err = s.WriteMarker(ctx, h, commit); err == nil {
			return true
		}
		why = err.Error()
	}
	if verdict != Waits {
		tell(why, h)
	}
	return false
}

// HangingPartitions returns in how many partitions, of those that we look after, a
// transaction keeps readers waiting.
func (s *Session) HangingPartitions() int64 { return s.hang.Load() }

// MarkersWritten returns how many markers were written that a broker had left out.
func (s *Session) MarkersWritten() int64 { return s.marked.Load() }

// leftOut tells that a transaction is complete but for markers that its coordinator will not
// write, and that one of ours does no harm if it comes late: transactions of version 2 have
// another epoch each.
func (h *Hang) leftOut() bool {
	return h.v2 && h.ID != "" && h.IDEpoch == h.Epoch+1 && (h.State == "CompleteCommit" || h.State == "CompleteAbort")
}

// offsetsNow asks for one kind of offset of partitions of a topic, once, and gives the
// answers that there are.
func (s *Session) offsetsNow(ctx context.Context, topic string, partitions []int32, at int64) map[int32]int64 {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	offsets := make(map[int32]int64, len(partitions))
	for _, answer := range s.admin.RequestSharded(ctx, offsetsRequest(topic, partitions, at)) {
		if answer.Err != nil {
			continue
		}
		for _, t := range answer.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode == 0 {
					offsets[p.Partition] = p.Offset
				}
			}
		}
	}
	return offsets
}
