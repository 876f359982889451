package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"footfall/pipeline"
	"footfall/pipeline/parity"
	"footfall/schemas"
	"footfall/sinks/clickhouse"
	"footfall/sources/kafka"
)

// paritySeen is what the running comparison has found so far.
type paritySeen struct {
	rounds, skipped, users atomic.Uint64
	last                   atomic.Int64 // when the last round was done, Unix milliseconds
	differences            *prometheus.CounterVec
}

// The metrics of the running comparison.
const (
	parityDifferencesMetric = "footfall_parity_differences_total"
	parityDifferencesHelp   = "Times a user's segment was another one than ClickHouse's events give, by set and reason (footfall parity --help). reason=\"unexplained\" above 0 is a fault."
)

// register makes the metrics.
func (s *paritySeen) register(r *prometheus.Registry) {
	s.differences = prometheus.NewCounterVec(prometheus.CounterOpts{Name: parityDifferencesMetric, Help: parityDifferencesHelp}, []string{"set", "reason"})
	r.MustRegister(s.differences)
	for _, c := range []struct {
		name, help string
		from       *atomic.Uint64
	}{
		{"footfall_parity_rounds_total", "Comparisons of some users' segments with ClickHouse.", &s.rounds},
		{"footfall_parity_skipped_total", "Comparisons that came to nothing: ClickHouse was away, or did not have enough yet.", &s.skipped},
		{"footfall_parity_users_total", "Users compared, those compared again counted again.", &s.users},
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: c.name, Help: c.help}, func() float64 { return float64(c.from.Load()) }))
	}
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "footfall_parity_last_seconds", Help: "When some users were last compared with ClickHouse, Unix time. 0: not yet."},
		func() float64 { return seconds(schemas.Millis(s.last.Load())) }))
}

// expect has what is a fault counted from 0 on, of every set: increase() sees nothing of
// a counter that is there only from its first one on.
func (s *paritySeen) expect(sets []string) {
	for _, set := range sets {
		s.differences.WithLabelValues(set, string(parity.Unexplained))
	}
}

// runParity compares a few users of one partition after another with ClickHouse, beside
// live traffic, until ctx ends. It asks no worker: committed marks and ClickHouse are
// enough. One statement at a time, of one thread, over some users of one partition.
func (e *engine) runParity(ctx context.Context) {
	log := e.log.Named("parity")
	for turn := uint64(0); ; turn++ {
		e.metrics.parity.expect(setNames(e.rules().Names()))
		select {
		case <-time.After(e.conf.Parity.Every):
		case <-ctx.Done():
			return
		}
		if err := e.parityRound(ctx, turn, log); err != nil && ctx.Err() == nil {
			e.metrics.parity.skipped.Add(1)
			log.Debug("nothing compared this time", zap.Error(err))
		}
	}
}

// parityRound compares some users of the partition whose turn it is.
func (e *engine) parityRound(ctx context.Context, turn uint64, log *zap.Logger) error {
	mark, err := e.parityMark(ctx, turn)
	if err != nil {
		return err
	}
	db, err := clickhouse.Open(e.conf.clickhouseDSN())
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // nothing is under way
	opts, err := kafka.Options(e.conf.kafka())
	if err != nil {
		return err
	}
	tables, err := clickhouse.NewParity(e.conf.archiveConfig(db, opts), true)
	if err != nil {
		return err
	}
	defer tables.Close()
	behind, err := tables.Await(ctx, map[int32]schemas.Mark{mark.Partition: mark}, e.conf.Parity.Every)
	if err != nil {
		return err
	}
	if why := behind[mark.Partition]; why != "" {
		return fmt.Errorf("partition %d: %s", mark.Partition, why)
	}
	config := e.conf.parity(e.rules(), tables, parityNamed)
	config.DedupWindow = e.tempo.window
	r, err := parity.Compare(ctx, config, mark, parity.Selection{
		Sample: e.conf.Parity.Users, Draw: parity.Draw{Seed: turn ^ uint64(mark.Next), Cheap: true},
	})
	if err != nil {
		return err
	}
	e.paritySaid(r, log)
	return nil
}

// parityNamed is how many users that differ are looked into in one round.
const parityNamed = 20

// parityMark is the committed mark of the partition whose turn it is, at which every
// timer that is due has been said, if one comes within some seconds.
func (e *engine) parityMark(ctx context.Context, turn uint64) (schemas.Mark, error) {
	const attempts = 20
	var mark schemas.Mark
	for attempt := range attempts {
		var live []pipeline.Status
		for _, s := range e.pipe.Status() {
			if !s.Recovering && s.Committed.Next > 0 {
				live = append(live, s)
			}
		}
		if len(live) == 0 {
			return mark, fmt.Errorf("no partition is live here")
		}
		if mark = live[turn%uint64(len(live))].Committed; mark.Fired >= mark.Clock {
			break
		}
		backoff(ctx, attempt)
		if err := ctx.Err(); err != nil {
			return mark, err
		}
	}
	return mark, nil
}

// paritySaid counts what a round has found, and says what is wrong.
func (e *engine) paritySaid(r *parity.Result, log *zap.Logger) {
	seen := &e.metrics.parity
	seen.rounds.Add(1)
	seen.users.Add(uint64(r.Users))
	seen.last.Store(int64(wall()))
	for _, d := range r.Differences {
		if d.Reason != parity.Unexplained {
			seen.differences.WithLabelValues(d.Set, string(d.Reason)).Inc()
		}
	}
	for _, s := range r.Sets {
		if s.Unexplained > 0 {
			seen.differences.WithLabelValues(s.Set, string(parity.Unexplained)).Add(float64(s.Unexplained))
			log.Error("segments are not what ClickHouse's events give; footfall parity --all tells whose",
				zap.String("set", s.Set), zap.Int32("partition", r.Mark.Partition), zap.Int64("users", r.Users), zap.Int64("unexplained", s.Unexplained))
		}
	}
	log.Debug("compared", zap.Int32("partition", r.Mark.Partition), zap.Int64("users", r.Users))
}
