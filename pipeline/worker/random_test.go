package worker

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// places are where everyone is in every set of the rules that can say so.
func (w *Worker) places() (lines []string) {
	rules := w.cfg.Rules
	for user := range int32(w.table.Len()) {
		line := string(w.table.ID(user))
		for set, names := range rules.Names() {
			if m := w.member(user, w.place[set]); m.seq > 0 && (rules.Epoch().Number > 0 || !rules.NeedsEpoch(names.Name)) {
				line += " " + names.Name + " " + w.names[w.place[set]].Segments[m.segment]
			}
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

// Rules of the whole language, made by chance, of sets that ask for each other, that take
// over from each other in the middle of a life, between snapshots and recoveries, end where
// these rules alone would have; and whenever a worker rests, everybody is where a naive
// reading of the rules wants them, and users are counted by the values that it has of them.
func TestRandomRulesTakeOver(t *testing.T) {
	seeds(t, wanted(), func(t *testing.T, rng *rand.Rand) {
		c := newChance(t, rng)
		var all []*segment.Program
		for range 3 {
			p := c.rules()
			for range 1 + rng.IntN(1+min(2, p.Quantiles())) {
				all = append(all, c.epoch(p))
			}
			if p.Quantiles() > 0 && rng.IntN(2) == 0 {
				all = append(all, p) // nobody has been counted yet
			}
		}
		l := lifeOfRules(t, rng, func() *segment.Program { return all[rng.IntN(len(all))] }, func(l *life) {
			l.rested = func() { c.hold(l) }
			l.more = func() {
				if with := c.census(l); with != nil {
					all = append(all, with)
					l.rest()
					l.cfg.Rules = with
					l.worker.Switch(with)
				}
			}
		})
		always := newLife(t, rng, l.cfg, l.log, 0)
		always.apply(l.log, Conditions{Wall: l.wall})
		always.rest()
		if diff := cmp.Diff(always.worker.places(), l.worker.places()); diff != "" {
			t.Errorf("(-always these rules +switched):\n%s", diff)
		}
		l.checkChains()
		if c.held == 0 {
			t.Error("it was never at rest")
		}
	})
}

// The same where ticks move the clock, and nobody waits with a switch or a crash until a
// snapshot is done or history has been found.
func TestRandomRulesAreInterrupted(t *testing.T) {
	seeds(t, wanted(), func(t *testing.T, rng *rand.Rand) {
		c := newChance(t, rng)
		var all []*segment.Program
		for range 3 {
			all = append(all, c.epoch(c.rules()))
		}
		cfg := randomConfig(t, rng)
		cfg.DedupBudget = 1 << 20
		cfg.Rules = all[0]
		log := newLogger(rng, schemas.Live).write(20 + rng.IntN(200))
		l := newLife(t, rng, cfg, log, 0)
		l.ticks = true
		for l.worker.Mark().Next < log[len(log)-1].Offset+1 {
			l.interrupted(t, func() *segment.Program { return all[rng.IntN(len(all))] })
			c.hold(l)
			if with := c.census(l); with != nil {
				all = append(all, with)
			}
		}
		for l.worker.snap != nil { // history that is found waits for it
			l.slice(t, 300)
		}
		l.fill()
		l.rest()
		c.hold(l)
		l.checkChains()
	})
}

// Under such rules a recovery says nothing, whatever ticks moved the clock, and everybody
// is, and was, where a naive reading of the rules wants them: every transition is there, at
// its moment.
func TestRandomRulesAreRecovered(t *testing.T) {
	seeds(t, wanted(), func(t *testing.T, rng *rand.Rand) {
		c := newChance(t, rng)
		cfg := randomConfig(t, rng)
		if cfg.Rules = c.rules(); rng.IntN(4) > 0 {
			cfg.Rules = c.epoch(cfg.Rules)
		}
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
		c.hold(l)
		c.holdChains(l)
		if t.Failed() {
			t.Log(strings.Join(c.texts[cfg.Rules.Hash()], "\n"))
		}
	})
}
