package rehearsal

import (
	"strings"
	"testing"

	"footfall/pipeline/segment"
	"footfall/schemas/segments"
)

// A file of examples that is too large or too deep is refused for that.
func TestLimits(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"bytes":    {strings.Repeat("#", 4<<20+1), "x.test.yaml: more than 4194304 bytes"},
		"words":    {strings.Repeat("a: 1\n", 21_000), "x.test.yaml: more than 60000 words"},
		"brackets": {strings.Repeat("[", 1_000), "x.test.yaml:1:65: nested more than 64 deep"},
		"examples": {"examples:\n" + strings.Repeat("- a\n", examplesMax+1), "x.test.yaml:1:1: 10001 examples, and a file has at most 10000"},
		"anchors":  {"examples: &a [*a]\n", "x.test.yaml:1:11: anchors"},
	} {
		if _, err := Read(segment.File{Name: "x.test.yaml", Text: []byte(c.text)}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %.200v, want %q", name, err, c.want)
		}
	}
}

// No text makes the reader of examples panic, and what it takes can be played, or is
// refused for what the rules do not have.
func FuzzExamples(f *testing.F) {
	for _, name := range segments.Names() {
		text, err := segments.Examples(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	rules, err := segment.Shipped(segment.Options{Exponent: 2}, "lifecycle", "cart")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		x, err := Read(segment.File{Name: "x.test.yaml", Text: text})
		if err != nil {
			if !strings.HasPrefix(err.Error(), "x.test.yaml:") {
				t.Errorf("got %v, want an error of the file", err)
			}
			return
		}
		if _, _, err := x.Run(Shop{Rules: rules, Contract: contract(), Dedup: DefaultDedup()}); err != nil && err.Error() == "" {
			t.Error("an error that says nothing")
		}
	})
}
