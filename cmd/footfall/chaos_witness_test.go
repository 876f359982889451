//go:build chaos

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/oracle"
)

// witness reads all topics while things are killed, as those do who act on triggers: what
// it has once seen may not vanish, change, or be joined by what comes before it.
//
// Its goroutine polls until the test has ended, or holds has stopped it.
type witness struct {
	stop context.CancelFunc

	mu     sync.Mutex            // guards what follows
	seen   map[place][]testimony // in the order in which it was read
	faults []error
}

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

// testimony is a record that was seen, and its hash.
type testimony struct {
	offset int64
	hash   uint64
}

// watching begins to read. Where offsets are gone, or are other records' than they were, it
// does not begin anew.
func watching(r *rig) *witness {
	r.t.Helper()
	from, t := map[string]map[int32]kgo.Offset{}, &r.conf.Kafka.Topics
	for _, topic := range []string{t.Events, t.Triggers, t.Muted, t.DeadLetters} {
		from[topic] = map[int32]kgo.Offset{}
		for p := range int32(r.conf.Kafka.Partitions) {
			from[topic][p] = kgo.NewOffset().At(0)
		}
	}
	cl := r.reader(kgo.ConsumePartitions(from), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	ctx, cancel := context.WithCancel(r.t.Context())
	w := &witness{stop: cancel, seen: map[place][]testimony{}}
	go func() {
		defer cl.Close()
		for ctx.Err() == nil {
			w.take(cl.PollFetches(ctx))
		}
	}()
	return w
}

func (w *witness) take(fetches kgo.Fetches) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fetches.EachError(func(topic string, partition int32, err error) {
		var lost *kgo.ErrDataLoss
		if errors.As(err, &lost) || errors.Is(err, kerr.OffsetOutOfRange) {
			w.faults = append(w.faults, fmt.Errorf("%s/%d: what was read is not in the log any more: %w", topic, partition, err))
		}
	})
	fetches.EachRecord(func(r *kgo.Record) {
		rec, at := recordOf(r), place{r.Topic, r.Partition}
		w.seen[at] = append(w.seen[at], testimony{r.Offset, hashOf(&rec)})
	})
}

// holds compares what was seen with what the topics hold in the end, when it has seen the
// end of them too.
func (w *witness) holds(t *testing.T, dump *oracle.Dump) {
	t.Helper()
	there := map[place][]testimony{}
	for _, of := range [][]oracle.Record{dump.Input, dump.Triggers, dump.Muted, dump.DeadLetters} {
		for i := range of {
			at := place{of[i].Topic, of[i].Partition}
			there[at] = append(there[at], testimony{of[i].Offset, hashOf(&of[i])})
		}
	}
	for end := time.Now().Add(time.Minute); !w.has(there) && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	w.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, err := range w.faults {
		t.Error(err)
	}
	for at, records := range there {
		slices.SortFunc(records, func(a, b testimony) int { return cmp.Compare(a.offset, b.offset) })
		seen := w.seen[at]
		i := 0
		for i < min(len(seen), len(records)) && seen[i] == records[i] {
			i++
		}
		if i < len(seen) || i < len(records) {
			t.Errorf("%s/%d: somebody who read on had %d records, and the topic has %d; those from the %d-th on, as read %+v and as they are %+v",
				at.topic, at.partition, len(seen), len(records), i, first(seen[i:]), first(records[i:]))
		}
	}
}

// has tells whether it has seen as many records as there are, or more.
func (w *witness) has(there map[place][]testimony) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for at, records := range there {
		if len(w.seen[at]) < len(records) {
			return false
		}
	}
	return true
}

func first(of []testimony) []testimony { return of[:min(2, len(of))] }
