// Command campaign runs what takes hours: simulation seeds, faults of a simulated
// broker, kills of everything on a real Kafka, corruptions, mutants, fuzzing, in slices
// of minutes, and keeps in a ledger what each came to. It may run the project's own make
// targets and read what they print; it may not know what a test does.
//
//	make campaign                 until everything has reached its figure
//	make campaign FOR=2h          for two hours; the next run goes on where it stopped
//	make campaign ONLY='kills|stops'
//	make campaign-report          the table; of a part that has not run on this tree, of the newest that it has
//
// A line of the ledger belongs to the tree that it ran on: a hash of the code that its
// part runs on, and of no other (tree.go). Another tree begins the part anew.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "campaign:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("campaign", flag.ContinueOnError)
	root := flags.String("root", ".", "the project's `folder`")
	path := flags.String("ledger", "pipeline/pipelinetest/campaign/ledger.ndjson", "`file` of what was done, from the root")
	limit := flags.Duration("for", 0, "begin no slice after that long; 0: until everything is done")
	only := flags.String("only", "", "parts whose name matches the `regexp`")
	first := flags.Int("first", 1, "seeds begin with that `one`, and after the last of them go on with the first")
	report := flags.Bool("report", false, "print the table, and run nothing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	all := parts()
	now, err := trees(ctx, *root, all)
	if err != nil {
		return err
	}
	ledger, err := openLedger(filepath.Join(*root, *path), now)
	if err != nil {
		return err
	}
	if *report {
		older := ledger.older(all)
		return errors.Join(writeReport(out, all, ledger, older), shortfalls(all, ledger))
	}
	began, idle := time.Now(), 0
	for ctx.Err() == nil && (*limit == 0 || time.Since(began) < *limit) {
		p := next(all, ledger, pattern)
		if p == nil {
			break
		}
		if now, err := p.on.hash(ctx, *root); err != nil || now != ledger.trees[p.name] {
			return fmt.Errorf("%s: the tree has changed while it ran (%w): begin again", p.name, cmp.Or(err, fmt.Errorf("it was %s and is %s", ledger.trees[p.name], now)))
		}
		s, err := p.run(ctx, *root, ledger.of(p.name), *first)
		if ctx.Err() != nil {
			break // what was cut short is not counted
		}
		if err != nil {
			if idle++; idle == idleMost {
				return fmt.Errorf("%s: %d times: %w", p.name, idle, err)
			}
			fmt.Fprintf(out, "%s %-22s %v\n", s.At.Format(time.TimeOnly), p.name, err)
			continue
		}
		idle = 0
		if err := ledger.add(s); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s %-22s %9d done of %d, %d violations, %.0f s\n",
			s.At.Format(time.TimeOnly), p.name, ledger.of(p.name).count, p.target, s.Violations, s.Seconds)
	}
	err = errors.Join(writeReport(out, all, ledger, nil), shortfalls(all, ledger))
	if n := ledger.violations(); n > 0 {
		err = errors.Join(fmt.Errorf("%d violations", n), err)
	}
	return err
}

// idleMost is how often in a row a slice may not begin.
const idleMost = 3

// next is the part that is least far.
func next(all []part, l *ledger, only *regexp.Regexp) *part {
	var least *part
	far := 1.0
	for i := range all {
		p := &all[i]
		if at := float64(l.of(p.name).count) / float64(p.target); only.MatchString(p.name) && at < far {
			least, far = p, at
		}
	}
	return least
}

// run runs a part's next slice. It is an error where none of its tests began, as when the
// broker that it needs did not start: that says nothing of footfall.
func (p *part) run(ctx context.Context, root string, done *total, first int) (slice, error) {
	from := (max(first, 1)-1+done.count)%p.target + 1
	n := min(p.slice, p.target-done.count, p.target-from+1)
	fill := strings.NewReplacer("${N}", strconv.Itoa(n), "${FROM}", strconv.Itoa(from), "${SEED}", strconv.Itoa(done.slices+1))
	var args []string
	for _, a := range p.make {
		args = append(args, fill.Replace(a))
	}
	facts, err := os.CreateTemp("", "footfall-campaign-")
	if err != nil {
		return slice{}, err
	}
	defer func() { _ = os.Remove(facts.Name()) }()
	_ = facts.Close()
	c := exec.CommandContext(ctx, "make", args...)
	c.Dir = root
	// What make was told of the campaign it has put into the environment, and would tell the
	// part's make: which parts are run is not which faults are.
	c.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "ONLY=") || strings.HasPrefix(v, "FOR=") || strings.HasPrefix(v, "FIRST=")
	}), "FOOTFALL_TEST_LEDGER="+facts.Name(), "MAKEFLAGS=", "MAKELEVEL=")
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.WaitDelay = time.Minute
	var output bytes.Buffer
	c.Stdout, c.Stderr = &output, &output
	s := slice{Part: p.name, From: from, At: time.Now().UTC().Truncate(time.Second)}
	failed := c.Run()
	s.Seconds = time.Since(s.At).Round(100 * time.Millisecond).Seconds()
	told, err := os.ReadFile(facts.Name())
	if err != nil {
		failed = cmp.Or(failed, err)
	}
	if failed != nil && p.told != "" && len(told) == 0 && !strings.Contains(output.String(), "=== RUN") {
		return s, fmt.Errorf("did not begin: %w: %s", failed, words(output.String(), 500))
	}
	s.read(p, output.String(), told)
	if failed != nil && s.Violations == 0 {
		s.Violations = 1
	}
	if s.Violations > 0 {
		s.Error = words(output.String(), 2000)
		log := filepath.Join(".build", fmt.Sprintf("campaign-%s-%d.log", p.name, s.From))
		if err := os.MkdirAll(filepath.Join(root, ".build"), 0o750); err == nil && os.WriteFile(filepath.Join(root, log), output.Bytes(), 0o600) == nil {
			s.Log = log
		}
	}
	return s, nil
}

// words is what of an output says what is wrong: its lines that do, and its end.
func words(output string, most int) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	telling := slices.DeleteFunc(slices.Clone(lines), func(l string) bool {
		return !strings.Contains(l, "FAIL") && !strings.Contains(l, "seed") && !strings.Contains(l, "_test.go:") && !strings.Contains(l, "rror")
	})
	text := strings.Join(append(telling, lines[max(0, len(lines)-5):]...), "\n")
	return text[:min(len(text), most)]
}
