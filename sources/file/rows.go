package file

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of one row, so that a missing quote or line end, or a file that is none of
// ours, cannot take all memory: what a row is cut into takes some twenty times its
// bytes. An event has at most 1 MiB.
const (
	rowBytesMax   = 4 << 20
	columnsMax    = 10_000  // of a file
	separatorsMax = 1 << 18 // of a csv's row, those within quotes too
	listedMax     = 50      // columns named in an error
)

// row is one row of the file, or one nested event of it. values are those of the
// program's columns, in their order; they are valid until the next row.
type row struct {
	line   int64 // on which it starts, from 1
	n      int   // number within a nested row, from 1
	values []string
}

// rows gives the rows of one format. A *rowError is a malformed row, after which the
// next one can be read; io.EOF is the end; any other error is final.
type rows interface {
	next() (row, error)
}

// rowError says what is wrong with one row.
type rowError struct {
	line   int64
	column string // "" if it is no single column
	reason string
}

func (e *rowError) Error() string {
	if e.column == "" {
		return fmt.Sprintf("%d: %s", e.line, e.reason)
	}
	return fmt.Sprintf("%d: column %q: %s", e.line, e.column, e.reason)
}

// openRows begins to read; columns are those wanted. It reads the header, and says
// which wanted column the file lacks.
func openRows(r io.Reader, m *Mapping, columns []string) (rows, error) {
	switch m.Format {
	case "ndjson":
		return newJSONRows(r, m.Nested, columns), nil
	case "csv":
		return newCSVRows(r, m, columns)
	default:
		return newTextRows(r, m, columns)
	}
}

// place says where the wanted columns are among those the file has.
func place(want, have []string) ([]int, error) {
	var missing []string
	at := make([]int, len(want))
	for i, w := range want {
		at[i] = slices.Index(have, w)
		if at[i] < 0 {
			missing = append(missing, w)
		}
	}
	switch len(missing) {
	case 0:
		return at, nil
	case 1:
		return at, fmt.Errorf("no column %q%s; the file has %s", missing[0], didYouMean(missing[0], have), listed(have))
	case len(want):
		return at, fmt.Errorf("the file has none of its columns: it has %s; is this the mapping for it?", listed(have))
	}
	return at, fmt.Errorf("no columns %s; the file has %s", strings.Join(missing, ", "), listed(have))
}

// listed names columns, as many as can be read.
func listed(columns []string) string {
	rest := ""
	if n := len(columns); n > listedMax {
		columns, rest = columns[:listedMax], fmt.Sprintf(", and %d more", n-listedMax)
	}
	short := make([]string, len(columns))
	for i, c := range columns {
		short[i] = fmt.Sprintf("%.60s", c)
	}
	return strings.Join(short, ", ") + rest
}

// pick copies the wanted columns of a row that has its number of columns.
func pick(into, fields []string, at []int, width int, line int64) error {
	if len(fields) != width {
		return otherWidth(line, len(fields), width)
	}
	for i, a := range at {
		if !utf8.ValidString(fields[a]) {
			return &rowError{line: line, reason: fmt.Sprintf("column %d is not UTF-8: %.60q; is the file in windows-1252? Then say so by encoding", a+1, fields[a])}
		}
		into[i] = strings.TrimSpace(fields[a])
	}
	return nil
}

func otherWidth(line int64, width, want int) error {
	return &rowError{line: line, reason: fmt.Sprintf("%d columns instead of %d", width, want)}
}

// leash is a reader that gives up when a row is too long, or has too many columns.
type leash struct {
	r         io.Reader
	separator byte
	left      int // bytes of the row
	separated int // separators of it
	err       error
}

var (
	errRowTooLong = fmt.Errorf("a row has more than %d bytes; is a quote or a line end missing?", rowBytesMax)
	errRowTooWide = fmt.Errorf("a row has more than %d columns; is a quote or a line end missing?", separatorsMax)
)

func (l *leash) begin() { l.left, l.separated = rowBytesMax, 0 }

func (l *leash) Read(b []byte) (int, error) {
	switch {
	case l.left <= 0:
		l.err = errRowTooLong
	case l.separated > separatorsMax:
		l.err = errRowTooWide
	}
	if l.err != nil {
		return 0, l.err
	}
	n, err := l.r.Read(b[:min(len(b), l.left)])
	l.left -= n
	l.separated += bytes.Count(b[:n], []byte{l.separator})
	return n, err
}

type csvRows struct {
	r     *csv.Reader
	leash *leash
	at    []int
	width int
	row   row
}

func newCSVRows(r io.Reader, m *Mapping, columns []string) (*csvRows, error) {
	l := &leash{r: r, separator: ','}
	l.begin()
	c := &csvRows{r: csv.NewReader(l), leash: l, row: row{values: make([]string, len(columns))}}
	c.r.ReuseRecord, c.r.FieldsPerRecord, c.r.LazyQuotes = true, -1, m.LazyQuotes
	if m.Separator != "" {
		l.separator = m.Separator[0]
		c.r.Comma = rune(l.separator)
	}
	have := m.Columns
	if m.Header {
		header, err := c.r.Read()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("1: the header is missing: the file is empty")
		}
		if err := firstError(l.err, err); err != nil {
			return nil, fmt.Errorf("1: header: %w", err)
		}
		if err := headerFits(len(header)); err != nil {
			return nil, err
		}
		have = cleanHeader(header)
	}
	c.width = len(have)
	var err error
	c.at, err = place(columns, have)
	return c, err
}

func headerFits(columns int) error {
	if columns > columnsMax {
		return fmt.Errorf("1: the header has %d columns, more than %d; is this the file's first line?", columns, columnsMax)
	}
	return nil
}

// cleanHeader copies a header without the blanks around its names.
func cleanHeader(header []string) []string {
	have := slices.Clone(header)
	for i := range have {
		have[i] = strings.Clone(strings.TrimSpace(have[i]))
	}
	return have
}

func (c *csvRows) next() (row, error) {
	c.leash.begin()
	fields, err := c.r.Read()
	if c.leash.err != nil { // whatever the reader makes of the piece that it has
		return row{}, scanError(c.leash.err, c.row.line)
	}
	if pe, ok := errors.AsType[*csv.ParseError](err); ok {
		return row{}, &rowError{line: int64(pe.StartLine), reason: pe.Err.Error()}
	}
	if errors.Is(err, io.EOF) {
		return row{}, io.EOF
	}
	if err != nil {
		return row{}, scanError(err, c.row.line)
	}
	line, _ := c.r.FieldPos(0)
	c.row.line = int64(line)
	return c.row, pick(c.row.values, fields, c.at, c.width, c.row.line)
}

// textRows are lines whose columns stand between tabs (tsv) or runs of blanks and
// tabs (blanks), with nothing quoted.
type textRows struct {
	s     *bufio.Scanner
	count func(string) int
	split func(string) []string
	at    []int
	width int
	row   row
}

func newTextRows(r io.Reader, m *Mapping, columns []string) (*textRows, error) {
	t := &textRows{s: lines(r), row: row{values: make([]string, len(columns))}}
	t.count, t.split = countFields, strings.Fields
	if m.Format == "tsv" {
		t.count = func(s string) int { return strings.Count(s, "\t") + 1 }
		t.split = func(s string) []string { return strings.Split(s, "\t") }
	}
	have := m.Columns
	if m.Header {
		if !t.s.Scan() {
			return nil, firstError(scanError(t.s.Err(), 0), errors.New("1: the header is missing: the file is empty"))
		}
		t.row.line++
		if err := headerFits(t.count(t.s.Text())); err != nil {
			return nil, err
		}
		have = cleanHeader(t.split(t.s.Text()))
	}
	t.width = len(have)
	var err error
	t.at, err = place(columns, have)
	return t, err
}

func (t *textRows) next() (row, error) {
	for t.s.Scan() {
		t.row.line++
		text := t.s.Text()
		if strings.TrimSpace(text) == "" {
			continue
		}
		if n := t.count(text); n != t.width { // without cutting it into millions
			return row{}, otherWidth(t.row.line, n, t.width)
		}
		return t.row, pick(t.row.values, t.split(text), t.at, t.width, t.row.line)
	}
	return row{}, firstError(scanError(t.s.Err(), t.row.line), io.EOF)
}

// countFields is how many strings.Fields gives.
func countFields(s string) (n int) {
	for range strings.FieldsSeq(s) {
		n++
	}
	return n
}

func lines(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), rowBytesMax)
	return s
}

func scanError(err error, line int64) error {
	if errors.Is(err, bufio.ErrTooLong) {
		err = errRowTooLong
	}
	if err != nil {
		return fmt.Errorf("%d: %w", line+1, err)
	}
	return nil
}

// firstError returns the first error there is.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// jsonRows are lines of JSON objects. A column is a path of names with dots; in a
// nested row a path that begins with the array's name looks into the event's element.
type jsonRows struct {
	s      *bufio.Scanner
	nested string
	paths  [][]string
	inner  []bool // the path is looked up in the element
	names  []string
	line   int64
	outer  map[string]any
	elems  []any
	row    row
}

func newJSONRows(r io.Reader, nested string, columns []string) *jsonRows {
	j := &jsonRows{s: lines(r), nested: nested, names: columns, row: row{values: make([]string, len(columns))}}
	for _, c := range columns {
		rest, inner := strings.CutPrefix(c, nested+".")
		inner = inner && nested != ""
		if !inner {
			rest = c
		}
		j.paths = append(j.paths, strings.Split(rest, "."))
		j.inner = append(j.inner, inner)
	}
	return j
}

func (j *jsonRows) next() (row, error) {
	for j.nested == "" || j.row.n >= len(j.elems) {
		if err := j.scan(); err != nil {
			return row{}, err
		}
		if j.nested == "" {
			return j.fill(nil)
		}
	}
	j.row.n++
	elem, ok := j.elems[j.row.n-1].(map[string]any)
	if !ok {
		return row{}, &rowError{line: j.line, column: j.nested, reason: fmt.Sprintf("element %d is not an object", j.row.n)}
	}
	return j.fill(elem)
}

// scan decodes the next line that is not blank.
func (j *jsonRows) scan() error {
	j.outer, j.elems, j.row.n = nil, nil, 0
	for {
		if !j.s.Scan() {
			return firstError(scanError(j.s.Err(), j.line), io.EOF)
		}
		j.line++
		j.row.line = j.line
		if len(bytes.TrimSpace(j.s.Bytes())) > 0 {
			break
		}
	}
	if !utf8.Valid(j.s.Bytes()) {
		return &rowError{line: j.line, reason: "not UTF-8"}
	}
	d := json.NewDecoder(bytes.NewReader(j.s.Bytes()))
	d.UseNumber() // the decimal text, not a float
	if err := d.Decode(&j.outer); err != nil {
		if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return &rowError{line: j.line, reason: "a JSON object is expected, not " + kind.Value}
		}
		return &rowError{line: j.line, reason: "not JSON: " + err.Error()}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return &rowError{line: j.line, reason: "more than one JSON value"}
	}
	if j.nested == "" {
		return nil
	}
	elems, ok := j.outer[j.nested].([]any)
	if !ok {
		return &rowError{line: j.line, column: j.nested, reason: "not an array"}
	}
	j.elems = elems
	return nil
}

func (j *jsonRows) fill(elem map[string]any) (row, error) {
	for i, path := range j.paths {
		var v any = j.outer
		if j.inner[i] {
			v = elem
		}
		for _, name := range path {
			object, _ := v.(map[string]any)
			v = object[name]
		}
		switch v := v.(type) {
		case nil:
			j.row.values[i] = ""
		case string:
			j.row.values[i] = v
		case json.Number:
			j.row.values[i] = v.String()
		case bool:
			j.row.values[i] = fmt.Sprint(v)
		default:
			return j.row, &rowError{line: j.line, column: j.names[i], reason: "an array or object where a value is expected"}
		}
	}
	return j.row, nil
}
