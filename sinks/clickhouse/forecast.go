package clickhouse

import (
	"context"
	"fmt"
	"time"

	"footfall/schemas"
)

// Forecast is how many users of a partition silence alone will move from one segment to
// another within an hour.
type Forecast struct {
	Set, From, To string
	Hour          schemas.Millis // its start
	Users         int64
}

// WriteForecast writes what a partition foresees at a moment of its clock. It takes the
// place of what it foresaw before; what is written twice, by an insert whose answer was
// lost, counts twice until the next one.
func (db *DB) WriteForecast(ctx context.Context, partition int32, clock schemas.Millis, all []Forecast) error {
	batch, err := db.PrepareBatch(ctx, "INSERT INTO forecast (made, clock, partition, segment_set, from_segment, to_segment, due, users)")
	if err != nil {
		// The driver asks for the columns first, which whoever may insert may do.
		return fmt.Errorf("clickhouse: insert into forecast (it takes INSERT ON %s.forecast): %w", db.database, plain(err))
	}
	made := time.Now().UTC()
	if len(all) == 0 {
		all = []Forecast{{Hour: clock}} // nobody will move
	}
	for _, f := range all {
		err := batch.Append(made, time.UnixMilli(int64(clock)).UTC(), partition, f.Set, f.From, f.To, time.UnixMilli(int64(f.Hour)).UTC(), uint64(f.Users))
		if err != nil {
			return fmt.Errorf("clickhouse: insert into forecast: %w", err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("clickhouse: insert %d rows into forecast: %w", len(all), plain(err))
	}
	return nil
}
