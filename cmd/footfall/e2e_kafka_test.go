package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
)

// TestEndToEndReaders and TestRealKafkaReaders have other clients read the triggers
// read_committed, past records that were never committed: kcat (librdkafka), and the example
// consumers in Go and in Java. On the real Kafka the instance's groups are those of the newer
// protocol; elsewhere they are classic.
func TestEndToEndReaders(t *testing.T)  { readers(t, localKafka(t)) }
func TestRealKafkaReaders(t *testing.T) { readers(t, realKafka(t), "kafka.protocol=consumer") }

func readers(t *testing.T, broker string, more ...string) {
	h := newHouse(t, broker, schemas.Replay, append(more, "clock.max_age=3650d")...)
	topic := h.conf.Kafka.Topics.Triggers
	h.abort(topic)
	instance := h.start()
	h.ready()
	h.publishShop(5_000)
	h.applied()
	h.archived()
	h.stop(instance)
	h.abort(topic)
	h.judge(false)
	ids := h.ids(topic)
	if len(ids) == 0 {
		t.Fatal("no triggers to read")
	}
	count := strconv.Itoa(len(ids))
	for _, reader := range []struct {
		name string
		args []string
	}{
		{"kcat", []string{"kcat", "-q", "-b", broker, "-C", "-t", topic, "-e", "-o", "beginning", "-X", "isolation.level=read_committed", "-f", `%k %h\n`}},
		{"go", []string{"go", "run", "footfall/schemas/examples/consumer", "-brokers", broker, "-topic", topic, "-group", topic + "-go", "-count", count}},
		{"java", []string{"java", "-cp", os.Getenv("FOOTFALL_TEST_KAFKA_LIBS") + "/*", "../../schemas/examples/TriggerConsumer.java", broker, topic, topic + "-java", count}},
	} {
		t.Run(reader.name, func(t *testing.T) {
			if _, err := exec.LookPath(reader.args[0]); err != nil {
				t.Skipf("%s is not installed", reader.args[0])
			}
			if reader.name == "java" && os.Getenv("FOOTFALL_TEST_KAFKA_LIBS") == "" {
				t.Skip("FOOTFALL_TEST_KAFKA_LIBS names no folder with Kafka's jars")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			c := exec.CommandContext(ctx, reader.args[0], reader.args[1:]...) //nolint:gosec // the table above
			var stderr bytes.Buffer
			c.Stderr = &stderr
			out, err := c.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, stderr.String())
			}
			if got := bytes.Count(out, []byte("\n")); got != len(ids) || bytes.Contains(out, []byte("nobody")) {
				t.Errorf("got %d triggers, want the %d committed and none of nobody's", got, len(ids))
			}
			if reader.name != "kcat" { // which alone prints headers
				return
			}
			var got []string
			for _, id := range regexp.MustCompile(`\bce_id=([^,\n]+)`).FindAllSubmatch(out, -1) {
				got = append(got, string(id[1]))
			}
			slices.Sort(got)
			if diff := cmp.Diff(ids, got); diff != "" {
				t.Errorf("ce_id of the triggers (-committed +read):\n%s", diff)
			}
		})
	}
}

// abort writes a trigger of nobody's into every partition of a topic, in a transaction
// that is given up.
func (h *house) abort(topic string) {
	h.t.Helper()
	cl, err := h.conf.client(kgo.TransactionalID(topic+"-aborted"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		h.t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		h.t.Fatal(err)
	}
	for p := range h.conf.Kafka.Partitions {
		err := cl.ProduceSync(h.t.Context(), &kgo.Record{
			Topic: topic, Partition: int32(p), Key: []byte("nobody"), Value: []byte(`{"user":"nobody"}`), //nolint:gosec // a handful
			Headers: []kgo.RecordHeader{{Key: "ce_id", Value: fmt.Appendf(nil, "aborted/%d/1", p)}},
		}).FirstErr()
		if err != nil {
			h.t.Fatal(err)
		}
	}
	if err := cl.EndTransaction(h.t.Context(), kgo.TryAbort); err != nil {
		h.t.Fatal(err)
	}
}

// ids are the ce_ids of a topic's committed records, sorted.
func (h *house) ids(topic string) (ids []string) {
	h.t.Helper()
	err := readTopic(h.t.Context(), h.conf, topic, 0, func(r *kgo.Record) error {
		for _, header := range r.Headers {
			if header.Key == "ce_id" {
				ids = append(ids, string(header.Value))
			}
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	slices.Sort(ids)
	return ids
}

// TestRealKafkaStockTopics runs on topics with a broker's stock defaults: seven days
// of retention, and no record an hour ahead of the broker.
func TestRealKafkaStockTopics(t *testing.T) {
	broker := realKafka(t)
	h := newHouse(t, broker, schemas.Live)
	cl, err := h.conf.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var alter []kadm.AlterConfig
	for key, value := range map[string]string{
		"retention.ms": "604800000", "segment.ms": "604800000", "message.timestamp.after.max.ms": "3600000",
		"message.timestamp.before.max.ms": "9223372036854775807", "message.timestamp.type": "CreateTime", "cleanup.policy": "delete",
	} {
		alter = append(alter, kadm.AlterConfig{Name: key, Value: &value})
	}
	changed, err := kadm.NewClient(cl).AlterTopicConfigs(t.Context(), alter, h.conf.topicNames()[:4]...)
	for _, c := range changed {
		err = errors.Join(err, c.Err)
	}
	if err != nil {
		t.Fatal(err)
	}
	instance := h.start()
	h.ready()
	// History, with event times of months ago and record timestamps of now, and then
	// live events. Nothing of what footfall writes carries an old timestamp.
	h.run("simulate", "--lane", "backfill", "--ago", "200d", "--count", "5000", "--shoppers", "300")
	h.run("simulate", "--lane", "live", "--ago", "1d", "--speed", "86400x", "--shoppers", "300", "--for", "3s")
	h.applied()
	h.archived()
	instance.kill()
	instance = h.start()
	h.run("simulate", "--lane", "live", "--ago", "1h", "--speed", "3600x", "--shoppers", "3000", "--for", "1s", "--seed", "9")
	h.applied()
	h.archived()
	h.stop(instance)
	report, _ := h.judge(true)
	if report.Muted == 0 || report.Applied == 0 {
		t.Errorf("got %d applied and %d muted, want history to be muted", report.Applied, report.Muted)
	}
}
