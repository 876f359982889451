package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Need is what somebody must be allowed to do with a topic, a group or a transactional
// id; Prefix: with all whose names begin so. Each of Read and Write implies Describe.
type Need struct {
	On     On
	Name   string
	Prefix bool
	Do     []kmsg.ACLOperation
}

// On is a kind of thing that rights are given on; its text is what kafka-acls.sh calls it.
type On string

// The kinds there are.
const (
	OnTopic           On = "topic"
	OnGroup           On = "group"
	OnTransactionalID On = "transactional-id"
	OnCluster         On = "cluster"
)

// Lack is a right that the brokers do not give us; as an error, what another is about.
type Lack struct {
	On     On
	Name   string
	Prefix bool
	Do     kmsg.ACLOperation
}

func (l Lack) Error() string {
	if l.On == OnCluster {
		return fmt.Sprintf("missing ACL: %s on the cluster", operationName(l.Do))
	}
	return fmt.Sprintf("missing ACL: %s on %s %s", operationName(l.Do), l.On, l.Name)
}

// Command is the command line that gives the right to a user.
func (l Lack) Command(user string) string {
	pattern := ""
	if l.Prefix {
		pattern = " --resource-pattern-type prefixed"
	}
	name := " " + l.Name
	if l.On == OnCluster {
		name = "" // there is one
	}
	return fmt.Sprintf("kafka-acls.sh --bootstrap-server ... --add --allow-principal User:%s --operation %s --%s%s%s",
		cmp.Or(user, "..."), operationName(l.Do), l.On, name, pattern)
}

func operationName(op kmsg.ACLOperation) string {
	switch op {
	case kmsg.ACLOperationRead:
		return "Read"
	case kmsg.ACLOperationWrite:
		return "Write"
	case kmsg.ACLOperationCreate:
		return "Create"
	case kmsg.ACLOperationDescribe:
		return "Describe"
	case kmsg.ACLOperationDescribeConfigs:
		return "DescribeConfigs"
	case kmsg.ACLOperationClusterAction:
		return "ClusterAction"
	default:
		return op.String()
	}
}

// Lacking returns what of the needs the brokers do not allow us, as far as they tell:
// nothing of groups that do not exist, of topics that do not only whether they and their
// configuration may be described, and of transactional ids only whether they may be used
// at all. Where there are no ACLs, nothing is lacking.
func Lacking(ctx context.Context, cl *kgo.Client, needs []Need) (lacks []Lack, err error) {
	for _, n := range needs {
		var granted func(kmsg.ACLOperation) bool
		name := n.Name
		if n.Prefix {
			name += "?" // nobody's
		}
		switch n.On {
		case OnTopic:
			granted, err = topicRights(ctx, cl, name)
		case OnGroup:
			granted, err = groupRights(ctx, cl, name)
		case OnTransactionalID:
			granted, err = transactionalRights(ctx, cl, name)
		case OnCluster:
			granted = all // it takes another right to be told
		}
		if err != nil {
			return nil, fmt.Errorf("kafka: rights on %s %s: %w", n.On, n.Name, err)
		}
		for _, op := range n.Do {
			if !granted(op) {
				lacks = append(lacks, Lack{n.On, n.Name, n.Prefix, op})
			}
		}
	}
	return lacks, nil
}

// Named says which right is lacking, where that is what an error is about.
func (l Lack) Named(err error) error {
	for _, e := range []error{kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.ClusterAuthorizationFailed} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", l, err)
		}
	}
	return err
}

func all(kmsg.ACLOperation) bool  { return true }
func none(kmsg.ACLOperation) bool { return false }

// rights reads the bit set of KIP-430: a bit for each operation's number. The smallest
// number says that there is no answer.
func rights(bits int32) func(kmsg.ACLOperation) bool {
	if bits == -1<<31 {
		return all
	}
	return func(op kmsg.ACLOperation) bool { return bits&(1<<op) != 0 }
}

func topicRights(ctx context.Context, cl *kgo.Client, topic string) (granted func(kmsg.ACLOperation) bool, err error) {
	req := kmsg.NewPtrMetadataRequest()
	req.IncludeTopicAuthorizedOperations = true
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = new(topic)
	req.Topics = append(req.Topics, t)
	err = retry(ctx, func() error {
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(resp.Topics, func(t kmsg.MetadataResponseTopic) bool { return t.Topic != nil && *t.Topic == topic })
		if i < 0 {
			granted = all
			return nil
		}
		switch err := kerr.ErrorForCode(resp.Topics[i].ErrorCode); {
		case errors.Is(err, kerr.TopicAuthorizationFailed):
			// Without Describe, and so without what implies it, the brokers do not tell of
			// the one right that is left.
			granted = func(op kmsg.ACLOperation) bool {
				return op == kmsg.ACLOperationDescribeConfigs && mayDescribeConfigs(ctx, cl, topic)
			}
		case err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) && !errors.Is(err, kerr.LeaderNotAvailable):
			return err
		case err != nil: // it is not there yet, so only what can be tried is known
			granted = func(op kmsg.ACLOperation) bool {
				return op != kmsg.ACLOperationDescribeConfigs || mayDescribeConfigs(ctx, cl, topic)
			}
		default:
			granted = rights(resp.Topics[i].AuthorizedOperations)
		}
		return nil
	})
	return granted, err
}

func mayDescribeConfigs(ctx context.Context, cl *kgo.Client, topic string) bool {
	req := kmsg.NewPtrDescribeConfigsRequest()
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(ctx, cl)
	return err == nil && len(resp.Resources) == 1 && !errors.Is(kerr.ErrorForCode(resp.Resources[0].ErrorCode), kerr.TopicAuthorizationFailed)
}

func groupRights(ctx context.Context, cl *kgo.Client, group string) (granted func(kmsg.ACLOperation) bool, err error) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups, req.IncludeAuthorizedOperations = []string{group}, true
	err = retry(ctx, func() error {
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		granted = all
		for _, g := range resp.Groups {
			switch err := kerr.ErrorForCode(g.ErrorCode); {
			case errors.Is(err, kerr.GroupAuthorizationFailed):
				granted = none
			case err == nil:
				granted = rights(g.AuthorizedOperations)
			case kerr.IsRetriable(err):
				return err
			}
		}
		return nil
	})
	if errors.Is(err, kerr.GroupAuthorizationFailed) { // of finding its coordinator
		return none, nil
	}
	return granted, err
}

// transactionalRights asks for the coordinator of an id, which changes nothing.
func transactionalRights(ctx context.Context, cl *kgo.Client, id string) (granted func(kmsg.ACLOperation) bool, err error) {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorKey, req.CoordinatorType, req.CoordinatorKeys = id, 1, []string{id}
	err = retry(ctx, func() error {
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		code := resp.ErrorCode
		if len(resp.Coordinators) > 0 {
			code = resp.Coordinators[0].ErrorCode
		}
		return kerr.ErrorForCode(code)
	})
	if errors.Is(err, kerr.TransactionalIDAuthorizationFailed) {
		return none, nil
	}
	return all, err
}
