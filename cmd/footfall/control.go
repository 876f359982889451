package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"footfall/schemas"
)

// The kill switch is the newest record with key "triggers" in the control topic: one
// partition, compacted, so the record stays. Every instance reads the topic to its end
// before it says anything, and goes on reading it. So a switch thrown while no instance
// runs holds for those that start later, all of them see the same one, in the same
// order, and none needs to be found. (A call to each instance's HTTP port would need all
// of that.)
const controlKey = "triggers"

// control is what the switch says.
type control struct {
	Paused bool           `json:"paused"`
	At     schemas.Millis `json:"at"` // when it was thrown
	By     string         `json:"by"`
	Reason string         `json:"reason"`
}

// throw writes the switch, and returns when all replicas have it.
func throw(ctx context.Context, c *Config, s control) error {
	cl, err := c.connect(ctx, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordDeliveryTimeout(15*time.Second))
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := c.allowed(ctx, cl, c.switchNeeds()); err != nil {
		return err
	}
	if _, err := partitions(ctx, cl, c.controlTopic()); err != nil {
		return err
	}
	value, err := json.Marshal(s)
	if err != nil {
		return err
	}
	r := &kgo.Record{Topic: c.controlTopic(), Key: []byte(controlKey), Value: value}
	if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
		return fmt.Errorf("kafka: write to %s: %w", r.Topic, err)
	}
	return nil
}

// readControl returns what the switch says now. Nothing written means: not paused.
func readControl(ctx context.Context, c *Config) (control, error) {
	var s control
	err := readTopic(ctx, c, c.controlTopic(), 0, func(r *kgo.Record) error {
		next, ok, err := parseControl(r)
		if ok {
			s = next
		}
		return err
	})
	return s, err
}

// follower is told what the control topic holds: every record in order, and that all
// have been told that there are, once in the beginning and then after each.
type follower interface {
	record(r *kgo.Record)
	caughtUp()
}

// killSwitch is the follower that calls each with what the switch says.
type killSwitch struct {
	log  *zap.Logger
	says control
	each func(control)
}

func (k *killSwitch) record(r *kgo.Record) {
	next, ok, err := parseControl(r)
	if err != nil {
		k.log.Warn("kill switch has a record that can't be read; it stays as it was", zap.Int64("offset", r.Offset), zap.Error(err))
	}
	if ok {
		k.says = next
	}
}

func (k *killSwitch) caughtUp() { k.each(k.says) }

// watchControl follows the control topic until ctx ends. It returns only when ctx has
// ended, or when the topic does not exist, or is not the one any more that it was; what
// else goes wrong is logged and tried again, and everything stays as it was.
func watchControl(ctx context.Context, c *Config, log *zap.Logger, followers ...follower) error {
	// The end may be a transaction's marker, of who copies topics between clusters: who
	// waits for the last record has to see it.
	cl, err := c.connect(ctx, kgo.KeepControlRecords())
	if err != nil {
		return err
	}
	defer cl.Close()
	topic := c.controlTopic()
	if _, err := partitions(ctx, cl, topic); err != nil {
		return err
	}
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("kafka: end of topic %s: %w", topic, err)
	}
	starts, err := topicStarts(ctx, cl, topic)
	if err != nil {
		return err
	}
	end, _ := ends.Lookup(topic, 0)
	empty := starts[0] >= end.Offset // nothing was written, or retention has removed it
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}})

	caughtUp := func() {
		for _, f := range followers {
			f.caughtUp()
		}
	}
	if empty {
		caughtUp()
	}
	failed := 0 // polls, one after the other
	for told := empty; ; {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		failed++
		errs := fetches.Errors()
		for _, f := range errs {
			if errors.Is(f.Err, kerr.UnknownTopicOrPartition) || errors.Is(f.Err, kerr.UnknownTopicID) {
				return fmt.Errorf("kafka: there is no topic %s as it was; `footfall topics create` makes it", topic)
			}
			log.Warn("the control topic can't be read; kill switch and epochs stay as they were", zap.String("topic", topic), zap.Error(f.Err))
		}
		if len(errs) == 0 {
			failed = 0
		} else {
			backoff(ctx, failed)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			for _, f := range followers {
				if !r.Attrs.IsControl() {
					f.record(r)
				}
			}
			// Before the end it had when we began, records are history: only the last counts.
			if told = told || r.Offset >= end.Offset-1; told {
				caughtUp()
			}
		}
	}
}

// parseControl reads a record of the control topic; ok is false for keys of others.
func parseControl(r *kgo.Record) (s control, ok bool, err error) {
	if string(r.Key) != controlKey {
		return s, false, nil
	}
	if r.Value == nil {
		return s, true, nil // a tombstone: as if never thrown
	}
	if err := json.Unmarshal(r.Value, &s); err != nil {
		return s, false, fmt.Errorf("%s/%d offset %d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	return s, true, nil
}
