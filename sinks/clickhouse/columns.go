package clickhouse

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"footfall/schemas"
)

// block is rows of one partition of one table, in the making. A row is put in
// column by column, in the order of the table's columns: end panics if one was
// left out.
type block struct {
	table   *table
	month   int // of the table's partition: 202601
	columns []values
	at      int // column that is next
	rows    int
	bytes   int // about
}

func newBlock(t *table, month int) *block {
	b := &block{table: t, month: month}
	for _, c := range t.columns {
		b.columns = append(b.columns, newValues(c.Type))
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

// next is the next column, which is of the type that the caller knows.
func next[C values](b *block) C {
	c := b.columns[b.at].(C)
	b.at++
	return c
}

// present is next for a column that may be NULL, where the value is not.
func present[C values](b *block) C {
	c := next[*optional](b)
	c.null = append(c.null, 0)
	return c.of.(C)
}

// absent puts NULL into the next column, and returns it for the value that stands there.
func absent(b *block) *optional {
	c := next[*optional](b)
	c.null = append(c.null, 1)
	return c
}

// put puts a number into the next column.
func put[T number](b *block, v T) {
	c := next[*numbers[T]](b)
	c.v = append(c.v, v)
	b.bytes += 8
}

func putOrNull[T number](b *block, v *T) {
	b.bytes += 8
	if v == nil {
		c := absent(b).of.(*numbers[T])
		c.v = append(c.v, 0)
		return
	}
	c := present[*numbers[T]](b)
	c.v = append(c.v, *v)
}

func (b *block) text(v []byte) {
	switch c := b.columns[b.at].(type) {
	case *words:
		c.addText(v)
	case *texts:
		c.addText(v)
	}
	b.at++
	b.bytes += len(v) + 1
}

func (b *block) string(v string) {
	switch c := b.columns[b.at].(type) {
	case *words:
		c.addString(v)
	case *texts:
		c.addString(v)
	}
	b.at++
	b.bytes += len(v) + 1
}

func (b *block) textOrNull(v []byte) {
	b.bytes += len(v) + 8
	if v == nil {
		absent(b).of.(*texts).addText(nil)
		return
	}
	present[*texts](b).addText(v)
}

func (b *block) any(v any, size int) {
	c := next[*others](b)
	c.v = append(c.v, v)
	b.bytes += size
}

func (b *block) time(v schemas.Millis) { put(b, int64(clamp(v))) }

func (b *block) timeOrNull(v schemas.Millis, given bool) {
	if !given {
		putOrNull[int64](b, nil)
		return
	}
	ms := int64(clamp(v))
	putOrNull(b, &ms)
}

// decimal puts v * 10^-digits.
func (b *block) decimal(v int64, digits int) {
	c := next[*decimals](b)
	c.v = append(c.v, wideOf(v, c.scale-digits))
	b.bytes += 16
}

func (b *block) decimalOrNull(v int64, digits int, given bool) {
	b.bytes += 16
	if !given {
		c := absent(b).of.(*decimals)
		c.v = append(c.v, wide{})
		return
	}
	c := present[*decimals](b)
	c.v = append(c.v, wideOf(v, c.scale-digits))
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
