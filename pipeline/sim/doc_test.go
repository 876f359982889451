package sim

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTableNamesWhatExists holds that doc.go's table leads somewhere.
func TestTableNamesWhatExists(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	bugs := map[string]bool{}
	for _, m := range mutants() {
		bugs[m.name] = true
	}
	for _, m := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(string(text), -1) {
		if !bugs[m[1]] {
			t.Errorf("doc.go names the mutant %q, which is not in mutants_test.go", m[1])
		}
	}
	folders := map[string]string{
		"sim": ".", "pipeline": "..", "worker": "../worker", "snapshot": "../snapshot", "schemas": "../../schemas", "kafka": "../../sources/kafka", "triggers": "../../sinks/triggers",
	}
	names := regexp.MustCompile(`(\w+)\.(Test\w+)`).FindAllStringSubmatch(string(text), -1)
	if len(names) < 20 {
		t.Errorf("only %d tests are named", len(names))
	}
	for _, n := range names {
		files, err := filepath.Glob(filepath.Join(folders[n[1]], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range files {
			code, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(code), "func "+n[2]+"(t *testing.T)")
		}
		if !found {
			t.Errorf("doc.go names %s, which is not there", n[0])
		}
	}
}
