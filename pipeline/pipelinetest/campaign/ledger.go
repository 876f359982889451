package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// slice is a line of the ledger: what one slice has come to.
type slice struct {
	Tree       string           `json:"tree"`
	Part       string           `json:"part"`
	At         time.Time        `json:"at"`
	Seconds    float64          `json:"seconds"`
	From       int              `json:"from"`
	Count      int              `json:"count"`
	Violations int              `json:"violations"`
	Facts      []map[string]any `json:"facts,omitempty"` // what the tests have told
	Error      string           `json:"error,omitempty"`
	Log        string           `json:"log,omitempty"`
}

// ledger is what was done on this tree, and the file that keeps it.
type ledger struct {
	path, tree string
	lines      []slice
	newest     string // tree of the last line, whatever it is; empty: there is none
}

func openLedger(path, tree string) (*ledger, error) {
	l := &ledger{path: path, tree: tree}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	d := json.NewDecoder(bufio.NewReader(f))
	for n := 1; ; n++ {
		var s slice
		switch err := d.Decode(&s); {
		case errors.Is(err, io.EOF):
			return l, nil
		case err != nil:
			return nil, fmt.Errorf("%s: line %d: %w", path, n, err)
		}
		if l.newest = s.Tree; s.Tree == tree {
			l.lines = append(l.lines, s)
		}
	}
}

// add writes a line.
func (l *ledger) add(s slice) error {
	s.Tree = l.tree
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	l.lines = append(l.lines, s)
	return errors.Join(err, f.Close())
}

// total is what a part has come to.
type total struct {
	count, violations, slices int
	seconds                   float64
	facts                     []map[string]any
}

func (l *ledger) of(part string) *total {
	t := &total{}
	for _, s := range l.lines {
		if s.Part == part {
			t.count += s.Count
			t.violations += s.Violations
			t.slices++
			t.seconds += s.Seconds
			t.facts = append(t.facts, s.Facts...)
		}
	}
	return t
}

func (l *ledger) violations() (n int) {
	for _, s := range l.lines {
		n += s.Violations
	}
	return n
}

// treeHash identifies the tracked files that matter, as they are now: all but prose, the
// ledger, and Go files that hold nothing but a package comment.
func treeHash(ctx context.Context, root string) (string, error) {
	c := exec.CommandContext(ctx, "git", "ls-files", "-z")
	c.Dir = root
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("git ls-files: %w", err)
	}
	names := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	slices.Sort(names)
	h := sha256.New()
	for _, name := range names {
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

// matters tells the files that a test can depend on.
func matters(name string, text []byte) bool {
	switch filepath.Ext(name) {
	case ".md":
		return false
	case ".go":
		return declares(text)
	}
	switch filepath.Base(name) {
	case "LICENSE", ".gitignore", ".golangci.yml", "ledger.ndjson", "docker-compose.yml", "Dockerfile":
		return false
	}
	return !strings.HasPrefix(name, ".ci/")
}

// declares tells whether a Go file holds more than its package clause.
func declares(text []byte) bool {
	f, err := parser.ParseFile(token.NewFileSet(), "", text, parser.SkipObjectResolution|parser.ParseComments)
	if err != nil || len(f.Decls) > 0 {
		return true
	}
	return bytes.Contains(text[:f.Package-1], []byte("//go:build"))
}
