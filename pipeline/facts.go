package pipeline

import (
	"fmt"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"footfall/schemas"
)

// Fact is something that happened. Logs, metrics, the dashboard and tests are all
// readers of facts.
type Fact interface {
	// Log gives the fact's level, its constant message and its fields.
	Log() (zapcore.Level, string, []zap.Field)
}

// The facts of a pipeline.
type (
	// Assigned says that the group gave us a partition.
	Assigned struct {
		Partition int32
		Epoch     int64
	}
	// Began says that a partition of which nothing was ever said is live; what the
	// records before Bootstrap cause is muted.
	Began struct {
		Partition       int32
		Next, Bootstrap int64
	}
	// Recovered says that a partition is live again at the committed mark.
	Recovered struct {
		Partition   int32
		Snapshot    string
		Deltas      int // that the snapshot is, upon a whole one
		Next        int64
		N           uint64
		Records     int64  // replayed
		Forgotten   int64  // offsets of the dedup window that retention has removed
		Outputs     uint64 // read back
		Users       int
		Differences int // said by nobody before, said now
		Took        schemas.Millis

		// Of that: reading the snapshot, the outputs, and the input.
		Load, ReadBack, Replay schemas.Millis
	}
	// RecoveryWaits says that a recovery begins again, because the log or the bucket is
	// away; the other partitions go on.
	RecoveryWaits struct {
		Partition int32
		Attempt   int
		Err       error
	}
	// Released says that a partition was drained and handed over.
	Released struct {
		Partition int32
		Next      int64
	}
	// Lost says that a partition's ownership was lost; what was not committed is dropped.
	Lost struct{ Partition int32 }
	// Committed says that a transaction, or a commit of marks alone, has happened; of one whose
	// outcome was not known each partition's part by itself.
	Committed struct{ Partitions, Outputs int }
	// Aborted says that a transaction did not happen, and is sent again.
	Aborted struct {
		Attempt int
		Err     error
	}
	// Unknown says that the outcome of a transaction is not known, and is asked for.
	Unknown struct{ Err error }
	// InDoubt says that nobody can tell yet whether a partition's part of a transaction has
	// happened. What it says waits; the other partitions go on.
	InDoubt struct {
		Partition int32
		Attempt   int
		Err       error
	}
	// TimeHeld says that the wall is so far ahead of every clock here that it may be wrong:
	// ticks are not believed until an event or Config.JumpMax says that it is not. Or, not
	// Held, that they are again.
	TimeHeld struct {
		Held              bool
		Wall, Clock, Most schemas.Millis
	}
	// SnapshotPublished says that a snapshot can be recovered from.
	SnapshotPublished struct {
		Partition int32
		Snapshot  string
		Delta     bool          // of what has changed since the one before
		Bytes     int64         // of it alone
		Users     int           // there are
		Pause     time.Duration // the longest that it has kept the partition's events waiting at a time
	}
	// SnapshotFailed says that a snapshot could not be stored; the one before serves.
	SnapshotFailed struct {
		Partition int32
		Snapshot  string
		Err       error
	}
	// SnapshotsNotRemoved says that a snapshot is stored, and older ones that it should push
	// out could not be removed: the bucket grows.
	SnapshotsNotRemoved struct {
		Partition int32
		Snapshot  string
		Err       error
	}
	// SnapshotSkipped says that recovery could not use a snapshot and tries the one before.
	SnapshotSkipped struct {
		Partition int32
		Snapshot  string
		Err       error
	}
)

// Log tells the fact to the log.
func (f Assigned) Log() (zapcore.Level, string, []zap.Field) {
	return zap.DebugLevel, "partition assigned", []zap.Field{zap.Int32("partition", f.Partition), zap.Int64("epoch", f.Epoch)}
}

// Log tells the fact to the log.
func (f Began) Log() (zapcore.Level, string, []zap.Field) {
	return zap.InfoLevel, "partition began from nothing", []zap.Field{
		zap.Int32("partition", f.Partition), zap.Int64("next", f.Next), zap.Int64("muted_before", f.Bootstrap),
	}
}

// Log tells the fact to the log.
func (f Recovered) Log() (zapcore.Level, string, []zap.Field) {
	level, what := zap.InfoLevel, "partition recovered"
	if f.Differences > 0 {
		level = zap.WarnLevel
	}
	if f.Forgotten > 0 {
		level = zap.WarnLevel
		what += ", but the topic begins amid the dedup window of the snapshot: what repeats a record of before may count once more. Keep events longer (retention.ms)"
	}
	return level, what, []zap.Field{
		zap.Int32("partition", f.Partition), zap.String("snapshot", f.Snapshot), zap.Int("deltas", f.Deltas), zap.Int64("next", f.Next), zap.Uint64("n", f.N),
		zap.Int64("records_replayed", f.Records), zap.Int64("offsets_forgotten", f.Forgotten), zap.Uint64("outputs_read", f.Outputs), zap.Int("users", f.Users),
		zap.Int("differences", f.Differences), zap.Int64("took_ms", int64(f.Took)),
		zap.Int64("load_ms", int64(f.Load)), zap.Int64("read_back_ms", int64(f.ReadBack)), zap.Int64("replay_ms", int64(f.Replay)),
	}
}

// Log tells the fact to the log.
func (f RecoveryWaits) Log() (zapcore.Level, string, []zap.Field) {
	return zap.WarnLevel, "recovery waits, and begins again", []zap.Field{
		zap.Int32("partition", f.Partition), zap.Int("attempt", f.Attempt), zap.Error(f.Err),
	}
}

// Log tells the fact to the log.
func (f Released) Log() (zapcore.Level, string, []zap.Field) {
	return zap.InfoLevel, "partition released", []zap.Field{zap.Int32("partition", f.Partition), zap.Int64("next", f.Next)}
}

// Log tells the fact to the log.
func (f Lost) Log() (zapcore.Level, string, []zap.Field) {
	return zap.WarnLevel, "partition lost", []zap.Field{zap.Int32("partition", f.Partition)}
}

// Log tells the fact to the log.
func (f Committed) Log() (zapcore.Level, string, []zap.Field) {
	return zap.DebugLevel, "committed", []zap.Field{zap.Int("partitions", f.Partitions), zap.Int("outputs", f.Outputs)}
}

// Log tells the fact to the log.
func (f Aborted) Log() (zapcore.Level, string, []zap.Field) {
	return zap.WarnLevel, "transaction aborted, sent again", []zap.Field{zap.Int("attempt", f.Attempt), zap.Error(f.Err)}
}

// Log tells the fact to the log.
func (f Unknown) Log() (zapcore.Level, string, []zap.Field) {
	return zap.WarnLevel, "outcome of a commit unknown, asking the broker", []zap.Field{zap.Error(f.Err)}
}

// Log tells the fact to the log.
func (f InDoubt) Log() (zapcore.Level, string, []zap.Field) {
	return zap.WarnLevel, "outcome of a commit still unknown, asking again", []zap.Field{
		zap.Int32("partition", f.Partition), zap.Int("attempt", f.Attempt), zap.Error(f.Err),
	}
}

// Log tells the fact to the log.
func (f TimeHeld) Log() (zapcore.Level, string, []zap.Field) {
	fields := []zap.Field{zap.Time("wall", time.UnixMilli(int64(f.Wall))), zap.Time("clock", time.UnixMilli(int64(f.Clock))), zap.Duration("max_jump", time.Duration(f.Most)*time.Millisecond)}
	if f.Held {
		return zap.ErrorLevel, "the wall is further ahead of every clock here than clock.max_jump: nobody is taken for silent meanwhile. " +
			"Set this machine's time if it is wrong; if it is right, the next event of this instance shows that, or a larger clock.max_jump", fields
	}
	return zap.InfoLevel, "the wall is believed again", fields
}

// Log tells the fact to the log.
func (f SnapshotPublished) Log() (zapcore.Level, string, []zap.Field) {
	return zap.InfoLevel, "snapshot published", []zap.Field{
		zap.Int32("partition", f.Partition), zap.String("snapshot", f.Snapshot), zap.Bool("delta", f.Delta), zap.Int64("bytes", f.Bytes), zap.Int("users", f.Users),
		zap.Int64("pause_us", f.Pause.Microseconds()),
	}
}

// Log tells the fact to the log.
func (f SnapshotFailed) Log() (zapcore.Level, string, []zap.Field) {
	return zap.WarnLevel, "snapshot not stored", []zap.Field{
		zap.Int32("partition", f.Partition), zap.String("snapshot", f.Snapshot), zap.Error(f.Err),
	}
}

// Log tells the fact to the log.
func (f SnapshotsNotRemoved) Log() (zapcore.Level, string, []zap.Field) {
	return zap.WarnLevel, "old snapshots not removed: the bucket grows", []zap.Field{
		zap.Int32("partition", f.Partition), zap.String("snapshot", f.Snapshot), zap.Error(f.Err),
	}
}

// Log tells the fact to the log.
func (f SnapshotSkipped) Log() (zapcore.Level, string, []zap.Field) {
	return zap.WarnLevel, "snapshot skipped, trying the one before", []zap.Field{
		zap.Int32("partition", f.Partition), zap.String("snapshot", f.Snapshot), zap.Error(f.Err),
	}
}

// Log tells the fact to the log.
func (f Switched) Log() (zapcore.Level, string, []zap.Field) {
	return zap.InfoLevel, "partition goes by other rules", []zap.Field{
		zap.Int32("partition", f.Partition), zap.String("rules", fmt.Sprintf("%016x", f.Rules)), zap.Uint64("epoch", f.Epoch), zap.Bool("filling", f.Filling),
	}
}

// Log tells the fact to the log.
func (f FillingWaits) Log() (zapcore.Level, string, []zap.Field) {
	return zap.WarnLevel, "the search for what new rules ask for waits for the log", []zap.Field{
		zap.Int32("partition", f.Partition), zap.Int("attempt", f.Attempt), zap.Error(f.Err),
	}
}

// Log tells the fact to the log.
func (f Filled) Log() (zapcore.Level, string, []zap.Field) {
	return zap.InfoLevel, "history found of what new rules ask for", []zap.Field{
		zap.Int32("partition", f.Partition), zap.Int64("from", f.From), zap.Int64("to", f.To), zap.Int64("records", f.Records),
		zap.Int64("from_clickhouse", f.Archived), zap.Int64("in_neither", f.Missing),
	}
}

// Log tells the fact to the log.
func (f Settled) Log() (zapcore.Level, string, []zap.Field) {
	return zap.InfoLevel, "everyone evaluated under the rules", []zap.Field{
		zap.Int32("partition", f.Partition), zap.String("rules", fmt.Sprintf("%016x", f.Rules)), zap.Uint64("epoch", f.Epoch), zap.Int64("took_ms", int64(f.Took)),
	}
}
