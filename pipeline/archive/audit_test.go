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
