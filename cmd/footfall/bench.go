package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/snapshot"
	"footfall/schemas"
	"footfall/sources/kafka"
	"footfall/sources/storefront"
)

// benchOptions are the flags of bench.
type benchOptions struct {
	events, users int64
	rate, seconds int
	skew, output  string
}

func newBench(g *global) *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:     "bench",
		GroupID: "engine",
		Short:   "Measure this machine: throughput, latency, memory, recovery",
		Long: `Says what footfall does on this machine, so that you know what to give it. Nothing has to be
set up, and nothing is left behind: the Kafka broker is in this process, the engine is
"footfall run" in a process of its own, as you would start it, with your configuration
(--config, --set segments.sets=...) where you give one, its snapshots in a temporary folder,
and without ClickHouse. It takes about a minute, and half a kilobyte of memory an event.

In turn:
  catch up   --events events of --users users, spread over 200 days, are waiting; time is
             lived again (lane replay), timers included, until what came of them is committed
  memory     stopped (SIGTERM), and started again from the snapshots that it has left; what it
             then holds without garbage, more than one without users, is what users take
  live       --rate events a second for --seconds, each sent when it is due, whatever became
             of the ones before; latency is from that moment until a read_committed consumer
             has the trigger that the event caused
  recovery   killed (SIGKILL), and started again

Every user has at least one event. Which others come is drawn: --skew zipf has few come
often, as in life; uniform has all come alike. Ids have 16 bytes, events about 285 with them.

CPU and memory are those of the engine's process, as its /metrics say; a CPU-second is one
core for one second. Snapshots are taken every 10 s, so that a short run has some (--set
snapshots.every=5m for the usual interval).

Broker, sender and reader share the cores with the engine, and their CPU is told beside its
own. The broker writes to memory, and not to the disks of others: latency on your Kafka is
higher. Run it a few times, on a machine that does nothing else, before you believe it.`,
		Example: `  footfall bench
  footfall bench --events 10000000 --users 2000000 --rate 20000
  footfall bench --set segments.sets=lifecycle,rfm,./vip.yaml
  footfall bench --events 300000 --users 100000 --seconds 10 --output json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			b, err := newBenching(g, &o, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			r, err := b.run(cmd.Context())
			if err != nil {
				return err
			}
			if o.output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(r)
			}
			return r.print(cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.Int64Var(&o.events, "events", 3_000_000, "how many events are waiting")
	f.Int64Var(&o.users, "users", 1_000_000, "of how many users they are")
	f.StringVar(&o.skew, "skew", "zipf", "who comes how often: zipf (few come often) or uniform")
	f.IntVar(&o.rate, "rate", 5000, "events a second of the live part")
	f.IntVar(&o.seconds, "seconds", 30, "how long the live part takes")
	f.StringVar(&o.output, "output", "text", "text or json")
	return cmd
}

// Limits of bench. More would not fit into the memory of a broker in this process.
const (
	benchEventsMax  = 1_000_000_000
	benchRateMax    = 1_000_000
	benchSecondsMax = 3600
)

func (o *benchOptions) check() error {
	errs := []error{oneOf("skew", o.skew, "zipf", "uniform"), oneOf("output", o.output, "text", "json")}
	bad := func(format string, args ...any) {
		errs = append(errs, &usageError{fmt.Errorf(format, args...)})
	}
	within := func(flag string, n, most int64) {
		if n < 1 || n > most {
			bad("--%s %d: want 1 to %s", flag, n, grouped(most))
		}
	}
	within("events", o.events, benchEventsMax)
	within("users", o.users, benchEventsMax)
	within("rate", int64(o.rate), benchRateMax)
	within("seconds", int64(o.seconds), benchSecondsMax)
	if o.users > o.events {
		bad("--users %d: every user has an event, and there are --events %d; want at most so many users", o.users, o.events)
	}
	return errors.Join(errs...)
}

// benching is one run of bench.
type benching struct {
	g    *global
	o    *benchOptions
	conf *Config
	say  io.Writer

	dir    string
	broker *kafka.Local
	client *kgo.Client
	crowd  *storefront.Crowd
	usage  *selfUsage
	empty  float64 // bytes that the engine holds without users
	result *benchResult
}

func newBenching(g *global, o *benchOptions, say io.Writer) (*benching, error) {
	conf, err := g.config()
	if err != nil {
		return nil, err
	}
	rules, err := conf.rules()
	if err != nil {
		return nil, err
	}
	b := &benching{g: g, o: o, conf: conf, say: say, usage: newSelfUsage()}
	b.crowd, err = storefront.NewCrowd(storefront.CrowdConfig{Users: o.users, Events: o.events, Uniform: o.skew == "uniform", Currency: conf.Shop.Currency})
	if err != nil {
		return nil, &usageError{err}
	}
	if conf.from["snapshots.every"] == "" {
		conf.Snapshots.Every = 10 * time.Second
	}
	conf.Kafka.TLS, conf.Kafka.SASL = TLSConfig{}, SASLConfig{}
	conf.Kafka.Replication, conf.Kafka.Lane = 1, schemas.Replay
	b.result = &benchResult{
		Version: buildVersion(), Cores: runtime.GOMAXPROCS(0),
		Users: o.users, Skew: o.skew, Partitions: conf.Kafka.Partitions,
		Rules: fmt.Sprintf("%016x", rules.Hash()), Sets: setNames(rules.Names()),
		Snapshots: benchSnapshots{Every: formatDuration(conf.Snapshots.Every)},
	}
	return b, nil
}

// run measures one thing after the other.
func (b *benching) run(ctx context.Context) (r *benchResult, err error) {
	if b.dir, err = os.MkdirTemp("", "footfall-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		_ = os.RemoveAll(b.dir)
		if err != nil && ctx.Err() != nil {
			err = ctx.Err() // whatever came of that
		}
	}()
	b.conf.Snapshots.Bucket = "file://" + filepath.ToSlash(filepath.Join(b.dir, "snapshots"))
	if err := b.startKafka(ctx); err != nil {
		return nil, err
	}
	defer b.broker.Close()
	defer b.client.Close()
	if err := b.without(ctx); err != nil {
		return nil, err
	}
	if err := b.publish(ctx); err != nil {
		return nil, err
	}
	e, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { e.kill() }()
	if err := b.catchUp(ctx, e); err != nil {
		return nil, err
	}
	if err := e.stop(ctx); err != nil {
		return nil, err
	}
	if e, err = b.recover(ctx, &b.result.Recovery.Stopped); err != nil {
		return nil, err
	}
	if err := b.memory(ctx, e); err != nil {
		return nil, err
	}
	if err := b.live(ctx, e); err != nil {
		return nil, err
	}
	e.kill()
	if err := b.snapshots(ctx); err != nil {
		return nil, err
	}
	if e, err = b.recover(ctx, &b.result.Recovery.Killed); err != nil {
		return nil, err
	}
	return b.result, b.window(ctx, e)
}

func (b *benching) startKafka(ctx context.Context) (err error) {
	if b.broker, err = kafka.StartLocal(kafka.LocalConfig{}); err != nil {
		return err
	}
	b.conf.Kafka.Brokers = []string{b.broker.Addr()}
	if b.client, err = b.conf.connect(ctx); err != nil {
		b.broker.Close()
		return err
	}
	problems, err := createTopics(ctx, b.conf, b.client, io.Discard)
	for _, p := range problems {
		err = errors.Join(err, errors.New(p.String()))
	}
	if err != nil {
		b.client.Close()
		b.broker.Close()
	}
	return err
}

// without has the group begin on the empty topic: what comes later is news then, and no
// history from before its time. What the engine holds without users is taken there.
func (b *benching) without(ctx context.Context) error {
	e, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer e.kill()
	if b.empty, err = e.held(ctx); err != nil {
		return err
	}
	return e.stop(ctx)
}

// benchSpan is how much time the events that wait are spread over: long enough for timers
// of the lifecycle set to come due.
const benchSpan = 200 * schemas.Day

// publish puts what is to be caught up with into the events topic.
func (b *benching) publish(ctx context.Context) error {
	pub, err := b.conf.publisher(ctx, storefront.PublisherConfig{Lane: schemas.Replay})
	if err != nil {
		return err
	}
	began := time.Now()
	bar := newBenchBar(b.say, "publishing", b.o.events)
	from := wall() - benchSpan
	for n := int64(0); n < b.o.events && err == nil; n++ {
		err = pub.Publish(ctx, b.crowd.Next(from+schemas.Millis(float64(benchSpan)*float64(n)/float64(b.o.events))))
		bar.set(n + 1)
	}
	bar.end()
	if err := errors.Join(err, pub.Close()); err != nil {
		return err
	}
	n := pub.Counts()
	b.result.CatchUp.Events, b.result.CatchUp.EventBytes = n.Acked, n.Bytes/n.Acked
	b.done("published %s events in %.1f s", grouped(n.Acked), time.Since(began).Seconds())
	return nil
}

// catchUp waits until a started engine has applied all that waited for it, and has committed
// what came of it.
func (b *benching) catchUp(ctx context.Context, e *benchEngine) error {
	r := &b.result.CatchUp
	others := b.usage.cpu()
	bar := newBenchBar(b.say, "catching up", b.o.events)
	watched := e.watch(ctx, func(m series) { bar.set(int64(m[appliedMetric])) })
	err := b.committed(ctx, e)
	ended := time.Now()
	peak := watched()
	bar.end()
	if err != nil {
		return err
	}
	m, err := e.metrics(ctx)
	if err != nil {
		return err
	}
	r.Seconds, r.CPU = ended.Sub(e.firstLive()).Seconds(), m[cpuMetric]
	if r.PerSecond = float64(r.Events) / r.Seconds; r.CPU > 0 {
		r.PerCPU = float64(r.Events) / r.CPU
	}
	r.OthersCPU = b.usage.cpu() - others
	b.result.Memory.Peak = int64(peak)
	if m, err = b.counted(ctx, e, r.Events); err != nil {
		return err
	}
	r.Transitions, r.Timers = int64(m[transitionsMetric]), int64(m[timersMetric])
	if err := b.topics(ctx); err != nil {
		return err
	}
	b.done("caught up with them in %.1f s", r.Seconds)
	return nil
}

// committed waits until all that is in the events topic, and what came of it, is committed.
func (b *benching) committed(ctx context.Context, e *benchEngine) error {
	ends, err := kadm.NewClient(b.client).ListEndOffsets(ctx, b.conf.Kafka.Topics.Events)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("kafka: end of topic %s: %w", b.conf.Kafka.Topics.Events, err)
	}
	return e.until(ctx, func() (bool, error) {
		found, err := marks(ctx, b.conf, b.client)
		if err != nil {
			return false, err
		}
		behind := false
		ends.Each(func(end kadm.ListedOffset) {
			behind = behind || found[end.Partition].Next < end.Offset
		})
		return !behind, nil
	})
}

// topics looks at what events and transitions take in the topics of the broker.
func (b *benching) topics(ctx context.Context) error {
	dirs, err := kadm.NewClient(b.client).DescribeAllLogDirs(ctx, nil)
	if err != nil {
		return fmt.Errorf("kafka: size of the topics: %w", err)
	}
	sizes := map[string]int64{}
	dirs.Each(func(d kadm.DescribedLogDir) {
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) { sizes[p.Topic] += p.Size })
	})
	t, r := &b.conf.Kafka.Topics, b.result
	r.Topics.EventBytes = float64(sizes[t.Events]) / float64(r.CatchUp.Events)
	r.Topics.TransitionBytes = float64(sizes[t.Triggers]+sizes[t.Muted]) / float64(max(1, r.CatchUp.Transitions))
	return nil
}

// counted waits until the engine's counters have what it has applied, and sees that it is
// every event, once, of all users.
func (b *benching) counted(ctx context.Context, e *benchEngine, events int64) (m series, err error) {
	err = e.until(ctx, func() (bool, error) {
		m, err = e.metrics(ctx)
		return int64(m[appliedMetric]+m[duplicatesMetric]+m[deadLettersMetric]) >= events, err
	})
	if err != nil {
		return nil, err
	}
	if int64(m[appliedMetric]) != events || int64(m[usersMetric]) != b.o.users {
		return nil, fmt.Errorf("%s events of %s users were sent, and the engine has applied %s of %s, %s duplicates and %s dead letters beside: that is a fault of footfall",
			grouped(events), grouped(b.o.users), grouped(int64(m[appliedMetric])), grouped(int64(m[usersMetric])),
			grouped(int64(m[duplicatesMetric])), grouped(int64(m[deadLettersMetric])))
	}
	return m, nil
}

// recover starts the engine again, and measures until every partition is live.
func (b *benching) recover(ctx context.Context, r *benchRecovery) (*benchEngine, error) {
	e, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.live {
		r.Seconds = max(r.Seconds, l.at.Sub(e.began).Seconds())
		r.Load += float64(l.line.Load) / 1000
		r.ReadBack += float64(l.line.ReadBack) / 1000
		r.Replay += float64(l.line.Replay) / 1000
		r.Replayed += l.line.Replayed
		r.Users += l.line.Users
	}
	b.done("came back in %.1f s", r.Seconds)
	return e, nil
}

// snapshots looks at what the engine has left in the bucket.
func (b *benching) snapshots(ctx context.Context) error {
	bucket, err := openBucket(ctx, b.conf)
	if err != nil {
		return err
	}
	defer func() { _ = bucket.Close() }()
	found, err := listSnapshots(ctx, bucket)
	if err != nil {
		return err
	}
	r := &b.result.Snapshots
	sizes := map[snapshot.ID]int64{}
	for _, f := range found {
		sizes[f.id] = f.bytes
		r.Kept += f.bytes
	}
	store := snapshot.NewStore(snapshot.Blob{Bucket: bucket}, b.conf.Snapshots.Keep)
	last := int32(-1)
	for _, f := range found {
		if f.id.Partition == last { // the newest comes first
			continue
		}
		last = f.id.Partition
		for id := f.id; ; {
			r.Bytes += sizes[id]
			upon, err := store.Upon(ctx, id)
			if err != nil {
				return err
			}
			if upon == nil {
				break
			}
			id = upon.ID
		}
	}
	r.UserBytes = float64(r.Bytes) / float64(b.o.users)
	return nil
}

// benchTellMin is how few users, or ids, are too few to tell what one takes: what else a
// process holds is as much.
const benchTellMin = 100_000

// memory looks at what users take.
func (b *benching) memory(ctx context.Context, e *benchEngine) error {
	held, err := e.held(ctx)
	if err != nil {
		return err
	}
	r := &b.result.Memory
	r.Held, r.Empty = int64(held), int64(b.empty)
	r.UserBytes = perEach(held-b.empty, b.o.users)
	return nil
}

// window looks at what the ids of the live part take, which are remembered.
func (b *benching) window(ctx context.Context, e *benchEngine) error {
	held, err := e.held(ctx)
	if err != nil {
		return err
	}
	b.result.Memory.IDBytes = perEach(held-float64(b.result.Memory.Held), b.result.Live.Events)
	return nil
}

// perEach is what one of so many takes; nil: it can't be told.
func perEach(bytes float64, of int64) *float64 {
	if of < benchTellMin {
		return nil
	}
	bytes /= float64(of)
	return &bytes
}

// done says what is done, of a run that takes a while.
func (b *benching) done(format string, args ...any) { fmt.Fprintf(b.say, format+"\n", args...) }

// benchBar shows progress on a terminal, and nothing elsewhere.
type benchBar struct{ bar *progressbar.ProgressBar }

func newBenchBar(to io.Writer, what string, of int64) *benchBar {
	if !isTerminal(to) {
		return &benchBar{}
	}
	return &benchBar{progressbar.NewOptions64(of,
		progressbar.OptionSetWriter(to), progressbar.OptionSetDescription(what), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
		progressbar.OptionFullWidth(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())}
}

func (b *benchBar) set(n int64) {
	if b.bar != nil && (n%1024 == 0 || n < 1024) {
		_ = b.bar.Set64(min(n, b.bar.GetMax64())) // a bar that can't be drawn is no reason to stop
	}
}

func (b *benchBar) end() {
	if b.bar != nil {
		_ = b.bar.Finish()
	}
}
