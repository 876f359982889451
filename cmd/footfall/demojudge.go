package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"footfall/pipeline/oracle"
	"footfall/schemas"
	"footfall/sinks/clickhouse"
)

// demoReport is the JSON line at the end.
type demoReport struct {
	RecordsPublished int64            `json:"records_published"`
	EventsApplied    int              `json:"events_applied"`
	Duplicates       int              `json:"duplicates"`
	DeadLetters      demoDeadLetters  `json:"dead_letters"`
	Transitions      int              `json:"transitions"`
	Triggers         int              `json:"triggers"`
	Muted            int              `json:"muted"`
	Users            int              `json:"users"`
	Segments         map[string]int   `json:"segments"` // of the lifecycle set, by the oracle; empty where there is none
	Sets             []SetStatus      `json:"sets"`     // of every set, by the engine
	Judged           bool             `json:"lifecycle_judged"`
	Others           int              `json:"transitions_of_other_sets"`
	Latency          demoLatency      `json:"latency_ms"`
	ClickHouse       map[string]int64 `json:"clickhouse"`
	Lost             int              `json:"lost"`
	Doubled          int              `json:"doubled"`

	wrong    int
	findings error
}

type demoDeadLetters struct {
	Total    int            `json:"total"`
	ByReason map[string]int `json:"by_reason"`
}

type demoLatency struct {
	P50 *float64 `json:"p50"`
	P99 *float64 `json:"p99"`
	N   int      `json:"n"`
}

// demoCounts is what those who did the work say of it, when all of it is through. The
// oracle counts what is in the topics, so its own counts add up whatever they did.
type demoCounts struct {
	demoSample                  // by the engine
	anew       bool             // a partition was recovered on the way: the engine's counters began anew with it
	acked      int64            // records that the broker has acknowledged to the publisher
	broken     map[string]int64 // of them, by the reason they must be refused for, as the storefront made them
}

// counted asks them.
func (d *demonstration) counted() demoCounts {
	return demoCounts{
		demoSample: d.engine.sample(), anew: d.engine.metrics.recoveries.Load() > 0,
		acked: d.acked, broken: d.tally.Sent().Broken,
	}
}

// compare holds their counts against what the oracle has found. The input may have more
// records than the publisher's, since anyone may write to the demo's Kafka, but not less.
func (r *demoReport) compare(c *demoCounts) {
	differ := func(what string, counted, found int64) {
		if by := max(counted-found, found-counted); by > 0 {
			r.wrong += int(by)
			r.findings = errors.Join(r.findings, fmt.Errorf("%s: %d were counted, and the oracle has %d", what, counted, found))
		}
	}
	if missing := c.acked - r.RecordsPublished; missing > 0 {
		r.Lost += int(missing)
		r.findings = errors.Join(r.findings, fmt.Errorf("%d records were acknowledged, and the topic has %d", c.acked, r.RecordsPublished))
	}
	for _, reason := range slices.Sorted(maps.Keys(c.broken)) {
		if sent, refused := c.broken[reason], int64(r.DeadLetters.ByReason[reason]); refused < sent {
			differ("dead letters of records sent as "+reason, sent, refused)
		}
	}
	if !c.anew {
		differ("events applied", int64(c.applied), int64(r.EventsApplied))
		differ("duplicates", int64(c.duplicates), int64(r.Duplicates))
		differ("dead letters", int64(c.dead), int64(r.DeadLetters.Total))
		if said := int64(c.transitions); said > int64(r.Transitions) { // until it stops more may be said, where bounds of scores have changed
			differ("transitions", said, int64(r.Transitions))
		}
	}
	differ("users", int64(c.users), int64(r.Users))
	if i := slices.IndexFunc(c.sets, func(s SetStatus) bool { return s.Set == lifecycleSet }); i >= 0 && r.Judged {
		for _, s := range c.sets[i].Segments {
			differ("users in "+s.Segment, s.Users, int64(r.Segments[s.Segment]))
		}
	}
}

// judge reads all topics back and has the oracle compare them, and counts what is
// in ClickHouse by SQL.
func (d *demonstration) judge(ctx context.Context, watch *demoWatch, counts *demoCounts) (*demoReport, error) {
	dump, marks, err := d.readBack(ctx)
	if err != nil {
		return nil, err
	}
	if d.o.dump != "" {
		if err := writeDump(d.o.dump, dump); err != nil {
			return nil, err
		}
	}
	topics := &d.conf.Kafka.Topics
	judged := dump.Judge(oracle.Options{
		Currency: d.conf.Shop.Currency, Rates: d.conf.Shop.Rates, InputTopic: topics.Events, Group: d.conf.Kafka.Group,
		Rules: fmt.Sprintf("%016x", d.engine.rules().Hash()), Lane: d.lane.String(),
		DedupWindow: int64(d.tempo.window), DedupBudget: int64(d.conf.Dedup.Budget), FutureLimit: int64(ahead),
		MaxSkew: int64(d.tempo.maxSkew), WallTicks: d.lane == schemas.Live, Marks: marks, Sets: setNames(d.engine.rules().Names()),
	})
	r := &demoReport{
		RecordsPublished: int64(len(dump.Input)), EventsApplied: judged.Applied, Duplicates: judged.Duplicates,
		DeadLetters: demoDeadLetters{Total: judged.DeadLetters, ByReason: judged.Reasons},
		Transitions: judged.Triggers + judged.Muted, Triggers: judged.Triggers, Muted: judged.Muted,
		Users: judged.Users, Segments: map[string]int{}, Sets: counts.sets, Others: judged.Others, Latency: watch.latency(),
		Lost: judged.LostCount, Doubled: judged.DoubledCount, wrong: judged.WrongCount, findings: judged.Err(),
	}
	if r.Judged = setIndex(d.engine.rules().Names(), lifecycleSet) >= 0; r.Judged {
		r.Segments = judged.Segments
	}
	if counts.anew {
		d.say("a partition was recovered on the way, so the engine's counters are not of the whole run: they are not compared")
	}
	r.compare(counts)
	return r, d.judgeClickHouse(ctx, r, len(dump.DeadLetters))
}

// judgeClickHouse counts rows: a row missing is lost, one too many doubled.
func (d *demonstration) judgeClickHouse(ctx context.Context, r *demoReport, dead int) error {
	db, err := clickhouse.Open(d.conf.clickhouseDSN())
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	r.ClickHouse = map[string]int64{}
	for _, t := range []struct {
		name, query string
		want        int
	}{
		{"events", "SELECT count(), uniqExact(_topic, _partition, _offset) FROM events WHERE (_topic, _partition, _offset) NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)", r.EventsApplied + r.Duplicates},
		{"transitions", "SELECT count(), uniqExact(_topic, _partition, _offset) FROM transitions", r.Transitions},
		{"dead_letters", "SELECT count(), uniqExact(_topic, _partition, _offset) FROM dead_letters", dead},
	} {
		var rows, distinct uint64
		if err := db.QueryRow(ctx, t.query).Scan(&rows, &distinct); err != nil {
			return fmt.Errorf("count %s in ClickHouse: %w", t.name, err)
		}
		r.Doubled += int(rows - distinct)
		r.Lost += max(0, t.want-int(distinct))
		r.wrong += max(0, int(distinct)-t.want)
		if t.name != "dead_letters" {
			r.ClickHouse[t.name] = int64(rows)
		}
	}
	return nil
}

// summarise prints the report. Something lost, doubled or wrong is a failure.
func (d *demonstration) summarise(r *demoReport) error {
	if d.o.output == "json" {
		if err := json.NewEncoder(d.out).Encode(r); err != nil {
			return err
		}
	} else if err := r.print(d.out); err != nil {
		return err
	}
	if r.Lost+r.Doubled+r.wrong > 0 {
		return errors.Join(fmt.Errorf("%d lost, %d doubled, %d wrong", r.Lost, r.Doubled, r.wrong), r.findings)
	}
	return nil
}
