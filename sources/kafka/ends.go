package kafka

import (
	"context"
	"time"

	"footfall/pipeline"
)

// tick asks once an interval where the partitions being read end, and leaves the
// answers for Poll, the newest of each partition. The wall is taken before asking:
// what was published before it lies before the end. A question that fails is asked
// again at the next tick; the clock waits that long. It ends with ctx.
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
	stable, err := s.listOffsets(ctx, s.conf.Topic, partitions, offsetStable)
	if err != nil {
		return
	}
	s.mu.Lock()
	for p, offset := range stable {
		s.ends[p] = pipeline.End{Partition: p, Offset: offset, Wall: wall}
	}
	s.mu.Unlock()
	s.owns.interrupt()
}
