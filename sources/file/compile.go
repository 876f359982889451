package file

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/quagmt/udecimal"

	"footfall/schemas"
)

// field is one field of the event contract, as a mapping may give it.
type field struct {
	name string
	kind fieldKind
}

type fieldKind uint8

const (
	textField fieldKind = iota
	idField             // 1 to 256 bytes
	numberField
)

// fields are the contract's fields that a mapping gives under fields, in the order
// in which they are written.
//
//nolint:gochecknoglobals // a table
var fields = [...]field{
	{"event_id", idField},
	{"user_id", idField},
	{"session_id", idField},
	{"product_id", idField},
	{"category", textField},
	{"brand", textField},
	{"price", numberField},
	{"quantity", numberField},
	{"currency", textField},
	{"cart_id", idField},
	{"order_id", idField},
	{"revenue", numberField},
	{"channel", textField},
	{"campaign", textField},
	{"url", textField},
	{"timezone", textField},
	{"birthday", textField},
}

func fieldNames() []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return names
}

// itemFields are the contract's fields of an item.
//
//nolint:gochecknoglobals // a table
var itemFields = []field{
	{"product_id", idField}, {"category", textField}, {"brand", textField}, {"price", numberField}, {"quantity", numberField},
}

// program is a mapping made ready: every column is an index into a row's values.
type program struct {
	columns []string // what a row's values are, in their order
	time    int
	parse   func(string) (schemas.Millis, error)
	types   types
	user    named
	eventID named
	orderID *named  // nil: the event id
	rest    []named // the other fields, in the contract's order
	props   []named
	by      []int // empty: no groups
	within  int
	items   []named
	skips   []skip
}

// named is a field, or a property, and where its value comes from.
type named struct {
	field
	source
	member string // the name as JSON, with its colon
}

func newNamed(f field, s source) named {
	return named{f, s, string(append(appendString(nil, f.name), ':'))}
}

// source is a Value made ready.
type source struct {
	label      string // for errors: the column, else the field
	column     int    // -1: parts
	parts      []part
	trimPrefix string
	trimSuffix string
	absolute   bool
}

// part is a piece of a template: text, or a column.
type part struct {
	text   string
	column string
	index  int
}

// builtinParts are the names in a template that are no columns; their indexes are
// partFile, partRow and partN.
//
//nolint:gochecknoglobals // a table
var builtinParts = []string{"file", "row", "n"}

const (
	partFile = -1 - iota
	partRow
	partN
)

// types gives the event type for a column's value.
type types struct {
	constant string
	column   int
	exact    map[string]string
	prefixes []prefix // longest first
}

type prefix struct{ of, gives string }

type skip struct {
	reason string
	column int
	test   test
	unless *skip
}

func compile(m *Mapping) (*program, error) {
	p := &program{}
	parse, err := timeParser(m.Time)
	if err != nil {
		return nil, err
	}
	p.time, p.parse = p.index(m.Time.Column), parse
	p.compileTypes(m.Type)
	defaultID := "{file}:{row}"
	if m.Nested != "" {
		defaultID = "{file}:{row}:{n}"
	}
	p.eventID = newNamed(fields[0], p.source("event_id", Value{Template: defaultID}))
	for _, f := range fields {
		v, ok := m.Fields[f.name]
		if !ok {
			continue
		}
		s := newNamed(f, p.source(f.name, v))
		switch f.name {
		case "event_id":
			p.eventID = s
		case "user_id":
			p.user = s
		case "order_id":
			p.orderID = &s
		default:
			p.rest = append(p.rest, s)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Properties)) {
		p.props = append(p.props, newNamed(field{name, textField}, p.source(name, m.Properties[name])))
	}
	if g := m.Group; g != nil {
		for _, by := range g.By {
			p.by = append(p.by, p.index(by))
		}
		p.within = g.Within
		p.compileItems(g.Items)
	}
	for _, s := range m.Skip {
		c := p.skip(s.Reason, Condition{Column: s.Column, When: s.When})
		if s.Unless != nil {
			unless := p.skip("", *s.Unless)
			c.unless = &unless
		}
		p.skips = append(p.skips, c)
	}
	return p, nil
}

// index returns the place of a column in a row's values, taking it up if it is new.
func (p *program) index(column string) int {
	if i := slices.Index(p.columns, column); i >= 0 {
		return i
	}
	p.columns = append(p.columns, column)
	return len(p.columns) - 1
}

func (p *program) source(label string, v Value) source {
	s := source{label: label, column: -1, trimPrefix: v.TrimPrefix, trimSuffix: v.TrimSuffix, absolute: v.Absolute}
	if v.Column != "" {
		s.label, s.column = v.Column, p.index(v.Column)
		return s
	}
	if v.Constant != "" {
		s.parts = []part{{text: v.Constant}}
		return s
	}
	s.parts, _ = parseTemplate(v.Template) // checked by check
	for i, pt := range s.parts {
		if pt.column == "" {
			continue
		}
		if b := slices.Index(builtinParts, pt.column); b >= 0 {
			s.parts[i].index = -1 - b
		} else {
			s.parts[i].index = p.index(pt.column)
		}
	}
	return s
}

func (p *program) compileTypes(t TypeMapping) {
	p.types = types{constant: t.Constant, exact: map[string]string{}}
	if t.Constant != "" {
		return
	}
	p.types.column = p.index(t.Column)
	for value, gives := range t.Values {
		if of, ok := strings.CutSuffix(value, "*"); ok {
			p.types.prefixes = append(p.types.prefixes, prefix{of, gives})
		} else {
			p.types.exact[value] = gives
		}
	}
	// Two different prefixes of one value differ in length, so the order is total
	// where it matters.
	slices.SortFunc(p.types.prefixes, func(a, b prefix) int { return len(b.of) - len(a.of) })
}

func (p *program) compileItems(items map[string]Value) {
	for _, f := range itemFields {
		if v, ok := items[f.name]; ok {
			p.items = append(p.items, newNamed(f, p.source(f.name, v)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(items)) {
		if !slices.ContainsFunc(itemFields, func(f field) bool { return f.name == name }) {
			p.items = append(p.items, newNamed(field{name, textField}, p.source(name, items[name])))
		}
	}
}

func (p *program) skip(reason string, c Condition) skip {
	t, err := parseTest(c.When)
	if err != nil {
		panic(err) // check has parsed it
	}
	return skip{reason: reason, column: p.index(c.Column), test: t}
}

// parseTemplate cuts a template at its {columns}.
func parseTemplate(template string) ([]part, error) {
	var parts []part
	for rest := template; rest != ""; {
		text, after, found := strings.Cut(rest, "{")
		if text != "" {
			parts = append(parts, part{text: text})
		}
		if !found {
			break
		}
		column, next, closed := strings.Cut(after, "}")
		if !closed || column == "" {
			return nil, fmt.Errorf("template %q: a { needs a column's name and a }", template)
		}
		parts = append(parts, part{column: column})
		rest = next
	}
	return parts, nil
}

// test is a condition on one value.
type test struct {
	op    string
	text  string
	limit udecimal.Decimal
}

// parseTest reads a condition such as "empty", "like C*" or "<= 0".
func parseTest(when string) (test, error) {
	op, operand, _ := strings.Cut(strings.TrimSpace(when), " ")
	operand = strings.TrimSpace(operand)
	t := test{op: op, text: operand}
	switch op {
	case "empty", "present":
		if operand == "" {
			return t, nil
		}
	case "=", "!=":
		return t, nil
	case "like":
		if p, ok := strings.CutSuffix(operand, "*"); ok && p != "" {
			t.text = p
			return t, nil
		}
	case "<", "<=", ">", ">=":
		d, err := udecimal.Parse(operand)
		if err == nil {
			t.limit = d
			return t, nil
		}
	}
	return test{}, fmt.Errorf("condition %q: use empty, present, = x, != x, like x*, < n, <= n, > n or >= n", when)
}

// holds tells whether v meets the condition. A value that should be a number and is
// none is an error.
func (t *test) holds(v string) (bool, error) {
	switch t.op {
	case "empty":
		return v == "", nil
	case "present":
		return v != "", nil
	case "=":
		return v == t.text, nil
	case "!=":
		return v != t.text, nil
	case "like":
		return strings.HasPrefix(v, t.text), nil
	}
	d, err := udecimal.Parse(v)
	if err != nil {
		return false, fmt.Errorf("%q is not a number", v)
	}
	c := d.Cmp(t.limit)
	switch t.op {
	case "<":
		return c < 0, nil
	case "<=":
		return c <= 0, nil
	case ">":
		return c > 0, nil
	default:
		return c >= 0, nil
	}
}

func location(zone string) (*time.Location, error) {
	if zone == "" {
		return time.UTC, nil
	}
	return time.LoadLocation(zone)
}
