package kafka

import (
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
// ended.

const (
	markersEvery = 5 * time.Second  // how often we look
	markersAfter = 20 * time.Second // beyond its timeout a transaction that still is undecided hangs
)

// disconnects counts the connections that have ended.
type disconnects struct{ n *atomic.Int64 }

// OnBrokerDisconnect is kgo's hook.
func (d disconnects) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) { d.n.Add(1) }

// said is what a producer has written in transactions that have ended, and are not known to
// have their markers. broken is Session.broken before the last.
type said struct {
	mu     sync.Mutex
	pid    int64
	firsts []first
	broken int64
}

// first is the first record of a transaction in a partition.
type first struct {
	place
	offset int64 // -1: not known, of the group's offsets
	broken int64
	commit bool // it was committed, not aborted
}

// noteEnd adds a transaction that has ended, whose records were acknowledged.
func (s *Session) noteEnd(p *producer, pid int64, records []*kgo.Record, commit bool) {
	p.said.note(pid, records, commit)
	if partition := s.offsetsAt.Load(); partition >= 0 {
		p.said.note(pid, []*kgo.Record{{Topic: OffsetsTopic, Partition: partition, Offset: -1}}, commit)
	}
}

func (d *said) note(pid int64, records []*kgo.Record, commit bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pid = pid
	at := -1
	for _, r := range records {
		if at >= 0 && d.firsts[at].partition == r.Partition && d.firsts[at].topic == r.Topic {
			continue // as most
		}
		at = slices.IndexFunc(d.firsts, func(f first) bool { return f.partition == r.Partition && f.topic == r.Topic })
		if at < 0 {
			at = len(d.firsts)
			d.firsts = append(d.firsts, first{place{r.Topic, r.Partition}, r.Offset, d.broken, commit})
		}
	}
}

// seen looks whether what a producer has committed, or had aborted, in partitions that it is
// about to write to again has its markers, if a broker may have died since, and writes those
// that it has not: else it would become of it what becomes of the producer's next transaction
// there. A producer is in no transaction meanwhile. An error is one that may go by itself.
func (s *Session) seen(ctx context.Context, p *producer, records []*kgo.Record) error {
	look := p.said.unseen(s.broken.Load(), records)
	if len(look) == 0 {
		return nil
	}
	var set kadm.TopicsSet
	for _, f := range look {
		set.Add(f.topic, f.partition)
	}
	topics, err := kadm.NewClient(s.admin).DescribeProducers(ctx, set)
	for _, f := range look {
		part := topics[f.topic].Partitions[f.partition]
		open, ok := part.ActiveProducers[p.said.pid]
		switch {
		case err != nil:
		case part.Err != nil:
			err = part.Err
		case ok && open.CurrentTxnStartOffset >= 0 && (f.offset < 0 || f.offset == open.CurrentTxnStartOffset):
			h := &Hang{Topic: f.topic, Partition: f.partition, Offset: open.CurrentTxnStartOffset, ProducerID: p.said.pid, Epoch: open.ProducerEpoch, ID: p.id, coordinator: open.CoordinatorEpoch}
			if err = s.WriteMarker(ctx, h, f.commit); errors.Is(err, kerr.ClusterAuthorizationFailed) {
				err = nil // it is told by who looks
			}
		}
	}
	if passing(err) != nil {
		return fmt.Errorf("look for the markers of %s: %w", p.id, err)
	}
	p.said.forget(look)
	return nil
}

// unseen gives what is to be looked at before records are sent.
func (d *said) unseen(broken int64, records []*kgo.Record) (look []first) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = broken
	// What a broker has gone on to answer after it has its markers.
	d.firsts = slices.DeleteFunc(d.firsts, func(f first) bool { return f.broken == broken })
	for _, f := range d.firsts {
		if f.topic == OffsetsTopic || slices.ContainsFunc(records, func(r *kgo.Record) bool { return r.Partition == f.partition && r.Topic == f.topic }) {
			look = append(look, f)
		}
	}
	return look
}

func (d *said) forget(seen []first) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.firsts = slices.DeleteFunc(d.firsts, func(f first) bool { return slices.Contains(seen, f) })
}

// ours tells that a transaction that hangs is one of ours, how it has ended, and that its
// producer has gone on since: it is refused a marker of then where it has written again.
func (s *Session) ours(h *Hang) (commit, known bool) {
	for _, p := range s.producers {
		p.said.mu.Lock()
		for _, f := range p.said.firsts {
			if p.said.pid == h.ProducerID && f.topic == h.Topic && f.partition == h.Partition && f.offset == h.Offset {
				commit, known = f.commit, h.Fenced()
			}
		}
		p.said.mu.Unlock()
	}
	return commit, known
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
				s.offsetsAt.Store(groupPartition(s.conf.Group, int32(len(info.leaders))))
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
