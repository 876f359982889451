package main

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
)

// A partition of which nothing was committed lags behind what there is to read, and not
// behind all that ever was.
func TestStatusOfWhatRetentionHasCut(t *testing.T) {
	h := prepareHouse(t, localKafka(t), "http://127.0.0.1:8123/none", schemas.Live, "kafka.partitions=1")
	h.run("topics", "create")
	topic := h.conf.Kafka.Topics.Events
	cl, err := h.conf.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for range 10 {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Key: []byte("u"), Value: []byte("{}")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	var gone kadm.Offsets
	gone.AddOffset(topic, 0, 7, -1)
	if _, err := kadm.NewClient(cl).DeleteRecords(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	s, err := readStatus(t.Context(), h.conf)
	if err != nil {
		t.Fatal(err)
	}
	if p := s.Partitions[0]; p.Lag != 3 || p.End != 10 || p.Committed != -1 {
		t.Errorf("got %+v, want a lag of 3", p)
	}
}
