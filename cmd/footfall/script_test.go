package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/snapshot"
	"footfall/schemas"
	"footfall/sinks/clickhouse/chdb"
	"footfall/sinks/clickhouse/chdbtest"
	"footfall/sources/kafka"
)

func TestMain(m *testing.M) {
	if code, ran := chdb.Helper(); ran {
		os.Exit(code)
	}
	testscript.Main(suite{m}, map[string]func(){"footfall": main})
}

// suite is the tests, and the end of what they shared.
type suite struct{ *testing.M }

// shared are the folders of what tests have made once for all.
var shared []string

func (s suite) Run() int {
	code := chdbtest.Run(s.M)
	for _, dir := range shared {
		_ = os.RemoveAll(dir) // it is in the temporary folder
	}
	return code
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
			"member":   member,
			"misplace": misplace,
			"snapshot": writeSnapshot,
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

// TestNoQuestionsToTheTerminal runs a command on a terminal that never answers.
func TestNoQuestionsToTheTerminal(t *testing.T) {
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip("script(1) is not here to be the terminal")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	footfall := filepath.Join(t.TempDir(), "footfall") // see TestMain
	if err := os.Symlink(self, footfall); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), script, "-qec", footfall+" version", "/dev/null") //nolint:gosec // this test binary
	c.Env = append(os.Environ(), "TERM=xterm-256color")
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(out), "footfall ") {
		t.Errorf("got %q, want nothing but the version: a terminal that is asked may not answer", out)
	}
}

func scriptClient(ts *testscript.TestScript, opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(ts.Getenv("FOOTFALL_KAFKA_BROKERS")))...)
	ts.Check(err)
	return cl
}

// refuse ("refuse FILE [LANE]") writes each line of a file that the contract refuses to the
// dead-letter topic, as the engine does. An empty line stands for a tombstone.
func refuse(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: refuse FILE [LANE]")
	}
	decoder, err := schemas.NewDecoder(defaultConfig().contract())
	ts.Check(err)
	cl := scriptClient(ts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer cl.Close()
	lines := bufio.NewScanner(strings.NewReader(ts.ReadFile(args[0])))
	for n := int64(0); lines.Scan(); n++ {
		d := schemas.DeadLetter{Pos: schemas.Position{Offset: n}, Time: 1714557600000, Key: []byte("u"), Headers: []schemas.Header{{Key: "trace", Value: []byte("1")}}}
		for _, lane := range args[1:] {
			d.Headers = append(d.Headers, schemas.Header{Key: schemas.LaneHeader, Value: []byte(lane)})
		}
		if lines.Text() != "" {
			d.Value = []byte(lines.Text())
		}
		var refused *schemas.RefusedError
		if !errors.As(decoder.Decode(d.Key, d.Value, &schemas.Event{}), &refused) {
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
// key, value, and headers other than "sent", which tells the real time; of lane replay also
// the timestamp.
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
			if h.Key == schemas.LaneHeader && string(h.Value) == "replay" {
				line += " at=" + clock(schemas.Millis(r.Timestamp.UnixMilli()))
			}
		}
		lines = append(lines, line)
		return nil
	}))
	slices.SortStableFunc(lines, func(a, b string) int { return strings.Compare(a[:2], b[:2]) }) // partitions come in any order
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
}

// instance ("instance STATUS EXPLAIN [PROTOCOL]") stands for a running instance: it
// answers /status and /explain with these files, is a member of the group, and has
// committed every partition's mark with its address.
func instance(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: instance STATUS EXPLAIN [PROTOCOL]")
	}
	protocol := kafka.Classic
	if len(args) == 3 {
		protocol = kafka.Protocol(args[2])
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

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	committer := scriptClient(ts)
	defer committer.Close()
	adm := kadm.NewClient(committer)
	ends, err := adm.ListEndOffsets(ctx, "events")
	ts.Check(err)
	offsets := kadm.Offsets{}
	ends.Each(func(o kadm.ListedOffset) {
		m := schemas.Mark{Partition: o.Partition, Next: o.Offset, Clock: 1714557600000, Fired: 1714557600000, N: 7, Address: strings.TrimPrefix(server.URL, "http://")}
		text, err := m.AppendText(nil)
		ts.Check(err)
		offsets.Add(kadm.Offset{Topic: "events", Partition: o.Partition, At: o.Offset, LeaderEpoch: -1, Metadata: string(text)})
	})
	ts.Check(adm.CommitAllOffsets(ctx, "footfall", offsets)) // a group without members takes anyone's

	join(ctx, ts, adm, protocol, 1)
}

// member ("member") joins the group beside an instance, and answers nobody.
func member(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: member")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cl := scriptClient(ts)
	defer cl.Close()
	join(ctx, ts, kadm.NewClient(cl), kafka.Classic, 2)
}

// join makes another member of the group, and waits until there are so many.
func join(ctx context.Context, ts *testscript.TestScript, adm *kadm.Client, protocol kafka.Protocol, want int) {
	member := scriptClient(ts, append(protocol.Options(), kgo.ConsumerGroup("footfall"), kgo.ConsumeTopics("events"), kgo.DisableAutoCommit())...)
	ts.Defer(member.Close)
	for {
		// Joining takes some round trips.
		groups, err := adm.DescribeGroups(ctx, "footfall")
		ts.Check(err)
		if len(groups["footfall"].Members) >= want {
			return
		}
		consumers, err := adm.DescribeConsumerGroups(ctx, "footfall")
		ts.Check(err)
		if len(consumers["footfall"].Members) >= want {
			return
		}
		ts.Check(ctx.Err())
	}
}

// misplace ("misplace KEY") writes a record to a partition that is not its key's.
func misplace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: misplace KEY")
	}
	cl := scriptClient(ts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer cl.Close()
	n, err := partitions(context.Background(), cl, "events")
	ts.Check(err)
	r := &kgo.Record{Topic: "events", Key: []byte(args[0]), Value: []byte("{}"), Partition: (kafka.PartitionOf([]byte(args[0]), int32(n)) + 1) % int32(n)}
	ts.Check(cl.ProduceSync(context.Background(), r).FirstErr())
}

// writeSnapshot ("snapshot PARTITION NEXT N [upon NEXT N]") publishes a snapshot where footfall
// looks for them by default.
func writeSnapshot(ts *testscript.TestScript, neg bool, args []string) {
	var id snapshot.ID
	if _, err := fmt.Sscan(strings.Join(args, " "), &id.Partition, &id.Next, &id.N); neg || err != nil {
		ts.Fatalf("usage: snapshot PARTITION NEXT N [upon NEXT N]")
	}
	c := defaultConfig()
	c.Snapshots.Bucket = "file://" + ts.MkAbs("footfall-data/snapshots")
	bucket, err := openBucket(context.Background(), c)
	ts.Check(err)
	defer bucket.Close()
	store := snapshot.NewStore(snapshot.Blob{Bucket: bucket}, 3)
	var upon *snapshot.Chain
	if len(args) > 3 && args[3] == "upon" {
		before := snapshot.ID{Partition: id.Partition}
		_, err := fmt.Sscan(strings.Join(args[4:], " "), &before.Next, &before.N)
		ts.Check(err)
		upon, err = store.Open(context.Background(), before, func(r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		})
		ts.Check(err)
	}
	_, err = store.Publish(context.Background(), id, upon, func(w io.Writer) error {
		_, err := w.Write(make([]byte, 1000))
		return err
	})
	ts.Check(err)
}
