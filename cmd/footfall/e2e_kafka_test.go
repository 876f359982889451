package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"footfall/schemas"
)

// TestEndToEndReaders and TestRealKafkaReaders have other clients read the triggers
// read_committed: kcat (librdkafka), and the example consumers in Go and in Java. On the
// real Kafka the instance's groups are those of the newer protocol; elsewhere they are
// classic.
func TestEndToEndReaders(t *testing.T)  { readers(t, localKafka(t)) }
func TestRealKafkaReaders(t *testing.T) { readers(t, realKafka(t), "kafka.protocol=consumer") }

func readers(t *testing.T, broker string, more ...string) {
	h := newHouse(t, broker, schemas.Replay, append(more, "clock.max_age=3650d")...)
	instance := h.start()
	h.ready()
	h.publishShop(5_000)
	h.applied(2 * time.Minute)
	h.archived()
	h.stop(instance)
	report, _ := h.judge(false)
	want, topic := report.Triggers, h.conf.Kafka.Topics.Triggers
	if want == 0 {
		t.Fatal("no triggers to read")
	}
	for _, reader := range []struct {
		name string
		args []string
	}{
		{"kcat", []string{"kcat", "-q", "-b", broker, "-C", "-t", topic, "-e", "-o", "beginning", "-X", "isolation.level=read_committed", "-f", `%k %s\n`}},
		{"go", []string{"go", "run", "footfall/schemas/examples/consumer", "-brokers", broker, "-topic", topic, "-group", topic + "-go", "-count", fmt.Sprint(want)}},
		{"java", []string{"java", "-cp", os.Getenv("FOOTFALL_TEST_KAFKA_LIBS") + "/*", "../../schemas/examples/TriggerConsumer.java", broker, topic, topic + "-java", fmt.Sprint(want)}},
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
			if got := bytes.Count(out, []byte("\n")); got != want {
				t.Errorf("got %d triggers, want %d", got, want)
			}
		})
	}
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
	h.applied(2 * time.Minute)
	h.archived()
	instance.kill()
	instance = h.start()
	h.run("simulate", "--lane", "live", "--ago", "1h", "--speed", "3600x", "--shoppers", "3000", "--for", "1s", "--seed", "9")
	h.applied(time.Minute)
	h.archived()
	h.stop(instance)
	report, _ := h.judge(true)
	if report.Muted == 0 || report.Applied == 0 {
		t.Errorf("got %d applied and %d muted, want history to be muted", report.Applied, report.Muted)
	}
}
