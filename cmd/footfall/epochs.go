package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"footfall/pipeline/segment"
)

// epochs has all instances agree on the bounds of the rules' quantiles, once a day, by
// the control topic: it is one log that all of them read in the same order from its
// beginning, and it is compacted, so an instance that starts later learns what is in
// force. What is to be written, and what has begun, package segment says (Epochs); here
// it is read and written.
//
// Nothing of it is on the way of an event. While the topic can't be written the bounds
// in force stay.
type epochs struct {
	conf  *Config
	log   *zap.Logger
	begin func(*segment.Program) // the rules go by an epoch's bounds from now on

	mu      sync.Mutex
	rules   *segment.Program // without bounds
	agreed  *segment.Epochs
	begun   bool                // an epoch was read, and begin has not been told
	history []segment.LogRecord // the last of each key, in the order of the log: for other rules
	waiting []segment.LogRecord // to be written
	more    chan struct{}       // capacity 1: something is waiting
}

func newEpochs(c *Config, log *zap.Logger, rules *segment.Program, partitions int32, begin func(*segment.Program)) *epochs {
	return &epochs{
		conf: c, log: log, begin: begin, rules: rules, agreed: segment.NewEpochs(rules, partitions),
		more: make(chan struct{}, 1),
	}
}

// follow begins to go by other rules: what was agreed on for the same quantiles holds.
func (e *epochs) follow(rules *segment.Program, partitions int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rules, e.agreed = rules, segment.NewEpochs(rules, partitions)
	for _, r := range e.history {
		_, _ = e.agreed.Read(r) // what can't be read was told when it came
	}
	e.begun = true
	e.proceed()
}

// record is follower.
func (e *epochs) record(r *kgo.Record) {
	if !strings.HasPrefix(string(r.Key), segment.EpochsKey) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	one := segment.LogRecord{Key: r.Key, Value: r.Value}
	e.history = append(slices.DeleteFunc(e.history, func(h segment.LogRecord) bool { return string(h.Key) == string(r.Key) }), one)
	began, err := e.agreed.Read(one)
	if err != nil {
		e.log.Warn("epochs: a record that can't be read; it counts for nothing", zap.String("topic", r.Topic), zap.Int64("offset", r.Offset), zap.Error(err))
	}
	e.begun = e.begun || began
}

// caughtUp is follower.
func (e *epochs) caughtUp() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.proceed()
}

// proceed tells of the epoch that has begun, and cuts the next one where all partitions
// are counted. The caller holds mu.
func (e *epochs) proceed() {
	if e.begun {
		e.begun = false
		epoch := e.agreed.Epoch()
		with := e.rules
		if epoch.Number > 0 {
			var err error
			if with, err = e.rules.With(epoch); err != nil {
				e.log.Error("epochs: the bounds in force are not of these rules", zap.Error(err))
				return
			}
			e.log.Info("epoch of quantiles", zap.Uint64("epoch", epoch.Number), zap.Time("at", time.UnixMilli(int64(epoch.At)).UTC()), zap.Int64s("bounds", epoch.Bounds))
		}
		e.begin(with)
	}
	if r, ok := e.agreed.Cut(); ok {
		e.write(r)
	}
}

// counted takes what a partition has counted (pipeline.Config.Counted). It does not wait.
func (e *epochs) counted(partition int32, rules *segment.Program, of segment.Count) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if rules.Hash() != e.rules.Hash() {
		return // of rules that are no more
	}
	r, err := e.agreed.Count(partition, of)
	if err != nil {
		e.log.Error("epochs: a count that can't be written", zap.Int32("partition", partition), zap.Error(err))
		return
	}
	e.write(r)
}

// write has a record written, in place of an older one of its key. The caller holds mu.
func (e *epochs) write(r segment.LogRecord) {
	e.waiting = append(slices.DeleteFunc(e.waiting, func(w segment.LogRecord) bool { return string(w.Key) == string(r.Key) }), r)
	select {
	case e.more <- struct{}{}:
	default:
	}
}

// next gives the oldest record that waits.
func (e *epochs) next() (r segment.LogRecord, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) == 0 {
		return r, false
	}
	r, e.waiting = e.waiting[0], e.waiting[1:]
	return r, true
}

// again has a record wait behind the others, unless a newer one of its key does: it may be
// refused for ever, such as for its size.
func (e *epochs) again(r segment.LogRecord) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.ContainsFunc(e.waiting, func(w segment.LogRecord) bool { return string(w.Key) == string(r.Key) }) {
		e.waiting = append(e.waiting, r)
	}
}

// run writes what is to be written, until ctx ends.
func (e *epochs) run(ctx context.Context) {
	var cl *kgo.Client
	defer func() {
		if cl != nil {
			cl.Close()
		}
	}()
	for {
		select {
		case <-e.more:
		case <-ctx.Done():
			return
		}
		failed := 0 // attempts, one after the other
		for r, ok := e.next(); ok && ctx.Err() == nil; r, ok = e.next() {
			var err error
			if cl == nil {
				cl, err = e.conf.connect(ctx, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordDeliveryTimeout(15*time.Second))
			}
			if err == nil {
				err = cl.ProduceSync(ctx, &kgo.Record{Topic: e.conf.controlTopic(), Key: r.Key, Value: r.Value}).FirstErr()
			}
			if err == nil {
				failed = 0
				continue
			}
			failed++
			e.again(r)
			e.log.Warn("epochs: not written; the bounds in force stay until it is", zap.ByteString("key", r.Key), zap.Int("attempt", failed), zap.Error(fmt.Errorf("kafka: write to %s: %w", e.conf.controlTopic(), err)))
			backoff(ctx, failed)
		}
	}
}

// eachEpoch reads the epochs of the rules' quantiles that are in the control topic, in
// their order.
func (c *Config) eachEpoch(ctx context.Context, rules *segment.Program, partitions int, f func(segment.Epoch) error) error {
	if rules.Quantiles() == 0 {
		return nil
	}
	agreed := segment.NewEpochs(rules, int32(partitions))
	return readTopic(ctx, c, c.controlTopic(), 0, func(r *kgo.Record) error {
		if began, err := agreed.Read(segment.LogRecord{Key: r.Key, Value: r.Value}); err != nil || !began {
			return nil //nolint:nilerr // what can't be read counts for nothing, here as there
		}
		return f(agreed.Epoch())
	})
}
