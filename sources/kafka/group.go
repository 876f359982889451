package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"footfall/pipeline"
)

// join starts the member. Its offsets are adjusted away after every assignment, so
// it has nothing to fetch.
func (s *Session) join() error {
	opts, err := s.options()
	if err != nil {
		return err
	}
	opts = append(opts, s.conf.Protocol.Options()...)
	opts = append(opts,
		kgo.ConsumerGroup(s.conf.Group),
		kgo.ConsumeTopics(s.conf.Topic),
		kgo.SessionTimeout(s.conf.SessionTimeout),
		kgo.RebalanceTimeout(s.conf.RebalanceTimeout),
		kgo.HeartbeatInterval(s.conf.HeartbeatInterval),
		kgo.DisableAutoCommit(),
		kgo.AdjustFetchOffsetsFn(func(context.Context, map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
			return nil, nil
		}),
		kgo.OnPartitionsAssigned(s.onAssigned),
		kgo.OnPartitionsRevoked(s.onRevoked),
		kgo.OnPartitionsLost(s.onLost),
		kgo.WithHooks(groupErrors{s}),
	)
	if s.conf.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(s.conf.InstanceID))
	}
	member, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	s.member.Store(member)
	if s.conf.Protocol == Consumer {
		s.owns.follow(func() membership { return membershipOf(member) })
	}
	return nil
}

// The callbacks run on kgo's group goroutine, one at a time, and never while it
// joins: what GroupMetadata says inside them is the membership they speak of.

func (s *Session) onAssigned(_ context.Context, cl *kgo.Client, parts map[string][]int32) {
	for _, p := range parts[s.conf.Topic] {
		if now := s.topic; int(p) >= len(now.leaders) {
			now.leaders = make([]int32, p+1) // as many, at least
			s.owns.fail(now.changed(0, int32(len(s.topic.leaders)), started))
		}
	}
	//failpoint:group.assigned
	s.owns.assigned(membershipOf(cl), parts[s.conf.Topic])
}

func (s *Session) onRevoked(ctx context.Context, cl *kgo.Client, parts map[string][]int32) {
	//failpoint:group.revoked
	as := membershipOf(cl)
	s.owns.revoked(as, parts[s.conf.Topic], s.conf.RevokeLimit, func(ps []int32) []int32 {
		if s.conf.Protocol == Consumer {
			return ps // the broker keeps them for us until this has returned
		}
		return s.unassigned(ctx, cl, as, ps)
	})
	//failpoint:group.released
}

func (s *Session) onLost(_ context.Context, cl *kgo.Client, parts map[string][]int32) {
	s.owns.lost(membershipOf(cl), parts[s.conf.Topic])
}

func membershipOf(cl *kgo.Client) membership {
	member, generation := cl.GroupMetadata()
	return membership{member, generation}
}

// unassigned returns those of the partitions that the group's assignment gives to
// nobody, as the coordinator has it. An assignment does not change within a
// generation. So if a commit under our generation is accepted later, the
// generation was ours now too, and this answer is about it.
func (s *Session) unassigned(ctx context.Context, cl *kgo.Client, as membership, partitions []int32) []int32 {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	groups, err := kadm.NewClient(cl).DescribeGroups(ctx, s.conf.Group)
	if err != nil {
		return nil
	}
	g := groups[s.conf.Group]
	if g.Err != nil || g.State != "Stable" {
		return nil
	}
	var taken []int32
	known := false
	for _, m := range g.Members {
		known = known || m.MemberID == as.member
		c, ok := m.Assigned.AsConsumer()
		if !ok {
			return nil
		}
		for _, t := range c.Topics {
			if t.Topic == s.conf.Topic {
				taken = append(taken, t.Partitions...)
			}
		}
	}
	if !known {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(partitions), func(p int32) bool { return slices.Contains(taken, p) })
}

// unknownRequest is kgo's error for a request that its versions do not have; it has
// no name to compare with. Of a member that knows no JoinGroup it means that the
// broker has refused the protocol Consumer although it claims to serve it.
const unknownRequest = "request key is unknown"

// groupErrors hears of what ended a group session; kgo joins again by itself.
type groupErrors struct{ s *Session }

func (h groupErrors) OnGroupManageError(err error) {
	switch {
	case h.s.conf.Protocol == Consumer && err.Error() == unknownRequest:
		h.s.owns.fail(h.s.conf.Protocol.supported(features{}))
	case permanent(err):
		h.s.owns.fail(fmt.Errorf("kafka: join group %s: %w%s", h.s.conf.Group, Lack{OnGroup, h.s.conf.Group, false, kmsg.ACLOperationRead}.Named(err), remedy(err)))
	}
}

// watch drains the member. It fetches nothing, but kgo hands it errors of the
// group that way. It ends with ctx.
func (s *Session) watch(ctx context.Context) {
	var fenced time.Time // when another was last found to have our instance id
	for {
		fetches := s.member.Load().PollFetches(ctx)
		if fetches.IsClientClosed() || ctx.Err() != nil {
			return
		}
		var other error
		fetches.EachError(func(_ string, _ int32, err error) {
			switch {
			case errors.Is(err, kerr.FencedInstanceID):
				other = err
			case permanent(err):
				s.owns.fail(fmt.Errorf("kafka: group %s: %w%s", s.conf.Group, err, remedy(err)))
			}
		})
		if other == nil {
			continue
		}
		if time.Since(fenced) < youth {
			s.owns.fail(fmt.Errorf("kafka: another process has joined group %s as %q; give each its own instance: %w: %w",
				s.conf.Group, s.conf.InstanceID, pipeline.ErrFenced, other))
			return
		}
		fenced = time.Now()
		if err := s.rejoin(other); err != nil {
			s.owns.fail(err)
			return
		}
	}
}

// rejoin makes another member of a static one whose instance id another member has. That is
// mostly another process of our name. But it may be the request to join of one that had the
// name before us and died, which the broker got to late; or the broker is still loading the
// group (see the package comment). So the id is taken back, once in a while: of two processes
// that live, the one that began first finds it gone again at once, and ends. kgo goes on
// under the member id that was fenced, which can't be taken back.
func (s *Session) rejoin(because error) error {
	s.conf.Log.Warn("another member has our instance id, and the group is joined again",
		zap.String("group", s.conf.Group), zap.String("instance", s.conf.InstanceID), zap.Error(because))
	s.member.Swap(nil).Close() // no other goroutine replaces it
	return s.join()
}
