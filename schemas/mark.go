package schemas

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Limits of a mark's text, which becomes the metadata of an offset commit. A
// broker takes 4,096 bytes (offset.metadata.max.bytes) unless it is told otherwise.
const (
	MarkMax    = 512 // bytes of the text: always below
	AddressMax = 200 // bytes of Address
)

// markFields are the fields of a mark's text, in their order, after the version:
//
//	footfall/2 clock=1767225600000 fired=1767225599000 n=17
//	hash=00000000000000ff rules=0123456789abcdef since=0 epoch=21 boot=0 lane=live
//	paused=false addr=10.0.0.7:9400 sum=5d41402a
//
// in one line. Times are in milliseconds. sum is the low half of the xxhash of
// what comes before " sum=" and of the partition and the offset committed with
// it: a text that was cut, edited, or copied to another offset does not parse.
// Version 1 had neither since nor epoch.
const (
	markFields   = "footfall/2 clock fired n hash rules since epoch boot lane paused addr sum"
	markFieldsV1 = "footfall/1 clock fired n hash rules boot lane paused addr sum"
)

// AppendText appends the mark as the metadata of an offset commit. It fails for
// an address that is too long or not printable ASCII without spaces, and for a
// lane that does not exist.
func (m *Mark) AppendText(dst []byte) ([]byte, error) {
	if len(m.Address) > AddressMax {
		return dst, fmt.Errorf("mark: address %.40q...: got %d bytes, want at most %d", m.Address, len(m.Address), AddressMax)
	}
	for i := range len(m.Address) {
		if c := m.Address[i]; c <= ' ' || c > '~' {
			return dst, fmt.Errorf("mark: address %q: want printable ASCII without spaces", m.Address)
		}
	}
	if m.Lane > Replay {
		return dst, fmt.Errorf("mark: %v: no such lane", m.Lane)
	}
	from := len(dst)
	dst = strconv.AppendInt(append(dst, "footfall/2 clock="...), int64(m.Clock), 10)
	dst = strconv.AppendInt(append(dst, " fired="...), int64(m.Fired), 10)
	dst = strconv.AppendUint(append(dst, " n="...), m.N, 10)
	dst = appendHex16(append(dst, " hash="...), m.Hash)
	dst = appendHex16(append(dst, " rules="...), m.Rules)
	dst = strconv.AppendInt(append(dst, " since="...), int64(m.Since), 10)
	dst = strconv.AppendUint(append(dst, " epoch="...), m.Epoch, 10)
	dst = strconv.AppendInt(append(dst, " boot="...), m.Bootstrap, 10)
	dst = append(append(dst, " lane="...), m.Lane.String()...)
	dst = strconv.AppendBool(append(dst, " paused="...), m.Paused)
	dst = append(append(dst, " addr="...), m.Address...)
	sum := markSum(dst[from:], m.Partition, m.Next)
	return append(append(dst, " sum="...), appendHex16(nil, sum)[8:]...), nil
}

// markSum is the checksum of a mark's text.
func markSum(text []byte, partition int32, next int64) uint64 {
	var place [32]byte
	b := strconv.AppendInt(place[:0], int64(partition), 10)
	b = strconv.AppendInt(append(b, '/'), next, 10)
	var h xxhash.Digest
	h.Reset()
	_, _ = h.Write(text)
	_, _ = h.Write(b)
	return h.Sum64() & 0xffffffff
}

// ParseMark is the inverse of AppendText, for the metadata s that was committed
// with the offset next of a partition.
func ParseMark(partition int32, next int64, s string) (Mark, error) {
	m, err := parseMark(partition, next, s)
	if err != nil {
		return Mark{}, fmt.Errorf("mark of partition %d at offset %d, %.60q: %w", partition, next, s, err)
	}
	return m, nil
}

func parseMark(partition int32, next int64, s string) (Mark, error) {
	version, _, _ := strings.Cut(s, " ")
	if s == "" || !strings.HasPrefix(version, "footfall/") {
		return Mark{}, errors.New("not written by footfall; was the group's offset set by another tool?")
	}
	names := strings.Fields(markFields)
	switch version {
	case "footfall/1":
		names = strings.Fields(markFieldsV1)
	case names[0]:
	default:
		return Mark{}, fmt.Errorf("version %q: this footfall reads footfall/1 and %s", version, names[0])
	}
	body, sum, ok := strings.Cut(s, " sum=")
	if len(s) >= MarkMax || !ok || sum != string(appendHex16(nil, markSum([]byte(body), partition, next))[8:]) {
		return Mark{}, errors.New("checksum does not match: cut, edited, or committed with another offset")
	}
	words := strings.Split(body, " ")
	m := Mark{Partition: partition, Next: next}
	if len(words) != len(names)-1 {
		return Mark{}, fmt.Errorf("got %d fields, want %d", len(words), len(names)-1)
	}
	for i, word := range words[1:] {
		name, value, ok := strings.Cut(word, "=")
		if !ok || name != names[i+1] {
			return Mark{}, fmt.Errorf("got %q, want %s=", word, names[i+1])
		}
		if !m.set(name, value) {
			return Mark{}, fmt.Errorf("field %s: got %q", name, value)
		}
	}
	if version != "footfall/2" {
		return m, nil
	}
	// What the writer would not have written so is not a mark either.
	if again, err := m.AppendText(nil); err != nil || string(again) != s {
		return Mark{}, errors.New("not in the form it is written in")
	}
	return m, nil
}

// set sets a field by its name in the text.
func (m *Mark) set(name, value string) (ok bool) {
	var err error
	switch name {
	case "clock":
		var v int64
		v, err = strconv.ParseInt(value, 10, 64)
		m.Clock = Millis(v)
	case "fired":
		var v int64
		v, err = strconv.ParseInt(value, 10, 64)
		m.Fired = Millis(v)
	case "n":
		m.N, err = strconv.ParseUint(value, 10, 64)
	case "hash":
		m.Hash, ok = parseHex16(value)
		return ok
	case "rules":
		m.Rules, ok = parseHex16(value)
		return ok
	case "since":
		var v int64
		v, err = strconv.ParseInt(value, 10, 64)
		m.Since = Millis(v)
	case "epoch":
		m.Epoch, err = strconv.ParseUint(value, 10, 64)
	case "boot":
		m.Bootstrap, err = strconv.ParseInt(value, 10, 64)
	case "lane":
		m.Lane, ok = ParseLane(value)
		return ok
	case "paused":
		m.Paused, err = strconv.ParseBool(value)
	case "addr":
		m.Address = value
	}
	return err == nil
}
