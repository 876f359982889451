package chdb

import (
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// library is the C interface of libchdb, bound by name. Handles of the library
// are uintptr, so that the garbage collector never takes them for its own;
// memory of the library that Go reads is returned as *byte and copied at once.
type library struct {
	setSignalHandlers func(enabled int32)
	connect           func(argc int32, argv **byte) *uintptr
	closeConn         func(conn *uintptr)

	query        func(conn uintptr, sql *byte, sqlLen int, format *byte, formatLen int, names **byte, nameLens *int, values **byte, valueLens *int, n int) uintptr
	streamQuery  func(conn uintptr, sql *byte, sqlLen int, format *byte, formatLen int, names **byte, nameLens *int, values **byte, valueLens *int, n int) uintptr
	streamFetch  func(conn, result uintptr) uintptr
	streamCancel func(conn, result uintptr)

	insert        func(conn uintptr, sql *byte, sqlLen int, format *byte, formatLen int, names **byte, nameLens *int, values **byte, valueLens *int, n int) uintptr
	insertAppend  func(stream uintptr, p *byte, n int) int32
	insertDone    func(stream uintptr) uintptr
	insertCancel  func(stream uintptr)
	insertError   func(stream uintptr) *byte
	insertDestroy func(stream uintptr)

	resultBuffer      func(result uintptr) *byte
	resultLength      func(result uintptr) int
	resultError       func(result uintptr) *byte
	resultRowsRead    func(result uintptr) uint64
	resultBytesRead   func(result uintptr) uint64
	resultRowsWritten func(result uintptr) uint64
	resultBytesOut    func(result uintptr) uint64
	resultDestroy     func(result uintptr)
}

// load opens the library at path and binds its functions.
func load(path string) (*library, error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load the ClickHouse engine: %w", err)
	}
	lib := &library{}
	for _, f := range []struct {
		into any
		name string
	}{
		{&lib.setSignalHandlers, "chdb_set_signal_handlers_enabled"},
		{&lib.connect, "chdb_connect"},
		{&lib.closeConn, "chdb_close_conn"},
		{&lib.query, "chdb_query_with_params_n"},
		{&lib.streamQuery, "chdb_stream_query_with_params_n"},
		{&lib.streamFetch, "chdb_stream_fetch_result"},
		{&lib.streamCancel, "chdb_stream_cancel_query"},
		{&lib.insert, "chdb_stream_insert_with_params_n"},
		{&lib.insertAppend, "chdb_stream_append"},
		{&lib.insertDone, "chdb_stream_done"},
		{&lib.insertCancel, "chdb_stream_cancel_insert"},
		{&lib.insertError, "chdb_stream_insert_error"},
		{&lib.insertDestroy, "chdb_destroy_insert_stream"},
		{&lib.resultBuffer, "chdb_result_buffer"},
		{&lib.resultLength, "chdb_result_length"},
		{&lib.resultError, "chdb_result_error"},
		{&lib.resultRowsRead, "chdb_result_storage_rows_read"},
		{&lib.resultBytesRead, "chdb_result_storage_bytes_read"},
		{&lib.resultRowsWritten, "chdb_result_rows_written"},
		{&lib.resultBytesOut, "chdb_result_bytes_written"},
		{&lib.resultDestroy, "chdb_destroy_query_result"},
	} {
		symbol, err := purego.Dlsym(handle, f.name)
		if err != nil {
			return nil, fmt.Errorf("load the ClickHouse engine: %s has no %s; footfall needs version %s: %w", path, f.name, Version, err)
		}
		purego.RegisterFunc(f.into, symbol)
	}
	return lib, nil
}

// Engine is the ClickHouse engine of this process, open on one directory.
//
// The library keeps its state in the process: one directory at a time, and
// loaded for good. The root connection keeps the directory open between the
// connections of requests, and carries the KILL QUERYs, which must not wait
// for a free one.
type Engine struct {
	lib    *library
	dir    string
	config string // folder of the engine's configuration; empty: it has none

	mu   sync.Mutex // guards root: a connection runs one statement at a time
	root *conn
}

// The library can be loaded once in a process and be open on one directory.
//
//nolint:gochecknoglobals // it mirrors state that libchdb itself keeps per process
var process struct {
	mu   sync.Mutex
	path string
	lib  *library
	open bool
}

// Open loads the library at path, which Fetch returns, and opens the tables
// kept in dir, which is made if need be. It refuses a second engine in the
// same process. Grants are all that statements may do, such as "SELECT ON shop.*";
// nil is everything.
func Open(path, dir string, grants []string) (*Engine, error) {
	process.mu.Lock()
	defer process.mu.Unlock()
	if process.open {
		return nil, errors.New("open ClickHouse: another engine is open in this process; close it first")
	}
	if process.lib == nil {
		lib, err := load(path)
		if err != nil {
			return nil, err
		}
		// Signals are the Go runtime's: it needs its own SIGSEGV and SIGURG handlers.
		lib.setSignalHandlers(0)
		process.lib, process.path = lib, path
	} else if process.path != path {
		return nil, fmt.Errorf("open ClickHouse: %s is loaded already, cannot load %s as well", process.path, path)
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o750)
	}
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse: %w", err)
	}
	e := &Engine{lib: process.lib, dir: dir}
	if grants != nil {
		if e.config, err = configure(grants); err != nil {
			return nil, fmt.Errorf("open ClickHouse: %w", err)
		}
	}
	root, err := e.connect()
	if err != nil {
		_ = os.RemoveAll(e.config)
		return nil, fmt.Errorf("open ClickHouse in %s: %w; is another process using this directory?", dir, err)
	}
	e.root = root
	process.open = true
	return e, nil
}

// Close ends the engine cleanly. No connection may be in use.
func (e *Engine) Close() {
	process.mu.Lock()
	defer process.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.root != nil {
		e.root.close()
		e.root = nil
		process.open = false
		_ = os.RemoveAll(e.config) // a temporary folder, or none
	}
}

// configure writes a configuration in which the one user has these grants. The engine
// has no storage for CREATE USER, but reads users from a file, as a server does.
func configure(grants []string) (folder string, err error) {
	if folder, err = os.MkdirTemp("", "footfall-clickhouse-"); err != nil {
		return "", err
	}
	users := filepath.Join(folder, "users.xml")
	var b strings.Builder
	b.WriteString("<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default><password/>" +
		"<networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota><grants>")
	for _, g := range grants {
		b.WriteString("<query>GRANT ")
		_ = xml.EscapeText(&b, []byte(g)) // to memory
		b.WriteString("</query>")
	}
	b.WriteString("</grants></default></users></clickhouse>")
	err = os.WriteFile(users, []byte(b.String()), 0o600)
	b.Reset()
	b.WriteString("<clickhouse><user_directories><users_xml><path>")
	_ = xml.EscapeText(&b, []byte(users)) // to memory
	b.WriteString("</path></users_xml></user_directories></clickhouse>")
	return folder, errors.Join(err, os.WriteFile(filepath.Join(folder, "config.xml"), []byte(b.String()), 0o600))
}

// kill asks the engine to stop the statements whose log_comment is id. They end
// soon after, with QUERY_WAS_CANCELLED.
func (e *Engine) kill(id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.root == nil {
		return errors.New("engine closed")
	}
	return e.root.exec("KILL QUERY WHERE Settings['log_comment'] = " + quote(id) + " ASYNC")
}

// conn is one session of the engine. It runs one statement at a time and belongs
// to one goroutine at a time.
type conn struct {
	lib  *library
	ptr  *uintptr // what chdb_connect returned: chdb_connection *
	conn uintptr
}

func (e *Engine) connect() (*conn, error) {
	args := []*byte{cString("clickhouse"), cString("--path=" + e.dir)}
	if e.config != "" {
		args = append(args, cString("--config-file="+filepath.Join(e.config, "config.xml")))
	}
	ptr := e.lib.connect(int32(len(args)), &args[0])
	runtime.KeepAlive(args)
	if ptr == nil || *ptr == 0 {
		return nil, errors.New("the engine refused the connection")
	}
	return &conn{lib: e.lib, ptr: ptr, conn: *ptr}, nil
}

func (c *conn) close() { c.lib.closeConn(c.ptr) }

// param is a query parameter: its name and its value as text.
type param struct{ name, value string }

// bound holds parameters the way C wants them; it must outlive the call.
type bound struct {
	names, values       []*byte
	nameLens, valueLens []int
	name, value         **byte
	nameLen, valueLen   *int
	n                   int
}

func bind(params []param) *bound {
	b := &bound{n: len(params)}
	for _, p := range params {
		b.names, b.nameLens = append(b.names, cString(p.name)), append(b.nameLens, len(p.name))
		b.values, b.valueLens = append(b.values, cString(p.value)), append(b.valueLens, len(p.value))
	}
	if b.n > 0 {
		b.name, b.value, b.nameLen, b.valueLen = &b.names[0], &b.values[0], &b.nameLens[0], &b.valueLens[0]
	}
	return b
}

// outcome is what a finished statement reports of itself.
type outcome struct {
	rowsRead, bytesRead, rowsWritten, bytesWritten uint64
}

// exec runs a statement for its effect.
func (c *conn) exec(sql string) error {
	_, _, err := c.query(sql, "Null", nil)
	return err
}

// query runs a statement to its end and returns its whole output.
func (c *conn) query(sql, format string, params []param) ([]byte, outcome, error) {
	b := bind(params)
	q, f := cString(sql), cString(format)
	result := c.lib.query(c.conn, q, len(sql), f, len(format), b.name, b.nameLen, b.value, b.valueLen, b.n)
	runtime.KeepAlive(b)
	return c.take(result)
}

// take copies a result and frees it.
func (c *conn) take(result uintptr) ([]byte, outcome, error) {
	if result == 0 {
		return nil, outcome{}, errors.New("the engine gave no result")
	}
	defer c.lib.resultDestroy(result)
	if msg := goString(c.lib.resultError(result)); msg != "" {
		return nil, outcome{}, newException(msg)
	}
	out := outcome{
		rowsRead: c.lib.resultRowsRead(result), bytesRead: c.lib.resultBytesRead(result),
		rowsWritten: c.lib.resultRowsWritten(result), bytesWritten: c.lib.resultBytesOut(result),
	}
	n := c.lib.resultLength(result)
	if n == 0 {
		return nil, out, nil
	}
	return append([]byte(nil), unsafe.Slice(c.lib.resultBuffer(result), n)...), out, nil
}

// stream is a statement whose output is fetched chunk by chunk.
type stream struct {
	c      *conn
	result uintptr
}

func (c *conn) stream(sql, format string, params []param) (*stream, error) {
	b := bind(params)
	q, f := cString(sql), cString(format)
	result := c.lib.streamQuery(c.conn, q, len(sql), f, len(format), b.name, b.nameLen, b.value, b.valueLen, b.n)
	runtime.KeepAlive(b)
	if result == 0 {
		return nil, errors.New("the engine gave no result")
	}
	if msg := goString(c.lib.resultError(result)); msg != "" {
		c.lib.resultDestroy(result)
		return nil, newException(msg)
	}
	return &stream{c: c, result: result}, nil
}

// next returns the next chunk, empty at the end.
func (s *stream) next() ([]byte, outcome, error) {
	return s.c.take(s.c.lib.streamFetch(s.c.conn, s.result))
}

// close frees the stream; a statement that is still running is cancelled.
func (s *stream) close(finished bool) {
	if !finished {
		s.c.lib.streamCancel(s.c.conn, s.result)
	}
	s.c.lib.resultDestroy(s.result)
}

// insert is an INSERT whose data is appended piece by piece.
type insert struct {
	c      *conn
	handle uintptr
}

// insert begins an INSERT without its FORMAT clause, for data in format.
func (c *conn) insert(sql, format string, params []param) (*insert, error) {
	b := bind(params)
	q, f := cString(sql), cString(format)
	handle := c.lib.insert(c.conn, q, len(sql), f, len(format), b.name, b.nameLen, b.value, b.valueLen, b.n)
	runtime.KeepAlive(b)
	if handle == 0 {
		return nil, errors.New("the engine gave no insert stream")
	}
	if msg := goString(c.lib.insertError(handle)); msg != "" {
		c.lib.insertDestroy(handle)
		return nil, newException(msg)
	}
	return &insert{c: c, handle: handle}, nil
}

// Write appends data; the engine copies it. It may block, which is backpressure.
func (i *insert) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if i.c.lib.insertAppend(i.handle, &p[0], len(p)) != 0 {
		return 0, errInsertFailed
	}
	return len(p), nil
}

// errInsertFailed says that the engine takes no more data; done has the reason.
var errInsertFailed = errors.New("the insert has failed")

// done ends the data and returns when the rows are written, or why they are not.
func (i *insert) done() (outcome, error) {
	defer i.c.lib.insertDestroy(i.handle)
	_, out, err := i.c.take(i.c.lib.insertDone(i.handle))
	return out, err
}

// cancel gives the insert up. Blocks that were written already stay, as in any ClickHouse.
func (i *insert) cancel() {
	i.c.lib.insertCancel(i.handle)
	i.c.lib.insertDestroy(i.handle)
}

// Exception is an error of the ClickHouse engine.
type Exception struct {
	Code int    // 60 is UNKNOWN_TABLE; 0 if the engine gave none
	Text string // as ClickHouse words it: "Code: 60. DB::Exception: ..."
}

func (e *Exception) Error() string { return e.Text }

var exceptionCode = regexp.MustCompile(`\ACode: (\d+)\.`)

func newException(text string) *Exception {
	text = strings.TrimSpace(text)
	e := &Exception{Text: text}
	if m := exceptionCode.FindStringSubmatch(text); m != nil {
		e.Code, _ = strconv.Atoi(m[1])
	}
	return e
}

// cString copies s and puts a NUL after it, for the functions that want one.
func cString(s string) *byte {
	b := make([]byte, len(s)+1)
	copy(b, s)
	return &b[0]
}

// goString copies a C string; "" for NULL.
func goString(p *byte) string {
	if p == nil {
		return ""
	}
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(p, n))
}
