package worker

import (
	"fmt"
	"strings"
	"testing"

	"footfall/pipeline/segment"
)

// hundreds writes sets of ten segments each, whose rules look at what ask names: %d is
// the number of the set and then of the segment.
func hundreds(tb testing.TB, sets int, ask string) (files []segment.File) {
	tb.Helper()
	for set := range sets {
		var b strings.Builder
		fmt.Fprintf(&b, "set: set%d\nsegments:\n", set)
		for i := range 9 {
			fmt.Fprintf(&b, "  - {name: s%d, when: '%s'}\n", i, fmt.Sprintf(ask, 100*(set+1)-10*i))
		}
		b.WriteString("  - {name: rest, otherwise: true}\n")
		files = append(files, segment.File{Name: fmt.Sprintf("set%d.yaml", set), Text: []byte(b.String())})
	}
	return files
}

// BenchmarkSets is what an event costs (adding to a cart, by known users) with ten
// segments that it may change, and what 200 more cost: of which it may change none, as
// with most events of a shop and most of its segments, or all.
func BenchmarkSets(b *testing.B) {
	touched := `count("add_to_cart", days(30)) >= %d`
	for _, c := range []struct {
		name string
		of   func() []segment.File
	}{
		{"segments=10", func() []segment.File { return hundreds(b, 1, touched) }},
		{"segments=10+200/touched=0", func() []segment.File {
			return append(hundreds(b, 1, touched), rename(hundreds(b, 20, `revenue(days(90)) >= %d.00 && orders(days(90)) >= 2`))...)
		}},
		{"segments=10+200/touched=200", func() []segment.File {
			return append(hundreds(b, 1, touched), rename(hundreds(b, 20, `count("add_to_cart", days(7)) >= %d`))...)
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			cfg := config(b)
			rules, err := segment.Compile(segment.Options{Exponent: 2}, c.of()...)
			if err != nil {
				b.Fatal(err)
			}
			cfg.Rules, cfg.DedupBudget = rules, 1<<16
			w := New(7, cfg)
			w.Begin(0, 0)
			tr, out := newTraffic(10_000, 1000), &Output{}
			tr.fill(w, out)
			b.ReportAllocs()
			for b.Loop() {
				w.Apply(tr.batch(tr.anybody), Conditions{Wall: trafficAt}, out)
			}
			b.ReportMetric(float64(b.N*len(tr.records))/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// rename gives sets other names than those of the first.
func rename(files []segment.File) []segment.File {
	for i := range files {
		files[i].Text = []byte(strings.Replace(string(files[i].Text), "set: set", "set: more", 1))
	}
	return files
}
