package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"footfall/sinks/triggers"
	"footfall/sources/kafka"
)

func newHanging(g *global, b *brokersFlag) *cobra.Command {
	var end bool
	cmd := &cobra.Command{
		Use:   "hanging",
		Short: "Tell which transactions keep triggers from their readers; --end ends those that nobody else will",
		Long: `Readers wait where a transaction in the trigger topic, in that of muted transitions or of dead
letters, or in the group's offsets is neither committed nor aborted; so does a recovery. For
moments that is usual. But a broker that is killed under load may come back without having
written the last markers of transactions, and believe it has (seen in Apache Kafka 4.3):
nothing of Kafka's ends that by itself, and kafka-transactions.sh can only abort, which loses
what was committed. An instance that has the right to ends by itself, within a minute or two,
what this would end where that does no harm if it comes late; else it logs what is to be done.

This tells of each what its coordinator knows and what is to become of it:

  wait    somebody is at work on it
  commit  it was committed
  abort   it was not committed, or what it said was said again
  look    nothing tells: it takes a person

Where the coordinator has forgotten it, or none knows it, a marker that it has written elsewhere
tells, or else what the group has committed: outputs are numbered, and an offset's commit counts
them. While a partition of __transaction_state has no leader, what none knows waits. With
--end it writes the markers that are missing, which takes the right ClusterAction on the
cluster; readers go on at once, and what waits for it in "footfall run" does within a minute.
Exit code 1 when something is left to end.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.config(b.settings()...)
			if err != nil {
				return err
			}
			return c.withHanging(cmd.Context(), func(cl *kgo.Client, hangs []hanging) error {
				return tellHanging(cmd.Context(), cl, hangs, end, cmd.OutOrStdout())
			})
		},
	}
	cmd.Flags().BoolVar(&end, "end", false, "write the markers that are missing")
	b.add(cmd)
	return cmd
}

// hangingNeeds is what it takes to look for transactions that hang.
func (c *Config) hangingNeeds() []kafka.Need {
	t := &c.Kafka.Topics
	needs := []kafka.Need{
		{On: kafka.OnGroup, Name: c.Kafka.Group, Do: []kmsg.ACLOperation{canDescribe}},
		{On: kafka.OnTransactionalID, Name: c.Kafka.Group + "/", Prefix: true, Do: []kmsg.ACLOperation{canDescribe}},
	}
	for _, name := range []string{t.Triggers, t.Muted, t.DeadLetters, kafka.OffsetsTopic} {
		needs = append(needs, kafka.Need{On: kafka.OnTopic, Name: name, Do: []kmsg.ACLOperation{canRead}})
	}
	return needs
}

// hanging is a transaction that hangs, and what is to become of it.
type hanging struct {
	*kafka.Hang
	verdict kafka.Verdict
	why     string
}

// withHanging looks for them, and has something done about them.
func (c *Config) withHanging(ctx context.Context, do func(cl *kgo.Client, hangs []hanging) error) error {
	cl, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := c.allowed(ctx, cl, c.hangingNeeds()); err != nil {
		return err
	}
	hangs, err := findHanging(ctx, c, cl)
	if err == nil {
		err = do(cl, hangs)
	}
	return c.permit(err)
}

// findHanging looks for them, and at what is committed where their coordinators don't tell.
func findHanging(ctx context.Context, c *Config, cl *kgo.Client) ([]hanging, error) {
	t := &c.Kafka.Topics
	found, err := kafka.FindHangs(ctx, cl, c.Kafka.Group, t.Triggers, t.Muted, t.DeadLetters)
	if err != nil {
		return nil, err
	}
	var all []hanging
	for _, h := range found {
		x := hanging{Hang: h}
		if x.verdict, x.why = h.Verdict(); x.verdict == kafka.ByNumber {
			if x.verdict, x.why, err = look(ctx, c, cl, h); err != nil {
				return nil, err
			}
		}
		all = append(all, x)
	}
	for i := range all { // offsets have no number: they go with the outputs of their transaction
		x := &all[i]
		for _, y := range all {
			if x.verdict == kafka.ByNumber && y.ProducerID == x.ProducerID && y.Epoch == x.Epoch && y.verdict != kafka.ByNumber {
				x.verdict, x.why = y.verdict, "so are the outputs of its transaction: "+y.why
			}
		}
		if x.verdict == kafka.ByNumber && x.Topic == kafka.OffsetsTopic && x.ID == "" {
			x.verdict, x.why = kafka.Waits, "it is another application's, as far as can be seen here"
		}
	}
	return all, nil
}

// outputs tells whether a topic is one of those that outputs go to.
func (t *TopicsConfig) outputs(name string) bool {
	return name == t.Triggers || name == t.Muted || name == t.DeadLetters
}

// look finds out what became of a transaction that its coordinator has forgotten: by a marker
// of its in another partition, or else by the number of its first output.
func look(ctx context.Context, c *Config, cl *kgo.Client, h *kafka.Hang) (v kafka.Verdict, why string, err error) {
	var first *kgo.Record
	err = c.readRaw(ctx, places{h.Topic: {h.Partition: kgo.NewOffset().At(h.Offset)}}, func(r *kgo.Record) (more bool, err error) {
		first = r
		return false, nil
	})
	switch {
	case err != nil:
		return "", "", err
	case first == nil || first.ProducerID != h.ProducerID || first.Attrs.IsControl():
		return "", "", fmt.Errorf("%s/%d: offset %d is not the first record of producer %d any more: ask again", h.Topic, h.Partition, h.Offset, h.ProducerID)
	}
	v, why, err = byMarker(ctx, c, cl, h, first.Timestamp)
	if err != nil || v != kafka.ByNumber || !c.Kafka.Topics.outputs(h.Topic) {
		return v, why, err
	}
	return byNumber(ctx, c, cl, h, first)
}

// byMarker looks for the transaction's marker in any partition, from the time on at which
// its first record was written: the marker behind its records. Transactions of version 2 have
// another epoch each.
func byMarker(ctx context.Context, c *Config, cl *kgo.Client, h *kafka.Hang, since time.Time) (kafka.Verdict, string, error) {
	v, why := kafka.ByNumber, "its epoch is over, and no partition tells what became of it"
	if !h.OwnEpoch() {
		return v, why, nil
	}
	t := &c.Kafka.Topics
	topics := []string{t.Triggers, t.Muted, t.DeadLetters}
	there, err := kadm.NewClient(cl).ListTopicsWithInternal(ctx, kafka.OffsetsTopic)
	if err != nil {
		return "", "", fmt.Errorf("kafka: %s: %w", kafka.OffsetsTopic, err)
	}
	if there.Has(kafka.OffsetsTopic) {
		topics = append(topics, kafka.OffsetsTopic)
	}
	offsets := kafka.GroupPartition(c.Kafka.Group, int32(len(there[kafka.OffsetsTopic].Partitions)))
	from, err := kadm.NewClient(cl).ListOffsetsAfterMilli(ctx, since.Add(-clocksApart).UnixMilli(), topics...)
	if err == nil {
		err = from.Error()
	}
	if err != nil {
		return "", "", fmt.Errorf("kafka: offsets of %v: %w", topics, err)
	}
	all := places{}
	from.Each(func(o kadm.ListedOffset) {
		if o.Topic == kafka.OffsetsTopic && o.Partition != offsets {
			return // other groups'
		}
		if all[o.Topic] == nil {
			all[o.Topic] = map[int32]kgo.Offset{}
		}
		all[o.Topic][o.Partition] = kgo.NewOffset().At(o.Offset)
	})
	type place struct {
		topic     string
		partition int32
	}
	behind := map[place]bool{} // the last that its producer has written there is of the transaction
	err = c.readRaw(ctx, all, func(r *kgo.Record) (more bool, err error) {
		at := place{r.Topic, r.Partition}
		switch {
		case r.ProducerID != h.ProducerID:
			return true, nil
		case !r.Attrs.IsControl():
			behind[at] = r.ProducerEpoch == h.Epoch
			return true, nil
		case !behind[at], r.ProducerEpoch != h.Epoch && r.ProducerEpoch != h.Epoch+1: // of none, or of a later one
			return true, nil
		}
		v = kafka.Aborts
		if committing(r) {
			v = kafka.Commits
		}
		why = fmt.Sprintf("its marker in %s/%d, offset %d, says so", r.Topic, r.Partition, r.Offset)
		return false, nil
	})
	return v, why, err
}

// clocksApart is how far the clocks of brokers and instances may be apart: markers have the
// broker's time.
const clocksApart = 10 * time.Minute

// committing tells a marker that commits from one that aborts.
func committing(marker *kgo.Record) bool { return marker.Key[len(marker.Key)-1] == 1 }

// byNumber holds the number of a transaction's first output against what is committed, and
// looks whether it was said again since.
func byNumber(ctx context.Context, c *Config, cl *kgo.Client, h *kafka.Hang, record *kgo.Record) (kafka.Verdict, string, error) {
	t := &c.Kafka.Topics
	first, err := triggers.NumberOf(record, t.DeadLetters)
	if err != nil {
		return "", "", err
	}
	n, err := committedUpTo(ctx, c, cl, h.Partition)
	if err == nil && first > n {
		select {
		case <-time.After(loadWait):
		case <-ctx.Done():
			return "", "", ctx.Err()
		}
		n, err = committedUpTo(ctx, c, cl, h.Partition)
	}
	if err != nil {
		return "", "", err
	}
	if first > n {
		return kafka.Aborts, fmt.Sprintf("its first output is number %d, and up to %d are committed", first, n), nil
	}
	for _, topic := range []string{t.Triggers, t.Muted, t.DeadLetters} {
		offset, err := saidAgain(ctx, c, cl, h, topic, first, record.Timestamp)
		if err != nil {
			return "", "", err
		}
		if offset >= 0 {
			return kafka.Aborts, fmt.Sprintf("its first output, number %d, was said again, and committed, at %s/%d offset %d", first, topic, h.Partition, offset), nil
		}
	}
	return kafka.Commits, fmt.Sprintf("its first output is number %d, which is committed and nowhere else", first), nil
}

// loadWait is how long a mark that would have outputs be lost is looked at: a group's coordinator
// that still loads its state tells of old ones (sources/kafka, package comment).
const loadWait = 3 * time.Second

// committedUpTo is how many outputs of a partition the group has committed. A transaction that
// is undecided is waited for, for a while: the one that hangs may be undecided there, too, and
// has committed nothing then.
func committedUpTo(ctx context.Context, c *Config, cl *kgo.Client, partition int32) (n uint64, err error) {
	for attempt := range 10 {
		offsets, err := kadm.NewClient(cl).FetchOffsets(kadm.RequireStable(ctx), c.Kafka.Group)
		if err != nil {
			break // marks asks again
		}
		o, _ := offsets.Lookup(c.Kafka.Topics.Events, partition)
		if !errors.Is(o.Err, kerr.UnstableOffsetCommit) {
			break
		}
		backoff(ctx, attempt)
	}
	committed, err := marks(ctx, c, cl)
	return committed[partition].N, err
}

// saidAgain looks for a committed output of a number in a topic, of another transaction than
// one that hangs, from the time on at which that was written; -1: there is none.
func saidAgain(ctx context.Context, c *Config, cl *kgo.Client, h *kafka.Hang, topic string, n uint64, since time.Time) (offset int64, err error) {
	offsets, err := kadm.NewClient(cl).ListOffsetsAfterMilli(ctx, since.UnixMilli(), topic)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return -1, fmt.Errorf("kafka: offsets of %s: %w", topic, err)
	}
	o, _ := offsets.Lookup(topic, h.Partition)         // what came late lies behind what was said again
	offset, by, decided := int64(-1), int64(-1), false // a candidate, and its producer, whose marker decides
	err = c.readRaw(ctx, places{topic: {h.Partition: kgo.NewOffset().At(o.Offset)}}, func(r *kgo.Record) (more bool, err error) {
		switch {
		case r.ProducerID == h.ProducerID && r.ProducerEpoch == h.Epoch:
			return true, nil
		case r.Attrs.IsControl():
			if r.ProducerID != by {
				return true, nil
			}
			if decided = committing(r); !decided {
				offset, by = -1, -1
			}
			return !decided, nil
		}
		number, err := triggers.NumberOf(r, c.Kafka.Topics.DeadLetters)
		if err == nil && number == n {
			offset, by = r.Offset, r.ProducerID
		}
		return true, err
	})
	if by >= 0 && !decided && err == nil {
		return -1, fmt.Errorf("%s/%d: output %d is at offset %d, in a transaction that is not decided yet: ask again", topic, h.Partition, n, offset)
	}
	return offset, err
}

// lookEvery is how often an instance looks whether something hangs.
const lookEvery = 15 * time.Second

// endHanging ends what hangs, beside an engine that has seen that something does, until ctx
// ends. Where it can't, it says why, once; the session has said what hangs.
func (e *engine) endHanging(ctx context.Context) {
	log, told := e.log.Named("hanging"), ""
	for {
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return
		}
		if e.session.HangingPartitions() == 0 {
			told = ""
			continue
		}
		if err := e.conf.endHangs(ctx, e.session.WriteMarker); err != nil && ctx.Err() == nil && told != err.Error() {
			told = err.Error()
			log.Error("a transaction keeps readers waiting, and this instance has not ended it; whoever may can: footfall topics hanging --end", zap.Error(err))
		}
	}
}

// endHangs writes the markers of what hangs, where what is to become of it is known, and no
// harm is done if they come late.
func (c *Config) endHangs(ctx context.Context, write func(ctx context.Context, h *kafka.Hang, commit bool) error) error {
	return c.withHanging(ctx, func(_ *kgo.Client, hangs []hanging) error {
		for _, h := range hangs {
			if h.verdict != kafka.Aborts && h.verdict != kafka.Commits || !h.Fenced() {
				continue
			}
			if err := write(ctx, h.Hang, h.verdict == kafka.Commits); err != nil {
				return err
			}
		}
		return nil
	})
}

// places are partitions of topics, and where to begin to read each.
type places map[string]map[int32]kgo.Offset

// readRaw gives the records of partitions, decided or not, and markers, until each wants no
// more, or to the ends as they were when it began.
func (c *Config) readRaw(ctx context.Context, from places, each func(r *kgo.Record) (more bool, err error)) error {
	topics := slices.Collect(maps.Keys(from))
	cl, err := c.connect(ctx, kgo.FetchIsolationLevel(kgo.ReadUncommitted()), kgo.KeepControlRecords(), kgo.ConsumePartitions(from))
	if err != nil {
		return err
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("kafka: ends of %v: %w", topics, err)
	}
	left := 0 // partitions that are not read yet
	for topic, partitions := range from {
		for partition, offset := range partitions {
			if end, _ := ends.Lookup(topic, partition); offset.EpochOffset().Offset < end.Offset {
				left++
			}
		}
	}
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil && !kerr.IsRetriable(err) {
			return fmt.Errorf("kafka: read %v: %w", topics, err)
		}
		for _, r := range fetches.Records() {
			end, _ := ends.Lookup(r.Topic, r.Partition)
			if r.Offset >= end.Offset {
				continue // of later
			}
			more, err := each(r)
			if err != nil || !more {
				return err
			}
			if r.Offset == end.Offset-1 {
				left--
			}
		}
	}
	return nil
}

// tellHanging prints what hangs, and ends it if it should.
func tellHanging(ctx context.Context, cl *kgo.Client, hangs []hanging, end bool, out io.Writer) error {
	if len(hangs) == 0 {
		fmt.Fprintln(out, "nothing is undecided")
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PARTITION\tFROM OFFSET\tTRANSACTION\tSTATE\tTO DO\tWHY")
	left, ended := 0, 0
	for _, h := range hangs {
		todo := string(h.verdict)
		switch {
		case h.verdict == kafka.Waits:
		case end && h.verdict != kafka.ByNumber:
			if err := h.End(ctx, cl, h.verdict == kafka.Commits); err != nil {
				return errors.Join(w.Flush(), err)
			}
			todo = map[kafka.Verdict]string{kafka.Aborts: "aborted", kafka.Commits: "committed"}[h.verdict]
			ended++
		default:
			left++
		}
		fmt.Fprintf(w, "%s/%d\t%d\t%s\t%s\t%s\t%s\n", h.Topic, h.Partition, h.Offset, cmp.Or(h.ID, "-"), cmp.Or(h.State, "-"), todo, h.why)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if ended > 0 {
		fmt.Fprintf(out, "%s ended\n", counted(ended, "transaction"))
	}
	if left > 0 {
		if !end {
			fmt.Fprintln(out, "to end them: footfall topics hanging --end")
		}
		return errRefused
	}
	return nil
}
