package clickhouse

import (
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math/bits"
	"slices"
	"strings"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// values is one column of a block, in memory that the next block uses again: a row costs
// no allocation but that of a Map or an Array. They go to the driver in ClickHouse's native
// format, which it takes as if a server had sent it. Its own way is by reflection and a map
// of any where a column has a dictionary, and by big integers for decimals: most of what
// a row cost.
type values interface {
	length() int
	native(to []byte) []byte // appends them in the native format
	print(to []byte) []byte  // appends the one value as contents.go has it
	reset()
}

// texts are strings: each one's length (LEB128) and bytes.
type texts struct {
	bytes []byte
	n     int
}

func (c *texts) length() int             { return c.n }
func (c *texts) native(to []byte) []byte { return append(to, c.bytes...) }
func (c *texts) reset()                  { c.bytes, c.n = c.bytes[:0], 0 }

func (c *texts) addText(v []byte) {
	c.bytes = append(binary.AppendUvarint(c.bytes, uint64(len(v))), v...)
	c.n++
}

func (c *texts) addString(v string) {
	c.bytes = append(binary.AppendUvarint(c.bytes, uint64(len(v))), v...)
	c.n++
}

// words are strings of which few differ: LowCardinality.
type words struct {
	known  map[string]uint32
	names  []string // by key; the first is empty, as the format asks
	keys   []uint32 // a row each
	latest uint32
}

func newWords() *words { return &words{known: map[string]uint32{"": 0}, names: []string{""}} }

func (c *words) length() int { return len(c.keys) }

func (c *words) reset() {
	clear(c.known)
	clear(c.names)
	c.known[""], c.names = 0, c.names[:1]
	c.keys, c.latest = c.keys[:0], 0
}

func (c *words) addText(v []byte) {
	if string(v) != c.names[c.latest] {
		key, known := c.known[string(v)]
		if !known {
			key = c.learn(string(v))
		}
		c.latest = key
	}
	c.keys = append(c.keys, c.latest)
}

func (c *words) addString(v string) {
	if v != c.names[c.latest] {
		key, known := c.known[v]
		if !known {
			key = c.learn(strings.Clone(v)) // of a record's memory, it may be
		}
		c.latest = key
	}
	c.keys = append(c.keys, c.latest)
}

func (c *words) learn(v string) (key uint32) {
	key = uint32(len(c.names))
	c.known[v], c.names = key, append(c.names, v)
	return key
}

// native writes, in ClickHouse's order: flags (bit 9: keys follow; bit 10: they are all;
// the low byte: 2 for keys of four bytes), how many names, the names, how many rows, and
// their keys (SerializationLowCardinality.cpp).
func (c *words) native(to []byte) []byte {
	const fourBytes, additional, update = 2, 1 << 9, 1 << 10
	to = binary.LittleEndian.AppendUint64(to, fourBytes|additional|update)
	to = binary.LittleEndian.AppendUint64(to, uint64(len(c.names)))
	for _, name := range c.names {
		to = append(binary.AppendUvarint(to, uint64(len(name))), name...)
	}
	to = binary.LittleEndian.AppendUint64(to, uint64(len(c.keys)))
	return littleEndian(to, c.keys)
}

// numbers are of a fixed size.
type numbers[T number] struct{ v []T }

type number interface {
	uint8 | int32 | uint32 | int64 | uint64
}

func (c *numbers[T]) length() int             { return len(c.v) }
func (c *numbers[T]) native(to []byte) []byte { return littleEndian(to, c.v) }
func (c *numbers[T]) reset()                  { c.v = c.v[:0] }

func littleEndian[T number](to []byte, v []T) []byte {
	to, err := binary.Append(to, binary.LittleEndian, v)
	if err != nil {
		panic(fmt.Sprintf("clickhouse: numbers of no fixed size: %v", err))
	}
	return to
}

// decimals are integers of 128 bits, the scale left away.
type decimals struct {
	scale int
	v     []wide
}

func (c *decimals) length() int { return len(c.v) }
func (c *decimals) reset()      { c.v = c.v[:0] }

func (c *decimals) native(to []byte) []byte {
	for _, w := range c.v {
		to = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(to, w.low), w.high)
	}
	return to
}

// wide is an integer of 128 bits, in two's complement.
type wide struct{ low, high uint64 }

// wideOf is v * 10^power, toward zero where that is a fraction.
func wideOf(v int64, power int) (w wide) {
	for ; power < 0; power++ {
		v /= 10
	}
	factor := uint64(1)
	for range power {
		factor *= 10
	}
	magnitude := uint64(v)
	if v < 0 {
		magnitude = -magnitude
	}
	if w.high, w.low = bits.Mul64(magnitude, factor); v < 0 {
		w.low = -w.low
		w.high = ^w.high
		if w.low == 0 {
			w.high++
		}
	}
	return w
}

// optional are values of which some are NULL: a byte each that says so, and the values,
// with anything for those.
type optional struct {
	null []byte
	of   values
}

func (c *optional) length() int { return len(c.null) }

func (c *optional) reset() {
	c.null = c.null[:0]
	c.of.reset()
}

func (c *optional) native(to []byte) []byte { return c.of.native(append(to, c.null...)) }

// others are what the driver takes one by one: few rows have them.
type others struct{ v []any }

func (c *others) length() int             { return len(c.v) }
func (c *others) native(to []byte) []byte { return to }
func (c *others) reset()                  { clear(c.v); c.v = c.v[:0] }

// newValues returns an empty column for a type of ours.
func newValues(chType string) values {
	if inner, nullable := strings.CutPrefix(chType, "Nullable("); nullable {
		return &optional{of: newValues(strings.TrimSuffix(inner, ")"))}
	}
	switch {
	case chType == "String":
		return &texts{}
	case chType == "LowCardinality(String)":
		return newWords()
	case chType == "UInt8":
		return &numbers[uint8]{}
	case chType == "Int32":
		return &numbers[int32]{}
	case chType == "Int64", strings.HasPrefix(chType, "DateTime64"):
		return &numbers[int64]{}
	case chType == "UInt32":
		return &numbers[uint32]{}
	case chType == "UInt64":
		return &numbers[uint64]{}
	case strings.HasPrefix(chType, "Decimal"):
		return &decimals{scale: scaleOf(chType)}
	case strings.HasPrefix(chType, "Map("), strings.HasPrefix(chType, "Array("):
		return &others{}
	}
	panic(fmt.Sprintf("clickhouse: no column for type %s", chType))
}

// courier brings columns to the driver, in one piece of memory. Texts, which are most of
// a batch, it does not copy.
type courier struct {
	bytes []byte
	from  *bytesThenText
	to    *proto.Reader
}

func newCourier() *courier {
	from := &bytesThenText{}
	return &courier{from: from, to: proto.NewReader(from)}
}

// bytesThenText is a column in the native format, in two pieces.
type bytesThenText struct{ bytes, text []byte }

func (b *bytesThenText) Read(into []byte) (n int, err error) {
	if len(b.bytes) == 0 {
		b.bytes, b.text = b.text, nil
	}
	if len(b.bytes) == 0 {
		return 0, io.EOF
	}
	n = copy(into, b.bytes)
	b.bytes = b.bytes[n:]
	return n, nil
}

// put makes it a column's.
func (b *bytesThenText) put(of values, memory []byte) (kept []byte) {
	switch of := of.(type) {
	case *texts:
		b.bytes, b.text = of.bytes, nil
		return memory
	case *optional:
		if t, ok := of.of.(*texts); ok {
			b.bytes, b.text = of.null, t.bytes
			return memory
		}
	}
	memory = of.native(memory[:0])
	b.bytes, b.text = memory, nil
	return memory
}

// bring puts a block's columns into a batch.
func (c *courier) bring(b *block, batch driver.Batch) error {
	columns := batch.Columns()
	if len(columns) != len(b.columns) {
		return fmt.Errorf("table %s takes %d columns, want %d", b.table.name, len(columns), len(b.columns))
	}
	for i, of := range b.columns {
		var err error
		want := column.Type(b.table.columns[i].Type)
		switch o, single := of.(*others); {
		case single:
			err = byOne(batch.Column(i), slices.Values(o.v))
		case columns[i].Type() == want:
			err = c.fill(columns[i], of)
		default: // somebody has altered the table
			err = c.convert(want, of, batch.Column(i))
		}
		if err != nil {
			return fmt.Errorf("column %s: %w", b.table.columns[i].Name, err)
		}
	}
	return nil
}

func (c *courier) fill(into column.Interface, of values) error {
	c.bytes = c.from.put(of, c.bytes)
	if err := into.Decode(c.to, of.length()); err != nil {
		return err
	}
	if left := len(c.from.bytes) + len(c.from.text); left > 0 || into.Rows() != of.length() {
		return fmt.Errorf("the driver took %d rows and left %d bytes, want %d rows and none", into.Rows(), left, of.length())
	}
	return nil
}

// convert leaves it to the driver to make a table's type of ours.
func (c *courier) convert(ours column.Type, of values, to driver.BatchColumn) error {
	own, err := ours.Column("", &column.ServerContext{})
	if err != nil {
		return err
	}
	if err := c.fill(own, of); err != nil {
		return err
	}
	return byOne(to, func(yield func(any) bool) {
		for i := range of.length() {
			if !yield(own.Row(i, false)) {
				return
			}
		}
	})
}

func byOne(to driver.BatchColumn, all iter.Seq[any]) error {
	for v := range all {
		if err := to.AppendRow(v); err != nil {
			return err
		}
	}
	return nil
}
