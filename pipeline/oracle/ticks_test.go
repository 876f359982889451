package oracle

import "testing"

// With wall ticks a record's clock is known only as far as the outputs tell.
// Each case is one user's log, the clocks it was really applied at, the marks of
// the outputs in order, and what the oracle must make of it.
func TestClocksBetweenMarks(t *testing.T) {
	buyThenView := func() *log { return new(log).buy(0, "a").view(29*day, "a").view(40*day, "b") }
	at := func(next int64, clock, fired int64) mark {
		return mark{next: next, clock: t0 + clock, fired: t0 + fired}
	}
	for _, tc := range []struct {
		name   string
		log    *log
		clocks []int64 // of the first user's records
		marks  []mark  // of its outputs; the last is also the final one
		drop   int     // an output left out, counted from 1
		part   bool    // the run was cut short
		want   string  // "" for clean, else lost, doubled or wrong
	}{
		{"a tick alone fires a timer", new(log).buy(0, "a"), []int64{0}, []mark{at(1, 0, 0), at(1, 31*day, 31*day)}, 0, false, ""},
		{"and must", new(log).buy(0, "a"), []int64{0}, []mark{at(1, 0, 0), at(1, 31*day, 31*day)}, 2, false, "lost"},
		{"not if fired is before it and the run was cut short", new(log).buy(0, "a"), []int64{0}, []mark{at(1, 0, 0), at(1, 31*day, 29*day)}, 2, true, ""},
		{"but if it ended well", new(log).buy(0, "a"), []int64{0}, []mark{at(1, 0, 0), at(1, 31*day, 29*day)}, 2, false, "lost"},
		{"to the millisecond", new(log).buy(0, "a"), []int64{0}, []mark{at(1, 0, 0), at(1, 30*day, 30*day)}, 2, true, "lost"},
		{"not a millisecond before", new(log).buy(0, "a"), []int64{0}, []mark{at(1, 30*day-1, 30*day-1)}, 2, false, ""},
		{"a timer beyond the clock", new(log).buy(0, "a"), []int64{0}, []mark{at(1, 0, 0), at(1, 30*day-1, 30*day-1)}, 0, false, "wrong"},
		{
			"the timer before the silent record, as a tick came first", buyThenView(),
			[]int64{0, 31 * day},
			[]mark{at(1, 0, 0), at(3, 40*day, 40*day)},
			0, false, "",
		},
		{
			"the timer after the silent record, as no tick came first", buyThenView(),
			[]int64{0, 29 * day},
			[]mark{at(1, 0, 0), at(3, 40*day, 40*day)},
			0, false, "",
		},
		{
			"the timer after the silent record, though a mark says a tick came first", buyThenView(),
			[]int64{0, 29 * day},
			[]mark{at(1, 30*day, 0), at(3, 40*day, 40*day)},
			0, false, "wrong",
		},
		{
			"the timer before the silent record, though a mark says no tick came first", new(log).buy(0, "a").view(29*day, "a").view(29*day, "b"),
			[]int64{0, 31 * day},
			[]mark{at(1, 0, 0), at(2, 30*day-1, 0), at(3, 40*day, 40*day)},
			0, false, "wrong",
		},
		{
			"an event's own at tells the clock of silent records before it",
			new(log).buy(0, "a").view(29*day, "a").buy(29*day, "a"),
			[]int64{0, 29 * day, 29*day + 5},
			[]mark{at(1, 0, 0), at(3, 40*day, 29*day)},
			0, true, "",
		},
		{
			"silence that no clock explains", new(log).buy(0, "a").view(10*day, "a").buy(20*day, "a"),
			[]int64{0, 10 * day, 20 * day},
			[]mark{at(1, 0, 0), at(3, 25*day, 25*day)},
			2, false, "lost",
		},
		{
			"a transition at a clock before its record", new(log).buy(0, "a").buy(20*day, "a"),
			[]int64{0, 20*day - 1},
			[]mark{at(1, 0, 0), at(2, 25*day, 25*day)},
			0, false, "wrong",
		},
		{
			"a transition at a clock after its mark", new(log).buy(0, "a").buy(20*day, "a"),
			[]int64{0, 25*day + 1},
			[]mark{at(1, 0, 0), at(2, 25*day, 25*day)},
			0, false, "wrong",
		},
	} {
		d, final := tell(tc.log, tc.clocks, tc.marks, tc.drop)
		opt := options(true)
		opt.Partial, opt.Marks = tc.part, map[int32]Mark{0: final}
		r := d.Judge(opt)
		count := map[string]int{"": 0, "lost": r.LostCount, "wrong": r.WrongCount}[tc.want]
		if clean := r.Err() == nil; clean != (tc.want == "") || !clean && count == 0 {
			t.Errorf("%s: got %v, want it %s", tc.name, r.Err(), orText(tc.want, "clean"))
		}
	}
}

// tell makes the outputs of a log whose first user's records were applied at the
// given clocks, and the last mark.
func tell(l *log, clocks []int64, marks []mark, drop int) (*Dump, Mark) {
	h := compile(options(false)).read(l.records, nil, nil)
	d := &Dump{Input: l.records}
	final := marks[len(marks)-1]
	var all []step
	for i, u := range h.users {
		at := u.clocks()
		for k := range at {
			if i == 0 {
				at[k] = t0 + clocks[k]
			}
		}
		end := max(final.clock, t0+30*day)
		all = append(all, chain(0, u, at, end)...)
	}
	n := int64(0)
	for i, s := range all {
		if i+1 == drop {
			continue
		}
		mk := marks[min(i, len(marks)-1)]
		n++
		r := encode(s.Transition, n, mk, "", "EUR")
		r.Offset = n
		d.Triggers = append(d.Triggers, r)
	}
	return d, Mark{Next: final.next, Clock: final.clock, Fired: final.fired, N: n}
}

func TestFutureByTheWall(t *testing.T) {
	l := new(log).view(0, "a").view(10*day, "b").view(1, "c")
	h := compile(options(false)).read(l.records[:1], nil, nil)
	said := chain(0, h.users[0], h.users[0].clocks(), h.clock)
	mk := mark{next: 3, clock: t0 + 1, fired: t0 + 1}
	third := said[0].Transition
	third.User, third.Seq, third.CauseID, third.CauseOffset = "c", 1, "e2", 2
	third.At, third.First, third.Last, third.ExpectedAt = t0+1, t0+1, t0+1, t0+1+90*day
	for _, tc := range []struct {
		refused int64
		clean   bool
	}{{1, true}, {2, false}} {
		d := &Dump{Input: l.records}
		d.Triggers = []Record{encode(said[0].Transition, 1, mk, "", "EUR"), encode(third, 3, mk, "", "EUR")}
		d.Triggers[1].Offset = 1
		d.DeadLetters = []Record{encodeLetter(&l.records[tc.refused], "future", 2, mk)}
		if err := d.Judge(options(true)).Err(); (err == nil) != tc.clean {
			t.Errorf("record %d said to be ahead of the wall: got %v, want clean %v", tc.refused, err, tc.clean)
		}
		if err := d.Judge(options(false)).Err(); err == nil {
			t.Errorf("record %d said to be ahead of the wall, in log time: got it clean", tc.refused)
		}
	}
}
