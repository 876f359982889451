package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// code is what a part runs on: packages of the module as go lists them, with all that
// their tests depend on.
type code struct {
	tags     string
	packages string // patterns
}

// trees are the hashes of what each part runs on. Parts of the same code share one.
func trees(ctx context.Context, root string, all []part) (map[string]string, error) {
	known, out := map[code]string{}, map[string]string{}
	for i := range all {
		p := &all[i]
		if known[p.on] == "" {
			h, err := p.on.hash(ctx, root)
			if err != nil {
				return nil, fmt.Errorf("what %s runs on: %w", p.name, err)
			}
			known[p.on] = h
		}
		out[p.name] = known[p.on]
	}
	return out, nil
}

// hash identifies the files as they are now: those of the packages within the module that
// the tests are built from, what is embedded in them and what lies in their testdata; the
// versions of all others, which stand in go.mod and go.sum. Prose does not count, nor do
// Go files that hold nothing but a package comment.
func (c code) hash(ctx context.Context, root string) (string, error) {
	files, err := c.files(ctx, root)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed, and not committed yet
		}
		if err != nil {
			return "", err
		}
		if matters(name, text) {
			fmt.Fprintf(h, "%s %d\n%s", name, len(text), text)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6]), nil
}

// listed is what go says of a package. The files of its tests are among those of the
// variant of it that is tested, and those of nobody else's tests.
type listed struct {
	ImportPath, Dir string
	Module          *struct{ Main bool }

	GoFiles, CgoFiles, OtherFiles, EmbedFiles []string
}

// files are sorted, and relative to the root.
func (c code) files(ctx context.Context, root string) ([]string, error) {
	args := append([]string{"list", "-deps", "-test", "-tags", c.tags, "-json=ImportPath,Dir,Module,GoFiles,CgoFiles,OtherFiles,EmbedFiles"}, strings.Fields(c.packages)...)
	out, err := output(ctx, root, "go", args...)
	if err != nil {
		return nil, err
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	all := map[string]bool{"go.mod": true, "go.sum": true}
	var data []string // folders
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		if p.Module == nil || !p.Module.Main || strings.HasSuffix(p.ImportPath, ".test") { // its file is go's own
			continue
		}
		dir, err := filepath.Rel(root, p.Dir)
		if err != nil {
			return nil, err
		}
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.OtherFiles, p.EmbedFiles) {
			all[filepath.ToSlash(filepath.Join(dir, name))] = true
		}
		data = append(data, filepath.ToSlash(filepath.Join(dir, "testdata")))
	}
	slices.Sort(data)
	tracked, err := output(ctx, root, "git", append([]string{"ls-files", "-z", "--"}, slices.Compact(data)...)...)
	if err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(string(tracked), "\x00") {
		if name != "" {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all)), nil
}

// output runs a command in a folder.
func output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, name, args...) //nolint:gosec // git and go
	c.Dir = dir
	out, err := c.Output()
	if bad, ok := errors.AsType[*exec.ExitError](err); ok {
		err = cmp.Or(errors.New(strings.TrimSpace(string(bad.Stderr))), err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return out, nil
}

// matters tells the files that a test can depend on.
func matters(name string, text []byte) bool {
	switch filepath.Ext(name) {
	case ".md":
		return false
	case ".go":
		return declares(text)
	}
	return true
}

// declares tells whether a Go file holds more than its package clause.
func declares(text []byte) bool {
	f, err := parser.ParseFile(token.NewFileSet(), "", text, parser.SkipObjectResolution|parser.ParseComments)
	if err != nil || len(f.Decls) > 0 {
		return true
	}
	return bytes.Contains(text[:f.Package-1], []byte("//go:build"))
}
