package archive_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"footfall/pipeline/archive"
	"footfall/schemas"
)

// wound is a log that has a record every ten seconds, for three hours. In the middle of
// them the wall clock is set back.
type wound struct {
	*world
	back    schemas.Millis // by so much
	elapsed schemas.Millis // since the beginning, as it is
	wall    schemas.Millis
	given   int
	waits   bool // a row does, since last["row"]

	last map[string]schemas.Millis // when something was seen
	most map[string]schemas.Millis // the longest that it was not
}

func (l *wound) saw(what string) {
	l.most[what] = max(l.most[what], l.elapsed-l.last[what])
	l.last[what] = l.elapsed
}

func (l *wound) Poll(_ context.Context, until schemas.Millis, into *archive.Batch) error {
	*into = archive.Batch{}
	p := l.partitions()[0]
	if _, owned := l.owned[p]; !owned {
		l.owned[p] = 0
		into.Assigned = append(into.Assigned, archive.Assignment{Partition: p})
	}
	wait := min(max(1, until-l.wall), schemas.Second) // as an edge waits, whatever it is asked
	before := l.elapsed
	l.elapsed, l.wall = l.elapsed+wait, l.wall+wait
	const half = 90*schemas.Minute + schemas.Second/2 // a row waits
	if before < half && l.elapsed >= half {
		l.wall -= l.back
	}
	if l.given < len(l.records[p]) && l.elapsed >= schemas.Millis(l.given)*10*schemas.Second {
		into.Runs = append(into.Runs, archive.Run{Partition: p, Records: l.records[p][l.given : l.given+1], End: l.end(p)})
		l.given++
		if !l.waits {
			l.last["row"], l.waits = l.elapsed, true
		}
	}
	if l.waits {
		l.most["row"] = max(l.most["row"], l.elapsed-l.last["row"])
	}
	if l.elapsed > 2*half {
		return errEnough
	}
	return nil
}

func (l *wound) Bounds(ctx context.Context, p archive.Partition) (start, end int64, err error) {
	l.saw("trim")
	return l.world.Bounds(ctx, p)
}

func (l *wound) Read(ctx context.Context, p archive.Partition, first, next int64, each func([]archive.Record) error) error {
	l.saw("sample")
	return l.world.Read(ctx, p, first, next, each)
}

// Nothing waits longer than it should where the wall clock is set back, by a little or by
// years.
func TestClockSetBack(t *testing.T) {
	for _, back := range []schemas.Millis{0, schemas.Minute, schemas.Hour, 3650 * schemas.Day} {
		ctx := t.Context()
		w := doubting(&doubtful{})
		p := w.partitions()[0]
		w.start[p], w.records[p] = 0, nil
		for i := range 3 * 360 {
			w.records[p] = append(w.records[p], archive.Record{Offset: int64(i), Value: fmt.Appendf(nil, "row %d", i)})
		}
		l := &wound{world: w, back: back, wall: 7300 * schemas.Day, last: map[string]schemas.Millis{}, most: map[string]schemas.Millis{}}
		a := archive.New(archive.Config{
			Log: l, Table: w.table.As(func(string) {}), AuditEvery: 10 * schemas.Second, AuditAgain: 20 * schemas.Minute,
			Now:   func() schemas.Millis { return l.wall },
			Sleep: func(context.Context, schemas.Millis) error { return nil },
			Report: func(f archive.Fact) {
				switch f.(type) {
				case archive.Inserted:
					l.waits = false
				case archive.Audited:
					l.saw("audit")
				}
			},
		})
		if err := a.Run(ctx, ctx); !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		for what, most := range map[string]schemas.Millis{"row": 2 * schemas.Second, "audit": 15 * schemas.Second, "trim": 21 * schemas.Minute, "sample": 21 * schemas.Minute} {
			if what != "row" {
				l.saw(what)
			}
			if l.most[what] > most {
				t.Errorf("set back by %d s: the longest wait for a %s was %d s, want at most %d s", back/schemas.Second, what, l.most[what]/schemas.Second, most/schemas.Second)
			}
		}
		if age := l.wall - schemas.Millis(a.Stats().Oldest.Load()); age < 0 || age > 21*schemas.Minute {
			t.Errorf("set back by %d s: the oldest look was %d s ago", back/schemas.Second, age/schemas.Second)
		}
	}
}
