package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The shop's past is as long as can be published before a person has lost patience,
// however fast its time runs.
func TestDemoPast(t *testing.T) {
	for _, c := range []struct {
		speed, history string
		rate           float64
		want           time.Duration
		err            string
	}{
		{"86400x", "", 1500, pastDefault, ""},
		{"1x", "", 50, 100 * time.Minute, ""},
		{"1x", "2h", 50, 2 * time.Hour, ""},
		{"86400x", "400d", 1500, 400 * 24 * time.Hour, ""},
		{"1x", "60d", 100, 0, "--history 60d: at --rate 100 and --speed 1x that is more than 5,000,000 events to publish before the shop opens; want at most 13h53m"},
		{"1x", "soon", 100, 0, `--history "soon": want a duration`},
	} {
		o := demoOptions{speed: c.speed, rate: c.rate, history: c.history}
		speed, err := o.factor()
		if err != nil {
			t.Fatal(err)
		}
		got, err := o.past(speed)
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%+v: got %s, %v, want %s", c, got, err, c.want)
		case c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), c.err)):
			t.Errorf("%+v: got %v, want %s", c, err, c.err)
		}
	}
}

// What engine, publisher and storefront have counted is held against the oracle's
// counts, one by one.
func TestDemoCountsAreCompared(t *testing.T) {
	report := func() *demoReport {
		return &demoReport{
			RecordsPublished: 100, EventsApplied: 90, Duplicates: 7, DeadLetters: demoDeadLetters{3, map[string]int{"truncated": 2, "no_key": 1}},
			Transitions: 40, Users: 12, Segments: map[string]int{"new": 10, "lost": 2}, Judged: true,
		}
	}
	counts := func() *demoCounts {
		return &demoCounts{
			demoSample: demoSample{
				applied: 90, duplicates: 7, dead: 3, transitions: 40, users: 12,
				sets: []SetStatus{{Set: "vip", Segments: []SegmentStatus{{"new", 1}}}, {Set: lifecycleSet, Segments: []SegmentStatus{{"lost", 2}, {"new", 10}}}},
			},
			acked: 100, broken: map[string]int64{"truncated": 2, "no_key": 1},
		}
	}
	for _, c := range []struct {
		name        string
		change      func(*demoCounts)
		lost, wrong int
		found       string
	}{
		{"nothing", func(*demoCounts) {}, 0, 0, ""},
		{"one lost by the broker", func(c *demoCounts) { c.acked++ }, 1, 0, "101 records were acknowledged, and the topic has 100"},
		{"records of somebody else", func(c *demoCounts) { c.acked -= 5 }, 0, 0, ""},
		{"one not applied", func(c *demoCounts) { c.applied-- }, 0, 1, "events applied: 89 were counted, and the oracle has 90"},
		{"two more duplicates", func(c *demoCounts) { c.duplicates += 2 }, 0, 2, "duplicates: 9 were"},
		{"a dead letter not counted", func(c *demoCounts) { c.dead-- }, 0, 1, "dead letters: 2 were"},
		{"a broken record taken", func(c *demoCounts) { c.broken["no_key"]++ }, 0, 1, "dead letters of records sent as no_key: 2 were"},
		{"somebody else's broken record", func(c *demoCounts) { c.broken["no_key"]-- }, 0, 0, ""},
		{"a transition not said", func(c *demoCounts) { c.transitions++ }, 0, 1, "transitions: 41 were"},
		{"one more said at the end", func(c *demoCounts) { c.transitions-- }, 0, 0, ""},
		{"a user too many", func(c *demoCounts) { c.users++ }, 0, 1, "users: 13 were"},
		{"a user in another segment", func(c *demoCounts) { s := c.sets[1].Segments; s[0].Users, s[1].Users = 3, 9 }, 0, 2, "users in lost: 3 were"},
		{"a recovery on the way", func(c *demoCounts) { c.anew, c.applied, c.duplicates, c.dead, c.transitions = true, 0, 0, 0, 0 }, 0, 0, ""},
	} {
		r, by := report(), counts()
		c.change(by)
		r.compare(by)
		if r.Lost != c.lost || r.wrong != c.wrong {
			t.Errorf("%s: got %d lost, %d wrong, want %d, %d", c.name, r.Lost, r.wrong, c.lost, c.wrong)
		}
		if told := fmt.Sprint(r.findings); (c.found == "") != (r.findings == nil) || !strings.Contains(told, c.found) {
			t.Errorf("%s: got %q, want %q", c.name, told, c.found)
		}
		d := &demonstration{o: &demoOptions{output: "json"}, out: io.Discard}
		if err := d.summarise(r); (err != nil) != (c.lost+c.wrong > 0) {
			t.Errorf("%s: ended with %v", c.name, err)
		}
	}
}

// Where nothing was measured the latencies are null, not 0.
func TestDemoLatency(t *testing.T) {
	for _, c := range []struct {
		measured []float64
		want     string
	}{
		{nil, `{"p50":null,"p99":null,"n":0}`},
		{[]float64{3, 1, 2}, `{"p50":2,"p99":3,"n":3}`},
	} {
		w := &demoWatch{latencies: c.measured}
		if got, err := json.Marshal(w.latency()); err != nil || string(got) != c.want {
			t.Errorf("%v: got %s, %v, want %s", c.measured, got, err, c.want)
		}
	}
}

// The demo in a folder with a shop's own configuration: that speaks of another Kafka.
func TestDemoBesideAShopsConfiguration(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "footfall.yaml")
	text := "kafka: {tls: {enabled: true}, sasl: {mechanism: plain, username: shop, password_file: " + filepath.ToSlash(filepath.Join(dir, "password")) + "}}\n"
	for name, what := range map[string]string{path: text, filepath.Join(dir, "password"): "s3cret"} {
		if err := os.WriteFile(name, []byte(what), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := newDemonstration(&global{path: path}, &demoOptions{speed: "86400x", rate: 50, output: "text"}, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	err = d.startKafka(t.Context())
	if d.broker != nil {
		d.broker.Close()
	}
	if err != nil {
		t.Error(err)
	}
}
