package kafka

import (
	"fmt"
	"math/bits"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/worker"
	"footfall/schemas"
)

// run is records of one partition as the client gave them and as the worker has them.
// Keys, values and header values alias what was fetched. When they are applied, all of it
// is used again for what is fetched next: allocated anew for each, it would be most of
// the garbage there is.
type run struct {
	from    []*kgo.Record
	records []worker.Record
	headers []schemas.Header
	free    func() // giveBack, so that handing it out allocates nothing

	reader    *Session // that counts what is misplaced, or nil
	partition int32    // that it was read from
}

//nolint:gochecknoglobals // memory that anyone may use
var runs sync.Pool

func newRun(from []*kgo.Record) *run {
	r, ok := runs.Get().(*run)
	if !ok {
		r = &run{}
		r.free = r.giveBack
	}
	r.from = from
	return r
}

func (r *run) giveBack() {
	if r.reader != nil { // here, where the keys have just been looked at
		r.reader.countMisplaced(r.partition, r.from)
		r.reader = nil
	}
	for _, from := range r.from {
		from.Recycle()
	}
	clear(r.records)
	clear(r.headers)
	r.from, r.records, r.headers = nil, r.records[:0], r.headers[:0]
	runs.Put(r)
}

// read turns what the broker gave into records.
func (r *run) read(lane schemas.Lane) error {
	n := 0
	for _, from := range r.from {
		n += len(from.Headers)
	}
	if cap(r.headers) < n {
		r.headers = make([]schemas.Header, 0, n)
	}
	for i, from := range r.from {
		if i > 0 && from.Offset <= r.from[i-1].Offset {
			return fmt.Errorf("kafka: %s/%d: offset %d came after %d in one fetch; restart, and report this",
				from.Topic, from.Partition, from.Offset, r.from[i-1].Offset)
		}
		rec := worker.Record{Offset: from.Offset, Time: schemas.Millis(from.Timestamp.UnixMilli()), Lane: lane}
		if from.Attrs.IsControl() {
			rec.Control = true
			r.records = append(r.records, rec)
			continue
		}
		rec.Key, rec.Value = from.Key, from.Value
		at := len(r.headers)
		for _, h := range from.Headers {
			r.headers = append(r.headers, schemas.Header{Key: h.Key, Value: h.Value})
		}
		if len(from.Headers) > 0 {
			rec.Headers = r.headers[at:len(r.headers):len(r.headers)]
			rec.Lane, _ = schemas.LaneOf(rec.Headers, lane)
		}
		r.records = append(r.records, rec)
	}
	return nil
}

// fetchMemory is where the client takes from what it decodes records into, and gives it
// back to when all records of a batch are recycled. It implements kgo's pools.
type fetchMemory struct{}

//nolint:gochecknoglobals // memory that anyone may use
var recordMemory [32]sync.Pool // by the power of two of records

// GetRecords implements kgo.PoolRecords.
func (fetchMemory) GetRecords(n int) []kgo.Record {
	class := bits.Len(uint(max(n, 64) - 1))
	if got, ok := recordMemory[class].Get().(*[]kgo.Record); ok {
		return (*got)[:0]
	}
	return make([]kgo.Record, 0, 1<<class)
}

// PutRecords implements kgo.PoolRecords.
func (fetchMemory) PutRecords(records []kgo.Record) {
	if class := bits.Len(uint(cap(records))) - 1; cap(records) == 1<<class {
		recordMemory[class].Put(&records)
	}
}

// expands is how many times a batch of events gets larger, about; where it is more, the
// client takes more memory.
const expands = 6

// GetDecompressBytes implements kgo.PoolDecompressBytes. It is asked for what the client
// unpacks itself.
func (fetchMemory) GetDecompressBytes(compressed []byte, _ kgo.CompressionCodecType) []byte {
	return takeBytes(expands * len(compressed))
}

// PutDecompressBytes implements kgo.PoolDecompressBytes.
func (fetchMemory) PutDecompressBytes(b []byte) { giveBytes(b) }
