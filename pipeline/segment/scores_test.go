package segment

import (
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"footfall/pipeline/profile"
	"footfall/schemas"
	"footfall/sources/file"
)

// scoreBySorting is the score of a value among all: one more than the number of
// quantiles that it lies above (or, with plus, is not less than by that), of the sorted
// values by linear interpolation, in exact fractions.
func scoreBySorting(sorted []int64, n int, plus, value int64) int {
	score := 1
	for i := 1; i < n; i++ {
		at := big.NewRat(int64(len(sorted)-1)*int64(i), int64(n))
		low := new(big.Int).Div(at.Num(), at.Denom()).Int64()
		high := min(low+1, int64(len(sorted)-1))
		part := new(big.Rat).Sub(at, new(big.Rat).SetInt64(low))
		q := new(big.Rat).SetInt64(sorted[high] - sorted[low])
		q.Mul(q, part).Add(q, new(big.Rat).SetInt64(sorted[low]+plus))
		switch c := new(big.Rat).SetInt64(value).Cmp(q); {
		case c > 0, c == 0 && plus > 0:
			score++
		}
	}
	return score
}

// cut makes the epoch of some users' profiles as partitions do that agree on one: a
// distribution for each part of them, encoded, sent, decoded and merged.
func cut(t *testing.T, p *Program, users []*profile.Profile, now schemas.Millis, parts int) *Program {
	t.Helper()
	e := p.Evaluator()
	v := profile.NewRows(p.Layout())
	v.Append()
	all := make([]Distribution, p.Quantiles())
	for part := range parts {
		for q := range all {
			var d Distribution
			for i := part; i < len(users); i += parts {
				if value, ok := e.Quantity(q, users[i], v.View(0), now); ok {
					d.Add(Valued{value, 1})
				}
			}
			sent, err := d.AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			var got Distribution
			if err := got.UnmarshalBinary(sent); err != nil {
				t.Fatal(err)
			}
			all[q].Merge(&got)
		}
	}
	epoch, ok := p.Cut(1, now, all)
	if !ok {
		return p // nobody has bought
	}
	with, err := p.With(epoch)
	if err != nil {
		t.Fatal(err)
	}
	return with
}

// scoreSet is a set whose segments are the scores of a value, from s0.
func scoreSet(name, value string, n int) File {
	text := fmt.Sprintf("set: %s\nsegments:\n", name)
	for i := range n {
		text += fmt.Sprintf("  - name: s%d\n    when: %s == %d\n", i, value, i)
	}
	return File{name + ".yaml", []byte(text + fmt.Sprintf("  - name: s%d\n    otherwise: true\n", n))}
}

// The scores of random shops are those of sorting: whatever ties there are, however few
// the buyers, and however they lie over the partitions.
func TestScoresAreThoseOfSorting(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 3))
		n, plus := 2+rng.IntN(9), int64(rng.IntN(3))
		value := fmt.Sprintf("score(revenue(), %d)", n)
		if plus > 0 {
			value = fmt.Sprintf("score(revenue(), %d, %d.0)", n, plus)
		}
		p, err := Compile(Options{Exponent: 0}, scoreSet("of", value, n))
		if err != nil {
			t.Fatal(err)
		}
		spread := int64(1) << rng.IntN(20)
		var users []*profile.Profile
		var sorted []int64
		for range rng.IntN(200) {
			pr := &profile.Profile{Revenue: rng.Int64N(spread) - spread/4}
			if rng.IntN(5) > 0 {
				pr.Counts[schemas.Purchase] = 1
				sorted = append(sorted, pr.Revenue)
			}
			users = append(users, pr)
		}
		slices.Sort(sorted)
		with := cut(t, p, users, 1000, 1+rng.IntN(7))
		e, into := with.Evaluator(), make([]uint16, 1)
		rows := profile.NewRows(p.Layout())
		rows.Append()
		for _, pr := range users {
			want := 0
			if pr.Orders() > 0 {
				want = scoreBySorting(sorted, n, plus, pr.Revenue)
			}
			if e.Eval(pr, rows.View(0), 1000, into); int(into[0]) != want {
				t.Fatalf("seed %d: score of %d: got %d, want %d, of %d by %s among %v", seed, pr.Revenue, into[0], want, n, value, sorted)
			}
		}
	}
}

// onlineRetail reads the events of the recorded shop, which is no part of the repository.
func onlineRetail(t *testing.T) (events []schemas.Event) {
	t.Helper()
	folder := os.Getenv("FOOTFALL_TEST_DATA")
	if folder == "" {
		folder = filepath.Join("..", "..", "..", "shared", "data")
	}
	path := filepath.Join(folder, "online-retail-uci", "online_retail.csv.gz")
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the recorded data set is not here (%v); set FOOTFALL_TEST_DATA to the folder that has it", err)
	}
	m, err := file.LoadMapping("online-retail")
	if err != nil {
		t.Fatal(err)
	}
	r, err := file.Open(path, m, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d, err := schemas.NewDecoder(schemas.Contract{Currency: "GBP"})
	if err != nil {
		t.Fatal(err)
	}
	for ev, err := range r.Events() {
		if err != nil {
			t.Fatal(err)
		}
		var got schemas.Event
		if err := d.Decode(ev.Key, ev.Value, &got); err != nil {
			t.Fatal(err)
		}
		events = append(events, schemas.Event{User: slices.Clone(got.User), At: got.At, Kind: got.Kind, Amount: got.Amount})
	}
	return events
}

// The scores of every customer of a real shop, at the end of every month, are those of
// sorting; equal values have equal scores; and the shipped rfm set is the map of their
// cells that the field has.
func TestScoresOfARealShop(t *testing.T) {
	events := onlineRetail(t)
	rfm, err := Shipped(Options{Exponent: 2}, "rfm")
	if err != nil {
		t.Fatal(err)
	}
	scores, err := Compile(Options{Exponent: 2},
		scoreSet("r", `6 - score(since(last("purchase")), 5)`, 6), scoreSet("f", "score(orders(), 5)", 5), scoreSet("m", "score(revenue(), 5)", 5))
	if err != nil {
		t.Fatal(err)
	}
	shop := map[string]*profile.Profile{}
	var users []*profile.Profile
	next, judged := 0, 0
	for month := time.Date(2011, 1, 1, 0, 0, 0, 0, time.UTC); month.Year() < 2012; month = month.AddDate(0, 1, 0) {
		now := schemas.Millis(month.UnixMilli())
		for ; next < len(events) && events[next].At < now; next++ {
			ev := &events[next]
			pr := shop[string(ev.User)]
			if pr == nil {
				pr = &profile.Profile{}
				shop[string(ev.User)] = pr
				users = append(users, pr)
			}
			pr.Fold(ev)
		}
		judged += judgeScores(t, month, cut(t, scores, users, now, 8), cut(t, rfm, users, now, 3), users, now)
	}
	t.Logf("%d scores of %d customers", judged, len(users))
}

// judgeScores compares all users' scores at a moment.
func judgeScores(t *testing.T, month time.Time, scores, rfm *Program, users []*profile.Profile, now schemas.Millis) (judged int) {
	t.Helper()
	values := [3]func(*profile.Profile) int64{
		func(pr *profile.Profile) int64 { return int64(now - pr.LastPurchase) },
		func(pr *profile.Profile) int64 { return int64(pr.Orders()) },
		func(pr *profile.Profile) int64 { return pr.Revenue },
	}
	var sorted [3][]int64
	for _, pr := range users {
		if pr.Orders() > 0 {
			for i, of := range values {
				sorted[i] = append(sorted[i], of(pr))
			}
		}
	}
	for i := range sorted {
		slices.Sort(sorted[i])
	}
	rows := profile.NewRows(scores.Layout())
	rows.Append()
	other := profile.NewRows(rfm.Layout())
	other.Append()
	e, re := scores.Evaluator(), rfm.Evaluator()
	into, name := make([]uint16, 3), make([]uint16, 1)
	known := map[[2]int64]int{}
	for _, pr := range users {
		var want [3]int
		if pr.Orders() > 0 {
			for i, of := range values {
				// Every user with this value has had the score that was worked out first.
				score, ok := known[[2]int64{int64(i), of(pr)}]
				if !ok {
					score = scoreBySorting(sorted[i], 5, 0, of(pr))
					known[[2]int64{int64(i), of(pr)}] = score
				}
				want[i] = score
			}
		}
		want[0] = 6 - want[0]
		e.Eval(pr, rows.View(0), now, into)
		if got := [3]int{int(into[0]), int(into[1]), int(into[2])}; got != want {
			t.Fatalf("%s: recency %d, orders %d, revenue %d: got scores %v, want %v", month.Format(time.DateOnly), now-pr.LastPurchase, pr.Orders(), pr.Revenue, got, want)
		}
		re.Eval(pr, other.View(0), now, name)
		if got, want := rfm.Names()[0].Segments[name[0]], cellOf(want[0], want[1]); got != want {
			t.Fatalf("%s: R %d F %d: got %s, want %s", month.Format(time.DateOnly), into[0], into[1], got, want)
		}
		judged += 3
	}
	return judged
}

// cellOf is the map of 25 cells that most public code has, as a table.
func cellOf(r, f int) string {
	if f == 0 {
		return "none"
	}
	const (
		ch, lo, po, ne, pr = "champions", "loyal", "potential_loyalists", "new_customers", "promising"
		at, need, hi, ri   = "about_to_sleep", "need_attention", "hibernating", "at_risk"
		cant, lost         = "cant_lose_them", "lost"
	)
	return [5][5]string{
		{lost, hi, ri, ri, cant},
		{hi, hi, ri, ri, cant},
		{at, at, need, lo, lo},
		{pr, po, po, lo, lo},
		{ne, po, po, ch, ch},
	}[r-1][f-1]
}

// Beyond so many different values a distribution is rounded: a bound is then less than
// one in a thousand off, and its bytes stay bounded.
func TestDistributionOfMany(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	var d Distribution
	var sorted []int64
	for range 60_000 {
		v := rng.Int64N(1 << (10 + rng.IntN(40)))
		d.Add(Valued{v, 1})
		sorted = append(sorted, v)
	}
	slices.Sort(sorted)
	if n := len(d.users); n > coarseMost {
		t.Errorf("got %d values, want at most %d", n, coarseMost)
	}
	for i, bound := range d.bounds(5, 0) {
		at := float64(len(sorted)-1) * float64(i+1) / 5
		want := float64(sorted[int(at)])
		if off := math.Abs(float64(bound)-want) / want; off > 0.001 {
			t.Errorf("bound %d: got %d, want about %.0f: %.5f off", i+1, bound, want, off)
		}
	}
	users := uint64(0)
	for _, n := range d.users {
		users += n
	}
	if users != 60_000 {
		t.Errorf("got %d users, want 60000", users)
	}
	sent, err := d.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	var got Distribution
	if err := got.UnmarshalBinary(sent); err != nil || !maps.Equal(got.users, d.users) {
		t.Errorf("read back: %v; not what was written", err)
	}
	t.Logf("%d values in %d bytes", len(d.users), len(sent))
	// However they came, and over however many partitions, it is the same.
	for range 3 {
		rng.Shuffle(len(sorted), func(i, j int) { sorted[i], sorted[j] = sorted[j], sorted[i] })
		var merged Distribution
		for part := range 5 {
			var some Distribution
			for i := part; i < len(sorted); i += 5 {
				some.Add(Valued{sorted[i], 1})
			}
			merged.Merge(&some)
		}
		if !maps.Equal(merged.users, d.users) {
			t.Fatal("another order of adding gives another distribution")
		}
	}
	for _, bad := range [][]byte{nil, sent[:len(sent)-1], append(slices.Clone(sent), 0), slices.Concat([]byte{9}, sent[1:])} {
		if new(Distribution).UnmarshalBinary(bad) == nil {
			t.Errorf("read %d damaged bytes", len(bad))
		}
	}
}

// A bound that has hardly moved stays where it was, so that nobody moves for it; what
// has moved more does, and bounds still rise.
func TestBoundsThatHardlyMove(t *testing.T) {
	p, err := Compile(Options{Exponent: 2, Hysteresis: 5}, scoreSet("of", "score(orders(), 3)", 3))
	if err != nil {
		t.Fatal(err)
	}
	of := func(values ...int64) []Distribution {
		var d Distribution
		for _, v := range values {
			d.Add(Valued{v, 1})
		}
		return []Distribution{d}
	}
	for _, c := range []struct {
		values []int64
		want   []int64
	}{
		{[]int64{100, 200, 300, 400}, []int64{201, 301}},
		{[]int64{100, 204, 330, 400}, []int64{201, 331}}, // one 2 in a hundred, the other 10
		{[]int64{100, 150, 200, 400}, []int64{151, 201}},
	} {
		epoch, ok := p.Cut(p.Epoch().Number+1, 1, of(c.values...))
		if !ok {
			t.Fatal("no epoch")
		}
		if !slices.Equal(epoch.Bounds, c.want) {
			t.Errorf("of %v: got bounds %v, want %v", c.values, epoch.Bounds, c.want)
		}
		if p, err = p.With(epoch); err != nil {
			t.Fatal(err)
		}
	}
}
