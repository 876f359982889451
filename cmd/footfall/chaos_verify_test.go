//go:build chaos

package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
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
	hangs    []hang
	duration time.Duration
}

// verify waits until everything published is applied, said and archived, and then
// compares all there is. Where a transaction is never decided, it judges what can be read;
// that is a failure, unless the fault is the broker's own, which is logged and counted.
func (h *house) verify(running ...*process) *verdict {
	h.t.Helper()
	began := time.Now()
	if hangs := h.hanging(); len(hangs) > 0 {
		return h.verifyRest(hangs, running)
	}
	h.applied(3 * time.Minute)
	h.archived()
	for _, p := range running {
		h.stop(p)
	}
	dump, committed := h.readTopics()
	opt := h.judging()
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
func (h *house) readTopics() (*oracle.Dump, map[int32]oracle.Mark) { return h.readWithout(nil) }

// readWithout leaves out some partitions.
func (h *house) readWithout(without map[int32]bool) (*oracle.Dump, map[int32]oracle.Mark) {
	h.t.Helper()
	dump, t := &oracle.Dump{}, &h.conf.Kafka.Topics
	for topic, into := range map[string]*[]oracle.Record{t.Events: &dump.Input, t.Triggers: &dump.Triggers, t.Muted: &dump.Muted, t.DeadLetters: &dump.DeadLetters} {
		*into = h.readTopic(topic, without)
	}
	committed := h.committedMarks()
	maps.DeleteFunc(committed, func(p int32, _ oracle.Mark) bool { return without[p] })
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
func (h *house) readTopic(topic string, without map[int32]bool) (records []oracle.Record) {
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
		if start, _ := starts.Lookup(o.Topic, o.Partition); start.Offset < o.Offset && !without[o.Partition] {
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
			if r.Attrs.IsControl() || without[r.Partition] {
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

// verifyTables compares every row with its record, by position, hash and content.
func (h *house) verifyTables(dump *oracle.Dump, v *verdict) {
	h.t.Helper()
	refused := map[string]string{}
	for i := range dump.DeadLetters {
		r := &dump.DeadLetters[i]
		offset, _ := strconv.ParseInt(headerOf(r, "dlq_offset"), 10, 64)
		refused[position(headerOf(r, "dlq_topic"), r.Partition, offset)] = headerOf(r, "dlq_reason")
	}
	var events []oracle.Record
	for _, r := range dump.Input {
		// What came from the future is well-formed: it is in both tables.
		if reason := refused[position(r.Topic, r.Partition, r.Offset)]; reason == "" || reason == "future" {
			events = append(events, r)
		}
	}
	for _, table := range []struct {
		name, columns string
		records       []oracle.Record
		content       func(*oracle.Record) []string
	}{
		{"events", "event_id, type, user_id, toString(toUnixTimestamp64Milli(time)), session_id, product_id, order_id, cart_id, _lane", events, h.eventContent},
		{
			"transitions", "id, toString(n), user_id, segment_set, toString(seq), from_segment, to_segment, toString(toUnixTimestamp64Milli(at)), muted, cause, " +
				"cause_event_id, ifNull(toString(cause_offset), ''), toString(orders), toString(revenue_minor), rules",
			slices.Concat(dump.Triggers, dump.Muted), transitionContent,
		},
		{"dead_letters", "reason, source_topic, toString(source_partition), toString(source_offset), toString(n), if(isNull(key), 'NULL', hex(SHA256(assumeNotNull(key)))), if(isNull(value), 'NULL', hex(SHA256(assumeNotNull(value))))", dump.DeadLetters, deadLetterContent},
	} {
		want := make(map[string]string, len(table.records))
		for i := range table.records {
			r := &table.records[i]
			want[position(r.Topic, r.Partition, r.Offset)] = strings.Join(append([]string{
				strconv.FormatInt(r.Time, 10), strconv.FormatUint(hashOf(r), 10),
			}, table.content(r)...), "\x1f")
		}
		h.compareRows(table.name, table.columns, want)
		v.resent += h.number("SELECT count() - uniqExact(_topic, _partition, _offset) FROM " + table.name)
	}
}

// compareRows compares the rows of a table with what they should be, by position.
func (h *house) compareRows(table, columns string, want map[string]string) {
	h.t.Helper()
	lost, wrong, strange := len(want), 0, 0
	complain := func(n *int, format string, args ...any) {
		if *n++; *n <= 3 {
			h.t.Errorf(format, args...)
		}
	}
	seen := make(map[string]bool, len(want))
	h.query("SELECT _topic, toString(_partition), toString(_offset), toString(toUnixTimestamp64Milli(_time)), toString(_hash), "+columns+" FROM "+table+" FINAL", func(row []string) {
		at := fmt.Sprintf("%s/%s@%s", row[0], row[1], row[2])
		text, known := want[at]
		switch got := strings.Join(row[3:], "\x1f"); {
		case !known:
			complain(&strange, "%s has a row for %s, which should have none", table, at)
		case seen[at]:
			complain(&strange, "%s has two rows for %s", table, at)
		case got != text:
			complain(&wrong, "%s: the row of %s is\n  %q, want\n  %q", table, at, got, text)
		}
		if known && !seen[at] {
			lost--
		}
		seen[at] = true
	})
	if lost+wrong+strange > 0 {
		var example []string
		for at := range want {
			if !seen[at] && len(example) < 3 {
				example = append(example, at)
			}
		}
		h.t.Errorf("%s: of %d rows %d are missing (%v), %d differ, %d should not be there", table, len(want), lost, example, wrong, strange)
	}
}

// hashOf is the hash of a record that a row carries, written again from its
// description: xxhash64 of offset, timestamp, key, value and headers, each of the
// last three behind its length and kind.
func hashOf(r *oracle.Record) uint64 {
	le := binary.LittleEndian
	b := le.AppendUint64(le.AppendUint64(nil, uint64(r.Offset)), uint64(r.Time))
	add := func(kind byte, text []byte) {
		if text == nil {
			kind |= 0x80
		}
		b = append(append(le.AppendUint64(b, uint64(len(text))), kind), text...)
	}
	add(1, r.Key)
	add(2, r.Value)
	for _, header := range r.Headers {
		b = append(b, header.Key...)
		add(3, header.Value)
	}
	return xxhash.Sum64(b)
}

// headerOf gives the last header of a name; a dead letter has the original's in front.
func headerOf(r *oracle.Record, name string) string {
	for _, header := range slices.Backward(r.Headers) {
		if header.Key == name {
			return string(header.Value)
		}
	}
	return ""
}

// fieldsOf reads a record's value as any JSON library does.
func fieldsOf(r *oracle.Record) (fields map[string]any) {
	d := json.NewDecoder(strings.NewReader(string(r.Value)))
	d.UseNumber()
	_ = d.Decode(&fields) // what is not an object has no fields
	return fields
}

func textOf(v any) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// millisOf reads a time: RFC 3339, or milliseconds.
func millisOf(v any) string {
	if s, ok := v.(string); ok {
		at, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return err.Error()
		}
		return strconv.FormatInt(at.UnixMilli(), 10)
	}
	return textOf(v)
}

func (h *house) eventContent(r *oracle.Record) []string {
	f := fieldsOf(r)
	lane := headerOf(r, "lane")
	if lane == "" {
		lane = h.conf.Kafka.Lane.String()
	}
	return []string{
		textOf(f["event_id"]), textOf(f["type"]), textOf(f["user_id"]), millisOf(f["time"]), textOf(f["session_id"]), textOf(f["product_id"]),
		textOf(f["order_id"]), textOf(f["cart_id"]), lane,
	}
}

func transitionContent(r *oracle.Record) []string {
	f := fieldsOf(r)
	cause, _ := f["cause"].(map[string]any)
	profile, _ := f["profile"].(map[string]any)
	return []string{
		headerOf(r, "ce_id"), headerOf(r, "n"), textOf(f["user"]), textOf(f["set"]), textOf(f["seq"]), textOf(f["from"]), textOf(f["to"]), millisOf(f["at"]),
		textOf(f["muted"]), textOf(cause["kind"]), textOf(cause["id"]), textOf(cause["offset"]), textOf(profile["orders"]), textOf(profile["revenue_minor"]), textOf(f["rules"]),
	}
}

func deadLetterContent(r *oracle.Record) []string {
	sum := func(b []byte) string {
		if b == nil {
			return "NULL"
		}
		return fmt.Sprintf("%X", sha256.Sum256(b))
	}
	return []string{headerOf(r, "dlq_reason"), headerOf(r, "dlq_topic"), headerOf(r, "dlq_partition"), headerOf(r, "dlq_offset"), headerOf(r, "dlq_n"), sum(r.Key), sum(r.Value)}
}

// verifyViews computes what the views should say, from the topics, and asks them.
func (h *house) verifyViews(dump *oracle.Dump, v *verdict) {
	h.t.Helper()
	type stay struct {
		segment string
		seq     int
	}
	now, entries := map[string]stay{}, map[string]int{}
	for _, records := range [][]oracle.Record{dump.Triggers, dump.Muted} {
		for i := range records {
			f := fieldsOf(&records[i])
			seq, _ := strconv.Atoi(textOf(f["seq"]))
			entries[textOf(f["to"])]++
			if user := textOf(f["user"]); seq > now[user].seq {
				now[user] = stay{textOf(f["to"]), seq}
			}
		}
	}
	members := map[string]int{}
	for _, s := range now {
		members[s.segment]++
	}
	expected := maps.Clone(v.Segments)
	maps.DeleteFunc(expected, func(_ string, n int) bool { return n == 0 })
	same(h.t, "users by segment, in the topics and by the oracle", expected, members)
	same(h.t, "segment_now", members, h.counts("SELECT segment, toString(count()) FROM segment_now GROUP BY segment"))
	same(h.t, "segment_daily, members on the last day", members,
		h.counts("SELECT segment, toString(members) FROM segment_daily WHERE members != 0 AND day = (SELECT max(day) FROM segment_daily)"))
	same(h.t, "segment_daily, entries", entries, h.counts("SELECT segment, toString(sum(entries)) FROM segment_daily GROUP BY segment HAVING sum(entries) > 0"))
	same(h.t, "segment_history, stays", entries, h.counts("SELECT segment, toString(count()) FROM segment_history GROUP BY segment"))
	if n := h.number(`SELECT count() FROM (
		SELECT seq, from_segment, row_number() OVER w AS number, lagInFrame(to_segment) OVER w AS before
		FROM (SELECT * FROM transitions FINAL) WINDOW w AS (PARTITION BY user_id, segment_set ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
	) WHERE seq != number OR from_segment != before`); n > 0 {
		h.t.Errorf("ClickHouse finds %d transitions that do not begin where the one before ended", n)
	}
	want := onceOf(dump)
	got := map[string]string{}
	h.query("SELECT type, toString(count()), toString(sum(toDecimal128(ifNull(revenue, 0), 6))) FROM events_once GROUP BY type", func(row []string) {
		sum, _ := new(big.Rat).SetString(row[2])
		got[row[0]] = row[1] + " events, revenue " + sum.FloatString(6)
	})
	same(h.t, "events_once, by type", want, got)
}

// onceOf counts the events that count, and adds up their revenue: an event_id once, a
// user's purchase of an order once, and nothing that was refused.
func onceOf(dump *oracle.Dump) map[string]string {
	refused, ids, orders := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i := range dump.DeadLetters {
		r := &dump.DeadLetters[i]
		refused[headerOf(r, "dlq_partition")+"@"+headerOf(r, "dlq_offset")] = true
	}
	input := slices.Clone(dump.Input)
	slices.SortStableFunc(input, func(a, b oracle.Record) int { return int(a.Partition - b.Partition) })
	counts, sums := map[string]int{}, map[string]*big.Rat{}
	for i := range input {
		r := &input[i]
		if refused[fmt.Sprintf("%d@%d", r.Partition, r.Offset)] {
			continue
		}
		f := fieldsOf(r)
		id, kind, order := textOf(f["event_id"]), textOf(f["type"]), textOf(f["user_id"])+"\x1f"+textOf(f["order_id"])
		if ids[id] || kind == "purchase" && orders[order] {
			continue
		}
		ids[id] = true
		if kind == "purchase" {
			orders[order] = true
		}
		counts[kind]++
		if sums[kind] == nil {
			sums[kind] = new(big.Rat)
		}
		if revenue, ok := new(big.Rat).SetString(textOf(f["revenue"])); ok {
			sums[kind].Add(sums[kind], revenue)
		}
	}
	once := map[string]string{}
	for kind, n := range counts {
		once[kind] = fmt.Sprintf("%d events, revenue %s", n, sums[kind].FloatString(6))
	}
	return once
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
