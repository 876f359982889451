//go:build chaos

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/oracle"
	"footfall/schemas"
)

// After a run of chaos the topics and ClickHouse are read by programs that share
// nothing with the engine: a plain read_committed consumer, the oracle, ClickHouse's
// HTTP interface, and what is written here again from the documentation.

// verdict is what a run came to.
type verdict struct {
	*oracle.Report
	records  int // in the input
	resent   int // rows that lie in ClickHouse twice until it merges, and count once
	hangs    []string
	duration time.Duration
}

// verify waits until everything published is applied, said and archived, and then
// compares all there is. It returns nil when a fault of the broker's own keeps it from
// coming to an end; that is logged and counted, and not a failure of ours.
func (h *house) verify(running ...*process) *verdict {
	h.t.Helper()
	began := time.Now()
	if hangs := h.hanging(); len(hangs) > 0 {
		h.t.Logf("BROKER FAULT: transactions without their markers: %s", strings.Join(hangs, "; "))
		return &verdict{hangs: hangs}
	}
	h.applied(3 * time.Minute)
	h.archived()
	for _, p := range running {
		h.stop(p)
	}
	dump, committed := h.readTopics()
	opt := oracle.Options{
		Currency: h.conf.Shop.Currency, Rates: h.conf.Shop.Rates, InputTopic: h.conf.Kafka.Topics.Events,
		Group: h.conf.Kafka.Group, Lane: h.conf.Kafka.Lane.String(), Sets: h.setNames(),
	}
	if h.conf.Kafka.Lane == schemas.Live {
		opt.WallTicks, opt.Marks = true, committed
	}
	v := &verdict{Report: dump.Judge(opt), records: len(dump.Input)}
	if err := v.Err(); err != nil {
		h.t.Errorf("the oracle says: %v", err)
	}
	if n := v.Applied + v.Duplicates + v.DeadLetters; n != v.records || v.DeadLetters != len(dump.DeadLetters) {
		h.t.Errorf("%d applied + %d duplicates + %d dead letters (%d in their topic) are not the %d records of the input",
			v.Applied, v.Duplicates, v.DeadLetters, len(dump.DeadLetters), v.records)
	}
	h.verifyTables(dump, v)
	h.verifyViews(dump, v)
	v.duration = time.Since(began)
	return v
}

// reader is a client of the tests' own.
func (h *house) reader(opts ...kgo.Opt) *kgo.Client {
	h.t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(h.conf.Kafka.Brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	if err != nil {
		h.t.Fatal(err)
	}
	return cl
}

// hangMax is how long a transaction may be undecided before it is said to hang: its
// time-out, what a broker takes to look for expired ones, and a broker's restart.
const hangMax = 90 * time.Second

// hanging waits until nothing in the topics is undecided, and names what stays so.
func (h *house) hanging() (hangs []string) {
	h.t.Helper()
	cl := h.reader()
	defer cl.Close()
	admin := kadm.NewClient(cl)
	topics := h.conf.topicNames()[:4]
	for end := time.Now().Add(hangMax); ; time.Sleep(100 * time.Millisecond) {
		stable, err := admin.ListCommittedOffsets(h.t.Context(), topics...)
		ends, err2 := admin.ListEndOffsets(h.t.Context(), topics...)
		if err := errors.Join(err, err2, stable.Error(), ends.Error()); err != nil {
			if time.Now().After(end) {
				h.t.Fatalf("ends of the topics: %v", err)
			}
			continue
		}
		hangs = hangs[:0]
		ends.Each(func(o kadm.ListedOffset) {
			// Read a moment apart while an instance commits: only what stays counts.
			if s, _ := stable.Lookup(o.Topic, o.Partition); s.Offset < o.Offset && !time.Now().After(end) {
				hangs = append(hangs, o.Topic)
			} else if s.Offset < o.Offset {
				hangs = append(hangs, fmt.Sprintf("%s/%d: stable up to %d of %d%s", o.Topic, o.Partition, s.Offset, o.Offset, h.opened(admin, o.Topic, o.Partition)))
			}
		})
		if len(hangs) == 0 || time.Now().After(end) {
			return hangs
		}
	}
}

// opened describes the transactions that hold a partition: what its leader knows of them,
// and what their coordinators do.
func (h *house) opened(admin *kadm.Client, topic string, partition int32) (text string) {
	ctx := h.t.Context()
	var set kadm.TopicsSet
	set.Add(topic, partition)
	producers, err := admin.DescribeProducers(ctx, set)
	if err != nil {
		return "; " + err.Error()
	}
	for _, p := range producers[topic].Partitions[partition].ActiveProducers {
		if p.CurrentTxnStartOffset < 0 {
			continue
		}
		text += fmt.Sprintf("; producer %d at epoch %d, sequence %d, holds it from offset %d on", p.ProducerID, p.ProducerEpoch, p.LastSequence, p.CurrentTxnStartOffset)
		listed, _ := admin.ListTransactions(ctx, []int64{p.ProducerID}, nil)
		for id := range listed {
			described, _ := admin.DescribeTransactions(ctx, id)
			d := described[id]
			text += fmt.Sprintf(", its transaction %s is %s at epoch %d, begun at %d, with %v", id, d.State, d.ProducerEpoch, d.StartTimestamp, d.Topics)
		}
		text += "\n" + h.lying(topic, partition, p.CurrentTxnStartOffset-5)
	}
	return text
}

// lying lists what lies in a partition from an offset on, whether it is decided or not.
func (h *house) lying(topic string, partition int32, from int64) (text string) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(h.conf.Kafka.Brokers...), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(max(0, from))}}))
	if err != nil {
		return err.Error()
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(h.t.Context(), 3*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			what := headerOfRecord(r, "ce_id") + headerOfRecord(r, "dlq_n")
			if r.Attrs.IsControl() {
				what = map[byte]string{0: "ABORT", 1: "COMMIT"}[r.Key[len(r.Key)-1]]
			}
			text += fmt.Sprintf("    %d: producer %d epoch %d at %d: %s\n", r.Offset, r.ProducerID, r.ProducerEpoch, r.Timestamp.UnixMilli(), what)
		})
	}
	return text
}

func headerOfRecord(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// readTopics reads the topics whole, and the marks committed for the input.
func (h *house) readTopics() (*oracle.Dump, map[int32]oracle.Mark) {
	h.t.Helper()
	dump, t := &oracle.Dump{}, &h.conf.Kafka.Topics
	for topic, into := range map[string]*[]oracle.Record{t.Events: &dump.Input, t.Triggers: &dump.Triggers, t.Muted: &dump.Muted, t.DeadLetters: &dump.DeadLetters} {
		*into = h.readTopic(topic)
	}
	return dump, h.committedMarks()
}

// committedMarks reads what the group has committed, and of its metadata what the oracle
// needs.
func (h *house) committedMarks() map[int32]oracle.Mark {
	h.t.Helper()
	cl := h.reader()
	defer cl.Close()
	offsets, err := kadm.NewClient(cl).FetchOffsets(h.t.Context(), h.conf.Kafka.Group)
	if err != nil {
		h.t.Fatal(err)
	}
	committed := map[int32]oracle.Mark{}
	for p, o := range offsets[h.conf.Kafka.Topics.Events] {
		fields := map[string]int64{}
		for word := range strings.FieldsSeq(o.Metadata) {
			name, value, _ := strings.Cut(word, "=")
			fields[name], _ = strconv.ParseInt(value, 10, 64) // of those that are numbers
		}
		committed[p] = oracle.Mark{Next: o.At, Clock: fields["clock"], Fired: fields["fired"], N: fields["n"]}
	}
	return committed
}

// readTopic reads a topic to its end. Markers are kept, so that it knows when it is there.
func (h *house) readTopic(topic string) (records []oracle.Record) {
	h.t.Helper()
	cl := h.reader(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords())
	defer cl.Close()
	starts, err := kadm.NewClient(cl).ListStartOffsets(h.t.Context(), topic)
	ends, err2 := kadm.NewClient(cl).ListEndOffsets(h.t.Context(), topic)
	if err = errors.Join(err, err2, starts.Error(), ends.Error()); err != nil {
		h.t.Fatal(err)
	}
	open := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if start, _ := starts.Lookup(o.Topic, o.Partition); start.Offset < o.Offset {
			open[o.Partition] = o.Offset
		}
	})
	ctx, cancel := context.WithTimeout(h.t.Context(), 2*time.Minute)
	defer cancel()
	for len(open) > 0 {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			h.t.Fatalf("read %s: no end of partitions %v", topic, open)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset >= open[r.Partition]-1 {
				delete(open, r.Partition)
			}
			if r.Attrs.IsControl() {
				return
			}
			rec := oracle.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Time: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
			for _, header := range r.Headers {
				rec.Headers = append(rec.Headers, oracle.Header{Key: header.Key, Value: header.Value})
			}
			records = append(records, rec)
		})
	}
	return records
}

// query asks ClickHouse, and gives each row's values as text; NULL is "\x00".
func (h *house) query(sql string, each func(row []string)) {
	h.t.Helper()
	dsn, err := url.Parse(h.conf.ClickHouse.DSN)
	if err != nil {
		h.t.Fatal(err)
	}
	dsn.RawQuery = url.Values{
		"database": {h.conf.ClickHouse.Database}, "query": {sql + " FORMAT JSONCompactStringsEachRow"},
	}.Encode()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, dsn.String(), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		h.t.Fatalf("%s: %s", sql, text)
	}
	rows := json.NewDecoder(bufio.NewReaderSize(res.Body, 1<<20))
	for {
		var row []string
		switch err := rows.Decode(&row); {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			h.t.Fatalf("%s: %v", sql, err)
		}
		each(row)
	}
}

// number asks for one number.
func (h *house) number(sql string) (n int) {
	h.t.Helper()
	h.query(sql, func(row []string) { n, _ = strconv.Atoi(row[0]) })
	return n
}

// position names a record, and its row.
func position(topic string, partition int32, offset int64) string {
	return fmt.Sprintf("%s/%d@%d", topic, partition, offset)
}

func (h *house) counts(sql string) map[string]int {
	h.t.Helper()
	counts := map[string]int{}
	h.query(sql, func(row []string) { counts[row[0]], _ = strconv.Atoi(row[1]) })
	return counts
}

func same[V any](t *testing.T, what string, want, got map[string]V) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
