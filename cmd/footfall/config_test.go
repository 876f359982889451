package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

//go:generate sh -c "go run . config --markdown > CONFIG.md"

// CONFIG.md is what the table says.
func TestReferenceIsCurrent(t *testing.T) {
	var got bytes.Buffer
	if err := writeReference(&got); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("CONFIG.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("CONFIG.md is not what the table says (-file +table); to repeat: go generate ./cmd/footfall\n%s", diff)
	}
}

// What `footfall config` prints can be read again, and says the same.
func TestPrintedConfigReadsBack(t *testing.T) {
	first := defaultConfig()
	first.Kafka.Brokers = []string{"a:1", "b:2"}
	first.Shop.Rates = map[string]string{"USD": "0.910", "GBP": "1.17"}
	first.Clock.MaxAge = 36 * time.Hour
	readsBack(t, first)

	for _, odd := range []string{
		"[::1]:9464", ":9464", "0.0.0.0:9464", "a: b", "a:", "- a", "*a", "&a", "!a", "%a", "@a", "`a", "|", ">", "?", "{a}", "[a]", "a, b", " a ",
		"null", "~", "true", "no", "0123", "1_000", "1e3", "0x1F", "2024-05-01", "#a", "a #b", "it's", `a"b`, "a\\b", "a\tb", "\n", "", "-", "---", "eu/1", "file://./a?b=c&d=%20",
	} {
		c := defaultConfig()
		c.Kafka.Group, c.HTTP.Listen, c.Kafka.SASL.Username = odd, odd, odd
		c.Kafka.Brokers, c.Segments.Sets = []string{odd, "b:2"}, []string{"lifecycle", odd}
		readsBack(t, c)
	}
}

// readsBack reads a configuration back from what is printed of it.
func readsBack(t *testing.T, first *Config) {
	t.Helper()
	var printed bytes.Buffer
	if err := writeConfig(&printed, first); err != nil {
		t.Fatal(err)
	}
	second := defaultConfig()
	if errs := second.readYAML("printed.yaml", printed.Bytes(), second.options()); len(errs) > 0 {
		t.Fatalf("reading back: %v\n%s", errs, printed.String())
	}
	a, b := first.options(), second.options()
	for i := range a {
		if text(a[i].target) != text(b[i].target) {
			t.Errorf("%s: got %q, want %q", a[i].key, text(b[i].target), text(a[i].target))
		}
	}
}

// The defaults are valid, and every key has an explanation and a variable of its own.
func TestDefaults(t *testing.T) {
	c := defaultConfig()
	if errs := c.check(); len(errs) > 0 {
		t.Errorf("the defaults are refused: %v", errs)
	}
	seen := map[string]string{}
	for _, o := range c.options() {
		if !strings.HasSuffix(o.doc, ".") && !strings.HasSuffix(o.doc, ",") {
			t.Errorf("%s: the explanation is not a sentence: %q", o.key, o.doc)
		}
		if other, twice := seen[variable(o.key)]; twice {
			t.Errorf("%s and %s share %s", o.key, other, variable(o.key))
		}
		seen[variable(o.key)] = o.key
	}
}

// What Kubernetes tells of services of a namespace is none of our keys, whatever the
// services are named: the next restart would be refused.
func TestVariablesOfServices(t *testing.T) {
	var env []string
	for _, service := range []string{"FOOTFALL", "FOOTFALL_METRICS", "FOOTFALL_KAFKA", "FOOTFALL_CLICKHOUSE_HEADLESS"} {
		for _, v := range []string{
			"SERVICE_HOST=10.0.0.7", "SERVICE_PORT=9092", "SERVICE_PORT_TCP_CLIENT=9092", "PORT=tcp://10.0.0.7:9092", "PORT_9092_TCP=tcp://10.0.0.7:9092",
			"PORT_9092_TCP_PROTO=tcp", "PORT_9092_TCP_PORT=9092", "PORT_9092_TCP_ADDR=10.0.0.7",
		} {
			env = append(env, service+"_"+v)
		}
	}
	if _, err := load(sources{env: env}); err != nil {
		t.Error(err)
	}
	if _, err := load(sources{env: []string{"FOOTFALL_HTTP_PORT=9464"}}); err == nil {
		t.Error("FOOTFALL_HTTP_PORT is no key, and was taken")
	}
	for _, o := range defaultConfig().options() {
		if foreignVariable(variable(o.key), "tcp://10.0.0.7:9092") {
			t.Errorf("%s could not be set by %s", o.key, variable(o.key))
		}
	}
}

// A token that no header can carry is refused: who has it too would be answered that a token
// is needed.
func TestTokensThatNobodyCanSend(t *testing.T) {
	for token, fine := range map[string]bool{
		"s3cret": true, "tok en'p&w%/": true, "s3cret\n": true, "s3cret ": false, "\ts3cret": false, "s3\ncret": false, "s3\x00cret": false,
	} {
		c, err := load(sources{env: []string{"FOOTFALL_HTTP_TOKEN=" + token}})
		if fine != (err == nil) {
			t.Errorf("token %q: got %v", token, err)
		}
		if err != nil {
			if !strings.HasPrefix(err.Error(), "FOOTFALL_HTTP_TOKEN: http.token: ") || strings.Contains(err.Error(), "s3") {
				t.Errorf("token %q: got %v", token, err)
			}
			continue
		}
		instance := httptest.NewServer((&port{of: gossip{}, token: c.HTTP.Token}).handler(http.NotFoundHandler()))
		if err := ask(t.Context(), c, strings.TrimPrefix(instance.URL, "http://"), "/status", nil, &StatusAnswer{}); err != nil {
			t.Errorf("token %q: %v", token, err)
		}
		instance.Close()
	}
}

// The later place wins: file, environment, flags.
func TestPrecedence(t *testing.T) {
	path := t.TempDir() + "/f.yaml"
	if err := os.WriteFile(path, []byte("kafka: {group: file, instance: file, lane: replay}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := load(sources{
		path:  path,
		env:   []string{"FOOTFALL_KAFKA_GROUP=env", "FOOTFALL_KAFKA_INSTANCE=env", "FOOTFALL_PORT_9464_TCP=tcp://10.0.0.1"},
		flags: []setting{{"kafka.group", "flag", "--set"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{c.Kafka.Group, c.Kafka.Instance, c.Kafka.Lane.String()}
	if diff := cmp.Diff([]string{"flag", "env", "replay"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A secret is never printed, however the configuration is.
func TestSecretsStaySecret(t *testing.T) {
	c := defaultConfig()
	c.Kafka.SASL.Password, c.ClickHouse.Password, c.HTTP.Token = "hunter2", "hunter2", "hunter2"
	var printed bytes.Buffer
	if err := writeConfig(&printed, c); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&printed, "%v %+v %#v %s", c, c, c, c.HTTP.Token)
	if strings.Contains(printed.String(), "hunter2") {
		t.Errorf("a secret was printed:\n%s", printed.String())
	}
}

func TestDurations(t *testing.T) {
	for _, c := range []struct {
		text string
		want time.Duration
		ok   bool
	}{
		{"30d", 30 * 24 * time.Hour, true},
		{"1d12h", 36 * time.Hour, true},
		{"2s500ms", 2500 * time.Millisecond, true},
		{"0", 0, true},
		{"0s", 0, true},
		{"", 0, false},
		{"5", 0, false},
		{"d", 0, false},
		{"-5s", 0, false},
		{"1.5h", 0, false},
		{"1h1h", 0, false},
		{"1m1h", 0, false},
		{"5 s", 0, false},
		{"5y", 0, false},
		{"200000d", 0, false},
		{"99999999999999999999s", 0, false},
	} {
		got, err := parseDuration(c.text)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("parseDuration(%q): got %v, %v, want %v, ok %v", c.text, got, err, c.want, c.ok)
		}
	}
}

// Whatever is read as a duration prints as what reads the same.
func FuzzDuration(f *testing.F) {
	for _, s := range []string{"30d", "1d12h", "500ms", "0", "x", "9223372036854ms", "106751d23h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseDuration(s)
		if err != nil {
			return
		}
		if again, err := parseDuration(formatDuration(d)); err != nil || again != d {
			t.Errorf("%q: read as %v, printed as %q, read again as %v, %v", s, d, formatDuration(d), again, err)
		}
	})
}

// No YAML makes the reader panic, and every fault names the file.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		"kafka: {brokers: [a:1]}\n",
		"kafka:\n  topics:\n    events: |\n      x\n",
		"shop: {rates: {USD: 0.9, GBP: '1'}}\n",
		"a: &x 1\nb: *x\n",
		"<<: {a: 1}\n",
		"--- a\n--- b\n",
		"---\n---\n",
		"a: 1\n...\n",
		"[1, 2]\n",
		"? {a: 1}\n: 2\n",
		"kafka: !!str x\n",
		"# nothing\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		c := defaultConfig()
		for _, err := range c.readYAML("f.yaml", s, c.options()) {
			if !strings.HasPrefix(err.Error(), "f.yaml") {
				t.Errorf("%q: an error without its place: %v", s, err)
			}
		}
		c.check()
	})
}
