package segment

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"footfall/pipeline/profile"
	"footfall/schemas"
	"footfall/schemas/segments"
)

// again compiles the rules of a program as it has understood them.
func again(t *testing.T, p *Program, zone string) (*Program, string, error) {
	t.Helper()
	var files []File
	var texts []string
	for i, names := range p.Names() {
		var b strings.Builder
		fmt.Fprintf(&b, "set: %s\nzone: %s\nsegments:\n", names.Name, zone)
		for j, name := range names.Segments {
			if rule := p.Rule(i, uint16(j)); rule != "" {
				fmt.Fprintf(&b, "  - name: %s\n    when: |\n      %s\n", name, rule)
			} else {
				fmt.Fprintf(&b, "  - name: %s\n    otherwise: true\n", name)
			}
		}
		files = append(files, File{fmt.Sprintf("set%d.yaml", i), []byte(b.String())})
		texts = append(texts, b.String())
	}
	q, err := Compile(Options{Exponent: 2}, files...)
	return q, strings.Join(texts, "\n"), err
}

// same looks whether two programs, one written as the other is understood, put a user
// with a random history into the same segments, and understand the same.
func same(p, q *Program, rng *rand.Rand) bool {
	for i, names := range p.Names() {
		for j := range names.Segments {
			if p.Rule(i, uint16(j)) != q.Rule(i, uint16(j)) {
				return false
			}
		}
	}
	events := someHistory(rng)
	if len(events) == 0 {
		return true
	}
	var pr profile.Profile
	rows := []*profile.Rows{profile.NewRows(p.Layout()), profile.NewRows(q.Layout())}
	for i := range events {
		pr.Fold(&events[i])
	}
	for _, r := range rows {
		r.Append()
		for i := range events {
			r.Fold(0, &events[i], events[0].At)
		}
	}
	now := events[len(events)-1].At
	a, b := make([]uint16, p.Sets()), make([]uint16, q.Sets())
	for range 30 {
		due := p.Evaluator().Eval(&pr, rows[0].View(0), now, a)
		if q.Evaluator().Eval(&pr, rows[1].View(0), now, b); !slices.Equal(a, b) {
			return false
		}
		if now = due; due == schemas.Never {
			break
		}
	}
	return true
}

// withScores gives a program some bounds.
func withScores(t *testing.T, p *Program) *Program {
	t.Helper()
	epoch := Epoch{Number: 1}
	for _, s := range p.Scores() {
		for i := range s.Scores - 1 {
			epoch.Bounds = append(epoch.Bounds, int64(1+i)*int64(max(1, s.Scores)))
		}
	}
	with, err := p.With(epoch)
	if err != nil {
		t.Fatal(err)
	}
	return with
}

// A rule as it is understood can be written back into a file, and means the same.
func TestRulesAsUnderstoodMeanTheSame(t *testing.T) {
	shipped, err := Shipped(Options{Exponent: 2}, segments.Names()...)
	if err != nil {
		t.Fatal(err)
	}
	q, text, err := again(t, shipped, "UTC")
	if err != nil {
		t.Fatalf("the shipped sets: %v\n%s", err, text)
	}
	for seed := range uint64(20) {
		if !same(withScores(t, shipped), withScores(t, q), rand.New(rand.NewPCG(seed, 1))) {
			t.Fatalf("the shipped sets, seed %d: not the same\n%s", seed, text)
		}
	}
	compiled := 0
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 9))
		var qs []string
		for range 1 + rng.IntN(4) {
			qs = append(qs, someQuestion(rng))
		}
		one := someSet(rng, "one", "Europe/Berlin", qs)
		two := someSet(rng, "two", "Europe/Berlin", []string{`segment("one") == "rest" && orders() >= 1`, `segment("one") in ["s0", "rest"] || ever("refund")`})
		p, err := Compile(Options{Exponent: 2}, File{"one.yaml", []byte(one)}, File{"two.yaml", []byte(two)})
		if err != nil {
			continue // what was drawn makes no sense
		}
		compiled++
		if q, text, err := again(t, p, "Europe/Berlin"); err != nil || !same(p, q, rng) {
			t.Fatalf("seed %d: %v, or not the same\n%s\n%s\nas understood:\n%s", seed, err, one, two, text)
		}
	}
	if compiled < 100 {
		t.Errorf("only %d of the drawn sets made sense", compiled)
	}
}

// What sets are said to keep is what the layout has.
func TestDescriptionsAddUp(t *testing.T) {
	for _, names := range [][]string{{"lifecycle"}, {"browse", "cart"}, segments.Names()} {
		p, err := Shipped(Options{Exponent: 2}, names...)
		if err != nil {
			t.Fatal(err)
		}
		bytes := 0.0
		for _, d := range p.Describe() {
			if !slices.Contains(names, d.Set) || len(d.Segments) == 0 {
				t.Errorf("got %+v", d)
			}
			for _, k := range d.Kept {
				if len(k.Asked) == 0 || k.What == "" || (k.Entry > 0) != (k.Most > 0) {
					t.Errorf("%s: got %+v", d.Set, k)
				}
				bytes += float64(k.Bytes) / float64(1+len(k.Shared))
			}
		}
		if math.Abs(bytes-float64(p.Layout().Bytes())) > 1e-6 {
			t.Errorf("%v: described are %g bytes, the layout has %d", names, bytes, p.Layout().Bytes())
		}
	}
}
