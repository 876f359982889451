package schemas

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files of the present version anew")

var testSets = []SetNames{
	{Name: "lifecycle", Segments: []string{"lost", "dormant", "new", "active", "cooling", "prospect"}},
	{Name: `odd "set"`, Segments: []string{"a\\b", "\x01\n", "ü"}},
}

const noon Millis = 1_767_225_600_000 // 2026-01-01T00:00:00Z

// goldenTransitions are one of every cause and form.
func goldenTransitions() map[string]Transition {
	facts := Facts{
		First: noon - 40*Day, Last: noon - 90*Second - 1, FirstPurchase: noon - 40*Day, LastPurchase: noon - 2*Day,
		Orders: 3, Revenue: 12_345,
	}
	return map[string]Transition{
		"transition-event": {
			User: "u-48151623", Set: 0, From: 5, To: 2, Seq: 2, At: noon + 123,
			Cause: Cause{Kind: ByEvent, Pos: Position{3, 120_331}, Event: Purchase, ID: "01JGZ4T3Q8W1K9M2N5P7R0S3T6"},
			Facts: facts, Segments: []uint16{2, 0}, Expected: Expected{To: 4, At: noon + 28*Day}, Rules: 0x1f3870be274f6c49,
		},
		"transition-first": {
			User: "u\"\\\u00fc\x01", Set: 0, From: NoSegment, To: 5, Seq: 1, At: noon,
			Cause:    Cause{Kind: ByEvent, Pos: Position{0, 0}, Event: View, ID: "e\n1"},
			Facts:    Facts{First: noon + Minute, Last: noon + Minute},
			Segments: []uint16{5, NoSegment}, Expected: Expected{To: 1, At: noon + 90*Day + Minute}, Rules: 1,
			Muted: MutedBootstrap,
		},
		"transition-timer": {
			User: "u1", Set: 1, From: 0, To: 2, Seq: math.MaxUint32, At: noon,
			Cause: Cause{Kind: ByTimer, Due: noon}, Facts: facts, Segments: []uint16{0, 2},
			Expected: Expected{To: NoSegment, At: Never}, Rules: math.MaxUint64, Muted: MutedStale,
		},
		"transition-rules": {
			User: "u1", Set: 0, From: 3, To: 4, Seq: 9, At: noon, Cause: Cause{Kind: ByRules},
			Facts:    Facts{First: noon - Day, Last: noon - Day, Orders: 1, Revenue: -5, FirstPurchase: noon - Day, LastPurchase: noon - Day},
			Segments: []uint16{4, 1}, Expected: Expected{To: NoSegment, At: Never}, Muted: MutedRules,
		},
		"transition-epoch": {
			User: "u1", Set: 1, From: 0, To: 2, Seq: 4, At: noon, Cause: Cause{Kind: ByEpoch, Epoch: 21},
			Facts: facts, Segments: []uint16{4, 2}, Expected: Expected{To: 0, At: noon + Day},
		},
		"transition-evidence": {
			User: "u1", Set: 0, From: Retired, Names: &RetiredNames{From: "vip"}, To: 4, Seq: 9, At: noon, Cause: Cause{Kind: ByTimer, Due: noon},
			Facts: facts, Segments: []uint16{4, 1}, Expected: Expected{To: 0, At: noon + Day},
			Evidence: Evidence{Clause: `since(last("purchase")) >= days(30)`, Kind: SpanValue, Was: int64(30*Day) - 1, Is: int64(30 * Day)},
		},
		"transition-quiet": {
			User: "u1", Set: 0, From: 3, To: 4, Seq: 9, At: noon, Cause: Cause{Kind: ByTimer, Due: noon},
			Facts: facts, Segments: []uint16{4, 1}, Expected: Expected{To: 0, At: noon + Day},
			Contact: Contact{NotBefore: noon + 7*Hour, BestHour: 18, Zone: "Europe/Berlin", ZoneFrom: ZoneEvent},
		},
		"transition-awake": {
			User: "u1", Set: 0, From: 3, To: 4, Seq: 9, At: noon, Cause: Cause{Kind: ByTimer, Due: noon},
			Facts: facts, Segments: []uint16{4, 1}, Expected: Expected{To: 0, At: noon + Day},
			Contact: Contact{BestHour: -1, Zone: "UTC+03:00", ZoneFrom: ZoneActivity},
		},
		"transition-recovery": {
			User: "u1", Set: 0, From: 3, To: 4, Seq: 9, At: noon, Cause: Cause{Kind: ByRecovery},
			Facts: facts, Segments: []uint16{4, 1}, Expected: Expected{To: 0, At: noon + Day},
		},
	}
}

func testContext(n uint64) *TransitionContext {
	return &TransitionContext{ID: OutputID("footfall", 3, n), Topic: "storefront-events", Sets: testSets, Currency: "EUR"}
}

// golden compares got with a file of version 1, and says how to make it anew. A
// format that was released must not change: add a version instead.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "v1", name)
	if *rewrite {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s: want -, got + (go test ./schemas -rewrite)\n%s", path, diff)
	}
}

func TestTransitionGolden(t *testing.T) {
	for name, tr := range goldenTransitions() {
		golden(t, name+".json", append(tr.AppendJSON(nil, testContext(17)), '\n'))
		value, err := os.ReadFile(filepath.Join("testdata", "v1", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeTransition(value, testSets)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tr.Evidence = Evidence{} // is for people
		if diff := cmp.Diff(tr, back); diff != "" {
			t.Errorf("%s: want -, got +\n%s", name, diff)
		}
	}
}

func randomTransition(r *rand.Rand) Transition {
	str := func() string {
		var b strings.Builder
		for range 1 + r.IntN(12) {
			b.WriteRune([]rune{'a', '"', '\\', 0, 0x1f, 'é', '\u2028', 0x1f600, '/', 0x7f}[r.IntN(10)])
		}
		return b.String()
	}
	when := func() Millis { return oldest + Millis(r.Int64N(int64(100_000*Day))) }
	set := r.IntN(len(testSets))
	segment := func(set int) uint16 { return uint16(r.IntN(len(testSets[set].Segments))) }
	tr := Transition{
		User: str(), Set: uint16(set), From: NoSegment, To: segment(set), Seq: 1 + r.Uint32N(math.MaxUint32-1), At: when(),
		Cause: Cause{Kind: CauseKind(r.IntN(5))}, Muted: Muted(r.IntN(6)), Rules: r.Uint64(),
		Facts:    Facts{Orders: r.Uint32(), Revenue: int64(r.Uint64()), First: when(), Last: when()},
		Segments: []uint16{segment(0), NoSegment}, Expected: Expected{To: NoSegment, At: Never},
	}
	if r.IntN(2) == 0 {
		tr.From, tr.Segments[1] = segment(set), segment(1)
		tr.Facts.FirstPurchase, tr.Facts.LastPurchase = when(), when()
		tr.Expected = Expected{segment(set), when()}
	}
	if from := ZoneSource(r.IntN(4)); from != NoZone {
		tr.Contact = Contact{BestHour: int8(r.IntN(25) - 1), Zone: str(), ZoneFrom: from}
		if r.IntN(2) == 0 {
			tr.Contact.NotBefore = when()
		}
	}
	switch tr.Cause.Kind {
	case ByEvent:
		tr.Cause.Pos = Position{r.Int32(), r.Int64()}
		tr.Cause.Event, tr.Cause.ID = Kind(r.IntN(int(Kinds))), str()
	case ByTimer:
		tr.Cause.Due = when()
	case ByEpoch:
		tr.Cause.Epoch = uint64(r.Int64())
	case ByRules, ByRecovery:
	}
	return tr
}

func TestTransitionRoundTrip(t *testing.T) {
	const seed = 3
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range 3000 {
		tr := randomTransition(r)
		ctx := testContext(uint64(i))
		ctx.Currency = []string{"EUR", "JPY", "KWD", "CLF"}[r.IntN(4)]
		value := tr.AppendJSON(nil, ctx)
		if !json.Valid(value) || !utf8.Valid(value) {
			t.Fatalf("seed %d, transition %d: not JSON: %s", seed, i, value)
		}
		back, err := DecodeTransition(value, testSets)
		if err != nil {
			t.Fatalf("seed %d, transition %d: %v: %s", seed, i, err, value)
		}
		if diff := cmp.Diff(tr, back); diff != "" {
			t.Fatalf("seed %d, transition %d: want -, got +\n%s\n%s", seed, i, diff, value)
		}
		var fields struct {
			User    string
			Profile struct {
				Revenue      json.Number
				RevenueMinor json.Number `json:"revenue_minor"`
			}
		}
		if err := json.Unmarshal(value, &fields); err != nil || fields.User != tr.User {
			t.Fatalf("seed %d, transition %d: encoding/json reads user %q, want %q (%v)", seed, i, fields.User, tr.User, err)
		}
	}
}

func TestTransitionAllocatesNothing(t *testing.T) {
	tr, ctx := goldenTransitions()["transition-event"], testContext(17)
	dst := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { dst = tr.AppendJSON(dst[:0], ctx) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestDecodeTransitionRefuses(t *testing.T) {
	tr := goldenTransitions()["transition-event"]
	value := string(tr.AppendJSON(nil, testContext(17)))
	for _, c := range []struct{ old, new, want string }{
		{`{"id"`, `["id"`, `transition: not JSON: byte 5: want , or ]`},
		{`"user":"u-48151623"`, `"user":null`, `transition: user: got null, want a string`},
		{`"user":`, `"usr":`, `transition: user: missing, want a value`},
		{`"from":"prospect",`, ``, `transition: from: missing, want a string`},
		{`"seq":2`, `"seq":0`, `transition: seq: got 0, want a whole number from 1 to 4294967295`},
		{`"seq":2`, `"seq":2.0`, `transition: seq: got 2.0, want a whole number from 1 to 4294967295`},
		{`"at":"2026-01-01T00:00:00.123Z"`, `"at":1`, `transition: at: got 1, want a time`},
		{`"kind":"event"`, `"kind":"whim"`, `transition: cause.kind: got "whim", want a known one`},
		{`"type":"purchase"`, `"type":"buy"`, `transition: cause.type: got "buy", want a known one`},
		{`"offset":120331`, `"offset":-1`, `transition: cause.offset: got -1, want a whole number from 0 to 9223372036854775807`},
		{`"cause":{`, `"because":{`, `transition: cause.kind: missing, want a string`},
		{`"rules":"1f`, `"rules":"1F`, `transition: rules: got "1F3870be274f6c49", want 16 hex digits`},
		{`"last":"2025-12-31T23:58:29.999Z"`, `"last":7`, `transition: profile.last: got 7, want a time`},
		{`"orders":3,`, ``, `transition: profile.orders: missing, want a whole number from 0 to 4294967295`},
		{`"segments":{`, `"segments":[],"x":{`, `transition: segments: got [], want an object`},
		{`"expected":{`, `"expected":{},"x":{`, `transition: expected.to: missing, want a string`},
		{`u-48`, "u-\xff", `transition: not UTF-8`},
		{`u-48`, `u-\ud800`, `transition: byte 32: half a surrogate pair`},
	} {
		if !strings.Contains(value, c.old) {
			t.Fatalf("no %s in %s", c.old, value)
		}
		_, err := DecodeTransition([]byte(strings.Replace(value, c.old, c.new, 1)), testSets)
		if fmt.Sprint(err) != c.want {
			t.Errorf("%s for %s:\ngot  %v\nwant %s", c.new, c.old, err, c.want)
		}
	}
}

// What the rules in force have not any more is named.
func TestDecodeTransitionOfRetiredNames(t *testing.T) {
	tr := goldenTransitions()["transition-event"]
	value := tr.AppendJSON(nil, testContext(17))
	back, err := DecodeTransition(value, []SetNames{{Name: "lifecycle", Segments: []string{"prospect"}}})
	if err != nil || back.Set != 0 || back.From != 0 || back.To != Retired || back.Names == nil || back.Names.To != "new" {
		t.Errorf("a segment: got %+v, %+v, %v", back, back.Names, err)
	}
	back, err = DecodeTransition(value, []SetNames{{Name: "tiers"}})
	want := RetiredNames{Set: "lifecycle", From: "prospect", To: "new"}
	if err != nil || back.Set != Retired || back.Names == nil || *back.Names != want {
		t.Errorf("a set: got %+v, %+v, %v", back, back.Names, err)
	}
}

// A name that no set can have had is not taken for one that is no more.
func TestDecodeTransitionOfImpossibleNames(t *testing.T) {
	tr := goldenTransitions()["transition-event"]
	value := string(tr.AppendJSON(nil, testContext(17)))
	for _, name := range []string{"", strings.Repeat("x", NameMax+1)} {
		for _, field := range []string{`"set":"lifecycle"`, `"to":"new"`, `"from":"prospect"`} {
			key, _, _ := strings.Cut(field, ":")
			bad := strings.Replace(value, field, key+`:"`+name+`"`, 1)
			if _, err := DecodeTransition([]byte(bad), testSets); err == nil || bad == value {
				t.Errorf("%s of %d bytes: got no error", key, len(name))
			}
		}
	}
}

// What an older or a newer version said must still give the membership.
func TestDecodeTransitionOfOtherRules(t *testing.T) {
	tr := goldenTransitions()["transition-event"]
	value := tr.AppendJSON(nil, testContext(17))
	value = append(value[:len(value)-1], `,"holdout":true}`...)
	back, err := DecodeTransition(value, []SetNames{{Name: "tiers"}, {Name: "lifecycle", Segments: []string{"new", "prospect"}}})
	if err != nil {
		t.Fatal(err)
	}
	want := tr
	want.Set, want.From, want.To = 1, 1, 0
	want.Segments, want.Expected = []uint16{NoSegment, 0}, Expected{To: NoSegment, At: Never}
	if diff := cmp.Diff(want, back); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

func FuzzDecodeTransition(f *testing.F) {
	for _, tr := range goldenTransitions() {
		f.Add(tr.AppendJSON(nil, testContext(17)))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		tr, err := DecodeTransition(value, testSets)
		if err != nil || tr.Set == Retired || tr.To == Retired {
			return // what is no more is read back, and not said again
		}
		again := tr.AppendJSON(nil, testContext(17))
		back, err := DecodeTransition(again, testSets)
		if err != nil {
			t.Fatalf("%s: decoded and encoded: %v: %s", value, err, again)
		}
		if diff := cmp.Diff(tr, back); diff != "" {
			t.Fatalf("%s: decoded, encoded and decoded: want -, got +\n%s", value, diff)
		}
	})
}

func FuzzTransitionStrings(f *testing.F) {
	f.Add("u\"\\", "\x00e")
	f.Fuzz(func(t *testing.T, user, id string) {
		if !utf8.ValidString(user) || !utf8.ValidString(id) {
			t.Skip("an accepted event has UTF-8")
		}
		tr := goldenTransitions()["transition-event"]
		tr.User, tr.Cause.ID = user, id
		back, err := DecodeTransition(tr.AppendJSON(nil, testContext(17)), testSets)
		if diff := cmp.Diff(tr, back); err != nil || diff != "" {
			t.Fatalf("user %q id %q: %v\n%s", user, id, err, diff)
		}
	})
}
