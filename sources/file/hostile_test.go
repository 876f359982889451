package file

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"footfall/schemas/yamltext"
)

// endless repeats a text for ever.
type endless string

func (e endless) Read(b []byte) (n int, err error) {
	for n < len(b) {
		n += copy(b[n:], e)
	}
	return n, nil
}

// allocated is how many bytes f takes from the heap, given back or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// drain reads a stream by a mapping to its end or its first error.
func drain(in io.Reader, m *Mapping) (stats Stats, err error) {
	r, err := New(in, "f", m, Options{})
	if err != nil {
		return stats, err
	}
	defer r.Close()
	for _, err := range r.Events() {
		if err != nil {
			return r.Stats(), err
		}
	}
	return r.Stats(), nil
}

// forms are mappings of the same events in every format.
func forms(t *testing.T) map[string]*Mapping {
	const tail = "type: {constant: purchase}\nfields: {user_id: who, product_id: %ssku, price: %scost}\ntime: {column: %sat, unit: ms}\n"
	flat, nested := fmt.Sprintf(tail, "", "", ""), fmt.Sprintf(tail, "e.", "e.", "e.")
	const columns = "columns: [at, who, sku, cost]\n"
	return map[string]*Mapping{
		"csv header":  mapping(t, "format: csv\nheader: true\n"+flat),
		"csv":         mapping(t, "format: csv\n"+columns+flat),
		"lazy csv":    mapping(t, "format: csv\nlazy_quotes: true\n"+columns+flat),
		"tsv header":  mapping(t, "format: tsv\nheader: true\n"+flat),
		"tsv":         mapping(t, "format: tsv\n"+columns+flat),
		"blanks":      mapping(t, "format: blanks\n"+columns+flat),
		"ndjson":      mapping(t, "format: ndjson\n"+flat),
		"nested":      mapping(t, "format: ndjson\nnested: e\n"+nested),
		"events":      mapping(t, "format: events\n"),
		"windows1252": mapping(t, "format: tsv\nencoding: windows-1252\n"+columns+flat),
	}
}

// rowMemory is more than a row of the greatest size may take, whatever it is cut into.
const rowMemory = 800 << 20

// A row without an end is an error that says so, in any format and of any content,
// plain and out of a small compressed file, and takes bounded memory.
func TestRowsWithoutEnd(t *testing.T) {
	if raced {
		t.Skip("the race detector takes memory of its own")
	}
	for form, m := range forms(t) {
		for _, c := range []struct{ begin, text string }{
			{"", "x"}, {"", ","}, {"", "\t"}, {"", "a "}, {"", `"`}, {"", `"a",`}, {`"`, `""`}, {`"`, "a,"}, {"", "[\xff\x00"}, {`{"e":[`, "{}, "}, {"{", `"a":1,`},
		} {
			var err error
			n := allocated(func() { _, err = drain(io.MultiReader(strings.NewReader(c.begin), endless(c.text)), m) })
			if err == nil || !strings.Contains(err.Error(), "a row has more than") {
				t.Errorf("%s, %q without end: got %.200v, want an error that says so", form, c, err)
			}
			if n > rowMemory {
				t.Errorf("%s, %q without end: took %d MiB", form, c, n>>20)
			}
		}
	}
}

// Rows of the greatest size that is read, cut into as many pieces as they can be.
func TestRowsOfMillionsOfPieces(t *testing.T) {
	if raced {
		t.Skip("the race detector takes memory of its own")
	}
	fill := func(begin, text, end string) string {
		return begin + strings.Repeat(text, (rowBytesMax-len(begin)-len(end)-8)/len(text)) + end + "\n"
	}
	text := []string{fill("", "\t", ""), fill("", "a ", ""), fill(`"`, `""`, `"`), strings.Repeat(",", separatorsMax-1) + "\n"}
	objects := []string{
		fill(`{"e":[`, "1,", "1]}"), fill(`{"e":[`, "[],", "1]}"), fill(`{"e":[`, "{},", "{}]}"), fill("{", `"a":1,`, `"b":1}`), fill("", "[", ""), fill(`{"who":"`, "x", `"}`),
	}
	all := forms(t)
	for form, rows := range map[string][]string{"csv header": text, "csv": text, "tsv header": text, "tsv": text, "blanks": text, "ndjson": objects, "nested": objects, "events": objects} {
		for _, row := range rows {
			if n := allocated(func() { _, _ = drain(strings.NewReader(row), all[form]) }); n > rowMemory {
				t.Errorf("%s, %.20s...: took %d MiB", form, row, n>>20)
			}
		}
	}
	wide := strings.Repeat("a,", columnsMax) + "a"
	if _, err := drain(strings.NewReader(wide+"\n"), all["csv header"]); err == nil || !strings.Contains(err.Error(), "the header has 10001 columns, more than 10000") {
		t.Errorf("a wide header: got %.200v", err)
	}
	if _, err := drain(strings.NewReader(strings.ReplaceAll(wide, ",", "\t")+"\n"), all["tsv header"]); err == nil || !strings.Contains(err.Error(), "the header has 10001 columns, more than 10000") {
		t.Errorf("a wide header: got %.200v", err)
	}
	long := strings.Repeat("x", rowBytesMax/2) + ",who,sku,cost\n"
	if _, err := drain(strings.NewReader(long), all["csv header"]); err == nil || len(err.Error()) > 1000 {
		t.Errorf("a header of one long name: got %.1000v", err)
	}
}

// A compressed file that expands for ever costs what a plain one would: nothing while
// its rows are read, and an error where one has no end.
func TestBombs(t *testing.T) {
	if raced {
		t.Skip("the race detector takes memory of its own")
	}
	pack := map[string]func(io.Writer) io.WriteCloser{
		"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"zstd": func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
	}
	for name, packed := range pack {
		from, to := io.Pipe()
		go func() {
			z := packed(to)
			_, err := io.Copy(z, endless("0"))
			_ = to.CloseWithError(errors.Join(err, z.Close()))
		}()
		_, err := drain(from, forms(t)["csv"])
		if err == nil || !strings.Contains(err.Error(), "a row has more than") {
			t.Errorf("%s: got %.200v, want an error about a row", name, err)
		}
		_ = from.Close()

		var small bytes.Buffer
		z := packed(&small)
		const rows = 1 << 22 // 64 MiB of them
		if _, err := io.Copy(z, io.LimitReader(endless("1,u,sku-48151,1\n"), 16*rows)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		m := mapping(t, "format: csv\nsorted: true\ncolumns: [at, who, sku, cost]\ntype: {constant: view}\nfields: {user_id: who}\ntime: {column: at, unit: ms}\nskip: [{reason: all, column: who, when: present}]\n")
		var stats Stats
		if n := allocated(func() { stats, err = drain(&small, m) }); err != nil || stats.Skipped["all"] != rows || n > 300<<20 {
			t.Errorf("%s: %d rows skipped, %v, took %d MiB; want %d", name, stats.Skipped["all"], err, n>>20, rows)
		}
	}
	// A frame that claims a window of 512 MiB (RFC 8878, 3.1.1.1.2), and one block of a
	// byte repeated.
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 19 << 3, 0x23, 0x03, 0x00, 'x'}
	var err error
	n := allocated(func() { _, err = drain(bytes.NewReader(frame), forms(t)["csv"]) })
	if err == nil || !strings.Contains(err.Error(), "compress it again without --long") || n > 64<<20 {
		t.Errorf("a window of 512 MiB: got %v and took %d MiB, want an error that says what to do", err, n>>20)
	}
}

// Rows of one group without end do not make an event without end.
func TestGroupsWithoutEnd(t *testing.T) {
	m := mapping(t, "format: tsv\ncolumns: [at, order, who, sku]\ntype: {constant: purchase}\nfields: {user_id: who, order_id: order}\n"+
		"time: {column: at, unit: ms}\ngroup: {by: order, within: 100000, items: {product_id: sku}}\n")
	const rows = 100_000
	r, err := New(strings.NewReader(strings.Repeat("700000000000\to1\tu\tsku-0123456789\n", rows)), "f", m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for ev, err := range r.Events() {
		if err != nil || len(ev.Value) > 2<<20 {
			t.Errorf("an event of %d bytes, %v", len(ev.Value), err)
		}
	}
	if s := r.Stats(); s.Events != 1 || s.Skipped[Malformed] < rows/3 || !strings.Contains(s.Reports[0], "its event has more than 1048576 bytes already") {
		t.Errorf("got %+v", s)
	}

	// Nor do many groups at once take all memory.
	var many bytes.Buffer
	for i := range 1000 {
		fmt.Fprintf(&many, "700000000000\to%d\tu\t%s\n", i, strings.Repeat("x", 1000))
	}
	m = mapping(t, "format: tsv\ncolumns: [at, order, who, sku]\ntype: {constant: purchase}\nfields: {user_id: who, order_id: order}\n"+
		"properties: {sku: sku}\ntime: {column: at, unit: ms}\ngroup: {by: order, within: 100000, items: {product_id: order}}\n")
	r, err = New(&many, "f", m, Options{SortBytes: 100_000})
	if err == nil {
		for _, e := range r.Events() {
			err = e
		}
	}
	if err == nil || !strings.Contains(err.Error(), "say a smaller within") {
		t.Errorf("got %v, want an error that says what to do", err)
	}
}

// A malformed row's report is short, however long the row.
func TestReportsAreShort(t *testing.T) {
	stats, err := drain(strings.NewReader("700000000000\tu\tp\t"+strings.Repeat("x", 1<<20)+"\n"), forms(t)["tsv"])
	if err != nil || len(stats.Reports) != 1 || len(stats.Reports[0]) > reportMax+3 {
		t.Errorf("got %.1000q, %v", stats.Reports, err)
	}
}

// A file that is too large, or too deep, is not parsed.
func TestYAMLLimits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.yaml")
	most := yamltext.Ours().Bytes
	if err := os.WriteFile(path, make([]byte, most+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadMapping(path); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("more than %d bytes", most)) {
		t.Errorf("a mapping of more than a megabyte: got %v", err)
	}
	if _, err := ParseMapping("f.yaml", []byte(strings.Repeat("[", 100))); err == nil || err.Error() != "f.yaml:1:65: nested more than 64 deep" {
		t.Errorf("a deep mapping: got %v", err)
	}
}

// Compressed or not, what was written is read, and whatever else begins like a
// compressed stream ends in an error or in bytes, never in a panic.
func FuzzDecompress(f *testing.F) {
	for _, plain := range []string{"", "a,b\n", strings.Repeat("x", 1000)} {
		for _, kind := range []uint8{0, 1, 2} {
			f.Add(kind, []byte(plain))
			f.Add(kind+3, pack(f, kind, []byte(plain)))
		}
	}
	f.Add(uint8(3), []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 19 << 3, 0x23, 0x03, 0x00, 'x'})
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		const most = 4 << 20
		if kind >= 3 {
			r, done, err := Decompress(bytes.NewReader(b))
			if err != nil {
				return
			}
			_, _ = io.CopyN(io.Discard, r, most)
			_ = done() // says again what a read has said
			return
		}
		if kind == 0 && (bytes.HasPrefix(b, []byte{0x1f, 0x8b}) || bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd})) {
			return
		}
		r, done, err := Decompress(bytes.NewReader(pack(t, kind, b)))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := io.ReadAll(r); err != nil || !bytes.Equal(back, b) {
			t.Errorf("kind %d: %d bytes come back as %d, %v", kind, len(b), len(back), err)
		}
		if err := done(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
}

// pack compresses: 0 not, 1 by gzip, 2 by zstd.
func pack(t testing.TB, kind uint8, plain []byte) []byte {
	var b bytes.Buffer
	var z io.WriteCloser
	switch kind {
	case 0:
		return plain
	case 1:
		z = gzip.NewWriter(&b)
	default:
		var err error
		if z, err = zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := z.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What is wrong with a mapping is told in proportion to the mapping, however many columns
// it names.
func TestErrorsOfWideMappings(t *testing.T) {
	var src strings.Builder
	src.WriteString("format: csv\ntype: {constant: view}\nfields: {user_id: who}\ntime: {column: at, unit: ms}\ncolumns: [who, at")
	for i := range 4500 {
		fmt.Fprintf(&src, ", column%d", i)
	}
	src.WriteString("]\nproperties:\n")
	for i := range 300 {
		fmt.Fprintf(&src, "  p%d: clumn%d\n", i, i)
	}
	_, err := ParseMapping("m", []byte(src.String()))
	if err == nil || len(err.Error()) > 1<<20 {
		t.Errorf("%d bytes of mapping: got an error of %d bytes, want one of less than 1 MiB", src.Len(), len(fmt.Sprint(err)))
	}
}
