package clickhouse

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/shopspring/decimal"

	"footfall/schemas"
)

// column is the values of one column of a block. A block keeps them in memory of
// its own and hands them over as a whole, so that a row costs no allocation but
// those of its decimals and NULLs.
type column interface {
	appendTo(to driver.BatchColumn) error
	print(to []byte) []byte // appends its one value as contents.go has it
	reset()
}

// texts is a column of strings, one behind the other.
type texts struct {
	bytes []byte
	ends  []int
}

func (c *texts) reset() { c.bytes, c.ends = c.bytes[:0], c.ends[:0] }

func (c *texts) appendTo(to driver.BatchColumn) error {
	all, from := string(c.bytes), 0
	values := make([]string, len(c.ends))
	for i, end := range c.ends {
		values[i], from = all[from:end], end
	}
	return to.Append(values)
}

// values is a column of anything that the driver takes as a slice.
type values[T any] struct {
	v     []T
	scale int // of decimals
}

func (c *values[T]) reset()                               { clear(c.v); c.v = c.v[:0] }
func (c *values[T]) appendTo(to driver.BatchColumn) error { return to.Append(c.v) }

// others is a column of what the driver takes one by one.
type others struct{ v []any }

func (c *others) reset() { clear(c.v); c.v = c.v[:0] }

func (c *others) appendTo(to driver.BatchColumn) error {
	for _, v := range c.v {
		if err := to.AppendRow(v); err != nil {
			return err
		}
	}
	return nil
}

// columnOf returns an empty column for a type of ours.
func columnOf(chType string) column {
	inner, nullable := strings.CutPrefix(chType, "Nullable(")
	switch {
	case chType == "String", chType == "LowCardinality(String)":
		return &texts{}
	case chType == "Int32":
		return &values[int32]{}
	case chType == "Int64", strings.HasPrefix(chType, "DateTime64"):
		return &values[int64]{}
	case chType == "UInt32":
		return &values[uint32]{}
	case chType == "UInt64":
		return &values[uint64]{}
	case strings.HasPrefix(chType, "Decimal"):
		return &values[decimal.Decimal]{scale: scaleOf(chType)}
	case nullable && inner == "String)":
		return &values[*string]{}
	case nullable && inner == "Int32)":
		return &values[*int32]{}
	case nullable && (inner == "Int64)" || strings.HasPrefix(inner, "DateTime64")):
		return &values[*int64]{}
	case nullable && inner == "UInt8)":
		return &values[*uint8]{}
	case nullable && inner == "UInt64)":
		return &values[*uint64]{}
	case nullable && strings.HasPrefix(inner, "Decimal"):
		return &values[*decimal.Decimal]{scale: scaleOf(strings.TrimSuffix(inner, ")"))}
	case strings.HasPrefix(chType, "Map("), strings.HasPrefix(chType, "Array("):
		return &others{}
	}
	panic(fmt.Sprintf("clickhouse: no column for type %s", chType))
}

// block is rows of one partition of one table, in the making. A row is put in
// column by column, in the order of the table's columns: end panics if one was
// left out.
type block struct {
	table   *table
	month   int // of the table's partition: 202601
	columns []column
	at      int // column that is next
	rows    int
	bytes   int // about
}

func newBlock(t *table, month int) *block {
	b := &block{table: t, month: month}
	for _, c := range t.columns {
		b.columns = append(b.columns, columnOf(c.Type))
	}
	return b
}

func (b *block) reset() {
	for _, c := range b.columns {
		c.reset()
	}
	b.at, b.rows, b.bytes = 0, 0, 0
}

// end ends a row.
func (b *block) end() {
	if b.at != len(b.columns) {
		panic(fmt.Sprintf("clickhouse: %s: a row of %d columns, want %d", b.table.name, b.at, len(b.columns)))
	}
	b.at = 0
	b.rows++
}

// put puts a value into the next column.
func put[T any](b *block, v T) {
	c := b.columns[b.at].(*values[T])
	c.v = append(c.v, v)
	b.at++
	b.bytes += 8
}

func (b *block) text(v []byte) {
	c := b.columns[b.at].(*texts)
	c.bytes = append(c.bytes, v...)
	c.ends = append(c.ends, len(c.bytes))
	b.at++
	b.bytes += len(v) + 1
}

func (b *block) string(v string) {
	c := b.columns[b.at].(*texts)
	c.bytes = append(c.bytes, v...)
	c.ends = append(c.ends, len(c.bytes))
	b.at++
	b.bytes += len(v) + 1
}

func (b *block) textOrNull(v []byte) {
	if v == nil {
		put[*string](b, nil)
		return
	}
	s := string(v)
	put(b, &s)
	b.bytes += len(v)
}

func (b *block) any(v any, size int) {
	c := b.columns[b.at].(*others)
	c.v = append(c.v, v)
	b.at++
	b.bytes += size
}

func (b *block) time(v schemas.Millis) { put(b, int64(clamp(v))) }

func (b *block) timeOrNull(v schemas.Millis, given bool) {
	if !given {
		put[*int64](b, nil)
		return
	}
	ms := int64(clamp(v))
	put(b, &ms)
}

// decimal puts v * 10^-decimals.
func (b *block) decimal(v int64, decimals int) { put(b, decimal.New(v, int32(-decimals))) }

func (b *block) decimalOrNull(v int64, decimals int, given bool) {
	if !given {
		put[*decimal.Decimal](b, nil)
		return
	}
	d := decimal.New(v, int32(-decimals))
	put(b, &d)
}

// The first moment of DateTime64(3), and the last one that reaches it: the driver
// counts in nanoseconds on the way. What lies beyond is a dead letter's in any case
// (future), and there it counts nowhere.
const (
	firstMoment schemas.Millis = -2208988800000            // 1900-01-01
	lastMoment  schemas.Millis = math.MaxInt64 / 1_000_000 // 2262-04-11
)

func clamp(v schemas.Millis) schemas.Millis { return min(max(v, firstMoment), lastMoment) }

// monthOf returns the table partition of a record's timestamp: toYYYYMM.
func monthOf(v schemas.Millis) int {
	t := time.UnixMilli(int64(clamp(v))).UTC()
	return t.Year()*100 + int(t.Month())
}

// table is a table's name and columns, in the order of their migration.
type table struct {
	name    string
	columns []clickhouse.ColumnNameAndType
	insert  string // the statement
}

// newTable makes a table of lines "name type".
func newTable(name, columns string) *table {
	t := &table{name: name}
	var names []string
	for line := range strings.Lines(columns) {
		if n, typ, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			t.columns = append(t.columns, clickhouse.ColumnNameAndType{Name: n, Type: strings.TrimSpace(typ)})
			names = append(names, n)
		}
	}
	t.insert = fmt.Sprintf("INSERT INTO %s (%s)", name, strings.Join(slices.Clip(names), ", "))
	return t
}
