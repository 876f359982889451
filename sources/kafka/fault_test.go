package kafka

import (
	"context"
	"errors"
	"slices"
	"strings"
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

// Whatever a request of the transaction is answered with, or is not: the error says
// what is true, the broker has all or nothing, and sending again gives each record
// once.
func TestTransactUnderFaults(t *testing.T) {
	for _, c := range []struct {
		name string
		key  kmsg.Key
		err  *kerr.Error
		want error // nil: the client gets over it by itself
	}{
		{"produce times out and is written", kmsg.Produce, kerr.RequestTimedOut, nil},
		{"produce finds no leader", kmsg.Produce, kerr.NotLeaderForPartition, nil},
		{"produce fails at the broker", kmsg.Produce, kerr.UnknownServerError, pipeline.ErrAborted},
		{"produce is not allowed", kmsg.Produce, kerr.TopicAuthorizationFailed, pipeline.ErrPermanent},
		{"produce of a bad record", kmsg.Produce, kerr.InvalidRecord, pipeline.ErrPermanent},
		{"producer fenced while producing", kmsg.Produce, kerr.ProducerFenced, pipeline.ErrFenced},
		{"offsets while the last transaction ends", kmsg.TxnOffsetCommit, kerr.ConcurrentTransactions, nil},
		{"offsets at a loading coordinator", kmsg.TxnOffsetCommit, kerr.CoordinatorLoadInProgress, nil},
		{"offsets at the wrong coordinator", kmsg.TxnOffsetCommit, kerr.NotCoordinator, nil},
		{"offsets fail at the broker", kmsg.TxnOffsetCommit, kerr.UnknownServerError, pipeline.ErrAborted},
		{"offsets in an unknown state", kmsg.TxnOffsetCommit, kerr.InvalidTxnState, pipeline.ErrAborted},
		{"offsets not allowed", kmsg.TxnOffsetCommit, kerr.GroupAuthorizationFailed, pipeline.ErrPermanent},
		{"metadata too large", kmsg.TxnOffsetCommit, kerr.OffsetMetadataTooLarge, pipeline.ErrPermanent},
		{"static member that has joined again", kmsg.TxnOffsetCommit, kerr.FencedInstanceID, pipeline.ErrAborted},
		{"producer fenced at the offsets", kmsg.TxnOffsetCommit, kerr.ProducerFenced, pipeline.ErrFenced},
		{"end while another ends", kmsg.EndTxn, kerr.ConcurrentTransactions, nil},
		{"end says abort", kmsg.EndTxn, kerr.TransactionAbortable, pipeline.ErrAborted},
		{"end fails at the broker", kmsg.EndTxn, kerr.UnknownServerError, errUnknown},
		{"end in an unknown state", kmsg.EndTxn, kerr.InvalidTxnState, errUnknown},
		{"producer fenced at the end", kmsg.EndTxn, kerr.ProducerFenced, pipeline.ErrFenced},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := local(t, 1)
			s := e.session(e.config("a"))
			a := assigned(t, s, 1)[0]
			if err := s.Transact(t.Context(), e.records(0, "one"), []*worker.Output{output(a, 1, 1)}); err != nil {
				t.Fatal(err)
			}
			e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{c.key}, Err: c.err})
			out := output(a, 2, 2)
			err := s.Transact(t.Context(), e.records(0, "two"), []*worker.Output{out})
			switch {
			case c.want == nil && err != nil:
				t.Fatalf("got %v, want it to go by itself", err)
			case errors.Is(c.want, errUnknown):
				if err == nil || classified(err) {
					t.Fatalf("got %v, want an unknown outcome", err)
				}
			case !errors.Is(err, c.want):
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if errors.Is(err, pipeline.ErrFenced) {
				if err := s.Transact(t.Context(), e.records(0, "after"), []*worker.Output{out}); !errors.Is(err, pipeline.ErrFenced) {
					t.Errorf("after having been fenced: got %v, want ErrFenced again", err)
				}
				return
			}
			if err != nil {
				commitUntilDone(t, s, e.records(0, "two"), out)
			}
			commitUntilDone(t, s, e.records(0, "three"), output(a, 3, 3))
			if got, want := e.visible(e.out[0], 0), []string{"one", "two", "three"}; !slices.Equal(got, want) {
				t.Errorf("said: got %q, want %q", got, want)
			}
			if offset, _ := e.committed(0); offset != 3 {
				t.Errorf("committed: got %d, want 3", offset)
			}
		})
	}
}

// errUnknown stands for the error that is none of those with a name.
var errUnknown = errors.New("unknown outcome")

func classified(err error) bool {
	var lost *pipeline.LostError
	return errors.Is(err, pipeline.ErrAborted) || errors.Is(err, pipeline.ErrFenced) ||
		errors.Is(err, pipeline.ErrPermanent) || errors.As(err, &lost)
}

// A commit that is applied and whose answer is lost is an unknown outcome; asked,
// the broker says that it has happened.
func TestCommitWhoseAnswerIsLost(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.EndTxn, kmsg.TxnOffsetCommit, kmsg.Produce} {
		t.Run(key.Name(), func(t *testing.T) {
			e := local(t, 1)
			cut := newSwitch()
			conf := e.config("a")
			conf.Options = []kgo.Opt{kgo.Dialer(cut.dial)}
			s := e.session(conf)
			a := assigned(t, s, 1)[0]
			// The request arrives, and the connection is gone before its answer.
			var once sync.Once
			e.cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
				once.Do(cut.sever)
				return nil, nil, false
			})
			out := output(a, 2, 1)
			commitUntilDone(t, s, e.records(0, "once"), out)
			if got := e.visible(e.out[0], 0); !slices.Equal(got, []string{"once"}) {
				t.Errorf("said: got %q", got)
			}
			mark, found, err := s.Committed(t.Context(), 0)
			if err != nil || !found || mark != out.Mark {
				t.Errorf("got mark %+v, found %t, error %v; want %+v", mark, found, err, out.Mark)
			}
		})
	}
}

// An expelled member can't commit: the partitions are lost, and come back under a
// new epoch.
func TestExpelledMemberLosesItsPartitions(t *testing.T) {
	for _, records := range []bool{true, false} {
		e := local(t, 2)
		s := e.session(e.config("a"))
		old := assigned(t, s, 2)
		member, _ := s.member.Load().GroupMetadata()
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Group = e.group
		m := kmsg.NewLeaveGroupRequestMember()
		m.MemberID = member
		req.Members = append(req.Members, m)
		if _, err := req.RequestWith(t.Context(), e.cl); err != nil {
			t.Fatal(err)
		}
		var rs []*kgo.Record
		if records {
			rs = e.records(0, "zombie")
		}
		outs := []*worker.Output{output(old[0], 1, 1), output(old[1], 1, 1)}
		err := s.Transact(t.Context(), rs, outs)
		if errors.Is(err, pipeline.ErrAborted) { // it had joined again already
			err = s.Transact(t.Context(), rs, outs)
		}
		var lost *pipeline.LostError
		if !errors.As(err, &lost) || !slices.Equal(lost.Partitions, []int32{0, 1}) {
			t.Fatalf("with records %t: got %v, want both partitions lost", records, err)
		}
		var log []string
		again := make(map[int32]pipeline.Assignment)
		poll(t, s, func(b *pipeline.Batch) bool {
			for range b.Lost {
				log = append(log, "lost")
			}
			for _, a := range b.Assigned {
				log = append(log, "assigned")
				again[a.Partition] = a
			}
			return len(again) == 2
		})
		if want := []string{"lost", "lost", "assigned", "assigned"}; !slices.Equal(log, want) {
			t.Errorf("told %v, want %v", log, want)
		}
		for p, a := range again {
			if a.Epoch <= old[p].Epoch {
				t.Errorf("partition %d: epoch %d after %d", p, a.Epoch, old[p].Epoch)
			}
		}
		if got := e.visible(e.out[0], 0); len(got) != 0 {
			t.Errorf("said: %q", got)
		}
	}
}

// A process that slept through its expulsion is refused by the broker, whatever it
// believes itself: the epoch check is passed here on purpose.
func TestZombieIsFencedByTheBroker(t *testing.T) {
	onBrokers(t, 1, func(t *testing.T, e *env) {
		conf := e.config("a")
		conf.RevokeLimit = time.Millisecond // nobody releases what it loses below
		zombie := e.session(conf)
		a := assigned(t, zombie, 1)[0]
		asleep := zombie.owns.as

		// It is expelled, and another takes the partition and commits.
		zombie.member.Load().Close()
		zombie.owns.mu.Lock()
		zombie.owns.as = asleep
		zombie.owns.owned[0] = &owned{epoch: a.Epoch, gone: make(chan struct{})}
		zombie.owns.mu.Unlock()
		next := e.session(e.config("b"))
		b := assigned(t, next, 1)[0]
		if err := next.Transact(t.Context(), e.records(0, "rightful"), []*worker.Output{output(b, 5, 1)}); err != nil {
			t.Fatal(err)
		}
		for _, rs := range [][]*kgo.Record{e.records(0, "zombie"), nil} {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // no callback comes any more
			err := zombie.Transact(ctx, rs, []*worker.Output{output(a, 3, 1)})
			cancel()
			var lost *pipeline.LostError
			if !errors.As(err, &lost) && !errors.Is(err, pipeline.ErrAborted) {
				t.Errorf("with %d records: got %v, want it lost", len(rs), err)
			}
			zombie.owns.mu.Lock()
			zombie.owns.owned[0] = &owned{epoch: a.Epoch, gone: make(chan struct{})}
			zombie.owns.mu.Unlock()
		}
		if got := e.visible(e.out[0], 0); !slices.Equal(got, []string{"rightful"}) {
			t.Errorf("said: %q", got)
		}
		if offset, _ := e.committed(0); offset != 5 {
			t.Errorf("committed: got %d, want 5", offset)
		}
	})
}

// The generation is old between the rebalance and its callback: the transaction is
// aborted, waits for the callback without holding it up, and succeeds when sent again.
func TestOldGenerationWaitsForCallback(t *testing.T) {
	e := local(t, 2)
	s := e.session(e.config("a"))
	d := drive(t, s)
	eventually(t, "all", func() bool { return len(d.owns()) == 2 })
	a, _ := d.assignment(0)
	s.owns.mu.Lock()
	now := s.owns.as
	s.owns.as.generation-- // the callback has not come yet
	s.owns.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- s.Transact(t.Context(), e.records(0, "x"), []*worker.Output{output(a, 1, 1)}) }()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	s.owns.assigned(now, nil) // it comes
	if err := <-done; !errors.Is(err, pipeline.ErrAborted) {
		t.Fatalf("got %v, want ErrAborted", err)
	}
	if err := s.Transact(t.Context(), e.records(0, "x"), []*worker.Output{output(a, 1, 1)}); err != nil {
		t.Fatal(err)
	}
	if got := e.visible(e.out[0], 0); !slices.Equal(got, []string{"x"}) {
		t.Errorf("said: %q", got)
	}
}

// A revoked partition that the group's assignment already gives to somebody else is
// lost at once: the broker would accept our commit for it, and so must we not send it.
func TestRevokedAndAlreadyGivenAway(t *testing.T) {
	o := newOwnership()
	o.assigned(membership{"m", 1}, []int32{0, 1, 2})
	done := make(chan struct{})
	go func() {
		defer close(done)
		o.revoked(membership{"m", 2}, []int32{1, 2}, limit, func([]int32) []int32 { return []int32{2} })
	}()
	var b pipeline.Batch
	eventually(t, "told", func() bool {
		o.poll(&b, nil)
		return len(b.Revoked) > 0
	})
	if !slices.Equal(b.Lost, []int32{1}) || !slices.Equal(b.Revoked, []int32{2}) {
		t.Errorf("lost %v, revoked %v; want 1 lost, 2 revoked", b.Lost, b.Revoked)
	}
	if _, gone := o.commitAs(map[int32]int64{1: 2}); !slices.Equal(gone, []int32{1}) {
		t.Errorf("partition 1 may still be committed")
	}
	if as, gone := o.commitAs(map[int32]int64{0: 1, 2: 3}); len(gone) > 0 || as != (membership{"m", 2}) {
		t.Errorf("partitions 0 and 2: gone %v, under %v", gone, as)
	}
	o.release(2)
	<-done
}

// A member that was expelled and has joined again has nothing left of what it had, whatever
// the group gives it now: others may have had it meanwhile.
func TestExpelledMemberComesBack(t *testing.T) {
	asked := false
	ask := func(ps []int32) []int32 { asked = true; return ps }
	for name, c := range map[string]struct {
		back           func(*ownership)
		lost, assigned []int32
	}{
		"and keeps all":             {func(o *ownership) { o.assigned(membership{"again", 3}, nil) }, []int32{0, 1}, []int32{0, 1}},
		"and gets one more":         {func(o *ownership) { o.assigned(membership{"again", 3}, []int32{2}) }, []int32{0, 1}, []int32{0, 1, 2}},
		"and one is revoked":        {func(o *ownership) { o.revoked(membership{"again", 3}, []int32{0}, limit, ask) }, []int32{0, 1}, []int32{1}},
		"and one is lost":           {func(o *ownership) { o.lost(membership{"again", 3}, []int32{0}) }, []int32{0, 1}, nil},
		"in the next generation":    {func(o *ownership) { o.assigned(membership{"again", 2}, nil) }, []int32{0, 1}, []int32{0, 1}},
		"missing only a generation": {func(o *ownership) { o.revoked(membership{"m", 3}, []int32{0}, limit, ask) }, []int32{0}, nil},
		"never having been away":    {func(o *ownership) { o.assigned(membership{"m", 2}, nil) }, nil, nil},
		"to a broker that is careful": {func(o *ownership) {
			o.follow(func() membership { return membership{"m", 3} })
			o.assigned(membership{"again", 3}, nil)
		}, nil, nil},
	} {
		o := newOwnership()
		o.assigned(membership{"m", 1}, []int32{0, 1})
		var b pipeline.Batch
		o.poll(&b, nil)
		c.back(o)
		var lost, assigned []int32
		for range 5 {
			var b pipeline.Batch
			o.poll(&b, nil)
			lost = append(lost, b.Lost...)
			if len(b.Revoked) > 0 {
				t.Errorf("%s: %v may still be committed", name, b.Revoked)
			}
			for _, a := range b.Assigned {
				assigned = append(assigned, a.Partition)
				if a.Epoch <= 2 {
					t.Errorf("%s: partition %d comes under the epoch of before", name, a.Partition)
				}
			}
		}
		slices.Sort(lost)
		slices.Sort(assigned)
		if !slices.Equal(lost, c.lost) || !slices.Equal(assigned, c.assigned) {
			t.Errorf("%s: lost %v and assigned %v, want %v and %v", name, lost, assigned, c.lost, c.assigned)
		}
	}
	if asked {
		t.Error("who has it now was asked: that does not say who had it")
	}
}

// A session has joined when the group has given its share, if only of nothing, and the pipeline
// knows: not while it only has a member's name, nor between its expulsion and what it is given
// when it has come back.
func TestJoinedIsWhoHasTheirShare(t *testing.T) {
	o := newOwnership()
	step := func(what string, want bool, do func()) {
		t.Helper()
		do()
		if got := o.joined(); got != want {
			t.Errorf("%s: joined: got %v, want %v", what, got, want)
		}
	}
	poll := func() {
		var b pipeline.Batch
		o.poll(&b, nil)
	}
	step("at the beginning", false, func() {})
	step("a first attempt fails", false, func() { o.lost(membership{"m", 0}, nil); poll() })
	step("it is given something", false, func() { o.assigned(membership{"m", 1}, []int32{0, 1}) })
	step("which is told", true, poll)
	step("some goes", false, func() { o.revoked(membership{"m", 1}, []int32{1}, time.Millisecond, nil) })
	step("which is told", true, func() { poll(); poll() })
	step("it is expelled", false, func() { o.lost(membership{"m", 1}, []int32{0}) })
	step("which is told", false, poll)
	step("it comes back", true, func() { o.assigned(membership{"again", 3}, nil) })
}

// A release that never comes ends at the limit, and the pipeline is told.
func TestReleaseLimit(t *testing.T) {
	o := newOwnership()
	o.assigned(membership{"m", 1}, []int32{0})
	o.revoked(membership{"m", 1}, []int32{0}, time.Millisecond, nil)
	var got []pipeline.Batch
	for range 3 {
		var b pipeline.Batch
		o.poll(&b, nil)
		got = append(got, b)
	}
	if len(got[0].Assigned) != 1 || len(got[1].Revoked) != 1 || len(got[2].Lost) != 1 {
		t.Errorf("got %+v, want it assigned, revoked and lost, in three batches", got)
	}
}

// Records too large are named, in either way of being refused, and nothing happens.
func TestTooLarge(t *testing.T) {
	onBrokers(t, 1, func(t *testing.T, e *env) {
		s := e.session(e.config("a"))
		a := assigned(t, s, 1)[0]
		records := e.records(0, "small", strings.Repeat("x", 3<<20), "small too")
		err := s.Transact(t.Context(), records, []*worker.Output{output(a, 1, 3)})
		var large *TooLargeError
		if !errors.As(err, &large) || len(large.Records) != 1 || large.Records[0] != records[1] {
			t.Fatalf("got %v, want a *TooLargeError naming the second record", err)
		}
		if _, found, err := s.Committed(t.Context(), 0); found || err != nil {
			t.Errorf("committed: found %t, error %v", found, err)
		}
		records[1].Value = []byte("hash")
		if err := s.Transact(t.Context(), records, []*worker.Output{output(a, 1, 3)}); err != nil {
			t.Fatal(err)
		}
		if got := e.visible(e.out[0], 0); !slices.Equal(got, []string{"small", "hash", "small too"}) {
			t.Errorf("said: %q", got)
		}
	})
}

// The broker's limit may be lower than we were told; it refuses a whole batch then.
func TestTooLargeForTheBroker(t *testing.T) {
	e := local(t, 1)
	s := e.session(e.config("a"))
	a := assigned(t, s, 1)[0]
	e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.MessageTooLarge})
	records := e.records(0, "small", strings.Repeat("x", 1000))
	err := s.Transact(t.Context(), records, []*worker.Output{output(a, 1, 2)})
	var large *TooLargeError
	if !errors.As(err, &large) || len(large.Records) != 2 || large.Records[0] != records[1] {
		t.Fatalf("got %v, want a *TooLargeError with the largest first", err)
	}
	if err := s.Transact(t.Context(), records, []*worker.Output{output(a, 1, 2)}); err != nil {
		t.Fatal(err)
	}
}

// Killed with a transaction open, an instance is back at once under the same name:
// its transaction is ended, its partitions are found again without a rebalance. The
// timeouts are longer than the test waits, so it has waited for neither. Under the
// protocol Consumer the broker takes no newcomer for a member that has not left until
// its own session timeout, which is shorter here.
func TestKilledAndRestarted(t *testing.T) {
	onBrokers(t, 2, func(t *testing.T, e *env) {
		conf := e.config("a")
		conf.InstanceID = "a"
		conf.SessionTimeout, conf.TransactionTimeout = 5*limit, 5*limit
		cut := newSwitch()
		dead := conf
		dead.Options = []kgo.Opt{kgo.Dialer(cut.dial)}
		s := e.session(dead)
		a := assigned(t, s, 2)[0]
		if err := s.Transact(t.Context(), e.records(0, "done"), []*worker.Output{output(a, 4, 1)}); err != nil {
			t.Fatal(err)
		}
		p := <-s.idle // it dies between adding its offsets and ending the transaction
		if err := p.cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := s.produce(t.Context(), p, e.records(0, "torn")); err != nil {
			t.Fatal(err)
		}
		c, _ := s.cutOf([]*worker.Output{output(a, 6, 2)})
		as, _ := s.owns.commitAs(c.epochs)
		id, epoch, err := p.cl.ProducerID(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.addOffsets(t.Context(), p, id, epoch, as, c); err != nil {
			t.Fatal(err)
		}
		cut.kill()

		next := e.session(conf)
		b := assigned(t, next, 2)[0]
		mark, found, err := next.Committed(t.Context(), 0)
		if err != nil || !found || mark.Next != 4 || mark.N != 1 {
			t.Fatalf("got mark %+v, found %t, error %v; want next 4, n 1", mark, found, err)
		}
		commitUntilDone(t, next, e.records(0, "again"), output(b, 6, 2))
		if got := e.visible(e.out[0], 0); !slices.Equal(got, []string{"done", "again"}) {
			t.Errorf("said: %q", got)
		}
		s.idle <- p
	})
}

// What the process of our name before us had sent when it was killed may arrive late, and
// fence us: once that is taken for no twin.
func TestPredecessorsLateRequest(t *testing.T) {
	e := local(t, 1)
	s := e.firstSession(e.config("a"))
	a := assigned(t, s, 1)[0]
	late := func() {
		p := <-s.idle
		defer func() { s.idle <- p }()
		cl, err := kgo.NewClient(kgo.SeedBrokers(e.cluster.ListenAddrs()...), kgo.TransactionalID(p.id))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if _, _, err := cl.ProducerID(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 { // whichever of the producers it is
		late()
		err := s.Transact(t.Context(), e.records(0, "one"), []*worker.Output{output(a, int64(i+1), uint64(i+1))})
		if err != nil && !errors.Is(err, pipeline.ErrAborted) {
			t.Fatalf("got %v, want it to be sent again", err)
		}
	}
	commitUntilDone(t, s, e.records(0, "two"), output(a, 4, 4))
	for range 2 * producers {
		late()
		if err := s.Transact(t.Context(), e.records(0, "three"), []*worker.Output{output(a, 5, 5)}); errors.Is(err, pipeline.ErrFenced) {
			return
		}
	}
	t.Error("it never stops, however often it is fenced")
}

// Of two processes with one name the older stops; it does not take the name back.
func TestTwinIsFenced(t *testing.T) {
	onBrokers(t, 1, func(t *testing.T, e *env) {
		old := e.session(e.config("a"))
		a := assigned(t, old, 1)[0]
		twin := e.session(e.config("a"))
		err := old.Transact(t.Context(), e.records(0, "old"), []*worker.Output{output(a, 1, 1)})
		if !errors.Is(err, pipeline.ErrFenced) {
			t.Fatalf("got %v, want ErrFenced", err)
		}
		var b pipeline.Batch
		if err := old.Poll(t.Context(), &b); !errors.Is(err, pipeline.ErrFenced) {
			t.Errorf("poll: got %v, want ErrFenced", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		old.Close(ctx)
		mine := assigned(t, twin, 1)[0]
		for n := range uint64(4) { // all its producers are its own
			if err := twin.Transact(t.Context(), e.records(0, "twin"), []*worker.Output{output(mine, 1, n+1)}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A transaction that grew too old is aborted by the broker. That is no twin: the
// producer is renewed, and the outputs are sent again.
func TestTransactionTimeout(t *testing.T) {
	e := local(t, 1)
	conf := e.config("a")
	conf.TransactionTimeout = time.Second
	s := e.session(conf)
	a := assigned(t, s, 1)[0]
	p := <-s.idle
	p.began = time.Now().Add(-2 * time.Second)
	err := s.failed(p, kerr.ProducerFenced)
	s.idle <- p
	if !errors.Is(err, pipeline.ErrAborted) || p.sound {
		t.Fatalf("got %v, sound %t; want ErrAborted, and a producer to be renewed", err, p.sound)
	}
	for n := range uint64(3) {
		commitUntilDone(t, s, e.records(0, "x"), output(a, int64(n+1), n+1))
	}
	if got := e.visible(e.out[0], 0); len(got) != 3 {
		t.Errorf("said: %q, want three", got)
	}
}
