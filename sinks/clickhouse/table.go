package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"footfall/pipeline/archive"
)

// span is the condition for the rows of a span. The arguments are its own.
const span = "_topic = ? AND _partition = ? AND _offset >= ? AND _offset < ?"

// Present returns what the table has of a span.
func (t *tables) Present(ctx context.Context, s archive.Span) ([]archive.Row, error) {
	ctx, cancel := context.WithTimeout(ctx, queryMax)
	defer cancel()
	sql := fmt.Sprintf("SELECT _offset, _hash FROM %s WHERE %s", t.topics[s.Partition.Topic].table.name, span)
	rows, err := t.db.Query(ctx, sql, s.Partition.Topic, s.Partition.Number, s.First, s.Next)
	if err != nil {
		return nil, plain(err)
	}
	defer func() { _ = rows.Close() }() // Err says what went wrong
	var there []archive.Row
	for rows.Next() {
		var r archive.Row
		if err := rows.Scan(&r.Offset, &r.Hash); err != nil {
			return nil, plain(err)
		}
		there = append(there, r)
	}
	return there, plain(rows.Err())
}

// Sums returns what the rows of each span add up to, a row that is there twice
// counted once: all in one statement.
func (t *tables) Sums(ctx context.Context, spans []archive.Span) ([]archive.Sum, error) {
	tallies, err := t.Tallies(ctx, spans, false)
	sums := make([]archive.Sum, len(tallies))
	for i := range tallies {
		sums[i] = tallies[i].Sum
	}
	return sums, err
}

// Tallies returns what the rows of each span come to, in one statement.
func (t *tables) Tallies(ctx context.Context, spans []archive.Span, contents bool) ([]archive.Tally, error) {
	ctx, cancel := context.WithTimeout(ctx, queryMax)
	defer cancel()
	var sql strings.Builder
	var args []any
	for i, s := range spans {
		if i > 0 {
			sql.WriteString(" UNION ALL ")
		}
		table := t.topics[s.Partition.Topic].table
		fmt.Fprintf(&sql, "SELECT toUInt32(%d), toInt64(count()), sum(_hash), sum(content), toInt64(sum(copies) - count()) FROM (%s)",
			i, table.different(contents))
		args = append(args, s.Partition.Topic, s.Partition.Number, s.First, s.Next)
	}
	rows, err := t.db.Query(ctx, sql.String(), args...)
	if err != nil {
		return nil, plain(err)
	}
	defer func() { _ = rows.Close() }() // Err says what went wrong
	tallies := make([]archive.Tally, len(spans))
	n := 0
	for ; rows.Next(); n++ {
		var i uint32
		var s archive.Tally
		if err := rows.Scan(&i, &s.Rows, &s.Hash, &s.Content, &s.Copies); err != nil {
			return nil, plain(err)
		}
		tallies[i] = s
	}
	if err := rows.Err(); err != nil {
		return nil, plain(err)
	}
	if n != len(spans) {
		return nil, fmt.Errorf("clickhouse: %d sums for %d spans", n, len(spans))
	}
	return tallies, nil
}

// different is a query of a span's rows, those that are alike as one: _offset, _hash,
// content and copies.
func (b *table) different(contents bool) string {
	content := "toUInt64(0)"
	if contents {
		content = b.contentSQL()
	}
	return fmt.Sprintf("SELECT _offset, _hash, %s AS content, count() AS copies FROM %s WHERE %s GROUP BY _offset, _hash, content", content, b.name, span)
}

// Found returns the rows of a span by their offset.
func (t *tables) Found(ctx context.Context, s archive.Span, contents bool) ([]archive.Found, error) {
	ctx, cancel := context.WithTimeout(ctx, queryMax)
	defer cancel()
	sql := fmt.Sprintf("SELECT _offset, _hash, content, toInt64(copies) FROM (%s) ORDER BY _offset", t.topics[s.Partition.Topic].table.different(contents))
	rows, err := t.db.Query(ctx, sql, s.Partition.Topic, s.Partition.Number, s.First, s.Next)
	if err != nil {
		return nil, plain(err)
	}
	defer func() { _ = rows.Close() }() // Err says what went wrong
	var found []archive.Found
	for rows.Next() {
		var f archive.Found
		if err := rows.Scan(&f.Offset, &f.Hash, &f.Content, &f.Copies); err != nil {
			return nil, plain(err)
		}
		found = append(found, f)
	}
	return found, plain(rows.Err())
}

// Refused returns the offsets of a span that are in dead_letters.
func (t *tables) Refused(ctx context.Context, s archive.Span) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, queryMax)
	defer cancel()
	const sql = "SELECT DISTINCT source_offset FROM dead_letters WHERE source_topic = ? AND source_partition = ? AND source_offset >= ? AND source_offset < ? ORDER BY source_offset"
	rows, err := t.db.Query(ctx, sql, s.Partition.Topic, s.Partition.Number, s.First, s.Next)
	if err != nil {
		return nil, plain(err)
	}
	defer func() { _ = rows.Close() }() // Err says what went wrong
	var refused []int64
	for rows.Next() {
		var offset int64
		if err := rows.Scan(&offset); err != nil {
			return nil, plain(err)
		}
		refused = append(refused, offset)
	}
	return refused, plain(rows.Err())
}

// Stock returns what the tables have, by topic and partition, of all topics.
func (t *tables) Stock(ctx context.Context) (stock []archive.Stock, err error) {
	ctx, cancel := context.WithTimeout(ctx, queryMax)
	defer cancel()
	for _, table := range []*table{t.events, t.transitions, t.deadLetters} {
		rows, err := t.db.Query(ctx, fmt.Sprintf("SELECT toString(_topic), _partition, toInt64(count()), min(_offset), max(_offset) FROM %s GROUP BY _topic, _partition ORDER BY _topic, _partition", table.name))
		if err != nil {
			return nil, plain(err)
		}
		for rows.Next() {
			var s archive.Stock
			if err = rows.Scan(&s.Partition.Topic, &s.Partition.Number, &s.Rows, &s.First, &s.Last); err != nil {
				break
			}
			stock = append(stock, s)
		}
		if err := plain(errors.Join(err, rows.Err(), rows.Close())); err != nil {
			return nil, err
		}
	}
	return stock, nil
}

// After returns the offset behind the last row at or after first, or first.
func (t *tables) After(ctx context.Context, p archive.Partition, first int64) (after int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, queryMax)
	defer cancel()
	sql := fmt.Sprintf("SELECT if(count() = 0, ?, max(_offset) + 1) FROM %s WHERE _topic = ? AND _partition = ? AND _offset >= ?", t.topics[p.Topic].table.name)
	err = t.db.QueryRow(ctx, sql, first, p.Topic, p.Number, first).Scan(&after)
	return after, plain(err)
}

// Settle waits until the inserts of archives that the server was carrying out into this
// database when it was called have ended. On a cluster it sees those of the replica that is asked.
func (t *tables) Settle(ctx context.Context) error {
	const every = 100 // ms
	ctx, cancel := context.WithTimeout(ctx, queryMax)
	defer cancel()
	var asked int64
	if err := t.db.QueryRow(ctx, "SELECT toUnixTimestamp64Milli(now64(3))").Scan(&asked); err != nil {
		return plain(err)
	}
	for {
		var running uint64
		err := t.db.QueryRow(ctx, `SELECT count() FROM system.processes
			WHERE current_database = currentDatabase() AND query_kind = 'Insert' AND Settings['insert_deduplication_token'] != '' AND toUnixTimestamp64Milli(now64(3)) - toInt64(elapsed * 1000) <= ?`, asked).Scan(&running)
		if err != nil {
			return plain(err)
		}
		if running == 0 {
			return nil
		}
		if err := sleep(ctx, every); err != nil {
			return err
		}
	}
}

// Epoch returns when the server was started, as far as it is known to a few
// seconds: one that answers the same as before within those has not been
// restarted. Of several replicas, of which now one answers and now another, it is the
// one that was started last: what is restarted is that.
func (t *tables) Epoch(ctx context.Context) (string, error) {
	const jitter = 3
	ctx, cancel := context.WithTimeout(ctx, queryMax)
	defer cancel()
	var started int64
	if err := t.db.QueryRow(ctx, "SELECT toInt64(toUnixTimestamp(now())) - toInt64(uptime())").Scan(&started); err != nil {
		return "", plain(err)
	}
	if started > t.started+jitter {
		t.started = started
	}
	return fmt.Sprint(t.started), nil
}

// brokenPart finds the part, and its table, in what the engine says when it cannot read one.
// It acknowledges rows for which a disk had no room, and a disk may lose what it has.
var brokenPart = regexp.MustCompile(`(?s)while reading from part (?:\S*/)?([^\s/]+)/? in table (\S+) .*\((?:CORRUPTED_DATA|CANNOT_READ_ALL_DATA|CHECKSUM_DOESNT_MATCH|UNKNOWN_CODEC|CANNOT_DECOMPRESS|ATTEMPT_TO_READ_AFTER_EOF|FILE_DOESNT_EXIST)\)`)

// plain shortens an error of the HTTP protocol, which has the whole request's
// address in it: settings, statement and all. Of a broken part it says what to do.
func plain(err error) error {
	if err == nil {
		return nil
	}
	plain := err
	if e, ok := errors.AsType[*url.Error](err); ok {
		plain = e.Err
		if u, bad := url.Parse(e.URL); bad == nil {
			plain = fmt.Errorf("%s %s: %w", e.Op, u.Host, e.Err)
		}
	}
	if m := brokenPart.FindStringSubmatch(err.Error()); m != nil {
		plain = fmt.Errorf("%w; if it stays so, and its disk has room, ALTER TABLE %s DETACH PART '%s', and what it had is sent again (all of it at once by footfall audit --mend)", plain, m[2], m[1])
	}
	return plain
}
