package file

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/goccy/go-yaml/ast"

	"footfall/schemas/yamltext"
)

// ReadYAML reads a file, if it is not too large to be parsed.
func ReadYAML(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	most := yamltext.Ours().Bytes
	src, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err == nil && len(src) > most {
		err = fmt.Errorf("%s: more than %d bytes; is it a YAML file of ours?", path, most)
	}
	return src, err
}

// ParseYAML parses YAML within the limits of what people write by hand; errors have the
// form path:line:column: message.
func ParseYAML(path string, src []byte) (*ast.File, error) {
	tree, err := yamltext.Parse(src, yamltext.Ours())
	if bad, ok := errors.AsType[*yamltext.Error](err); ok && bad.Line > 0 {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return tree, nil
}
