package segment

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"footfall/schemas"
)

// EpochAt is the epoch that a clock lies in: it is numbered by its day since 1970-01-01
// in the zone of the options, and begins on it at the time of day they state. next is
// when the one after it begins.
func (p *Program) EpochAt(clock schemas.Millis) (number uint64, next schemas.Millis) {
	moment := func(day int64) schemas.Millis {
		date := time.Unix(day*int64(schemas.Day/schemas.Second), 0).UTC()
		at := time.Duration(p.epochs.at) * time.Millisecond
		start := midnight(date.Year(), date.Month(), date.Day(), p.epochs.zone.loc)
		stated := time.Date(date.Year(), date.Month(), date.Day(), 0, 0, 0, int(at), p.epochs.zone.loc)
		if stated.Before(start) {
			stated = start
		}
		return schemas.Millis(stated.UnixMilli())
	}
	day := int64(max(clock, 0) / schemas.Day)
	for day > 0 && moment(day) > clock {
		day--
	}
	for moment(day+1) <= clock {
		day++
	}
	return uint64(day), moment(day + 1)
}

// epochTimes is when epochs begin.
type epochTimes struct {
	at   schemas.Millis // of the day
	zone *zone
}

// Epochs is how all instances come to agree on the bounds of their rules' quantiles: by
// a log that all of them read in the same order. Every partition's owner writes what it
// has counted, once for each epoch; who has read the counts of all partitions cuts the
// epoch and writes it; of several with the same number the first in the log is it. What
// is cut follows from what was read, so that two that cut at once write the same.
//
// The log may be compacted: counts have one key for each partition, an epoch has one for
// each content that was ever written. Rules that score by other quantiles have keys of
// their own.
type Epochs struct {
	rules      *Program
	partitions int32
	prefix     string
	counts     map[int32]Count
	epoch      Epoch
}

// Count is what one partition has counted for an epoch, as it was at a moment of its
// clock.
type Count struct {
	Number uint64
	At     schemas.Millis
	Still  bool // its clock stands still, history has ended: it counts for later epochs too
	Of     []Distribution
}

// LogRecord is a record of the log of epochs.
type LogRecord struct{ Key, Value []byte }

// EpochsKey is how all keys of the log begin.
const EpochsKey = "quantiles/"

// NewEpochs begins to read the log from its beginning, for rules and an input of so
// many partitions.
func NewEpochs(rules *Program, partitions int32) *Epochs {
	sum := xxhash.New()
	for _, q := range rules.quantiles {
		fmt.Fprintf(sum, "%s\n", q.source)
	}
	return &Epochs{
		rules: rules, partitions: partitions, counts: map[int32]Count{},
		prefix: fmt.Sprintf("%s%016x/", EpochsKey, sum.Sum64()),
	}
}

// Epoch is the epoch in force: Number 0 where none has been cut.
func (e *Epochs) Epoch() Epoch { return e.epoch }

// Count is the record of what a partition has counted for an epoch.
func (e *Epochs) Count(partition int32, c Count) (LogRecord, error) {
	b := []byte{countVersion, 0}
	if c.Still {
		b[1] = 1
	}
	b = binary.LittleEndian.AppendUint64(b, c.Number)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.At))
	for i := range c.Of {
		one, err := c.Of[i].AppendBinary(nil)
		if err != nil {
			return LogRecord{}, err
		}
		b = append(binary.AppendUvarint(b, uint64(len(one))), one...)
	}
	return LogRecord{fmt.Appendf(nil, "%scount/%d", e.prefix, partition), b}, nil
}

const countVersion = 1

// latest is the last moment that an epoch can be written at: of the year 9999.
const latest = 253_402_300_799_999

// Read takes the next record of the log, and tells whether an epoch has begun with it. An
// error is of a record that can't be read: it counts for nobody.
func (e *Epochs) Read(r LogRecord) (began bool, err error) {
	key, ours := strings.CutPrefix(string(r.Key), e.prefix)
	if !ours || r.Value == nil {
		return false, nil
	}
	kind, rest, _ := strings.Cut(key, "/")
	switch kind {
	case "epoch":
		began, err = e.readEpoch(r.Value)
	case "count":
		err = e.readCount(rest, r.Value)
	}
	if err != nil {
		return false, fmt.Errorf("record %q of the log of epochs: %w", r.Key, err)
	}
	return began, nil
}

func (e *Epochs) readCount(partition string, value []byte) error {
	n, err := strconv.ParseInt(partition, 10, 32)
	if err != nil || n < 0 {
		return fmt.Errorf("got partition %q", partition)
	}
	if len(value) < 18 || value[0] != countVersion || value[1] > 1 {
		return errors.New("not a count of version 1")
	}
	c := Count{Number: binary.LittleEndian.Uint64(value[2:]), At: schemas.Millis(binary.LittleEndian.Uint64(value[10:])), Still: value[1] == 1}
	if c.At < 0 || c.At > latest {
		return fmt.Errorf("counted at %d ms since 1970, which is no time of ours", c.At)
	}
	for rest := value[18:]; len(rest) > 0; {
		size, used := binary.Uvarint(rest)
		if used <= 0 || size > uint64(len(rest)-used) {
			return errors.New("cut off")
		}
		var d Distribution
		if err := d.UnmarshalBinary(rest[used : used+int(size)]); err != nil {
			return err
		}
		c.Of, rest = append(c.Of, d), rest[used+int(size):]
	}
	if len(c.Of) != len(e.rules.quantiles) {
		return fmt.Errorf("got %d distributions, and the rules ask for %d", len(c.Of), len(e.rules.quantiles))
	}
	e.counts[int32(n)] = c
	return nil
}

// Cut gives the record of the next epoch where every partition has counted buyers for it,
// or has nothing more to count: who has read the log to its end is to write it.
func (e *Epochs) Cut() (r LogRecord, ok bool) {
	number, at := uint64(0), schemas.Millis(0)
	for n := range e.partitions {
		number, at = max(number, e.counts[n].Number), max(at, e.counts[n].At)
	}
	if number <= e.epoch.Number {
		return r, false
	}
	for n := range e.partitions {
		if c, counted := e.counts[n]; !counted || c.Number != number && !c.Still {
			return r, false
		}
	}
	all := make([]Distribution, len(e.rules.quantiles))
	for i := range all {
		for n := range e.partitions {
			all[i].Merge(&e.counts[n].Of[i])
		}
		if len(all[i].users) == 0 {
			return r, false // nobody has bought yet: bounds of nothing would score everyone who does
		}
	}
	value, err := json.Marshal(e.text(e.rules.cut(e.epoch, number, at, all)))
	if err != nil {
		panic(err) // of whole numbers and text
	}
	return LogRecord{fmt.Appendf(nil, "%sepoch/%d/%016x", e.prefix, number, xxhash.Sum64(value)), value}, true
}

// epochText is an epoch as it is written.
type epochText struct {
	Number    uint64         `json:"epoch"`
	At        time.Time      `json:"at"`
	Quantiles []quantileText `json:"quantiles"`
}

type quantileText struct {
	Of     string  `json:"of"`
	Bounds []int64 `json:"bounds"`
}

func (e *Epochs) text(epoch Epoch) epochText {
	t := epochText{Number: epoch.Number, At: time.UnixMilli(int64(epoch.At)).UTC()}
	for _, q := range e.rules.quantiles {
		t.Quantiles = append(t.Quantiles, quantileText{q.source, epoch.Bounds[q.first : q.first+q.n-1]})
	}
	return t
}

func (e *Epochs) readEpoch(value []byte) (began bool, err error) {
	var t epochText
	d := json.NewDecoder(bytes.NewReader(value))
	if err := d.Decode(&t); err != nil {
		return false, err
	}
	if len(t.Quantiles) != len(e.rules.quantiles) {
		return false, fmt.Errorf("got %d quantiles, and the rules ask for %d", len(t.Quantiles), len(e.rules.quantiles))
	}
	epoch := Epoch{Number: t.Number, At: schemas.Millis(t.At.UnixMilli())}
	for i, q := range e.rules.quantiles {
		if t.Quantiles[i].Of != q.source || len(t.Quantiles[i].Bounds) != q.n-1 {
			return false, fmt.Errorf("got %d bounds of %q, want %d of %q", len(t.Quantiles[i].Bounds), t.Quantiles[i].Of, q.n-1, q.source)
		}
		epoch.Bounds = append(epoch.Bounds, t.Quantiles[i].Bounds...)
	}
	if epoch.Number <= e.epoch.Number {
		return false, nil // the first is it
	}
	e.epoch = epoch
	return true, nil
}
