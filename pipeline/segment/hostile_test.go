package segment

import (
	"fmt"
	"strings"
	"testing"
)

// What a file of a set may cost is bounded, whatever stands in it: without the limits the
// first took all memory, and the others minutes.
func TestHostileSets(t *testing.T) {
	const rest = "  - name: rest\n    otherwise: true\n"
	var bomb, search strings.Builder
	bomb.WriteString("set: a\ndefine:\n  d0: orders() > 1 || orders() > 2\n")
	for i := range 60 {
		fmt.Fprintf(&bomb, "  d%d: d%d || d%d\n", i+1, i, i)
	}
	bomb.WriteString("segments:\n  - name: x\n    when: d60\n" + rest)
	search.WriteString("set: a\ndefine:\n")
	for i := range 18 {
		fmt.Fprintf(&search, "  %c: orders(days(%d)) > 0\n", 'a'+i, i+1)
	}
	search.WriteString("segments:\n")
	for i := range 40 {
		fmt.Fprintf(&search, "  - name: s%d\n    when: a && b", i)
		for j := range 400 {
			fmt.Fprintf(&search, " || %c && %c", 'a'+(i+j)%18, 'a'+(i+j/18)%18)
		}
		search.WriteString("\n")
	}
	search.WriteString(rest)
	var names strings.Builder
	names.WriteString("set: a\nsegments:\n")
	for i := range 100 {
		fmt.Fprintf(&names, "  - name: s%d\n    when: %sx\n", i, strings.Repeat("oders||", 1400))
	}
	names.WriteString(rest)
	for _, c := range []struct{ name, text, want string }{
		{"definitions that double", bomb.String(), "a.yaml:14:"},
		{"rules with many combinations of values", search.String(), "<nil>"},
		{"names that are none", names.String(), "a.yaml: 100 errors or more"},
	} {
		_, err := Compile(Options{Exponent: 2}, File{"a.yaml", []byte(c.text)})
		if got := fmt.Sprint(err); !strings.HasPrefix(got, c.want) || strings.Count(got, "\n") > 2*errorsMax {
			t.Errorf("%s: got %.300s, want %s", c.name, got, c.want)
		}
	}
}
