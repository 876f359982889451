package file

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"footfall/schemas"
)

// The names a mapping may use, in the order in which they are suggested.
//
//nolint:gochecknoglobals // tables
var (
	formats    = []string{"csv", "tsv", "blanks", "ndjson", "events"}
	encodings  = []string{"utf-8", "windows-1252"}
	units      = []string{"s", "ms", "us", "ns"}
	eventTypes = []string{"view", "add_to_cart", "remove_from_cart", "purchase", "refund", "search"}

	// settings are all keys of a mapping file whose names we choose.
	settings = []string{
		"description", "format", "separator", "lazy_quotes", "encoding", "header", "columns", "nested", "sorted", "time", "type", "fields",
		"properties", "group", "skip", "column", "layout", "unit", "zone", "constant", "values", "template",
		"trim_prefix", "trim_suffix", "absolute", "by", "within", "items", "reason", "when", "unless",
	}
)

// checker collects what is wrong with a mapping, each with its place in the YAML.
type checker struct {
	name string
	tree *ast.File
	errs []error
}

// check returns all that is wrong with a mapping whose YAML could be decoded.
func check(m *Mapping, tree *ast.File) error {
	c := &checker{name: m.Name, tree: tree}
	c.oneOf("$.format", "format", m.Format, formats)
	if m.Format == "events" {
		c.nothingElse(m)
		return errors.Join(c.errs...)
	}
	c.columns(m)
	c.time(m)
	c.types(m)
	for _, name := range slices.Sorted(maps.Keys(m.Fields)) {
		at := "$.fields." + name
		if !slices.ContainsFunc(fields[:], func(f field) bool { return f.name == name }) {
			c.errorf(at, "unknown field %q%s; put what the contract has no field for under properties",
				name, didYouMean(name, fieldNames()))
		}
		c.value(at, m, m.Fields[name])
	}
	if _, ok := m.Fields["user_id"]; !ok {
		c.errorf("$.fields", "fields.user_id is missing: whose events are these?")
	}
	for _, name := range slices.Sorted(maps.Keys(m.Properties)) {
		c.value("$.properties."+name, m, m.Properties[name])
	}
	c.group(m)
	for i, s := range m.Skip {
		at := fmt.Sprintf("$.skip[%d]", i)
		if s.Reason == "" {
			c.errorf(at, "reason is missing: skipped rows are counted by it")
		}
		c.condition(at, m, Condition{Column: s.Column, When: s.When})
		if s.Unless != nil {
			c.condition(at+".unless", m, *s.Unless)
		}
	}
	return errors.Join(c.errs...)
}

// nothingElse checks a mapping of events in the contract's own form.
func (c *checker) nothingElse(m *Mapping) {
	rest := *m
	rest.Name, rest.Description, rest.Format, rest.Sorted = "", "", "", false
	if !reflect.DeepEqual(rest, Mapping{}) {
		c.errorf("$.format", "events are in the contract's form already: only description and sorted can be said of them")
	}
}

func (c *checker) columns(m *Mapping) {
	switch {
	case m.Format == "ndjson" && (m.Header || m.Columns != nil):
		c.errorf("$.format", "an ndjson has neither header nor columns: a column is a path such as item.price")
	case m.Format != "ndjson" && !m.Header && m.Columns == nil:
		c.errorf("$.format", "columns is missing: name them in their order, or set header: true")
	case m.Format != "ndjson" && m.Header && m.Columns != nil:
		c.errorf("$.columns", "header: true already names the columns")
	}
	if m.Nested != "" && m.Format != "ndjson" {
		c.errorf("$.nested", "nested needs format: ndjson")
	}
	if m.LazyQuotes && m.Format != "csv" {
		c.errorf("$.lazy_quotes", "lazy_quotes needs format: csv")
	}
	if m.Encoding != "" {
		c.oneOf("$.encoding", "encoding", m.Encoding, encodings)
	}
	if m.Separator != "" && (m.Format != "csv" || len(m.Separator) != 1 || strings.ContainsAny(m.Separator, "\"\r\n")) {
		c.errorf("$.separator", "separator is one ASCII character between the columns of a csv, got %q", m.Separator)
	}
}

func (c *checker) time(m *Mapping) {
	c.column("$.time.column", m, m.Time.Column)
	if (m.Time.Layout == "") == (m.Time.Unit == "") {
		c.errorf("$.time", "time: give one of layout (as in Go's time package) and unit (%s)", strings.Join(units, ", "))
	} else if m.Time.Unit != "" {
		c.oneOf("$.time.unit", "unit", m.Time.Unit, units)
	}
	if _, err := location(m.Time.Zone); err != nil {
		c.errorf("$.time.zone", "unknown zone %q: use a name of the IANA database, such as Europe/Berlin", m.Time.Zone)
	}
}

func (c *checker) types(m *Mapping) {
	t := m.Type
	if (t.Constant == "") == (t.Column == "") {
		c.errorf("$.type", "type: give one of constant and column with values")
		return
	}
	if t.Constant != "" {
		c.oneOf("$.type.constant", "event type", t.Constant, eventTypes)
		return
	}
	c.column("$.type.column", m, t.Column)
	if len(t.Values) == 0 {
		c.errorf("$.type", "values is missing: which value of %q is which event type?", t.Column)
	}
	for _, v := range slices.Sorted(maps.Keys(t.Values)) {
		c.oneOf("$.type.values", "event type", t.Values[v], eventTypes)
	}
}

func (c *checker) value(at string, m *Mapping, v Value) {
	if at == "$.fields.currency" && v.Constant != "" {
		if _, ok := schemas.Exponent(v.Constant); !ok {
			c.errorf(at, "unknown currency %q: use three letters of ISO 4217, such as EUR", v.Constant)
		}
	}
	n := 0
	for _, s := range []string{v.Column, v.Constant, v.Template} {
		if s != "" {
			n++
		}
	}
	if n != 1 {
		c.errorf(at, "give one of column, constant and template")
	}
	if v.Column != "" {
		c.column(at, m, v.Column)
	}
	parts, err := parseTemplate(v.Template)
	if err != nil {
		c.errorf(at, "%s", err)
	}
	for _, p := range parts {
		if p.column != "" && !slices.Contains(builtinParts, p.column) {
			c.column(at, m, p.column)
		}
	}
}

func (c *checker) group(m *Mapping) {
	g := m.Group
	if g == nil {
		return
	}
	if len(g.By) == 0 {
		c.errorf("$.group", "by is missing: which rows are one event?")
	}
	for _, by := range g.By {
		c.column("$.group", m, by)
	}
	if g.Within < 0 || g.Within > groupsMax {
		c.errorf("$.group.within", "within is 0 to %d rows, got %d", groupsMax, g.Within)
	}
	if m.Nested != "" {
		c.errorf("$.group", "nested events cannot be grouped")
	}
	if len(g.Items) == 0 {
		c.errorf("$.group", "items is missing: what of each row goes into an item?")
	}
	if _, ok := m.Fields["items"]; ok {
		c.errorf("$.fields.items", "items come from group")
	}
	for _, name := range slices.Sorted(maps.Keys(g.Items)) {
		c.value("$.group.items."+name, m, g.Items[name])
	}
}

func (c *checker) condition(at string, m *Mapping, cond Condition) {
	c.column(at, m, cond.Column)
	if _, err := parseTest(cond.When); err != nil {
		c.errorf(at, "%s", err)
	}
}

// column checks a column's name as far as the mapping tells; Open checks the rest
// against the file's header.
func (c *checker) column(at string, m *Mapping, name string) {
	switch {
	case name == "":
		c.errorf(at, "%s is missing: the name of a column", strings.TrimPrefix(at, "$."))
	case m.Columns != nil && !slices.Contains(m.Columns, name):
		c.errorf(at, "unknown column %q%s; the columns are %s", name, didYouMean(name, m.Columns), listed(m.Columns))
	}
}

func (c *checker) oneOf(at, what, got string, want []string) {
	if got == "" {
		c.errorf(at, "%s is missing: one of %s", what, strings.Join(want, ", "))
	} else if !slices.Contains(want, got) {
		c.errorf(at, "unknown %s %q%s; one of %s", what, got, didYouMean(got, want), strings.Join(want, ", "))
	}
}

// errorf notes an error at a path of the YAML, or at the nearest one above it that
// the file has.
func (c *checker) errorf(at, format string, args ...any) {
	line, column := 1, 1
	for at != "$" && at != "" {
		if l, col, ok := c.find(at); ok {
			line, column = l, col
			break
		}
		cut := strings.LastIndexAny(at, ".[")
		at = at[:max(cut, 0)]
	}
	c.errs = append(c.errs, fmt.Errorf("%s:%d:%d: %s", c.name, line, column, fmt.Sprintf(format, args...)))
}

func (c *checker) find(at string) (line, column int, ok bool) {
	path, err := yaml.PathString(at)
	if err != nil {
		return 0, 0, false
	}
	node, err := path.FilterFile(c.tree)
	if err != nil || node == nil || node.GetToken() == nil {
		return 0, 0, false
	}
	pos := node.GetToken().Position
	return pos.Line, pos.Column, true
}

// yamlError gives a decoder's error our form, file:line:column: message.
func yamlError(name string, err error) error {
	var ye yaml.Error
	if !errors.As(err, &ye) || ye.GetToken() == nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	pos, message := ye.GetToken().Position, ye.GetMessage()
	var unknown *yaml.UnknownFieldError
	var kind *yaml.TypeError
	switch {
	case errors.As(err, &kind):
		message = fmt.Sprintf("a %s where a %s is expected", kind.SrcType, kind.DstType)
	case errors.As(err, &unknown):
		message = fmt.Sprintf("unknown setting %q%s", ye.GetToken().Value, didYouMean(ye.GetToken().Value, settings))
	}
	return fmt.Errorf("%s:%d:%d: %s", name, pos.Line, pos.Column, message)
}

// namesMax bounds the names that are compared: the cost is the product of their lengths.
const namesMax = 100

// didYouMean returns the hint to add after an unknown name: the nearest valid one,
// if it is near enough to be meant.
func didYouMean(got string, valid []string) string {
	best, distance := "", len(got)/2+1
	for _, v := range valid {
		if len(got) > namesMax || len(v) > namesMax {
			continue
		}
		if d := levenshtein.ComputeDistance(got, v); d < distance {
			best, distance = v, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}
