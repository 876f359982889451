package pipeline

import (
	"context"
	"errors"
	"fmt"

	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Source gives records and changes of ownership, in band, so the loop handles a
// rebalance at its own pace and a simulation can script one.
type Source interface {
	// Poll waits until there is something to report and fills into, reusing its
	// memory. Records of a partition come in offset order, and only after Start.
	// It returns ctx.Err() when ctx ends; any other error is fatal.
	Poll(ctx context.Context, into *Batch) error

	// Start begins (or begins again) to read an assigned partition at offset, under
	// the assignment that Poll has given last. It must not wait.
	Start(partition int32, offset int64)

	// Release says that a revoked partition has been drained and dropped; the
	// rebalance waits for it, within a limit.
	Release(partition int32)
}

// Batch is what one Poll reports. Lost and Revoked come before Assigned.
type Batch struct {
	Lost     []int32      // gone already: nothing of it can be committed any more
	Revoked  []int32      // going: may still be committed until Release
	Assigned []Assignment // ours now: recover it, then Start it
	Fetched  []Fetched
	Ends     []End
}

// Assignment is a partition and the epoch of its ownership, which grows with
// every assignment; outputs carry it back to the Committer.
type Assignment struct {
	Partition int32
	Epoch     int64
}

// Fetched is a run of records of one partition, in offset order.
type Fetched struct {
	Partition int32
	Records   []worker.Record

	// Free gives the memory of Records back, and of all they point at: whoever has applied
	// them calls it, and looks at them no more. Nil: there is nothing to give back. Where
	// nobody calls it, the garbage collector does the same, later.
	Free func()
}

// End says that at wall time Wall (taken before asking), Offset was the end (last
// stable offset) of the partition: once everything before it is applied, the clock
// may go to Wall - grace.
type End struct {
	Partition int32
	Offset    int64
	Wall      schemas.Millis
}

// Committer makes outputs and their marks visible together or not at all, for
// every partition an output speaks for, fenced by the group's generation. Outputs
// of one partition are in order; the last one's mark is committed. Without any
// item it commits the marks alone.
//
// ErrAborted: nothing happened, send the same again. *UnwritableError: nothing happened,
// and won't with the partitions named, for now. *LostError: nothing happened, and the
// partitions named are no longer ours. ErrFenced: another process has taken
// this instance's name; stop. ErrPermanent: nothing happened, and nothing will
// until a person mends it; stop. Any other error: the outcome is unknown, ask Committed.
type Committer interface {
	Commit(ctx context.Context, outs []*worker.Output) error

	// Committed reads the partition's mark from the broker (a stable fetch, after
	// every open transaction of this instance has been ended). found is false
	// where nothing was ever committed, or the commit has expired.
	Committed(ctx context.Context, partition int32) (mark schemas.Mark, found bool, err error)
}

// ErrAborted says that a commit did not happen and may be sent again.
var ErrAborted = errors.New("transaction aborted")

// UnwritableError says that a commit did not happen because partitions of an output topic
// take no writes: they have no leader, or too few replicas, or a bad disk. Without the
// partitions named it may happen. It is ErrAborted.
type UnwritableError struct {
	Partitions []int32
	Tried      bool // they were sent, and not taken in time: they may have been too much at once
	Err        error
}

func (e *UnwritableError) Error() string {
	return fmt.Sprintf("the outputs of partitions %v can't be written now: %v", e.Partitions, e.Err)
}

// Unwrap makes it ErrAborted.
func (e *UnwritableError) Unwrap() []error { return []error{ErrAborted, e.Err} }

// ErrFenced says that another process has taken this instance's name.
var ErrFenced = errors.New("fenced by another instance of the same name")

// ErrPermanent is wrapped by errors that sending again cannot mend.
var ErrPermanent = errors.New("cannot succeed")

// ErrExpired is wrapped by the errors of a History that say that retention has removed
// what was asked for. An older snapshot needs it too; --rebuild does without.
var ErrExpired = errors.New("removed by retention")

// LostError says that a commit did not happen because partitions are not ours any
// more under the epoch their outputs carry.
type LostError struct{ Partitions []int32 }

func (e *LostError) Error() string {
	return fmt.Sprintf("ownership lost of partitions %v", e.Partitions)
}

// ErrAway is wrapped by errors of a History that say only that nobody has answered, or that
// a transaction is not decided yet, which a person may have to end. A
// recovery begins again then, until somebody does; the partitions beside it go on.
var ErrAway = errors.New("no answer")

// Past is what the archive has of the input, for records that retention has removed from
// the log. A search for history is all that reads it: recovery needs nothing but the log.
type Past interface {
	// Older gives the input records with offset < before that were not refused, in runs, in
	// order of offset. What the contract means by a record is the same as of the one in the
	// log; its bytes need not be. kept is how many of these offsets are known, refused ones
	// too; what is missing was never archived, or is a transaction's marker. Every error
	// that is not the caller's or the context's wraps ErrAway: it is asked again.
	Older(ctx context.Context, partition int32, before int64, each func([]worker.Record) error) (kept int64, err error)

	// Refused gives the offsets before another of records that were refused. Retention may
	// have removed their dead letters from the log, and not the records.
	Refused(ctx context.Context, partition int32, before int64) ([]int64, error)
}

// History is what recovery reads.
type History interface {
	// Bounds returns the input partition's first offset and its end (last stable offset).
	Bounds(ctx context.Context, partition int32) (start, end int64, err error)

	// Input gives the input records with from <= offset < to, in runs. Its error wraps
	// ErrExpired where the log begins later by now.
	Input(ctx context.Context, partition int32, from, to int64, each func([]worker.Record) error) error

	// Said gives the committed outputs of a partition with after < n <= to, in
	// order of n. Commit markers come late: it waits for them, within a limit, and
	// its error then names the transaction that hangs, and wraps ErrAway. It wraps
	// ErrExpired where retention has removed some of them.
	Said(ctx context.Context, partition int32, after, to uint64, each func(*worker.Item) error) error

	// SaidAll gives every committed output of a partition that the topics still
	// have, in order of n, up to and including to, or, where to is 0, up to the last
	// one there is: it waits for markers then too. Numbers may be left out: retention
	// removes the oldest, of each topic by itself.
	SaidAll(ctx context.Context, partition int32, to uint64, each func(*worker.Item) error) error

	// Last is the greatest number among the partition's committed outputs, 0 where
	// there is none. It waits until all that is written is decided, within a limit, and
	// its error then names the transaction that hangs, and wraps ErrAway.
	Last(ctx context.Context, partition int32) (n uint64, err error)
}
