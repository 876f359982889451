package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// writeReport prints the table of the figures, each with the tree that it is of; older are
// the parts of which nothing was done on their tree as it is now.
func writeReport(to io.Writer, all []part, l *ledger, older map[string]bool) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "what\ttarget\tdone\tviolations\tat 95 %%\thours\ttree\n")
	var notes []string
	for i := range all {
		p := &all[i]
		t := l.of(p.name)
		tree := l.trees[p.name]
		if older[p.name] {
			tree += " (older)"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%.2f\t%s\n", p.title, p.target, t.count, t.violations, bound(t), t.seconds/3600, tree)
		if n := note(p, t); n != "" {
			notes = append(notes, n)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range notes {
		fmt.Fprintf(to, "\n%s\n", n)
	}
	for i := range l.lines {
		if s := &l.lines[i]; s.Violations > 0 && l.counts(s) {
			fmt.Fprintf(to, "\n%s, slice at %d of %s (%s):\n  %s\n", s.Part, s.From, s.At.Format("2006-01-02 15:04:05"), s.Log, strings.ReplaceAll(s.Error, "\n", "\n  "))
		}
	}
	return nil
}

// bound is the rule of three: none in N bounds the rate below 3/N at 95 % confidence.
func bound(t *total) string {
	if t.violations > 0 || t.count == 0 {
		return "-"
	}
	return fmt.Sprintf("< 3/%d = %.2g", t.count, 3/float64(t.count))
}

// hits adds up, by failpoint, how often a kill hit it.
func hits(t *total) map[string]int {
	all := map[string]int{}
	for _, f := range t.facts {
		points, _ := f["hits"].(map[string]any)
		for point, n := range points {
			n, _ := n.(float64)
			all[point] += int(n)
		}
	}
	return all
}

// shortfalls says which parts have reached their figure, and not their failpoints.
func shortfalls(all []part, l *ledger) (err error) {
	for i := range all {
		p := &all[i]
		t := l.of(p.name)
		points := hits(t)
		maps.DeleteFunc(points, func(_ string, n int) bool { return n == 0 })
		if t.count >= p.target && len(points) < p.points {
			err = errors.Join(err, fmt.Errorf("%s: %d failpoints were hit, and at least %d must be", p.name, len(points), p.points))
		}
	}
	return err
}

// note says what the table has no column for: where kills hit, how recoveries went, what
// the broker did by itself, and how many rows ClickHouse had twice until it merged.
func note(p *part, t *total) string {
	sums, most := map[string]float64{}, map[string]float64{}
	for _, f := range t.facts {
		for name, v := range f {
			if v, ok := v.(float64); ok {
				sums[name] += v
				most[name] = max(most[name], v)
			}
		}
	}
	var words []string
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	if points := hits(t); len(points) > 0 {
		never := slices.DeleteFunc(slices.Sorted(maps.Keys(points)), func(n string) bool { return points[n] > 0 })
		maps.DeleteFunc(points, func(_ string, n int) bool { return n == 0 })
		if hit := slices.Sorted(maps.Keys(points)); len(hit) > 0 {
			least := slices.MinFunc(hit, func(a, b string) int { return points[a] - points[b] })
			add("%d kinds of moments (least often: %s, %d)", len(hit), least, points[least])
		}
		if len(never) > 0 {
			add("never at %s", strings.Join(never, ", "))
		}
	}
	for _, s := range []struct{ name, text string }{
		{"random", "%.0f at random moments"},
		{"records", "%.0f records in"},
		{"triggers", "%.0f triggers"},
		{"clickhouse_kills", "%.0f kills of ClickHouse besides"},
		{"broker_stops", "%.0f stops of the broker besides"},
		{"rows_resent", "%.0f rows sent twice, which count once"},
		{"broker_faults", "%.0f partitions in which the broker left a transaction without its markers, ended as an operator would"},
	} {
		if sums[s.name] > 0 {
			add(s.text, sums[s.name])
		}
	}
	for _, s := range []struct{ name, text string }{
		{"recovery_p50_s", "median recovery at most %.2f s"},
		{"recovery_max_s", "longest %.1f s"},
		{"recovery_users", "with %.0f users"},
		{"recovery_load_s", "of that at most %.2f s to load the snapshot"},
		{"recovery_read_back_s", "%.2f s to read outputs back"},
		{"recovery_replay_s", "%.2f s to replay"},
		{"recovery_commit_s", "every partition had committed after at most %.1f s"},
	} {
		if most[s.name] > 0 {
			add(s.text, most[s.name])
		}
	}
	if len(words) == 0 {
		return ""
	}
	return p.name + ": " + strings.Join(words, "; ")
}
