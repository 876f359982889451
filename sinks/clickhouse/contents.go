package clickhouse

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"footfall/pipeline/archive"
)

// The content of a row is a text of its columns, made by Go from a record and by SQL
// from the table; the two are compared by their hash. The text has the columns in
// their order, each ended by a byte 1:
//
//	String                its bytes
//	Int, UInt             decimal
//	DateTime64(3)         milliseconds since 1970
//	Decimal(p, s)         value * 10^s, decimal
//	Map(String, String)   key, byte 2, value, byte 3; sorted
//	Array(Tuple)          key, byte 2, value, byte 3; in their order
//	NULL                  byte 4
//
// A converted amount is left out: it depends on the rates of its day, which are not
// in the log. The hash of the record is left out too: it is compared by itself.
const (
	columnEnd = "\x01"
	pairMid   = "\x02"
	pairEnd   = "\x03"
	nullValue = "\x04"
)

// contentSQL is the expression of a row's content hash.
func (t *table) contentSQL() string {
	parts := make([]string, 0, len(t.columns))
	for _, c := range t.columns {
		if c.Name == "_hash" {
			continue
		}
		text := valueSQL(c.Name, c.Type)
		if slices.Contains(convertedColumns, c.Name) && t.name == "events" {
			text = fmt.Sprintf("if(currency = reporting_currency, %s, '')", text)
		}
		parts = append(parts, fmt.Sprintf("%s, '%s'", text, columnEnd))
	}
	return "xxHash64(concat(" + strings.Join(parts, ", ") + "))"
}

// convertedColumns are those of events that the rates decide, where the event's
// currency is not the reporting one.
var convertedColumns = []string{"amount_minor", "amount", "worth_minor"} //nolint:gochecknoglobals // constant

// valueSQL is the expression of a column's text.
func valueSQL(name, chType string) string {
	if inner, ok := strings.CutPrefix(chType, "Nullable("); ok {
		return fmt.Sprintf("if(isNull(%s), '%s', %s)", name, nullValue, valueSQL("assumeNotNull("+name+")", strings.TrimSuffix(inner, ")")))
	}
	switch {
	case chType == "String", chType == "LowCardinality(String)":
		return fmt.Sprintf("toString(%s)", name)
	case strings.HasPrefix(chType, "DateTime64"):
		return fmt.Sprintf("toString(toUnixTimestamp64Milli(%s))", name)
	case strings.HasPrefix(chType, "Decimal"):
		return fmt.Sprintf("toString(toInt128(%s * %d))", name, power(10, scaleOf(chType)))
	case strings.HasPrefix(chType, "Map("):
		return fmt.Sprintf("arrayStringConcat(arraySort(arrayMap((k, v) -> concat(toString(k), '%s', v, '%s'), mapKeys(%[3]s), mapValues(%[3]s))))", pairMid, pairEnd, name)
	case strings.HasPrefix(chType, "Array("):
		return fmt.Sprintf("arrayStringConcat(arrayMap(x -> concat(x.1, '%s', x.2, '%s'), %s))", pairMid, pairEnd, name)
	}
	return fmt.Sprintf("toString(%s)", name)
}

// scaleOf is s of Decimal(p, s).
func scaleOf(chType string) int {
	_, scale, _ := strings.Cut(chType, ", ")
	n, err := strconv.Atoi(strings.TrimSuffix(scale, ")"))
	if err != nil {
		panic(fmt.Sprintf("clickhouse: type %s has no scale", chType))
	}
	return n
}

func power(base, n int) int {
	p := 1
	for range n {
		p *= base
	}
	return p
}

// Content hashes the row of the last Decode. The row is put into a block of its own.
func (r *rows) Content(hash uint64) uint64 {
	t := r.topic.table
	b := r.scratch[t]
	if b == nil {
		b = newBlock(t, 0)
		r.scratch[t] = b
	}
	b.reset()
	r.fill(b, hash)
	r.text = r.text[:0]
	converted := t == r.t.events && string(r.event.Currency[:]) != r.t.contract.Currency
	for i, c := range b.columns {
		name := t.columns[i].Name
		if name == "_hash" {
			continue
		}
		if !converted || !slices.Contains(convertedColumns, name) {
			r.text = c.print(r.text)
		}
		r.text = append(r.text, columnEnd...)
	}
	return xxhash.Sum64(r.text)
}

var _ archive.AuditTable = (*tables)(nil)

func (c *texts) print(to []byte) []byte {
	_, n := binary.Uvarint(c.bytes)
	return append(to, c.bytes[n:]...)
}

func (c *words) print(to []byte) []byte { return append(to, c.names[c.keys[0]]...) }

func (c *numbers[T]) print(to []byte) []byte {
	if v := c.v[0]; v < 0 {
		return strconv.AppendInt(to, int64(v), 10)
	}
	return strconv.AppendUint(to, uint64(c.v[0]), 10)
}

func (c *decimals) print(to []byte) []byte {
	w := c.v[0]
	if int64(w.high) == int64(w.low)>>63 { // it has 64 bits
		return strconv.AppendInt(to, int64(w.low), 10)
	}
	v := new(big.Int).Lsh(big.NewInt(int64(w.high)), 64)
	return v.Add(v, new(big.Int).SetUint64(w.low)).Append(to, 10)
}

func (c *optional) print(to []byte) []byte {
	if c.null[0] > 0 {
		return append(to, nullValue...)
	}
	return c.of.print(to)
}

func (c *others) print(to []byte) []byte {
	switch v := c.v[0].(type) {
	case map[string]string:
		pairs := make([]string, 0, len(v))
		for key, value := range v {
			pairs = append(pairs, key+pairMid+value+pairEnd)
		}
		slices.Sort(pairs)
		return append(to, strings.Join(pairs, "")...)
	case [][]any:
		for _, pair := range v {
			to = append(to, fmt.Sprint(pair[0], pairMid, pair[1], pairEnd)...)
		}
		return to
	default:
		panic(fmt.Sprintf("clickhouse: no text for a %T", v))
	}
}
