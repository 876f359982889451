package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline"
)

// tick asks once an interval where the partitions being read end, and leaves the
// answers for Poll, the newest of each partition. The wall is taken before asking:
// what was published before it lies before the end. A partition of which there is no answer
// is asked for again at the next tick; its clock waits that long, and no other's: one
// without a leader only makes the ticks rarer. It ends with ctx.
func (s *Session) tick(ctx context.Context) {
	ticker := time.NewTicker(s.conf.TickInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s.ask(ctx)
	}
}

func (s *Session) ask(ctx context.Context) {
	partitions := s.owns.startedPartitions()
	if len(partitions) == 0 {
		return
	}
	wall := s.conf.Now()
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answers := s.admin.RequestSharded(ctx, offsetsRequest(s.conf.Topic, partitions, offsetStable))
	s.mu.Lock()
	for _, answer := range answers {
		if answer.Err != nil {
			continue
		}
		for _, t := range answer.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode == 0 {
					s.ends[p.Partition] = pipeline.End{Partition: p.Partition, Offset: p.Offset, Wall: wall}
					s.told[p.Partition] = p.Offset
				}
			}
		}
	}
	s.mu.Unlock()
	s.owns.interrupt()
}
