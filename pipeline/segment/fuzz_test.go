package segment

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"footfall/pipeline/profile"
	"footfall/schemas/segments"
)

// everybody is a set of one rule.
func everybody(rule string) File {
	return File{Name: "set.yaml", Text: []byte("set: a\nsegments:\n  - name: b\n    when: " + strconv.Quote(rule) + "\n  - name: c\n    otherwise: true\n")}
}

// alternatives is a set of n rules, each of which asks for something else.
func alternatives(n int) File {
	text := "set: a\nsegments:\n"
	for i := range n {
		text += fmt.Sprintf("  - {name: s%d, when: 'count(\"view\", event.url == \"%d\") > 0'}\n", i, i)
	}
	return File{Name: "set.yaml", Text: []byte(text + "  - {name: rest, otherwise: true}\n")}
}

// A set that is too large or too deep is refused for that, before it can take time.
func TestLimits(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("(", n) + "orders() > 1" + strings.Repeat(")", n) }
	for name, c := range map[string]struct {
		file File
		want string
	}{
		"CellsMax":            {alternatives(profile.CellsMax), ""},
		"above CellsMax":      {alternatives(profile.CellsMax + 1), "set.yaml: the rules of all sets ask for 256 different things to be kept of every user, and at most 255 are"},
		"bytes":               {File{Name: "set.yaml", Text: make([]byte, 1<<20+1)}, "set.yaml: more than 1048576 bytes"},
		"words":               {File{Name: "set.yaml", Text: []byte(strings.Repeat("a: 1\n", 7_000))}, "set.yaml: more than 20000 words"},
		"brackets":            {File{Name: "set.yaml", Text: []byte(strings.Repeat("[", 1<<20))}, "set.yaml: more than 20000 words"},
		"nesting":             {File{Name: "set.yaml", Text: []byte(strings.Repeat("[", 1_000))}, "set.yaml:1:65: nested more than 64 deep"},
		"expressionMax":       {everybody("orders() > 1" + strings.Repeat(" ", expressionMax-12)), ""},
		"above expressionMax": {everybody("orders() > 1" + strings.Repeat(" ", expressionMax)), "set.yaml:4:12: expression code point size exceeds limit: size: 10012, limit 10000"},
		"below depthMax":      {everybody(deep(10)), ""},
		"above depthMax":      {everybody(deep(depthMax)), "set.yaml:4:12: expression recursion limit exceeded: 100"},
	} {
		_, err := Compile(Options{Exponent: 2}, c.file)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %.300v, want %q", name, err, c.want)
		}
	}
}

// No text makes the compiler panic: what it refuses has a place in the file, and what it
// takes can be described, and is the same rules when it is compiled again.
func FuzzCompile(f *testing.F) {
	for _, name := range segments.Names() {
		text, err := segments.Read(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, rule := range []string{"orders() > 1", "event.items.exists(i, i['x'] == '1')", "quantile('a', 0.5) > 1.0"} {
		f.Add(everybody(rule).Text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file := File{Name: "set.yaml", Text: text}
		p, err := Compile(Options{Exponent: 2}, file)
		if err != nil {
			placed(t, err)
			return
		}
		again, err := Compile(Options{Exponent: 2}, file)
		if err != nil || again.Hash() != p.Hash() {
			t.Errorf("compiled again: got %v and hash %x, want %x", err, again.Hash(), p.Hash())
		}
		if n := len(p.Describe()); n != p.Sets() {
			t.Errorf("%d sets are described, of %d", n, p.Sets())
		}
	})
}

// The same of a rule alone, which the fuzzer finds sooner without the YAML around it.
func FuzzExpression(f *testing.F) {
	for _, rule := range []string{
		"orders() > 1", "orders() > 1 && last_seen() < days(30)", "revenue() >= 10.5 || true", "!(1 < 2)", "event.items", "x", "'", "1 / 0", "[1][2]", "-9223372036854775808 < 0",
	} {
		f.Add(rule)
	}
	f.Fuzz(func(t *testing.T, rule string) {
		p, err := Compile(Options{Exponent: 2}, everybody(rule))
		if err != nil {
			placed(t, err)
			return
		}
		p.Describe()
	})
}

// placed fails unless every error within is of the file.
func placed(t *testing.T, err error) {
	t.Helper()
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	if i := slices.IndexFunc(all, func(err error) bool {
		e, ok := errors.AsType[*Error](err)
		return !ok || e.File != "set.yaml" || e.What == ""
	}); i >= 0 {
		t.Errorf("got %v (%T), want an error of the file", all[i], all[i])
	}
}

// Quiet hours are refused, or are those that they are written as.
func FuzzParseQuiet(f *testing.F) {
	for _, s := range []string{"none", "21:00-08:00", "00:00-23:59", "24:00-01:00", "1:00-2:00", "08:00-08:00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := ParseQuiet(text)
		if err == nil && q.String() != text {
			t.Errorf("%q was read as %q", text, q)
		}
	})
}
