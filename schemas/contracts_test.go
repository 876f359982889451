package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func contractFile(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := Contracts.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func unmarshal(tb testing.TB, b []byte) any {
	tb.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b)) // numbers stay exact
	if err != nil {
		tb.Fatalf("%v: %s", err, b)
	}
	return v
}

func schemaOf(tb testing.TB, name string) (*jsonschema.Schema, map[string]any) {
	tb.Helper()
	doc := unmarshal(tb, contractFile(tb, name)).(map[string]any)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(name, doc); err != nil {
		tb.Fatal(err)
	}
	s, err := c.Compile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return s, doc
}

func TestSchemasAreSound(t *testing.T) {
	for _, name := range []string{"event.schema.json", "transition.schema.json", "deadletter.schema.json"} {
		s, doc := schemaOf(t, name)
		if doc["$schema"] != "https://json-schema.org/draft/2020-12/schema" {
			t.Errorf("%s: $schema %v", name, doc["$schema"])
		}
		for i, example := range doc["examples"].([]any) {
			if err := s.Validate(example); err != nil {
				t.Errorf("%s: example %d: %v", name, i, err)
			}
		}
		for field, p := range doc["properties"].(map[string]any) {
			if d, _ := p.(map[string]any)["description"].(string); d == "" {
				t.Errorf("%s: %s has no description", name, field)
			}
		}
	}
}

func TestEventSchemaHasEveryField(t *testing.T) {
	_, doc := schemaOf(t, "event.schema.json")
	var want []string
	for f := range fields {
		want = append(want, f.String())
	}
	slices.Sort(want)
	properties := doc["properties"].(map[string]any)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(properties))); diff != "" {
		t.Errorf("fields: want -, got +\n%s", diff)
	}
	var kinds []any
	for k := range Kinds {
		kinds = append(kinds, k.String())
	}
	if diff := cmp.Diff(kinds, properties["type"].(map[string]any)["enum"]); diff != "" {
		t.Errorf("types: want -, got +\n%s", diff)
	}
	var codes []any
	for c := range allCodes {
		if _, ok := exponent(c); ok {
			codes = append(codes, c)
		}
	}
	enum := properties["currency"].(map[string]any)["anyOf"].([]any)[1].(map[string]any)["enum"]
	if diff := cmp.Diff(codes, enum); diff != "" {
		t.Errorf("currencies: want -, got +\n%s", diff)
	}
}

// allCodes yields AAA to ZZZ.
func allCodes(yield func(string) bool) {
	for i := range 26 * 26 * 26 {
		if !yield(string([]byte{byte('A' + i/676), byte('A' + i/26%26), byte('A' + i%26)})) {
			return
		}
	}
}

func TestCurrencies(t *testing.T) {
	// How many codes List One of 2026-01-01 has by exponent, and the three kept.
	want := map[int]int{0: 17, 2: 139 + 3, 3: 7, 4: 2, noExponent: 13}
	got := map[int]int{}
	for c := range allCodes {
		if e, ok := exponent(c); ok {
			got[e]++
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
	for _, c := range []struct {
		code string
		want int
		ok   bool
	}{{"EUR", 2, true}, {"JPY", 0, true}, {"KWD", 3, true}, {"CLF", 4, true}, {"XAU", 0, false}, {"eur", 0, false}, {"", 0, false}} {
		if e, ok := Exponent(c.code); e != c.want || ok != c.ok {
			t.Errorf("Exponent(%q): got %d, %v, want %d, %v", c.code, e, ok, c.want, c.ok)
		}
	}
}

// schemaCannotSay tells the reasons for which the decoder refuses what the schema
// has to accept: limits in bytes and in decimals, products, rates, calendars, keys.
func schemaCannotSay(r Refusal) bool {
	return slices.Contains([]Refusal{
		IDTooLong, BadTime, Before1990, TooManyDecimals, AmountOverflow, UnknownCurrency, NoKey, KeyMismatch, InvalidUTF8, TooLarge,
	}, r)
}

// looseTime is a time that Go parses and RFC 3339 does not allow. The decoder
// takes it, the contract does not promise it.
var looseTime = regexp.MustCompile(`"time" ?:\t?"[^"]*(T\d:|,|\+24|:60"|\\u)`)

// hugeExponent is in a number that the schema library panics on.
var hugeExponent = regexp.MustCompile(`[eE][+-]?[0-9]{6}`)

func TestEventSchemaAndDecoderAgree(t *testing.T) {
	s, _ := schemaOf(t, "event.schema.json")
	d := newDecoder(t)
	check := func(name string, key, value []byte) {
		if !json.Valid(value) || looseTime.Match(value) || hugeExponent.Match(value) {
			return
		}
		invalid := s.Validate(unmarshal(t, value))
		var ev Event
		var r *RefusedError
		refused := errors.As(d.Decode(key, value, &ev), &r)
		switch {
		case !refused && invalid != nil:
			t.Errorf("%s: %.200s: the decoder accepts it, the schema says %v", name, value, invalid)
		case refused && invalid == nil && !schemaCannotSay(r.Reason):
			t.Errorf("%s: %.200s: the schema accepts it, the decoder says %v", name, value, r)
		}
	}
	for _, c := range refusals() {
		check(c.name, []byte(c.key), []byte(c.value))
	}
	check("typical", []byte("u-48151623"), []byte(typical))
	const seed = 11
	r := rand.New(rand.NewPCG(seed, 0))
	for n := range 5000 {
		key, value := randomEvent(r)
		check(fmt.Sprintf("seed %d event %d", seed, n), key, value)
	}
}

func TestSchemaExamplesAreAccepted(t *testing.T) {
	_, doc := schemaOf(t, "event.schema.json")
	d := newDecoder(t)
	for i, example := range doc["examples"].([]any) {
		value, err := json.Marshal(example)
		if err != nil {
			t.Fatal(err)
		}
		var ev Event
		if err := d.Decode([]byte("u-48151623"), value, &ev); err != nil {
			t.Errorf("example %d: %v", i, err)
		}
	}
}

func TestTransitionsFitTheirSchema(t *testing.T) {
	s, doc := schemaOf(t, "transition.schema.json")
	check := func(name string, tr Transition) {
		v := unmarshal(t, tr.AppendJSON(nil, testContext(17)))
		if err := s.Validate(v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for field := range v.(map[string]any) {
			if _, ok := doc["properties"].(map[string]any)[field]; !ok {
				t.Fatalf("%s: %s is not in the schema", name, field)
			}
		}
	}
	for name, tr := range goldenTransitions() {
		check(name, tr)
	}
	const seed = 5
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range 1000 {
		check(fmt.Sprintf("seed %d transition %d", seed, i), randomTransition(r))
	}
	for m := MutedRules; m <= MutedStale; m++ {
		tr := goldenTransitions()["transition-timer"]
		tr.Muted = m
		check(m.String(), tr)
	}
	for i, example := range doc["examples"].([]any) {
		value, err := json.Marshal(example)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeTransition(value, testSets); err != nil {
			t.Errorf("example %d: %v", i, err)
		}
	}
}

func TestDeadLettersFitTheirSchema(t *testing.T) {
	s, doc := schemaOf(t, "deadletter.schema.json")
	dl, out := goldenDeadLetter()
	for _, cut := range []bool{false, true} {
		for dl.Reason = Accepted + 1; dl.Reason < Refusals; dl.Reason++ {
			v := map[string]any{}
			for _, h := range dl.Encode("events", &out, cut).Headers[len(dl.Headers):] {
				v[h.Key] = string(h.Value)
				if _, ok := doc["properties"].(map[string]any)[h.Key]; !ok {
					t.Errorf("%s is not in the schema", h.Key)
				}
			}
			if err := s.Validate(v); err != nil {
				t.Errorf("%v, cut %v: %v", dl.Reason, cut, err)
			}
		}
	}
	enum := doc["properties"].(map[string]any)["dlq_reason"].(map[string]any)["enum"].([]any)
	if len(enum) != int(Refusals-1) {
		t.Errorf("got %d reasons in the schema, want %d", len(enum), Refusals-1)
	}
}

// row is a line of a table in EVENTS.md.
var row = regexp.MustCompile("(?m)^\\| `([a-z_0-9]+)` \\| (.*?) \\| (.*?) \\|$")

func TestEventsPage(t *testing.T) {
	page := string(contractFile(t, "EVENTS.md"))
	for f := range fields {
		if !strings.Contains(page, "`"+f.String()+"`") {
			t.Errorf("field %v is not there", f)
		}
	}
	_, base, _ := strings.Cut(page, "```json\n")
	base, _, _ = strings.Cut(base, "\n```")
	d := newDecoder(t)
	var ev Event
	if err := d.Decode([]byte("u-48151623"), []byte(base), &ev); err != nil {
		t.Fatalf("the event of the page: %v", err)
	}
	_, refusals, _ := strings.Cut(page, "## What is refused")
	last, tried := Accepted, 0
	for _, m := range row.FindAllStringSubmatch(refusals, -1) {
		if m[1] == "dlq_reason" {
			continue // the table's head
		}
		reason, ok := ParseRefusal(m[1])
		if !ok || reason != last+1 {
			t.Errorf("%s stands after %v: every reason once, in their order", m[1], last)
		}
		last = reason
		example, _, _ := strings.Cut(strings.TrimPrefix(m[2], "`"), "`")
		value := example
		if strings.HasPrefix(example, `"`) {
			value = strings.TrimSuffix(base, "}") + "," + example + "}"
		}
		if !strings.HasPrefix(m[2], "`") || reason == Future {
			continue
		}
		tried++
		var r *RefusedError
		if err := d.Decode([]byte("u-48151623"), []byte(value), &ev); !errors.As(err, &r) || r.Reason != reason {
			t.Errorf("example of %v: %s: got %v", reason, value, err)
		}
	}
	if last != Future || tried != 13 {
		t.Errorf("the table ends with %v, want future; %d examples tried, want 13", last, tried)
	}
}

func TestAsyncAPI(t *testing.T) {
	var doc map[string]any
	if err := yaml.Unmarshal(contractFile(t, "asyncapi.yaml"), &doc); err != nil {
		t.Fatal(err)
	}
	at := func(path string) any {
		var v any = doc
		for name := range strings.SplitSeq(path, "/") {
			m, ok := v.(map[string]any)
			if !ok || m[name] == nil {
				t.Fatalf("no %s", path)
			}
			v = m[name]
		}
		return v
	}
	if at("asyncapi") != "3.0.0" {
		t.Errorf("version %v", at("asyncapi"))
	}
	if diff := cmp.Diff([]string{"control", "deadletters", "events", "muted", "triggers"},
		slices.Sorted(maps.Keys(at("channels").(map[string]any)))); diff != "" {
		t.Errorf("channels: want -, got +\n%s", diff)
	}
	refs := 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for name, e := range v {
				ref, isRef := e.(string)
				switch {
				case name != "$ref" || !isRef:
					walk(e)
				case strings.HasPrefix(ref, "#/"):
					refs++
					at(ref[2:])
				default:
					refs++
					contractFile(t, strings.TrimPrefix(ref, "./"))
				}
			}
		}
	}
	walk(doc)
	if refs == 0 {
		t.Error("no references found")
	}
	var want []string
	tr := goldenTransitions()["transition-event"]
	own, _ := AppendTransitionHeaders[Header](nil, nil, &OutputHeaders{}, "", &tr)
	for _, h := range own {
		want = append(want, h.Key)
	}
	headers := at("components/messages/transition/headers").(map[string]any)
	got := slices.Sorted(maps.Keys(headers["properties"].(map[string]any)))
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), got); diff != "" {
		t.Errorf("headers: want -, got +\n%s", diff)
	}
	var required []string
	for _, name := range headers["required"].([]any) {
		required = append(required, name.(string))
	}
	if diff := cmp.Diff(want, required); diff != "" {
		t.Errorf("required headers: want -, got +\n%s", diff)
	}
	if got := at("components/messages/transition/headers/properties/ce_type/const"); got != TransitionType {
		t.Errorf("ce_type %v, want %v", got, TransitionType)
	}
}
