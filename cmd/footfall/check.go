package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/sinks/clickhouse"
	"footfall/sources/kafka"
)

func newCheck(g *global) *cobra.Command {
	var b brokersFlag
	var sample int
	cmd := &cobra.Command{
		Use:     "check",
		GroupID: "operate",
		Short:   "Is everything in reach and set up well; what to do if not",
		Long: `Looks, and changes nothing (but for an object that is written to the bucket and removed):
the configuration; the segment sets; the brokers and their version; the topics; their retention against the
age of snapshots; whether users lie in the partition that Kafka's own partitioner gives
them (a storefront that publishes with another one splits a user in two); what the group
has committed; the kill switch; the bucket of snapshots; ClickHouse.

Each line is a finding: ok, ! with its remedy, or - where there was nothing to look at.
Exit code 1 when there is a "!".`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if sample < 1 {
				return &usageError{fmt.Errorf("--sample %d: want 1 or more", sample)}
			}
			c, err := g.config(b.settings()...)
			if err != nil {
				return err
			}
			k := &checkup{c: c, out: cmd.OutOrStdout(), sample: sample}
			k.run(cmd.Context())
			if k.bad > 0 {
				return errRefused
			}
			return cmd.Context().Err()
		},
	}
	b.add(cmd)
	cmd.Flags().IntVar(&sample, "sample", 10000, "newest records of the events topic whose partition is looked at")
	return cmd
}

// checkup looks at one thing after the other.
type checkup struct {
	c      *Config
	out    io.Writer
	sample int
	bad    int
}

func (k *checkup) ok(format string, args ...any) { fmt.Fprintf(k.out, "ok  "+format+"\n", args...) }

func (k *checkup) none(format string, args ...any) { fmt.Fprintf(k.out, "-   "+format+"\n", args...) }

func (k *checkup) wrong(what, remedy string) {
	k.bad++
	fmt.Fprintf(k.out, "!   %s\n", what)
	if remedy != "" {
		fmt.Fprintf(k.out, "    %s\n", remedy)
	}
}

func (k *checkup) run(ctx context.Context) {
	from := "the defaults"
	if k.c.path != "" {
		from = k.c.path
	}
	k.ok("configuration: %s, and %s over the defaults", from, counted(len(k.c.from), "setting"))
	k.exposure()
	k.rules()
	k.kafka(ctx)
	k.bucket(ctx)
	k.clickhouse(ctx)
}

// exposure looks at what others can reach or overhear.
func (k *checkup) exposure() {
	if why := k.c.unguarded(); why != "" {
		k.wrong(why, "set "+variable("http.token")+" or http.token_file, here and for who asks; or listen on 127.0.0.1")
	}
	s := &k.c.Kafka.SASL
	if s.Mechanism == "plain" && !k.c.Kafka.TLS.Enabled {
		k.wrong("the password goes to the brokers in clear: kafka.sasl.mechanism is plain, without TLS", "set kafka.tls.enabled, or use scram-sha-512")
	}
}

func (k *checkup) rules() {
	p, err := k.c.rules()
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			k.wrong("segment sets: "+line, "")
		}
		return
	}
	k.ok("segment sets: %s", strings.Join(setNames(p.Names()), ", "))
}

func (k *checkup) kafka(ctx context.Context) {
	cl, err := k.c.connect(ctx)
	if err != nil {
		k.wrong(strings.TrimPrefix(err.Error(), "kafka: "), "")
		return
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	if v, err := adm.ApiVersions(ctx); err == nil {
		k.version(v)
	}
	k.rights(ctx, cl)
	k.protocol(ctx, cl)
	problems, err := checkTopics(ctx, k.c, cl)
	if err != nil {
		k.wrong(err.Error(), "")
		return
	}
	for _, p := range problems {
		k.wrong(p.What, p.Remedy)
	}
	if len(problems) > 0 {
		return
	}
	k.ok("topics: %s", strings.Join(k.c.topicNames(), ", "))
	k.retention(ctx, adm)
	k.placement(ctx, cl)
	k.group(ctx, cl)
}

// version wants brokers that fence transactions one by one (KIP-890): before Kafka 4, a
// delayed commit of one may be applied to the next.
func (k *checkup) version(all kadm.BrokersApiVersions) {
	level := int16(-1)
	all.Each(func(b kadm.BrokerApiVersions) {
		if b.Err != nil {
			return
		}
		for _, f := range b.Raw().FinalizedFeatures {
			if f.Name == "transaction.version" {
				level = f.MaxVersionLevel
			}
		}
	})
	k.ok("brokers: %s answer", strings.Join(k.c.Kafka.Brokers, ", "))
	switch {
	case level < 0:
		k.none("transaction.version: the brokers do not tell; exactly once is promised on Kafka 4, where it is 2")
	case level < 2:
		k.wrong(fmt.Sprintf("transaction.version is %d: a delayed commit may be applied to a later transaction (KIP-890)", level),
			"use Kafka 4, and: kafka-features.sh upgrade --feature transaction.version=2")
	default:
		k.ok("transaction.version: %d", level)
	}
}

// protocol wants brokers that serve the configured group protocol. That of the
// archive's group is the same.
func (k *checkup) protocol(ctx context.Context, cl *kgo.Client) {
	p := kafka.Protocol(k.c.Kafka.Protocol)
	if p == kafka.Classic {
		return // every broker does
	}
	if err := p.Supported(ctx, cl); err != nil {
		what, remedy, _ := strings.Cut(strings.TrimPrefix(err.Error(), "kafka: "), ": ")
		k.wrong(what, remedy+" (kafka.protocol)")
		return
	}
	k.ok("kafka.protocol: %s", p)
}

func (k *checkup) retention(ctx context.Context, adm *kadm.Client) {
	problems, _, err := retention(ctx, k.c, adm)
	if err != nil {
		k.wrong("retention of the topics: "+err.Error(), "")
		return
	}
	for _, p := range problems {
		k.wrong(p.What, p.Remedy)
	}
	if len(problems) == 0 {
		t := &k.c.Kafka.Topics
		k.ok("retention: longer than what recovery may need, %s of events and %s of what was said", formatDuration(k.c.recoveryNeeds(t.Events)), formatDuration(k.c.recoveryNeeds(t.Triggers)))
	}
}

// recoveryNeeds is how far back recovery may have to read a topic: to the oldest snapshot
// kept, where the newer ones are damaged; and of the events what that one's dedup window
// holds, which is in no snapshot.
func (c *Config) recoveryNeeds(topic string) time.Duration {
	oldest := time.Duration(c.Snapshots.Keep*(1+c.Snapshots.Deltas)+1) * c.Snapshots.Every
	if topic == c.Kafka.Topics.Events {
		return oldest + c.Dedup.Window
	}
	return oldest
}

// retention reads how long the topics keep records (without a limit: not listed), and
// tells where that is less than recovery may need.
func retention(ctx context.Context, c *Config, adm *kadm.Client) (problems []kafka.Problem, keeps map[string]time.Duration, err error) {
	t := &c.Kafka.Topics
	configs, err := adm.DescribeTopicConfigs(ctx, t.Events, t.Triggers, t.Muted, t.DeadLetters)
	if err != nil {
		return nil, nil, err
	}
	keeps = map[string]time.Duration{}
	for _, rc := range configs {
		for _, s := range rc.Configs {
			if v := s.MaybeValue(); s.Key == "retention.bytes" && v != "" && v != "-1" {
				problems = append(problems, kafka.Problem{
					What:   fmt.Sprintf("topic %s keeps %s bytes a partition and no more (retention.bytes): it may delete what a recovery, or the archive, has yet to read", rc.Name, v),
					Remedy: fmt.Sprintf("kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config retention.bytes=-1", rc.Name),
				})
			}
			if s.Key != "retention.ms" {
				continue
			}
			ms, err := strconv.ParseInt(s.MaybeValue(), 10, 64)
			if err != nil || ms < 0 {
				continue
			}
			keeps[rc.Name] = time.Duration(ms) * time.Millisecond
			if least := c.recoveryNeeds(rc.Name); keeps[rc.Name] < least {
				problems = append(problems, kafka.Problem{
					What:   fmt.Sprintf("topic %s keeps records for %s, and recovery may need %s of them", rc.Name, formatDuration(keeps[rc.Name]), formatDuration(least)),
					Remedy: "keep records longer (retention.ms), or take snapshots more often (snapshots.every)",
				})
			}
		}
	}
	return problems, keeps, nil
}

// placement looks whether the newest records lie where their key belongs.
func (k *checkup) placement(ctx context.Context, cl *kgo.Client) {
	topic := k.c.Kafka.Topics.Events
	seen, astray, example, err := misplaced(ctx, k.c, cl, topic, k.sample)
	switch {
	case err != nil:
		k.wrong("records of "+topic+": "+err.Error(), "")
	case seen == 0:
		k.none("partitions of users: %s is empty", topic)
	case astray > 0:
		k.wrong(fmt.Sprintf("%d of the newest %d records of %s lie in another partition than their key's, for example %s", astray, seen, topic, example),
			"every producer must partition by murmur2 of the key, as Kafka's Java client (kafka-go: Balancer: &kafka.Murmur2Balancer{Consistent: true}; librdkafka: partitioner=murmur2_random); else one user is counted as two")
	default:
		k.ok("partitions of users: the newest %d records of %s lie where their key belongs", seen, topic)
	}
}

// group looks at what the group has committed, and at the kill switch.
func (k *checkup) group(ctx context.Context, cl *kgo.Client) {
	committed, err := marks(ctx, k.c, cl)
	switch {
	case err != nil:
		k.wrong(err.Error(), "was the group's offset set by another tool? Give footfall a group of its own (kafka.group)")
	case len(committed) == 0:
		k.none("group %s: nothing committed yet", k.c.Kafka.Group)
	default:
		k.ok("group %s: %s committed", k.c.Kafka.Group, counted(len(committed), "partition"))
	}
	s, err := readControl(ctx, k.c)
	switch {
	case err != nil:
		k.wrong("kill switch: "+err.Error(), "")
	case s.Paused:
		k.wrong(fmt.Sprintf("triggers are paused since %s, by %s %s", clock(s.At), shown([]byte(s.By), 100), shown([]byte(s.Reason), 500)), "footfall triggers resume")
	default:
		k.ok("triggers: not paused")
	}
}

func (k *checkup) bucket(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	bucket, err := openBucket(ctx, k.c)
	if err != nil {
		k.wrong(err.Error(), "")
		return
	}
	defer func() { _ = bucket.Close() }()
	found, err := listSnapshots(ctx, bucket)
	if err != nil {
		k.wrong(fmt.Sprintf("snapshots.bucket %s: %v", k.c.Snapshots.Bucket, err), "")
		return
	}
	// What can be listed may still not be written.
	const probe = "check.tmp"
	err = bucket.WriteAll(ctx, probe, []byte("footfall check"), nil)
	if err == nil {
		err = bucket.Delete(ctx, probe)
	}
	if err != nil {
		k.wrong(fmt.Sprintf("snapshots.bucket %s: can't be written: %v", k.c.Snapshots.Bucket, err), "give this user the right to write and delete there")
		return
	}
	k.ok("snapshots: %d of group %s in %s", len(found), k.c.Kafka.Group, k.c.Snapshots.Bucket)
}

func (k *checkup) clickhouse(ctx context.Context) {
	if !k.c.ClickHouse.Enabled {
		k.none("ClickHouse: not wanted (clickhouse.enabled)")
		return
	}
	db, err := clickhouse.Open(k.c.clickhouseDSN())
	if err != nil {
		k.wrong(err.Error(), "see clickhouse.dsn")
		return
	}
	defer func() { _ = db.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	version, err := db.Version(ctx)
	if errors.Is(err, clickhouse.ErrNoDatabase) {
		k.none(fmt.Sprintf("ClickHouse at %s: no database %s yet; the engine makes it when it starts", k.c.ClickHouse.DSN, k.c.ClickHouse.Database))
		return
	}
	if err != nil {
		remedy := "check clickhouse.dsn; triggers work without it, and the archive catches up when it is back"
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
			remedy = "is the address right, and does a firewall drop it? " + remedy
		}
		k.wrong(fmt.Sprintf("ClickHouse at %s: %v", k.c.ClickHouse.DSN, err), remedy)
		return
	}
	k.ok("ClickHouse at %s: version %s, database %s", k.c.ClickHouse.DSN, version, k.c.ClickHouse.Database)
}

// misplaced reads the newest records of a topic, at most sample, and counts those that
// lie in another partition than murmur2 gives their key.
func misplaced(ctx context.Context, c *Config, cl *kgo.Client, topic string, sample int) (seen, astray int, example string, err error) {
	n, err := partitions(ctx, cl, topic)
	if err != nil {
		return 0, 0, "", err
	}
	err = readTail(ctx, c, topic, sample/n+1, func(r *kgo.Record) error {
		if len(r.Key) == 0 {
			return nil // no key: a dead letter wherever it lies
		}
		seen++
		if belongs := kafka.PartitionOf(r.Key, int32(n)); belongs != r.Partition {
			if astray++; example == "" {
				example = fmt.Sprintf("key %s in partition %d instead of %d", shown(r.Key, 60), r.Partition, belongs)
			}
		}
		return nil
	})
	return seen, astray, example, err
}
