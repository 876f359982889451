package main

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"footfall/pipeline"
	"footfall/schemas"
)

// serve answers the instance's HTTP port until ctx ends.
func (e *engine) serve(ctx context.Context, listener net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", e.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(e.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /status", e.guarded(e.statusz))
	mux.HandleFunc("GET /explain", e.guarded(e.explainz))
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		MaxHeaderBytes: 64 << 10, ErrorLog: zap.NewStdLog(e.log.Named("http")),
	}
	go func() {
		<-ctx.Done()
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = server.Shutdown(closing) // what is still open then ends with the process
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http: %w", err)
	}
	return nil
}

// guarded lets through who has the token, or, where there is none, who is on this
// machine: what is behind it tells of users.
func (e *engine) guarded(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if want := string(e.conf.HTTP.Token); want != "" {
			got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !ok || subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
				answer(w, http.StatusUnauthorized, ErrorAnswer{"a bearer token is needed (http.token)"})
				return
			}
		} else if host, _, err := net.SplitHostPort(r.RemoteAddr); err != nil || !net.ParseIP(host).IsLoopback() {
			answer(w, http.StatusForbidden, ErrorAnswer{"without http.token this is answered on the machine itself only"})
			return
		}
		next(w, r)
	}
}

func answer(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(value) // the caller may have gone
}

// readyz is 200 when every partition given to this instance is live.
func (e *engine) readyz(w http.ResponseWriter, _ *http.Request) {
	n, all := e.live()
	if !all {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "%s; %d partitions, some recovering\n", e.state.Load(), n)
		return
	}
	fmt.Fprintf(w, "ready; %d partitions\n", n)
}

func (e *engine) explainz(w http.ResponseWriter, r *http.Request) {
	user := r.URL.Query().Get("user")
	if user == "" {
		answer(w, http.StatusBadRequest, ErrorAnswer{"say which: /explain?user=USER"})
		return
	}
	ex, partition, err := e.explain(r.Context(), user)
	switch {
	case errors.Is(err, pipeline.ErrNotHere):
		answer(w, http.StatusMisdirectedRequest, ErrorAnswer{fmt.Sprintf("partition %d is not live here", partition)})
		return
	case err != nil:
		answer(w, http.StatusNotFound, ErrorAnswer{err.Error()})
		return
	}
	pr := &ex.Profile
	out := ExplainAnswer{
		User: user, Partition: partition, Clock: Moment(ex.Clock), Next: ex.Next, Rules: fmt.Sprintf("%016x", ex.Rules.Hash()),
		Orders: pr.Orders(), Revenue: schemas.FormatMinor(pr.Revenue, e.conf.Shop.Currency), Currency: e.conf.Shop.Currency,
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
				act.Amount = schemas.FormatMinor(a.Amount, e.conf.Shop.Currency)
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

func (e *engine) statusz(w http.ResponseWriter, r *http.Request) {
	out := StatusAnswer{
		Instance: e.instance, Group: e.conf.Kafka.Group, Version: buildVersion(),
		Started: Moment(e.started.UnixMilli()), Now: Moment(e.tempo.now()), State: e.state.Load().(string), //nolint:forcetypeassert // only strings are stored
		Paused: e.paused.Load(), Rules: fmt.Sprintf("%016x", e.rules.Hash()), Partitions: []PartitionStatus{},
	}
	for _, s := range e.pipe.Status() {
		out.Partitions = append(out.Partitions, e.partitionStatus(&s))
	}
	if e.conf.ClickHouse.Enabled {
		out.Archive = e.archiveStatus(r.Context())
	}
	answer(w, http.StatusOK, out)
}

func (e *engine) partitionStatus(s *pipeline.Status) PartitionStatus {
	p := PartitionStatus{Partition: s.Partition, State: "recovering", End: -1}
	if s.Recovering {
		return p
	}
	p = PartitionStatus{
		Partition: s.Partition, State: "live", Next: s.Mark.Next, End: s.End, Clock: Moment(s.Mark.Clock),
		Users: int64(s.Users), N: s.Mark.N,
		Applied: int64(s.Stats.Applied), Duplicates: int64(s.Stats.Duplicates), Transitions: int64(s.Stats.Transitions),
		PerSecond: s.PerSecond * max(1, e.tempo.speed), Segments: map[string]int64{},
	}
	for _, n := range s.Stats.DeadLetters {
		p.DeadLetters += int64(n)
	}
	if s.SnapshotAt > 0 {
		p.Snapshot = &SnapshotStatus{Next: s.Snapshot, At: Moment(s.SnapshotAt)}
	}
	for i, names := range e.rules.Names() {
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
			Spans: st.Audited.Load(), Wrong: st.Wrong.Load(), Mended: st.Mended.Load(), Unmendable: st.Unmendable.Load(), Oldest: Moment(st.Oldest.Load()),
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
