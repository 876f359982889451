package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/sources/kafka"
)

func newTopics(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "topics",
		GroupID: "operate",
		Short:   "Make the topics, check them, or end what hangs in them",
		Long: `The topics are those of kafka.topics: events, triggers, muted transitions, dead letters, and
the kill switch's. What footfall promises rests on their settings (retention, compaction,
timestamps, partitions), so they are made, and checked, by a command.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var b brokersFlag
	create := &cobra.Command{
		Use:   "create",
		Short: "Make the topics that do not exist, and check the others",
		Long: `Makes the topics of events, triggers, muted transitions, dead letters (as many partitions
each: kafka.partitions, or what the events topic has) and the compacted topic of the kill
switch. With kafka.lane replay, the events topic keeps everything and takes any timestamp.
A topic that exists is not changed: what is wrong with it is told. Exit code 1 then.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withTopics(cmd, g, &b, func(ctx context.Context, c *Config, cl *kgo.Client) ([]kafka.Problem, error) {
				return createTopics(ctx, c, cl, cmd.OutOrStdout())
			})
		},
	}
	check := &cobra.Command{
		Use:   "check",
		Short: "Tell what is wrong with the topics, and how to mend it",
		Long: `Looks at the topics and their settings, and changes nothing. Each line is something that is
wrong, with its remedy. Exit code 1 then.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withTopics(cmd, g, &b, checkTopics)
		},
	}
	b.add(create)
	b.add(check)
	cmd.AddCommand(create, check, newHanging(g, &b))
	return cmd
}

// withTopics connects, and prints the problems that do finds.
func withTopics(cmd *cobra.Command, g *global, b *brokersFlag, do func(context.Context, *Config, *kgo.Client) ([]kafka.Problem, error)) error {
	c, err := g.config(b.settings()...)
	if err != nil {
		return err
	}
	cl, err := c.connect(cmd.Context())
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := c.allowed(cmd.Context(), cl, c.topicNeeds()); err != nil {
		return err
	}
	problems, err := do(cmd.Context(), c, cl)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	for _, p := range problems {
		fmt.Fprintf(out, "! %s\n  %s\n", p.What, p.Remedy)
	}
	if len(problems) > 0 {
		return errRefused
	}
	fmt.Fprintln(out, "the topics are right")
	return nil
}

// topicPlan is what the topics should be.
func (c *Config) topicPlan() kafka.TopicPlan {
	t := &c.Kafka.Topics
	return kafka.TopicPlan{
		Input:       t.Events,
		Outputs:     []string{t.Triggers, t.Muted, t.DeadLetters},
		Lane:        c.Kafka.Lane,
		Partitions:  int32(c.Kafka.Partitions),
		Replication: int16(c.Kafka.Replication),
	}
}

func createTopics(ctx context.Context, c *Config, cl *kgo.Client, out io.Writer) ([]kafka.Problem, error) {
	existed, err := existing(ctx, c, cl)
	if err != nil {
		return nil, err
	}
	if _, err := kafka.CreateTopics(ctx, cl, c.topicPlan()); err != nil {
		return nil, c.permit(err)
	}
	compact := "compact"
	_, err = kadm.NewClient(cl).CreateTopic(ctx, 1, int16(c.Kafka.Replication),
		map[string]*string{"cleanup.policy": &compact}, c.controlTopic())
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		lack := kafka.Lack{On: kafka.OnTopic, Name: c.controlTopic(), Do: kmsg.ACLOperationCreate}
		return nil, c.permit(fmt.Errorf("kafka: create topic %s: %w", c.controlTopic(), lack.Named(err)))
	}
	// A client remembers for a while that a topic does not exist: another one looks.
	fresh, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer fresh.Close()
	now, err := existing(ctx, c, fresh)
	// A cluster's brokers learn of a new topic one after the other.
	for attempt := 1; err == nil && len(now) < len(c.topicNames()) && attempt < 10; attempt++ {
		backoff(ctx, attempt)
		now, err = existing(ctx, c, fresh)
	}
	if err != nil {
		return nil, err
	}
	for _, name := range c.topicNames() {
		verb := "made"
		if existed[name] > 0 {
			verb = "was there"
		}
		if now[name] > 0 {
			fmt.Fprintf(out, "%-9s  %s, %s\n", verb, name, counted(now[name], "partition"))
		}
	}
	return checkTopics(ctx, c, fresh)
}

func checkTopics(ctx context.Context, c *Config, cl *kgo.Client) ([]kafka.Problem, error) {
	problems, err := kafka.CheckTopics(ctx, cl, c.topicPlan())
	if err != nil {
		return nil, err
	}
	control, err := checkControl(ctx, c, cl)
	return append(problems, control...), err
}

// checkReplay checks the events topic alone, for history in log time.
func checkReplay(ctx context.Context, c *Config, cl *kgo.Client) ([]kafka.Problem, error) {
	plan := c.topicPlan()
	plan.Outputs = nil
	return kafka.CheckTopics(ctx, cl, plan)
}

// topicNames are all topics of the configuration.
func (c *Config) topicNames() []string {
	t := &c.Kafka.Topics
	return []string{t.Events, t.Triggers, t.Muted, t.DeadLetters, c.controlTopic()}
}

// existing gives how many partitions those of the topics have that exist.
func existing(ctx context.Context, c *Config, cl *kgo.Client) (map[string]int, error) {
	topics, err := kadm.NewClient(cl).ListTopics(ctx, c.topicNames()...)
	if err != nil {
		return nil, fmt.Errorf("kafka: list topics: %w", err)
	}
	found := map[string]int{}
	for name, t := range topics {
		if t.Err == nil {
			found[name] = len(t.Partitions)
		}
	}
	return found, nil
}

// checkControl checks the topic of the kill switch: one partition, so that there is one
// order, and compacted, so that what was said last stays.
func checkControl(ctx context.Context, c *Config, cl *kgo.Client) (problems []kafka.Problem, err error) {
	name := c.controlTopic()
	found, err := existing(ctx, c, cl)
	if err != nil {
		return nil, err
	}
	switch found[name] {
	case 0:
		return []kafka.Problem{{What: "topic " + name + " does not exist", Remedy: "footfall topics create"}}, nil
	case 1:
	default:
		problems = append(problems, kafka.Problem{
			What:   fmt.Sprintf("topic %s has %d partitions; the kill switch needs one, so that there is one order", name, found[name]),
			Remedy: "name another by kafka.topics.control, then footfall topics create",
		})
	}
	configs, err := kadm.NewClient(cl).DescribeTopicConfigs(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("kafka: read the configuration of %s: %w", name, err)
	}
	for _, rc := range configs {
		for _, s := range rc.Configs {
			if s.Key == "cleanup.policy" && s.MaybeValue() != "compact" {
				problems = append(problems, kafka.Problem{
					What:   fmt.Sprintf("topic %s is not compacted (%s): the kill switch would forget", name, s.MaybeValue()),
					Remedy: fmt.Sprintf("kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config cleanup.policy=compact", name),
				})
			}
		}
	}
	return problems, nil
}
