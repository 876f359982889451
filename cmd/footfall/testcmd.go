package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"footfall/pipeline/rehearsal"
	"footfall/pipeline/segment"
	"footfall/schemas/segments"
)

// testSuffix ends the names of files of examples: vip.test.yaml is beside vip.yaml.
const testSuffix = ".test.yaml"

func newTest(g *global) *cobra.Command {
	t := testRun{}
	cmd := &cobra.Command{
		Use:     "test [NAME|FILE|DIR]...",
		GroupID: "rules",
		Short:   "Play the examples that stand beside segment sets",
		Long: `Plays histories of made-up shoppers through the rules, as the engine does (late and
repeated events, silence, daylight-saving time), and compares where the shoppers are and
what is said with what the examples expect. Nothing is connected, and no time is waited for.

Without arguments: the examples of every set of the configuration. Otherwise those of a
shipped set by its NAME, of a set's FILE (vip.yaml has its examples in vip.test.yaml), or all
below a DIR. SEGMENTS.md says how they are written:

  examples:
    - name: Spends a lot, then goes away
      history:
        - {at: 2026-01-01T10:00, purchase: 1200, in: vip}
        - {at: +3d, view: {category: tv}}
        - {at: +30d, in: slipping}

Exit code 1 when an expectation is not met; 2 when a file cannot be understood, or --run
chooses no example.`,
		Example: `  footfall test
  footfall test rules/
  footfall test vip.yaml --run "goes away"
  footfall test lifecycle --output json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", t.output, "text", "json"); err != nil {
				return err
			}
			c, err := g.config()
			if err != nil {
				return err
			}
			return t.run(c, args, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&t.only, "run", "", "only examples whose names match this regular `expression`")
	cmd.Flags().StringVar(&t.output, "output", "text", "text or json")
	return cmd
}

// testRun is one run of test.
type testRun struct {
	only, output string
}

// tested is what became of all examples, as JSON.
type tested struct {
	Files    []testedFile `json:"files"`
	Examples int          `json:"examples"`
	Failed   int          `json:"failed"`
	Without  []string     `json:"sets_without_examples"`
}

// testedFile is what became of one file's.
type testedFile struct {
	File        string          `json:"file"`
	Examples    []testedExample `json:"examples"`
	Transitions int             `json:"transitions"`
	NotReached  []string        `json:"not_reached"` // segments in which no example has anybody
}

// testedExample is what became of one.
type testedExample struct {
	Name     string          `json:"name"`
	Place    string          `json:"place"`
	Failures []testedFailure `json:"failures"`

	words []string
}

// testedFailure is an expectation that was not met.
type testedFailure struct {
	Place   string   `json:"place"`
	What    string   `json:"what"`
	Got     []string `json:"got"`
	Want    []string `json:"want"`
	Because []string `json:"because"`
}

func (t *testRun) run(c *Config, args []string, out io.Writer) error {
	began := time.Now()
	only, err := regexp.Compile(t.only)
	if err != nil {
		return &usageError{fmt.Errorf("--run: %w", err)}
	}
	where := "arguments"
	if len(args) == 0 {
		args, where = c.sets(), string(c.where("segments.sets"))
	}
	files, without, err := exampleFiles(args)
	if err != nil {
		return &usageError{err}
	}
	if len(files) == 0 { // sets without, at most
		return &usageError{fmt.Errorf("no examples there (%s): a set's examples are in a file beside it, vip%s beside vip.yaml", where, testSuffix)}
	}
	report, errs := tested{Files: []testedFile{}, Without: without}, []error(nil)
	var names []string
	for _, f := range files {
		one, all, err := t.file(c, f, only)
		names = append(names, all...)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if len(one.Examples) > 0 {
			report.add(one)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return &usageError{err}
	}
	if report.Examples == 0 && t.only != "" {
		return &usageError{fmt.Errorf("--run %q: none of %s has such a name%s", t.only, counted(len(names), "example"), suggest(t.only, names))}
	}
	if t.output == "json" {
		err = json.NewEncoder(out).Encode(report)
	} else {
		err = report.print(out, t.only != "", time.Since(began))
	}
	if err == nil && report.Failed > 0 {
		return errRefused
	}
	return err
}

// exampleFile is a file of examples, and how to read the sets that it names.
type exampleFile struct {
	segment.File

	beside string // the set that it is of, unless it says otherwise
	dir    string // that its paths are relative to
}

// exampleFiles finds the examples of sets, files and folders.
func exampleFiles(args []string) (files []exampleFile, without []string, err error) {
	var errs []error
	without = []string{}
	seen := map[string]bool{}
	read := func(path string) {
		text, err := os.ReadFile(path)
		if err == nil && !seen[path] {
			seen[path] = true
			files = append(files, exampleFile{
				File:   segment.File{Name: filepath.ToSlash(path), Text: text},
				beside: strings.TrimSuffix(path, testSuffix) + ".yaml", dir: filepath.Dir(path),
			})
		}
		errs = append(errs, err)
	}
	for _, arg := range args {
		info, err := os.Stat(arg)
		switch {
		case !isPath(arg) && (err != nil || !info.IsDir()):
			text, err := segments.Examples(arg)
			files = append(files, exampleFile{File: segment.File{Name: "segments/" + arg + testSuffix, Text: text}, beside: arg})
			errs = append(errs, err)
		case err != nil:
			errs = append(errs, err)
		case info.IsDir():
			errs = append(errs, filepath.WalkDir(arg, func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() && strings.HasSuffix(path, testSuffix) {
					read(path)
				}
				return err
			}))
		case strings.HasSuffix(arg, testSuffix):
			read(arg)
		default:
			beside := strings.TrimSuffix(arg, filepath.Ext(arg)) + testSuffix
			if _, err := os.Stat(beside); err != nil {
				without = append(without, filepath.ToSlash(arg))
			} else {
				read(beside)
			}
		}
	}
	return files, without, errors.Join(errs...)
}

// file plays the examples of one file that have such a name, and gives the names of all.
func (t *testRun) file(c *Config, f exampleFile, only *regexp.Regexp) (out testedFile, names []string, err error) {
	out = testedFile{File: f.Name, Examples: []testedExample{}, NotReached: []string{}}
	x, err := rehearsal.Read(f.File)
	if err != nil {
		return out, nil, err
	}
	x.Keep(func(name string) bool {
		names = append(names, name)
		return only.MatchString(name)
	})
	shop := *c
	if x.Zone != "" {
		shop.Shop.Zone = x.Zone
	}
	if x.Currency != "" {
		shop.Shop.Currency, shop.Shop.Rates = x.Currency, nil
	}
	if x.Rates != nil {
		shop.Shop.Rates = maps.Clone(x.Rates)
	}
	sets := []string{f.beside}
	if x.Sets != nil {
		sets = slices.Clone(x.Sets)
		for i, s := range sets {
			if isPath(s) && !filepath.IsAbs(s) {
				sets[i] = filepath.Join(f.dir, s)
			}
		}
	}
	files, err := readSets(sets)
	if err != nil {
		return out, names, fmt.Errorf("%s: %w", f.Name, err)
	}
	rules, err := shop.compile(files...)
	if err != nil {
		return out, names, err
	}
	results, reached, err := x.Run(rehearsal.Shop{
		Rules: rules, Contract: shop.contract(), Dedup: rehearsal.Dedup{Window: millis(c.Dedup.Window), Budget: c.Dedup.Budget},
	})
	if err != nil {
		return out, names, err
	}
	for _, r := range results {
		out.Transitions += r.Transitions
		e := testedExample{Name: r.Example, Place: r.Place, Failures: []testedFailure{}}
		for i := range r.Failures {
			f := &r.Failures[i]
			e.Failures = append(e.Failures, testedFailure{f.Place, f.What, f.Got, f.Want, f.Because})
			e.words = append(e.words, f.String())
		}
		out.Examples = append(out.Examples, e)
	}
	for i, there := range reached[0] {
		if !there {
			out.NotReached = append(out.NotReached, rules.Names()[0].Segments[i])
		}
	}
	return out, names, nil
}

func (r *tested) add(f testedFile) {
	r.Files = append(r.Files, f)
	r.Examples += len(f.Examples)
	r.Failed += f.failed()
}

func (f *testedFile) failed() (n int) {
	for i := range f.Examples {
		if len(f.Examples[i].Failures) > 0 {
			n++
		}
	}
	return n
}

// print is the report for people.
func (r *tested) print(to io.Writer, selected bool, took time.Duration) error {
	var b strings.Builder
	for i := range r.Files {
		f := &r.Files[i]
		state := "ok  "
		if f.failed() > 0 {
			state = "FAIL"
		}
		fmt.Fprintf(&b, "%s  %s: %s, %s\n", state, f.File, counted(len(f.Examples), "example"), counted(f.Transitions, "transition"))
		for _, e := range f.Examples {
			for _, words := range e.words {
				fmt.Fprintf(&b, "\n%s\n", words)
			}
		}
		if f.failed() > 0 {
			b.WriteString("\n")
		}
		if len(f.NotReached) > 0 && !selected {
			fmt.Fprintf(&b, "      no example has anybody in %s\n", strings.Join(f.NotReached, ", "))
		}
	}
	for _, set := range r.Without {
		fmt.Fprintf(&b, "-     %s: no examples beside it\n", set)
	}
	fmt.Fprintf(&b, "%s in %s: %d hold, %d do not (%d ms)\n", counted(r.Examples, "example"), counted(len(r.Files), "file"), r.Examples-r.Failed, r.Failed, took.Milliseconds())
	_, err := io.WriteString(to, b.String())
	return err
}

// counted is a number of things.
func counted[N int | int32 | int64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%s %ss", grouped(int64(n)), what)
}
