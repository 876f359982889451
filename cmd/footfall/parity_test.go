package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/parity"
	"footfall/schemas"
	"footfall/sinks/clickhouse/chdbtest"
	"footfall/sources/storefront"
)

// parity runs `footfall parity --output json`; bad is whether something must be
// unexplained.
func (h *house) parity(bad bool, args ...string) *parityReport {
	h.t.Helper()
	out, err := h.command(append([]string{"parity", "--output", "json"}, args...)...).Output()
	var exit *exec.ExitError
	if refused := errors.As(err, &exit) && exit.ExitCode() == exitFailed; refused != bad || err != nil && !refused {
		h.t.Fatalf("footfall parity %s: %v (want unexplained: %v)\n%.3000s", strings.Join(args, " "), err, bad, out)
	}
	var r parityReport
	if err := json.Unmarshal(out, &r); err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
	return &r
}

// curious asks what the shipped sets do not.
const curious = `
set: curious
zone: America/New_York
segments:
  - name: night_owl
    when: top_hour("view") >= 20 && distinct("view", event.product_id, days(60)) >= 10
  - name: big_cart
    when: cart_value() >= 100 && since(cart_changed()) < days(2)
  - name: comes_back
    when: followed("view", "purchase", hours(12), days(90)) && count("view", event.category != "", calendar("month")) >= 5
  - name: lapsing
    when: segment("lifecycle") == "cooling" && revenue(days(365)) >= 50
  - name: one_brand
    when: top("view", event.brand) == first_value("any", event.brand) && orders(calendar("year", 1)) >= 1
  - name: others
    otherwise: true
`

func TestEndToEndParity(t *testing.T)  { parities(t, localKafka(t)) }
func TestRealKafkaParity(t *testing.T) { parities(t, realKafka(t)) }

// parities compares the shipped sets and another one with ClickHouse while a shop full
// of faults is published and the engine is killed, and after. Then it does to ClickHouse
// what must be found.
func parities(t *testing.T, broker string) {
	path := filepath.Join(t.TempDir(), "curious.yaml")
	if err := os.WriteFile(path, []byte(curious), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, broker, schemas.Replay, "clock.max_age=3650d", "kafka.partitions=4", "segments.sets="+strings.Join(append(paritySets(), filepath.ToSlash(path)), ","))
	instance := h.start()
	h.ready()
	var publishing sync.WaitGroup
	publishing.Go(func() { h.publishShop(20_000 / raceSlower) })
	meanwhile := int64(0)
	for range 3 {
		time.Sleep(time.Second)
		meanwhile += h.parityMeanwhile("--sample", "200")
		_ = instance.Process.Kill()
		_ = instance.Wait()
		instance = h.start()
	}
	publishing.Wait()
	h.applied()
	h.lastEpoch()
	h.archived()
	r := h.parity(false, "--all")
	total := h.sql("SELECT uniqExact(user_id) FROM events_accepted")
	for _, s := range r.Sets {
		if s.Left != "" || fmt.Sprint(s.Users) != total || s.Unexplained > 0 || s.Explained > s.Users/20 {
			t.Errorf("%+v of %s users", s, total)
		}
	}
	t.Logf("%d users were compared while the engine was killed, and then %s: %+v; %d differences", meanwhile, total, r.Sets, len(r.Differences))
	for _, d := range r.Differences[:min(len(r.Differences), 3)] {
		t.Logf("%+v", d)
	}
	t.Logf("%s", h.sql("SELECT segment_set, groupArray((segment, n)) FROM (SELECT segment_set, segment, count() AS n FROM segment_now GROUP BY ALL ORDER BY ALL) GROUP BY segment_set ORDER BY segment_set"))
	h.stop(instance) // its audit would send again what is taken away
	h.harmParity(r.Users)
}

// parityMeanwhile compares while the engine is at work: nothing may be unexplained, but
// the archive may not have come far enough.
func (h *house) parityMeanwhile(args ...string) (users int64) {
	h.t.Helper()
	out, err := h.command(append([]string{"parity", "--output", "json", "--wait", "10s"}, args...)...).Output()
	var r parityReport
	if json.Unmarshal(out, &r) != nil {
		h.t.Fatalf("footfall parity %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	if r.Unexplained > 0 {
		h.t.Errorf("while the engine runs: %+v", r)
	}
	return r.Users
}

// harmParity does to ClickHouse what parity must find, and tell apart.
func (h *house) harmParity(users int64) {
	h.t.Helper()
	find := func(what string) string {
		return h.sql("SELECT user_id FROM segment_now WHERE segment_set = 'lifecycle' AND " + what + " ORDER BY cityHash64(user_id) LIMIT 1")
	}
	wrong, poor := find("segment = 'prospect'"), find("segment IN ('new', 'active', 'cooling', 'lost') AND orders >= 1")
	if raceSlower > 1 && (wrong == "" || poor == "") {
		h.t.Log("so small a shop has nobody to do harm to")
		return
	}
	for _, sql := range []string{
		"ALTER TABLE transitions UPDATE to_segment = 'active' WHERE segment_set = 'lifecycle' AND user_id = " + quoted(wrong) + " SETTINGS mutations_sync = 2",
		"ALTER TABLE events DELETE WHERE type = 'purchase' AND user_id = " + quoted(poor) + " SETTINGS mutations_sync = 2",
	} {
		h.exec(sql)
	}
	got := map[string]string{}
	for _, user := range []string{wrong, poor} {
		out, _ := h.command("parity", "--output", "json", "--segment-set", "lifecycle", "--user", user).Output() // it exits with 1
		var r parityReport
		if err := json.Unmarshal(out, &r); err != nil || r.Users != 1 || len(r.Differences) != 1 {
			h.t.Fatalf("user %s: got %s, want one difference", user, out)
		}
		got[user] = r.Differences[0].Reason
	}
	if d := cmp.Diff(map[string]string{wrong: string(parity.Unexplained), poor: string(parity.Retention)}, got); d != "" {
		h.t.Errorf("reasons (-want +got):\n%s", d)
	}
	var r parityReport
	out, err := h.command("parity", "--output", "json", "--user", "nobody, "+poor).Output()
	if json.Unmarshal(out, &r) != nil || err == nil || len(r.Partitions) != 1 || r.Partitions[0].Unknown != 1 {
		h.t.Errorf("of a user whom nobody knows: got %v, %s; want unknown 1, and exit code 1", err, out)
	}
	if r := h.parity(true, "--all"); r.Users != users || r.Unexplained != 1 {
		h.t.Errorf("after harm: got %d unexplained of %d users, want 1 of %d", r.Unexplained, r.Users, users)
	}
}

// TestEndToEndParityRuns has the instance compare by itself, while shoppers move by the
// wall's time alone; what is wrong is in the metrics.
func TestEndToEndParityRuns(t *testing.T) {
	h := newHouse(t, localKafka(t), schemas.Live, "kafka.partitions=2", "parity.every=1s", "parity.users=1000", "segments.sets=lifecycle,milestones", "http.listen=127.0.0.1:"+freePort(t))
	instance := h.start()
	h.ready()
	pub, err := h.conf.publisher(t.Context(), storefront.PublisherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	const users = 100
	for i := range users {
		at := wall() - 30*schemas.Day + 4*schemas.Second + schemas.Millis(i*40)
		value := fmt.Sprintf(`{"event_id":"e%d","type":"purchase","user_id":"u%d","order_id":"o%d","time":%d,"revenue":12.5}`, i, i, i, at)
		if err := pub.Publish(t.Context(), storefront.Record{Key: fmt.Appendf(nil, "u%d", i), Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := pub.Close(); err != nil {
		t.Fatal(err)
	}
	h.until("all shoppers are cooling", func() bool {
		report, err := h.peek()
		return err == nil && report.Segments["cooling"] == users
	})
	h.until("some users were compared", func() bool { return h.metric("footfall_parity_users_total") >= users/2 })
	if n := h.metric(`footfall_parity_differences_total\{[^}]*\}`); n > 0 {
		t.Errorf("got %v differences, want none", n)
	}
	h.archived()
	if r := h.parity(false, "--all"); r.Users != users || r.Sets[0].Same != users || r.Sets[1].Same != users {
		t.Errorf("got %+v, want all of %d users the same", r.Sets, users)
	}
	h.exec("ALTER TABLE transitions UPDATE to_segment = 'active' WHERE segment_set = 'lifecycle' SETTINGS mutations_sync = 2")
	h.until("the metrics tell that something is wrong", func() bool {
		return h.metric(`footfall_parity_differences_total\{reason="unexplained",set="lifecycle"\}`) > 0
	})
	h.stop(instance)
}

// metric is the sum of what a running instance says of a metric; its name is a regular
// expression.
func (h *house) metric(name string) (sum float64) {
	h.t.Helper()
	res, err := http.Get("http://" + h.conf.HTTP.Listen + "/metrics")
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^`+name+` (\S+)$`).FindAllSubmatch(body, -1) {
		sum += number(h.t, string(m[1]))
	}
	return sum
}

// exec carries a statement out in ClickHouse.
func (h *house) exec(statement string) {
	h.t.Helper()
	chdbtest.Exec(h.t, h.dsn(), statement)
}

func TestParityText(t *testing.T) {
	r := &parityReport{Users: 4504, Seconds: 1.26}
	r.add(0, &parity.Result{
		Users: 2300, Sets: []parity.SetResult{{Set: "lifecycle", Same: 2300}, {Set: "cart", Same: 2290, Explained: 9, Unexplained: 1}},
		Left: []parity.Left{{Set: "rfm", Why: "it scores by the shop's quantiles, and there are no bounds yet"}},
		Differences: []parity.Difference{
			{User: "anna", Set: "cart", Said: "none", Asked: "active", Reason: parity.Unexplained, Why: "by the events that ClickHouse has the user belongs into active"},
			{User: "bert", Set: "cart", Said: "left_1h", Reason: parity.Retention, Why: "the user was first seen at 2025-06-01 00:00:00, and ClickHouse has no event from before now"},
		},
	})
	r.add(1, &parity.Result{Users: 2204, Sets: []parity.SetResult{{Set: "lifecycle", Same: 2204}, {Set: "cart", Same: 2204}}})
	r.Users = 4504
	r.Partitions = []parityPart{{Partition: 0}, {Partition: 1, Unknown: 1, named: []string{"bert", "nobody"}}, {Partition: 2, Left: "ClickHouse has events up to offset 5, and 9 is needed"}}
	var b strings.Builder
	if err := r.print(&b); err != nil {
		t.Fatal(err)
	}
	const want = `SET        USERS   SAME  EXPLAINED  UNEXPLAINED
lifecycle  4,504  4,504          0            0
cart       4,504  4,494          9            1

-   set rfm: not compared: it scores by the shop's quantiles, and there are no bounds yet
!   1 of bert, nobody never came: no events, and nothing was said
!   partition 2: not compared: ClickHouse has events up to offset 5, and 9 is needed
!   anna in cart: footfall says none, ClickHouse active
    unexplained: by the events that ClickHouse has the user belongs into active
-   bert in cart: footfall says left_1h, ClickHouse nothing
    retention: the user was first seen at 2025-06-01 00:00:00, and ClickHouse has no event from before now

1 unexplained, of 4,504 users in 2 sets, in 1.3 s
`
	if d := cmp.Diff(want, b.String()); d != "" || r.well() {
		t.Errorf("(-want +got):\n%s", d)
	}
}
