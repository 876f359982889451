package brokersim

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// network carries requests and answers between clients and brokers, one message at a
// time, and lets rules decide about each.
type network struct {
	virtual kfake.VirtualNetwork

	mu    sync.Mutex
	rule  rule           // nil: everything passes
	sent  census         // all that was asked for, whatever has become of it
	links map[*link]bool // open

	moving sync.WaitGroup // the links' goroutines
}

// rule says what happens to a request, which it may only read.
type rule func(req *request) verdict

// request is one message of a client on its way.
type request struct {
	host    string // the process's name
	part    string
	key     int16
	version int16
	id      int32 // correlation
	body    []byte
}

// verdict is what happens to a request.
type verdict struct {
	phase  phase
	action action
	code   int16         // of an answer with an error
	level  int           // where in the answer it stands
	delay  time.Duration // of one that comes late
}

type phase uint8

const (
	before phase = iota // the broker has applied it
	after
)

type action uint8

const (
	pass    action = iota
	fail           // answered with an error
	cut            // the connection is closed
	late           // it, or its answer, is delayed, and all behind it
	nowhere        // it, or its answer, is lost, and all behind it on that connection
)

// host is one process on the network: after it was killed, one of the same name is
// another.
type host struct {
	net  *network
	name string
	dead bool // guarded by network.mu
}

// dialer makes the connections of a part of the process.
func (h *host) dialer(part string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		n := h.net
		far, err := n.virtual.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		client, near := net.Pipe()
		l := &link{host: h, part: part, near: near, far: far, requests: make(chan *request, 4096), answers: make(chan *waiting, 4096)}
		n.mu.Lock()
		defer n.mu.Unlock()
		if h.dead {
			far.Close()
			return nil, errors.New("network: this process has been killed")
		}
		n.links[l] = true
		n.moving.Go(l.read)
		n.moving.Go(l.forward)
		n.moving.Go(l.answer)
		return client, nil
	}
}

// kill cuts the process off: nothing that it sends from now on arrives, and nothing
// reaches it. What it has sent before arrives.
func (h *host) kill() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.dead = true
	for l := range h.net.links {
		if l.host == h {
			l.near.Close()
		}
	}
}

func (h *host) isDead() bool {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return h.dead
}

// close ends every connection, and says whose there were. What is late still arrives.
func (n *network) close() (whose []string) {
	defer n.moving.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.links {
		if !l.gone.Load() {
			whose = append(whose, l.host.name+"/"+l.part)
		}
		l.near.Close()
		l.far.Close()
	}
	return whose
}

func (n *network) setRule(r rule) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rule = r
}

func (n *network) judge(req *request) verdict {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sent.add(role(req.part), kmsg.Key(req.key), 1)
	if n.rule == nil {
		return verdict{}
	}
	return n.rule(req)
}

// latency is how long every answer takes, so that time goes by for whoever asks
// without a pause.
const latency = time.Millisecond

// link is one connection: near is the client's side, far the broker's. Three
// goroutines move messages: read takes requests from the client, forward gives them
// to the broker, answer gives its answers back, in order. A client that closes its
// side does not take back what it has sent: forward goes on with it.
type link struct {
	host      *host
	part      string // of the process
	near, far net.Conn
	requests  chan *request
	answers   chan *waiting
	gone      atomic.Bool // the client has closed its side
}

// waiting is a request that was forwarded, or an answer made up in its place.
type waiting struct {
	*request
	verdict verdict
	made    []byte // not nil: the answer; the broker was not asked
}

func (l *link) read() {
	defer close(l.requests)
	defer l.gone.Store(true)
	for {
		body, err := readFrame(l.near)
		if err != nil || len(body) < 8 {
			return
		}
		l.requests <- &request{
			host: l.host.name, part: l.part, key: int16(binary.BigEndian.Uint16(body)), version: int16(binary.BigEndian.Uint16(body[2:])),
			id: int32(binary.BigEndian.Uint32(body[4:])), body: body,
		}
	}
}

func (l *link) forward() {
	defer close(l.answers)
	for req := range l.requests {
		v := l.host.net.judge(req)
		if v.phase == before {
			switch v.action {
			case fail:
				l.answers <- &waiting{request: req, made: refuse(req, v.code, v.level)}
				continue
			case cut:
				l.near.Close()
				l.drop()
				return
			case late:
				time.Sleep(v.delay)
			case nowhere:
				l.drop()
				return
			case pass:
			}
		}
		l.answers <- &waiting{request: req, verdict: v}
		if writeFrame(l.far, req.body) != nil {
			l.drop()
			return
		}
	}
}

// drop takes what the client goes on to send, until it gives up.
func (l *link) drop() {
	for range l.requests {
	}
}

func (l *link) answer() {
	defer l.close()
	lost := false
	for w := range l.answers {
		body := w.made
		if body == nil {
			var err error
			if body, err = readFrame(l.far); err != nil {
				break
			}
		}
		if w.verdict.phase == after {
			switch w.verdict.action {
			case fail:
				body = spoil(w.request, body, w.verdict.code, w.verdict.level)
			case cut:
				l.near.Close()
				lost = true
			case late:
				time.Sleep(w.verdict.delay)
			case nowhere:
				lost = true
			case pass:
			}
		}
		time.Sleep(latency)
		if !lost && writeFrame(l.near, body) != nil {
			lost = true // the client is gone; what it has sent is still answered
		}
	}
}

// close ends both sides, and takes what is left on the way so that nobody waits.
func (l *link) close() {
	l.near.Close()
	l.far.Close()
	for range l.answers {
	}
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	delete(l.host.net.links, l)
}

// frameMax is above the largest message of any run.
const frameMax = 64 << 20

var errFrame = errors.New("network: not a message of Kafka's")

func readFrame(from io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(from, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > frameMax {
		return nil, errFrame
	}
	body := make([]byte, n)
	_, err := io.ReadFull(from, body)
	return body, err
}

func writeFrame(to io.Writer, body []byte) error {
	frame := make([]byte, 4, 4+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(body)))
	_, err := to.Write(append(frame, body...))
	return err
}
