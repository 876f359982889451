// Package segments holds the segment sets that footfall is shipped with. It may
// read what is embedded in it, and nothing else.
package segments

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed *.yaml
var files embed.FS //nolint:gochecknoglobals // embedded

// Names are the names of the shipped sets, sorted.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // it is embedded
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
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
