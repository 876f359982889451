package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// project is a folder with a Makefile and a git index.
func project(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range files {
		write(t, root, name, text)
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}} {
		c := exec.CommandContext(t.Context(), "git", args...)
		c.Dir = root
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return root
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func hash(t *testing.T, root string) string {
	t.Helper()
	h, err := treeHash(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A tree is its code: prose, package comments and the ledger itself make no other one.
func TestTreeHash(t *testing.T) {
	root := project(t, map[string]string{
		"a.go": "package a\n\nvar A = 1\n", "doc.go": "// Package a is one.\npackage a\n", "README.md": "one", "go.mod": "module a\n",
		"tagged.go": "//go:build x\n\npackage a\n", "schema.sql": "SELECT 1", "l/ledger.ndjson": "{}",
	})
	first := hash(t, root)
	for name, text := range map[string]string{"doc.go": "// Package a is another.\npackage a\n", "README.md": "two", "l/ledger.ndjson": "{}\n{}", "untracked.go": "package a"} {
		write(t, root, name, text)
		if hash(t, root) != first {
			t.Errorf("%s made another tree", name)
		}
	}
	for name, text := range map[string]string{"a.go": "package a\n\nvar A = 2\n", "go.mod": "module b\n", "tagged.go": "//go:build y\n\npackage a\n", "schema.sql": "SELECT 2"} {
		before := hash(t, root)
		write(t, root, name, text)
		if hash(t, root) == before {
			t.Errorf("%s made no other tree", name)
		}
	}
}

// Slices are run in turn, the part that is least far first, and the next run goes on
// where the ledger ends; another tree begins anew.
func TestCampaign(t *testing.T) {
	root := project(t, map[string]string{"Makefile": "sim:\n\t@echo \"$(SEEDS) seeds, 0 violations\"; echo $(FROM) >>$(CURDIR)/from\n" +
		"mutants:\n\t@echo '41 caught, 1 missed'; exit 1\n"})
	only := []string{"-root", root, "-ledger", "ledger.ndjson", "-only", "^(sim|mutants)$"}
	var out strings.Builder
	err := run(t.Context(), append(only, "-for", "1ns"), &out)
	if err != nil || !strings.Contains(out.String(), "simulation seeds") {
		t.Fatalf("got %v, want a table\n%s", err, &out)
	}
	out.Reset()
	err = run(t.Context(), append(only, "-for", "10m"), &out)
	if err == nil || !strings.Contains(err.Error(), "1 violation") {
		t.Errorf("got %v, want the mutant's violation\n%s", err, &out)
	}
	tree := hash(t, root)
	l, err := openLedger(filepath.Join(root, "ledger.ndjson"), tree)
	if err != nil {
		t.Fatal(err)
	}
	if sim, mutants := l.of("sim"), l.of("mutants"); sim.count != 300_000 || sim.violations != 0 || sim.slices != 100 || mutants.count != 41 || mutants.violations != 1 {
		t.Errorf("got %+v and %+v", sim, mutants)
	}
	from, err := os.ReadFile(filepath.Join(root, "from"))
	if err != nil || !strings.HasPrefix(string(from), "1\n3001\n6001\n") {
		t.Errorf("slices began at %.40q, %v", from, err)
	}
	if !strings.Contains(out.String(), "< 3/300000 = 1e-05") {
		t.Errorf("no bound in\n%s", &out)
	}
	write(t, root, "Makefile", "sim:\n\t@echo nothing\n")
	if l, err = openLedger(filepath.Join(root, "ledger.ndjson"), hash(t, root)); err != nil || l.of("sim").count != 0 {
		t.Errorf("another tree has %d seeds done, %v", l.of("sim").count, err)
	}
}

// What the tests tell is added up; a slice that tells nothing has failed.
func TestTold(t *testing.T) {
	p := &part{name: "kills", told: "kills"}
	var s slice
	s.read(p, "ok", []byte("{\"what\":\"kills\",\"count\":7,\"failed\":false,\"hits\":{\"a\":2,\"b\":5}}\n{\"what\":\"other\",\"count\":1}\n{\"what\":\"kills\",\"count\":8,\"failed\":true,\"hits\":{\"a\":8}}\n"))
	if s.Count != 15 || s.Violations != 1 || len(s.Facts) != 2 {
		t.Errorf("got %+v", s)
	}
	if got := note(p, &total{facts: s.Facts}); got != "kills: 2 kinds of moments (least often: b, 5)" {
		t.Errorf("got %q", got)
	}
	s = slice{}
	if s.read(p, "no tests", nil); s.Violations != 1 {
		t.Error("a slice that says nothing counts as done")
	}
	if _, err := openLedger(filepath.Join(t.TempDir(), "none"), "x"); err != nil {
		t.Error(err)
	}
}
