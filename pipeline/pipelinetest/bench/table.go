package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// measured is what one benchmark came to: its runs, by unit.
type measured struct {
	name string // without Benchmark and the number of processors
	runs map[string][]float64
	unit string // what it counts: that of its cpu-ns
}

// median of a unit's runs; 0 where there are none.
func (m *measured) median(unit string) float64 {
	runs := slices.Sorted(slices.Values(m.runs[unit]))
	if len(runs) == 0 {
		return 0
	}
	return (runs[(len(runs)-1)/2] + runs[len(runs)/2]) / 2
}

// each is CPU nanoseconds for one of its unit.
func (m *measured) each() float64 { return m.median("cpu-ns/" + m.unit) }

var processors = regexp.MustCompile(`-\d+$`)

// read takes the lines of go test -bench, in their order; what fails is an error.
func read(in io.Reader) (all []*measured, err error) {
	lines := bufio.NewScanner(in)
	by := map[string]*measured{}
	for lines.Scan() {
		line := lines.Text()
		if strings.Contains(line, "--- FAIL") || strings.HasPrefix(line, "FAIL") {
			return nil, fmt.Errorf("a benchmark failed: %s", line)
		}
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := processors.ReplaceAllString(strings.TrimPrefix(f[0], "Benchmark"), "")
		m := by[name]
		if m == nil {
			m = &measured{name: name, runs: map[string][]float64{}}
			by[name], all = m, append(all, m)
		}
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", line, err)
			}
			m.runs[f[i+1]] = append(m.runs[f[i+1]], v)
			if unit, ok := strings.CutPrefix(f[i+1], "cpu-ns/"); ok {
				m.unit = unit
			}
		}
	}
	return all, lines.Err()
}

// micro prints one table of the stages, by users, and of the whole process beside its
// peers, if a file has what bench-peers printed.
func micro(in io.Reader, peers string, out io.Writer) error {
	all, err := read(in)
	if err != nil {
		return err
	}
	stages := map[string]map[string]*measured{}
	var names []string
	for _, m := range all {
		path, ok := strings.CutPrefix(m.name, "Stage/")
		name, users, sized := strings.Cut(path, "/users=")
		if !ok || !sized {
			continue
		}
		if stages[name] == nil {
			stages[name] = map[string]*measured{}
			names = append(names, name)
		}
		stages[name][users] = m
	}
	w := tabwriter.NewWriter(out, 2, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "stage\tof one\tCPU ns, 1K users\t1M\t10M\t1M / 1K\t10M / 1K\ta core a second, 10M\tspread\tallocations\t")
	for _, name := range names {
		of := stages[name]
		small, middle, large := of["1K"], of["1M"], of["10M"]
		most := firstOf(large, middle, small)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", name, most.unit,
			cost(small), cost(middle), cost(large), times(middle, small), times(large, small),
			grouped(1e9/most.each()), most.spread(), most.allocations())
	}
	if err := w.Flush(); err != nil || peers == "" {
		return err
	}
	return whole(w, peers)
}

// whole adds the comparison of whole processes.
func whole(w *tabwriter.Writer, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	var compared struct {
		Events int `json:"events"`
		Runs   []struct {
			Name   string  `json:"name"`
			PerCPU float64 `json:"events_per_cpu_s"`
			RSS    float64 `json:"rss_mb"`
		} `json:"runs"`
	}
	last := lines[len(lines)-1]
	if !strings.HasPrefix(last, "{") {
		fmt.Fprintf(w, "\nwhole processes: %s\n", last)
		return w.Flush()
	}
	if err := json.Unmarshal([]byte(last), &compared); err != nil {
		return fmt.Errorf("%s: its last line is not that of bench-peers: %w", path, err)
	}
	fmt.Fprintf(w, "\nwhole process, %s events\tof one\tCPU ns\tfootfall is\tRSS MB\ta core a second\t\n", grouped(float64(compared.Events)))
	ours := 0.0
	for _, r := range compared.Runs {
		if r.Name == "footfall" {
			ours = r.PerCPU
		}
	}
	for _, r := range compared.Runs {
		fmt.Fprintf(w, "%s\tevent\t%.0f\t%.2f x\t%.0f\t%s\t\n", r.Name, 1e9/r.PerCPU, ours/r.PerCPU, r.RSS, grouped(r.PerCPU))
	}
	return w.Flush()
}

func firstOf(of ...*measured) *measured {
	for _, m := range of {
		if m != nil {
			return m
		}
	}
	return nil
}

func cost(m *measured) string {
	if m == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f", m.each())
}

func times(m, to *measured) string {
	if m == nil || to == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f x", m.each()/to.each())
}

// spread is how far the runs are from their median, at most.
func (m *measured) spread() string {
	far := 0.0
	for _, v := range m.runs["cpu-ns/"+m.unit] {
		far = max(far, v/m.each()-1, 1-v/m.each())
	}
	return fmt.Sprintf("±%.0f %%", 100*far)
}

func (m *measured) allocations() string {
	return strconv.FormatFloat(m.median("allocs/op"), 'f', -1, 64) + " a call"
}

// grouped writes a whole number with commas.
func grouped(v float64) string {
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
