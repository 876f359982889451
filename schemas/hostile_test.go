package schemas

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Events of the greatest size, made to be as costly as can be: each is accepted or
// refused for the right reason, in memory of some times its size, and what is said of
// it fits into a header.
func TestHostileEvents(t *testing.T) {
	fill := func(begin, text, end string) string {
		return begin + strings.Repeat(text, (ValueMax-len(begin)-len(end))/len(text)) + end
	}
	const head = `{"event_id":"e","type":"view","user_id":"u","time":1767225600000,`
	names := func() string {
		var b strings.Builder
		b.WriteString(head)
		for i := 0; b.Len() < ValueMax-20; i++ {
			fmt.Fprintf(&b, `"%x":0,`, i)
		}
		return b.String() + `"z":0}`
	}
	for what, c := range map[string]struct {
		value string
		want  Refusal
	}{
		"deep arrays":          {fill("", "[", ""), NotJSON},
		"deep objects":         {fill("", `{"a":`, ""), NotJSON},
		"deep, in properties":  {fill(head+`"properties":{"a":`, "[", ""), NotJSON},
		"a long number":        {fill(head+`"price":`, "9", "}"), AmountOverflow},
		"a long zero":          {fill(head+`"price":0.`, "0", "}"), Accepted},
		"many decimals":        {fill(head+`"price":0.`, "0", "1}"), TooManyDecimals},
		"a long exponent":      {fill(head+`"price":1e`, "9", "}"), AmountOverflow},
		"a long small one":     {fill(head+`"price":1e-`, "9", "}"), TooManyDecimals},
		"a long time":          {fill(`{"event_id":"e","type":"view","user_id":"u","time":`, "9", "}"), BadTime},
		"a long id":            {fill(`{"event_id":"`, "x", `"}`), IDTooLong},
		"a long escaped id":    {fill(`{"event_id":"`, `\u0041`, `"}`), IDTooLong},
		"a long type":          {fill(`{"event_id":"e","type":"`, "x", `"}`), UnknownType},
		"a long currency":      {fill(head+`"currency":"`, "E", `"}`), UnknownCurrency},
		"a long name":          {fill(head+`"`, "x", `":1}`), Accepted},
		"a long text":          {fill(head+`"url":"`, `\n`, `"}`), Accepted},
		"many fields":          {names(), Accepted},
		"one field, often":     {fill(head, `"a":1,`, `"b":1}`), Accepted},
		"one of ours, often":   {fill(head, `"url":"",`, `"b":1}`), Accepted},
		"many items":           {fill(head+`"items":[`, "{},", "{}]}"), Accepted},
		"items of numbers":     {fill(head+`"items":[`, "1,", "1]}"), WrongType},
		"many names in items":  {fill(head+`"items":[{`, `"a":1,`, `"b":1}]}`), Accepted},
		"half a pair, at last": {fill(head+`"url":"`, "x", `\ud800"}`), InvalidUTF8},
		"no UTF-8, at last":    {fill(head+`"url":"`, "x", "\xff\"}"), InvalidUTF8},
		"blanks":               {fill("", " ", ""), Truncated},
		"no end":               {fill(head+`"url":"`, "x", ""), Truncated},
		"a byte too many":      {strings.Repeat("x", ValueMax+1), TooLarge},
	} {
		d := newDecoder(t)
		var ev Event
		var err error
		value := []byte(c.value)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err = d.Decode([]byte("u"), value, &ev)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
			t.Errorf("%s: took %d MiB", what, n>>20)
		}
		got := Accepted
		if r, ok := errors.AsType[*RefusedError](err); ok {
			got = r.Reason
			if len(r.Detail) > 400 {
				t.Errorf("%s: a detail of %d bytes: %.100s", what, len(r.Detail), r.Detail)
			}
		}
		if got != c.want {
			t.Errorf("%s: got %v (%.200v), want %v", what, got, err, c.want)
		}
	}
}

// A transition's JSON of any size and shape is read or refused in memory of some times
// its size.
func TestHostileTransitions(t *testing.T) {
	good := string(golden1(t))
	for what, value := range map[string]string{
		"deep":         strings.Repeat("[", ValueMax),
		"many fields":  strings.Replace(good, "{", "{"+strings.Repeat(`"a":1,`, ValueMax/6), 1),
		"one of ours":  strings.Replace(good, "{", "{"+strings.Repeat(`"seq":1,`, ValueMax/8), 1),
		"a long user":  strings.Replace(good, `"user":"`, `"user":"`+strings.Repeat("x", ValueMax), 1),
		"many sets":    strings.Replace(good, `"segments":{`, `"segments":{`+strings.Repeat(`"a":"b",`, ValueMax/8), 1),
		"a long seq":   strings.Replace(good, `"seq":`, `"seq":`+strings.Repeat("9", ValueMax), 1),
		"a long cause": strings.Replace(good, `"cause":{`, `"cause":{`+strings.Repeat(`"kind":"event",`, ValueMax/15), 1),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := DecodeTransition([]byte(value), testSets)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
			t.Errorf("%s: took %d MiB", what, n>>20)
		}
		if err != nil && len(err.Error()) > 4<<10 {
			t.Errorf("%s: an error of %d bytes: %.100v", what, len(err.Error()), err)
		}
	}
}

// golden1 is a transition's JSON.
func golden1(t testing.TB) []byte {
	t.Helper()
	tr := Transition{
		User: "u", Set: 0, From: NoSegment, To: 1, Seq: 1, At: 1767225600000, Segments: []uint16{1, NoSegment},
		Cause:    Cause{Kind: ByEvent, Event: View, ID: "e", Pos: Position{Partition: 1, Offset: 2}},
		Expected: Expected{To: NoSegment, At: Never},
	}
	return tr.AppendJSON(nil, &TransitionContext{ID: "g/1/1", Topic: "in", Sets: testSets, Currency: "EUR"})
}

// The headers of an output are read as they are written, whatever stands before them,
// and whatever else is read says so, short.
func FuzzHeaders(f *testing.F) {
	f.Add("g/1/7", uint64(7), int64(9), int64(1767225600000), "lane", []byte("backfill"), uint8(3))
	f.Add("", uint64(0), int64(-1), int64(-1<<63), "n", []byte("+7"), uint8(0))
	f.Add("x", uint64(1<<63), int64(1<<62), int64(1), "lane", []byte("Live"), uint8(11))
	f.Fuzz(func(t *testing.T, id string, n uint64, next, clock int64, name string, value []byte, cut uint8) {
		h := OutputHeaders{ID: id, N: n, Next: next, Clock: Millis(clock), Fired: Millis(clock) - 1}
		own, _ := AppendTransitionHeaders[Header](nil, nil, &h, "/footfall/g", &Transition{User: "u"})
		foreign := Header{name, value}
		back, err := ParseTransitionHeaders(append([]Header{foreign}, own...))
		if err != nil || back != h {
			t.Fatalf("%+v comes back as %+v, %v", h, back, err)
		}
		if _, err := ParseTransitionHeaders(append(own[:int(cut)%(len(own)+1):len(own)], foreign)); err != nil && len(err.Error()) > 400 {
			t.Errorf("an error of %d bytes: %.100v", len(err.Error()), err)
		}
		lane, ok := LaneOf([]Header{{LaneHeader, []byte("live")}, foreign}, Backfill)
		want, known := ParseLane(string(value))
		switch {
		case name != LaneHeader:
			if lane != Live || !ok {
				t.Errorf("header %q: got %v, %v, want live", name, lane, ok)
			}
		case known:
			if lane != want || !ok {
				t.Errorf("lane %q: got %v, %v", value, lane, ok)
			}
		default:
			if lane != Backfill || ok {
				t.Errorf("lane %q: got %v, %v, want the usual one", value, lane, ok)
			}
		}
	})
}

// The items of an accepted event are what encoding/json reads of them; of other bytes
// none is read that is not there.
func FuzzEachItem(f *testing.F) {
	f.Add([]byte(`[{"product_id":"p","price":1.5,"quantity":2},{"brand":"\u0041","category":null}]`))
	f.Add([]byte(`[{},{"price":1e2,"price":3}]`))
	f.Add([]byte(`[1]`))
	f.Add([]byte(`{"a":[`))
	d, err := NewDecoder(Contract{Currency: "EUR"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, items []byte) {
		EachItem(items, func(Item) {})
		value := []byte(`{"event_id":"e","type":"view","user_id":"u","time":1767225600000,"items":` + string(items) + `}`)
		var ev Event
		if d.Decode([]byte("u"), value, &ev) != nil {
			return
		}
		var want []map[string]json.RawMessage
		if ev.Items != nil {
			if err := json.Unmarshal(ev.Items, &want); err != nil {
				t.Fatalf("%s: %v", ev.Items, err)
			}
		}
		n := 0
		EachItem(ev.Items, func(it Item) {
			if n >= len(want) {
				t.Fatalf("%s: more than %d items", ev.Items, len(want))
			}
			w := want[n]
			n++
			for name, got := range map[string][]byte{"product_id": it.ProductID, "category": it.Category, "brand": it.Brand} {
				var s string
				_ = json.Unmarshal(w[name], &s)
				if s != string(got) {
					t.Errorf("%s: item %d: %s is %q, want %q", ev.Items, n, name, got, s)
				}
			}
			if it.HasPrice {
				p, ok := new(big.Rat).SetString(string(w["price"]))
				if !ok || p.Cmp(big.NewRat(it.Price, million)) != 0 {
					t.Errorf("%s: item %d: price is %d millionths, want %s", ev.Items, n, it.Price, w["price"])
				}
			}
		})
		if n != len(want) {
			t.Errorf("%s: %d items, want %d", ev.Items, n, len(want))
		}
	})
}

// A rate is taken for what math/big takes it for, or refused; equal rates hash equal.
func FuzzRate(f *testing.F) {
	for _, s := range []string{"0.91", "1", "00.910", "1e3", "-1", "0.000000000001", "9999999999999999999", ".5", "1.", "٣"} {
		f.Add(s, "0.9100")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		r, err := parseRate(a)
		if err != nil {
			if len(err.Error()) > 400 {
				t.Errorf("an error of %d bytes: %.100v", len(err.Error()), err)
			}
			return
		}
		want, ok := new(big.Rat).SetString(a)
		scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(r.decimals)), nil)
		got := new(big.Rat).SetFrac(new(big.Int).SetUint64(r.digits), scale)
		if !ok || got.Cmp(want) != 0 || want.Sign() <= 0 {
			t.Fatalf("%q is read as %s", a, got)
		}
		other, err := parseRate(b)
		if err != nil {
			return
		}
		w2, _ := new(big.Rat).SetString(b)
		if same := cmp.Equal(r, other, cmp.AllowUnexported(rate{})); same != (want.Cmp(w2) == 0) {
			t.Errorf("%q and %q: equal %v as rates, %v as numbers", a, b, same, !same)
		}
	})
}
