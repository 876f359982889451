package triggers

import (
	"errors"
	math "math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline"
	"footfall/pipeline/pipelinetest"
	"footfall/pipeline/worker"
	"footfall/schemas"
	"footfall/sources/kafka"
)

// What was committed is read back, item by item, in order of n over the topics, from
// anywhere.
func TestSaidIsWhatWasCommitted(t *testing.T) {
	onBrokers(t, func(t *testing.T, s *Sink, _ *kafka.Session, a pipeline.Assignment) {
		last, err := s.Last(t.Context(), 1)
		if err != nil || last != 0 {
			t.Fatalf("before anything was said: got last %d, %v, want 0", last, err)
		}
		items := []worker.Item{
			transition(1, schemas.NotMuted), deadLetter(2, "{"), transition(3, schemas.MutedStale),
			transition(4, schemas.NotMuted), transition(5, schemas.MutedBackfill), deadLetter(6, ""), transition(7, schemas.NotMuted),
		}
		for _, part := range [][]worker.Item{items[:3], items[3:4], items[4:]} {
			if err := s.Commit(t.Context(), []*worker.Output{outputOf(a, part...)}); err != nil {
				t.Fatal(err)
			}
		}
		mark, found, err := s.Committed(t.Context(), 1)
		if err != nil || !found || mark.N != 7 || mark.Next != 70 {
			t.Fatalf("mark: got %+v, found %t, error %v", mark, found, err)
		}
		for _, c := range []struct {
			after, to uint64
		}{{0, 7}, {3, 7}, {3, 5}, {6, 7}, {7, 7}, {0, 1}} {
			var got []worker.Item
			err := s.Said(t.Context(), 1, c.after, c.to, func(it *worker.Item) error {
				got = append(got, *it)
				return nil
			})
			if err != nil {
				t.Errorf("%+v: %v", c, err)
			}
			var want []worker.Item
			for _, it := range items[c.after:c.to] {
				want = append(want, pipelinetest.Told(it, outputOf(a, it).Sets))
			}
			if diff := cmp.Diff(want, got, empties); diff != "" {
				t.Errorf("%+v (-want +got):\n%s", c, diff)
			}
		}
		var all []uint64
		err = s.SaidAll(t.Context(), 1, 0, func(it *worker.Item) error {
			all = append(all, it.N)
			return nil
		})
		if want := []uint64{1, 2, 3, 4, 5, 6, 7}; err != nil || !slices.Equal(all, want) {
			t.Errorf("all: got %v, error %v", all, err)
		}
		for p, want := range []uint64{0, 7} {
			if last, err := s.Last(t.Context(), int32(p)); last != want || err != nil {
				t.Errorf("last of partition %d: got %d, error %v, want %d", p, last, err, want)
			}
		}
	})
}

// empties treats no value and an empty one alike where Kafka's readers do.
var empties = cmpopts.EquateEmpty()

// What is asked for is found among much that was said before it, whatever the clocks of
// who said it, and however much was aborted in between.
func TestSaidBeginsNearby(t *testing.T) {
	m := newMemory()
	s := newSink(t, m)
	rng := math.New(math.NewPCG(1, 2))
	const all, aborted = 30_000, 200
	for n := uint64(1); n <= all; n++ {
		it := transition(n, schemas.NotMuted)
		switch {
		case n > 20_000 || rng.IntN(50) == 0:
			it = transition(n, schemas.MutedStale) // no trigger for long, in the end
		case rng.IntN(100) == 0:
			it = deadLetter(n, "{")
		}
		say(t, s, it)
		if n <= 20_000 && rng.IntN(100) == 0 {
			l := m.logs["triggers"]
			l.records = append(l.records, make([]*kgo.Record, rng.IntN(aborted))...)
			l.stable = int64(len(l.records))
		}
	}
	for i := range 200 {
		after := rng.Uint64N(all)
		if i < 3 {
			after = []uint64{0, 1, all - 1}[i]
		}
		to := min(after+1+rng.Uint64N(5), all)
		m.fetches = 0
		got, err := said(t, s, after, to)
		if err != nil || len(got) != int(to-after) || got[0] != after+1 {
			t.Fatalf("after %d to %d: got %v, error %v", after, to, got, err)
		}
		// of three topics: what was aborted at a place, for each halving, and what is near
		if most := 3 * (16*aborted + near); m.fetches > most {
			t.Errorf("after %d to %d: looked at %d records, want at most %d of %d", after, to, m.fetches, most, len(m.logs["triggers"].records))
		}
	}
}

// What is committed may not be visible yet. Said waits for it.
func TestSaidWaitsForMarkers(t *testing.T) {
	m := newMemory()
	s := newSink(t, m)
	say(t, s, transition(1, schemas.NotMuted), deadLetter(2, "{"), transition(3, schemas.MutedStale))
	m.logs["dead"].stable = 0
	m.shown = func() { // the marker comes after it was looked for three times
		if m.ranges > 9 {
			m.logs["dead"].stable = 1
		}
	}
	if got, err := said(t, s, 0, 3); err != nil || !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("got %v, error %v", got, err)
	}
}

// So does a rebuild that does not know how many there are: the last ones, which it
// cannot see yet, would give their numbers away a second time.
func TestSaidAllWaitsForMarkers(t *testing.T) {
	m := newMemory()
	s := newSink(t, m)
	say(t, s, transition(1, schemas.NotMuted), transition(2, schemas.MutedStale), deadLetter(3, "{"))
	m.logs["dead"].stable = 0
	m.shown = func() {
		if m.ranges > 9 {
			m.logs["dead"].stable = 1
		}
	}
	var got []uint64
	err := s.SaidAll(t.Context(), 0, 0, func(it *worker.Item) error { got = append(got, it.N); return nil })
	if err != nil || !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("got %v, error %v, want all three", got, err)
	}
	m.shown, m.logs["dead"].stable = func() {}, 0
	if err := s.SaidAll(t.Context(), 0, 0, func(*worker.Item) error { return nil }); err == nil || !strings.Contains(err.Error(), "dead/0 hangs") {
		t.Errorf("got %v, want what hangs", err)
	}
}

// The last output is known when nothing is undecided.
func TestLastWaitsForMarkers(t *testing.T) {
	m := newMemory()
	s := newSink(t, m)
	say(t, s, transition(1, schemas.NotMuted), deadLetter(2, "{"))
	m.logs["dead"].stable = 0
	m.shown = func() {
		if m.ranges > 9 {
			m.logs["dead"].stable = 1
		}
	}
	if last, err := s.Last(t.Context(), 0); err != nil || last != 2 {
		t.Errorf("got %d, error %v, want 2", last, err)
	}
	m.shown, m.logs["dead"].stable = func() {}, 0
	if _, err := s.Last(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "dead/0 hangs") {
		t.Errorf("got %v, want what hangs", err)
	}
}

// If it never becomes visible, the error names the transaction. It is one to ask again after:
// the process would else end, with all the partitions in which nothing hangs, and whoever is
// given this one next would too.
func TestSaidNamesWhatHangs(t *testing.T) {
	m := newMemory()
	s := newSink(t, m)
	say(t, s, transition(1, schemas.NotMuted), deadLetter(2, "{"))
	m.logs["dead"].stable = 0
	_, err := said(t, s, 0, 2)
	var missing *MissingError
	if !errors.As(err, &missing) || missing.N != 2 || !strings.Contains(err.Error(), "dead/0 hangs") {
		t.Errorf("got %v, want output 2 missing because dead/0 hangs", err)
	}
	_, last := s.Last(t.Context(), 0)
	all := s.SaidAll(t.Context(), 0, 0, func(*worker.Item) error { return nil })
	for what, err := range map[string]error{"said": err, "last": last, "all": all} {
		if !errors.Is(err, pipeline.ErrAway) {
			t.Errorf("%s: got %v, want pipeline.ErrAway", what, err)
		}
	}
}

// A number that is nowhere, or twice, is a broken invariant.
func TestSaidFindsBrokenInvariants(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T, s *Sink, m *memory)
		want string
	}{
		{"gap", func(t *testing.T, s *Sink, _ *memory) {
			say(t, s, transition(1, schemas.NotMuted), transition(3, schemas.NotMuted))
		}, "output 2 is missing: output 3 comes next"},
		{"end", func(t *testing.T, s *Sink, _ *memory) {
			say(t, s, transition(1, schemas.NotMuted), transition(2, schemas.NotMuted))
		}, "output 3 is missing: the topics end before it"},
		{"retention", func(t *testing.T, s *Sink, m *memory) {
			say(t, s, transition(1, schemas.NotMuted), transition(2, schemas.NotMuted), transition(3, schemas.NotMuted))
			m.logs["triggers"].start = 1
		}, "output 1 is missing: triggers begins at offset 1: retention"},
		{"twice in a topic", func(t *testing.T, s *Sink, _ *memory) {
			say(t, s, transition(1, schemas.NotMuted), transition(2, schemas.NotMuted))
			say(t, s, transition(2, schemas.NotMuted), transition(3, schemas.NotMuted))
		}, "output 2 comes after output 2"},
		{"twice in two topics", func(t *testing.T, s *Sink, _ *memory) {
			say(t, s, transition(1, schemas.NotMuted), transition(2, schemas.NotMuted), transition(2, schemas.MutedStale), transition(3, schemas.NotMuted))
		}, "output 2 is in triggers and in muted"},
		{"foreign record", func(t *testing.T, s *Sink, m *memory) {
			say(t, s, transition(1, schemas.NotMuted))
			m.append(&kgo.Record{Topic: "muted", Value: []byte("hello")})
		}, "muted/0 at offset 0: no header n: something else writes to this topic"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory()
			s := newSink(t, m)
			c.make(t, s, m)
			got, err := said(t, s, 0, 3)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, error %v; want %q", got, err, c.want)
			}
		})
	}
}

// All that is left is given where retention has eaten the oldest, each topic's by
// itself; above, a gap is a broken invariant still.
func TestSaidAllAfterRetention(t *testing.T) {
	m := newMemory()
	s := newSink(t, m)
	say(t, s, transition(1, schemas.NotMuted), deadLetter(2, "a"), transition(3, schemas.NotMuted),
		deadLetter(4, "b"), transition(5, schemas.NotMuted), deadLetter(6, "c"))
	m.logs["triggers"].start = 2 // 1 and 3 are gone
	for _, to := range []uint64{0, 6} {
		var got []uint64
		err := s.SaidAll(t.Context(), 0, to, func(it *worker.Item) error {
			got = append(got, it.N)
			return nil
		})
		if want := []uint64{2, 4, 5, 6}; err != nil || !slices.Equal(got, want) {
			t.Errorf("to %d: got %v, error %v, want %v", to, got, err, want)
		}
	}
	if _, err := said(t, s, 0, 6); !errors.Is(err, pipeline.ErrExpired) || !strings.Contains(err.Error(), "--rebuild") {
		t.Errorf("Said: got %v, want pipeline.ErrExpired, and what to do", err)
	}
	say(t, s, transition(8, schemas.NotMuted))
	var missing *MissingError
	err := s.SaidAll(t.Context(), 0, 0, func(*worker.Item) error { return nil })
	if !errors.As(err, &missing) || missing.N != 7 {
		t.Errorf("got %v, want output 7 missing", err)
	}
	for _, l := range m.logs { // everything is gone: there is nothing to say
		l.start = int64(len(l.records))
	}
	if err := s.SaidAll(t.Context(), 0, 8, func(*worker.Item) error { return errors.New("an item") }); err != nil {
		t.Errorf("with nothing left: %v", err)
	}
}

func said(t *testing.T, s *Sink, after, to uint64) (ns []uint64, err error) {
	t.Helper()
	err = s.Said(t.Context(), 0, after, to, func(it *worker.Item) error {
		ns = append(ns, it.N)
		return nil
	})
	return ns, err
}
