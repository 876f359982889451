package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"gocloud.dev/blob"

	"footfall/pipeline"
	"footfall/pipeline/archive"
	"footfall/pipeline/segment"
	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
	"footfall/sinks/clickhouse"
	"footfall/sinks/triggers"
	"footfall/sources/kafka"
)

// engine is one instance: everything that `run` runs, and that `demo` runs beside
// a storefront of its own.
type engine struct {
	conf     *Config
	tempo    tempo
	log      *zap.Logger
	started  time.Time
	instance string
	bucket   *blob.Bucket
	session  *kafka.Session
	pipe     *pipeline.Pipeline
	epochs   *epochs
	archive  archiveState
	metrics  *metrics

	paused  atomic.Bool
	state   atomic.Value // string: starting, running, stopping
	stopped chan struct{}
}

// archiveState is the archive, which comes and goes apart from the engine.
type archiveState struct {
	mu  sync.Mutex
	now *clickhouse.Archive // nil: not started yet, or not wanted
	err error               // what keeps it

	stats *clickhouse.Stats // of the last one; nil: there was none yet
}

// tempo is what a demo changes of the configuration: the wall, and with it every
// span that is measured by it.
type tempo struct {
	now                          func() schemas.Millis
	speed                        float64 // of now against real time; 0: the same
	grace, maxSkew, maxAge       schemas.Millis
	maxJump                      schemas.Millis // 0: any, as where the wall is made up
	window, lazy, snapshotsEvery schemas.Millis
}

// ahead is how far an event time may lie after its record's timestamp (design 4).
const ahead = 5 * schemas.Minute

// undecided is how much longer than its time-out a transaction may be open: brokers look
// for expired ones every 10 s.
const undecided = 20 * time.Second

// slice is how many timers of silent users fire between two batches at most.
const slice = 4096

func millis(d time.Duration) schemas.Millis { return schemas.Millis(d.Milliseconds()) }

// tempo is the configured one, in real time.
func (c *Config) tempo() tempo {
	return tempo{
		now: wall, grace: millis(c.Clock.Grace), maxSkew: millis(c.Clock.MaxSkew), maxAge: millis(c.Clock.MaxAge), maxJump: millis(c.Clock.MaxJump),
		window: millis(c.Dedup.Window), lazy: 5 * schemas.Second, snapshotsEvery: millis(c.Snapshots.Every),
	}
}

// newEngine joins the group; run does the rest. rebuild is the operator's word to
// go on without a usable snapshot.
func newEngine(ctx context.Context, c *Config, log *zap.Logger, t tempo, rebuild bool) (*engine, error) {
	contract := c.contract()
	rules, err := c.rules()
	if err != nil {
		return nil, err
	}
	e := &engine{conf: c, tempo: t, log: log, started: time.Now(), stopped: make(chan struct{})}
	e.state.Store("starting")
	e.metrics = newMetrics(e)
	if err := e.checkTopics(ctx); err != nil {
		return nil, err
	}
	if e.bucket, err = openBucket(ctx, c); err != nil {
		return nil, err
	}
	k := c.kafka()
	k.Now, k.Log = t.now, log.Named("kafka")
	e.instance = k.Instance
	topics := &c.Kafka.Topics
	if e.session, err = kafka.New(ctx, k, topics.Triggers, topics.Muted, topics.DeadLetters); err != nil {
		return nil, errors.Join(err, e.bucket.Close())
	}
	sink, err := triggers.New(triggers.Config{
		Group: c.Kafka.Group, Input: topics.Events,
		Triggers: topics.Triggers, Muted: topics.Muted, DeadLetters: topics.DeadLetters,
		Currency: contract.Currency, Now: t.now,
		Wait: c.Kafka.TransactionTimeout + undecided,
	}, e.session)
	if err != nil {
		e.close()
		return nil, err
	}
	e.pipe = pipeline.New(pipeline.Config{
		Worker: worker.Config{
			Rules: rules, Ahead: ahead, MaxSkew: t.maxSkew, MaxAge: t.maxAge,
			DedupWindow: t.window, DedupBudget: c.Dedup.Budget, Lane: c.Kafka.Lane, Slice: slice,
		},
		Decoder: func() *schemas.Decoder {
			d, err := schemas.NewDecoder(contract)
			if err != nil {
				panic(err) // it could be made above
			}
			return d
		},
		Source: e.session, Committer: sink,
		History: struct {
			*kafka.Session // Bounds, Input
			said
		}{e.session, sink},
		Past:      e.past(),
		Snapshots: snapshot.NewStore(snapshot.Blob{Bucket: e.bucket}, c.Snapshots.Keep),
		Layout:    pipeline.Layout{Topic: topics.Events, ID: e.session.TopicID(), Partitions: e.session.Partitions()},
		Elapsed:   func() time.Duration { return time.Since(e.started) },
		Now:       t.now, Grace: t.grace, JumpMax: t.maxJump, LazyCommit: t.lazy, SnapshotEvery: t.snapshotsEvery, DeltasMax: c.Snapshots.Deltas,
		Backoff: backoff, Paused: e.paused.Load, Address: c.address(), Rebuild: rebuild,
		Report: e.report,
		Counted: func(partition int32, rules *segment.Program, of segment.Count) {
			e.epochs.counted(partition, rules, of)
		},
	})
	e.epochs = newEpochs(c, log.Named("epochs"), rules, e.session.Partitions(), e.pipe.Switch)
	return e, nil
}

// checkTopics refuses topics that cannot work (missing, or with unequal numbers of
// partitions) and warns of what will hurt later.
func (e *engine) checkTopics(ctx context.Context) error {
	cl, err := e.conf.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := e.conf.allowed(ctx, cl, e.conf.runNeeds()); err != nil {
		return err
	}
	found, err := existing(ctx, e.conf, cl)
	if err != nil {
		return err
	}
	problems, err := checkTopics(ctx, e.conf, cl)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range problems {
		errs = append(errs, fmt.Errorf("%s; %s", p.What, p.Remedy))
	}
	t := &e.conf.Kafka.Topics
	for _, name := range []string{t.Events, t.Triggers, t.Muted, t.DeadLetters, e.conf.controlTopic()} {
		if found[name] == 0 || name != e.conf.controlTopic() && found[name] != found[t.Events] {
			return errors.Join(errs...)
		}
	}
	short, keeps, err := retention(ctx, e.conf, kadm.NewClient(cl))
	if err != nil {
		return fmt.Errorf("kafka: retention of the topics: %w", err)
	}
	for _, p := range append(problems, short...) {
		e.log.Warn("topics", zap.String("what", p.What), zap.String("remedy", p.Remedy))
	}
	e.metrics.retention(keeps)
	return nil
}

// said is the half of pipeline.History that reads the outputs.
type said interface {
	Said(ctx context.Context, partition int32, after, to uint64, each func(*worker.Item) error) error
	SaidAll(ctx context.Context, partition int32, to uint64, each func(*worker.Item) error) error
	Last(ctx context.Context, partition int32) (n uint64, err error)
}

// past is what ClickHouse has of records that retention has removed from the log.
func (e *engine) past() pipeline.Past {
	if !e.conf.ClickHouse.Enabled {
		return nil
	}
	return &clickhouse.Past{DSN: e.conf.clickhouseDSN(), Topic: e.conf.Kafka.Topics.Events}
}

// backoff waits before attempt n: 10 ms, doubled up to 2 s, with jitter.
func backoff(ctx context.Context, attempt int) {
	d := min(10*time.Millisecond<<min(attempt, 10), 2*time.Second)
	d = d/2 + rand.N(d/2) //nolint:gosec // jitter needs no secrecy
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// report tells the log and the metrics what happened.
func (e *engine) report(f pipeline.Fact) {
	level, message, fields := f.Log()
	e.log.Log(level, message, fields...)
	e.metrics.fact(f)
}

// run runs the instance until ctx ends; then it drains, commits, takes snapshots
// and leaves the group. It closes the engine.
func (e *engine) run(ctx context.Context) error {
	defer close(e.stopped)
	defer e.close()
	var wg sync.WaitGroup
	defer wg.Wait()
	beside, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()

	known := make(chan error, 1)
	var once sync.Once
	log := e.log.Named("control")
	turn := &killSwitch{log: log, each: func(s control) {
		if e.paused.Swap(s.Paused) != s.Paused {
			e.log.Warn("kill switch", zap.Bool("paused", s.Paused), zap.String("by", s.By), zap.String("reason", s.Reason))
		}
		once.Do(func() { known <- nil })
	}}
	wg.Go(func() {
		for attempt := 1; ; attempt++ {
			err := watchControl(beside, e.conf, log, e.epochs, turn)
			once.Do(func() { known <- err })
			if err == nil || beside.Err() != nil {
				return
			}
			e.log.Error("the control topic can't be read; kill switch and epochs stay as they were, and it is looked for again", zap.Error(err))
			backoff(beside, attempt)
		}
	})
	wg.Go(func() { e.epochs.run(beside) })
	wg.Go(func() { e.endHanging(beside) })
	select {
	case err := <-known: // nothing is said before it is known whether it may be, and by which bounds
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return nil
	}
	if e.conf.ClickHouse.Enabled {
		wg.Go(func() { e.runArchive(beside) })
		if e.conf.Parity.Every > 0 {
			wg.Go(func() { e.runParity(beside) })
		}
		if e.conf.Forecast.Every > 0 {
			wg.Go(func() { e.runForecast(beside) })
		}
	}
	e.state.Store("running")
	go func() { <-ctx.Done(); e.state.Store("stopping") }()
	return e.pipe.Run(ctx)
}

func (e *engine) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	e.session.Close(ctx)
	if err := e.bucket.Close(); err != nil {
		e.log.Warn("bucket of snapshots not closed", zap.Error(err))
	}
}

// runArchive copies the topics to ClickHouse until ctx ends. It is apart on
// purpose: whatever happens to it delays no trigger.
func (e *engine) runArchive(ctx context.Context) {
	wait := archiveWaitMin
	for {
		began := time.Now()
		err := e.archiveOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > archiveWaitMax {
			wait = archiveWaitMin
		}
		e.archive.set(nil, err)
		e.log.Error("archive stopped and begins again; triggers are not affected", zap.Error(err), zap.Duration("in", wait))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		wait = min(2*wait, archiveWaitMax)
	}
}

// How long the archive waits before it begins again: ClickHouse may be away for long,
// and a log of nothing else helps nobody.
const (
	archiveWaitMin = time.Second
	archiveWaitMax = 15 * time.Second
)

func (e *engine) archiveOnce(ctx context.Context) error {
	db, err := clickhouse.Open(e.conf.clickhouseDSN())
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // nothing is under way
	if err := db.Migrate(ctx); err != nil {
		return err
	}
	opts, err := kafka.Options(e.conf.kafka())
	if err != nil {
		return err
	}
	opts = append(opts, kafka.Protocol(e.conf.Kafka.Protocol).Options()...)
	opts = append(opts, kgo.SessionTimeout(e.conf.Kafka.SessionTimeout))
	if e.conf.Kafka.Instance != "" {
		opts = append(opts, kgo.InstanceID(e.conf.Kafka.Instance)) // a restart takes its partitions back at once
	}
	conf := e.conf.archiveConfig(db, opts)
	conf.Report = e.reportArchive
	a, err := clickhouse.NewArchive(conf)
	if err != nil {
		return err
	}
	e.archive.set(a, nil)
	return kafka.Unreadable(a.Run(ctx))
}

func (e *engine) reportArchive(f archive.Fact) {
	level := zap.InfoLevel
	switch f.(type) {
	case archive.Inserted, archive.Audited:
		level = zap.DebugLevel
	case archive.Doubted, archive.Mended, archive.Waiting, archive.Forgotten, archive.Differed:
		level = zap.WarnLevel
	case archive.Unmendable, archive.Strayed:
		level = zap.ErrorLevel
	}
	e.log.Named("archive").Log(level, f.String())
}

func (a *archiveState) set(now *clickhouse.Archive, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now, a.err = now, err
	if now != nil {
		a.stats = now.Stats()
	}
}

// counted returns the counters of the archive that runs, or ran last.
func (a *archiveState) counted() *clickhouse.Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stats
}

func (a *archiveState) get() (*clickhouse.Archive, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now, a.err
}

// rules are those in force, with their bounds.
func (e *engine) rules() *segment.Program { return e.pipe.Rules() }

// live tells how many partitions this instance has, and what keeps it from being ready;
// empty: it has its share of the group's, and all of them are recovered.
func (e *engine) live() (partitions int, but string) {
	status := e.pipe.Status()
	switch state := e.state.Load().(string); { //nolint:forcetypeassert // only strings are stored
	case state != "running":
		but = state
	case !e.session.Joined():
		but = "the group has given none yet"
	case slices.ContainsFunc(status, func(s pipeline.Status) bool { return s.Recovering }):
		but = "some recovering"
	}
	return len(status), but
}

// partitions gives what partitions last published, with their ends as they are known by now:
// a partition that waits, such as for a transaction, publishes nothing, and what it does
// not read is just what it lags behind.
func (e *engine) partitions() []pipeline.Status {
	all := e.pipe.Status()
	for i := range all {
		all[i].End = max(all[i].End, e.session.End(all[i].Partition))
	}
	return all
}

// population is how many users are in each segment of each set, in the partitions that
// are live here.
func (e *engine) population() (total []SetStatus) {
	status := e.pipe.Status()
	for _, names := range e.pipe.Rules().Names() {
		set := SetStatus{Set: names.Name}
		for _, name := range names.Segments {
			set.Segments = append(set.Segments, SegmentStatus{Segment: name})
		}
		for _, s := range status {
			if i := setIndex(s.Names, names.Name); i >= 0 && !s.Recovering && slices.Equal(s.Names[i].Segments, names.Segments) { // else it is about to follow
				for j, n := range s.Population[i] {
					set.Segments[j].Users += int64(n)
				}
			}
		}
		total = append(total, set)
	}
	return total
}

// errNeverSeen is of a user of whom a partition that is live here knows nothing.
var errNeverSeen = errors.New("never seen")

// explain asks the worker that owns a user.
func (e *engine) explain(ctx context.Context, user string) (worker.Explanation, int32, error) {
	type answer struct {
		worker.Explanation
		known bool
	}
	partition := kafka.PartitionOf([]byte(user), e.session.Partitions())
	said := make(chan answer, 1) // the worker may say it when nobody waits any more
	err := e.pipe.Ask(ctx, partition, func(w *worker.Worker) {
		ex, known := w.Explain(user)
		said <- answer{ex, known}
	})
	if err != nil {
		return worker.Explanation{}, partition, err
	}
	a := <-said
	if !a.known {
		err = fmt.Errorf("user %q was %w in partition %d", user, errNeverSeen, partition)
	}
	return a.Explanation, partition, err
}
