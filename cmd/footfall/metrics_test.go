package main

import (
	"os"
	"testing"
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
