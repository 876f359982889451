package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/archive"
	"footfall/schemas"
	"footfall/sinks/clickhouse"
	"footfall/sinks/clickhouse/chdbtest"
)

// audit runs `footfall audit --output json` and returns what it reports; bad is whether
// it must say that something is wrong.
func (h *house) audit(bad bool, args ...string) *auditReport {
	h.t.Helper()
	out, err := h.command(append([]string{"audit", "--output", "json"}, args...)...).Output()
	var exit *exec.ExitError
	if code := 0; bad != (errors.As(err, &exit) && exit.ExitCode() == exitFailed) || !bad && err != nil {
		h.t.Fatalf("footfall audit %s: %v (exit %d, want wrong: %v)\n%s", strings.Join(args, " "), err, code, bad, out)
	}
	var r auditReport
	if err := json.Unmarshal(out, &r); err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
	return &r
}

func TestEndToEndAudit(t *testing.T)  { auditsHarm(t, localKafka(t)) }
func TestRealKafkaAudit(t *testing.T) { auditsHarm(t, realKafka(t)) }

// auditsHarm does to ClickHouse what must not happen to it: the audit names each thing,
// sends what is missing, and what it says to do about the rest does it.
func auditsHarm(t *testing.T, broker string) {
	h := newHouse(t, broker, schemas.Replay, "clock.max_age=3650d", "kafka.partitions=4")
	instance := h.start()
	h.ready()
	h.publishShop(6_000)
	h.applied()
	h.archived()
	if r := h.audit(false); r.Wrong != 0 || r.Chains == nil || r.Chains.Count != 0 || r.Chains.Transitions == 0 {
		t.Fatalf("while the engine runs: got %+v", r)
	}
	beyond := h.command("audit", "--partition", "4")
	beyond.Stderr = nil // with the rest
	if out, err := beyond.CombinedOutput(); err == nil || !strings.Contains(string(out), "--partition 4: there are 0 to 3") {
		t.Errorf("a partition that neither side has: got %v\n%s", err, out)
	}
	h.stop(instance)
	db, err := url.Parse(h.conf.clickhouseDSN())
	if err != nil {
		t.Fatal(err)
	}
	dsn := fmt.Sprintf("http://%s%s", db.Host, db.Path)
	events, triggers := quoted(h.conf.Kafka.Topics.Events), quoted(h.conf.Kafka.Topics.Triggers)
	for _, sql := range []string{
		"ALTER TABLE events DELETE WHERE _partition = 1 AND _offset BETWEEN 100 AND 119 SETTINGS mutations_sync = 2",
		"ALTER TABLE transitions DELETE WHERE _topic = " + triggers + " AND _partition = 2 SETTINGS mutations_sync = 2",
		"ALTER TABLE events UPDATE user_id = 'nobody' WHERE _partition = 3 AND _offset = 50 SETTINGS mutations_sync = 2",
		"SYSTEM STOP MERGES events",
		"INSERT INTO events SELECT * FROM events WHERE _partition = 0 AND _offset < 2",
		"INSERT INTO events SELECT * REPLACE (_hash + 1 AS _hash) FROM events WHERE _topic = " + events + " AND _partition = 0 AND _offset = 20",
		"INSERT INTO events SELECT * REPLACE (99999 AS _offset) FROM (SELECT * FROM events WHERE _partition = 2 AND _offset = 5)",
	} {
		chdbtest.Exec(t, dsn, sql)
	}
	r := h.audit(true)
	kinds := map[archive.Kind]int64{}
	for _, f := range r.Findings {
		kinds[f.Kind] += f.Offsets
	}
	missing := kinds[archive.Missing]
	want := map[archive.Kind]int64{archive.Missing: missing, archive.Doubled: 1, archive.Different: 1, archive.Foreign: 1, archive.Copies: 2}
	if d := cmp.Diff(want, kinds); d != "" || missing <= 20 || r.Chains.Count == 0 {
		t.Errorf("%d broken chains; found (-want +got):\n%s", r.Chains.Count, d)
	}
	r = h.audit(true, "--mend")
	if r.Wrong != 3 || r.Chains.Count != 0 {
		t.Errorf("after mending: got %d wrong and %d broken chains, want the 3 that are not missing", r.Wrong, r.Chains.Count)
	}
	// Copies go when ClickHouse merges, in its own time: now, so that rows can be counted.
	chdbtest.Exec(t, dsn, "SYSTEM START MERGES events")
	chdbtest.Exec(t, dsn, "OPTIMIZE TABLE events FINAL")
	for _, f := range r.Findings {
		if statement, _, _ := strings.Cut(f.Remedy, "; "); statement != "" {
			chdbtest.Exec(t, dsn, statement+" SETTINGS mutations_sync = 2")
		}
	}
	h.audit(false, "--mend")
	h.audit(false, "--topic", h.conf.Kafka.Topics.Events, "--offsets", "0-200", "--quick")
	report, _ := h.judge(false)
	t.Logf("%d applied; %d rows were missing and sent", report.Applied, missing)
}

// What can't be compared of one partition takes nothing from the others: they are compared to
// their ends, and all that was found is told. Where nothing answers, that is the error.
func TestAuditBesideAPartitionWithoutALeader(t *testing.T) {
	leaderless := errors.New("no leader")
	for _, c := range []struct {
		bad  []int32
		told []int64 // up to which offset each was compared; nil: the error alone
		left int     // out
	}{
		{nil, []int64{100, 100, 100, 100, 100, 100, 100, 100}, 0},
		{[]int32{0}, []int64{40, 100, 100, 100, 100, 100, 100, 100}, 0},
		{[]int32{0, 2, 3, 7}, []int64{40, 100, 40, 40, 100, 100, 100, 40}, 0},
		{[]int32{1, 2, 3, 4}, []int64{100, 40, 40, 40, 0, 0, 0, 0}, 4},
		{[]int32{0, 1, 2, 3, 4, 5, 6, 7}, nil, 0},
	} {
		var shares []archive.Share
		for n := range int32(8) {
			shares = append(shares, archive.Share{Partition: archive.Partition{Topic: "events", Number: n}, Next: 100})
		}
		// compare comes to offset 40 of what is bad, and not on, and ends with the first of these;
		// those behind it were not begun, the one before it had come to offset 70.
		compare := func(shares []archive.Share) (found []*archive.Compared, err error) {
			found = make([]*archive.Compared, len(shares))
			for i, s := range shares {
				f := &archive.Compared{Share: s, Until: s.Next}
				if slices.Contains(c.bad, s.Partition.Number) {
					f.Until, err = 40, leaderless
				}
				if c.told == nil {
					return found, leaderless
				}
				f.Missing = f.Until - f.First
				f.Spans = (f.Missing + 9) / 10
				if found[i] = f; err == nil {
					continue
				}
				if i > 0 {
					found[i-1].Until, found[i-1].Missing = 70, 70
				}
				return found, err
			}
			return found, nil
		}
		found, failed, err := compareShares(t.Context(), shares, compare)
		if c.told == nil {
			if !errors.Is(err, leaderless) {
				t.Errorf("without %v: got %v, want that there is no leader", c.bad, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("without %v: %v", c.bad, err)
		}
		r := newAuditReport(defaultConfig(), &clickhouse.AuditPlan{}, found, &auditOptions{})
		r.incomplete(found, failed)
		var told []int64
		left := 0
		for i, p := range r.Parts {
			told = append(told, p.Next)
			if p.Missing != p.Next || (p.Error == "") != (p.Next == 100) {
				t.Errorf("without %v: partition %d: got %d missing and %q, want all up to %d", c.bad, i, p.Missing, p.Error, p.Next)
			}
			if strings.HasPrefix(p.Error, "left out") {
				left++
			}
		}
		if d := cmp.Diff(c.told, told); d != "" || left != c.left {
			t.Errorf("without %v: %d were left out, want %d; (-want +got):\n%s", c.bad, left, c.left, d)
		}
	}
}

func TestAuditText(t *testing.T) {
	c := defaultConfig()
	c.ClickHouse.Database = "footfall"
	in := func(topic string, n int32) archive.Partition { return archive.Partition{Topic: topic, Number: n} }
	plan := &clickhouse.AuditPlan{
		Foreign: []archive.Stock{{Partition: in("events", 9), Rows: 2, First: 4, Last: 7}},
		Others:  []archive.Stock{{Partition: in("old", 0), Rows: 1000}, {Partition: in("old", 1), Rows: 500}},
	}
	found := []*archive.Compared{
		{
			Share: archive.Share{Partition: in("events", 0), First: 100, Next: 1234567}, Spans: 25, Records: 1234467, Rows: 1234455,
			Missing: 12, Unmended: 12, Doubled: 1, Beyond: 4000,
			Findings: []archive.Finding{
				{Kind: archive.Missing, Partition: in("events", 0), First: 200, Last: 230, Offsets: 12},
				{Kind: archive.Doubled, Partition: in("events", 0), First: 300, Last: 300, Offsets: 1},
			},
		},
		{
			Share: archive.Share{Partition: in("dead-letters", 11), Behind: 3}, Spans: 1, Records: 7, Rows: 7, Copies: 2,
			Findings: []archive.Finding{{Kind: archive.Copies, Partition: in("dead-letters", 11), First: 1, Last: 2, Offsets: 2}},
		},
	}
	r := newAuditReport(c, plan, found, &auditOptions{})
	r.Seconds = 1.25
	r.Chains = &clickhouse.Chains{
		Outputs: 10, Transitions: 9, Users: 3, Count: 2, Parts: []clickhouse.ChainPart{{Partition: 0, Pending: true}},
		Violations: []clickhouse.Violation{
			{Rule: "n", Partition: 0, Number: 5, What: "output 5 is in no table"},
			{Rule: "seq", Partition: 0, User: "anna", Set: "lifecycle", Number: 4, What: "transition 4 follows 2"},
		},
	}
	r.Wrong += r.Chains.Count
	r.Unchecked = "clickhouse: it is gone"
	var b strings.Builder
	if err := r.print(&b); err != nil {
		t.Fatal(err)
	}
	const want = `TOPIC         PARTITION  SPANS    RECORDS       ROWS  MISSING  DOUBLED  DIFFERENT  FOREIGN  COPIES  BEYOND RETENTION  NOT ARCHIVED
events                0     25  1,234,467  1,234,455       12        1          0        0       0             4,000             0
dead-letters         11      1          7          7        0        0          0        0       2                 0             3
total                       26  1,234,474  1,234,462       12        1          0        0       2             4,000             3

-   4,000 rows are older than their topic: nothing is left to compare them with
-   3 offsets are not archived yet, and not compared
!   events/0 offsets 200 to 230, 12 of them: without a row
    footfall audit --mend
!   events/0 offset 300: with another row beside its own
    ALTER TABLE footfall.events DELETE WHERE _topic = 'events' AND _partition = 0 AND _offset BETWEEN 300 AND 300; then: footfall audit --mend
-   dead-letters/11 offsets 1 to 2, 2 of them: with more than one row, all alike: ClickHouse makes them one when it merges
!   events/9 offsets 4 to 7, 2 of them: with a row and no record that gives one
    ALTER TABLE footfall.events DELETE WHERE _topic = 'events' AND _partition = 9 AND _offset BETWEEN 4 AND 7
-   topic old: 1,500 rows, not compared: it is none of this configuration's
!   partition 0: output 5 is in no table
!   partition 0, user anna, set lifecycle: transition 4 follows 2
-   the last outputs of 1 partition are not archived yet, and not checked
!   the chains of transitions were not checked: clickhouse: it is gone
    footfall audit --chains no leaves them out

17 wrong in 1.2 s; footfall audit --mend sends what is missing
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
