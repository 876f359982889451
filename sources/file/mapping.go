package file

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// Mapping declares how the rows of a file become events. mappings/ has one for
// each data set we know, and they are the best introduction; a user's own is a
// file like them.
type Mapping struct {
	// Name is what it was loaded by: a built-in name or a path.
	Name string `yaml:"-"`

	// Description is one line for the list of mappings.
	Description string `yaml:"description"`

	// Format is csv, tsv, blanks (columns between blanks or tabs), ndjson, or events:
	// lines that are events of the contract already, which pass as they are.
	Format string `yaml:"format"`

	// Separator is the one character between the columns of a csv; a comma if empty.
	Separator string `yaml:"separator"`

	// LazyQuotes takes a csv's quotes as they come, such as in 5" screen.
	LazyQuotes bool `yaml:"lazy_quotes"`

	// Encoding is utf-8 (also if empty) or windows-1252, which Latin-1 is part of.
	Encoding string `yaml:"encoding"`

	// Header says that the first row names the columns. Without it Columns does. An
	// ndjson needs neither: a column is a path such as price or item.price.
	Header  bool     `yaml:"header"`
	Columns []string `yaml:"columns"`

	// Nested names the array of an ndjson line whose elements are the events; its
	// columns are written with that name before a dot.
	Nested string `yaml:"nested"`

	// Sorted promises that times never decrease, so that the file can be streamed;
	// a time that goes back is then an error. Otherwise it is sorted in memory.
	Sorted bool `yaml:"sorted"`

	Time TimeMapping `yaml:"time"`
	Type TypeMapping `yaml:"type"`

	// Fields gives the fields of the event contract, by their names. Without
	// event_id it is "{file}:{row}", without order_id that of a purchase or refund is
	// its event_id.
	Fields map[string]Value `yaml:"fields"`

	// Properties gives what the contract has no field for.
	Properties map[string]Value `yaml:"properties"`

	// Group makes one event of the rows that agree in a column.
	Group *Group `yaml:"group"`

	// Skip lists the rows that are no events; the first that holds gives the reason.
	Skip []Skip `yaml:"skip"`
}

// TimeMapping says where the event time is and how it is written.
type TimeMapping struct {
	Column string `yaml:"column"`
	Layout string `yaml:"layout"` // as in Go's time package; or
	Unit   string `yaml:"unit"`   // s, ms, us or ns since 1970
	Zone   string `yaml:"zone"`   // of a layout without one, such as Europe/Berlin; UTC if empty
}

// TypeMapping gives the event's type: a constant, or by a column's values. The
// value "abc*" stands for all that begin with abc; an exact one goes before it, and a
// longer one before a shorter.
type TypeMapping struct {
	Constant string            `yaml:"constant"`
	Column   string            `yaml:"column"`
	Values   map[string]string `yaml:"values"`
}

// Value says where a field comes from: in YAML a column's name, or one of column,
// constant and template with what to do to it. An empty value is an absent field.
type Value struct {
	Column     string `yaml:"column"`
	Constant   string `yaml:"constant"`
	Template   string `yaml:"template"` // text with {column}, {file}, {row} and {n} (number within a nested row)
	TrimPrefix string `yaml:"trim_prefix"`
	TrimSuffix string `yaml:"trim_suffix"`
	Absolute   bool   `yaml:"absolute"` // drop a number's sign
}

// UnmarshalYAML lets a bare column's name stand for {column: name}.
func (v *Value) UnmarshalYAML(decode func(any) error) error {
	var column string
	if decode(&column) == nil {
		*v = Value{Column: column}
		return nil
	}
	type plain Value // without this method
	return decode((*plain)(v))
}

// Group makes one event of the rows whose columns By are equal: its fields are those
// of the first row, and every row gives one of its items. The rows need not be
// neighbours: up to Within others may lie between two of them.
type Group struct {
	By     Columns          `yaml:"by"`
	Within int              `yaml:"within"`
	Items  map[string]Value `yaml:"items"` // the contract's names; others are kept as text
}

// Columns are names of columns: in YAML a list of them, or one name.
type Columns []string

// UnmarshalYAML lets a bare name stand for a list of one.
func (c *Columns) UnmarshalYAML(decode func(any) error) error {
	var column string
	if decode(&column) == nil {
		*c = Columns{column}
		return nil
	}
	return decode((*[]string)(c))
}

// Skip is a condition under which a row is no event, and the reason to count it by.
type Skip struct {
	Reason string     `yaml:"reason"`
	Column string     `yaml:"column"`
	When   string     `yaml:"when"` // empty, present, = x, != x, like x*, < n, <= n, > n, >= n
	Unless *Condition `yaml:"unless"`
}

// Condition is a test of a column, written as in Skip.
type Condition struct {
	Column string `yaml:"column"`
	When   string `yaml:"when"`
}

//go:embed mappings/*.yaml
var builtin embed.FS

// Mappings returns the names of the built-in mappings, sorted.
func Mappings() []string {
	entries, err := fs.ReadDir(builtin, "mappings")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	slices.Sort(names) // "a-b.yaml" stands before "a.yaml" in a folder
	return names
}

// LoadMapping reads the built-in mapping of that name, or the mapping file at that
// path, and checks it: the error joins all that is wrong with it.
func LoadMapping(name string) (*Mapping, error) {
	if slices.Contains(Mappings(), name) {
		src, err := builtin.ReadFile("mappings/" + name + ".yaml")
		if err != nil {
			panic(err) // the name is in the list
		}
		return ParseMapping(name, src)
	}
	src, err := ReadYAML(name)
	if errors.Is(err, fs.ErrNotExist) && filepath.Base(name) == name && filepath.Ext(name) == "" {
		return nil, fmt.Errorf("no mapping %q; there are %s, or give the path of a mapping file%s",
			name, strings.Join(Mappings(), ", "), didYouMean(name, Mappings()))
	}
	if err != nil {
		return nil, fmt.Errorf("read mapping: %w", err)
	}
	return ParseMapping(name, src)
}

// ParseMapping reads a mapping from its YAML; name stands in its errors.
func ParseMapping(name string, src []byte) (*Mapping, error) {
	tree, err := ParseYAML(name, src)
	if err != nil {
		return nil, err
	}
	m := &Mapping{}
	if err := yaml.UnmarshalWithOptions(src, m, yaml.Strict()); err != nil {
		return nil, yamlError(name, err)
	}
	m.Name = name
	if err := check(m, tree); err != nil {
		return nil, err
	}
	return m, nil
}
