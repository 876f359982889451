package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"footfall/pipeline"
	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// person is in everything that tells of one.
const person = "shopper-4711"

// gossip tells of everybody.
type gossip struct{}

func (gossip) live() (int, string) { return 4, "" }

func (gossip) status(context.Context) StatusAnswer { return StatusAnswer{Instance: person} }

func (gossip) explain(_ context.Context, user string) (worker.Explanation, int32, error) {
	switch {
	case strings.HasPrefix(user, "moved"):
		return worker.Explanation{}, 3, pipeline.ErrNotHere
	case strings.HasPrefix(user, "nobody"):
		return worker.Explanation{}, 3, errNeverSeen
	case strings.HasPrefix(user, "broken"):
		return worker.Explanation{}, 3, context.DeadlineExceeded
	}
	ex, ok := lone().Explain(person)
	if !ok {
		return ex, 3, errNeverSeen
	}
	ex.Sets[0].Segment = person
	return ex, 3, nil
}

// lone is a worker that has seen one person.
func lone() *worker.Worker {
	d, err := schemas.NewDecoder(schemas.Contract{Currency: "EUR"})
	if err != nil {
		panic(err) // it is one
	}
	w := worker.New(3, worker.Config{
		Rules: segment.Lifecycle(0), Decoder: d, Ahead: schemas.Minute, MaxSkew: schemas.Minute, MaxAge: schemas.Day,
		DedupWindow: schemas.Hour, DedupBudget: 100, Slice: 10,
	})
	w.Begin(0, 0)
	view := fmt.Sprintf(`{"event_id":"e1","user_id":%q,"type":"view","time":1767225600000,"product_id":"p"}`, person)
	w.Apply([]worker.Record{{Time: 1767225600000, Key: []byte(person), Value: []byte(view)}}, worker.Conditions{Wall: 1767225600000}, &worker.Output{})
	return w
}

func (gossip) forecast(_ context.Context, q *forecastQuery) (*ForecastAnswer, error) {
	if q.partition > 3 {
		return nil, pipeline.ErrNotHere
	}
	return &ForecastAnswer{Partition: q.partition, Next: -1, Users: []ForecastedUser{{User: person}}}, nil
}

func gossipPort(token Secret) http.Handler {
	p := &port{of: gossip{}, token: token, currency: "EUR", hosts: []string{"eu-1.shop.example"}}
	return p.handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "footfall_users 1") }))
}

// guardedPaths are what not everybody is answered.
func guardedPaths() []string {
	return []string{
		"/status", "/explain?user=u", "/forecast?partition=0&for=1000",
		"/debug/pprof/", "/debug/pprof/goroutine?debug=2", "/debug/pprof/profile?seconds=1", "/debug/pprof/trace?seconds=1",
	}
}

// Every path that is answered is either one that holds no user's id, or one that is
// guarded, and that TestGuard tries.
func TestPathsAreKnown(t *testing.T) {
	source, err := os.ReadFile("serve.go")
	if err != nil {
		t.Fatal(err)
	}
	known := []string{"/healthz", "/readyz", "/metrics"}
	for _, path := range guardedPaths() {
		path, _, _ = strings.Cut(path, "?")
		known = append(known, path)
	}
	routes := regexp.MustCompile(`mux\.Handle(?:Func)?\("(?:GET )?([^"]*)"`).FindAllStringSubmatch(string(source), -1)
	if calls := strings.Count(string(source), "mux.Handle"); len(routes) != calls || calls == 0 {
		t.Errorf("read %d paths, and there are %d", len(routes), calls)
	}
	for _, r := range routes {
		if !slices.Contains(known, r[1]) {
			t.Errorf("nobody has tried who is answered %s", r[1])
		}
	}
}

// Who asks for what tells of users, and what comes of it.
func TestGuard(t *testing.T) {
	const token = "hunter2-hunter2"
	for _, c := range []struct {
		what   string
		token  Secret
		remote string
		host   string
		header map[string]string
		want   int
	}{
		{what: "from here", want: 200},
		{what: "from here, by IPv6", remote: "[::1]:5", host: "[::1]:9464", want: 200},
		{what: "from here, mapped", remote: "[::ffff:127.0.0.1]:5", want: 200},
		{what: "from here, by a name", host: "localhost:9464", want: 200},
		{what: "from here, by the advertised name", host: "eu-1.shop.example:9464", want: 200},
		{what: "from elsewhere", remote: "10.0.0.7:5", want: 403},
		{what: "from nowhere", remote: "@", want: 403},
		{what: "a name that somebody had resolved to us", host: "evil.example", want: 403},
		{what: "a page in a browser here", header: map[string]string{"Origin": "https://evil.example"}, want: 403},
		{what: "a sandboxed page", header: map[string]string{"Origin": "null"}, want: 403},
		{what: "behind a proxy here", header: map[string]string{"X-Forwarded-For": "10.0.0.7"}, want: 403},
		{what: "behind another", header: map[string]string{"Forwarded": "for=10.0.0.7"}, want: 403},
		{what: "behind a third", header: map[string]string{"Via": "1.1 squid"}, want: 403},
		{what: "behind a fourth", header: map[string]string{"X-Real-IP": "10.0.0.7"}, want: 403},
		{what: "behind a fifth", header: map[string]string{"X-Forwarded-Proto": "https"}, want: 403},
		{what: "behind a sixth, that does not know for whom", header: map[string]string{"X-Forwarded-For": ""}, want: 403},
		{what: "no token", token: token, want: 401},
		{what: "an empty token", token: token, header: map[string]string{"Authorization": "Bearer "}, want: 401},
		{what: "another token", token: token, header: map[string]string{"Authorization": "Bearer hunter3-hunter3"}, want: 401},
		{what: "a longer token", token: token, header: map[string]string{"Authorization": "Bearer " + token + "2"}, want: 401},
		{what: "the token alone", token: token, header: map[string]string{"Authorization": token}, want: 401},
		{what: "the token, from anywhere", token: token, remote: "10.0.0.7:5", host: "x", header: map[string]string{"Authorization": "Bearer " + token}, want: 200},
	} {
		for _, path := range guardedPaths() {
			if c.want == http.StatusOK && strings.Contains(path, "seconds") {
				continue // it would take them
			}
			r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:9464"+path, nil)
			r.RemoteAddr = "127.0.0.1:5"
			if c.remote != "" {
				r.RemoteAddr = c.remote
			}
			if c.host != "" {
				r.Host = c.host
			}
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			gossipPort(c.token).ServeHTTP(w, r)
			if w.Code != c.want || strings.Contains(w.Body.String(), person) != (c.want == 200 && !strings.HasPrefix(path, "/debug")) {
				t.Errorf("%s, %s: got %d %s, want %d", path, c.what, w.Code, w.Body, c.want)
			}
			if w.Code == 401 && w.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s, %s: no WWW-Authenticate", path, c.what)
			}
		}
	}
}

// A caller tells a user who was never seen from an instance that cannot say.
func TestExplainTellsNobodyFromAFailure(t *testing.T) {
	for user, want := range map[string]int{person: 200, "nobody": 404, "moved": 421, "broken": 503, "": 400} {
		r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:9464/explain?user="+user, nil)
		r.RemoteAddr = "127.0.0.1:5"
		w := httptest.NewRecorder()
		gossipPort("").ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: got %d %s, want %d", user, w.Code, w.Body, want)
		}
	}
}

// Whatever is asked, nothing panics, a person's data comes only to who may have it,
// and an answer that says it is JSON is.
func FuzzPort(f *testing.F) {
	const token = "hunter2"
	for _, s := range []string{
		"GET /explain?user=u HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /explain?user=moved HTTP/1.1\r\nHost: 127.0.0.1:9464\r\nAuthorization: Bearer hunter2\r\n\r\n",
		"GET /status HTTP/1.1\r\nHost: [::1]\r\nOrigin: null\r\n\r\n",
		"HEAD /metrics HTTP/1.0\r\n\r\n",
		"GET //explain/../status?user=%zz&user=&%00 HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /explain HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nuser=u",
		"GET /forecast?partition=0&for=86400000&row=5&users=7&set=lifecycle HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer hunter2\r\n\r\n",
		"GET /forecast?partition=9&for=99999999999999999999&row=-1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /readyz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET http://localhost/explain?user=nobody HTTP/1.1\r\nHost: b\r\n\r\n",
	} {
		for _, from := range []string{"127.0.0.1:5", "10.0.0.7:5"} {
			f.Add([]byte(s), from, true)
			f.Add([]byte(s), from, false)
		}
	}
	closed, open := gossipPort(token), gossipPort("")
	f.Fuzz(func(t *testing.T, raw []byte, from string, guarded bool) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(raw))))
		if err != nil {
			return
		}
		r.RemoteAddr = from
		h := open
		if guarded {
			h = closed
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if !slices.Contains([]int{200, 301, 307, 400, 401, 403, 404, 405, 421, 503}, w.Code) {
			t.Errorf("%q: status %d", raw, w.Code)
		}
		if w.Header().Get("Content-Type") == "application/json" && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%q: not JSON: %s", raw, w.Body)
		}
		if !strings.Contains(w.Body.String(), person) {
			return
		}
		if guarded && r.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("%q: told without the token", raw)
		}
		host, _, _ := net.SplitHostPort(from)
		if !guarded && (!net.ParseIP(host).IsLoopback() || r.Header.Get("Origin") != "" || r.Header.Get("X-Forwarded-For") != "") {
			t.Errorf("%q from %q: told to another machine, or to a page", raw, from)
		}
	})
}

// What a caller may hold of an instance is bounded, and so is for how long.
func TestServerIsBounded(t *testing.T) {
	server := newServer(gossipPort(""))
	if server.ReadHeaderTimeout <= 0 || server.ReadTimeout <= 0 || server.WriteTimeout <= 0 || server.IdleTimeout <= 0 || server.MaxHeaderBytes <= 0 {
		t.Errorf("a limit is missing: %+v", server)
	}
	server.ReadHeaderTimeout, server.ReadTimeout = 50*time.Millisecond, 50*time.Millisecond // the same, sooner
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	send := func(what string) string {
		t.Helper()
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go io.WriteString(conn, what)
		got, _ := io.ReadAll(conn) // to the end: the server closes
		return string(got)
	}
	if got := send("GET /status HTTP/1.1\r\nHost: localhost\r\nX: "); strings.Contains(got, person) {
		t.Errorf("half a request: got %q", got)
	}
	if got := send("GET /status HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 2*headersMax) + "\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 431 ") {
		t.Errorf("headers of 128 KiB: got %.100q", got)
	}
	if got := send("POST /explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000000\r\n\r\nuser="); !strings.HasPrefix(got, "HTTP/1.1 405 ") {
		t.Errorf("a body of 100 GB: got %.100q", got)
	}
}

// An instance is not followed to where it sends us: the token would go along.
func TestAskFollowsNobody(t *testing.T) {
	stolen := ""
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { stolen = r.Header.Get("Authorization") }))
	defer thief.Close()
	instance := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusFound))
	defer instance.Close()
	c := defaultConfig()
	c.HTTP.Token = "hunter2"
	err := ask(t.Context(), c, strings.TrimPrefix(instance.URL, "http://"), "/status", nil, &StatusAnswer{})
	if err == nil || stolen != "" {
		t.Errorf("got %v, and the token came to %q", err, stolen)
	}
}
