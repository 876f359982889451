package rehearsal

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"footfall/pipeline/segment"
	"footfall/schemas/segments"
)

// What examples are understood as, what is wrong with them, and what is said of one that
// fails: word for word (go test ./pipeline/rehearsal -run Examples -rewrite writes it
// again). A case is a set, or the name of a shipped one, and examples of it below ---.
func TestExamples(t *testing.T) {
	datadriven.RunTest(t, "testdata/examples.txt", func(t *testing.T, d *datadriven.TestData) string {
		parts := strings.Split(d.Input, "\n---\n")
		examples := parts[len(parts)-1]
		var files []segment.File
		for i, set := range parts[:len(parts)-1] {
			text := []byte(set)
			if !strings.Contains(set, ":") {
				var err error
				if text, err = segments.Read(set); err != nil {
					t.Fatal(err)
				}
			}
			files = append(files, segment.File{Name: fmt.Sprintf("set%d.yaml", i+1), Text: text})
		}
		rules, err := segment.Compile(segment.Options{Exponent: 2}, files...)
		if err != nil {
			t.Fatal(err)
		}
		x, err := Read(segment.File{Name: "set.test.yaml", Text: []byte(examples)})
		if err != nil {
			return err.Error() + "\n"
		}
		results, reached, err := x.Run(Shop{Rules: rules, Contract: contract(), Dedup: DefaultDedup()})
		if err != nil {
			return err.Error() + "\n"
		}
		var b strings.Builder
		for _, r := range results {
			for i := range r.Failures {
				fmt.Fprintf(&b, "%s\n", r.Failures[i].String())
			}
			if len(r.Failures) == 0 {
				fmt.Fprintf(&b, "ok: %s, %d transitions\n", r.Example, r.Transitions)
			}
		}
		for i, there := range reached[0] {
			if !there {
				fmt.Fprintf(&b, "not reached: %s\n", rules.Names()[0].Segments[i])
			}
		}
		return b.String()
	})
}
