package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
	"footfall/sinks/clickhouse"
)

// metrics are what /metrics says. Partitions are read from their published status
// when somebody asks, so the event path counts nothing for it. No label ever
// holds a user's id.
type metrics struct {
	registry *prometheus.Registry
	engine   *engine

	commits, aborts, unknowns, lost          atomic.Uint64
	timeHeld                                 atomic.Bool
	snapshots, snapshotsFailed, snapshotSkip atomic.Uint64
	snapshotsStay                            atomic.Uint64
	wholeBytes, deltaBytes                   atomic.Uint64
	recoveries, differences, forgotten       atomic.Uint64
	pause                                    atomic.Int64 // time.Duration: the longest of any snapshot

	parity paritySeen
}

// metric is one series of /metrics; the table below is also the reference.
type metric struct {
	name, help string
	counter    bool
	desc       *prometheus.Desc
}

// partitionMetrics are those with a partition label.
func partitionMetrics() []metric {
	return []metric{
		{name: "footfall_next_offset", help: "First input offset not yet applied."},
		{name: "footfall_committed_offset", help: "First input offset not yet committed."},
		{name: "footfall_lag_records", help: "Input offsets not yet applied, when the end was last asked for."},
		{name: "footfall_clock_seconds", help: "The partition's clock, Unix time."},
		{name: "footfall_fired_seconds", help: "Timers due up to here have been said, Unix time."},
		{name: "footfall_users", help: "Users known."},
		{name: "footfall_rules_settled", help: "1 when everyone has been evaluated under the rules in force; after a change of rules or bounds, 0 for a while."},
		{name: "footfall_rules_reviewed_ratio", help: "Share of users who have been evaluated under the rules in force."},
		{name: "footfall_rules_filling", help: "1 while the history of what the rules ask for is looked for: some sets say nothing yet."},
		{name: "footfall_quantiles_epoch", help: "Number of the epoch of the bounds that score() goes by: days since 1970-01-01. 0: none yet."},
		{name: "footfall_dedup_window_seconds", help: "How far back event ids are really known."},
		{name: "footfall_snapshot_offset", help: "Input offset of the newest snapshot: replay after a crash begins there."},
		{name: "footfall_snapshot_taken_seconds", help: "When the newest snapshot was begun, or last lacked nothing, Unix time. Alarm long before it is footfall_retention_seconds old."},
		{name: "footfall_outputs_total", help: "Number n of the last output.", counter: true},
		{name: "footfall_events_applied_total", help: "Events applied since the partition is here.", counter: true},
		{name: "footfall_duplicates_total", help: "Repeated events dropped since the partition is here.", counter: true},
		{name: "footfall_transitions_total", help: "Transitions said since the partition is here.", counter: true},
		{name: "footfall_timers_total", help: "Timers fired since the partition is here.", counter: true},
	}
}

// archiveCounter is a metric of the archive, without a label.
type archiveCounter struct {
	name, help string
	value      func(*clickhouse.Stats) float64
	gauge      bool
}

// archiveMetrics are those of the archive. Its counters begin anew when it does.
func archiveMetrics() []archiveCounter {
	return []archiveCounter{
		{
			name: "footfall_archive_lag_records", help: "Records of this instance's share of the topics that were not yet read for ClickHouse when it last read. While ClickHouse is away nothing is read: see the retries.", gauge: true,
			value: func(s *clickhouse.Stats) float64 { return float64(s.Lag.Load()) },
		},
		{
			name: "footfall_archive_partitions", help: "Partitions, of all topics, that this instance archives.", gauge: true,
			value: func(s *clickhouse.Stats) float64 { return float64(s.Partitions.Load()) },
		},
		{
			name: "footfall_archive_last_batch_seconds", help: "When the last batch was in ClickHouse, Unix time. 0: none was yet.", gauge: true,
			value: func(s *clickhouse.Stats) float64 { return seconds(schemas.Millis(s.Last.Load())) },
		},
		{
			name: "footfall_archive_batches_total", help: "Batches that ClickHouse has.",
			value: func(s *clickhouse.Stats) float64 { return float64(s.Batches.Load()) },
		},
		{
			name: "footfall_archive_doubts_total", help: "Times it was not known what ClickHouse has, so that it was read back: failed inserts, partitions taken over in the middle of one.",
			value: func(s *clickhouse.Stats) float64 { return float64(s.Doubts.Load()) },
		},
		{
			name: "footfall_archive_retries_total", help: "Attempts at something that failed before.",
			value: func(s *clickhouse.Stats) float64 { return float64(s.Retries.Load()) },
		},
		{
			name: "footfall_archive_foreign_records_total", help: "Records of the trigger, muted and dead-letter topics that footfall did not write; they give no row.",
			value: func(s *clickhouse.Stats) float64 { return float64(s.Foreign.Load()) },
		},
		{
			name: "footfall_archive_audited_spans_total", help: "Spans of offsets whose rows were compared with what was archived.",
			value: func(s *clickhouse.Stats) float64 { return float64(s.Audited.Load()) },
		},
		{
			name: "footfall_archive_wrong_spans_total", help: "Spans that differed: ClickHouse did not have what it had acknowledged, or more. What was missing is sent again.",
			value: func(s *clickhouse.Stats) float64 { return float64(s.Wrong.Load()) },
		},
		{
			name: "footfall_archive_sampled_records_total", help: "Records read again from the topics, some an hour, and compared with their rows.",
			value: func(s *clickhouse.Stats) float64 { return float64(s.Sampled.Load()) },
		},
		{
			name: "footfall_archive_wrong_samples_total", help: "Samples whose rows were not what their records give: above 0, something was never sent, or sent wrong, or changed since. What was missing is sent; footfall audit compares everything.",
			value: func(s *clickhouse.Stats) float64 { return float64(s.WrongSamples.Load()) },
		},
		{
			name: "footfall_archive_mended_rows_total", help: "Rows that were missing and sent again, after a doubt or by the audit.",
			value: func(s *clickhouse.Stats) float64 { return float64(s.Mended.Load()) },
		},
		{
			name: "footfall_archive_surplus_spans", help: "Spans in which ClickHouse has rows too many, as of the last look at each. footfall audit names them, and what removes them.", gauge: true,
			value: func(s *clickhouse.Stats) float64 { return float64(s.Surplus.Load()) },
		},
		{
			name: "footfall_archive_unmendable_spans_total", help: "Spans that differed and that sending again does not mend: rows too many, or records that the topic has deleted since. footfall audit names them.",
			value: func(s *clickhouse.Stats) float64 { return float64(s.Unmendable.Load()) },
		},
		{
			name: "footfall_archive_audit_age_seconds", help: "How long ago the span was compared that was compared longest ago: at most about an hour while all is well. 0: none is known yet.", gauge: true,
			value: func(s *clickhouse.Stats) float64 {
				oldest := schemas.Millis(s.Oldest.Load())
				if oldest == 0 {
					return 0
				}
				return seconds(max(0, wall()-oldest))
			},
		},
	}
}

func newMetrics(e *engine) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), engine: e}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m)
	for _, c := range []struct {
		name, help string
		from       *atomic.Uint64
	}{
		{"footfall_commits_total", "Transactions, and commits of marks alone; one whose outcome had to be asked for counts for each of its partitions.", &m.commits},
		{"footfall_aborts_total", "Transactions that did not happen and were sent again.", &m.aborts},
		{"footfall_unknown_outcomes_total", "Commits whose outcome had to be asked for.", &m.unknowns},
		{"footfall_partitions_lost_total", "Partitions whose ownership was lost without a hand-over.", &m.lost},
		{"footfall_snapshots_total", "Snapshots published.", &m.snapshots},
		{"footfall_snapshot_whole_bytes_total", "Bytes of the whole ones of them.", &m.wholeBytes},
		{"footfall_snapshot_delta_bytes_total", "Bytes of those of them that hold what has changed since the one before.", &m.deltaBytes},
		{"footfall_snapshots_failed_total", "Snapshots that could not be stored.", &m.snapshotsFailed},
		{"footfall_snapshots_not_removed_total", "Times that old snapshots could not be removed: the bucket grows.", &m.snapshotsStay},
		{"footfall_snapshots_skipped_total", "Damaged or unusable snapshots passed over in recovery.", &m.snapshotSkip},
		{"footfall_recoveries_total", "Partitions brought back to life.", &m.recoveries},
		{"footfall_recovery_forgotten_offsets_total", "Offsets of dedup windows that retention had removed before a recovery: what repeats them may count once more.", &m.forgotten},
		{"footfall_recovery_differences_total", "Differences that a recovery found unsaid. Above 0 after an upgrade or a change of rules only.", &m.differences},
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: c.name, Help: c.help},
			func() float64 { return float64(c.from.Load()) }))
	}
	m.parity.register(m.registry)
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "footfall_paused", Help: "1 while the kill switch mutes every trigger."},
			func() float64 { return boolean(e.paused.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: pauseMetric, Help: "The longest that any snapshot has kept a partition's events waiting at a time, since the instance started."},
			func() float64 { return time.Duration(m.pause.Load()).Seconds() }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "footfall_misplaced_records_total", Help: "Records read from another partition than their key's: producers with different partitioners count one user as two."},
			func() float64 {
				if e.session == nil {
					return 0
				}
				return float64(e.session.Misplaced())
			}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "footfall_time_held", Help: "1 while the wall is further ahead of every clock of this instance than clock.max_jump, so that it may be wrong: nobody is taken for silent until an event shows that it is not."},
			func() float64 { return boolean(m.timeHeld.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "footfall_unwritable_partitions", Help: "Partitions of the output topics that take no writes: without a leader, or below min.insync.replicas. What goes there waits, and the others go on."},
			func() float64 {
				if e.session == nil {
					return 0
				}
				return float64(e.session.Unwritable())
			}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "footfall_hanging_partitions", Help: "Partitions of the output topics that are here, and that of the group's offsets, in which a transaction that nothing ends keeps readers waiting: footfall topics hanging."},
			func() float64 {
				if e.session == nil {
					return 0
				}
				return float64(e.session.HangingPartitions())
			}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "footfall_markers_written_total", Help: "Markers of transactions that a broker had left out, and footfall has written: readers would have waited for ever."},
			func() float64 {
				if e.session == nil {
					return 0
				}
				return float64(e.session.MarkersWritten())
			}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "footfall_archive_up", Help: "1 while the archive copies to ClickHouse."},
			func() float64 { a, _ := e.archive.get(); return boolean(a != nil) }),
	)
	return m
}

// retention sets how long topics keep records; one that is not listed keeps them for
// ever. Beside footfall_snapshot_taken_seconds it tells how near recovery is to
// records that are gone.
func (m *metrics) retention(keeps map[string]time.Duration) {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: retentionMetric, Help: retentionHelp,
	}, []string{"topic"})
	for topic, d := range keeps {
		g.WithLabelValues(topic).Set(d.Seconds())
	}
	m.registry.MustRegister(g)
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// fact counts what happened.
func (m *metrics) fact(f pipeline.Fact) {
	switch f := f.(type) {
	case pipeline.Committed:
		m.commits.Add(1)
	case pipeline.Aborted:
		m.aborts.Add(1)
	case pipeline.Unknown:
		m.unknowns.Add(1)
	case pipeline.TimeHeld:
		m.timeHeld.Store(f.Held)
	case pipeline.Lost:
		m.lost.Add(1)
	case pipeline.SnapshotPublished:
		m.snapshots.Add(1)
		for was := m.pause.Load(); int64(f.Pause) > was && !m.pause.CompareAndSwap(was, int64(f.Pause)); was = m.pause.Load() {
		}
		if f.Delta {
			m.deltaBytes.Add(uint64(f.Bytes))
		} else {
			m.wholeBytes.Add(uint64(f.Bytes))
		}
	case pipeline.SnapshotFailed:
		m.snapshotsFailed.Add(1)
	case pipeline.SnapshotsNotRemoved:
		m.snapshotsStay.Add(1)
	case pipeline.SnapshotSkipped:
		m.snapshotSkip.Add(1)
	case pipeline.Recovered:
		m.recoveries.Add(1)
		m.differences.Add(uint64(f.Differences))
		m.forgotten.Add(uint64(f.Forgotten))
	}
}

// Describe is prometheus.Collector: what is collected depends on the partitions.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// The metrics with more labels than the partition, and that of those that are not live.
const (
	deadLettersMetric = "footfall_dead_letters_total"
	deadLettersHelp   = "Records refused since the partition is here, by partition and reason."
	recoveringMetric  = "footfall_recovering"
	recoveringHelp    = "1 while a partition is here and not live yet: it recovers, or waits for what it needs for that, and says nothing. By partition."
	segmentMetric     = "footfall_segment_users"
	segmentHelp       = "Users by partition, set and segment."
	archiveMetric     = "footfall_archive_rows_total"
	archiveHelp       = "Rows that ClickHouse has acknowledged, by table."
	retentionMetric   = "footfall_retention_seconds"
	pauseMetric       = "footfall_snapshot_pause_seconds"
	retentionHelp     = "How long a topic keeps records, by topic, when the instance started. Topics without a limit are not listed."
)

// reference is METRICS.md: every metric of ours with its help.
func (m *metrics) reference() (string, error) {
	help := map[string]string{
		deadLettersMetric: deadLettersHelp, segmentMetric: segmentHelp, archiveMetric: archiveHelp, retentionMetric: retentionHelp,
		parityDifferencesMetric: parityDifferencesHelp, recoveringMetric: recoveringHelp,
	}
	for _, p := range partitionMetrics() {
		help[p.name] = p.help + " By partition."
	}
	for _, a := range archiveMetrics() {
		help[a.name] = a.help
	}
	families, err := m.registry.Gather()
	if err != nil {
		return "", err
	}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "footfall_") {
			help[f.GetName()] = f.GetHelp()
		}
	}
	var b strings.Builder
	b.WriteString("# Metrics\n\nWhat `/metrics` says, in Prometheus's format, besides `go_*` and `process_*`. No label holds a user's id.\n\n| metric | meaning |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(help)) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, help[name])
	}
	return b.String(), nil
}

// collectArchive tells of the archive, once there was one.
func (m *metrics) collectArchive(out chan<- prometheus.Metric) {
	st := m.engine.archive.counted()
	if st == nil {
		return
	}
	desc := prometheus.NewDesc(archiveMetric, archiveHelp, []string{"table"}, nil)
	for table, rows := range map[string]*atomic.Int64{"events": &st.Events, "transitions": &st.Transitions, "dead_letters": &st.DeadLetters} {
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(rows.Load()), table)
	}
	for _, a := range archiveMetrics() {
		kind := prometheus.CounterValue
		if a.gauge {
			kind = prometheus.GaugeValue
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(a.name, a.help, nil, nil), kind, a.value(st))
	}
}

// Collect is prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	m.collectArchive(out)
	if m.engine.pipe == nil {
		return
	}
	table := partitionMetrics()
	for i := range table {
		table[i].desc = prometheus.NewDesc(table[i].name, table[i].help, []string{"partition"}, nil)
	}
	refused := prometheus.NewDesc(deadLettersMetric, deadLettersHelp, []string{"partition", "reason"}, nil)
	members := prometheus.NewDesc(segmentMetric, segmentHelp, []string{"partition", "set", "segment"}, nil)
	recovering := prometheus.NewDesc(recoveringMetric, recoveringHelp, []string{"partition"}, nil)
	for _, s := range m.engine.partitions() {
		p := strconv.Itoa(int(s.Partition))
		out <- prometheus.MustNewConstMetric(recovering, prometheus.GaugeValue, boolean(s.Recovering), p)
		if s.Recovering {
			continue
		}
		for i, v := range []float64{
			float64(s.Mark.Next), float64(s.Committed.Next), float64(max(0, s.End-s.Mark.Next)),
			seconds(s.Mark.Clock), seconds(s.Mark.Fired), float64(s.Users), boolean(s.Settled), s.Reviewed, boolean(s.Filling), float64(s.Epoch), seconds(s.Window), float64(s.Snapshot), seconds(s.SnapshotAt),
			float64(s.Mark.N), float64(s.Stats.Applied), float64(s.Stats.Duplicates), float64(s.Stats.Transitions), float64(s.Stats.Timers),
		} {
			kind := prometheus.GaugeValue
			if table[i].counter {
				kind = prometheus.CounterValue
			}
			out <- prometheus.MustNewConstMetric(table[i].desc, kind, v, p)
		}
		collectRefused(out, refused, p, &s.Stats)
		for set, names := range s.Names {
			for segment, n := range s.Population[set] {
				out <- prometheus.MustNewConstMetric(members, prometheus.GaugeValue, float64(n), p, names.Name, names.Segments[segment])
			}
		}
	}
}

// collectRefused tells of every reason, those that have not come up too: increase() sees
// nothing of a counter that is there only from its first one on.
func collectRefused(out chan<- prometheus.Metric, desc *prometheus.Desc, partition string, stats *worker.Stats) {
	for reason := schemas.Accepted + 1; reason < schemas.Refusals; reason++ {
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(stats.DeadLetters[reason]), partition, reason.String())
	}
}

func seconds(t schemas.Millis) float64 { return float64(t) / float64(schemas.Second) }
