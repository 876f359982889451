package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
)

// No environment and no flag makes the configuration panic; what is accepted prints as
// what reads the same.
func FuzzSettings(f *testing.F) {
	for _, s := range []string{
		"kafka.brokers=a:1,b:2", "shop.rates=USD=0.91,GBP=1.17", "clock.tick=1d2h", "kafka.lane=replay", "dedup.budget=-1",
		"clickhouse.dsn=http://[::1", "snapshots.bucket=s3://u:p@b", "http.listen=", "kafka.tls.enabled=yes", "http.token=x", "kafka.topics.muted=\x00", "shop.rates=USD=1e999999999",
	} {
		key, value, _ := strings.Cut(s, "=")
		f.Add(key, value)
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		c := defaultConfig()
		table := c.options()
		errs := c.readEnv([]string{variable(key) + "=" + value}, table)
		errs = append(errs, c.readSettings([]setting{{key, value, "--set"}}, table)...)
		o, ok := find(table, key)
		if !ok || len(errs) > 0 {
			return
		}
		c.check()
		_ = c.clickhouseDSN()
		if o.secret {
			t.Errorf("%s is a secret and was accepted from a flag", key)
		}
		if strings.ContainsAny(value, "\r\n") || strings.Contains(value, "#") || o.key == "kafka.brokers" || o.key == "shop.rates" {
			return // as YAML these need quotes, which the printed form has not
		}
		again := defaultConfig()
		if errs := again.readSettings([]setting{{key, text(o.target), "--set"}}, again.options()); len(errs) > 0 {
			t.Errorf("%s=%q prints as %q, which is refused: %v", key, value, text(o.target), errs)
		}
	})
}

// Whatever is in the control topic, it is a switch, another's record, or an error.
func FuzzControl(f *testing.F) {
	f.Add([]byte("triggers"), []byte(`{"paused":true,"at":1,"by":"me","reason":"sale"}`), false)
	f.Add([]byte("triggers"), []byte(nil), true)
	f.Add([]byte("other"), []byte("x"), false)
	f.Add([]byte("triggers"), []byte(`{"paused":"yes"}`), false)
	f.Fuzz(func(t *testing.T, key, value []byte, tombstone bool) {
		r := &kgo.Record{Key: key, Value: value}
		if tombstone {
			r.Value = nil
		}
		s, ok, err := parseControl(r)
		switch {
		case string(key) != controlKey:
			if ok || err != nil {
				t.Errorf("key %q: got %v, %v", key, ok, err)
			}
		case err != nil:
			if ok {
				t.Errorf("%q: a switch and an error: %v", value, err)
			}
		case !ok:
			t.Errorf("%q: neither a switch nor an error", value)
		case r.Value != nil:
			text, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			if again, ok, err := parseControl(&kgo.Record{Key: key, Value: text}); again != s || !ok || err != nil {
				t.Errorf("%q: %+v comes back as %+v, %v", value, s, again, err)
			}
		}
	})
}

// A dead letter that is listed and put back is what it was, byte for byte.
func FuzzDeadLetterLine(f *testing.F) {
	f.Add([]byte("u"), []byte(`{"event_id":"e"}`))
	f.Add([]byte(nil), []byte("null"))
	f.Add([]byte("\xff"), []byte("\xff\x00"))
	f.Add([]byte("u"), []byte("\"\\ud800\u2028"))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		for _, value := range [][]byte{value, nil} {
			l := lineOf(&schemas.ParsedDeadLetter{DeadLetter: schemas.DeadLetter{Key: key, Value: value}, Topic: "events"}, schemas.Live)
			text, err := json.Marshal(l)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.ContainsAny(text, "\n\r") {
				t.Errorf("%q is more than a line: %q", value, text)
			}
			var back deadLetterLine
			if err := json.Unmarshal(text, &back); err != nil {
				t.Fatal(err)
			}
			got := back.bytesOf()
			if !bytes.Equal(got, value) || (got == nil) != (value == nil) {
				t.Errorf("%q comes back as %q by %s", value, got, text)
			}
		}
	})
}

// Of the lines of any file, each is published or told, and what is published is what
// the contract takes.
func FuzzRepublish(f *testing.F) {
	const good = `{"event_id":"e","type":"view","user_id":"u","time":"2024-05-01T12:00:00Z"}`
	f.Add([]byte(good + "\n\n" + good))
	f.Add([]byte(`{"value":` + good + `,"topic":"events","offset":7}`))
	f.Add([]byte(`{"value":"{}","key":null,"cut":true}` + "\n{\n"))
	f.Add([]byte(`{"value_base64":"e30=","value":null}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		decoder, err := schemas.NewDecoder(schemas.Contract{Currency: "EUR"})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		r := republisher{dry: true, decoder: decoder, out: &out}
		if err := r.file(t.Context(), "-", bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		lines := int64(0)
		for line := range bytes.SplitSeq(content, []byte("\n")) {
			if len(bytes.TrimSpace(line)) > 0 {
				lines++
			}
		}
		if r.published+r.refused != lines {
			t.Errorf("%q: %d published, %d refused of %d lines", content, r.published, r.refused, lines)
		}
	})
}

// What validate says of a line is what the engine's decoder says of the event.
func FuzzValidate(f *testing.F) {
	const good = `{"event_id":"e","type":"view","user_id":"u","time":"2024-05-01T12:00:00Z"}`
	f.Add([]byte(good))
	f.Add([]byte(`{"key":"u","value":` + good + `,"timestamp":1714564800000}`))
	f.Add([]byte(`{"key":"v","value":"` + strings.ReplaceAll(good, `"`, `\"`) + `"}`))
	f.Add([]byte(`{"value":null}`))
	f.Add([]byte("\xff{"))
	f.Fuzz(func(t *testing.T, line []byte) {
		decoder, err := schemas.NewDecoder(schemas.Contract{Currency: "EUR"})
		if err != nil {
			t.Fatal(err)
		}
		v := validation{decoder: decoder, now: func() schemas.Millis { return 1 << 45 }, out: bufio.NewWriter(io.Discard), show: 3}
		v.line("f:1", line)
		v.print()
		if v.events != 1 || v.accepted+v.refused != 1 {
			t.Errorf("%q: %d events, %d accepted, %d refused, want one", line, v.events, v.accepted, v.refused)
		}
		var members map[string]json.RawMessage
		_ = json.Unmarshal(line, &members)
		if _, hasValue := members["value"]; hasValue {
			return // a record around an event
		}
		var refused *schemas.RefusedError
		var ev schemas.Event
		if err := decoder.Decode(userOf(line), line, &ev); errors.As(err, &refused) != (v.refused == 1 && v.byReason[schemas.Future] == 0) {
			t.Errorf("%q: the decoder says %v, validate %d refused", line, err, v.refused)
		}
	})
}

// A moment is read as it is written.
func FuzzMoment(f *testing.F) {
	f.Add([]byte(`"2024-05-01T12:00:00.123Z"`))
	f.Add([]byte("null"))
	f.Add([]byte(`"9999-12-31T23:59:59+24:00"`))
	f.Add([]byte("7"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, again Moment
		if m.UnmarshalJSON(b) != nil {
			return
		}
		text, err := m.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalJSON(text); err != nil || again != m {
			t.Errorf("%q: %d is written as %s and read as %d, %v", b, m, text, again, err)
		}
	})
}
