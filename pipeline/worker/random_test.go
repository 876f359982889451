package worker

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/pipelinetest/randomrules"
	"footfall/pipeline/segment"
	"footfall/schemas"
)

// rulesByChance are one or two sets of the whole language.
func rulesByChance(t *testing.T, rng *rand.Rand, scores bool) *segment.Program {
	t.Helper()
	g := randomrules.New(rng)
	g.Scores = scores
	for {
		var files []segment.File
		for _, name := range []string{"one", "two"} {
			if rng.IntN(4) > 0 || name == "two" && len(files) == 0 {
				zone := []string{"UTC", "Europe/Berlin", "Asia/Kathmandu"}[rng.IntN(3)]
				files = append(files, segment.File{Name: name, Text: []byte(g.Set(name, zone, 3, 2))})
			}
		}
		p, err := segment.Compile(segment.Options{Contract: 1, Exponent: 2}, files...)
		if err == nil {
			return p
		}
		if !strings.Contains(err.Error(), "nobody") && !strings.Contains(err.Error(), "never hold") {
			t.Fatal(err)
		}
	}
}

// someEpoch gives rules bounds.
func someEpoch(t *testing.T, rng *rand.Rand, p *segment.Program, number int) *segment.Program {
	t.Helper()
	e := segment.Epoch{Number: uint64(number)}
	for _, score := range p.Scores() {
		most := map[schemas.ValueKind]int64{schemas.SpanValue: int64(60 * schemas.Day), schemas.MoneyValue: 20_000, schemas.NumberValue: 6}[score.Kind]
		from := len(e.Bounds)
		for range score.Scores - 1 {
			e.Bounds = append(e.Bounds, rng.Int64N(most))
		}
		slices.Sort(e.Bounds[from:])
	}
	with, err := p.With(e)
	if err != nil {
		t.Fatal(err)
	}
	return with
}

// places are where everyone is in every set of the rules.
func (w *Worker) places() (lines []string) {
	for user := range int32(w.table.Len()) {
		line := string(w.table.ID(user))
		for set, names := range w.cfg.Rules.Names() {
			if m := w.member(user, w.place[set]); m.seq > 0 {
				line += " " + names.Name + " " + w.names[w.place[set]].Segments[m.segment]
			}
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

// Rules of the whole language, made by chance, that take over from each other in the middle
// of a life, between snapshots and recoveries, end where these rules alone would have.
func TestRandomRulesTakeOver(t *testing.T) {
	seeds(t, 100, func(t *testing.T, rng *rand.Rand) {
		var all []*segment.Program
		for range 3 {
			p := rulesByChance(t, rng, true)
			for number := range 1 + rng.IntN(1+min(2, p.Quantiles())) {
				all = append(all, someEpoch(t, rng, p, 1+number))
			}
		}
		l := lifeOfRules(t, rng, func() *segment.Program { return all[rng.IntN(len(all))] })
		always := newLife(t, rng, l.cfg, l.log, 0)
		always.apply(l.log, Conditions{Wall: l.wall})
		always.rest()
		if diff := cmp.Diff(always.worker.places(), l.worker.places()); diff != "" {
			t.Errorf("(-always these rules +switched):\n%s", diff)
		}
		l.checkChains()
	})
}

// Under such rules a recovery says nothing, whatever ticks moved the clock, and everybody
// is where the rules want them.
func TestRandomRulesAreRecovered(t *testing.T) {
	seeds(t, 100, func(t *testing.T, rng *rand.Rand) {
		cfg := randomConfig(t, rng)
		cfg.Rules = rulesByChance(t, rng, false)
		log := newLogger(rng, schemas.Live).write(20 + rng.IntN(200))
		l := newLife(t, rng, cfg, log, 0)
		l.ticks = true
		l.wall += 1 << 34
		l.run()
		for user := range int32(l.worker.table.Len()) {
			if !l.worker.agrees(user, l.worker.mark.Clock) {
				t.Errorf("user %q is not where the rules want it", l.worker.table.ID(user))
			}
		}
	})
}
