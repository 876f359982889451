package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"footfall/sources/file"
)

// A reader puts a YAML file's values into the fields of a table. It walks the syntax
// tree instead of decoding into a struct, because the tree knows where each key
// stands: errors name line and column, and all of them are found in one pass.
type reader struct {
	path   string // of the file, for errors
	config *Config
	table  []option
	errs   []error
}

// readYAML sets what the file says, and returns everything that is wrong with it.
func (c *Config) readYAML(path string, text []byte, table []option) []error {
	r := &reader{path: path, config: c, table: table}
	tree, err := file.ParseYAML(path, text)
	if err != nil {
		return []error{err}
	}
	for i, doc := range tree.Docs {
		if i > 0 {
			r.second(doc)
			break
		}
		if doc.Body != nil {
			r.section("", doc.Body)
		}
	}
	return r.errs
}

// second refuses a second document. One that is empty may have no token of its own.
func (r *reader) second(doc *ast.DocumentNode) {
	const why = "a second document; one file is one document"
	switch {
	case doc.Start != nil:
		r.errorf(doc.Start, why)
	case doc.Body != nil:
		r.errorf(doc.Body.GetToken(), why)
	default:
		r.errs = append(r.errs, fmt.Errorf("%s: %s", r.path, why))
	}
}

func (r *reader) at(tk *token.Token) origin {
	return origin(fmt.Sprintf("%s:%d:%d", r.path, tk.Position.Line, tk.Position.Column))
}

func (r *reader) errorf(tk *token.Token, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s: "+format, append([]any{r.at(tk)}, args...)...))
}

// section reads a mapping whose keys stand below prefix ("" or "kafka.tls.").
func (r *reader) section(prefix string, node ast.Node) {
	if node.Type() == ast.NullType || node.Type() == ast.CommentType {
		return // "kafka:" with everything below it commented out
	}
	pairs, ok := mapping(node)
	if !ok {
		r.errorf(node.GetToken(), "%s: want keys with values, have %s", r.name(prefix), kind(node))
		return
	}
	for _, pair := range pairs {
		name := pair.Key.GetToken().Value
		key := prefix + name
		o, isOption := find(r.table, key)
		isSection := slices.ContainsFunc(r.table, func(o option) bool { return strings.HasPrefix(o.key, key+".") })
		switch {
		case strings.Contains(name, "."):
			r.errorf(pair.Key.GetToken(), "unknown key %q; dots are for variables and flags: here, write one key below the other", name)
		case isOption && o.secret:
			r.errorf(pair.Key.GetToken(), "%s is a secret and has no place in this file; set %s or %s_file", key, variable(key), key)
		case isOption:
			r.option(o, pair.Value)
		case isSection:
			r.section(key+".", pair.Value)
		default:
			r.errorf(pair.Key.GetToken(), "unknown key %q%s", key, r.suggestKey(prefix, name))
		}
	}
}

func (r *reader) name(prefix string) string {
	if prefix == "" {
		return "configuration"
	}
	return strings.TrimSuffix(prefix, ".")
}

// suggestKey looks for the nearest name where the unknown one stands; then, for a
// right name in the wrong place, for a key that ends with it.
func (r *reader) suggestKey(prefix, name string) string {
	var here []string
	for _, o := range r.table {
		if rest, ok := strings.CutPrefix(o.key, prefix); ok {
			first, _, _ := strings.Cut(rest, ".")
			if !slices.Contains(here, first) {
				here = append(here, first)
			}
		}
	}
	if s := suggest(name, here); s != "" {
		return s
	}
	for _, o := range r.table {
		if strings.HasSuffix(o.key, "."+name) {
			return fmt.Sprintf("; did you mean %q?", o.key)
		}
	}
	return ""
}

// option sets one field from a scalar, a list of scalars, or a map of scalars.
func (r *reader) option(o option, node ast.Node) {
	if node.Type() == ast.NullType || node.Type() == ast.CommentType {
		return // the default
	}
	var err error
	switch target := o.target.(type) {
	case *[]string:
		if list, ok := node.(*ast.SequenceNode); ok {
			*target = nil
			for _, item := range list.Values {
				text, ok := scalar(item)
				if !ok {
					r.errorf(item.GetToken(), "%s: want a list of words, have %s in it", o.key, kind(item))
					return
				}
				*target = append(*target, text)
			}
			break
		}
		err = r.scalar(o, node)
	case *map[string]string:
		pairs, ok := mapping(node)
		if !ok {
			r.errorf(node.GetToken(), "%s: want CURRENCY: \"RATE\" pairs, have %s", o.key, kind(node))
			return
		}
		for _, pair := range pairs {
			text, ok := scalar(pair.Value)
			if !ok {
				r.errorf(pair.Value.GetToken(), "%s.%s: want a number, have %s", o.key, pair.Key.GetToken().Value, kind(pair.Value))
				return
			}
			(*target)[pair.Key.GetToken().Value] = text
		}
	default:
		err = r.scalar(o, node)
	}
	if err != nil {
		r.errorf(node.GetToken(), "%s: %w", o.key, err)
		return
	}
	r.config.from[o.key] = r.at(node.GetToken())
}

func (r *reader) scalar(o option, node ast.Node) error {
	text, ok := scalar(node)
	if !ok {
		return fmt.Errorf("want one value, have %s", kind(node))
	}
	return set(o.target, text)
}

// scalar is a node's text as it was written, so that 0.910 stays a decimal of three
// places.
func scalar(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func mapping(node ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// kind names a node in words.
func kind(node ast.Node) string {
	switch node.Type() {
	case ast.MappingType, ast.MappingValueType:
		return "a mapping"
	case ast.SequenceType:
		return "a list"
	case ast.TagType:
		return "a tag (not supported)"
	case ast.NullType:
		return "nothing"
	default:
		return fmt.Sprintf("%q", node.GetToken().Value)
	}
}
