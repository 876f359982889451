package pipelinetest_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"footfall/pipeline/pipelinetest"
)

// A failpoint is nothing in a build, and a signal on its n-th time in one with the overlay.
func TestFailpoint(t *testing.T) {
	root := module(t)
	text := "package word\n\nfunc Say(a, b string) string {\n\tfor range 3 {\n\t\t//failpoint:word.round\n\t\tprintln(a)\n\t}\n\treturn a + b\n}\n"
	if err := os.WriteFile(filepath.Join(root, "word", "say.go"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	points, err := pipelinetest.Failpoints(root)
	if err != nil || len(points) != 1 || points[0] != (pipelinetest.Failpoint{Name: "word.round", File: "word/say.go"}) {
		t.Fatalf("got %v, %v, want word.round in word/say.go", points, err)
	}
	spec, err := pipelinetest.FailpointOverlay(root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	build := func(args ...string) string {
		program := filepath.Join(t.TempDir(), "program")
		c := exec.CommandContext(t.Context(), "go", append(append([]string{"build"}, args...), "-o", program, ".")...)
		c.Dir = root
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
		return program
	}
	run := func(program, armed string) (rounds int, hit bool, signal syscall.Signal) {
		c := exec.CommandContext(t.Context(), program)
		c.Env = append(os.Environ(), armed)
		out, _ := c.CombinedOutput()
		status := c.ProcessState.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			signal = status.Signal()
		}
		return strings.Count(string(out), "a\n"), strings.Contains(string(out), pipelinetest.FailpointHit+"word.round\n"), signal
	}
	kill := func(n int) pipelinetest.Armed { return pipelinetest.Armed{Name: "word.round", N: n, Do: "KILL"} }
	plain, armed := build(), build("-overlay", spec)
	for _, c := range []struct {
		program, env string
		rounds       int
		hit          bool
	}{
		{plain, pipelinetest.Arm(kill(2)), 3, false},
		{armed, pipelinetest.Arm(kill(2)), 1, true},
		{armed, pipelinetest.Arm(pipelinetest.Armed{Name: "other", N: 1, Do: "WAIT"}, kill(3)), 2, true},
		{armed, pipelinetest.Arm(kill(4)), 3, false},
		{armed, pipelinetest.Arm(pipelinetest.Armed{Name: "other", N: 1, Do: "KILL"}), 3, false},
		{armed, pipelinetest.FailpointVariable + "=", 3, false},
	} {
		rounds, hit, signal := run(c.program, c.env)
		if rounds != c.rounds || hit != c.hit || hit != (signal == syscall.SIGKILL) {
			t.Errorf("%s: got %d rounds, hit %t, signal %v, want %d rounds, hit %t", c.env, rounds, hit, signal, c.rounds, c.hit)
		}
	}
	if text, err := os.ReadFile(plain); err != nil || bytes.Contains(text, []byte(pipelinetest.FailpointVariable)) {
		t.Errorf("the build without the overlay reads %s (%v)", pipelinetest.FailpointVariable, err)
	}
}
