package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const printed = `goos: linux
BenchmarkStage/decode/users=1K   	     646	    415821 ns/op	       200.0 cpu-ns/event	   5000000 events/cpu-s	       0 B/op	       0 allocs/op
BenchmarkStage/decode/users=1K   	     646	    415821 ns/op	       220.0 cpu-ns/event	   5000000 events/cpu-s	       0 B/op	       0 allocs/op
BenchmarkStage/decode/users=1K   	     646	    415821 ns/op	       100.0 cpu-ns/event	   5000000 events/cpu-s	       0 B/op	       0 allocs/op
BenchmarkStage/decode/users=10M-2	     646	    415821 ns/op	       500.0 cpu-ns/event	   2000000 events/cpu-s	       0 B/op	       0 allocs/op
BenchmarkStage/load/users=1K     	       1	 512661867 ns/op	       254.3 cpu-ns/user	   3931930 users/cpu-s	160585440 B/op	    1087 allocs/op
PASS
`

// words are a text's, so that columns may be as wide as they are.
func words(s string) string { return strings.Join(strings.Fields(s), " ") }

func TestTheTable(t *testing.T) {
	peers := filepath.Join(t.TempDir(), "peers")
	if err := os.WriteFile(peers, []byte("a table\n"+`{"events":3000000,"runs":[{"name":"footfall","events_per_cpu_s":1000000,"rss_mb":500},{"name":"flink-memory","events_per_cpu_s":125000,"rss_mb":1400}]}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := micro(strings.NewReader(printed), peers, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"decode event 200.0 - 500.0 - 2.50 x 2,000,000 ±0 % 0 a call",
		"load user 254.3 - - - - 3,932,363 ±0 % 1087 a call",
		"whole process, 3,000,000 events",
		"flink-memory event 8000 8.00 x 1400 125,000",
	} {
		if !strings.Contains(words(out.String()), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if err := micro(strings.NewReader("--- FAIL: BenchmarkStage/fold/users=1K\n"), "", &out); err == nil {
		t.Error("a benchmark that failed is no error")
	}
}

func TestSpread(t *testing.T) {
	all, err := read(strings.NewReader(printed))
	if err != nil || len(all) != 3 {
		t.Fatalf("got %d benchmarks, %v, want 3", len(all), err)
	}
	if got := all[0].spread(); got != "±50 %" {
		t.Errorf("runs of 200, 220 and 100: got %s, want ±50 %%", got)
	}
}

func TestTheCurve(t *testing.T) {
	var out strings.Builder
	b := &bench{out: &out}
	if err := b.draw(curve{By: "users", Of: "something", Points: []point{{"10K", 500, 90}, {"1M", 1000, 80}}}); err != nil {
		t.Fatal(err)
	}
	want := "users, something users CPU ns an event to the first bytes a user 10K 500 1.00 x 90 " + strings.Repeat("#", barMost/2) + " 1M 1000 2.00 x 80 " + strings.Repeat("#", barMost)
	if got := words(out.String()); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
