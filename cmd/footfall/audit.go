package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/archive"
	"footfall/sinks/clickhouse"
	"footfall/sources/kafka"
)

// auditOptions are the flags of audit.
type auditOptions struct {
	topics     []string
	partitions []string
	since      string
	offsets    string
	chains     string
	output     string
	mend       bool
	quick      bool
}

func newAudit(g *global) *cobra.Command {
	var b brokersFlag
	var o auditOptions
	cmd := &cobra.Command{
		Use:     "audit",
		GroupID: "operate",
		Short:   "Compare the topics with ClickHouse, row by row; mend what is missing",
		Long: `Reads the events, trigger, muted and dead-letter topics (read_committed) up to where the
archive has come, and compares them with ClickHouse: a span of records at a time by its
sums, and row by row where those differ. Whether the engine runs meanwhile makes no
difference.

  missing     a record without its row
  doubled     an offset with its row and another one beside it
  different   an offset with a row that does not say what the record says
  foreign     a row where the log has no record that gives one
  copies      rows that are there more than once and all alike: harmless, the views
              count them once, and ClickHouse makes them one when it merges

Rows older than the beginning of their topic (beyond retention) can't be compared: they are
counted. Then the rows are held against each other: the outputs of an input partition are
numbered without a gap (n, over triggers, muted transitions and dead letters), and so are
the transitions of a user (seq), each of which begins in the segment where the one before
ended.

Without --mend it only looks. --mend sends what is missing, and changes nothing else: for
rows that are doubled, different or foreign it prints the statement that removes them. The
running engine audits too, always, and mends what is missing by itself; it compares what it
has sent with what the tables have, and some records an hour with their rows, not what is in
the columns.

Exit code 1 when something is wrong and was not mended.`,
		Example: `  footfall audit
  footfall audit --since 24h --quick
  footfall audit --topic events --partition 3 --offsets 120000-130000
  footfall audit --mend
  footfall audit --output json | jq '.findings[]'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(oneOf("output", o.output, "text", "json"), oneOf("chains", o.chains, "auto", "yes", "no")); err != nil {
				return err
			}
			c, err := g.config(b.settings()...)
			if err != nil {
				return err
			}
			if !c.ClickHouse.Enabled {
				return &usageError{errors.New("clickhouse.enabled is false: there is nothing to compare the topics with")}
			}
			sel, err := o.selection(c)
			if err != nil {
				return err
			}
			report, err := o.audit(cmd.Context(), c, sel, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if o.output == "json" {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(report)
			} else {
				err = report.print(cmd.OutOrStdout())
			}
			if err == nil && report.Wrong > 0 {
				return errRefused
			}
			return err
		},
	}
	b.add(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&o.topics, "topic", nil, "only this `topic`; repeatable (default all four)")
	f.StringSliceVar(&o.partitions, "partition", nil, "only this `partition`; repeatable")
	f.StringVar(&o.since, "since", "", "only records of the last `duration`, such as 24h")
	f.StringVar(&o.offsets, "offsets", "", "only these offsets of each partition, `FIRST-LAST` or FIRST-")
	f.BoolVar(&o.mend, "mend", false, "send what is missing")
	f.BoolVar(&o.quick, "quick", false, "compare offsets and the hashes of records, and not what is in the columns")
	f.StringVar(&o.chains, "chains", "auto", "hold the rows against each other: yes, no, or auto: when all of the topics is compared")
	f.StringVar(&o.output, "output", "text", "text or json")
	return cmd
}

// whole tells that no part of the topics was chosen.
func (o *auditOptions) whole() bool {
	return len(o.topics) == 0 && len(o.partitions) == 0 && o.since == "" && o.offsets == ""
}

// selection compiles the flags that choose a part of the topics.
func (o *auditOptions) selection(c *Config) (sel clickhouse.AuditSelection, err error) {
	t := &c.Kafka.Topics
	known := []string{t.Events, t.Triggers, t.Muted, t.DeadLetters}
	for _, topic := range o.topics {
		if !slices.Contains(known, topic) {
			return sel, &usageError{fmt.Errorf("--topic %q is none of the archive's: %s%s", topic, strings.Join(known, ", "), suggest(topic, known))}
		}
	}
	sel.Topics = o.topics
	for _, text := range o.partitions {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return sel, &usageError{fmt.Errorf("--partition %q: want a number, 0 or more", text)}
		}
		sel.Partitions = append(sel.Partitions, int32(n))
	}
	if o.since != "" {
		d, err := parseDuration(o.since)
		if err != nil {
			return sel, &usageError{fmt.Errorf("--since %w", err)}
		}
		if d == 0 {
			return sel, &usageError{fmt.Errorf("--since %q: want a duration above zero, such as 24h", o.since)}
		}
		sel.Since = wall() - millis(d)
	}
	if o.offsets == "" {
		return sel, nil
	}
	first, last, ok := strings.Cut(o.offsets, "-")
	bad := &usageError{fmt.Errorf("--offsets %q: want FIRST-LAST, as in 1000-1999, or FIRST-", o.offsets)}
	if sel.First, err = strconv.ParseInt(first, 10, 64); err != nil || !ok {
		return sel, bad
	}
	if last == "" {
		return sel, nil
	}
	if sel.Next, err = strconv.ParseInt(last, 10, 64); err != nil || sel.Next < sel.First || sel.Next == math.MaxInt64 {
		return sel, bad
	}
	sel.Next++
	return sel, nil
}

// archiveConfig is what the archive copies: for `run`, and for those who check it.
func (c *Config) archiveConfig(db *clickhouse.DB, client []kgo.Opt) clickhouse.ArchiveConfig {
	t := &c.Kafka.Topics
	return clickhouse.ArchiveConfig{
		DB: db, Client: client, Group: c.Kafka.Group,
		Inputs:   []clickhouse.InputTopic{{Name: t.Events, Lane: c.Kafka.Lane}},
		Triggers: t.Triggers, Muted: t.Muted, Dead: t.DeadLetters, Contract: c.contract(),
		RowsMax: c.ClickHouse.Batch.Rows, AgeMax: c.ClickHouse.Batch.Age,
	}
}

// audit looks at everything that is asked for.
func (o *auditOptions) audit(ctx context.Context, c *Config, sel clickhouse.AuditSelection, progress io.Writer) (*auditReport, error) {
	began := time.Now()
	cl, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	if err := c.allowed(ctx, cl, c.auditNeeds()); err != nil {
		return nil, err
	}
	most := 0
	for _, topic := range c.topicNames()[:4] {
		n, err := partitions(ctx, cl, topic)
		if err != nil {
			return nil, err
		}
		most = max(most, n)
	}
	db, err := clickhouse.Open(c.clickhouseDSN())
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }() // nothing is under way
	opts, err := kafka.Options(c.kafka())
	if err != nil {
		return nil, &usageError{err}
	}
	conf := c.archiveConfig(db, opts)
	conf.Report = func(f archive.Fact) {
		if w, ok := f.(archive.Waiting); ok {
			fmt.Fprintf(progress, "%s\n", w)
		}
	}
	a, err := clickhouse.NewAudit(conf)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	plan, err := a.Plan(ctx, sel)
	if err != nil {
		return nil, remedied(err)
	}
	for _, p := range sel.Partitions {
		rows := slices.ContainsFunc(plan.Foreign, func(s archive.Stock) bool { return s.Partition.Number == p })
		if int(p) >= most && !rows { // neither side has it: nothing would be compared, and all be well
			return nil, &usageError{fmt.Errorf("--partition %d: there are 0 to %d", p, most-1)}
		}
	}
	show := newAuditBar(progress, plan.Offsets)
	found, failed, err := compareShares(ctx, plan.Shares, func(shares []archive.Share) ([]*archive.Compared, error) {
		part := clickhouse.AuditPlan{Shares: shares}
		return a.Compare(ctx, &part, clickhouse.AuditOptions{Mend: o.mend, Quick: o.quick, Progress: show.add})
	})
	show.end()
	if err != nil {
		return nil, remedied(kafka.Unreadable(err))
	}
	r := newAuditReport(c, plan, found, o)
	r.incomplete(found, failed)
	if o.chains == "yes" || o.chains == "auto" && o.whole() {
		if err := r.check(ctx, c, cl, a); err != nil { // what was compared, and mended, is told all the same
			r.Unchecked = remedied(err).Error()
			r.Wrong++
		}
	}
	r.Seconds = math.Round(time.Since(began).Seconds()*1000) / 1000
	return r, nil
}

// failuresMax is how many partitions in a row may fail before an audit leaves out
// those that are left: each may take half a minute to fail.
const failuresMax = 3

// compareShares compares shares. One that can't be read ends what is under way of the others
// too: they go on from there, one at a time, and what was found is kept. failed has an error
// for each that was not compared whole; where none was, and nothing was found, err is one.
func compareShares(ctx context.Context, shares []archive.Share, compare func([]archive.Share) ([]*archive.Compared, error)) (found []*archive.Compared, failed []error, err error) {
	found, first := compare(shares)
	failed = make([]error, len(shares))
	if first == nil {
		return found, failed, nil
	}
	nothing, inRow, last := true, 0, first
	for i, rest := range shares {
		if f := found[i]; f == nil {
			found[i] = &archive.Compared{Share: rest, Until: rest.First}
		} else if rest = f.Rest(); rest.First == rest.Next {
			nothing, inRow = false, 0
			continue
		}
		if inRow == failuresMax {
			failed[i] = fmt.Errorf("left out after others had failed: %w", last)
			continue
		}
		more, err := compare([]archive.Share{rest})
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if more[0] != nil {
			found[i].Join(more[0])
		}
		nothing = nothing && err != nil && found[i].Spans == 0
		if failed[i] = err; err == nil {
			inRow = 0
		} else {
			inRow, last = inRow+1, err
		}
	}
	if nothing {
		return nil, nil, first
	}
	return found, failed, nil
}

// incomplete notes which partitions were not compared whole.
func (r *auditReport) incomplete(found []*archive.Compared, failed []error) {
	for i, err := range failed {
		if err != nil {
			r.Parts[i].Next, r.Parts[i].Error = found[i].Until, remedied(kafka.Unreadable(err)).Error()
			r.Wrong++
		}
	}
}

// check looks at the chains.
func (r *auditReport) check(ctx context.Context, c *Config, cl *kgo.Client, a *clickhouse.Audit) error {
	committed, err := marks(ctx, c, cl)
	if err != nil {
		return err
	}
	said := map[int32]uint64{}
	for p, m := range committed {
		said[p] = m.N
	}
	if r.Chains, err = a.Chains(ctx, said); err != nil {
		r.Chains = nil
		return err
	}
	r.Wrong += r.Chains.Count
	return nil
}

// remedied says what to do where ClickHouse does not answer, or the archive has never
// been.
func remedied(err error) error {
	for _, code := range []string{"ode: 60", "ode: 81", "UNKNOWN_TABLE", "UNKNOWN_DATABASE"} {
		if strings.Contains(err.Error(), code) {
			return fmt.Errorf("%w; there is nothing to compare: `footfall run` makes the tables when it first archives (clickhouse.dsn, clickhouse.database)", err)
		}
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return fmt.Errorf("%w; check clickhouse.dsn, or is ClickHouse down?", err)
	}
	return err
}

// auditBar shows progress on a terminal, and nothing elsewhere.
type auditBar struct{ bar *progressbar.ProgressBar }

func newAuditBar(to io.Writer, offsets int64) *auditBar {
	if !isTerminal(to) || offsets == 0 {
		return &auditBar{}
	}
	return &auditBar{progressbar.NewOptions64(offsets,
		progressbar.OptionSetWriter(to), progressbar.OptionSetDescription("comparing"), progressbar.OptionSetElapsedTime(true),
		progressbar.OptionFullWidth(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())}
}

func (b *auditBar) add(offsets int64) {
	if b.bar != nil {
		_ = b.bar.Add64(offsets) // a bar that can't be drawn is no reason to stop
	}
}

func (b *auditBar) end() {
	if b.bar != nil {
		_ = b.bar.Finish()
	}
}

// auditReport is what an audit has found; the JSON of --output json.
type auditReport struct {
	Group    string             `json:"group"`
	Database string             `json:"database"`
	Mend     bool               `json:"mend"`
	Quick    bool               `json:"quick"`
	Parts    []auditPart        `json:"partitions"`
	Findings []auditFinding     `json:"findings"` // at most 100 a partition
	Others   []auditOther       `json:"other_topics"`
	Chains   *clickhouse.Chains `json:"chains"` // null: not checked
	Wrong    int64              `json:"wrong"`  // and not mended
	Seconds  float64            `json:"seconds"`

	Unchecked string `json:"chains_error,omitempty"` // why they were not, although they should have been
}

// auditPart is a partition of a topic.
type auditPart struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	First     int64  `json:"first"` // offsets compared: from first on, before next
	Next      int64  `json:"next"`
	Spans     int64  `json:"spans"`
	Records   int64  `json:"records"` // that give a row
	Rows      int64  `json:"rows"`
	Missing   int64  `json:"missing"`
	Mended    int64  `json:"mended"`
	Doubled   int64  `json:"doubled"`
	Different int64  `json:"different"`
	Foreign   int64  `json:"foreign"`
	Copies    int64  `json:"copies"`
	Refused   int64  `json:"refused_before"`   // no row, because the contract of the time refused the record
	Taken     int64  `json:"accepted_before"`  // a row, though today's contract refuses the record
	Beyond    int64  `json:"beyond_retention"` // rows
	Deleted   int64  `json:"deleted_meanwhile"`
	Behind    int64  `json:"not_archived"`    // offsets
	Error     string `json:"error,omitempty"` // why what comes after next was not compared
}

// auditFinding names offsets of which the same is to be said.
type auditFinding struct {
	Kind      archive.Kind `json:"kind"`
	Topic     string       `json:"topic"`
	Partition int32        `json:"partition"`
	First     int64        `json:"first"`
	Last      int64        `json:"last"`
	Offsets   int64        `json:"offsets"`
	Mended    bool         `json:"mended"`
	Remedy    string       `json:"remedy,omitempty"`
}

// auditOther is rows of a topic that is not this installation's.
type auditOther struct {
	Topic string `json:"topic"`
	Rows  int64  `json:"rows"`
}

func newAuditReport(c *Config, plan *clickhouse.AuditPlan, found []*archive.Compared, o *auditOptions) *auditReport {
	r := &auditReport{Group: c.Kafka.Group, Database: c.ClickHouse.Database, Mend: o.mend, Quick: o.quick, Findings: []auditFinding{}, Others: []auditOther{}}
	for _, f := range found {
		r.Parts = append(r.Parts, auditPart{
			Topic: f.Partition.Topic, Partition: f.Partition.Number, First: f.First, Next: f.Next, Spans: f.Spans, Records: f.Records, Rows: f.Rows,
			Missing: f.Missing, Mended: f.Mended, Doubled: f.Doubled, Different: f.Different, Foreign: f.Foreign, Copies: f.Copies,
			Refused: f.Refused, Taken: f.Taken, Beyond: f.Beyond, Deleted: f.Deleted, Behind: f.Behind,
		})
		r.Wrong += f.Wrong()
		for _, finding := range f.Findings {
			r.add(c, finding)
		}
	}
	for _, s := range plan.Foreign {
		r.Wrong += s.Rows
		r.add(c, archive.Finding{Kind: archive.Foreign, Partition: s.Partition, First: s.First, Last: s.Last, Offsets: s.Rows})
	}
	for _, s := range plan.Others {
		if n := len(r.Others); n > 0 && r.Others[n-1].Topic == s.Partition.Topic {
			r.Others[n-1].Rows += s.Rows
			continue
		}
		r.Others = append(r.Others, auditOther{s.Partition.Topic, s.Rows})
	}
	return r
}

// add adds a finding, with what to do about it.
func (r *auditReport) add(c *Config, f archive.Finding) {
	out := auditFinding{
		Kind: f.Kind, Topic: f.Partition.Topic, Partition: f.Partition.Number, First: f.First, Last: f.Last, Offsets: f.Offsets, Mended: f.Mended,
	}
	table := "events"
	switch f.Partition.Topic {
	case c.Kafka.Topics.Triggers, c.Kafka.Topics.Muted:
		table = "transitions"
	case c.Kafka.Topics.DeadLetters:
		table = "dead_letters"
	}
	where := fmt.Sprintf("_topic = %s AND _partition = %d AND _offset BETWEEN %d AND %d", quoted(f.Partition.Topic), f.Partition.Number, f.First, f.Last)
	remove := fmt.Sprintf("ALTER TABLE %s.%s DELETE WHERE %s", c.ClickHouse.Database, table, where)
	switch {
	case f.Mended, f.Kind == archive.Copies:
	case f.Kind == archive.Missing:
		out.Remedy = "footfall audit --mend"
	case f.Kind == archive.Foreign:
		out.Remedy = remove
	default:
		out.Remedy = remove + "; then: footfall audit --mend"
	}
	r.Findings = append(r.Findings, out)
}

// quoted is a text as SQL has it.
func quoted(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
