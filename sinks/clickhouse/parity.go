package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"footfall/pipeline/parity"
	"footfall/schemas"
)

// Parity is what pipeline/parity asks of ClickHouse. It reads only.
type Parity struct {
	audit *Audit
	topic string // of the events
	mild  bool
}

// NewParity returns the tables of what an archive of this configuration copies. mild
// asks for little at a time, for who does it beside live traffic. Close it.
func NewParity(c ArchiveConfig, mild bool) (*Parity, error) {
	a, err := NewAudit(c)
	if err != nil {
		return nil, err
	}
	return &Parity{audit: a, topic: c.Inputs[0].Name, mild: mild}, nil
}

// Close closes what was opened; the DB is the caller's.
func (p *Parity) Close() { p.audit.Close() }

var _ parity.Tables = (*Parity)(nil)

// Await waits until the tables have all that marks speak of, at most for limit, and
// returns the partitions for which they have not, with the reason.
func (p *Parity) Await(ctx context.Context, marks map[int32]schemas.Mark, limit time.Duration) (behind map[int32]string, err error) {
	c := &p.audit.conf
	outputs := []string{c.Triggers, c.Muted, c.Dead}
	ends, err := p.audit.log.admin.ListEndOffsets(ctx, outputs...) // the marks' outputs lie before them
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("kafka: offsets: %w", err)
	}
	for began := time.Now(); ; {
		committed, running, err := p.audit.committed(ctx)
		if err != nil {
			return nil, err
		}
		behind = map[int32]string{}
		for n, m := range marks {
			need := func(topic string, offset int64) {
				at := int64(0)
				if o, ok := committed.Lookup(topic, n); ok {
					at = max(0, o.At)
				}
				if at < offset && behind[n] == "" {
					behind[n] = fmt.Sprintf("ClickHouse has %s up to offset %d, and %d is needed", topic, at, offset)
					if !running {
						behind[n] += "; no archive is running"
					}
				}
			}
			need(p.topic, m.Next)
			for _, topic := range outputs {
				need(topic, ends[topic][n].Offset)
			}
		}
		if len(behind) == 0 || !running || time.Since(began) > limit {
			return behind, nil
		}
		if err := sleep(ctx, settleEvery); err != nil {
			return nil, err
		}
	}
}

// parityMax is how long one statement may take, and mildMax one beside live traffic.
const (
	parityMax = 10 * time.Minute
	mildMax   = 30 * time.Second
)

// settings bounds a statement. Rules are in its text.
func (p *Parity) settings(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := parityMax
	settings := clickhouse.Settings{"max_query_size": 16 << 20}
	if p.mild {
		limit = mildMax
		settings["max_threads"] = 1
		settings["priority"] = 10 // others first
	}
	settings["max_execution_time"] = int(limit.Seconds())
	ctx, cancel := context.WithTimeout(ctx, limit)
	return clickhouse.Context(ctx, clickhouse.WithSettings(settings)), cancel
}

// args are the parameters of its statements, which the server puts in their places: no
// value is ever part of a text. A statement need not name all of them.
func (p *Parity) args(users []string, more ...any) []any {
	c := &p.audit.conf
	return append([]any{
		clickhouse.Named("topic", p.topic), clickhouse.Named("triggers", c.Triggers), clickhouse.Named("muted", c.Muted), clickhouse.Named("dead", c.Dead),
		clickhouse.Named("users", append([]string{}, users...)),
	}, more...)
}

// usersMax is how many bytes of users' ids are given at once. A parameter has at most
// 128 KiB (http_max_field_value_size), and each byte of an id may take four.
const usersMax = 24 << 10

// portions cuts a list of users; nil, which is all of them, stays one.
func portions(users []string) (all [][]string) {
	first, size := 0, 0
	for i, user := range users {
		if size += len(user) + 1; size > usersMax && i > first {
			all, first, size = append(all, users[first:i]), i, len(user)+1
		}
	}
	return append(all, users[first:])
}

// among restricts to users; nil: to all, which is no restriction.
func among(users []string) string {
	switch {
	case users == nil:
		return ""
	case len(users) == 0:
		return " AND 0"
	}
	return " AND user_id IN {users:Array(String)}"
}

const (
	position = "(_topic, _partition, _offset)"
	accepted = position + " NOT IN (SELECT source_topic, source_partition, source_offset FROM dead_letters)"
)

// before is the condition for what a partition's mark has applied.
func (*Parity) before(m schemas.Mark) string {
	return fmt.Sprintf("_topic = {topic:String} AND _partition = %d AND _offset < %d", m.Partition, m.Next)
}

// said is the condition for the transitions that a mark speaks of.
func (*Parity) said(m schemas.Mark) string {
	return fmt.Sprintf("_topic IN ({triggers:String}, {muted:String}) AND _partition = %d AND n <= %d", m.Partition, m.N)
}

// once is a subquery of the events of a partition that count: events_once, as far as
// the mark goes. Of some users it looks for repeats of their ids only, and so need not
// go through all there are, as the view does; a test holds the two together.
func (p *Parity) once(m schemas.Mark, users []string) string {
	if users == nil {
		return "(SELECT * FROM events_once WHERE " + p.before(m) + ")"
	}
	theirs := "1" + among(users)
	firsts := "SELECT min(" + position + ") FROM events WHERE event_id IN (SELECT event_id FROM events WHERE " + theirs + ") AND " + accepted + " GROUP BY event_id"
	return "(SELECT * FROM events WHERE " + p.before(m) + among(users) + " AND " + position + " IN (" + firsts + ")" +
		" AND (type != 'purchase' OR " + position + " IN (SELECT min(" + position + ") FROM events WHERE type = 'purchase' AND " + theirs + " AND " + position + " IN (" + firsts + ") GROUP BY user_id, order_id))" +
		" LIMIT 1 BY _offset)"
}

// Ask is parity.Tables.
func (p *Parity) Ask(ctx context.Context, q *parity.Question) (*parity.Answer, error) {
	ctx, cancel := p.settings(ctx)
	defer cancel()
	out := &parity.Answer{Same: make([]int64, len(q.Sets)), Different: make([]int64, len(q.Sets))}
	for _, users := range portions(q.Users) {
		if err := p.ask(ctx, q, users, out); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out.Named, func(a, b parity.Named) int { return strings.Compare(a.User, b.User) })
	out.Named = out.Named[:min(len(out.Named), max(1, q.Named))]
	return out, nil
}

// ask adds what is to be said of some users. One statement puts both sides together and
// counts; only users that differ come back.
func (p *Parity) ask(ctx context.Context, q *parity.Question, some []string, out *parity.Answer) error {
	var asked, said, asking, saying, one, same, differ, columns []string
	for i, set := range q.Sets {
		a, s := fmt.Sprintf("A%d", i), fmt.Sprintf("S%d", i) // names of no set
		asked = append(asked, fmt.Sprintf("toString(`%s`) AS %s, '' AS %s", set, a, s))
		said = append(said, fmt.Sprintf("'' AS %s, argMaxIf(toString(to_segment), n, segment_set = {sets:Array(String)}[%d]) AS %s", a, i+1, s))
		asking, saying = append(asking, a), append(saying, s)
		one = append(one, fmt.Sprintf("max(%s) AS %s, max(%s) AS %s", a, a, s, s))
		same = append(same, fmt.Sprintf("countIf(%s = %s)", a, s))
		differ = append(differ, fmt.Sprintf("countIf(%s != %s)", a, s))
		columns = append(columns, fmt.Sprintf("%s != %s", a, s))
	}
	list := func(parts []string) string { return strings.Join(parts, ", ") }
	sql := fmt.Sprintf("SELECT count(), [%s], [%s], groupArrayIf(%d)([user_id, %s, %s], %s) FROM (SELECT user_id, %s FROM (SELECT user_id, %s FROM (%s) UNION ALL SELECT user_id, %s FROM transitions WHERE %s GROUP BY user_id) AS sides GROUP BY user_id) AS users",
		list(same), list(differ), max(1, q.Named), list(asking), list(saying), strings.Join(columns, " OR "),
		list(one), list(asked), q.SQL(p.once(q.Mark, some)), list(said), p.said(q.Mark)+among(some))
	var users uint64
	var alike, different []uint64
	var named [][]string
	row := p.audit.tables.db.QueryRow(ctx, sql, p.args(some, clickhouse.Named("sets", q.Sets))...)
	if err := row.Scan(&users, &alike, &different, &named); err != nil {
		return fmt.Errorf("clickhouse: %w", plain(err))
	}
	out.Users += int64(users)
	for i := range q.Sets {
		out.Same[i] += int64(alike[i])
		out.Different[i] += int64(different[i])
	}
	for _, row := range named {
		out.Named = append(out.Named, parity.Named{User: row[0], Asked: row[1 : 1+len(q.Sets)], Said: row[1+len(q.Sets):]})
	}
	return nil
}

// Draw is parity.Tables.
func (p *Parity) Draw(ctx context.Context, m schemas.Mark, n int, how parity.Draw) ([]string, error) {
	ctx, cancel := p.settings(ctx)
	defer cancel()
	if !how.Cheap {
		return p.texts(ctx, fmt.Sprintf("SELECT user_id FROM (SELECT user_id FROM events WHERE %s UNION DISTINCT SELECT user_id FROM transitions WHERE %s) AS everybody ORDER BY cityHash64(user_id, %d) LIMIT %d",
			p.before(m), p.said(m), how.Seed, n), p.args(nil))
	}
	// Half of them by their events, half by what was said of them: who is known to one
	// side only is found, too.
	var users []string
	for i, side := range []struct{ table, where string }{{"events", p.before(m)}, {"transitions", p.said(m)}} {
		seed := how.Seed*2 + uint64(i)
		topics, err := p.texts(ctx, fmt.Sprintf("SELECT DISTINCT toString(_topic) FROM %s WHERE %s ORDER BY cityHash64(_topic, %d) LIMIT 1", side.table, side.where, seed), p.args(nil))
		if err != nil {
			return nil, err
		}
		for _, topic := range topics {
			where := side.where + " AND _topic = {drawn:String}"
			place := fmt.Sprintf("(SELECT min(_offset) + toInt64(cityHash64(%d) %% 1000000 / 1000000 * (max(_offset) - min(_offset) + 1)) FROM %s WHERE %s)", seed, side.table, where)
			some, err := p.texts(ctx, fmt.Sprintf("SELECT DISTINCT user_id FROM (SELECT user_id FROM %s WHERE %s AND _offset >= %s ORDER BY _offset LIMIT %d) AS near LIMIT %d",
				side.table, where, place, 20*n, (n+1)/2), p.args(nil, clickhouse.Named("drawn", topic)))
			if err != nil {
				return nil, err
			}
			users = append(users, some...)
		}
	}
	slices.Sort(users)
	return slices.Compact(users), nil
}

// texts returns a column of texts.
func (p *Parity) texts(ctx context.Context, sql string, args []any) (all []string, err error) {
	err = p.each(ctx, sql, args, func(rows driver.Rows) error {
		var s string
		err := rows.Scan(&s)
		all = append(all, s)
		return err
	})
	return all, err
}

// each calls scan with every row.
func (p *Parity) each(ctx context.Context, sql string, args []any, scan func(driver.Rows) error) error {
	rows, err := p.audit.tables.db.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("clickhouse: %w", plain(err))
	}
	defer func() { _ = rows.Close() }() // Err says what went wrong
	for rows.Next() {
		if err := scan(rows); err != nil {
			return fmt.Errorf("clickhouse: %w", plain(err))
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("clickhouse: %w", plain(err))
	}
	return nil
}
