package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// writeReport prints the table of the figures.
func writeReport(to io.Writer, tree string, all []part, l *ledger) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "tree %s\n\nwhat\ttarget\tdone\tviolations\tat 95 %%\thours\n", tree)
	var notes []string
	for i := range all {
		p := &all[i]
		t := l.of(p.name)
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%.2f\n", p.title, p.target, t.count, t.violations, bound(t), t.seconds/3600)
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
	for _, s := range l.lines {
		if s.Violations > 0 {
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

// note says what the table has no column for: where kills hit, how recoveries went, what
// the broker did by itself, and how many rows ClickHouse had twice until it merged.
func note(p *part, t *total) string {
	sums, most, hits := map[string]float64{}, map[string]float64{}, map[string]float64{}
	for _, f := range t.facts {
		for name, v := range f {
			switch v := v.(type) {
			case float64:
				sums[name] += v
				most[name] = max(most[name], v)
			case map[string]any:
				for point, n := range v {
					if n, ok := n.(float64); ok {
						hits[point] += n
					}
				}
			}
		}
	}
	var words []string
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	if len(hits) > 0 {
		points := slices.Sorted(maps.Keys(hits))
		least := slices.MinFunc(points, func(a, b string) int { return int(hits[a] - hits[b]) })
		add("%d kinds of moments (least often: %s, %.0f)", len(points), least, hits[least])
	}
	for _, s := range []struct{ name, text string }{
		{"random", "%.0f at random moments"},
		{"records", "%.0f records in"},
		{"triggers", "%.0f triggers"},
		{"clickhouse_kills", "%.0f kills of ClickHouse besides"},
		{"broker_stops", "%.0f stops of the broker besides"},
		{"rows_resent", "%.0f rows sent twice, which count once"},
		{"broker_faults", "%.0f runs ended by a transaction that the broker left without its markers"},
	} {
		if sums[s.name] > 0 {
			add(s.text, sums[s.name])
		}
	}
	for _, s := range []struct{ name, text string }{
		{"recovery_p50_s", "median recovery at most %.2f s"},
		{"recovery_max_s", "longest %.1f s"},
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
