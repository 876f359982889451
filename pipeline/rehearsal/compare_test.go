package rehearsal

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// begin is 2026-01-01T00:00:00Z.
const begin = schemas.Millis(1_767_225_600_000)

// shopRecords is a year of some users, in partitions, in the order of time: repeated
// events, late ones and refused ones too.
func shopRecords(seed uint64, n int) (out []played) {
	rng := rand.New(rand.NewPCG(seed, 7))
	next := map[int32]int64{}
	at := begin
	for i := range n {
		at += schemas.Millis(rng.Int64N(int64(2 * 365 * schemas.Day / schemas.Millis(n))))
		user := rng.IntN(60)
		p := int32(user % 3)
		kinds := []string{"view", "view", "add_to_cart", "purchase", "refund"}
		id, late := i, schemas.Millis(0)
		if rng.IntN(20) == 0 {
			id = max(0, i-1)
		}
		if rng.IntN(10) == 0 {
			late = schemas.Millis(rng.Int64N(int64(60 * schemas.Day)))
		}
		value := fmt.Sprintf(`{"event_id":"e%d","type":%q,"user_id":"u%d","time":%d,"order_id":"o%d","revenue":%d.50,"product_id":"p%d"}`,
			id, kinds[rng.IntN(len(kinds))], user, at-late, id, rng.IntN(300), rng.IntN(9))
		if rng.IntN(40) == 0 {
			value = "{"
		}
		out = append(out, played{p, &worker.Record{Offset: next[p], Time: at, Key: fmt.Appendf(nil, "u%d", user), Value: []byte(value)}})
		next[p] += 1 + rng.Int64N(2)
	}
	return out
}

type played struct {
	partition int32
	record    *worker.Record
}

func mustCompile(t *testing.T, texts ...string) *segment.Program {
	t.Helper()
	var files []segment.File
	for i, text := range texts {
		files = append(files, segment.File{Name: fmt.Sprintf("set%d.yaml", i), Text: []byte(text)})
	}
	p, err := segment.Compile(segment.Options{Exponent: 2}, files...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func playSide(t *testing.T, rules *segment.Program, records []played, to schemas.Millis) *Side {
	t.Helper()
	s, err := NewSide(SideConfig{Rules: rules, Contract: contract(), Dedup: DefaultDedup()})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		s.Play(r.partition, r.record)
	}
	s.Advance(to)
	return s
}

const (
	tiers  = "set: tiers\nsegments:\n  - {name: gold, when: revenue() >= 500}\n  - {name: lead, when: orders() == 0}\n  - {name: rest, otherwise: true}\n"
	tiers2 = "set: tiers\nsegments:\n  - {name: gold, when: revenue() >= 400}\n  - {name: sleeping, when: since(last()) >= days(20)}\n  - {name: rest, otherwise: true}\n"
	scored = "set: scored\nsegments:\n  - {name: best, when: 'score(revenue(), 4) == 4'}\n  - {name: worst, when: 'score(revenue(), 4) == 1'}\n  - {name: rest, otherwise: true}\n"
	lone   = "set: lone\nsegments:\n  - {name: busy, when: 'count(\"any\", days(30)) >= 3'}\n  - {name: rest, otherwise: true}\n"
)

// What a comparison counts is what counting the dumb way comes to: by asking for every
// user, and by looking through everything that was said.
func TestComparisonCountsRight(t *testing.T) {
	for seed := range uint64(6) {
		records := shopRecords(seed, 1500)
		end := records[len(records)-1].record.Time + 10*schemas.Day
		since := end - 90*schemas.Day
		programs := [2]*segment.Program{mustCompile(t, tiers, scored), mustCompile(t, lone, tiers2, scored)}
		before, after := playSide(t, programs[0], records, end), playSide(t, programs[1], records, end)
		c := Compare(before, after, since, 2)

		users, moved, money := 0, 0, int64(0)
		moves := map[[3]string]int{}
		for p := range int32(3) {
			for u := range 60 {
				id := fmt.Sprintf("u%d", u)
				a, ok := before.stages[p].Worker().Explain(id)
				if !ok {
					continue
				}
				users++
				b, _ := after.stages[p].Worker().Explain(id)
				moves[[3]string{"all", a.Sets[0].Segment, b.Sets[1].Segment}]++
				if a.Sets[0].Segment != b.Sets[1].Segment || a.Sets[1].Segment != b.Sets[2].Segment {
					moved++
					money += a.Profile.Revenue
				}
			}
		}
		if c.Users != users || c.Moved != moved || c.Money != money || users < 50 || moved == 0 {
			t.Fatalf("seed %d: got %d users, %d moved with %d, want %d, %d, %d", seed, c.Users, c.Moved, c.Money, users, moved, money)
		}
		for _, s := range c.Sets {
			if s.There != map[string][2]bool{"tiers": {true, true}, "scored": {true, true}, "lone": {false, true}}[s.Set] {
				t.Errorf("seed %d: set %s is there: %v", seed, s.Set, s.There)
			}
			if s.Set == "lone" && len(s.Moves) > 0 || s.Set == "scored" && s.Moved > 0 {
				t.Errorf("seed %d: set %s: got moves %+v", seed, s.Set, s.Moves)
			}
			for _, m := range s.Moves {
				if s.Set == "tiers" && m.Users != moves[[3]string{"all", m.From, m.To}] {
					t.Errorf("seed %d: %s to %s: got %d, want %d", seed, m.From, m.To, m.Users, moves[[3]string{"all", m.From, m.To}])
				}
				if len(m.Sample) != min(2, m.Users) || m.Sample[0].Because == "" || m.Sample[0].Was == "" {
					t.Errorf("seed %d: %s to %s: got the sample %+v", seed, m.From, m.To, m.Sample)
				}
			}
		}
		checkFlows(t, seed, c, programs, records, end)
		if same := Compare(before, playSide(t, programs[0], records, end), since, 2); same.Moved != 0 || same.Triggers[0] != same.Triggers[1] {
			t.Errorf("seed %d: the same rules: got %d who move", seed, same.Moved)
		}
	}
}

// checkFlows counts what was said by playing again and listening to all of it.
func checkFlows(t *testing.T, seed uint64, c *Comparison, programs [2]*segment.Program, records []played, end schemas.Millis) {
	t.Helper()
	for side, rules := range programs {
		s, err := NewSide(SideConfig{Rules: rules, Contract: contract(), Dedup: DefaultDedup()})
		if err != nil {
			t.Fatal(err)
		}
		type move struct{ set, segment string }
		in, out, triggers := map[move]int{}, map[move]int{}, 0
		hear := s.hear
		listen := func(it *worker.Item) {
			hear(it)
			if tr := it.Transition; tr != nil && tr.At >= c.Since {
				names := rules.Names()[tr.Set]
				in[move{names.Name, names.Segments[tr.To]}]++
				if tr.From != schemas.NoSegment {
					out[move{names.Name, names.Segments[tr.From]}]++
				}
				if tr.Muted == schemas.NotMuted {
					triggers++
				}
			}
		}
		for _, r := range records {
			s.Play(r.partition, r.record)
			s.stages[r.partition].cfg.Say = listen
		}
		s.Advance(end)
		if c.Triggers[side].Total != triggers || c.Triggers[side].Peak == 0 {
			t.Errorf("seed %d, side %d: got %+v, want %d triggers", seed, side, c.Triggers[side], triggers)
		}
		for _, set := range c.Sets {
			for _, seg := range set.Segments {
				m := move{set.Set, seg.Segment}
				days := [2]int{}
				for _, d := range seg.Days {
					days[0] += d.Entries[side]
					days[1] += d.Exits[side]
				}
				if seg.Entries[side] != in[m] || seg.Exits[side] != out[m] || days != [2]int{in[m], out[m]} {
					t.Errorf("seed %d, side %d, %v: got %d in and %d out, by days %v, want %d and %d", seed, side, m, seg.Entries[side], seg.Exits[side], days, in[m], out[m])
				}
			}
		}
	}
}

// A history that begins with a snapshot ends where the whole one does.
func TestComparisonFromSnapshots(t *testing.T) {
	records := shopRecords(3, 1200)
	end := records[len(records)-1].record.Time
	rules := mustCompile(t, tiers, lone)
	whole := playSide(t, rules, records, end)
	half := playSide(t, rules, records[:700], records[699].record.Time)
	again, err := NewSide(SideConfig{Rules: rules, Contract: contract(), Dedup: DefaultDedup()})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range half.partitions() {
		stage, err := again.Read(p, snapshotOf(t, half.stages[p].Worker()))
		if err != nil {
			t.Fatal(err)
		}
		again.Begin(p, stage)
	}
	for _, r := range records {
		if r.record.Offset >= again.From(r.partition) {
			again.Play(r.partition, r.record)
		}
	}
	again.Advance(end)
	c := Compare(whole, again, begin, 3)
	if c.Moved != 0 || c.Users == 0 {
		t.Errorf("got %d of %d users elsewhere", c.Moved, c.Users)
	}
	other, err := NewSide(SideConfig{Rules: mustCompile(t, lone, "set: more\nsegments:\n  - {name: a, when: 'sessions(days(3)) > 1'}\n  - {name: b, otherwise: true}\n"), Contract: contract(), Dedup: DefaultDedup()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Read(0, snapshotOf(t, half.stages[0].Worker())); !slices.Contains([]error{ErrUnkept}, err) {
		t.Errorf("a snapshot without what rules ask for: got %v", err)
	}
}

// snapshotOf gives a worker's snapshot.
func snapshotOf(t *testing.T, w *worker.Worker) func(read func(io.Reader) error) error {
	t.Helper()
	var b bytes.Buffer
	w.Snapshot(begin)
	for {
		if done, err := w.Slice(&b, 1<<20); err != nil {
			t.Fatal(err)
		} else if done {
			return func(read func(io.Reader) error) error { return read(&b) }
		}
	}
}
