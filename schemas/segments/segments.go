// Package segments holds the segment sets that footfall is shipped with, and the
// examples that each is tested by. It may read what is embedded in it, and nothing else.
package segments

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed *.yaml
var files embed.FS

// Names are the names of the shipped sets, sorted.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // it is embedded
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".yaml"); ok && !strings.HasSuffix(name, ".test") {
			names = append(names, name)
		}
	}
	return names
}

// Read gives the text of a shipped set.
func Read(name string) ([]byte, error) {
	text, err := files.ReadFile(name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("no set %q is shipped; there are %s", name, strings.Join(Names(), ", "))
	}
	return text, nil
}

// Examples gives the text of a shipped set's examples.
func Examples(name string) ([]byte, error) {
	if _, err := Read(name); err != nil {
		return nil, err
	}
	return files.ReadFile(name + ".test.yaml")
}
