package clickhouse

import (
	"context"
	"errors"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

const (
	pastSpan = 100_000 // offsets asked for at once: what is read ahead, and counted, is bounded
	pastRun  = 500     // records given at once
)

// Past gives the records of the events topic that the log has no more, as the archive
// keeps them. It connects when it is asked, which is seldom. It implements pipeline.Past.
type Past struct {
	DSN   string
	Topic string // of the events
}

// Older is pipeline.Past.
func (p *Past) Older(ctx context.Context, partition int32, before int64, each func([]worker.Record) error) (kept int64, err error) {
	db, err := Open(p.DSN)
	if err == nil {
		kept, err = p.older(ctx, db, partition, before, each)
		err = errors.Join(err, db.Close())
	}
	var theirs *callerError
	switch {
	case errors.As(err, &theirs):
		return 0, theirs.error
	case err != nil:
		return 0, fmt.Errorf("clickhouse: events of %s/%d before offset %d: %w: %w", p.Topic, partition, before, pipeline.ErrAway, plain(err))
	}
	return kept, nil
}

// Refused is pipeline.Past.
func (p *Past) Refused(ctx context.Context, partition int32, before int64) (all []int64, err error) {
	away := func(err error) error {
		return fmt.Errorf("clickhouse: dead letters of %s/%d before offset %d: %w: %w", p.Topic, partition, before, pipeline.ErrAway, plain(err))
	}
	db, err := Open(p.DSN)
	if err != nil {
		return nil, away(err)
	}
	defer func() { _ = db.Close() }() // it was only read
	rows, err := db.Query(ctx, "SELECT DISTINCT source_offset FROM dead_letters WHERE source_topic = {topic:String} AND source_partition = {partition:Int32} AND source_offset < {before:Int64}",
		clickhouse.Named("topic", p.Topic), clickhouse.Named("partition", partition), clickhouse.Named("before", before))
	if err != nil {
		return nil, away(err)
	}
	defer func() { _ = rows.Close() }() // Err says what went wrong
	for rows.Next() {
		var offset int64
		if err := rows.Scan(&offset); err != nil {
			return nil, away(err)
		}
		all = append(all, offset)
	}
	if err := rows.Err(); err != nil {
		return nil, away(err)
	}
	return all, nil
}

// callerError is what the caller's function has said, to be told from what went wrong here.
type callerError struct{ error }

func (p *Past) older(ctx context.Context, db *DB, partition int32, before int64, each func([]worker.Record) error) (kept int64, err error) {
	within := func(topic, number, offset string, from, to int64) string {
		return fmt.Sprintf("%s = {topic:String} AND %s = %d AND %s >= %d AND %s < %d", topic, number, partition, offset, from, offset, to)
	}
	named := clickhouse.Named("topic", p.Topic)
	run := make([]worker.Record, 0, pastRun)
	give := func() error {
		if len(run) == 0 {
			return nil
		}
		if err := each(run); err != nil {
			return &callerError{err}
		}
		run = run[:0]
		return nil
	}
	for from := int64(0); from < before; from += pastSpan {
		to := min(before, from+pastSpan)
		theirs := within("_topic", "_partition", "_offset", from, to)
		refused := "SELECT source_offset FROM dead_letters WHERE " + within("source_topic", "source_partition", "source_offset", from, to)
		var n int64
		err := db.QueryRow(ctx, "SELECT toInt64(uniqExact(known)) FROM (SELECT _offset AS known FROM events WHERE "+theirs+" UNION ALL "+refused+") AS offsets", named).Scan(&n)
		if err != nil {
			return 0, err
		}
		kept += n
		if n == 0 {
			continue
		}
		err = db.records(ctx, "events FINAL WHERE "+theirs+" AND _offset NOT IN ("+refused+") ORDER BY _offset", []any{named}, func(ev *Event) error {
			lane, _ := schemas.ParseLane(ev.Lane)
			if run = append(run, worker.Record{Offset: ev.Offset, Time: ev.Time, Key: ev.Key, Value: ev.Value, Lane: lane}); len(run) < pastRun {
				return nil
			}
			return give()
		})
		if err == nil {
			err = give()
		}
		if err != nil {
			return 0, err
		}
	}
	return kept, nil
}
