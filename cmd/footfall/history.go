package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/worker"
	"footfall/schemas"
	"footfall/sinks/clickhouse"
	"footfall/sources/file"
)

// history is recorded events that a command plays again, with no effect: those of a
// file, of ClickHouse, or of the events topic.
type history struct {
	from, mapping string
	clickhouse    bool
	back          string
	partitions    []int

	span  time.Duration               // back
	start func(partition int32) int64 // of the log: the first offset that is wanted; nil: all

	notes  []string // what a reader of the outcome should know
	live   bool     // the last record was of lane live, so that time has gone on since
	future int      // records from beyond the present, which footfall refuses when it reads them
}

func (h *history) flags(cmd *cobra.Command) {
	h.fileFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&h.clickhouse, "clickhouse", false, "play the events that ClickHouse has")
	f.StringVar(&h.back, "back", "", "read no more than a `duration` back, such as 400d (default all there is)")
	f.IntSliceVar(&h.partitions, "partitions", nil, "only these partitions of the topic: a sample of the users")
}

// fileFlags are those of a history that can only be a file's.
func (h *history) fileFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&h.from, "from", "", "play the recorded events of a `FILE` (default: those of the events topic)")
	f.StringVar(&h.mapping, "mapping", "", "`NAME` of a built-in mapping, or a YAML file, for --from")
}

// check looks at the flags.
func (h *history) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, &usageError{fmt.Errorf(format, args...)}) }
	if (h.from == "") != (h.mapping == "") {
		bad("--from and --mapping go together; mappings are %s, or a YAML file", strings.Join(file.Mappings(), ", "))
	}
	if h.from != "" && (h.clickhouse || h.back != "" || len(h.partitions) > 0) {
		bad("--clickhouse, --back and --partitions are not for a file")
	}
	if h.back != "" {
		var err error
		if h.span, err = parseDuration(h.back); err != nil {
			bad("--back %w", err)
		} else if h.span == 0 {
			bad("--back %q: want a duration above zero, such as 400d", h.back)
		}
	}
	return errors.Join(errs...)
}

// play calls each with every record: those of a partition in offset order, all of them in
// the order of their timestamps. A record is the callee's to keep.
func (h *history) play(ctx context.Context, c *Config, progress io.Writer, each func(partition int32, r *worker.Record) error) error {
	latest := wall() + millis(c.Clock.MaxSkew)
	play := func(partition int32, r *worker.Record) error {
		if r.Time > latest && h.from == "" {
			h.future++
			return nil
		}
		h.live = r.Lane == schemas.Live
		return each(partition, r)
	}
	switch {
	case h.from != "":
		return h.playFile(ctx, c, progress, play)
	case h.clickhouse:
		return h.playClickHouse(ctx, c, progress, play)
	}
	return h.playLog(ctx, c, progress, play)
}

// end is where time stands after the last record: there, or by now where the shop is live.
func (h *history) end(last schemas.Millis) schemas.Millis {
	if h.live && h.from == "" {
		return max(last, wall())
	}
	return last
}

func (h *history) since() schemas.Millis {
	if h.span == 0 {
		return 0
	}
	return wall() - millis(h.span)
}

// foreign is the currency of a file's amounts, where they are all in one that the shop does
// not count.
func (c *Config) foreign(m *file.Mapping) string {
	currency := m.Fields["currency"].Constant
	if currency == c.Shop.Currency || c.Shop.Rates[currency] != "" {
		return ""
	}
	return currency
}

func (h *history) playFile(ctx context.Context, c *Config, progress io.Writer, each func(int32, *worker.Record) error) error {
	m, err := file.LoadMapping(h.mapping)
	if err != nil {
		return &usageError{err}
	}
	if currency := c.foreign(m); currency != "" && c.from["shop.currency"] == "" {
		return &usageError{fmt.Errorf("the file's amounts are in %s and the shop's in %s: give --set shop.currency=%[1]s, or the rate in shop.rates", currency, c.Shop.Currency)}
	}
	r, err := file.Open(h.from, m, file.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	bar := newShareBar(progress, "playing", r.Progress)
	defer bar.end()
	offset := int64(0)
	for ev, err := range r.Events() {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = each(0, &worker.Record{Offset: offset, Time: ev.Time, Key: ev.Key, Value: ev.Value, Lane: schemas.Replay})
		}
		if err != nil {
			return err
		}
		offset++
		bar.step()
	}
	return nil
}

func (h *history) playClickHouse(ctx context.Context, c *Config, progress io.Writer, each func(int32, *worker.Record) error) error {
	db, err := clickhouse.Open(c.clickhouseDSN())
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	done, total := 0, uint64(0)
	sel := clickhouse.EventSelection{Topic: c.Kafka.Topics.Events, Since: h.since(), Partitions: h.partitions}
	if total, err = db.CountEvents(ctx, sel); err != nil {
		return err
	}
	bar := newShareBar(progress, "playing", func() float64 { return float64(done) / float64(max(1, total)) })
	defer bar.end()
	return db.EachEvent(ctx, sel, func(ev *clickhouse.Event) error {
		done++
		bar.step()
		lane, _ := schemas.ParseLane(ev.Lane)
		return each(ev.Partition, &worker.Record{Offset: ev.Offset, Time: ev.Time, Key: ev.Key, Value: ev.Value, Lane: lane})
	})
}

// playLog reads the events topic up to its present end.
func (h *history) playLog(ctx context.Context, c *Config, progress io.Writer, each func(int32, *worker.Record) error) error {
	topic := c.Kafka.Topics.Events
	cl, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	m, err := h.bounds(ctx, c, cl, topic)
	if err != nil || len(m.open) == 0 {
		return err
	}
	reader, err := c.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: m.from}), kgo.KeepControlRecords())
	if err != nil {
		return err
	}
	defer reader.Close()
	bar := newShareBar(progress, "playing", m.share)
	defer bar.end()
	return m.read(ctx, reader, func(p int32, r *worker.Record) error {
		bar.step()
		return each(p, r)
	})
}

// bounds finds what is to be read of each partition.
func (h *history) bounds(ctx context.Context, c *Config, cl *kgo.Client, topic string) (*merging, error) {
	n, err := partitions(ctx, cl, topic)
	if err != nil {
		return nil, err
	}
	for _, p := range h.partitions {
		if p < 0 || p >= n {
			return nil, &usageError{fmt.Errorf("--partitions %d: %s has partitions 0 to %d", p, topic, n-1)}
		}
	}
	adm := kadm.NewClient(cl)
	list := func(what string, offsets kadm.ListedOffsets, err error) (kadm.ListedOffsets, error) {
		if err == nil {
			err = offsets.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("kafka: %s of topic %s: %w", what, topic, err)
		}
		return offsets, nil
	}
	starts, err := adm.ListStartOffsets(ctx, topic)
	if starts, err = list("start", starts, err); err != nil {
		return nil, err
	}
	ends, err := adm.ListCommittedOffsets(ctx, topic)
	if ends, err = list("end", ends, err); err != nil {
		return nil, err
	}
	since := starts
	if h.span > 0 {
		since, err = adm.ListOffsetsAfterMilli(ctx, int64(h.since()), topic)
		if since, err = list("moment", since, err); err != nil {
			return nil, err
		}
	}
	m := newMerging(topic, c.Kafka.Lane)
	for p := range int32(n) {
		start, _ := starts.Lookup(topic, p)
		end, _ := ends.Lookup(topic, p)
		first, _ := since.Lookup(topic, p)
		if len(h.partitions) > 0 && !slices.Contains(h.partitions, int(p)) || first.Offset < 0 {
			continue
		}
		from := first.Offset
		if h.start != nil {
			if wanted := h.start(p); wanted > 0 {
				from = max(start.Offset, wanted)
			}
		}
		if start.Offset > 0 && from == start.Offset {
			h.note("partition %d of %s begins at offset %d: what was before is not known here (try --clickhouse, or --snapshots)", p, topic, start.Offset)
		}
		m.add(p, from, end.Offset)
	}
	return m, nil
}

// note keeps what a reader of the outcome should know: the first few of its kind.
func (h *history) note(format string, args ...any) {
	if len(h.notes) < 5 {
		h.notes = append(h.notes, fmt.Sprintf(format, args...))
	}
}

// shareBar shows on a terminal how much is done, and nothing elsewhere.
type shareBar struct {
	share func() float64 // from 0 to 1
	what  string
	bar   *progressbar.ProgressBar
	steps int
}

func newShareBar(to io.Writer, what string, share func() float64) *shareBar {
	b := &shareBar{share: share, what: what}
	f, ok := to.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return b
	}
	b.bar = progressbar.NewOptions64(barSteps,
		progressbar.OptionSetWriter(to), progressbar.OptionSetDescription(what), progressbar.OptionSetElapsedTime(true),
		progressbar.OptionFullWidth(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	return b
}

func (b *shareBar) step() {
	if b.steps++; b.bar == nil || b.steps%1000 != 0 {
		return
	}
	b.bar.Describe(fmt.Sprintf("%s, %s events", b.what, grouped(int64(b.steps))))
	_ = b.bar.Set64(int64(b.share() * barSteps)) // a bar that can't be drawn is no reason to stop
}

func (b *shareBar) end() {
	if b.bar != nil {
		_ = b.bar.Finish()
	}
}
