package brokersim

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/sources/kafka"
)

// role is who is hit.
type role string

const (
	engine  role = "engine"
	archive role = "archive"
)

// setting is a cluster and what its members speak.
type setting struct {
	protocol kafka.Protocol
	old      bool // brokers of Kafka 3.8: transactions of version 1
}

func (s setting) String() string {
	if s.old {
		return string(s.protocol) + ",kafka-3.8"
	}
	return string(s.protocol)
}

// combination is what is enumerated.
type combination struct {
	role    role
	setting setting
	key     kmsg.Key
	phase   phase
	action  action
	failure failure // action fail
}

func (c combination) String() string {
	when := map[phase]string{before: "before", after: "after"}[c.phase]
	what := map[action]string{fail: "error", cut: "close", late: "delay", nowhere: "never"}[c.action]
	if c.action == fail {
		what += "=" + c.failure.err.Message
	}
	return fmt.Sprintf("%s/%s/%s/%s/%s", c.role, c.setting, c.key.Name(), when, what)
}

// failure is an error that a request may be answered with.
type failure struct {
	err   *kerr.Error
	level int  // of the answer: 0 itself, 1 what it lists, 2 what those list; deepest
	after bool // a broker may say so although it has done what was asked
	stops bool // whoever gets it may end, and say what to do
}

// applied makes failures that a broker also gives when it has done what was asked.
func applied(errs ...*kerr.Error) (all []failure) {
	for _, err := range errs {
		all = append(all, failure{err: err, level: deepest, after: true})
	}
	return all
}

// refused makes failures that say that nothing was done.
func refused(errs ...*kerr.Error) (all []failure) {
	for _, err := range errs {
		all = append(all, failure{err: err, level: deepest})
	}
	return all
}

// stopping makes failures that may end a process.
func stopping(errs ...*kerr.Error) (all []failure) {
	for _, err := range errs {
		all = append(all, failure{err: err, level: deepest, stops: true})
	}
	return all
}

// at puts failures at another level of the answer.
func at(level int, all []failure) []failure {
	for i := range all {
		all[i].level = level
	}
	return all
}

// moved are what a coordinator says that has lost its place, or has none yet. It may
// say so of what it has written a moment before.
func moved() []failure {
	return applied(kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress)
}

// request is one kind of request, and the errors it may be answered with.
type kind struct {
	key      kmsg.Key
	failures []failure
}

// kinds are the requests that a role sends; the census of all runs holds that there are no
// others.
func kinds(r role, s setting) []kind {
	all := []kind{
		{kmsg.ApiVersions, refused(kerr.UnsupportedVersion)},
		{kmsg.Metadata, slices.Concat(at(2, refused(kerr.LeaderNotAvailable)), at(1, stopping(kerr.UnknownTopicOrPartition)))},
		{kmsg.FindCoordinator, refused(kerr.CoordinatorNotAvailable)},
		{kmsg.OffsetFetch, slices.Concat(refused(kerr.UnstableOffsetCommit), at(1, moved()), at(1, stopping(kerr.GroupAuthorizationFailed)))},
		{kmsg.Fetch, slices.Concat(
			refused(kerr.NotLeaderForPartition, kerr.UnknownServerError, kerr.KafkaStorageError, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch, kerr.OffsetNotAvailable),
			at(0, refused(kerr.FetchSessionIDNotFound, kerr.InvalidFetchSessionEpoch)), stopping(kerr.OffsetOutOfRange, kerr.TopicAuthorizationFailed))},
		{kmsg.OffsetForLeaderEpoch, refused(kerr.NotLeaderForPartition, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch, kerr.UnknownServerError)},
		{kmsg.ListOffsets, refused(kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.OffsetNotAvailable, kerr.UnknownServerError)},
	}
	if s.protocol == kafka.Consumer {
		all = append(all, kind{kmsg.ConsumerGroupHeartbeat, slices.Concat(moved(),
			refused(kerr.UnknownMemberID, kerr.FencedMemberEpoch, kerr.UnreleasedInstanceID), stopping(kerr.GroupMaxSizeReached, kerr.GroupAuthorizationFailed))})
	} else {
		all = append(all,
			kind{kmsg.JoinGroup, slices.Concat(moved(), refused(kerr.UnknownMemberID, kerr.RebalanceInProgress), stopping(kerr.FencedInstanceID, kerr.GroupMaxSizeReached, kerr.GroupAuthorizationFailed))},
			kind{kmsg.SyncGroup, slices.Concat(moved(), refused(kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.IllegalGeneration), stopping(kerr.FencedInstanceID))},
			kind{kmsg.Heartbeat, slices.Concat(moved(), refused(kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.IllegalGeneration), stopping(kerr.FencedInstanceID, kerr.GroupAuthorizationFailed))},
			kind{kmsg.LeaveGroup, slices.Concat(moved(), refused(kerr.UnknownMemberID))},
		)
	}
	if r == archive {
		return append(all, kind{kmsg.OffsetCommit, slices.Concat(moved(), applied(kerr.RequestTimedOut), refused(kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.RebalanceInProgress), stopping(kerr.GroupAuthorizationFailed))})
	}
	if s.protocol != kafka.Consumer {
		all = append(all, kind{kmsg.DescribeGroups, moved()})
	}
	if s.old {
		all = append(all,
			kind{kmsg.AddPartitionsToTxn, slices.Concat(moved(), refused(kerr.ConcurrentTransactions, kerr.UnknownTopicOrPartition, kerr.InvalidTxnState), stopping(kerr.ProducerFenced))},
			kind{kmsg.AddOffsetsToTxn, slices.Concat(moved(), refused(kerr.ConcurrentTransactions, kerr.InvalidTxnState), stopping(kerr.ProducerFenced))},
		)
	}
	return append(all,
		kind{kmsg.DescribeProducers, refused(kerr.NotLeaderForPartition, kerr.UnknownServerError, kerr.TopicAuthorizationFailed)},
		kind{kmsg.ListTransactions, refused(kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable)},
		kind{kmsg.DescribeTransactions, slices.Concat(moved(), refused(kerr.TransactionalIDNotFound, kerr.TransactionalIDAuthorizationFailed))},
		kind{kmsg.DescribeConfigs, refused(kerr.UnknownServerError, kerr.TopicAuthorizationFailed)},
		kind{kmsg.InitProducerID, slices.Concat(moved(), refused(kerr.ConcurrentTransactions), stopping(kerr.ProducerFenced, kerr.TransactionalIDAuthorizationFailed))},
		kind{kmsg.Produce, slices.Concat(
			applied(kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotLeaderForPartition, kerr.UnknownServerError, kerr.KafkaStorageError),
			refused(kerr.NotEnoughReplicas, kerr.UnknownTopicOrPartition, kerr.OutOfOrderSequenceNumber, kerr.InvalidTxnState, kerr.TransactionAbortable, kerr.ConcurrentTransactions),
			stopping(kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.TopicAuthorizationFailed))},
		kind{kmsg.TxnOffsetCommit, slices.Concat(moved(), applied(kerr.RequestTimedOut, kerr.UnknownServerError),
			refused(kerr.ConcurrentTransactions, kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.InvalidTxnState, kerr.TransactionAbortable),
			stopping(kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.FencedInstanceID, kerr.GroupAuthorizationFailed))},
		// The second of two attempts finds the epoch moved on by the first.
		kind{kmsg.EndTxn, slices.Concat(moved(), applied(kerr.ConcurrentTransactions, kerr.UnknownServerError, kerr.InvalidTxnState),
			refused(kerr.TransactionAbortable), endFenced(), stopping(kerr.TransactionalIDAuthorizationFailed))},
	)
}

func endFenced() []failure {
	all := stopping(kerr.InvalidProducerEpoch, kerr.ProducerFenced)
	for i := range all {
		all[i].after = true
	}
	return all
}

// neverAfter are requests that no broker answers with an error once it has carried them
// out, and why.
var neverAfter = map[kmsg.Key]string{
	kmsg.ApiVersions: "the one error says that the version asked in is not known, so that nothing was done",
}

// Each request is hit before and after, in each way.
func TestEveryRequestIsHitInEveryWay(t *testing.T) {
	type way struct {
		combination
		action action
	}
	have := map[way]bool{}
	for _, c := range combinations() {
		have[way{combination{role: c.role, setting: c.setting, key: c.key, phase: c.phase}, c.action}] = true
	}
	for _, s := range settings() {
		for _, r := range []role{engine, archive} {
			for _, k := range kinds(r, s) {
				if s.old && (r != engine || !transactional(k.key)) {
					continue // as under the others
				}
				for _, p := range []phase{before, after} {
					for _, a := range []action{fail, cut, late, nowhere} {
						w := way{combination{role: r, setting: s, key: k.key, phase: p}, a}
						if exempt := a == fail && p == after && neverAfter[k.key] != ""; have[w] == exempt {
							t.Errorf("%s/%s/%s, phase %d, action %d: hit %t, exempt %t", r, s, k.key.Name(), p, a, have[w], exempt)
						}
					}
				}
			}
		}
	}
}

// settings are what everything is enumerated under.
func settings() []setting {
	return []setting{{protocol: kafka.Classic}, {protocol: kafka.Consumer}, {protocol: kafka.Classic, old: true}}
}

// combinations enumerates. Under the old brokers only what they do otherwise is.
func combinations() (all []combination) {
	for _, s := range settings() {
		for _, r := range []role{engine, archive} {
			for _, k := range kinds(r, s) {
				if s.old && (r != engine || !transactional(k.key)) {
					continue
				}
				c := combination{role: r, setting: s, key: k.key}
				for _, c.phase = range []phase{before, after} {
					for _, c.action = range []action{cut, late, nowhere} {
						all = append(all, c)
					}
					c.action = fail
					for _, c.failure = range k.failures {
						if c.phase == before || c.failure.after || reads(k.key) {
							all = append(all, c)
						}
					}
					c.failure = failure{}
				}
			}
		}
	}
	return all
}

// reads tells requests that change nothing: of those it is one to a broker whether it has
// found an answer before it says that it has none, and the client gets both at once.
func reads(key kmsg.Key) bool {
	return hung(key) || key == kmsg.OffsetForLeaderEpoch || slices.Contains([]kmsg.Key{
		kmsg.Metadata, kmsg.FindCoordinator, kmsg.OffsetFetch, kmsg.Fetch, kmsg.ListOffsets, kmsg.DescribeGroups, kmsg.DescribeConfigs,
	}, key)
}

// hung tells requests by which a process finds out whose transaction it waits for in vain.
func hung(key kmsg.Key) bool {
	return slices.Contains([]kmsg.Key{kmsg.DescribeProducers, kmsg.ListTransactions, kmsg.DescribeTransactions}, key)
}

// leads tells that leaders have to move for the request to be sent.
func (c combination) leads() bool { return c.key == kmsg.OffsetForLeaderEpoch }

// hangs tells that there has to be such a transaction for the request to be sent. It may
// end a process, which says so.
func (c combination) hangs() bool { return hung(c.key) }

func transactional(key kmsg.Key) bool {
	return slices.Contains([]kmsg.Key{
		kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn, kmsg.InitProducerID, kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn,
	}, key)
}
