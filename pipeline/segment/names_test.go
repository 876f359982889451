package segment

import (
	"bytes"
	"fmt"
	"testing"
)

// What a set is called by, its scores in the log of epochs and its cells in snapshots, does
// not depend on how another set, that stands before it, writes the same.
func TestNamesAreASetsOwn(t *testing.T) {
	file := func(name, rule string) File {
		return File{name, fmt.Appendf(nil, "set: %s\nsegments:\n  - name: in\n    when: |\n      %s\n  - name: out\n    otherwise: true\n", name, rule)}
	}
	for _, c := range [][2]string{
		{`count("purchase") >= 3`, `score(orders(), 5) == 5`},
		{`last("any") > last("view")`, `score(since(last()), 5) == 5`},
		{`count("view", event.amount >= 20.0 + 30.0) >= 1`, `score(count("purchase", event.amount >= 50.0), 5) == 5`},
		{`count("view", event.amount >= 20.0 + 30.0) >= 1`, `count("purchase", event.amount >= 50.0) >= 1`},
		{`count("view", event.amount >= 1000000) >= 1`, `count("purchase", event.amount >= 1000000.0) >= 1`},
		{`count("view", event.amount > -0.0) >= 1`, `count("purchase", event.amount > 0.0) >= 1`},
		{`last() < timestamp("2026-11-27T01:00:00+01:00")`, `score(last() < timestamp("2026-11-27T00:00:00Z") ? 1 : count("view"), 3) == 3`},
		{`last() < timestamp("2026-11-27T00:00:00.000Z")`, `score(last() < timestamp("2026-11-26T00:00:00Z") + days(1) ? 1 : count("view"), 3) == 3`},
	} {
		alone, err := Compile(Options{Exponent: 2}, file("b", c[1]))
		if err != nil {
			t.Fatal(err)
		}
		beside, err := Compile(Options{Exponent: 2}, file("a", c[0]), file("b", c[1]))
		if err != nil {
			t.Fatal(err)
		}
		if alone.Quantiles() > 0 {
			a, err := NewEpochs(alone, 1).Count(0, Count{})
			if err != nil {
				t.Fatal(err)
			}
			b, err := NewEpochs(beside, 1).Count(0, Count{})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a.Key, b.Key) {
				t.Errorf("%s: its epochs are at %s (%s), and beside %s at %s (%s)", c[1], a.Key, alone.Scores()[0].Source, c[0], b.Key, beside.Scores()[0].Source)
			}
		}
		have := map[string]bool{}
		for _, cell := range beside.Layout().Cells() {
			have[cell.Name] = true
		}
		for _, cell := range alone.Layout().Cells() {
			if !have[cell.Name] {
				t.Errorf("%s: its cell %s is another beside %s: %v", c[1], cell.Name, c[0], have)
			}
		}
	}
}
