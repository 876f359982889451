package worker

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"footfall/pipeline/profile"
	"footfall/pipeline/segment"
	"footfall/schemas"
)

// contract is what the test's shop configures: a dollar is half a euro.
var contract = schemas.Contract{Currency: "EUR", Rates: map[string]string{"USD": "0.5"}}

// base is 2026-01-01T00:00:00Z.
const base schemas.Millis = 1_767_225_600_000

// config is the product's defaults, with timers in slices of 1,000.
func config(tb testing.TB) Config {
	tb.Helper()
	d, err := schemas.NewDecoder(contract)
	if err != nil {
		tb.Fatal(err)
	}
	return Config{
		Rules: segment.Lifecycle(d.Hash()), Decoder: d,
		Ahead: 5 * schemas.Minute, MaxSkew: 5 * schemas.Minute, MaxAge: schemas.Day,
		DedupWindow: schemas.Hour, DedupBudget: 1 << 20, Slice: 1000,
	}
}

// world is what is outside a worker and survives it: the input log, what was
// said, what of it was committed, and the snapshots.
type world struct {
	cfg       Config
	worker    *Worker
	log       []Record // ascending offsets
	said      []Item   // in order of n; what comes after the commit is lost in a crash
	committed schemas.Mark
	snapshots []saved
	written   []saved      // whole, and published with the next commit
	partial   bytes.Buffer // the snapshot under way
	cut       schemas.Mark // and its cut
	out       Output

	toss  func() bool // deltas are taken, where they can be, when it says so; nil: none is
	upon  *saved      // what the worker takes deltas upon
	naive []byte      // a whole snapshot of the cut of the delta under way; nil: it is whole itself
}

// saved is a snapshot: a whole one, or a delta upon another.
type saved struct {
	cut   schemas.Mark
	bytes []byte
	upon  *saved
}

// read makes a worker of a snapshot and those that it builds upon.
func (s *saved) read(cfg Config) (w *Worker, err error) {
	if s.upon == nil {
		return Read(bytes.NewReader(s.bytes), 7, cfg)
	}
	if w, err = s.upon.read(cfg); err == nil {
		err = w.ReadDelta(bytes.NewReader(s.bytes))
	}
	return w, err
}

// newWorld begins a partition from nothing, with the empty snapshot that comes
// before everything else.
func newWorld(tb testing.TB, cfg Config, bootstrap int64) *world {
	tb.Helper()
	w := &world{cfg: cfg, worker: New(7, cfg)}
	w.worker.Begin(0, bootstrap)
	w.snapshot(tb, base, 1<<20)
	w.commit()
	return w
}

// apply gives records to the worker and keeps what it says. Their memory is another's
// when the call has returned.
func (w *world) apply(records []Record, at Conditions) []Item {
	lent := lend(records)
	w.worker.Apply(lent, at, &w.out)
	spoil(lent)
	w.said = append(w.said, w.out.Items...)
	return w.out.Items
}

// lend copies records, and all they point at.
func lend(records []Record) []Record {
	lent := slices.Clone(records)
	for i := range lent {
		r := &lent[i]
		r.Key, r.Value, r.Headers = slices.Clone(r.Key), slices.Clone(r.Value), slices.Clone(r.Headers)
		for j := range r.Headers {
			r.Headers[j].Value = slices.Clone(r.Headers[j].Value)
		}
	}
	return lent
}

// spoil writes over records that were lent, as what is fetched next does.
func spoil(lent []Record) {
	for i := range lent {
		r := &lent[i]
		all := [][]byte{r.Key, r.Value}
		for _, h := range r.Headers {
			all = append(all, h.Value)
		}
		for _, b := range all {
			for j := range b {
				b[j] = 0xff
			}
		}
		lent[i] = Record{Offset: -1}
	}
}

// settle lets the worker do what it has left.
func (w *world) settle(at Conditions) (items []Item) {
	for w.worker.Pending() {
		items = append(items, w.apply(nil, at)...)
	}
	return items
}

// commit makes everything said so far survive a crash.
func (w *world) commit() {
	w.committed = w.worker.Mark()
	w.snapshots = append(w.snapshots, w.written...)
	w.written = nil
}

// snapshot takes a whole snapshot, in slices of budget bytes.
func (w *world) snapshot(tb testing.TB, wall schemas.Millis, budget int) {
	tb.Helper()
	w.begin(wall)
	for !w.slice(tb, budget) {
	}
}

// begin begins a snapshot.
func (w *world) begin(wall schemas.Millis) {
	w.partial.Reset()
	w.naive = nil
	if _, ok := w.worker.Changed(); ok && w.toss != nil && w.toss() {
		w.cut, w.naive = w.worker.Delta(wall), w.worker.whole()
		return
	}
	w.cut = w.worker.Snapshot(wall)
}

// slice goes on with the snapshot under way. When it is whole, the next commit
// covers it.
func (w *world) slice(tb testing.TB, budget int) (done bool) {
	tb.Helper()
	before := w.partial.Len()
	done, err := w.worker.Slice(&w.partial, budget)
	if err != nil {
		tb.Fatalf("slice into memory: %v", err)
	}
	if n := w.partial.Len() - before; n > budget {
		tb.Fatalf("slice: got %d bytes, want at most %d", n, budget)
	}
	if done {
		s := saved{w.cut, bytes.Clone(w.partial.Bytes()), nil}
		if w.naive != nil {
			s.upon = w.upon
			w.compare(tb, &s)
		}
		w.written = append(w.written, s)
		if w.toss != nil && w.toss() {
			w.worker.GiveUpSnapshot() // it is stored, and nobody has heard of it
		} else {
			w.worker.SnapshotKept()
			w.upon = &s
		}
	}
	return done
}

// crash forgets the worker and all that was not committed, and brings another one
// to life, as design 5 says: the snapshot, the committed outputs, the ids of the
// dedup window, the input, the mark. It gives what that one says at once.
func (w *world) crash(tb testing.TB, snapshot int, cfg Config, at Conditions) []Item {
	tb.Helper()
	w.cfg = cfg
	lost, _ := slices.BinarySearchFunc(w.said, w.committed.N+1, func(it Item, n uint64) int { return cmp.Compare(it.N, n) })
	w.said, w.written = w.said[:lost], nil
	w.worker, w.upon = w.rebuild(tb, w.snapshots[snapshot], at), &w.snapshots[snapshot]
	w.said = append(w.said, w.out.Items...)
	return w.out.Items
}

// rebuild makes a live worker at the committed mark.
func (w *world) rebuild(tb testing.TB, from saved, at Conditions) *Worker {
	tb.Helper()
	r, err := from.read(w.cfg)
	if err != nil {
		tb.Fatalf("read a snapshot just written: %v", err)
	}
	if got := r.Mark(); got.Next != from.cut.Next || got.N != from.cut.N || got.Hash != from.cut.Hash || got.Clock != from.cut.Clock || got.Fired != from.cut.Fired {
		tb.Fatalf("cut of a snapshot:\ngot  %+v\nwant %+v", got, from.cut)
	}
	for i := range w.said {
		if it := &w.said[i]; it.N > from.cut.N && it.N <= w.committed.N {
			if err := r.Said(it); err != nil {
				tb.Fatalf("said: %v", err)
			}
		}
	}
	r.Remember(w.between(r.DedupStart(), from.cut.Next))
	if err := r.Replay(w.between(from.cut.Next, w.committed.Next)); err != nil {
		tb.Fatalf("replay: %v", err)
	}
	if err := r.Resume(w.committed, at, &w.out); err != nil {
		tb.Fatalf("resume: %v", err)
	}
	return r
}

// between gives the records with from <= offset < to.
func (w *world) between(from, to int64) []Record {
	place := func(offset int64) int {
		i, _ := slices.BinarySearchFunc(w.log, offset, func(r Record, o int64) int { return cmp.Compare(r.Offset, o) })
		return i
	}
	return w.log[min(place(from), place(to)):place(to)]
}

// cellsOf is what a user's cells hold, as far as it can still matter.
func (w *Worker) cellsOf(user int32) (text string) {
	v := w.cells.View(user)
	for i, c := range w.cfg.Rules.Layout().Cells() {
		if !c.Keeps.Lists() {
			text += fmt.Sprintf(" %s %v", c.Name, v.Words(i))
			continue
		}
		from := schemas.Millis(0)
		if c.Since != nil {
			from = c.Since(w.mark.Clock)
		}
		text += " " + c.Name
		for _, e := range v.List(i) {
			at := e.A
			if c.Keeps == profile.Distinct {
				at = e.B
			}
			if c.Keeps == profile.Carts {
				continue // of three entries a line; the segments tell
			}
			if c.Keeps == profile.Tally || at >= int64(from) {
				text += fmt.Sprintf(" %d:%d", e.A, e.B)
			}
		}
	}
	return text
}

// digest is all that a worker knows, as text: what two workers must share to be
// the same. With exact, the due times are the wheel's own; a wheel may know an
// earlier one than the true one, so without it they are those of the segments.
func (w *Worker) digest(tb testing.TB, exact bool) string {
	tb.Helper()
	var lines []string
	for user := range int32(w.table.Len()) {
		pr := *w.profileOf(user)
		line := fmt.Sprintf("user %q %+v", w.table.ID(user), pr)
		change := schemas.Never
		for set := range w.segments {
			m := w.member(user, set)
			line += fmt.Sprintf(" set %d %+v", set, m)
			change = min(change, w.eval.Expected(&pr, w.cells.View(user), w.fired(), set, m.segment, w.others).At)
		}
		line += w.cellsOf(user)
		if buyer := w.packs.Buyer(&w.rows.At(user).profile); buyer >= 0 {
			line += fmt.Sprintf(" orders %x", *w.orders.At(buyer))
		}
		due := w.wheel.due(user)
		if due > change {
			tb.Errorf("%s: the wheel has it due at %d, its segment changes at %d", line, due, change)
		}
		if !exact {
			due = change
		}
		lines = append(lines, fmt.Sprintf("%s due %d\n", line, due))
	}
	slices.Sort(lines)
	m := w.Mark()
	m.Address = ""
	lines = append(lines, fmt.Sprintf("mark %+v\nbootstrap clock %d\npopulation %v\n", m, w.bootClock, w.population))
	lines = append(lines, fmt.Sprintf("dedup latest %d\n", w.dedup.latest))
	for i := w.dedup.head; i != w.dedup.tail; i++ {
		lines = append(lines, fmt.Sprintf("dedup %+v\n", *w.dedup.at(i)))
	}
	from, _ := w.dedup.start(m.Next)
	for o := from; o < m.Next; o++ {
		if w.dead.has(o) {
			lines = append(lines, fmt.Sprintf("dead %d\n", o))
		}
	}
	return strings.Join(lines, "")
}
