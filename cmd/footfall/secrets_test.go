package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kfake"
	"golang.org/x/sync/errgroup"

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
	h.applied()
	h.archived()
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/status", "/explain?user=u0000001", "/debug/pprof/goroutine?debug=2", "/debug/pprof/cmdline", "/nosuch"} {
		for _, token := range []string{"", wrongSecret, tokenSecret} {
			seen.WriteString(get(t, "http://"+http1+path, token))
		}
	}
	lines := connecting(t)
	say := func(h *house, lines ...[]string) { // at once: most wait for what is not there
		outs := make([][]byte, len(lines))
		var g errgroup.Group
		g.SetLimit(8)
		for i, args := range lines {
			c := h.command(args...)
			g.Go(func() error {
				outs[i], _ = c.Output() // many must fail
				return nil
			})
		}
		_ = g.Wait()
		seen.Write(bytes.Join(outs, nil))
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
		if what == "right" || what == "wrong in Kafka" || what == "no ClickHouse" {
			commands = lines
		}
		if what != "right" && !strings.Contains(what, "ClickHouse") { // that one is waited for
			commands = append(slices.Clone(commands), []string{"run"})
		}
		say(other, commands...)
		seen.Write(other.log.Bytes())
	}
	// An archive that is told a wrong password, or is not there, says so in the log.
	t.Setenv("FOOTFALL_CLICKHOUSE_PASSWORD", wrongSecret)
	h.stop(running)
	for _, dsn := range []string{"http://" + engine.Addr(), "clickhouse://127.0.0.1:1", "http://127.0.0.1:1"} {
		again := &house{t: t, conf: h.conf, sets: append(append([]string{}, h.sets...), "clickhouse.dsn="+dsn)}
		say(again, lines...)
		running = again.start()
		again.until("the archive says what is wrong", func() bool {
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

// connecting gives a command line of each command that asks Kafka, ClickHouse, the bucket or
// an instance, and holds that none is left out.
func connecting(t *testing.T) (lines [][]string) {
	t.Helper()
	events := filepath.Join(t.TempDir(), "events.csv")
	write(t, events, "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"+
		"2019-10-01 00:00:00 UTC,view,1,2,,acme,1.00,7,s\n")
	arguments := map[string][]string{
		"audit": {"--mend"}, "check": nil, "config": nil, "deadletters ls": nil, "deadletters republish": {"--same", "--reason", "bad_time"},
		"explain": {"u0000001"}, "forecast": nil, "parity": {"--all", "--wait", "1s"}, "plan": {"cart", "--clickhouse"},
		"publish": {events, "--mapping", "rees46"}, "simulate": {"--lane", "backfill", "--ago", "1d", "--count", "3"}, "snapshot ls": nil, "snapshot verify": nil,
		"status": nil, "topics check": nil, "topics create": nil, "topics hanging": nil, "triggers pause": {"--reason", "test"}, "triggers resume": nil,
		"triggers show": nil, "verify": {"footfall/0/1"},
	}
	apart := []string{"run", // is started by itself
		"bench", "clickhouse", "demo", // have engines of their own
		"rules", "rules show", "test", "validate", "version", // connect to nothing
		"completion bash", "completion fish", "completion powershell", "completion zsh"}
	var look func(c *cobra.Command, name []string)
	look = func(c *cobra.Command, name []string) {
		for _, sub := range c.Commands() {
			look(sub, append(slices.Clone(name), sub.Name()))
		}
		words := strings.Join(name, " ")
		args, connects := arguments[words]
		switch {
		case c.HasSubCommands() && words != "rules" || slices.Contains(apart, words):
		case !connects:
			t.Errorf("footfall %s: say here how to run it, or that it connects to nothing", words)
		default:
			lines = append(lines, append(name, args...))
		}
	}
	look(newRoot(new(bool)), nil)
	if len(lines) != len(arguments) {
		t.Errorf("got %d command lines of %d", len(lines), len(arguments))
	}
	return lines
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
