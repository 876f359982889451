package main

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
)

// Commands that read the events name a batch that expands to too much, and say what to do,
// as the engine does.
func TestCommandsNameAnUnreadableBatch(t *testing.T) {
	h := prepareHouse(t, localKafka(t), "http://127.0.0.1:1/footfall", schemas.Live, "kafka.partitions=1", "kafka.batch_max=8388608", "clickhouse.enabled=false")
	h.run("topics", "create")
	bomber, err := kgo.NewClient(kgo.SeedBrokers(h.conf.Kafka.Brokers...), kgo.ProducerBatchMaxBytes(32<<20), kgo.BrokerMaxWriteBytes(64<<20),
		kgo.ProducerBatchCompression(kgo.GzipCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer bomber.Close()
	bomb := &kgo.Record{Topic: h.conf.Kafka.Topics.Events, Key: []byte("u"), Value: []byte(strings.Repeat("0", 16<<20))}
	if err := bomber.ProduceSync(t.Context(), bomb).FirstErr(); err != nil {
		t.Fatalf("the broker did not take it: %v", err)
	}
	const want = "/0 from offset 0 to 0 expands to more than kafka.batch_max, "
	for _, args := range [][]string{{"check"}, {"plan", "lifecycle"}} {
		c := h.command(args...)
		c.Stderr = nil // with the rest
		if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("footfall %s: %v\n%s", args[0], err, out)
		}
	}
	look := evidence{c: h.conf, records: 100, a: &ExplainAnswer{User: "u", Next: 1}}
	if err := look.readLog(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("footfall explain: %v", err)
	}
}
