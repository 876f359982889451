package chdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/google/go-cmp/cmp"
)

func TestParseStatement(t *testing.T) {
	for _, c := range []struct {
		sql  string
		want statement
		data string
	}{
		{"", statement{}, ""},
		{"select 1", statement{verb: "SELECT"}, ""},
		{" -- x\n/* y */ with 1 as a select a format JSON ", statement{verb: "WITH", format: "JSON"}, ""},
		{"SELECT 1 FORMAT CSV SETTINGS max_threads = 1", statement{verb: "SELECT", format: "CSV"}, ""},
		{"SELECT 1 SETTINGS max_threads = 1 FORMAT CSV;", statement{verb: "SELECT", format: "CSV"}, ""},
		{"SELECT format FROM t", statement{verb: "SELECT"}, ""},
		{"SELECT (SELECT 1 FORMAT x) FROM t", statement{verb: "SELECT"}, ""},
		{"SELECT 'FORMAT x', \"FORMAT y\", `FORMAT z`, $a$ FORMAT z $a$", statement{verb: "SELECT"}, ""},
		{"SELECT 'it''s' FORMAT x", statement{verb: "SELECT", format: "x"}, ""},
		{`SELECT 'a\' FORMAT x' FORMAT y`, statement{verb: "SELECT", format: "y"}, ""},
		{"SELECT 1; -- end", statement{verb: "SELECT"}, ""},
		{"SELECT 1; SELECT 2", statement{verb: "SELECT", several: true}, ""},
		{"SELECT ';'; ;", statement{verb: "SELECT", several: true}, ""},
		{"SELECT 1 INTO OUTFILE 'x' FORMAT CSV", statement{verb: "SELECT", outfile: true, format: "CSV"}, ""},
		{"(SELECT 1)", statement{verb: "SELECT"}, ""},
		{"SELECT '", statement{verb: "SELECT"}, ""},
		{"SELECT /*", statement{verb: "SELECT"}, ""},

		{"INSERT INTO t VALUES (1)", statement{verb: "INSERT", insert: true, format: "Values", head: "INSERT INTO t "}, " (1)"},
		{"insert into t(a, b) values(1, 2);", statement{verb: "INSERT", insert: true, format: "Values", head: "insert into t(a, b) "}, "(1, 2);"},
		{"INSERT INTO t FORMAT Native", statement{verb: "INSERT", insert: true, format: "Native", head: "INSERT INTO t "}, ""},
		{"INSERT INTO t FORMAT Native\n\n\n", statement{verb: "INSERT", insert: true, format: "Native", head: "INSERT INTO t "}, "\n\n"},
		{"INSERT INTO t FORMAT CSV \t\r\n 1", statement{verb: "INSERT", insert: true, format: "CSV", head: "INSERT INTO t "}, " 1"},
		{"INSERT INTO t FORMAT CSV  1;2", statement{verb: "INSERT", insert: true, format: "CSV", head: "INSERT INTO t "}, "1;2"},
		{"INSERT INTO TABLE d.t (* EXCEPT(x)) SETTINGS a = 1 FORMAT CSV", statement{verb: "INSERT", insert: true, format: "CSV", head: "INSERT INTO TABLE d.t (* EXCEPT(x)) SETTINGS a = 1 "}, ""},
		{"INSERT INTO FUNCTION null('a Int') VALUES (1)", statement{verb: "INSERT", insert: true, format: "Values", head: "INSERT INTO FUNCTION null('a Int') "}, " (1)"},
		{"INSERT INTO values VALUES (1)", statement{verb: "INSERT", insert: true, format: "Values", head: "INSERT INTO values "}, " (1)"},
		{"INSERT INTO d.format FORMAT CSV", statement{verb: "INSERT", insert: true, format: "CSV", head: "INSERT INTO d.format "}, ""},
		{"INSERT INTO `values` FORMAT CSV", statement{verb: "INSERT", insert: true, format: "CSV", head: "INSERT INTO `values` "}, ""},
		{"INSERT INTO {t:Identifier} FORMAT CSV", statement{verb: "INSERT", insert: true, format: "CSV", head: "INSERT INTO {t:Identifier} "}, ""},
		{"INSERT INTO t SELECT 1", statement{verb: "INSERT"}, ""},
		{"INSERT INTO t SELECT * FROM input('a Int') FORMAT CSV 1", statement{verb: "INSERT"}, ""},
		{"INSERT INTO t WITH 1 AS x SELECT x; SELECT 2", statement{verb: "INSERT", several: true}, ""},
		{"INSERT INTO t", statement{verb: "INSERT"}, ""},
	} {
		got := parseStatement(c.sql)
		data := ""
		if got.insert {
			data = c.sql[got.dataAt:]
		}
		got.dataAt = 0
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(statement{})); diff != "" || data != c.data {
			t.Errorf("%q: data %q, want %q\n%s", c.sql, data, c.data, diff)
		}
	}
}

func FuzzParseStatement(f *testing.F) {
	for _, s := range []string{
		"SELECT 1 FORMAT JSON", "INSERT INTO t (a) VALUES (1), ('x\\'')", "INSERT INTO t FORMAT Native\n\x01\x02\n\n",
		"SELECT $x$ ; $x$; SELECT `", "/* */ -- \n#!\n((", "INSERT INTO {t:Identifier} SETTINGS a='FORMAT' FORMAT CSV\r\n1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		st := parseStatement(sql)
		if !st.insert {
			return
		}
		if !strings.HasPrefix(sql, st.head) || st.dataAt < len(st.head) || st.dataAt > len(sql) {
			t.Fatalf("%q: head %q, data at %d", sql, st.head, st.dataAt)
		}
		// The data must not decide what the head is: a body is read no further.
		if again := parseStatement(sql[:st.dataAt] + "'\"`;(/*"); again.head != st.head || again.dataAt < st.dataAt {
			t.Fatalf("%q: head %q; with other data %q", sql, st.head, again.head)
		}
	})
}

// However a body arrives, and however it is divided between URL and body, the
// engine sees the same statement and the same data.
func FuzzReadSQL(f *testing.F) {
	f.Add("INSERT INTO t FORMAT CSV", "1\n2\n")
	f.Add("", "INSERT INTO t VALUES (1)")
	f.Add("SELECT 1,", "2")
	f.Add("INSERT INTO t", "FORMAT CSV\n\n1")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, query, body string) {
		read := func(query string, from io.Reader) (string, string) {
			q, err := readSQL(query, from)
			if err != nil {
				var ex *Exception
				if !errors.As(err, &ex) {
					t.Fatalf("%q + %q: %v is no exception", query, body, err)
				}
				return "error", ex.Text
			}
			if !q.insert {
				return q.text, ""
			}
			data, err := io.ReadAll(q.data)
			if err != nil {
				t.Fatal(err)
			}
			return q.head + "/" + q.format, string(data)
		}
		text, data := read(query, strings.NewReader(body))
		if t2, d2 := read(query, iotest.OneByteReader(strings.NewReader(body))); t2 != text || d2 != data {
			t.Fatalf("%q + %q: (%q, %q) at once, (%q, %q) byte by byte", query, body, text, data, t2, d2)
		}
		if query != "" {
			if t2, d2 := read("", strings.NewReader(query+"\n"+body)); t2 != text || d2 != data {
				t.Fatalf("%q + %q: (%q, %q) divided, (%q, %q) all in the body", query, body, text, data, t2, d2)
			}
		}
	})
}

// A body larger than what is looked at at once is still streamed, and a statement
// beyond all limits is refused.
func TestReadSQLOfLargeBodies(t *testing.T) {
	rows := strings.Repeat("1\n", insertHead)
	q, err := readSQL("", strings.NewReader("INSERT INTO t FORMAT CSV\n"+rows))
	if err != nil || !q.insert {
		t.Fatalf("insert %v, %v", q, err)
	}
	if data, err := io.ReadAll(q.data); err != nil || string(data) != rows {
		t.Errorf("%d bytes of data, %v; want %d", len(data), err, len(rows))
	}
	long := "SELECT '" + strings.Repeat("x", 2*insertHead) + "' FORMAT JSON"
	if q, err = readSQL("", strings.NewReader(long)); err != nil || q.text != long || q.format != "JSON" {
		t.Errorf("a long SELECT: %v", err)
	}
	late := "INSERT INTO t -- " + strings.Repeat("x", 2*insertHead) + "\nFORMAT CSV\n1"
	if q, err = readSQL("", strings.NewReader(late)); err != nil || !q.insert {
		t.Errorf("a long head: %v", err)
	}
	endless := io.MultiReader(strings.NewReader("SELECT '"), blanks{})
	var ex *Exception
	if _, err = readSQL("", endless); !errors.As(err, &ex) || ex.Code != codeQueryIsTooLarge {
		t.Errorf("an endless SELECT: %v, want code %d", err, codeQueryIsTooLarge)
	}
}

// blanks is a text without an end.
type blanks struct{}

func (blanks) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func packed(t testing.TB, method compress.Method, data []byte) []byte {
	t.Helper()
	w := compress.NewWriter(compress.LevelZero, method)
	if err := w.Compress(data); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(w.Data)
}

// A frame of a few kilobytes that would give gigabytes is refused before it takes them.
func TestFrameBomb(t *testing.T) {
	bomb := packed(t, compress.ZSTD, make([]byte, 16<<20))
	binary.LittleEndian.PutUint32(bomb[21:], 1) // its hash is wrong then, which is seen later
	if _, err := io.ReadAll(&frameReader{from: bytes.NewReader(bomb)}); err == nil || !strings.Contains(err.Error(), "more than the 1 bytes") {
		t.Errorf("got %v, want that it gives more than it says", err)
	}
}

func FuzzFrameReader(f *testing.F) {
	for _, m := range []compress.Method{compress.None, compress.LZ4, compress.ZSTD} {
		one := packed(f, m, []byte("one one one one one one"))
		f.Add(one)
		f.Add(append(bytes.Clone(one), packed(f, m, nil)...))
		f.Add(one[:len(one)-1])
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := io.ReadAll(&frameReader{from: bytes.NewReader(body)})
		var ex *Exception
		if err != nil && (!errors.As(err, &ex) || ex.Code != codeIncorrectData) {
			t.Fatalf("%v is not an exception of code %d", err, codeIncorrectData)
		}
		// What is packed by any method comes back, at any cut or none.
		for _, m := range []compress.Method{compress.None, compress.LZ4, compress.ZSTD} {
			whole := append(packed(t, m, body), packed(t, m, got)...)
			back, err := io.ReadAll(&frameReader{from: iotest.HalfReader(bytes.NewReader(whole))})
			if err != nil || !bytes.Equal(back, append(bytes.Clone(body), got...)) {
				t.Fatalf("method %v: packed %d bytes, unpacked %d, %v", m, len(body)+len(got), len(back), err)
			}
			if _, err := io.ReadAll(&frameReader{from: bytes.NewReader(whole[:len(whole)-1])}); !errors.As(err, &ex) {
				t.Fatalf("method %v: a cut frame gives %v", m, err)
			}
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	for _, q := range []string{
		"query=SELECT+1&database=x&max_threads=1", "param_a=%27&compress=1&decompress=1", "a%3D=1", "%zz", ";", "query_id=a'b\\&x.y_z=',\\'",
	} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseRequest(&http.Request{Method: http.MethodPost, URL: &url.URL{RawQuery: raw}, Header: http.Header{}})
		if err != nil {
			var ex *Exception
			if !errors.As(err, &ex) || ex.Code == 0 {
				t.Fatalf("%q: %v has no code", raw, err)
			}
			return
		}
		// Whatever the values, the SET stays one statement of plain names and strings.
		set := q.set(q.id)
		if st := parseStatement(set); st.verb != "SET" || st.several || st.insert {
			t.Fatalf("%q gives %q, read as %+v", raw, set, st)
		}
		lex := lexer{text: set}
		want := 3 * (len(q.settings) + 1) // name, =, string
		commas := len(q.settings)
		got := -1 // SET
		for tok := lex.next(); tok.kind != tokenEnd; tok = lex.next() {
			got++
		}
		if got != want+commas {
			t.Fatalf("%q gives %q: %d tokens, want %d", raw, set, got, want+commas)
		}
	})
}

func TestHTTPStatusAsClickHouse(t *testing.T) {
	for code, want := range map[int]int{60: 404, 62: 400, 81: 404, 115: 404, 48: 501, 159: 408, 194: 401, 516: 403, 241: 500, 229: 413} {
		if got := httpStatus(code); got != want {
			t.Errorf("code %d has status %d, want %d", code, got, want)
		}
	}
}

func TestExceptionCode(t *testing.T) {
	for text, want := range map[string]int{
		"Code: 60. DB::Exception: x (UNKNOWN_TABLE)\n": 60,
		"something else, Code: 60.":                    0,
		"":                                             0,
	} {
		if got := newException(text).Code; got != want {
			t.Errorf("%q has code %d, want %d", text, got, want)
		}
	}
}
