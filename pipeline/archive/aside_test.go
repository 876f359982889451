package archive_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"testing"

	"footfall/pipeline/archive"
	"footfall/schemas"
)

// leaderless is a log that does not answer for one partition, while that has no leader.
type leaderless struct {
	*world
	of     archive.Partition
	polls  int            // since the beginning
	from   int            // the poll since which it has none; 0: not yet
	lasts  int            // for so many polls
	gives  bool           // what is polled comes all the same
	takes  schemas.Millis // to find out that there is none
	asked  int            // in vain
	others func()         // called when the leader is about to come back
}

func (l *leaderless) silent(p archive.Partition) bool {
	if p != l.of || l.from == 0 || l.polls >= l.from+l.lasts {
		return false
	}
	l.asked++
	l.now += l.takes
	l.unheard = l.now
	return true
}

func (l *leaderless) Poll(ctx context.Context, until schemas.Millis, into *archive.Batch) error {
	if l.polls++; l.polls == l.from+l.lasts {
		l.others()
	}
	err := l.world.Poll(ctx, until, into)
	if l.from > 0 && l.polls < l.from+l.lasts && !l.gives {
		into.Runs = slices.DeleteFunc(into.Runs, func(r archive.Run) bool {
			if r.Partition == l.of {
				l.owned[l.of] = r.Records[0].Offset
			}
			return r.Partition == l.of
		})
	}
	return err
}

func (l *leaderless) Bounds(ctx context.Context, p archive.Partition) (start, end int64, err error) {
	if l.silent(p) {
		return 0, 0, errors.New("bounds: no leader")
	}
	return l.world.Bounds(ctx, p)
}

func (l *leaderless) Read(ctx context.Context, p archive.Partition, first, next int64, each func([]archive.Record) error) error {
	if l.silent(p) {
		return errors.New("read: no leader")
	}
	return l.world.Read(ctx, p, first, next, each)
}

// A partition without a leader holds up no other, whenever it loses it; and it is made up
// for when it has one again.
func TestPartitionWithoutLeader(t *testing.T) {
	const (
		assigned  = "when it is assigned"
		unread    = "when it is assigned, though its records come"
		slowly    = "when it is assigned, which takes half a minute to find out"
		doubted   = "when an insert gives no answer"
		differing = "when the audit finds that rows are lost"
	)
	for _, when := range []string{assigned, unread, slowly, doubted, differing} {
		for seed := range uint64(80) {
			w := newWorld(seed)
			if ps := w.partitions(); len(ps) < 2 || len(w.records[ps[0]]) < 50 || len(w.records[ps[1]]) < 50 {
				continue
			}
			w.faults, w.kills, w.forgets, w.table.Honest = false, 0, false, true
			w.owned = map[archive.Partition]int64{}
			l := &leaderless{world: w, of: w.partitions()[0], lasts: 100}
			d := &doubtful{Table: w.table.As(func(string) {}), settle: func() {}}
			d.insert = func(n int, do func() error) error {
				switch {
				case n == 1 && when == doubted:
					l.from = l.polls
					return errors.New("no answer")
				case n == 1 && when == differing:
					return nil
				}
				return do()
			}
			switch when {
			case slowly:
				l.takes, l.lasts = 30*schemas.Second, 400
				fallthrough
			case assigned, unread:
				l.from, l.gives = 1, when == unread
			}
			began := w.now
			l.others = func() {
				for _, p := range w.partitions()[1:] {
					if c := w.committed[p].Next; len(w.records[p]) > 0 && c != w.end(p) {
						t.Errorf("%s: seed %d: %v is archived up to %d meanwhile, want all before %d", when, seed, p, c, w.end(p))
					}
					if f := w.table.Differ(p, w.records[p], w.start[p]); len(f) > 0 {
						t.Errorf("%s: seed %d: meanwhile %v", when, seed, f)
					}
				}
				if spent := schemas.Millis(l.asked) * l.takes; l.asked == 0 || spent > (w.now-began)*4/10 {
					t.Errorf("%s: seed %d: it was asked %d times, which took %d of %d s", when, seed, l.asked, spent/schemas.Second, (w.now-began)/schemas.Second)
				}
			}
			differed := 0
			a := archive.New(archive.Config{
				Log: l, Table: d, RowsMax: 50, AuditEvery: 2 * schemas.Second, AuditAgain: 20 * schemas.Second,
				Now:   func() schemas.Millis { return w.now },
				Sleep: func(context.Context, schemas.Millis) error { return errors.New("everything waits") },
				Report: func(f archive.Fact) {
					if f, ok := f.(archive.Differed); ok && f.Span.Partition == l.of {
						differed++
						l.from = cmp.Or(l.from, l.polls)
					}
				},
			})
			if err := a.Run(t.Context(), t.Context()); !errors.Is(err, errEnough) {
				t.Fatalf("%s: seed %d: %v", when, seed, err)
			}
			if f := w.differ(); len(f) > 0 || when != differing && differed > 0 || differed > 1 {
				t.Errorf("%s: seed %d: said %d times that it differs; %v", when, seed, differed, f)
			}
		}
	}
}
