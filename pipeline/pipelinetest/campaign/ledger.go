package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
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

// ledger is what was done, and the file that keeps it.
type ledger struct {
	path  string
	trees map[string]string // by part: the tree that counts
	lines []slice
}

func openLedger(path string, trees map[string]string) (*ledger, error) {
	l := &ledger{path: path, trees: trees}
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
		l.lines = append(l.lines, s)
	}
}

// add writes a line.
func (l *ledger) add(s slice) error {
	s.Tree = l.trees[s.Part]
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

// counts tells whether a line is of the tree that counts.
func (l *ledger) counts(s *slice) bool { return s.Tree == l.trees[s.Part] }

// older has every part of which nothing was done on its tree count on the newest that it
// ran on, and says which.
func (l *ledger) older(all []part) (parts map[string]bool) {
	parts = map[string]bool{}
	for i := range all {
		name := all[i].name
		if l.of(name).slices > 0 {
			continue
		}
		for j := range l.lines {
			if l.lines[j].Part == name {
				l.trees[name], parts[name] = l.lines[j].Tree, true
			}
		}
	}
	return parts
}

// total is what a part has come to.
type total struct {
	count, violations, slices int
	seconds                   float64
	facts                     []map[string]any
}

func (l *ledger) of(part string) *total {
	t := &total{}
	for i := range l.lines {
		if s := &l.lines[i]; s.Part == part && l.counts(s) {
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
	for i := range l.lines {
		if s := &l.lines[i]; l.counts(s) {
			n += s.Violations
		}
	}
	return n
}
