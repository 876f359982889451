package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline"
)

// GoneError says that records were asked for that the log has no more, or not yet.
type GoneError struct {
	Topic     string
	Partition int32
	Offset    int64 // asked for
	Start     int64 // the first there is; -1 if not known
}

func (e *GoneError) Error() string {
	what := "is not in the log"
	if e.Start >= 0 {
		what = fmt.Sprintf("is gone; the log starts at %d", e.Start)
	}
	return fmt.Sprintf("kafka: %s/%d: offset %d %s: retention was shorter than the time we were away, or the topic was made anew; "+
		"nothing is skipped silently: start with --rebuild", e.Topic, e.Partition, e.Offset, what)
}

// Unwrap makes it pipeline.ErrExpired.
func (e *GoneError) Unwrap() error { return pipeline.ErrExpired }

// TooLargeError says that a transaction did not happen because records are larger
// than their topic takes.
type TooLargeError struct {
	Records []*kgo.Record // those that were refused, largest first
	Err     error
}

func (e *TooLargeError) Error() string {
	r := e.Records[0]
	return fmt.Sprintf("kafka: %s/%d: a record of %d bytes: %v; raise the topic's max.message.bytes", r.Topic, r.Partition, sizeOf(r), e.Err)
}

func (e *TooLargeError) Unwrap() error { return e.Err }

// TooLarge returns the records that were refused, largest first.
func (e *TooLargeError) TooLarge() []*kgo.Record { return e.Records }

// sizeOf is about what a record takes on the wire.
func sizeOf(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// unanswered tells an error that says only that no broker has answered, or that the one
// that should is not ready: a cluster that restarts, a partition without a leader, a disk or
// an object store that a broker can't read now.
func unanswered(err error) bool {
	if err == nil || permanent(err) || errors.Is(err, context.Canceled) || errors.Is(err, kgo.ErrClientClosed) {
		return false
	}
	if ke, ok := errors.AsType[*kerr.Error](err); ok {
		return ke.Retriable || errors.Is(err, kerr.UnknownServerError)
	}
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, context.DeadlineExceeded) || kgo.IsRetryableBrokerErr(err) || closedAtOnce(err)
}

// closedAtOnce tells of a broker that has closed a connection before it answered anything on
// it. The client takes that for a sign of wrong settings; of brokers that have let us in
// before, it is one that stops.
func closedAtOnce(err error) bool {
	_, ok := errors.AsType[*kgo.ErrFirstReadEOF](err)
	return ok
}

// unreached tells of an address that nobody answers at.
func unreached(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// asked is an error of asking the brokers for what the log holds, as
// pipeline.History has it.
func asked(err error) error {
	if unanswered(err) {
		return fmt.Errorf("%w: %w", pipeline.ErrAway, err)
	}
	return err
}

// permanent tells an error that trying again does not mend: what is missing is a
// right, a topic, or a setting.
func permanent(err error) bool {
	for _, e := range []*kerr.Error{
		kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed,
		kerr.TransactionalIDAuthorizationFailed, kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism,
		kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.InvalidTopicException, kerr.OffsetMetadataTooLarge,
		kerr.InvalidGroupID, kerr.InconsistentGroupProtocol, kerr.InvalidSessionTimeout, kerr.GroupMaxSizeReached,
		kerr.InvalidTransactionTimeout, kerr.UnsupportedVersion, kerr.UnsupportedForMessageFormat,
		kerr.InvalidRecord, kerr.InvalidTimestamp, kerr.PolicyViolation, kerr.MessageTooLarge, kerr.RecordListTooLarge,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// fencing tells an error that says that the transactional id has a newer epoch: of
// another process, or because the broker has aborted a transaction for its age.
func fencing(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch)
}

// remedy says what to do about a permanent error, as the end of its text.
func remedy(err error) string {
	for _, r := range []struct {
		errs []*kerr.Error
		text string
	}{
		{[]*kerr.Error{
			kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed,
		}, "; give this user the right (ACLs)"},
		{[]*kerr.Error{kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.InvalidTopicException}, "; see: footfall topics check"},
		{[]*kerr.Error{kerr.OffsetMetadataTooLarge}, "; raise the brokers' offset.metadata.max.bytes to 4096"},
		{[]*kerr.Error{kerr.InvalidTransactionTimeout}, "; kafka.transaction_timeout is above the brokers' transaction.max.timeout.ms"},
		{[]*kerr.Error{kerr.InvalidSessionTimeout}, "; kafka.session_timeout is outside the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms"},
	} {
		for _, e := range r.errs {
			if errors.Is(err, e) {
				return r.text
			}
		}
	}
	return ""
}

// transient tells an error that may go by itself: no answer, or one that says that
// it can't be given now.
func transient(err error) bool {
	var ke *kerr.Error
	switch {
	case errors.Is(err, kgo.ErrClientClosed), errors.Is(err, pipeline.ErrPermanent), permanent(err):
		return false
	case errors.As(err, &ke):
		return ke.Retriable || errors.Is(err, kerr.UnknownServerError)
	}
	return true
}

// insist does f again while its error may go by itself, within limit.
func insist(ctx context.Context, limit time.Duration, f func(ctx context.Context) error) error {
	return insistIf(ctx, limit, transient, f)
}

// insistIf does f again while again says so of its error, within limit.
func insistIf(ctx context.Context, limit time.Duration, again func(error) bool, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for tries := 0; ; tries++ {
		err := f(ctx)
		if err == nil || !again(err) {
			return err
		}
		select {
		case <-time.After(backoff(tries)):
		case <-ctx.Done():
			return err
		}
	}
}

// newsTries is how often a broker is asked again that knows no such topic, of one that is
// known to be there: some eight seconds.
const newsTries = 20

// insistOnTopic is insist for what is asked about topics that are there. A broker may not
// know at once what another has created.
func insistOnTopic(ctx context.Context, limit time.Duration, f func(ctx context.Context) error) error {
	for tries := 0; ; tries++ {
		err := insist(ctx, limit, f)
		if !unknownTopic(err) || tries == newsTries {
			return err
		}
		select {
		case <-time.After(backoff(tries)):
		case <-ctx.Done():
			return err
		}
	}
}
