package main

import (
	"bufio"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"footfall/sinks/clickhouse/chdbtest"
)

// The engine alone says where it answers, answers there, and ends with Ctrl-C.
func TestClickHouseAlone(t *testing.T) {
	chdbtest.Library(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, "clickhouse", "--listen", "127.0.0.1:0", "--dir", t.TempDir()) //nolint:gosec // this test binary
	c.Args[0] = "footfall"
	c.Stderr = t.Output()
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	address := regexp.MustCompile(`^ClickHouse [0-9.]+ answers at (http://127\.0\.0\.1:[0-9]+), `).FindStringSubmatch(line)
	if address == nil {
		t.Fatalf("got %q (%v), want the address", line, err)
	}
	if got := chdbtest.Exec(t, address[1]+"/default", "SELECT 1"); got != "1" {
		t.Errorf("SELECT 1: got %q", got)
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("after Ctrl-C it ended with %v", err)
	}
}
