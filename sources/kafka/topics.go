package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/schemas"
)

// TopicPlan is what the topics should be.
type TopicPlan struct {
	Input   string
	Outputs []string     // triggers, muted and dead letters: as many partitions as Input
	Lane    schemas.Lane // of Input; replay keeps everything and takes any timestamp

	// Only for creating. Partitions is taken where Input does not exist yet.
	Partitions  int32
	Replication int16 // 0: the brokers' default

	// ValueMax is the largest value that a dead letter is to keep whole, with its
	// headers; 0 is 1 MiB, the most an event may have.
	ValueMax int
}

// Problem is one thing that is wrong with topics, and how it is mended.
type Problem struct{ What, Remedy string }

func (p Problem) String() string { return p.What + ": " + p.Remedy }

// valueOverhead is room for a dead letter's key and headers and a batch's own.
const valueOverhead = 64 << 10

// latest is the value of a time limit that is switched off: Java's Long.MAX_VALUE.
const latest = "9223372036854775807"

// settings are the configuration that a topic is made with.
func (p *TopicPlan) settings(topic string) map[string]*string {
	s := make(map[string]*string)
	if topic == p.Input && p.Lane == schemas.Replay {
		// Record timestamps are event times, months old or hours ahead of the wall.
		s["retention.ms"] = new("-1")
		s["message.timestamp.type"] = new("CreateTime")
		s["message.timestamp.before.max.ms"] = new(latest)
		s["message.timestamp.after.max.ms"] = new(latest)
	}
	s["retention.bytes"] = new("-1") // whatever the brokers' default is: how far back a recovery reads is a time
	s["cleanup.policy"] = new("delete")
	s["max.message.bytes"] = new(strconv.Itoa(p.messageMax()))
	return s
}

func (p *TopicPlan) messageMax() int { return cmp.Or(p.ValueMax, 1<<20) + valueOverhead }

// CreateTopics makes the topics that do not exist. It changes none that do: it
// returns what is wrong with them. Outputs get as many partitions as the input has.
func CreateTopics(ctx context.Context, cl *kgo.Client, plan TopicPlan) ([]Problem, error) {
	adm := kadm.NewClient(cl)
	existing, err := lookUp(ctx, cl, plan.names()...)
	if err != nil {
		return nil, err
	}
	partitions := plan.Partitions
	if t, ok := existing[plan.Input]; ok {
		partitions = int32(len(t.leaders))
	}
	if partitions <= 0 {
		return nil, errors.New("kafka: create topics: give a number of partitions; it can't be changed later")
	}
	replication := cmp.Or(plan.Replication, -1)
	for _, name := range plan.names() {
		if _, ok := existing[name]; ok {
			continue
		}
		if err := create(ctx, adm, name, partitions, replication, plan.settings(name)); err != nil {
			return nil, err
		}
	}
	if existing, err = lookUpMade(ctx, cl, plan.names()...); err != nil {
		return nil, err
	}
	return checkTopics(ctx, cl, plan, existing)
}

// create makes one topic. Brokers before 3.6 have one setting for both limits of
// timestamps, under another name; where ours is refused the old one is tried.
func create(ctx context.Context, adm *kadm.Client, name string, partitions int32, replication int16, settings map[string]*string) error {
	_, err := adm.CreateTopic(ctx, partitions, replication, settings, name)
	if errors.Is(err, kerr.InvalidConfig) && settings["message.timestamp.after.max.ms"] != nil {
		delete(settings, "message.timestamp.after.max.ms")
		delete(settings, "message.timestamp.before.max.ms")
		settings["message.timestamp.difference.max.ms"] = new(latest)
		_, err = adm.CreateTopic(ctx, partitions, replication, settings, name)
	}
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("kafka: create topic %s: %w", name, Lack{OnTopic, name, false, kmsg.ACLOperationCreate}.Named(err))
	}
	return nil
}

func (p *TopicPlan) names() []string { return append([]string{p.Input}, p.Outputs...) }

// CheckTopics returns what is wrong with the topics, or nothing. An error says that
// it could not be found out.
func CheckTopics(ctx context.Context, cl *kgo.Client, plan TopicPlan) ([]Problem, error) {
	topics, err := lookUp(ctx, cl, plan.names()...)
	if err != nil {
		return nil, err
	}
	return checkTopics(ctx, cl, plan, topics)
}

func checkTopics(ctx context.Context, cl *kgo.Client, plan TopicPlan, topics map[string]topicInfo) (problems []Problem, err error) {
	for _, name := range plan.names() {
		if _, ok := topics[name]; !ok {
			problems = append(problems, Problem{"topic " + name + " does not exist", "footfall topics create"})
		}
	}
	if input, ok := topics[plan.Input]; ok {
		for _, name := range plan.Outputs {
			t, ok := topics[name]
			if ok && len(t.leaders) != len(input.leaders) {
				problems = append(problems, Problem{
					fmt.Sprintf("topic %s has %d partitions and the input %s has %d", name, len(t.leaders), plan.Input, len(input.leaders)),
					"an output goes to its user's input partition, so the counts must be equal; a topic can't be expanded: " +
						"move to a new one with the input's count, or move the input if it was the one expanded",
				})
			}
		}
	}
	more, err := checkSettings(ctx, kadm.NewClient(cl), plan, topics)
	return append(problems, more...), err
}

func checkSettings(ctx context.Context, adm *kadm.Client, plan TopicPlan, topics map[string]topicInfo) ([]Problem, error) {
	names := slices.Sorted(maps.Keys(topics))
	if len(names) == 0 {
		return nil, nil
	}
	var configs kadm.ResourceConfigs
	err := insistOnTopic(ctx, 3*requestTimeout, func(ctx context.Context) (err error) {
		if configs, err = adm.DescribeTopicConfigs(ctx, names...); err != nil {
			return fmt.Errorf("kafka: read the configuration of %s: %w", strings.Join(names, ", "), err)
		}
		for _, rc := range configs {
			if rc.Err != nil {
				return fmt.Errorf("kafka: read the configuration of %s: %w", rc.Name, rc.Err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(configs, func(a, b kadm.ResourceConfig) int { return strings.Compare(a.Name, b.Name) })
	var problems []Problem
	for _, rc := range configs {
		set := make(map[string]string)
		for _, c := range rc.Configs {
			set[c.Key] = c.MaybeValue()
		}
		problems = append(problems, plan.checkTopic(rc.Name, set)...)
	}
	return problems, nil
}

func (p *TopicPlan) checkTopic(name string, set map[string]string) (problems []Problem) {
	wrong := func(what, key, value string) {
		problems = append(problems, Problem{
			fmt.Sprintf("topic %s: %s", name, what),
			fmt.Sprintf("kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config %s=%s", name, key, value),
		})
	}
	if strings.Contains(set["cleanup.policy"], "compact") {
		wrong("it is compacted, which loses all but the last record of a user", "cleanup.policy", "delete")
	}
	if n, err := strconv.Atoi(set["max.message.bytes"]); name != p.Input && err == nil && n < p.messageMax() {
		wrong(fmt.Sprintf("it takes records of %d bytes, less than the largest event with its headers: such dead letters are kept without their value", n),
			"max.message.bytes", strconv.Itoa(p.messageMax()))
	}
	if name != p.Input || p.Lane != schemas.Replay {
		return problems
	}
	for _, key := range []string{"retention.ms", "retention.bytes"} {
		if v, ok := set[key]; ok && v != "-1" {
			wrong("record timestamps are event times in lane replay, and "+key+"="+v+" deletes what is old", key, "-1")
		}
	}
	if v := set["message.timestamp.type"]; v == "LogAppendTime" {
		wrong("lane replay lives by the records' own timestamps, and the broker replaces them", "message.timestamp.type", "CreateTime")
	}
	for _, key := range []string{"message.timestamp.before.max.ms", "message.timestamp.after.max.ms", "message.timestamp.difference.max.ms"} {
		if v, ok := set[key]; ok && v != latest {
			wrong("in lane replay "+key+"="+v+" refuses events whose time is far from the wall's", key, latest)
		}
	}
	return problems
}
