package segment

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"footfall/schemas"
	"footfall/schemas/yamltext"
)

// File is a segment set as somebody wrote it, in YAML.
type File struct {
	Name string // for errors
	Text []byte
}

// Error is what is wrong at one place of a file.
type Error struct {
	File         string
	Line, Column int // from 1; 0: of the whole file
	What         string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.What
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.What)
}

// expression is the text of one, and where it stands.
type expression struct {
	text         string
	line, column int  // of its first character
	exact        bool // whether columns within it can be told
	indent       int  // column before the first of its further lines
}

// written is a set as its file has it.
type written struct {
	file   string
	name   string
	at     *token.Token
	about  string
	zone   string
	zoneAt *token.Token

	reentry   *Reentry // of segments that say nothing of their own
	reentryAt *token.Token
	quiet     *Quiet // nil: what the options say
	apart     bool   // does not count among what is capped
	defines   []named
	segments  []named
}

// named is a definition, or a segment with its rule.
type named struct {
	name      string
	at        *token.Token
	about     string
	when      *expression
	otherwise bool

	reentry   *Reentry
	reentryAt *token.Token
}

// fileReader reads one file and notes all that is wrong with it.
type fileReader struct {
	file  string
	lines []string
	errs  []error
}

func (r *fileReader) errorf(tk *token.Token, format string, args ...any) {
	e := &Error{File: r.file, What: fmt.Sprintf(format, args...)}
	if tk != nil {
		e.Line, e.Column = tk.Position.Line, tk.Position.Column
	}
	r.errs = append(r.errs, e)
}

// read reads the file of a set.
func (f File) read() (*written, error) {
	r := &fileReader{file: f.Name, lines: strings.Split(string(f.Text), "\n")}
	parsed, err := yamltext.Parse(f.Text, yamltext.Ours())
	switch {
	case err != nil:
		return nil, f.bad(err)
	case len(parsed.Docs) == 1 && parsed.Docs[0].Body == nil:
		r.errorf(nil, "want set: and segments:, got nothing")
		return nil, errors.Join(r.errs...)
	case len(parsed.Docs) != 1:
		r.errorf(nil, "want one document with set: and segments:, got %d", len(parsed.Docs))
		return nil, errors.Join(r.errs...)
	}
	w := &written{file: f.Name}
	r.set(parsed.Docs[0].Body, w)
	return w, errors.Join(r.errs...)
}

// bad is what is wrong with a file's YAML.
func (f File) bad(err error) error {
	if e, ok := errors.AsType[*yamltext.Error](err); ok {
		return &Error{File: f.Name, Line: e.Line, Column: e.Column, What: e.What}
	}
	return &Error{File: f.Name, What: err.Error()}
}

// pairs gives a mapping's keys and values, or an error that wants one.
func (r *fileReader) pairs(node ast.Node, what string) []*ast.MappingValueNode {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	r.errorf(node.GetToken(), "%s: want keys with values", what)
	return nil
}

func (r *fileReader) set(body ast.Node, w *written) {
	for _, pair := range r.pairs(body, "a set") {
		key := pair.Key.GetToken()
		switch key.Value {
		case "set":
			w.name, w.at = r.name(pair.Value), pair.Value.GetToken()
			if w.name == "user_id" { // of the columns of SQL the only one that is no set's
				r.errorf(w.at, "set: user_id is what ClickHouse calls the user beside the sets; choose another name")
			}
		case "about":
			w.about, _ = r.text(pair.Value)
		case "zone":
			w.zone, _ = r.text(pair.Value)
			w.zoneAt = pair.Value.GetToken()
		case "reentry":
			w.reentry, w.reentryAt = r.reentry(pair.Value), pair.Value.GetToken()
		case "quiet":
			w.quiet = r.quiet(pair.Value)
		case "capped":
			b, ok := pair.Value.(*ast.BoolNode)
			if !ok {
				r.errorf(pair.Value.GetToken(), "capped: want true or false")
			}
			w.apart = ok && !b.Value
		case "define":
			for _, d := range r.pairs(pair.Value, "define") {
				n := named{name: r.name(d.Key), at: d.Key.GetToken()}
				n.when = r.expression(d.Value)
				w.defines = append(w.defines, n)
			}
		case "segments":
			r.segments(pair.Value, w)
		default:
			r.errorf(key, "unknown key %q%s", key.Value, suggest(key.Value, []string{"set", "about", "zone", "reentry", "quiet", "capped", "define", "segments"}))
		}
	}
	if w.at == nil {
		r.errorf(body.GetToken(), "set: is missing: the set's name, as in set: lifecycle")
	}
	if len(w.segments) == 0 && len(r.errs) == 0 {
		r.errorf(body.GetToken(), "segments: is missing: a list of segments, each with name: and when:, the last with otherwise: true")
	}
}

func (r *fileReader) segments(node ast.Node, w *written) {
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		r.errorf(node.GetToken(), "segments: want a list")
		return
	}
	for i, item := range list.Values {
		s := named{at: item.GetToken()}
		for _, pair := range r.pairs(item, "a segment") {
			key := pair.Key.GetToken()
			switch key.Value {
			case "name":
				s.name, s.at = r.name(pair.Value), pair.Value.GetToken()
			case "about":
				s.about, _ = r.text(pair.Value)
			case "when":
				s.when = r.expression(pair.Value)
			case "reentry":
				s.reentry, s.reentryAt = r.reentry(pair.Value), pair.Value.GetToken()
			case "otherwise":
				b, ok := pair.Value.(*ast.BoolNode)
				if s.otherwise = ok && b.Value; !s.otherwise {
					r.errorf(pair.Value.GetToken(), "otherwise: want true")
				}
			default:
				r.errorf(key, "unknown key %q%s", key.Value, suggest(key.Value, []string{"name", "about", "when", "otherwise", "reentry"}))
			}
		}
		last := i == len(list.Values)-1
		switch {
		case s.name == "":
			r.errorf(s.at, "a segment needs a name")
		case s.otherwise && s.when != nil:
			r.errorf(s.at, "segment %q: either when: or otherwise:, not both", s.name)
		case s.otherwise && !last:
			r.errorf(s.at, "segment %q: otherwise: takes everybody who is left, so no segment can come after it", s.name)
		case last && !s.otherwise:
			r.errorf(s.at, "segment %q: the last segment takes everybody who is left: write otherwise: true", s.name)
		case !s.otherwise && s.when == nil:
			r.errorf(s.at, "segment %q: when: is missing", s.name)
		}
		for _, other := range w.segments {
			if other.name == s.name && s.name != "" {
				r.errorf(s.at, "segment %q is there twice; join their conditions by ||", s.name)
			}
		}
		w.segments = append(w.segments, s)
	}
}

var nameForm = regexp.MustCompile(fmt.Sprintf(`^[a-z][a-z0-9_]{0,%d}$`, schemas.NameMax-1))

func (r *fileReader) name(node ast.Node) string {
	s, ok := r.text(node)
	if ok && !nameForm.MatchString(s) {
		r.errorf(node.GetToken(), "name %q: want small letters, digits and _, beginning with a letter, at most %d", s, schemas.NameMax)
	}
	return s
}

// text reads a scalar.
func (r *fileReader) text(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode:
		return node.GetToken().Value, true
	}
	r.errorf(node.GetToken(), "want a text")
	return "", false
}

// expression reads an expression, with its place.
func (r *fileReader) expression(node ast.Node) *expression {
	s, ok := r.text(node)
	if !ok {
		return nil
	}
	tk := node.GetToken()
	e := &expression{text: strings.TrimRight(s, "\n"), line: tk.Position.Line, column: tk.Position.Column}
	switch n := node.(type) {
	case *ast.LiteralNode:
		e.line, e.exact = e.line+1, strings.HasPrefix(n.Start.Value, "|")
		for _, line := range r.lines[min(e.line-1, len(r.lines)):] {
			if text := strings.TrimLeft(line, " "); strings.TrimSpace(text) != "" { // blank ones have no indent of their own
				e.indent = len(line) - len(text)
				break
			}
		}
		e.column = e.indent + 1
	default:
		if tk.Type == token.SingleQuoteType || tk.Type == token.DoubleQuoteType {
			e.column++
		}
		e.exact = !strings.Contains(s, "\n") && tk.Position.Line <= len(r.lines) && strings.Contains(r.lines[tk.Position.Line-1], s)
	}
	return e
}

// at turns a fault within an expression into an error of the file.
func (e *expression) at(file string, f *fault) *Error {
	out := &Error{File: file, Line: e.line, Column: e.column, What: f.what}
	switch {
	case !e.exact:
	case f.line == 1:
		out.Column += f.column - 1
	default:
		out.Line, out.Column = e.line+f.line-1, e.indent+f.column
	}
	return out
}

// sorted joins errors in the order of files and places.
func sorted(errs []error) error {
	var all []*Error
	var flatten func(error)
	flatten = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				flatten(e)
			}
			return
		}
		if e, ok := errors.AsType[*Error](err); ok {
			all = append(all, e)
		} else if err != nil {
			all = append(all, &Error{What: err.Error()})
		}
	}
	for _, err := range errs {
		flatten(err)
	}
	slices.SortStableFunc(all, func(a, b *Error) int {
		if a.File != b.File {
			return strings.Compare(a.File, b.File)
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	out := make([]error, 0, len(all))
	for i, e := range all {
		if i == 0 || *e != *all[i-1] {
			out = append(out, e)
		}
	}
	return errors.Join(out...)
}
