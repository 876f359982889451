package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"footfall/schemas"
	"footfall/sinks/clickhouse/chdb"
	"footfall/sources/file"
	"footfall/sources/kafka"
	"footfall/sources/storefront"
)

// demoOptions are the flags of demo.
type demoOptions struct {
	from, mapping, dump, dir, output string

	span     string
	length   time.Duration // span
	speed    string
	rate     float64
	history  string
	seed     uint64
	headless bool
}

func newDemo(g *global) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:     "demo",
		GroupID: "engine",
		Short:   "See all of it work, with nothing to install",
		Long: `Starts a Kafka and a ClickHouse of its own (the real engine, got once with npm), a simulated
storefront and the engine, lets time run fast (a day a second), and shows what happens:
shoppers moving between segments, by what they do and by what they don't do. At the end, an
independent oracle reads all topics and ClickHouse and counts what was lost or doubled, and
what storefront and engine have counted themselves is compared with what it finds.

Ctrl-C ends it cleanly with a summary. Everything is on loopback, and removed at the end
unless --dir says where to keep it.

With --from, a recorded file takes the storefront's place: it is replayed in log time, as
fast as it goes, and the demo ends when all of it is through.

With --dump, the topics are kept as they were: input.ndjson, triggers.ndjson, muted.ndjson and
deadletters.ndjson, one record a line, with topic, partition, offset, timestamp (in Unix
milliseconds), key, headers and value. Keys, values and the values of headers are in base64,
since they may be any bytes; a key or value that there is none of is null.`,
		Example: `  footfall demo
  footfall demo --speed 1x --rate 50
  footfall demo --for 30s --headless --output json
  footfall demo --from 2019-Oct.csv.gz --mapping rees46 --headless --dump ./dump`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(oneOf("output", o.output, "text", "json"), o.check()); err != nil {
				return err
			}
			d, err := newDemonstration(g, &o, cmd.OutOrStdout(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return d.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "", "replay recorded events from a `FILE` instead of the simulated storefront")
	f.StringVar(&o.mapping, "mapping", "", "`NAME` of a built-in mapping, or a YAML file, for --from")
	f.StringVar(&o.span, "for", "", "stop after that `duration`, such as 30s, counted from the first record (default until Ctrl-C)")
	f.StringVar(&o.speed, "speed", "86400x", "how fast time runs: 1x is real time, 86400x a day a second")
	f.Float64Var(&o.rate, "rate", 1500, "events a second, about")
	f.StringVar(&o.history, "history", "", "how long the shop has been open when the demo begins, a `duration` (default 200d, less where that would be more than 300,000 events)")
	f.Uint64Var(&o.seed, "seed", 1, "of the simulated storefront: the same seed, the same shop")
	f.BoolVar(&o.headless, "headless", false, "no live view")
	f.StringVar(&o.output, "output", "text", "of the summary: text, or json (one line)")
	f.StringVar(&o.dump, "dump", "", "keep the topics as NDJSON in a `DIR`, for outside checkers")
	f.StringVar(&o.dir, "dir", "", "keep snapshots and ClickHouse's tables in a `DIR`, a new one or empty (default a temporary one)")
	return cmd
}

func (o *demoOptions) check() error {
	var errs []error
	if (o.from == "") != (o.mapping == "") {
		errs = append(errs, &usageError{fmt.Errorf("--from and --mapping go together; mappings are %s, or a YAML file", strings.Join(file.Mappings(), ", "))})
	}
	if _, err := o.factor(); err != nil {
		errs = append(errs, err)
	}
	if o.span != "" {
		var err error
		if o.length, err = parseDuration(o.span); err != nil {
			errs = append(errs, &usageError{fmt.Errorf("--for %w", err)})
		}
	}
	if !(o.rate > 0 && o.rate <= rateMax) {
		errs = append(errs, &usageError{fmt.Errorf("--rate %v: want more than 0, at most %s", o.rate, grouped(rateMax))})
	}
	return errors.Join(errs...)
}

func (o *demoOptions) factor() (float64, error) {
	x, err := strconv.ParseFloat(strings.TrimSuffix(o.speed, "x"), 64)
	if err != nil || !(x >= 1 && x <= 864000) {
		return 0, &usageError{fmt.Errorf("--speed %s: want 1x to 864000x", o.speed)}
	}
	return x, nil
}

// demonstration is one run of demo.
type demonstration struct {
	o        *demoOptions
	conf     *Config
	out, err io.Writer
	log      *zap.Logger
	clock    *demoClock
	tempo    tempo
	dir      string
	shop     *storefront.Shop // or
	file     *file.Reader
	lane     schemas.Lane

	broker *kafka.Local
	house  *chdb.Local
	engine *engine
	view   *demoView

	tally storefront.Tally // of what the storefront has sent
	acked int64            // records that the broker has acknowledged
}

// fastSpeed is the speed from which on the shop's days go by while one watches.
const fastSpeed = 3600

// demoStart is where the simulated shop's time begins.
const demoStart = schemas.Millis(1_735_689_600_000) // 2025-01-01

func newDemonstration(g *global, o *demoOptions, out, stderr io.Writer) (*demonstration, error) {
	conf, err := g.config()
	if err != nil {
		return nil, err
	}
	if _, err := conf.rules(); err != nil {
		return nil, err
	}
	d := &demonstration{o: o, conf: conf, out: out, err: stderr, log: zap.NewNop()}
	if conf.Log.Level == "debug" {
		if d.log, err = newLogger(conf); err != nil {
			return nil, err
		}
	}
	if o.from != "" {
		return d, d.replay()
	}
	return d, d.simulate()
}

// replay prepares a run on a recorded file: log time, in which nothing is stale
// and no wall is ahead.
func (d *demonstration) replay() error {
	m, err := file.LoadMapping(d.o.mapping)
	if err != nil {
		return &usageError{err}
	}
	if d.file, err = file.Open(d.o.from, m, file.Options{}); err != nil {
		return err
	}
	if currency := m.Fields["currency"].Constant; currency != "" && d.conf.from["shop.currency"] == "" {
		d.conf.Shop.Currency = currency // the file's own, unless another was asked for
	}
	d.lane = schemas.Replay
	d.clock = newDemoClock(0, 0)
	d.tempo = tempo{
		now: d.clock.Now, grace: 2 * schemas.Second, maxSkew: 100 * 365 * schemas.Day, maxAge: 100 * 365 * schemas.Day,
		window: millis(d.conf.Dedup.Window), snapshotsEvery: schemas.Day,
	}
	return nil
}

// simulate prepares a run on a simulated shop: the wall runs fast, and every span
// that is measured by the wall with it.
func (d *demonstration) simulate() error {
	speed, err := d.o.factor()
	if err != nil {
		return err
	}
	history, err := d.o.past(speed)
	if err != nil {
		return err
	}
	start := demoStart
	if speed < fastSpeed {
		start += 12 * schemas.Hour // whoever watches it in real time should not have to wait for the morning
	}
	shoppers := min(max(int(d.o.rate*86400/speed/storefront.EventsPerShopperDay), 100), 1_000_000)
	d.shop, err = storefront.New(storefront.Config{
		Seed: d.o.seed, Start: start, History: millis(history), Shoppers: shoppers, Currency: d.conf.Shop.Currency,
		Ahead: schemas.Millis(10_000 * speed), // beyond what a busy machine is late
	})
	if err != nil {
		return err
	}
	d.clock = newDemoClock(start, speed)
	scale := func(t time.Duration) schemas.Millis { return schemas.Millis(float64(millis(t)) * speed) }
	d.tempo = tempo{
		now: d.clock.Now, speed: speed, grace: scale(d.conf.Clock.Grace), maxSkew: scale(d.conf.Clock.MaxSkew), maxAge: scale(d.conf.Clock.MaxAge),
		window: scale(d.conf.Dedup.Window), snapshotsEvery: scale(5 * time.Second),
	}
	return nil
}

// run is the demo from start to summary.
func (d *demonstration) run(ctx context.Context) (err error) {
	defer func() {
		if d.file != nil {
			_ = d.file.Close()
		}
	}()
	remove, err := d.place()
	if err != nil {
		return err
	}
	defer remove()
	if err := d.startKafka(ctx); err != nil {
		return err
	}
	defer d.broker.Close()
	if err := d.startClickHouse(ctx); err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, d.house.Stop(stopping))
	}()
	report, err := d.live(ctx)
	if err != nil {
		return err
	}
	return d.summarise(report)
}

// place makes the directory for snapshots and tables.
func (d *demonstration) place() (remove func(), err error) {
	if d.o.dir != "" {
		if d.dir, err = filepath.Abs(d.o.dir); err != nil { // a bucket's address has no other
			return nil, err
		}
		if left, err := os.ReadDir(d.dir); err == nil && len(left) > 0 {
			return nil, &usageError{fmt.Errorf("--dir %s: it is not empty; the demo's Kafka is a new one each time, so snapshots and tables of another do not fit it: name a new folder", d.o.dir)}
		}
		return func() {}, os.MkdirAll(d.dir, 0o700)
	}
	d.dir, err = os.MkdirTemp("", "footfall-demo-")
	return func() { _ = os.RemoveAll(d.dir) }, err
}

func (d *demonstration) say(format string, args ...any) { fmt.Fprintf(d.err, format+"\n", args...) }

func (d *demonstration) startKafka(ctx context.Context) (err error) {
	if d.broker, err = kafka.StartLocal(kafka.LocalConfig{}); err != nil {
		return err
	}
	c := d.conf
	c.Kafka.Brokers, c.Kafka.Instance = []string{d.broker.Addr()}, "demo"
	c.Kafka.TLS, c.Kafka.SASL = TLSConfig{}, SASLConfig{} // those of a shop's own Kafka, where its configuration is read
	c.Kafka.Partitions, c.Kafka.Replication, c.Kafka.Lane = 8, 1, d.lane
	c.Clock.Tick = 100 * time.Millisecond
	c.Snapshots.Bucket = "file://" + filepath.ToSlash(filepath.Join(d.dir, "snapshots"))
	d.say("Kafka (in this process) at %s", d.broker.Addr())
	cl, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	problems, err := createTopics(ctx, c, cl, io.Discard)
	for _, p := range problems {
		err = errors.Join(err, errors.New(p.String()))
	}
	return err
}

func (d *demonstration) startClickHouse(ctx context.Context) error {
	show := newFetchBar(d.err)
	library, err := chdb.Fetch(ctx, show.progress)
	show.end()
	if err != nil {
		return err
	}
	d.house, err = chdb.StartLocal(ctx, chdb.LocalOptions{Library: library, Dir: filepath.Join(d.dir, "clickhouse")})
	if err != nil {
		return err
	}
	d.conf.ClickHouse.DSN, d.conf.ClickHouse.Enabled = "http://"+d.house.Addr(), true
	d.conf.ClickHouse.Username, d.conf.ClickHouse.Password = "default", ""
	d.conf.ClickHouse.Batch.Age = 500 * time.Millisecond
	d.say("ClickHouse (the real engine, in a helper process) at http://%s", d.house.Addr())
	return nil
}

// live runs engine, storefront and view, waits until everything published is
// through, stops the engine, and judges.
func (d *demonstration) live(ctx context.Context) (*demoReport, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d.conf.HTTP.Listen, d.conf.HTTP.Advertise = listener.Addr().String(), listener.Addr().String()
	if d.engine, err = newEngine(ctx, d.conf, d.log, d.tempo, false); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	all, work := errgroup.WithContext(running)
	all.Go(func() error { return d.engine.serve(work, listener) })
	all.Go(func() error { return d.engine.run(work) })
	watch, err := newDemoWatch(d.conf, d.engine.rules().Names())
	if err != nil {
		stop()
		return nil, errors.Join(err, all.Wait())
	}
	all.Go(func() error { return watch.run(work) })

	err = d.act(ctx, work, watch)
	counts := d.counted()
	stop()
	// What stopped the engine explains more than what then failed without it.
	if failed := all.Wait(); failed != nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	return d.judge(context.WithoutCancel(ctx), watch, &counts)
}

// act waits for the engine, plays the storefront, and waits until all is through.
func (d *demonstration) act(ctx, work context.Context, watch *demoWatch) error {
	if err := d.ready(work); err != nil {
		return err
	}
	playing, end := context.WithCancel(ctx)
	defer end()
	if d.o.length > 0 {
		time.AfterFunc(d.o.length, end)
	}
	d.view = newDemoView(d, watch)
	ended := make(chan error, 1)
	if !d.o.headless && isTerminal(d.err) {
		go func() { ended <- d.view.run(playing, end) }()
	} else {
		d.hints()
		ended <- nil
	}
	err := d.play(playing, work)
	if err == nil && d.o.length == 0 && d.file == nil {
		<-playing.Done()
	}
	d.clock.Stop()
	d.view.drained()
	if err == nil {
		err = d.through(work)
	}
	end()
	return errors.Join(err, <-ended)
}

// ready waits until all partitions are live and the archive has begun.
func (d *demonstration) ready(ctx context.Context) error {
	return d.until(ctx, func() (bool, error) {
		n, but := d.engine.live()
		a, _ := d.engine.archive.get()
		return but == "" && n == d.conf.Kafka.Partitions && a != nil, nil
	})
}

// until looks again and again until something holds.
func (d *demonstration) until(ctx context.Context, holds func() (bool, error)) error {
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-d.engine.stopped:
			return errors.New("the engine has stopped")
		case <-d.house.Done():
			return fmt.Errorf("the ClickHouse helper process has ended: %w", d.house.Err())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// play publishes the shop, until ctx ends, or the file.
func (d *demonstration) play(ctx, work context.Context) error {
	pub, err := d.conf.publisher(work, storefront.PublisherConfig{Lane: d.lane, Wall: d.clock.Now})
	if err != nil {
		return err
	}
	if d.shop != nil {
		err = storefront.Run(ctx, d.shop, pub, &opening{demoClock: d.clock, d: d, work: work}, &d.tally)
	} else {
		err = d.playFile(ctx, pub)
	}
	err = errors.Join(err, pub.Close())
	d.acked = pub.Counts().Acked
	return err
}

// opening is the demo's clock, which begins to run when the shop's history is
// applied: latency is of a shop that is open, not of reading its past.
type opening struct {
	*demoClock
	d    *demonstration
	work context.Context //nolint:containedctx // the life of the engine
	open bool
}

// Now is storefront.Clock; it is first asked when the history is published.
func (o *opening) Now() schemas.Millis {
	if !o.open {
		o.open = true
		_ = o.d.until(o.work, func() (bool, error) { return o.d.applied(o.work) }) // the shop opens all the same
		o.Start()
	}
	return o.demoClock.Now()
}

func (d *demonstration) playFile(ctx context.Context, pub *storefront.Publisher) error {
	for ev, err := range d.file.Events() {
		if err != nil {
			return err
		}
		d.clock.Follow(ev.Time)
		err := pub.Publish(ctx, storefront.Record{Key: ev.Key, Value: ev.Value, Time: ev.Time})
		if ctx.Err() != nil {
			return nil // stopped by hand: what was published counts
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// through waits until every record is applied, everything said is committed, and
// all of it is in ClickHouse.
func (d *demonstration) through(ctx context.Context) error {
	if err := d.until(ctx, func() (bool, error) { return d.applied(ctx) }); err != nil {
		return err
	}
	return d.until(ctx, func() (bool, error) {
		a, err := d.engine.archive.get()
		if a == nil {
			return false, err
		}
		behind, err := a.Behind(ctx)
		return behind == 0, err
	})
}

func (d *demonstration) applied(ctx context.Context) (bool, error) {
	for _, s := range d.engine.pipe.Status() {
		_, end, err := d.engine.session.Bounds(ctx, s.Partition)
		if err != nil {
			return false, err
		}
		m, c := s.Mark, s.Committed
		if s.Recovering || m.Next < end || m.Fired < m.Clock || c.Next != m.Next || c.N != m.N || c.Clock != m.Clock {
			return false, nil
		}
		if d.lane == schemas.Live && m.Clock < d.clock.Now()-d.tempo.grace {
			return false, nil // the last tick is still to come
		}
	}
	return true, nil
}

// hints says what a person may try meanwhile, where no live view does.
func (d *demonstration) hints() {
	for _, line := range d.view.hints(math.MaxInt) {
		d.say("%s", line)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
