package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
	"footfall/sinks/clickhouse"
)

// partitionsLive are the partitions of one instance, as it tells itself.
func (h *house) partitionsLive() (all []PartitionStatus) {
	for _, i := range h.status().Instances {
		all = append(all, i.Partitions...)
	}
	return all
}

// everywhere waits until something holds of every partition.
func (h *house) everywhere(what string, holds func(*PartitionStatus) bool) {
	h.t.Helper()
	h.everywhereAtOnce(what, func(all []PartitionStatus) bool {
		return !slices.ContainsFunc(all, func(p PartitionStatus) bool { return !holds(&p) })
	})
}

// everywhereAtOnce waits until something holds of all partitions, which are live.
func (h *house) everywhereAtOnce(what string, holds func(all []PartitionStatus) bool) {
	h.t.Helper()
	var all []PartitionStatus
	defer func() {
		if h.t.Failed() {
			h.t.Logf("what was told last: %+v", all)
		}
	}()
	h.until(what, func() bool {
		all = h.partitionsLive()
		return len(all) == h.conf.Kafka.Partitions && !slices.ContainsFunc(all, func(p PartitionStatus) bool { return p.State != "live" }) && holds(all)
	})
}

// lastEpoch waits until everybody has a place by the last bounds of quantiles that there
// will be, where all of the history has been applied, and what that moved is committed.
// An instance tells of itself once a second: what it told before it had applied anything
// is not an answer.
func (h *house) lastEpoch() {
	h.t.Helper()
	h.everywhereAtOnce("the last epoch of quantiles has begun, and everyone has a score", func(all []PartitionStatus) bool {
		committed := h.marks()
		var last uint64 // that of the latest clock, by the default of 03:00 UTC
		for _, m := range committed {
			last = max(last, uint64((m.Clock-schemas.Millis(3*schemas.Hour))/schemas.Millis(schemas.Day)))
		}
		return !slices.ContainsFunc(all, func(p PartitionStatus) bool {
			m := committed[p.Partition]
			return p.Next != m.Next || p.N != m.N || p.Epoch != last || p.Reviewing
		})
	})
}

// inSet is how many users are in a segment of a set, or in all, over all partitions.
func (h *house) inSet(set, segment string) (users int64) {
	for _, p := range h.partitionsLive() {
		for _, s := range p.Sets {
			for _, one := range s.Segments {
				if s.Set == set && (segment == "" || one.Segment == segment) {
					users += one.Users
				}
			}
		}
	}
	return users
}

const (
	viewersBefore = `
set: viewers
segments:
  - name: many
    when: count("view") >= 50
  - name: few
    otherwise: true
`
	viewersAfter = `
set: viewers
segments:
  - name: curious
    when: distinct("view", event.product_id) >= 10
  - name: few
    otherwise: true
`
)

// Several sets at once, one of them by quantiles, under kills; then one is written anew,
// and asks for what was never kept. Nobody waits for it, nothing is said aloud, and the
// lifecycle is the oracle's all the same.
func TestEndToEndRules(t *testing.T) {
	file := filepath.Join(t.TempDir(), "viewers.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(viewersBefore)
	h := newHouse(t, localKafka(t), schemas.Replay, "clock.max_age=3650d", "kafka.partitions=4", "segments.sets=lifecycle,rfm,"+file, "forecast.every=2s")
	instance := h.start()
	h.ready()
	h.publishShop(24_000 / raceSlower)
	instance.kill()
	instance = h.start()
	h.applied()
	h.lastEpoch()
	users := h.inSet("lifecycle", "")
	if scored, none := h.inSet("rfm", ""), h.inSet("rfm", "none"); scored != users || none == users {
		t.Errorf("of %d users %d are in a segment of rfm, %d of them in none, want all, and some with scores", users, scored, none)
	}

	instance.kill()
	instance = h.start()
	h.lastEpoch() // bounds outlive a kill

	write("set: viewers\nsegments: [{name: x, when: count(\"veiw\") > 1}, {name: y, otherwise: true}]\n")
	if err := instance.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	h.until("wrong rules are refused", func() bool { return h.logged(`unknown type of event \"veiw\"`) })
	write(viewersAfter)
	if err := instance.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	h.everywhere("the new rules hold, and their history is found", func(p *PartitionStatus) bool {
		return !p.Reviewing && !p.Filling && len(p.Sets) == 3 && p.Sets[2].Segments[0].Segment == "curious"
	})
	if all := h.inSet("viewers", ""); all != users || h.inSet("viewers", "curious") == 0 {
		t.Errorf("of %d users %d are in a segment of the new set, %d of them curious", users, all, h.inSet("viewers", "curious"))
	}
	h.archived()
	for _, s := range h.parity(false, "--all").Sets {
		if s.Same != users {
			t.Errorf("of %d users: %+v", users, s)
		}
	}
	h.verifies(200)
	h.forecasts()
	report, _ := h.judge(false)
	if r := h.audit(false); r.Wrong != 0 || r.Chains == nil || r.Chains.Count != 0 {
		t.Errorf("audit: %+v", r)
	}
	h.stop(instance)
	t.Logf("%d events, %d users; %d triggers, %d muted", report.Applied, users, report.Triggers, report.Muted)
}

// Retention has removed most of what a new set asks for: it is found in ClickHouse, and the
// set's members are then those that ClickHouse's own count gives.
func TestEndToEndPast(t *testing.T) {
	file := filepath.Join(t.TempDir(), "viewers.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(viewersAfter, ">= 10", ">= 60", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, localKafka(t), schemas.Replay, "clock.max_age=3650d", "kafka.partitions=4")
	instance := h.start()
	h.ready()
	h.publishShop(4_000)
	h.applied()
	h.archived()
	h.stop(instance) // with a snapshot of all of it

	cl, err := h.conf.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	gone := kadm.Offsets{}
	for p, m := range h.marks() {
		gone.AddOffset(h.conf.Kafka.Topics.Events, p, m.Next*3/4, -1)
	}
	if _, err := kadm.NewClient(cl).DeleteRecords(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	instance = h.start("--set", "segments.sets=lifecycle,"+file)
	h.everywhere("the new set has its history", func(p *PartitionStatus) bool { return !p.Reviewing && !p.Filling && len(p.Sets) == 2 })
	if !h.logged("from_clickhouse") {
		t.Error("no line of the log says that history came from ClickHouse")
	}
	got := fmt.Sprintf("%d\t%d", h.inSet("viewers", "curious"), h.inSet("viewers", ""))
	want := h.sql("SELECT countIf(products >= 60), count() FROM (SELECT uniqExactIf(product_id, type = 'view' AND product_id != '') AS products FROM events_once GROUP BY user_id)")
	if got != want {
		t.Errorf("curious and all: got %q, ClickHouse counts %q", got, want)
	}
	instance.kill()
	instance = h.start("--set", "segments.sets=lifecycle,"+file)
	h.everywhere("a kill forgets nothing", func(p *PartitionStatus) bool { return !p.Reviewing && !p.Filling && len(p.Sets) == 2 })
	if again := fmt.Sprintf("%d\t%d", h.inSet("viewers", "curious"), h.inSet("viewers", "")); again != want {
		t.Errorf("after a kill: got %q, want %q", again, want)
	}
	h.stop(instance)
}

// forecasts holds what the command foresees against what ClickHouse has been told.
func (h *house) forecasts() {
	h.t.Helper()
	var told Foreseen
	if err := json.Unmarshal([]byte(h.run("forecast", "--for", "720h", "--by", "hour", "--output", "json", "--users", "3")), &told); err != nil {
		h.t.Fatal(err)
	}
	if len(told.Moves) == 0 || len(told.Users) != 3 {
		h.t.Errorf("foreseen: %d moves, users %+v", len(told.Moves), told.Users)
	}
	db, err := clickhouse.Open(h.conf.clickhouseDSN())
	if err != nil {
		h.t.Fatal(err)
	}
	defer db.Close()
	h.until("ClickHouse has the same forecast", func() bool {
		rows, err := db.Query(h.t.Context(), "SELECT segment_set, from_segment, to_segment, due, users FROM forecast_now")
		if err != nil {
			h.t.Fatal(err)
		}
		defer rows.Close()
		var there []ForeseenMoves
		for rows.Next() {
			var m ForeseenMoves
			var due time.Time
			var users uint64
			if err := rows.Scan(&m.Set, &m.From, &m.To, &due, &users); err != nil {
				h.t.Fatal(err)
			}
			m.Start, m.Users = Moment(due.UnixMilli()), int64(users)
			there = append(there, m)
		}
		less := func(a, b ForeseenMoves) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }
		slices.SortFunc(there, less)
		slices.SortFunc(told.Moves, less)
		return slices.Equal(there, told.Moves)
	})
}

// verifies has every so many-th transition that an event or silence caused recomputed from
// the log, and one that is changed refused.
func (h *house) verifies(every int) {
	h.t.Helper()
	var all []string
	for _, topic := range []string{h.conf.Kafka.Topics.Triggers, h.conf.Kafka.Topics.Muted} {
		err := readTopic(h.t.Context(), h.conf, topic, 0, func(r *kgo.Record) error {
			if v := string(r.Value); strings.Contains(v, `"set":"lifecycle"`) && !strings.Contains(v, `"kind":"rules"`) {
				all = append(all, v)
			}
			return nil
		})
		if err != nil {
			h.t.Fatal(err)
		}
	}
	hash := h.status().Instances[0].Rules
	said := regexp.MustCompile(`"rules":"[0-9a-f]+"`)
	for i := 0; i < len(all); i += every {
		v := said.ReplaceAllString(all[i], `"rules":"`+hash+`"`) // lifecycle was the same all the time
		if got := h.run("verify", v); !strings.HasPrefix(got, "follows: ") {
			h.t.Errorf("%s: got %s", v, got)
		}
	}
	wrong := said.ReplaceAllString(strings.Replace(all[0], `"orders":`, `"orders":7`, 1), `"rules":"`+hash+`"`)
	c := h.command("verify", wrong)
	if out, err := c.Output(); err == nil || !strings.HasPrefix(string(out), "does not follow: orders: the trigger says ") {
		h.t.Errorf("a trigger that was changed: got %s, %v", out, err)
	}
}

// status is what all instances tell.
func (h *house) status() *groupStatus {
	h.t.Helper()
	s, err := readStatus(h.t.Context(), h.conf)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// logged tells whether a text was logged, as it stands in a line of JSON.
func (h *house) logged(text string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return bytes.Contains(h.log.Bytes(), []byte(text))
}
