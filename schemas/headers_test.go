package schemas

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// dumped is a record as a golden file keeps it.
type dumped struct {
	Key     *string
	Value   *string
	Headers [][2]string
}

func dump(t *testing.T, key, value []byte, headers []Header) []byte {
	t.Helper()
	d := dumped{}
	str := func(b []byte) *string {
		if b == nil {
			return nil
		}
		s := string(b)
		return &s
	}
	d.Key, d.Value = str(key), str(value)
	for _, h := range headers {
		d.Headers = append(d.Headers, [2]string{h.Key, string(h.Value)})
	}
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func load(t *testing.T, name string) (key, value []byte, headers []Header) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "v1", name))
	if err != nil {
		t.Fatal(err)
	}
	var d dumped
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	if d.Key != nil {
		key = []byte(*d.Key)
	}
	if d.Value != nil {
		value = []byte(*d.Value)
	}
	for _, h := range d.Headers {
		headers = append(headers, Header{h[0], []byte(h[1])})
	}
	return key, value, headers
}

func TestTransitionHeaders(t *testing.T) {
	tr := goldenTransitions()["transition-event"]
	want := OutputHeaders{ID: OutputID("footfall-eu", 3, 17), N: 17, Next: 120_332, Clock: noon + 123, Fired: noon - 1}
	headers, _ := AppendTransitionHeaders([]Header{{"traceparent", []byte("00-1")}}, nil, &want, SourceOf("footfall-eu"), &tr)
	golden(t, "transition-headers.json", dump(t, []byte(tr.User), nil, headers))
	_, _, headers = load(t, "transition-headers.json")
	got, err := ParseTransitionHeaders(headers)
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, c := range []struct{ name, value, want string }{
		{HeaderN, "-1", `header n: got "-1", want a number`},
		{HeaderNext, "", `header next: got "", want a number`},
		{HeaderClock, "soon", `header clock: got "soon", want a number`},
		{HeaderFired, "9223372036854775808", `header fired: got "9223372036854775808", want a number`},
	} {
		if _, err := ParseTransitionHeaders(append(slices.Clip(headers), Header{c.name, []byte(c.value)})); fmt.Sprint(err) != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	for i, h := range headers {
		without := append(append([]Header(nil), headers[:i]...), headers[i+1:]...)
		_, err := ParseTransitionHeaders(without)
		needed := h.Key == HeaderID || h.Key == HeaderN || h.Key == HeaderNext || h.Key == HeaderClock || h.Key == HeaderFired
		if want := "header " + h.Key + ": missing"; needed && fmt.Sprint(err) != want || !needed && err != nil {
			t.Errorf("without %s: got %v, want needed %v", h.Key, err, needed)
		}
	}
}

func TestLaneOf(t *testing.T) {
	for _, c := range []struct {
		values string
		lane   Lane
		ok     bool
	}{
		{"", Replay, true},
		{"live", Live, true},
		{"backfill", Backfill, true},
		{"replay live", Live, true},
		{"Live", Replay, false},
	} {
		headers := []Header{{"n", []byte("1")}}
		for v := range strings.FieldsSeq(c.values) {
			headers = append(headers, Header{LaneHeader, []byte(v)})
		}
		if lane, ok := LaneOf(headers, Replay); lane != c.lane || ok != c.ok {
			t.Errorf("%q: got %v, %v, want %v, %v", c.values, lane, ok, c.lane, c.ok)
		}
	}
}

func goldenDeadLetter() (DeadLetter, OutputHeaders) {
	return DeadLetter{
		Pos: Position{3, 99}, Time: noon, Reason: NegativeAmount, Detail: "price: got -3, want 0 or more",
		Key: []byte("u1"), Value: []byte(`{"price":-3}`),
		Headers: []Header{{"lane", []byte("live")}, {"n", []byte("the shop's own")}, {"clock", nil}},
	}, OutputHeaders{N: 18, Next: 100, Clock: noon, Fired: noon - 5}
}

func TestDeadLetter(t *testing.T) {
	dl, out := goldenDeadLetter()
	record := dl.Encode("storefront-events", &out, false)
	golden(t, "deadletter.json", dump(t, record.Key, record.Value, record.Headers))
	got, err := ParseDeadLetter(record.Key, record.Value, record.Headers)
	want := ParsedDeadLetter{DeadLetter: dl, Output: out, Topic: "storefront-events"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v: want -, got +\n%s", err, diff)
	}
	if got, err = ParseDeadLetter(load(t, "deadletter.json")); err != nil || got.Pos != dl.Pos || got.Output != out {
		t.Errorf("golden: got %+v, %v", got, err)
	}
}

func TestDeadLetterTooLarge(t *testing.T) {
	dl, out := goldenDeadLetter()
	sum := sha256.Sum256(dl.Value)
	record := dl.Encode("storefront-events", &out, true)
	golden(t, "deadletter-cut.json", dump(t, record.Key, record.Value, record.Headers))
	want := ParsedDeadLetter{
		DeadLetter: dl, Output: out, Topic: "storefront-events",
		Cut: true, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(dl.Value)),
	}
	want.Value = nil
	got, err := ParseDeadLetter(record.Key, record.Value, record.Headers)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v: want -, got +\n%s", err, diff)
	}

	// Whatever of the record is large, what is left is small.
	big := bytes.Repeat([]byte("x"), 1<<20)
	for name, dl := range map[string]DeadLetter{
		"key": {Key: big}, "value": {Value: big}, "header": {Headers: []Header{{"h", big}}}, "name": {Headers: []Header{{string(big), nil}}},
	} {
		dl.Reason = NoKey
		r := dl.Encode("t", &out, true)
		if n := len(r.Key) + len(r.Value) + headersSize(r.Headers); n > 32<<10 {
			t.Errorf("large %s: %d bytes left", name, n)
		}
	}
}

func TestDeadLetterOfADeadLetter(t *testing.T) {
	first, out := goldenDeadLetter()
	record := first.Encode("storefront-events", &out, true)
	second := DeadLetter{
		Pos: Position{0, 1}, Time: noon + 1, Reason: Tombstone, Detail: "d", Headers: record.Headers,
	}
	record = second.Encode("again", &OutputHeaders{N: 1, Next: 2}, false)
	got, err := ParseDeadLetter(record.Key, record.Value, record.Headers)
	want := ParsedDeadLetter{DeadLetter: second, Output: OutputHeaders{N: 1, Next: 2}, Topic: "again"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v: want -, got +\n%s", err, diff)
	}
}

func TestParseDeadLetterRefuses(t *testing.T) {
	dl, out := goldenDeadLetter()
	headers := dl.Encode("t", &out, true).Headers
	for i, h := range headers {
		if i < len(dl.Headers) {
			continue
		}
		without := append(append([]Header(nil), headers[:i]...), headers[i+1:]...)
		_, err := ParseDeadLetter(nil, nil, without)
		if h.Key != HeaderDeadSHA256 && (err == nil || !strings.Contains(err.Error(), h.Key)) {
			t.Errorf("without %s: got %v", h.Key, err)
		}
	}
	headers[len(dl.Headers)].Value = []byte("dislike")
	if _, err := ParseDeadLetter(nil, nil, headers); fmt.Sprint(err) != `dead letter: header dlq_reason: unknown reason "dislike"` {
		t.Errorf("got %v", err)
	}
}

func FuzzParseDeadLetter(f *testing.F) {
	f.Add("18", "3", "99", "7", "tombstone", "detail", "topic", "5", "\xff", true)
	f.Fuzz(func(t *testing.T, n, partition, offset, at, reason, detail, topic, next, sha string, cut bool) {
		headers := []Header{
			{HeaderDeadReason, []byte(reason)},
			{HeaderDeadDetail, []byte(detail)},
			{HeaderDeadTopic, []byte(topic)},
			{HeaderDeadPartition, []byte(partition)},
			{HeaderDeadOffset, []byte(offset)},
			{HeaderDeadTime, []byte(at)},
			{HeaderDeadN, []byte(n)},
			{HeaderNext, []byte(next)},
			{HeaderClock, []byte(at)},
			{HeaderFired, []byte(at)},
		}
		if cut {
			headers = append(headers, Header{HeaderDeadSHA256, []byte(sha)}, Header{HeaderDeadSize, []byte(next)})
		}
		p, err := ParseDeadLetter([]byte("k"), []byte("v"), headers)
		if err != nil {
			return
		}
		r := p.Encode(p.Topic, &p.Output, false)
		back, err := ParseDeadLetter(r.Key, r.Value, r.Headers)
		p.Cut, p.SHA256, p.Size = false, "", 0
		if diff := cmp.Diff(p, back); err != nil || diff != "" {
			t.Fatalf("%v: want -, got +\n%s", err, diff)
		}
	})
}
