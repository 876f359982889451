package archive

import (
	"context"
	"testing"

	"footfall/schemas"
)

// shrinking is a log of one record an offset, whose beginning retention has moved by the
// time that it is asked for.
type shrinking struct {
	Log
	start, next int64
	read        bool
}

func (l *shrinking) Bounds(context.Context, Partition) (start, end int64, err error) {
	return l.start, l.next, nil
}

func (l *shrinking) Read(_ context.Context, _ Partition, first, next int64, each func([]Record) error) error {
	if l.read && first < l.start {
		return ErrGone
	}
	l.read = true
	var run []Record
	for at := first; at < next; at++ {
		run = append(run, Record{Offset: at})
	}
	return each(run)
}

// strange is a table that has every row, and says of sums that they are none.
type strange struct{ Table }

type strangeRows struct{ Rows }

func (strange) Settle(context.Context) error                    { return nil }
func (strange) Rows() Rows                                      { return strangeRows{} }
func (strange) Sums(_ context.Context, s []Span) ([]Sum, error) { return make([]Sum, len(s)), nil }
func (strangeRows) Decode(Partition, *Record) bool              { return true }
func (strangeRows) Len() int                                    { return 0 }
func (strangeRows) Reset()                                      {}
func (strange) Present(_ context.Context, s Span) (all []Row, err error) {
	for at := s.First; at < s.Next; at++ {
		all = append(all, Row{at, Hash(&Record{Offset: at})})
	}
	return all, nil
}

// Retention may have taken the first spans of a ledger when a sample finds that they differ:
// mending forgets them meanwhile, and goes on with those behind.
func TestSampleOfWhatRetentionHasTaken(t *testing.T) {
	log := &shrinking{start: 150, next: 300}
	a := New(Config{Log: log, Table: strange{}, Now: func() schemas.Millis { return schemas.Day }})
	p := &part{partition: Partition{Topic: "events"}, committed: 300}
	p.ledger.spans = []entry{{first: 0, next: 100}, {first: 100, next: 200}, {first: 200, next: 300}}
	a.parts[p.partition] = p
	if err := a.sample(t.Context()); err != nil {
		t.Fatal(err)
	}
	if spans := p.ledger.spans; len(spans) != 2 || spans[0].first != 150 || spans[1].sum.Rows != 100 {
		t.Errorf("got %+v, want the log's 50 and 100 offsets", spans)
	}
	if n := a.stats.WrongSamples.Load(); n != 1 {
		t.Errorf("got %d wrong samples, want 1", n)
	}
}

// A partition may be ours for longer than its log keeps anything: what is drawn is of what
// the log still has.
func TestSamplesAreOfWhatTheLogHas(t *testing.T) {
	log := &shrinking{start: 1_000_000, next: 1_000_300, read: true}
	now := schemas.Day
	a := New(Config{Log: log, Table: strange{}, Now: func() schemas.Millis { return now }, Report: func(Fact) {}})
	p := &part{partition: Partition{Topic: "events"}, committed: 1_000_300}
	p.ledger.spans = []entry{{first: 0, next: 1_000_000}, {first: 1_000_000, next: 1_000_300}}
	a.parts[p.partition] = p
	if err := a.trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	for ; now < 2*schemas.Day; now += schemas.Hour {
		if err := a.sample(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := a.stats.Sampled.Load(); n != 24*300 {
		t.Errorf("got %d records sampled, want the log's 300 each time", n)
	}
	log.start = log.next + 100 // retention was faster than the archive
	now += schemas.Day
	if err := a.trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if of, _ := a.draw(now); of != nil {
		t.Errorf("got a sample of %+v, want none", of)
	}
}
