package segment

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"footfall/schemas/segments"
)

// Every shipped set compiles, alone and with all others; nobody is out of reach.
func TestShippedSets(t *testing.T) {
	for _, name := range segments.Names() {
		p, err := Shipped(Options{Exponent: 2}, name)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		t.Logf("%-16s %3d segments, %4d bytes a user", name, len(p.Names()[0].Segments), p.Layout().Bytes())
	}
	if _, err := Shipped(Options{Exponent: 2}, segments.Names()...); err != nil {
		t.Error(err)
	}
}

// Every example of the page that teaches the language is understood, and every function
// of the language is on it.
func TestThePageIsTrue(t *testing.T) {
	page, err := os.ReadFile("../../schemas/SEGMENTS.md")
	if err != nil {
		t.Fatal(err)
	}
	set := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(page)[1]
	if _, err := Compile(Options{Exponent: 2}, File{"page.yaml", set}); err != nil {
		t.Error(err)
	}
	lifecycle, err := segments.Read("lifecycle")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## What can be asked")
	table, _, _ = strings.Cut(table, "`event` within")
	examples := 0
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(table, -1) {
		examples++
		text := fmt.Sprintf("set: s\nsegments:\n  - name: a\n    when: |\n      %s\n  - name: b\n    otherwise: true\n", m[1])
		if _, err := Compile(Options{Exponent: 2}, File{"page.yaml", []byte(text)}, File{"lifecycle.yaml", lifecycle}); err != nil {
			t.Errorf("%s: %v", m[1], err)
		}
	}
	if examples < 30 {
		t.Errorf("found %d examples on the page", examples)
	}
	for _, f := range functions() {
		if !strings.Contains(string(page), f.name+"(") && !slices.Contains([]string{"seconds", "sum", "cart_items", "now"}, f.name) {
			t.Errorf("%s is not on the page", f.name)
		}
		for _, usage := range f.usage {
			if f.name == "calendar" || f.name == "segment" {
				continue
			}
			text := fmt.Sprintf("set: s\ndefine:\n  x: |\n    %s\nsegments:\n  - name: b\n    otherwise: true\n", usage)
			if _, err := Compile(Options{Exponent: 2}, File{f.name, []byte(text)}); err != nil {
				t.Errorf("the usage of %s: %v", f.name, err)
			}
		}
	}
}

// The JSON Schema, which editors use, takes every shipped set.
func TestTheSchemaTakesTheShippedSets(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../../schemas/segments.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range segments.Names() {
		text, err := segments.Read(name)
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
}
