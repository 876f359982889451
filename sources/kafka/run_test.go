package kafka

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Records that lie elsewhere than their keys belong are counted when they are applied; what
// has no key, and the broker's markers, belong nowhere.
func TestMisplaced(t *testing.T) {
	s := &Session{topic: topicInfo{leaders: make([]int32, 4)}}
	var records []*kgo.Record
	want := int64(0)
	for i := range 40 {
		key := []byte(fmt.Sprint("user-", i))
		if PartitionOf(key, 4) != 1 {
			want++
		}
		records = append(records, &kgo.Record{Partition: 1, Offset: int64(i), Key: key})
	}
	records = append(records, &kgo.Record{Partition: 1, Offset: 40})
	for round := range int64(3) { // its memory is used again
		r := newRun(records)
		r.reader, r.partition = s, 1
		if err := r.read(0); err != nil || len(r.records) != len(records) {
			t.Fatalf("%d records, %v", len(r.records), err)
		}
		r.free()
		if got := s.Misplaced(); got != (round+1)*want {
			t.Errorf("round %d: %d misplaced, want %d", round, got, (round+1)*want)
		}
	}
	r := newRun(records) // of history: they were counted before
	r.free()
	if got := s.Misplaced(); got != 3*want {
		t.Errorf("history counts: %d, want %d", got, 3*want)
	}
}
