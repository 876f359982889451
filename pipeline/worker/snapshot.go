package worker

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"footfall/pipeline/profile"
	"footfall/pipeline/segment"
	"footfall/schemas"
)

// A snapshot is a worker at a cut, as bytes. It is written in slices between
// calls of Apply: rows in their order, and a row that is about to change before
// its turn is written first, as it was at the cut (copy on write, as Dragonfly
// does). Blocks, checksums and the footer are package snapshot's.
//
// A delta is a worker at a cut for who has it at an earlier one: all of the header, and
// of the rows those that have changed since, whole. Nothing of a worker ever goes, so
// there is nothing else to tell.
//
//	header
//	  u16 version, u32 partition
//	  u8 whether it is a delta (since version 4), and then of the cut that it builds upon
//	    i64 next, u64 n, u64 hash
//	  i64 next, i64 clock, i64 fired, u64 n, u64 hash, u64 rules, i64 bootstrap
//	  i64 since, u64 epoch   (since version 2)
//	  u8 lane
//	  i64 clock of the bootstrap, i64 wall when it was taken
//	  i64 dedup from offset, i64 latest record timestamp there
//	  u32 runs of refused offsets: i64 from, i64 to
//	  u16 sets (u8 before version 5), those of earlier rules too: text name, u16 segments: text each
//	  u16 cells: text name, u8 what it keeps, i64 for how long, u32 how many   (since version 2)
//	  u16 segments with a policy: text set, text segment, u8 whether carts count   (since version 2)
//	  u8 transitions that are capped   (since version 2)
//	  u32 users who were evaluated at a moment later than fired: text id, i64 moment   (since version 3)
//	  u32 rows
//	rows, in any order
//	  text id, 4 x i64 times, i64 revenue, 6 x u32 counts, i64 due
//	  a set each: u16 segment, u32 seq, u32 since (seconds)
//	  u32 orders ever, 8 x u64 hashes where that is not 0
//	  u32 a segment with a policy each, u32 a capped transition each   (since version 2)
//	  a cell each: its u32 words; of a list u32 entries, 2 x i64 each   (since version 2)
//
// Integers are little-endian; a text is u16 length and bytes.
const snapshotVersion = 5

// slicer is the snapshot under way.
type slicer struct {
	sweep
	pieces  [][]byte // encoded, not yet taken by Slice; the last is written to
	given   int      // of the first piece
	waiting int      // bytes of pieces less given
	spare   []byte   // a piece to use again

	cells []int // that its rows have: those whose history is whole; joinSlice waits with more of them
	delta bool
	rows  int // how many it has
}

// pieceBytes is about how much a piece holds: where a slow bucket makes many bytes wait,
// none of them is copied.
const pieceBytes = 128 << 10

// Snapshot begins a whole snapshot at the present cut and returns the cut. One that is
// under way is given up.
func (w *Worker) Snapshot(wall schemas.Millis) schemas.Mark {
	w.begin(wall, false)
	return w.Mark()
}

func (w *Worker) begin(wall schemas.Millis, delta bool) {
	w.taken = wall
	cells := w.kept()
	w.changes.take(basis{mark: w.Mark(), shape: w.shape(cells), known: true})
	s := &slicer{sweep: newSweep(w.rows.Len()), cells: cells, delta: delta, rows: w.rows.Len()}
	if delta {
		s.sweep, s.rows = newSweepOf(w.changes.taken, s.rows), w.changes.owed()
	}
	w.snap = s
	s.pieces = [][]byte{w.appendHeader(nil)}
	s.waiting = len(s.pieces[0])
}

// write encodes a row for the snapshot under way.
func (w *Worker) write(row int32) {
	s := w.snap
	last := len(s.pieces) - 1
	if len(s.pieces[last]) >= pieceBytes {
		if s.spare == nil {
			s.spare = make([]byte, 0, pieceBytes+4096)
		}
		s.pieces, s.spare = append(s.pieces, s.spare), nil
		last++
	}
	before := len(s.pieces[last])
	s.pieces[last] = w.appendRow(s.pieces[last], row)
	s.waiting += len(s.pieces[last]) - before
}

// Slice writes the next bytes of the snapshot under way, at most about budget, and
// tells when there are no more.
func (w *Worker) Slice(to io.Writer, budget int) (done bool, err error) {
	s := w.snap
	for !s.over() && s.waiting < budget {
		if row := s.turn(); row >= 0 {
			w.write(row)
		}
	}
	for budget > 0 && s.waiting > 0 {
		first := s.pieces[0]
		n := min(len(first)-s.given, budget)
		if _, err := to.Write(first[s.given : s.given+n]); err != nil {
			return false, err
		}
		budget, s.waiting, s.given = budget-n, s.waiting-n, s.given+n
		if s.given == len(first) && len(s.pieces) > 1 {
			s.pieces, s.given, s.spare = s.pieces[1:], 0, first[:0]
		}
	}
	if !s.over() || s.waiting > 0 {
		return false, nil
	}
	w.snap, w.changes.written = nil, true
	return true, nil
}

// GiveUpSnapshot ends the snapshot under way without its last bytes, or says that the one
// that was written last is not stored.
func (w *Worker) GiveUpSnapshot() {
	w.snap = nil
	w.changes.owe()
}

// Taken is the wall's time at which the worker's snapshot was taken.
func (w *Worker) Taken() schemas.Millis { return w.taken }

// touch keeps the row as it is for the snapshot and the census under way, and notes it for
// the next delta. It comes before every change of a row.
func (w *Worker) touch(user int32) {
	w.changes.note(user)
	if s := w.snap; s != nil && s.take(user) {
		w.write(user)
	}
	if w.census != nil {
		w.countUser(user)
	}
}

func (w *Worker) appendHeader(b []byte) []byte {
	le := binary.LittleEndian
	m := w.Mark()
	b = le.AppendUint16(b, snapshotVersion)
	b = le.AppendUint32(b, uint32(m.Partition))
	if !w.snap.delta {
		b = append(b, 0)
	} else {
		upon := &w.changes.kept.mark
		b = le.AppendUint64(append(b, 1), uint64(upon.Next))
		b = le.AppendUint64(le.AppendUint64(b, upon.N), upon.Hash)
	}
	for _, v := range []uint64{uint64(m.Next), uint64(m.Clock), uint64(m.Fired), m.N, m.Hash, m.Rules, uint64(m.Bootstrap)} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint64(le.AppendUint64(b, uint64(m.Since)), m.Epoch)
	b = append(b, byte(m.Lane))
	b = le.AppendUint64(b, uint64(w.bootClock))
	b = le.AppendUint64(b, uint64(w.taken))
	from, latest := w.dedup.start(m.Next)
	w.dead.forget(from)
	b = le.AppendUint64(b, uint64(from))
	b = le.AppendUint64(b, uint64(latest))
	b = le.AppendUint32(b, uint32(len(w.dead.runs)))
	for _, r := range w.dead.runs {
		b = le.AppendUint64(le.AppendUint64(b, uint64(r.from)), uint64(r.to))
	}
	b = le.AppendUint16(b, uint16(len(w.names)))
	for _, set := range w.names {
		b = le.AppendUint16(appendText(b, set.Name), uint16(len(set.Segments)))
		for _, s := range set.Segments {
			b = appendText(b, s)
		}
	}
	b = le.AppendUint16(b, uint16(len(w.snap.cells)))
	for _, i := range w.snap.cells {
		c := &w.cfg.Rules.Layout().Cells()[i]
		b = append(appendText(b, c.Name), byte(c.Keeps))
		b = le.AppendUint32(le.AppendUint64(b, uint64(c.Keep)), uint32(c.K))
	}
	b = le.AppendUint16(b, uint16(len(w.spoken.entries)))
	for i := range w.spoken.entries {
		s := &w.spoken.entries[i]
		b = appendText(appendText(b, w.names[s.set].Name), w.names[s.set].Segments[s.segment])
		b = append(b, 0)
		if s.counts() {
			b[len(b)-1] = 1
		}
	}
	b = append(b, byte(len(w.spoken.recent)))
	b = le.AppendUint32(b, uint32(len(w.ahead)))
	for _, e := range w.ahead {
		b = le.AppendUint64(appendText(b, string(w.table.ID(e.row))), uint64(e.at))
	}
	return le.AppendUint32(b, uint32(w.snap.rows))
}

func appendText(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(s))), s...)
}

func (w *Worker) appendRow(b []byte, user int32) []byte {
	le := binary.LittleEndian
	id := w.table.ID(user)
	b = append(le.AppendUint16(b, uint16(len(id))), id...)
	p := w.profileOf(user)
	for _, v := range []int64{int64(p.First), int64(p.Last), int64(p.FirstPurchase), int64(p.LastPurchase), p.Revenue} {
		b = le.AppendUint64(b, uint64(v))
	}
	for _, c := range p.Counts {
		b = le.AppendUint32(b, c)
	}
	b = le.AppendUint64(b, uint64(w.wheel.due(user)))
	for set := range w.names {
		m := w.member(user, set)
		b = le.AppendUint32(le.AppendUint32(le.AppendUint16(b, m.segment), m.seq), m.since)
	}
	b = le.AppendUint32(b, p.Orders())
	if p.Orders() > 0 {
		for _, o := range w.orders.At(w.packs.Buyer(&w.rows.At(user).profile)) {
			b = le.AppendUint64(b, o)
		}
	}
	for i := range w.spoken.entries {
		b = le.AppendUint32(b, *w.spoken.entries[i].words.At(user))
	}
	for i := range w.spoken.recent {
		b = le.AppendUint32(b, *w.spoken.recent[i].At(user))
	}
	v := w.cells.View(user)
	for _, i := range w.snap.cells {
		if !w.cfg.Rules.Layout().Cells()[i].Keeps.Lists() {
			for _, word := range v.Words(i) {
				b = le.AppendUint32(b, word)
			}
			continue
		}
		list := v.List(i)
		b = le.AppendUint32(b, uint32(len(list)))
		for _, e := range list {
			b = le.AppendUint64(le.AppendUint64(b, uint64(e.A)), uint64(e.B))
		}
	}
	return b
}

// kept are the cells that a snapshot holds: those whose history is whole.
func (w *Worker) kept() (whole []int) {
	for i := range w.cfg.Rules.Layout().Cells() {
		if !slices.Contains(w.filling, i) {
			whole = append(whole, i)
		}
	}
	return whole
}

// Read makes a worker from a snapshot. It is not live before Resume. Its errors
// say what in the bytes cannot be; checksums are package snapshot's.
func Read(from io.Reader, partition int32, cfg Config) (*Worker, error) {
	w := New(partition, cfg)
	r := newReader(from)
	rows, in := w.readHeader(r, false)
	if err := w.readRows(r, rows, in); err != nil {
		return nil, err
	}
	return w, nil
}

// readRows reads what comes after the header, to the end.
func (w *Worker) readRows(r *reader, rows uint32, in layout) error {
	if r.err != nil {
		return fmt.Errorf("header: %w", r.err)
	}
	w.table.Expect(int(rows))
	for i := range rows {
		if w.readRow(r, in); r.err != nil {
			return fmt.Errorf("row %d of %d: %w", i+1, rows, r.err)
		}
	}
	for _, e := range in.ahead {
		user := w.table.Find([]byte(e.id))
		if user < 0 {
			return fmt.Errorf("header: user %q has no row", e.id)
		}
		w.replaying.touch(user, e.at)
	}
	if !r.ended() {
		return fmt.Errorf("bytes after the last of %d rows", rows)
	}
	w.changes.read(basis{mark: w.Mark(), shape: in.shape.sum(), known: true})
	return nil
}

// setMap turns the set and segments of a snapshot into the worker's.
type setMap struct {
	set      int
	segments []uint16
}

// cellMap turns a cell of a snapshot into one of the rules'.
type cellMap struct {
	cell  int // -1: the rules do not ask for it any more
	keeps profile.Keeps
}

// layout is what a snapshot's rows are made of.
type layout struct {
	sets   []setMap
	cells  []cellMap
	spoken []int // of the worker's spoken entries; -1: by the rules they are of another kind
	recent int
	ahead  []aheadMap
	shape  shape
	delta  bool
}

// aheadMap is when a user was evaluated, later than fired.
type aheadMap struct {
	id string
	at schemas.Millis
}

func (w *Worker) readHeader(r *reader, delta bool) (rows uint32, in layout) {
	in.delta = delta
	version := r.u16()
	if version < 1 || version > snapshotVersion {
		r.fail("version %d, and this footfall reads 1 to %d", version, snapshotVersion)
		return 0, in
	}
	if p := int32(r.u32()); p != w.mark.Partition {
		r.fail("of partition %d, not %d", p, w.mark.Partition)
		return 0, in
	}
	m := &w.mark
	if version > 3 {
		w.readKind(r, delta)
	} else if delta {
		r.fail("a delta of version %d, which had none", version)
	}
	if r.err != nil {
		return 0, in
	}
	m.Next, m.Clock, m.Fired = int64(r.u64()), schemas.Millis(r.u64()), schemas.Millis(r.u64())
	m.N, m.Hash, m.Rules, m.Bootstrap = r.u64(), r.u64(), r.u64(), int64(r.u64())
	if version > 1 {
		m.Since, m.Epoch = schemas.Millis(r.u64()), r.u64()
	}
	m.Lane = schemas.Lane(r.u8())
	w.bootClock = schemas.Millis(r.u64())
	w.taken = schemas.Millis(r.u64())
	w.wheel.now = m.Fired + 1
	w.replaying.dedupFrom = int64(r.u64())
	w.dedup.latest = schemas.Millis(r.u64())
	for range r.u32() {
		run := offsetRun{int64(r.u64()), int64(r.u64())}
		if r.err != nil {
			return 0, in
		}
		w.dead.runs = append(w.dead.runs, run)
	}
	for range readSets(r, version) {
		name, segments := r.name(), make([]string, r.u16())
		for i := range segments {
			if segments[i] = r.name(); r.err != nil {
				return 0, in
			}
			in.shape.segment(name, segments[i])
		}
		if r.err != nil {
			return 0, in
		}
		in.sets = append(in.sets, w.mapSet(name, segments))
	}
	w.readCells(r, version, &in)
	w.readPolicies(r, version, &in)
	if version > 2 {
		for range r.u32() {
			one := aheadMap{r.text(), schemas.Millis(r.u64())}
			if r.err != nil {
				return 0, in
			}
			in.ahead = append(in.ahead, one)
		}
	}
	return r.u32(), in
}

// readSets reads how many sets there are.
func readSets(r *reader, version uint16) uint16 {
	if version < 5 {
		return uint16(r.u8())
	}
	return r.u16()
}

// readKind reads whether a snapshot is a delta, and whether it is one upon the worker's cut.
func (w *Worker) readKind(r *reader, delta bool) {
	switch kind := r.u8(); {
	case r.err != nil:
		return
	case kind > 1:
		r.fail("a snapshot of kind %d", kind)
	case (kind == 1) != delta:
		r.fail("a delta: %t, want %t", kind == 1, delta)
	case delta:
		m := &w.mark
		if next, n, hash := int64(r.u64()), r.u64(), r.u64(); next != m.Next || n != m.N || hash != m.Hash {
			r.fail("a delta of what has changed since offset %d, n=%d hash=%016x, and this is offset %d, n=%d hash=%016x", next, n, hash, m.Next, m.N, m.Hash)
		}
	}
}

// mapSet finds a snapshot's set and segments among the worker's, by their names.
func (w *Worker) mapSet(name string, segments []string) setMap {
	m := setMap{set: w.setNumber(name)}
	for _, s := range segments {
		m.segments = append(m.segments, w.segmentNumber(m.set, s))
	}
	return m
}

// readCells finds a snapshot's cells among the rules', by their names. What the rules
// ask for and the snapshot has not, or not for as long, has to be filled.
func (w *Worker) readCells(r *reader, version uint16, in *layout) {
	cells := w.cfg.Rules.Layout().Cells()
	known := make([]bool, len(cells))
	n := uint16(0)
	if version > 1 {
		n = r.u16()
	}
	for range n {
		name, keeps := r.text(), profile.Keeps(r.u8())
		keep, k := schemas.Millis(r.u64()), int(r.u32())
		if r.err != nil {
			return
		}
		if !keeps.Valid() {
			r.fail("cell %q keeps what this footfall does not know", name)
			return
		}
		m := cellMap{-1, keeps}
		has := profile.Cell{Name: name, Keeps: keeps, Keep: keep, K: k}
		in.shape.cell(&has)
		for i := range cells {
			if has.Holds(&cells[i]) {
				m.cell, known[i] = i, true
			}
		}
		in.cells = append(in.cells, m)
	}
	for i, k := range known {
		if !k {
			w.filling = append(w.filling, i)
		}
	}
	w.filledUpTo = w.mark.Next
}

// readPolicies finds what was said aloud among what the rules' policies ask for.
func (w *Worker) readPolicies(r *reader, version uint16, in *layout) {
	if version < 2 {
		in.shape.recent(0)
		return
	}
	for range r.u16() {
		set, name, carts := r.name(), r.name(), r.u8() == 1
		if r.err != nil {
			return
		}
		in.shape.spoken(set, name, carts)
		slot := entrySlot{set: w.setNumber(set), kind: segment.ReentryOnce}
		if slot.segment = w.segmentNumber(slot.set, name); carts {
			slot.kind = segment.ReentryCart
		}
		if w.spoken.slot(slot.set, slot.segment) == nil {
			w.addEntrySlot(slot, nil)
		}
		at := w.spoken.slots[slot.set][slot.segment]
		if w.spoken.entries[at].counts() != carts {
			at = -1
		}
		in.spoken = append(in.spoken, at)
	}
	in.recent = int(r.u8())
	in.shape.recent(in.recent)
}

func (w *Worker) readRow(r *reader, in layout) {
	id := r.bytes()
	if len(id) < 1 || len(id) > profile.IDMax {
		r.fail("an id of %d bytes", len(id))
	}
	if r.err != nil {
		return
	}
	user, added := w.findOrAdd(id)
	if !added && (!in.delta || w.changes.noted(user)) {
		r.fail("user %q twice", id)
		return
	}
	w.changes.note(user)
	readProfile(r, &w.profile)
	orders := w.profile.Orders()
	w.keep(user, &w.profile)
	w.wheel.link(user).due = schemas.Millis(r.u64())
	for _, s := range in.sets {
		segment, seq, since := r.u16(), r.u32(), r.u32()
		if int(segment) >= len(s.segments) {
			r.fail("user %q in segment %d of %d", id, segment, len(s.segments))
			return
		}
		if seq > 0 {
			w.move(user, s.set, s.segments[segment], seq, schemas.Millis(since)*schemas.Second)
		}
	}
	if n := r.u32(); n != orders {
		r.fail("user %q with %d orders, and ids of %d", id, orders, n)
		return
	}
	if orders > 0 {
		ring := w.orders.At(w.packs.Buyer(&w.rows.At(user).profile))
		for i := range ring {
			ring[i] = r.u64()
		}
	}
	w.readSpoken(r, user, in)
	for _, c := range in.cells {
		w.readCell(r, user, c)
	}
}

// readSpoken reads what was said aloud of a user.
func (w *Worker) readSpoken(r *reader, user int32, in layout) {
	for _, slot := range in.spoken {
		if word := r.u32(); slot >= 0 {
			*w.spoken.entries[slot].words.At(user) = word
		}
	}
	for i := range in.recent {
		// The last of both lists are the newest.
		if at, word := len(w.spoken.recent)-in.recent+i, r.u32(); at >= 0 {
			*w.spoken.recent[at].At(user) = word
		}
	}
}

func (w *Worker) readCell(r *reader, user int32, c cellMap) {
	if !c.keeps.Lists() {
		var words [4]uint32
		for i := range c.keeps.Words() {
			words[i] = r.u32()
		}
		if c.cell >= 0 && r.err == nil {
			copy(w.cells.View(user).Words(c.cell), words[:])
		}
		return
	}
	n := r.u32()
	if n > profile.ListMax {
		r.fail("a list of %d entries, and %d are the most", n, profile.ListMax)
		return
	}
	w.entries = w.entries[:0]
	for range n {
		e := profile.Entry{A: int64(r.u64()), B: int64(r.u64())}
		if r.err != nil {
			return
		}
		w.entries = append(w.entries, e)
	}
	if c.cell >= 0 {
		w.cells.SetList(user, c.cell, w.entries)
	}
}

func readProfile(r *reader, p *profile.Profile) {
	le, b := binary.LittleEndian, r.take(5*8+4*len(p.Counts))
	p.First, p.Last = schemas.Millis(le.Uint64(b)), schemas.Millis(le.Uint64(b[8:]))
	p.FirstPurchase, p.LastPurchase = schemas.Millis(le.Uint64(b[16:])), schemas.Millis(le.Uint64(b[24:]))
	p.Revenue = int64(le.Uint64(b[32:]))
	for i := range p.Counts {
		p.Counts[i] = le.Uint32(b[40+4*i:])
	}
}
