package clickhouse

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"footfall/pipeline/archive"
	"footfall/schemas"
)

// tables are the tables, and which topic belongs into which.
type tables struct {
	db       *DB
	contract schemas.Contract
	exponent int // of the reporting currency

	events, transitions, deadLetters *table

	topics  map[string]topic
	stats   *Stats
	started int64 // when the server was, as Epoch last said
}

// topic is what a topic's records are.
type topic struct {
	table *table
	lane  schemas.Lane // of events without a header
}

// rows are rows of all tables in the making: a block for each partition of each
// table. It implements archive.Rows.
type rows struct {
	t       *tables
	decoder *schemas.Decoder
	blocks  map[blockKey]*block
	n, size int
	courier *courier

	scratch map[*table]*block // for Content, one row at a time
	text    []byte            // the same

	// The record of the last Decode, decoded.
	partition  archive.Partition
	record     *archive.Record
	topic      topic
	foreign    bool
	lane       schemas.Lane
	event      schemas.Event
	transition transition
	output     schemas.OutputHeaders
	letter     schemas.ParsedDeadLetter
}

type blockKey struct {
	table *table
	month int
}

// Rows returns an empty set of rows.
func (t *tables) Rows() archive.Rows {
	d, err := schemas.NewDecoder(t.contract)
	if err != nil {
		panic(fmt.Sprintf("clickhouse: the contract was checked by NewArchive: %v", err))
	}
	return &rows{t: t, decoder: d, blocks: map[blockKey]*block{}, courier: newCourier(), scratch: map[*table]*block{}}
}

// Decode tells whether a record gives a row. An event that the contract refuses
// gives none: it comes as a dead letter. What is in the other topics and was not
// written by footfall gives none either.
func (r *rows) Decode(p archive.Partition, rec *archive.Record) bool {
	r.partition, r.record, r.topic, r.foreign = p, rec, r.t.topics[p.Topic], false
	var err error
	switch r.topic.table {
	case r.t.events:
		r.lane, _ = schemas.LaneOf(rec.Headers, r.topic.lane)
		return r.decoder.Decode(rec.Key, rec.Value, &r.event) == nil
	case r.t.transitions:
		r.transition = transition{}
		if r.output, err = schemas.ParseTransitionHeaders(rec.Headers); err == nil {
			err = json.Unmarshal(rec.Value, &r.transition)
		}
	case r.t.deadLetters:
		r.letter, err = schemas.ParseDeadLetter(rec.Key, rec.Value, rec.Headers)
	default:
		panic(fmt.Sprintf("clickhouse: a record of topic %s, which is none of the archive's", p.Topic))
	}
	r.foreign = err != nil
	return err == nil
}

// Foreign tells whether the last record that was decoded is one of an output topic that
// footfall did not write.
func (r *rows) Foreign() bool { return r.foreign }

// Add adds the row of the last Decode.
func (r *rows) Add(hash uint64) {
	key := blockKey{r.topic.table, monthOf(r.record.Time)}
	b := r.blocks[key]
	if b == nil {
		b = newBlock(key.table, key.month)
		r.blocks[key] = b
	}
	before := b.bytes
	r.fill(b, hash)
	r.n++
	r.size += b.bytes - before
}

// fill puts the row of the last Decode into a block of its table.
func (r *rows) fill(b *block, hash uint64) {
	b.string(r.partition.Topic)
	put(b, r.partition.Number)
	put(b, r.record.Offset)
	b.time(r.record.Time)
	switch b.table {
	case r.t.events:
		b.string(r.lane.String())
		put(b, hash)
		r.addEvent(b)
	case r.t.transitions:
		put(b, hash)
		r.addTransition(b)
	case r.t.deadLetters:
		put(b, hash)
		r.addDeadLetter(b)
	}
	b.end()
}

// Len is how many rows there are.
func (r *rows) Len() int { return r.n }

// Size is about how many bytes they take.
func (r *rows) Size() int { return r.size }

// Reset forgets all rows. Blocks of months that are past are given back.
func (r *rows) Reset() {
	for key, b := range r.blocks {
		if b.rows == 0 {
			delete(r.blocks, key)
			continue
		}
		b.reset()
	}
	r.n, r.size = 0, 0
}

// Insert sends one block for each partition of each table. The token, with the
// table and its partition, is the block's.
func (r *rows) Insert(ctx context.Context, token string) error {
	for _, b := range r.blocks {
		if b.rows == 0 {
			continue
		}
		if err := r.t.send(ctx, r.courier, b, fmt.Sprintf("%s/%s/%d", token, b.table.name, b.month)); err != nil {
			return fmt.Errorf("insert %d rows into %s: %w", b.rows, b.table.name, plain(err))
		}
		//failpoint:archive.block-sent
		r.t.stats.of(b.table, r.t).Add(int64(b.rows))
	}
	return nil
}

// send inserts a block as one block.
func (t *tables) send(ctx context.Context, courier *courier, b *block, token string) error {
	ctx, cancel := context.WithTimeout(ctx, queryMax)
	defer cancel()
	ctx = clickhouse.Context(ctx,
		clickhouse.WithColumnNamesAndTypes(b.table.columns),
		clickhouse.WithSettings(clickhouse.Settings{
			"async_insert":               0,
			"insert_deduplicate":         1,
			"insert_deduplication_token": token,
		}))
	batch, err := t.db.PrepareBatch(ctx, b.table.insert)
	if err != nil {
		return err
	}
	if err := courier.bring(b, batch); err != nil {
		_ = batch.Abort()
		return err
	}
	return batch.Send()
}

func (r *rows) addEvent(b *block) {
	ev := &r.event
	b.text(ev.ID)
	b.string(ev.Kind.String())
	b.text(ev.User)
	b.time(ev.At)
	b.text(ev.SessionID)
	b.text(ev.ProductID)
	b.text(ev.Category)
	b.text(ev.Brand)
	b.decimalOrNull(ev.Price, 6, ev.HasPrice)
	b.decimalOrNull(ev.Quantity, 6, ev.HasQuantity)
	b.text(ev.Currency[:])
	b.text(ev.CartID)
	b.text(ev.OrderID)
	b.decimalOrNull(ev.Revenue, 6, ev.HasRevenue)
	b.text(ev.Items)
	b.text(ev.Channel)
	b.text(ev.Campaign)
	b.text(ev.URL)
	b.text(ev.Properties)
	b.text(ev.Extra)
	put(b, ev.Amount)
	b.decimal(ev.Amount, r.t.exponent)
	b.string(r.t.contract.Currency)
	put(b, ev.Worth)
	b.text(ev.Timezone)
	b.text(ev.Birthday)
}

// transition is a transition's JSON (schemas: transition.schema.json), as far as it
// has columns. The archive takes the names as they are: rules may have changed
// since it was said.
type transition struct {
	User    string `json:"user"`
	Set     string `json:"set"`
	Seq     uint32 `json:"seq"`
	From    string `json:"from"` // null: empty
	To      string `json:"to"`
	At      moment `json:"at"`
	Muted   string `json:"muted"`
	Rules   string `json:"rules"`
	Profile struct {
		RecencySeconds int64   `json:"recency_seconds"`
		Orders         uint32  `json:"orders"`
		RevenueMinor   int64   `json:"revenue_minor"`
		Currency       string  `json:"currency"`
		First          moment  `json:"first"`
		Last           moment  `json:"last"`
		FirstPurchase  *moment `json:"first_purchase"`
		LastPurchase   *moment `json:"last_purchase"`
	} `json:"profile"`
	Cause struct {
		Kind      string  `json:"kind"`
		Type      string  `json:"type"`
		ID        string  `json:"id"`
		Topic     string  `json:"topic"`
		Partition *int32  `json:"partition"`
		Offset    *int64  `json:"offset"`
		Due       *moment `json:"due"`
		Epoch     *uint64 `json:"epoch"`
	} `json:"cause"`
	Segments map[string]string `json:"segments"`
	Expected *struct {
		To string `json:"to"`
		At moment `json:"at"`
	} `json:"expected"`
	Evidence struct {
		Clause string     `json:"clause"`
		Was    plainValue `json:"was"`
		Is     plainValue `json:"is"`
	} `json:"evidence"`
	Cart      string  `json:"cart"`
	NotBefore *moment `json:"not_before"`
	BestHour  *uint8  `json:"best_hour"`
	Zone      string  `json:"zone"`
	ZoneFrom  string  `json:"zone_from"`
}

// plainValue is a JSON value as text: a string without its quotes.
type plainValue string

// UnmarshalJSON reads any value.
func (p *plainValue) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(p))
	}
	*p = plainValue(b)
	return nil
}

// moment is a time as transitions have it: RFC 3339, in milliseconds.
type moment schemas.Millis

// UnmarshalJSON reads a time; null leaves it.
func (m *moment) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return err
	}
	*m = moment(t.UnixMilli())
	return nil
}

func (m *moment) millis() (v schemas.Millis, given bool) {
	if m == nil {
		return 0, false
	}
	return schemas.Millis(*m), true
}

func (r *rows) addTransition(b *block) {
	t, out := &r.transition, &r.output
	b.string(out.ID)
	put(b, out.N)
	put(b, out.Next)
	b.time(out.Clock)
	b.time(out.Fired)
	b.string(t.User)
	b.string(t.Set)
	put(b, t.Seq)
	b.string(t.From)
	b.string(t.To)
	b.time(schemas.Millis(t.At))
	b.string(t.Muted)
	b.string(t.Cause.Kind)
	b.string(t.Cause.Type)
	b.string(t.Cause.ID)
	b.string(t.Cause.Topic)
	putOrNull(b, t.Cause.Partition)
	putOrNull(b, t.Cause.Offset)
	b.timeOrNull(t.Cause.Due.millis())
	put(b, t.Profile.RecencySeconds)
	put(b, t.Profile.Orders)
	put(b, t.Profile.RevenueMinor)
	exponent, _ := schemas.Exponent(t.Profile.Currency)
	b.decimal(t.Profile.RevenueMinor, exponent)
	b.string(t.Profile.Currency)
	b.time(schemas.Millis(t.Profile.First))
	b.time(schemas.Millis(t.Profile.Last))
	b.timeOrNull(t.Profile.FirstPurchase.millis())
	b.timeOrNull(t.Profile.LastPurchase.millis())
	segments := t.Segments
	if segments == nil {
		segments = map[string]string{}
	}
	b.any(segments, 16*len(segments))
	if t.Expected == nil {
		b.string("")
		b.timeOrNull(0, false)
	} else {
		b.string(t.Expected.To)
		b.timeOrNull(t.Expected.At.millis())
	}
	b.string(t.Rules)
	b.string(t.Evidence.Clause)
	b.string(string(t.Evidence.Was))
	b.string(string(t.Evidence.Is))
	putOrNull(b, t.Cause.Epoch)
	b.string(t.Cart)
	b.timeOrNull(t.NotBefore.millis())
	putOrNull(b, t.BestHour)
	b.string(t.Zone)
	b.string(t.ZoneFrom)
}

func (r *rows) addDeadLetter(b *block) {
	d := &r.letter
	b.string(d.Reason.String())
	b.string(d.Detail)
	b.string(d.Topic)
	put(b, d.Pos.Partition)
	put(b, d.Pos.Offset)
	b.time(d.Time)
	put(b, d.Output.N)
	b.textOrNull(d.Key)
	b.textOrNull(d.Value)
	size := int64(len(d.Value))
	if d.Cut {
		size = d.Size
	}
	put(b, uint64(size))
	b.string(d.SHA256)
	headers, bytes := make([][]any, len(d.Headers)), 0
	for i, h := range d.Headers {
		headers[i] = []any{h.Key, string(h.Value)}
		bytes += len(h.Key) + len(h.Value)
	}
	b.any(headers, bytes)
}
