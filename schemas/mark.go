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
//	footfall/3 clock=1767225600000 fired=1767225599000 n=17
//	hash=00000000000000ff rules=0123456789abcdef since=0 epoch=21 boot=0 lane=live
//	paused=false topic=fedcba9876543210 of=8 addr=10.0.0.7:9400 sum=5d41402a
//
// in one line. Topic and of are zero where they are not known. Times are in
// milliseconds. sum is the low half of the xxhash of what comes before " sum=" and of
// the partition and the offset committed with it: a text that was cut, edited, or
// copied to another offset does not parse. Version 2 had neither since nor epoch,
// version 1 neither topic nor of besides.
const (
	markFields   = "footfall/3 clock fired n hash rules since epoch boot lane paused topic of addr sum"
	markFieldsV2 = "footfall/2 clock fired n hash rules boot lane paused topic of addr sum"
	markFieldsV1 = "footfall/1 clock fired n hash rules boot lane paused addr sum"
)

// AppendText appends the mark as the metadata of an offset commit. It fails for
// an address that is too long or not printable ASCII without spaces, and for a
// lane that does not exist.
func (m *Mark) AppendText(dst []byte) ([]byte, error) {
	if err := m.check(); err != nil {
		return dst, err
	}
	return m.appendFields(dst, markFields), nil
}

func (m *Mark) check() error {
	if len(m.Address) > AddressMax {
		return fmt.Errorf("mark: address %.40q...: got %d bytes, want at most %d", m.Address, len(m.Address), AddressMax)
	}
	for i := range len(m.Address) {
		if c := m.Address[i]; c <= ' ' || c > '~' {
			return fmt.Errorf("mark: address %q: want printable ASCII without spaces", m.Address)
		}
	}
	if m.Lane > Replay {
		return fmt.Errorf("mark: %v: no such lane", m.Lane)
	}
	if m.Of < 0 {
		return fmt.Errorf("mark: %d partitions", m.Of)
	}
	return nil
}

// appendFields appends the fields of one version, the last of which is sum.
func (m *Mark) appendFields(dst []byte, fields string) []byte {
	from := len(dst)
	version, names, _ := strings.Cut(fields, " ")
	dst = append(dst, version...)
	for name := range strings.SplitSeq(names, " ") {
		dst = append(append(append(dst, ' '), name...), '=')
		switch name {
		case "clock":
			dst = strconv.AppendInt(dst, int64(m.Clock), 10)
		case "fired":
			dst = strconv.AppendInt(dst, int64(m.Fired), 10)
		case "n":
			dst = strconv.AppendUint(dst, m.N, 10)
		case "hash":
			dst = appendHex16(dst, m.Hash)
		case "rules":
			dst = appendHex16(dst, m.Rules)
		case "since":
			dst = strconv.AppendInt(dst, int64(m.Since), 10)
		case "epoch":
			dst = strconv.AppendUint(dst, m.Epoch, 10)
		case "boot":
			dst = strconv.AppendInt(dst, m.Bootstrap, 10)
		case "lane":
			dst = append(dst, m.Lane.String()...)
		case "paused":
			dst = strconv.AppendBool(dst, m.Paused)
		case "topic":
			dst = appendHex16(dst, m.Topic)
		case "of":
			dst = strconv.AppendInt(dst, int64(m.Of), 10)
		case "addr":
			dst = append(dst, m.Address...)
		case "sum":
			sum := markSum(dst[from:len(dst)-len(" sum=")], m.Partition, m.Next)
			dst = append(dst, appendHex16(nil, sum)[8:]...)
		}
	}
	return dst
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
	fields := ""
	for _, f := range []string{markFields, markFieldsV2, markFieldsV1} {
		if strings.HasPrefix(f, version+" ") {
			fields = f
		}
	}
	if fields == "" {
		return Mark{}, fmt.Errorf("version %q: this footfall reads footfall/1, footfall/2 and footfall/3", version)
	}
	body, sum, ok := strings.Cut(s, " sum=")
	if len(s) >= MarkMax || !ok || sum != string(appendHex16(nil, markSum([]byte(body), partition, next))[8:]) {
		return Mark{}, errors.New("checksum does not match: cut, edited, or committed with another offset")
	}
	words, names := strings.Split(body, " "), strings.Fields(fields)
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
	// What the writer would not have written so is not a mark either.
	if m.check() != nil || string(m.appendFields(nil, fields)) != s {
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
	case "topic":
		m.Topic, ok = parseHex16(value)
		return ok
	case "of":
		var v int64
		v, err = strconv.ParseInt(value, 10, 32)
		m.Of = int32(v)
	case "addr":
		m.Address = value
	}
	return err == nil
}
