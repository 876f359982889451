package segment

import (
	"testing"
	"time"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

const (
	start = schemas.Millis(1_767_225_600_000) // 2026-01-01T00:00:00Z
	day   = schemas.Day
)

// shopper makes a profile with orders purchases, whose last event and last
// purchase were so long before start; no event at all where last is negative.
func shopper(orders uint32, last, purchase schemas.Millis) *profile.Profile {
	p := &profile.Profile{First: start - last, Last: start - last}
	if orders > 0 {
		p.FirstPurchase, p.LastPurchase = start-purchase, start-purchase
		p.Counts[schemas.Purchase] = orders
	}
	return p
}

// segmentOf gives the name of a profile's lifecycle segment.
func segmentOf(p *Program, pr *profile.Profile, now schemas.Millis) string {
	into := make([]uint16, p.Sets())
	p.Evaluator().Eval(pr, profile.View{}, now, into)
	return p.Names()[0].Segments[into[0]]
}

// Every boundary of the lifecycle set is half-open, to the millisecond.
func TestLifecycleBoundaries(t *testing.T) {
	p := Lifecycle(0)
	for _, c := range []struct {
		orders         uint32
		last, purchase schemas.Millis // ago
		want           string
	}{
		{0, 0, 0, "prospect"},
		{0, 90*day - 1, 0, "prospect"},
		{0, 90 * day, 0, "dormant"},
		{0, 500 * day, 0, "dormant"},
		{0, -5 * schemas.Minute, 0, "prospect"}, // the near future counts as now
		{1, 0, 0, "new"},
		{1, -1, -1, "new"},
		{1, 30*day - 1, 30*day - 1, "new"},
		{1, 30 * day, 30 * day, "cooling"},
		{1, 0, 30 * day, "cooling"},
		{1, 0, 180*day - 1, "cooling"},
		{1, 0, 180 * day, "lost"}, // still looking around
		{1, 90*day - 1, 90*day - 1, "cooling"},
		{1, 90 * day, 90 * day, "dormant"},
		{1, 90 * day, 100 * day, "dormant"},
		{1, 179 * day, 180*day - 1, "dormant"},
		{1, 180 * day, 180 * day, "lost"}, // lost comes before dormant
		{2, 0, 0, "active"},
		{2, 0, 30*day - 1, "active"},
		{2, 0, 30 * day, "cooling"},
		{7, 90 * day, 90 * day, "dormant"},
		{7, 0, 180*day - 1, "cooling"},
		{7, 0, 180 * day, "lost"},
	} {
		if got := segmentOf(p, shopper(c.orders, c.last, c.purchase), start); got != c.want {
			t.Errorf("%d orders, last event %d ms ago, last purchase %d ms ago: got %s, want %s", c.orders, c.last, c.purchase, got, c.want)
		}
	}
}

// The dormant who never bought wait for nothing; nor do the lost.
func TestWhatWaitsForNothing(t *testing.T) {
	p := Lifecycle(0)
	into := make([]uint16, 1)
	for _, pr := range []*profile.Profile{shopper(0, 90*day, 0), shopper(3, 180*day, 180*day), {}} {
		if due := p.Evaluator().Eval(pr, profile.View{}, start, into); due != schemas.Never {
			t.Errorf("%+v: got due %d, want never", *pr, due)
		}
	}
}

// The lifecycle's hash stays what it is: another one has every user evaluated
// again at the next start. Who changes it on purpose changes it here.
func TestTheLifecycleHashStays(t *testing.T) {
	if got, want := Lifecycle(0).Hash(), uint64(0xfc41a2edf20414fd); got != want {
		t.Errorf("got %#016x, want %#016x", got, want)
	}
}

func TestEvalAllocatesNothing(t *testing.T) {
	e, pr, into := Lifecycle(0).Evaluator(), shopper(2, 0, 40*day), make([]uint16, 1)
	if n := testing.AllocsPerRun(100, func() { e.Eval(pr, profile.View{}, start, into) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// Where the clocks go back over midnight, also by less or more than an hour, or to a time
// before it, each moment lies in the period that its window is of.
func TestClocksThatGoBackOverMidnight(t *testing.T) {
	for _, c := range []struct{ zone, at string }{
		{"America/St_Johns", "2006-10-29T00:01:00-02:30"}, // to 23:01
		{"America/St_Johns", "2010-11-07T00:01:00-02:30"},
		{"America/Moncton", "2005-10-30T00:01:00-03:00"},
		{"America/Havana", "2025-11-02T01:00:00-04:00"}, // to 00:00
		{"Asia/Colombo", "2006-04-15T00:30:00+06:00"},   // to 00:00
		{"Asia/Chita", "2014-10-26T02:00:00+10:00"},     // to 00:00
		{"America/Santiago", "2025-04-06T00:00:00-03:00"},
		{"Europe/Berlin", "2025-10-26T03:00:00+02:00"},
	} {
		z, err := loadZone(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		changed, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		for minutes := schemas.Millis(-60 * 27); minutes <= 60*27; minutes++ {
			for u := unitDay; u <= unitYear; u++ {
				for back := range 2 {
					now := schemas.Millis(changed.UnixMilli()) + minutes*schemas.Minute
					from, to, ends := window{unit: u, back: back, zone: z}.bounds(now)
					if back > 0 {
						from = to // where the period begins that now is in
					}
					if from > now || ends <= now {
						t.Errorf("%s, %s, %d before: at %d in [%d, %d)", c.zone, units()[u], back, now, from, ends)
					}
				}
			}
		}
	}
}

// Constants that were worked out are told apart by what they are worth, as others are:
// 2.50 + 2.50 is not 500.
func TestWorkedOutConstants(t *testing.T) {
	for _, pair := range [][2]string{
		{"revenue() >= 2.5 + 2.5", "revenue() >= 500"},
		{`count("purchase", event.amount >= 2.5 + 2.5) > 1`, `count("purchase", event.amount >= 500) > 1`},
		{"since(last()) >= days(1) + hours(1)", "since(last()) >= days(1) + hours(2)"},
	} {
		var hashes [2]uint64
		for i, rule := range pair {
			p, err := Compile(Options{Exponent: 2}, everybody(rule))
			if err != nil {
				t.Fatal(err)
			}
			hashes[i] = p.Hash()
		}
		if hashes[0] == hashes[1] {
			t.Errorf("%s and %s are the same rules", pair[0], pair[1])
		}
	}
	p, err := Compile(Options{Exponent: 2}, File{"set.yaml", []byte(`set: a
segments:
  - {name: five, when: 'count("purchase", event.amount >= 2.5 + 2.5) > count("purchase", event.amount >= 500)'}
  - {name: rest, otherwise: true}
`)})
	if err != nil {
		t.Fatal(err)
	}
	rows := profile.NewRows(p.Layout())
	rows.Append()
	rows.Fold(0, &schemas.Event{At: start, Kind: schemas.Purchase, Amount: 1000}, start)
	into := make([]uint16, 1)
	if p.Evaluator().Eval(&profile.Profile{First: start, Last: start}, rows.View(0), start, into); into[0] != 0 {
		t.Error("an order of 10.00 counts for both, or for neither")
	}
}

// Where a zone is known differently, the same files are other rules.
func TestOffsetsOfZones(t *testing.T) {
	of := func(name string) string {
		z, err := loadZone(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(z.appendOffsets(nil))
	}
	if of("UTC") != of("Etc/UTC") || of("Europe/Berlin") != of("Europe/Rome") {
		t.Error("zones of one law differ")
	}
	seen := map[string]string{}
	for _, name := range []string{"UTC", "Europe/Berlin", "Europe/London", "Africa/Lagos", "America/Asuncion", "America/Santiago"} {
		if other, ok := seen[of(name)]; ok {
			t.Errorf("%s and %s are the same", name, other)
		}
		seen[of(name)] = name
	}
}
