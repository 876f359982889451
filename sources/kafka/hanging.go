package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf16"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"footfall/schemas"
)

// Hanging names the transaction that keeps the records of a partition undecided,
// and says what to do about it, as the end of an error's text.
func (s *Session) Hanging(ctx context.Context, topic string, partition int32) string {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	adm := kadm.NewClient(s.admin)
	var set kadm.TopicsSet
	set.Add(topic, partition)
	topics, err := adm.DescribeProducers(ctx, set)
	if err != nil {
		return fmt.Sprintf("the producers of %s/%d can't be described: %v", topic, partition, err)
	}
	part := topics[topic].Partitions[partition]
	if part.Err != nil {
		return fmt.Sprintf("the producers of %s/%d can't be described: %v", topic, partition, part.Err)
	}
	var open *kadm.DescribedProducer
	for _, p := range part.ActiveProducers {
		if p.CurrentTxnStartOffset >= 0 && (open == nil || p.CurrentTxnStartOffset < open.CurrentTxnStartOffset) {
			open = &p
		}
	}
	if open == nil {
		return fmt.Sprintf("no producer has an open transaction in %s/%d", topic, partition)
	}
	who := fmt.Sprintf("producer %d, epoch %d, holds %s/%d from offset %d on", open.ProducerID, open.ProducerEpoch, topic, partition, open.CurrentTxnStartOffset)
	listed, err := adm.ListTransactions(ctx, []int64{open.ProducerID}, nil)
	if err != nil {
		return who + fmt.Sprintf("; its transaction can't be looked up: %v", err)
	}
	for _, t := range listed {
		if t.ProducerID == open.ProducerID {
			epoch := int16(-1)
			if described, err := adm.DescribeTransactions(ctx, t.TxnID); err == nil {
				epoch = described[t.TxnID].ProducerEpoch
			}
			return who + fmt.Sprintf(", of transaction %q, which is %s at epoch %d; %s", t.TxnID, t.State, epoch, s.remedyFor(t.State, epoch, topic, partition, open, s.counted(ctx, partition)))
		}
	}
	return who + "; no coordinator knows its transaction: " + abortOf(topic, partition, open)
}

func abortOf(topic string, partition int32, p *kadm.DescribedProducer) string {
	return fmt.Sprintf("abort it with kafka-transactions.sh abort --topic %s --partition %d --start-offset %d", topic, partition, p.CurrentTxnStartOffset)
}

// remedyFor says what to do about a transaction that hangs, by the state its
// coordinator has it in. One that was committed must get its missing markers as
// commits: its offsets are committed, so aborting it loses what it said.
//
// Transactions of version 2 (KIP-890) end by moving the epoch on: the coordinator of one
// that was committed is one epoch further than its records. One that is at the same epoch
// has never heard of them: its transaction is the one before. One that is further, or that
// another InitProducerID has emptied since, does not tell any more what became of the
// records': what is committed does, and whether they were said again, as what is written
// late and given up is (package comment). counted says how much is committed.
func (s *Session) remedyFor(state string, epoch int16, topic string, partition int32, p *kadm.DescribedProducer, counted string) string {
	last := int16(p.ProducerEpoch)
	complete := state == "CompleteCommit" || state == "CompleteAbort"
	ended := complete || state == "Empty" || state == "Dead"
	commit := fmt.Sprintf("write the missing COMMIT marker (WriteTxnMarkers for producer %d, epoch %d)", p.ProducerID, last)
	switch {
	case ended && s.v2 && epoch == last:
		return "these records came after that transaction, and the coordinator has lost theirs, which was not committed: " + abortOf(topic, partition, p)
	case ended && (!complete || s.v2 && epoch != last+1):
		return fmt.Sprintf("its epoch is over. The number in its first record (header ce_id, or dlq_n) tells: if it is not committed (%s), or is in %s/%d again behind it, %s; "+
			"if it is committed and there once, %s", counted, topic, partition, abortOf(topic, partition, p), commit)
	case state == "CompleteAbort":
		return fmt.Sprintf("it is aborted and its marker in %s/%d was never written: %s", topic, partition, abortOf(topic, partition, p))
	case state == "CompleteCommit", state == "PrepareCommit":
		return fmt.Sprintf("it is committed and its marker in %s/%d was never written: restart its coordinator; if that does not help, %s, never an abort", topic, partition, commit)
	case state == "Ongoing":
		return "its process is alive or died a moment ago: the broker aborts it after its timeout"
	default:
		return "its coordinator is ending it: see the coordinator's log"
	}
}

// counted says up to which number the outputs of a partition are committed.
func (s *Session) counted(ctx context.Context, partition int32) string {
	offsets, err := s.fetchOffsets(ctx, true, partition)
	if errors.Is(err, kerr.UnstableOffsetCommit) {
		return "the offset that says so is undecided too, so it is not"
	}
	if err == nil && offsets[partition].offset < 0 {
		return "nothing is"
	}
	if err == nil {
		var mark schemas.Mark
		if mark, err = s.markOf(partition, offsets[partition].offset, offsets[partition].text); err == nil {
			return fmt.Sprintf("all up to %d are", mark.N)
		}
	}
	return fmt.Sprintf("up to where they are can't be read now: %v", err)
}

// hangingOffsets is Hanging for the group's own offsets.
func (s *Session) hangingOffsets(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	const topic = "__consumer_offsets"
	info, err := s.meta(ctx, topic, false)
	if err != nil || len(info.leaders) == 0 {
		return "look for the transaction that holds its offsets: kafka-transactions.sh find-hanging"
	}
	return s.Hanging(ctx, topic, groupPartition(s.conf.Group, int32(len(info.leaders))))
}

// groupPartition is the partition of __consumer_offsets that has a group's offsets, among n,
// and, by its id, that of __transaction_state: abs(hashCode) mod n, where the abs of the least number is 0
// (GroupCoordinatorService.partitionFor and Utils.abs).
func groupPartition(group string, n int32) int32 {
	h := javaHash(group)
	if h == math.MinInt32 {
		return 0
	}
	return max(h, -h) % n
}

// javaHash is Java's String.hashCode.
func javaHash(s string) (h int32) {
	for _, u := range utf16.Encode([]rune(s)) {
		h = 31*h + int32(u)
	}
	return h
}
