package kafka

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// limit is how long a test waits for what must come.
const limit = 60 * time.Second

// realBroker names the environment variable with the address of a real broker on
// which the conformance tests run too.
const realBroker = "FOOTFALL_TEST_KAFKA"

// env is a broker and topics of one test.
type env struct {
	t       testing.TB
	addr    string
	cluster *kfake.Cluster // nil on a real broker
	groups  Protocol
	group   string
	input   string
	out     []string
	cl      *kgo.Client
}

// onBrokers runs a test under both group protocols on the broker in this process and,
// where there is one, on a real one.
func onBrokers(t *testing.T, partitions int32, test func(t *testing.T, e *env)) {
	for _, p := range []Protocol{Classic, Consumer} {
		t.Run("local/"+string(p), func(t *testing.T) {
			e := local(t, partitions)
			e.groups = p
			test(t, e)
		})
		t.Run("real/"+string(p), func(t *testing.T) {
			addr := os.Getenv(realBroker)
			if addr == "" {
				t.Skipf("%s is not set: give host:port of a real Kafka to run this on it too", realBroker)
			}
			e := newEnv(t, addr, nil, partitions)
			e.groups = p
			test(t, e)
		})
	}
}

func local(t testing.TB, partitions int32, opts ...kfake.Opt) *env {
	t.Helper()
	broker, err := StartLocal(LocalConfig{Options: append([]kfake.Opt{kfake.BrokerConfigs(map[string]string{
		"group.consumer.heartbeat.interval.ms": "100", "group.consumer.session.timeout.ms": "6000",
	})}, opts...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	return newEnv(t, broker.Addr(), broker.Cluster(), partitions)
}

func newEnv(t testing.TB, addr string, cluster *kfake.Cluster, partitions int32) *env {
	t.Helper()
	name := strings.ToLower(rand.Text()[:8])
	e := &env{
		t: t, addr: addr, cluster: cluster, group: "g-" + name, input: "in-" + name,
		out: []string{"triggers-" + name, "dead-" + name},
	}
	opts, err := Options(Config{Brokers: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	e.cl, err = kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.cl.Close)
	problems, err := CreateTopics(t.Context(), e.cl, TopicPlan{Input: e.input, Outputs: e.out, Partitions: partitions})
	if err != nil || len(problems) > 0 {
		t.Fatalf("create topics: %v, %v", problems, err)
	}
	return e
}

// config is that of an instance, with a short session.
func (e *env) config(instance string) Config {
	return Config{
		Brokers: []string{e.addr}, Group: e.group, Instance: instance, Topic: e.input, Protocol: e.groups,
		SessionTimeout: 6 * time.Second, HeartbeatInterval: 100 * time.Millisecond,
		TickInterval: 50 * time.Millisecond,
		Now:          func() schemas.Millis { return schemas.Millis(time.Now().UnixMilli()) },
	}
}

// session starts one, closed at the end of the test.
// session starts a session of which no predecessor has left anything under way.
func (e *env) session(conf Config) *Session {
	e.t.Helper()
	s := e.firstSession(conf)
	for _, at := range []chan *producer{s.idle, s.marking} {
		for range len(at) {
			p := <-at
			p.predecessors = 0
			at <- p
		}
	}
	return s
}

func (e *env) firstSession(conf Config) *Session {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), limit)
	defer cancel()
	s, err := New(ctx, conf, e.out...)
	if err != nil {
		e.t.Fatalf("start session %s: %v", conf.Instance, err)
	}
	e.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.Close(ctx)
	})
	return s
}

// publish writes values to a partition of the input.
func (e *env) publish(partition int32, values ...string) {
	e.t.Helper()
	for _, v := range values {
		r := &kgo.Record{Topic: e.input, Partition: partition, Key: []byte("k"), Value: []byte(v)}
		if err := e.cl.ProduceSync(e.t.Context(), r).FirstErr(); err != nil {
			e.t.Fatalf("publish: %v", err)
		}
	}
}

// transactional writes values to a partition of the input in one transaction.
func (e *env) transactional(partition int32, how kgo.TransactionEndTry, values ...string) {
	e.t.Helper()
	cl := e.producer("publisher")
	defer cl.Close()
	e.begin(cl, partition, values...)
	if err := cl.EndTransaction(e.t.Context(), how); err != nil {
		e.t.Fatalf("end: %v", err)
	}
	e.decided(e.input, partition) // what is published next must come behind the marker
}

// decided waits until nothing in a partition is undecided: markers are written after
// EndTxn has been answered.
func (e *env) decided(topic string, partition int32) {
	e.t.Helper()
	eventually(e.t, "the markers are written", func() bool {
		_, stable, end, err := e.asSession(topic).Range(e.t.Context(), topic, partition)
		if err != nil {
			e.t.Fatal(err)
		}
		return stable == end
	})
}

// asSession is a session that can only read history.
func (e *env) asSession(topic string) *Session {
	return &Session{conf: Config{Topic: topic, TransactionTimeout: 10 * time.Second}, admin: e.cl, metas: make(map[string]topicInfo)}
}

func (e *env) producer(id string) *kgo.Client {
	e.t.Helper()
	opts, err := Options(Config{Brokers: []string{e.addr}})
	if err != nil {
		e.t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(opts, kgo.TransactionalID(e.group+id), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		e.t.Fatal(err)
	}
	return cl
}

func (e *env) begin(cl *kgo.Client, partition int32, values ...string) {
	e.t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		e.t.Fatal(err)
	}
	for _, v := range values {
		r := &kgo.Record{Topic: e.input, Partition: partition, Value: []byte(v)}
		if err := cl.ProduceSync(e.t.Context(), r).FirstErr(); err != nil {
			e.t.Fatalf("publish: %v", err)
		}
	}
}

// visible returns the values of a topic's partition that a read_committed reader has,
// once everything in it is decided.
func (e *env) visible(topic string, partition int32) []string {
	e.t.Helper()
	e.decided(topic, partition)
	s := e.asSession(topic)
	start, end, err := s.Bounds(e.t.Context(), partition)
	if err != nil {
		e.t.Fatal(err)
	}
	values := []string{}
	err = s.Input(e.t.Context(), partition, start, end, func(records []worker.Record) error {
		for _, r := range records {
			if !r.Control {
				values = append(values, string(r.Value))
			}
		}
		return nil
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return values
}

// committed returns what the group has committed for a partition, as any tool sees it.
func (e *env) committed(partition int32) (offset int64, metadata string) {
	e.t.Helper()
	resp, err := kadm.NewClient(e.cl).FetchOffsets(e.t.Context(), e.group)
	if err != nil {
		e.t.Fatal(err)
	}
	if o, ok := resp.Lookup(e.input, partition); ok {
		return o.At, o.Metadata
	}
	return -1, ""
}

// output is an output of one partition at a mark; its items are not looked at.
func output(a pipeline.Assignment, next int64, n uint64) *worker.Output {
	return &worker.Output{
		Epoch: a.Epoch,
		Mark:  schemas.Mark{Partition: a.Partition, Next: next, N: n, Clock: 1000, Fired: 900, Address: "127.0.0.1:9400"},
	}
}

// records are outputs' records, one a value.
func (e *env) records(partition int32, values ...string) []*kgo.Record {
	var rs []*kgo.Record
	for _, v := range values {
		rs = append(rs, &kgo.Record{Topic: e.out[0], Partition: partition, Key: []byte("k"), Value: []byte(v)})
	}
	return rs
}

// poll polls until enough says that what was seen is enough.
func poll(t testing.TB, s *Session, enough func(b *pipeline.Batch) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var b pipeline.Batch
	for {
		if err := s.Poll(ctx, &b); err != nil {
			t.Fatalf("poll: %v", err)
		}
		if enough(&b) {
			return
		}
	}
}

// assigned polls until n partitions have been assigned, and returns them by number.
func assigned(t testing.TB, s *Session, n int) map[int32]pipeline.Assignment {
	t.Helper()
	owned := make(map[int32]pipeline.Assignment)
	poll(t, s, func(b *pipeline.Batch) bool {
		for _, p := range slices.Concat(b.Lost, b.Revoked) {
			s.Release(p)
			delete(owned, p)
		}
		for _, a := range b.Assigned {
			owned[a.Partition] = a
		}
		return len(owned) == n
	})
	return owned
}

// read polls until n records of a partition have come; markers count.
func read(t *testing.T, s *Session, partition int32, n int) []worker.Record {
	t.Helper()
	var got []worker.Record
	poll(t, s, func(b *pipeline.Batch) bool {
		for _, f := range b.Fetched {
			if f.Partition == partition {
				got = append(got, f.Records...)
			}
		}
		return len(got) >= n
	})
	return got
}

// driver polls a session on a goroutine of its own, starts what it is assigned at
// what is committed, and releases what is revoked. It ends with its context.
type driver struct {
	s    *Session
	stop context.CancelFunc
	done chan struct{}
	err  error // once done

	mu    sync.Mutex
	owned map[int32]pipeline.Assignment
	log   []string // what happened, in order
	ends  map[int32]pipeline.End
}

func drive(t *testing.T, s *Session) *driver {
	ctx, cancel := context.WithCancel(t.Context())
	d := &driver{s: s, stop: cancel, done: make(chan struct{}), owned: make(map[int32]pipeline.Assignment), ends: make(map[int32]pipeline.End)}
	go func() {
		defer close(d.done)
		d.err = d.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-d.done
	})
	return d
}

func (d *driver) run(ctx context.Context) error {
	var b pipeline.Batch
	for {
		if err := d.s.Poll(ctx, &b); err != nil {
			return err
		}
		d.mu.Lock()
		for _, p := range b.Lost {
			delete(d.owned, p)
			d.log = append(d.log, fmt.Sprintf("lost %d", p))
		}
		for _, p := range b.Revoked {
			delete(d.owned, p)
			d.log = append(d.log, fmt.Sprintf("revoked %d", p))
		}
		for _, a := range b.Assigned {
			d.owned[a.Partition] = a
			d.log = append(d.log, fmt.Sprintf("assigned %d", a.Partition))
		}
		for _, end := range b.Ends {
			d.ends[end.Partition] = end
		}
		d.mu.Unlock()
		for _, p := range b.Revoked {
			d.s.Release(p)
		}
		for _, a := range b.Assigned {
			mark, _, err := d.s.Committed(ctx, a.Partition)
			if err != nil {
				return err
			}
			d.s.Start(a.Partition, mark.Next)
		}
	}
}

// owns returns what the driver owns now, sorted.
func (d *driver) owns() []int32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	var ps []int32
	for p := range d.owned {
		ps = append(ps, p)
	}
	slices.Sort(ps)
	return ps
}

func (d *driver) assignment(p int32) (pipeline.Assignment, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, ok := d.owned[p]
	return a, ok
}

// whoseTurn is the producer that the next transaction is made with.
func whoseTurn(s *Session) *producer {
	p := <-s.idle
	s.idle <- p
	for range producers - 1 {
		s.idle <- <-s.idle
	}
	return p
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
