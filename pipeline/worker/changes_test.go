package worker

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// whole is a whole snapshot at the cut of the one that was begun just now: a naive one,
// that knows nothing of what has changed.
func (w *Worker) whole() []byte {
	under := w.snap
	defer func() { w.snap = under }()
	w.snap = &slicer{cells: under.cells, rows: w.rows.Len()}
	b := w.appendHeader(nil)
	for user := range int32(w.rows.Len()) {
		b = w.appendRow(b, user)
	}
	return b
}

// compare holds that a delta, upon those before it, is the whole snapshot of its cut, in
// all that is known of anybody.
func (w *world) compare(tb testing.TB, delta *saved) {
	tb.Helper()
	got, err := delta.read(w.cfg)
	if err != nil {
		tb.Fatalf("read a delta just written: %v", err)
	}
	naive := saved{delta.cut, w.naive, nil}
	want, err := naive.read(w.cfg)
	if err != nil {
		tb.Fatalf("read the whole snapshot of a cut: %v", err)
	}
	if diff := cmp.Diff(want.inFull(), got.inFull()); diff != "" {
		tb.Fatalf("a delta, upon what it builds upon (-whole +delta):\n%s", diff)
	}
}

// inFull is every bit that a worker has read, as text. How it has numbered users and sets
// is its own.
func (w *Worker) inFull() string {
	var lines []string
	for user := range int32(w.rows.Len()) {
		var b strings.Builder
		fmt.Fprintf(&b, "%q %+v due %d at %d", w.table.ID(user), *w.profileOf(user), w.wheel.due(user), w.replaying.at(user))
		said := map[string]string{}
		for set, names := range w.names {
			if m := w.member(user, set); m.seq > 0 {
				said[names.Name] = fmt.Sprint(names.Segments[m.segment], m.seq, m.since)
			}
		}
		for i := range w.spoken.entries {
			e := &w.spoken.entries[i]
			said[fmt.Sprint(w.names[e.set].Name, "/", w.names[e.set].Segments[e.segment], e.counts())] = fmt.Sprint(*e.words.At(user))
		}
		for _, name := range slices.Sorted(maps.Keys(said)) {
			fmt.Fprintf(&b, " %s %s", name, said[name])
		}
		for i := range w.spoken.recent {
			fmt.Fprintf(&b, " recent %d", *w.spoken.recent[i].At(user))
		}
		if buyer := w.packs.Buyer(&w.rows.At(user).profile); buyer >= 0 {
			fmt.Fprintf(&b, " orders %x", *w.orders.At(buyer))
		}
		v := w.cells.View(user)
		for i, c := range w.cfg.Rules.Layout().Cells() {
			if c.Keeps.Lists() {
				fmt.Fprintf(&b, " %s %v", c.Name, v.List(i))
			} else {
				fmt.Fprintf(&b, " %s %v", c.Name, v.Words(i))
			}
		}
		lines = append(lines, b.String())
	}
	slices.Sort(lines)
	for set, names := range w.names {
		for i, name := range names.Segments {
			lines = append(lines, fmt.Sprintf("%s/%s %d", names.Name, name, w.population[set][i]))
		}
	}
	slices.Sort(lines[w.rows.Len():])
	return strings.Join(append(lines, fmt.Sprintf("%+v bootstrap %d taken %d dead %v dedup %d from %d filling %v up to %d turned to %d",
		w.mark, w.bootClock, w.taken, w.dead.runs, w.dedup.latest, w.replaying.dedupFrom, w.filling, w.filledUpTo, w.wheel.now)), "\n")
}

// always has a world take a delta wherever it can, and keep every snapshot.
func (w *world) always(tb testing.TB) {
	tb.Helper()
	w.snapshot(tb, base, 1<<20)
	w.commit()
	began := false
	w.toss = func() bool { // asked at the beginning of a delta, and at its end
		began = !began
		return began
	}
}

// delta takes one, compares it with the whole snapshot of its cut, and tells how many rows
// it holds.
func (w *world) delta(tb testing.TB) (rows int) {
	tb.Helper()
	w.begin(base)
	if w.naive == nil {
		tb.Fatal("no delta could be taken")
	}
	rows = w.worker.snap.rows
	for !w.slice(tb, 64) {
	}
	w.commit()
	return rows
}

// What has to be in a delta besides whose record came: whose timer fired, though it
// said nothing; whom a recovery armed anew; whom new rules have taken the timer of, long
// before anybody evaluates them; and nothing of who was ahead of fired once.
func TestADeltaHasWhatChangedWithoutARecord(t *testing.T) {
	day := schemas.Day
	lazy := func(t *testing.T) *world {
		w := viewers(t, config(t), 20)
		later := []Record{view(20, "u3", base+10*day), view(21, "u4", base+10*day)}
		w.log = append(w.log, later...)
		w.apply(later, Conditions{Wall: base + 10*day})
		w.commit()
		w.always(t)
		return w
	}
	t.Run("a timer that finds a later due time", func(t *testing.T) {
		w := lazy(t)
		w.apply(nil, Conditions{Wall: base, Tick: base + 95*day})
		w.settle(Conditions{Wall: base})
		if rows := w.delta(t); rows != 20 {
			t.Errorf("got %d rows, want those of all 20", rows)
		}
		if rows := w.delta(t); rows != 0 {
			t.Errorf("then nothing happens: got %d rows, want 0", rows)
		}
	})
	t.Run("a recovery", func(t *testing.T) {
		w := lazy(t)
		w.apply(nil, Conditions{Wall: base, Tick: base + 95*day})
		w.settle(Conditions{Wall: base})
		w.commit()
		w.crash(t, len(w.snapshots)-1, w.cfg, Conditions{Wall: base})
		if rows := w.delta(t); rows != 20 {
			t.Errorf("got %d rows, want those of all 20", rows)
		}
	})
	t.Run("a change of rules", func(t *testing.T) {
		cfg := config(t)
		cfg.Rules, cfg.Slice = quietAfter(t, 90), 3
		w := viewers(t, cfg, 20)
		w.always(t)
		w.worker.Switch(quietAfter(t, 60))
		w.cfg.Rules = quietAfter(t, 60)
		for w.worker.Pending() {
			w.apply(nil, Conditions{Wall: base})
			w.delta(t)
		}
	})
	t.Run("who was ahead", func(t *testing.T) {
		cfg := config(t)
		cfg.Slice = 1
		w := viewers(t, cfg, 20)
		late := []Record{view(20, "new", base+100*day)} // everybody's timer is due, and one fires
		w.log = append(w.log, late...)
		w.apply(late, Conditions{Wall: base + 100*day})
		if !w.worker.Pending() || len(w.worker.ahead) == 0 {
			t.Fatal("nobody is ahead of the timers that are due")
		}
		w.always(t)
		w.settle(Conditions{Wall: base + 100*day})
		w.delta(t)
	})
}

// quietAfter has two segments, and so many days of silence between them.
func quietAfter(t *testing.T, days int) *segment.Program {
	t.Helper()
	p, err := segment.Compile(segment.Options{Contract: 1, Exponent: 2}, segment.File{Name: "quiet.yaml", Text: fmt.Appendf(nil, `set: quiet
segments:
  - name: gone
    when: since(last("any")) >= days(%d)
  - name: here
    otherwise: true
`, days)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A chain that is not the one that was written is refused: a delta upon another snapshot
// than its own, upon itself, upon nothing; and a whole one in its place.
func TestADeltaIsOfOneSnapshotAlone(t *testing.T) {
	w := viewers(t, config(t), 20)
	w.always(t)
	for i := range 3 {
		r := view(int64(20+i), fmt.Sprint("u", i), base)
		w.log = append(w.log, r)
		w.apply([]Record{r}, Conditions{Wall: base})
		w.delta(t)
	}
	files := w.snapshots[len(w.snapshots)-4:]
	order := []int{0, 1, 2, 3}
	read := func(order []int) error {
		r, err := Read(bytes.NewReader(files[order[0]].bytes), 7, w.cfg)
		for _, i := range order[1:] {
			if err == nil {
				err = r.ReadDelta(bytes.NewReader(files[i].bytes))
			}
		}
		return err
	}
	if err := read(order); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range [][]int{{0, 2}, {0, 1, 3}, {0, 1, 1}, {0, 2, 1}, {0, 0}, {0, 1, 0}, {1}, {1, 2}} {
		if err := read(wrong); err == nil || !strings.HasPrefix(err.Error(), "header: ") {
			t.Errorf("%v: got %v, want it refused", wrong, err)
		}
	}
}

// A slow bucket leaves a snapshot standing for long: who changes meanwhile is in it as at
// its cut, and in the next as now.
func TestADeltaIsOfItsCut(t *testing.T) {
	seeds(t, 100, func(t *testing.T, rng *rand.Rand) {
		w := viewers(t, config(t), 200)
		w.always(t)
		next := int64(200)
		come := func() {
			var records []Record
			for range rng.IntN(20) {
				records = append(records, view(next, fmt.Sprint("u", rng.IntN(220)), base+schemas.Millis(next)))
				next++
			}
			w.log = append(w.log, records...)
			w.apply(records, Conditions{Wall: base})
		}
		for range 4 {
			come()
			for w.begin(base); !w.slice(t, 1+rng.IntN(500)); {
				come()
			}
		}
		w.commit()
		w.crash(t, len(w.snapshots)-1, w.cfg, Conditions{Wall: base})
		come()
		w.delta(t)
	})
}

// What is noted of changes costs the event nothing.
func TestNotingChangesAllocatesNothing(t *testing.T) {
	w := viewers(t, config(t), 1000)
	w.always(t)
	if n := testing.AllocsPerRun(10, func() {
		for user := range int32(1000) {
			w.worker.touch(user)
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// Whatever lies where a delta should, it is refused or can be lived with.
func FuzzReadDelta(f *testing.F) {
	w := goldenWorld(f)
	w.always(f)
	r := view(int64(len(w.log)), "bob", base+31*schemas.Day)
	w.apply([]Record{r}, Conditions{Wall: base + 31*schemas.Day})
	w.delta(f)
	last := &w.snapshots[len(w.snapshots)-1]
	f.Add(last.bytes)
	f.Add(last.bytes[:len(last.bytes)/2])
	f.Add(last.upon.bytes)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := (&saved{bytes: b, upon: last.upon}).read(w.cfg)
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Error("an error that says nothing")
			}
			return
		}
		if r.Resume(r.Mark(), Conditions{Wall: base}, &Output{}) != nil {
			return
		}
		r.Snapshot(base)
		for done := false; !done; {
			if done, err = r.Slice(io.Discard, 1<<16); err != nil {
				t.Fatal(err)
			}
		}
	})
}
