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
	mended   int // partitions in which a transaction hung, by the broker's fault
	duration time.Duration
}

// verify waits until everything published is applied, said and archived, and then
// compares all there is.
func (h *house) verify(running ...*process) *verdict {
	h.t.Helper()
	began := time.Now()
	h.mend()
	h.applied()
	h.archived()
	for _, p := range running {
		h.stop(p)
	}
	dump, committed := h.readTopics()
	opt := h.judging()
	if h.conf.Kafka.Lane == schemas.Live {
		opt.WallTicks, opt.Marks = true, committed
	}
	v := &verdict{Report: dump.Judge(opt), records: len(dump.Input), mended: h.mended + h.marked()}
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

// judging is what the oracle has to know of the installation.
func (h *house) judging() oracle.Options {
	return oracle.Options{
		Currency: h.conf.Shop.Currency, Rates: h.conf.Shop.Rates, InputTopic: h.conf.Kafka.Topics.Events,
		Group: h.conf.Kafka.Group, Lane: h.conf.Kafka.Lane.String(), Sets: h.setNames(),
	}
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
	committed := h.committedMarks()
	return dump, committed
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

// readTopic reads a topic to its end, but for some partitions. Markers are kept, so that it knows when it is there.
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
			records = append(records, recordOf(r))
		})
	}
	return records
}

func recordOf(r *kgo.Record) oracle.Record {
	rec := oracle.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Time: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
	for _, header := range r.Headers {
		rec.Headers = append(rec.Headers, oracle.Header{Key: header.Key, Value: header.Value})
	}
	return rec
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
