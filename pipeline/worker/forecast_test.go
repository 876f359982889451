package worker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// What is foreseen is what is said when nobody does anything any more, of everyone, in
// every set, to the millisecond.
func TestForecastComesTrue(t *testing.T) {
	seeds(t, 200, func(t *testing.T, rng *rand.Rand) {
		cfg := randomConfig(t, rng)
		cfg.DedupBudget, cfg.Rules = 1<<20, randomRules(t, rng, 1)
		log := newLogger(rng, schemas.Live).write(20 + rng.IntN(200))
		l := newLife(t, rng, cfg, log, 0)
		l.apply(log, Conditions{Wall: l.wall})
		l.rest()
		until := l.worker.Mark().Clock + schemas.Millis(1+rng.IntN(100))*schemas.Day
		var want []string
		names := cfg.Rules.Names()
		line := func(user string, set, from, to uint16, at schemas.Millis) string {
			return fmt.Sprintf("%q %s %s -> %s at %d", user, names[set].Name, names[set].Segments[from], names[set].Segments[to], at)
		}
		before := l.worker.memberships()
		for row := int32(0); row >= 0; {
			row = l.worker.Forecast(row, 1+rng.IntN(10), until, func(user []byte, dues []Due) {
				for _, d := range dues {
					want = append(want, line(string(user), d.Set, d.From, d.To, d.At))
				}
			})
		}
		if d := cmp.Diff(before, l.worker.memberships()); d != "" {
			t.Fatalf("a forecast has changed something:\n%s", d)
		}
		var got []string
		for at := l.worker.Mark().Clock; at < until || l.worker.Pending(); {
			at = min(until, at+schemas.Millis(1+rng.IntN(9))*schemas.Day)
			for _, it := range l.apply(nil, Conditions{Wall: at, Tick: at}) {
				tr := it.Transition
				got = append(got, line(tr.User, tr.Set, tr.From, tr.To, tr.At))
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-foreseen +said):\n%s", d)
		}
	})
}

// keenViewers is a world of which each view that passes out of a window may move its user.
func keenViewers(t *testing.T) *world {
	t.Helper()
	rules, err := segment.Compile(segment.Options{Contract: 1, Exponent: 2}, segment.File{Name: "set.yaml", Text: []byte(
		"set: keen\nsegments:\n  - {name: keen, when: 'count(\"view\", days(30)) > 70'}\n  - {name: rest, otherwise: true}\n",
	)})
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t)
	cfg.Rules = rules
	return newWorld(t, cfg, 0)
}

// However many of a user's views pass before one moves, that is foreseen.
func TestForecastOfMuchThatPasses(t *testing.T) {
	w := keenViewers(t)
	for i := range int64(200) {
		w.log = append(w.log, view(i, "ann", base+schemas.Millis(i)*schemas.Minute))
	}
	w.apply(w.log, Conditions{Wall: base + schemas.Day})
	var dues []Due
	w.worker.Forecast(0, 1, base+40*schemas.Day, func(_ []byte, d []Due) { dues = slices.Clone(d) })
	if want := base + 30*schemas.Day + 129*schemas.Minute; len(dues) != 1 || dues[0].At/schemas.Minute != want/schemas.Minute {
		t.Errorf("got %+v, want one at %d", dues, want)
	}
}

// A call looks at no more than it may, whatever its users have done: events wait for it. What
// it has not come to the next one looks at.
func TestForecastInSlices(t *testing.T) {
	const users, views = 40, 1000
	w := keenViewers(t)
	for i := range int64(users * views) {
		w.log = append(w.log, view(i, fmt.Sprint("u", i%users), base+schemas.Millis(i)*schemas.Second))
	}
	w.apply(w.log, Conditions{Wall: base + schemas.Day})
	calls, foreseen := 0, 0
	for row := int32(0); row >= 0; calls++ {
		row = w.worker.Forecast(row, users, base+40*schemas.Day, func([]byte, []Due) { foreseen++ })
	}
	if calls < 3 || foreseen != users {
		t.Errorf("%d calls have foreseen %d of %d users, each with some %d moments at which something passes", calls, foreseen, users, views-71)
	}
}
