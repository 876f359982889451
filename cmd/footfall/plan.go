package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"footfall/pipeline/rehearsal"
	"footfall/pipeline/segment"
	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

func newPlan(g *global) *cobra.Command {
	var b brokersFlag
	p := plan{}
	cmd := &cobra.Command{
		Use:     "plan NAME|FILE...",
		GroupID: "rules",
		Short:   "What other segment sets would change, on the real events of the last days",
		Long: `Plays the shop's real history under the segment sets as they are and as they would be, in
one pass and with no effect on anything, and prints what a person can judge: users by segment
before and after; who would be elsewhere now, with some of them and the reasons; who came and
went a day, and triggers an hour, over the last days; the revenue of those who move; bytes a
user. It is the pull request for segments.

The sets that are given take the place of those of the same name in the configuration (or in
--against), and are added where there is none; the others stay as they are.

The history is the events topic up to now, or a file's, or what ClickHouse has. Profiles
need all of it: what is said is counted over the --last days alone. Where the topic has not
all of it any more, --clickhouse has, or --snapshots begins with the oldest snapshots that
hold what both ask for (then what is said is counted from there on).

Exit code 1 when more users would move than --most-moved allows: for a check of a change
before it is merged.`,
		Example: `  footfall plan ./vip.yaml
  footfall plan ./vip.yaml --against ./vip-before.yaml --last 14d --output markdown
  footfall plan ./vip.yaml --from orders.csv.gz --mapping ./ours.yaml --most-moved 5%
  footfall plan ./vip.yaml --clickhouse --partitions 0,1`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && len(p.drop) == 0 {
				return fmt.Errorf("%s needs the sets as they would be: names of shipped ones, or files (see %[1]s --help)", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(oneOf("output", p.output, "text", "json", "markdown"), p.check()); err != nil {
				return err
			}
			c, err := g.config(b.settings()...)
			if err != nil {
				return err
			}
			if err := p.compile(c, args); err != nil {
				return err
			}
			return p.run(cmd.Context(), c, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	b.add(cmd)
	p.history.flags(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&p.against, "against", nil, "`sets` as they are (default those of the configuration)")
	f.StringSliceVar(&p.drop, "drop", nil, "`sets` that would not be there any more")
	f.StringVar(&p.last, "last", "30d", "count what is said over this `duration` before the end")
	f.BoolVar(&p.snapshots, "snapshots", false, "begin with the oldest snapshots instead of the topic's beginning")
	f.IntVar(&p.sample, "sample", 3, "how many users of each move to show")
	f.StringVar(&p.mostMoved, "most-moved", "", "exit with 1 when more than this `share` of users (5%) or number of them would move")
	f.StringVar(&p.output, "output", "text", "text, json or markdown")
	return cmd
}

// plan is one run of plan.
type plan struct {
	history history

	against, drop           []string
	last, mostMoved, output string
	snapshots               bool
	sample                  int

	lastSpan schemas.Millis
	share    float64 // of users that may move; below 0: any
	number   int     // of them; below 0: any

	rules [2]*segment.Program
}

func (p *plan) check() error {
	errs := []error{p.history.check()}
	bad := func(format string, args ...any) { errs = append(errs, &usageError{fmt.Errorf(format, args...)}) }
	last, err := parseDuration(p.last)
	if err != nil || last <= 0 {
		bad("--last %q: want a duration above zero, such as 30d", p.last)
	}
	p.lastSpan = millis(last)
	if p.snapshots && (p.history.from != "" || p.history.clickhouse) {
		bad("--snapshots goes with the events topic, not with --from or --clickhouse")
	}
	if p.sample < 0 {
		bad("--sample %d: want 0 or more", p.sample)
	}
	p.share, p.number = -1, -1
	if p.mostMoved == "" {
		return errors.Join(errs...)
	}
	if text, percent := strings.CutSuffix(p.mostMoved, "%"); percent {
		if p.share, err = strconv.ParseFloat(text, 64); err != nil || !(p.share >= 0 && p.share <= 100) {
			bad("--most-moved %q: want a share such as 5%% or a number of users", p.mostMoved)
		}
	} else if p.number, err = strconv.Atoi(text); err != nil || p.number < 0 {
		bad("--most-moved %q: want a share such as 5%% or a number of users", p.mostMoved)
	}
	return errors.Join(errs...)
}

// compile compiles the sets as they are, and as they would be: those given in the place
// of those of the same name.
func (p *plan) compile(c *Config, sets []string) error {
	old := c.sets()
	if len(p.against) > 0 {
		old = p.against
	}
	before, err := readSets(old)
	given, err2 := readSets(sets)
	if err := errors.Join(err, err2); err != nil {
		return &usageError{err}
	}
	after := slices.Clone(before)
	for _, f := range given {
		name, err := f.SetName()
		if err != nil {
			return &usageError{err}
		}
		at, err := indexOfSet(after, name)
		if err != nil {
			return &usageError{err}
		}
		if at < 0 {
			after = append(after, f)
		} else {
			after[at] = f
		}
	}
	for _, name := range p.drop {
		at, err := indexOfSet(after, name)
		if err == nil && at < 0 {
			err = fmt.Errorf("--drop %s: there is no such set", name)
		}
		if err != nil {
			return &usageError{err}
		}
		after = slices.Delete(after, at, at+1)
	}
	if len(after) == 0 {
		return &usageError{errors.New("--drop: no set would be left")}
	}
	var errs [2]error
	p.rules[0], errs[0] = c.compile(before...)
	p.rules[1], errs[1] = c.compile(after...)
	if errs[0] != nil {
		errs[0] = fmt.Errorf("as they are: %w", errs[0])
	}
	return errors.Join(errs[:]...)
}

// indexOfSet finds a set by its name, -1 where it is not.
func indexOfSet(files []segment.File, name string) (int, error) {
	for i, f := range files {
		switch n, err := f.SetName(); {
		case err != nil:
			return 0, err
		case n == name:
			return i, nil
		}
	}
	return -1, nil
}

func (p *plan) run(ctx context.Context, c *Config, out, progress io.Writer) error {
	began := time.Now()
	var sides [2]*rehearsal.Side
	for i, rules := range p.rules {
		var err error
		sides[i], err = rehearsal.NewSide(rehearsal.SideConfig{
			Rules: rules, Contract: c.contract(), Dedup: rehearsal.Dedup{Window: millis(c.Dedup.Window), Budget: c.Dedup.Budget},
		})
		if err != nil {
			return &usageError{err}
		}
	}
	if p.snapshots {
		if err := p.load(ctx, c, sides); err != nil {
			return err
		}
	}
	if err := p.play(ctx, c, sides, progress); err != nil {
		return err
	}
	if sides[0].Now() == 0 {
		return errors.New("there are no events to play")
	}
	end := p.history.end(sides[0].Now())
	for _, s := range sides {
		s.Advance(end)
	}
	r := newPlanAnswer(c, rehearsal.Compare(sides[0], sides[1], end-p.lastSpan, p.sample), p.rules)
	r.Notes, r.Seconds = append(r.Notes, p.history.notes...), time.Since(began).Seconds()
	r.Refused += p.history.future
	r.Events += p.history.future
	refusal := p.judge(r)
	var err error
	switch p.output {
	case "json":
		err = json.NewEncoder(out).Encode(r)
	case "markdown":
		err = r.markdown(out)
	default:
		err = r.text(out)
	}
	return errors.Join(err, refusal)
}

// batchMax is how many records are given to the sides at once.
const batchMax = 512

// played is a record on its way to a side.
type played struct {
	partition int32
	record    *worker.Record
}

// play plays the history to both sides, each on a goroutine of its own. They end when
// the history does or fails; none can be ahead by more than some batches.
func (p *plan) play(ctx context.Context, c *Config, sides [2]*rehearsal.Side, progress io.Writer) error {
	var queues [2]chan []played
	group, ctx := errgroup.WithContext(ctx)
	for i := range queues {
		queues[i] = make(chan []played, 4)
		group.Go(func() error {
			for batch := range queues[i] {
				for _, one := range batch {
					sides[i].Play(one.partition, one.record)
				}
			}
			return nil
		})
	}
	give := func(batch []played) error {
		for _, q := range queues {
			select {
			case q <- batch:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	var batch []played
	err := p.history.play(ctx, c, progress, func(partition int32, r *worker.Record) error {
		if batch = append(batch, played{partition, r}); len(batch) < batchMax {
			return nil
		}
		full := batch
		batch = make([]played, 0, batchMax)
		return give(full)
	})
	if err == nil {
		err = give(batch)
	}
	for _, q := range queues {
		close(q)
	}
	return errors.Join(err, group.Wait())
}

// load begins both sides with the oldest snapshots that hold what they ask for and from
// which on the topic has everything.
func (p *plan) load(ctx context.Context, c *Config, sides [2]*rehearsal.Side) error {
	bucket, err := openBucket(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = bucket.Close() }()
	found, err := listSnapshots(ctx, bucket)
	if err != nil {
		return fmt.Errorf("snapshots.bucket %s: %w", c.Snapshots.Bucket, err)
	}
	store := snapshot.NewStore(snapshot.Blob{Bucket: bucket}, c.Snapshots.Keep)
	cl, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	starts, err := topicStarts(ctx, cl, c.Kafka.Topics.Events)
	if err != nil {
		return err
	}
	loaded := map[int32]bool{}
	for _, f := range slices.Backward(found) { // the oldest first
		partition := f.id.Partition
		if loaded[partition] || f.id.Next < starts[partition] || f.id.Next == 0 {
			continue
		}
		err := loadBoth(ctx, store, f.id, sides)
		if errors.Is(err, rehearsal.ErrUnkept) {
			return fmt.Errorf("snapshot %s: %w; play the whole history instead (without --snapshots, or with --clickhouse)", f.id, err)
		}
		if err != nil {
			p.history.note("%v", err)
			continue
		}
		loaded[partition] = true
	}
	if len(loaded) == 0 {
		p.history.note("no snapshot could be used; the topic was played from its beginning")
		return nil
	}
	p.history.note("%s began with a snapshot", counted(len(loaded), "partition"))
	p.history.start = func(partition int32) int64 {
		if loaded[partition] {
			return sides[0].From(partition)
		}
		return 0
	}
	return nil
}

// loadBoth begins both sides with a snapshot, or neither.
func loadBoth(ctx context.Context, store *snapshot.Store, id snapshot.ID, sides [2]*rehearsal.Side) error {
	var stages [2]*rehearsal.Stage
	for i, s := range sides {
		stage, err := s.Read(id.Partition, func(read func(io.Reader) error) error {
			_, err := store.Open(ctx, id, read)
			return err
		})
		if err != nil {
			return err
		}
		stages[i] = stage
	}
	for i, s := range sides {
		s.Begin(id.Partition, stages[i])
	}
	return nil
}

// judge refuses a change that would move more users than it may.
func (p *plan) judge(r *planAnswer) error {
	allowed := ""
	switch {
	case p.share >= 0 && r.MovedShare*100 > p.share:
		allowed = fmt.Sprintf("%g%%", p.share)
	case p.number >= 0 && r.Moved > p.number:
		allowed = grouped(int64(p.number))
	default:
		return nil
	}
	return fmt.Errorf("%s of %s (%s) would be in another segment now, and --most-moved allows %s",
		grouped(int64(r.Moved)), counted(r.Users, "user"), percent(r.Moved, r.Users), allowed)
}
