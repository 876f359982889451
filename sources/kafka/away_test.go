package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

// switchable connections, to end a process without its knowing.
type connSwitch struct {
	mu    sync.Mutex
	conns []net.Conn
	dead  bool
}

func newSwitch() *connSwitch { return &connSwitch{} }

func (c *connSwitch) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c.mu.Lock()
	dead := c.dead
	c.mu.Unlock()
	if dead {
		return nil, errors.New("dead")
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		c.mu.Lock()
		c.conns = append(c.conns, conn)
		c.mu.Unlock()
	}
	return conn, err
}

// sever closes every connection; new ones may be made.
func (c *connSwitch) sever() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// kill closes every connection, and allows no new one.
func (c *connSwitch) kill() {
	c.mu.Lock()
	c.dead = true
	c.mu.Unlock()
	c.sever()
}

// The broker that is the group's coordinator is gone, and nothing else is: another one takes
// its place, and the committed mark is asked there.
func TestCoordinatorGone(t *testing.T) {
	for _, protocol := range []Protocol{Classic, Consumer} {
		t.Run(string(protocol), func(t *testing.T) { coordinatorGone(t, protocol) })
	}
}

func coordinatorGone(t *testing.T, protocol Protocol) {
	broker, err := StartLocal(LocalConfig{Options: []kfake.Opt{kfake.NumBrokers(3), kfake.GroupMinSessionTimeout(200 * time.Millisecond), kfake.BrokerConfigs(map[string]string{
		"group.consumer.heartbeat.interval.ms": "100", "group.consumer.session.timeout.ms": "60000",
	})}})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	cluster := broker.Cluster()
	e := newEnv(t, broker.Addr(), cluster, 1)
	e.groups = protocol
	conf := e.config("a")
	conf.Brokers, conf.SessionTimeout = cluster.ListenAddrs(), time.Second
	connections := newSwitch()
	conf.Options = []kgo.Opt{kgo.Dialer(connections.dial)}
	coordinator := cluster.CoordinatorFor(e.group)
	for _, topic := range append(slices.Clone(e.out), e.input) { // a leader that is gone makes a client ask who there is
		if err := cluster.MoveTopicPartition(topic, 0, (coordinator+1)%3); err != nil {
			t.Fatal(err)
		}
	}
	s := e.session(conf)
	a := assigned(t, s, 1)[0]
	commitUntilDone(t, s, e.records(0, "x"), output(a, 1, 1))
	if mark, found, err := s.Committed(t.Context(), 0); err != nil || !found || mark.N != 1 {
		t.Fatalf("before: got %+v, %t, %v", mark, found, err)
	}
	if err := cluster.RemoveNode(coordinator); err != nil {
		t.Fatal(err)
	}
	connections.sever()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if mark, found, err := s.Committed(ctx, 0); err != nil || !found || mark.N != 1 {
		t.Errorf("without its coordinator: got %+v, %t, %v", mark, found, err)
	}
}

// A broker that has to have old segments brought from an object store answers with nothing
// where they take longer than it may wait: it is given longer.
func TestSegmentsThatTakeTheirTime(t *testing.T) {
	e := local(t, 1)
	s := e.session(e.config("a"))
	e.publish(0, "x")
	e.cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		fetch := req.(*kmsg.FetchRequest)
		if fetch.MaxWaitMillis >= 300 || len(fetch.Topics) != 1 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		topic, part := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
		topic.Topic, topic.TopicID = fetch.Topics[0].Topic, fetch.Topics[0].TopicID
		part.HighWatermark, part.LastStableOffset = 1, 1
		topic.Partitions = append(topic.Partitions, part)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	records, next, err := s.Fetch(t.Context(), e.input, 0, 0)
	if err != nil || len(records) != 1 || next != 1 {
		t.Errorf("got %d records, go on at %d, %v; want 1", len(records), next, err)
	}
}

// What History can't learn because no broker answers is not an answer: who asked asks
// again. What the brokers say is one.
func TestNoAnswerFromTheBrokers(t *testing.T) {
	broker, err := StartLocal(LocalConfig{})
	if err != nil {
		t.Fatal(err)
	}
	e := newEnv(t, broker.Addr(), broker.Cluster(), 1)
	e.publish(0, "a")
	conf := e.config("a")
	conf.Options = []kgo.Opt{kgo.RetryTimeout(500 * time.Millisecond)}
	s := e.session(conf)
	if _, _, err := s.Bounds(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Bounds(t.Context(), 7); err == nil || errors.Is(err, pipeline.ErrAway) {
		t.Errorf("a partition that does not exist: got %v, want an answer", err)
	}
	broker.Close()
	if _, _, err := s.Bounds(t.Context(), 0); !errors.Is(err, pipeline.ErrAway) {
		t.Errorf("a broker that is gone: got %v, want one that wraps %q", err, pipeline.ErrAway)
	}
}

// What goes by itself has whoever reads history ask again; of the rest he hears.
func TestUnanswered(t *testing.T) {
	for _, err := range []error{kerr.LeaderNotAvailable, kerr.NotLeaderForPartition, kerr.UnknownServerError, kerr.KafkaStorageError, io.EOF, context.DeadlineExceeded} {
		if err := fmt.Errorf("fetch: %w", err); !unanswered(err) {
			t.Errorf("%v: it goes by itself", err)
		}
	}
	for _, err := range []error{kerr.TopicAuthorizationFailed, kerr.UnknownTopicOrPartition, kerr.OffsetOutOfRange, context.Canceled, kgo.ErrClientClosed, kgo.ErrMaxDecompress} {
		if err := fmt.Errorf("fetch: %w", err); unanswered(err) {
			t.Errorf("%v: asking again would not mend it", err)
		}
	}
}

// What was given up may be written behind the coordinator's back: a transaction that is
// aborted ends it, and the next one has nothing of it.
func TestWhatWentAstrayIsSwept(t *testing.T) {
	onBrokers(t, 2, func(t *testing.T, e *env) {
		s := e.session(e.config("a"))
		a := assigned(t, s, 2)[0]
		commitUntilDone(t, s, e.records(0, "before"), output(a, 1, 1))
		for range producers {
			p := <-s.idle
			p.lost(e.records(1, "stray", "another"), []markText{{partition: 0, next: 99, text: "stray"}}, errors.New("no answer"))
			if len(p.astray) != 1 {
				t.Fatalf("%d records for one partition", len(p.astray))
			}
			p.sound = false
			s.idle <- p
		}
		for n := range uint64(producers) {
			commitUntilDone(t, s, e.records(0, fmt.Sprint("after", n)), output(a, 2+int64(n), 2+n))
		}
		p := <-s.marking
		p.lost(nil, []markText{{partition: 0, next: 99, text: "stray"}}, errors.New("no answer"))
		p.sound = false
		s.marking <- p
		commitUntilDone(t, s, nil, output(a, 2+producers, 1+producers))
		if mark, found, err := s.Committed(t.Context(), 0); err != nil || !found || mark.Next != 2+producers {
			t.Errorf("committed: got %+v, %v, %v, want what was committed last", mark, found, err)
		}
		if got := e.visible(e.out[0], 1); len(got) != 0 {
			t.Errorf("visible: %q, want nothing of what went astray", got)
		}
		ends, err := kadm.NewClient(e.cl).ListEndOffsets(t.Context(), e.out[0])
		if err != nil {
			t.Fatal(err)
		}
		if end, _ := ends.Lookup(e.out[0], 1); end.Offset != 2*producers { // a record and its marker
			t.Errorf("it ends at offset %d: want a record and an abort of each producer", end.Offset)
		}
		for range producers {
			p := <-s.idle
			if len(p.astray)+len(p.marks) != 0 {
				t.Errorf("%s: %d are still astray", p.id, len(p.astray)+len(p.marks))
			}
			s.idle <- p
		}
	})
}

// A broker that was killed may load an older state of its transactions (package comment),
// and then knows nothing of one that was under way: no marker would ever end it, and its
// offsets could never be read again. Here the state is written back by hand.
func TestForgottenByAKilledBroker(t *testing.T) {
	for name, note := range map[string]func(p *producer, d doubt){
		"before its commit was asked for": func(p *producer, d doubt) { p.lost(d.records, d.marks, errors.New("no answer")) },
		"and its commit was asked for":    func(p *producer, d doubt) { p.doubt = &d },
	} {
		t.Run(name, func(t *testing.T) { forgottenIsSwept(t, note) })
	}
}

func forgottenIsSwept(t *testing.T, note func(p *producer, d doubt)) {
	addr, script, dir := os.Getenv(realBroker), os.Getenv("FOOTFALL_TEST_BROKER"), os.Getenv("FOOTFALL_TEST_BROKER_DIR")
	if addr == "" || script == "" {
		t.Skip("needs a real Kafka that may be killed: make test-kafka")
	}
	e := newEnv(t, addr, nil, 2)
	s := e.session(e.config("a"))
	a := assigned(t, s, 2)[0]
	commitUntilDone(t, s, e.records(0, "before"), output(a, 1, 1))
	p := <-s.idle
	if err := p.renew(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	// All of a transaction but its end, and what the coordinator knew before it began.
	lost, marks := e.records(1, "forgotten"), []markText{{partition: 0, next: 99, text: "forgotten"}}
	id, epoch, err := p.cl.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(p.cl.BeginTransaction(), s.produce(t.Context(), p, lost),
		s.addOffsets(t.Context(), p, id, epoch, membership{generation: -1}, cut{marks: marks}))
	if err != nil {
		t.Fatal(err)
	}
	forget(t, addr, p.id, id, epoch)
	for _, do := range []string{"kill9", "restart"} {
		if out, err := exec.CommandContext(t.Context(), script, do, dir).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", do, err, out)
		}
	}
	note(p, doubt{pid: id, epoch: epoch, parts: s.partsOf(p, id, epoch, lost, true), records: lost, marks: marks})
	p.sound = false
	s.idle <- p
	a = assigned(t, s, 2)[0] // whoever is killed forgets its groups' members too
	for n := range uint64(producers) {
		commitUntilDone(t, s, e.records(0, fmt.Sprint("after", n)), output(a, 2+int64(n), 2+n))
	}
	if mark, found, err := s.Committed(t.Context(), 0); err != nil || !found || mark.Next != 1+producers {
		t.Errorf("committed: got %+v, %v, %v, want what was committed last", mark, found, err)
	}
	if _, stable, end, err := s.Range(t.Context(), e.out[0], 1); err != nil || stable != end {
		t.Errorf("the topic is decided until %d of %d (%v)", stable, end, err)
	}
	if got := e.visible(e.out[0], 1); len(got) != 0 {
		t.Errorf("visible: %q, want nothing of what was forgotten", got)
	}
}

// Of a transaction in doubt that was ended, however, nothing is swept.
func TestADoubtThatIsEnded(t *testing.T) {
	onBrokers(t, 2, func(t *testing.T, e *env) {
		s := e.session(e.config("a"))
		a := assigned(t, s, 2)[0]
		commitUntilDone(t, s, e.records(0, "before"), output(a, 1, 1))
		for range producers {
			p := <-s.idle
			if p.cl != nil {
				id, epoch, err := p.cl.ProducerID(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				p.doubt = &doubt{pid: id, epoch: epoch, records: e.records(0, "before"), marks: []markText{{partition: 0, next: 1}}}
				p.sound = false
			}
			s.idle <- p
		}
		for n := range uint64(producers) {
			commitUntilDone(t, s, e.records(0, fmt.Sprint("after", n)), output(a, 2+int64(n), 2+n))
		}
		if got := e.visible(e.out[0], 0); len(got) != 1+producers {
			t.Errorf("visible: %q", got)
		}
		ends, err := kadm.NewClient(e.cl).ListEndOffsets(t.Context(), e.out[0])
		if err != nil {
			t.Fatal(err)
		}
		if end, _ := ends.Lookup(e.out[0], 0); end.Offset != 2*(1+producers) { // a record and its marker
			t.Errorf("it ends at offset %d: want nothing but what was said", end.Offset)
		}
	})
}

// A doubt of which nothing can be learnt is given up, and its producer goes on.
func TestADoubtOfWhichNothingIsLearnt(t *testing.T) {
	e := local(t, 2)
	s := e.session(e.config("a"))
	a := assigned(t, s, 2)[0]
	commitUntilDone(t, s, e.records(0, "before"), output(a, 1, 1))
	for range producers {
		p := <-s.idle
		p.doubt = &doubt{pid: 1, epoch: 1, records: e.records(0, "before"), marks: []markText{{partition: 0, next: 1}}}
		p.sound = false
		s.idle <- p
	}
	e.cluster.ControlKey(int16(kmsg.OffsetFetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		if topics := req.(*kmsg.OffsetFetchRequest).Groups[0].Topics; len(topics) != 1 || len(topics[0].Partitions) != 1 {
			return nil, nil, false // the member's own
		}
		resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
		group := kmsg.NewOffsetFetchResponseGroup()
		group.Group, group.ErrorCode = e.group, kerr.GroupIDNotFound.Code
		resp.Groups = append(resp.Groups, group)
		return resp, nil, true
	})
	for n := range uint64(producers) {
		if err := s.Transact(t.Context(), e.records(0, fmt.Sprint("after", n)), []*worker.Output{output(a, 2+int64(n), 2+n)}); err != nil {
			t.Fatal(err)
		}
	}
}

// A sweep that the broker has aborted for its age says nothing of another process.
func TestASweepThatGrowsOld(t *testing.T) {
	e := local(t, 1)
	conf := e.config("a")
	conf.TransactionTimeout = 2 * time.Second
	s := e.session(conf)
	p := <-s.idle
	p.strayed(e.records(0, "astray")...)
	p.sound = false
	s.idle <- p
	e.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.SleepControl(func() { time.Sleep(1200 * time.Millisecond) })
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, topic := range req.(*kmsg.ProduceRequest).Topics {
			to := kmsg.ProduceResponseTopic{Topic: topic.Topic, TopicID: topic.TopicID}
			for _, p := range topic.Partitions {
				part := kmsg.NewProduceResponseTopicPartition()
				part.Partition, part.ErrorCode = p.Partition, kerr.InvalidProducerEpoch.Code
				to.Partitions = append(to.Partitions, part)
			}
			resp.Topics = append(resp.Topics, to)
		}
		return resp, nil, true
	})
	if _, _, err := s.Committed(t.Context(), 0); err != nil {
		t.Errorf("got %v", err)
	}
	if err := s.owns.failed(); err != nil || !p.sound {
		t.Errorf("the session has ended: %v, or the sweep was not made again: %v", err, p.sound)
	}
}

// forget writes, to the log of the transactions' coordinator, that a producer has no
// transaction. Of clients only the one of Kafka's own tools may.
func forget(t *testing.T, addr, id string, producer int64, epoch int16) {
	t.Helper()
	const topic = "__transaction_state"
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ClientID("__admin_client"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	infos, err := lookUp(t.Context(), cl, topic)
	if err != nil {
		t.Fatal(err)
	}
	be := binary.BigEndian
	key := be.AppendUint16(be.AppendUint16(nil, 0), uint16(len(id))) // version, and the id
	key = append(key, id...)
	value := be.AppendUint64(be.AppendUint16(nil, 0), uint64(producer)) // version, and TransactionLogValue
	value = be.AppendUint32(be.AppendUint16(value, uint16(epoch)), 60_000)
	value = append(value, 0)                       // Empty
	value = be.AppendUint32(value, math.MaxUint32) // no partitions
	value = be.AppendUint64(value, uint64(time.Now().UnixMilli()))
	value = be.AppendUint64(value, math.MaxUint64) // not begun
	r := &kgo.Record{Topic: topic, Partition: GroupPartition(id, int32(len(infos[topic].leaders))), Key: key, Value: value}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// closing is the address of a proxy that takes connections and closes them at once, because
// nobody is behind it.
func closing(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	return listener.Addr().String()
}

// A session begins although the brokers, which are on their way up, close its first
// connections. Where they go on to, the error says what is mostly wrong then.
func TestBeginsWhileBrokersComeUp(t *testing.T) {
	e := local(t, 1)
	proxy := closing(t)
	through := func(closed int32) Config {
		var dials atomic.Int32
		conf := e.config("a")
		conf.Options = []kgo.Opt{kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials.Add(1) <= closed {
				addr = proxy
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		})}
		return conf
	}
	e.session(through(6))
	_, err := New(t.Context(), through(math.MaxInt32), e.out...)
	if err == nil || !strings.Contains(err.Error(), "check the address, TLS and SASL") {
		t.Errorf("got %v, want it to say what to check", err)
	}
}

// A connection that is closed at once is no answer of a broker that has let us in before.
func TestClosedAtOnceIsNoAnswer(t *testing.T) {
	e := local(t, 1)
	closed := closing(t)
	var proxy atomic.Bool
	connections := newSwitch()
	conf := e.config("a")
	conf.Options = []kgo.Opt{kgo.RetryTimeout(500 * time.Millisecond), kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		if proxy.Load() {
			addr = closed
		}
		return connections.dial(ctx, network, addr)
	})}
	s := e.session(conf)
	proxy.Store(true)
	connections.sever()
	if _, err := s.listOffsets(t.Context(), e.input, []int32{0}, offsetStart); !errors.Is(err, pipeline.ErrAway) {
		t.Errorf("got %v, want one that wraps %q", err, pipeline.ErrAway)
	}
}
