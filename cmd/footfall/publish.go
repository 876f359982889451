package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
	"footfall/sources/file"
	"footfall/sources/storefront"
)

func newPublish(g *global) *cobra.Command {
	var b brokersFlag
	var p publication
	cmd := &cobra.Command{
		Use:     "publish FILE --mapping NAME",
		GroupID: "events",
		Short:   "Publish recorded events from a file",
		Long: `Puts the events of a file (CSV, text or NDJSON, plain, gzip or zstd) into the events
topic, in time order, keyed by user with Kafka's own partitioner (murmur2). A mapping says
which column is what: a built-in one by name, or a YAML file of your own.

Built-in mappings:
` + mappingList() + `
Lanes: "backfill" (the default) publishes history with record timestamps of now: profiles
take it in, and what it changes is muted. "replay" gives each record its event's time, so
that time itself is lived again; it needs an events topic of its own, made by "topics
create" with kafka.lane replay.

When interrupted, start it again the same way: it goes on where it was, which it keeps in
the offsets of the consumer group GROUP-publish-NAME. Another file of the same name is told
from one that goes on, and refused: give it a --name of its own. Rows that are no event are
counted by reason.`,
		Example: `  footfall publish 2019-Oct.csv.gz --mapping rees46
  footfall publish orders.csv --mapping ./our-orders.yaml --lane replay --topic history`,
		Args: oneArg("file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.path = args[0]
			if p.mapping == "" {
				return &usageError{fmt.Errorf("footfall publish needs --mapping: one of %s, or a file", strings.Join(file.Mappings(), ", "))}
			}
			if err := errors.Join(oneOf("lane", p.lane, "backfill", "replay"), oneOf("output", p.output, "text", "json")); err != nil {
				return err
			}
			if !(p.rate >= 0 && p.rate <= rateMax) {
				return &usageError{fmt.Errorf("--rate %g: want 0 to %s; 0 is as fast as it goes", p.rate, grouped(rateMax))}
			}
			settings := b.settings()
			if p.topic != "" {
				settings = append(settings, setting{"kafka.topics.events", p.topic, "--topic"})
			}
			settings = append(settings, setting{"kafka.lane", p.lane, "--lane"})
			c, err := g.config(settings...)
			if err != nil {
				return err
			}
			return p.run(cmd.Context(), c, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	b.add(cmd)
	cmd.Flags().StringVar(&p.mapping, "mapping", "", "`NAME` of a built-in mapping, or a YAML file")
	cmd.Flags().StringVar(&p.topic, "topic", "", "topic to publish to (kafka.topics.events)")
	cmd.Flags().StringVar(&p.lane, "lane", "backfill", "backfill or replay")
	cmd.Flags().StringVar(&p.name, "name", "", "name of the series, by which an interrupted one is recognised (default FILE and mapping)")
	cmd.Flags().Float64Var(&p.rate, "rate", 0, "records a second (default as fast as it goes)")
	cmd.Flags().BoolVar(&p.again, "again", false, "publish all of it, even if it was published before")
	cmd.Flags().StringVar(&p.output, "output", "text", "text or json")
	return cmd
}

// mappingList is the built-in mappings with their descriptions, for --help.
func mappingList() string {
	var b strings.Builder
	for _, name := range file.Mappings() {
		m, err := file.LoadMapping(name)
		if err != nil {
			panic(fmt.Sprintf("built-in mapping %s: %v", name, err))
		}
		fmt.Fprintf(&b, "  %-18s %s\n", name, m.Description)
	}
	return b.String()
}

// publication is one run of publish.
type publication struct {
	path, mapping, topic, lane, name, output string

	rate  float64
	again bool
}

// published is what a run did.
type published struct {
	Topic     string           `json:"topic"`
	Lane      string           `json:"lane"`
	Rows      int64            `json:"rows"`
	Events    int64            `json:"events"`
	Published int64            `json:"published"`
	Before    int64            `json:"published_before"` // by an interrupted run
	TooLarge  int64            `json:"too_large"`        // refused by the broker
	Skipped   map[string]int64 `json:"rows_skipped"`
	Bytes     int64            `json:"bytes"`
	Seconds   float64          `json:"seconds"`
}

func (p *publication) run(ctx context.Context, c *Config, out, progress io.Writer) error {
	began := time.Now()
	m, err := file.LoadMapping(p.mapping)
	if err != nil {
		return &usageError{err}
	}
	r, err := file.Open(p.path, m, file.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	if currency := c.foreign(m); currency != "" { // the engine may have another configuration
		fmt.Fprintf(progress, "the file's amounts are in %s and the shop's in %s: its orders become dead letters, unless `footfall run` has the rate in shop.rates, or shop.currency=%[1]s\n", currency, c.Shop.Currency)
	}
	lane, _ := schemas.ParseLane(p.lane)
	if lane == schemas.Replay {
		if err := replayable(ctx, c); err != nil {
			return err
		}
	}
	name := p.name
	if name == "" {
		name = filepath.Base(p.path) + " by " + p.mapping
	}
	pub, err := c.publisher(ctx, storefront.PublisherConfig{Lane: lane, Name: name, Group: c.publishGroup(), Rate: p.rate})
	if err != nil {
		return err
	}
	if p.again {
		err = pub.Restart(ctx)
	} else {
		_, err = pub.Resume(ctx)
	}
	if err != nil {
		closed := pub.Close()
		if ctx.Err() != nil {
			return errors.New("interrupted before anything was published")
		}
		return errors.Join(err, closed)
	}
	err = p.all(ctx, r, pub, newBar(progress, r))
	if closed := pub.Close(); err == nil {
		err = closed // else it is the same again
	}
	if err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		n := pub.Counts()
		if other, ok := errors.AsType[*storefront.OtherSeriesError](err); ok {
			return fmt.Errorf("%w; if that was another file, give this one a name of its own by --name; --again publishes all of it (%s published now)", other, counted(n.Acked, "event"))
		}
		return fmt.Errorf("%w; published so far: %s; start it again to go on", err, counted(n.Acked+n.Skipped, "event"))
	}
	n, stats := pub.Counts(), r.Stats()
	result := published{
		Topic: c.Kafka.Topics.Events, Lane: p.lane, Rows: stats.Rows, Events: stats.Events, Published: n.Acked,
		Before: n.Skipped, TooLarge: n.Refused, Skipped: stats.Skipped, Bytes: n.Bytes, Seconds: time.Since(began).Seconds(),
	}
	if p.output == "json" {
		err = json.NewEncoder(out).Encode(result)
	} else {
		err = result.print(out, stats.Reports)
	}
	if err == nil && stats.Rows > 0 && stats.Events == 0 {
		err = fmt.Errorf("%s: none of its rows is an event by %s; footfall validate --mapping shows why", p.path, p.mapping)
	}
	return err
}

// all publishes every event of the file.
func (p *publication) all(ctx context.Context, r *file.Reader, pub *storefront.Publisher, bar *bar) error {
	defer bar.end()
	for ev, err := range r.Events() {
		if err != nil {
			return err
		}
		if err := pub.Publish(ctx, storefront.Record{Key: ev.Key, Value: ev.Value, Time: ev.Time}); err != nil {
			return err
		}
		bar.step()
	}
	return pub.Whole()
}

func (s *published) print(out io.Writer, reports []string) error {
	var b strings.Builder
	for _, report := range reports {
		fmt.Fprintln(&b, report)
	}
	fmt.Fprintf(&b, "published %s to %s, lane %s (%s read)\n", counted(s.Published, "event"), s.Topic, s.Lane, counted(s.Rows, "row"))
	if s.Before > 0 {
		fmt.Fprintf(&b, "already there, from an earlier run: %s\n", counted(s.Before, "event"))
	}
	if s.TooLarge > 0 {
		fmt.Fprintf(&b, "larger than the broker takes, and not published: %s\n", counted(s.TooLarge, "event"))
	}
	for _, reason := range slices.Sorted(maps.Keys(s.Skipped)) {
		fmt.Fprintf(&b, "rows skipped (%s): %d\n", reason, s.Skipped[reason])
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// publishGroup begins the names of the groups that keep where a series is.
func (c *Config) publishGroup() string { return c.Kafka.Group + "-publish" }

// publisher opens a publisher to the events topic, with what the configuration says of
// brokers and security.
func (c *Config) publisher(ctx context.Context, conf storefront.PublisherConfig) (*storefront.Publisher, error) {
	// The client is opened for the ACLs, for its tls.Config, so that files are read and
	// checked in one place, and to say what to do where no broker answers.
	cl, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	if err := c.allowed(ctx, cl, c.publishNeeds(conf.Group != "")); err != nil {
		return nil, err
	}
	if t, ok := cl.OptValue(kgo.DialTLSConfig).(*tls.Config); ok {
		conf.TLS = t
	}
	conf.Brokers, conf.Topic = c.Kafka.Brokers, c.Kafka.Topics.Events
	conf.Compression = c.Kafka.Compression
	conf.SASL, conf.User, conf.Password = c.Kafka.SASL.Mechanism, c.Kafka.SASL.Username, string(c.Kafka.SASL.Password)
	return storefront.NewPublisher(ctx, conf)
}

// replayable refuses a topic that would delete or refuse what is published by lane replay.
func replayable(ctx context.Context, c *Config) error {
	cl, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	problems, err := checkReplay(ctx, c, cl)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range problems {
		errs = append(errs, fmt.Errorf("%s; %s", p.What, p.Remedy))
	}
	return errors.Join(errs...)
}

// barSteps is what a whole file is on the bar.
const barSteps = 1000

// bar shows progress on a terminal, and nothing elsewhere.
type bar struct {
	reader *file.Reader
	bar    *progressbar.ProgressBar
	steps  int
}

func newBar(to io.Writer, r *file.Reader) *bar {
	b := &bar{reader: r}
	f, ok := to.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return b
	}
	b.bar = progressbar.NewOptions64(barSteps,
		progressbar.OptionSetWriter(to), progressbar.OptionSetDescription("publishing"), progressbar.OptionSetElapsedTime(true),
		progressbar.OptionFullWidth(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	return b
}

func (b *bar) step() {
	if b.steps++; b.bar == nil || b.steps%1000 != 0 {
		return
	}
	b.bar.Describe(fmt.Sprintf("publishing, %d events", b.steps))
	_ = b.bar.Set64(int64(b.reader.Progress() * barSteps)) // a bar that can't be drawn is no reason to stop
}

func (b *bar) end() {
	if b.bar != nil {
		_ = b.bar.Finish()
	}
}
