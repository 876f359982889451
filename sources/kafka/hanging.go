package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf16"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Hang is a transaction that keeps a partition undecided from its first record on, and what
// its coordinator knows of it.
type Hang struct {
	Topic      string
	Partition  int32
	Offset     int64 // of its first record
	ProducerID int64
	Epoch      int16 // of its records

	ID      string // transactional id; "": no coordinator knows it
	State   string // of the coordinator's, as Kafka names it
	IDEpoch int16  // of the coordinator's

	v2          bool
	coordinator int32  // epoch of the one that its records came by
	away        string // why the coordinator that knows it, if one does, may not have been asked
}

func (h *Hang) String() string {
	who := fmt.Sprintf("producer %d, epoch %d, holds %s/%d from offset %d on", h.ProducerID, h.Epoch, h.Topic, h.Partition, h.Offset)
	if h.ID == "" {
		return who
	}
	return fmt.Sprintf("%s, of transaction %q, which is %s at epoch %d", who, h.ID, h.State, h.IDEpoch)
}

// OwnEpoch tells that the transaction has an epoch that no other one has, and its markers the
// next one: it is of version 2 (KIP-890).
func (h *Hang) OwnEpoch() bool { return h.v2 }

// Fenced tells that a marker that comes late does no harm: the transaction's epoch is over, so
// that it is refused where its producer has written since.
func (h *Hang) Fenced() bool {
	if h.ID == "" { // its producer has another id by now, or is forgotten
		return h.v2 && h.away == ""
	}
	return h.v2 && h.IDEpoch > h.Epoch
}

// Verdict is what is to become of a transaction that hangs.
type Verdict string

// The verdicts.
const (
	Waits    Verdict = "wait"   // somebody is at work on it
	Aborts   Verdict = "abort"  // it was not committed
	Commits  Verdict = "commit" // it was, so that to abort it would lose what it said
	ByNumber Verdict = "look"   // its coordinator does not tell; what is committed does
)

// Verdict goes by the state that a transaction's coordinator has it in, and says why.
//
// Transactions of version 2 (KIP-890) end by moving the epoch on: the coordinator of one
// that was committed is one epoch further than its records. One that is at the same epoch
// has never heard of them: its transaction is the one before. One that is further, or that
// another InitProducerID has emptied since, does not tell any more what became of the
// records': what is committed does, and whether they were said again, as what is written
// late and given up is (package comment).
func (h *Hang) Verdict() (v Verdict, why string) {
	complete := h.State == "CompleteCommit" || h.State == "CompleteAbort"
	ended := complete || h.State == "Empty" || h.State == "Dead"
	switch {
	case h.ID == "" && h.away != "":
		return Waits, "no coordinator that was asked knows its transaction, and " + h.away
	case h.ID == "":
		return ByNumber, "no coordinator knows its transaction"
	case ended && h.v2 && h.IDEpoch == h.Epoch:
		return Aborts, "its records came after that transaction, and the coordinator has lost theirs, which was not committed"
	case ended && (!complete || h.v2 && h.IDEpoch != h.Epoch+1):
		return ByNumber, "its epoch is over, and the coordinator does not tell what became of it"
	case h.State == "CompleteAbort":
		return Aborts, "it is aborted, and its marker was never written"
	case h.State == "CompleteCommit":
		return Commits, "it is committed, and its marker was never written"
	case h.State == "PrepareCommit":
		return Waits, "it is committed, and its coordinator is writing its markers: if that does not end, restart the broker that is it, or look for a partition of its that takes no writes"
	case h.State == "Ongoing":
		return Waits, "its process is alive or died a moment ago: the broker aborts it after its timeout"
	default:
		return Waits, "its coordinator is ending it: see the coordinator's log"
	}
}

// Hanging names the transaction that keeps the records of a partition undecided,
// and says what to do about it, as the end of an error's text.
func (s *Session) Hanging(ctx context.Context, topic string, partition int32) string {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	h, err := describeHang(ctx, s.admin, s.v2, topic, partition)
	switch {
	case err != nil && h != nil:
		return fmt.Sprintf("%s; %v", h, err)
	case err != nil:
		return err.Error()
	case h == nil:
		return fmt.Sprintf("no producer has an open transaction in %s/%d", topic, partition)
	}
	verdict, why := h.Verdict()
	if verdict != Waits {
		why += "; footfall topics hanging tells what is to become of it, and does it with --end"
	}
	return fmt.Sprintf("%s; %s", h, why)
}

// describeHang gives the first open transaction of a partition, or nil. With an error it may
// be known in part.
func describeHang(ctx context.Context, cl *kgo.Client, v2 bool, topic string, partition int32) (*Hang, error) {
	adm := kadm.NewClient(cl)
	var set kadm.TopicsSet
	set.Add(topic, partition)
	topics, err := adm.DescribeProducers(ctx, set)
	part := topics[topic].Partitions[partition]
	if err = cmp.Or(err, part.Err); err != nil {
		return nil, fmt.Errorf("the producers of %s/%d can't be described: %w", topic, partition, err)
	}
	var open *kadm.DescribedProducer
	for _, p := range part.ActiveProducers {
		if p.CurrentTxnStartOffset >= 0 && (open == nil || p.CurrentTxnStartOffset < open.CurrentTxnStartOffset) {
			open = &p
		}
	}
	if open == nil {
		return nil, nil
	}
	h := &Hang{Topic: topic, Partition: partition, Offset: open.CurrentTxnStartOffset, ProducerID: open.ProducerID, Epoch: open.ProducerEpoch, v2: v2, coordinator: open.CoordinatorEpoch}
	listed, err := adm.ListTransactions(ctx, []int64{open.ProducerID}, nil)
	if err != nil {
		return h, fmt.Errorf("its transaction can't be looked up: %w", err)
	}
	for _, t := range listed {
		if t.ProducerID != open.ProducerID {
			continue
		}
		described, err := adm.DescribeTransactions(ctx, t.TxnID)
		d := described[t.TxnID]
		if err = cmp.Or(err, d.Err); err != nil {
			return h, fmt.Errorf("its transaction %q can't be described: %w", t.TxnID, err)
		}
		h.ID, h.State, h.IDEpoch = t.TxnID, d.State, d.ProducerEpoch
	}
	if h.ID == "" {
		h.away, err = coordinatorsAway(ctx, adm)
	}
	return h, err
}

// coordinatorsAway tells why it is not sure that all coordinators of transactions are there: one
// that is away is not asked for what it knows, and nobody says so.
func coordinatorsAway(ctx context.Context, adm *kadm.Client) (why string, err error) {
	topics, err := adm.ListTopicsWithInternal(ctx, transactionsTopic)
	if err != nil {
		return "", fmt.Errorf("%s can't be looked at: %w", transactionsTopic, err)
	}
	topic := topics[transactionsTopic]
	switch {
	case errors.Is(topic.Err, kerr.TopicAuthorizationFailed):
		return "this user may not see whether all are there (the right Describe on the topic " + transactionsTopic + ")", nil
	case topic.Err != nil && !unknownTopic(topic.Err): // a broker that makes none has none that is away
		return fmt.Sprintf("%s can't be looked at: %v", transactionsTopic, topic.Err), nil
	}
	for _, p := range topic.Partitions {
		if p.Leader < 0 {
			return fmt.Sprintf("%s/%d has no leader: bring its brokers back", transactionsTopic, p.Partition), nil
		}
	}
	return "", nil
}

// steadyHang gives the first open transaction of a partition if it is still that after its
// coordinator was asked, or nil: one that was done with it by then has no marker to come.
func steadyHang(ctx context.Context, cl *kgo.Client, v2 bool, topic string, partition int32) (*Hang, error) {
	h, err := describeHang(ctx, cl, v2, topic, partition)
	if err != nil || h == nil {
		return nil, err
	}
	again, err := describeHang(ctx, cl, v2, topic, partition)
	if err != nil || again == nil || again.ProducerID != h.ProducerID || again.Offset != h.Offset || again.Epoch != h.Epoch {
		return nil, err
	}
	return h, nil
}

// FindHangs gives the transactions that keep partitions of topics undecided, and of the
// group's offsets, in order.
func FindHangs(ctx context.Context, cl *kgo.Client, group string, topics ...string) (hangs []*Hang, err error) {
	adm := kadm.NewClient(cl)
	have, err := featuresOf(ctx, cl)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	there, err := adm.ListTopicsWithInternal(ctx, OffsetsTopic)
	if err != nil {
		return nil, fmt.Errorf("kafka: %s: %w", OffsetsTopic, err)
	}
	if there.Has(OffsetsTopic) { // the first group that commits makes it
		topics = append(slices.Clone(topics), OffsetsTopic)
	}
	stable, err := adm.ListCommittedOffsets(ctx, topics...)
	if err == nil {
		err = stable.Error()
	}
	ends, err2 := adm.ListEndOffsets(ctx, topics...)
	if err2 == nil {
		err2 = ends.Error()
	}
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("kafka: ends of %v: %w", topics, err)
	}
	groups := GroupPartition(group, int32(len(ends[OffsetsTopic])))
	for _, topic := range topics {
		for partition := range int32(len(ends[topic])) {
			s, _ := stable.Lookup(topic, partition)
			if e, _ := ends.Lookup(topic, partition); s.Offset >= e.Offset || topic == OffsetsTopic && partition != groups {
				continue
			}
			h, err := steadyHang(ctx, cl, have.transactions >= 2, topic, partition)
			if err != nil {
				return hangs, fmt.Errorf("kafka: %w", err)
			}
			if h != nil {
				hangs = append(hangs, h)
			}
		}
	}
	return hangs, nil
}

// End writes the marker of a transaction that hangs in its partition, as only the brokers do
// otherwise: it takes the right ClusterAction, or, from Apache Kafka 3.0 on, Alter, on the
// cluster. Whoever commits what was not committed, or aborts what was, breaks what footfall
// promises.
func (h *Hang) End(ctx context.Context, cl *kgo.Client, commit bool) error {
	marker := kadm.TxnMarkers{ProducerID: h.ProducerID, ProducerEpoch: h.Epoch, Commit: commit, CoordinatorEpoch: max(0, h.coordinator)}
	marker.Topics.Add(h.Topic, h.Partition)
	err := insist(ctx, startWait, func(ctx context.Context) error {
		responses, err := kadm.NewClient(cl).WriteTxnMarkers(ctx, marker)
		part, ok := responses[h.ProducerID].Topics[h.Topic].Partitions[h.Partition]
		switch {
		case err != nil:
			return err
		case !ok:
			return errors.New("the broker did not answer for it")
		}
		return part.Err
	})
	if err != nil {
		return fmt.Errorf("kafka: marker in %s/%d for producer %d: %w", h.Topic, h.Partition, h.ProducerID,
			Lack{On: OnCluster, Do: kmsg.ACLOperationClusterAction}.Named(err))
	}
	return nil
}

// OffsetsTopic is where groups' offsets are, transactionsTopic what their coordinators know.
const (
	OffsetsTopic      = "__consumer_offsets"
	transactionsTopic = "__transaction_state"
)

// hangingOffsets is Hanging for the group's own offsets.
func (s *Session) hangingOffsets(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	info, err := s.meta(ctx, OffsetsTopic, false)
	if err != nil || len(info.leaders) == 0 {
		return "look for the transaction that holds its offsets: footfall topics hanging"
	}
	return s.Hanging(ctx, OffsetsTopic, GroupPartition(s.conf.Group, int32(len(info.leaders))))
}

// GroupPartition is the partition of __consumer_offsets that has a group's offsets, among n,
// and, by its id, that of __transaction_state: abs(hashCode) mod n, where the abs of the least number is 0
// (GroupCoordinatorService.partitionFor and Utils.abs).
func GroupPartition(group string, n int32) int32 {
	h := javaHash(group)
	if h == math.MinInt32 || n == 0 {
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
