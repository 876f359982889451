package oracle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// value is a well-formed event with some fields changed: "name=JSON" sets one,
// "-name" takes it away.
func value(changes ...string) string {
	fields := map[string]json.RawMessage{
		"event_id": json.RawMessage(`"e1"`), "type": json.RawMessage(`"view"`),
		"user_id": json.RawMessage(`"u1"`), "time": json.RawMessage(fmt.Sprint(t0)),
	}
	for _, c := range changes {
		if name, gone := strings.CutPrefix(c, "-"); gone {
			delete(fields, name)
			continue
		}
		name, v, _ := strings.Cut(c, "=")
		fields[name] = json.RawMessage(v)
	}
	var b strings.Builder
	for name, v := range fields {
		fmt.Fprintf(&b, ",%q:%s", name, v)
	}
	return "{" + b.String()[1:] + "}"
}

func deep(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }

func TestReasons(t *testing.T) {
	long := strings.Repeat("x", 257)
	buy := []string{`type="purchase"`, `order_id="o1"`}
	back := []string{`type="refund"`, `order_id="o1"`}
	with := func(base []string, more ...string) string {
		return value(append(slices.Clip(base), more...)...)
	}
	for _, tc := range []struct{ value, want string }{
		{value(), ""},
		{value("extra=[null,{}]"), ""},
		{"", "truncated"},
		{" \n", "truncated"},
		{"{", "truncated"},
		{`{"event_id":"e1"`, "truncated"},
		{`{"event_id":tru`, "truncated"},
		{`{"price":1.`, "truncated"},
		{`{"price":-`, "truncated"},
		{`{"price":1e`, "truncated"},
		{`{"a":"\`, "truncated"},
		{`{"a":"\u12`, "truncated"},
		{`{"a":"\ud800`, "truncated"},
		{"tru", "truncated"},
		{"tru ", "not_json"},
		{value() + "x", "not_json"},
		{value() + value(), "not_json"},
		{`{"a":01}`, "not_json"},
		{`{"a":1,}`, "not_json"},
		{`{'a':1}`, "not_json"},
		{"{\"a\":\"\t\"}", "not_json"},
		{`{"a":"\x"}`, "not_json"},
		{"\ufeff{}", "not_json"},
		{"x", "not_json"},
		{"{\"a\":1}\x00", "not_json"},
		{value("properties=" + deep(63)), ""},
		{value("properties=" + deep(64)), "not_json"},
		{strings.Repeat("[", 64), "truncated"},
		{strings.Repeat("[", 65), "not_json"},
		{value(`url="` + strings.Repeat("[{", 65) + `"`), ""},
		{value() + "\xff", "invalid_utf8"},
		{"{\"a\":\"\xed\xa0\x80\"}", "invalid_utf8"},
		{value(`url="\ud800"`), "invalid_utf8"},
		{value(`url="\ud800x"`), "invalid_utf8"},
		{value(`url="\ud800\n"`), "invalid_utf8"},
		{value(`url="\ud800\ud800"`), "invalid_utf8"},
		{value(`url="\udc00"`), "invalid_utf8"},
		{value(`url="\udc00\ud800"`), "invalid_utf8"},
		{value(`url="\uD83D\uDE00"`), ""},
		{value(`url="\\ud800"`), ""},
		{value(`url="\\\ud800"`), "invalid_utf8"},
		{`{"\ud800":1}`, "invalid_utf8"},
		{"1", "wrong_type"},
		{"null", "wrong_type"},
		{`"x"`, "wrong_type"},
		{"[]", "wrong_type"},
		{"{}", "missing_field"},
		{value("-event_id"), "missing_field"},
		{value("event_id=null"), "missing_field"},
		{value("Event_id=1", "EVENT_ID=2"), ""},
		{value("-event_id", `EVENT_ID="e"`), "missing_field"},
		{value(`event_id=""`), "empty_field"},
		{value("event_id=1"), "wrong_type"},
		{value(`event_id="` + long + `"`), "id_too_long"},
		{value(`event_id="` + long[1:] + `"`), ""},
		{value(`event_id="` + strings.Repeat(`\u0041`, 256) + `"`), ""},
		{value(`event_id="` + strings.Repeat("\u00e9", 128) + `"`), ""},
		{value(`event_id="` + strings.Repeat("\u00e9", 129) + `"`), "id_too_long"},
		{value("-type"), "missing_field"},
		{value(`type=""`), "empty_field"},
		{value(`type="View"`), "unknown_type"},
		{value("type=[]"), "wrong_type"},
		{value("-user_id"), "missing_field"},
		{value(`user_id=""`), "empty_field"},
		{value("-time"), "missing_field"},
		{value(`time=""`), "empty_field"},
		{value("time=null"), "missing_field"},
		{value("time=true"), "wrong_type"},
		{value("time=1.0"), "bad_time"},
		{value("time=1e12"), "bad_time"},
		{value("time=9223372036854775808"), "bad_time"},
		{value(`time="2023-11-14"`), "bad_time"},
		{value(`time="2023-11-14T22:13:20"`), "bad_time"},
		{value(`time="2023-11-14T22:13:20Z"`), ""},
		{value(`time="2023-11-14T2:13:20Z"`), "bad_time"},
		{value(`time="2023-11-14T22:13:20,5Z"`), "bad_time"},
		{value(`time="2023-11-14T22:13:20+24:00"`), "bad_time"},
		{value(`time="2023-11-14T22:13:20-23:60"`), "bad_time"},
		{value(`time="2023-11-15T00:13:20.0009+02:00"`), ""},
		{value("time=0"), "before_1990"},
		{value("time=-0"), "before_1990"},
		{value("time=631151999999"), "before_1990"},
		{value("time=631152000000"), ""},
		{value(`time="1989-12-31T23:59:59.9999Z"`), "before_1990"},
		{value(`time="1990-01-01T00:00:00+00:01"`), "before_1990"},
		{value("session_id=1"), "wrong_type"},
		{value(`session_id=""`), "empty_field"},
		{value(`product_id=""`), "empty_field"},
		{value(`cart_id=""`), "empty_field"},
		{value(`order_id=""`), "empty_field"},
		{value(`cart_id="` + long + `"`), "id_too_long"},
		{value(`category=""`, `brand=""`, `channel=""`, `campaign=""`, `url=""`, `timezone=""`, `birthday=""`), ""},
		{value(`timezone="Mars/Olympus"`, `birthday="in spring"`), ""},
		{value("timezone=120"), "wrong_type"},
		{value("birthday={}"), "wrong_type"},
		{value("category=1"), "wrong_type"},
		{value("url={}"), "wrong_type"},
		{value(`brand="` + long + `"`), ""},
		{value("price=-1"), "negative_amount"},
		{value("price=-0"), ""},
		{value("price=-0.0e5"), ""},
		{value(`price="1"`), "wrong_type"},
		{value("price=0.0000001"), "too_many_decimals"},
		{value("price=0.10000000"), ""},
		{value("price=1.50e-5"), ""},
		{value("price=1e-7"), "too_many_decimals"},
		{value("price=10e-7"), ""},
		{value("price=0e-99999999999999999999"), ""},
		{value("price=1e-99999999999999999999"), "too_many_decimals"},
		{value("price=1e99999999999999999999"), "amount_overflow"},
		{value("price=9223372036854.775807"), ""},
		{value("price=9223372036854.775808"), "amount_overflow"},
		{value("price=1e13"), "amount_overflow"},
		{value("quantity=-1"), "negative_amount"},
		{value("revenue=-1"), "negative_amount"},
		{value("revenue=null"), ""},
		{value(`currency="EUR"`), ""},
		{value(`currency="GBP"`), ""},
		{value(`currency="eur"`), "unknown_currency"},
		{value(`currency="EU"`), "unknown_currency"},
		{value(`currency=""`), "unknown_currency"},
		{value(`currency="R U"`), "unknown_currency"},
		{value(`currency="ZZZ"`), "unknown_currency"},
		{value("currency=978"), "wrong_type"},
		{with(buy, `currency="USD"`), ""},
		{with(buy, `currency="GBP"`), "unknown_currency"},
		{with(back, `currency="GBP"`), "unknown_currency"},
		{value("items={}"), "wrong_type"},
		{value("items=[1]"), "wrong_type"},
		{value("items=[null]"), "wrong_type"},
		{value("items=[]"), ""},
		{value(`items=[{"price":"1"}]`), "wrong_type"},
		{value(`items=[{"price":-1}]`), "negative_amount"},
		{value(`items=[{},{"quantity":0.0000001}]`), "too_many_decimals"},
		{value(`items=[{"product_id":""}]`), "empty_field"},
		{value(`items=[{"brand":1}]`), "wrong_type"},
		{value(`items=[{"price":null,"more":[1]}]`), ""},
		{value("properties=[]"), "wrong_type"},
		{value("properties=null"), ""},
		{value(`type="purchase"`), "missing_field"},
		{value(`type="refund"`, "revenue=1"), "missing_field"},
		{with(buy), ""},
		{with(back), "missing_field"},
		{with(back, "quantity=2"), "missing_field"},
		{with(back, "items=[{}]"), "missing_field"},
		{with(back, "items=[]"), "missing_field"},
		{with(back, `items=[{"price":0}]`), ""},
		{with(back, "price=0"), ""},
		{with(back, "revenue=0"), ""},
		{with(buy, "revenue=9223372036854"), ""},
		{with(buy, "price=9223372036854", "quantity=2"), "amount_overflow"},
		{with(buy, "price=10000000", "quantity=1000000.01"), "amount_overflow"},
		{with(buy, "price=10000000", "quantity=1000000"), ""},
		// The first fault in the contract's order is the reason.
		{value("-event_id", `type=""`, "time=true"), "missing_field"},
		{value(`type="x"`, `user_id=""`), "unknown_type"},
		{value(`user_id=""`, "time=true"), "empty_field"},
		{value("time=0", "price=-1"), "before_1990"},
		{value("price=-1", `currency="x"`), "negative_amount"},
		{with(back, `currency="GBP"`, `order_id=""`), "empty_field"},
		{with(back, `currency="GBP"`, "properties=1"), "wrong_type"},
		// A repeated field counts with its last value.
		{strings.Replace(value(), "{", `{"time":true,"event_id":"",`, 1), ""},
		{strings.Replace(value(), "}", `,"event_id":""}`, 1), "empty_field"},
		{strings.Replace(value(), "}", `,"event_id":null}`, 1), "missing_field"},
		{value(`url="` + strings.Repeat("x", valueMax-len(value(`url=""`))) + `"`), ""},
		{value(`url="` + strings.Repeat("x", valueMax+1-len(value(`url=""`))) + `"`), "too_large"},
		{strings.Repeat("\xff", valueMax+1), "too_large"},
	} {
		r := Record{Time: t0, Key: []byte("u1"), Value: []byte(tc.value)}
		_, bad := compile(options(false)).decode(&r)
		got := ""
		if bad != nil {
			got = bad.reason
		}
		if got != tc.want {
			t.Errorf("%.200s: got %q, want %q", tc.value, got, tc.want)
		}
	}
}

func TestReasonsOfRecords(t *testing.T) {
	good := []byte(value())
	for _, tc := range []struct {
		name string
		r    Record
		want string
	}{
		{"good", Record{Time: t0, Key: []byte("u1"), Value: good}, ""},
		{"tombstone", Record{Time: t0, Key: []byte("u1")}, "tombstone"},
		{"empty value", Record{Time: t0, Key: []byte("u1"), Value: []byte{}}, "truncated"},
		{"no key", Record{Time: t0, Value: good}, "no_key"},
		{"empty key", Record{Time: t0, Key: []byte{}, Value: good}, "no_key"},
		{"another key", Record{Time: t0, Key: []byte("u2"), Value: good}, "key_mismatch"},
		{"escaped user", Record{Time: t0, Key: []byte("u1"), Value: []byte(value(`user_id="\u00751"`))}, ""},
		{"5 min ahead", Record{Time: t0 - 5*minute, Key: []byte("u1"), Value: good}, ""},
		{"over 5 min ahead", Record{Time: t0 - 5*minute - 1, Key: []byte("u1"), Value: good}, "future"},
		{"far ahead", Record{Time: t0, Key: []byte("u1"), Value: []byte(value("time=9223372036854775807"))}, "future"},
		{"no timestamp", Record{Time: -1, Key: []byte("u1"), Value: good}, "future"},
		{"ahead, with another key", Record{Key: []byte("u2"), Value: good}, "key_mismatch"},
	} {
		_, bad := compile(options(false)).decode(&tc.r)
		got := ""
		if bad != nil {
			got = bad.reason
		}
		if got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestAmounts(t *testing.T) {
	for _, tc := range []struct {
		currency string
		fields   []string
		want     int64
	}{
		{"EUR", []string{"revenue=12.34"}, 1234},
		{"EUR", []string{"revenue=1", "price=2", `items=[{"price":3}]`}, 100},
		{"EUR", []string{"price=2", `items=[{"price":3},{"price":0.5,"quantity":3},{"quantity":9}]`}, 450},
		{"EUR", []string{"price=2", "quantity=3", "items=[]"}, 600},
		{"EUR", []string{"price=2", "items=[{}]"}, 0},
		{"EUR", []string{"price=2"}, 200},
		{"EUR", []string{"quantity=2"}, 0},
		{"EUR", []string{"revenue=null", "price=1"}, 100},
		// Half to even, once an event: each line of 0.005 alone would round to 0.
		{"EUR", []string{"revenue=0.005"}, 0},
		{"EUR", []string{"revenue=0.015"}, 2},
		{"EUR", []string{"revenue=0.025"}, 2},
		{"EUR", []string{"revenue=0.025001"}, 3},
		{"EUR", []string{"revenue=1.004999"}, 100},
		{"EUR", []string{`items=[{"price":0.005},{"price":0.005},{"price":0.005}]`}, 2},
		{"EUR", []string{"price=0.000001", "quantity=5000"}, 0},
		{"EUR", []string{"price=0.000001", "quantity=5000.000001"}, 1},
		// 1 USD = 0.915 EUR.
		{"EUR", []string{"revenue=100", `currency="USD"`}, 9150},
		{"EUR", []string{"revenue=0.1", `currency="USD"`}, 9},
		{"EUR", []string{"revenue=1", `currency="USD"`}, 92},
		{"EUR", []string{"revenue=3", `currency="USD"`}, 274},
		{"JPY", []string{"revenue=2.5"}, 2},
		{"JPY", []string{"revenue=3.5"}, 4},
		{"JPY", []string{"revenue=1", `currency="USD"`}, 1},
		{"KWD", []string{"revenue=1.0005"}, 1000},
		{"KWD", []string{"revenue=1.0015"}, 1002},
		{"CLF", []string{"revenue=1"}, 10000},
	} {
		opt := options(false)
		opt.Currency = tc.currency
		r := Record{Time: t0, Key: []byte("u1"), Value: []byte(value(append(tc.fields, `type="purchase"`, `order_id="o"`)...))}
		ev, bad := compile(opt).decode(&r)
		if bad != nil || ev.amount != tc.want {
			t.Errorf("%v in %s: got %+v %+v, want %d", tc.fields, tc.currency, ev, bad, tc.want)
		}
	}
	ev, bad := compile(options(false)).decode(&Record{Time: t0, Key: []byte("u1"), Value: []byte(value("revenue=5", "time=1699999999999"))})
	if bad != nil || ev.amount != 0 || ev.time != 1699999999999 {
		t.Errorf("a view with revenue: got %+v %+v, want amount 0", ev, bad)
	}
}

func TestMajor(t *testing.T) {
	for _, tc := range []struct {
		units int64
		code  string
		want  string
	}{{5944263, "USD", "59442.63"}, {-5, "EUR", "-0.05"}, {0, "EUR", "0.00"}, {12, "JPY", "12"}, {1234, "KWD", "1.234"}} {
		if got := major(tc.units, tc.code); got != tc.want {
			t.Errorf("%d %s: got %q, want %q", tc.units, tc.code, got, tc.want)
		}
	}
}

// FuzzMillionths compares with big.Rat, where that is affordable.
func FuzzMillionths(f *testing.F) {
	for _, s := range []string{"0", "-0", "1.5e3", "1e-6", "1e-7", "0.1000000", "9223372036854.775807", "123456789e-3", "-1e13"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !json.Valid([]byte(s)) || kind([]byte(s)) != '0' || strings.ContainsAny(s, " \t\r\n") {
			t.Skip()
		}
		got, faults := millionths(s)
		if i := strings.IndexAny(s, "eE"); len(s) > 60 || i >= 0 && len(s)-i > 4 {
			t.Skip()
		}
		exact, ok := new(big.Rat).SetString(s)
		if !ok {
			t.Fatalf("%q: not a number", s)
		}
		exact.Mul(exact, big.NewRat(1_000_000, 1))
		fits := exact.IsInt() && exact.Sign() >= 0 && exact.Num().IsInt64()
		if fits != (len(faults) == 0) || fits && exact.Num().Int64() != got {
			t.Errorf("%q: got %d %v, want %v millionths", s, got, faults, exact)
		}
	})
}

// FuzzDecode checks what must hold of any value: a reason of the contract, or an
// event as the contract has it.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		value(), value(`type="purchase"`, `order_id="o"`, `items=[{"price":1.5,"quantity":2}]`), `{"a":"\ud800`, "tru", "[1,", "", "{}",
		value(`time="2023-11-14T22:13:20+01:00"`), deep(70), value(`url="\ud83d\ude00\ud83d"`), "\xff", `{"a":1}{`,
	} {
		f.Add([]byte(s))
	}
	reasons := " tombstone too_large invalid_utf8 truncated not_json wrong_type missing_field empty_field id_too_long unknown_type" +
		" bad_time before_1990 negative_amount too_many_decimals unknown_currency amount_overflow no_key key_mismatch future "
	f.Fuzz(func(t *testing.T, v []byte) {
		ev, bad := compile(options(false)).decode(&Record{Time: math.MaxInt64, Key: []byte("u1"), Value: v})
		if bad == nil {
			if !json.Valid(v) || !utf8.Valid(v) || ev.user != "u1" || ev.id == "" || len(ev.id) > idMax || ev.amount < 0 || ev.amount > minorMax {
				t.Errorf("%q: taken as %+v", v, ev)
			}
			return
		}
		if !strings.Contains(reasons, " "+bad.reason+" ") || bad.detail == "" {
			t.Errorf("%q: refused for %+v", v, bad)
		}
		if bad.reason == "truncated" && (json.Valid(v) || !completable(v)) {
			t.Errorf("%q: truncated, but no start of a JSON text", v)
		}
		if bad.reason == "not_json" && completable(v) && !json.Valid(v) && bytes.Count(v, []byte("["))+bytes.Count(v, []byte("{")) <= depthMax {
			t.Errorf("%q: not JSON, but the start of a JSON text", v)
		}
	})
}

// completable tells whether some end makes v a JSON text, by trying the ends
// that can follow where a text breaks off.
func completable(v []byte) bool {
	var closing []byte
	inString := false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '"':
			inString = !inString
		case inString && c == '\\':
			i++
		case !inString && c == '{':
			closing = append(closing, '}')
		case !inString && c == '[':
			closing = append(closing, ']')
		case !inString && (c == '}' || c == ']') && len(closing) > 0:
			closing = closing[:len(closing)-1]
		}
	}
	var tail []byte
	for _, c := range slices.Backward(closing) {
		tail = append(tail, c)
	}
	for _, head := range []string{
		"", "0", "1", `"`, `""`, `"":1`, `":1`, ":1", `n"`, `n":1`, `u0000"`, `u0000":1`, `0000"`, `0000":1`, `000"`, `000":1`, `00"`, `00":1`, `0"`, `0":1`,
		"rue", "ue", "e", "alse", "lse", "se", "ull", "ll", "l",
	} {
		if json.Valid([]byte(string(v) + head + string(tail))) {
			return true
		}
	}
	return false
}
