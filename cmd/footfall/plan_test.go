package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"footfall/schemas"
)

// TestEndToEndPlan plays what a shop has lived through under other rules: from the topic,
// from ClickHouse and beginning with snapshots, a plan comes to the same.
func TestEndToEndPlan(t *testing.T) {
	h := newHouse(t, localKafka(t), schemas.Replay, "clock.max_age=3650d", "segments.sets=lifecycle,loyalty")
	instance := h.start()
	h.ready()
	h.publishShop(8_000 / raceSlower)
	h.applied()
	h.archived()
	h.stop(instance)

	ours := filepath.Join(t.TempDir(), "ours.yaml")
	text := "set: lifecycle\nsegments:\n" +
		"  - {name: lost, when: 'orders() >= 1 && since(last(\"purchase\")) >= days(100)'}\n" +
		"  - {name: buyer, when: orders() >= 1}\n  - {name: prospect, otherwise: true}\n"
	if err := os.WriteFile(ours, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	plan := func(args ...string) (a planAnswer) {
		t.Helper()
		if err := json.Unmarshal([]byte(h.run(append([]string{"plan", ours, "--output", "json", "--last", "60d"}, args...)...)), &a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	log, house, snapshots := plan(), plan("--clickhouse"), plan("--snapshots")
	if log.Users == 0 || log.Moved == 0 || log.Events == 0 || log.Refused == 0 || log.Triggers[0].Total == 0 || len(log.Sets) != 2 {
		t.Fatalf("got %+v: the shop has not lived long enough for this to prove anything", log)
	}
	// The archive has no record that was refused. What was refused moves no time.
	ignore := cmpopts.IgnoreFields(planAnswer{}, "Seconds", "Notes", "Events", "Refused")
	if diff := cmp.Diff(log, house, ignore); diff != "" {
		t.Errorf("by the topic (-) and by ClickHouse (+):\n%s", diff)
	}
	if log.Events-log.Refused != house.Events {
		t.Errorf("%d events in the topic of which %d are refused, %d in ClickHouse", log.Events, log.Refused, house.Events)
	}
	// What was said before a snapshot is not counted; where everybody is, is the same.
	if diff := cmp.Diff(log.Sets, snapshots.Sets, cmpopts.IgnoreFields(planSet{}, "Triggers"), cmpopts.IgnoreFields(planSegment{}, "Entries", "Exits", "Days")); diff != "" {
		t.Errorf("from the beginning (-) and from snapshots (+):\n%s", diff)
	}
	if snapshots.Events >= log.Events || snapshots.Moved != log.Moved {
		t.Errorf("with snapshots: got %d events and %d who move, without %d and %d", snapshots.Events, snapshots.Moved, log.Events, log.Moved)
	}
	t.Logf("%d events, %d users, %d move; with snapshots %d events: %v", log.Events, log.Users, log.Moved, snapshots.Events, snapshots.Notes)
}

// --most-moved 7% allows 7 of 100: what is allowed is not more than allowed.
func TestMostMovedIsAllowed(t *testing.T) {
	for users := 1; users <= 1000; users *= 10 {
		for moved := range users + 1 {
			p := plan{history: history{clickhouse: true}, last: "30d", mostMoved: strconv.FormatFloat(100*float64(moved)/float64(users), 'f', 3, 64) + "%"}
			if err := p.check(); err != nil {
				t.Fatal(err)
			}
			for more := range 2 { // and not one more
				r := &planAnswer{Users: users, Moved: moved + more}
				if (p.judge(r) != nil) != (more > 0) {
					t.Errorf("--most-moved %s, and %d of %d would move: %v", p.mostMoved, r.Moved, r.Users, p.judge(r))
				}
			}
		}
	}
}
