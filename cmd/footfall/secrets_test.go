package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"footfall/schemas"
	"footfall/sinks/clickhouse/chdb"
	"footfall/sinks/clickhouse/chdbtest"
	"footfall/sources/kafka"
)

// Secrets that are planted, right and wrong ones. None may ever be seen, in any form.
const (
	kafkaSecret      = "kafka'p&w%/KKKK"
	clickhouseSecret = "house'p&w%/CCCC"
	tokenSecret      = "token'p&w%/TTTT"
	wrongSecret      = "wrong'p&w%/WWWW"
)

// forms are the ways a secret may be written.
func forms(user, secret string) []string {
	quoted, err := json.Marshal(secret)
	if err != nil {
		panic(err)
	}
	return []string{
		secret, url.QueryEscape(secret), url.PathEscape(secret), url.UserPassword(user, secret).String(), strings.Trim(string(quoted), `"`), strings.ReplaceAll(secret, "'", `\'`),
		base64.StdEncoding.EncodeToString([]byte(user + ":" + secret)), base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + secret)), base64.StdEncoding.EncodeToString([]byte(secret)),
	}
}

// TestSecretsAreNeverPrinted runs every command with passwords and tokens that are right,
// and with such that are wrong, on things that are there and on things that are not, logs
// as much as can be logged, and looks through all that was printed and answered.
func TestSecretsAreNeverPrinted(t *testing.T) {
	broker, err := kafka.StartLocal(kafka.LocalConfig{Options: []kfake.Opt{kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "footfall", kafkaSecret)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	engine, err := chdb.StartLocal(t.Context(), chdb.LocalOptions{Library: chdbtest.Library(t), Dir: t.TempDir(), User: "shop", Password: clickhouseSecret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Kill() })
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "secret")
		write(t, path, text+"\n")
		return path
	}
	http1 := freePorts(t, 1)[0]
	t.Setenv("FOOTFALL_CLICKHOUSE_PASSWORD", clickhouseSecret)
	t.Setenv("FOOTFALL_HTTP_TOKEN", tokenSecret)
	h := newHouse(t, broker.Addr(), schemas.Live, "kafka.sasl.mechanism=scram-sha-512", "kafka.sasl.username=footfall", "kafka.sasl.password_file="+file(kafkaSecret),
		"clickhouse.dsn=http://"+engine.Addr(), "clickhouse.database=footfall", "clickhouse.username=shop", "log.level=debug", "http.listen="+http1, "kafka.partitions=2")
	h.conf.HTTP.Token, h.conf.ClickHouse.Password = tokenSecret, clickhouseSecret

	var seen bytes.Buffer
	running := h.start()
	h.ready()
	h.run("simulate", "--lane", "live", "--ago", "1d", "--speed", "86400x", "--shoppers", "50", "--for", "1s")
	h.applied(time.Minute)
	h.archived()
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/status", "/explain?user=u0000001", "/debug/pprof/goroutine?debug=2", "/debug/pprof/cmdline", "/nosuch"} {
		for _, token := range []string{"", wrongSecret, tokenSecret} {
			seen.WriteString(get(t, "http://"+http1+path, token))
		}
	}
	said := func(h *house, args ...string) {
		c := h.command(args...)
		out, _ := c.Output() // many must fail
		seen.Write(out)
	}
	wrong := map[string][]string{
		"right":                nil,
		"wrong in Kafka":       {"kafka.sasl.password_file=" + file(wrongSecret)},
		"no Kafka":             {"kafka.brokers=127.0.0.1:1"},
		"no ClickHouse":        {"clickhouse.dsn=http://127.0.0.1:1"},
		"no native ClickHouse": {"clickhouse.dsn=clickhouse://127.0.0.1:1"},
		"no bucket":            {"snapshots.bucket=file:///proc/nosuch"},
		"not a mechanism":      {"kafka.sasl.mechanism=scram-sha-255"},
		"no file":              {"kafka.sasl.password_file=/nosuch"},
		"both":                 {"clickhouse.password_file=" + file(wrongSecret)},
		"on the command line":  {"http.token=" + "x"},
	}
	for what, sets := range wrong {
		other := &house{t: t, conf: h.conf, sets: append(append([]string{}, h.sets...), sets...)}
		commands := [][]string{{"config"}, {"check"}}
		if what == "right" || what == "wrong in Kafka" {
			commands = append(commands, []string{"status"}, []string{"explain", "u1"}, []string{"topics", "check"}, []string{"triggers", "show"}, []string{"deadletters", "ls"}, []string{"snapshot", "verify"})
		}
		if what != "right" && !strings.Contains(what, "ClickHouse") { // that one is waited for
			commands = append(commands, []string{"run"})
		}
		for _, args := range commands {
			said(other, args...)
		}
		seen.Write(other.log.Bytes())
	}
	// An archive that is told a wrong password, or is not there, says so in the log.
	t.Setenv("FOOTFALL_CLICKHOUSE_PASSWORD", wrongSecret)
	h.stop(running)
	for _, dsn := range []string{"http://" + engine.Addr(), "clickhouse://127.0.0.1:1", "http://127.0.0.1:1"} {
		again := &house{t: t, conf: h.conf, sets: append(append([]string{}, h.sets...), "clickhouse.dsn="+dsn)}
		said(again, "check")
		running = again.start()
		again.until("the archive says what is wrong", time.Minute, func() bool {
			again.mu.Lock()
			defer again.mu.Unlock()
			return bytes.Contains(again.log.Bytes(), []byte("archive stopped"))
		})
		seen.WriteString(get(t, "http://"+http1+"/status", tokenSecret))
		again.stop(running)
		seen.Write(again.log.Bytes())
	}
	seen.Write(h.log.Bytes())

	for _, marker := range []string{"archive stopped", "516", "footfall_users", "check kafka.brokers, kafka.tls and kafka.sasl", "never seen", "only in the environment"} {
		if !bytes.Contains(seen.Bytes(), []byte(marker)) {
			t.Errorf("%q is nowhere: this test looks at less than it should", marker)
		}
	}
	for user, secret := range map[string]string{"footfall": kafkaSecret, "shop": clickhouseSecret, "": tokenSecret, "default": wrongSecret} {
		for _, form := range append(forms(user, secret), forms("footfall", secret)...) {
			if at := bytes.Index(seen.Bytes(), []byte(form)); at >= 0 {
				t.Errorf("a secret was printed: ...%s", seen.Bytes()[max(0, at-200):min(seen.Len(), at+100)])
			}
		}
	}
	t.Logf("looked through %d bytes", seen.Len())
}

func get(t *testing.T, address, token string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
