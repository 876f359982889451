package rehearsal

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"footfall/pipeline/segment"
	"footfall/schemas"
	"footfall/schemas/segments"
)

// contract is of the shipped examples, which name no currency.
func contract() schemas.Contract { return schemas.Contract{Currency: "EUR"} }

// Every shipped set has examples, they hold, and they reach each of its segments.
func TestShippedExamples(t *testing.T) {
	for _, name := range segments.Names() {
		t.Run(name, func(t *testing.T) {
			text, err := segments.Examples(name)
			if err != nil {
				t.Fatal(err)
			}
			x, err := Read(segment.File{Name: name + ".test.yaml", Text: text})
			if err != nil {
				t.Fatal(err)
			}
			rules, err := segment.Shipped(segment.Options{Exponent: 2}, name)
			if err != nil {
				t.Fatal(err)
			}
			results, reached, err := x.Run(Shop{Rules: rules, Contract: contract(), Dedup: DefaultDedup()})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range results {
				for i := range r.Failures {
					t.Errorf("%s", r.Failures[i].String())
				}
			}
			for i, there := range reached[0] {
				if !there {
					t.Errorf("no example has anybody in %s", rules.Names()[0].Segments[i])
				}
			}
		})
	}
}

// The JSON Schema, which editors use, takes the shipped examples, and names every field
// of the event contract that a step can have.
func TestTheSchemaTakesTheShippedExamples(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../../schemas/segments.test.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range segments.Names() {
		text, err := segments.Examples(name)
		if err != nil {
			t.Fatal(err)
		}
		var doc any
		if err := yaml.Unmarshal(text, &doc); err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	text, err := os.ReadFile("../../schemas/segments.test.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range schemas.EventFields() {
		if !strings.Contains(string(text), `"`+field+`":`) && !slices.Contains([]string{"type", "user_id", "time"}, field) {
			t.Errorf("the schema lacks the field %s", field)
		}
	}
}

// Examples of a file are played together, and each as if it were alone.
func TestExamplesSeeNothingOfEachOther(t *testing.T) {
	for _, name := range segments.Names() {
		text, err := segments.Examples(name)
		if err != nil {
			t.Fatal(err)
		}
		rules, err := segment.Shipped(segment.Options{Exponent: 2}, name)
		if err != nil {
			t.Fatal(err)
		}
		play := func(keep func(string) bool) []Result {
			x, err := Read(segment.File{Name: name + ".test.yaml", Text: text})
			if err != nil {
				t.Fatal(err)
			}
			x.Keep(keep)
			results, _, err := x.Run(Shop{Rules: rules, Contract: contract(), Dedup: DefaultDedup()})
			if err != nil {
				t.Fatal(err)
			}
			return results
		}
		for _, together := range play(func(string) bool { return true }) {
			alone := play(func(example string) bool { return example == together.Example })
			if len(alone) != 1 || alone[0].Transitions != together.Transitions || len(alone[0].Failures) > 0 {
				t.Errorf("%s: %s: got %+v alone, %+v together", name, together.Example, alone, together)
			}
		}
	}
}

// The examples of the page that teaches the language hold.
func TestThePageIsTrue(t *testing.T) {
	page, err := os.ReadFile("../../schemas/SEGMENTS.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(page, -1)
	rules, err := segment.Compile(segment.Options{Exponent: 2}, segment.File{Name: "vip.yaml", Text: blocks[0][1]})
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(blocks, func(b [][]byte) bool { return bytes.Contains(b[1], []byte("\nexamples:\n")) })
	x, err := Read(segment.File{Name: "vip.test.yaml", Text: blocks[at][1]})
	if err != nil {
		t.Fatal(err)
	}
	results, _, err := x.Run(Shop{Rules: rules, Contract: contract(), Dedup: DefaultDedup()})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		for i := range r.Failures {
			t.Errorf("%s", r.Failures[i].String())
		}
	}
	if len(results) != 2 {
		t.Errorf("got %d examples", len(results))
	}
}
