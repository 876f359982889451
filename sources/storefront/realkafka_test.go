package storefront

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
)

// realTopic makes a topic on the real broker, gone after the test.
func realTopic(t *testing.T, partitions int32, config map[string]*string) (brokers []string, name string) {
	t.Helper()
	bootstrap := os.Getenv("FOOTFALL_TEST_KAFKA")
	if bootstrap == "" {
		t.Skip("needs a real Kafka at FOOTFALL_TEST_KAFKA (make test-kafka)")
	}
	brokers = strings.Split(bootstrap, ",")
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	name = fmt.Sprintf("publish-%d", time.Now().UnixNano())
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), partitions, 1, config, name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := kadm.NewClient(cl).DeleteTopic(t.Context(), name); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return brokers, name
}

func realPublisher(t *testing.T, cfg PublisherConfig) *Publisher {
	t.Helper()
	p, err := NewPublisher(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A series published in pieces is there once, in Java's partitions, with its times.
func TestRealKafkaPublish(t *testing.T) {
	long := "9223372036854775807"
	keep := "-1"
	brokers, name := realTopic(t, 6, map[string]*string{
		"retention.ms": &keep, "message.timestamp.before.max.ms": &long, "message.timestamp.after.max.ms": &long,
	})
	const n = 40_000
	var recs []Record
	s := shop(t, Config{Seed: 2, Shoppers: 2000, Faults: Faults{"no_key": 0.01, "tombstone": 0.01, "too_large": 0.0002}})
	for range n {
		rec, _ := s.Next()
		recs = append(recs, rec)
	}
	cfg := PublisherConfig{Brokers: brokers, Topic: name, Lane: schemas.Replay, Name: "real", Group: name, InFlightBytes: 1 << 20}
	for _, stop := range []int{9_000, 23_000, n} {
		p := realPublisher(t, cfg)
		if _, err := p.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, r := range recs[:stop] {
			if err := p.Publish(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if stop < n {
			p.fail(fmt.Errorf("cut off at %d", stop))
		}
		if err := p.Close(); (err == nil) != (stop == n) {
			t.Fatal(err)
		}
		t.Logf("until %d: %+v", stop, p.Counts())
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	java := kgo.StickyKeyPartitioner(nil).ForTopic(name)
	seen := make([]bool, n)
	for count := 0; count < n; {
		fetches := cl.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		for _, r := range fetches.Records() {
			_, _, i, ok := parseSeries(header(r, PublishHeader))
			if !ok || seen[i] {
				t.Fatalf("record %q: header %q, seen before: %v", r.Key, header(r, PublishHeader), ok)
			}
			seen[i] = true
			count++
			want := &recs[i]
			if !bytes.Equal(r.Key, want.Key) || !bytes.Equal(r.Value, want.Value) || (r.Value == nil) != (want.Value == nil) ||
				r.Timestamp.UnixMilli() != int64(want.Time) || r.Key != nil && java.Partition(r, 6) != int(r.Partition) {
				t.Fatalf("record %d in partition %d at %d: %q %.200q, want %q %.200q", i, r.Partition, r.Timestamp.UnixMilli(), r.Key, r.Value, want.Key, want.Value)
			}
		}
	}
}

// On a topic with Kafka's defaults, a time ahead is an error that says what to
// do, and a record too large is refused alone.
func TestRealKafkaDefaults(t *testing.T) {
	hour, million := "3600000", "1048588"
	brokers, name := realTopic(t, 1, map[string]*string{"message.timestamp.after.max.ms": &hour, "max.message.bytes": &million})
	p := realPublisher(t, PublisherConfig{Brokers: brokers, Topic: name, Compression: "none"})
	noise := make([]byte, 1<<21)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	for i := range 50 {
		value := []byte(strconv.Itoa(i))
		if i == 20 {
			value = noise
		}
		if err := p.Publish(t.Context(), Record{Key: []byte("k"), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if got := p.Counts(); got.Acked != 49 || got.Refused != 1 {
		t.Errorf("counts: got %+v, want 49 acked and 1 refused", got)
	}
	p = realPublisher(t, PublisherConfig{Brokers: brokers, Topic: name, Lane: schemas.Replay})
	ahead := schemas.Millis(time.Now().Add(48 * time.Hour).UnixMilli())
	if err := p.Publish(t.Context(), Record{Key: []byte("k"), Value: []byte("v"), Time: ahead}); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err == nil || !strings.Contains(err.Error(), "message.timestamp.after.max.ms") {
		t.Errorf("a record of the day after tomorrow: got %v, want what to do", err)
	}
}

// Records a second to a real broker on the same machine.
func BenchmarkRealKafka(b *testing.B) {
	bootstrap := os.Getenv("FOOTFALL_TEST_KAFKA")
	if bootstrap == "" {
		b.Skip("needs a real Kafka at FOOTFALL_TEST_KAFKA")
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(bootstrap, ",")...))
	if err != nil {
		b.Fatal(err)
	}
	defer cl.Close()
	name := fmt.Sprintf("publish-%d", time.Now().UnixNano())
	if _, err := kadm.NewClient(cl).CreateTopic(b.Context(), 8, 1, nil, name); err != nil {
		b.Fatal(err)
	}
	p, err := NewPublisher(b.Context(), PublisherConfig{Brokers: strings.Split(bootstrap, ","), Topic: name})
	if err != nil {
		b.Fatal(err)
	}
	s := shop(b, Config{Seed: 1, Faults: Faults{}})
	for b.Loop() {
		rec, _ := s.Next()
		if err := p.Publish(b.Context(), rec); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
