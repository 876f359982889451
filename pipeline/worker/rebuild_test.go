package worker

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// view is a record of a view, at its record's time.
func view(offset int64, user string, at schemas.Millis) Record {
	value := fmt.Appendf(nil, `{"event_id":"e%d","type":"view","user_id":%q,"time":%d}`, offset, user, at)
	return Record{Offset: offset, Time: at, Key: []byte(user), Value: value}
}

// viewers is a world with n users, one view each.
func viewers(t *testing.T, cfg Config, n int) *world {
	w := newWorld(t, cfg, 0)
	for i := range n {
		w.log = append(w.log, view(int64(i), fmt.Sprintf("u%d", i), base+schemas.Millis(i)))
	}
	w.apply(w.log, Conditions{Wall: base})
	w.settle(Conditions{Wall: base})
	w.commit()
	return w
}

// 1. The rules change; everyone is to be evaluated again. 2. A snapshot is taken
// when some have been. 3. The rest are, and the mark says so. 4. A crash. What is
// read back then has no due time of those that came late in 2.
func TestASnapshotAmidAChangeOfRulesForgetsNoTimer(t *testing.T) {
	cfg := config(t)
	cfg.Slice = 1
	w := viewers(t, cfg, 10)
	w.snapshot(t, base, 1<<20)
	w.commit()
	cfg.Rules = segment.Lifecycle(1)
	at := Conditions{Wall: base}
	w.crash(t, len(w.snapshots)-1, cfg, at)
	for range 3 {
		w.apply(nil, at)
	}
	w.snapshot(t, base, 1<<20)
	w.settle(at)
	w.commit()
	if got := w.committed.Rules; got != cfg.Rules.Hash() {
		t.Fatalf("rules of the mark: got %x, want %x", got, cfg.Rules.Hash())
	}
	w.crash(t, len(w.snapshots)-1, cfg, at)
	w.worker.digest(t, true) // looks at every timer
}

// The same, but who comes back has the old rules again: what was said under the new
// ones and what was not are no longer told apart, so everyone is looked at.
func TestGoingBackToTheOldRulesForgetsNoTimer(t *testing.T) {
	cfg := config(t)
	cfg.Slice = 1
	w := viewers(t, cfg, 10)
	old := cfg.Rules
	cfg.Rules = segment.Lifecycle(1)
	at := Conditions{Wall: base}
	w.crash(t, 0, cfg, at)
	for range 3 {
		w.apply(nil, at)
	}
	w.snapshot(t, base, 1<<20)
	w.commit()
	cfg.Rules = old
	w.crash(t, len(w.snapshots)-1, cfg, at)
	w.settle(at)
	if got := w.worker.Mark().Rules; got != old.Hash() {
		t.Errorf("rules of the mark: got %x, want %x", got, old.Hash())
	}
	w.worker.digest(t, true) // looks at every timer
}

// Every restart is a test of what was said: outputs that are missing, doubled, or
// not the continuation of what was said before stop it, with both in the message.
func TestSaidRefusesWhatCannotHaveBeenSaid(t *testing.T) {
	w := viewers(t, config(t), 3)
	tick := base + 91*schemas.Day
	w.apply(nil, Conditions{Wall: tick, Tick: tick})
	for want, change := range map[string]func(items []Item) []Item{
		"output n=2 follows n=0: outputs are missing or doubled": func(it []Item) []Item { return it[1:] },
		"output n=1 follows n=1: outputs are missing or doubled": func(it []Item) []Item { return append(it[:1], it...) },
		`output n=4 moves user "u0" of set "lifecycle" from segment 5 with seq 3, but what was said before is segment 5 with seq 1`: func(it []Item) []Item {
			it[3].Transition.Seq = 3
			return it
		},
		`output n=4 moves user "u0" of set "lifecycle" from segment 2 with seq 2, but what was said before is segment 5 with seq 1`: func(it []Item) []Item {
			it[3].Transition.From = 2
			return it
		},
		`output n=2 moves user "u1" of set "lifecycle" from segment 3 with seq 1, but what was said before is segment -1 with seq 0`: func(it []Item) []Item {
			it[1].Transition.From = 3
			return it
		},
	} {
		var items []Item
		for _, it := range w.said {
			copied := *it.Transition
			it.Transition = &copied
			items = append(items, it)
		}
		r, err := Read(bytes.NewReader(w.snapshots[0].bytes), 7, w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range change(items) {
			if err = r.Said(&it); err != nil {
				break
			}
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// A snapshot of another cluster's partition may have nothing said, as ours had once,
// but at another offset: the records before that would be forgotten.
func TestSaidRefusesASnapshotFromBehindIt(t *testing.T) {
	w := viewers(t, config(t), 3)
	for next := range int64(3) {
		foreign := New(7, w.cfg)
		foreign.Begin(next, 0)
		foreign.Snapshot(base)
		var b bytes.Buffer
		if _, err := foreign.Slice(&b, 1<<20); err != nil {
			t.Fatal(err)
		}
		r, err := Read(&b, 7, w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Said(&w.said[0]); errors.Is(err, ErrLineage) != (next > 0) {
			t.Errorf("output 1, of record 0, after a snapshot at offset %d: got %v, want ErrLineage for all but offset 0", next, err)
		}
	}
}

// A snapshot of a past that was never committed is told by the hash of what was
// said, though the numbers may be the same.
func TestResumeRefusesAnotherLineage(t *testing.T) {
	w := viewers(t, config(t), 3)
	for what, change := range map[string]func(*schemas.Mark){
		"more outputs":          func(m *schemas.Mark) { m.N++ },
		"fewer outputs":         func(m *schemas.Mark) { m.N-- },
		"other outputs":         func(m *schemas.Mark) { m.Hash++ },
		"an earlier offset":     func(m *schemas.Mark) { m.Next-- },
		"a clock that was less": func(m *schemas.Mark) { m.Clock-- },
	} {
		r, err := Read(bytes.NewReader(w.snapshots[0].bytes), 7, w.cfg)
		for i := range w.said {
			err = errors.Join(err, r.Said(&w.said[i]))
		}
		if err := errors.Join(err, r.Replay(w.log)); err != nil {
			t.Fatal(err)
		}
		mark := w.committed
		change(&mark)
		if err := r.Resume(mark, Conditions{Wall: base}, &Output{}); !errors.Is(err, ErrLineage) {
			t.Errorf("%s: got %v, want %q", what, err, ErrLineage)
		}
	}
}

func TestReplayRefusesWhatItCannotHaveRead(t *testing.T) {
	w := viewers(t, config(t), 2)
	r, err := Read(bytes.NewReader(w.snapshots[0].bytes), 7, w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Replay([]Record{w.log[1], w.log[0]}); err == nil || !strings.Contains(err.Error(), "record 0 read after 1") {
		t.Errorf("an offset that goes back: got %v", err)
	}
	if err := r.Replay([]Record{{Offset: 5, Time: base}}); err == nil || !strings.Contains(err.Error(), "record 5 was accepted when it came and is refused now: tombstone") {
		t.Errorf("a record that was no dead letter: got %v", err)
	}
}

// mustPanic says whether a broken promise of ours is noticed, with its values.
func mustPanic(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
			t.Errorf("panic:\ngot  %s\nwant %s", got, want)
		}
	}()
	f()
}

func TestApplyNoticesBrokenPromises(t *testing.T) {
	mustPanic(t, "worker 7: applied before it was resumed", func() {
		New(7, config(t)).Apply(nil, Conditions{}, &Output{})
	})
	w := viewers(t, config(t), 2)
	mustPanic(t, "worker 7: record 1 given after 1 (R3)", func() {
		w.apply(w.log[1:], Conditions{Wall: base})
	})
}

// A dead letter has the record's bytes, and its own memory: the batch is used again.
func TestADeadLetterOwnsItsMemory(t *testing.T) {
	w := newWorld(t, config(t), 0)
	r := Record{
		Offset: 3, Time: base, Key: []byte("key"), Value: []byte("value"),
		Headers: []schemas.Header{{Key: "traceparent", Value: []byte("trace")}, {Key: "empty"}},
	}
	w.apply([]Record{r}, Conditions{Wall: base})
	clear(r.Key)
	clear(r.Value)
	clear(r.Headers[0].Value)
	want := &schemas.DeadLetter{
		Pos: schemas.Position{Partition: 7, Offset: 3}, Time: base, Reason: schemas.NotJSON, Detail: w.said[0].DeadLetter.Detail,
		Key: []byte("key"), Value: []byte("value"),
		Headers: []schemas.Header{{Key: "traceparent", Value: []byte("trace")}, {Key: "empty"}},
	}
	if diff := cmp.Diff(want, w.said[0].DeadLetter); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A rebuild of which the dead letters are gone leaves out what it would refuse today:
// a timestamp from the far future would else carry the clock there, for good.
// Where nobody knows what became of them, they are dead letters now.
func TestRebuildRefusesTheFuture(t *testing.T) {
	w := New(7, config(t))
	w.Skip(0, base, true)
	ahead := view(2, "u2", base)
	ahead.Value = bytes.Replace(ahead.Value, fmt.Append(nil, base), fmt.Append(nil, base+schemas.Hour), 1)
	if err := w.Replay([]Record{view(0, "u0", base-1), view(1, "u1", base+50*365*schemas.Day), ahead}); err != nil {
		t.Fatal(err)
	}
	if m := w.Mark(); m.Clock != base-1 || m.Next != 3 || w.Users() != 1 {
		t.Errorf("got %d users and the mark %+v, want u0 alone, at its clock", w.Users(), m)
	}
	out := rebuilt(t, w, w.Mark(), base)
	var letters []int64
	for _, it := range out.Items {
		if d := it.DeadLetter; d != nil && d.Reason == schemas.Future {
			letters = append(letters, d.Pos.Offset)
		}
	}
	if len(letters) != 2 || letters[0] != 1 || letters[1] != 2 || len(out.Items) != 3 {
		t.Errorf("got %d outputs and dead letters of %v, want u0's transition and those of records 1 and 2", len(out.Items), letters)
	}
}

// rebuilt is all that a rebuild says.
func rebuilt(t *testing.T, w *Worker, mark schemas.Mark, wall schemas.Millis) (all Output) {
	t.Helper()
	err := w.Rebuild(mark, Conditions{Wall: wall}, func(out *Output) error {
		all.Items, all.Mark = append(all.Items, out.Items...), out.Mark
		return nil
	})
	if err != nil {
		t.Fatalf("rebuild: %v", err)
	}
	return all
}

// What a rebuild refuses lies before what was refused already, and is known as refused all
// the same: a snapshot knows it, and who reads back what was said.
func TestRebuildRefusesOutOfOrder(t *testing.T) {
	letter := func(n uint64, offset int64) *Item {
		return &Item{N: n, Next: offset + 1, DeadLetter: &schemas.DeadLetter{Pos: schemas.Position{Partition: 7, Offset: offset}, Reason: schemas.NotJSON}}
	}
	w := New(7, config(t))
	if err := w.Retell(letter(1, 5)); err != nil {
		t.Fatal(err)
	}
	w.Skip(0, base, true)
	bad := func(offset int64) Record {
		return Record{Offset: offset, Time: base, Key: []byte("u"), Value: []byte("?")}
	}
	if err := w.Replay([]Record{view(0, "u0", base), bad(1), bad(2), bad(4), bad(5), view(6, "u0", base)}); err != nil {
		t.Fatal(err)
	}
	said := rebuilt(t, w, w.Mark(), base).Items
	r := New(7, config(t)) // rebuilds once more, after a crash
	for _, it := range append([]Item{*letter(1, 5)}, said...) {
		if it.Transition != nil {
			continue
		}
		if err := r.Retell(&it); err != nil {
			t.Fatal(err)
		}
	}
	for what, o := range map[string]*offsets{"said": &w.dead, "read back": &r.dead} {
		var got []int64
		for offset := range int64(8) {
			if o.has(offset) {
				got = append(got, offset)
			}
		}
		if want := []int64{1, 2, 4, 5}; !slices.Equal(got, want) {
			t.Errorf("%s: offsets %v are refused, want %v", what, got, want)
		}
	}
}

// topicOf tells which of the three topics an output goes to.
func topicOf(it *Item) int {
	switch {
	case it.DeadLetter != nil:
		return 0
	case it.Transition.Muted == schemas.NotMuted:
		return 1
	}
	return 2
}

// Without a snapshot, from outputs and input of which retention has removed the
// beginning, of each topic another: memberships go on where they were, and differences are muted.
func TestRebuildGoesOnFromWhatIsLeft(t *testing.T) {
	seeds(t, 100, func(t *testing.T, rng *rand.Rand) {
		cfg := randomConfig(t, rng)
		log := newLogger(rng, schemas.Live).write(20 + rng.IntN(200))
		l := newLife(t, rng, cfg, log, 0)
		l.ticks = true
		l.run()
		kept := [3]int{rng.IntN(len(l.said) + 1), rng.IntN(len(l.said) + 1), rng.IntN(len(l.said) + 1)}
		lost, start := 0, log[rng.IntN(len(log))].Offset
		r := New(7, cfg)
		last := schemas.Mark{Partition: 7}
		for i := range l.said {
			it := &l.said[i]
			if i < kept[topicOf(it)] {
				lost++
				continue
			}
			if err := r.Retell(it); err != nil {
				t.Fatalf("retell: %v", err)
			}
			last.Next, last.Clock = max(last.Next, it.Next), max(last.Clock, it.Clock)
		}
		r.Skip(start, l.wall, false)
		if r.DedupStart() != start {
			t.Fatalf("dedup start: got %d, want %d", r.DedupStart(), start)
		}
		last.Next = max(last.Next, start)
		if err := r.Replay(l.between(start, last.Next)); err != nil && lost == 0 {
			t.Fatalf("replay: %v", err) // with dead letters lost, a record may be refused now
		} else if err != nil {
			return
		}
		out := rebuilt(t, r, last, l.wall)
		for _, it := range out.Items {
			if tr := it.Transition; tr.Muted != schemas.MutedBootstrap || tr.Cause.Kind != schemas.ByRecovery {
				t.Fatalf("got %+v, want it muted as bootstrap, by recovery", tr)
			}
		}
		for user := range int32(r.Users()) {
			if !r.agrees(user, r.Mark().Clock) {
				t.Fatalf("user %q is in segment %+v, where the rules do not want it", r.table.ID(user), r.member(user, 0))
			}
		}
		r.digest(t, true) // looks at every timer
		if m := r.Mark(); m.Next != last.Next || m.Fired != m.Clock || lost == 0 && m.N != l.said[len(l.said)-1].N+uint64(len(out.Items)) {
			t.Errorf("mark: got %+v, last said %+v", m, last)
		}
	})
}

// 1. A record moves the clock, and timers are due. 2. What was said so far is committed.
// 3. They fire, and say nothing. 4. A snapshot. 5. A crash, and other rules. Nobody is
// evaluated at an earlier moment than before.
func TestASnapshotMayHaveFiredMoreThanIsCommitted(t *testing.T) {
	cfg := config(t)
	cfg.Rules, cfg.Slice = quietAfter(t, 90), 1
	w := viewers(t, cfg, 20)
	add := func(user string, at schemas.Millis) {
		r := view(int64(len(w.log)), user, at)
		w.log = append(w.log, r)
		w.apply([]Record{r}, Conditions{Wall: at})
	}
	for i := range 20 {
		add(fmt.Sprint("u", i), base+10*schemas.Day)
	}
	late := base + 95*schemas.Day
	add("new", late)
	if !w.worker.Pending() {
		t.Fatal("nothing is due")
	}
	w.commit()
	w.settle(Conditions{Wall: late})
	w.snapshot(t, late, 1<<20)
	cfg.Rules = quietAfter(t, 60)
	w.snapshots = append(w.snapshots, w.written...)
	w.crash(t, len(w.snapshots)-1, cfg, Conditions{Wall: late})
	moved := w.settle(Conditions{Wall: late})
	for _, it := range moved {
		if at := it.Transition.At; at != late {
			t.Errorf("%s is said to have moved at %d, and everybody was evaluated at %d", it.Transition.User, at, late)
		}
	}
	if len(moved) != 20 {
		t.Errorf("got %d moved, want the 20 who were quiet for 85 days", len(moved))
	}
}
