package kafka

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

// A batch of some kilobytes may expand to gigabytes: brokers check what is packed only.
// It stops its reader with what to do, before it takes the memory; with a greater limit
// its records are read like all others.
func TestBatchBomb(t *testing.T) {
	onBrokers(t, 1, func(t *testing.T, e *env) {
		e.publish(0, "before")
		bomber, err := kgo.NewClient(kgo.SeedBrokers(e.addr), kgo.ProducerBatchMaxBytes(32<<20), kgo.BrokerMaxWriteBytes(64<<20),
			kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			t.Fatal(err)
		}
		defer bomber.Close()
		bomb := &kgo.Record{Topic: e.input, Key: []byte("k"), Value: []byte(strings.Repeat("0", 16<<20))}
		if err := bomber.ProduceSync(t.Context(), bomb).FirstErr(); err != nil {
			t.Fatalf("the broker did not take it: %v", err)
		}
		e.publish(0, "after")

		conf := e.config("a")
		conf.BatchMax = 8 << 20
		s := e.session(conf)
		assigned(t, s, 1)
		s.Start(0, 0)
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		var b pipeline.Batch
		for err == nil {
			err = s.Poll(ctx, &b)
		}
		if !told(err) {
			t.Errorf("poll: got %v, want an error that names the batch and what to do", err)
		}
		if err := s.Input(t.Context(), 0, 0, 3, func([]worker.Record) error { return nil }); !told(err) {
			t.Errorf("history: got %v, want an error that names the batch and what to do", err)
		}
		s.Close(t.Context())

		conf.BatchMax = 64 << 20
		s = e.session(conf)
		assigned(t, s, 1)
		s.Start(0, 0)
		got := read(t, s, 0, 3)
		if len(got) != 3 || len(got[1].Value) != 16<<20 || string(got[2].Value) != "after" {
			t.Errorf("with a greater limit: got %d records", len(got))
		}
	})
}

func told(err error) bool {
	return errors.Is(err, kgo.ErrMaxDecompress) && strings.Contains(err.Error(), "from offset 1 to 1") && strings.Contains(err.Error(), "kafka.batch_max")
}
