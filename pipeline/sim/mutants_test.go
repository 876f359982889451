package sim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"footfall/pipeline/pipelinetest"
)

// A mutant is a bug of our own: one change of one file. All of them are compiled into
// one overlay, each behind a switch, and one is switched on by its number at run
// time; so every test binary is built once for all.
type mutant struct {
	name string
	file string // from the repository's root
	old  string // once in the file
	bug  string // what stands in its place; ON is true while the bug is switched on
	by   catcher
}

// controls are the pipelines of controls_test.go, which are wrong without a mutant.
func controls() []struct{ name, test string } {
	return []struct{ name, test string }{
		{"control: the naive ClickHouse sink", "TestNaiveSinkIsFound"},
		{"control: the producer that ignores promises", "TestIgnoredPromisesAreFound"},
	}
}

// A catcher is what has to find a mutant.
type catcher struct {
	folder string // of the test binary, from the repository's root
	run    string // tests
	from   uint64 // of the simulation: the seed to begin with, near one that found it when this was written
}

// Catchers besides named tests.
func seedsFrom(n uint64) catcher { return catcher{"pipeline/sim", "^TestSeeds$", n} }

func archiveSeeds() catcher {
	return catcher{"pipeline/archive", "^(TestTableEqualsLog|TestOnceByReadBack|TestNothingTwice)$", 0}
}
func test(folder, name string) catcher { return catcher{folder, "^(" + name + ")$", 0} }

// switchFile is added to every package that has a mutant.
const switchFile = `package %s

import (
	"os"
	"strconv"
)

var switchedOn, _ = strconv.Atoi(os.Getenv("FOOTFALL_TEST_MUTANT"))

func mutated(number int) bool { return switchedOn == number }
`

const root = "../.."

// overlay writes the files with all mutants in them, and returns what go build
// takes for -overlay. Mutants are numbered from 1.
func overlay(t *testing.T, dir string) string {
	t.Helper()
	var edits []pipelinetest.Edit
	switches := map[string]string{}
	for i, m := range mutants() {
		bug := regexp.MustCompile(`\bON\b`).ReplaceAllString(m.bug, fmt.Sprintf("mutated(%d)", i+1))
		edits = append(edits, pipelinetest.Edit{File: m.file, Old: m.old, New: bug})
		folder := path.Dir(m.file)
		switches[path.Join(folder, "mutated.go")] = fmt.Sprintf(switchFile, path.Base(folder))
	}
	spec, err := pipelinetest.Overlay(root, dir, edits, switches)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// TestMutantsHaveTheirPlace holds that the code has not moved away from under a mutant.
func TestMutantsHaveTheirPlace(t *testing.T) {
	overlay(t, t.TempDir())
	names := map[string]bool{}
	for _, m := range mutants() {
		if names[m.name] {
			t.Errorf("two mutants are named %q", m.name)
		}
		names[m.name] = true
	}
}

// TestMutantsAreCaught runs what has to find a bug with the bug, one bug after the
// other, and prints a table of who found it. Without any bug nothing may fail.
func TestMutantsAreCaught(t *testing.T) {
	switch {
	case os.Getenv("FOOTFALL_TEST_MUTANT") != "":
		t.Skip("this is a mutant")
	case os.Getenv("FOOTFALL_TEST_MUTANTS") == "":
		t.Skip("builds and runs eight packages' tests with every bug: make mutants does")
	}
	only := regexp.MustCompile(strings.TrimPrefix(os.Getenv("FOOTFALL_TEST_MUTANTS"), "1")) // 1: all
	bins := build(t)
	var rows []*row
	for i, m := range mutants() {
		rows = append(rows, &row{number: i + 1, name: m.name, by: m.by.run + " of " + m.by.folder, folder: m.by.folder, run: func(ctx context.Context) verdict {
			return bins.trial(ctx, m.by, i+1)
		}})
	}
	for _, c := range controls() {
		rows = append(rows, &row{number: len(rows) + 1, name: c.name, by: c.test, folder: "pipeline/sim", run: func(ctx context.Context) verdict { return bins.control(ctx, c.test) }})
	}
	rows = slices.DeleteFunc(rows, func(r *row) bool { return !only.MatchString(r.name) })
	var wg sync.WaitGroup
	n := runtime.GOMAXPROCS(0)
	places := map[bool]chan struct{}{true: make(chan struct{}, 2*n), false: make(chan struct{}, n)}
	attempt := func(folder string, f func()) {
		place := places[folder == "sources/kafka"] // its tests wait more than they work
		wg.Go(func() { place <- struct{}{}; defer func() { <-place }(); f() })
	}
	for folder, tests := range bins.tests {
		attempt(folder, func() {
			c := catcher{folder, "^(" + strings.Join(tests, "|") + ")$", 1}
			if v := bins.trial(t.Context(), c, 0); v.caught || v.text != through {
				t.Errorf("without a mutant, in %s: %s", folder, v.text)
			}
		})
	}
	for _, r := range rows {
		attempt(r.folder, func() { r.verdict = r.run(t.Context()) })
	}
	wg.Wait()
	var missed []*row
	for _, r := range rows {
		text := r.verdict.text
		if !r.verdict.caught {
			missed, text = append(missed, r), "MISSED"
		}
		fmt.Printf("%3d  %-58s  %s\n", r.number, r.name, text)
	}
	for _, r := range missed { // behind the table, where nobody overlooks them
		t.Errorf("%d %s: missed by %s: %s", r.number, r.name, r.by, r.verdict.text)
	}
	fmt.Printf("%d caught, %d missed\n", len(rows)-len(missed), len(missed))
}

// row is one of the table: what is wrong, and who found it.
type row struct {
	number   int
	name, by string
	folder   string
	run      func(ctx context.Context) verdict
	verdict  verdict
}

// verdict is what became of a bug, in words.
type verdict struct {
	caught bool
	text   string
}

const through = "its tests pass"

// binaries are the test binaries with all mutants in them.
type binaries struct {
	dir   string
	tests map[string][]string // by folder: those that have to find something
}

func (b *binaries) file(folder string) string {
	return filepath.Join(b.dir, strings.ReplaceAll(folder, "/", "-")+".test")
}

func build(t *testing.T) *binaries {
	t.Helper()
	b := &binaries{dir: t.TempDir(), tests: map[string][]string{}}
	for _, m := range mutants() {
		name := strings.TrimSuffix(strings.TrimPrefix(strings.Trim(m.by.run, "^$"), "("), ")")
		b.tests[m.by.folder] = append(b.tests[m.by.folder], name)
	}
	spec := overlay(t, b.dir)
	for folder := range b.tests {
		cmd := exec.CommandContext(t.Context(), "go", "test", "-tags", "smallpieces", "-c", "-overlay", spec, "-o", b.file(folder), ".") //nolint:gosec // our own paths
		cmd.Dir = filepath.Join(root, folder)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s with mutants: %v\n%s", folder, err, out)
		}
	}
	return b
}

// Limits of one trial. The test binary ends itself before it is ended.
const (
	trialSeeds = 150
	trialTime  = 4 * time.Minute
	trialEnds  = "3m"
)

// start runs a test binary, and gives what it has written.
func (b *binaries) start(ctx context.Context, folder string, number int, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.file(folder), append([]string{"-test.timeout", trialEnds}, args...)...) //nolint:gosec // our own paths
	cmd.Dir = filepath.Join(root, folder)
	cmd.Env = append(os.Environ(), "FOOTFALL_TEST_MUTANT="+strconv.Itoa(number), "FOOTFALL_TEST_SEEDS=300")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// trial says who caught a mutant, or why nobody did. What is no failure of a test, nor a
// panic, is nobody's merit; nor is a test that runs out of time, which a slow machine
// makes of any.
func (b *binaries) trial(ctx context.Context, by catcher, number int) verdict {
	args := []string{"-test.run", by.run}
	if by.folder == "pipeline/sim" {
		args = append(args, "-from", fmt.Sprint(by.from), "-seeds", fmt.Sprint(trialSeeds), "-most", "1", "-test.cpu", "1")
	}
	text, err := b.start(ctx, by.folder, number, args...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return verdict{false, through}
	case !errors.As(err, &exit) || !exit.Exited():
		return verdict{false, err.Error()}
	case strings.Contains(text, "panic: test timed out after "):
		return verdict{false, "it has neither failed nor passed after " + trialEnds}
	}
	if by.folder == "pipeline/sim" {
		if m := regexp.MustCompile(`seed (\d+): ([^\n]*)`).FindStringSubmatch(text); m != nil {
			seed, _ := strconv.ParseUint(m[1], 10, 64)
			return verdict{true, fmt.Sprintf("simulation, after %d seeds (seed %d): %.90s", seed-by.from+1, seed, m[2])}
		}
	}
	if m := regexp.MustCompile(`(?s)--- FAIL: (\w+).*?\n\s+\S+\.go:\d+: ([^\n]*)`).FindStringSubmatch(text); m != nil {
		return verdict{true, fmt.Sprintf("%s.%s: %.90s", path.Base(by.folder), m[1], m[2])}
	}
	if m := regexp.MustCompile(`(panic|fatal error): [^\n]*`).FindString(text); m != "" {
		return verdict{true, fmt.Sprintf("%s: %.110s", path.Base(by.folder), m)}
	}
	return verdict{false, fmt.Sprintf("%v: %.300s", err, text)}
}

// control says how many seeds find a pipeline that is wrong; its own test has judged that.
func (b *binaries) control(ctx context.Context, test string) verdict {
	text, err := b.start(ctx, "pipeline/sim", 0, "-test.run", "^"+test+"$", "-test.v", "-test.cpu", "1")
	found := regexp.MustCompile(`found by (\d+ of \d+ seeds): \[([^ \]]*)`).FindStringSubmatch(text)
	if err != nil || found == nil {
		return verdict{false, fmt.Sprintf("%v: %.300s", err, text)}
	}
	return verdict{true, fmt.Sprintf("simulation, by %s (first %s)", found[1], found[2])}
}
