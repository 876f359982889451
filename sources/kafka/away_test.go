package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline"
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

// The broker that is the group's coordinator is gone, and another one takes its place:
// the committed mark is asked there.
func TestCoordinatorGone(t *testing.T) {
	broker, err := StartLocal(LocalConfig{Options: []kfake.Opt{kfake.NumBrokers(3), kfake.GroupMinSessionTimeout(200 * time.Millisecond)}})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	cluster := broker.Cluster()
	e := newEnv(t, broker.Addr(), cluster, 1)
	conf := e.config("a")
	conf.Brokers, conf.SessionTimeout = cluster.ListenAddrs(), time.Second
	connections := newSwitch()
	conf.Options = []kgo.Opt{kgo.Dialer(connections.dial)}
	s := e.session(conf)
	a := assigned(t, s, 1)[0]
	commitUntilDone(t, s, e.records(0, "x"), output(a, 1, 1))
	if mark, found, err := s.Committed(t.Context(), 0); err != nil || !found || mark.N != 1 {
		t.Fatalf("before: got %+v, %t, %v", mark, found, err)
	}
	if err := cluster.RemoveNode(cluster.CoordinatorFor(e.group)); err != nil {
		t.Fatal(err)
	}
	connections.sever()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if mark, found, err := s.Committed(ctx, 0); err != nil || !found || mark.N != 1 {
		t.Errorf("without its coordinator: got %+v, %t, %v", mark, found, err)
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

// What was given up may be written behind the coordinator's back: a transaction that is
// aborted ends it, and the next one has nothing of it.
func TestWhatWentAstrayIsSwept(t *testing.T) {
	onBrokers(t, 2, func(t *testing.T, e *env) {
		s := e.session(e.config("a"))
		a := assigned(t, s, 2)[0]
		commitUntilDone(t, s, e.records(0, "before"), output(a, 1, 1))
		for range producers {
			p := <-s.idle
			for _, r := range e.records(1, "stray", "another") {
				p.strayed(r)
			}
			if len(p.astray) != 1 {
				t.Fatalf("%d records for one partition", len(p.astray))
			}
			p.sound = false
			s.idle <- p
		}
		for n := range uint64(producers) {
			commitUntilDone(t, s, e.records(0, fmt.Sprint("after", n)), output(a, 2+int64(n), 2+n))
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
			if len(p.astray) != 0 {
				t.Errorf("%s: %d are still astray", p.id, len(p.astray))
			}
			s.idle <- p
		}
	})
}
