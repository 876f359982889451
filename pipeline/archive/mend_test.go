package archive_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"footfall/pipeline/archive"
	"footfall/schemas"
)

// doubtful is a table whose inserts answer as insert says; nth counts them from 1.
type doubtful struct {
	archive.Table
	n      int
	insert func(n int, do func() error) error
	settle func()
}

func (d *doubtful) Rows() archive.Rows { return &doubtfulRows{d.Table.Rows(), d} }

func (d *doubtful) Settle(ctx context.Context) error {
	d.settle()
	return d.Table.Settle(ctx)
}

type doubtfulRows struct {
	archive.Rows
	of *doubtful
}

func (r *doubtfulRows) Insert(ctx context.Context, token string) error {
	r.of.n++
	return r.of.insert(r.of.n, func() error { return r.Rows.Insert(ctx, token) })
}

// doubting is a world in which nothing goes wrong but d, with records enough.
func doubting(d *doubtful) *world {
	for seed := uint64(0); ; seed++ {
		w := newWorld(seed)
		w.faults, w.kills, w.forgets, w.table.Honest = false, 0, false, true
		w.owned = map[archive.Partition]int64{}
		d.Table = w.table.As(func(string) {})
		if len(w.records) == 1 && len(w.records[w.partitions()[0]]) > 100 {
			return w
		}
	}
}

// An insert that gave no answer may be under way still: it has ended before the table is
// asked what it has, or its rows would come behind those that are sent in their place.
func TestDoubtWaitsForWhatIsUnderWay(t *testing.T) {
	ctx := t.Context()
	var late []func() error
	d := &doubtful{}
	d.insert = func(n int, do func() error) error {
		if n > 2 { // the second one is what mending sends, had it not waited
			return do()
		}
		late = append(late, do)
		return errors.New("no answer")
	}
	d.settle = func() {
		for _, do := range late {
			if err := do(); err != nil {
				t.Error(err)
			}
		}
		late = nil
	}
	w := doubting(d)
	a := archive.New(archive.Config{Log: w, Table: d, RowsMax: 50, Now: func() schemas.Millis { return w.now }, Sleep: func(context.Context, schemas.Millis) error { return nil }})
	if err := a.Run(ctx, ctx); !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	d.settle() // whatever is under way comes
	for _, p := range w.partitions() {
		w.table.Each(p, func(r archive.Row, n int) {
			if n != 1 {
				t.Errorf("offset %d: got %d times, want once", r.Offset, n)
			}
		})
	}
	if f := w.differ(); len(f) > 0 {
		t.Error(f)
	}
}

// A table that acknowledges rows and does not show them (a replica that is behind, a policy
// that hides them) is not sent them again without a pause, and it is said.
func TestMendPausesWhereRowsDoNotCome(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d := &doubtful{settle: func() {}}
	d.insert = func(n int, _ func() error) error {
		switch n {
		case 1:
			return errors.New("no answer")
		case 6:
			cancel()
			return ctx.Err()
		}
		return nil
	}
	w := doubting(d)
	var facts []string
	pauses := 0
	a := archive.New(archive.Config{
		Log: w, Table: d, RowsMax: 50, Now: func() schemas.Millis { return w.now },
		Sleep: func(context.Context, schemas.Millis) error {
			pauses++
			return nil
		},
		Report: func(f archive.Fact) { facts = append(facts, f.String()) },
	})
	if err := a.Run(ctx, ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if pauses != 4 { // after each insert that was acknowledged
		t.Errorf("got %d pauses for %d inserts, want 4", pauses, d.n)
	}
	if !slices.ContainsFunc(facts, func(f string) bool { return strings.Contains(f, "acknowledged, and are not there") }) {
		t.Errorf("nothing was said:\n%s", strings.Join(facts, "\n"))
	}
}

// strangers is a table for which what gives no row is foreign.
type strangers struct{ archive.Table }

type strangersRows struct {
	archive.Rows
	foreign bool
}

func (s strangers) Rows() archive.Rows { return &strangersRows{Rows: s.Table.Rows()} }

func (r *strangersRows) Decode(p archive.Partition, rec *archive.Record) bool {
	r.foreign = !r.Rows.Decode(p, rec)
	return !r.foreign
}

func (r *strangersRows) Foreign() bool { return r.foreign }

// A foreign record is counted when it is archived, and not when its span is mended, or a
// sample of it taken.
func TestForeignIsCountedOnce(t *testing.T) {
	d := &doubtful{settle: func() {}}
	d.insert = func(_ int, do func() error) error {
		if err := do(); err != nil {
			return err
		}
		return errors.New("no answer")
	}
	w := doubting(d)
	a := archive.New(archive.Config{
		Log: w, Table: strangers{d}, RowsMax: 50, AuditEvery: 2 * schemas.Second, AuditAgain: 20 * schemas.Second,
		Now: func() schemas.Millis { return w.now }, Sleep: func(context.Context, schemas.Millis) error { return nil },
	})
	if err := a.Run(t.Context(), t.Context()); !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	want := int64(0)
	for _, r := range w.records[w.partitions()[0]] {
		if !r.Control && !gives(&r) {
			want++
		}
	}
	s := a.Stats()
	if s.Foreign.Load() != want || want == 0 || s.Doubts.Load() == 0 || s.Sampled.Load() == 0 {
		t.Errorf("got %d foreign records after %d doubts and %d samples, want %d", s.Foreign.Load(), s.Doubts.Load(), s.Sampled.Load(), want)
	}
}

// refusing is a log whose member is told to end as soon as it has something, and which
// refuses what it commits then.
type refusing struct {
	*world
	end context.CancelFunc
	err error
}

func (l refusing) Poll(ctx context.Context, until schemas.Millis, into *archive.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := l.world.Poll(ctx, until, into)
	if len(into.Runs) > 0 {
		l.end()
	}
	return err
}

func (l refusing) Commit(ctx context.Context, marks []archive.Commit) ([]archive.Partition, error) {
	if l.err != nil {
		return nil, &archive.FatalError{Err: l.err}
	}
	return l.world.Commit(ctx, marks)
}

// What could not be sent at the end is said, and not that it ended as it should.
func TestRefusedAtTheEnd(t *testing.T) {
	for _, refusal := range []error{nil, errors.New("no right to commit")} {
		ctx, cancel := context.WithCancel(t.Context())
		w := doubting(&doubtful{})
		a := archive.New(archive.Config{
			Log: refusing{w, cancel, refusal}, Table: w.table.As(func(string) {}), Now: func() schemas.Millis { return w.now },
			Sleep: func(context.Context, schemas.Millis) error { return nil }, Report: func(archive.Fact) {},
		})
		want := refusal
		if refusal == nil {
			want = context.Canceled
		}
		if err := a.Run(ctx, t.Context()); !errors.Is(err, want) || (refusal != nil && errors.Is(err, context.Canceled)) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}
