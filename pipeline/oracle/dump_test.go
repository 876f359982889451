package oracle

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// write writes records as `footfall demo --dump` does.
func write(records []Record) string {
	var b strings.Builder
	for _, r := range records {
		headers := []map[string]any{}
		for _, h := range r.Headers {
			headers = append(headers, map[string]any{"key": h.Key, "value": h.Value})
		}
		line, err := json.Marshal(map[string]any{
			"topic": r.Topic, "partition": r.Partition, "offset": r.Offset, "timestamp": r.Time, "key": r.Key, "headers": headers, "value": r.Value,
		})
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(&b, "%s\n", line)
	}
	return b.String()
}

func TestReadDump(t *testing.T) {
	opt := options(false)
	d, marks := perform(shop(1, 200, 10), opt, 1, "")
	opt.Marks = marks
	dir := t.TempDir()
	for name, records := range map[string][]Record{
		"input.ndjson": d.Input, "triggers.ndjson": d.Triggers, "muted.ndjson": d.Muted, "deadletters.ndjson": d.DeadLetters,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(write(records)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadDump(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, got); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	if err := got.Judge(opt).Err(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "muted.ndjson"), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadDump(dir); err == nil || !strings.Contains(err.Error(), "muted.ndjson: record 1: topic, partition, offset and timestamp are required") {
		t.Errorf("got %v, want an error that names file and record", err)
	}
	if _, err := ReadDump(filepath.Join(dir, "none")); err == nil {
		t.Error("got no error for a folder that isn't there")
	}
}

// FuzzReadRecords checks that what was read is read again from what is written.
func FuzzReadRecords(f *testing.F) {
	d, _ := perform(shop(1, 20, 3), options(false), 1, "")
	f.Add(write(d.Input))
	f.Add(write(d.Triggers))
	f.Add(`{"topic":"t","partition":0,"offset":0,"timestamp":0,"key":"","value":null,"headers":null}`)
	f.Add(`{"topic":"t","partition":0,"offset":0,"timestamp":0,"key":"!"}`)
	f.Fuzz(func(t *testing.T, text string) {
		records, err := ReadRecords(strings.NewReader(text))
		if err != nil {
			return
		}
		again, err := ReadRecords(strings.NewReader(write(records)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(records, again); diff != "" {
			t.Errorf("%q (-once +twice):\n%s", text, diff)
		}
	})
}

// FuzzJudge checks that no output, however odd, is fatal, and that a value that
// was changed in any way that matters to a reader of JSON is found.
func FuzzJudge(f *testing.F) {
	input := new(log).buy(0, "a").records
	e := Generate(input, options(false))[0].Transitions[0]
	good := encode(e, 1, mark{next: 1, clock: t0, fired: t0}, "", "EUR")
	f.Add(good.Value, "1", "reason")
	f.Add([]byte(`{"seq":1e3,"from":1,"expected":[],"cause":{"kind":"event"}}`), "x", "")
	f.Add([]byte(`null`), "-9223372036854775808", "future")
	f.Fuzz(func(t *testing.T, value []byte, number, reason string) {
		out := good
		out.Value = value
		if err := Judge(input, []Record{out}, nil, nil, options(true)).Err(); err == nil && !json.Valid(value) {
			t.Errorf("%q: clean", value)
		}
		for _, key := range []string{"n", "next", "clock", "fired"} {
			out = setHeader(good, key, number)
			Judge(input, nil, []Record{out}, []Record{encodeLetter(&out, reason, 2, mark{})}, options(true))
		}
	})
}

// The outputs that these tests judge are as the published schemas say.
func TestOutputsAreAsTheSchemasSay(t *testing.T) {
	compiler := jsonschema.NewCompiler()
	transition, err := compiler.Compile("../../schemas/transition.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	letter, err := compiler.Compile("../../schemas/deadletter.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	d, _ := perform(shop(1, 300, 10), options(true), 1, "")
	for _, r := range append(d.Triggers, d.Muted...) {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(r.Value)))
		if err != nil {
			t.Fatal(err)
		}
		if err := transition.Validate(v); err != nil {
			t.Fatalf("%s: %v", r.Value, err)
		}
	}
	for _, r := range d.DeadLetters {
		headers := map[string]any{}
		for _, h := range r.Headers {
			headers[h.Key] = string(h.Value)
		}
		if err := letter.Validate(headers); err != nil {
			t.Fatalf("%v: %v", headers, err)
		}
	}
}
