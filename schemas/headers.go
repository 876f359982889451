package schemas

import (
	"fmt"
	"slices"
	"strconv"
)

// The names of the headers of outputs. Those with ce_ are CloudEvents 1.0 in
// binary content mode (Kafka Protocol Binding for CloudEvents 1.0.2, 3.2).
const (
	HeaderSpecVersion = "ce_specversion"
	HeaderID          = "ce_id"
	HeaderSource      = "ce_source"
	HeaderType        = "ce_type"
	HeaderTime        = "ce_time"
	HeaderSubject     = "ce_subject"
	HeaderContentType = "content-type"
	HeaderN           = "n"
	HeaderNext        = "next"
	HeaderClock       = "clock"
	HeaderFired       = "fired"
)

// TransitionType is the ce_type of a transition. Its number is the version of
// transition.schema.json; it changes when a consumer would have to.
const TransitionType = "footfall.transition.v1"

// OutputHeaders are an output's number and the mark it was said at, so that
// recovery and an outside checker can recompute everything.
type OutputHeaders struct {
	ID           string // ce_id: see OutputID; empty for a dead letter
	N            uint64 // the n of transitions, the dlq_n of dead letters
	Next         int64
	Clock, Fired Millis
}

// OutputID returns the ce_id of the output n of an input partition: group/partition/n.
// With the ce_source it names an output for ever; a repeated one is the same.
func OutputID(group string, partition int32, n uint64) string {
	b := make([]byte, 0, len(group)+32)
	b = append(append(b, group...), '/')
	b = append(strconv.AppendInt(b, int64(partition), 10), '/')
	return string(strconv.AppendUint(b, n, 10))
}

// SourceOf returns the ce_source of what a group says.
func SourceOf(group string) string { return "/footfall/" + group }

// AppendTransitionHeaders appends the headers of a transition's record, in the form that
// the caller's client has them; source is SourceOf the group. The bytes of their values are
// appended to buf, which may be nil, and returned with them.
func AppendTransitionHeaders[H ~struct {
	Key   string
	Value []byte
}](dst []H, buf []byte, h *OutputHeaders, source string, t *Transition) ([]H, []byte) {
	w := headerWriter[H]{dst, buf}
	w.text(HeaderSpecVersion, "1.0")
	w.text(HeaderID, h.ID)
	w.text(HeaderSource, source)
	w.text(HeaderType, TransitionType)
	at := len(w.buf)
	w.buf = appendTime(w.buf, t.At)
	w.headers = append(w.headers, H{HeaderTime, w.buf[at+1 : len(w.buf)-1 : len(w.buf)-1]}) // without the quotes
	w.text(HeaderSubject, t.User)
	w.text(HeaderContentType, "application/json")
	at = len(w.buf)
	w.buf = strconv.AppendUint(w.buf, h.N, 10)
	w.add(HeaderN, at)
	w.mark(h)
	return w.headers, w.buf
}

// headerWriter appends headers, and the bytes of their values.
type headerWriter[H ~struct {
	Key   string
	Value []byte
}] struct {
	headers []H
	buf     []byte
}

// add appends a header whose value is buf from at on.
func (w *headerWriter[H]) add(key string, at int) {
	w.headers = append(w.headers, H{key, w.buf[at:len(w.buf):len(w.buf)]})
}

func (w *headerWriter[H]) text(key, value string) {
	at := len(w.buf)
	w.buf = append(w.buf, value...)
	w.add(key, at)
}

func (w *headerWriter[H]) number(key string, value int64) {
	at := len(w.buf)
	w.buf = strconv.AppendInt(w.buf, value, 10)
	w.add(key, at)
}

// mark appends next, clock and fired.
func (w *headerWriter[H]) mark(h *OutputHeaders) {
	w.number(HeaderNext, h.Next)
	w.number(HeaderClock, int64(h.Clock))
	w.number(HeaderFired, int64(h.Fired))
}

// ParseTransitionHeaders reads the headers of a transition's record.
func ParseTransitionHeaders(headers []Header) (OutputHeaders, error) {
	id := last(headers, HeaderID)
	if id < 0 {
		return OutputHeaders{}, fmt.Errorf("header %s: missing", HeaderID)
	}
	h, err := parseMarkHeaders(headers, HeaderN)
	h.ID = string(headers[id].Value)
	return h, err
}

// parseMarkHeaders reads n, under its name, and next, clock and fired.
func parseMarkHeaders(headers []Header, n string) (h OutputHeaders, err error) {
	var next, clock, fired int64
	for _, f := range []struct {
		name string
		into *int64
	}{{HeaderNext, &next}, {HeaderClock, &clock}, {HeaderFired, &fired}} {
		if *f.into, err = headerInt(headers, f.name, 64); err != nil {
			return OutputHeaders{}, err
		}
	}
	i := last(headers, n)
	if i < 0 {
		return OutputHeaders{}, fmt.Errorf("header %s: missing", n)
	}
	if h.N, err = strconv.ParseUint(string(headers[i].Value), 10, 64); err != nil {
		return OutputHeaders{}, fmt.Errorf("header %s: got %.40q, want a number", n, headers[i].Value)
	}
	h.Next, h.Clock, h.Fired = next, Millis(clock), Millis(fired)
	return h, nil
}

// last returns the place of the last header of a name, or -1. A dead letter has
// the headers of the original in front, which may use any name.
func last(headers []Header, name string) int {
	for i, header := range slices.Backward(headers) {
		if header.Key == name {
			return i
		}
	}
	return -1
}

func headerInt(headers []Header, name string, size int) (int64, error) {
	i := last(headers, name)
	if i < 0 {
		return 0, fmt.Errorf("header %s: missing", name)
	}
	v, err := strconv.ParseInt(string(headers[i].Value), 10, size)
	if err != nil {
		return 0, fmt.Errorf("header %s: got %.40q, want a number", name, headers[i].Value)
	}
	return v, nil
}

// LaneOf returns the lane that a record's headers name, or usual where they name
// none. The last lane header counts; ok is false if it is not a lane's name, and
// the lane is then usual too.
func LaneOf(headers []Header, usual Lane) (lane Lane, ok bool) {
	i := last(headers, LaneHeader)
	if i < 0 {
		return usual, true
	}
	switch string(headers[i].Value) {
	case "live":
		return Live, true
	case "backfill":
		return Backfill, true
	case "replay":
		return Replay, true
	}
	return usual, false
}
