package brokersim

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	arch "footfall/pipeline/archive"
	"footfall/pipeline/oracle"
	"footfall/schemas"
)

// judge compares what is committed with what had to be said, and with what the
// archive has.
func (w *world) judge() error {
	topics := map[string][]*kgo.Record{}
	for _, topic := range append(outputs(), events) {
		topics[topic] = w.records(topic)
	}
	opt := oracle.Options{
		Currency: contract().Currency, Rates: contract().Rates, InputTopic: events, Group: group,
		Rules: fmt.Sprintf("%016x", w.rules.Hash()), WallTicks: true, Marks: map[int32]oracle.Mark{},
	}
	for p, m := range w.marks() {
		opt.Marks[p] = oracle.Mark{Next: m.Next, Clock: int64(m.Clock), Fired: int64(m.Fired), N: int64(m.N)}
	}
	report := oracle.Judge(oracleRecords(topics[events]), oracleRecords(topics[triggers]), oracleRecords(topics[muted]), oracleRecords(topics[dead]), opt)
	if report.Triggers+report.Muted == 0 || report.DeadLetters == 0 {
		return fmt.Errorf("the run has %d triggers, %d muted transitions and %d dead letters: it says nothing", report.Triggers, report.Muted, report.DeadLetters)
	}
	return errors.Join(report.Err(), w.judgeArchive(topics))
}

func oracleRecords(from []*kgo.Record) []oracle.Record {
	into := make([]oracle.Record, len(from))
	for i, r := range from {
		into[i] = oracle.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Time: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			into[i].Headers = append(into[i].Headers, oracle.Header{Key: h.Key, Value: h.Value})
		}
	}
	return into
}

// judgeArchive holds that the table has every committed record as it is, and no other.
func (w *world) judgeArchive(topics map[string][]*kgo.Record) error {
	w.table.mu.Lock()
	defer w.table.mu.Unlock()
	var faults []error
	wanted := 0
	for topic, records := range topics {
		for _, r := range records {
			wanted++
			hashes := w.table.rows[place{arch.Partition{Topic: topic, Number: r.Partition}, r.Offset}]
			switch {
			case len(hashes) == 0:
				faults = append(faults, fmt.Errorf("archive: %s/%d offset %d is missing", topic, r.Partition, r.Offset))
			case hashes[0] != hashOf(r):
				faults = append(faults, fmt.Errorf("archive: %s/%d offset %d has another content", topic, r.Partition, r.Offset))
			}
			w.doubled += max(0, len(hashes)-1)
		}
	}
	if extra := len(w.table.rows) - wanted; len(faults) == 0 && extra != 0 {
		faults = append(faults, fmt.Errorf("archive: %d rows of records that were never committed", extra))
	}
	return errors.Join(faults[:min(3, len(faults))]...)
}

func hashOf(r *kgo.Record) uint64 {
	rec := arch.Record{Offset: r.Offset, Time: schemas.Millis(r.Timestamp.UnixMilli()), Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		rec.Headers = append(rec.Headers, schemas.Header{Key: h.Key, Value: h.Value})
	}
	return arch.Hash(&rec)
}

// recovered holds that processes which start now recover every partition: each
// recovery reads back what was said, and refuses what does not follow. They are new
// ones, unless the group keeps partitions for those it knows.
func (w *world) recovered() error {
	names := []string{"z"}
	if w.opt.static {
		names = []string{"a", "b"}
	}
	var all []*process
	for _, name := range names {
		p := w.run(name)
		defer p.leave()
		all = append(all, p)
	}
	deadline := time.Now().Add(restless)
	for time.Sleep(time.Second); ; time.Sleep(time.Second) {
		live := 0
		for _, p := range all {
			live += p.live()
		}
		if live == partCount {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes that start after it all have recovered %d partitions of %d", live, partCount)
		}
	}
}
