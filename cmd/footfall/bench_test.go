package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
	"footfall/sources/storefront"
)

// smallBench is a bench of few events, which leaves nothing in the temporary folder.
func smallBench(t *testing.T, o benchOptions, say *strings.Builder, sets ...string) *benching {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v (%v)", left, err)
		}
	})
	b, err := newBenching(&global{sets: sets}, &o, say)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What bench counts is what it has sent, whatever it takes.
func TestBench(t *testing.T) {
	var said strings.Builder
	o := benchOptions{events: 6000, users: 2000, rate: 300, seconds: 2, skew: "zipf"}
	b := smallBench(t, o, &said, "kafka.partitions=3", "segments.sets=lifecycle,engagement")
	r, err := b.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, l, m, s := r.CatchUp, r.Live, r.Memory, r.Snapshots
	for what, holds := range map[string]bool{
		"it is told what was measured":                    r.Users == 2000 && r.Partitions == 3 && cmp.Equal(r.Sets, []string{"lifecycle", "engagement"}) && r.Skew == "zipf",
		"every event is applied once":                     c.Events == 6000 && c.EventBytes > 200,
		"every user moves, and some by silence":           c.Transitions > 2*2000 && c.Timers > 0,
		"ratios are of what is told":                      c.PerSecond == 6000/c.Seconds && c.PerCPU == 6000/c.CPU,
		"every live event is sent":                        l.Events == 600 && l.Rate == 300 && l.Seconds == 2,
		"every trigger that was caused has a latency":     l.Triggers > 0 && l.Triggers <= l.Transitions && l.Latency.N == int(l.Triggers),
		"latencies are in order":                          *l.Latency.P50 <= *l.Latency.P99 && *l.Latency.P99 <= *l.Latency.P999 && *l.Latency.P999 <= *l.Latency.Max,
		"nothing has a latency below 0":                   *l.Latency.P50 > 0,
		"memory is what the process has":                  m.Resident > 0 && m.Peak >= m.Resident && m.Held > 0 && m.Empty > 0,
		"of so few users it can't be told what one takes": m.UserBytes == nil && m.IDBytes == nil,
		"snapshots are of everybody":                      s.Bytes > 2000*16 && s.Kept >= s.Bytes && s.UserBytes == float64(s.Bytes)/2000,
		"topics have all of it":                           r.Topics.EventBytes > 0 && r.Topics.TransitionBytes > 0,
		"who was killed comes back whole":                 r.Recovery.Killed.Users == 2000 && r.Recovery.Killed.Seconds > 0,
		"who was stopped has nothing to replay":           r.Recovery.Stopped.Users == 2000 && r.Recovery.Stopped.Replayed == 0,
		"what goes on is said":                            strings.HasPrefix(said.String(), "published 6,000 events in "),
	} {
		if !holds {
			t.Errorf("%s: not in %+v", what, r)
		}
	}

	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var again benchResult
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, &again); diff != "" {
		t.Errorf("what is read from JSON differs (-want +got):\n%s", diff)
	}
	var table strings.Builder
	if err := r.print(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"6,000 events of 2,000 users (zipf), 3 partitions, segments lifecycle, engagement\n", fmt.Sprintf("%s triggers\n", grouped(l.Triggers)), "Snapshots were taken every 10s."} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("want %q in\n%s", want, table.String())
		}
	}
	t.Logf("%s\n%s", text, table.String())
}

// Interrupted at any time, it ends, and neither a process nor a file is left.
func TestBenchInterrupted(t *testing.T) {
	for _, after := range []time.Duration{0, 300 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			b := smallBench(t, benchOptions{events: 50_000, users: 5000, rate: 100, seconds: 600, skew: "uniform"}, &strings.Builder{})
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			if _, err := b.run(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
			}
		})
	}
}

// An engine that ends says why.
func TestBenchEngineFails(t *testing.T) {
	var said strings.Builder
	b := smallBench(t, benchOptions{events: 100, users: 10, rate: 100, seconds: 1, skew: "zipf"}, &said)
	b.g.sets = []string{"segments.sets=nosuch"}
	if _, err := b.run(t.Context()); err == nil || !strings.Contains(err.Error(), "footfall run: exit status 2\n") || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("got %v, want what the engine says", err)
	}
}

// A trigger's latency is from when the event that caused it was due. One that another cause
// has, or an event of before, has none.
func TestBenchLatency(t *testing.T) {
	crowd, err := storefront.NewCrowd(storefront.CrowdConfig{Users: 1, Events: 3})
	if err != nil {
		t.Fatal(err)
	}
	names := []schemas.SetNames{{Name: "s", Segments: []string{"a", "b"}}}
	begin := time.Now()
	r := &benchReader{names: names}
	r.begin(1, begin, 10*time.Millisecond)
	for n := range 3 {
		var ev schemas.Event
		decoder, err := schemas.NewDecoder(schemas.Contract{Currency: "EUR"})
		if err != nil {
			t.Fatal(err)
		}
		rec := crowd.Next(schemas.Millis(begin.UnixMilli()))
		if err := decoder.Decode(rec.Key, rec.Value, &ev); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []schemas.CauseKind{schemas.ByEvent, schemas.ByTimer} {
			tr := schemas.Transition{User: "u", From: schemas.NoSegment, Seq: 1, At: ev.At, Segments: []uint16{0}, Expected: schemas.Expected{To: schemas.NoSegment, At: schemas.Never}}
			if tr.Cause = (schemas.Cause{Kind: kind, Due: ev.At}); kind == schemas.ByEvent {
				tr.Cause = schemas.Cause{Kind: kind, ID: string(ev.ID)}
			}
			value := tr.AppendJSON(nil, &schemas.TransitionContext{Sets: names, Currency: "EUR"})
			if err := r.trigger(&kgo.Record{Value: value}, begin.Add(time.Duration(n)*100*time.Millisecond)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if want := []float64{100, 190}; r.triggers != 2 || !cmp.Equal(r.latencies, want) {
		t.Errorf("got %d triggers of %v ms, want 2 of %v", r.triggers, r.latencies, want)
	}
	if err := r.trigger(&kgo.Record{Topic: "triggers", Partition: 1, Offset: 7, Value: []byte("{}")}, begin); err == nil || !strings.HasPrefix(err.Error(), "kafka: triggers/1 at offset 7: ") {
		t.Errorf("got %v of what is no transition", err)
	}
}

func TestBenchQuantiles(t *testing.T) {
	if l := quantilesOf(nil); l.N != 0 || l.P50 != nil || l.Max != nil {
		t.Errorf("got %+v of nothing", l)
	}
	var ms []float64
	for n := range 1000 {
		ms = append(ms, float64(1000-n))
	}
	if l := quantilesOf(ms); *l.P50 != 501 || *l.P99 != 991 || *l.P999 != 1000 || *l.Max != 1000 || l.N != 1000 {
		t.Errorf("got %v, %v, %v, %v of %d", *l.P50, *l.P99, *l.P999, *l.Max, l.N)
	}
}

func TestBenchSeries(t *testing.T) {
	got := parseSeries("# HELP a of a\n# TYPE a counter\na 1.5\nb{partition=\"0\"} 2\nb{partition=\"1\",name=\"x y\"} 3e+06\nc NaN?\n\n")
	if want := (series{"a": 1.5, "b": 3_000_002}); !cmp.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
