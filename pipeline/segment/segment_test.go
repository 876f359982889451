package segment

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

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
	p.Eval(pr, now, into)
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

// someShopper is near the bounds rather than between them.
func someShopper(rng *rand.Rand) *profile.Profile {
	bounds := []schemas.Millis{0, 30 * day, 90 * day, 180 * day}
	ago := func() schemas.Millis {
		if rng.IntN(2) == 0 {
			return bounds[rng.IntN(4)] + schemas.Millis(rng.IntN(5)) - 2
		}
		return schemas.Millis(rng.Int64N(int64(250*day))) - schemas.Minute
	}
	last, purchase := ago(), ago()
	return shopper(uint32(rng.IntN(4)), min(last, purchase), purchase)
}

// programs are the lifecycle set, and sets that share bounds and fields.
func programs() map[string]*Program {
	return map[string]*Program{
		"lifecycle": Lifecycle(1),
		"three sets": compile(1, lifecycle,
			set{"recent", []rule{
				{"today", []condition{{sinceLast, 0, int64(day)}}},
				{"this month", []condition{{sinceLast, int64(day), int64(30 * day)}}},
				{"long ago", nil},
			}},
			set{"buyer", []rule{
				{"loyal", []condition{{orders, 3, forever}, {sincePurchase, 0, int64(180 * day)}}},
				{"once", []condition{{sincePurchase, int64(30*day) + 1, forever}}},
				{"no", nil},
			}},
		),
	}
}

// moments are all times around every bound, after now.
func (p *Program) moments(pr *profile.Profile, now schemas.Millis) (at []schemas.Millis) {
	for _, from := range []schemas.Millis{pr.Last, pr.LastPurchase} {
		for _, s := range p.sets {
			for _, r := range s.rules {
				for _, c := range r.conditions {
					for _, bound := range []int64{c.lo, c.hi} {
						if bound < int64(1000*day) {
							at = append(at, from+schemas.Millis(bound)-1, from+schemas.Millis(bound), from+schemas.Millis(bound)+1)
						}
					}
				}
			}
		}
	}
	slices.Sort(at)
	return slices.DeleteFunc(slices.Compact(at), func(t schemas.Millis) bool { return t <= now })
}

// Eval's due is exact: nothing changes before it, and the dues one after the other
// meet every change that silence brings.
func TestDueMeetsEveryChangeAndNothingComesBefore(t *testing.T) {
	for name, p := range programs() {
		for seed := range uint64(500) {
			rng := rand.New(rand.NewPCG(seed, 1))
			pr, now := someShopper(rng), start+schemas.Millis(rng.Int64N(int64(day)))
			before, at := make([]uint16, p.Sets()), make([]uint16, p.Sets())
			untouched := *pr
			due := p.Eval(pr, now, before)
			for _, moment := range p.moments(&untouched, now) {
				p.Eval(pr, moment, at)
				if due <= now {
					t.Fatalf("%s, seed %d: at %d due %d, which is not later", name, seed, now, due)
				}
				if moment < due && !slices.Equal(at, before) {
					t.Fatalf("%s, seed %d: at %d in %v, at %d in %v, but due is %d", name, seed, now, before, moment, at, due)
				}
				if moment >= due {
					now = due
					due = p.Eval(pr, now, before)
				}
			}
			if due != schemas.Never {
				t.Errorf("%s, seed %d: due %d after every bound", name, seed, due)
			}
			if *pr != untouched {
				t.Errorf("%s, seed %d: the profile was changed", name, seed)
			}
		}
	}
}

// Expected is the first moment of silence at which the segment really differs.
func TestExpectedIsTheFirstChangeOfSilence(t *testing.T) {
	for name, p := range programs() {
		for seed := range uint64(500) {
			rng := rand.New(rand.NewPCG(seed, 2))
			pr, now := someShopper(rng), start+schemas.Millis(rng.Int64N(int64(day)))
			current, at := make([]uint16, p.Sets()), make([]uint16, p.Sets())
			p.Eval(pr, now, current)
			for s := range p.sets {
				want := schemas.Expected{To: schemas.NoSegment, At: schemas.Never}
				for _, moment := range p.moments(pr, now) {
					if p.Eval(pr, moment, at); at[s] != current[s] {
						want = schemas.Expected{To: at[s], At: moment}
						break
					}
				}
				if got := p.Expected(pr, now, s, current[s]); got != want {
					t.Errorf("%s, seed %d, set %d, at %d: got %+v, want %+v", name, seed, s, now, got, want)
				}
			}
		}
	}
}

// The dormant who never bought wait for nothing; nor do the lost.
func TestWhatWaitsForNothing(t *testing.T) {
	p := Lifecycle(0)
	into := make([]uint16, 1)
	for _, pr := range []*profile.Profile{shopper(0, 90*day, 0), shopper(3, 180*day, 180*day), {}} {
		if due := p.Eval(pr, start, into); due != schemas.Never {
			t.Errorf("%+v: got due %d, want never", *pr, due)
		}
	}
}

func TestExplainGivesTheRuleAndTheValues(t *testing.T) {
	p := Lifecycle(0)
	for _, c := range []struct {
		pr   *profile.Profile
		want string
	}{
		{shopper(0, 0, 0), "prospect: no rule before it holds"},
		{shopper(1, 0, 0), "new: 1 orders (exactly 1), 0d 0h since the last purchase (less than 30d)"},
		{shopper(1, -schemas.Minute, -schemas.Minute), "new: 1 orders (exactly 1), 0d 0h since the last purchase (less than 30d)"},
		{shopper(4, 0, 29*day+23*schemas.Hour), "active: 4 orders (at least 2), 29d 23h since the last purchase (less than 30d)"},
		{shopper(2, 0, 31*day), "cooling: 2 orders (at least 1)"},
		{shopper(0, 90*day+5*schemas.Hour, 0), "dormant: 90d 5h since the last event (at least 90d)"},
		{shopper(9, 0, 200*day), "lost: 9 orders (at least 1), 200d 0h since the last purchase (at least 180d)"},
		{&profile.Profile{}, "dormant: the last event has never been"},
	} {
		into := make([]uint16, 1)
		p.Eval(c.pr, start, into)
		got := p.Names()[0].Segments[into[0]] + ": " + p.Explain(c.pr, start, 0, into[0])
		if got != c.want {
			t.Errorf("%+v:\ngot  %s\nwant %s", *c.pr, got, c.want)
		}
	}
	var passed []string
	for _, not := range p.Passed(shopper(2, 2*day, 31*day), start, 0, 4) {
		passed = append(passed, not.Segment+": "+not.Why)
	}
	want := []string{
		"lost: 31d 0h since the last purchase (at least 180d)", "dormant: 2d 0h since the last event (at least 90d)",
		"new: 2 orders (exactly 1)", "active: 31d 0h since the last purchase (less than 30d)",
	}
	if d := cmp.Diff(want, passed); d != "" {
		t.Errorf("why not another (-want +got):\n%s", d)
	}
	between := compile(0, set{"s", []rule{{"middle", []condition{{sinceLast, int64(day), int64(2 * day)}}}, {"rest", nil}}})
	if got, want := between.Explain(shopper(0, 30*schemas.Hour, 0), start, 0, 0), "1d 6h since the last event (at least 1d, less than 2d)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The hash is another when anything is that decides, and the same when nothing is.
func TestHashIsOfEverythingThatDecides(t *testing.T) {
	of := func(contract uint64, sets ...set) uint64 { return compile(contract, sets...).Hash() }
	plain := func() set {
		return set{"s", []rule{{"a", []condition{{orders, 1, 5}, {sinceLast, 10, 20}}}, {"b", nil}}}
	}
	change := func(f func(*set)) set {
		s := plain()
		f(&s)
		return s
	}
	want := of(1, plain())
	if got := of(1, plain()); got != want {
		t.Errorf("the same again: got %x, want %x", got, want)
	}
	seen := map[uint64]string{want: "the same"}
	for name, got := range map[string]uint64{
		"contract":            of(2, plain()),
		"name of the set":     of(1, change(func(s *set) { s.name = "t" })),
		"name of a segment":   of(1, change(func(s *set) { s.rules[0].segment = "c" })),
		"a lower bound":       of(1, change(func(s *set) { s.rules[0].conditions[0].lo = 2 })),
		"an upper bound":      of(1, change(func(s *set) { s.rules[0].conditions[1].hi = 21 })),
		"a field":             of(1, change(func(s *set) { s.rules[0].conditions[1].field = sincePurchase })),
		"a condition less":    of(1, change(func(s *set) { s.rules[0].conditions = s.rules[0].conditions[:1] })),
		"a rule less":         of(1, change(func(s *set) { s.rules = s.rules[1:] })),
		"the order of rules":  of(1, change(func(s *set) { slices.Reverse(s.rules) })),
		"another set":         of(1, plain(), set{"t", []rule{{"x", nil}}}),
		"letters moved":       of(1, change(func(s *set) { s.name, s.rules[0].segment = "sa", "" })),
		"a rule made a set":   of(1, change(func(s *set) { s.rules = s.rules[:1] }), set{"b", nil}),
		"the lifecycle":       Lifecycle(1).Hash(),
		"lifecycle, contract": Lifecycle(2).Hash(),
	} {
		if other, ok := seen[got]; ok {
			t.Errorf("%s: the hash is that of: %s", name, other)
		}
		seen[got] = name
	}
}

// The lifecycle's hash stays what it is: another one has every user evaluated
// again at the next start. Who changes it on purpose changes it here.
func TestTheLifecycleHashStays(t *testing.T) {
	if got, want := Lifecycle(0).Hash(), uint64(0x2340daa8a53b1ba4); got != want {
		t.Errorf("got %#016x, want %#016x", got, want)
	}
}

func TestASetWithoutALastRuleIsABrokenPromise(t *testing.T) {
	p := compile(0, set{"holey", []rule{{"buyer", []condition{{orders, 1, forever}}}}})
	defer func() {
		if recover() == nil {
			t.Error("a profile that no rule takes was put somewhere")
		}
	}()
	p.Eval(shopper(0, 0, 0), start, make([]uint16, 1))
}

func TestEvalAllocatesNothing(t *testing.T) {
	p, pr, into := Lifecycle(0), shopper(2, 0, 40*day), make([]uint16, 1)
	if n := testing.AllocsPerRun(100, func() { p.Eval(pr, start, into) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func BenchmarkEval(b *testing.B) {
	for name, p := range programs() {
		pr, into := shopper(2, 0, 40*day), make([]uint16, p.Sets())
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				p.Eval(pr, start, into)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "evals/s")
		})
	}
}
