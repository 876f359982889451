package pipelinetest

import (
	"context"
	"crypto/rand"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/twmb/franz-go/pkg/kgo"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/memblob"
	_ "gocloud.dev/blob/s3blob"

	"footfall/pipeline"
	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
	"footfall/schemas"
	"footfall/sinks/triggers"
	"footfall/sources/kafka"
)

func now() schemas.Millis { return schemas.Millis(time.Now().UnixMilli()) }

func TestLog(t *testing.T) {
	Run(t, func(*testing.T) Edges {
		log := NewLog(2, now)
		return Edges{
			Join: func(*testing.T) Process {
				m := log.Join()
				m.Ends = 10 * time.Millisecond
				m.Give(0, 1)
				return m
			},
			Kill:    func(*testing.T, Process) {},
			Publish: func(_ *testing.T, n int32, records ...worker.Record) { log.Publish(n, records...) },
		}
	})
}

// member is what cmd puts together of a process on Kafka.
type member struct {
	*triggers.Sink
	inward
}

// inward is the session's half of the edges; it has the same names for lower things.
type inward interface {
	Poll(ctx context.Context, into *pipeline.Batch) error
	Start(partition int32, offset int64)
	Release(partition int32)
	Bounds(ctx context.Context, partition int32) (start, end int64, err error)
	Input(ctx context.Context, partition int32, from, to int64, each func([]worker.Record) error) error
}

// TestKafka runs the suite under both group protocols, on the broker in this process
// and, if FOOTFALL_TEST_KAFKA names one, on a real one.
func TestKafka(t *testing.T) {
	for _, p := range []kafka.Protocol{kafka.Classic, kafka.Consumer} {
		t.Run("local/"+string(p), func(t *testing.T) {
			broker, err := kafka.StartLocal(kafka.LocalConfig{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(broker.Close)
			Run(t, func(t *testing.T) Edges { return onKafka(t, broker.Addr(), p) })
		})
		t.Run("real/"+string(p), func(t *testing.T) {
			addr := os.Getenv("FOOTFALL_TEST_KAFKA")
			if addr == "" {
				t.Skip("FOOTFALL_TEST_KAFKA is not set: give host:port of a real Kafka to run this on it too")
			}
			Run(t, func(t *testing.T) Edges { return onKafka(t, addr, p) })
		})
	}
}

func onKafka(t *testing.T, addr string, groups kafka.Protocol) Edges {
	t.Helper()
	name := strings.ToLower(rand.Text()[:8])
	input, outputs := "in-"+name, []string{"triggers-" + name, "muted-" + name, "dead-" + name}
	source := kafka.Config{
		Brokers: []string{addr}, Group: "g-" + name, Instance: "a", Topic: input, Now: now, Protocol: groups,
		HeartbeatInterval: 100 * time.Millisecond, SessionTimeout: 6 * time.Second,
	}
	opts, err := kafka.Options(source)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	problems, err := kafka.CreateTopics(t.Context(), cl, kafka.TopicPlan{Input: input, Outputs: outputs, Partitions: 2})
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	stop := func(s *kafka.Session) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		s.Close(ctx)
	}
	return Edges{
		Join: func(t *testing.T) Process {
			s, err := kafka.New(t.Context(), source, outputs...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { stop(s) })
			sink, err := triggers.New(triggers.Config{
				Group: source.Group, Input: input, Triggers: outputs[0], Muted: outputs[1], DeadLetters: outputs[2],
				Currency: "EUR", Now: now, Wait: 20 * time.Second,
			}, s)
			if err != nil {
				t.Fatal(err)
			}
			return member{sink, s}
		},
		Kill: func(_ *testing.T, p Process) { stop(p.(member).inward.(*kafka.Session)) },
		Publish: func(t *testing.T, n int32, records ...worker.Record) {
			t.Helper()
			for _, r := range records {
				rec := &kgo.Record{Topic: input, Partition: n, Key: r.Key, Value: r.Value, Timestamp: time.UnixMilli(int64(r.Time))}
				if err := cl.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		},
	}
}

func TestBuckets(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		RunBucket(t, func(*testing.T) snapshot.Bucket { return NewBucket() })
	})
	for scheme, address := range map[string]func(t *testing.T) string{
		"mem":  func(*testing.T) string { return "mem://" },
		"file": func(t *testing.T) string { return "file://" + t.TempDir() + "?no_tmp_dir=true" },
		"s3":   startS3,
	} {
		t.Run(scheme, func(t *testing.T) {
			RunBucket(t, func(t *testing.T) snapshot.Bucket {
				b, err := blob.OpenBucket(t.Context(), address(t))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = b.Close() })
				return snapshot.Blob{Bucket: b}
			})
		})
	}
}

// startS3 serves an object store on loopback, of one bucket, and returns that one's URL.
func startS3(t *testing.T) string {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	store := s3mem.New()
	if err := store.CreateBucket("snapshots"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(store).Server())
	t.Cleanup(server.Close)
	return "s3://snapshots?region=eu-west-1&use_path_style=true&endpoint=" + url.QueryEscape(server.URL)
}
