// Command consumer acts on footfall's triggers: an example to copy, in Go with
// franz-go. See TriggerConsumer.java beside it for the same in Java.
//
//	go run ./schemas/examples/consumer -brokers 127.0.0.1:9092 -topic triggers -group mailer
//
// What matters:
//
//   - read_committed: an uncommitted trigger may never come to be. (segmentio/kafka-go
//     0.4.51 ignores the list of aborted transactions; don't use it here.)
//   - Deduplicate by ce_id, which is group/partition/n and never changes. Within a
//     partition n only grows, so the last one acted on is all there is to remember.
//     Keep it where the action is recorded, in the same transaction if there is one:
//     here it is kept in memory, and a restart may repeat what was not committed.
//   - Gaps in n are normal: muted transitions and dead letters are counted too.
//   - Commit after acting.
//   - A trigger with not_before was said in the user's quiet hours, at once all the same:
//     whoever sends the mail puts it off until then.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// trigger is what this consumer needs of a transition: see transition.schema.json.
type trigger struct {
	User string  `json:"user"`
	Set  string  `json:"set"`
	From *string `json:"from"` // null: the user's first
	To   string  `json:"to"`
	At   string  `json:"at"`

	NotBefore string `json:"not_before"` // empty: act at once
}

func main() {
	brokers := flag.String("brokers", "127.0.0.1:9092", "addresses of brokers")
	topic := flag.String("topic", "triggers", "trigger topic")
	group := flag.String("group", "example-consumer", "consumer group of this consumer")
	count := flag.Int("count", 0, "stop after so many triggers; 0: never")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := consume(ctx, strings.Split(*brokers, ","), *topic, *group, *count); err != nil {
		fmt.Fprintln(os.Stderr, "consumer:", err)
		os.Exit(1)
	}
}

func consume(ctx context.Context, brokers []string, topic, group string, count int) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.DisableAutoCommit(),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	last := map[string]uint64{} // the n acted on last, by "group/partition"
	for acted := 0; count == 0 || acted < count; {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			series, n, err := position(r)
			if err != nil {
				return err
			}
			if n <= last[series] {
				continue // the same trigger again
			}
			if err := act(r.Value); err != nil {
				return err
			}
			last[series] = n
			acted++
		}
		if err := client.CommitUncommittedOffsets(ctx); err != nil {
			return err
		}
	}
	return nil
}

// position takes the ce_id of a trigger apart: "group/partition", and n.
func position(r *kgo.Record) (series string, n uint64, err error) {
	for _, h := range r.Headers {
		if h.Key != "ce_id" {
			continue
		}
		id := string(h.Value)
		slash := strings.LastIndexByte(id, '/')
		n, err = strconv.ParseUint(id[slash+1:], 10, 64)
		return id[:max(slash, 0)], n, err
	}
	return "", 0, fmt.Errorf("%s/%d offset %d: no ce_id: not a trigger of footfall", r.Topic, r.Partition, r.Offset)
}

// act is where a mail would be sent.
func act(value []byte) error {
	var t trigger
	if err := json.Unmarshal(value, &t); err != nil {
		return err
	}
	from := "none"
	if t.From != nil {
		from = *t.From
	}
	when := ""
	if t.NotBefore != "" {
		when = ", not before " + t.NotBefore
	}
	fmt.Printf("%s %s: %s -> %s (%s)%s\n", t.At, t.User, from, t.To, t.Set, when)
	return nil
}
