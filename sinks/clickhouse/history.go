package clickhouse

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"footfall/schemas"
)

// EventSelection is which events are asked for.
type EventSelection struct {
	Topic      string
	Since      schemas.Millis // record timestamp; 0: all there are
	Partitions []int          // nil: all
}

// args are the parameters of where.
func (s *EventSelection) args() []any { return []any{clickhouse.Named("topic", s.Topic)} }

// where is the selection as a condition.
func (s *EventSelection) where() string {
	parts := []string{"_topic = {topic:String}"}
	if s.Since > 0 {
		parts = append(parts, fmt.Sprintf("_time >= fromUnixTimestamp64Milli(toInt64(%d), 'UTC')", s.Since))
	}
	if s.Partitions != nil {
		var list []string
		for _, p := range s.Partitions {
			list = append(list, strconv.Itoa(p))
		}
		parts = append(parts, "_partition IN ("+strings.Join(list, ", ")+")")
	}
	return strings.Join(parts, " AND ")
}

// Event is an event as a record of the events topic again.
type Event struct {
	Partition  int32
	Offset     int64
	Time       schemas.Millis // record timestamp
	Lane       string
	Key, Value []byte
}

// historyMax is how long reading all events may take.
const historyMax = 6 * time.Hour

// CountEvents tells how many there are, about: repeated rows are counted.
func (db *DB) CountEvents(ctx context.Context, s EventSelection) (n uint64, err error) {
	err = db.QueryRow(ctx, "SELECT count() FROM events WHERE "+s.where(), s.args()...).Scan(&n)
	return n, plain(err)
}

// EachEvent calls each with the events that were not refused, repeated ones too: those of
// a partition in offset order, and all in the order of time, which is the greatest record
// timestamp so far in each partition. What the contract means by a record is the same as
// of the record in Kafka; its bytes are not.
func (db *DB) EachEvent(ctx context.Context, s EventSelection, each func(*Event) error) error {
	// The driver gives up when the first row, or over the native protocol the last, takes
	// longer than its read timeout: this has a connection of its own.
	o := db.options
	o.ReadTimeout = historyMax
	conn, err := clickhouse.Open(&o)
	if err != nil {
		return fmt.Errorf("clickhouse: %w", err)
	}
	defer func() { _ = conn.Close() }() // it was only read
	patient := &DB{Conn: conn, options: o, database: db.database}
	return patient.records(ctx, "events_accepted WHERE "+s.where()+`
		ORDER BY max(_time) OVER (PARTITION BY _partition ORDER BY _offset ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW), _partition, _offset`, s.args(), each)
}

// records makes records again of rows of events, as from selects them.
func (db *DB) records(ctx context.Context, from string, args []any, each func(*Event) error) error {
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"max_execution_time": int(historyMax.Seconds())}))
	rows, err := db.Query(ctx, `SELECT _partition, _offset, toUnixTimestamp64Milli(_time), _lane, user_id, event_id, type, toUnixTimestamp64Milli(time),
		session_id, product_id, category, brand, cart_id, order_id, channel, campaign, url, timezone, birthday, currency,
		ifNull(toString(price), ''), ifNull(toString(quantity), ''), ifNull(toString(revenue), ''), items
		FROM `+from, args...)
	if err != nil {
		return fmt.Errorf("clickhouse: read events: %w", plain(err))
	}
	defer func() { _ = rows.Close() }() // Err says what went wrong
	var ev Event
	var user string
	var at, when int64
	words := []string{"event_id", "type", "session_id", "product_id", "category", "brand", "cart_id", "order_id", "channel", "campaign", "url", "timezone", "birthday", "currency"}
	numbers := []string{"price", "quantity", "revenue", "items"}
	texts, raws := make([]string, len(words)), make([]string, len(numbers))
	into := []any{&ev.Partition, &ev.Offset, &at, &ev.Lane, &user, &texts[0], &texts[1], &when}
	for i := range texts[2:] {
		into = append(into, &texts[2+i])
	}
	for i := range raws {
		into = append(into, &raws[i])
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return fmt.Errorf("clickhouse: read events: %w", plain(err))
		}
		ev.Time, ev.Key = schemas.Millis(at), []byte(user)
		value := appendText([]byte(`{"user_id":`), user)
		value = strconv.AppendInt(append(value, `,"time":`...), when, 10)
		for i, text := range texts {
			if text != "" {
				value = appendText(append(append(append(value, `,"`...), words[i]...), `":`...), text)
			}
		}
		for i, raw := range raws {
			if raw != "" {
				value = append(append(append(append(value, `,"`...), numbers[i]...), `":`...), raw...)
			}
		}
		ev.Value = append(value, '}')
		if err := each(&ev); err != nil {
			return err
		}
	}
	return plain(rows.Err())
}

// appendText appends a text as a JSON string.
func appendText(dst []byte, s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a text has no value that can't be written
	}
	return append(dst, b...)
}
