package storefront

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
)

// A series that was cut off anywhere is taken up where it was: every record is there
// once, in order.
func TestResume(t *testing.T) {
	c := broker(t, 4)
	const n = 5000
	var recs []Record
	for i := range n {
		key := []byte(strconv.Itoa(i % 97))
		if i%50 == 0 {
			key = nil
		}
		recs = append(recs, Record{Key: key, Value: []byte(strconv.Itoa(i)), Time: schemas.Millis(700_000_000_000 + i)})
	}
	for run := 0; ; run++ {
		p := publisher(t, c, PublisherConfig{Name: "orders.csv", Lane: schemas.Replay, InFlightBytes: 4000})
		found, err := p.Resume(t.Context())
		if err != nil || (run == 0) != (found == 0) {
			t.Fatalf("run %d: resume found %d partitions, %v", run, found, err)
		}
		if run == 6 {
			publish(t, p, recs...)
			break
		}
		for _, r := range recs[:(run+1)*700] {
			if err := p.Publish(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		// Batches are under way now.
		p.fail(context.Canceled) // as the end of the publisher's own context does
		if err := p.Close(); !errors.Is(err, context.Canceled) {
			t.Fatalf("close: got %v, want %v", err, context.Canceled)
		}
	}
	// A record of someone else at the end does not hide ours.
	publish(t, publisher(t, c, PublisherConfig{}), Record{Key: []byte("k"), Value: []byte("-1")})
	p := publisher(t, c, PublisherConfig{Name: "orders.csv", Lane: schemas.Replay})
	if _, err := p.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	publish(t, p, recs...)
	if got := p.Counts(); got.Skipped != n || got.Acked != 0 {
		t.Errorf("published again: got %+v, want all %d skipped", got, n)
	}
	var got []int
	last := map[int32]int{}
	for _, r := range readBack(t, c, n+1) {
		i, err := strconv.Atoi(string(r.Value))
		if err != nil {
			t.Fatal(err)
		}
		if i < 0 {
			continue
		}
		if i < last[r.Partition] {
			t.Fatalf("partition %d: %d after %d", r.Partition, i, last[r.Partition])
		}
		last[r.Partition] = i
		got = append(got, i)
	}
	slices.Sort(got)
	for i := range got {
		if got[i] != i {
			t.Fatalf("record %d is missing or doubled (found %d)", i, got[i])
		}
	}
}

// Another series under the name of one that was published is refused, and not taken for
// the rest of it: a file that has changed, or one of another folder.
func TestResumeOfAnotherSeries(t *testing.T) {
	c := broker(t, 2)
	series := PublisherConfig{Name: "orders.csv", Group: "shop-publish"}
	records := func(n int, value string) (recs []Record) {
		for i := range n {
			recs = append(recs, Record{Key: []byte(strconv.Itoa(i % 97)), Value: []byte(value + strconv.Itoa(i))})
		}
		return recs
	}
	// again publishes a series of the same name, and tells what became of it.
	again := func(recs []Record) (Counts, error) {
		p := publisher(t, c, series)
		if _, err := p.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := error(nil)
		for i := 0; i < len(recs) && err == nil; i++ {
			err = p.Publish(t.Context(), recs[i])
		}
		if err == nil {
			err = p.Whole()
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		return p.Counts(), err
	}
	if n, err := again(records(500, "a")); err != nil || n.Acked != 500 {
		t.Fatalf("got %+v, %v, want 500 published", n, err)
	}
	if n, err := again(records(600, "a")); err != nil || n.Acked != 100 {
		t.Errorf("longer than before: got %+v, %v, want the 100 that are new", n, err)
	}
	var other *OtherSeriesError
	if n, err := again(records(700, "b")); !errors.As(err, &other) || n.Acked > 0 {
		t.Errorf("other records: got %+v, %v, want none published", n, err)
	}
	if n, err := again(records(300, "b")); !errors.As(err, &other) || n.Acked > 0 {
		t.Errorf("fewer records: got %+v, %v, want none published", n, err)
	}
	if n, err := again(records(600, "a")); err != nil || n.Skipped != 600 {
		t.Errorf("the same again: got %+v, %v, want all skipped", n, err)
	}
}

// Others may write as much as they like meanwhile: a series goes on where it was, whether
// it was ended or killed, and a restarted one from its new beginning.
func TestResumeBehindOthers(t *testing.T) {
	c := broker(t, 2)
	series := PublisherConfig{Name: "orders.csv", Group: "shop-publish"}
	var recs []Record
	for i := range 1000 {
		recs = append(recs, Record{Key: []byte(strconv.Itoa(i % 97)), Value: []byte("series")})
	}
	others := func() {
		var noise []Record
		for i := range 3 * resumeWindow {
			noise = append(noise, Record{Key: []byte(strconv.Itoa(i)), Value: []byte("other")})
		}
		publish(t, publisher(t, c, PublisherConfig{}), noise...)
	}
	some := func(again bool, n int) *Publisher {
		p := publisher(t, c, series)
		begin := func(ctx context.Context) error { _, err := p.Resume(ctx); return err }
		if again {
			begin = p.Restart
		}
		if err := begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, r := range recs[:n] {
			if err := p.Publish(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Flush(); err != nil {
			t.Fatal(err)
		}
		return p
	}
	count := func(want int) {
		t.Helper()
		n := 0
		cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		all := 0
		ends.Each(func(o kadm.ListedOffset) { all += int(o.Offset) })
		for _, r := range readBack(t, c, all) {
			if string(r.Value) == "series" {
				n++
			}
		}
		if n != want {
			t.Fatalf("got %d records of the series, want %d", n, want)
		}
	}
	killed := some(false, 300) // never closed: only what was kept before its first record counts
	others()
	ended := some(false, 600)
	if err := ended.Close(); err != nil {
		t.Fatal(err)
	}
	others()
	if err := some(false, 1000).Close(); err != nil {
		t.Fatal(err)
	}
	count(1000)
	if err := some(true, 200).Close(); err != nil { // all of it again, interrupted
		t.Fatal(err)
	}
	others()
	if err := some(false, 1000).Close(); err != nil {
		t.Fatal(err)
	}
	count(2000)
	_ = killed.Close()
}

// A series cannot go on in a topic that has more partitions now.
func TestResumeRepartitioned(t *testing.T) {
	c := broker(t, 2)
	publish(t, publisher(t, c, PublisherConfig{Name: "s", Group: "kept"}), Record{Key: []byte("k"), Value: []byte("v")})
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).UpdatePartitions(t.Context(), 3, topic); err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"", "kept"} {
		p := publisher(t, c, PublisherConfig{Name: "s", Group: group})
		if _, err := p.Resume(t.Context()); err == nil || !strings.Contains(err.Error(), "had 2 partitions, now it has 3") {
			t.Errorf("resume: got %v", err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A topic that was deleted and made anew has nothing of a series, whatever was kept.
func TestResumeTopicMadeAnew(t *testing.T) {
	c := broker(t, 1)
	cfg := PublisherConfig{Name: "s", Group: "kept"}
	some := func(n int) Counts {
		p := publisher(t, c, cfg)
		if _, err := p.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		var recs []Record
		for i := range n {
			recs = append(recs, Record{Key: []byte("k"), Value: []byte(strconv.Itoa(i))})
		}
		publish(t, p, recs...)
		return p.Counts()
	}
	some(10)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	if _, err := admin.DeleteTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	var others []Record
	for range 20 {
		others = append(others, Record{Key: []byte("k"), Value: []byte("other")})
	}
	publish(t, publisher(t, c, PublisherConfig{}), others...)
	if got := some(10); got.Acked != 10 || got.Skipped != 0 {
		t.Errorf("got %+v, want all 10 published", got)
	}
	if got := some(10); got.Acked != 0 || got.Skipped != 10 {
		t.Errorf("again: got %+v, want all 10 skipped", got)
	}
}

func TestSeriesHeader(t *testing.T) {
	name, partitions, number, ok := parseSeries(string(appendSeries(nil, "a/b c", 12, 1<<40)))
	if name != "a/b c" || partitions != 12 || number != 1<<40 || !ok {
		t.Errorf("got %q %d %d %v", name, partitions, number, ok)
	}
	for _, bad := range []string{"", "a", "a/1", "a/x/1", "a/1/x", "a/1/-1"} {
		if _, _, _, ok := parseSeries(bad); ok {
			t.Errorf("parseSeries(%q): accepted", bad)
		}
	}
}
