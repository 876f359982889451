package main

import (
	"context"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// follows is one instance's idea of the bounds in force.
type follows struct {
	*epochs
	mu    sync.Mutex
	began []segment.Epoch
}

func (r *follows) told() []segment.Epoch {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.began
}

// Two instances count their partitions, and read the same bounds; one that starts later
// goes by them at once; other rules that score by the same values keep them.
func TestEpochsAreAgreed(t *testing.T) {
	h := prepareHouse(t, localKafka(t), "http://127.0.0.1:8123/none", schemas.Live)
	h.run("topics", "create")
	rules, err := segment.Shipped(segment.Options{Exponent: 2}, "lifecycle", "rfm")
	if err != nil {
		t.Fatal(err)
	}
	start := func() *follows {
		r := &follows{}
		r.epochs = newEpochs(h.conf, zap.NewNop(), rules, 2, func(p *segment.Program) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.began = append(r.began, p.Epoch())
		})
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { r.run(ctx) })
		wg.Go(func() {
			if err := watchControl(ctx, h.conf, zap.NewNop(), r); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(func() { stop(); wg.Wait() })
		return r
	}
	a, b := start(), start()
	count := func(r *follows, partition int32, number uint64, values ...int64) {
		of := make([]segment.Distribution, rules.Quantiles())
		for i := range of {
			for _, v := range values {
				of[i].Add(segment.Valued{Value: v, Users: 1})
			}
		}
		r.counted(partition, rules, segment.Count{Number: number, At: schemas.Millis(number) * schemas.Day, Of: of})
	}
	reach := func(r *follows, number uint64) segment.Epoch {
		h.until("the epoch has begun", func() bool {
			began := r.told()
			return len(began) > 0 && began[len(began)-1].Number == number
		})
		began := r.told()
		return began[len(began)-1]
	}
	for number := uint64(20_000); number < 20_003; number++ {
		count(a, 0, number, 1, 2, 3, int64(number))
		count(b, 1, number, 4, 5)
		if d := cmp.Diff(reach(a, number), reach(b, number)); d != "" {
			t.Errorf("epoch %d (-one +other):\n%s", number, d)
		}
	}
	late := start()
	if d := cmp.Diff(reach(a, 20_002), reach(late, 20_002)); d != "" {
		t.Errorf("one that starts later (-first +it):\n%s", d)
	}
	if n := len(late.told()); n != 1 {
		t.Errorf("it was told of %d epochs, want the one in force", n)
	}
	others, err := segment.Shipped(segment.Options{Exponent: 2, Contract: 7}, "rfm")
	if err != nil {
		t.Fatal(err)
	}
	a.follow(others, 2)
	if began := a.told(); began[len(began)-1].Number != 20_002 {
		t.Errorf("other rules with the same quantiles go by epoch %d, want 20002", began[len(began)-1].Number)
	}
}

// A record that the topic refuses, for its size, keeps none of those behind it from being
// written.
func TestEpochsBehindARecordThatIsRefused(t *testing.T) {
	h := prepareHouse(t, localKafka(t), "http://127.0.0.1:8123/none", schemas.Live)
	h.run("topics", "create")
	rules, err := segment.Shipped(segment.Options{Exponent: 2}, "rfm")
	if err != nil {
		t.Fatal(err)
	}
	e := newEpochs(h.conf, zap.NewNop(), rules, 2, func(*segment.Program) {})
	e.mu.Lock()
	e.write(segment.LogRecord{Key: []byte("large"), Value: make([]byte, 2<<20)})
	e.write(segment.LogRecord{Key: []byte("good"), Value: []byte("1")})
	e.mu.Unlock()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { e.run(ctx) })
	h.until("the other is written", func() bool {
		written := false
		err := readTopic(t.Context(), h.conf, h.conf.controlTopic(), 0, func(r *kgo.Record) error {
			written = written || string(r.Key) == "good"
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return written
	})
}
