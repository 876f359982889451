package segment

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"footfall/schemas"
)

// rfm are the shipped scores with options.
func rfm(t testing.TB, opt Options) *Program {
	t.Helper()
	opt.Contract, opt.Exponent = 1, 2
	p, err := Shipped(opt, "rfm")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// quantile7 is the naive quantile of sorted values: Hyndman & Fan 1996, type 7.
func quantile7(sorted []int64, i, n int) *big.Rat {
	h := new(big.Rat).Mul(big.NewRat(int64(len(sorted)-1), 1), big.NewRat(int64(i), int64(n)))
	low := new(big.Int).Div(h.Num(), h.Denom()).Int64()
	q := new(big.Rat).SetInt64(sorted[low])
	if rest := h.Sub(h, new(big.Rat).SetInt64(low)); rest.Sign() > 0 {
		step := new(big.Rat).SetInt(new(big.Int).Sub(big.NewInt(sorted[low+1]), big.NewInt(sorted[low])))
		q.Add(q, step.Mul(step, rest))
	}
	return q
}

// Bounds are quantiles of all values, however they are divided among partitions: who
// lies above one reaches it, and nobody else.
func TestBoundsAreQuantiles(t *testing.T) {
	for seed := range uint64(2000 / raceSlower) {
		rng := rand.New(rand.NewPCG(seed, 1))
		n, plus := 2+rng.IntN(9), int64(rng.IntN(2)*(1+rng.IntN(50)))
		spread := []int64{1, 3, 100, 1 << 20, math.MaxInt64 / 2}[rng.IntN(5)]
		var all []int64
		parts := make([]Distribution, 1+rng.IntN(4))
		for range 1 + rng.IntN(300) {
			v := rng.Int64N(spread) - spread/4
			all = append(all, v)
			parts[rng.IntN(len(parts))].Add(Valued{v, 1})
		}
		slices.Sort(all)
		var whole Distribution
		for i := range parts {
			text, err := parts[i].AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			var read Distribution
			if err := read.UnmarshalBinary(text); err != nil {
				t.Fatal(err)
			}
			whole.Merge(&read)
		}
		bounds := whole.bounds(n, plus)
		for i, bound := range bounds {
			q := quantile7(all, i+1, n)
			if plus > 0 {
				q.Add(q, new(big.Rat).SetInt64(plus))
			}
			for _, v := range all {
				above := new(big.Rat).SetInt64(v).Cmp(q)
				if want := above > 0 || plus > 0 && above == 0; want != (v >= bound) {
					t.Fatalf("seed %d: %d of quantile %d of %d (plus %d), %s: reached %v, bound %d", seed, v, i+1, n, plus, q.FloatString(3), v >= bound, bound)
				}
			}
		}
		if !slices.IsSorted(bounds) {
			t.Fatalf("seed %d: bounds %v", seed, bounds)
		}
	}
}

// With very many different values a bound is less than one in a thousand off.
func TestCoarseBounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var all []int64
	var d Distribution
	for range 200_000 {
		v := int64(math.Exp(rng.NormFloat64()*2+8)) - 100
		all = append(all, v)
		d.Add(Valued{v, 1})
	}
	slices.Sort(all)
	if len(d.users) > coarseMost || !d.coarse {
		t.Errorf("%d values are kept", len(d.users))
	}
	text, err := d.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	var read Distribution
	if err := read.UnmarshalBinary(text); err != nil || len(text) > 100_000 {
		t.Errorf("%d bytes are read back with %v", len(text), err)
	}
	var merged Distribution
	merged.Merge(&read)
	for i, bound := range merged.bounds(5, 0) {
		q, _ := quantile7(all, i+1, 5).Float64()
		if off := math.Abs(float64(bound) - q); off > 1+math.Abs(q)/1000 {
			t.Errorf("quantile %d: got a bound of %d, want %f", i+1, bound, q)
		}
	}
}

// Epochs begin every day at the time of day that is stated, in the zone, also where
// clocks are changed.
func TestEpochAt(t *testing.T) {
	for _, zone := range []string{"UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kathmandu"} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, hour := range []int{0, 2, 23} {
			p := rfm(t, Options{Zone: zone, EpochAt: schemas.Millis(hour) * schemas.Hour})
			clock := schemas.Millis(time.Date(2017, 1, 1, 12, 0, 0, 0, loc).UnixMilli())
			number, next := p.EpochAt(clock)
			for range 800 {
				if n, again := p.EpochAt(next - 1); n != number || again != next {
					t.Fatalf("%s at %d: a millisecond before %s is epoch %d, then %d", zone, hour, time.UnixMilli(int64(next)).In(loc), n, again)
				}
				at := time.UnixMilli(int64(next)).In(loc)
				if y, m, d := at.Date(); time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix()/86400 != int64(number+1) {
					t.Fatalf("%s at %d: epoch %d begins at %s", zone, hour, number+1, at)
				}
				if h := at.Hour(); h != hour && (h != hour+1 || at.Add(-time.Second).Hour() == hour) {
					t.Fatalf("%s: epoch %d begins at %s, want %d:00", zone, number+1, at, hour)
				}
				n, after := p.EpochAt(next)
				if n != number+1 || after <= next || after > next+26*schemas.Hour {
					t.Fatalf("%s at %d: at %s begins epoch %d after %d, the next at %d", zone, hour, at, n, number, after)
				}
				number, next = n, after
			}
		}
	}
}

// countOf is the record of values that a partition has counted for every quantile.
func countOf(t testing.TB, e *Epochs, partition int32, number uint64, values ...int64) LogRecord {
	t.Helper()
	of := make([]Distribution, e.rules.Quantiles())
	for i := range of {
		for _, v := range values {
			of[i].Add(Valued{v * int64(i+1), 1})
		}
	}
	r, err := e.Count(partition, Count{Number: number, At: schemas.Millis(number) * schemas.Day, Of: of})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Instances that read one log, write to it when they please, come and go, and begin to
// read after it was compacted, see the same epochs in the same order.
func TestInstancesAgree(t *testing.T) {
	rules := rfm(t, Options{Hysteresis: 5})
	for seed := range uint64(300 / raceSlower) {
		rng := rand.New(rand.NewPCG(seed, 2))
		const partitions = 3
		var log []LogRecord
		type instance struct {
			*Epochs
			read int
			seen []Epoch
		}
		all := make([]*instance, 3)
		for i := range all {
			all[i] = &instance{Epochs: NewEpochs(rules, partitions)}
		}
		follow := func(i *instance, to int) {
			for ; i.read < to; i.read++ {
				began, err := i.Read(log[i.read])
				if err != nil {
					t.Fatal(err)
				}
				if began {
					i.seen = append(i.seen, i.Epoch())
				}
			}
		}
		for number := uint64(1); number < 6; {
			i := all[rng.IntN(len(all))]
			switch rng.IntN(4) {
			case 0: // someone counts, perhaps again, perhaps the owner before
				log = append(log, countOf(t, i.Epochs, rng.Int32N(partitions), number, rng.Int64N(100), rng.Int64N(100), rng.Int64N(10000)))
			case 1:
				follow(i, i.read+rng.IntN(len(log)-i.read+1))
			case 2:
				follow(i, len(log))
				if r, ok := i.Cut(); ok {
					log = append(log, r)
				}
			case 3:
				if follow(i, len(log)); i.Epoch().Number == number {
					number++
				}
			}
		}
		late := &instance{Epochs: NewEpochs(rules, partitions)}
		last := map[string]int{}
		for i, r := range log {
			last[string(r.Key)] = i
		}
		for i, r := range log {
			if last[string(r.Key)] == i {
				if began, err := late.Read(r); err != nil {
					t.Fatal(err)
				} else if began {
					late.seen = append(late.seen, late.Epoch())
				}
			}
		}
		for _, i := range all {
			follow(i, len(log))
			if diff := cmp.Diff(late.seen, i.seen); diff != "" || len(i.seen) < 5 {
				t.Fatalf("seed %d: who begins late sees (-) what another has not (+):\n%s", seed, diff)
			}
			if _, ok := i.Cut(); ok && i.counts[0].Number <= i.epoch.Number {
				t.Fatalf("seed %d: an epoch that is there is cut again", seed)
			}
		}
	}
}

// A bound that has hardly moved stays, one that has moved does not.
func TestHysteresis(t *testing.T) {
	e := NewEpochs(rfm(t, Options{Hysteresis: 10}), 1)
	epoch := func(number uint64, values ...int64) []int64 {
		t.Helper()
		if _, err := e.Read(countOf(t, e, 0, number, values...)); err != nil {
			t.Fatal(err)
		}
		r, ok := e.Cut()
		if !ok {
			t.Fatalf("epoch %d is not cut", number)
		}
		if began, err := e.Read(r); !began || err != nil {
			t.Fatalf("epoch %d: %v", number, err)
		}
		return e.Epoch().Bounds
	}
	first := slices.Clone(epoch(1, 1000, 2000, 3000, 4000, 5000, 6000))
	if got := epoch(2, 1050, 2050, 3050, 4050, 5050, 6050); !slices.Equal(got, first) {
		t.Errorf("a little higher: got %v, want %v still", got, first)
	}
	if got := epoch(3, 2000, 3000, 4000, 5000, 6000, 7000); slices.Equal(got, first) || got[0] != 3001 {
		t.Errorf("much higher: got %v, the first 3001", got)
	}
	// Records of others, of other rules and of no sense move nothing.
	for _, r := range []LogRecord{
		{[]byte("triggers"), []byte("{}")},
		{[]byte("quantiles/0000000000000000/epoch/9/0"), []byte("{}")},
		{[]byte(e.prefix + "count/0"), nil},
	} {
		if began, err := e.Read(r); began || err != nil {
			t.Errorf("%q: began %v, %v", r.Key, began, err)
		}
	}
	for _, r := range []LogRecord{
		{[]byte(e.prefix + "epoch/9/0"), []byte("{")},
		{[]byte(e.prefix + "epoch/9/0"), []byte(`{"epoch":9}`)},
		{[]byte(e.prefix + "count/x"), []byte("1")},
		{[]byte(e.prefix + "count/0"), []byte("nothing of this sort")},
	} {
		if began, err := e.Read(r); began || err == nil {
			t.Errorf("%q %q: began %v without an error", r.Key, r.Value, began)
		}
	}
}

// FuzzEpochs reads records that nobody should write.
func FuzzEpochs(f *testing.F) {
	e := NewEpochs(rfm(f, Options{}), 1)
	r := countOf(f, e, 0, 3, 1, 2, 3)
	f.Add([]byte(r.Key), []byte(r.Value))
	if _, err := e.Read(r); err != nil {
		f.Fatal(err)
	}
	r, _ = e.Cut()
	f.Add([]byte(r.Key), []byte(r.Value))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		e := NewEpochs(rfm(t, Options{}), 1)
		if began, err := e.Read(LogRecord{key, value}); err == nil && began {
			if _, err := e.rules.With(e.Epoch()); err != nil {
				t.Fatal(err)
			}
		}
		if r, ok := e.Cut(); ok {
			if began, err := e.Read(r); !began || err != nil {
				t.Fatalf("%s: what is cut can't be read: %v", fmt.Sprintf("%q", r.Value), err)
			}
		}
	})
}

// What is scored by calendar days is a quantile of its own in each zone: a day in Tokyo is
// not one in UTC.
func TestQuantilesOfZones(t *testing.T) {
	const rules = "segments:\n  - name: x\n    when: score(orders(calendar(\"day\")), 2) > 1 || score(revenue(), 2) > 1\n  - name: rest\n    otherwise: true\n"
	p, err := Compile(Options{Exponent: 2},
		File{"a.yaml", []byte("set: a\nzone: Asia/Tokyo\n" + rules)}, File{"b.yaml", []byte("set: b\n" + rules)}, File{"c.yaml", []byte("set: c\n" + rules)})
	if err != nil {
		t.Fatal(err)
	}
	if p.Quantiles() != 3 || p.Bounds() != 3 {
		t.Errorf("got %d quantiles with %d bounds, want one of revenue, and one of orders in each of two zones: %v", p.Quantiles(), p.Bounds(), p.Scores())
	}
}

// Who asks why a user is in a segment while there is no epoch, as after a change of the
// scores, gets no answer of the sets that score, nor of those that use them.
func TestClausesWithoutEpoch(t *testing.T) {
	p, err := Compile(Options{Exponent: 2}, scoreSet("r", "score(orders(), 3)", 3),
		File{"a.yaml", []byte("set: a\nsegments:\n  - name: x\n    when: segment(\"r\") == \"s3\"\n  - name: rest\n    otherwise: true\n")})
	if err != nil {
		t.Fatal(err)
	}
	events := []schemas.Event{{ID: []byte("e"), User: []byte("u"), OrderID: []byte("o"), At: 1767225600000, Kind: schemas.Purchase, Amount: 100}}
	s, e := folded(p, events, 1767225600000), p.Evaluator()
	in := make([]uint16, 2)
	e.Eval(&s.pr, s.rows.View(0), 1767225600000, in)
	m := Moment{&s.pr, s.rows.View(0), 1767225600000, in}
	for set, segment := range []uint16{2, 0} { // what was said before the change
		if got := e.Clauses(m, set, segment); got != nil {
			t.Errorf("set %d: got clauses %v, want none without an epoch", set, got)
		}
		if got := e.Passed(m, set, segment); got != nil {
			t.Errorf("set %d: got passed segments %v, want none without an epoch", set, got)
		}
	}
}

// A gap of fewer than two purchases is longer than any duration, in evidence too.
func TestEvidenceOfNoGap(t *testing.T) {
	p, err := Compile(Options{Exponent: 2}, File{"a.yaml", []byte("set: a\nsegments:\n  - name: often\n    when: gap(\"purchase\") < days(10)\n  - name: rest\n    otherwise: true\n")})
	if err != nil {
		t.Fatal(err)
	}
	const day = schemas.Day
	first := schemas.Event{ID: []byte("e"), User: []byte("u"), OrderID: []byte("o"), At: 1767225600000, Kind: schemas.Purchase, Amount: 100}
	second := first
	second.At += 5 * day
	was, is := folded(p, []schemas.Event{first}, first.At), folded(p, []schemas.Event{first, second}, second.At)
	ev := p.Evaluator().Evidence(Moment{&was.pr, was.rows.View(0), second.At, []uint16{1}}, Moment{&is.pr, is.rows.View(0), second.At, []uint16{0}}, 0, 1, 0)
	if got := ev.Text(ev.Was, "EUR") + " to " + ev.Text(ev.Is, "EUR"); got != "null to 432000" {
		t.Errorf("%s: got %s, want null to 432000", ev.Clause, got)
	}
}
