package storefront

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/schemas"
)

const topic = "events"

func broker(t testing.TB, partitions int32, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func publisher(t testing.TB, c *kfake.Cluster, cfg PublisherConfig) *Publisher {
	t.Helper()
	cfg.Brokers, cfg.Topic = c.ListenAddrs(), topic
	p, err := NewPublisher(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func publish(t testing.TB, p *Publisher, recs ...Record) {
	t.Helper()
	for _, r := range recs {
		if err := p.Publish(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

// readBack reads n records by franz-go, each partition's in order.
func readBack(t testing.TB, c *kfake.Cluster, n int, opts ...kgo.Opt) []*kgo.Record {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics(topic),
		kgo.FetchMaxPartitionBytes(16 << 20), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var recs []*kgo.Record
	for len(recs) < n {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("read %d of %d records, then: %v", len(recs), n, err)
		}
		recs = append(recs, fetches.Records()...)
	}
	return recs
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// Every key goes where franz-go's own Kafka partitioner puts it.
func TestPartitionsAreThoseOfJava(t *testing.T) {
	const partitions = 12
	c := broker(t, partitions)
	var recs []Record
	for i := range 3000 {
		key := make([]byte, i%37) // empty ones too
		for j := range key {
			key[j] = byte(i*31 + j*7)
		}
		recs = append(recs, Record{Key: key, Value: []byte(strconv.Itoa(i))})
	}
	publish(t, publisher(t, c, PublisherConfig{}), recs...)
	want := kgo.StickyKeyPartitioner(nil).ForTopic(topic)
	for _, r := range readBack(t, c, len(recs)) {
		if w := want.Partition(&kgo.Record{Key: r.Key}, partitions); int(r.Partition) != w {
			t.Fatalf("key %q: in partition %d, franz-go says %d", r.Key, r.Partition, w)
		}
	}
}

// Keys, values, headers and times arrive as given; nil and empty stay apart.
func TestRecordsArriveAsGiven(t *testing.T) {
	recs := []Record{
		{Key: []byte("k"), Value: []byte("v"), Time: 700_000_000_000, Headers: []schemas.Header{{Key: "h", Value: []byte("x")}}},
		{Key: nil, Value: []byte("no key"), Time: 700_000_000_001},
		{Key: []byte("k"), Value: nil, Time: 700_000_000_002},
		{Key: []byte{}, Value: []byte{}, Time: 700_000_000_003},
	}
	for _, lane := range []schemas.Lane{schemas.Live, schemas.Backfill, schemas.Replay} {
		for _, compression := range []string{"", "none", "gzip", "snappy", "zstd"} {
			c := broker(t, 1)
			const wall = 800_000_000_000
			p := publisher(t, c, PublisherConfig{
				Lane: lane, Compression: compression, Name: "a/b.csv", Wall: func() schemas.Millis { return wall },
			})
			before := time.Now().UnixMicro()
			publish(t, p, recs...)
			if got, want := p.Counts(), (Counts{Taken: 4, Acked: 4, Bytes: 9}); got != want {
				t.Errorf("counts: got %+v, want %+v", got, want)
			}
			for i, r := range readBack(t, c, len(recs)) {
				stamp := recs[i].Time
				if lane != schemas.Replay {
					stamp = wall
				}
				got := []any{r.Key, r.Value, r.Timestamp.UnixMilli(), header(r, "lane"), header(r, "publish"), header(r, "h")}
				want := []any{recs[i].Key, recs[i].Value, int64(stamp), lane.String(), fmt.Sprintf("a/b.csv/1/%d", i), map[bool]string{true: "x"}[i == 0]}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s, %q, record %d (-want +got):\n%s", lane, compression, i, diff)
				}
				sent, err := strconv.ParseInt(header(r, SentHeader), 10, 64)
				if now := time.Now().UnixMicro(); err != nil || sent < before || sent > now {
					t.Errorf("sent: got %q, want a time from %d to %d", header(r, SentHeader), before, now)
				}
			}
		}
	}
}

// Produce requests fail in every way that passes; nothing is lost, and every partition
// keeps its order.
func TestOrderSurvivesRetries(t *testing.T) {
	c := broker(t, 3)
	var requests atomic.Int64
	c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		switch requests.Add(1) % 4 {
		case 1:
			return nil, errors.New("connection lost"), true
		case 2:
			return refuse(req, kerr.NotLeaderForPartition.Code), nil, true
		}
		return nil, nil, false
	})
	const n = 600
	p := publisher(t, c, PublisherConfig{InFlightBytes: 20_000})
	var recs []Record
	for i := range n {
		recs = append(recs, Record{Key: []byte(strconv.Itoa(i % 50)), Value: []byte(strconv.Itoa(i))})
	}
	publish(t, p, recs...)
	last, seen := map[int32]int{}, map[int]bool{}
	for _, r := range readBack(t, c, n) {
		i, err := strconv.Atoi(string(r.Value))
		if err != nil {
			t.Fatal(err)
		}
		if i < last[r.Partition] && !seen[i] {
			t.Fatalf("partition %d: record %d comes first after %d", r.Partition, i, last[r.Partition])
		}
		last[r.Partition], seen[i] = max(i, last[r.Partition]), true
	}
	if len(seen) != n {
		t.Errorf("%d different records, want %d", len(seen), n)
	}
	if requests.Load() < 8 {
		t.Errorf("only %d requests: too few faults for this test", requests.Load())
	}
}

// refuse answers a produce request with an error for each partition.
func refuse(req kmsg.Request, code int16) kmsg.Response {
	r, ok := req.(*kmsg.ProduceRequest)
	if !ok {
		panic(fmt.Sprintf("%T is no produce request", req))
	}
	resp, ok := r.ResponseKind().(*kmsg.ProduceResponse)
	if !ok {
		panic("no produce response")
	}
	for _, rt := range r.Topics {
		t := kmsg.NewProduceResponseTopic()
		t.Topic, t.TopicID = rt.Topic, rt.TopicID
		for _, rp := range rt.Partitions {
			part := kmsg.NewProduceResponseTopicPartition()
			part.Partition, part.ErrorCode = rp.Partition, code
			t.Partitions = append(t.Partitions, part)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

// A record the broker takes for too large is refused alone; its batch arrives.
func TestTooLargeIsRefusedAlone(t *testing.T) {
	c := broker(t, 1)
	c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if r, ok := req.(*kmsg.ProduceRequest); ok && len(r.Topics[0].Partitions[0].Records) > 1000 {
			return refuse(req, kerr.MessageTooLarge.Code), nil, true
		}
		return nil, nil, false
	})
	p := publisher(t, c, PublisherConfig{Compression: "none"})
	var recs []Record
	for i := range 20 {
		value := []byte(strconv.Itoa(i))
		if i == 7 {
			value = []byte(strings.Repeat("x", 2000))
		}
		recs = append(recs, Record{Key: []byte("k"), Value: value})
	}
	publish(t, p, recs...)
	if got := p.Counts(); got.Acked != 19 || got.Refused != 1 {
		t.Errorf("counts: got %+v, want 19 acked and 1 refused", got)
	}
	for i, r := range readBack(t, c, 19) {
		if want := i + i/7 - i/14; string(r.Value) != strconv.Itoa(want) {
			t.Fatalf("record %d: got %q, want %d", i, r.Value, want)
		}
	}
}

func TestPermanentErrors(t *testing.T) {
	c := broker(t, 1)
	c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return refuse(req, kerr.InvalidTimestamp.Code), nil, true
	})
	p := publisher(t, c, PublisherConfig{})
	if err := p.Publish(t.Context(), Record{Key: []byte("k")}); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{p.Flush(), p.Publish(t.Context(), Record{}), p.Close()} {
		if err == nil || !strings.Contains(err.Error(), "publish to events/0: ") || !strings.Contains(err.Error(), "message.timestamp.after.max.ms") {
			t.Errorf("got %v, want the place, the error and what to do", err)
		}
	}
	if got := p.Counts(); got.Acked != 0 {
		t.Errorf("acked %d, want 0", got.Acked)
	}
	_, err := NewPublisher(t.Context(), PublisherConfig{Brokers: c.ListenAddrs(), Topic: "none"})
	if err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("unknown topic: got %v", err)
	}
}

// A publisher whose context ends does not hang, whatever the broker does.
func TestCancelled(t *testing.T) {
	c := broker(t, 1)
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return nil, errors.New("connection lost"), true
	})
	ctx, cancel := context.WithCancel(t.Context())
	p, err := NewPublisher(ctx, PublisherConfig{Brokers: c.ListenAddrs(), Topic: topic, InFlightBytes: 1000})
	if err != nil {
		t.Fatal(err)
	}
	publish := func() error { return p.Publish(ctx, Record{Key: []byte("k"), Value: []byte("v")}) }
	if err := publish(); err != nil { // one that is never acknowledged, for Close to tell of
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		for {
			if err := publish(); err != nil {
				done <- err
				return
			}
		}
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Publish: got %v, want context.Canceled", err)
	}
	if err := p.Close(); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: got %v, want context.Canceled", err)
	}
}

// A rate is held on average, also by a caller that is late at times.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace{rate: 1000}
		began := time.Now()
		for i := range 5001 {
			switch i {
			case 2000:
				time.Sleep(time.Second) // is caught up with
			case 4000:
				time.Sleep(3 * time.Second) // but for two of these
			}
			if err := p.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Since(began); got < 6990*time.Millisecond || got > 7010*time.Millisecond {
			t.Errorf("5,001 records at 1,000 a second took %s, want 5s and 2s lost", got)
		}
	})
}

// What is parsed is what was written, or nothing.
func FuzzParseSeries(f *testing.F) {
	f.Add("a/1/2")
	f.Add("//")
	f.Add("x/01/+2")
	f.Fuzz(func(t *testing.T, value string) {
		name, partitions, number, ok := parseSeries(value)
		if !ok {
			return
		}
		again, p2, n2, ok := parseSeries(string(appendSeries(nil, name, partitions, number)))
		if again != name || p2 != partitions || n2 != number || !ok {
			t.Fatalf("%q: %q %d %d, then %q %d %d", value, name, partitions, number, again, p2, n2)
		}
	})
}

// The broker wants TLS and a password.
func TestSecured(t *testing.T) {
	cert, pool := certificate(t)
	for _, m := range []string{"plain", "SCRAM-SHA-256", "scram-sha-512"} {
		c := broker(t, 1, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}),
			kfake.EnableSASL(), kfake.Superuser(strings.ToUpper(m), "u", "secret"))
		cfg := PublisherConfig{
			Brokers: c.ListenAddrs(), Topic: topic, SASL: m, User: "u", Password: "secret",
			TLS: &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12},
		}
		p, err := NewPublisher(t.Context(), cfg)
		if err != nil {
			t.Fatalf("%s: %v", m, err)
		}
		publish(t, p, Record{Key: []byte("k"), Value: []byte("v")})
		if got := p.Counts(); got.Acked != 1 {
			t.Errorf("%s: acked %d, want 1", m, got.Acked)
		}
		cfg.Password = "wrong"
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		if _, err := NewPublisher(ctx, cfg); err == nil {
			t.Errorf("%s: a wrong password was accepted", m)
		}
		cancel()
	}
	for _, cfg := range []PublisherConfig{{SASL: "gssapi"}, {Compression: "brotli"}} {
		if _, err := NewPublisher(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), ": use ") {
			t.Errorf("%+v: got %v, want an error that says what to use", cfg, err)
		}
	}
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// Records published a second, the broker in the same process and on the same cores.
func BenchmarkPublish(b *testing.B) {
	for _, compression := range []string{"lz4", "none"} {
		b.Run(compression, func(b *testing.B) {
			c := broker(b, 8)
			p := publisher(b, c, PublisherConfig{Compression: compression})
			value := []byte(`{"event_id":"0000000000000001","type":"view","user_id":"u12345","time":1700000000000,"session_id":"s0000000001","product_id":"p00017","category":"home.kitchen","brand":"acme","price":19.90,"currency":"EUR","channel":"email","campaign":"spring","url":"https://shop.example/p/p00017"}`)
			keys := make([][]byte, 5000)
			for i := range keys {
				keys[i] = []byte("u" + strconv.Itoa(i))
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if err := p.Publish(b.Context(), Record{Key: keys[i%len(keys)], Value: value}); err != nil {
					b.Fatal(err)
				}
				i++
			}
			if err := p.Close(); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
