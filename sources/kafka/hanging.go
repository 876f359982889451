package kafka

import (
	"context"
	"fmt"
	"math"
	"time"
	"unicode/utf16"

	"github.com/twmb/franz-go/pkg/kadm"
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
			return who + fmt.Sprintf(", of transaction %q, which is %s at epoch %d; %s", t.TxnID, t.State, epoch, s.remedyFor(t.State, epoch, topic, partition, open))
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
// has never heard of them: its transaction is the one before. One that is much further has
// ended the records' transaction long ago: they were most likely written late, after it had
// been given up (package comment), and said again since.
func (s *Session) remedyFor(state string, epoch int16, topic string, partition int32, p *kadm.DescribedProducer) string {
	ended := state == "CompleteCommit" || state == "CompleteAbort"
	switch {
	case ended && s.v2 && epoch == int16(p.ProducerEpoch):
		return "these records came after that transaction, and the coordinator has lost theirs, which was not committed: " + abortOf(topic, partition, p)
	case ended && s.v2 && epoch != int16(p.ProducerEpoch)+1:
		return fmt.Sprintf("its epoch is over: if the output in its first record (header ce_id) is in %s/%d again behind it, it was written late and given up: %s; if not, it is committed: "+
			"write the missing COMMIT marker (WriteTxnMarkers for producer %d, epoch %d)", topic, partition, abortOf(topic, partition, p), p.ProducerID, p.ProducerEpoch)
	case state == "CompleteCommit", state == "PrepareCommit":
		return fmt.Sprintf("it is committed and its marker in %s/%d was never written: restart its coordinator; if that does not help, "+
			"write the missing COMMIT marker (WriteTxnMarkers for producer %d, epoch %d), never an abort", topic, partition, p.ProducerID, p.ProducerEpoch)
	case state == "Ongoing":
		return "its process is alive or died a moment ago: the broker aborts it after its timeout"
	default:
		return "its coordinator is ending it: see the coordinator's log"
	}
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
