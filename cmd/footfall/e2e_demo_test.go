package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"footfall/pipeline/oracle"
	"footfall/schemas"
	"footfall/sinks/clickhouse/chdbtest"
)

// TestEndToEndDemo runs `demo --from` on every data set, as a newcomer would, and has
// the oracle judge what it dumps.
func TestEndToEndDemo(t *testing.T) {
	chdbtest.Library(t)
	for _, s := range dataSets() {
		t.Run(s.mapping, func(t *testing.T) {
			if raceSlower > 1 && s.mapping != "rees46" {
				t.Skip("too slow under the race detector, and the same code as rees46")
			}
			dir := t.TempDir()
			line := runDemo(t, "--from", s.path(t), "--mapping", s.mapping, "--dump", dir)
			if s.users > 0 && line.Users != s.users {
				t.Errorf("got %d users, want %d", line.Users, s.users)
			}
			if line.Muted > 0 || line.Triggers == 0 {
				t.Errorf("got %d triggers and %d muted, want none muted", line.Triggers, line.Muted)
			}
			dump, err := oracle.ReadDump(dir)
			if err != nil {
				t.Fatal(err)
			}
			again := dump.Judge(oracle.Options{Currency: s.currency, Lane: schemas.Replay.String()})
			if err := again.Err(); err != nil {
				t.Error(err)
			}
			got := demoReport{
				RecordsPublished: int64(len(dump.Input)), EventsApplied: again.Applied, Duplicates: again.Duplicates,
				DeadLetters: demoDeadLetters{again.DeadLetters, again.Reasons}, Transitions: len(dump.Triggers) + len(dump.Muted),
				Triggers: again.Triggers, Muted: again.Muted, Users: again.Users, Segments: again.Segments,
			}
			ignored := cmpopts.IgnoreFields(demoReport{}, "Sets", "Judged", "Others", "Latency", "ClickHouse")
			if diff := cmp.Diff(line, &got, ignored, cmpopts.IgnoreUnexported(demoReport{})); diff != "" {
				t.Errorf("counts (-line +dump)\n%s", diff)
			}
		})
	}
}

// TestEndToEndDemoShop runs the demo on the simulated shop, as `make demo` does.
func TestEndToEndDemoShop(t *testing.T) {
	chdbtest.Library(t)
	shop := []string{"--history", "1d", "--rate", "300"}
	t.Run("for a while", func(t *testing.T) {
		line := runDemo(t, append(shop, "--for", "3s")...)
		if line.Latency.N == 0 || line.Triggers == 0 {
			t.Errorf("got %+v: nothing has triggered", line)
		}
	})
	t.Run("until Ctrl-C", func(t *testing.T) { interrupted(t, shop) })
}

// interrupted ends the demo by hand, as a terminal does: its whole process group has the
// signal, the helper process too.
func interrupted(t *testing.T, args []string) {
	c, stderr := demoCommand(t, args...)
	temp := t.TempDir()
	c.Env = append(os.Environ(), "TMPDIR="+temp)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	c.Stdout = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	address := regexp.MustCompile(`curl -s (\S+/metrics)`)
	for applied := false; !applied; {
		select {
		case err := <-ended:
			t.Fatalf("it has ended by itself: %v\n%s", err, stderr)
		case <-time.After(50 * time.Millisecond):
		}
		if m := address.FindStringSubmatch(stderr.String()); m != nil {
			applied = sumOf(t, "http://"+m[1], "footfall_events_applied_total") > 0
		}
	}
	onLoopback(t, c.Process.Pid)
	if err := syscall.Kill(-c.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	for _, want := range []string{" records published\n", " events applied, ", " transitions: ", " in ClickHouse\n", ": 0 lost, 0 doubled\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the summary:\n%s", want, &out)
		}
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("it has left %v (%v)", left, err)
	}
}

// onLoopback holds that what the processes of a group listen on is reached from this
// machine only: the demo's Kafka, ClickHouse and HTTP port.
func onLoopback(t *testing.T, group int) {
	t.Helper()
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil || len(fds) == 0 {
		t.Log("there is no /proc to tell who listens")
		return
	}
	ours := map[string]bool{} // by inode
	for _, fd := range fds {
		pid, _ := strconv.Atoi(strings.Split(fd, "/")[2])
		if of, err := syscall.Getpgid(pid); err != nil || of != group {
			continue
		}
		link, _ := os.Readlink(fd) // it may be closed by now
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			ours[strings.TrimSuffix(inode, "]")] = true
		}
	}
	listening := 0
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, _ := os.ReadFile(file) // the second is not there without IPv6
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line) // sl local_address rem_address st ... inode, the tenth
			if len(f) < 10 || f[3] != "0A" || !ours[f[9]] {
				continue
			}
			listening++
			// Addresses are words of four bytes, the lowest byte first.
			if host, _, _ := strings.Cut(f[1], ":"); host != "0100007F" && host != "00000000000000000000000001000000" && host != "0000000000000000FFFF00000100007F" {
				t.Errorf("something listens on %s of %s", f[1], file)
			}
		}
	}
	if listening < 3 {
		t.Errorf("%d ports are listened on, want those of Kafka, ClickHouse and HTTP", listening)
	}
}

// sumOf adds up a metric over its labels.
func sumOf(t *testing.T, address, name string) (sum float64) {
	t.Helper()
	res, err := http.Get(address) //nolint:gosec // it was told by the process that serves it
	if err != nil {
		return 0 // it does not serve yet
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, value, ok := strings.Cut(line, "} "); ok && strings.HasPrefix(line, name+"{") {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

// written is what a process has written so far; any goroutine may look.
type written struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// demoCommand is `demo --headless`, and what it will have said on standard error.
func demoCommand(t *testing.T, args ...string) (*exec.Cmd, *written) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, append([]string{"demo", "--headless"}, args...)...) //nolint:gosec // this test binary
	c.Args[0] = "footfall"
	stderr := &written{}
	c.Stderr = stderr
	return c, stderr
}

// runDemo runs the demo to its end, and returns the one line that it prints.
func runDemo(t *testing.T, args ...string) *demoReport {
	t.Helper()
	c, stderr := demoCommand(t, append(args, "--output", "json")...)
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	t.Logf("%s", out)
	if bytes.Count(out, []byte("\n")) != 1 || !bytes.HasSuffix(out, []byte("\n")) {
		t.Fatalf("want one line, got:\n%s", out)
	}
	checkLine(t, out)
	var r demoReport
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

// checkLine holds what is true of the line after every run without a fault. It reads the
// line as its readers do, by the names that they were promised.
func checkLine(t *testing.T, text []byte) {
	t.Helper()
	var line map[string]any
	if err := json.Unmarshal(text, &line); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	object := func(of any) map[string]any {
		o, ok := of.(map[string]any)
		if !ok {
			t.Fatalf("%v is no object in %s", of, text)
		}
		return o
	}
	number := func(of any) float64 {
		n, ok := of.(float64)
		if !ok {
			t.Fatalf("%v is no number in %s", of, text)
		}
		return n
	}
	sum := func(of any) (all float64) {
		for _, n := range object(of) {
			all += number(n)
		}
		return all
	}
	for _, c := range []struct {
		what  string
		of    any
		names string
	}{
		{"the line", line, "clickhouse dead_letters doubled duplicates events_applied latency_ms lifecycle_judged lost muted records_published segments sets transitions transitions_of_other_sets triggers users"},
		{"dead_letters", line["dead_letters"], "by_reason total"},
		{"latency_ms", line["latency_ms"], "n p50 p99"},
		{"clickhouse", line["clickhouse"], "events transitions"},
		{"segments", line["segments"], "active cooling dormant lost new prospect"},
	} {
		if got := strings.Join(slices.Sorted(maps.Keys(object(c.of))), " "); got != c.names {
			t.Errorf("names in %s: got %s, want %s", c.what, got, c.names)
		}
	}
	dead, rows, latency := object(line["dead_letters"]), object(line["clickhouse"]), object(line["latency_ms"])
	for _, c := range []struct {
		what      string
		got, want float64
	}{
		{"records published = applied + duplicates + dead letters", number(line["records_published"]), number(line["events_applied"]) + number(line["duplicates"]) + number(dead["total"])},
		{"dead letters = those of all reasons", number(dead["total"]), sum(dead["by_reason"])},
		{"transitions = triggers + muted", number(line["transitions"]), number(line["triggers"]) + number(line["muted"])},
		{"users = those of all segments", number(line["users"]), sum(line["segments"])},
		{"events in ClickHouse = applied + duplicates", number(rows["events"]), number(line["events_applied"]) + number(line["duplicates"])},
		{"transitions in ClickHouse = transitions", number(rows["transitions"]), number(line["transitions"])},
		{"lost", number(line["lost"]), 0},
		{"doubled", number(line["doubled"]), 0},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %g, want %g", c.what, c.got, c.want)
		}
	}
	for _, p := range []string{"p50", "p99"} {
		if none := latency[p] == nil; none != (number(latency["n"]) == 0) {
			t.Errorf("latency of %g transitions: %s is %v", latency["n"], p, latency[p])
		}
	}
}
