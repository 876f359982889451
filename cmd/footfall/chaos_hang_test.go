//go:build chaos

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// hang is a partition in which a transaction stays undecided.
type hang struct {
	topic     string
	partition int32
	text      string
	brokers   bool // the coordinator has ended that transaction or knows none: its markers will never come
}

// mend waits until nothing is undecided. What the broker has left without its markers is
// named, counted and ended as an operator would, so that all there is can be judged; nothing
// else may hang.
func (h *house) mend() {
	h.t.Helper()
	for range 2 { // what is told by what is committed needs that decided
		hangs := h.hanging()
		if len(hangs) == 0 {
			return
		}
		for _, x := range hangs {
			if !x.brokers {
				h.t.Fatalf("a transaction is undecided, and its coordinator has not ended it: %s", x.text)
			}
			h.t.Logf("BROKER FAULT: a transaction without its markers: %s", x.text)
		}
		h.mended += len(hangs)
		c := h.command("topics", "hanging", "--end")
		out, err := c.Output()
		h.t.Logf("footfall topics hanging --end: %v\n%s", err, out)
	}
	for _, x := range h.hanging() {
		h.t.Fatalf("a transaction is undecided still: %s", x.text)
	}
}

// marked counts the markers that the broker had left out and instances have written.
func (h *house) marked() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return bytes.Count(h.log.Bytes(), []byte("the broker has left a transaction without its marker"))
}

// hangMax is how long a transaction may be undecided before it is said to hang: its
// time-out, what a broker takes to look for expired ones, and a broker's restart.
const hangMax = 90 * time.Second

// offsetsTopic is where groups' offsets are.
const offsetsTopic = "__consumer_offsets"

// hanging waits until nothing in the topics is undecided, nor of the group's offsets, and
// names what stays so. While instances are at work something always is, and moves on: what
// does not move hangs.
func (h *house) hanging() (hangs []hang) {
	h.t.Helper()
	type place struct {
		topic     string
		partition int32
	}
	type stand struct {
		stable int64
		since  time.Time
	}
	cl := h.reader()
	defer cl.Close()
	admin := kadm.NewClient(cl)
	topics := append(slices.Clone(h.conf.topicNames()[:4]), offsetsTopic)
	stands := map[place]stand{}
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		now := time.Now()
		stable, err := admin.ListCommittedOffsets(h.t.Context(), topics...)
		ends, err2 := admin.ListEndOffsets(h.t.Context(), topics...)
		if err := errors.Join(err, err2, stable.Error(), ends.Error()); err != nil {
			if now.Sub(began) > hangMax {
				h.t.Fatalf("ends of the topics: %v", err)
			}
			continue
		}
		hung := false
		ends.Each(func(o kadm.ListedOffset) {
			if o.Topic == offsetsTopic && o.Partition != h.offsetsPartition() {
				return // another group's
			}
			at, was := place{o.Topic, o.Partition}, stands[place{o.Topic, o.Partition}]
			switch s, _ := stable.Lookup(o.Topic, o.Partition); {
			case s.Offset >= o.Offset:
				delete(stands, at)
			case was.since.IsZero() || was.stable != s.Offset:
				stands[at] = stand{s.Offset, now}
			default:
				hung = hung || now.Sub(was.since) > hangMax
			}
		})
		still := slices.ContainsFunc(slices.Collect(maps.Values(stands)), func(s stand) bool { return now.Sub(s.since) > hangMax/10 })
		if len(stands) == 0 || !still && now.Sub(began) > hangMax/5 {
			return nil
		}
		if !hung {
			continue
		}
		for at, s := range stands {
			if now.Sub(s.since) > hangMax/2 {
				x := hang{topic: at.topic, partition: at.partition, text: fmt.Sprintf("%s/%d: stable up to %d for %v", at.topic, at.partition, s.stable, now.Sub(s.since).Round(time.Second))}
				h.opened(admin, &x)
				hangs = append(hangs, x)
			}
		}
		return hangs
	}
}

// offsetsPartition is where the group's offsets are: by Java's hash of its name, of letters
// and digits.
func (h *house) offsetsPartition() int32 {
	const partitions = 50 // unless the broker is told otherwise
	var hash int32
	for _, c := range h.conf.Kafka.Group {
		hash = 31*hash + c
	}
	if hash == math.MinInt32 {
		hash = 0
	}
	return max(hash, -hash) % partitions
}

// opened describes the transactions that hold a partition: what its leader knows of them,
// and what their coordinators do. The broker is at fault if every coordinator says so.
func (h *house) opened(admin *kadm.Client, x *hang) {
	ctx := h.t.Context()
	var set kadm.TopicsSet
	set.Add(x.topic, x.partition)
	producers, err := admin.DescribeProducers(ctx, set)
	for range 20 { // its leader may be about to be elected
		if err = errors.Join(err, producers[x.topic].Partitions[x.partition].Err); err == nil {
			break
		}
		time.Sleep(time.Second)
		producers, err = admin.DescribeProducers(ctx, set)
	}
	if err != nil {
		x.text += "; " + err.Error()
		return
	}
	open, ended := 0, 0
	for _, p := range producers[x.topic].Partitions[x.partition].ActiveProducers {
		if p.CurrentTxnStartOffset < 0 {
			continue
		}
		open++
		x.text += fmt.Sprintf("; producer %d at epoch %d, sequence %d, holds it from offset %d on", p.ProducerID, p.ProducerEpoch, p.LastSequence, p.CurrentTxnStartOffset)
		listed, err := admin.ListTransactions(ctx, []int64{p.ProducerID}, nil)
		all := err == nil
		for id := range listed {
			described, err := admin.DescribeTransactions(ctx, id)
			d := described[id]
			all = all && err == nil && endedOf(d, p.ProducerEpoch, x)
			x.text += fmt.Sprintf(", its transaction %s is %s at epoch %d, begun at %d, with %v (%v)", id, d.State, d.ProducerEpoch, d.StartTimestamp, d.Topics, errors.Join(err, d.Err))
		}
		if all {
			ended++
		}
		x.text += "\n" + h.lying(x.topic, x.partition, p.CurrentTxnStartOffset-5)
	}
	x.brokers = open > 0 && open == ended
}

// endedOf tells whether a coordinator has ended the transaction that holds a partition at
// an epoch: it is at none now, at a later one, or has no marker left to write there.
func endedOf(d kadm.DescribedTransaction, epoch int16, x *hang) bool {
	switch d.State {
	case "Ongoing":
		return d.ProducerEpoch > epoch
	case "PrepareCommit", "PrepareAbort", "PrepareEpochFence":
		return !d.Topics.Lookup(x.topic, x.partition)
	}
	return d.Err == nil || errors.Is(d.Err, kerr.TransactionalIDNotFound)
}

// lying lists what lies in a partition from an offset on, whether it is decided or not.
func (h *house) lying(topic string, partition int32, from int64) (text string) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(h.conf.Kafka.Brokers...), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(max(0, from))}}))
	if err != nil {
		return err.Error()
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(h.t.Context(), 3*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			what := headerOfRecord(r, "ce_id") + headerOfRecord(r, "dlq_n")
			if r.Attrs.IsControl() {
				what = map[byte]string{0: "ABORT", 1: "COMMIT"}[r.Key[len(r.Key)-1]]
			}
			text += fmt.Sprintf("    %d: producer %d epoch %d at %d: %s\n", r.Offset, r.ProducerID, r.ProducerEpoch, r.Timestamp.UnixMilli(), what)
		})
	}
	return text
}

// The broker is blamed for a transaction only if its coordinator is done with it: one that
// is at work is waited for, or is ours to end.
func TestChaosBlame(t *testing.T) {
	here, elsewhere := kadm.TopicsSet{}, kadm.TopicsSet{}
	here.Add("triggers", 1)
	elsewhere.Add("triggers", 2)
	x := &hang{topic: "triggers", partition: 1}
	for _, c := range []struct {
		d    kadm.DescribedTransaction
		want bool
	}{
		{kadm.DescribedTransaction{State: "Ongoing", ProducerEpoch: 3, Topics: here}, false},
		{kadm.DescribedTransaction{State: "Ongoing", ProducerEpoch: 4, Topics: here}, true},
		{kadm.DescribedTransaction{State: "PrepareCommit", ProducerEpoch: 3, Topics: here}, false},
		{kadm.DescribedTransaction{State: "PrepareAbort", ProducerEpoch: 4, Topics: here}, false},
		{kadm.DescribedTransaction{State: "PrepareAbort", ProducerEpoch: 4, Topics: elsewhere}, true},
		{kadm.DescribedTransaction{State: "CompleteCommit", ProducerEpoch: 3}, true},
		{kadm.DescribedTransaction{State: "Empty", ProducerEpoch: 3}, true},
		{kadm.DescribedTransaction{Err: kerr.TransactionalIDNotFound}, true},
		{kadm.DescribedTransaction{Err: kerr.CoordinatorLoadInProgress}, false},
	} {
		if got := endedOf(c.d, 3, x); got != c.want {
			t.Errorf("%s at epoch %d, with %v (%v): got %v, want %v", c.d.State, c.d.ProducerEpoch, c.d.Topics, c.d.Err, got, c.want)
		}
	}
}
