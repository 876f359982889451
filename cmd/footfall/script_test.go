package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
	"footfall/sources/kafka"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"footfall": main})
}

// TestScripts runs every command as a user does, and compares what it prints with
// what the scripts say. To write new output into them:
//
//	FOOTFALL_TEST_UPDATE=1 go test -run Scripts ./cmd/footfall
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       os.Getenv("FOOTFALL_TEST_UPDATE") != "",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"kafka":    startKafka,
			"refuse":   refuse,
			"records":  records,
			"instance": instance,
		},
	})
}

// startKafka ("kafka") starts a broker in this process and points footfall to it.
func startKafka(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: kafka")
	}
	broker, err := kafka.StartLocal(kafka.LocalConfig{})
	ts.Check(err)
	ts.Defer(broker.Close)
	ts.Setenv("FOOTFALL_KAFKA_BROKERS", broker.Addr())
}

func scriptClient(ts *testscript.TestScript, opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(ts.Getenv("FOOTFALL_KAFKA_BROKERS")))...)
	ts.Check(err)
	return cl
}

// refuse ("refuse FILE") writes each line of a file that the contract refuses to the
// dead-letter topic, as the engine does. An empty line stands for a tombstone.
func refuse(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: refuse FILE")
	}
	decoder, err := schemas.NewDecoder(defaultConfig().contract())
	ts.Check(err)
	cl := scriptClient(ts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer cl.Close()
	lines := bufio.NewScanner(strings.NewReader(ts.ReadFile(args[0])))
	for n := int64(0); lines.Scan(); n++ {
		d := schemas.DeadLetter{Pos: schemas.Position{Offset: n}, Time: 1714557600000, Key: []byte("u"), Headers: []schemas.Header{{Key: "trace", Value: []byte("1")}}}
		if lines.Text() != "" {
			d.Value = []byte(lines.Text())
		}
		refused, ok := decoder.Decode(d.Key, d.Value, &schemas.Event{}).(*schemas.RefusedError)
		if !ok {
			ts.Fatalf("line %d is not refused: %s", n+1, lines.Text())
		}
		d.Reason, d.Detail = refused.Reason, refused.Detail
		encoded := d.Encode("events", &schemas.OutputHeaders{N: uint64(n) + 1, Next: n + 1, Clock: d.Time, Fired: d.Time}, len(d.Value) > 2000)
		r := &kgo.Record{Topic: "dead-letters", Key: encoded.Key, Value: encoded.Value, Timestamp: time.UnixMilli(1714557600000 + n)}
		for _, h := range encoded.Headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		ts.Check(cl.ProduceSync(context.Background(), r).FirstErr())
	}
}

// records ("records TOPIC FILE") writes a topic's records into a file, one a line:
// key, value, and headers other than "sent", which tells the real time.
func records(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: records TOPIC FILE")
	}
	c := defaultConfig()
	c.Kafka.Brokers = []string{ts.Getenv("FOOTFALL_KAFKA_BROKERS")}
	var lines []string
	ts.Check(readTopic(context.Background(), c, args[0], 0, func(r *kgo.Record) error {
		line := fmt.Sprintf("%d %s %s", r.Partition, r.Key, r.Value)
		for _, h := range r.Headers {
			if h.Key != "sent" {
				line += fmt.Sprintf(" %s=%s", h.Key, h.Value)
			}
		}
		lines = append(lines, line)
		return nil
	}))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
}

// instance ("instance STATUS EXPLAIN") stands for a running instance: it answers
// /status and /explain with these files, is a member of the group, and has committed
// every partition's mark with its address.
func instance(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: instance STATUS EXPLAIN")
	}
	status, explain := ts.ReadFile(args[0]), ts.ReadFile(args[1])
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, status) })
	mux.HandleFunc("GET /explain", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer hunter2":
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":"this instance wants a token: set FOOTFALL_HTTP_TOKEN"}`)
		case r.FormValue("user") == "nobody":
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error":"user nobody has never been seen"}`)
		default:
			fmt.Fprint(w, explain)
		}
	})
	server := httptest.NewServer(mux)
	ts.Defer(server.Close)

	cl := scriptClient(ts, kgo.ConsumerGroup("footfall"), kgo.ConsumeTopics("events"), kgo.DisableAutoCommit())
	ts.Defer(cl.Close)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	adm := kadm.NewClient(cl)
	ends, err := adm.ListEndOffsets(ctx, "events")
	ts.Check(err)
	var offsets kadm.Offsets = map[string]map[int32]kadm.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		m := schemas.Mark{Partition: o.Partition, Next: o.Offset, Clock: 1714557600000, Fired: 1714557600000, N: 7, Address: strings.TrimPrefix(server.URL, "http://")}
		text, err := m.AppendText(nil)
		ts.Check(err)
		offsets.AddOffset("events", o.Partition, o.Offset, -1)
		o2 := offsets["events"][o.Partition]
		o2.Metadata = string(text)
		offsets["events"][o.Partition] = o2
	})
	committer := scriptClient(ts)
	defer committer.Close()
	ts.Check(kadm.NewClient(committer).CommitAllOffsets(ctx, "footfall", offsets))
	for {
		// Membership comes with the first poll's end; ask until the group has it.
		groups, err := adm.DescribeGroups(ctx, "footfall")
		ts.Check(err)
		if len(groups["footfall"].Members) > 0 {
			return
		}
		ts.Check(ctx.Err())
	}
}
