// Package schemas is everything that crosses a wire or a file: events, transitions,
// dead letters, marks, their codecs and their contracts for other teams.
//
// It imports nothing of ours and keeps no state; it may allocate while decoding.
package schemas

import "math"

// Millis is a moment in Unix time, milliseconds, or a span of them. It is the
// only time type below cmd.
type Millis int64

// Never is the due time of what does not come by waiting.
const Never Millis = math.MaxInt64

// Spans of time.
const (
	Second Millis = 1000
	Minute        = 60 * Second
	Hour          = 60 * Minute
	Day           = 24 * Hour
)

// Position is where a record stands in its topic: the record itself, not the next one.
type Position struct {
	Partition int32
	Offset    int64
}

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Lane tells how an event came (design 2). It is the value of a record's
// "lane" header, or set for a topic in the configuration.
type Lane uint8

// The lanes.
const (
	Live     Lane = iota // published as it happened
	Backfill             // history, published now with old event times: the clock stands still
	Replay               // history, record timestamp = event time: time itself is lived again
)

// LaneHeader is the record header that names a record's lane.
const LaneHeader = "lane"
