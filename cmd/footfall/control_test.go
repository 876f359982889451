package main

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"footfall/schemas"
)

// told is a follower that passes on that it has been told everything.
type told chan struct{}

func (told) record(*kgo.Record) {}

func (f told) caughtUp() { f <- struct{}{} }

// A control topic whose records retention has removed, as one does that is not compacted,
// is read to its end all the same: the instance would wait for the last of them for ever.
func TestControlTopicThatRetentionHasEmptied(t *testing.T) {
	h := prepareHouse(t, localKafka(t), "http://127.0.0.1:8123/none", schemas.Live)
	h.run("topics", "create")
	if err := throw(t.Context(), h.conf, control{Paused: true, At: 1}); err != nil {
		t.Fatal(err)
	}
	cl, err := h.conf.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var all kadm.Offsets
	all.AddOffset(h.conf.controlTopic(), 0, 1, -1)
	if _, err := kadm.NewClient(cl).DeleteRecords(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	isReadToItsEnd(t, h)
}

// One whose last records somebody has written in a transaction ends in a marker, which is
// no record.
func TestControlTopicThatEndsInAMarker(t *testing.T) {
	h := prepareHouse(t, localKafka(t), "http://127.0.0.1:8123/none", schemas.Live)
	h.run("topics", "create")
	cl, err := h.conf.connect(t.Context(), kgo.TransactionalID("copies"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	copied := &kgo.Record{Topic: h.conf.controlTopic(), Key: []byte(controlKey), Value: []byte(`{"paused":true}`)}
	if err := cl.ProduceSync(t.Context(), copied).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	isReadToItsEnd(t, h)
}

// isReadToItsEnd holds that who follows the control topic is told that there is no more.
func isReadToItsEnd(t *testing.T, h *house) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	caughtUp, ended := make(told, 1), make(chan error, 1)
	go func() { ended <- watchControl(ctx, h.conf, zap.NewNop(), caughtUp) }()
	select {
	case <-caughtUp:
	case <-time.After(10 * time.Second):
		t.Error("nothing after 10 s, want to be told that there is nothing to wait for")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A control topic that was deleted and made again is followed again: else nobody could
// stop the triggers of an instance until it is restarted.
func TestControlTopicMadeAnew(t *testing.T) {
	h := prepareHouse(t, localKafka(t), "http://127.0.0.1:8123/none", schemas.Live, "clickhouse.enabled=false", "kafka.partitions=1")
	h.run("topics", "create")
	h.start()
	h.ready()
	cl, err := h.conf.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).DeleteTopic(t.Context(), h.conf.controlTopic()); err != nil {
		t.Fatal(err)
	}
	h.until("the log says that it is gone", func() bool { return h.logged("the control topic can't be read") })
	h.run("topics", "create")
	h.run("triggers", "pause", "--wait", "0s")
	h.until("the instance is paused", func() bool {
		all := h.status().Instances
		return len(all) == 1 && all[0].Paused
	})
}
