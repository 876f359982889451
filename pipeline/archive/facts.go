package archive

import (
	"fmt"

	"footfall/schemas"
)

// Fact is something that happened, for logs, metrics and tests. It is one of the
// types below.
type Fact interface {
	fmt.Stringer
	fact()
}

// Inserted says that a batch is in the table.
type Inserted struct {
	Rows, Spans int
	Took        schemas.Millis
}

// Doubted says that an insert failed, and that its spans are read back.
type Doubted struct {
	Spans int
	Err   error
}

// TakenOver says that a partition came with offsets that may be in the table.
type TakenOver struct {
	Partition   Partition
	First, Next int64
}

// Mended says that rows were missing and have been sent.
type Mended struct {
	Partition   Partition
	First, Next int64
	Rows        int
}

// Waiting says that something failed and is tried again.
type Waiting struct {
	What    string
	Err     error
	Attempt int
	Wait    schemas.Millis
}

// Forgotten says that a commit's metadata could not be read. Nothing is lost by it
// but the audit of what came before.
type Forgotten struct {
	Partition Partition
	Err       error
}

// Restarted says that the server has restarted; everything is audited.
type Restarted struct{ Epoch string }

// Audited says what a round of the audit found.
type Audited struct {
	Spans, Wrong int
	Rows         int64
}

// Differed says that the table did not have what it had acknowledged, or more.
type Differed struct {
	Span Span // with the sum that was expected
	Got  Sum
}

// Strayed says that the rows of a sample were not those that its records give.
type Strayed struct {
	Span Span // with the sum that the records come to
	Got  Sum
}

// Unmendable says that a span differs for good: the log no longer has all of it,
// or the table has rows that the log does not.
type Unmendable struct {
	Span  Span
	Got   Sum
	Start int64 // where the log begins
}

func (Inserted) fact()   {}
func (Doubted) fact()    {}
func (TakenOver) fact()  {}
func (Mended) fact()     {}
func (Waiting) fact()    {}
func (Forgotten) fact()  {}
func (Restarted) fact()  {}
func (Audited) fact()    {}
func (Differed) fact()   {}
func (Strayed) fact()    {}
func (Unmendable) fact() {}

func (f Inserted) String() string {
	return fmt.Sprintf("inserted %d rows of %d partitions in %d ms", f.Rows, f.Spans, f.Took)
}

func (f Doubted) String() string {
	return fmt.Sprintf("insert failed, reading %d spans back: %v", f.Spans, f.Err)
}

func (f TakenOver) String() string {
	return fmt.Sprintf("%s/%d taken over; offsets %d to %d may be in the table, reading them back", f.Partition.Topic, f.Partition.Number, f.First, f.Next-1)
}

func (f Mended) String() string {
	return fmt.Sprintf("%s/%d: sent %d rows that were missing between offsets %d and %d", f.Partition.Topic, f.Partition.Number, f.Rows, f.First, f.Next-1)
}

func (f Waiting) String() string {
	return fmt.Sprintf("%s: attempt %d failed, next in %d ms: %v", f.What, f.Attempt, f.Wait, f.Err)
}

func (f Forgotten) String() string {
	return fmt.Sprintf("%s/%d: %v; the audit begins anew", f.Partition.Topic, f.Partition.Number, f.Err)
}

func (f Restarted) String() string { return "the server has restarted; auditing everything" }

func (f Audited) String() string {
	return fmt.Sprintf("audited %d spans with %d rows, %d differed", f.Spans, f.Rows, f.Wrong)
}

func (f Differed) String() string {
	return fmt.Sprintf("%s/%d offsets %d to %d: the table has %d rows, %d were archived; mending", f.Span.Partition.Topic, f.Span.Partition.Number, f.Span.First, f.Span.Next-1, f.Got.Rows, f.Span.Sum.Rows)
}

func (f Strayed) String() string {
	return fmt.Sprintf("%s/%d offsets %d to %d: the topic gives %d rows, and the table has %d that are not just these; mending; footfall audit compares all of them",
		f.Span.Partition.Topic, f.Span.Partition.Number, f.Span.First, f.Span.Next-1, f.Span.Sum.Rows, f.Got.Rows)
}

func (f Unmendable) String() string {
	return fmt.Sprintf("%s/%d offsets %d to %d: the table has %d rows, %d were archived, and the log begins at %d: this can't be mended from the log", f.Span.Partition.Topic, f.Span.Partition.Number, f.Span.First, f.Span.Next-1, f.Got.Rows, f.Span.Sum.Rows, f.Start)
}
