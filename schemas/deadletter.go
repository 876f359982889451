package schemas

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
)

// The names of the headers that a dead letter has behind those of the original
// record, in their order; next, clock and fired follow.
const (
	HeaderDeadReason    = "dlq_reason"
	HeaderDeadDetail    = "dlq_detail"
	HeaderDeadTopic     = "dlq_topic"
	HeaderDeadPartition = "dlq_partition"
	HeaderDeadOffset    = "dlq_offset"
	HeaderDeadTime      = "dlq_time" // the original's record timestamp, in milliseconds
	HeaderDeadN         = "dlq_n"
	HeaderDeadSHA256    = "dlq_sha256" // only where the value was left out: of the value
	HeaderDeadSize      = "dlq_size"   // only where the value was left out: its bytes
)

// What is kept of a record too large to be kept whole.
const (
	cutKeyMax     = 1 << 10  // bytes of the key; a longer one is left out
	cutHeadersMax = 16 << 10 // bytes of all headers; more are left out
)

// DeadLetterRecord is a dead letter as it stands in its topic. Its slices alias
// the DeadLetter it was made from.
type DeadLetterRecord struct {
	Key, Value []byte
	Headers    []Header
}

// Encode makes the record of a dead letter: the original's key, value and
// headers, and behind those our own. topic is the input topic; of h the ID is
// not used.
//
// tooLarge is for an original that the dead-letter topic refuses: its value
// becomes nothing, with its SHA-256 and size in headers, and a key or headers
// that are themselves large are left out.
func (d *DeadLetter) Encode(topic string, h *OutputHeaders, tooLarge bool) DeadLetterRecord {
	out := DeadLetterRecord{Key: d.Key, Value: d.Value}
	keep := d.Headers
	if tooLarge {
		out.Value = nil
		if len(d.Key) > cutKeyMax {
			out.Key = nil
		}
		if headersSize(keep) > cutHeadersMax {
			keep = nil
		}
	}
	out.Headers = make([]Header, 0, len(keep)+12)
	out.Headers = append(out.Headers, keep...)
	w := headerWriter[Header]{headers: out.Headers}
	w.text(HeaderDeadReason, d.Reason.String())
	w.text(HeaderDeadDetail, d.Detail)
	w.text(HeaderDeadTopic, topic)
	w.number(HeaderDeadPartition, int64(d.Pos.Partition))
	w.number(HeaderDeadOffset, d.Pos.Offset)
	w.number(HeaderDeadTime, int64(d.Time))
	w.text(HeaderDeadN, strconv.FormatUint(h.N, 10))
	if tooLarge {
		sum := sha256.Sum256(d.Value)
		w.text(HeaderDeadSHA256, hex.EncodeToString(sum[:]))
		w.number(HeaderDeadSize, int64(len(d.Value)))
	}
	w.mark(h)
	out.Headers = w.headers
	return out
}

func headersSize(headers []Header) (n int) {
	for _, h := range headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// ParsedDeadLetter is what a dead letter's record says.
type ParsedDeadLetter struct {
	DeadLetter // without Value where Cut
	Output     OutputHeaders
	Topic      string // the input topic

	// Cut says that the value was too large to be kept; SHA256, in hex, and Size
	// are the original's. The key and the headers may be missing too.
	Cut    bool
	SHA256 string
	Size   int64
}

// ParseDeadLetter is the inverse of DeadLetter.Encode. The result aliases what it
// was parsed from.
func ParseDeadLetter(key, value []byte, headers []Header) (ParsedDeadLetter, error) {
	p, err := parseDeadLetter(headers)
	if err != nil {
		return ParsedDeadLetter{}, fmt.Errorf("dead letter: %w", err)
	}
	p.Key, p.Value = key, value
	return p, nil
}

func parseDeadLetter(headers []Header) (p ParsedDeadLetter, err error) {
	// A dead letter of a dead letter has two blocks; ours is the last.
	from := last(headers, HeaderDeadReason)
	if from < 0 {
		return p, errors.New("no header " + HeaderDeadReason + ": not written by footfall")
	}
	if from > 0 {
		p.Headers = headers[:from:from]
	}
	own := headers[from:]
	reason := string(own[0].Value)
	var ok bool
	if p.Reason, ok = ParseRefusal(reason); !ok {
		return p, fmt.Errorf("header %s: unknown reason %.40q", HeaderDeadReason, reason)
	}
	if p.Output, err = parseMarkHeaders(own, HeaderDeadN); err != nil {
		return p, err
	}
	partition, err := headerInt(own, HeaderDeadPartition, 32)
	if err != nil {
		return p, err
	}
	if p.Pos.Offset, err = headerInt(own, HeaderDeadOffset, 64); err != nil {
		return p, err
	}
	at, err := headerInt(own, HeaderDeadTime, 64)
	if err != nil {
		return p, err
	}
	p.Pos.Partition, p.Time = int32(partition), Millis(at)
	for _, f := range []struct {
		name string
		into *string
	}{{HeaderDeadDetail, &p.Detail}, {HeaderDeadTopic, &p.Topic}} {
		i := last(own, f.name)
		if i < 0 {
			return p, fmt.Errorf("header %s: missing", f.name)
		}
		*f.into = string(own[i].Value)
	}
	if i := last(own, HeaderDeadSHA256); i >= 0 {
		p.Cut, p.SHA256 = true, string(own[i].Value)
		p.Size, err = headerInt(own, HeaderDeadSize, 64)
	}
	return p, err
}
