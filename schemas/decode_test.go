package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var testContracts = []Contract{
	{Currency: "EUR", Rates: map[string]string{"USD": "0.91", "JPY": "0.0061", "KWD": "3.0000000001"}},
	{Currency: "JPY", Rates: map[string]string{"EUR": "163.5", "USD": "0.000000000001", "IDR": "18446744073709551615"}},
	{Currency: "KWD", Rates: map[string]string{"EUR": "0.333333333333"}},
	{Currency: "CLF"},
}

// sameAsReference decodes with both and compares everything.
func sameAsReference(t *testing.T, d *Decoder, c Contract, key, value []byte) {
	t.Helper()
	var ev Event
	err := d.Decode(key, value, &ev)
	want, wantReason := reference{c.Currency, c.Rates}.decode(key, value)
	reason := Accepted
	if err != nil {
		var r *RefusedError
		if !errors.As(err, &r) {
			t.Fatalf("error %T, want *RefusedError", err)
		}
		reason = r.Reason
		if len(r.Detail) == 0 || len(r.Detail) >= 300 || !utf8.ValidString(r.Detail) {
			t.Errorf("detail %q: want 1 to 299 bytes of UTF-8", r.Detail)
		}
	}
	if reason != wantReason {
		t.Fatalf("currency %s key %q value %q:\ngot  %v (%v)\nwant %v", c.Currency, key, value, reason, err, wantReason)
	}
	checkExtra(t, value, &ev)
	ev.Extra = nil
	if diff := cmp.Diff(want, ev); diff != "" {
		t.Fatalf("currency %s key %q value %q: want -, got +\n%s", c.Currency, key, value, diff)
	}
	checkItems(t, &ev)
}

// checkExtra compares Extra with the members of the record that are no fields.
func checkExtra(t *testing.T, value []byte, ev *Event) {
	t.Helper()
	want := map[string]json.RawMessage{}
	if ev.ID != nil {
		if err := json.Unmarshal(value, &want); err != nil {
			t.Fatal(err)
		}
	}
	for name := range want {
		if fieldOf([]byte(name)) < fields {
			delete(want, name)
		}
	}
	if ev.Extra == nil {
		if len(want) > 0 {
			t.Fatalf("value %q: no Extra, want %q", value, want)
		}
		return
	}
	var extra map[string]json.RawMessage
	if err := json.Unmarshal(ev.Extra, &extra); err != nil {
		t.Fatalf("value %q: Extra %q: %v", value, ev.Extra, err)
	}
	if diff := cmp.Diff(want, extra); diff != "" {
		t.Fatalf("value %q: Extra: want -, got +\n%s", value, diff)
	}
	// No name twice: the values of the tokens at depth 1 are as many as the names.
	d, n, members := json.NewDecoder(bytes.NewReader(ev.Extra)), 0, 0
	d.UseNumber()
	for {
		tok, err := d.Token()
		if err != nil {
			break
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			if n == 1 {
				members++
			}
			n++
		case json.Delim('}'), json.Delim(']'):
			n--
		default:
			if n == 1 {
				members++
			}
		}
	}
	if members != 2*len(want) { // name and value
		t.Fatalf("value %q: Extra %q repeats a name", value, ev.Extra)
	}
}

// checkItems compares EachItem with encoding/json.
func checkItems(t *testing.T, ev *Event) {
	t.Helper()
	var raw []map[string]json.RawMessage
	if ev.Items != nil {
		if err := json.Unmarshal(ev.Items, &raw); err != nil {
			t.Fatal(err)
		}
	}
	var want []Item
	for _, f := range raw {
		it := Item{Category: refText(f, "category"), Brand: refText(f, "brand"), ProductID: refText(f, "product_id")}
		it.Price, it.HasPrice = refMillionths(refDecimal(f, "price"), 0)
		it.Quantity, it.HasQuantity = refMillionths(refDecimal(f, "quantity"), 1_000_000)
		want = append(want, it)
	}
	var items []Item
	EachItem(ev.Items, func(it Item) { items = append(items, it) })
	if diff := cmp.Diff(want, items); diff != "" {
		t.Fatalf("EachItem(%q): want -, got +\n%s", ev.Items, diff)
	}
}

// oddNumbers are numbers at and beyond every limit.
var oddNumbers = strings.Fields(`0 -0 -0.0 0e99 -0E-99 1 12.5 0.000001 0.0000001 1e2 1.50e-5 1.5e-6 1e-7 100e-8
	10.0000000 10.0000001 -1 -1e-9 -1e99 9223372036854.775807 9223372036854.775808 9223372036855 1e12 1e13 1E+12
	123456789012345678901234567890 1e999999999999999999999 1e-999999999999999999999 0.00000000000000000000000000001e25
	12345678901234567890e-20 100000000000000000000000e-22 9007199254740993 0.005 0.015 0.025 2.675 1.005 19.99 3 0.5`)

var oddValues = []string{
	`null`, `true`, `false`, `[]`, `{}`, `""`, `"x"`, `[1]`, `{"a":1}`, `"\ud800"`, `"é\n\u0041\ud83d\ude00"`, `0`, `-1`, `"\u0000"`,
}

var oddTimes = []string{
	`1767225600000`, `"2026-01-01T00:00:00Z"`, `"2026-01-01T00:00:00.123456789+05:30"`, `"2026-01-01T00:00:00-00:00"`,
	`"2026-01-01T00:00:00"`, `"2026-01-01"`, `"2026-02-29T00:00:00Z"`, `"2024-02-29T23:59:59.9999Z"`, `"2026-01-01T24:00:00Z"`,
	`"2026-01-01T00:00:60Z"`, `"2026-01-01T1:02:03Z"`, `"2026-01-01T01:02:03,5Z"`, `"2026-01-01t01:02:03z"`, `"2026-01-01T01:02:03+24:00"`,
	`"2026-01-01T01:02:03+23:60"`, `"1989-12-31T23:59:59.999Z"`, `"1990-01-01T00:00:00Z"`, `"1990-01-01T00:00:00+00:01"`,
	`631152000000`, `631151999999`, `-1`, `-0`, `1.0`, `1e12`, `9223372036854775807`, `9223372036854775808`, `-9223372036854775808`,
	`-9223372036854775809`, `"\u0032026-01-01T00:00:00Z"`, `"9999-12-31T23:59:59.9999999999Z"`, `"0000-01-01T00:00:00Z"`, `"+026-01-01T00:00:00Z"`,
	`"2026-01-01T00:00:00.Z"`, `"2026-13-01T00:00:00Z"`, `"2026-00-10T00:00:00Z"`, `"2026-04-31T00:00:00Z"`,
}

// randomEvent makes an event, mostly right, with oddities at every field.
func randomEvent(r *rand.Rand) (key, value []byte) {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	odd := func(usual string, rest ...string) string {
		if r.IntN(25) > 0 {
			return usual
		}
		return pick(append(rest, oddValues...)...)
	}
	num := func() string {
		if r.IntN(3) > 0 {
			return fmt.Sprintf("%d.%0*d", r.IntN(1000), 1+r.IntN(5), r.IntN(10))
		}
		return odd(pick(oddNumbers...))
	}
	long := `"` + strings.Repeat("x", 255) + pick(`x`, `\u0041`, `xx`, `é`) + `"`
	var b strings.Builder
	b.WriteString(pick("", " ", "\n\t\r ") + "{")
	sep := ""
	add := func(name, v string) {
		b.WriteString(sep + pick("", " ") + `"` + name + `"` + pick("", " ") + ":" + pick("", "\t") + v)
		sep = ","
	}
	item := func() string {
		var it strings.Builder
		sep := ""
		for _, f := range [][2]string{
			{"product_id", odd(`"p1"`, long)},
			{"category", odd(`"c"`)},
			{"brand", odd(`"b"`)},
			{"price", num()},
			{"quantity", num()},
			{"size", `{"a":[1]}`},
			{"pri\\u0063e", num()},
		} {
			if r.IntN(2) == 0 {
				it.WriteString(sep + `"` + f[0] + `":` + f[1])
				sep = ","
			}
		}
		return odd("{" + it.String() + "}")
	}
	all := [][2]string{
		{"event_id", odd(`"e1"`, long)},
		{"type", odd(pick(`"view"`, `"purchase"`, `"refund"`, `"refund"`, `"purchase"`), `"buy"`, `"View"`)},
		{"user_id", odd(`"u1"`, long, `"\u0075\u0031"`)},
		{"time", odd(`1767225600000`, oddTimes...)},
		{"session_id", odd(`"s"`, long)},
		{"product_id", odd(`"p"`, long)},
		{"category", odd(`"c"`, `"é\\"`)},
		{"brand", odd(`"b"`)},
		{"price", num()},
		{"quantity", num()},
		{"currency", odd(pick(`"EUR"`, `"USD"`, `"JPY"`, `"IDR"`, `"KWD"`), `"eur"`, `"EURO"`, `"XAU"`, `"E\u0055R"`, `"HRK"`)},
		{"cart_id", odd(`"k"`, long)},
		{"order_id", odd(`"o1"`, long)},
		{"revenue", num()},
		{"items", odd("[" + item() + "," + item() + "]")},
		{"channel", odd(`"web"`)},
		{"campaign", odd(`"x"`)},
		{"url", odd(`"https://x/\""`)},
		{"timezone", odd(`"Europe/Berlin"`, `"Mars/Olympus"`)},
		{"birthday", odd(pick(`"1990-04-15"`, `"--02-29"`), `"15.04.1990"`)},
		{"properties", odd(`{"a":[1,{"b":null}]}`)},
		{"tax", num()},
		{"co\\u0075pon", odd(`"X"`)},
		{"coupon", odd(`"Y"`)},
		{"Type", `"View"`},
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, f := range all {
		need := f[0] == "event_id" || f[0] == "type" || f[0] == "user_id" || f[0] == "time" || f[0] == "order_id"
		if need && r.IntN(60) > 0 || !need && r.IntN(3) == 0 {
			add(f[0], f[1])
		}
	}
	if r.IntN(10) == 0 {
		f := all[r.IntN(len(all))]
		add(f[0], f[1])
	}
	b.WriteString("}" + pick("", "", " ", "\n") + odd("", "x", "{}", "\x00", "\xff"))
	value = []byte(b.String())
	switch r.IntN(40) {
	case 0:
		value = value[:r.IntN(len(value))]
	case 1:
		value[r.IntN(len(value))] = byte(r.IntN(256))
	}
	return []byte(pick("u1", "u1", "u1", "u1", "u1", "u1", "u1", "u1", "", "u2")), value
}

func TestDecodeAgainstReference(t *testing.T) {
	const events = 5_000
	for i, c := range testContracts {
		d, err := NewDecoder(c)
		if err != nil {
			t.Fatal(err)
		}
		seed := uint64(i)
		r := rand.New(rand.NewPCG(seed, 1))
		accepted := 0
		for n := range events {
			key, value := randomEvent(r)
			sameAsReference(t, d, c, key, value)
			if t.Failed() {
				t.Fatalf("seed %d event %d", seed, n)
			}
			var ev Event
			if d.Decode(key, value, &ev) == nil {
				accepted++
			}
		}
		if accepted < events/10 {
			t.Errorf("seed %d: only %d of %d events accepted: the test says little", seed, accepted, events)
		}
	}
}

func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 50 {
		key, value := randomEvent(r)
		f.Add(key, value)
	}
	f.Add([]byte("u-48151623"), []byte(typical))
	for _, c := range refusals() {
		if len(c.value) < 4096 {
			f.Add([]byte(c.key), []byte(c.value))
		}
	}
	decoders := make([]*Decoder, len(testContracts))
	for i, c := range testContracts {
		decoders[i], _ = NewDecoder(c)
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if len(value) > 4096 {
			t.Skip("the reference counts exponents only up to 5000")
		}
		for i, c := range testContracts {
			sameAsReference(t, decoders[i], c, key, value)
		}
	})
}

// FuzzDecodeAfterAnother holds that what a decoder remembers of the event before changes
// nothing about what an event means.
func FuzzDecodeAfterAnother(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 9))
	for range 50 {
		key, value := randomEvent(r)
		_, before := randomEvent(r)
		f.Add(before, key, value)
		f.Add(value, key, value)
	}
	keys, values := stream(40)
	for i := range keys {
		f.Add(values[(i+1)%len(values)], keys[i], values[i])
		f.Add(values[i], keys[i], values[i][:len(values[i])-i])
	}
	f.Fuzz(func(t *testing.T, before, key, value []byte) {
		fresh, used := newDecoder(t), newDecoder(t)
		var ev, want Event
		_ = used.Decode(key, before, &ev) // to be remembered
		err, wanted := used.Decode(key, value, &ev), fresh.Decode(key, value, &want)
		if fmt.Sprint(err) != fmt.Sprint(wanted) || !cmp.Equal(ev, want) {
			t.Fatalf("%q after %q: got %v, want %v\n%s", value, before, err, wanted, cmp.Diff(want, ev))
		}
	})
}

func FuzzJSON(f *testing.F) {
	for _, v := range append(append(oddValues, oddTimes...), oddNumbers...) {
		f.Add([]byte(v))
	}
	f.Add([]byte(typical))
	f.Add([]byte(strings.Repeat("[", 64) + strings.Repeat("]", 64)))
	f.Add([]byte(strings.Repeat("[", 65) + strings.Repeat("]", 65)))
	f.Add([]byte(strings.Repeat(`{"a":`, 65)))
	f.Fuzz(func(t *testing.T, value []byte) {
		if !utf8.Valid(value) {
			t.Skip("the scanner is asked only for UTF-8")
		}
		var s scanner
		s.reset(value)
		_, i := s.value(s.space(0), 0)
		if i >= 0 {
			if i = s.space(i); i < len(value) {
				s.fail(i, "nothing more")
			}
		}
		got := map[fault]Refusal{sound: Accepted, ended: Truncated, broken: NotJSON}[s.fault]
		if want := refJSON(value); got != want {
			t.Fatalf("%q: got %v, want %v", value, got, want)
		}
		if valid := json.Valid(value) && !refDeep(value); valid != (got == Accepted) {
			t.Fatalf("%q: got %v, json.Valid %v", value, got, valid)
		}
		if got == Accepted && (s.lone >= 0) != refLone(value) {
			t.Fatalf("%q: lone surrogate at %d, reference %v", value, s.lone, refLone(value))
		}
	})
}

func TestPrefixesOfAnEventAreTruncated(t *testing.T) {
	d := newDecoder(t)
	value := `{"event_id":"e\u00e9\n","type":"view","user_id":"u","time":1767225600000,"price":-1.5e+3,"properties":{"a":[true,false,null,{}]}} `
	for n := range len(value) - 2 {
		var ev Event
		var r *RefusedError
		if err := d.Decode([]byte("u"), []byte(value[:n]), &ev); !errors.As(err, &r) || r.Reason != Truncated {
			t.Errorf("%q: got %v, want truncated", value[:n], err)
		}
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	d := newDecoder(t)
	for _, value := range []string{
		typical,
		`{"event_id":"e1","type":"purchase","user_id":"u-48151623","time":"2026-01-01T12:34:56.789+05:45","order_id":"o1","currency":"USD",` +
			`"items":[{"product_id":"p1","price":59.95,"quantity":2},{"price":7.5}],"tax":2.1,"coupon":"X","coupon":"Y","properties":{"a":1}}`,
		`{"event_id":"e\u0041","ty\u0070e":"view","user_id":"u-4815162\u0033","time":1767225600000,"category":"a\nb","n\u006fte":"x"}`,
	} {
		var ev Event
		key, v := []byte("u-48151623"), []byte(value)
		if err := d.Decode(key, v, &ev); err != nil {
			t.Fatalf("%s: %v", value, err)
		}
		if n := testing.AllocsPerRun(100, func() { _ = d.Decode(key, v, &ev) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", value, n)
		}
	}
}

func TestDecodeKeepsNothingFromTheEventBefore(t *testing.T) {
	d := newDecoder(t)
	var ev, fresh Event
	for range 2 {
		if err := d.Decode([]byte("u-48151623"), []byte(typical), &ev); err != nil {
			t.Fatal(err)
		}
		small := []byte(`{"event_id":"e","type":"view","user_id":"u","time":1767225600000}`)
		if err := d.Decode([]byte("u"), small, &ev); err != nil {
			t.Fatal(err)
		}
		if err := newDecoder(t).Decode([]byte("u"), small, &fresh); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(fresh, ev); diff != "" {
			t.Errorf("want -, got +\n%s", diff)
		}
	}
	if err := d.Decode([]byte("x"), []byte(typical), &ev); err == nil || !cmp.Equal(ev, Event{}) {
		t.Errorf("a refused event: %v, %+v, want an empty event", err, ev)
	}
}

func TestContract(t *testing.T) {
	for _, c := range []struct {
		contract Contract
		want     string // of the error
	}{
		{Contract{Currency: "EUR"}, ""},
		{Contract{Currency: "EUR", Rates: map[string]string{"EUR": "1.0", "USD": "0.910"}}, ""},
		{Contract{Currency: ""}, `reporting currency "": not a code of ISO 4217`},
		{Contract{Currency: "XAU"}, `reporting currency XAU: ISO 4217 gives it no minor unit`},
		{
			Contract{Currency: "EUR", Rates: map[string]string{
				"EUR": "2", "usd": "1", "USD": "0", "GBP": "-1", "JPY": "1e-3", "KWD": "0.1234567890123", "BHD": "", "CHF": "1.", "SEK": ".5",
				"NOK": "99999999999999999999",
			}},
			`rate of "BHD": rate "": want a decimal number like "0.91"` + "\n" +
				`rate of "CHF": rate "1.": want a decimal number like "0.91"` + "\n" +
				`rate of "EUR": the reporting currency's rate is 1` + "\n" +
				`rate of "GBP": rate "-1": want a decimal number like "0.91"` + "\n" +
				`rate of "JPY": rate "1e-3": want a decimal number like "0.91"` + "\n" +
				`rate of "KWD": rate "0.1234567890123": want at most 12 decimals` + "\n" +
				`rate of "NOK": rate "99999999999999999999": want at most 19 digits` + "\n" +
				`rate of "SEK": rate ".5": want a decimal number like "0.91"` + "\n" +
				`rate of "USD": rate "0": want more than 0` + "\n" +
				`rate of "usd": not a code of ISO 4217`,
		},
	} {
		_, err := NewDecoder(c.contract)
		if got := fmt.Sprint(err); err != nil && got != c.want || err == nil && c.want != "" {
			t.Errorf("%v: got %v\nwant %s", c.contract, err, c.want)
		}
	}
}

func TestHashIsOfWhatTheContractDecides(t *testing.T) {
	hash := func(c Contract) uint64 {
		d, err := NewDecoder(c)
		if err != nil {
			t.Fatal(err)
		}
		return d.Hash()
	}
	base := hash(Contract{"EUR", map[string]string{"USD": "0.91", "GBP": "1.2"}})
	if base != hash(Contract{"EUR", map[string]string{"GBP": "1.20", "USD": "00.910", "EUR": "1"}}) {
		t.Error("the same rates, written otherwise, hash otherwise")
	}
	for _, other := range []Contract{
		{"EUR", nil},
		{"EUR", map[string]string{"USD": "0.91"}},
		{"EUR", map[string]string{"USD": "0.92", "GBP": "1.2"}},
		{"USD", map[string]string{"GBP": "1.2"}},
	} {
		if base == hash(other) {
			t.Errorf("%v hashes like another contract", other)
		}
	}
	// The hash is in committed marks: it must not change from release to release.
	if want := uint64(0x133c62d7e0c76d64); base != want {
		t.Errorf("hash %#x, want %#x", base, want)
	}
}
