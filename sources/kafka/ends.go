package kafka

import (
	"context"
	"time"

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
	answers := s.offsetsNow(ctx, s.conf.Topic, partitions, offsetStable)
	s.mu.Lock()
	for partition, offset := range answers {
		s.ends[partition] = pipeline.End{Partition: partition, Offset: offset, Wall: wall}
		s.told[partition] = offset
	}
	s.mu.Unlock()
	s.owns.interrupt()
}
