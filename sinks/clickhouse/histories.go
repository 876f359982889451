package clickhouse

import (
	"context"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"footfall/pipeline/parity"
	"footfall/schemas"
)

// Histories is parity.Tables.
func (p *Parity) Histories(ctx context.Context, m schemas.Mark, users []string) ([]parity.History, error) {
	ctx, cancel := p.settings(ctx)
	defer cancel()
	all := make([]parity.History, len(users))
	of := map[string]*parity.History{}
	for i, user := range users {
		all[i].User = user
		of[user] = &all[i]
	}
	for _, some := range portions(users) {
		if err := p.histories(ctx, m, some, of); err != nil {
			return nil, err
		}
	}
	first, err := p.firstNumber(ctx, m)
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].FromN = first
	}
	return all, nil
}

// histories fills in those of some users.
func (p *Parity) histories(ctx context.Context, m schemas.Mark, users []string, of map[string]*parity.History) error {
	repeated, err := p.repeated(ctx, m, users)
	if err != nil {
		return err
	}
	elsewhere, err := p.elsewhere(ctx, m, users)
	if err != nil {
		return err
	}
	if err := p.events(ctx, m, users, of, elsewhere, repeated); err != nil {
		return err
	}
	return p.lastSaid(ctx, m, users, of)
}

// eventColumnsOf are the columns of an event, as scanEvent reads them.
const eventColumnsOf = `user_id, _offset, toUnixTimestamp64Milli(_time), event_id, toString(type), toUnixTimestamp64Milli(time), session_id, product_id,
	toString(category), toString(brand), toInt64(ifNull(quantity, 1) * 1000000), toString(currency), cart_id, order_id, items, toString(channel), toString(campaign), url, toString(timezone), birthday, amount_minor, worth_minor`

// scanEvent reads a row of eventColumnsOf, and what more the caller has asked for.
func scanEvent(rows driver.Rows, more ...any) (user string, ev parity.Event, err error) {
	var id, kind, session, product, category, brand, currency, cart, order, items, channel, campaign, url, zone, birthday string
	var record, at int64
	err = rows.Scan(append([]any{
		&user, &ev.Offset, &record, &id, &kind, &at, &session, &product, &category, &brand, &ev.Quantity, &currency, &cart, &order, &items, &channel, &campaign, &url, &zone, &birthday, &ev.Amount, &ev.Worth,
	}, more...)...)
	if err != nil {
		return user, ev, err
	}
	var ok bool
	if ev.Kind, ok = schemas.ParseKind(kind); !ok {
		return user, ev, fmt.Errorf("offset %d: type %q is none of the contract's", ev.Offset, kind)
	}
	ev.Time, ev.At = schemas.Millis(record), schemas.Millis(at)
	bytes := func(s string) []byte {
		if s == "" {
			return nil
		}
		return []byte(s)
	}
	ev.ID, ev.User, ev.SessionID, ev.ProductID, ev.Category, ev.Brand = []byte(id), []byte(user), bytes(session), bytes(product), bytes(category), bytes(brand)
	ev.CartID, ev.OrderID, ev.Items, ev.Channel, ev.Campaign, ev.URL = bytes(cart), bytes(order), bytes(items), bytes(channel), bytes(campaign), bytes(url)
	ev.Timezone, ev.Birthday = bytes(zone), bytes(birthday)
	copy(ev.Currency[:], currency)
	return user, ev, nil
}

// events reads what users did, up to the mark.
func (p *Parity) events(ctx context.Context, m schemas.Mark, users []string, of map[string]*parity.History, elsewhere map[string]string, repeated map[string]map[int64]*parity.Before) error {
	sql := fmt.Sprintf("SELECT %s, _offset IN (SELECT _offset FROM %s) FROM (SELECT * FROM events WHERE %s AND %s LIMIT 1 BY _offset) AS theirs ORDER BY _offset LIMIT %d BY user_id",
		eventColumnsOf, p.once(m, users), p.before(m)+among(users), accepted, parity.EventsMax+1)
	return p.each(ctx, sql, p.args(users), func(rows driver.Rows) error {
		var counts uint8
		user, ev, err := scanEvent(rows, &counts)
		if err != nil {
			return err
		}
		ev.Counts = counts == 1
		ev.First = elsewhere[string(ev.ID)]
		ev.Before = repeated[string(ev.ID)][ev.Offset]
		of[user].Events = append(of[user].Events, ev)
		return nil
	})
}

// theirIDs are the event ids of users.
func theirIDs(users []string) string {
	return "event_id IN (SELECT event_id FROM events WHERE 1" + among(users) + ")"
}

// elsewhere gives, of ids that were first seen outside of the partition, where.
func (p *Parity) elsewhere(ctx context.Context, m schemas.Mark, users []string) (map[string]string, error) {
	out := map[string]string{}
	sql := fmt.Sprintf("SELECT event_id, toString(first.1), first.2, first.3 FROM (SELECT event_id, min(%s) AS first FROM events WHERE %s AND %s GROUP BY event_id) AS firsts WHERE first.1 != {topic:String} OR first.2 != %d",
		position, theirIDs(users), accepted, m.Partition)
	err := p.each(ctx, sql, p.args(users), func(rows driver.Rows) error {
		var id, topic string
		var partition int32
		var offset int64
		err := rows.Scan(&id, &topic, &partition, &offset)
		out[id] = fmt.Sprintf("%s/%d at offset %d", topic, partition, offset)
		return err
	})
	return out, err
}

// repeatsMax is how many repetitions are measured; of more the record timestamps stand
// for the partition's latest ones.
const repeatsMax = 100

// repeated gives, of ids that are in the partition more than once, by offset the
// record before.
func (p *Parity) repeated(ctx context.Context, m schemas.Mark, users []string) (map[string]map[int64]*parity.Before, error) {
	out := map[string]map[int64]*parity.Before{}
	type pair struct {
		b      *parity.Before
		offset int64
	}
	var pairs []pair
	sql := fmt.Sprintf("SELECT event_id, arrayMap(s -> s.1, seen), arrayMap(s -> s.2, seen) FROM (SELECT event_id, arraySort(groupUniqArray((_offset, toUnixTimestamp64Milli(_time)))) AS seen FROM events WHERE %s AND %s AND %s GROUP BY event_id HAVING length(seen) > 1) AS repeats",
		p.before(m), theirIDs(users), accepted)
	err := p.each(ctx, sql, p.args(users), func(rows driver.Rows) error {
		var id string
		var offsets, times []int64
		if err := rows.Scan(&id, &offsets, &times); err != nil {
			return err
		}
		out[id] = map[int64]*parity.Before{}
		for i := 1; i < len(offsets); i++ {
			b := &parity.Before{Offset: offsets[i-1], Ago: schemas.Millis(times[i] - times[i-1]), Between: offsets[i] - offsets[i-1] - 1}
			out[id][offsets[i]] = b
			pairs = append(pairs, pair{b, offsets[i]})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, pr := range pairs[:min(len(pairs), repeatsMax)] {
		var ago, between int64
		sql := fmt.Sprintf("SELECT toUnixTimestamp64Milli(max(_time)) - toUnixTimestamp64Milli(maxIf(_time, _offset <= %d)), toInt64(uniqExactIf(_offset, _offset > %d AND _offset < %d)) FROM events WHERE %s AND _offset <= %d AND %s",
			pr.b.Offset, pr.b.Offset, pr.offset, p.before(m), pr.offset, accepted)
		if err := p.audit.tables.db.QueryRow(ctx, sql, p.args(nil)...).Scan(&ago, &between); err != nil {
			return nil, fmt.Errorf("clickhouse: %w", plain(err))
		}
		pr.b.Ago, pr.b.Between = schemas.Millis(ago), between
	}
	return out, nil
}

// lastSaid reads users' last transitions.
func (p *Parity) lastSaid(ctx context.Context, m schemas.Mark, users []string, of map[string]*parity.History) error {
	sql := fmt.Sprintf("SELECT user_id, toString(segment_set), argMax(toString(to_segment), n), max(seq), toUnixTimestamp64Milli(argMax(first_seen, n)), argMax(orders, n) FROM transitions WHERE %s GROUP BY user_id, segment_set ORDER BY user_id, segment_set",
		p.said(m)+among(users))
	return p.each(ctx, sql, p.args(users), func(rows driver.Rows) error {
		var user string
		var s parity.Said
		var first int64
		if err := rows.Scan(&user, &s.Set, &s.To, &s.Seq, &first, &s.Orders); err != nil {
			return err
		}
		s.FirstSeen = schemas.Millis(first)
		of[user].Said = append(of[user].Said, s)
		return nil
	})
}

// firstNumber is the least number of an output of the partition that is there; 0: none.
func (p *Parity) firstNumber(ctx context.Context, m schemas.Mark) (n uint64, err error) {
	sql := fmt.Sprintf("SELECT if(count() = 0, 0, min(n)) FROM (SELECT n FROM transitions WHERE %s UNION ALL SELECT n FROM dead_letters WHERE _topic = {dead:String} AND _partition = %d) AS outputs",
		p.said(m), m.Partition)
	if err := p.audit.tables.db.QueryRow(ctx, sql, p.args(nil)...).Scan(&n); err != nil {
		return 0, fmt.Errorf("clickhouse: %w", plain(err))
	}
	return n, nil
}

// Came is a user's last transition in a set, and what caused it.
type Came struct {
	From, To    string
	Seq         uint32
	Cause, Type string
	EventID     string
	Topic       string
	Partition   int32
	Offset      int64
	Clause      string
	Was, Is     string
}

// Came gives a user's last transition in each set, up to a mark's number.
func (p *Parity) Came(ctx context.Context, m schemas.Mark, user string) (map[string]Came, error) {
	ctx, cancel := p.settings(ctx)
	defer cancel()
	out := map[string]Came{}
	users := []string{user}
	sql := fmt.Sprintf("SELECT toString(segment_set), toString(from_segment), toString(to_segment), seq, toString(cause), toString(cause_type), cause_event_id, toString(cause_topic), ifNull(cause_partition, 0), ifNull(cause_offset, 0), evidence_clause, evidence_was, evidence_is FROM transitions WHERE %s ORDER BY n DESC LIMIT 1 BY segment_set",
		p.said(m)+among(users))
	err := p.each(ctx, sql, p.args(users), func(rows driver.Rows) error {
		var set string
		var c Came
		err := rows.Scan(&set, &c.From, &c.To, &c.Seq, &c.Cause, &c.Type, &c.EventID, &c.Topic, &c.Partition, &c.Offset, &c.Clause, &c.Was, &c.Is)
		out[set] = c
		return err
	})
	return out, err
}
