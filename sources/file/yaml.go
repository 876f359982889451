package file

import (
	"fmt"
	"io"
	"os"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of a YAML file. The parser takes time and memory with the square of the
// depth and of a mapping's keys: without limits a megabyte of "[" takes hours.
const (
	YAMLMax       = 1 << 20 // bytes
	yamlTokensMax = 20_000  // a key with its value has three
	yamlDepthMax  = 64      // of brackets, and of nesting within one line
)

// ReadYAML reads a file, if it is not too large to be parsed.
func ReadYAML(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	src, err := io.ReadAll(io.LimitReader(f, YAMLMax+1))
	if err != nil {
		return nil, err
	}
	return src, tooLarge(path, src)
}

func tooLarge(path string, src []byte) error {
	if len(src) > YAMLMax {
		return fmt.Errorf("%s: more than %d bytes; is it a YAML file of ours?", path, YAMLMax)
	}
	return nil
}

// ParseYAML parses YAML within the limits; errors have the form path:line:column:
// message. It refuses what lets a short text stand for an endless one: anchors, and what refers
// to them; and tags, which nothing here asks for.
func ParseYAML(path string, src []byte) (*ast.File, error) {
	if err := tooLarge(path, src); err != nil {
		return nil, err
	}
	tokens := lexer.Tokenize(string(src))
	if len(tokens) > yamlTokensMax {
		return nil, fmt.Errorf("%s: more than %d words and signs; a file of ours has a few hundred", path, yamlTokensMax)
	}
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
			return nil, fmt.Errorf("%s:%d:%d: anchors, aliases and merge keys are not supported", path, t.Position.Line, t.Position.Column)
		case token.TagType: // of a list that is none the decoder makes a panic
			return nil, fmt.Errorf("%s:%d:%d: tags such as %s are not supported", path, t.Position.Line, t.Position.Column, t.Value)
		default:
		}
		if open+nested > yamlDepthMax {
			return nil, fmt.Errorf("%s:%d:%d: nested more than %d deep", path, t.Position.Line, t.Position.Column, yamlDepthMax)
		}
	}
	tree, err := parser.Parse(tokens, 0)
	if err != nil {
		return nil, yamlError(path, err)
	}
	return tree, nil
}
