package worker

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/oracle"
	"footfall/pipeline/segment"
	"footfall/schemas"
	"footfall/schemas/segments"
)

// chainLink is one link of a user's chain: a transition without what differs between runs by right, its
// number among the outputs of other users.
type chainLink struct {
	Seq      uint32
	From, To string
	At       schemas.Millis
	Cause    string
	Muted    schemas.Muted
	Facts    schemas.Facts
	Expected string
	Contact  schemas.Contact
}

// chains sorts what was said in the lifecycle set by user, without the contacts.
func (w *world) chains() map[string][]chainLink {
	all := w.chainsOf(0)
	for _, chain := range all {
		for i := range chain {
			chain[i].Contact = schemas.Contact{}
		}
	}
	return all
}

// chainsOf sorts what was said in a set by user.
func (w *world) chainsOf(set uint16) map[string][]chainLink {
	name := func(s uint16) string {
		if s == schemas.NoSegment {
			return ""
		}
		return w.cfg.Rules.Names()[set].Segments[s]
	}
	out := map[string][]chainLink{}
	for _, it := range w.said {
		if t := it.Transition; t != nil && t.Set == set {
			l := chainLink{
				Seq: t.Seq, From: name(t.From), To: name(t.To), At: t.At, Muted: t.Muted, Facts: t.Facts, Contact: t.Contact,
				Cause: fmt.Sprintf("timer %d", t.Cause.Due), Expected: fmt.Sprintf("%s %d", name(t.Expected.To), t.Expected.At),
			}
			if t.Cause.Kind != schemas.ByTimer {
				l.Cause = fmt.Sprintf("%s %s %s %d", t.Cause.Kind, t.Cause.Event, t.Cause.ID, t.Cause.Pos.Offset)
			}
			if t.Expected.To == schemas.NoSegment {
				l.Expected = "nothing"
			}
			out[t.User] = append(out[t.User], l)
		}
	}
	return out
}

// deadLetters gives the reasons of the refused records.
func (w *world) deadLetters() map[int64]string {
	out := map[int64]string{}
	for _, it := range w.said {
		if d := it.DeadLetter; d != nil {
			out[d.Pos.Offset] = d.Reason.String()
		}
	}
	return out
}

// judged is what package oracle, which shares no code with the worker, makes of a log.
func judged(log []Record, cfg Config) *oracle.Expected {
	var input []oracle.Record
	for _, r := range log {
		if !r.Control {
			input = append(input, oracle.Record{Partition: 7, Offset: r.Offset, Time: int64(r.Time), Key: r.Key, Value: r.Value})
		}
	}
	return oracle.Generate(input, oracle.Options{
		Currency: contract.Currency, Rates: contract.Rates,
		DedupWindow: int64(cfg.DedupWindow), DedupBudget: int64(cfg.DedupBudget),
	})[7]
}

// oracleChains are the oracle's transitions, none of them muted.
func oracleChains(e *oracle.Expected) map[string][]chainLink {
	out := map[string][]chainLink{}
	for _, t := range e.Transitions {
		l := chainLink{
			Seq: uint32(t.Seq), From: t.From, To: t.To, At: schemas.Millis(t.At), Cause: fmt.Sprintf("timer %d", t.Due),
			Facts: schemas.Facts{
				First: schemas.Millis(t.First), Last: schemas.Millis(t.Last),
				FirstPurchase: schemas.Millis(t.FirstPurchase), LastPurchase: schemas.Millis(t.LastPurchase),
				Orders: uint32(t.Orders), Revenue: t.RevenueMinor,
			},
			Expected: "nothing",
		}
		if t.Cause == "event" {
			l.Cause = fmt.Sprintf("event %s %s %d", t.CauseType, t.CauseID, t.CauseOffset)
		}
		if t.ExpectedTo != "" {
			l.Expected = fmt.Sprintf("%s %d", t.ExpectedTo, t.ExpectedAt)
		}
		out[t.User] = append(out[t.User], l)
	}
	return out
}

// tally counts what the seeds of a property have met.
type tally struct {
	mu sync.Mutex
	of map[string]int
}

func (c *tally) add(what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[string]int{}
	}
	c.of[what] += n
}

// seeds runs a property on many seeds, as many at a time as there are processors; a failing one
// names itself.
func seeds(t *testing.T, n uint64, property func(t *testing.T, rng *rand.Rand)) {
	t.Helper()
	n /= raceSlower
	if testing.Short() {
		n /= 10
	}
	var next atomic.Uint64
	var failed atomic.Bool
	var runs sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		runs.Go(func() {
			for seed := next.Add(1) - 1; seed < n && !failed.Load(); seed = next.Add(1) - 1 {
				if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { property(t, rand.New(rand.NewPCG(seed, 1))) }) {
					failed.Store(true)
				}
			}
		})
	}
	runs.Wait()
}

// randomConfig chooses limits, small ones rather than large.
func randomConfig(t *testing.T, rng *rand.Rand) Config {
	cfg := config(t)
	cfg.Slice = 1 + rng.IntN(1<<rng.IntN(8))
	cfg.MaxAge = 1 << 60 // nothing is stale: the wall of these tests stands still
	if rng.IntN(2) == 0 {
		cfg.DedupBudget = 1 + rng.IntN(12)
	}
	if rng.IntN(2) == 0 {
		cfg.Rules = manySets(t, cfg.Decoder.Hash())
	}
	return cfg
}

// manySets are the lifecycle and sets whose cells are of every kind.
func manySets(t *testing.T, contract uint64) *segment.Program {
	t.Helper()
	tastes := segment.File{Name: "tastes.yaml", Text: []byte(`set: tastes
zone: Europe/Berlin
quiet: "20:30-07:15"
segments:
  - name: reader
    when: top("any", event.channel) == "email" && count("view", event.category != "", days(30)) >= 2
  - name: evening
    when: top_hour("any") >= 18 || first_value("any", event.channel) == "ads"
  - name: spender
    when: largest_order() > 50 && sum("purchase", event.amount, event.channel != "seo") > spend(calendar("month"))
  - name: quick
    when: followed("view", "purchase", hours(12), days(60)) || ever("refund", event.amount > 10)
  - name: loser
    when: segment("lifecycle") in ["lost", "dormant"] && last("view", event.category == "tv") < last("search")
  - name: rest
    otherwise: true
`)}
	files := []segment.File{tastes}
	for _, name := range []string{"cart", "engagement", "browse", "replenishment", "milestones", "loyalty"} {
		text, err := segments.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, segment.File{Name: name, Text: text})
	}
	text, err := segments.Read("lifecycle")
	if err != nil {
		t.Fatal(err)
	}
	files = slices.Insert(files, 0, segment.File{Name: "lifecycle", Text: text})
	p, err := segment.Compile(segment.Options{Contract: contract, Exponent: 2}, files...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// life is one life of a partition, with everything that may happen to it.
type life struct {
	*world
	t       *testing.T
	rng     *rand.Rand
	wall    schemas.Millis
	ticks   bool
	rules   []*segment.Program       // what a crash may come back with; nil: always the same
	clocks  map[int64]schemas.Millis // at each record
	crashes int

	rested, more func() // called at rest, and in the middle; may be nil
}

// agrees holds the life against what the oracle makes of a log that has been applied whole.
func (l *life) agrees(log []Record) {
	l.t.Helper()
	want := judged(log, l.cfg)
	if diff := cmp.Diff(oracleChains(want), l.chains()); diff != "" {
		l.t.Errorf("chains (-oracle +worker):\n%s", diff)
	}
	if diff := cmp.Diff(want.DeadLetters, l.deadLetters()); diff != "" {
		l.t.Errorf("dead letters (-oracle +worker):\n%s", diff)
	}
	if s := l.worker.Stats(); l.crashes == 0 && (int(s.Applied) != want.Applied || int(s.Duplicates) != len(want.Duplicates)) {
		l.t.Errorf("got %d applied, %d duplicates, want %d and %d", s.Applied, s.Duplicates, want.Applied, len(want.Duplicates))
	}
	if got := l.worker.Mark().Clock; int64(got) != want.Clock {
		l.t.Errorf("clock: got %d, want %d", got, want.Clock)
	}
}

// run applies the log in random batches; between them it takes snapshots in small
// slices, commits, and crashes. At the end everything is applied and committed.
func (l *life) run() {
	for {
		next := l.worker.Mark().Next
		rest := l.between(next, 1<<62)
		if len(rest) == 0 {
			break
		}
		l.batch(rest[:min(len(rest), 1+l.rng.IntN(1<<l.rng.IntN(6)))])
		for l.worker.snap != nil && l.rng.IntN(2) == 0 {
			l.slice(l.t, 1+l.rng.IntN(200))
		}
		if l.worker.snap == nil && l.rng.IntN(6) == 0 {
			l.begin(l.wall)
		}
		if l.rng.IntN(3) == 0 {
			l.commit()
		}
		if l.rng.IntN(12) == 0 && l.crashes < 30 {
			l.fall()
		}
	}
	l.settle(Conditions{Wall: l.wall})
	l.commit()
}

// batch applies records, and now and then lets the wall move the clock.
func (l *life) batch(records []Record) {
	at := Conditions{Wall: l.wall}
	clock := l.worker.Mark().Clock
	accepted := func(r *Record) bool {
		return !r.Control && l.worker.cfg.Decoder.Decode(r.Key, r.Value, &l.worker.event) == nil
	}
	for i := range records {
		if r := &records[i]; accepted(r) && l.worker.event.At-r.Time <= l.cfg.Ahead {
			clock = max(clock, r.Time)
			l.clocks[r.Offset] = clock
		}
	}
	if l.ticks && l.rng.IntN(3) == 0 {
		at.Tick = clock + schemas.Millis(l.rng.Int64N(int64(1)<<l.rng.IntN(34)))
	}
	l.apply(records, at)
}

// fall crashes, and gets up from one of the snapshots.
func (l *life) fall() {
	id := l.rng.IntN(len(l.snapshots))
	l.crashes++
	if l.rules != nil {
		cfg := l.cfg
		cfg.Rules = l.rules[l.rng.IntN(len(l.rules))]
		l.crash(l.t, id, cfg, Conditions{Wall: l.wall})
		return
	}
	if said := l.crash(l.t, id, l.cfg, Conditions{Wall: l.wall}); len(said) > 0 {
		l.t.Fatalf("crash %d, from snapshot %d: under the same rules a recovery says\n%+v\n%+v, want nothing", l.crashes, id, said[0], said[0].Transition)
	}
}

func newLife(t *testing.T, rng *rand.Rand, cfg Config, log []Record, bootstrap int64) *life {
	wall := base
	for _, r := range log {
		wall = max(wall, r.Time)
	}
	l := &life{world: newWorld(t, cfg, bootstrap), t: t, rng: rng, wall: wall, clocks: map[int64]schemas.Millis{}}
	l.log = log
	tosses := rand.New(rand.NewPCG(rng.Uint64(), 2))
	l.toss = func() bool { return tosses.IntN(3) > 0 }
	return l
}

// In log time the chains are a function of the log alone (design 3.4, R2),
// whatever the batches, the slices of timers, the snapshots and the crashes.
func TestChainsAreTheOracles(t *testing.T) {
	seeds(t, 400, func(t *testing.T, rng *rand.Rand) {
		cfg := randomConfig(t, rng)
		log := newLogger(rng, schemas.Replay).write(20 + rng.IntN(300))
		l := newLife(t, rng, cfg, log, 0)
		l.run()
		l.agrees(log)
	})
}

// With wall ticks the chains are a function of the log and of the clock at each
// record (design 3.4).
func TestTickedChainsFollowFromTheClocks(t *testing.T) {
	seeds(t, 400, func(t *testing.T, rng *rand.Rand) {
		cfg := randomConfig(t, rng)
		log := newLogger(rng, schemas.Live).write(20 + rng.IntN(300))
		l := newLife(t, rng, cfg, log, 0)
		l.ticks = true
		l.run()
		want := naiveChains(log, cfg, l.clocks, l.worker.Mark().Fired)
		if diff := cmp.Diff(want, l.chains()); diff != "" {
			t.Errorf("chains (-naive +worker):\n%s", diff)
		}
	})
}

// What is muted as bootstrap is a function of the log too.
func TestBootstrapMutesTheSameWhateverTheBatches(t *testing.T) {
	seeds(t, 300, func(t *testing.T, rng *rand.Rand) {
		cfg := randomConfig(t, rng)
		log := newLogger(rng, schemas.Live).write(20 + rng.IntN(200))
		bootstrap := rng.Int64N(log[len(log)-1].Offset + 2)
		patient := cfg
		patient.Slice = 1 << 20
		whole := newLife(t, rng, patient, log, bootstrap)
		whole.apply(log, Conditions{Wall: whole.wall})
		l := newLife(t, rng, cfg, log, bootstrap)
		l.run()
		for set := range uint16(cfg.Rules.Sets()) {
			if diff := cmp.Diff(whole.chainsOf(set), l.chainsOf(set)); diff != "" {
				t.Errorf("bootstrap=%d: chains of set %s (-in one batch +in pieces):\n%s", bootstrap, cfg.Rules.Names()[set].Name, diff)
			}
		}
	})
}

// A worker that is read from its snapshot is the worker that went on.
func TestStateAfterRestoreIsTheStateThatWentOn(t *testing.T) {
	seeds(t, 300, func(t *testing.T, rng *rand.Rand) {
		cfg := randomConfig(t, rng)
		log := newLogger(rng, schemas.Live).write(20 + rng.IntN(200))
		l := newLife(t, rng, cfg, log, 0)
		l.ticks = true
		l.run()
		l.snapshot(t, l.wall, 1+rng.IntN(500))
		l.commit()
		for i, s := range l.snapshots {
			restored := l.rebuild(t, s, Conditions{Wall: l.wall})
			exact := i == len(l.snapshots)-1
			if diff := cmp.Diff(l.worker.digest(t, exact), restored.digest(t, exact)); diff != "" {
				t.Errorf("snapshot %d at %d, mark at %d (-went on +restored):\n%s", i, s.cut.Next, l.committed.Next, diff)
			}
		}
	})
}

// After a change of rules everyone is evaluated again, in slices, and whatever
// interrupts that, nobody is left where the rules do not want it, now or later.
func TestAChangeOfRulesForgetsNobody(t *testing.T) {
	seeds(t, 300, func(t *testing.T, rng *rand.Rand) {
		cfg := randomConfig(t, rng)
		cfg.Slice = 1 + rng.IntN(3)
		logger := newLogger(rng, schemas.Live)
		logger.users = 20
		l := newLife(t, rng, cfg, logger.write(20+rng.IntN(400)), 0)
		l.ticks = true
		l.rules = []*segment.Program{cfg.Rules, segment.Lifecycle(cfg.Rules.Hash() + 1)}
		if cfg.Rules.Sets() > 1 {
			l.rules[1] = manySets(t, cfg.Rules.Hash()+1)
		}
		l.run()
		l.worker.digest(t, true) // looks at every timer
		for range 3 {
			m := l.worker.Mark()
			if m.Rules != l.cfg.Rules.Hash() {
				t.Fatalf("mark: got rules %x, want %x", m.Rules, l.cfg.Rules.Hash())
			}
			for user := range int32(l.worker.Users()) {
				if !l.worker.agrees(user, m.Fired) {
					t.Fatalf("at %d user %q is in segment %+v, where the rules do not want it", m.Fired, l.worker.table.ID(user), l.worker.member(user, 0))
				}
			}
			for to := m.Clock + 70*schemas.Day; l.worker.Mark().Clock < to; {
				l.apply(nil, Conditions{Wall: to, Tick: to})
			}
		}
	})
}

// A profile does not depend on order (design 3.1): of distinct events within the
// dedup window's reach, whatever order they come in.
func TestProfilesDoNotDependOnOrder(t *testing.T) {
	seeds(t, 200, func(t *testing.T, rng *rand.Rand) {
		var events []Record
		for i := range 1 + rng.IntN(60) {
			kind := []string{"view", "purchase", "refund", "search"}[rng.IntN(4)]
			at := base - schemas.Millis(rng.Int64N(int64(300*schemas.Day)))
			value := fmt.Sprintf(`{"event_id":"e%d","type":%q,"user_id":"u","time":%d,"order_id":"o%d","revenue":%d}`, i, kind, at, i, rng.IntN(100))
			events = append(events, Record{Time: base, Key: []byte("u"), Value: []byte(value)})
		}
		fold := func() schemas.Facts {
			w := newWorld(t, config(t), 0)
			for i := range events {
				events[i].Offset = int64(i)
			}
			w.apply(events, Conditions{Wall: base})
			if got := w.worker.Stats().Applied; int(got) != len(events) {
				t.Fatalf("got %d applied, want %d", got, len(events))
			}
			return w.worker.profileOf(0).Facts()
		}
		want := fold()
		for range 5 {
			rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
			if got := fold(); got != want {
				t.Errorf("in another order:\ngot  %+v\nwant %+v", got, want)
			}
		}
	})
}

// naiveChains recomputes every user's chain from the clock at each record: what
// the rules say, written out, and no timers but a look at each boundary.
func naiveChains(log []Record, cfg Config, clocks map[int64]schemas.Millis, end schemas.Millis) map[string][]chainLink {
	decided := judged(log, cfg)
	users := map[string]*naiveUser{}
	for _, r := range log {
		clock, accepted := clocks[r.Offset]
		if !accepted {
			continue
		}
		var ev schemas.Event
		if err := cfg.Decoder.Decode(r.Key, r.Value, &ev); err != nil {
			panic(err)
		}
		u := users[string(ev.User)]
		if u == nil {
			if decided.Duplicates[r.Offset] {
				continue
			}
			u = &naiveUser{}
			users[string(ev.User)] = u
		}
		u.fire(clock)
		if decided.Duplicates[r.Offset] {
			continue
		}
		u.fold(&ev)
		u.look(clock, fmt.Sprintf("event %s %s %d", ev.Kind, ev.ID, r.Offset))
	}
	out := map[string][]chainLink{}
	for name, u := range users {
		u.fire(end)
		out[name] = u.chain
	}
	return out
}

// naiveUser is a user of naiveChains.
type naiveUser struct {
	facts  schemas.Facts
	seen   schemas.Millis // when last evaluated
	chain  []chainLink
	events int
}

func (u *naiveUser) fold(ev *schemas.Event) {
	f := &u.facts
	u.events++
	if u.events == 1 || ev.At < f.First {
		f.First = ev.At
	}
	f.Last = max(f.Last, ev.At)
	switch ev.Kind {
	case schemas.Purchase:
		if f.Orders == 0 || ev.At < f.FirstPurchase {
			f.FirstPurchase = ev.At
		}
		f.Orders++
		f.LastPurchase = max(f.LastPurchase, ev.At)
		f.Revenue += ev.Amount
	case schemas.Refund:
		f.Revenue -= ev.Amount
	default:
	}
}

func (u *naiveUser) segment(t schemas.Millis) string {
	last, bought := max(0, t-u.facts.Last), max(0, t-u.facts.LastPurchase)
	switch n := u.facts.Orders; {
	case n >= 1 && bought >= 180*schemas.Day:
		return "lost"
	case last >= 90*schemas.Day:
		return "dormant"
	case n == 1 && bought < 30*schemas.Day:
		return "new"
	case n >= 2 && bought < 30*schemas.Day:
		return "active"
	case n >= 1:
		return "cooling"
	}
	return "prospect"
}

// boundaries are the moments after t at which the segment can change by silence.
func (u *naiveUser) boundaries(t schemas.Millis) []schemas.Millis {
	at := []schemas.Millis{u.facts.Last + 90*schemas.Day}
	if u.facts.Orders > 0 {
		at = append(at, u.facts.LastPurchase+30*schemas.Day, u.facts.LastPurchase+180*schemas.Day)
	}
	at = slices.DeleteFunc(at, func(b schemas.Millis) bool { return b <= t })
	slices.Sort(at)
	return at
}

func (u *naiveUser) fire(clock schemas.Millis) {
	for _, b := range u.boundaries(u.seen) {
		if b <= clock && len(u.chain) > 0 {
			u.look(b, fmt.Sprintf("timer %d", b))
		}
	}
}

func (u *naiveUser) look(t schemas.Millis, cause string) {
	u.seen = t
	from, to := "", u.segment(t)
	if n := len(u.chain); n > 0 {
		from = u.chain[n-1].To
	}
	if from == to {
		return
	}
	expected := "nothing"
	for _, b := range u.boundaries(t) {
		if u.segment(b) != to {
			expected = fmt.Sprintf("%s %d", u.segment(b), b)
			break
		}
	}
	u.chain = append(u.chain, chainLink{
		Seq: uint32(len(u.chain)) + 1, From: from, To: to, At: t, Cause: cause, Facts: u.facts, Expected: expected,
	})
}
