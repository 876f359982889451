package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

func hash(t *testing.T, root, part string) string {
	t.Helper()
	all, err := trees(t.Context(), root, parts())
	if err != nil {
		t.Fatal(err)
	}
	return all[part]
}

// module has the packages that the parts run on: the simulation depends on the engine, and
// the command on the engine and on what it has of its own.
func module(makefile string) map[string]string {
	return map[string]string{
		"Makefile": makefile, "go.mod": "module a\n\ngo 1.26\n", "README.md": "one", "ledger.ndjson": "",
		"pipeline/doc.go": "// Package pipeline is one.\npackage pipeline\n", "pipeline/run.go": "package pipeline\n\nvar A = 1\n",
		"pipeline/run_test.go": "package pipeline\n\nvar T = 1\n",
		"pipeline/sim/sim.go":  "package sim\n\nimport _ \"a/pipeline\"\n", "pipeline/sim/sim_test.go": "package sim\n\nvar T = 1\n",
		"pipeline/sim/small.go": "//go:build smallpieces\n\npackage sim\n", "pipeline/sim/testdata/seed": "1",
		"pipeline/brokersim/b.go": "package brokersim\n\nvar A = 1\n", "pipeline/worker/w.go": "package worker\n\nvar A = 1\n",
		"schemas/s.go": "package schemas\n\nimport _ \"embed\"\n\n//go:embed s.sql\nvar A string\n", "schemas/s.sql": "SELECT 1",
		"sinks/s.go": "package sinks\n\nimport _ \"a/schemas\"\n", "sources/s.go": "package sources\n",
		"cmd/footfall/main.go": "package main\n\nimport (\n\t_ \"a/pipeline\"\n\t_ \"a/sinks\"\n)\n\nfunc main() {}\n",
	}
}

// A part's tree is the code that it runs on: what only others run on makes no other one,
// nor do prose, package comments and the ledger itself.
func TestTrees(t *testing.T) {
	root := project(t, module(""))
	for _, c := range []struct {
		file, text string
		sim, kills bool
	}{
		{"README.md", "two", false, false},
		{"ledger.ndjson", "{}", false, false},
		{"Makefile", "sim:\n", false, false},
		{"pipeline/doc.go", "// Package pipeline is another.\npackage pipeline\n", false, false},
		{"pipeline/run_test.go", "package pipeline\n\nvar T = 2\n", false, false}, // others' tests
		{"cmd/footfall/main.go", "package main\n\nimport (\n\t_ \"a/pipeline\"\n\t_ \"a/sinks\"\n)\n\nfunc main() { print() }\n", false, true},
		{"schemas/s.sql", "SELECT 2", false, true},
		{"pipeline/sim/sim_test.go", "package sim\n\nvar T = 2\n", true, false},
		{"pipeline/sim/testdata/seed", "2", true, false},
		{"pipeline/sim/small.go", "//go:build smallpieces\n\npackage sim\n\nvar S = 1\n", true, false},
		{"pipeline/run.go", "package pipeline\n\nvar A = 2\n", true, true},
		{"go.mod", "module a\n\ngo 1.25\n", true, true},
	} {
		sim, kills := hash(t, root, "sim"), hash(t, root, "kills")
		write(t, root, c.file, c.text)
		if got := hash(t, root, "sim") != sim; got != c.sim {
			t.Errorf("%s: another tree of the simulation: %v, want %v", c.file, got, c.sim)
		}
		if got := hash(t, root, "kills") != kills; got != c.kills {
			t.Errorf("%s: another tree of the kills: %v, want %v", c.file, got, c.kills)
		}
	}
}

// Slices are run in turn, the part that is least far first, and the next run goes on
// where the ledger ends; another tree begins its parts anew, and no others.
func TestCampaign(t *testing.T) {
	root := project(t, module("corruptions:\n\t@echo \"$(N) corruptions, 0 silent\"; echo $(FROM)$(ONLY) >>$(CURDIR)/from\n"+
		"mutants:\n\t@echo '41 caught, 1 missed'; exit 1\n"))
	t.Setenv("ONLY", "which parts") // as make has it
	only := []string{"-root", root, "-ledger", "ledger.ndjson", "-only", "^(corruptions|mutants)$"}
	var out strings.Builder
	err := run(t.Context(), append(only, "-for", "1ns"), &out)
	if err != nil || !strings.Contains(out.String(), "random corruptions") {
		t.Fatalf("got %v, want a table\n%s", err, &out)
	}
	out.Reset()
	err = run(t.Context(), append(only, "-for", "10m", "-first", "800001"), &out)
	if err == nil || !strings.Contains(err.Error(), "1 violation") {
		t.Errorf("got %v, want the mutant's violation\n%s", err, &out)
	}
	of := func(part string) *total {
		now, err := trees(t.Context(), root, parts())
		if err != nil {
			t.Fatal(err)
		}
		l, err := openLedger(filepath.Join(root, "ledger.ndjson"), now)
		if err != nil {
			t.Fatal(err)
		}
		return l.of(part)
	}
	if done, mutants := of("corruptions"), of("mutants"); done.count != 1_000_000 || done.violations != 0 || done.slices != 10 || mutants.count != 41 || mutants.violations != 1 {
		t.Errorf("got %+v and %+v", done, mutants)
	}
	from, err := os.ReadFile(filepath.Join(root, "from"))
	if err != nil || !strings.HasPrefix(string(from), "800001\n900001\n1\n100001\n") {
		t.Errorf("slices began at %.40q, %v", from, err)
	}
	if !strings.Contains(out.String(), "< 3/1000000 = 3e-06") {
		t.Errorf("no bound in\n%s", &out)
	}
	before := hash(t, root, "corruptions")
	write(t, root, "cmd/footfall/other.go", "package main\n\nvar A = 1\n")
	if n := of("corruptions").count; n != 1_000_000 {
		t.Errorf("%d corruptions are done after a change that they do not know, want all", n)
	}
	write(t, root, "pipeline/worker/w.go", "package worker\n\nvar A = 2\n")
	if n := of("corruptions").count; n != 0 {
		t.Errorf("another worker has %d corruptions done, want none", n)
	}
	out.Reset()
	if err := run(t.Context(), append(only, "-report"), &out); err != nil || !strings.Contains(out.String(), before+" (older)") {
		t.Errorf("got %v, want a report of the older tree %s\n%s", err, before, &out)
	}
}

// A broker that does not start says nothing of footfall: the slice is tried again, and no
// line of the ledger tells of it.
func TestDidNotBegin(t *testing.T) {
	root := project(t, module("chaos:\n\t@echo >>starts; [ $$(wc -l <starts) -ge $$(cat patience) ] || { echo 'kafka: node 1 died'; exit 1; }; "+
		"echo '=== RUN'; echo '{\"what\":\"recoveries\",\"count\":3}' >>$$FOOTFALL_TEST_LEDGER\n"))
	args := []string{"-root", root, "-ledger", "ledger.ndjson", "-only", "^recovery$"}
	var out strings.Builder
	write(t, root, "patience", "7")
	if err := run(t.Context(), args, &out); err == nil || !strings.Contains(err.Error(), "recovery: 3 times: did not begin") || !strings.Contains(err.Error(), "node 1 died") {
		t.Errorf("got %v, want it to give up\n%s", err, &out)
	}
	if told, err := os.ReadFile(filepath.Join(root, "ledger.ndjson")); err != nil || len(told) > 0 {
		t.Errorf("the ledger has %q, %v", told, err)
	}
	write(t, root, "patience", "5")
	if err := run(t.Context(), args, &out); err != nil || !strings.Contains(out.String(), "3 done of 3, 0 violations") {
		t.Errorf("got %v, want 3 recoveries\n%s", err, &out)
	}
}

// Every test and flag that a part names is one that the command has.
func TestPartsAreThere(t *testing.T) {
	folder := filepath.Join("..", "..", "..", "cmd", "footfall")
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s: %v", folder, err)
	}
	var code strings.Builder
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	for _, p := range parts() {
		for _, arg := range p.make {
			if name, ok := strings.CutPrefix(arg, "ONLY=^"); ok {
				want := "\nfunc " + strings.Replace(strings.ReplaceAll(name, ".*", `\w*`), "$$", `\(t \*testing\.T\)`, 1)
				if !regexp.MustCompile(want).MatchString(code.String()) {
					t.Errorf("%s: no test %q in cmd/footfall", p.name, name)
				}
			}
			for word := range strings.FieldsSeq(strings.TrimPrefix(arg, "ARGS=")) {
				flag, ok := strings.CutPrefix(word, "-")
				if ok && !regexp.MustCompile(`flag\.\w+\("`+regexp.QuoteMeta(flag)+`", `).MatchString(code.String()) {
					t.Errorf("%s: no flag -%s in cmd/footfall", p.name, flag)
				}
			}
		}
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
	s.read(p, "ok", []byte(`{"what":"kills","count":1,"failed":false,"broker_faults":2,"hits":{"c":0}}`))
	if got := note(p, &total{facts: s.Facts}); got != "kills: 2 kinds of moments (least often: b, 5); never at c; 2 partitions in which the broker left a transaction without its markers, ended as an operator would" {
		t.Errorf("with a fault of the broker's: got %q", got)
	}
	l := &ledger{trees: map[string]string{}, lines: []slice{s}}
	l.lines[0].Part = p.name
	p.target, p.points = 16, 2
	if err := shortfalls([]part{*p}, l); err != nil {
		t.Errorf("enough failpoints: %v", err)
	}
	if p.points = 3; shortfalls([]part{*p}, l) == nil {
		t.Error("too few failpoints were hit, and the campaign is content")
	}
	if p.target = 17; shortfalls([]part{*p}, l) != nil {
		t.Error("it is not done yet")
	}
	s = slice{}
	if s.read(p, "no tests", nil); s.Violations != 1 {
		t.Error("a slice that says nothing counts as done")
	}
	if _, err := openLedger(filepath.Join(t.TempDir(), "none"), nil); err != nil {
		t.Error(err)
	}
}
