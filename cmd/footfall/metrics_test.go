package main

import (
	"os"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"footfall/pipeline/worker"
	"footfall/schemas"
)

// TestMetricsReference keeps METRICS.md what the code says. To write it:
//
//	FOOTFALL_TEST_UPDATE=1 go test -run MetricsReference ./cmd/footfall
func TestMetricsReference(t *testing.T) {
	want, err := newMetrics(&engine{}).reference()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("FOOTFALL_TEST_UPDATE") != "" {
		if err := os.WriteFile("METRICS.md", []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("METRICS.md is not what the code says; FOOTFALL_TEST_UPDATE=1 go test -run MetricsReference ./cmd/footfall writes it")
	}
}

// The alerts of README ask for the increase of counters with labels. The first one of a
// kind would be none if its counter had not been there before, at 0.
func TestFaultsAreCountedFromZero(t *testing.T) {
	out := make(chan prometheus.Metric, schemas.Refusals)
	collectRefused(out, prometheus.NewDesc(deadLettersMetric, deadLettersHelp, []string{"partition", "reason"}, nil), "0", &worker.Stats{})
	if got, want := len(out), int(schemas.Refusals)-1; got != want {
		t.Errorf("%s of a partition without dead letters: got %d reasons, want all %d", deadLettersMetric, got, want)
	}

	m := newMetrics(&engine{})
	m.parity.expect([]string{"lifecycle", "rfm"})
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sets := 0
	for _, f := range families {
		if f.GetName() == parityDifferencesMetric {
			sets = len(f.GetMetric())
		}
	}
	if sets != 2 {
		t.Errorf("%s before any comparison: got %d counters, want one of each of 2 sets", parityDifferencesMetric, sets)
	}
}
