package clickhouse

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/archive"
	"footfall/schemas"
)

// An event that is read back means what the record meant that was archived, whatever is
// in its fields.
func TestEventsReadBackMeanTheSame(t *testing.T) {
	db, _ := open(t)
	tables := testTables()
	tables.db = db
	rows := tables.Rows()
	decoder, err := schemas.NewDecoder(tables.contract)
	if err != nil {
		t.Fatal(err)
	}
	decoded := func(key, value []byte) string {
		var ev schemas.Event
		if err := decoder.Decode(key, value, &ev); err != nil {
			t.Fatalf("%s: %v", value, err)
		}
		ev.Properties, ev.Extra = nil, nil // no rule can ask for them
		return fmt.Sprintf("%+v", ev)
	}
	rng := rand.New(rand.NewPCG(9, 9))
	var want []string
	for i := range 500 {
		sent := variedEvent(rng, i)
		rec := archive.Record{Offset: int64(len(want)), Time: schemas.Millis(at(i).UnixMilli()), Key: sent.Key, Value: sent.Value}
		if !rows.Decode(archive.Partition{Topic: "in"}, &rec) {
			continue // another currency than the shop's, which this one has no rate for
		}
		rows.Add(archive.Hash(&rec))
		want = append(want, decoded(rec.Key, rec.Value))
	}
	if len(want) < 300 {
		t.Fatalf("%d events were accepted: too few", len(want))
	}
	if err := rows.Insert(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	var got []string
	err = db.EachEvent(t.Context(), EventSelection{Topic: "in"}, func(ev *Event) error {
		got = append(got, decoded(ev.Key, ev.Value))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-archived +read back):\n%s", diff)
	}
}
