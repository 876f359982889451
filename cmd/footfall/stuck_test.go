package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/schemas"
	"footfall/sources/kafka"
)

// A partition whose transactions do not end says how far behind it is, in the metrics and
// in the status, although it reads nothing any more.
func TestLagOfAPartitionThatIsStuck(t *testing.T) {
	broker, err := kafka.StartLocal(kafka.LocalConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	var stuck atomic.Bool
	broker.Cluster().ControlKey(int16(kmsg.EndTxn), func(r kmsg.Request) (kmsg.Response, error, bool) {
		broker.Cluster().KeepControl()
		res, ok := r.ResponseKind().(*kmsg.EndTxnResponse)
		if !ok || !stuck.Load() {
			return nil, nil, false
		}
		res.ErrorCode = kerr.CoordinatorNotAvailable.Code
		return res, nil, true
	})
	h := prepareHouse(t, broker.Addr(), "http://127.0.0.1:8123/none", schemas.Live, "clickhouse.enabled=false", "kafka.partitions=1")
	h.run("topics", "create")
	instance := h.start()
	h.ready()
	stuck.Store(true)

	const events = 60_000 // of new users: more than may be said and not committed
	cl, err := h.conf.client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i := range events {
		user := fmt.Sprintf("u%d", i)
		value := fmt.Sprintf(`{"event_id":%q,"type":"view","user_id":%[1]q,"time":%d}`, user, wall())
		cl.Produce(t.Context(), &kgo.Record{Topic: h.conf.Kafka.Topics.Events, Key: []byte(user), Value: []byte(value)}, nil)
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}

	address := h.marks()[0].Address
	lag := regexp.MustCompile(`footfall_lag_records\{partition="0"\} ([0-9.e+]+)`)
	h.until("the lag is told", func() bool {
		res, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		m := lag.FindSubmatch(text)
		all := h.partitionsLive()
		if !bytes.Contains(text, []byte("\n"+recoveringMetric+"{partition=\"0\"} 0\n")) {
			t.Errorf("the partition is live, and %s is not 0 in\n%s", recoveringMetric, text)
		}
		return m != nil && string(m[1]) != "0" && len(all) == 1 && all[0].lag() > 0
	})
	instance.kill()
}

// An instance is not ready before the group has given it its share: whoever replaces
// instances one by one would stop the next.
func TestNotReadyBeforeTheGroupHasGivenAnything(t *testing.T) {
	broker, err := kafka.StartLocal(kafka.LocalConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	var away atomic.Bool
	away.Store(true)
	broker.Cluster().ControlKey(int16(kmsg.JoinGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
		broker.Cluster().KeepControl()
		res, ok := r.ResponseKind().(*kmsg.JoinGroupResponse)
		if !ok || !away.Load() {
			return nil, nil, false
		}
		res.ErrorCode = kerr.CoordinatorLoadInProgress.Code
		return res, nil, true
	})
	h := prepareHouse(t, broker.Addr(), "http://127.0.0.1:8123/none", schemas.Live, "clickhouse.enabled=false", "http.listen=127.0.0.1:"+freePort(t))
	h.run("topics", "create")
	instance := h.start()
	get := func(path string) (code int, text string) {
		res, err := http.Get("http://" + h.conf.HTTP.Listen + path)
		if err != nil {
			return 0, ""
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	h.until("it runs", func() bool {
		_, text := get("/status")
		return strings.Contains(text, `"state":"running"`)
	})
	if code, text := get("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("the group has given nothing, and it says %d, %q", code, text)
	}
	away.Store(false)
	h.until("ready", func() bool {
		code, text := get("/readyz")
		return code == http.StatusOK && !strings.Contains(text, " 0 ")
	})
	instance.kill()
}
