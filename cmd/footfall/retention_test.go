package main

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"footfall/sources/kafka"
)

// A topic that is cut by its size is told: how far back it reaches, nobody knows then. Those
// that topics create makes are not, whatever the brokers' default is.
func TestRetentionByBytes(t *testing.T) {
	broker, err := kafka.StartLocal(kafka.LocalConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	c := defaultConfig()
	c.Kafka.Brokers = []string{broker.Addr()}
	cl, err := c.client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	events := c.Kafka.Topics.Events
	if _, err := adm.CreateTopic(t.Context(), int32(c.Kafka.Partitions), 1, map[string]*string{"retention.bytes": new("1000000")}, events); err != nil {
		t.Fatal(err)
	}
	if _, err := kafka.CreateTopics(t.Context(), cl, c.topicPlan()); err != nil {
		t.Fatal(err)
	}
	problems, _, err := retention(t.Context(), c, adm)
	if err != nil {
		t.Fatal(err)
	}
	if len(problems) != 1 || !strings.Contains(problems[0].What, "topic "+events+" keeps 1000000 bytes") || !strings.HasSuffix(problems[0].Remedy, "retention.bytes=-1") {
		t.Errorf("got %+v, want one about %s", problems, events)
	}
}
