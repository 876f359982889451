// Package yamltext parses the YAML that people write for us: settings, mappings, sets and
// examples. It may refuse what is too large, too deep or stands for more than itself; it
// may not read a file, nor know what a key means.
package yamltext

import (
	"errors"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of a text (R4). The parser takes time and memory with the square of the depth and
// of a mapping's keys: without limits a megabyte of "[" takes hours.
type Limits struct {
	Bytes int
	Words int // and signs; a key with its value has three
}

// Ours are the limits of a file that people write by hand.
func Ours() Limits { return Limits{Bytes: 1 << 20, Words: 20_000} }

const depthMax = 64 // of brackets, and of nesting within one line

// Error is what is wrong with a text, and where.
type Error struct {
	Line, Column int // from 1; 0: of the whole text
	What         string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.What
	}
	return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.What)
}

func at(t *token.Token, format string, args ...any) error {
	return &Error{Line: t.Position.Line, Column: t.Position.Column, What: fmt.Sprintf(format, args...)}
}

// Parse parses a text within the limits; an error of it is an *Error. It refuses what lets
// a short text stand for an endless one: anchors, and what refers to them; and tags, which
// nothing here asks for.
func Parse(src []byte, l Limits) (*ast.File, error) {
	if len(src) > l.Bytes {
		return nil, &Error{What: fmt.Sprintf("more than %d bytes; is it a YAML file of ours?", l.Bytes)}
	}
	tokens := lexer.Tokenize(string(src))
	if len(tokens) > l.Words {
		return nil, &Error{What: fmt.Sprintf("more than %d words and signs; a file of ours has a few hundred", l.Words)}
	}
	if err := admit(tokens); err != nil {
		return nil, err
	}
	tree, err := parser.Parse(tokens, 0)
	var syntax yaml.Error
	switch {
	case errors.As(err, &syntax) && syntax.GetToken() != nil:
		return nil, at(syntax.GetToken(), "%s", syntax.GetMessage())
	case err != nil:
		return nil, &Error{What: err.Error()}
	}
	return tree, nil
}

// admit refuses what the parser must not see.
func admit(tokens token.Tokens) error {
	open, nested, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			nested, line = 0, t.Position.Line
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			open++
		case token.SequenceEndType, token.MappingEndType:
			open--
		case token.SequenceEntryType, token.MappingKeyType:
			nested++
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return at(t, "anchors, aliases and merge keys are not supported")
		case token.TagType: // of a list that is none the decoder makes a panic
			return at(t, "tags such as %s are not supported", t.Value)
		default:
		}
		if open+nested > depthMax {
			return at(t, "nested more than %d deep", depthMax)
		}
	}
	return nil
}
