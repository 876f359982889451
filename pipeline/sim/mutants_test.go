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
	verdicts := make([]string, len(mutants()))
	var wg sync.WaitGroup
	places := make(chan struct{}, runtime.GOMAXPROCS(0))
	attempt := func(f func()) {
		places <- struct{}{}
		wg.Go(func() { defer func() { <-places }(); f() })
	}
	for folder, tests := range bins.tests {
		attempt(func() {
			c := catcher{folder, "^(" + strings.Join(tests, "|") + ")$", 1}
			if by := bins.trial(t.Context(), c, 0); by != "" {
				t.Errorf("without a mutant, in %s: %s", folder, by)
			}
		})
	}
	for i, m := range mutants() {
		if only.MatchString(m.name) {
			attempt(func() { verdicts[i] = bins.trial(t.Context(), m.by, i+1) })
		}
	}
	wg.Wait()
	caught, missed := 0, 0
	for i, m := range mutants() {
		if !only.MatchString(m.name) {
			continue
		}
		if caught++; verdicts[i] == "" {
			caught, missed = caught-1, missed+1
			verdicts[i] = "MISSED"
			t.Errorf("%d %s (%s): missed by %s of %s", i+1, m.name, m.file, m.by.run, m.by.folder)
		}
		fmt.Printf("%3d  %-58s  %s\n", i+1, m.name, verdicts[i])
	}
	fmt.Printf("%d caught, %d missed\n", caught, missed)
}

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

// Limits of one trial.
const (
	trialSeeds = 150
	trialTime  = 100 * time.Second
)

// trial says who caught a mutant; it is empty if nobody did.
func (b *binaries) trial(ctx context.Context, by catcher, number int) string {
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	args := []string{"-test.run", by.run, "-test.timeout", "90s"}
	if by.folder == "pipeline/sim" {
		args = append(args, "-from", fmt.Sprint(by.from), "-seeds", fmt.Sprint(trialSeeds), "-most", "1", "-test.cpu", "1")
	}
	cmd := exec.CommandContext(ctx, b.file(by.folder), args...) //nolint:gosec // our own paths
	cmd.Dir = filepath.Join(root, by.folder)
	cmd.Env = append(os.Environ(), "FOOTFALL_TEST_MUTANT="+strconv.Itoa(number), "FOOTFALL_TEST_SEEDS=300")
	out, err := cmd.CombinedOutput()
	if err == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return "" // through, or neither found nor through
	}
	text := string(out)
	if by.folder == "pipeline/sim" {
		if m := regexp.MustCompile(`seed (\d+): ([^\n]*)`).FindStringSubmatch(text); m != nil {
			seed, _ := strconv.ParseUint(m[1], 10, 64)
			return fmt.Sprintf("simulation, after %d seeds (seed %d): %.90s", seed-by.from+1, seed, m[2])
		}
	}
	if m := regexp.MustCompile(`(?s)--- FAIL: (\w+).*?\n\s+\S+_test\.go:\d+: ([^\n]*)`).FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("%s.%s: %.90s", path.Base(by.folder), m[1], m[2])
	}
	if m := regexp.MustCompile(`panic: [^\n]*`).FindString(text); m != "" {
		return fmt.Sprintf("%s: %.110s", path.Base(by.folder), m)
	}
	return fmt.Sprintf("%v: %.100s", err, text)
}
