package archive_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/archive"
	"footfall/pipeline/sim"
	"footfall/schemas"
)

// audited is a world whose table tells more.
type audited struct {
	*world
	archive.Table
	changed map[archive.Partition]map[archive.Row]uint64 // what was done to a row's content
	dead    map[archive.Partition]map[int64]bool         // offsets known to have been refused
}

// set makes a row be there n times.
func (w *audited) set(p archive.Partition, r archive.Row, n int) {
	w.table.Put(p, r, n-w.table.Count(p, r))
}

func (w *audited) Found(_ context.Context, s archive.Span, contents bool) (found []archive.Found, err error) {
	w.table.Each(s.Partition, func(r archive.Row, n int) {
		if s.First <= r.Offset && r.Offset < s.Next {
			f := archive.Found{Row: r, Copies: int64(n)}
			if contents {
				f.Content = sim.Content(r.Hash) + w.changed[s.Partition][r]
			}
			found = append(found, f)
		}
	})
	return found, nil
}

func (w *audited) Tallies(ctx context.Context, spans []archive.Span, contents bool) ([]archive.Tally, error) {
	tallies := make([]archive.Tally, len(spans))
	for i, s := range spans {
		found, _ := w.Found(ctx, s, contents)
		for _, f := range found {
			tallies[i].Rows++
			tallies[i].Hash += f.Hash
			tallies[i].Content += f.Content
			tallies[i].Copies += f.Copies - 1
		}
	}
	return tallies, nil
}

func (w *audited) Refused(_ context.Context, s archive.Span) (offsets []int64, err error) {
	for offset := range w.dead[s.Partition] {
		if s.First <= offset && offset < s.Next {
			offsets = append(offsets, offset)
		}
	}
	slices.Sort(offsets)
	return offsets, nil
}

func auditedWorld(seed uint64) *audited {
	w := newWorld(seed)
	return &audited{
		world: w, Table: w.table.As(func(string) {}),
		changed: map[archive.Partition]map[archive.Row]uint64{}, dead: map[archive.Partition]map[int64]bool{},
	}
}

// calmWorld is a log and a table that has all of it.
func calmWorld(seed uint64) *audited {
	w := auditedWorld(seed)
	w.faults, w.kills, w.forgets = false, 0, false
	for _, p := range w.partitions() {
		w.changed[p], w.dead[p] = map[archive.Row]uint64{}, map[int64]bool{}
		for i := range w.records[p] {
			if r := &w.records[p][i]; gives(r) {
				w.set(p, archive.Row{Offset: r.Offset, Hash: archive.Hash(r)}, 1)
			}
		}
	}
	return w
}

// shares are of the whole log, as Plan makes them.
func (w *audited) shares() (shares []archive.Share) {
	var stock []archive.Stock
	var extents []archive.Extent
	for _, p := range w.partitions() {
		s := archive.Stock{Partition: p, First: 1 << 60}
		w.table.Each(p, func(r archive.Row, n int) {
			s.Rows += int64(n)
			s.First, s.Last = min(s.First, r.Offset), max(s.Last, r.Offset)
		})
		if s.Rows > 0 {
			stock = append(stock, s)
		}
		extents = append(extents, archive.Extent{Partition: p, Start: w.start[p], End: w.end(p), Committed: w.end(p)})
	}
	shares, _, _ = archive.Plan(stock, extents, archive.Selection{}, true)
	return shares
}

func (w *audited) compare(t *testing.T, c archive.CompareConfig) (all []*archive.Compared) {
	t.Helper()
	c.Log, c.Table = w, w
	c.Now = func() schemas.Millis { return w.now }
	c.Sleep = func(context.Context, schemas.Millis) error { return errors.New("nothing to wait for") }
	n := archive.NewComparison(c)
	for _, s := range w.shares() {
		found, err := n.Compare(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found)
	}
	return all
}

// counts is what a comparison must find, by the dumb way: counted while the damage
// is done.
type counts struct {
	Missing, Doubled, Different, Foreign, Copies, Refused, Taken, Beyond int64
	changed                                                              int64 // of Doubled and Different: seen by contents alone
}

// damage does to a table what must not happen to it, one thing a position.
func (w *audited) damage() (all []counts) {
	for _, p := range w.partitions() {
		var n counts
		end := w.end(p)
		for i := range w.records[p] {
			r := &w.records[p][i]
			row := archive.Row{Offset: r.Offset, Hash: archive.Hash(r)}
			if w.IntN(3) > 0 {
				continue
			}
			switch {
			case !gives(r) && w.IntN(2) == 0 && !r.Control: // accepted by the contract of its time
				w.set(p, row, 1)
				n.Taken++
			case !gives(r):
				w.set(p, archive.Row{Offset: r.Offset, Hash: 77}, 1)
				n.Foreign++
			default:
				w.harm(p, row, &n)
			}
		}
		for i := 1; i < len(w.records[p]); i++ { // where aborted records were
			if at := w.records[p][i].Offset - 1; at > w.records[p][i-1].Offset && w.IntN(3) == 0 {
				copies := w.IntN(2)
				w.set(p, archive.Row{Offset: at, Hash: 5}, 1+copies)
				n.Foreign++
				n.Copies += int64(copies)
			}
		}
		if w.IntN(2) == 0 {
			w.set(p, archive.Row{Offset: end, Hash: 5}, 1)
			n.Foreign++
		}
		if w.IntN(2) == 0 && w.start[p] > 0 {
			w.set(p, archive.Row{Offset: w.start[p] - 1, Hash: 5}, 1)
			n.Beyond++
		}
		all = append(all, n)
	}
	return all
}

// harm damages the row of a record.
func (w *audited) harm(p archive.Partition, row archive.Row, n *counts) {
	switch w.IntN(7) {
	case 0:
		w.set(p, row, 0)
		n.Missing++
	case 1:
		w.set(p, row, 0)
		w.dead[p][row.Offset] = true
		n.Refused++
	case 2:
		w.table.Put(p, row, 2)
		n.Copies += 2
	case 3:
		w.set(p, archive.Row{Offset: row.Offset, Hash: row.Hash + 1}, 1)
		n.Doubled++
	case 4:
		w.set(p, row, 0)
		w.set(p, archive.Row{Offset: row.Offset, Hash: row.Hash + 1}, 1)
		n.Different++
	case 5:
		w.changed[p][row] = 1
		n.Different++
		n.changed++
	}
}

func found(c *archive.Compared) counts {
	return counts{
		Missing: c.Missing, Doubled: c.Doubled, Different: c.Different, Foreign: c.Foreign,
		Copies: c.Copies, Refused: c.Refused, Taken: c.Taken, Beyond: c.Beyond,
	}
}

// Whatever is done to a table, a comparison counts it as the dumb way does, however
// the log is divided, and changes nothing.
func TestCompareFindsDamage(t *testing.T) {
	for seed := range seedsWanted(t) / 2 {
		w := calmWorld(seed)
		want := w.damage()
		for _, quick := range []bool{false, true} {
			got := w.compare(t, archive.CompareConfig{SpanRows: 1 + w.IntN(300), Quick: quick})
			for i, c := range got {
				expect := want[i]
				if quick {
					expect.Different -= expect.changed
				}
				expect.changed = 0
				if d := cmp.Diff(expect, found(c), cmp.AllowUnexported(counts{})); d != "" {
					t.Fatalf("seed %d, quick %v, %v (-want +got):\n%s", seed, quick, c.Partition, d)
				}
				if c.Unmended != c.Missing || c.Mended != 0 {
					t.Fatalf("seed %d, %v: %d of %d missing are left and %d rows sent, though nothing is to be mended", seed, c.Partition, c.Unmended, c.Missing, c.Mended)
				}
				check(t, seed, w, c)
			}
		}
	}
}

// failing is an audited world that gives no answer now and then.
type failing struct{ *audited }

func (w failing) Tallies(ctx context.Context, spans []archive.Span, contents bool) ([]archive.Tally, error) {
	if w.IntN(4) == 0 {
		return nil, errors.New("tallies: no answer")
	}
	return w.audited.Tallies(ctx, spans, contents)
}

// A comparison that ended with an error has found what it had found, and the rest of it finds
// the rest, nothing twice.
func TestCompareGoesOn(t *testing.T) {
	errs := 0
	for seed := range uint64(200) {
		w := calmWorld(seed)
		want := w.damage()
		c := archive.NewComparison(archive.CompareConfig{
			Config: archive.Config{Log: w, Now: func() schemas.Millis { return w.now }}, Table: failing{w}, SpanRows: 1 + w.IntN(100),
		})
		for i, share := range w.shares() {
			got, err := c.Compare(t.Context(), share)
			for ; err != nil; errs++ {
				if got == nil {
					got, err = c.Compare(t.Context(), share)
					continue
				}
				var more *archive.Compared
				if more, err = c.Compare(t.Context(), got.Rest()); more != nil {
					got.Join(more)
				}
			}
			want[i].changed = 0
			if d := cmp.Diff(want[i], found(got), cmp.AllowUnexported(counts{})); d != "" || got.Until != share.Next {
				t.Fatalf("seed %d, %v, up to %d of %d (-want +got):\n%s", seed, got.Partition, got.Until, share.Next, d)
			}
			check(t, seed, w, got)
		}
	}
	if errs < 100 {
		t.Errorf("got %d errors, want more", errs)
	}
}

// check holds what was named against what was counted, and the rows against both.
func check(t *testing.T, seed uint64, w *audited, c *archive.Compared) {
	t.Helper()
	named := map[archive.Kind]int64{}
	for _, f := range c.Findings {
		named[f.Kind] += f.Offsets
		if f.First > f.Last || f.Partition != c.Partition {
			t.Fatalf("seed %d: finding %+v makes no sense", seed, f)
		}
	}
	if len(c.Findings) == 100 {
		return // that is as many as are named
	}
	if named[archive.Missing] != c.Missing || named[archive.Doubled] != c.Doubled || named[archive.Different] != c.Different || named[archive.Foreign] != c.Foreign {
		t.Fatalf("seed %d, %v: named %v, counted %+v", seed, c.Partition, named, found(c))
	}
	rows := int64(0)
	w.table.Each(c.Partition, func(r archive.Row, _ int) {
		if c.First <= r.Offset && r.Offset < c.Next {
			rows++
		}
	})
	if rows != c.Rows {
		t.Fatalf("seed %d, %v: got %d rows, want %d", seed, c.Partition, c.Rows, rows)
	}
}

// Mending sends what is missing, says so, and leaves the rest to a person.
func TestCompareMends(t *testing.T) {
	for seed := range seedsWanted(t) / 2 {
		w := calmWorld(seed)
		want := w.damage()
		for i, c := range w.compare(t, archive.CompareConfig{SpanRows: 1 + w.IntN(300), Mend: true}) {
			if c.Missing != want[i].Missing || c.Unmended != 0 {
				t.Fatalf("seed %d, %v: %d missing, %d of them left, want %d and none", seed, c.Partition, c.Missing, c.Unmended, want[i].Missing)
			}
			// Another row than a record's own gets its own beside it: that one wins when
			// the table merges.
			if got, want := c.Doubled+c.Different, want[i].Doubled+want[i].Different; got != want || c.Foreign != 0 && c.Foreign != w.foreign(c.Partition) {
				t.Fatalf("seed %d, %v: got %d doubled or different and %d foreign, want %d", seed, c.Partition, got, c.Foreign, want)
			}
		}
		if again := w.compare(t, archive.CompareConfig{}); !slices.ContainsFunc(again, func(c *archive.Compared) bool { return c.Missing > 0 }) {
			continue
		}
		t.Fatalf("seed %d: rows are missing after mending", seed)
	}
}

// foreign counts rows that no record gives, by the dumb way.
func (w *audited) foreign(p archive.Partition) (n int64) {
	records := map[int64]*archive.Record{}
	for i := range w.records[p] {
		records[w.records[p][i].Offset] = &w.records[p][i]
	}
	w.table.Each(p, func(row archive.Row, _ int) {
		r := records[row.Offset]
		if row.Offset >= w.start[p] && (r == nil || !gives(r) && row.Hash != archive.Hash(r)) {
			n++
		}
	})
	return n
}

// A table that an archive has filled under faults is in order, and so says the
// comparison.
func TestCompareAfterFaults(t *testing.T) {
	for seed := range seedsWanted(t) / 5 {
		w := auditedWorld(seed)
		if _, err := w.live(); !errors.Is(err, errEnough) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		w.faults = false
		for _, c := range w.compare(t, archive.CompareConfig{SpanRows: 50}) {
			if c.Wrong() > 0 || c.Rows != c.Records {
				t.Fatalf("seed %d: got %+v, want nothing wrong", seed, c)
			}
		}
	}
}

// A comparison whose mending gets no answer, from the table or from the log, waits as often
// as Sleep allows, and not as often again.
func TestCompareGivesUp(t *testing.T) {
	for _, who := range []string{"table", "log"} {
		w := calmWorld(3)
		p := w.partitions()[0]
		w.table.Each(p, func(r archive.Row, _ int) { w.set(p, r, 0) })
		reads, sleeps := 0, 0
		enough := errors.New("enough")
		d := &doubtful{Table: w.Table, settle: func() {}, insert: func(_ int, do func() error) error {
			if who == "table" {
				return errors.New("no answer")
			}
			return do()
		}}
		c := archive.NewComparison(archive.CompareConfig{
			Config: archive.Config{
				Log: reader{w.world, func() error {
					if reads++; reads > 1 && who == "log" {
						return errors.New("no leader")
					}
					return nil
				}},
				Now: func() schemas.Millis { return w.now },
				Sleep: func(context.Context, schemas.Millis) error {
					if sleeps++; sleeps%3 == 0 {
						return enough
					}
					return nil
				},
			},
			Table: unsure{w, d}, Mend: true,
		})
		if _, err := c.Compare(t.Context(), w.shares()[0]); !errors.Is(err, enough) || sleeps != 3 {
			t.Errorf("no answer from the %s: got %v after %d waits, want it to give up after 3", who, err, sleeps)
		}
	}
}

// reader is a log that may not be read.
type reader struct {
	*world
	fails func() error
}

func (r reader) Read(ctx context.Context, p archive.Partition, first, next int64, each func([]archive.Record) error) error {
	if err := r.fails(); err != nil {
		return err
	}
	return r.world.Read(ctx, p, first, next, each)
}

// unsure is an audited table whose inserts answer as d says.
type unsure struct {
	*audited
	d *doubtful
}

func (u unsure) Rows() archive.Rows { return u.d.Rows() }

// Retention deletes what is about to be read: it is counted, and the rest compared.
func TestCompareOvertaken(t *testing.T) {
	w := calmWorld(3)
	p := w.partitions()[0]
	for len(w.records[p]) < 300 {
		end := w.end(p)
		r := archive.Record{Offset: end, Value: fmt.Appendf(nil, "more %d", end)}
		w.records[p] = append(w.records[p], r)
		w.set(p, archive.Row{Offset: r.Offset, Hash: archive.Hash(&r)}, 1)
	}
	share := w.shares()[0]
	w.start[p] += 100
	n := archive.NewComparison(archive.CompareConfig{Config: archive.Config{Log: w}, Table: w, SpanRows: 50})
	c, err := n.Compare(t.Context(), share)
	if err != nil {
		t.Fatal(err)
	}
	if c.Deleted != 100 || c.Wrong() > 0 || c.Records == 0 {
		t.Errorf("got %+v, want 100 deleted and nothing wrong", c)
	}
}

func TestPlan(t *testing.T) {
	in := func(n int32) archive.Partition { return archive.Partition{Topic: "in", Number: n} }
	stock := []archive.Stock{
		{Partition: in(0), Rows: 50, First: 10, Last: 60},
		{Partition: in(1), Rows: 40, First: 100, Last: 150},
		{Partition: in(7), Rows: 3, First: 1, Last: 3},
		{Partition: archive.Partition{Topic: "old"}, Rows: 9, Last: 8},
	}
	extents := []archive.Extent{
		{Partition: in(0), Start: 20, End: 80, Committed: 61},
		{Partition: in(1), Start: 100, End: 200, Committed: -1},
		{Partition: in(2), Start: 0, End: 30, Since: 25, Committed: 30},
	}
	type part struct{ First, Next, Behind int64 }
	for name, c := range map[string]struct {
		sel     archive.Selection
		running bool
		want    []part
	}{
		"all":                             {want: []part{{20, 61, 19}, {100, 151, 49}, {25, 30, 0}}},
		"nothing committed, one at work":  {running: true, want: []part{{20, 61, 19}, {100, 100, 100}, {25, 30, 0}}},
		"offsets":                         {sel: archive.Selection{First: 27, Next: 29}, want: []part{{27, 29, 19}, {100, 100, 49}, {27, 29, 0}}},
		"offsets beyond what is archived": {sel: archive.Selection{First: 70, Next: 75}, want: []part{{61, 61, 19}, {100, 100, 49}, {30, 30, 0}}},
		"a partition":                     {sel: archive.Selection{Partitions: []int32{2}}, want: []part{{25, 30, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			shares, foreign, others := archive.Plan(stock, extents, c.sel, c.running)
			var got []part
			for _, s := range shares {
				got = append(got, part{s.First, s.Next, s.Behind})
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("shares (-want +got):\n%s", d)
			}
			if len(foreign) != 1 || foreign[0].Partition != in(7) || len(others) != 1 || others[0].Partition.Topic != "old" {
				t.Errorf("got %v foreign and %v others, want partition 7 and the topic old", foreign, others)
			}
		})
	}
}

// FuzzCompare has the fuzzer choose what a table holds: whatever it is, the numbers
// add up, and nothing panics.
func FuzzCompare(f *testing.F) {
	f.Add(uint64(1), uint64(2), 7)
	f.Fuzz(func(t *testing.T, seed, harm uint64, span int) {
		w := calmWorld(seed)
		w.Rand = rand.New(rand.NewPCG(harm, 1))
		w.damage()
		w.damage()
		for _, c := range w.compare(t, archive.CompareConfig{SpanRows: 1 + max(span, 0)%1000}) {
			check(t, seed, w, c)
		}
	})
}
