package rehearsal

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"footfall/pipeline/segment"
	"footfall/schemas/yamltext"
)

// yamlReader reads one file, and notes all that is wrong with it.
type yamlReader struct {
	file string
	errs []error
}

func (r *yamlReader) errorf(tk *token.Token, format string, args ...any) {
	e := &segment.Error{File: r.file, What: fmt.Sprintf(format, args...)}
	if tk != nil {
		e.Line, e.Column = tk.Position.Line, tk.Position.Column
	}
	r.errs = append(r.errs, e)
}

// document parses the file; nil and an error noted if it is none.
func (r *yamlReader) document(text []byte) ast.Node {
	parsed, err := yamltext.Parse(text, limits())
	bad, ok := errors.AsType[*yamltext.Error](err)
	switch {
	case ok:
		r.errs = append(r.errs, &segment.Error{File: r.file, Line: bad.Line, Column: bad.Column, What: bad.What})
	case err != nil:
		r.errorf(nil, "%v", err)
	case len(parsed.Docs) != 1 || parsed.Docs[0].Body == nil:
		r.errorf(nil, "want one document with examples:, got %d", len(parsed.Docs))
	default:
		return parsed.Docs[0].Body
	}
	return nil
}

// pairs gives a mapping's keys and values, or notes that it wants one.
func (r *yamlReader) pairs(node ast.Node, what string) []*ast.MappingValueNode {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	r.errorf(node.GetToken(), "%s: want keys with values", what)
	return nil
}

// list gives a list's items, or notes that it wants one.
func (r *yamlReader) list(node ast.Node, what string) []ast.Node {
	if n, ok := node.(*ast.SequenceNode); ok {
		return n.Values
	}
	r.errorf(node.GetToken(), "%s: want a list", what)
	return nil
}

// text reads a scalar as it was written, or notes that it wants one.
func (r *yamlReader) text(node ast.Node, what string) (string, bool) {
	if s, ok := scalar(node); ok {
		return s, true
	}
	r.errorf(node.GetToken(), "%s: want one value", what)
	return "", false
}

// scalar is a scalar as it was written, so that 12.50 stays a decimal of two places.
func scalar(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return node.GetToken().Value, true
	}
	return "", false
}

func isNull(node ast.Node) bool {
	return node.Type() == ast.NullType || node.Type() == ast.CommentType
}

func (r *yamlReader) unknown(key *token.Token, known ...string) {
	r.errorf(key, "unknown key %q%s", key.Value, segment.Suggest(key.Value, known))
}

// appendJSON writes a YAML value as JSON. Numbers keep their digits.
func (r *yamlReader) appendJSON(dst []byte, node ast.Node) []byte {
	switch n := node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		dst = append(dst, '{')
		for i, pair := range r.pairs(n, "") {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendText(dst, pair.Key.GetToken().Value), ':')
			dst = r.appendJSON(dst, pair.Value)
		}
		return append(dst, '}')
	case *ast.SequenceNode:
		dst = append(dst, '[')
		for i, item := range n.Values {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = r.appendJSON(dst, item)
		}
		return append(dst, ']')
	case *ast.IntegerNode, *ast.FloatNode:
		if s := strings.ReplaceAll(node.GetToken().Value, "_", ""); json.Valid([]byte(s)) {
			return append(dst, s...)
		}
	case *ast.BoolNode:
		return strconv.AppendBool(dst, n.Value)
	case *ast.NullNode:
		return append(dst, "null"...)
	}
	if s, ok := scalar(node); ok {
		return appendText(dst, s)
	}
	r.errorf(node.GetToken(), "want a text, a number, a list or keys with values")
	return append(dst, "null"...)
}

func appendText(dst []byte, s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a text has no value that can't be written
	}
	return append(dst, b...)
}
