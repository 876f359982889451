package worker

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// stage is one thing that a worker does, measured alone. begin makes it ready in a shop
// and returns what does it, batch times a call.
type stage struct {
	name  string
	unit  string // of what
	free  bool   // of allocations
	batch int    // 0: one a user
	begin func(s *shop) func()
}

// stages are all that an event may meet, and what is done with all users at once.
func stages() []stage {
	return []stage{
		{"decode", "event", true, 1000, (*shop).decode},
		{"dedup", "event", true, 1000, (*shop).remember},
		{"find", "user", true, 1000, (*shop).find},
		{"fold", "event", true, 1000, (*shop).folded},
		{"evaluate", "user", true, 1000, (*shop).evaluated},
		{"apply", "event", true, 1000, (*shop).apply},
		{"encode", "transition", true, 1000, (*shop).encode},
		{"timers", "timer", true, 1000, (*shop).timers},
		{"snapshot", "user", false, 0, (*shop).snapshot},
		{"load", "user", false, 0, (*shop).load},
		{"silence", "transition", false, 0, (*shop).silence},
	}
}

// BenchmarkStage is what each stage costs, by how many users the worker has (for dedup: ids
// in the window). cpu-ns is user and system time of all threads, the collector's too.
func BenchmarkStage(b *testing.B) {
	shops := map[int]*shop{}
	for _, st := range stages() {
		for _, size := range []struct {
			name  string
			users int
		}{{"1K", 1_000}, {"1M", 1_000_000}, {"10M", 10_000_000}} {
			b.Run(fmt.Sprintf("%s/users=%s", st.name, size.name), func(b *testing.B) {
				enough(b, size.users)
				if shops[size.users] == nil {
					shops[size.users] = newShop(b, size.users, nil)
				}
				shops[size.users].measure(b, st)
			})
		}
	}
}

// Of the stages that are said to, none allocates.
func TestStagesAllocateNothing(t *testing.T) {
	s := newShop(t, 1000, nil)
	for _, st := range stages() {
		if !st.free {
			continue
		}
		if n := testing.AllocsPerRun(20, st.begin(s)); n != 0 {
			t.Errorf("%s: got %v allocations for %d of a kind, want 0", st.name, n, st.batch)
		}
	}
}

// BenchmarkUsers is what an event of known users costs, by how many there are, and the
// memory that one takes.
func BenchmarkUsers(b *testing.B) {
	for _, size := range []struct {
		name  string
		users int
	}{{"10K", 10_000}, {"100K", 100_000}, {"1M", 1_000_000}, {"10M", 10_000_000}, {"50M", 50_000_000}} {
		b.Run("users="+size.name, func(b *testing.B) {
			enough(b, size.users)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			s := newShop(b, size.users, nil)
			runtime.GC()
			runtime.ReadMemStats(&after)
			s.measure(b, stage{"apply", "event", true, 1000, (*shop).apply})
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(size.users), "B/user")
		})
	}
}

// enough skips what this machine has not the memory for: users cost more while their
// index grows.
func enough(b *testing.B, users int) {
	const perUser = 300
	text, _ := os.ReadFile("/proc/meminfo")
	var kB int
	_, free, _ := strings.Cut(string(text), "MemAvailable:")
	if _, err := fmt.Sscan(free, &kB); err == nil && kB < users*perUser>>10 {
		b.Skipf("%d users need %d MB, and %d MB are free", users, users*perUser>>20, kB>>10)
	}
}

// shop is a worker all of whose shoppers have come once.
type shop struct {
	*Worker
	tb      testing.TB
	users   int
	traffic *traffic
	rng     *rand.Rand
	out     Output
	bytes   []byte  // scratch
	aside   float64 // CPU seconds that are none of the stage's
}

func newShop(tb testing.TB, users int, rules *segment.Program) *shop {
	cfg := config(tb)
	cfg.Rules = cmp.Or(rules, cfg.Rules)
	cfg.DedupBudget = 1 << 16 // so that what a user costs is seen
	s := &shop{Worker: New(7, cfg), tb: tb, users: users, traffic: newTraffic(users, 1000), rng: rand.New(rand.NewPCG(2, 2))}
	s.Begin(0, 0)
	s.traffic.fill(s.Worker, &s.out)
	return s
}

// measure runs a stage as long as b says.
func (s *shop) measure(b *testing.B, st stage) {
	s.tb = b
	do, batch := st.begin(s), cmp.Or(st.batch, s.users)
	if st.free {
		if n := testing.AllocsPerRun(1, do); n != 0 {
			b.Errorf("got %v allocations for %d of a kind, want 0", n, batch)
		}
	}
	runtime.GC()
	b.ReportAllocs()
	s.aside = 0
	began := cpuSeconds()
	for b.Loop() {
		do()
	}
	each := (cpuSeconds() - began - s.aside) * 1e9 / float64(b.N*batch)
	b.ReportMetric(each, "cpu-ns/"+st.unit)
	b.ReportMetric(1e9/each, st.unit+"s/cpu-s")
}

// cpuSeconds is the CPU seconds that this process has taken.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func (s *shop) anybody() int32 { return int32(s.rng.IntN(s.users)) }

func (s *shop) decode() func() {
	records, ev := s.traffic.batch(s.traffic.anybody), schemas.Event{}
	return func() {
		for i := range records {
			if err := s.cfg.Decoder.Decode(records[i].Key, records[i].Value, &ev); err != nil {
				s.tb.Fatal(err)
			}
		}
	}
}

// remember has a window of its own, of as many ids as there are users: each new one
// drives out the oldest.
func (s *shop) remember() func() {
	d := &dedup{window: schemas.Hour, budget: s.users}
	offset := int64(0)
	add := func() {
		offset++
		if d.add(mixed(uint64(offset)), trafficAt, offset) {
			s.tb.Fatal("a new id was known")
		}
	}
	for range 2 * s.users {
		add()
	}
	return func() {
		for range 1000 {
			add()
		}
	}
}

func (s *shop) find() func() {
	id := []byte("u-00000000")
	return func() {
		for range 1000 {
			number(id[2:], uint64(s.anybody()))
			if s.table.Find(id) < 0 {
				s.tb.Fatalf("%s is lost", id)
			}
		}
	}
}

func (s *shop) folded() func() {
	ev := schemas.Event{At: trafficAt, Kind: schemas.AddToCart}
	return func() {
		for range 1000 {
			s.fold(s.anybody(), &ev, trafficAt)
		}
	}
}

func (s *shop) evaluated() func() {
	at, cause := Conditions{Wall: trafficAt}, schemas.Cause{Kind: schemas.ByEvent}
	return func() {
		s.out.Items = s.out.Items[:0]
		for range 1000 {
			s.evaluate(s.anybody(), s.mark.Clock, segment.Everything(), cause, schemas.NotMuted, at, &s.out)
		}
		if len(s.out.Items) > 0 {
			s.tb.Fatalf("%d transitions, want none", len(s.out.Items))
		}
	}
}

// apply is all that happens on an event; the events are made meanwhile, for some 40 ns
// each.
func (s *shop) apply() func() {
	do := func() {
		s.Apply(s.traffic.batch(s.traffic.anybody), Conditions{Wall: s.mark.Clock}, &s.out)
	}
	for range 2 * s.cfg.DedupBudget / 1000 { // the window is full then
		do()
	}
	return do
}

// encode writes a transition as its topic has it.
func (s *shop) encode() func() {
	names := s.cfg.Rules.Names()
	ctx := schemas.TransitionContext{ID: "footfall/7/1234567", Topic: "events", Sets: names, Currency: "EUR"}
	tr := schemas.Transition{
		User: string(s.table.ID(s.anybody())), From: 5, To: 2, Seq: 2, At: trafficAt,
		Cause:    schemas.Cause{Kind: schemas.ByEvent, Pos: schemas.Position{Partition: 7, Offset: 120_331}, Event: schemas.Purchase, ID: "01JGZ4T3Q8W1K9M2N5P7R0S3T6"},
		Facts:    schemas.Facts{First: base, Last: trafficAt, FirstPurchase: base, LastPurchase: trafficAt, Orders: 3, Revenue: 12_345},
		Segments: []uint16{2}, Expected: schemas.Expected{To: 4, At: trafficAt + 30*schemas.Day}, Rules: s.cfg.Rules.Hash(),
	}
	s.bytes = tr.AppendJSON(s.bytes[:0], &ctx)
	return func() {
		for range 1000 {
			s.bytes = tr.AppendJSON(s.bytes[:0], &ctx)
		}
	}
}

// timers sets a timer of anybody to the next millisecond, and lets all of them fire: each
// finds only that its user has been there since, as most of an active shop do.
func (s *shop) timers() func() {
	do := func() {
		s.Apply(nil, Conditions{Wall: s.mark.Clock, Tick: s.mark.Clock + 1}, &s.out)
		for i := range 1000 {
			user := s.anybody()
			s.wheel.remove(user)
			s.wheel.insert(user, s.mark.Clock+1+schemas.Millis(i))
		}
		to := s.mark.Clock + 1000
		s.Apply(nil, Conditions{Wall: to, Tick: to}, &s.out)
		if len(s.out.Items) > 0 || s.mark.Clock < to {
			s.tb.Fatalf("%d transitions and %d ms left, want none", len(s.out.Items), to-s.mark.Clock)
		}
	}
	do()
	return do
}

func (s *shop) snapshot() func() {
	return func() {
		s.Snapshot(base)
		for done := false; !done; {
			var err error
			if done, err = s.Slice(&counter{}, 256<<10); err != nil {
				s.tb.Fatal(err)
			}
		}
	}
}

func (s *shop) load() func() {
	var whole bytes.Buffer
	s.Snapshot(base)
	for done := false; !done; {
		done, _ = s.Slice(&whole, 1<<20)
	}
	return func() {
		if _, err := Read(bytes.NewReader(whole.Bytes()), 7, s.cfg); err != nil {
			s.tb.Fatal(err)
		}
	}
}

// silence lets everybody come, which is not measured, and then the timer of everybody fire,
// each of which says a transition. It is done whole: the wheel moves a crowd that is due at
// one time in a few steps, which each of them has its share of.
func (s *shop) silence() func() {
	return func() {
		s.comeAgain()
		to := s.mark.Clock + 90*schemas.Day
		for said := 0; said < s.users; said += len(s.out.Items) {
			s.Apply(nil, Conditions{Wall: to, Tick: to}, &s.out)
		}
	}
}

// comeAgain has everybody come once more, and what is due by now fire.
func (s *shop) comeAgain() {
	s.tb.(*testing.B).StopTimer()
	defer s.tb.(*testing.B).StartTimer()
	began := cpuSeconds()
	defer func() { s.aside += cpuSeconds() - began }()
	for s.Pending() {
		s.Apply(nil, Conditions{Wall: s.mark.Clock}, &s.out)
	}
	ev := schemas.Event{At: s.mark.Clock, Kind: schemas.AddToCart}
	for user := range int32(s.users) {
		s.out.Items = s.out.Items[:0]
		s.fold(user, &ev, s.mark.Clock)
		s.wheel.remove(user)
		s.evaluate(user, s.mark.Clock, segment.Everything(), schemas.Cause{Kind: schemas.ByEvent}, schemas.NotMuted, Conditions{Wall: s.mark.Clock}, &s.out)
	}
}

// mixed is splitmix64 (Steele, Lea, Flood, 2014): as event ids hash, without a pattern.
func mixed(x uint64) uint64 {
	x *= 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
