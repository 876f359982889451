package archive

import (
	"context"
	"testing"

	"footfall/schemas"
)

// slow is a table that takes a while to count.
type slow struct {
	strange
	now *schemas.Millis
}

func (s slow) Epoch(context.Context) (string, error) { return "", nil }

func (s slow) Sums(_ context.Context, spans []Span) (all []Sum, err error) {
	*s.now += schemas.Minute
	for i := range spans {
		all = append(all, spans[i].Sum)
	}
	return all, nil
}

// An audit that takes longer than there is between two leaves that time for what arrives.
func TestAuditsLeaveTime(t *testing.T) {
	now := schemas.Day
	a := New(Config{Log: &shrinking{next: 100}, Table: slow{now: &now}, Now: func() schemas.Millis { return now }, AuditEvery: 10 * schemas.Second})
	p := &part{partition: Partition{Topic: "events"}, committed: 100}
	p.ledger.spans = []entry{{first: 0, next: 100}}
	a.parts[p.partition] = p
	if err := a.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.audit.due < now+schemas.Second {
		t.Errorf("the next is due %d ms after the end of the first", a.audit.due-now)
	}
}

// exact is a table that has what it was given, but for offsets below dropped, and counts what
// it adds up.
type exact struct {
	strange
	dropped int64
	rows    int64
}

func (x *exact) Epoch(context.Context) (string, error) { return "", nil }

func (x *exact) Sums(_ context.Context, spans []Span) (all []Sum, err error) {
	for _, s := range spans {
		x.rows += s.Sum.Rows
		sum := Sum{}
		for at := max(s.First, x.dropped); at < s.Next && s.Sum.Rows < 1<<10; at++ {
			sum.Rows++
			sum.Hash += Hash(&Record{Offset: at})
		}
		if s.Sum.Rows >= 1<<10 { // too many to look at one by one
			sum = s.Sum
		}
		all = append(all, sum)
	}
	return all, nil
}

// Every span has its turn within two hours, however many grow every second; and ClickHouse
// is not asked to add up the same millions of rows every second.
func TestAuditReachesEverySpan(t *testing.T) {
	for _, c := range []struct {
		partitions, sealed int
		growing            int64
	}{{8, 5, 100_000}, {20, 2, 500_000}, {100, 2, 2000}, {1, 30, 5000}} {
		now := 10 * schemas.Day
		table := &exact{}
		a := New(Config{
			Log: &shrinking{}, Table: table, Now: func() schemas.Millis { return now },
			AuditEvery: 10 * schemas.Second, AuditAgain: schemas.Hour, Report: func(Fact) {},
		})
		for n := range int32(c.partitions) {
			p := &part{partition: Partition{Topic: "events", Number: n}, trimmed: now + schemas.Day}
			for i := range c.sealed {
				p.ledger.spans = append(p.ledger.spans, entry{first: int64(i) << 20, next: int64(i+1) << 20, sum: Sum{Rows: 10 << 20}})
			}
			p.ledger.spans = append(p.ledger.spans, entry{first: int64(c.sealed) << 20, next: int64(c.sealed+1) << 20, sum: Sum{Rows: c.growing}})
			a.parts[p.partition] = p
		}
		begin := now
		for ; now < begin+3*schemas.Hour; now += schemas.Second {
			for _, p := range a.parts {
				last := &p.ledger.spans[c.sealed]
				last.next, last.checked = last.next+1, 0
			}
			if now >= a.audit.due {
				if err := a.round(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if oldest := schemas.Millis(a.stats.Oldest.Load()); now-oldest > 2*schemas.Hour {
				t.Fatalf("%+v: after %d minutes one was last seen %d minutes ago", c, (now-begin)/schemas.Minute, (now-oldest)/schemas.Minute)
			}
		}
		if each := table.rows / (3 * 3600); each > 3<<20 {
			t.Errorf("%+v: %d rows are added up every second", c, each)
		}
	}
}

// Months that the log has no more of may go: that is no loss.
func TestOldMonthsMayGo(t *testing.T) {
	now := 10 * schemas.Day
	table := &exact{}
	log := &shrinking{start: 900, next: 1000}
	a := New(Config{
		Log: log, Table: table, Now: func() schemas.Millis { return now },
		AuditEvery: 10 * schemas.Second, AuditAgain: schemas.Hour, Report: func(f Fact) {
			switch f.(type) {
			case Differed, Unmendable:
				t.Errorf("it says %+v", f)
			}
		},
	})
	p := &part{partition: Partition{Topic: "events"}, committed: 1000}
	all, _ := table.Sums(t.Context(), []Span{{First: 0, Next: 1000}})
	p.ledger.spans = []entry{{first: 0, next: 1000, sum: all[0]}}
	a.parts[p.partition] = p
	for _, dropped := range []int64{0, 500, 900} {
		table.dropped = dropped
		if err := a.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		now += 2 * schemas.Hour
	}
	log.start, log.next = 1000, 1000
	now += 2 * schemas.Hour
	for range 2 { // forgotten first
		if err := a.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		table.dropped = 1000
		now += 2 * schemas.Hour
	}
}

// crowded is a table that has some rows too many.
type crowded struct {
	strange
	extra *int64
}

func (crowded) Epoch(context.Context) (string, error) { return "", nil }

func (c crowded) Sums(_ context.Context, spans []Span) (all []Sum, err error) {
	for _, s := range spans {
		sum := Sum{Rows: *c.extra, Hash: uint64(*c.extra) * 77}
		for at := s.First; at < s.Next; at++ {
			sum.plus(Sum{1, Hash(&Record{Offset: at})})
		}
		all = append(all, sum)
	}
	return all, nil
}

// Rows too many are said once, stay counted while they are there, and are no loss when
// somebody has removed them.
func TestRowsTooMany(t *testing.T) {
	now, extra, said, lost := 10*schemas.Day, int64(0), 0, 0
	a := New(Config{
		Log: &shrinking{next: 200}, Table: crowded{extra: &extra}, Now: func() schemas.Millis { return now },
		AuditEvery: 10 * schemas.Second, AuditAgain: schemas.Hour, Report: func(f Fact) {
			switch f.(type) {
			case Unmendable:
				said++
			case Differed:
				lost++
			}
		},
	})
	p := &part{partition: Partition{Topic: "events"}, committed: 100}
	whole := func(first, next int64) (sum Sum) {
		for at := first; at < next; at++ {
			sum.plus(Sum{1, Hash(&Record{Offset: at})})
		}
		return sum
	}
	p.ledger.spans = []entry{{first: 0, next: 100, sum: whole(0, 100)}}
	a.parts[p.partition] = p
	for step, c := range []struct {
		extra          int64
		grow           bool
		surplus        int64
		said, differed int
	}{{0, false, 0, 0, 0}, {2, false, 1, 1, 1}, {2, false, 1, 1, 1}, {2, true, 1, 1, 1}, {0, false, 0, 1, 1}, {0, false, 0, 1, 1}} {
		extra = c.extra
		if c.grow {
			p.ledger.add(100, 200, whole(100, 200), sealRows)
		}
		now += 2 * schemas.Hour
		if err := a.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := a.stats.Surplus.Load(); got != c.surplus || said != c.said || lost != c.differed {
			t.Errorf("step %d: %d spans have too many, said %d times, differed %d times; want %+v", step, got, said, lost, c)
		}
	}
}
