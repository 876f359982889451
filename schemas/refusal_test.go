package schemas

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

type refusalCase struct {
	name, key, value string
	reason           Refusal
	detail           string
}

// with returns an event that is right but for the fields given.
func with(fields string) string {
	return `{"event_id":"e","type":"view","user_id":"u","time":1767225600000` + fields + `}`
}

func purchase(fields string) string {
	return `{"event_id":"e","type":"purchase","user_id":"u","time":1767225600000,"order_id":"o"` + fields + `}`
}

func refusals() []refusalCase {
	long := strings.Repeat("é", 129)
	const types = "view, add_to_cart, remove_from_cart, purchase, refund or search"
	return []refusalCase{
		{"too large", "u", with(`,"x":"` + strings.Repeat("x", 1<<20) + `"`), TooLarge, "value: got 1048648 bytes, want at most 1048576"},
		{"too large wins over broken", "u", strings.Repeat("x", 1<<20+1), TooLarge, "value: got 1048577 bytes, want at most 1048576"},
		{"latin-1", "u", with(",\"brand\":\"caf\xe9\""), InvalidUTF8, "value: byte 77: got 0xe9, want UTF-8"},
		{"broken and not UTF-8", "u", "x\xff", InvalidUTF8, "value: byte 1: got 0xff, want UTF-8"},
		{"cut within a character", "u", "{\"a\":\"\xc3", InvalidUTF8, "value: byte 6: got 0xc3, want UTF-8"},
		{"half a pair", "u", with(`,"brand":"\ud83d"`), InvalidUTF8, `value: byte 74: got \ud83d, half a surrogate pair, want a character`},
		{"half a pair in an unknown name", "u", with(`,"\ude00":1`), InvalidUTF8, `value: byte 66: got \ude00, half a surrogate pair, want a character`},
		{"empty", "u", "", Truncated, "value: byte 0: got the end, want a value"},
		{"blank", "u", " \n", Truncated, "value: byte 2: got the end, want a value"},
		{"cut", "u", `{"event_id":"e`, Truncated, `value: byte 14: got the end, want "`},
		{"cut in a word", "u", `{"a":tru`, Truncated, `value: byte 8: got the end, want true`},
		{"not JSON", "u", "event_id=e", NotJSON, "value: byte 0: got 'e', want a value"},
		{"two values", "u", "{}{}", NotJSON, "value: byte 2: got '{', want nothing more"},
		{"single quotes", "u", "{'a':1}", NotJSON, `value: byte 1: got '\'', want a name`},
		{"byte order mark", "u", "\ufeff{}", NotJSON, `value: byte 0: got '\ufeff', want a value`},
		{"leading zero", "u", with(`,"price":01`), NotJSON, `value: byte 74: got '1', want , or }`},
		{"comma at the end", "u", `{"a":1,}`, NotJSON, `value: byte 7: got '}', want a name`},
		{"bare control character", "u", "{\"a\":\"\t\"}", NotJSON, `value: byte 6: got '\t', want no bare control character`},
		{"65 levels", "u", strings.Repeat("[", 65), NotJSON, "value: byte 64: got '[', want at most 64 levels"},
		{"half a pair and not JSON", "u", `{"a":"\ud83d",}`, NotJSON, `value: byte 14: got '}', want a name`},
		{"an array", "u", `[ ]`, WrongType, "value: got [ ], want an object"},
		{"null", "u", `null`, WrongType, "value: got null, want an object"},
		{"no event_id", "u", `{}`, MissingField, "event_id: got nothing, want a string of 1 to 256 bytes"},
		{"null event_id", "u", `{"event_id":null}`, MissingField, "event_id: got null, want a string of 1 to 256 bytes"},
		{"event_id a number", "u", `{"event_id":12}`, WrongType, "event_id: got 12, want a string"},
		{"event_id empty", "u", `{"event_id":""}`, EmptyField, `event_id: got "", want 1 to 256 bytes`},
		{"event_id long", "u", `{"event_id":"` + long + `"}`, IDTooLong, `event_id: got 258 bytes, "` + strings.Repeat("é", 28) + `..., want 1 to 256`},
		{"no type", "u", `{"event_id":"e"}`, MissingField, "type: got nothing, want " + types},
		{"type empty", "u", `{"event_id":"e","type":""}`, EmptyField, `type: got "", want ` + types},
		{"type a number", "u", `{"event_id":"e","type":1}`, WrongType, `type: got 1, want ` + types},
		{"type unknown", "u", `{"event_id":"e","type":"buy"}`, UnknownType, `type: got "buy", want ` + types},
		{"no user_id", "u", `{"event_id":"e","type":"view"}`, MissingField, "user_id: got nothing, want a string of 1 to 256 bytes"},
		{"no time", "u", `{"event_id":"e","type":"view","user_id":"u"}`, MissingField, "time: got nothing, want RFC 3339 with offset, or whole milliseconds"},
		{"time empty", "u", with(`,"time":""`), EmptyField, `time: got "", want RFC 3339 with offset, or whole milliseconds`},
		{"time true", "u", with(`,"time":true`), WrongType, "time: got true, want RFC 3339 with offset, or whole milliseconds"},
		{"time without offset", "u", with(`,"time":"2026-01-01T00:00:00"`), BadTime, `time: got "2026-01-01T00:00:00", want RFC 3339 with offset, or whole milliseconds`},
		{"time with a fraction", "u", with(`,"time":1.5`), BadTime, "time: got 1.5, want RFC 3339 with offset, or whole milliseconds"},
		{"time in seconds", "u", with(`,"time":1767225`), Before1990, "time: got 1767225, want 1990-01-01T00:00:00Z or later"},
		{"price negative", "u", with(`,"price":-0.01`), NegativeAmount, "price: got -0.01, want 0 or more"},
		{"price with seven decimals", "u", with(`,"price":0.1234567`), TooManyDecimals, "price: got 0.1234567, want at most six decimals"},
		{"price too great", "u", with(`,"price":1e13`), AmountOverflow, "price: got 1e13, want at most 9223372036854.775807"},
		{"price a string", "u", with(`,"price":"9.99"`), WrongType, `price: got "9.99", want a number`},
		{"currency in small letters", "u", with(`,"currency":"eur"`), UnknownCurrency, `currency: got "eur", want three capital letters of ISO 4217`},
		{"currency without rate", "u", purchase(`,"currency":"GBP"`), UnknownCurrency, `currency: got GBP, for which no rate to EUR is configured`},
		{"no order_id", "u", with(`,"type":"refund"`), MissingField, "order_id: got nothing, want a string of 1 to 256 bytes"},
		{"items an object", "u", with(`,"items":{}`), WrongType, "items: got {}, want an array of objects"},
		{"item a string", "u", with(`,"items":[{},"p1"]`), WrongType, `items[1]: got "p1", want an object`},
		{"item null", "u", with(`,"items":[null]`), WrongType, `items[0]: got null, want an object`},
		{"item's price", "u", with(`,"items":[{},{"price":-1}]`), NegativeAmount, `items[1].price: got -1, want 0 or more`},
		{"item's product_id", "u", with(`,"items":[{"product_id":""}]`), EmptyField, `items[0].product_id: got "", want 1 to 256 bytes`},
		{"properties an array", "u", with(`,"properties":[` + "\n" + `1]`), WrongType, `properties: got [ 1], want an object`},
		{"the earlier field wins", "u", with(`,"url":1,"price":-1`), NegativeAmount, `price: got -1, want 0 or more`},
		{"amount too great", "u", purchase(`,"price":9000000,"quantity":9000000`), AmountOverflow, "amount: got more than 1000000000000000 minor units of EUR"},
		{"refund of nothing", "u", with(`,"type":"refund","order_id":"o","items":[{"quantity":2}]`), MissingField, "revenue: got nothing, want revenue, items with a price, or price of a refund"},
		{"no key", "", with(``), NoKey, `key: got none, want the user_id "u"`},
		{"another key", "v", with(``), KeyMismatch, `key: got "v", want the user_id "u"`},
		{"a broken key", "\xff" + strings.Repeat("\x00", 300), with(``), KeyMismatch, `key: got "\xff` + strings.Repeat(`\x00`, 23) + `", want the user_id "u"`},
	}
}

func TestRefusals(t *testing.T) {
	d := newDecoder(t)
	seen := map[Refusal]bool{Future: true} // the worker's
	check := func(c refusalCase, value []byte) {
		seen[c.reason] = true
		var ev Event
		var r *RefusedError
		if err := d.Decode([]byte(c.key), value, &ev); !errors.As(err, &r) {
			t.Errorf("%s: %.100s: got %v, want %v", c.name, value, err, c.reason)
			return
		}
		if r.Reason != c.reason || r.Detail != c.detail {
			t.Errorf("%s: %.100s:\ngot  %v: %s\nwant %v: %s", c.name, value, r.Reason, r.Detail, c.reason, c.detail)
		}
	}
	for _, c := range refusals() {
		check(c, []byte(c.value))
	}
	check(refusalCase{"tombstone", "u", "", Tombstone, "value: got null, want a JSON object"}, nil)
	for r := Accepted + 1; r < Refusals; r++ {
		if !seen[r] {
			t.Errorf("%v: no case", r)
		}
	}
}

func TestNames(t *testing.T) {
	check := func(kind, want string, n int, name func(int) string, parse func(string) (int, bool)) {
		for i, w := range strings.Split(want, " ") {
			if got := name(i); got != w {
				t.Errorf("%s %d: got %q, want %q", kind, i, got, w)
			}
			if v, ok := parse(w); !ok || v != i {
				t.Errorf("%s %q: got %d, %v", kind, w, v, ok)
			}
			n--
		}
		if _, ok := parse("Nonesuch"); ok || n != 0 {
			t.Errorf("%s: %d names too few, or a wrong one parsed", kind, n)
		}
	}
	adapt := func(v fmt.Stringer) string { return v.String() }
	check("Kind", "view add_to_cart remove_from_cart purchase refund search", int(Kinds),
		func(i int) string { return adapt(Kind(i)) }, func(s string) (int, bool) { v, ok := ParseKind(s); return int(v), ok })
	check("Refusal", "accepted tombstone too_large invalid_utf8 truncated not_json wrong_type missing_field empty_field "+
		"id_too_long unknown_type bad_time before_1990 negative_amount too_many_decimals unknown_currency amount_overflow "+
		"no_key key_mismatch future", int(Refusals),
		func(i int) string { return adapt(Refusal(i)) }, func(s string) (int, bool) { v, ok := ParseRefusal(s); return int(v), ok })
	check("Lane", "live backfill replay", 3,
		func(i int) string { return adapt(Lane(i)) }, func(s string) (int, bool) { v, ok := ParseLane(s); return int(v), ok })
	check("Muted", " rules bootstrap backfill paused stale", 6,
		func(i int) string { return adapt(Muted(i)) }, func(s string) (int, bool) { v, ok := ParseMuted(s); return int(v), ok })
	check("CauseKind", "event timer rules recovery", 4,
		func(i int) string { return adapt(CauseKind(i)) }, func(s string) (int, bool) { v, ok := ParseCauseKind(s); return int(v), ok })
	check("ZoneSource", " event activity shop", int(ZoneShop)+1,
		func(i int) string { return adapt(ZoneSource(i)) }, func(s string) (int, bool) { v, ok := ParseZoneSource(s); return int(v), ok })
	check("field", "event_id type user_id time session_id product_id category brand price quantity currency cart_id order_id "+
		"revenue items channel campaign url timezone birthday properties", int(fields),
		func(i int) string { return adapt(field(i)) }, func(s string) (int, bool) { v := fieldOf([]byte(s)); return int(v), v < fields })
	for k := range Kinds {
		if v, ok := kindOf([]byte(k.String())); !ok || v != k {
			t.Errorf("kindOf(%v): got %v, %v", k, v, ok)
		}
	}
}
