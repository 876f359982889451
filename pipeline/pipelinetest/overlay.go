package pipelinetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Edit is one change of one file: Old, which is in it exactly once, becomes New.
type Edit struct {
	File     string // from the root that Overlay is given, with slashes
	Old, New string
}

// Overlay writes changed copies of files into dir, and beside them the specification
// that `go build -overlay` takes, whose path it returns. The tree under root is left
// as it is: bugs and failpoints of tests never reach a build without the overlay.
//
// Edits are made one after the other, each to what the ones before have left. add
// holds files that the tree does not have, by their path from root. Neither may name
// a file outside of root.
func Overlay(root, dir string, edits []Edit, add map[string]string) (spec string, err error) {
	root, err = filepath.Abs(root)
	if err != nil {
		return "", err
	}
	texts := maps.Clone(add)
	if texts == nil {
		texts = map[string]string{}
	}
	for file := range add {
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(file))); err == nil {
			return "", fmt.Errorf("overlay: %s is to be added, and is there already", file)
		}
	}
	for _, e := range edits {
		text, ok := texts[e.File]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(e.File)))
			if err != nil {
				return "", fmt.Errorf("overlay: %w", err)
			}
			text = string(b)
		}
		if n := strings.Count(text, e.Old); n != 1 {
			return "", fmt.Errorf("overlay: %s has this %d times, want once:\n%s", e.File, n, e.Old)
		}
		texts[e.File] = strings.Replace(text, e.Old, e.New, 1)
	}
	replace := map[string]string{}
	for i, file := range slices.Sorted(maps.Keys(texts)) {
		if !filepath.IsLocal(filepath.FromSlash(file)) {
			return "", fmt.Errorf("overlay: %s is not below %s", file, root)
		}
		copied := filepath.Join(dir, fmt.Sprintf("%d-%s", i, filepath.Base(file)))
		if err := os.WriteFile(copied, []byte(texts[file]), 0o600); err != nil {
			return "", fmt.Errorf("overlay: %w", err)
		}
		replace[filepath.Join(root, filepath.FromSlash(file))] = copied
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	spec = filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(spec, b, 0o600); err != nil {
		return "", fmt.Errorf("overlay: %w", err)
	}
	return spec, nil
}
