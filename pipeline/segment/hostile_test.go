package segment

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"footfall/schemas"
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

// A set is evaluated once for what silence will bring, however many sets after it name it:
// of sets that each name the two before them, the last would else take 2^40 evaluations.
func TestSetsThatNameSets(t *testing.T) {
	var files []File
	for i := range 60 {
		rule := `since(last()) >= days(3)`
		if i >= 2 {
			rule = fmt.Sprintf(`segment("s%d") == "in" && segment("s%d") == "in"`, i-1, i-2)
		}
		files = append(files, File{fmt.Sprintf("s%d.yaml", i), fmt.Appendf(nil, "set: s%d\nsegments:\n  - name: in\n    when: %s\n  - name: out\n    otherwise: true\n", i, rule)})
	}
	slices.Reverse(files)
	p, err := Compile(Options{Exponent: 2}, files...)
	if err != nil {
		t.Fatal(err)
	}
	const now = 1767225600000
	s, e := folded(p, []schemas.Event{{ID: []byte("e"), User: []byte("u"), At: now, Kind: schemas.View}}, now), p.Evaluator()
	got := e.Expected(&s.pr, s.rows.View(0), now, 0, 1, make([]uint16, len(files)))
	if want := (schemas.Expected{To: 0, At: now + 3*schemas.Day}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}
