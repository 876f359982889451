package kafka

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

var (
	chaosSeed  = flag.Uint64("chaos.seed", 1, "first seed of TestChaos")
	chaosSeeds = flag.Int("chaos.seeds", 2, "how many seeds TestChaos runs")
)

// Instances copy the input to the output, numbering what they say, while
// connections break, requests fail, and instances are killed and started again.
// In the end the output is the input, once, in order, numbered without a gap.
func TestChaos(t *testing.T) {
	for i := range *chaosSeeds {
		seed := *chaosSeed + uint64(i)
		for _, p := range []Protocol{Classic, Consumer} {
			t.Run(fmt.Sprint("seed=", seed, "/", p), func(t *testing.T) {
				e := local(t, 4, kfake.GroupMinSessionTimeout(200*time.Millisecond),
					kfake.BrokerConfigs(map[string]string{"group.consumer.session.timeout.ms": "1000"}))
				e.groups = p
				chaos(t, e, seed, e.fault)
			})
		}
	}
}

// The same with connections broken and instances killed on a real broker, whose
// markers come late and whose transactions overlap.
func TestChaosReal(t *testing.T) {
	onBrokers(t, 4, func(t *testing.T, e *env) {
		if e.cluster != nil {
			t.Skip("TestChaos does more")
		}
		chaos(t, e, *chaosSeed, func(*rand.Rand) {})
	})
}

func chaos(t *testing.T, e *env, seed uint64, fault func(*rand.Rand)) {
	rng := rand.New(rand.NewPCG(seed, 0))
	const records = 600
	ctx, cancel := context.WithTimeout(t.Context(), 3*limit)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()

	live := make([]*copier, 3)
	for i := range live {
		live[i] = e.copier(ctx, &running, fmt.Sprint("i", i))
	}
	want := make([][]string, 4)
	for i := range records {
		p := int32(rng.IntN(4))
		v := fmt.Sprint("v", i)
		if rng.IntN(4) == 0 {
			v = "skip" // nothing is said about it
		} else {
			want[p] = append(want[p], v)
		}
		e.publish(p, v)
		time.Sleep(time.Duration(rng.IntN(4)) * time.Millisecond)
		switch rng.IntN(200) {
		case 0, 1, 2:
			live[rng.IntN(3)].cut.sever()
		case 3, 4, 5, 6:
			fault(rng)
		case 7:
			victim := rng.IntN(3)
			live[victim].kill()
			live[victim] = e.copier(ctx, &running, fmt.Sprint("i", victim))
		}
	}
	for p := range int32(4) {
		_, end, err := e.asSession(e.input).Bounds(ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(limit)
		for offset := int64(-1); offset != end; offset, _ = e.committed(p) {
			if time.Now().After(deadline) {
				t.Fatalf("seed %d: partition %d: committed %d of %d", seed, p, offset, end)
			}
			for i, c := range live {
				if c.fenced() { // by what it was replaced with, or a fault: a supervisor starts it again
					live[i] = e.copier(ctx, &running, c.name)
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	for p, want := range want {
		for i := range want {
			want[i] = fmt.Sprint(i+1, " ", want[i])
		}
		if got := e.visible(e.out[0], int32(p)); !slices.Equal(got, want) {
			t.Errorf("seed %d: partition %d: got %d outputs, want %d; first difference at %d", seed, p, len(got), len(want), difference(got, want))
		}
	}
}

func difference(a, b []string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// fault makes one of the next requests of a transaction fail.
func (e *env) fault(rng *rand.Rand) {
	faults := []struct {
		key kmsg.Key
		err *kerr.Error
	}{
		{kmsg.Produce, kerr.RequestTimedOut},
		{kmsg.Produce, kerr.UnknownServerError},
		{kmsg.Produce, kerr.NotLeaderForPartition},
		{kmsg.TxnOffsetCommit, kerr.UnknownServerError},
		{kmsg.TxnOffsetCommit, kerr.NotCoordinator},
		{kmsg.TxnOffsetCommit, kerr.IllegalGeneration},
		{kmsg.TxnOffsetCommit, kerr.UnknownMemberID},
		{kmsg.EndTxn, kerr.UnknownServerError},
		{kmsg.EndTxn, kerr.RequestTimedOut},
		{kmsg.EndTxn, kerr.ConcurrentTransactions},
		{kmsg.OffsetCommit, kerr.RequestTimedOut},
		{kmsg.Heartbeat, kerr.UnknownMemberID},
		{kmsg.ConsumerGroupHeartbeat, kerr.UnknownMemberID},
		{kmsg.ConsumerGroupHeartbeat, kerr.FencedMemberEpoch},
		{kmsg.ConsumerGroupHeartbeat, kerr.NotCoordinator},
		{kmsg.InitProducerID, kerr.CoordinatorLoadInProgress},
		{kmsg.OffsetFetch, kerr.UnstableOffsetCommit},
		{kmsg.Fetch, kerr.UnknownServerError},
	}
	f := faults[rng.IntN(len(faults))]
	e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{f.key}, Err: f.err, Count: 1 + rng.IntN(3), When: func(req kmsg.Request) bool {
		produce, ok := req.(*kmsg.ProduceRequest)
		return !ok || produce.TransactionID != nil // the publisher's are its own affair
	}})
}

// copier is an instance that says of each record what it was.
type copier struct {
	e    *env
	name string
	cut  *connSwitch
	stop context.CancelFunc

	mu     sync.Mutex
	failed error
}

// standing is where a partition stands.
type standing struct {
	a    pipeline.Assignment
	n    uint64
	next int64
}

func (e *env) copier(ctx context.Context, running *sync.WaitGroup, name string) *copier {
	ctx, stop := context.WithCancel(ctx)
	c := &copier{e: e, name: name, cut: newSwitch(), stop: stop}
	running.Go(func() {
		err := c.run(ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.failed = err
	})
	return c
}

// kill ends it as SIGKILL would: nothing of it reaches the broker any more.
func (c *copier) kill() {
	c.cut.kill()
	c.stop()
}

func (c *copier) fenced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed != nil && !errors.Is(c.failed, context.Canceled)
}

func (c *copier) run(ctx context.Context) error {
	conf := c.e.config(c.name)
	conf.SessionTimeout = 6 * time.Second
	if c.e.cluster != nil {
		conf.SessionTimeout = time.Second
	}
	conf.TransactionTimeout = 2 * time.Second
	conf.RebalanceTimeout, conf.RevokeLimit = 2*time.Second, 500*time.Millisecond
	conf.Options = []kgo.Opt{kgo.Dialer(c.cut.dial)}
	s, err := New(ctx, conf, c.e.out...)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Close(ctx)
	}()
	places := make(map[int32]*standing)
	var b pipeline.Batch
	for {
		if err := s.Poll(ctx, &b); err != nil {
			return err
		}
		for _, p := range slices.Concat(b.Lost, b.Revoked) {
			delete(places, p)
			s.Release(p)
		}
		for _, a := range b.Assigned {
			mark, _, err := s.Committed(ctx, a.Partition)
			if err != nil {
				return err
			}
			places[a.Partition] = &standing{a, mark.N, mark.Next}
			s.Start(a.Partition, mark.Next)
		}
		for _, f := range b.Fetched {
			if pl := places[f.Partition]; pl != nil {
				if err := c.say(ctx, s, pl, f); err != nil {
					return err
				}
				if pl.next < 0 {
					delete(places, f.Partition)
				}
			}
		}
	}
}

// say copies one run of records, and commits until it has happened or the
// partition is lost, as the pipeline does.
func (c *copier) say(ctx context.Context, s *Session, pl *standing, f pipeline.Fetched) error {
	n, next := pl.n, pl.next
	var values []string
	for _, r := range f.Records {
		if r.Offset < next {
			return fmt.Errorf("partition %d: offset %d after %d", f.Partition, r.Offset, next)
		}
		next = r.Offset + 1
		if string(r.Value) != "skip" {
			n++
			values = append(values, strconv.FormatUint(n, 10)+" "+string(r.Value))
		}
	}
	out := output(pl.a, next, n)
	for ctx.Err() == nil {
		err := s.Transact(ctx, c.e.records(f.Partition, values...), []*worker.Output{out})
		var lost *pipeline.LostError
		switch {
		case err == nil:
			pl.n, pl.next = n, next
			return nil
		case errors.As(err, &lost):
			pl.next = -1
			return nil
		case errors.Is(err, pipeline.ErrFenced), errors.Is(err, pipeline.ErrPermanent):
			return err
		case errors.Is(err, pipeline.ErrAborted):
			time.Sleep(time.Millisecond)
		default:
			mark, _, err := s.Committed(ctx, f.Partition)
			switch {
			case err != nil:
				return err
			case mark.N == n && mark.Next == next:
				pl.n, pl.next = n, next
				return nil
			case mark.N != pl.n || (mark.Next != pl.next && mark.Next != 0):
				pl.next = -1 // another's
				return nil
			}
		}
	}
	return ctx.Err()
}
