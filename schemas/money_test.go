package schemas

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The comparison with math/big covers the arithmetic; these are the cases a
// reader asks about.
func TestAmounts(t *testing.T) {
	for _, c := range []struct {
		currency, fields string
		want             int64 // minor units, or the refusal, negative
	}{
		{"EUR", `"revenue":10.00,"items":[{"price":7}],"price":8`, 1000}, // revenue goes first,
		{"EUR", `"items":[{"price":7},{"price":0.5,"quantity":3}],"price":8`, 850},
		{"EUR", `"items":[],"price":8,"quantity":2`, 1600}, // then items, of which [] has none
		{"EUR", `"items":[{"product_id":"p"}],"price":8`, 0},
		{"EUR", `"price":8`, 800},
		{"EUR", `"revenue":null,"price":null`, 0},
		{"EUR", `"revenue":0.005`, 0}, // half to even
		{"EUR", `"revenue":0.015`, 2},
		{"EUR", `"revenue":0.025`, 2},
		{"EUR", `"revenue":0.025001`, 3},
		{"EUR", `"items":[{"price":0.005},{"price":0.005}]`, 1}, // rounded once, not twice
		{"EUR", `"items":[{"price":0.000001,"quantity":0.000001}]`, 0},
		{"EUR", `"revenue":100,"currency":"USD"`, 9100},
		{"EUR", `"revenue":2.5,"currency":"JPY"`, 2}, // 0.01525 EUR
		{"EUR", `"revenue":1e13`, -int64(AmountOverflow)},
		{"EUR", `"revenue":9223372036854.775807`, 922_337_203_685_478},
		{"EUR", `"price":5000000,"quantity":2000000`, 1_000_000_000_000_000},
		{"EUR", `"price":5000000,"quantity":2000000.01`, -int64(AmountOverflow)},
		{"EUR", `"price":5000000,"quantity":2000000.0000000001`, -int64(TooManyDecimals)},
		{"JPY", `"revenue":0.5`, 0},
		{"JPY", `"revenue":1.5`, 2},
		{"JPY", `"revenue":100`, 100},
		{"KWD", `"revenue":1.2345`, 1234},
		{"KWD", `"revenue":1.2355`, 1236},
		{"CLF", `"revenue":1.23456`, 12346},
		{"CLF", `"revenue":1,"currency":"EUR"`, -int64(UnknownCurrency)},
	} {
		var contract Contract
		for _, tc := range testContracts {
			if tc.Currency == c.currency {
				contract = tc
			}
		}
		d, err := NewDecoder(contract)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"purchase", "refund"} {
			value := strings.Replace(purchase(","+c.fields), `"purchase"`, `"`+kind+`"`, 1)
			var ev Event
			var r *RefusedError
			got := int64(0)
			if err := d.Decode([]byte("u"), []byte(value), &ev); errors.As(err, &r) {
				got = -int64(r.Reason)
			} else {
				got = ev.Amount
			}
			want := c.want
			if kind == "refund" && strings.Contains(c.fields, "null") {
				want = -int64(MissingField)
			}
			if got != want {
				t.Errorf("%s, %s of %s: got %d, want %d", c.currency, kind, c.fields, got, want)
			}
		}
	}
}

// What Go's time.Parse takes besides RFC 3339 is a bad time.
func TestTimesThatAreAlmostRFC3339(t *testing.T) {
	for at, want := range map[string]Refusal{
		"2026-01-02T01:02:03Z": Accepted, "2026-01-02T01:02:03.5+23:59": Accepted,
		"2026-01-02T1:02:03Z": BadTime, "2026-01-02T1:02:03.0Z": BadTime, "2026-01-02T1:02:03+01:00": BadTime,
		"2026-01-02T01:02:03,5Z": BadTime, "2026-01-02T01:02:03,500Z": BadTime, "2026-01-02T01:02:03,5+01:00": BadTime,
		"2026-01-02T01:02:03+24:00": BadTime, "2026-01-02T01:02:03-23:60": BadTime,
		"2026-01-02t01:02:03Z": BadTime, "2026-01-02T01:02:03z": BadTime, "2026-01-02 01:02:03Z": BadTime, "2026-01-02T01:02:60Z": BadTime,
	} {
		var ev Event
		got := Accepted
		err := newDecoder(t).Decode([]byte("u"), []byte(`{"event_id":"e","type":"view","user_id":"u","time":"`+at+`"}`), &ev)
		if r, refused := errors.AsType[*RefusedError](err); refused {
			got = r.Reason
		}
		if got != want {
			t.Errorf("%s: got %v, want %v", at, got, want)
		}
	}
}

func FuzzTime(f *testing.F) {
	for _, s := range oddTimes {
		f.Add(strings.Trim(s, `"`))
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := ParseTime([]byte(s))
		want, err := rfc3339(s)
		if ok != (err == nil) || ok && int64(got) != want.UnixMilli() {
			t.Fatalf("%q: got %d, %v, want %v, %v", s, got, ok, want, err)
		}
	})
}

// FuzzTimeAfterTime holds that the time before changes nothing about what a time means.
func FuzzTimeAfterTime(f *testing.F) {
	for _, s := range append(oddTimes, `"2026-01-01T12:34:56.789Z"`, `"2026-01-01T12:60:56.789Z"`, `"2026-01-01T12:34:56x789Z"`) {
		for _, before := range []string{s, "2026-01-01T12:00:00Z", "2026-01-01T11:00:00.000+05:45", ""} {
			f.Add(before, strings.Trim(s, `"`))
		}
	}
	f.Fuzz(func(t *testing.T, before, s string) {
		var remembered times
		remembered.parse([]byte(before))
		want, wanted := ParseTime([]byte(s))
		if got, ok := remembered.parse([]byte(s)); ok != wanted || ok && got != want {
			t.Fatalf("%q after %q: got %d, %v, want %d, %v", s, before, got, ok, want, wanted)
		}
		ref, err := rfc3339(s)
		if wanted != (err == nil) || wanted && int64(want) != ref.UnixMilli() {
			t.Fatalf("%q: got %d, %v, want %v, %v", s, want, wanted, ref, err)
		}
	})
}

// Days all over what RFC 3339 can say, and every day around a century's turn.
func TestTimeOfEveryDay(t *testing.T) {
	step := 13
	for day := time.Date(0, 1, 1, 23, 59, 59, 999_999_999, time.UTC); day.Year() < 10_000; day = day.AddDate(0, 0, step) {
		if step = 13; day.Year() >= 1995 && day.Year() < 2005 || day.Year() >= 2095 && day.Year() < 2105 {
			step = 1
		}
		s := day.Format(time.RFC3339Nano)
		if got, ok := ParseTime([]byte(s)); !ok || int64(got) != day.UnixMilli() {
			t.Fatalf("%s: got %d, %v, want %d", s, got, ok, day.UnixMilli())
		}
		back := appendTime(nil, Millis(day.UnixMilli()))
		if want := day.Format(`"2006-01-02T15:04:05.000Z"`); string(back) != want {
			t.Fatalf("got %s, want %s", back, want)
		}
	}
}

// The events of version 1 that testdata keeps must decode to the same for ever.
func TestEventGolden(t *testing.T) {
	in, err := os.ReadFile(filepath.Join("testdata", "v1", "events.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	d := newDecoder(t)
	var out []byte
	for line := range strings.Lines(string(in)) {
		var ev Event
		if err := d.Decode([]byte("u-48151623"), []byte(line), &ev); err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		decoded := map[string]any{
			"id": string(ev.ID), "user": string(ev.User), "at": ev.At, "kind": ev.Kind.String(), "amount": ev.Amount,
			"order_id": string(ev.OrderID), "session_id": string(ev.SessionID), "cart_id": string(ev.CartID),
			"product_id": string(ev.ProductID), "category": string(ev.Category), "brand": string(ev.Brand),
			"channel": string(ev.Channel), "campaign": string(ev.Campaign), "url": string(ev.URL),
			"timezone": string(ev.Timezone), "birthday": string(ev.Birthday), "currency": string(ev.Currency[:]),
			"price": ev.Price, "quantity": ev.Quantity, "revenue": ev.Revenue,
			"items": string(ev.Items), "properties": string(ev.Properties), "extra": string(ev.Extra),
		}
		b, err := json.MarshalIndent(decoded, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		out = append(append(out, b...), '\n')
	}
	golden(t, "events.decoded", out)
}

func TestManyUnknownFields(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"event_id":"e","type":"view","user_id":"u","time":1767225600000`)
	for i := 0; b.Len() < ValueMax-20; i++ {
		b.WriteString(`,"` + string(rune('a'+i%3)) + `":` + string(rune('0'+i%10)))
	}
	b.WriteString(`,"a":"last"}`)
	d := newDecoder(t)
	var ev Event
	if err := d.Decode([]byte("u"), []byte(b.String()), &ev); err != nil {
		t.Fatal(err)
	}
	var extra map[string]any
	if err := json.Unmarshal(ev.Extra, &extra); err != nil || len(extra) != 3 || extra["a"] != "last" || len(ev.Extra) > 40 {
		t.Errorf("got %.100s, %v, want the last of a, b and c", ev.Extra, err)
	}
	if err := d.Decode([]byte("u"), []byte(with(``)), &ev); err != nil || cap(d.unknown) > unknownKept {
		t.Errorf("%v; the decoder keeps room for %d unknown fields", err, cap(d.unknown))
	}
}

func TestEachItemOfOtherBytes(t *testing.T) {
	for _, items := range []string{"", "{", "{}", "[", "[1]", "null", `[{"price":1},2]`, `[{"price":-1,"quantity":"x","brand":7}]`} {
		n := 0
		EachItem([]byte(items), func(it Item) {
			n++
			if it.HasQuantity || it.Brand != nil || it.HasPrice && it.Price != million {
				t.Errorf("%s: got %+v", items, it)
			}
		})
		if want := strings.Count(items, "price"); n != want {
			t.Errorf("%s: %d items, want %d", items, n, want)
		}
	}
}
