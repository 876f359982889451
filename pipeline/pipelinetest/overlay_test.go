package pipelinetest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"footfall/pipeline/pipelinetest"
)

// module writes a module of one program.
func module(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	for file, text := range map[string]string{
		"go.mod":      "module example\n\ngo 1.26\n",
		"main.go":     "package main\n\nimport \"example/word\"\n\nfunc main() { println(word.Say(\"a\", \"b\")) }\n",
		"word/say.go": "package word\n\nfunc Say(a, b string) string { return a + b }\n",
	} {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestOverlayIsWhatIsBuilt(t *testing.T) {
	root := module(t)
	edits := []pipelinetest.Edit{
		{File: "word/say.go", Old: "a + b", New: "b + a"},
		{File: "word/say.go", Old: "b + a", New: "b + added() + a"},
		{File: "main.go", Old: `"b"`, New: `"c"`},
	}
	spec, err := pipelinetest.Overlay(root, t.TempDir(), edits, map[string]string{"word/added.go": "package word\n\nfunc added() string { return \"-\" }\n"})
	if err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{"c-a\n": {"run", "-overlay", spec, "."}, "ab\n": {"run", "."}} {
		run := exec.CommandContext(t.Context(), "go", args...) //nolint:gosec // our own paths
		run.Dir = root
		if out, err := run.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("go %s: got %q, %v, want %q", strings.Join(args, " "), out, err, want)
		}
	}
}

func TestOverlayRefuses(t *testing.T) {
	root := module(t)
	for want, c := range map[string]struct {
		edit pipelinetest.Edit
		add  map[string]string
	}{
		"say.go has this 0 times": {edit: pipelinetest.Edit{File: "word/say.go", Old: "absent"}},
		"say.go has this 2 times": {edit: pipelinetest.Edit{File: "word/say.go", Old: "string"}},
		"no such file":            {edit: pipelinetest.Edit{File: "word/none.go", Old: "a"}},
		"there already":           {add: map[string]string{"main.go": ""}},
		"not below":               {add: map[string]string{"../main.go": ""}},
	} {
		edits := []pipelinetest.Edit{c.edit}
		if c.add != nil {
			edits = nil
		}
		if _, err := pipelinetest.Overlay(root, t.TempDir(), edits, c.add); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
