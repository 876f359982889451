package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

// process is one of several of one name: it says numbers in its partition.
type process struct {
	*driver
	partition int32
	n         uint64
}

// say says the next number once, and tells whether it is said.
func (p *process) say(t *testing.T, e *env) (bool, error) {
	a, ok := p.assignment(p.partition)
	if !ok {
		return false, nil
	}
	next := p.n + 1
	err := p.s.Transact(t.Context(), e.records(p.partition, fmt.Sprint(next)), []*worker.Output{output(a, int64(next), next)})
	if err != nil && !classified(err) { // as the pipeline does
		mark, _, asked := p.s.Committed(t.Context(), p.partition)
		if asked != nil {
			return false, asked
		}
		if mark.N == next {
			err = nil
		}
	}
	if err != nil {
		return false, err
	}
	p.n = next
	return true, nil
}

// Of two processes with one name that both live one ends, and the other goes on; whatever they
// took from each other, each number is said once.
func TestTwinIsFenced(t *testing.T) {
	onBrokers(t, 2, func(t *testing.T, e *env) {
		both := []*process{{driver: drive(t, e.session(e.config("a")))}}
		eventually(t, "the first has both", func() bool { return len(both[0].owns()) == 2 })
		both = append(both, &process{driver: drive(t, e.session(e.config("a")))})
		eventually(t, "they share", func() bool { return len(both[0].owns()) == 1 && len(both[1].owns()) == 1 })
		for _, p := range both {
			p.partition = p.owns()[0]
		}
		lost := -1
		for tries := 0; lost < 0; tries++ {
			for i, p := range both {
				_, err := p.say(t, e)
				switch {
				case errors.Is(err, pipeline.ErrFenced):
					lost = i
				case err != nil && !errors.Is(err, pipeline.ErrAborted) && classified(err):
					t.Fatalf("process %d: %v", i, err)
				}
			}
			if tries > 10*producers {
				t.Fatal("they fence each other, and none ends")
			}
		}
		ends, stays := both[lost], both[1-lost]
		<-ends.done
		if !errors.Is(ends.err, pipeline.ErrFenced) {
			t.Errorf("poll: got %v, want ErrFenced", ends.err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		ends.s.Close(ctx)
		eventually(t, "the other has both", func() bool { return len(stays.owns()) == 2 })
		for said, tries := 0, 0; said < 2*producers; tries++ { // all its producers are its own
			ok, err := stays.say(t, e)
			if ok {
				said++
			}
			if tries > 4*producers {
				t.Fatalf("it does not go on: %v", err)
			}
		}
		for _, p := range both {
			var want []string
			for n := range p.n {
				want = append(want, fmt.Sprint(n+1))
			}
			got := e.visible(e.out[0], p.partition)
			if p == ends && uint64(len(got)) == p.n+1 { // it ended before it knew
				want = append(want, fmt.Sprint(p.n+1))
			}
			if !slices.Equal(got, want) {
				t.Errorf("partition %d: said %q, want %q", p.partition, got, want)
			}
		}
	})
}

// Being fenced once may be a broker's mistake: the producer is renewed. Again within a short time,
// it is another process.
func TestFencedTwiceInARow(t *testing.T) {
	e := local(t, 1)
	s := e.session(e.config("a"))
	a := assigned(t, s, 1)[0]
	e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.ProducerFenced, Count: -1})
	for n := range producers {
		if err := s.Transact(t.Context(), e.records(0, "x"), []*worker.Output{output(a, 1, 1)}); !errors.Is(err, pipeline.ErrAborted) {
			t.Fatalf("producer %d: got %v, want it to be renewed", n, err)
		}
	}
	if err := s.Transact(t.Context(), e.records(0, "x"), []*worker.Output{output(a, 1, 1)}); !errors.Is(err, pipeline.ErrFenced) {
		t.Fatalf("got %v, want ErrFenced", err)
	}
	if err := s.Transact(t.Context(), e.records(0, "x"), []*worker.Output{output(a, 1, 1)}); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("after having been fenced: got %v, want ErrFenced again", err)
	}
}

// A coordinator that goes by an older state gives out epochs that we have had, and partitions
// refuse them. That is no twin, however often; what was left open is ended when the epoch is past
// all that we had.
func TestCoordinatorWithAnOlderState(t *testing.T) {
	e := local(t, 1)
	s := e.session(e.config("a"))
	a := assigned(t, s, 1)[0]
	say := func(n uint64) { commitUntilDone(t, s, e.records(0, fmt.Sprint(n)), output(a, int64(n), n)) }
	for n := range uint64(4 * producers) {
		say(n + 1)
	}
	p := whoseTurn(s)
	older := int16(4)
	e.cluster.ControlKey(int16(kmsg.InitProducerID), func(req kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		if r := req.(*kmsg.InitProducerIDRequest); unwrap(r.TransactionalID) != p.id || older == 0 {
			return nil, nil, false
		}
		older--
		resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
		resp.ProducerID, resp.ProducerEpoch = p.newest.id, p.newest.epoch-older
		return resp, nil, true
	})
	e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.ProducerFenced})
	for n := range uint64(2 * producers) {
		say(n + 1 + 4*producers)
	}
	if older != 0 || p.older {
		t.Errorf("%d older names were not taken, and it has one: %v", older, p.older)
	}
	if got := e.visible(e.out[0], 0); len(got) != 6*producers {
		t.Errorf("said: %q", got)
	}
}

// Nor is it when another mistake was made a moment ago.
func TestFencedByAnOlderState(t *testing.T) {
	s := &Session{conf: Config{TransactionTimeout: time.Minute, Log: zap.NewNop()}}
	p := &producer{began: time.Now()}
	if s.twin(p, kerr.ProducerFenced) {
		t.Error("fenced once, and it is taken for a twin")
	}
	p.bears(7, 9)
	p.older = true // as connect does
	p.bears(7, 9)
	for range 2 * producers {
		if s.twin(p, kerr.InvalidProducerEpoch) {
			t.Fatal("it had a newer name itself")
		}
	}
	if p.bears(7, 10); !s.twin(p, kerr.InvalidProducerEpoch) {
		t.Error("its name is the newest, and it was fenced twice")
	}
	old := &producer{began: time.Now(), fencedAt: time.Now().Add(-youth)}
	if s.twin(old, kerr.ProducerFenced) {
		t.Error("the last time was long ago")
	}
}

// What a producer that was fenced has sent is swept before it sends anything else: nobody may know
// of it who would end it.
func TestWhatTheFencedHaveSentIsSwept(t *testing.T) {
	e := local(t, 1)
	s := e.session(e.config("a"))
	a := assigned(t, s, 1)[0]
	p := whoseTurn(s)
	e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.ProducerFenced})
	if err := s.Transact(t.Context(), e.records(0, "x"), []*worker.Output{output(a, 1, 1)}); !errors.Is(err, pipeline.ErrAborted) {
		t.Fatal(err)
	}
	if at := func(r *kgo.Record) bool { return r.Topic == e.out[0] && r.Partition == 0 }; p.sound || len(p.astray) != 1 || !at(p.astray[0]) || len(p.marks) != 1 {
		t.Errorf("sound: %v; to be swept: %v and %v, want the record and the mark", p.sound, p.astray, p.marks)
	}
	commitUntilDone(t, s, e.records(0, "x"), output(a, 1, 1))
}
