package profile

import (
	"math"
	"math/rand/v2"
	"testing"

	"footfall/schemas"
)

// base is 2026-01-01T00:00:00Z.
const base schemas.Millis = 1_767_225_600_000

func someEvents(rng *rand.Rand, n int) []schemas.Event {
	events := make([]schemas.Event, n)
	for i := range events {
		events[i] = schemas.Event{
			At:   base + schemas.Millis(rng.Int64N(int64(300*schemas.Day))),
			Kind: schemas.Kind(rng.IntN(int(schemas.Kinds))), Amount: rng.Int64N(1_000_000),
		}
	}
	return events
}

// Folding is commutative: every order of the same events is the same profile
// (design 3.1).
func TestFoldDoesNotDependOnOrder(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		events := someEvents(rng, 1+rng.IntN(40))
		var want Profile
		for i := range events {
			want.Fold(&events[i])
		}
		for range 10 {
			rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
			var got Profile
			for i := range events {
				got.Fold(&events[i])
			}
			if got != want {
				t.Fatalf("seed %d: in another order:\ngot  %+v\nwant %+v", seed, got, want)
			}
		}
	}
}

func TestFoldIsMinimaMaximaAndSums(t *testing.T) {
	var p Profile
	for _, ev := range []schemas.Event{
		{At: base + 5, Kind: schemas.View},
		{At: base + 3, Kind: schemas.Purchase, Amount: 1000},
		{At: base + 9, Kind: schemas.Refund, Amount: 300},
		{At: base + 4, Kind: schemas.Purchase, Amount: 50},
		{At: base + 1, Kind: schemas.Search},
	} {
		p.Fold(&ev)
	}
	want := schemas.Facts{
		First: base + 1, Last: base + 9, FirstPurchase: base + 3, LastPurchase: base + 4, Orders: 2, Revenue: 750,
	}
	if got := p.Facts(); got != want {
		t.Errorf("facts:\ngot  %+v\nwant %+v", got, want)
	}
	var events uint32
	for _, n := range p.Counts {
		events += n
	}
	if p.Orders() != 2 || events != 5 {
		t.Errorf("got %d orders of %d events, want 2 of 5", p.Orders(), events)
	}
}

// A counter that is full stays full; it does not begin again at nothing.
func TestCountsStayAtTheirGreatest(t *testing.T) {
	var p Profile
	p.Counts[schemas.View] = math.MaxUint32
	p.Fold(&schemas.Event{At: base, Kind: schemas.View})
	if got := p.Counts[schemas.View]; got != math.MaxUint32 {
		t.Errorf("got %d views, want %d", got, uint32(math.MaxUint32))
	}
}

func TestFoldRefusesAnUnknownKind(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("folded an event of no kind")
		}
	}()
	p := Profile{}
	p.Fold(&schemas.Event{At: base, Kind: schemas.Kinds})
}

// A list that was kept for rules that asked for more times does not grow any further: it is
// cut to what is asked for now.
func TestRecentIsCutToWhatIsAskedFor(t *testing.T) {
	keeping := func(k int) *Layout {
		return NewLayout([]Cell{{Name: "recent(any)", Keeps: Recent, Kinds: AllKinds, Keep: Forever, K: k}})
	}
	r := NewRows(keeping(10))
	r.Append()
	for i := range 12 {
		r.Fold(0, &schemas.Event{At: base + schemas.Millis(i)}, base)
	}
	if empty := r.Relayout(keeping(5), nil); len(empty) > 0 {
		t.Fatalf("cells %v are empty, and ten times hold five", empty)
	}
	for i := range 5 {
		at := base + schemas.Millis(20+i)
		r.Fold(0, &schemas.Event{At: at}, base)
		if list := r.View(0).List(0); len(list) != 5 || list[0].A != int64(at) {
			t.Fatalf("after event %d: got %v, want the five newest", i, list)
		}
	}
	if r.Fold(0, &schemas.Event{At: base + 15}, base) != 0 {
		t.Error("a late event changed a list of newer ones")
	}
}

// Of more moments than are told apart, what windows let go leaves them, about when it should.
func TestMomentsThatAreTooManyStillPass(t *testing.T) {
	const keep, every = 30 * schemas.Day, 20 * schemas.Minute // 2,160 within a window
	one := func(*schemas.Event) int64 { return 1 }
	for name, steps := range map[string]func(i int) schemas.Millis{
		"regular":  func(int) schemas.Millis { return every },
		"in pairs": func(i int) schemas.Millis { return every + every*9/10*schemas.Millis(1-2*(i&1)) },
		"bursts":   func(i int) schemas.Millis { return schemas.Millis(1 + 100*int(every)*(1-min(1, i%100))) },
	} {
		t.Run(name, func(t *testing.T) {
			r := NewRows(NewLayout([]Cell{{Name: "moments(any)", Keeps: Moments, Kinds: AllKinds, Keep: keep, K: MomentsMax, Value: one}}))
			r.Append()
			var all []schemas.Millis
			at := schemas.Millis(base)
			for i := range 10_000 {
				at += steps(i)
				all = append(all, at)
				r.Fold(0, &schemas.Event{At: at}, at)
				if i%500 < 499 {
					continue
				}
				list := r.View(0).List(0)
				for _, back := range []schemas.Millis{keep, keep / 3, keep / 30} {
					var got, want int64
					for _, e := range list {
						if e.A >= int64(at-back) {
							got += e.B
						}
					}
					for _, m := range all {
						if m >= at-back {
							want++
						}
					}
					if off := max(2, want/50); got < want-off || got > want+off {
						t.Errorf("after %d: got %d in %d days, want %d, or %d more or less", i+1, got, back/schemas.Day, want, off)
					}
				}
			}
		})
	}
}
