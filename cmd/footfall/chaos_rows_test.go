//go:build chaos

package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"footfall/pipeline/oracle"
)

// What the row of a record must be, column by column, written again from the
// documentation of the tables: it reads JSON and headers as anybody would.

// row is what a row should be, each column as columnText has ClickHouse write it.
type row map[string]string

// null is how a column says that it has no value.
const null = "NULL"

// columnText is an expression that writes a column of a type the same way whatever the
// server's settings: times as milliseconds, and what may be any bytes as hex.
func columnText(name, kind string) string {
	inner, nullable := strings.CutPrefix(kind, "Nullable(")
	text := "toString(" + name + ")"
	switch {
	case name == "key" || name == "value":
		text = "hex(SHA256(assumeNotNull(" + name + ")))"
	case strings.HasPrefix(inner, "DateTime64"):
		text = "toString(toUnixTimestamp64Milli(" + name + "))"
	case strings.HasPrefix(kind, "Map("):
		text = "arrayStringConcat(arraySort(arrayMap((k, v) -> concat(k, '=', v), mapKeys(" + name + "), mapValues(" + name + "))), ' ')"
	case strings.HasPrefix(kind, "Array("):
		text = "arrayStringConcat(arrayMap(h -> concat(h.1, '=', hex(h.2)), " + name + "), ' ')"
	}
	if nullable {
		text = "if(isNull(" + name + "), '" + null + "', " + text + ")"
	}
	return text
}

// columnsOf gives the columns of a table and how to ask for each.
func (h *house) columnsOf(table string) (names, texts []string) {
	h.t.Helper()
	h.query("SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = '"+table+"' ORDER BY position", func(row []string) {
		names, texts = append(names, row[0]), append(texts, columnText(row[0], row[1]))
	})
	if len(names) == 0 {
		h.t.Fatalf("there is no table %s", table)
	}
	return names, texts
}

// partsMax is how many parts a partition of a table may have after small inserts and all
// that was done again. From 1,000 on ClickHouse has inserts wait, from 3,000 on it refuses
// them.
const partsMax = 300

// verifyTables compares every column of every row with its record.
func (h *house) verifyTables(dump *oracle.Dump, v *verdict) {
	h.t.Helper()
	refused := map[string]string{}
	for i := range dump.DeadLetters {
		r := &dump.DeadLetters[i]
		offset, _ := strconv.ParseInt(headerOf(r, "dlq_offset"), 10, 64)
		refused[position(headerOf(r, "dlq_topic"), r.Partition, offset)] = headerOf(r, "dlq_reason")
	}
	var events []oracle.Record
	for _, r := range dump.Input {
		// What came from the future is well-formed: it is in both tables.
		if reason := refused[position(r.Topic, r.Partition, r.Offset)]; reason == "" || reason == "future" {
			events = append(events, r)
		}
	}
	for _, table := range []struct {
		name    string
		records []oracle.Record
		content func(*oracle.Record) row
	}{
		{"events", events, h.eventRow},
		{"transitions", slices.Concat(dump.Triggers, dump.Muted), transitionRow},
		{"dead_letters", dump.DeadLetters, deadLetterRow},
	} {
		h.compareRows(table.name, table.records, table.content)
		v.resent += h.number("SELECT count() - uniqExact(_topic, _partition, _offset) FROM " + table.name)
	}
	parts := h.number("SELECT max(n) FROM (SELECT count() AS n FROM system.parts WHERE active AND database = currentDatabase() GROUP BY table, partition)")
	if parts == 0 || parts > partsMax {
		h.t.Errorf("a table's partition has up to %d parts, want 1 to %d", parts, partsMax)
	}
}

// compareRows compares the rows of a table with those that its records should have.
func (h *house) compareRows(table string, records []oracle.Record, content func(*oracle.Record) row) {
	h.t.Helper()
	want := make(map[string]int, len(records)) // by position
	for i := range records {
		want[position(records[i].Topic, records[i].Partition, records[i].Offset)] = i
	}
	lost, wrong, strange := len(want), 0, 0
	complain := func(n *int, format string, args ...any) {
		if *n++; *n <= 3 {
			h.t.Errorf(format, args...)
		}
	}
	names, texts := h.columnsOf(table)
	seen := make([]bool, len(records))
	h.query("SELECT "+strings.Join(texts, ", ")+" FROM "+table+" FINAL", func(got []string) {
		have := row{}
		for i, name := range names {
			have[name] = got[i]
		}
		at := have["_topic"] + "/" + have["_partition"] + "@" + have["_offset"]
		i, known := want[at]
		switch {
		case !known:
			complain(&strange, "%s has a row for %s, which should have none", table, at)
			return
		case seen[i]:
			complain(&strange, "%s has two rows for %s", table, at)
			return
		}
		seen[i] = true
		lost--
		r := &records[i]
		should := content(r)
		maps.Copy(should, row{
			"_topic": r.Topic, "_partition": fmt.Sprint(r.Partition), "_offset": fmt.Sprint(r.Offset),
			"_time": fmt.Sprint(r.Time), "_hash": fmt.Sprint(hashOf(r)),
		})
		if !maps.Equal(have, should) {
			complain(&wrong, "%s: the row of %s has\n%s", table, at, differing(have, should))
		}
	})
	if lost+wrong+strange > 0 {
		var example []string
		for i, found := range seen {
			if !found && len(example) < 3 {
				example = append(example, position(records[i].Topic, records[i].Partition, records[i].Offset))
			}
		}
		h.t.Errorf("%s: of %d rows %d are missing (%v), %d differ, %d should not be there", table, len(want), lost, example, wrong, strange)
	}
}

// differing lists the columns in which a row is not what it should be.
func differing(have, should row) string {
	all := maps.Clone(should)
	maps.Copy(all, have)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		got, there := have[name]
		want, known := should[name]
		if got != want || there != known {
			fmt.Fprintf(&text, "  %s: %q (there: %v), want %q (known: %v)\n", name, got, there, want, known)
		}
	}
	return text.String()
}

// hashOf is the hash of a record that a row carries, written again from its
// description: xxhash64 of offset, timestamp, key, value and headers, each of the
// last three behind its length and kind.
func hashOf(r *oracle.Record) uint64 {
	le := binary.LittleEndian
	b := le.AppendUint64(le.AppendUint64(nil, uint64(r.Offset)), uint64(r.Time))
	add := func(kind byte, text []byte) {
		if text == nil {
			kind |= 0x80
		}
		b = append(append(le.AppendUint64(b, uint64(len(text))), kind), text...)
	}
	add(1, r.Key)
	add(2, r.Value)
	for _, header := range r.Headers {
		b = append(b, header.Key...)
		add(3, header.Value)
	}
	return xxhash.Sum64(b)
}

// headerOf gives the last header of a name; a dead letter has the original's in front.
func headerOf(r *oracle.Record, name string) string {
	for _, header := range slices.Backward(r.Headers) {
		if header.Key == name {
			return string(header.Value)
		}
	}
	return ""
}

// fieldsOf reads a record's value as any JSON library does.
func fieldsOf(r *oracle.Record) (fields map[string]any) {
	d := json.NewDecoder(bytes.NewReader(r.Value))
	d.UseNumber()
	_ = d.Decode(&fields) // what is not an object has no fields
	return fields
}

func textOf(v any) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// millisOf reads a time: RFC 3339, or milliseconds.
func millisOf(v any) string {
	if s, ok := v.(string); ok {
		at, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return err.Error()
		}
		return strconv.FormatInt(at.UnixMilli(), 10)
	}
	return textOf(v)
}

// orNull is a value's text, or that there is none.
func orNull(v any, text func(any) string) string {
	if v == nil {
		return null
	}
	return text(v)
}

// contractFields are those of an event that the contract names; the others are extra.
func contractFields() []string {
	return []string{
		"event_id", "type", "user_id", "time", "session_id", "product_id", "category", "brand", "price", "quantity", "currency", "cart_id",
		"order_id", "revenue", "items", "channel", "campaign", "url", "timezone", "birthday", "properties",
	}
}

// rawOf gives the fields as they were sent, and those that the contract does not name as
// one object, in their order.
func rawOf(value []byte) (fields map[string]json.RawMessage, extra string) {
	_ = json.Unmarshal(value, &fields)
	d := json.NewDecoder(bytes.NewReader(value))
	_, _ = d.Token()
	var names []string
	for d.More() {
		name, _ := d.Token()
		var raw json.RawMessage
		if d.Decode(&raw) != nil {
			break
		}
		if s, _ := name.(string); !slices.Contains(contractFields(), s) {
			names = append(slices.DeleteFunc(names, func(n string) bool { return n == s }), s) // the last one counts
		}
	}
	for i, name := range names {
		quoted, _ := json.Marshal(name)
		extra += string([]byte{"{,"[min(i, 1)]}) + string(quoted) + ":" + string(fields[name])
	}
	if names != nil {
		extra += "}"
	}
	return fields, extra
}

// decimal is a number in its shortest form.
func decimal(x *big.Rat) string {
	text := x.FloatString(12)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// ratOf is a number that was sent, or another where none was.
func ratOf(v any, other int64) *big.Rat {
	if x, ok := new(big.Rat).SetString(textOf(v)); ok {
		return x
	}
	return big.NewRat(other, 1)
}

// minorOf converts an amount to the reporting currency, in its minor units, half to even.
func (h *house) minorOf(x *big.Rat, currency string) *big.Int {
	rate := big.NewRat(1, 1)
	if currency != h.conf.Shop.Currency {
		rate = ratOf(h.conf.Shop.Rates[currency], 0)
	}
	x = new(big.Rat).Mul(new(big.Rat).Mul(x, rate), big.NewRat(minorUnits, 1))
	whole, rest := new(big.Int).QuoRem(x.Num(), x.Denom(), new(big.Int))
	switch half := rest.Lsh(rest, 1).Cmp(x.Denom()); {
	case half > 0, half == 0 && whole.Bit(0) == 1:
		whole.Add(whole, big.NewInt(1))
	}
	return whole
}

// minorUnits are the cents of the currency that the tests' shops report in.
const minorUnits = 100

// amountOf is what a purchase brought, or a refund gave back.
func (h *house) amountOf(f map[string]any) *big.Int {
	product := func(f map[string]any) *big.Rat {
		return new(big.Rat).Mul(ratOf(f["price"], 0), ratOf(f["quantity"], 1))
	}
	currency := cmp.Or(textOf(f["currency"]), h.conf.Shop.Currency)
	if kind := textOf(f["type"]); kind != "purchase" && kind != "refund" {
		return new(big.Int)
	}
	sum := product(f)
	if items, given := f["items"].([]any); given {
		sum = new(big.Rat)
		for _, item := range items {
			if fields, ok := item.(map[string]any); ok {
				sum.Add(sum, product(fields))
			}
		}
	}
	if f["revenue"] != nil {
		sum = ratOf(f["revenue"], 0)
	}
	return h.minorOf(sum, currency)
}

// worthOf is what was put into a cart, or taken out.
func (h *house) worthOf(f map[string]any) *big.Int {
	if kind := textOf(f["type"]); kind != "add_to_cart" && kind != "remove_from_cart" {
		return new(big.Int)
	}
	return h.minorOf(new(big.Rat).Mul(ratOf(f["price"], 0), ratOf(f["quantity"], 1)), cmp.Or(textOf(f["currency"]), h.conf.Shop.Currency))
}

func (h *house) eventRow(r *oracle.Record) row {
	f := fieldsOf(r)
	raw, extra := rawOf(r.Value)
	amount := h.amountOf(f)
	number := func(v any) string { return decimal(ratOf(v, 0)) }
	want := row{
		"_lane": cmp.Or(headerOf(r, "lane"), h.conf.Kafka.Lane.String()), "time": millisOf(f["time"]),
		"price": orNull(f["price"], number), "quantity": orNull(f["quantity"], number), "revenue": orNull(f["revenue"], number),
		"currency": cmp.Or(textOf(f["currency"]), h.conf.Shop.Currency), "reporting_currency": h.conf.Shop.Currency,
		"items": string(raw["items"]), "properties": string(raw["properties"]), "extra": extra,
		"amount_minor": amount.String(), "amount": decimal(new(big.Rat).SetFrac(amount, big.NewInt(minorUnits))), "worth_minor": h.worthOf(f).String(),
	}
	for _, name := range contractFields() {
		if _, known := want[name]; !known {
			want[name] = textOf(f[name])
		}
	}
	return want
}

func transitionRow(r *oracle.Record) row {
	f := fieldsOf(r)
	object := func(name string) map[string]any { o, _ := f[name].(map[string]any); return o }
	cause, profile, expected, evidence := object("cause"), object("profile"), object("expected"), object("evidence")
	value := func(name string) string {
		v, given := evidence[name]
		if given && v == nil {
			return "null"
		}
		return textOf(v)
	}
	var segments []string
	for set, segment := range object("segments") {
		segments = append(segments, set+"="+textOf(segment))
	}
	slices.Sort(segments)
	minor := ratOf(profile["revenue_minor"], 0)
	return row{
		"id": headerOf(r, "ce_id"), "n": headerOf(r, "n"),
		"mark_next": headerOf(r, "next"), "mark_clock": headerOf(r, "clock"), "mark_fired": headerOf(r, "fired"),
		"user_id": textOf(f["user"]), "segment_set": textOf(f["set"]), "seq": textOf(f["seq"]),
		"from_segment": textOf(f["from"]), "to_segment": textOf(f["to"]), "at": millisOf(f["at"]), "muted": textOf(f["muted"]),
		"cause": textOf(cause["kind"]), "cause_type": textOf(cause["type"]), "cause_event_id": textOf(cause["id"]), "cause_topic": textOf(cause["topic"]),
		"cause_partition": orNull(cause["partition"], textOf), "cause_offset": orNull(cause["offset"], textOf),
		"cause_due": orNull(cause["due"], millisOf), "cause_epoch": orNull(cause["epoch"], textOf),
		"recency_seconds": textOf(profile["recency_seconds"]), "orders": textOf(profile["orders"]),
		"revenue_minor": textOf(profile["revenue_minor"]), "revenue": decimal(minor.Quo(minor, big.NewRat(minorUnits, 1))),
		"reporting_currency": textOf(profile["currency"]),
		"first_seen":         millisOf(profile["first"]), "last_seen": millisOf(profile["last"]),
		"first_purchase": orNull(profile["first_purchase"], millisOf), "last_purchase": orNull(profile["last_purchase"], millisOf),
		"segments":         strings.Join(segments, " "),
		"expected_segment": textOf(expected["to"]), "expected_at": orNull(expected["at"], millisOf), "rules": textOf(f["rules"]),
		"evidence_clause": textOf(evidence["clause"]), "evidence_was": value("was"), "evidence_is": value("is"),
		"cart": textOf(f["cart"]), "not_before": orNull(f["not_before"], millisOf), "best_hour": orNull(f["best_hour"], textOf),
		"zone": textOf(f["zone"]), "zone_from": textOf(f["zone_from"]),
	}
}

func deadLetterRow(r *oracle.Record) row {
	sum := func(b []byte) string {
		if b == nil {
			return null
		}
		return fmt.Sprintf("%X", sha256.Sum256(b))
	}
	// The original's headers are in front of ours.
	ours := len(r.Headers)
	for i, header := range r.Headers {
		if header.Key == "dlq_reason" {
			ours = i // the last one: the original may have one, too
		}
	}
	var headers []string
	for _, header := range r.Headers[:ours] {
		headers = append(headers, fmt.Sprintf("%s=%X", header.Key, header.Value))
	}
	return row{
		"reason": headerOf(r, "dlq_reason"), "detail": headerOf(r, "dlq_detail"),
		"source_topic": headerOf(r, "dlq_topic"), "source_partition": headerOf(r, "dlq_partition"), "source_offset": headerOf(r, "dlq_offset"),
		"source_time": headerOf(r, "dlq_time"), "n": headerOf(r, "dlq_n"), "key": sum(r.Key), "value": sum(r.Value),
		"value_size":   cmp.Or(headerOf(r, "dlq_size"), strconv.Itoa(len(r.Value))),
		"value_sha256": headerOf(r, "dlq_sha256"), "headers": strings.Join(headers, " "),
	}
}
