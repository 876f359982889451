package rehearsal

import (
	"testing"

	"footfall/pipeline/segment"
	"footfall/schemas/segments"
)

// BenchmarkExamples plays the examples of the lifecycle set.
func BenchmarkExamples(b *testing.B) {
	text, err := segments.Examples("lifecycle")
	if err != nil {
		b.Fatal(err)
	}
	rules, err := segment.Shipped(segment.Options{Exponent: 2}, "lifecycle")
	if err != nil {
		b.Fatal(err)
	}
	x, err := Read(segment.File{Name: "lifecycle.test.yaml", Text: text})
	if err != nil {
		b.Fatal(err)
	}
	played := 0
	for b.Loop() {
		results, _, err := x.Run(Shop{Rules: rules, Contract: contract(), Dedup: DefaultDedup()})
		if err != nil {
			b.Fatal(err)
		}
		played += len(results)
	}
	b.ReportMetric(float64(played)/b.Elapsed().Seconds(), "examples/s")
}
