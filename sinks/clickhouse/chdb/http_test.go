package chdb_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	osexec "os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/compress"

	"footfall/sinks/clickhouse/chdb"
	"footfall/sinks/clickhouse/chdbtest"
)

// call is one HTTP request and what must come back.
type call struct {
	method, params, body string
	header               http.Header
	status               int    // 200 if 0
	want                 string // the body, or with status its beginning
	wantHeader           http.Header
}

func (c call) do(t *testing.T, base string) {
	t.Helper()
	method := c.method
	if method == "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(t.Context(), method, base+c.params, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range c.header {
		if k == "Host" {
			req.Host = v[0]
		}
		req.Header[k] = v
	}
	res, err := (&http.Transport{DisableCompression: true}).RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, c.params, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("%s %s: %v", method, c.params, err)
	}
	status := c.status
	if status == 0 {
		status = http.StatusOK
	}
	ok := string(body) == c.want || c.status != 0 && strings.HasPrefix(string(body), c.want)
	if !ok || res.StatusCode != status {
		t.Errorf("%s %s %q: got %d %q, want %d %q", method, c.params, c.body, res.StatusCode, body, status, c.want)
	}
	for k, v := range c.wantHeader {
		if got := res.Header.Get(k); got != v[0] {
			t.Errorf("%s %s %q: header %s is %q, want %q", method, c.params, c.body, k, got, v[0])
		}
	}
}

func header(kv ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(kv); i += 2 {
		h[kv[i]] = []string{kv[i+1]} // not canonical: tests see what was meant
	}
	return h
}

func get(sql string) string { return "/?query=" + url.QueryEscape(sql) }

func TestHTTPInterface(t *testing.T) {
	l := chdbtest.Start(t)
	base := "http://" + l.Addr()
	code := func(n string) http.Header { return header("X-Clickhouse-Exception-Code", n) }
	zipped := gzipped("INSERT INTO t FORMAT CSV\n9,\"zip\"\n")
	for _, c := range []call{
		{method: "GET", params: "/ping", want: "Ok.\n"},
		{method: "GET", params: "/", want: "Ok.\n"},
		{method: "HEAD", params: "/"},
		{method: "GET", params: "/nosuch", status: 404, want: "There is no handle /nosuch"},
		{method: "PUT", params: "/", status: 405, want: "use GET or POST"},
		{params: "/", status: 400, want: "Code: 62.", wantHeader: code("62")},
		{params: "/", body: " -- nothing\n ;", status: 400, want: "Code: 62."},

		{method: "GET", params: get("SELECT 1"), want: "1\n", wantHeader: header("X-Clickhouse-Format", "TabSeparated", "Content-Type", "text/tab-separated-values; charset=UTF-8", "X-Clickhouse-Timezone", "Etc/UTC")},
		{params: "/", body: "SELECT 1", want: "1\n"},
		{params: get("SELECT 1,"), body: "2", want: "1\t2\n"}, // query, line break, body
		{params: get("SELECT 1 -- no\n") + "&default_format=JSONCompactEachRow", want: "[1]\n", wantHeader: header("Content-Type", "application/x-ndjson; charset=UTF-8")},
		{params: "/", body: "SELECT 1 AS x FORMAT CSVWithNames", want: "\"x\"\n1\n", wantHeader: header("X-Clickhouse-Format", "CSVWithNames", "Content-Type", "text/csv; charset=UTF-8; header=present")},
		{params: "/", header: header("X-ClickHouse-Format", "CSV"), body: "SELECT 'a'", want: "\"a\"\n"},
		{params: "/?query_id=mine", body: "SELECT 1", want: "1\n", wantHeader: header("X-Clickhouse-Query-Id", "mine")},
		{params: "/?query_id=it's\\mine", body: "SELECT 1", want: "1\n"},
		{params: "/?max_block_size=7&max_threads=1", body: "SELECT getSetting('max_block_size'), getSetting('max_threads')", want: "7\t1\n"},
		{params: "/", body: "SELECT getSetting('max_threads') > 1 OR getSetting('max_block_size') > 7, currentDatabase()", want: "1\tdefault\n"}, // no session
		{params: "/?param_x=5&param_s=a%27b", body: "SELECT {x:UInt8} + 1, {s:String}", want: "6\ta\\'b\n"},
		{params: "/?param_t=numbers", body: "SELECT {x:UInt8}", status: 500, want: "Code: 456."},
		{params: "/?database=system", body: "SELECT currentDatabase()", want: "system\n"},
		{params: "/", header: header("X-ClickHouse-Database", "system"), body: "SELECT currentDatabase()", want: "system\n"},
		{params: "/?database=nosuch", body: "SELECT 1", status: 404, want: "Code: 81."},
		{params: "/?nosuch=1", body: "SELECT 1", status: 404, want: "Code: 115.", wantHeader: code("115")},
		{params: "/?a%27b=1", body: "SELECT 1", status: 404, want: "Code: 115."},
		{params: "/?x=%zz", body: "SELECT 1", status: 400, want: "Code: 36."},
		{params: "/", body: "SELECT 1; SELECT 2", status: 400, want: "Code: 62. DB::Exception: Syntax error (Multi-statements"},
		{params: "/", body: "SELECT 1;", want: "1\n"},
		{params: "/", body: "SELECT ';' -- ; \n /* ; */ ;  ", want: ";\n"},
		{params: "/", body: "SELECT 1 INTO OUTFILE '/dev/null'", status: 501, want: "Code: 48."},
		{params: "/", body: "SELECT 1 AS format", want: "1\n"},
		{params: "/", body: "SELECT 1 WHERE 0", want: ""},

		{params: "/", body: "CREATE TABLE t (a UInt32, s String) ENGINE = MergeTree ORDER BY a", want: ""},
		{params: "/", body: "INSERT INTO t VALUES (1, 'x'), (1 + 1, concat('y', 'z'))", want: "", wantHeader: header("X-Clickhouse-Summary", `{"read_rows":"0","read_bytes":"0","written_rows":"2","written_bytes":"27","total_rows_to_read":"0","result_rows":"0","result_bytes":"0"}`)},
		{params: get("INSERT INTO t (a) VALUES"), body: "(3)", want: ""},
		{params: get("INSERT INTO t FORMAT TabSeparated"), body: "4\tfour\n5\tfi\\n\\nve\n", want: ""},
		{params: "/", body: "INSERT INTO t SETTINGS async_insert = 0 FORMAT JSONEachRow\n{\"a\": 6, \"s\": \"six\"}\n\n{\"a\": 7}", want: ""},
		{params: "/", body: "INSERT INTO t SELECT 8, 'eight'", want: ""},
		{params: "/", header: header("Content-Encoding", "gzip"), body: zipped, want: ""},
		{params: get("INSERT INTO t FORMAT CSV") + "&decompress=1", body: frames("10,ten\n", "11,eleven\n"), want: ""},
		{params: "/?decompress=1", body: frames("INSERT INTO t FORMAT CSV 12,twelve\n"), want: ""},
		{params: "/", body: "SELECT * FROM t ORDER BY a FORMAT CSV", want: "1,\"x\"\n2,\"yz\"\n3,\"\"\n4,\"four\"\n5,\"fi\n\nve\"\n6,\"six\"\n7,\"\"\n8,\"eight\"\n9,\"zip\"\n10,\"ten\"\n11,\"eleven\"\n12,\"twelve\"\n"},

		{method: "GET", params: get("INSERT INTO t VALUES (100, '')"), status: 500, want: "Code: 164."}, // GET is read-only
		{method: "GET", params: get("CREATE TABLE g (a UInt32) ENGINE = Memory"), status: 500, want: "Code: 164."},
		{method: "GET", params: get("INSERT INTO t SELECT 100, ''") + "&readonly=0", status: 500, want: "Code: 164."},
		{params: "/", body: "INSERT INTO t FORMAT CSV\nx,y\n", status: 400, want: "Code: 27.", wantHeader: code("27")},
		{params: get("INSERT INTO t FORMAT CSV") + "&decompress=1", body: frames("99,cut\n")[:30], status: 400, want: "Code: 117."},
		{params: get("INSERT INTO t FORMAT CSV") + "&decompress=1", body: "99,not compressed, but long enough\n", status: 400, want: "Code: 117."},
		{params: "/", header: header("Content-Encoding", "gzip"), body: "not gzip", status: 400, want: "Code: 117."},
		{params: "/", header: header("Content-Encoding", "gzip"), body: zipped[:len(zipped)-10], status: 400, want: "Code: 117."},
		{params: "/", header: header("Content-Encoding", "br"), body: "x", status: 500, want: "Code: 89."},
		{params: "/", header: header("Content-Type", "multipart/form-data; boundary=x"), body: "--x--", status: 501, want: "Code: 48."},
		{params: "/", body: "SELECT count() FROM t", want: "12\n"},

		{params: "/", header: header("Origin", "https://shop.example"), body: "SELECT 1", status: 403, want: "Code: 497."},
		{params: "/", header: header("Origin", "http://localhost:3000"), body: "SELECT 1", want: "1\n"},
		{method: "GET", params: "/?query=SELECT+1", header: header("Sec-Fetch-Site", "cross-site"), status: 403, want: "Code: 497."},
		{method: "GET", params: "/?query=SELECT+1", header: header("Sec-Fetch-Site", "none"), want: "1\n"},
		{params: "/", header: header("Sec-Fetch-Site", "cross-site", "Origin", "http://localhost:3000"), body: "SELECT 1", want: "1\n"},
		{params: "/", header: header("Host", "rebound.example:8123"), body: "SELECT 1", status: 403, want: "Code: 497."},
	} {
		c.do(t, base)
	}
}

func gzipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return b.String()
}

// frames packs each part into a frame of its own, by another method each.
func frames(parts ...string) string {
	var b strings.Builder
	for i, part := range parts {
		w := compress.NewWriter(compress.LevelZero, []compress.Method{compress.LZ4, compress.ZSTD, compress.None}[i%3])
		if err := w.Compress([]byte(part)); err != nil {
			panic(err)
		}
		b.Write(w.Data)
	}
	return b.String()
}

// A result in several chunks is one document, in the formats that are streamed and
// in those that are not.
func TestResultsAreOneDocument(t *testing.T) {
	dsn := chdbtest.Database(t)
	const n = 200_000
	sql := fmt.Sprintf("SELECT number AS n FROM numbers(%d) ORDER BY n", n)
	var result struct {
		Rows int
		Data []struct{ N json.Number }
	}
	if err := json.Unmarshal([]byte(chdbtest.Exec(t, dsn, sql+" FORMAT JSON")), &result); err != nil || result.Rows != n || len(result.Data) != n {
		t.Errorf("JSON: %d rows, says %d, %v; want %d", len(result.Data), result.Rows, err, n)
	}
	for format, lines := range map[string]int{"CSV": n, "CSVWithNames": n + 1, "JSONEachRow": n, "TSKV": n, "TabSeparatedWithNamesAndTypes": n + 2, "JSONCompactEachRow": n} {
		got := strings.Split(chdbtest.Exec(t, dsn, sql+" FORMAT "+format), "\n")
		if len(got) != lines || !strings.Contains(got[len(got)-1], fmt.Sprint(n-1)) {
			t.Errorf("%s: %d lines, the last %q; want %d", format, len(got), got[len(got)-1], lines)
		}
	}
	totals := chdbtest.Exec(t, dsn, "SELECT number % 3 AS k, count() FROM numbers(10) GROUP BY k WITH TOTALS ORDER BY k")
	if want := "0\t4\n1\t3\n2\t3\n\n0\t10"; totals != want {
		t.Errorf("totals: got %q, want %q", totals, want)
	}
}

// What fails after the first byte was sent must not look complete.
func TestFailureMidway(t *testing.T) {
	dsn := chdbtest.Database(t)
	u, _ := url.Parse(dsn)
	res, err := http.Post("http://"+u.Host+"/", "", strings.NewReader("SELECT throwIf(number = 900000) FROM numbers(1000000) SETTINGS max_block_size = 1000, max_threads = 1"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	tag := res.Header.Get("X-Clickhouse-Exception-Tag")
	want := "\r\n__exception__\r\n" + tag + "\r\nCode: 395. DB::Exception: "
	if err == nil || res.StatusCode != http.StatusOK || len(tag) != 16 || !strings.Contains(string(body), want) {
		t.Errorf("status %d, tag %q, read error %v, body ends %.300q; want 200, an unexpected end and %q", res.StatusCode, tag, err, body[max(0, len(body)-300):], want)
	}
}

// An INSERT whose client dies halfway must not commit what came as if it were all.
func TestCutInsertInsertsNothing(t *testing.T) {
	dsn := chdbtest.Database(t)
	chdbtest.Exec(t, dsn, "CREATE TABLE cut (n UInt32) ENGINE = MergeTree ORDER BY n")
	u, _ := url.Parse(dsn)
	for _, head := range []string{"Content-Length: 1000", "Transfer-Encoding: chunked"} {
		conn, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		body := "1\n2\n3\n"
		if strings.HasPrefix(head, "Transfer") {
			body = "6\r\n" + body + "\r\n"
		}
		fmt.Fprintf(conn, "POST /?database=%s&query=INSERT+INTO+cut+FORMAT+CSV HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n\r\n%s", strings.TrimPrefix(u.Path, "/"), head, body)
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn) // until the server has dealt with it
		conn.Close()
	}
	if got := chdbtest.Exec(t, dsn, "SELECT count() FROM cut"); got != "0" {
		t.Errorf("%s rows of cut inserts, want none", got)
	}
}

func TestCompressedAnswers(t *testing.T) {
	dsn := chdbtest.Database(t)
	u, _ := url.Parse(dsn)
	base := "http://" + u.Host
	ask := func(params string, h http.Header) (*http.Response, []byte) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+params, strings.NewReader("SELECT repeat(repeat('x', 1000), 3000)"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = h
		res, err := (&http.Transport{DisableCompression: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, body
	}
	want := strings.Repeat("x", 3000000) + "\n"
	res, body := ask("/", header("Accept-Encoding", "gzip, br"))
	zip, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil || res.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("not gzip: %v, %d %v %.200q", err, res.StatusCode, res.Header, body)
	}
	if got, err := io.ReadAll(zip); err != nil || string(got) != want {
		t.Errorf("gzip: %d bytes, %v; want %d", len(got), err, len(want))
	}
	_, body = ask("/?compress=1", header())
	got := make([]byte, len(want))
	if _, err := io.ReadFull(compress.NewReader(bytes.NewReader(body)), got); err != nil || string(got) != want || len(body) > len(want)/10 {
		t.Errorf("compress=1: %d bytes packed, %v; want %d unpacked", len(body), err, len(want))
	}
	if res, _ = ask("/?enable_http_compression=0", header("Accept-Encoding", "gzip")); res.Header.Get("Content-Encoding") != "" {
		t.Error("enable_http_compression=0 was compressed")
	}
}

func TestPassword(t *testing.T) {
	l, err := chdb.StartLocal(t.Context(), chdb.LocalOptions{Library: chdbtest.Library(t), Dir: t.TempDir(), User: "shop", Password: "s3cret/'"})
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + l.Addr()
	for _, c := range []call{
		{params: "/", body: "SELECT 1", status: 401, want: "Code: 194.", wantHeader: header("Www-Authenticate", `Basic realm="ClickHouse server HTTP API"`)},
		{params: "/?user=shop&password=wrong", body: "SELECT 1", status: 403, want: "Code: 516."},
		{params: "/?user=default&password=s3cret/'", body: "SELECT 1", status: 403, want: "Code: 516."},
		{params: "/?user=shop&password=s3cret/'", body: "SELECT 1", want: "1\n"},
		{params: "/", header: header("X-ClickHouse-User", "shop", "X-ClickHouse-Key", "s3cret/'"), body: "SELECT 1", want: "1\n"},
		{params: "/", header: header("X-ClickHouse-User", "shop", "X-ClickHouse-Key", "s3cret/'", "Origin", "https://bi.example"), body: "SELECT 1", want: "1\n"},
		{method: "GET", params: "/ping", want: "Ok.\n"},
	} {
		c.do(t, base)
	}
	conn := connect(t, l.DSN(""), "lz4") // basic auth
	if err := conn.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := l.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// The engine stops with its parent: its standard input ends then. Statements that
// run are given time, connections that idle are not.
func TestGracefulStop(t *testing.T) {
	l := chdbtest.Start(t)
	conn := connect(t, l.DSN(""), "")
	exec(t, conn, "CREATE TABLE g (n UInt32) ENGINE = MergeTree ORDER BY n")
	ended := make(chan error, 1)
	go func() {
		ended <- conn.Exec(context.Background(), "INSERT INTO g SELECT sleepEachRow(0.05) FROM numbers(20) SETTINGS max_block_size = 1")
	}()
	for chdbtest.Exec(t, l.DSN(""), "SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO g%'") == "0" {
	}
	unused, err := net.Dial("tcp", l.Addr()) // must not hold up the stop
	if err != nil {
		t.Fatal(err)
	}
	defer unused.Close()
	if err := l.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the running insert: %v", err)
	}
	if err := l.Err(); err != nil {
		t.Errorf("after a graceful stop: %v", err)
	}
}

// The helper does not outlive a parent that is killed.
func TestHelperEndsWithItsParent(t *testing.T) {
	if dir := os.Getenv("CHDB_TEST_PARENT"); dir != "" {
		l, err := chdb.StartLocal(t.Context(), chdb.LocalOptions{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("\n%s\n", l.Addr())
		<-l.Done() // it is this process that is killed
		return
	}
	chdbtest.Library(t)
	parent := osexec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHelperEndsWithItsParent$", "-test.v")
	parent.Env = append(os.Environ(), "CHDB_TEST_PARENT="+t.TempDir())
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	addr := ""
	for lines := bufio.NewScanner(out); addr == "" && lines.Scan(); {
		if _, _, err := net.SplitHostPort(lines.Text()); err == nil {
			addr = lines.Text()
		}
	}
	if conn, err := net.Dial("tcp", addr); err != nil {
		t.Errorf("the helper does not answer: %v", err)
	} else {
		conn.Close()
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	for { // for as long as the whole test may take
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		conn.Close()
		time.Sleep(10 * time.Millisecond)
	}
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	library := chdbtest.Library(t)
	first := chdbtest.Start(t)
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		opt  chdb.LocalOptions
		want string
	}{
		"address in use":   {chdb.LocalOptions{Library: library, Dir: t.TempDir(), Addr: first.Addr()}, "address already in use"},
		"no library":       {chdb.LocalOptions{Library: file + "/nosuch", Dir: t.TempDir()}, "load the ClickHouse engine"},
		"not a directory":  {chdb.LocalOptions{Library: library, Dir: file}, "not a directory"},
		"another program":  {chdb.LocalOptions{Library: library, Dir: t.TempDir(), Executable: "/bin/echo", Args: []string{"hello"}}, `"hello\n" instead of its address`},
		"says nothing":     {chdb.LocalOptions{Library: library, Dir: t.TempDir(), Executable: "/bin/true"}, "said \"\" instead of its address: ClickHouse ended"},
		"no such program":  {chdb.LocalOptions{Library: library, Dir: t.TempDir(), Executable: file + "/nosuch"}, "start ClickHouse"},
		"open to everyone": {chdb.LocalOptions{Library: library, Dir: t.TempDir(), Addr: "0.0.0.0:0"}, "or listen on 127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := chdb.StartLocal(t.Context(), c.opt)
			if err == nil {
				_ = l.Kill()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if l, err := chdb.StartLocal(ctx, chdb.LocalOptions{Library: library, Dir: t.TempDir()}); err == nil {
		_ = l.Kill()
		t.Error("started although its context had ended")
	}
}

// Serve in this process, as the command footfall clickhouse has it.
func TestServe(t *testing.T) {
	opt := chdb.Options{Library: chdbtest.Library(t), Dir: t.TempDir(), Addr: "127.0.0.1:0"}
	for round := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		ready, ended := make(chan chdb.Ready, 1), make(chan error, 1)
		opt.Ready = func(r chdb.Ready) { ready <- r }
		go func() { ended <- chdb.Serve(ctx, opt) }()
		select {
		case r := <-ready:
			dsn := "http://" + r.Address + "/default"
			if _, err := chdb.Open(opt.Library, t.TempDir(), nil); err == nil {
				t.Error("a second engine opened in one process")
			}
			chdbtest.Exec(t, dsn, "CREATE TABLE IF NOT EXISTS rounds (n UInt32) ENGINE = MergeTree ORDER BY n")
			chdbtest.Exec(t, dsn, "INSERT INTO rounds VALUES (0)")
			if got, want := chdbtest.Exec(t, dsn, "SELECT count() FROM rounds"), fmt.Sprint(round+1); got != want {
				t.Errorf("round %d: %s rows, want %s", round, got, want)
			}
		case err := <-ended:
			t.Fatal(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("round %d: %v", round, err)
		}
	}
}

// A statement that runs for ever is stopped after Drain, and told so.
func TestStopOfWhatDoesNotEnd(t *testing.T) {
	library := chdbtest.Library(t)
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan chdb.Ready, 1), make(chan error, 1)
	go func() {
		ended <- chdb.Serve(ctx, chdb.Options{
			Library: library, Dir: t.TempDir(), Addr: "127.0.0.1:0", Drain: time.Millisecond,
			Ready: func(r chdb.Ready) { ready <- r },
		})
	}()
	conn := connect(t, "http://"+(<-ready).Address+"/default", "")
	failed := make(chan error, 1)
	go func() {
		failed <- conn.Exec(context.Background(), "SELECT max(sipHash64(number)) FROM numbers(1000000000000)")
	}()
	for n := uint64(0); n == 0; {
		if err := conn.QueryRow(t.Context(), "SELECT count() FROM system.processes WHERE query LIKE 'SELECT max%'").Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("serve: %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("an endless statement ended well")
	}
}

// Two engines on one directory would destroy it.
func TestOneEngineADirectory(t *testing.T) {
	dir := t.TempDir()
	chdbtest.StartIn(t, dir, "")
	l, err := chdb.StartLocal(t.Context(), chdb.LocalOptions{Library: chdbtest.Library(t), Dir: dir})
	if err == nil {
		_ = l.Kill()
	}
	if err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second engine on one directory: %v; want it refused", err)
	}
}
