package file

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files in testdata")

func mapping(t *testing.T, src string) *Mapping {
	t.Helper()
	m, err := ParseMapping("test.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// report reads all events and writes them down as the golden files have them.
func report(r *Reader) string {
	var b strings.Builder
	for ev, err := range r.Events() {
		if err != nil {
			fmt.Fprintf(&b, "error: %v\n", err)
			continue
		}
		fmt.Fprintf(&b, "%s @%d %s\n", ev.Key, ev.Time, ev.Value)
	}
	s := r.Stats()
	fmt.Fprintf(&b, "rows %d, events %d, skipped %v\n", s.Rows, s.Events, s.Skipped)
	for _, m := range s.Reports {
		fmt.Fprintln(&b, m)
	}
	return b.String()
}

func read(t *testing.T, m *Mapping, name, content string) string {
	t.Helper()
	r, err := New(strings.NewReader(content), name, m, Options{})
	if err != nil {
		return fmt.Sprintf("error: %v\n", err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	return report(r)
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; repeat with -rewrite to accept):\n%s", path, diff)
	}
}

// A row that cannot be read is counted and told with its place; the others are events.
func TestMalformedRowsAreTold(t *testing.T) {
	m, err := LoadMapping("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open("testdata/shop.csv", m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := report(r)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	golden(t, "testdata/shop.golden", got)
}

// Every mistake in a mapping is told with its line, and the nearest name there is.
func TestBadMappings(t *testing.T) {
	paths, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no testdata/bad: %v", err)
	}
	for _, path := range paths {
		_, err := LoadMapping(path)
		if err == nil {
			t.Errorf("%s: accepted", path)
			continue
		}
		golden(t, strings.TrimSuffix(path, ".yaml")+".golden", filepath.ToSlash(err.Error())+"\n")
	}
	if _, err := LoadMapping("rees64"); err == nil || !strings.Contains(err.Error(), `did you mean "rees46"?`) {
		t.Errorf("LoadMapping(rees64): got %v, want a hint at rees46", err)
	}
	if _, err := LoadMapping("nothing/here.yaml"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want os.ErrNotExist", err)
	}
}

func TestBuiltinMappings(t *testing.T) {
	want := []string{"cdnow", "cdnow-calibration", "cdnow-sample", "events", "online-retail", "otto", "rees46", "rfm-r-orders"}
	if diff := cmp.Diff(want, Mappings()); diff != "" {
		t.Errorf("Mappings (-want +got):\n%s", diff)
	}
	for _, name := range Mappings() {
		m, err := LoadMapping(name)
		if err != nil {
			t.Error(err)
		} else if m.Description == "" || m.Name != name {
			t.Errorf("%s: name %q, description %q", name, m.Name, m.Description)
		}
	}
}

const rees46Rows = `event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session
2019-10-01 00:00:00 UTC,view,1,2,,shiseido,35.79,7,s1
2019-10-01 00:00:00 UTC,cart,1,2,a.b,,0,8,s2
`

// gzip and zstd are told by their bytes, and the ids do not depend on them.
func TestCompressed(t *testing.T) {
	m, err := LoadMapping("rees46")
	if err != nil {
		t.Fatal(err)
	}
	want := read(t, m, "events.csv", rees46Rows)
	if !strings.Contains(want, `"event_id":"events.csv:2"`) || !strings.Contains(want, "events 2,") {
		t.Fatalf("plain: got %s", want)
	}
	var gz, zst bytes.Buffer
	g := gzip.NewWriter(&gz)
	z, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []interface {
		Write([]byte) (int, error)
		Close() error
	}{g, z} {
		if _, err := w.Write([]byte(rees46Rows)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string][]byte{"events.csv.gz": gz.Bytes(), "events.csv.zst": zst.Bytes()} {
		if diff := cmp.Diff(want, read(t, m, name, string(content))); diff != "" {
			t.Errorf("%s (-plain +got):\n%s", name, diff)
		}
		cut := read(t, m, name, string(content[:len(content)-6]))
		if !strings.Contains(cut, "error: events.csv:") || strings.Count(cut, "the end is missing") != 1 || strings.Count(cut, "unexpected EOF") != 1 {
			t.Errorf("%s, cut short: got %q, want one error that names the file and says that its end is missing", name, cut)
		}
	}
}

// A zstd file may begin with a frame that is to be skipped: pzstd writes one before each
// of its frames.
func TestSkippableFrame(t *testing.T) {
	var b bytes.Buffer
	for _, line := range []string{"1700000000000,a\n", "1700000000001,b\n"} {
		b.WriteString("\x50\x2a\x4d\x18\x04\x00\x00\x00size")
		z, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(z.EncodeAll([]byte(line), nil))
	}
	m := mapping(t, "format: csv\ncolumns: [t, u]\ntime: {column: t, unit: ms}\ntype: {constant: view}\nfields: {user_id: u}\n")
	if got := read(t, m, "f.zst", b.String()); !strings.Contains(got, "rows 2, events 2") {
		t.Errorf("got %.300s, want both rows", got)
	}
}

func TestSorting(t *testing.T) {
	const src = "format: tsv\ncolumns: [t, u]\ntime: {column: t, unit: s}\ntype: {constant: view}\nfields: {user_id: u}\n"
	const rows = "1000000002\tc\n1000000001\ta\n1000000002\td\n1000000001\tb\n"
	got := read(t, mapping(t, src), "f", rows)
	var users []string
	for line := range strings.Lines(got) {
		if u, _, ok := strings.Cut(line, " @"); ok {
			users = append(users, u)
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "d"}, users); diff != "" {
		t.Errorf("not sorted stably by time (-want +got):\n%s", diff)
	}
	got = read(t, mapping(t, src+"sorted: true\n"), "f", rows)
	if want := `error: f:2: time goes back from row 1`; !strings.Contains(got, want) {
		t.Errorf("a promise to be sorted is not checked: got %q, want %q", got, want)
	}
	r, err := New(strings.NewReader(rows), "f", mapping(t, src), Options{SortBytes: 400})
	if err != nil {
		t.Fatal(err)
	}
	if got := report(r); !strings.Contains(got, "take more than 400 bytes to sort") {
		t.Errorf("the limit of memory is not kept: got %q", got)
	}
}

// The rows of a group need not be neighbours, and skipped rows do not count between them.
func TestGroups(t *testing.T) {
	const src = `
format: csv
columns: [inv, sku, n, t, u]
sorted: true
time: {column: t, unit: ms}
type: {column: inv, values: {"C*": refund, "*": purchase}}
fields: {user_id: u, order_id: inv}
group:
  by: inv
  within: %d
  items: {product_id: sku, quantity: {column: n, absolute: true}}
skip:
  - {reason: free, column: sku, when: = gift}
`
	const rows = `1,a,1,700000000000,x
1,gift,1,700000000000,x
1,b,2,700000000000,x
C2,a,-1,700000000001,y
1,c,3,700000000002,x
3,a,1,700000000003,z
`
	golden(t, "testdata/groups_0.golden", read(t, mapping(t, fmt.Sprintf(src, 0)), "f", rows))
	golden(t, "testdata/groups_1.golden", read(t, mapping(t, fmt.Sprintf(src, 1)), "f", rows))
}

// Rows may be grouped by several columns: those that agree in all of them are one event.
func TestGroupsOfSeveralColumns(t *testing.T) {
	const src = `
format: csv
columns: [u, day, price]
time: {column: day, layout: "20060102"}
type: {constant: purchase}
fields: {user_id: u, order_id: {template: "{u}/{day}"}}
group: {by: [u, day], items: {price: price}}
`
	const rows = `1,20260101,1.50
1,20260101,2
1,20260102,3
11,20260102,4
11,20260101,5
`
	golden(t, "testdata/groups_two.golden", read(t, mapping(t, src), "f", rows))
	if _, err := ParseMapping("m", []byte(strings.Replace(src, "by: [u, day]", "by: []", 1))); err == nil || !strings.Contains(err.Error(), "by is missing") {
		t.Errorf("without a column: got %v", err)
	}
}

func TestNDJSON(t *testing.T) {
	const src = `
format: ndjson
time: {column: meta.at, unit: s}
type: {column: kind, values: {v: view, p: purchase}}
fields:
  user_id: user.id
  price: {column: cost, trim_prefix: "$"}
  url: {template: "https://shop/{sku}"}
properties: {vip: user.vip}
`
	const rows = `{"meta":{"at":700000000},"kind":"p","user":{"id":12345678901234567890,"vip":true},"cost":"$12.30","sku":"\u00e4\"\n"}

{"meta":{"at":1},"kind":"v","user":{"id":"u"}}
{"meta":{"at":700000000.5},"kind":"v","user":{"id":"u"}}
{"meta":{"at":700000000},"kind":"v","user":{"id":["u"]}}
{"meta":{"at":700000000},"kind":"v","user":"u"}
{"meta":{"at":700000000},"kind":"v"
{"meta":{"at":700000000},"kind":"v","user":{"id":"u"}} {}
[]
null
`
	golden(t, "testdata/ndjson.golden", read(t, mapping(t, src), "f.ndjson", rows))
	nested := "format: ndjson\nnested: events\ntime: {column: events.ts, unit: ms}\ntype: {constant: view}\nfields: {user_id: session}\n"
	golden(t, "testdata/nested.golden", read(t, mapping(t, nested), "f.ndjson",
		`{"session":1,"events":[{"ts":700000000005},{"ts":700000000001},7,{"ts":"x"}]}
{"session":2,"events":[{"ts":700000000003}]}
{"session":3,"events":[]}
{"session":4}
`))
}

// Events in the contract's own form pass byte for byte; only what cannot be published
// at a user and a time is skipped.
func TestEventsAsTheyAre(t *testing.T) {
	m, err := LoadMapping("events")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/events.golden", read(t, m, "f.ndjson", `{"user_id":"b","time":"2024-05-01T12:00:00.5+02:00","type":"nonsense", "price":1.50 }
 {"time":1700000000000,"user_id":"\u0061","user_id":"c","Time":1,"items":[{}]}

{"user_id":"a"}
{"user_id":"a","time":"12:00"}
{"user_id":"a","time":1.5}
{"user_id":7,"time":1700000000000}
{"user_id":"","time":1700000000000}
{"user_id":"a","time":1700000000000
{"user_id":"a","time":"2024-05-01T9:00:00Z"}
`))
}

func TestHeader(t *testing.T) {
	m, err := LoadMapping("rees46")
	if err != nil {
		t.Fatal(err)
	}
	got := read(t, m, "f", "\ufeff"+strings.Replace(rees46Rows, "user_session", "user_sesion", 1))
	if want := `f: mapping rees46: no column "user_session"; did you mean "user_sesion"?`; !strings.Contains(got, want) || strings.Contains(got, "event_time\";") {
		t.Errorf("got %q, want %q and nothing about event_time, which follows a byte order mark", got, want)
	}
	got = read(t, m, "f", "127.0.0.1 localhost\n")
	if want := `f: mapping rees46: the file has none of its columns: it has 127.0.0.1 localhost; is this the mapping for it?`; !strings.Contains(got, want) {
		t.Errorf("another file: got %q, want %q", got, want)
	}
	if got := read(t, m, "f", ""); !strings.Contains(got, "the file is empty") {
		t.Errorf("empty file: got %q", got)
	}
	got = read(t, m, "f", rees46Rows+`2019-10-01 00:00:00 UTC,"`+strings.Repeat("x", rowBytesMax+1<<17))
	if !strings.Contains(got, "is a quote or a line end missing?") || !strings.Contains(got, "events 2,") {
		t.Errorf("an open quote: got %.300q", got)
	}
}

// Only the event's own currency is one of ISO 4217: a property of that name is the shop's.
func TestPropertyCurrency(t *testing.T) {
	got := read(t, mapping(t, "format: csv\ncolumns: [t, u]\ntime: {column: t, unit: ms}\ntype: {constant: view}\nfields: {user_id: u}\nproperties: {currency: {constant: points}}\n"), "f", "1700000000000,a\n")
	if !strings.Contains(got, `"properties":{"currency":"points"}`) {
		t.Errorf("got %s, want the property", got)
	}
}

// A byte order mark, with which Excel and others begin a file, is no part of what follows it.
func TestByteOrderMark(t *testing.T) {
	const tail = "type: {constant: view}\nfields: {user_id: who}\ntime: {column: at, unit: ms}\n"
	for of, c := range map[string]struct{ mapping, content string }{
		"csv":           {"format: csv\ncolumns: [who, at]\n", "u1,1767225600000\n"},
		"header":        {"format: csv\nheader: true\n", "who,at\nu1,1767225600000\n"},
		"quoted header": {"format: csv\nheader: true\n", "\"who\",\"at\"\nu1,1767225600000\n"},
		"tsv":           {"format: tsv\ncolumns: [who, at]\n", "u1\t1767225600000\n"},
		"blanks":        {"format: blanks\ncolumns: [who, at]\n", "u1 1767225600000\n"},
		"ndjson":        {"format: ndjson\n", `{"who": "u1", "at": 1767225600000}`},
		"events":        {"format: events\n", `{"user_id": "u1", "time": 1767225600000}`},
		"empty":         {"format: ndjson\n", ""},
	} {
		if of != "events" {
			c.mapping += tail
		}
		m := mapping(t, c.mapping)
		if got, want := read(t, m, "f", "\ufeff"+c.content), read(t, m, "f", c.content); got != want {
			t.Errorf("%s: got %s, want as without the mark: %s", of, got, want)
		}
	}
}

func TestEncodings(t *testing.T) {
	const src = "format: csv\ncolumns: [t, u]\ntime: {column: t, unit: ms}\ntype: {constant: view}\nfields: {user_id: u}\n"
	const rows = "700000000000,caf\xe9 \x80\n700000000001,5\" tv\n"
	got := read(t, mapping(t, src), "f", rows)
	if !strings.Contains(got, "f:1: column 2 is not UTF-8") || !strings.Contains(got, "f:2: bare") {
		t.Errorf("got %s, want both rows refused", got)
	}
	got = read(t, mapping(t, src+"encoding: windows-1252\nlazy_quotes: true\n"), "f", rows)
	if !strings.Contains(got, "\"user_id\":\"caf\u00e9 \u20ac\"") || !strings.Contains(got, `"user_id":"5\" tv"`) {
		t.Errorf("got %s, want both rows", got)
	}
}

func TestUnits(t *testing.T) {
	for _, c := range []struct {
		unit, text string
		want       int64 // 0: refused
	}{
		{"s", "700000000", 700000000000},
		{"s", "700000000.1", 700000000100},
		{"s", "700000000.1239", 700000000123},
		{"ms", "700000000001.9", 700000000001},
		{"us", "700000000001999", 700000000001},
		{"ns", "700000000001999999", 700000000001},
		{"ns", "1", 0},
		{"s", "-700000000", 0},
		{"s", ".5", 0},
		{"s", "7e8", 0},
		{"s", "99999999999999999999", 0},
	} {
		got, err := unitParser(c.unit)(c.text)
		if int64(got) != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("%s in %s: got %d, %v, want %d", c.text, c.unit, got, err, c.want)
		}
	}
}

// Progress goes from 0 to 1, by bytes or by events.
func TestProgress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.txt")
	if err := os.WriteFile(path, []byte("700000000002 c\n700000000001 a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := mapping(t, "format: blanks\ncolumns: [t, u]\ntime: {column: t, unit: ms}\ntype: {constant: view}\nfields: {user_id: u}\n")
	r, err := Open(path, m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := []float64{r.Progress()}
	for _, err := range r.Events() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.Progress())
	}
	if diff := cmp.Diff([]float64{0, 0.5, 1}, got); diff != "" {
		t.Errorf("sorted (-want +got):\n%s", diff)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	streamed, err := LoadMapping("rees46")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(rees46Rows), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err = Open(path, streamed, Options{}); err != nil {
		t.Fatal(err)
	}
	_ = report(r)
	if r.Progress() != 1 {
		t.Errorf("streamed: got %g at the end, want 1", r.Progress())
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestZones(t *testing.T) {
	const src = "format: tsv\ncolumns: [t, u]\ntime: {column: t, layout: \"2006-01-02 15:04 MST\"}\ntype: {constant: view}\nfields: {user_id: u}\n"
	got := read(t, mapping(t, src), "f", "2024-01-01 00:00 UTC\tu\n2024-01-01 00:00 GMT\tu\n2024-01-01 00:00 EST\tu\n")
	if !strings.Contains(got, "events 2,") || !strings.Contains(got, "the zone EST is ambiguous") {
		t.Errorf("got %q, want UTC and GMT read and EST refused", got)
	}
}

// Whatever the bytes, rows = events + skipped rows, and every event is JSON whose
// user and time are those it is published with.
func FuzzEvents(f *testing.F) {
	shop, err := os.ReadFile("testdata/shop.csv")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(0), shop)
	f.Add(uint8(1), []byte("700000000000\tu\tp\t1.5\n\xff\t\t\t\n"))
	f.Add(uint8(2), []byte(" 700000000000  u p 1\r\n"))
	f.Add(uint8(3), []byte(`{"at":700000000000,"who":"u","sku":"p","cost":1e3}`+"\n"))
	f.Add(uint8(4), []byte(`{"user_id":"u","time":"2024-05-01T12:00:00Z"}`+"\n"))
	f.Add(uint8(5), []byte(`{"who":"u","e":[{"at":700000000000,"sku":null,"cost":-0.0}]}`+"\n"))
	const tail = "\ntype: {constant: purchase}\nfields: {user_id: who, product_id: %ssku, price: %scost}\ntime: {column: %sat, unit: ms}\n"
	forms := []string{
		"format: csv\nheader: true" + fmt.Sprintf(tail, "", "", ""),
		"format: tsv\ncolumns: [at, who, sku, cost]" + fmt.Sprintf(tail, "", "", ""),
		"format: blanks\ncolumns: [at, who, sku, cost]" + fmt.Sprintf(tail, "", "", ""),
		"format: ndjson" + fmt.Sprintf(tail, "", "", ""),
		"format: events",
		"format: ndjson\nnested: e" + fmt.Sprintf(tail, "e.", "e.", "e."),
	}
	f.Fuzz(func(t *testing.T, form uint8, content []byte) {
		if bytes.HasPrefix(content, []byte{0x1f, 0x8b}) || bytes.HasPrefix(content, []byte{0x28, 0xb5}) {
			return // what compressed bytes expand to is not this test's matter
		}
		m := mapping(t, forms[int(form)%len(forms)])
		r, err := New(bytes.NewReader(content), "f", m, Options{})
		if err != nil {
			return
		}
		for ev, err := range r.Events() {
			if err != nil {
				return
			}
			var d struct {
				User  string      `json:"user_id"`
				Time  int64       `json:"time"`
				Price json.Number `json:"price"`
			}
			if m.Format == "events" {
				if !json.Valid(ev.Value) {
					t.Fatalf("not JSON: %q", ev.Value)
				}
				continue
			}
			if err := json.Unmarshal(ev.Value, &d); err != nil || d.User != string(ev.Key) || d.Time != int64(ev.Time) {
				t.Fatalf("key %q, time %d, %v: %s", ev.Key, ev.Time, err, ev.Value)
			}
		}
		s, skipped := r.Stats(), int64(0)
		for _, n := range s.Skipped {
			skipped += n
		}
		if s.Rows != s.Events+skipped {
			t.Fatalf("rows %d, events %d, skipped %v", s.Rows, s.Events, s.Skipped)
		}
	})
}

// No YAML makes the parser of mappings panic, and what it accepts compiles.
func FuzzParseMapping(f *testing.F) {
	for _, name := range Mappings() {
		src, err := builtin.ReadFile("mappings/" + name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		m, err := ParseMapping("fuzz", src)
		if err != nil {
			return
		}
		if _, err := compile(m); err != nil {
			t.Fatalf("accepted, but: %v", err)
		}
	})
}

// reads/s of a sorted csv.
func BenchmarkEvents(b *testing.B) {
	m, err := LoadMapping("rees46")
	if err != nil {
		b.Fatal(err)
	}
	const n = 10_000
	content := rees46Rows + strings.Repeat("2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde-8bb3-4e00-8c23-a032dfed738c\n", n)
	b.ReportAllocs()
	for b.Loop() {
		r, err := New(strings.NewReader(content), "f", m, Options{})
		if err != nil {
			b.Fatal(err)
		}
		for _, err := range r.Events() {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "events/s")
}
