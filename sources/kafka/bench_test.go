package kafka

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

// BenchmarkTransact is one transaction after another, on the broker in this process
// or on the one FOOTFALL_TEST_KAFKA names.
func BenchmarkTransact(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint("records=", n), func(b *testing.B) {
			e, s, owned := benchmark(b, 8)
			value := strings.Repeat("x", 400)
			var took []time.Duration
			round := int64(0)
			for b.Loop() {
				round++
				var records []*kgo.Record
				var outs []*worker.Output
				for p := range int32(8) {
					outs = append(outs, output(owned[p], round, uint64(round)))
				}
				for i := range n {
					records = append(records, e.records(int32(i%8), value)...)
				}
				began := time.Now()
				if err := s.Transact(b.Context(), records, outs); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// BenchmarkPoll is reading the input as the pipeline does.
func BenchmarkPoll(b *testing.B) {
	e, s, _ := benchmark(b, 1)
	const n = 200_000
	value := []byte(strings.Repeat("x", 266))
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = &kgo.Record{Topic: e.input, Key: []byte("user-1234"), Value: value}
	}
	if err := e.cl.ProduceSync(b.Context(), records...).FirstErr(); err != nil {
		b.Fatal(err)
	}
	var batch pipeline.Batch
	for b.Loop() {
		s.Start(0, 0)
		for next := int64(0); next < n; {
			if err := s.Poll(b.Context(), &batch); err != nil {
				b.Fatal(err)
			}
			for _, f := range batch.Fetched {
				next = f.Records[len(f.Records)-1].Offset + 1
			}
		}
	}
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func benchmark(b *testing.B, partitions int32) (*env, *Session, map[int32]pipeline.Assignment) {
	var e *env
	if addr := os.Getenv(realBroker); addr != "" {
		e = newEnv(b, addr, nil, partitions)
	} else {
		e = local(b, partitions)
	}
	s := e.session(e.config("a"))
	return e, s, assigned(b, s, int(partitions))
}
