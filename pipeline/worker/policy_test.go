package worker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// policyRules are sets with how often they speak: what the oracle of policies knows of
// rules.
type policyRules struct {
	sets    map[string]map[string]string // policy, by set and segment
	apart   map[string]bool              // sets with capped: false
	cap     segment.Cap
	program *segment.Program
}

// randomPolicies are some of three sets whose segments people come into often, with
// policies of every kind.
func randomPolicies(t *testing.T, rng *rand.Rand, contract uint64) *policyRules {
	t.Helper()
	p := &policyRules{sets: map[string]map[string]string{}, apart: map[string]bool{}}
	if rng.IntN(3) > 0 {
		p.cap = segment.Cap{Triggers: 1 + rng.IntN(4), Within: []schemas.Millis{schemas.Hour, schemas.Day, 20 * schemas.Day}[rng.IntN(3)]}
	}
	all := map[string][][2]string{
		"visits": {{"here", "since(last()) < minutes(30)"}, {"recent", "since(last()) < days(3)"}, {"away", ""}},
		"carts":  {{"none", "open_carts() == 0"}, {"fresh", "since(cart_changed()) < hours(1)"}, {"left", ""}},
		"buyers": {{"spender", "revenue(days(30)) >= 100"}, {"buyer", "orders() >= 1"}, {"browser", ""}},
	}
	names := slices.Sorted(maps.Keys(all))
	rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:max(1, len(names)-rng.IntN(2))]
	var files []segment.File
	for _, name := range names {
		kinds := []string{"", "", "always", "once", "hours(2)", "days(3)", "days(40)", "minutes(45)"}
		if name == "carts" {
			kinds = append(kinds, "cart", "cart", "cart")
		}
		ofSet := kinds[rng.IntN(len(kinds))]
		text := fmt.Sprintf("set: %s\n", name)
		if ofSet != "" {
			text += "reentry: " + ofSet + "\n"
		}
		if rng.IntN(4) == 0 {
			p.apart[name] = true
			text += "capped: false\n"
		}
		text += "segments:\n"
		p.sets[name] = map[string]string{}
		segments := all[name]
		if rng.IntN(4) == 0 { // but for the last, which takes everybody who is left
			gone := rng.IntN(len(segments) - 1)
			segments = slices.Delete(slices.Clone(segments), gone, gone+1)
		}
		for _, seg := range segments {
			own := kinds[rng.IntN(len(kinds))]
			text += fmt.Sprintf("  - name: %s\n", seg[0])
			if own != "" {
				text += "    reentry: " + own + "\n"
			}
			if seg[1] != "" {
				text += "    when: " + seg[1] + "\n"
			} else {
				text += "    otherwise: true\n"
			}
			if own == "" {
				own = ofSet
			}
			if own == "" {
				own = "always"
			}
			p.sets[name][seg[0]] = own
		}
		files = append(files, segment.File{Name: name + ".yaml", Text: []byte(text)})
	}
	var err error
	if p.program, err = segment.Compile(segment.Options{Contract: contract, Exponent: 2, Cap: p.cap}, files...); err != nil {
		t.Fatal(err)
	}
	return p
}

// era is a time in which rules were in force: outputs after number from were said under
// them.
type era struct {
	from  uint64
	rules *policyRules

	// Where it came and went between a snapshot and a crash that took everything since: the
	// rules under which its outputs were read back.
	under []*policyRules
}

// forgets tells whether what was said in the era may be forgotten: outputs do not say which
// policies they were said under, but for those that are about a cart, and of sets and
// segments that are gone everything is remembered.
func (e *era) forgets(set, segment string) bool {
	return kind(e.rules.sets[set][segment]) != "cart" &&
		slices.ContainsFunc(e.under, func(r *policyRules) bool { return r.sets[set][segment] != "" })
}

// policyOracle says of a user's transitions which must be muted by policies, as SEGMENTS.md has
// it ("Not too often"), from the transitions alone. What was said before a policy came
// into force may count or not; what was said since counts, also when the set or the policy
// was gone meanwhile.
type policyOracle struct {
	eras []era
	said []heard // aloud
}

// heard is a transition that was said aloud.
type heard struct {
	set, segment string
	at           int64 // seconds
	cart         uint64
	era          int
}

// kind is which sort of thing has to be remembered for a policy: nothing, a time, a cart.
func kind(policy string) string {
	switch policy {
	case "", "always":
		return ""
	case "cart":
		return "cart"
	}
	return "time"
}

// while is the seconds of days(3), hours(3), minutes(3).
func while(policy string) (seconds int64) {
	for unit, s := range map[string]int64{"days": 86400, "hours": 3600, "minutes": 60} {
		var n int64
		if _, err := fmt.Sscanf(policy, unit+"(%d)", &n); err == nil {
			return n * s
		}
	}
	panic("no while: " + policy)
}

// since is the first of the eras, up to the present one, from which on it was always so.
func (o *policyOracle) since(present int, so func(*policyRules) bool) int {
	for present > 0 && so(o.eras[present-1].rules) {
		present--
	}
	return present
}

// reentry tells whether a transition must be muted because the segment was said before,
// and whether it may be.
func (o *policyOracle) reentry(t heard) (must, may bool) {
	policy := o.eras[t.era].rules.sets[t.set][t.segment]
	if kind(policy) == "" {
		return false, false
	}
	kindIn := func(r *policyRules) string { return kind(r.sets[t.set][t.segment]) }
	since := o.since(t.era, func(r *policyRules) bool { return kindIn(r) == "" || kindIn(r) == kind(policy) })
	for kindIn(o.eras[since].rules) == "" || o.eras[since].forgets(t.set, t.segment) && since < t.era { // nothing was asked to be kept
		since++
	}
	for _, before := range slices.Backward(o.said) { // the last one
		if before.set != t.set || before.segment != t.segment {
			continue
		}
		switch policy {
		case "once":
			may = true
		case "cart":
			may = before.cart == t.cart && t.cart != 0
		default:
			may = t.at-before.at < while(policy)
		}
		return may && before.era >= since, may
	}
	return false, false
}

// capped tells the same of the cap over all sets.
func (o *policyOracle) capped(t heard) (must, may bool) {
	r := o.eras[t.era].rules
	if r.cap.Triggers == 0 || r.apart[t.set] {
		return false, false
	}
	since := o.since(t.era, func(before *policyRules) bool { return before.cap.Triggers >= r.cap.Triggers })
	counts, could := 0, 0
	for _, before := range o.said {
		if t.at-before.at >= int64(r.cap.Within/schemas.Second) {
			continue
		}
		always, ever := true, false
		for _, e := range o.eras[before.era : t.era+1] {
			there := e.rules.sets[before.set] != nil
			always = always && there && !e.rules.apart[before.set]
			ever = ever || !there || !e.rules.apart[before.set]
		}
		if ever {
			could++
		}
		if always && before.era >= since {
			counts++
		}
	}
	return counts >= r.cap.Triggers, could >= r.cap.Triggers
}

// judge goes through all that was said, and counts what was muted and what the oracle
// leaves open.
func (l *life) judge(eras []era, count map[string]int) {
	users := map[string]*policyOracle{}
	for i := range l.said {
		t := l.said[i].Transition
		if t == nil {
			continue
		}
		o := users[t.User]
		if o == nil {
			o = &policyOracle{eras: eras}
			users[t.User] = o
		}
		here := heard{set: t.Names.Set, segment: t.Names.To, at: int64(t.At) / 1000, cart: t.Cart}
		for here.era+1 < len(eras) && eras[here.era+1].from < l.said[i].N {
			here.era++
		}
		rules := eras[here.era].rules.sets[here.set]
		ofCarts := rules[here.segment] == "cart"
		if open := here.segment != "none" && rules["none"] != ""; ofCarts && open && t.Cart == 0 || (!ofCarts || here.segment == "none") && t.Cart != 0 {
			l.t.Fatalf("output %d, to %s in %s: it is about cart %x", l.said[i].N, here.segment, here.set, t.Cart)
		}
		reentryMust, reentryMay := o.reentry(here)
		capMust, capMay := o.capped(here)
		wrong := ""
		switch t.Muted {
		case schemas.NotMuted:
			if reentryMust || capMust {
				wrong = "is said"
			}
			o.said = append(o.said, here)
		case schemas.MutedReentry:
			if !reentryMay {
				wrong = "is muted"
			}
		case schemas.MutedCap:
			if reentryMust || !capMay {
				wrong = "is muted"
			}
		default:
			continue // for another reason, which comes first
		}
		count[t.Muted.String()]++
		if reentryMust != reentryMay || capMust != capMay {
			count["open"]++
		}
		if wrong != "" {
			l.t.Fatalf("output %d, to %s in %s at %d for cart %x, under %+v: it %s (%s); reentry must %v, may %v; cap must %v, may %v\nsaid before: %+v\neras %+v",
				l.said[i].N, here.segment, here.set, here.at, t.Cart, *eras[here.era].rules, wrong, t.Muted, reentryMust, reentryMay, capMust, capMay, o.said, eras)
		}
	}
}

// What is muted for having been said often enough follows from what was said: whatever
// the batches, ticks, snapshots and crashes, and the changes of rules and policies.
func TestPoliciesAreTheOracles(t *testing.T) {
	var count tally
	seeds(t, 400, func(t *testing.T, rng *rand.Rand) {
		cfg := randomConfig(t, rng)
		cfg.DedupBudget = 1 << 20
		now := randomPolicies(t, rng, 1)
		cfg.Rules = now.program
		switches := rng.IntN(2) == 0
		log := newLogger(rng, schemas.Live).write(20 + rng.IntN(300))
		l := newLife(t, rng, cfg, log, rng.Int64N(10))
		l.ticks = true
		eras := []era{{rules: now}}
		for l.worker.Mark().Next < log[len(log)-1].Offset+1 {
			rest := l.between(l.worker.Mark().Next, 1<<62)
			l.batch(rest[:min(len(rest), 1+l.rng.IntN(12))])
			l.named()
			switch rng.IntN(8) {
			case 0:
				if !switches {
					break
				}
				l.rest()
				now = randomPolicies(t, rng, 1)
				l.cfg.Rules = now.program
				l.worker.Switch(now.program)
				eras = append(eras, era{from: l.worker.Mark().N, rules: now})
			case 1:
				l.fill()
			case 2, 3:
				l.rest()
				l.snapshot(t, l.wall, 200)
				l.commit()
			case 4:
				l.commit()
				fallthrough
			case 5:
				eras = slices.DeleteFunc(eras, func(e era) bool { return e.from > l.committed.N })
				if eras[len(eras)-1].rules != now {
					eras = append(eras, era{from: l.committed.N, rules: now})
				}
				from := rng.IntN(len(l.snapshots))
				for i := range eras[:len(eras)-1] {
					if eras[i].from >= l.snapshots[from].cut.N {
						eras[i].under = append(eras[i].under, now)
					}
				}
				l.crash(t, from, l.cfg, Conditions{Wall: l.wall})
				l.named()
			case 6:
				l.apply(nil, Conditions{Wall: l.wall, Paused: true})
				l.named()
			}
		}
		l.rest()
		judged := map[string]int{}
		l.judge(eras, judged)
		for what, n := range judged {
			count.add(what, n)
		}
	})
	t.Logf("%v", count.of)
	for _, want := range []string{schemas.NotMuted.String(), "reentry", "cap", "open"} {
		if count.of[want] < 100 {
			t.Errorf("%d transitions %s: the oracle has had nothing to say", count.of[want], strings.TrimSpace(want))
		}
	}
}

// 1. A segment that is said once comes into a set, somebody comes into it, and it is gone
// again. 2. A crash, before a snapshot has heard of it. 3. It comes back.
func TestOnceIsOnceAlsoOfASegmentThatWasGone(t *testing.T) {
	vips := func(more string) *segment.Program {
		p, err := segment.Compile(segment.Options{Exponent: 2}, segment.File{
			Name: "vips.yaml", Text: []byte("set: vips\nsegments:\n" + more + "  - {name: rest, otherwise: true}\n"),
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	without := vips("")
	with := vips("  - {name: vip, when: since(last(\"purchase\")) < days(1) && orders() >= 1, reentry: once}\n")
	cfg := config(t)
	cfg.MaxAge = 1 << 60
	cfg.Rules = without
	l := &life{world: newWorld(t, cfg, 0), t: t, wall: base + 40*schemas.Day}
	var muted []schemas.Muted
	buy := func(day schemas.Millis) {
		l.log = append(l.log, order(int64(len(l.log)), "ann", base+day*schemas.Day, 10))
		for _, it := range l.apply(l.log[len(l.log)-1:], Conditions{Wall: l.wall}) {
			if it.Transition.To == 0 {
				muted = append(muted, it.Transition.Muted)
			}
		}
		l.rest()
	}
	use := func(rules *segment.Program) {
		l.cfg.Rules = rules
		l.worker.Switch(rules)
		l.rest()
	}
	use(with)
	buy(1)
	use(without)
	l.commit()
	l.crash(t, 0, l.cfg, Conditions{Wall: l.wall})
	l.rest()
	use(with)
	buy(5)
	if len(muted) != 2 || muted[0] != schemas.NotMuted || muted[1] != schemas.MutedReentry {
		t.Errorf("coming into it was muted as %q, want aloud, and then reentry", muted)
	}
}
