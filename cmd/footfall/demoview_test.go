package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"footfall/schemas"
	"footfall/sinks/clickhouse"
	"footfall/sources/storefront"
)

// The live view as a person sees it, without its colours. To write it anew:
//
//	FOOTFALL_TEST_UPDATE=1 go test -run DemoView$ ./cmd/footfall
func TestDemoView(t *testing.T) {
	lifecycle := SetStatus{Set: lifecycleSet, Segments: []SegmentStatus{{"lost", 99}, {"dormant", 558}, {"new", 119}, {"active", 452}, {"cooling", 668}, {"prospect", 1173}}}
	empty := SetStatus{Set: lifecycleSet, Segments: []SegmentStatus{{"lost", 0}, {"dormant", 0}, {"new", 0}, {"active", 0}, {"cooling", 0}, {"prospect", 0}}}
	vip := SetStatus{Set: "vip", Segments: []SegmentStatus{{"slipping", 0}, {"vip", 12}, {"others", 3057}}}
	silent := SetStatus{Set: "rfm", Segments: []SegmentStatus{{"champions", 0}}}
	second := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	noon := demoStart + 7*schemas.Day + 12*schemas.Hour
	busy := func(v *demoView, sets ...SetStatus) {
		v.before = demoSample{at: second, applied: 230_000, transitions: 6_600}
		v.now = demoSample{
			at: second.Add(2 * time.Second), applied: 233_012, transitions: 6_648, duplicates: 49, dead: 11,
			users: 3_069, sets: sets, clock: noon,
		}
		v.watch.triggers, v.watch.muted, v.watch.latencies = 309, 6_339, []float64{1.42, 2.04, 19.5}
		for i := range 30 {
			v.watch.last = append(v.watch.last, watched{fmt.Sprintf("shopper-%04d", i), lifecycleSet, "prospect", "new", "purchase", "", noon + schemas.Millis(i)*schemas.Minute})
		}
		v.watch.last[27] = watched{"shopper-0815", lifecycleSet, "-", "prospect", "view", "", noon + 27*schemas.Minute}
		v.watch.last[28] = watched{"shopper-0042", lifecycleSet, "active", "cooling", "timer", "paused", noon + 28*schemas.Minute}
		v.rows.Store(&demoRows{events: 233_001, transitions: 6_640, viewed: 1_262, carted: 287, ordered: 29, day: "2025-01-07"})
	}
	var got strings.Builder
	for _, c := range []struct {
		name          string
		speed         float64
		width, height int
		prepare       func(*demoView)
	}{
		{"nothing has happened yet", 86400, 100, 34, func(v *demoView) { v.now.clock, v.now.sets = demoStart, []SetStatus{empty} }},
		{"a shop is busy", 86400, 100, 34, func(v *demoView) { busy(v, lifecycle) }},
		{"in a small terminal", 86400, 80, 24, func(v *demoView) { busy(v, lifecycle) }},
		{"with more sets, in real time", 1, 100, 34, func(v *demoView) { busy(v, vip, lifecycle, silent) }},
		{"a recorded log, the last of it on its way", 0, 100, 34, func(v *demoView) {
			busy(v, lifecycle)
			v.drained()
		}},
		{"ClickHouse is away", 86400, 100, 34, func(v *demoView) {
			busy(v, lifecycle)
			v.rows.Store(&demoRows{err: fmt.Errorf("dial tcp 127.0.0.1:8123: connect: connection refused")})
		}},
	} {
		v := &demoView{
			d: &demonstration{clock: newDemoClock(demoStart, c.speed)}, watch: &demoWatch{}, width: c.width, height: c.height,
			at: demoPlaces{"127.0.0.1:9092", "127.0.0.1:8123", "127.0.0.1:9464", "./footfall"},
		}
		c.prepare(v)
		drawn := regexp.MustCompile(`\x1b\[[0-9;]*m| +(\n|$)`).ReplaceAllString(v.View(), "$1")
		if lines := strings.Count(drawn, "\n") + 1; lines > c.height {
			t.Errorf("%s: %d lines in a terminal of %d", c.name, lines, c.height)
		}
		fmt.Fprintf(&got, "-- %s (%dx%d) --\n%s\n", c.name, c.width, c.height, drawn)
	}
	const golden = "testdata/demoview.golden"
	if os.Getenv("FOOTFALL_TEST_UPDATE") != "" {
		if err := os.WriteFile(golden, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("the view is not what %s has (-want +got)\n%s", golden, diff)
	}
}

// The day's funnel counts what counts: neither what was refused, nor who did one stage
// without the one before.
func TestDemoViewAsks(t *testing.T) {
	h := newHouse(t, localKafka(t), schemas.Replay, "clock.max_age=3650d")
	instance := h.start()
	h.ready()
	pub, err := h.conf.publisher(t.Context(), storefront.PublisherConfig{Lane: schemas.Replay})
	if err != nil {
		t.Fatal(err)
	}
	noon := demoStart + 12*schemas.Hour
	for i, ev := range []struct {
		user, kind, more string
		at               schemas.Millis // of the event; its record is sent at noon and i minutes
	}{
		{"u1", "view", "", noon},
		{"u1", "add_to_cart", "", noon + schemas.Minute},
		{"u1", "purchase", `,"order_id":"o1","revenue":5`, noon + 2*schemas.Minute},
		{"u2", "view", "", noon + 3*schemas.Minute},
		{"u3", "add_to_cart", "", noon + 4*schemas.Minute},
		{"u4", "view", "", noon + 3*schemas.Hour}, // refused: it is still to come
		{"u5", "view", "", noon - schemas.Day},
	} {
		value := fmt.Sprintf(`{"event_id":"e%d","type":%q,"user_id":%q,"time":%d%s}`, i, ev.kind, ev.user, ev.at, ev.more)
		if err := pub.Publish(t.Context(), storefront.Record{Key: []byte(ev.user), Value: []byte(value), Time: noon + schemas.Millis(i)*schemas.Minute}); err != nil {
			t.Fatal(err)
		}
	}
	if err := pub.Close(); err != nil {
		t.Fatal(err)
	}
	h.applied()
	h.archived()
	h.stop(instance)
	db, err := clickhouse.Open(h.conf.clickhouseDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, c := range []struct {
		now   schemas.Millis
		speed float64
		want  demoRows
	}{
		{noon, 1, demoRows{viewed: 2, carted: 1, ordered: 1, day: "2025-01-01"}},
		{noon, 86400, demoRows{viewed: 1, day: "2024-12-31"}}, // the newest whole day
		{0, 0, demoRows{}},
	} {
		v := &demoView{d: &demonstration{conf: h.conf, clock: newDemoClock(c.now, c.speed)}}
		c.want.events, c.want.transitions = 7, 5
		if diff := cmp.Diff(&c.want, v.askOnce(t.Context(), db), cmp.AllowUnexported(demoRows{})); diff != "" {
			t.Errorf("at %d, speed %g (-want +got)\n%s", c.now, c.speed, diff)
		}
	}
}
