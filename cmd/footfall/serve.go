package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"golang.org/x/net/netutil"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Limits of the HTTP port.
const (
	headerTimeout  = 5 * time.Second
	headersMax     = 64 << 10
	connectionsMax = 256
)

// teller is whom the HTTP port asks.
type teller interface {
	live() (partitions int, but string)
	status(ctx context.Context) StatusAnswer
	explain(ctx context.Context, user string) (worker.Explanation, int32, error)
	forecast(ctx context.Context, q *forecastQuery) (*ForecastAnswer, error)
}

// unguarded says what the HTTP port does not answer to other machines that can reach
// it, and why; empty: it answers all who may ask.
func (c *Config) unguarded() string {
	host, _, err := net.SplitHostPort(c.HTTP.Listen)
	if err != nil || c.HTTP.Token != "" || host == "localhost" || isLoopback(host) {
		return ""
	}
	return "http.listen " + c.HTTP.Listen + " can be reached from other machines and there is no http.token: /status, /explain, /forecast and /debug/pprof answer this machine only"
}

// port answers HTTP requests. /status, /explain, /forecast and /debug/pprof are guarded; what the others say
// holds no user's id.
type port struct {
	of       teller
	token    Secret
	hosts    []string // names that this machine is called by, besides loopback ones
	currency string
}

// serve answers the instance's HTTP port until ctx ends.
func (e *engine) serve(ctx context.Context, listener net.Listener) error {
	p := &port{of: e, token: e.conf.HTTP.Token, currency: e.conf.Shop.Currency}
	for _, address := range []string{e.conf.HTTP.Listen, e.conf.address()} {
		if host, _, err := net.SplitHostPort(address); err == nil && host != "" {
			p.hosts = append(p.hosts, host)
		}
	}
	server := newServer(p.handler(promhttp.HandlerFor(e.metrics.registry, promhttp.HandlerOpts{})))
	server.ErrorLog = zap.NewStdLog(e.log.Named("http"))
	go func() {
		<-ctx.Done()
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = server.Shutdown(closing) // what is still open then ends with the process
	}()
	if err := server.Serve(netutil.LimitListener(listener, connectionsMax)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http: %w", err)
	}
	return nil
}

// newServer bounds what a caller may hold of an instance, and for how long.
func newServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           http.MaxBytesHandler(h, 0), // nothing here reads a body
		ReadHeaderTimeout: headerTimeout, ReadTimeout: 2 * headerTimeout, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: headersMax,
	}
}

func (p *port) handler(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", p.readyz)
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /status", p.guarded(p.statusz))
	mux.HandleFunc("GET /explain", p.guarded(p.explainz))
	mux.HandleFunc("GET /forecast", p.guarded(p.forecastz))
	mux.HandleFunc("GET /debug/pprof/", p.guarded(pprof.Index)) // heap, goroutine, mutex, ...
	mux.HandleFunc("GET /debug/pprof/profile", p.guarded(pprof.Profile))
	mux.HandleFunc("GET /debug/pprof/trace", p.guarded(pprof.Trace))
	return mux
}

// guarded lets through who has the token or, where there is none, who is on this
// machine.
func (p *port) guarded(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if code, why := p.refuse(r); code != 0 {
			if code == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			answer(w, code, ErrorAnswer{why})
			return
		}
		next(w, r)
	}
}

// refuse says why a request is not answered; 0: it is. Without a token the caller's
// address must be loopback, and nobody may hide behind it: a web page in a browser
// here (which sends its Origin, or the name under which it had us resolved), or
// another machine behind a proxy that says so. One that does not cannot be told from a
// caller: the configuration's text says to have a token then.
func (p *port) refuse(r *http.Request) (code int, why string) {
	if p.token != "" {
		got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		have, want := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(p.token))
		if !ok || subtle.ConstantTimeCompare(have[:], want[:]) != 1 {
			return http.StatusUnauthorized, "a bearer token is needed (http.token)"
		}
		return 0, ""
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	direct := err == nil && isLoopback(host)
	for _, name := range behindOthers {
		direct = direct && len(r.Header.Values(name)) == 0
	}
	if direct {
		if host, _, err = net.SplitHostPort(r.Host); err != nil {
			host = strings.Trim(r.Host, "[]")
		}
		direct = host == "localhost" || isLoopback(host) || slices.Contains(p.hosts, host)
	}
	if !direct {
		return http.StatusForbidden, "without http.token this is answered on the machine itself only"
	}
	return 0, ""
}

// behindOthers are the headers of a page in a browser, and of proxies: whoever asks with one
// of them is not on this machine, or asks for somebody else. Empty ones count too.
//
//nolint:gochecknoglobals // constant
var behindOthers = []string{
	"Origin", "Forwarded", "Via", "X-Real-Ip", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server",
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func answer(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(value) // the caller may have gone
}

// readyz is 200 when the group has given this instance its share and all of it is live. What
// a live partition does is for alerts: one whose commits hang hangs elsewhere too.
func (p *port) readyz(w http.ResponseWriter, _ *http.Request) {
	n, but := p.of.live()
	if but != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "not ready; %s, %s\n", counted(n, "partition"), but)
		return
	}
	fmt.Fprintf(w, "ready; %s\n", counted(n, "partition"))
}

func (p *port) forecastz(w http.ResponseWriter, r *http.Request) {
	q, err := parseForecast(r.URL.Query())
	if err != nil {
		answer(w, http.StatusBadRequest, ErrorAnswer{err.Error()})
		return
	}
	a, err := p.of.forecast(r.Context(), q)
	switch {
	case errors.Is(err, pipeline.ErrNotHere):
		answer(w, http.StatusMisdirectedRequest, ErrorAnswer{fmt.Sprintf("partition %d is not live here", q.partition)})
	case err != nil:
		answer(w, http.StatusServiceUnavailable, ErrorAnswer{err.Error()})
	default:
		answer(w, http.StatusOK, a)
	}
}

func (p *port) explainz(w http.ResponseWriter, r *http.Request) {
	user := r.URL.Query().Get("user")
	if user == "" {
		answer(w, http.StatusBadRequest, ErrorAnswer{"say which: /explain?user=USER"})
		return
	}
	ex, partition, err := p.of.explain(r.Context(), user)
	switch {
	case errors.Is(err, pipeline.ErrNotHere):
		answer(w, http.StatusMisdirectedRequest, ErrorAnswer{fmt.Sprintf("partition %d is not live here", partition)})
		return
	case errors.Is(err, errNeverSeen):
		answer(w, http.StatusNotFound, ErrorAnswer{err.Error()})
		return
	case err != nil:
		answer(w, http.StatusServiceUnavailable, ErrorAnswer{err.Error()})
		return
	}
	pr := &ex.Profile
	out := ExplainAnswer{
		User: user, Partition: partition, Clock: Moment(ex.Clock), Next: ex.Next, Rules: fmt.Sprintf("%016x", ex.Rules.Hash()),
		Orders: pr.Orders(), Revenue: schemas.FormatMinor(pr.Revenue, p.currency), Currency: p.currency,
		First: Moment(pr.First), Last: Moment(pr.Last),
		FirstPurchase: Moment(pr.FirstPurchase), LastPurchase: Moment(pr.LastPurchase),
		Events: map[string]int64{},
	}
	for kind, n := range pr.Counts {
		out.Events[schemas.Kind(kind).String()] = int64(n)
	}
	acts := ex.Acts()
	for _, s := range ex.Sets {
		set := ExplainSet{
			Set: s.Set, Segment: s.Segment, Rule: s.Rule(), Since: Moment(s.Since), Seq: s.Seq,
			Not: []ExplainNot{}, Clauses: []ExplainClause{}, Would: []ExplainAct{},
		}
		for _, p := range s.Passed {
			set.Not = append(set.Not, ExplainNot{Segment: p.Segment, Because: p.Why, Clause: p.Clause, Events: []ExplainEvent{}})
		}
		for _, c := range s.Clauses {
			set.Clauses = append(set.Clauses, ExplainClause{Clause: c.Source, Value: c.Value, Holds: c.Holds, Events: []ExplainEvent{}})
		}
		for _, a := range acts {
			if a.Set != s.Number {
				continue
			}
			act := ExplainAct{Event: a.Kind.String(), Segment: ex.Rules.Names()[a.Set].Segments[a.To]}
			if a.Amount > 0 {
				act.Amount = schemas.FormatMinor(a.Amount, p.currency)
			}
			set.Would = append(set.Would, act)
		}
		if s.NextSegment != "" {
			set.Next = &ExplainNext{Segment: s.NextSegment, At: Moment(s.NextAt)}
		}
		out.Sets = append(out.Sets, set)
	}
	answer(w, http.StatusOK, out)
}

func (p *port) statusz(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, p.of.status(r.Context()))
}

func (e *engine) status(ctx context.Context) StatusAnswer {
	out := StatusAnswer{
		Instance: e.instance, Group: e.conf.Kafka.Group, Version: buildVersion(),
		Started: Moment(e.started.UnixMilli()), Now: Moment(e.tempo.now()), State: e.state.Load().(string), //nolint:forcetypeassert // only strings are stored
		Paused: e.paused.Load(), Rules: fmt.Sprintf("%016x", e.pipe.Rules().Hash()), Partitions: []PartitionStatus{},
	}
	for _, s := range e.partitions() {
		out.Partitions = append(out.Partitions, e.partitionStatus(&s))
	}
	if e.conf.ClickHouse.Enabled {
		out.Archive = e.archiveStatus(ctx)
	}
	return out
}

func (e *engine) partitionStatus(s *pipeline.Status) PartitionStatus {
	p := PartitionStatus{Partition: s.Partition, State: "recovering", End: -1}
	if s.Recovering {
		return p
	}
	p = PartitionStatus{
		Partition: s.Partition, State: "live", Next: s.Mark.Next, End: s.End, Clock: Moment(s.Mark.Clock),
		Users: int64(s.Users), N: s.Mark.N, Reviewing: !s.Settled, Reviewed: s.Reviewed, Filling: s.Filling, Epoch: s.Epoch,
		Applied: int64(s.Stats.Applied), Duplicates: int64(s.Stats.Duplicates), Transitions: int64(s.Stats.Transitions),
		PerSecond: s.PerSecond * max(1, e.tempo.speed), Segments: map[string]int64{},
	}
	for _, n := range s.Stats.DeadLetters {
		p.DeadLetters += int64(n)
	}
	if s.SnapshotAt > 0 {
		p.Snapshot = &SnapshotStatus{Next: s.Snapshot, At: Moment(s.SnapshotAt)}
	}
	for i, names := range s.Names {
		set := SetStatus{Set: names.Name}
		for j, name := range names.Segments {
			set.Segments = append(set.Segments, SegmentStatus{name, int64(s.Population[i][j])})
			if names.Name == lifecycleSet {
				p.Segments[name] = int64(s.Population[i][j])
			}
		}
		p.Sets = append(p.Sets, set)
	}
	return p
}

func (e *engine) archiveStatus(ctx context.Context) *ArchiveStatus {
	a, err := e.archive.get()
	out := &ArchiveStatus{Lag: -1}
	if err != nil {
		out.Err = err.Error()
	}
	if st := e.archive.counted(); st != nil {
		out.Rows = st.Events.Load() + st.Transitions.Load() + st.DeadLetters.Load()
		out.Last = Moment(st.Last.Load())
		out.Audit = AuditStatus{
			Spans: st.Audited.Load(), Wrong: st.Wrong.Load(), Mended: st.Mended.Load(), Surplus: st.Surplus.Load(), Oldest: Moment(st.Oldest.Load()),
		}
	}
	if a == nil {
		return out
	}
	if out.Lag, err = a.Behind(ctx); err != nil {
		out.Lag, out.Err = -1, err.Error()
	}
	return out
}
