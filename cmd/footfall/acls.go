package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/sources/kafka"
)

// What each command needs of the brokers' ACLs. SECURITY.md has the commands that give
// just that, and a test runs with no more.

const (
	canRead            = kmsg.ACLOperationRead
	canWrite           = kmsg.ACLOperationWrite
	canDescribe        = kmsg.ACLOperationDescribe
	canDescribeConfigs = kmsg.ACLOperationDescribeConfigs
)

// runNeeds is what the engine needs, with its archive.
func (c *Config) runNeeds() []kafka.Need {
	t := &c.Kafka.Topics
	needs := []kafka.Need{{On: kafka.OnTopic, Name: t.Events, Do: []kmsg.ACLOperation{canRead, canDescribeConfigs}}}
	for _, name := range []string{t.Triggers, t.Muted, t.DeadLetters} {
		needs = append(needs, kafka.Need{On: kafka.OnTopic, Name: name, Do: []kmsg.ACLOperation{canRead, canWrite, canDescribeConfigs}})
	}
	control := []kmsg.ACLOperation{canRead, canDescribeConfigs}
	if rules, err := c.rules(); err == nil && rules.Quantiles() > 0 {
		control = append(control, canWrite) // what partitions have counted, and the bounds
	}
	needs = append(needs,
		kafka.Need{On: kafka.OnTopic, Name: c.controlTopic(), Do: control},
		kafka.Need{On: kafka.OnGroup, Name: c.Kafka.Group, Do: []kmsg.ACLOperation{canRead}},
		kafka.Need{On: kafka.OnTransactionalID, Name: c.Kafka.Group + "/", Prefix: true, Do: []kmsg.ACLOperation{canWrite}})
	if c.ClickHouse.Enabled {
		needs = append(needs, kafka.Need{On: kafka.OnGroup, Name: c.Kafka.Group + "-archive", Do: []kmsg.ACLOperation{canRead}})
	}
	return needs
}

// publishNeeds is what it takes to publish events; a series that can go on where it was
// reads those of before, and keeps its place in the offsets of a group.
func (c *Config) publishNeeds(series bool) []kafka.Need {
	if !series {
		return []kafka.Need{{On: kafka.OnTopic, Name: c.Kafka.Topics.Events, Do: []kmsg.ACLOperation{canWrite}}}
	}
	return []kafka.Need{
		{On: kafka.OnTopic, Name: c.Kafka.Topics.Events, Do: []kmsg.ACLOperation{canWrite, canRead}},
		{On: kafka.OnGroup, Name: c.publishGroup() + "-", Prefix: true, Do: []kmsg.ACLOperation{canRead}},
	}
}

// auditNeeds is what it takes to compare topics with ClickHouse.
func (c *Config) auditNeeds() (needs []kafka.Need) {
	for _, name := range c.topicNames()[:4] {
		needs = append(needs, kafka.Need{On: kafka.OnTopic, Name: name, Do: []kmsg.ACLOperation{canRead}})
	}
	for _, name := range []string{c.Kafka.Group, c.Kafka.Group + "-archive"} {
		needs = append(needs, kafka.Need{On: kafka.OnGroup, Name: name, Do: []kmsg.ACLOperation{canDescribe}})
	}
	return needs
}

// parityNeeds is what it takes to compare segments with ClickHouse: how far the topics and
// the groups are, and, where sets score by quantiles, the bounds.
func (c *Config) parityNeeds() (needs []kafka.Need) {
	for _, name := range c.topicNames()[:4] {
		needs = append(needs, kafka.Need{On: kafka.OnTopic, Name: name, Do: []kmsg.ACLOperation{canDescribe}})
	}
	for _, name := range []string{c.Kafka.Group, c.Kafka.Group + "-archive"} {
		needs = append(needs, kafka.Need{On: kafka.OnGroup, Name: name, Do: []kmsg.ACLOperation{canDescribe}})
	}
	if rules, err := c.rules(); err == nil && rules.Quantiles() > 0 {
		needs = append(needs, kafka.Need{On: kafka.OnTopic, Name: c.controlTopic(), Do: []kmsg.ACLOperation{canRead}})
	}
	return needs
}

// topicNeeds is what it takes to look whether the topics are right.
func (c *Config) topicNeeds() (needs []kafka.Need) {
	for _, name := range c.topicNames() {
		needs = append(needs, kafka.Need{On: kafka.OnTopic, Name: name, Do: []kmsg.ACLOperation{canDescribe, canDescribeConfigs}})
	}
	return needs
}

// switchNeeds is what it takes to throw the kill switch.
func (c *Config) switchNeeds() []kafka.Need {
	return []kafka.Need{{On: kafka.OnTopic, Name: c.controlTopic(), Do: []kmsg.ACLOperation{canWrite, canRead}}}
}

// lookNeeds is what it takes to ask how the group is and who owns what.
func (c *Config) lookNeeds() []kafka.Need {
	return []kafka.Need{
		{On: kafka.OnTopic, Name: c.Kafka.Topics.Events, Do: []kmsg.ACLOperation{canDescribe}},
		{On: kafka.OnGroup, Name: c.Kafka.Group, Do: []kmsg.ACLOperation{canDescribe}},
	}
}

// checkNeeds is what it takes to look at everything.
func (c *Config) checkNeeds() []kafka.Need {
	t := &c.Kafka.Topics
	needs := c.lookNeeds()
	for _, name := range []string{t.Events, c.controlTopic()} {
		needs = append(needs, kafka.Need{On: kafka.OnTopic, Name: name, Do: []kmsg.ACLOperation{canRead, canDescribeConfigs}})
	}
	for _, name := range []string{t.Triggers, t.Muted, t.DeadLetters} {
		needs = append(needs, kafka.Need{On: kafka.OnTopic, Name: name, Do: []kmsg.ACLOperation{canDescribe, canDescribeConfigs}})
	}
	return needs
}

// allowed refuses to begin what the brokers would not let us do: each missing ACL with
// the command that gives it.
func (c *Config) allowed(ctx context.Context, cl *kgo.Client, needs []kafka.Need) error {
	lacks, err := kafka.Lacking(ctx, cl, needs)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range lacks {
		errs = append(errs, c.permit(fmt.Errorf("kafka: %w", l)))
	}
	return errors.Join(errs...)
}

// permit adds the command that gives the right for the lack of which something failed.
func (c *Config) permit(err error) error {
	if l, ok := errors.AsType[kafka.Lack](err); ok {
		return fmt.Errorf("%w; %s", err, l.Command(c.Kafka.SASL.Username))
	}
	return err
}

// rights looks what of the engine's rights this user has. Who may write to no topic of
// outputs is somebody who looks on, not the engine.
func (k *checkup) rights(ctx context.Context, cl *kgo.Client) {
	lacks, err := kafka.Lacking(ctx, cl, k.c.runNeeds())
	t, writes := &k.c.Kafka.Topics, 3
	for _, l := range lacks {
		if l.Do == canWrite && (l.Name == t.Triggers || l.Name == t.Muted || l.Name == t.DeadLetters) {
			writes--
		}
	}
	if writes == 0 {
		k.none("ACLs: this user may look, not run the engine (it may write to none of %s, %s and %s)", t.Triggers, t.Muted, t.DeadLetters)
		lacks, err = kafka.Lacking(ctx, cl, k.c.checkNeeds())
	}
	if err != nil {
		k.wrong(err.Error(), "")
		return
	}
	for _, l := range lacks {
		k.wrong(l.Error(), l.Command(k.c.Kafka.SASL.Username))
	}
	if len(lacks) == 0 && writes > 0 {
		k.ok("ACLs: all that the engine needs")
	}
}
