package yamltext

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// Within the limits no YAML takes much memory to parse, and beyond them none is parsed.
func TestLimits(t *testing.T) {
	limits := Ours()
	names := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "k%d: 1\n", i)
		}
		return b.String()
	}
	steps := func(n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(strings.Repeat(" ", i) + "a:\n")
		}
		return b.String()
	}
	for what, c := range map[string]struct{ src, want string }{
		"brackets":      {strings.Repeat("[", 1<<14), "1:65: nested more than 64 deep"},
		"braces":        {strings.Repeat("{a: ", 1<<12), "1:257: nested more than 64 deep"},
		"entries":       {strings.Repeat("- ", 1<<13), "1:129: nested more than 64 deep"},
		"question":      {strings.Repeat("? ", 1<<13), "1:129: nested more than 64 deep"},
		"many names":    {names(1 << 15), "more than 20000 words and signs"},
		"size":          {strings.Repeat("#", limits.Bytes+1), "more than 1048576 bytes"},
		"anchors":       {"a: &a [x]\n", "1:4: anchors, aliases and merge keys are not supported"},
		"tags":          {"a: !b [x]\n", "1:4: tags such as !b are not supported"},
		"merge":         {"<<: {a: 1}\n", "1:1: anchors, aliases and merge keys are not supported"},
		"laughs":        {"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n", "1:4: anchors"},
		"as many names": {names(limits.Words/3 - 1), ""},
		"steps":         {steps(1000), ""},
		"comments":      {strings.Repeat("# x\n", limits.Words-1), ""},
		"long":          {"a: " + strings.Repeat("x", limits.Bytes-4), ""},
		"quoted":        {`a: "` + strings.Repeat(`\n`, limits.Bytes/2-5) + `"`, ""},
		"literal":       {"a: |\n" + strings.Repeat("  x\n", 1<<17), ""},
		"list":          {"a: [" + strings.Repeat("x,", limits.Words/2-5) + "]", ""},
		"lines":         {strings.Repeat("- x\n", limits.Words/2-5), ""},
		"documents":     {strings.Repeat("---\n", limits.Words-5), ""},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Parse([]byte(c.src), limits)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 600<<20 {
			t.Errorf("%s: took %d MiB", what, n>>20)
		}
		if c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("%s: got %.200v, want %s", what, err, c.want)
		}
	}
}

// No text makes it panic, and what is wrong has a place in it.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "a: [b, {c: d}]\n", "a: |\n  b\n", "- ? a\n", "&a [*a]", "!!x [", "a: 'b", "\x00", "---\n...\n---\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		_, err := Parse(text, Limits{Bytes: 1 << 12, Words: 1 << 10})
		if err == nil {
			return
		}
		bad, ok := errors.AsType[*Error](err)
		if !ok || bad.What == "" || bad.Line > strings.Count(string(text), "\n")+strings.Count(string(text), "\r")+1 {
			t.Errorf("got %#v", err)
		}
	})
}
