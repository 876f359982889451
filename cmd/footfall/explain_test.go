package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"footfall/schemas"
	"footfall/sources/storefront"
)

// explain runs `footfall explain USER --output json`.
func (h *house) explain(user string, args ...string) *ExplainAnswer {
	h.t.Helper()
	var a ExplainAnswer
	c := h.command("explain", user, "--output", "json")
	c.Args = append(c.Args, args...) // behind our own settings, so that these win
	if out, err := c.Output(); err != nil || json.Unmarshal(out, &a) != nil {
		h.t.Fatalf("footfall explain: %v\n%s", err, out)
	}
	return &a
}

// lines are the events behind conditions, one on a line, and what the user could do.
func (a *ExplainAnswer) lines() (out []string) {
	for _, s := range a.Sets {
		events := func(clause string, all []ExplainEvent) {
			for _, ev := range all {
				out = append(out, fmt.Sprintf("%s: %s: %s: %s %s at offset %d, of %d %s", s.Set, clause, ev.Of, ev.Type, ev.EventID, ev.Offset, ev.Count, ev.Text))
			}
		}
		for _, c := range s.Clauses {
			events(c.Clause, c.Events)
		}
		for _, n := range s.Not {
			events("not "+n.Segment, n.Events)
		}
		if s.Came != nil {
			out = append(out, fmt.Sprintf("%s: from %q by %s %s at offset %d; %s was %s, is %s", s.Set, s.Came.From, s.Came.Type, s.Came.EventID, s.Came.Offset, s.Came.Clause, s.Came.Was, s.Came.Is))
		}
		for _, w := range s.Would {
			out = append(out, fmt.Sprintf("%s: %s %s leads to %s", s.Set, w.Event, w.Amount, w.Segment))
		}
	}
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return out
}

// TestEndToEndExplain asks for the events behind a user's segments: of ClickHouse, and
// of the topic where that is away, or all of the topic is not to be read.
func TestEndToEndExplain(t *testing.T) {
	const taste = `
set: taste
segments:
  - name: fan
    when: top("view", event.brand) == "acme" && first_value("any", event.channel) != "ads"
  - name: others
    otherwise: true
`
	path := filepath.Join(t.TempDir(), "taste.yaml")
	if err := os.WriteFile(path, []byte(taste), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, localKafka(t), schemas.Live, "kafka.partitions=1", "http.listen=127.0.0.1:"+freePort(t), "segments.sets=lifecycle,loyalty,"+filepath.ToSlash(path))
	instance := h.start()
	h.ready()
	pub, err := h.conf.publisher(t.Context(), storefront.PublisherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	now := wall()
	for i, ev := range []string{
		`"type":"view","brand":"zenith","channel":"email"`, `"type":"purchase","order_id":"o1","revenue":400`, `"type":"view","brand":"acme"`,
		`"type":"view","brand":"acme","channel":"ads"`, `"type":"purchase","order_id":"o2","revenue":11.99`, `"type":"purchase","order_id":"o2","revenue":11.99`, `"type":"search"`,
	} {
		value := fmt.Sprintf(`{"event_id":"e%d","user_id":"anna","time":%d,%s}`, i, now-20*schemas.Day+schemas.Millis(i)*schemas.Hour, ev)
		if err := pub.Publish(t.Context(), storefront.Record{Key: []byte("anna"), Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
		// Somebody else, so that anna's offsets are apart.
		if err := pub.Publish(t.Context(), storefront.Record{Key: []byte("bert"), Value: []byte(strings.NewReplacer("anna", "bert", `_id":"e`, `_id":"b`).Replace(value))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := pub.Close(); err != nil {
		t.Fatal(err)
	}
	h.applied()
	h.archived()
	want := []string{
		"lifecycle: orders() >= 2: orders(): purchase e4 at offset 8, of 2",
		`lifecycle: since(last("purchase")) < days(30): last("purchase"): purchase e4 at offset 8, of 2`,
		`lifecycle: not lost: last("purchase"): purchase e4 at offset 8, of 2`,
		"lifecycle: not dormant: last(): search e6 at offset 12, of 6",
		"lifecycle: not new: orders(): purchase e4 at offset 8, of 2",
		`lifecycle: from "new" by purchase e4 at offset 8; orders() >= 2 was 1, is 2`,
		"loyalty: orders() >= 1: orders(): purchase e4 at offset 8, of 2",
	}
	for _, how := range []struct {
		name, found string
		args        []string
	}{{"clickhouse", "clickhouse", nil}, {"log", "log", []string{"--events", "log"}}, {"no clickhouse", "log", []string{"--set", "clickhouse.dsn=http://127.0.0.1:1"}}} {
		a := h.explain("anna", how.args...)
		got := a.lines()
		if a.Found != how.found || a.Note != "" && how.name == "clickhouse" {
			t.Errorf("%s: found %q, %q", how.name, a.Found, a.Note)
		}
		for _, line := range want {
			if !slices.Contains(got, line) && (how.found == "clickhouse" || !strings.Contains(line, "from ")) {
				t.Errorf("%s: without %q:\n%s", how.name, line, strings.Join(got, "\n"))
			}
		}
		for _, line := range []string{
			`taste: top("view", event.brand) == "acme": top("view", event.brand): view e3 at offset 6, of 3 acme`,
			`taste: first_value("any", event.channel) != "ads": first_value("any", event.channel): view e0 at offset 0, of 2 email`,
			"loyalty: purchase 88.01 leads to silver", "loyalty: purchase 588.01 leads to gold",
		} {
			if !slices.Contains(got, line) {
				t.Errorf("%s: without %q:\n%s", how.name, line, strings.Join(got, "\n"))
			}
		}
	}
	// Of the end of the topic alone: what an older event may decide is not told.
	a := h.explain("anna", "--events", "log", "--log-records", "8")
	got := a.lines()
	if slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "taste: ") }) || !slices.Contains(got, "lifecycle: not dormant: last(): search e6 at offset 12, of 3") || !strings.Contains(a.Note, "from offset 6 on") {
		t.Errorf("the last 8 records: note %q:\n%s", a.Note, strings.Join(got, "\n"))
	}
	if a := h.explain("anna", "--events", "none"); a.Found != "" || a.Note != "" || len(a.Sets[0].Clauses[0].Events) > 0 {
		t.Errorf("without events: got %+v", a)
	}
	text := h.run("explain", "anna")
	for _, line := range []string{
		`               orders(): purchase e4 at `, `    would    purchase of 88.01 or more leads to silver`, `, where it is "acme"`, `from new, by purchase e4 (`,
	} {
		if !strings.Contains(text, line) {
			t.Errorf("without %q:\n%s", line, text)
		}
	}
	t.Logf("%s", text)
	h.stop(instance)
}

// What a clause has looked at is seconds, where it is how long ago; no user reads those.
func TestQuantity(t *testing.T) {
	for _, tc := range []struct{ clause, value, want string }{
		{`since(last("purchase")) < days(30)`, "1306668", "15d2h"},
		{`since(last()) >= days(90)`, "never", "never"},
		{"orders() == 1", "2", "2"},
		{"", "false", "false"},
	} {
		if got := quantity(tc.clause, tc.value); got != tc.want {
			t.Errorf("quantity(%q, %q): got %q, want %q", tc.clause, tc.value, got, tc.want)
		}
	}
}
