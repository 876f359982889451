package worker

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/segment"
	"footfall/schemas"
	"footfall/schemas/segments"
)

// memberships are where everyone is in every set of the rules, and what their cells
// hold.
func (w *Worker) memberships() (lines []string) {
	for user := range int32(w.table.Len()) {
		line := fmt.Sprintf("user %q", w.table.ID(user))
		for set, names := range w.cfg.Rules.Names() {
			m := w.member(user, w.place[set])
			in := "none"
			if m.seq > 0 {
				in = w.names[w.place[set]].Segments[m.segment]
			}
			line += fmt.Sprintf(" %s %s", names.Name, in)
		}
		lines = append(lines, line+w.cellsOf(user))
	}
	slices.Sort(lines)
	return lines
}

// randomRules are some of the sets there are, lifecycle first.
func randomRules(t *testing.T, rng *rand.Rand, contract uint64) *segment.Program {
	all := manySets(t, contract)
	if rng.IntN(3) == 0 {
		return all
	}
	var names []string
	for _, name := range []string{"cart", "engagement", "browse", "replenishment", "milestones", "loyalty"} {
		if rng.IntN(2) == 0 {
			names = append(names, name)
		}
	}
	rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	p, err := segment.Shipped(segment.Options{Contract: contract, Exponent: 2}, slices.Insert(names, rng.IntN(len(names)+1), "lifecycle")...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Rules that are switched in the middle of a life, and cells that are filled from the
// log meanwhile, end where a worker ends that had these rules from the beginning; with
// chains unbroken, through snapshots and crashes.
func TestSwitchedRulesEndWhereTheyWouldHave(t *testing.T) {
	seeds(t, 300, func(t *testing.T, rng *rand.Rand) {
		switchedLife(t, rng, func() *segment.Program { return randomRules(t, rng, 1) })
	})
}

// Quiet hours that come and go keep their cells, and move nobody.
func TestQuietHoursAreSwitched(t *testing.T) {
	seeds(t, 100, func(t *testing.T, rng *rand.Rand) {
		l := switchedLife(t, rng, func() *segment.Program {
			opt := segment.Options{Contract: 1, Exponent: 2, Quiet: []segment.Quiet{{}, {From: 21 * 60, To: 8 * 60}}[rng.IntN(2)]}
			p, err := segment.Shipped(opt, "lifecycle", "engagement")
			if err != nil {
				t.Fatal(err)
			}
			return p
		})
		for _, it := range l.said {
			if tr := it.Transition; tr != nil && tr.Cause.Kind == schemas.ByRules {
				t.Fatalf("output %d: quiet hours have moved user %s: %+v", it.N, tr.User, tr.Names)
			}
		}
	})
}

// An epoch of quantiles that not everybody has been evaluated under when a process dies is
// begun again by the next, or taken back: by one that has not heard of it.
func TestAnEpochBegunIsTakenBack(t *testing.T) {
	rules := shippedRules(t, "lifecycle", "rfm")
	seeds(t, 300, func(t *testing.T, rng *rand.Rand) {
		switchedLife(t, rng, func() *segment.Program {
			day := int64(schemas.Day)
			epoch := segment.Epoch{Number: 1, Bounds: []int64{10 * day, 30 * day, 90 * day, 180 * day, 2, 3, 5, 8}}
			if rng.IntN(2) == 0 {
				epoch = segment.Epoch{Number: 2, Bounds: []int64{1 * day, 60 * day, 70 * day, 80 * day, 1, 2, 3, 4}}
			}
			with, err := rules.With(epoch)
			if err != nil {
				t.Fatal(err)
			}
			return with
		})
	})
}

// switchedLife is a life in which rules are switched, among those that random gives, and
// that ends as if the last had always been in force.
func switchedLife(t *testing.T, rng *rand.Rand, random func() *segment.Program) *life {
	t.Helper()
	l := lifeOfRules(t, rng, random, func(*life) {})
	always := newLife(t, rng, l.cfg, l.log, 0)
	always.apply(l.log, Conditions{Wall: l.wall})
	always.rest()
	if diff := cmp.Diff(always.worker.memberships(), l.worker.memberships()); diff != "" {
		t.Errorf("(-always these rules +switched):\n%s", diff)
	}
	l.checkChains()
	return l
}

// lifeOfRules is a life in which rules are switched; begun is told of it.
func lifeOfRules(t *testing.T, rng *rand.Rand, random func() *segment.Program, begun func(*life)) *life {
	t.Helper()
	cfg := randomConfig(t, rng)
	cfg.DedupBudget = 1 << 20
	cfg.Rules = random()
	log := newLogger(rng, schemas.Live).write(20 + rng.IntN(200))
	l := newLife(t, rng, cfg, log, 0)
	begun(l)
	for l.worker.Mark().Next < log[len(log)-1].Offset+1 {
		l.some()
		if l.more != nil {
			l.more()
		}
		switch rng.IntN(6) {
		case 0:
			l.rest()
			l.named()
			l.cfg.Rules = random()
			l.worker.Switch(l.cfg.Rules)
		case 1:
			l.fill()
		case 2:
			l.rest()
			l.snapshot(t, l.wall, 200)
			l.commit()
		case 3:
			l.named()
			l.commit()
			if rng.IntN(2) == 0 {
				l.cfg.Rules = random()
			}
			l.worker, l.upon = l.rebuild(t, l.snapshots[len(l.snapshots)-1], Conditions{Wall: l.wall}), &l.snapshots[len(l.snapshots)-1]
			l.said = slices.DeleteFunc(l.said, func(it Item) bool { return it.N > l.committed.N })
			l.said = append(l.said, l.out.Items...)
			l.named()
		}
	}
	l.rest()
	l.fill()
	l.rest()
	return l
}

// some applies some records.
func (l *life) some() {
	rest := l.between(l.worker.Mark().Next, 1<<62)
	l.apply(rest[:min(len(rest), 1+l.rng.IntN(20))], Conditions{Wall: l.wall})
	l.named()
}

// rest lets the worker do all that it has to do without records.
func (l *life) rest() {
	for l.worker.Busy() && !l.worker.stuck() {
		l.apply(nil, Conditions{Wall: l.wall})
	}
	l.named()
	if l.rested != nil {
		l.rested()
	}
}

// stuck tells that only a census that nobody has fetched is left.
func (w *Worker) stuck() bool { return !w.Pending() && !w.cells.Relaying() && w.filler == nil }

// fill fills what is missing from the log, without the records that were refused.
func (l *life) fill() {
	l.rest()
	if l.worker.Filling() {
		l.beginFill()
	}
}

// beginFill finds what is missing, and gives it to the worker.
func (l *life) beginFill() {
	filler := l.worker.Filler(0, l.cfg.Decoder)
	for _, it := range l.said {
		if d := it.DeadLetter; d != nil {
			filler.Refuse(d.Pos.Offset)
		}
	}
	if err := filler.Replay(l.between(0, l.worker.FilledUpTo())); err != nil {
		l.t.Fatal(err)
	}
	l.worker.Fill(filler)
}

// named has everything said so far speak by names, as what is read back from the topics
// does: the numbers are of rules that may be switched.
func (l *life) named() {
	for i := range l.said {
		t := l.said[i].Transition
		if t == nil || t.Set == schemas.Retired {
			continue
		}
		names := l.worker.cfg.Rules.Names()[t.Set]
		told := *t
		told.Names = &schemas.RetiredNames{Set: names.Name, To: names.Segments[t.To]}
		switch t.From {
		case schemas.NoSegment:
		case schemas.Retired:
			told.Names.From = t.Names.From
		default:
			told.From, told.Names.From = schemas.Retired, names.Segments[t.From]
		}
		told.Set, told.To = schemas.Retired, schemas.Retired
		l.said[i].Transition = &told
	}
}

// checkChains holds that what was said is a chain for each user and set.
func (l *life) checkChains() {
	last := map[string]*schemas.Transition{}
	for i := range l.said {
		t := l.said[i].Transition
		if t == nil {
			continue
		}
		key := t.User + " in " + t.Names.Set
		before := last[key]
		switch {
		case before == nil && (t.Seq != 1 || t.From != schemas.NoSegment), before != nil && (t.Seq != before.Seq+1 || t.Names.From != before.Names.To):
			l.t.Fatalf("output %d: %s: %+v %+v after %+v", l.said[i].N, key, t, t.Names, before)
		case t.Cause.Kind == schemas.ByRecovery:
			l.t.Fatalf("output %d: %s: a difference that nobody caused: %+v %+v after %+v", l.said[i].N, key, t, t.Names, before)
		}
		last[key] = t
	}
}

// A snapshot holds the cells that the rules ask for now, also where rules were switched
// away from that asked for others, and these were never found.
func TestSnapshotAfterRulesThatWereNeverFilled(t *testing.T) {
	for _, name := range []string{"cart", "loyalty", "browse", "engagement"} {
		rng := rand.New(rand.NewPCG(1, 1))
		few, err := segment.Shipped(segment.Options{Contract: 1, Exponent: 2}, name)
		if err != nil {
			t.Fatal(err)
		}
		cfg := config(t)
		cfg.MaxAge = 1 << 60
		cfg.Rules = few
		log := newLogger(rng, schemas.Live).write(200)
		l := newLife(t, rng, cfg, log, 0)
		l.apply(log, Conditions{Wall: l.wall})
		l.rest()
		for _, rules := range []*segment.Program{manySets(t, 1), few} {
			l.cfg.Rules = rules
			l.worker.Switch(rules)
			l.rest()
			l.snapshot(t, l.wall, 200)
			l.commit()
		}
		want := l.worker.memberships()
		got := l.rebuild(t, l.snapshots[len(l.snapshots)-1], Conditions{Wall: l.wall}).memberships()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -written +read:\n%s", name, diff)
		}
	}
}

// What a change of rules makes of users is muted, unless it is asked for aloud.
func TestChangesAreSaidWhereAsked(t *testing.T) {
	for _, aloud := range []bool{false, true} {
		w := viewers(t, config(t), 10)
		w.worker.Switch(seenRules(t, aloud))
		if done, of := w.worker.Reviewed(); done != 0 || of != 10 {
			t.Errorf("%d of %d reviewed, want none of 10", done, of)
		}
		said := w.settle(Conditions{Wall: base})
		if len(said) != 10 {
			t.Fatalf("%d said, want 10", len(said))
		}
		for _, it := range said {
			if muted := it.Transition.Muted == schemas.MutedRules; muted == aloud || it.Transition.Cause.Kind != schemas.ByRules {
				t.Errorf("aloud %v: got cause %v, muted %q", aloud, it.Transition.Cause.Kind, it.Transition.Muted)
			}
		}
		if done, of := w.worker.Reviewed(); done != of || !w.worker.Settled() {
			t.Errorf("%d of %d reviewed at the end, settled %v", done, of, w.worker.Settled())
		}
	}
}

// Amid the history before a partition's beginning a change of rules, or of quantiles' bounds,
// says nothing aloud, asked for or not: what it moves users by is history.
func TestChangesAmidHistoryAreNotSaidAloud(t *testing.T) {
	for name, rules := range map[string]*segment.Program{"rules": seenRules(t, true), "epoch": epochOf(t, 2)} {
		cfg := config(t)
		if name == "epoch" {
			cfg.Rules = epochOf(t, 1)
		}
		w := newWorld(t, cfg, 20)
		for i := range int64(10) {
			w.log = append(w.log, order(i, fmt.Sprint("u", i), base, 1))
		}
		w.apply(w.log, Conditions{Wall: base})
		w.worker.Switch(rules)
		said := w.settle(Conditions{Wall: base})
		if len(said) < 10 {
			t.Errorf("%s: %d said, want of each of 10", name, len(said))
		}
		for _, it := range said {
			if it.Transition.Muted != schemas.MutedBootstrap {
				t.Errorf("%s: got cause %v, muted %q", name, it.Transition.Cause.Kind, it.Transition.Muted)
			}
		}
	}
}

// seenRules are rules that say their changes aloud, or do not.
func seenRules(t *testing.T, aloud bool) *segment.Program {
	t.Helper()
	rules, err := segment.Compile(segment.Options{Exponent: 2, SayChanges: aloud}, segment.File{
		Name: "seen.yaml", Text: []byte("set: seen\nsegments:\n  - {name: seen, when: count(\"view\") >= 1}\n  - {name: not, otherwise: true}\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// epochOf are rules by a quantile whose bound is a number of orders.
func epochOf(t *testing.T, number uint64) *segment.Program {
	t.Helper()
	rules, err := segment.Compile(segment.Options{Exponent: 2}, segment.File{
		Name: "half.yaml", Text: []byte("set: half\nsegments:\n  - {name: more, when: 'score(orders(), 2) == 2'}\n  - {name: less, otherwise: true}\n"),
	})
	if err == nil {
		rules, err = rules.With(segment.Epoch{Number: number, Bounds: []int64{int64(3 - number)}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// A snapshot that is under way when the history of new cells has been found is one of its
// cut: all its rows have what its header says, and not the new cells; and everybody's timer.
func TestASnapshotIsOfItsCutWhileHistoryIsFound(t *testing.T) {
	cfg := config(t)
	cfg.Rules = shippedRules(t, "lifecycle")
	l := newLife(t, rand.New(rand.NewPCG(1, 1)), cfg, newLogger(rand.New(rand.NewPCG(1, 2)), schemas.Live).write(60), 0)
	l.apply(l.log[:1], Conditions{Wall: l.wall})
	l.rest()
	l.cfg.Rules = shippedRules(t, "lifecycle", "engagement")
	l.worker.Switch(l.cfg.Rules)
	l.apply(l.log[1:], Conditions{Wall: l.wall}) // of whom nobody finds any history
	l.rest()
	var dues []schemas.Millis
	for row := range int32(l.worker.Users()) {
		dues = append(dues, l.worker.wheel.due(row))
	}
	l.begin(l.wall)
	l.slice(t, 300)
	l.fill()
	for range 100 {
		l.apply(nil, Conditions{Wall: l.wall})
	}
	for !l.slice(t, 300) {
	}
	l.rest()
	l.commit()
	last := l.snapshots[len(l.snapshots)-1]
	l.rebuild(t, last, Conditions{Wall: l.wall})
	read, err := Read(bytes.NewReader(last.bytes), 7, l.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for row, due := range dues {
		if id := l.worker.table.ID(int32(row)); read.wheel.due(read.table.Find(id)) != due {
			t.Errorf("user %s is due at %d in the snapshot, and was at %d", id, read.wheel.due(read.table.Find(id)), due)
		}
	}
}

// A worker that is rebuilt from before a new set was filled looks for the history again,
// and does not say until then that everybody is where the rules want them.
func TestARebuiltWorkerIsNotSettledWithoutHistory(t *testing.T) {
	cfg := config(t)
	cfg.Rules = shippedRules(t, "lifecycle")
	l := newLife(t, rand.New(rand.NewPCG(1, 1)), cfg, newLogger(rand.New(rand.NewPCG(1, 2)), schemas.Live).write(60), 0)
	l.apply(l.log, Conditions{Wall: l.wall})
	l.rest()
	l.cfg.Rules = shippedRules(t, "lifecycle", "engagement")
	l.worker.Switch(l.cfg.Rules)
	l.fill()
	l.rest()
	l.commit()
	want := l.worker.memberships()
	for range 2 {
		if !l.worker.Settled() || l.worker.Mark().Rules != l.cfg.Rules.Hash() {
			t.Fatalf("with its history: %+v", l.worker.Mark())
		}
		l.worker, l.upon = l.rebuild(t, l.snapshots[0], Conditions{Wall: l.wall}), &l.snapshots[0]
		l.rest()
		if m := l.worker.Mark(); l.worker.Settled() || m.Rules != 0 {
			t.Fatalf("without its history: %+v", m)
		}
		l.fill()
		l.rest()
		if diff := cmp.Diff(want, l.worker.memberships()); diff != "" {
			t.Errorf("(-before +again):\n%s", diff)
		}
	}
}

func shippedRules(t *testing.T, sets ...string) *segment.Program {
	t.Helper()
	p, err := segment.Shipped(segment.Options{Contract: 1, Exponent: 2}, sets...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A change of rules leaves a set alone that it does not change: of lifecycle the same is
// said, at the same moments and for the same reasons, as if there were no other set and
// nothing was ever switched; whatever interrupts that, with ticks, and with snapshots that
// are begun and ended in the middle of it.
func TestASwitchLeavesOtherSetsAlone(t *testing.T) {
	seeds(t, 150, func(t *testing.T, rng *rand.Rand) {
		cfg := randomConfig(t, rng)
		cfg.DedupBudget = 1 << 20
		cfg.Slice = 1 + rng.IntN(4)
		cfg.Rules = randomRules(t, rng, 1)
		logger := newLogger(rng, schemas.Live)
		logger.users = 8
		log := logger.write(20 + rng.IntN(200))
		l := newLife(t, rng, cfg, log, 0)
		l.ticks = true
		for l.worker.Mark().Next < log[len(log)-1].Offset+1 {
			l.interrupted(t, func() *segment.Program { return randomRules(t, rng, 1) })
		}
		l.settle(Conditions{Wall: l.wall})
		l.named()
		got := map[string][]chainLink{}
		for _, it := range l.said {
			if tr := it.Transition; tr != nil && tr.Names.Set == "lifecycle" {
				link := chainLink{Seq: tr.Seq, From: tr.Names.From, To: tr.Names.To, At: tr.At, Facts: tr.Facts, Cause: fmt.Sprintf("timer %d", tr.Cause.Due)}
				if tr.Cause.Kind != schemas.ByTimer {
					link.Cause = fmt.Sprintf("%s %s %s %d", tr.Cause.Kind, tr.Cause.Event, tr.Cause.ID, tr.Cause.Pos.Offset)
				}
				got[tr.User] = append(got[tr.User], link)
			}
		}
		want := naiveChains(log, l.cfg, l.clocks, l.worker.Mark().Fired)
		for _, chain := range want {
			for i := range chain {
				chain[i].Expected = ""
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("chains of lifecycle (-naive +worker):\n%s", diff)
		}
		l.checkChains()
	})
}

// interrupted lets something happen to a life in which rules are switched to random ones.
func (l *life) interrupted(t *testing.T, random func() *segment.Program) {
	rest := l.between(l.worker.Mark().Next, 1<<62)
	l.batch(rest[:min(len(rest), l.rng.IntN(6))])
	l.named()
	switch l.rng.IntN(14) {
	case 0, 1:
		l.settle(Conditions{Wall: l.wall})
		l.named()
		l.cfg.Rules = random()
		l.worker.Switch(l.cfg.Rules)
	case 2, 3:
		if l.worker.Filling() && !l.worker.Joining() {
			l.beginFill()
		}
	case 4, 5:
		if l.worker.snap == nil {
			l.begin(l.wall)
		}
	case 6:
		l.named()
		cfg := l.cfg
		if l.rng.IntN(2) == 0 {
			cfg.Rules = random()
		}
		l.crash(t, l.rng.IntN(len(l.snapshots)), cfg, Conditions{Wall: l.wall})
		l.named()
	case 7, 8, 9:
		l.commit()
	default:
		for l.worker.snap != nil && l.rng.IntN(4) > 0 {
			l.slice(t, 1+l.rng.IntN(300))
		}
	}
}

// A transition tells the user's segment in every set. One whose history is not found yet has
// said nothing, and is not told of: wherever it stands among the others.
func TestWhatIsSaidTellsOfNoSetWithoutHistory(t *testing.T) {
	for at := range 2 {
		cfg := config(t)
		cfg.MaxAge = 1 << 60
		cfg.Rules = shippedRules(t, "lifecycle")
		l := &life{world: newWorld(t, cfg, 0), t: t, wall: base + 300*schemas.Day}
		l.log = []Record{order(0, "ann", base, 1000), order(1, "ann", base+100*schemas.Day, 1)}
		l.apply(l.log[:1], Conditions{Wall: l.wall})
		l.rest()
		lifecycle, err := segments.Read("lifecycle")
		if err != nil {
			t.Fatal(err)
		}
		files := slices.Insert([]segment.File{{Name: "lifecycle.yaml", Text: lifecycle}}, at, segment.File{Name: "spenders.yaml", Text: []byte(
			"set: spenders\nsegments:\n  - {name: spender, when: 'spend(days(200)) >= 150'}\n  - {name: rest, otherwise: true}\n")})
		rules, err := segment.Compile(segment.Options{Contract: 1, Exponent: 2}, files...)
		if err != nil {
			t.Fatal(err)
		}
		l.worker.Switch(rules)
		l.rest()
		for _, it := range l.apply(l.log[1:], Conditions{Wall: l.wall}) {
			if in := it.Transition.Segments[at]; in != schemas.NoSegment {
				t.Errorf("set %d has no history, and %s is told to be in its %q", at, it.Transition.User, rules.Names()[at].Segments[in])
			}
		}
	}
}
