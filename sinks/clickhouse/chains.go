package clickhouse

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"footfall/pipeline/archive"
)

// Chains is what the rows say of each other: the promises that hold whatever is in
// the topics.
//
//   - The outputs of an input partition are numbered: n is gapless over triggers, muted
//     transitions and dead letters.
//   - A user's transitions in a set are a chain: seq is gapless, and each from is the to
//     of the one before.
type Chains struct {
	Outputs     int64       `json:"outputs"` // rows with an n
	Transitions int64       `json:"transitions"`
	Users       int64       `json:"users"` // by set
	Parts       []ChainPart `json:"partitions"`
	Violations  []Violation `json:"violations"`   // at most violationsMax
	Count       int64       `json:"count"`        // of all violations
	Late        int64       `json:"begin_before"` // chains whose beginning is older than the rows that are left
}

// ChainPart is how much of an input partition was checked.
type ChainPart struct {
	Partition int32  `json:"partition"`
	From      uint64 `json:"from"` // n, both ends checked; 0: nothing
	To        uint64 `json:"to"`
	Pending   bool   `json:"pending"` // what came after To is not wholly in the tables yet
}

// Violation is a promise broken.
type Violation struct {
	Rule      string `json:"rule"` // n, seq or from
	Partition int32  `json:"partition"`
	User      string `json:"user,omitempty"` // of seq and from
	Set       string `json:"set,omitempty"`
	Number    uint64 `json:"number"` // n or seq
	What      string `json:"what"`
}

// violationsMax bounds what is named; the rest is counted.
const violationsMax = 100

// How long the archive is waited for, if it runs, and how often it is asked.
const (
	settleMax   = 15 * time.Second
	settleEvery = 200 // ms
)

// Chains checks the rows of the input partitions; said is the last n of each that the
// engine has committed, as far as known.
//
// Only what is whole is checked. Rows of triggers, muted transitions and dead letters
// arrive independently of each other, so of an input partition everything is there
// only up to some n: that of said, once the archive has passed what the topics held
// after said was read; where it has not, the last n it has of the topic in question,
// since n grows with the offset.
func (a *Audit) Chains(ctx context.Context, said map[int32]uint64) (*Chains, error) {
	whole, err := a.whole(ctx, said)
	if err != nil {
		return nil, err
	}
	c := &Chains{Violations: []Violation{}}
	for _, p := range slices.Sorted(maps.Keys(whole)) {
		part := ChainPart{Partition: p, To: whole[p].to, Pending: whole[p].pending}
		if err := a.numbers(ctx, c, &part, said[p]); err != nil {
			return nil, fmt.Errorf("clickhouse: numbers of partition %d: %w", p, plain(err))
		}
		if err := a.users(ctx, c, &part); err != nil {
			return nil, fmt.Errorf("clickhouse: chains of partition %d: %w", p, plain(err))
		}
		c.Parts = append(c.Parts, part)
	}
	return c, nil
}

// wholeness is up to which n the rows of an input partition are all there.
type wholeness struct {
	to      uint64
	pending bool
}

// whole returns it by input partition.
func (a *Audit) whole(ctx context.Context, said map[int32]uint64) (map[int32]wholeness, error) {
	outputs := []string{a.conf.Triggers, a.conf.Muted, a.conf.Dead}
	ends, err := a.log.admin.ListEndOffsets(ctx, outputs...) // of what is written, decided or not
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("kafka: offsets: %w", err)
	}
	stock := map[archive.Partition]archive.Stock{}
	all, err := a.tables.Stock(ctx)
	if err != nil {
		return nil, fmt.Errorf("clickhouse: %w", err)
	}
	for _, s := range all {
		stock[s.Partition] = s
	}
	var extents []archive.Extent
	var running bool
	var behind map[archive.Partition]int64
	for began := time.Now(); ; {
		if extents, running, err = a.extents(ctx, outputs, 0); err != nil {
			return nil, err
		}
		behind = map[archive.Partition]int64{}
		for _, e := range extents {
			if reach := e.Reach(stock[e.Partition], running); reach < ends[e.Partition.Topic][e.Partition.Number].Offset {
				behind[e.Partition] = reach
			}
		}
		if len(behind) == 0 || !running || time.Since(began) > settleMax {
			break
		}
		if err := sleep(ctx, settleEvery); err != nil {
			return nil, err
		}
	}
	whole := map[int32]wholeness{}
	for _, e := range extents {
		p := e.Partition.Number
		w, ok := whole[p]
		if !ok {
			w.to = math.MaxUint64
			if n, known := said[p]; known {
				w.to = n
			}
		}
		if reach, late := behind[e.Partition]; late {
			n, err := a.tables.lastNumber(ctx, e.Partition, reach)
			if err != nil {
				return nil, fmt.Errorf("clickhouse: %w", plain(err))
			}
			w = wholeness{min(w.to, n), true}
		}
		whole[p] = w
	}
	return whole, nil
}

// lastNumber is the greatest n before an offset of an output topic.
func (t *tables) lastNumber(ctx context.Context, p archive.Partition, before int64) (n uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, queryMax)
	defer cancel()
	sql := fmt.Sprintf("SELECT max(n) FROM %s WHERE _topic = ? AND _partition = ? AND _offset < ?", t.topics[p.Topic].table.name)
	err = t.db.QueryRow(ctx, sql, p.Topic, p.Number, before).Scan(&n)
	return n, err
}

// violate counts a violation, and names it as far as there is room.
func (c *Chains) violate(v Violation) {
	c.Count++
	if len(c.Violations) < violationsMax {
		c.Violations = append(c.Violations, v)
	}
}

// numbersSQL gives each n of an input partition, in order, with the one before.
const numbersSQL = `
SELECT n, copies, lagInFrame(n) OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before
FROM
(
    SELECT n, count() AS copies FROM
    (
        SELECT DISTINCT _topic, _offset, n FROM transitions WHERE _topic IN (?, ?) AND _partition = ? AND n <= ?
        UNION ALL
        SELECT DISTINCT _topic, _offset, n FROM dead_letters WHERE _topic = ? AND _partition = ? AND n <= ?
    ) AS outputs
    GROUP BY n
) AS numbers`

// long bounds the statements about all that a partition has ever said: as long as the
// longest that are made.
func long(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, parityMax)
	return clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"max_execution_time": int(parityMax.Seconds())})), cancel
}

// numbers checks n.
func (a *Audit) numbers(ctx context.Context, c *Chains, part *ChainPart, said uint64) error {
	ctx, cancel := long(ctx)
	defer cancel()
	args := []any{a.conf.Triggers, a.conf.Muted, part.Partition, part.To, a.conf.Dead, part.Partition, part.To}
	var rows, from, to uint64
	err := a.tables.db.QueryRow(ctx, "SELECT sum(copies), min(n), max(n) FROM ("+numbersSQL+")", args...).Scan(&rows, &from, &to)
	if err != nil {
		return err
	}
	part.From = from
	c.Outputs += int64(rows)
	if end := part.To; end != math.MaxUint64 && !part.Pending && end == said && to < end {
		c.violate(Violation{Rule: "n", Partition: part.Partition, Number: end, What: fmt.Sprintf("outputs %d to %d are in no table", to+1, end)})
	}
	part.To = to
	found, err := a.tables.db.Query(ctx, "SELECT n, copies, before FROM ("+numbersSQL+") WHERE copies > 1 OR n != before + 1 AND before > 0 ORDER BY n", args...)
	if err != nil {
		return err
	}
	defer func() { _ = found.Close() }() // Err says what went wrong
	for found.Next() {
		var n, copies, before uint64
		if err := found.Scan(&n, &copies, &before); err != nil {
			return err
		}
		v := Violation{Rule: "n", Partition: part.Partition, Number: n}
		if copies > 1 {
			v.What = fmt.Sprintf("output %d is there %d times, at different offsets", n, copies)
			c.violate(v)
		}
		switch {
		case before == 0 || n == before+1:
			continue
		case n == before+2:
			v.What = fmt.Sprintf("output %d is in no table", n-1)
		default:
			v.What = fmt.Sprintf("outputs %d to %d are in no table", before+1, n-1)
		}
		c.violate(v)
	}
	return found.Err()
}

// chainsSQL gives each transition of an input partition with what was said of the
// user before.
const chainsSQL = `
SELECT
    user_id, toString(segment_set) AS set, seq, toString(from_segment) AS from,
    lagInFrame(seq) OVER w AS before, lagInFrame(toString(to_segment)) OVER w AS left
FROM
(
    SELECT DISTINCT _topic, _offset, user_id, segment_set, seq, from_segment, to_segment
    FROM transitions
    WHERE _topic IN (?, ?) AND _partition = ? AND n <= ?
) AS said
WINDOW w AS (PARTITION BY user_id, segment_set ORDER BY seq, _topic, _offset ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)`

// users checks seq and from.
func (a *Audit) users(ctx context.Context, c *Chains, part *ChainPart) error {
	ctx, cancel := long(ctx)
	defer cancel()
	args := []any{a.conf.Triggers, a.conf.Muted, part.Partition, part.To}
	var rows, users uint64
	if err := a.tables.db.QueryRow(ctx, "SELECT count(), countIf(before = 0) FROM ("+chainsSQL+")", args...).Scan(&rows, &users); err != nil {
		return err
	}
	c.Transitions += int64(rows)
	c.Users += int64(users)
	found, err := a.tables.db.Query(ctx, "SELECT user_id, set, seq, before, from, left FROM ("+chainsSQL+") WHERE seq != before + 1 OR from != left ORDER BY user_id, set, seq", args...)
	if err != nil {
		return err
	}
	defer func() { _ = found.Close() }() // Err says what went wrong
	for found.Next() {
		var seq, before uint32
		var from, left string
		v := Violation{Partition: part.Partition}
		if err := found.Scan(&v.User, &v.Set, &seq, &before, &from, &left); err != nil {
			return err
		}
		v.Number = uint64(seq)
		switch {
		case before == 0 && seq > 1 && part.From > 1:
			c.Late++
			continue
		case before == 0 && seq > 1:
			v.Rule, v.What = "seq", fmt.Sprintf("the first transition is number %d", seq)
		case seq == before:
			v.Rule, v.What = "seq", fmt.Sprintf("transition %d is there twice, at different offsets", seq)
		case seq > before+1:
			v.Rule, v.What = "seq", fmt.Sprintf("transition %d follows %d", seq, before)
		default:
			v.Rule, v.What = "from", fmt.Sprintf("transition %d leaves %s, but %d entered %s", seq, named(from), before, named(left))
		}
		c.violate(v)
	}
	return found.Err()
}

// named is a segment's name, or what none is called.
func named(segment string) string {
	if segment == "" {
		return "none"
	}
	return segment
}
