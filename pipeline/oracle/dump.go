package oracle

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Dump is the topics of one run.
type Dump struct{ Input, Triggers, Muted, DeadLetters []Record }

// Judge judges the run.
func (d *Dump) Judge(opt Options) *Report {
	return Judge(d.Input, d.Triggers, d.Muted, d.DeadLetters, opt)
}

// ReadDump reads what `footfall demo --dump DIR` has written: input.ndjson,
// triggers.ndjson, muted.ndjson and deadletters.ndjson.
func ReadDump(dir string) (*Dump, error) {
	var d Dump
	for _, file := range []struct {
		name string
		into *[]Record
	}{
		{"input.ndjson", &d.Input},
		{"triggers.ndjson", &d.Triggers},
		{"muted.ndjson", &d.Muted},
		{"deadletters.ndjson", &d.DeadLetters},
	} {
		path := filepath.Join(dir, file.name)
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read dump: %w", err)
		}
		*file.into, err = ReadRecords(bufio.NewReader(f))
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("read dump %s: %w", path, err)
		}
	}
	return &d, nil
}

// ReadRecords reads records as NDJSON: one object a line, with topic, partition,
// offset, timestamp (ms), headers, and key and value in base64 or null.
func ReadRecords(r io.Reader) ([]Record, error) {
	var out []Record
	dec := json.NewDecoder(r)
	for {
		// encoding/json reads base64 into []byte, and null as nil.
		var line struct {
			Topic     *string `json:"topic"`
			Partition *int32  `json:"partition"`
			Offset    *int64  `json:"offset"`
			Timestamp *int64  `json:"timestamp"`
			Key       []byte  `json:"key"`
			Value     []byte  `json:"value"`
			Headers   []struct {
				Key   string `json:"key"`
				Value []byte `json:"value"`
			} `json:"headers"`
		}
		err := dec.Decode(&line)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", len(out)+1, err)
		}
		if line.Topic == nil || line.Partition == nil || line.Offset == nil || line.Timestamp == nil {
			return nil, fmt.Errorf("record %d: topic, partition, offset and timestamp are required", len(out)+1)
		}
		rec := Record{Topic: *line.Topic, Partition: *line.Partition, Offset: *line.Offset, Time: *line.Timestamp, Key: line.Key, Value: line.Value}
		for _, h := range line.Headers {
			rec.Headers = append(rec.Headers, Header{Key: h.Key, Value: h.Value})
		}
		out = append(out, rec)
	}
}
