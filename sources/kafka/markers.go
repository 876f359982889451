package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

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
// that the broker refuses a marker of ours that comes too late.

const (
	markersEvery = 10 * time.Second // how often we look
	markersAfter = 20 * time.Second // beyond its timeout a transaction that still is undecided hangs
)

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
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
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
	if info, err := s.meta(ctx, OffsetsTopic, false); err == nil && len(owned) > 0 {
		look[OffsetsTopic] = []int32{groupPartition(s.conf.Group, int32(len(info.leaders)))}
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
			case now.Sub(was.since) > s.conf.TransactionTimeout+markersAfter && !s.writeMarker(ctx, at, was):
				hang++
			}
		}
	}
	s.hang.Store(int64(hang))
}

// writeMarker writes the marker that a partition lacks, and returns whether it needs no more.
func (s *Session) writeMarker(ctx context.Context, at place, was *stand) (done bool) {
	tell := func(why string, h fmt.Stringer) {
		if !was.told {
			was.told = true
			s.conf.Log.Error("a transaction keeps readers waiting, and nothing ends it by itself: footfall topics hanging --end",
				zap.Stringer("hang", h), zap.String("why", why))
		}
	}
	h, err := describeHang(ctx, s.admin, s.v2, at.topic, at.partition)
	switch {
	case err != nil && !transient(err):
		tell(err.Error(), at)
		return false
	case err != nil || h == nil:
		return err == nil
	}
	again, err := describeHang(ctx, s.admin, s.v2, at.topic, at.partition)
	if err != nil || again == nil || *again != *h {
		return false // it moves
	}
	verdict, why := h.Verdict()
	if h.leftOut() {
		if err = h.End(ctx, s.admin, verdict == Commits); err == nil {
			s.marked.Add(1)
			s.conf.Log.Warn("the broker has left a transaction without its marker; it is written now", zap.Stringer("hang", h), zap.String("marker", string(verdict)))
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
