package main

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/worker"
	"footfall/schemas"
	"footfall/sources/kafka"
)

// merging reads the partitions of a topic as one series in the order of time. A partition
// that is ahead waits in a queue, and is fetched no further when that is full.
type merging struct {
	topic string
	lane  schemas.Lane // of records without a header

	from map[int32]kgo.Offset
	open map[int32]*mergingPart

	total, done int64
}

// mergingPart is a partition that has not been given away whole.
type mergingPart struct {
	end    int64
	next   int64 // read up to here
	queue  []*worker.Record
	paused bool
}

// queueMax is how many records of a partition wait (R4).
const queueMax = 5000

func newMerging(topic string, lane schemas.Lane) *merging {
	return &merging{topic: topic, lane: lane, from: map[int32]kgo.Offset{}, open: map[int32]*mergingPart{}}
}

// add adds a partition's records with from <= offset < to.
func (m *merging) add(p int32, from, to int64) {
	if from >= to {
		return
	}
	m.from[p] = kgo.NewOffset().At(from)
	m.open[p] = &mergingPart{end: to, next: from}
	m.total += to - from
}

// share is how much of it is done.
func (m *merging) share() float64 { return float64(m.done) / float64(max(1, m.total)) }

// read reads until every partition is at its end.
func (m *merging) read(ctx context.Context, cl *kgo.Client, each func(int32, *worker.Record) error) error {
	for len(m.open) > 0 {
		if err := m.give(each); err != nil {
			return err
		}
		if len(m.open) == 0 {
			return nil
		}
		m.pace(cl)
		fetches := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, f := range fetches.Errors() {
			return fmt.Errorf("kafka: read %s/%d: %w", m.topic, f.Partition, kafka.Unreadable(f.Err))
		}
		fetches.EachRecord(m.take)
	}
	return nil
}

func (m *merging) take(r *kgo.Record) {
	part := m.open[r.Partition]
	if part == nil || r.Offset >= part.end {
		if part != nil {
			part.next = part.end
		}
		return
	}
	part.next = r.Offset + 1
	if r.Attrs.IsControl() {
		return
	}
	lane, _ := schemas.LaneOf(headers(r), m.lane)
	part.queue = append(part.queue, &worker.Record{
		Offset: r.Offset, Time: schemas.Millis(r.Timestamp.UnixMilli()), Key: r.Key, Value: r.Value, Headers: headers(r), Lane: lane,
	})
}

// give gives away what comes next, as long as that is known: when every partition that is
// not at its end has something waiting.
func (m *merging) give(each func(int32, *worker.Record) error) error {
	for {
		first := int32(-1)
		for p, part := range m.open {
			switch {
			case len(part.queue) == 0 && part.next >= part.end:
				delete(m.open, p)
			case len(part.queue) == 0:
				return nil
			case first < 0 || part.queue[0].Time < m.open[first].queue[0].Time || part.queue[0].Time == m.open[first].queue[0].Time && p < first:
				first = p
			}
		}
		if first < 0 {
			return nil
		}
		part := m.open[first]
		r := part.queue[0]
		part.queue = part.queue[1:]
		m.done++
		if err := each(first, r); err != nil {
			return err
		}
	}
}

// pace pauses partitions that are ahead, and lets those go on of which more is wanted.
func (m *merging) pace(cl *kgo.Client) {
	for p, part := range m.open {
		of := map[string][]int32{m.topic: {p}}
		switch {
		case !part.paused && len(part.queue) >= queueMax:
			cl.PauseFetchPartitions(of)
			part.paused = true
		case part.paused && len(part.queue) < queueMax/2:
			cl.ResumeFetchPartitions(of)
			part.paused = false
		}
	}
}
