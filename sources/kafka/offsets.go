package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// cut is what one commit says of where partitions stand.
type cut struct {
	marks  []markText // one a partition, sorted
	epochs map[int32]int64
}

// markText is a mark as it is committed.
type markText struct {
	partition int32
	next      int64
	text      string
}

// cutOf takes the last mark of each partition. Outputs of one partition under
// several epochs are a broken promise.
func cutOf(outs []*worker.Output) (cut, error) {
	c := cut{epochs: make(map[int32]int64, len(outs))}
	last := make(map[int32]*worker.Output, len(outs))
	for _, out := range outs {
		p := out.Mark.Partition
		if old := last[p]; old != nil && (old.Epoch != out.Epoch || old.Mark.Next > out.Mark.Next || old.Mark.N > out.Mark.N) {
			panic(fmt.Sprintf("kafka: partition %d: the output of epoch %d, next %d, n %d comes after epoch %d, next %d, n %d",
				p, out.Epoch, out.Mark.Next, out.Mark.N, old.Epoch, old.Mark.Next, old.Mark.N))
		}
		last[p] = out
		c.epochs[p] = out.Epoch
	}
	for p, out := range last {
		text, err := out.Mark.AppendText(nil)
		if err != nil {
			return c, fmt.Errorf("kafka: mark of partition %d: %w: %w", p, pipeline.ErrPermanent, err)
		}
		c.marks = append(c.marks, markText{p, out.Mark.Next, string(text)})
	}
	slices.SortFunc(c.marks, func(a, b markText) int { return int(a.partition - b.partition) })
	return c, nil
}

func (c cut) partitions() []int32 {
	ps := make([]int32, len(c.marks))
	for i, m := range c.marks {
		ps[i] = m.partition
	}
	return ps
}

// commitMarks commits marks that nothing was said for. There is no transaction to
// put them into (EndTxn is not sent when nothing was produced), so it is a plain
// offset commit under the same membership.
func (s *Session) commitMarks(ctx context.Context, cut cut) error {
	if len(cut.marks) == 0 {
		return nil
	}
	as, gone := s.owns.commitAs(cut.epochs)
	if len(gone) > 0 {
		return &pipeline.LostError{Partitions: gone}
	}
	//failpoint:marks.committing
	err := s.commitOffsets(context.WithoutCancel(ctx), as, cut)
	//failpoint:marks.committed
	switch {
	case err == nil:
		return nil
	case outdated(err):
		return s.hear(ctx, as, cut, err)
	case permanent(err):
		return fmt.Errorf("kafka: %w: %w", pipeline.ErrPermanent, err)
	}
	return fmt.Errorf("kafka: commit of partitions %v: outcome unknown: %w", cut.partitions(), err)
}

func (s *Session) commitOffsets(ctx context.Context, as membership, cut cut) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.Generation = s.conf.Group, as.member, as.generation
	if s.conf.InstanceID != "" {
		req.InstanceID = new(s.conf.InstanceID)
	}
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic, topic.TopicID = s.topic.name, s.topic.id
	for _, m := range cut.marks {
		part := kmsg.NewOffsetCommitRequestTopicPartition()
		part.Partition, part.Offset = m.partition, m.next
		part.Metadata = new(m.text)
		topic.Partitions = append(topic.Partitions, part)
	}
	req.Topics = append(req.Topics, topic)
	return retry(ctx, func() error {
		resp, err := req.RequestWith(ctx, s.admin)
		if err != nil {
			return err
		}
		committed := 0
		for _, t := range resp.Topics {
			for _, part := range t.Partitions {
				if err := kerr.ErrorForCode(part.ErrorCode); err != nil {
					return fmt.Errorf("offset of %s/%d: %w", s.topic.name, part.Partition, err)
				}
				committed++
			}
		}
		if committed != len(cut.marks) {
			return fmt.Errorf("the broker answered for %d of %d partitions", committed, len(cut.marks))
		}
		return nil
	})
}

// Committed reads a partition's mark, by a stable fetch: a transaction that has
// added an offset of this partition and is not decided yet, of whomever, is waited
// for. Those of ours whose outcome is not known are ended first, so that it need
// not be until their timeout.
func (s *Session) Committed(ctx context.Context, partition int32) (mark schemas.Mark, found bool, err error) {
	if err := s.settle(ctx); err != nil {
		return mark, false, err
	}
	limit := s.conf.TransactionTimeout + undecidedLimit
	wait, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for tries := 0; ; tries++ {
		offset, text, err := s.fetchOffset(wait, partition)
		switch {
		case err == nil && offset < 0:
			return mark, false, nil
		case err == nil:
			mark, err = schemas.ParseMark(partition, offset, text)
			if err != nil {
				return mark, false, fmt.Errorf("kafka: group %s, %s/%d: %w", s.conf.Group, s.conf.Topic, partition, err)
			}
			return mark, true, nil
		case permanent(err):
			return mark, false, fmt.Errorf("kafka: read the offset of group %s, %s/%d: %w", s.conf.Group, s.conf.Topic, partition, err)
		}
		select {
		case <-time.After(backoff(tries)):
			continue
		case <-ctx.Done():
			return mark, false, ctx.Err()
		case <-wait.Done():
		}
		if errors.Is(err, kerr.UnstableOffsetCommit) {
			err = fmt.Errorf("%w; %s", err, s.hangingOffsets(ctx))
		}
		return mark, false, fmt.Errorf("kafka: read the offset of group %s, %s/%d: no answer within %v: %w",
			s.conf.Group, s.conf.Topic, partition, limit, err)
	}
}

// undecidedLimit is how much longer than its timeout a transaction may take until
// it is said to hang: brokers look for expired ones every 10 s.
const undecidedLimit = 20 * time.Second

// settle renews the producers whose last transaction may be open. Those in a
// transaction now are left alone: it speaks for other partitions, since a
// partition is in at most one. A renewal that fails is not waited for: the broker
// ends the transaction at its timeout.
func (s *Session) settle(ctx context.Context) error {
	for range s.made {
		select {
		case p := <-s.idle:
			var err error
			if !p.sound {
				err = p.renew(ctx, s)
			}
			s.idle <- p
			if err != nil && fencing(err) {
				return s.fence(p, err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// fetchOffset is one stable fetch. It goes through the member, whose heartbeats notice
// a coordinator that is gone: kgo goes on to send this request to the one that it knows,
// whether that can be reached or not.
func (s *Session) fetchOffset(ctx context.Context, partition int32) (offset int64, text string, err error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = true
	group := kmsg.NewOffsetFetchRequestGroup()
	group.Group = s.conf.Group
	topic := kmsg.NewOffsetFetchRequestGroupTopic()
	topic.Topic, topic.TopicID = s.topic.name, s.topic.id
	topic.Partitions = []int32{partition}
	group.Topics = append(group.Topics, topic)
	req.Groups = append(req.Groups, group)
	resp, err := req.RequestWith(ctx, s.member)
	if err != nil {
		return 0, "", err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return 0, "", err
	}
	for _, g := range resp.Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
			return 0, "", err
		}
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				if p.Partition != partition {
					continue
				}
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return 0, "", err
				}
				if p.Metadata != nil {
					text = *p.Metadata
				}
				return p.Offset, text, nil
			}
		}
	}
	return 0, "", errors.New("the broker did not answer for it")
}
