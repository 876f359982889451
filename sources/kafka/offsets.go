package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
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
func (s *Session) cutOf(outs []*worker.Output) (cut, error) {
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
		mark := out.Mark
		mark.Topic, mark.Of = s.topic.hash(), int32(len(s.topic.leaders))
		text, err := mark.AppendText(nil)
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
			mark, err = s.markOf(partition, offset, text)
			return mark, err == nil, err
		case unknownTopic(err):
			if gone := s.missing(ctx); gone != nil {
				return mark, false, gone
			}
		case permanent(err):
			return mark, false, fmt.Errorf("kafka: read the offset of group %s, %s/%d: %w: %w%s",
				s.conf.Group, s.conf.Topic, partition, pipeline.ErrPermanent, err, remedy(err))
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

// markOf reads a mark, which must be of the topic as it is.
func (s *Session) markOf(partition int32, offset int64, text string) (schemas.Mark, error) {
	mark, err := schemas.ParseMark(partition, offset, text)
	if err != nil {
		return mark, fmt.Errorf("kafka: group %s, %s/%d: %w: %w; give footfall a group of its own. To go on from what was said, delete the offset "+
			"(kafka-consumer-groups.sh --delete-offsets --group %s --topic %s:%d) and start once with --rebuild",
			s.conf.Group, s.conf.Topic, partition, pipeline.ErrPermanent, err, s.conf.Group, s.conf.Topic, partition)
	}
	if err := s.topic.changed(mark.Topic, mark.Of, fmt.Sprintf("offset %d of partition %d was committed", offset, partition)); err != nil {
		return mark, err
	}
	mark.Topic, mark.Of = 0, 0
	return mark, nil
}

// checkMarks refuses an input topic that is not the one of which the group has
// committed offsets, before any partition of it begins as if nothing had been.
func (s *Session) checkMarks(ctx context.Context) error {
	all := make([]int32, len(s.topic.leaders))
	for p := range all {
		all[p] = int32(p)
	}
	return insist(ctx, startWait, func(ctx context.Context) error {
		offsets, err := s.fetchOffsets(ctx, false, all...)
		if errors.Is(err, kerr.GroupIDNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("kafka: read the offsets of group %s: %w", s.conf.Group, err)
		}
		for p, c := range offsets {
			if c.offset < 0 {
				continue
			}
			if _, err := s.markOf(p, c.offset, c.text); err != nil {
				return err
			}
		}
		return nil
	})
}

// undecidedLimit is how much longer than its timeout a transaction may take until
// it is said to hang: brokers look for expired ones every 10 s.
const undecidedLimit = 20 * time.Second

// settle renews the producers whose last transaction may be open. Those in a
// transaction now are left alone: it speaks for other partitions, since a
// partition is in at most one. A renewal that fails is not waited for, nor are producers
// that are not back within a transaction's time: the broker ends theirs at its timeout.
func (s *Session) settle(ctx context.Context) error {
	again := func(from chan *producer, p *producer) (err error) {
		if !p.sound {
			err = p.renew(ctx, s)
		}
		twin := s.twin(p, err)
		switch {
		case err == nil, twin, ctx.Err() != nil, !s.spared(p, err):
			from <- p
		case p == s.marker:
			s.tendMarks(p)
		default:
			s.tend(p)
		}
		if twin {
			return s.fence(p, err)
		}
		return nil
	}
	late := time.After(s.conf.TransactionTimeout)
	for range producers {
		select {
		case p := <-s.idle:
			if err := again(s.idle, p); err != nil {
				return err
			}
			continue
		case <-late:
		case <-ctx.Done():
			return ctx.Err()
		}
		break
	}
	select {
	case p := <-s.marking:
		return again(s.marking, p)
	default:
		return nil
	}
}

// fetchOffset is one stable fetch. It goes through the member, whose heartbeats notice
// a coordinator that is gone: kgo goes on to send this request to the one that it knows,
// whether that can be reached or not.
func (s *Session) fetchOffset(ctx context.Context, partition int32) (offset int64, text string, err error) {
	offsets, err := s.fetchOffsets(ctx, true, partition)
	c, ok := offsets[partition]
	if err == nil && !ok {
		err = errors.New("the broker did not answer for it")
	}
	return c.offset, c.text, err
}

// committed is an offset and its metadata; the offset is -1 where there is none.
type committed struct {
	offset int64
	text   string
}

// fetchOffsets reads what is committed; if stable, it is refused while a transaction
// that may change it is undecided.
func (s *Session) fetchOffsets(ctx context.Context, stable bool, partitions ...int32) (map[int32]committed, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = stable
	group := kmsg.NewOffsetFetchRequestGroup()
	group.Group = s.conf.Group
	topic := kmsg.NewOffsetFetchRequestGroupTopic()
	topic.Topic, topic.TopicID = s.topic.name, s.topic.id
	topic.Partitions = partitions
	group.Topics = append(group.Topics, topic)
	req.Groups = append(req.Groups, group)
	member := s.member.Load()
	via := member
	if via == nil { // not joined yet, or joining again
		via = s.admin
	}
	resp, err := req.RequestWith(ctx, via)
	if errors.Is(err, kgo.ErrClientClosed) && s.member.Load() != member {
		return s.fetchOffsets(ctx, stable, partitions...) // it was replaced meanwhile
	}
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return nil, err
	}
	offsets := make(map[int32]committed, len(partitions))
	for _, g := range resp.Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
			return nil, err
		}
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return nil, err
				}
				offsets[p.Partition] = committed{p.Offset, unwrap(p.Metadata)}
			}
		}
	}
	return offsets, nil
}
