package worker

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// keen are who a rule holds for.
func keen(t *testing.T, when string) *segment.Program {
	t.Helper()
	p, err := segment.Compile(segment.Options{Contract: 1, Exponent: 2}, segment.File{Name: "keen.yaml", Text: []byte(
		"set: keen\nsegments:\n  - name: keen\n    when: |\n      " + when + "\n  - {name: rest, otherwise: true}\n",
	)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// spenders are who has spent 150 in a window.
func spenders(t *testing.T, window string) *segment.Program {
	t.Helper()
	return keen(t, "spend("+window+") >= 150")
}

func order(offset int64, user string, at schemas.Millis, amount int) Record {
	value := fmt.Appendf(nil, `{"event_id":"e%d","type":"purchase","user_id":%q,"time":%d,"order_id":"o%d","revenue":%d}`, offset, user, at, offset, amount)
	return Record{Offset: offset, Time: at, Key: []byte(user), Value: value}
}

// A window of the calendar that has just begun has let go of what another still asks for:
// its cell holds no more than since then, and so is filled for the other.
func TestAWindowThatHasJustBegunHoldsNoMore(t *testing.T) {
	const day = schemas.Day // base is the first of January
	for _, c := range []struct{ before, after string }{
		{`calendar("month")`, "days(25)"},
		{`calendar("month")`, `calendar("week")`},
		{`calendar("week")`, "days(6)"},
	} {
		cfg := config(t)
		cfg.MaxAge = 1 << 60
		cfg.Rules = spenders(t, c.before)
		w := newWorld(t, cfg, 0)
		// The 29th of January is a Thursday, the 2nd of February a Monday.
		w.log = []Record{order(0, "ann", base+30*day, 100), order(1, "ann", base+32*day, 60)}
		if c.after == `calendar("week")` {
			w.log[1] = order(1, "ann", base+31*day, 60) // a Sunday
		}
		w.apply(w.log, Conditions{Wall: base + 40*day})
		w.settle(Conditions{Wall: base + 40*day})
		l := &life{world: w, t: t}
		l.cfg.Rules = spenders(t, c.after)
		l.worker.Switch(l.cfg.Rules)
		l.wall = base + 40*day
		l.fill()
		l.rest()
		user := l.worker.table.Find([]byte("ann"))
		if m := l.worker.member(user, 0); l.worker.names[0].Segments[m.segment] != "keen" {
			t.Errorf("from %s to %s: 160 were spent, and the user is in %q", c.before, c.after, l.worker.names[0].Segments[m.segment])
		}
	}
}

// Of a user with more different moments than are told apart, what a window has let go crowds
// out nothing that is in it: neither in a replay, nor in the search for a history.
func TestWhatAWindowHasLetGoCrowdsNothingOut(t *testing.T) {
	text := "set: readers\nsegments:\n"
	for n := 1460; n > 1420; n-- { // 1,440 within a window
		text += fmt.Sprintf("  - {name: s%d, when: 'count(\"view\", days(30)) >= %d'}\n", n, n)
	}
	rules, err := segment.Compile(segment.Options{Contract: 1, Exponent: 2}, segment.File{Name: "readers.yaml", Text: []byte(text + "  - {name: rest, otherwise: true}\n")})
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t)
	cfg.MaxAge = 1 << 60
	cfg.Rules = rules
	l := &life{world: newWorld(t, cfg, 0), t: t, wall: base + 70*schemas.Day}
	var log []Record
	for i := range int64(3000) {
		log = append(log, view(i, "ann", base+schemas.Millis(i)*30*schemas.Minute+schemas.Millis(i*i%1000)*schemas.Second))
	}
	l.log = log
	l.apply(log, Conditions{Wall: l.wall})
	l.rest()
	l.commit()
	want := l.worker.memberships()
	l.worker = l.rebuild(t, l.snapshots[0], Conditions{Wall: l.wall})
	for _, it := range l.out.Items {
		t.Errorf("a recovery says: %+v", it.Transition)
	}
	// The record before which the rules come: with some of the window on either side, what is
	// found and what has come since are crowded each by itself, and count a few more or less.
	for _, at := range []int{0, 600, 3000} {
		cfg.Rules = shippedRules(t, "lifecycle")
		l := &life{world: newWorld(t, cfg, 0), t: t, wall: l.wall}
		l.log = log
		l.apply(log[:at], Conditions{Wall: l.wall})
		l.rest()
		l.cfg.Rules = rules
		l.worker.Switch(rules)
		l.apply(log[at:], Conditions{Wall: l.wall})
		l.fill()
		l.rest()
		if diff := cmp.Diff(want, l.worker.memberships()); diff != "" {
			t.Errorf("-live +found, of rules that came before record %d:\n%.300s", at, diff)
		}
	}
}

// Of a kind of event that no cell keeps, the evidence is of the user's own cells, as they
// were and are: also where nothing was folded before it, or a row of other rules.
func TestEvidenceOfAKindThatNoCellKeeps(t *testing.T) {
	rules := func(text string) *segment.Program {
		p, err := segment.Compile(segment.Options{Contract: 1, Exponent: 2}, segment.File{Name: "set.yaml", Text: []byte(text)})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	cfg := config(t)
	cfg.Rules = rules("set: keen\nsegments:\n  - {name: keen, when: 'count(\"view\", days(7)) >= 2 && orders() >= 1'}\n  - {name: rest, otherwise: true}\n")
	log := []Record{view(0, "ann", base), view(1, "ann", base+1), view(2, "bob", base+2), order(3, "ann", base+3, 100)}
	buys := func(w *world, how string) {
		t.Helper()
		for _, it := range w.apply(log[3:], Conditions{Wall: base + schemas.Hour}) {
			if tr := it.Transition; tr.User != "ann" || tr.Evidence.Clause != "orders() >= 1" {
				t.Errorf("%s: got %+v of %s, want that ann has ordered", how, tr.Evidence, tr.User)
			}
		}
	}
	w := newWorld(t, cfg, 0)
	w.log = log
	w.apply(log[:3], Conditions{Wall: base + schemas.Hour})
	w.snapshot(t, base, 1<<20)
	w.commit()
	buys(w, "live")

	w.crash(t, 1, cfg, Conditions{Wall: base + schemas.Hour})
	buys(w, "after a recovery")

	other := cfg
	other.Rules = rules("set: keen\nsegments:\n  - {name: keen, when: 'orders() >= 1'}\n  - {name: rest, otherwise: true}\n")
	w = newWorld(t, other, 0)
	w.log = log
	w.apply(log[:3], Conditions{Wall: base + schemas.Hour})
	w.worker.Switch(cfg.Rules)
	l := &life{world: w, t: t, wall: base + schemas.Hour}
	l.fill()
	l.rest()
	buys(w, "after other rules")
}

// Who has left every window is looked at no more: ten million of them cost nothing.
func TestWhoHasLeftEveryWindowRests(t *testing.T) {
	for _, when := range []string{
		`count("view", days(7)) >= 100`,
		`count("view", calendar("day")) >= 100`,
		`count("view", calendar("day", 1)) >= 100`,
		`spend(calendar("week", 2)) >= 100`,
		`sessions(calendar("day")) >= 3`,
		`distinct("view", event.url, calendar("day")) >= 3`,
		`followed("view", "purchase", days(1), days(7))`,
	} {
		cfg := config(t)
		cfg.Rules = keen(t, when)
		w := newWorld(t, cfg, 0)
		const users = 10
		for i := range 2 * users {
			r := order(int64(i), fmt.Sprint("u", i/2), base+schemas.Millis(i), 1)
			if i%2 == 0 {
				r.Value = fmt.Appendf(nil, `{"event_id":"e%d","type":"view","user_id":"u%d","time":%d,"session_id":"s","product_id":"p","url":"u"}`, i, i/2, r.Time)
			}
			w.log = append(w.log, r)
		}
		w.apply(w.log, Conditions{Wall: base})
		w.settle(Conditions{Wall: base})
		wall, fired := w.worker.Mark().Clock, uint64(0)
		for range 60 {
			before := w.worker.Stats().Timers
			wall += schemas.Day
			for w.worker.Mark().Clock < wall {
				w.apply(nil, Conditions{Wall: wall + 2*schemas.Second, Tick: wall})
			}
			fired = w.worker.Stats().Timers - before
		}
		if fired > 0 {
			t.Errorf("%s: %d users have been silent for two months, and %d timers fire a day", when, users, fired)
		}
	}
}

// What a tick has let go of a user with very many moments, a recovery, which knows of no
// ticks, lets go as well: it moves nobody.
func TestWhatATickHasLetGoIsNotAddedByARecovery(t *testing.T) {
	cfg := config(t)
	cfg.Rules = keen(t, `count("view", days(30)) >= 1015`)
	at := func(i int) schemas.Millis { return base + schemas.Millis(i)*40*schemas.Minute }
	w := newWorld(t, cfg, 0)
	for i := range 1024 {
		ms := at(i)
		if i == 9 || i == 10 { // its neighbours are nearest to each other
			ms = at(11) - schemas.Millis(11-i)*schemas.Second
		}
		w.log = append(w.log, view(int64(i), "ann", ms))
	}
	w.apply(w.log, Conditions{Wall: at(1023)})
	w.settle(Conditions{Wall: at(1023)})
	w.snapshot(t, at(1023), 1<<20)
	w.commit()
	tick := at(11) - 500 + 30*schemas.Day // views up to number 10 have left the window
	now := Conditions{Wall: tick + 2*schemas.Second, Tick: tick}
	for range 5 {
		w.apply(nil, now)
	}
	w.log = append(w.log, view(1024, "ann", at(1023)+schemas.Minute)) // its record's timestamp is 45 h old
	w.apply(w.log[1024:], Conditions{Wall: now.Wall})
	w.settle(Conditions{Wall: now.Wall})
	w.commit()
	for _, it := range w.crash(t, len(w.snapshots)-1, cfg, Conditions{Wall: now.Wall}) {
		tr := it.Transition
		t.Errorf("a recovery says: from %d to %d, muted %v, cause %v", tr.From, tr.To, tr.Muted, tr.Cause.Kind)
	}
}
