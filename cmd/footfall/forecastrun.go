package main

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"footfall/pipeline"
	"footfall/schemas"
	"footfall/sinks/clickhouse"
)

// runForecast keeps ClickHouse's forecast up to date, beside live traffic, until ctx ends:
// of each partition that is live here, once in a while. Its worker is asked in slices
// (engine.forecast), one partition after the other, so it costs an event no more than the
// wait for one slice.
func (e *engine) runForecast(ctx context.Context) {
	log := e.log.Named("forecast")
	for wait := min(e.conf.Forecast.Every, time.Minute); ; wait = e.conf.Forecast.Every {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		if err := e.keepForecast(ctx); err != nil && ctx.Err() == nil {
			log.Warn("forecast not kept; the one before stays until the next", zap.Error(err))
		}
	}
}

// keepForecast writes one forecast of each partition.
func (e *engine) keepForecast(ctx context.Context) error {
	db, err := clickhouse.Open(e.conf.clickhouseDSN())
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // nothing is under way
	for _, s := range e.pipe.Status() {
		if s.Recovering {
			continue
		}
		// A partition that has left since is another instance's to tell of.
		if err := e.keepForecastOf(ctx, db, s.Partition); err != nil && !errors.Is(err, pipeline.ErrNotHere) {
			return err
		}
	}
	return nil
}

func (e *engine) keepForecastOf(ctx context.Context, db *clickhouse.DB, partition int32) error {
	total := map[ForecastedMoves]int64{}
	var clock schemas.Millis
	q := &forecastQuery{partition: partition, span: millis(e.conf.Forecast.For)}
	for q.row >= 0 {
		page, err := e.forecast(ctx, q)
		if err != nil {
			return err
		}
		for _, m := range page.Moves {
			n := m.Users
			m.Users = 0
			total[m] += n
		}
		clock, q.row = schemas.Millis(page.Clock), page.Next
	}
	var rows []clickhouse.Forecast
	for m, n := range total {
		rows = append(rows, clickhouse.Forecast{Set: m.Set, From: m.From, To: m.To, Hour: schemas.Millis(m.Hour), Users: n})
	}
	return db.WriteForecast(ctx, partition, clock, rows)
}
