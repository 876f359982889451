package chdb

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of the server.
const (
	statementsMax = 16               // running at once, each on a connection of its own
	waitingMax    = 1024             // waiting for one of those
	queryMax      = 64 << 20         // bytes of a statement, inline data that cannot be streamed included
	stallMax      = 5 * time.Minute  // without a byte from or to the client
	drainDefault  = 10 * time.Second // for running statements, on a graceful stop
	killEvery     = 50 * time.Millisecond
)

// Options say what to serve and where.
type Options struct {
	Library string // path of libchdb, as Fetch returns it
	Dir     string // where the tables are kept
	Addr    string // to listen on; 127.0.0.1:8123 if empty, port 0 for any free one

	// User and Password, if Password is not empty, are asked of every client. An
	// address that is not loopback needs a password.
	User, Password string

	// Grants are all that statements may do, such as "SELECT ON shop.*"; nil is
	// everything.
	Grants []string

	Drain time.Duration // how long running statements may take on a stop; 10 s if 0
	Ready func(Ready)   // called once, when requests are answered
}

// Ready says where an engine answers.
type Ready struct {
	Address string `json:"address"` // host:port
	Version string `json:"version"` // of ClickHouse
}

// Serve opens the engine and answers ClickHouse's HTTP interface until ctx ends,
// then lets running statements finish within Drain, stops the others, and closes
// the engine. It returns nil after such a stop.
func Serve(ctx context.Context, opt Options) error {
	listener, err := listen(ctx, opt)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	engine, err := Open(opt.Library, opt.Dir, opt.Grants)
	if err != nil {
		return err
	}
	s, err := newServer(engine, opt)
	if err != nil {
		engine.Close()
		return err
	}
	// Requests outlive ctx by Drain; work is what ends them after that.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	web := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return work },
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       10 * time.Minute,
	}
	var fresh unused
	web.ConnState = fresh.note
	failed := make(chan error, 1)
	go func() { failed <- web.Serve(listener) }() // ends with Shutdown or Close
	if opt.Ready != nil {
		opt.Ready(Ready{Address: listener.Addr().String(), Version: s.version})
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	drain := opt.Drain
	if drain == 0 {
		drain = drainDefault
	}
	limit, cancel := context.WithTimeout(work, drain)
	defer cancel()
	_ = listener.Close()
	fresh.close()
	_ = web.Shutdown(limit)
	stopWork()
	_ = web.Close()
	s.close()
	return err
}

// unused holds the connections on which nothing was asked yet. Shutdown would wait
// five seconds for them.
type unused struct {
	mu    sync.Mutex // guards conns
	conns map[net.Conn]struct{}
}

func (u *unused) note(c net.Conn, state http.ConnState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if state != http.StateNew {
		delete(u.conns, c)
		return
	}
	if u.conns == nil {
		u.conns = make(map[net.Conn]struct{})
	}
	u.conns[c] = struct{}{}
}

func (u *unused) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.conns {
		_ = c.Close()
	}
}

func listen(ctx context.Context, opt Options) (net.Listener, error) {
	addr := opt.Addr
	if addr == "" {
		addr = "127.0.0.1:8123"
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serve ClickHouse: %w", err)
	}
	if tcp, ok := listener.Addr().(*net.TCPAddr); (!ok || !tcp.IP.IsLoopback()) && opt.Password == "" {
		_ = listener.Close()
		return nil, fmt.Errorf("serve ClickHouse: %s can be reached from other machines; give a password (FOOTFALL_CLICKHOUSE_PASSWORD), or listen on 127.0.0.1", addr)
	}
	return listener, nil
}

// server answers requests over one engine.
type server struct {
	engine              *Engine
	user, password      string
	version, name, zone string
	slots, waiting      chan struct{} // one element for each statement running, or waiting to
	statements          atomic.Uint64 // given out, to tell statements of one query_id apart
}

func newServer(engine *Engine, opt Options) (*server, error) {
	s := &server{
		engine: engine, user: opt.User, password: opt.Password,
		slots: make(chan struct{}, statementsMax), waiting: make(chan struct{}, waitingMax),
	}
	out, _, err := engine.root.query("SELECT version(), displayName(), timezone()", "TabSeparatedRaw", nil)
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse: %w", err)
	}
	fields := strings.Split(strings.TrimSpace(string(out)), "\t")
	if len(fields) != 3 {
		return nil, fmt.Errorf("open ClickHouse: the engine says %q of itself", out)
	}
	s.version, s.name, s.zone = fields[0], fields[1], fields[2]
	return s, nil
}

// close waits for the statements that are still ending, then closes the engine. If
// one does not end, the engine stays open and dies with the process: its files are
// always good.
func (s *server) close() {
	patience := time.After(drainDefault)
	for range statementsMax {
		select {
		case s.slots <- struct{}{}:
		case <-patience:
			return
		}
	}
	s.engine.Close()
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-ClickHouse-Server-Display-Name", s.name)
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodPost && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD, POST")
		http.Error(w, "use GET or POST", http.StatusMethodNotAllowed)
		return
	case r.URL.Path == "/ping" || r.URL.Path == "/replicas_status",
		r.URL.Path == "/" && r.Method != http.MethodPost && !r.URL.Query().Has("query"):
		h.Set("Content-Type", "text/html; charset=UTF-8")
		_, _ = io.WriteString(w, "Ok.\n")
		return
	case r.URL.Path != "/":
		http.Error(w, fmt.Sprintf("There is no handle %s\n\nUse / or /ping for health checks, GET or POST / with ?query= or a body for SQL.", r.URL.Path), http.StatusNotFound)
		return
	}
	a := &answer{w: w, control: http.NewResponseController(w)}
	if err := s.serve(a, r); err != nil {
		a.fail(err)
	}
}

// serve runs the statement of r and answers it. An error is yet to be answered.
func (s *server) serve(a *answer, r *http.Request) error {
	if err := s.admit(r); err != nil {
		if err.Code == codeRequiredPassword {
			a.w.Header().Set("WWW-Authenticate", `Basic realm="ClickHouse server HTTP API"`)
		}
		return err
	}
	q, err := parseRequest(r)
	if err != nil {
		return err
	}
	if q.id == "" {
		q.id = newID()
	}
	a.w.Header().Set("X-ClickHouse-Query-Id", q.id)
	a.w.Header().Set("X-ClickHouse-Timezone", s.zone)
	a.compress, a.gzip = q.compress, q.gzip

	body, err := q.body(r)
	if err != nil {
		return err
	}
	sql, err := readSQL(q.query, &stallReader{from: body, control: a.control})
	if err != nil {
		return err
	}
	if sql.several {
		return refuse(codeSyntaxError, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)")
	}
	if sql.outfile {
		return refuse(codeNotImplemented, "NOT_IMPLEMENTED", "INTO OUTFILE is not allowed over HTTP")
	}
	if q.revision > 0 && sql.isHello() && strings.EqualFold(q.format, "Native") {
		return s.hello(a, q.revision)
	}
	return s.run(r.Context(), a, q, sql)
}

// run waits for a connection and runs the statement on it.
func (s *server) run(ctx context.Context, a *answer, q *request, sql *sqlText) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer func() { <-s.slots }()
	c, err := s.engine.connect()
	if err != nil {
		return err
	}
	defer c.close()

	comment := fmt.Sprintf("%s#%d", q.id, s.statements.Add(1))
	if err := c.exec(q.set(comment)); err != nil {
		return err
	}
	// A server lets anyone begin in any database; USE asks for a right to see it. That
	// of a new connection is "default".
	if q.database != "" && q.database != "default" {
		if err := c.exec("USE " + quoteName(q.database)); err != nil {
			return err
		}
	}
	if q.readOnly {
		if err := c.exec("SET readonly = 2"); err != nil {
			return err
		}
	}
	defer s.killAtEnd(ctx, comment)()

	format := q.format
	if sql.format != "" && !sql.insert {
		format = sql.format
	}
	switch {
	case sql.insert:
		return insertFrom(ctx, c, a, q, sql)
	case streams(format) && sql.selects() && !q.whole:
		return streamTo(ctx, c, a, q, sql, format)
	default:
		return answerWhole(ctx, c, a, q, sql, format)
	}
}

// acquire takes one of the slots, waiting for it if need be.
func (s *server) acquire(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		return refuse(codeTooManyQueries, "TOO_MANY_SIMULTANEOUS_QUERIES",
			"Too many simultaneous queries: %d run and %d wait", statementsMax, waitingMax)
	}
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// killAtEnd has the statement with this log_comment stopped when ctx ends before
// the returned function is called. One KILL is not enough: it finds nothing if it
// comes before the engine has begun the statement. The goroutine ends with either.
func (s *server) killAtEnd(ctx context.Context, comment string) (release func()) {
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
		tick := time.NewTicker(killEvery)
		defer tick.Stop()
		for {
			_ = s.engine.kill(comment) // the engine is open while a statement runs
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// insertFrom streams the data of an INSERT into the engine. Data that ends early,
// because the client went away, is not committed.
func insertFrom(ctx context.Context, c *conn, a *answer, q *request, sql *sqlText) error {
	in, err := c.insert(sql.head, sql.format, q.params)
	if err != nil {
		return err
	}
	err = copyChunks(in, sql.data)
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil && !errors.Is(err, errInsertFailed) {
		in.cancel()
		return err
	}
	out, err := in.done()
	if err != nil {
		return err
	}
	a.begin(q.format, out)
	return a.end()
}

// copyChunks copies in large pieces, because each is a call into the library.
func copyChunks(to io.Writer, from io.Reader) error {
	chunk := make([]byte, 1<<20)
	for n := 0; ; {
		got, err := from.Read(chunk[n:])
		n += got
		if n == len(chunk) || err != nil {
			if _, err := to.Write(chunk[:n]); err != nil {
				return err
			}
			n = 0
		}
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// streamTo sends a result as it comes. What fails before the first chunk still has
// its HTTP status.
func streamTo(ctx context.Context, c *conn, a *answer, q *request, sql *sqlText, format string) error {
	st, err := c.stream(sql.text, q.format, q.params)
	if err != nil {
		var ex *Exception
		if errors.As(err, &ex) && strings.Contains(ex.Text, "Streaming query is not supported") {
			return answerWhole(ctx, c, a, q, sql, format)
		}
		return err
	}
	finished := false
	defer func() { st.close(finished) }()
	for {
		chunk, out, err := st.next()
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		a.begin(format, out)
		if len(chunk) == 0 {
			finished = true
			return a.end()
		}
		if err := a.write(chunk); err != nil {
			return err
		}
	}
}

// answerWhole runs a statement to its end, then sends what it gave.
func answerWhole(ctx context.Context, c *conn, a *answer, q *request, sql *sqlText, format string) error {
	result, out, err := c.query(sql.text, q.format, q.params)
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	a.begin(format, out)
	if err := a.write(result); err != nil {
		return err
	}
	return a.end()
}

// admit checks who asks. Without a password it trusts what comes from this machine,
// but not web pages: a browser sends their Origin, and resolves their host names. With
// what an image or a link asks for it sends no Origin, but says that another site asks;
// a statement of such a GET could send what it reads to that site (url), files too.
func (s *server) admit(r *http.Request) *Exception {
	if s.password == "" {
		if o := r.Header.Get("Origin"); o != "" {
			if u, err := url.Parse(o); err != nil || !isLocal(u.Hostname()) {
				return refuse(codeAccessDenied, "ACCESS_DENIED", "requests of web pages (Origin %q) need a password", o)
			}
		} else if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
			return refuse(codeAccessDenied, "ACCESS_DENIED", "requests of web pages of another site need a password")
		}
		if host := hostOf(r.Host); !isLocal(host) {
			return refuse(codeAccessDenied, "ACCESS_DENIED", "host %q is not this machine; use 127.0.0.1 or a password", host)
		}
		return nil
	}
	user, password, ok := r.BasicAuth()
	if h := r.Header.Get("X-ClickHouse-Key"); h != "" || r.Header.Get("X-ClickHouse-User") != "" {
		user, password, ok = r.Header.Get("X-ClickHouse-User"), h, true
	}
	if v := r.URL.Query(); v.Has("password") || v.Has("user") {
		user, password, ok = v.Get("user"), v.Get("password"), true
	}
	if !ok {
		return refuse(codeRequiredPassword, "REQUIRED_PASSWORD", "Authentication failed: password is required")
	}
	want := s.user
	if want == "" {
		want = "default"
	}
	if user == "" {
		user = "default"
	}
	if subtle.ConstantTimeCompare([]byte(user+"\x00"+password), []byte(want+"\x00"+s.password)) != 1 {
		return refuse(codeAuthenticationFails, "AUTHENTICATION_FAILED",
			"%s: Authentication failed: password is incorrect, or there is no user with such name", user)
	}
	return nil
}

func hostOf(hostPort string) string {
	if host, _, err := net.SplitHostPort(hostPort); err == nil {
		return host
	}
	return strings.Trim(hostPort, "[]")
}

func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// newID returns a random id in the form ClickHouse gives its own.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	x := hex.EncodeToString(b[:])
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}
