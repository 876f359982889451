package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/parity"
	"footfall/pipeline/segment"
	"footfall/schemas"
	"footfall/sinks/clickhouse"
	"footfall/sources/kafka"
)

// parityOptions are the flags of parity.
type parityOptions struct {
	sets, users, partitions []string
	sample                  int
	all                     bool
	seed                    uint64
	wait                    string
	output                  string
}

func newParity(g *global) *cobra.Command {
	var b brokersFlag
	var o parityOptions
	cmd := &cobra.Command{
		Use:     "parity",
		GroupID: "operate",
		Short:   "Compare segments with ClickHouse: one definition, two engines",
		Long: `The same rules decide twice: footfall keeps every user's segment current, and the rules
written as SQL say what it is by the events in ClickHouse. This compares the two, for a
sample of users or all, and explains each difference.

Each partition is compared at the last mark that its owner has committed: the events before
that offset, at that clock, with what was said up to then. So the engine is not disturbed,
and need not run; ClickHouse has to have that much (--wait).

A user that differs is looked into, and the reason is one of these:

  window       an event_id was repeated later than it is remembered (dedup.window, or
               dedup.budget): footfall counts it again, ClickHouse once
  orders       an order_id was repeated after more than 8 other orders of the user: likewise
  elsewhere    an event_id is in another partition too, and ClickHouse counts it there
  limits       the user has more events than footfall tells apart (SEGMENTS.md, limits)
  timers       a silence is due at the mark, and was not said yet
  retention    ClickHouse has not kept all of the user's events, or of what was said
  taking_over  not everybody has been evaluated under these rules yet, or a new set is being
               filled
  rules        the partition goes by other rules than those of this configuration
  unexplained  none of these, so something is wrong

The running engine compares a few users every few minutes by itself (parity.every,
parity.users), and tells in its metrics.

Exit code 1 when something is unexplained, a partition could not be compared, or nobody has
heard of a user who was named.`,
		Example: `  footfall parity
  footfall parity --all --segment-set lifecycle,cart
  footfall parity --user customer-4711
  footfall parity --all --output json | jq '.differences[] | select(.reason == "unexplained")'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", o.output, "text", "json"); err != nil {
				return err
			}
			if o.all && cmd.Flags().Changed("sample") {
				return &usageError{errors.New("--all and --sample both say how many users are compared; give one")}
			}
			c, err := g.config(b.settings()...)
			if err != nil {
				return err
			}
			if !c.ClickHouse.Enabled {
				return &usageError{errors.New("clickhouse.enabled is false: there is nothing to compare the segments with")}
			}
			report, err := o.compare(cmd.Context(), c)
			if err != nil {
				return err
			}
			if o.output == "json" {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(report)
			} else {
				err = report.print(cmd.OutOrStdout())
			}
			if err == nil && !report.well() {
				return errRefused
			}
			return err
		},
	}
	b.add(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&o.sets, "segment-set", nil, "only this segment `set`; repeatable (default all)")
	f.StringArrayVar(&o.users, "user", nil, "only this `user`; repeatable")
	f.StringSliceVar(&o.partitions, "partition", nil, "only this `partition`; repeatable")
	f.IntVar(&o.sample, "sample", 1000, "so many users, drawn over all partitions")
	f.BoolVar(&o.all, "all", false, "all users")
	f.Uint64Var(&o.seed, "seed", 0, "draw other users: the same seed, the same users")
	f.StringVar(&o.wait, "wait", "30s", "how long to wait for ClickHouse to have what the marks speak of, a `duration`")
	f.StringVar(&o.output, "output", "text", "text or json")
	return cmd
}

// differencesMax is how many users that differ are looked into, of a partition.
const differencesMax = 1000

// parityReport is what a comparison has found; the JSON of --output json.
type parityReport struct {
	Group       string             `json:"group"`
	Database    string             `json:"database"`
	Rules       string             `json:"rules"` // hash, in hex
	Users       int64              `json:"users"` // compared
	Sets        []paritySet        `json:"sets"`
	Partitions  []parityPart       `json:"partitions"`
	Differences []parityDifference `json:"differences"` // at most 1,000 users a partition
	Unexplained int64              `json:"unexplained"`
	Seconds     float64            `json:"seconds"`
}

// paritySet is how one set came out.
type paritySet struct {
	Set         string `json:"set"`
	Users       int64  `json:"users"`
	Same        int64  `json:"same"`
	Explained   int64  `json:"explained"`
	Unexplained int64  `json:"unexplained"`
	Left        string `json:"left"` // why it could not be compared; empty: it could
}

// parityPart is a partition, and the mark at which it was compared.
type parityPart struct {
	Partition int32  `json:"partition"`
	Next      int64  `json:"next"`
	Clock     Moment `json:"clock"`
	N         uint64 `json:"n"`
	Users     int64  `json:"users"`
	Unknown   int64  `json:"unknown"` // of those whom --user names: neither has heard of them
	Left      string `json:"left"`    // why it could not be compared; empty: it was

	named []string // by --user
}

// parityDifference is a user whom the two put into different segments.
type parityDifference struct {
	Partition  int32  `json:"partition"`
	User       string `json:"user"`
	Set        string `json:"set"`
	Footfall   string `json:"footfall"`   // empty: nothing was said yet
	ClickHouse string `json:"clickhouse"` // empty: there are no events
	Reason     string `json:"reason"`
	Why        string `json:"why"`
}

// compare compares what is asked for.
func (o *parityOptions) compare(ctx context.Context, c *Config) (*parityReport, error) {
	began := time.Now()
	rules, err := c.rules()
	if err != nil {
		return nil, err
	}
	wait, err := o.check(rules)
	if err != nil {
		return nil, err
	}
	cl, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	if err := c.allowed(ctx, cl, c.parityNeeds()); err != nil {
		return nil, err
	}
	n, err := partitions(ctx, cl, c.Kafka.Topics.Events)
	if err != nil {
		return nil, err
	}
	users, err := o.where(int32(n))
	if err != nil {
		return nil, err
	}
	committed, err := settledMarks(ctx, c, cl, slices.Collect(maps.Keys(users)))
	if err != nil {
		return nil, err
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
	tables, err := clickhouse.NewParity(c.archiveConfig(db, opts), false)
	if err != nil {
		return nil, err
	}
	defer tables.Close()
	behind, err := tables.Await(ctx, committed, wait)
	if err != nil {
		return nil, err
	}
	r := &parityReport{
		Group: c.Kafka.Group, Database: c.ClickHouse.Database, Rules: fmt.Sprintf("%016x", rules.Hash()),
		Sets: []paritySet{}, Partitions: []parityPart{}, Differences: []parityDifference{},
	}
	under := map[uint64]*segment.Program{0: rules} // by the epoch of their quantiles' bounds
	if err := c.eachEpoch(ctx, rules, n, func(e segment.Epoch) (err error) {
		under[e.Number], err = rules.With(e)
		return err
	}); err != nil {
		return nil, err
	}
	for _, p := range slices.Sorted(maps.Keys(users)) {
		m, ok := committed[p]
		part := parityPart{Partition: p, Next: m.Next, Clock: Moment(m.Clock), N: m.N, Left: behind[p]}
		switch {
		case !ok:
			part.Left = "the group has committed nothing"
		case part.Left == "":
			config := c.parity(cmp.Or(under[m.Epoch], rules), tables, differencesMax)
			result, err := parity.Compare(ctx, config, m, o.selection(users[p], n))
			if err != nil {
				return nil, remedied(err)
			}
			part.Users = result.Users
			if named := users[p]; len(result.Sets) > 0 && len(named) > 0 {
				part.named, part.Unknown = named, int64(len(named))-result.Users
			}
			r.add(p, result)
		}
		r.Partitions = append(r.Partitions, part)
	}
	r.Seconds = math.Round(time.Since(began).Seconds()*1000) / 1000
	return r, nil
}

// check refuses what makes no sense.
func (o *parityOptions) check(rules *segment.Program) (wait time.Duration, err error) {
	names := setNames(rules.Names())
	for _, set := range o.sets {
		if !slices.Contains(names, set) {
			return 0, &usageError{fmt.Errorf("--segment-set %q is none of segments.sets: %s%s", set, strings.Join(names, ", "), suggest(set, names))}
		}
	}
	if o.sample < 1 {
		return 0, &usageError{fmt.Errorf("--sample %d: want 1 or more; for all users there is --all", o.sample)}
	}
	if len(o.users) > 0 && (o.all || len(o.partitions) > 0) {
		return 0, &usageError{errors.New("--user names whom to compare: leave --all and --partition away")}
	}
	if wait, err = parseDuration(o.wait); err != nil {
		return 0, &usageError{fmt.Errorf("--wait %w", err)}
	}
	return wait, nil
}

// where gives the partitions that are compared and, where users were named, whom of
// each.
func (o *parityOptions) where(n int32) (map[int32][]string, error) {
	out := map[int32][]string{}
	for _, user := range slices.Compact(slices.Sorted(slices.Values(o.users))) {
		p := kafka.PartitionOf([]byte(user), n)
		out[p] = append(out[p], user)
	}
	for _, text := range o.partitions {
		p, err := strconv.ParseInt(text, 10, 32)
		if err != nil || p < 0 || p >= int64(n) {
			return nil, &usageError{fmt.Errorf("--partition %q: want a number, 0 to %d", text, n-1)}
		}
		out[int32(p)] = nil
	}
	if len(out) == 0 {
		for p := range n {
			out[p] = nil
		}
	}
	return out, nil
}

func (o *parityOptions) selection(users []string, partitions int) parity.Selection {
	sel := parity.Selection{Sets: o.sets, Users: users, Draw: parity.Draw{Seed: o.seed}}
	if users == nil && !o.all {
		sel.Sample = (o.sample + partitions - 1) / partitions
	}
	return sel
}

// parity is how memberships are compared.
func (c *Config) parity(rules *segment.Program, tables parity.Tables, named int) parity.Config {
	return parity.Config{Rules: rules, Tables: tables, DedupWindow: millis(c.Dedup.Window), DedupBudget: c.Dedup.Budget, Named: named}
}

// settledMarks reads the marks of some partitions, and waits a moment for those at which
// timers are due that have not been said.
func settledMarks(ctx context.Context, c *Config, cl *kgo.Client, of []int32) (map[int32]schemas.Mark, error) {
	const attempts = 8
	for attempt := 0; ; attempt++ {
		committed, err := marks(ctx, c, cl)
		if err != nil {
			return nil, err
		}
		maps.DeleteFunc(committed, func(p int32, _ schemas.Mark) bool { return !slices.Contains(of, p) })
		settled := true
		for _, m := range committed {
			settled = settled && m.Fired >= m.Clock
		}
		if settled || attempt == attempts {
			return committed, nil
		}
		backoff(ctx, attempt)
	}
}

// add takes a partition's result in.
func (r *parityReport) add(partition int32, result *parity.Result) {
	r.Users += result.Users
	r.Unexplained += result.Unexplained()
	set := func(name string) *paritySet {
		at := slices.IndexFunc(r.Sets, func(s paritySet) bool { return s.Set == name })
		if at < 0 {
			r.Sets = append(r.Sets, paritySet{Set: name})
			at = len(r.Sets) - 1
		}
		return &r.Sets[at]
	}
	for _, s := range result.Sets {
		to := set(s.Set)
		to.Users += result.Users
		to.Same += s.Same
		to.Explained += s.Explained
		to.Unexplained += s.Unexplained
	}
	for _, l := range result.Left {
		set(l.Set).Left = l.Why
	}
	for _, d := range result.Differences {
		r.Differences = append(r.Differences, parityDifference{
			Partition: partition, User: d.User, Set: d.Set, Footfall: d.Said, ClickHouse: d.Asked, Reason: string(d.Reason), Why: d.Why,
		})
	}
}

// well tells that everything was compared and nothing is unexplained.
func (r *parityReport) well() bool {
	return r.Unexplained == 0 && !slices.ContainsFunc(r.Partitions, func(p parityPart) bool { return p.Left != "" || p.Unknown > 0 })
}

// print writes the report for a person.
func (r *parityReport) print(out io.Writer) error {
	var b strings.Builder
	rows := [][]string{{"SET", "USERS", "SAME", "EXPLAINED", "UNEXPLAINED"}}
	for _, s := range r.Sets {
		if s.Left == "" {
			rows = append(rows, []string{s.Set, grouped(s.Users), grouped(s.Same), grouped(s.Explained), grouped(s.Unexplained)})
		}
	}
	alignRight(&b, rows)
	if len(r.Differences) > 0 || len(rows) <= len(r.Sets) || !r.well() {
		b.WriteByte('\n')
	}
	for _, s := range r.Sets {
		if s.Left != "" {
			fmt.Fprintf(&b, "-   set %s: not compared: %s\n", s.Set, s.Left)
		}
	}
	for _, p := range r.Partitions {
		if p.Left != "" {
			fmt.Fprintf(&b, "!   partition %d: not compared: %s\n", p.Partition, p.Left)
		}
		if p.Unknown > 0 {
			whom := strings.Join(p.named, ", ")
			if len(p.named) > 1 {
				whom = fmt.Sprintf("%d of %s", p.Unknown, whom)
			}
			fmt.Fprintf(&b, "!   %s never came: no events, and nothing was said\n", whom)
		}
	}
	shown := map[string]int{}
	for _, d := range r.Differences {
		sign := "-"
		if d.Reason == string(parity.Unexplained) {
			sign = "!"
		}
		if shown[d.Reason]++; shown[d.Reason] <= differencesShown {
			fmt.Fprintf(&b, "%s   %s in %s: footfall says %s, ClickHouse %s\n    %s: %s\n", sign, d.User, d.Set, nowhere(d.Footfall), nowhere(d.ClickHouse), d.Reason, d.Why)
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(shown)) {
		if more := shown[reason] - differencesShown; more > 0 {
			fmt.Fprintf(&b, "-   and %s more: %s\n", grouped(int64(more)), reason)
		}
	}
	switch compared := len(rows) - 1; {
	case r.Unexplained > 0:
		fmt.Fprintf(&b, "\n%s unexplained, of %s in %s, in %.1f s\n", grouped(r.Unexplained), counted(r.Users, "user"), counted(compared, "set"), r.Seconds)
	case len(r.Differences) > 0:
		fmt.Fprintf(&b, "\nevery difference is explained: %s in %s, in %.1f s\n", counted(r.Users, "user"), counted(compared, "set"), r.Seconds)
	case r.Users == 0:
		fmt.Fprintf(&b, "\nnobody was compared, in %.1f s\n", r.Seconds)
	default:
		fmt.Fprintf(&b, "\nthe same in both: %s in %s, in %.1f s\n", counted(r.Users, "user"), counted(compared, "set"), r.Seconds)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// differencesShown is how many differences of one reason a person is shown.
const differencesShown = 10

func nowhere(segment string) string {
	if segment == "" {
		return "nothing"
	}
	return segment
}
