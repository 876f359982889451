package archive

import (
	"context"
	"errors"

	"footfall/schemas"
)

// Partition is one partition of a topic.
type Partition struct {
	Topic  string
	Number int32
}

// Record is one record of a partition, as the broker gave it.
type Record struct {
	Offset     int64
	Time       schemas.Millis // record timestamp
	Key, Value []byte         // nil: none
	Headers    []schemas.Header
	Control    bool // a transaction marker: it gives no row, but it has an offset
}

// Log is the topics, as one member of the archive's consumer group sees them.
// Records are committed ones, and the markers of transactions among them. Where Bounds or
// Read fails, but for ErrGone or a *FatalError, that partition is asked again later.
type Log interface {
	// Poll waits until there is something to report, until at the latest, and fills
	// into, reusing its memory. Records of a partition come in offset order, from
	// the offset of its assignment on. Any error is fatal; it returns ctx.Err() when
	// ctx ends. What it reported as Revoked it lets go when it is called again.
	Poll(ctx context.Context, until schemas.Millis, into *Batch) error

	// Commit writes marks for partitions of this member. Those that it has lost are left
	// out, and given; Poll reports them too. A *FatalError stops the archive, after any
	// other the outcome is unknown and the same may be tried again.
	Commit(ctx context.Context, marks []Commit) (lost []Partition, err error)

	// Bounds returns a partition's first offset and its end (last stable offset).
	Bounds(ctx context.Context, p Partition) (start, end int64, err error)

	// Read gives the records with first <= offset < next again, in runs of at most
	// RunMax; gaps are as they were. It does not disturb Poll. Its error is ErrGone
	// where the log does not begin before first any more.
	Read(ctx context.Context, p Partition, first, next int64, each func([]Record) error) error
}

// RunMax is how many records Read gives at once: what a read-back asks for.
const RunMax = 20_000

// Batch is what one Poll reports, in this order.
type Batch struct {
	Lost     []Partition // gone already: others may have them
	Revoked  []Partition // going: still this member's, until the next Poll
	Assigned []Assignment
	Runs     []Run
}

// Assignment is a partition that is ours now, and what was committed for it.
type Assignment struct {
	Partition Partition
	Epoch     int64  // of the ownership, larger than that of the one before
	Committed bool   // false: nothing ever was, or it has expired
	Next      int64  // first offset that is not archived
	Metadata  string // of the commit
}

// Run is consecutive records of one partition.
type Run struct {
	Partition Partition
	Records   []Record
	End       int64 // the partition's end, as far as known
}

// Commit is the offset Next, written with its metadata, as long as the partition is ours
// under the epoch.
type Commit struct {
	Partition Partition
	Epoch     int64
	Next      int64
	Metadata  string
}

// Table is where the rows go. It may lose what it acknowledged, apply what it
// refused, apply it later, and apply it twice.
type Table interface {
	// Rows returns an empty set of rows.
	Rows() Rows

	// Present returns what the table has of a span: offsets and hashes, in any
	// order, an offset more than once where its row is there more than once.
	Present(ctx context.Context, s Span) ([]Row, error)

	// Sums returns how many offsets of each span have a row, and the sum of the hashes.
	Sums(ctx context.Context, spans []Span) ([]Sum, error)

	// After returns the offset behind the last row at or after first, or first.
	After(ctx context.Context, p Partition, first int64) (int64, error)

	// Settle waits until every insert that was under way when it was called has
	// ended, whoever sent it: a member that is gone may have left one behind.
	Settle(ctx context.Context) error

	// Epoch changes when the server restarts.
	Epoch(ctx context.Context) (string, error)
}

// AuditTable is a table that tells more, for a Comparison.
type AuditTable interface {
	Table

	// Tallies returns what the rows of each span come to; without contents, the
	// columns are not read and every Content is 0.
	Tallies(ctx context.Context, spans []Span, contents bool) ([]Tally, error)

	// Found returns the rows of a span by their offset, those that are alike as one.
	Found(ctx context.Context, s Span, contents bool) ([]Found, error)

	// Refused returns which offsets of a span are known to have been refused, in
	// order: their records give no row, whatever the contract says today.
	Refused(ctx context.Context, s Span) ([]int64, error)
}

// Tally is what a span's rows come to. Sum and Content are of different rows: those
// that are alike in offset, hash and content count once.
type Tally struct {
	Sum
	Content uint64 // sum of the contents' hashes, modulo 2^64
	Copies  int64  // rows beyond one of each
}

// Found is a row as the table has it.
type Found struct {
	Row
	Content uint64
	Copies  int64 // how many there are, the first one counted
}

// Rows is a set of rows in the making. It keeps nothing of the records it is given.
type Rows interface {
	// Decode tells whether a record gives a row, and Foreign whether the last one gave none
	// because nobody of ours wrote it. Add adds the row of the last Decode, and Content
	// hashes it, as AuditTable does when the table has it.
	Decode(p Partition, r *Record) bool
	Foreign() bool
	Add(hash uint64)
	Content(hash uint64) uint64

	// Len is how many rows there are, and Size about how many bytes.
	Len() int
	Size() int

	// Insert sends all rows, in one or more blocks; the token tells the server that
	// blocks with the same one are the same. Reset forgets them.
	Insert(ctx context.Context, token string) error
	Reset()
}

// Row is the identity of a row within its partition, and its record's hash.
type Row struct {
	Offset int64
	Hash   uint64
}

// ErrGone says that records are not in the log any more.
var ErrGone = errors.New("the log does not have these offsets any more")

// FatalError is an error that trying again does not mend.
type FatalError struct{ Err error }

func (e *FatalError) Error() string { return e.Err.Error() }
func (e *FatalError) Unwrap() error { return e.Err }
