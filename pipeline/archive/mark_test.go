package archive

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var options = cmp.AllowUnexported(Mark{}, Ledger{}, entry{})

func TestMarkRoundTrip(t *testing.T) {
	for name, m := range map[string]Mark{
		"nothing":   {},
		"under way": {UnderWay: true, Next: 150, Sum: Sum{40, 1 << 63}},
		"both": {UnderWay: true, Next: 101, Ledger: Ledger{[]entry{
			{first: 0, next: 70, sum: Sum{60, 5}}, {first: 70, next: 100, sum: Sum{0, 0}},
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseMark(m.Encode(100), 100)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(m, got, options); d != "" {
				t.Errorf("mark changed (-want +got):\n%s", d)
			}
		})
	}
}

// A broker refuses metadata of more than 4,096 bytes, by default.
func TestMarkIsShort(t *testing.T) {
	m := Mark{UnderWay: true, Next: 1 << 55, Sum: Sum{1 << 55, math.MaxUint64}}
	for i := range int64(1000) {
		m.Ledger.add(i<<45, (i+1)<<45, Sum{1 << 45, math.MaxUint64 - uint64(i)}, 1)
	}
	if got, want := len(m.Encode(0)), 1100; got > want {
		t.Errorf("longest mark: got %d bytes, want at most %d", got, want)
	}
}

func TestMarkRefuses(t *testing.T) {
	good := (&Mark{UnderWay: true, Next: 150, Sum: Sum{40, 7}}).Encode(100)
	for i := range good {
		for _, c := range "A_z" {
			bad := good[:i] + string(c) + good[i+1:]
			if m, err := ParseMark(bad, 100); bad != good && err == nil {
				t.Fatalf("%q, byte %d of %q changed: got %+v, want an error", bad, i, good, m)
			}
		}
		if _, err := ParseMark(good[:i], 100); i > 0 && err == nil {
			t.Fatalf("%q, cut: got no error", good[:i])
		}
	}
}

// A committed mark of version 1, as a released footfall wrote it.
func TestMarkVersion1(t *testing.T) {
	const text = "AQEyKAcAAAAAAAAAAcgBZDwFAAAAAAAAACeR07E"
	want := Mark{UnderWay: true, Next: 250, Sum: Sum{40, 7}, Ledger: Ledger{[]entry{{first: 100, next: 200, sum: Sum{60, 5}}}}}
	got, err := ParseMark(text, 200)
	if err != nil {
		t.Fatalf("%v; it is now written %q", err, want.Encode(200))
	}
	if d := cmp.Diff(want, got, options); d != "" {
		t.Errorf("mark of version 1 (-want +got):\n%s", d)
	}
}

func FuzzParseMark(f *testing.F) {
	f.Add("", int64(0))
	f.Add((&Mark{UnderWay: true, Next: 150, Sum: Sum{40, 7}}).Encode(100), int64(100))
	m := Mark{}
	for i := range int64(40) {
		m.Ledger.add(i*10, i*10+10, Sum{i, uint64(i)}, 5)
	}
	f.Add(m.Encode(400), int64(400))
	f.Fuzz(func(t *testing.T, text string, at int64) {
		m, err := ParseMark(text, at)
		if err != nil || text == "" {
			return
		}
		again, err := ParseMark(m.Encode(at), at)
		if err != nil {
			t.Fatalf("%q is read, but not what it is written as: %v", text, err)
		}
		if d := cmp.Diff(m, again, options); d != "" {
			t.Errorf("%q changed (-first +again):\n%s", text, d)
		}
	})
}

// Whatever is added, a ledger adjoins, stays short, and adds up.
func TestLedger(t *testing.T) {
	var l Ledger
	var want Sum
	for i := range int64(5000) {
		s := Sum{i % 37, uint64(i) * 0x9e3779b97f4a7c15}
		want.plus(s)
		l.add(i*3, i*3+3, s, 100)
		var got Sum
		for j, e := range l.spans {
			got.plus(e.sum)
			if j > 0 && l.spans[j-1].next != e.first {
				t.Fatalf("after %d: span %d begins at %d, the one before ends at %d", i, j, e.first, l.spans[j-1].next)
			}
		}
		if first, last := l.spans[0].first, l.spans[len(l.spans)-1].next; got != want || len(l.spans) > ledgerMax || first != 0 || last != i*3+3 {
			t.Fatalf("after %d: got %d spans of offsets %d to %d with %+v, want at most %d of 0 to %d with %+v", i, len(l.spans), first, last, got, ledgerMax, i*3+3, want)
		}
	}
	l.trim(9000)
	if l.spans[0].next <= 9000 {
		t.Errorf("after trim(9000): got a span that ends at %d", l.spans[0].next)
	}
	l.add(20000, 20001, Sum{1, 1}, 100)
	if len(l.spans) != 1 {
		t.Errorf("after a gap: got %d spans, want 1", len(l.spans))
	}
}
