package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"footfall/pipeline/archive"
)

// Table is a table that lies, as a ClickHouse does on a bad day: it loses what it
// acknowledged and remembers the token all the same, takes half of an insert, does
// it after having refused it, restarts behind something that does not tell.
//
// Whatever is drawn is drawn from Dice, in an order that follows from the calls.
type Table struct {
	Dice   *rand.Rand
	Chance func(fault string, oneIn int) bool                // whether something goes wrong now
	Gives  func(p archive.Partition, r *archive.Record) bool // whether a record gives a row
	Absent func() bool                                       // whether every request fails now; nil: never

	Honest bool // keeps what it acknowledged, and does nothing late
	Blind  bool // shows the audit what the audit wants to see

	Lost  int // rows acknowledged and gone
	Clean int // answers in a row to the audit with nothing to mend
	Most  int // rows in one insert, at most

	rows   map[archive.Partition][]cell // sorted
	recent []insert                     // the last ones acknowledged
	late   []insert                     // refused, and still to be done
	tokens map[string]bool
	epoch  int
}

// cell is a row, and how often it is there.
type cell struct {
	archive.Row
	n int
}

// insert is the rows of one insert, by partition in the order in which they came.
type insert []piece

type piece struct {
	p    archive.Partition
	rows []archive.Row
}

func byRow(c cell, r archive.Row) int {
	return cmp.Or(cmp.Compare(c.Offset, r.Offset), cmp.Compare(c.Hash, r.Hash))
}

// Put adds a row n times, or takes it away for n below zero.
func (t *Table) Put(p archive.Partition, r archive.Row, n int) {
	if t.rows == nil {
		t.rows = map[archive.Partition][]cell{}
	}
	cells := t.rows[p]
	i, there := slices.BinarySearchFunc(cells, r, byRow)
	if !there {
		cells = slices.Insert(cells, i, cell{Row: r})
		t.rows[p] = cells
	}
	cells[i].n += n
}

// Count is how often a row is there.
func (t *Table) Count(p archive.Partition, r archive.Row) int {
	if i, there := slices.BinarySearchFunc(t.rows[p], r, byRow); there {
		return t.rows[p][i].n
	}
	return 0
}

// Each gives the rows that are there, and how often, in order of their offsets.
func (t *Table) Each(p archive.Partition, each func(r archive.Row, n int)) {
	for _, c := range t.rows[p] {
		if c.n > 0 {
			each(c.Row, c.n)
		}
	}
}

// Differ says where the table differs from a partition's records: each from start on
// that gives a row has it, and there is no other row.
func (t *Table) Differ(p archive.Partition, records []archive.Record, start int64) (faults []string) {
	want := map[archive.Row]bool{}
	for i := range records {
		if r := &records[i]; !r.Control && t.Gives(p, r) {
			row := archive.Row{Offset: r.Offset, Hash: archive.Hash(r)}
			want[row] = true
			if r.Offset >= start && t.Count(p, row) == 0 {
				faults = append(faults, fmt.Sprintf("%s/%d: the row of offset %d is missing", p.Topic, p.Number, r.Offset))
			}
		}
	}
	t.Each(p, func(r archive.Row, _ int) {
		if !want[r] {
			faults = append(faults, fmt.Sprintf("%s/%d: the row of offset %d is of no record in the log", p.Topic, p.Number, r.Offset))
		}
	})
	return faults
}

// span gives the cells of a span.
func (t *Table) span(s archive.Span) []cell {
	cells := t.rows[s.Partition]
	i, _ := slices.BinarySearchFunc(cells, archive.Row{Offset: s.First}, byRow)
	j, _ := slices.BinarySearchFunc(cells, archive.Row{Offset: s.Next}, byRow)
	return cells[i:j]
}

// apply does the first rows of each partition of an insert.
func (t *Table) apply(in insert, most func(rows int) int) {
	for _, pc := range in {
		for _, r := range pc.rows[:most(len(pc.rows))] {
			t.Put(pc.p, r, 1)
		}
	}
	t.recent = append(t.recent, in)
	t.recent = t.recent[max(0, len(t.recent)-3):]
}

func all(rows int) int { return rows }

func (t *Table) some(rows int) int { return t.Dice.IntN(rows + 1) }

// Crash kills the server, if the dice say so: each of the last inserts may be gone,
// in part or whole; their tokens are remembered all the same.
func (t *Table) Crash(oneIn int) {
	if t.Honest || !t.Chance("server killed", oneIn) {
		return
	}
	if t.Dice.IntN(3) > 0 { // or behind something that does not tell
		t.epoch++
	}
	for _, in := range t.recent {
		if t.Dice.IntN(3) > 0 {
			continue
		}
		for _, pc := range in {
			for _, r := range pc.rows[:t.some(len(pc.rows))] {
				if t.Count(pc.p, r) > 0 {
					t.Put(pc.p, r, -1)
					t.Lost++
				}
			}
		}
	}
	t.recent = nil
}

// Calm does what was refused and is still under way.
func (t *Table) Calm() {
	for _, in := range t.late {
		t.apply(in, all)
	}
	t.late = nil
}

// As is the table as one process reaches it, which interrupt may kill or hold up.
func (t *Table) As(interrupt func(where string)) archive.Table { return tableOf{t, interrupt} }

type tableOf struct {
	*Table
	interrupt func(where string)
}

var errNoAnswer = errors.New("no answer")

// fails tells whether a request goes unanswered.
func (t tableOf) fails(what string) error {
	t.interrupt(what)
	if t.Absent != nil && t.Absent() {
		return fmt.Errorf("%s: %w", what, errNoAnswer)
	}
	t.Crash(40)
	if t.Chance(what+" fails", 15) {
		return fmt.Errorf("%s: %w", what, errNoAnswer)
	}
	return nil
}

// Rows is archive.Table.
func (t tableOf) Rows() archive.Rows { return &rowsOf{t: t} }

// Present is archive.Table.
func (t tableOf) Present(_ context.Context, s archive.Span) (there []archive.Row, err error) {
	if err := t.fails("read back"); err != nil {
		return nil, err
	}
	for _, c := range t.span(s) {
		for range c.n {
			there = append(there, c.Row)
		}
	}
	return there, nil
}

// Sums is archive.Table.
func (t tableOf) Sums(_ context.Context, spans []archive.Span) ([]archive.Sum, error) {
	if err := t.fails("sums"); err != nil {
		return nil, err
	}
	sums := make([]archive.Sum, len(spans))
	t.Clean++
	for i, s := range spans {
		for _, c := range t.span(s) {
			if c.n > 0 {
				sums[i].Rows++
				sums[i].Hash += c.Hash
			}
		}
		if t.Blind {
			sums[i] = s.Sum
		}
		if sums[i] != s.Sum {
			t.Clean = 0
		}
	}
	return sums, nil
}

// After is archive.Table.
func (t tableOf) After(_ context.Context, p archive.Partition, first int64) (int64, error) {
	if err := t.fails("after"); err != nil {
		return 0, err
	}
	t.Each(p, func(r archive.Row, _ int) { first = max(first, r.Offset+1) })
	return first, nil
}

// Settle is archive.Table. What comes late in spite of it is the doing of processes
// that do not know they are out.
func (t tableOf) Settle(context.Context) error {
	if err := t.fails("settle"); err != nil {
		return err
	}
	if t.Dice.IntN(2) == 0 {
		t.Calm()
	}
	return nil
}

// Epoch is archive.Table.
func (t tableOf) Epoch(context.Context) (string, error) {
	if err := t.fails("epoch"); err != nil {
		return "", err
	}
	return fmt.Sprint(t.epoch), nil
}

// rowsOf are rows for a table that lies.
type rowsOf struct {
	t      tableOf
	insert insert
	p      archive.Partition
	offset int64
	n      int
}

// Foreign is archive.Rows: whatever gives no row here is somebody's.
func (r *rowsOf) Foreign() bool { return false }

// Decode is archive.Rows.
func (r *rowsOf) Decode(p archive.Partition, rec *archive.Record) bool {
	r.p, r.offset = p, rec.Offset
	return r.t.Gives(p, rec)
}

// Add is archive.Rows.
func (r *rowsOf) Add(hash uint64) {
	i := slices.IndexFunc(r.insert, func(pc piece) bool { return pc.p == r.p })
	if i < 0 {
		i = len(r.insert)
		r.insert = append(r.insert, piece{p: r.p})
	}
	r.insert[i].rows = append(r.insert[i].rows, archive.Row{Offset: r.offset, Hash: hash})
	r.n++
	r.t.Most = max(r.t.Most, r.n)
}

// Content is archive.Rows: a row's content is told by its hash.
func (r *rowsOf) Content(hash uint64) uint64 { return Content(hash) }

// Content is the hash of the content of a row that nobody has changed.
func Content(hash uint64) uint64 { return hash*31 + 1 }

// Len is archive.Rows.
func (r *rowsOf) Len() int { return r.n }

// Size is archive.Rows.
func (r *rowsOf) Size() int { return 10 * r.n }

// Reset is archive.Rows.
func (r *rowsOf) Reset() { r.insert, r.n = nil, 0 }

// Insert is archive.Rows.
func (r *rowsOf) Insert(_ context.Context, token string) error {
	t := r.t.Table
	r.t.interrupt("insert")
	if t.Absent != nil && t.Absent() {
		return errNoAnswer
	}
	if len(t.late) > 0 && t.Dice.IntN(2) == 0 { // what was refused comes now
		t.apply(t.late[0], all)
		t.late = t.late[1:]
	}
	if t.tokens == nil {
		t.tokens = map[string]bool{}
	}
	if t.tokens[token] {
		return nil // dropped, and success reported
	}
	if t.Chance("insert refused", 12) {
		t.tokens[token] = t.Dice.IntN(2) == 0 // remembered, rows lost
		return errors.New("insert: refused")
	}
	t.tokens[token] = true
	in := slices.Clone(r.insert)
	if t.Chance("insert cut short", 12) {
		t.apply(in, t.some)
		return errors.New("insert: cut short")
	}
	if !t.Honest && t.Chance("insert done later", 12) {
		t.late = append(t.late, in)
		return errNoAnswer
	}
	t.apply(in, all)
	r.t.interrupt("after insert")
	if t.Chance("insert done, no answer", 12) {
		return errNoAnswer
	}
	t.Crash(40)
	return nil
}
