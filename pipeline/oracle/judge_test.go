package oracle

import (
	"cmp"
	"fmt"
	"math/rand"
	"slices"
	"testing"
)

func options(ticks bool) Options {
	return Options{Currency: "EUR", Rates: map[string]string{"USD": "0.915"}, InputTopic: inputTopic, WallTicks: ticks}
}

func TestPerfectOutputIsClean(t *testing.T) {
	for _, ticks := range []bool{false, true} {
		for seed := range int64(25) {
			opt := options(ticks)
			d, marks := perform(shop(seed, 600, 25), opt, seed, "")
			opt.Marks = marks
			r := d.Judge(opt)
			if err := r.Err(); err != nil {
				t.Fatalf("ticks %v, seed %d: %v", ticks, seed, err)
			}
			if r.Applied+r.Duplicates+r.DeadLetters != len(d.Input) || r.Expected != r.Triggers+r.Muted {
				t.Fatalf("ticks %v, seed %d: counts do not add up: %+v", ticks, seed, r)
			}
			opt.Marks = nil
			if err := d.Judge(opt).Err(); err != nil {
				t.Fatalf("ticks %v, seed %d, without marks: %v", ticks, seed, err)
			}
		}
	}
}

// Few users and rare outputs leave the clocks wide open.
func TestSparseOutputIsClean(t *testing.T) {
	for seed := range int64(600) {
		opt := options(true)
		d, marks := perform(shop(seed, 30, 1+int(seed%4)), opt, seed, "")
		opt.Marks = marks
		if err := d.Judge(opt).Err(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// publish says all of an input in one commit a partition, in log time, and
// mutes nothing.
func publish(input []Record, opt Options) *Dump {
	input = slices.Clone(input)
	for i := range input {
		input[i].Headers = slices.DeleteFunc(slices.Clone(input[i].Headers), func(h Header) bool { return h.Key == "lane" })
	}
	d := &Dump{Input: input}
	for p, e := range Generate(input, opt) {
		next, n := int64(0), int64(0)
		for _, r := range input {
			if r.Partition == p {
				next = max(next, r.Offset+1)
			}
		}
		mk := mark{next: next, clock: e.Clock, fired: e.Clock}
		for _, t := range e.Transitions {
			n++
			r := encode(t, n, mk, "", opt.Currency)
			r.Offset = n
			d.Triggers = append(d.Triggers, r)
		}
		for i := range input {
			if reason := e.DeadLetters[input[i].Offset]; reason != "" && input[i].Partition == p {
				n++
				r := encodeLetter(&input[i], reason, n, mk)
				r.Offset = n
				d.DeadLetters = append(d.DeadLetters, r)
			}
		}
	}
	return d
}

// What Generate says is what Judge wants, and what the test's machine says.
func TestGenerateIsWhatJudgeWants(t *testing.T) {
	for seed := range int64(20) {
		opt := options(false)
		opt.DedupBudget = 1 + seed
		input := shop(seed, 500, 15)
		if err := publish(input, opt).Judge(opt).Err(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		d, _ := perform(input, opt, seed, "")
		n := 0
		for _, e := range Generate(input, opt) {
			n += len(e.Transitions)
			sorted := slices.IsSortedFunc(e.Transitions, func(a, b Transition) int {
				return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.User, b.User), cmp.Compare(a.Seq, b.Seq))
			})
			if !sorted {
				t.Errorf("seed %d: transitions are not in order", seed)
			}
		}
		if n != len(d.Triggers)+len(d.Muted) {
			t.Errorf("seed %d: %d transitions, the machine says %d", seed, n, len(d.Triggers)+len(d.Muted))
		}
	}
}

// The order in which records and outputs are handed in doesn't matter.
func TestOrderOfArgumentsIsFree(t *testing.T) {
	opt := options(true)
	d, marks := perform(shop(3, 300, 10), opt, 3, "")
	opt.Marks = marks
	rnd := rand.New(rand.NewSource(3))
	for _, list := range [][]Record{d.Input, d.Triggers, d.Muted, d.DeadLetters} {
		rnd.Shuffle(len(list), func(i, k int) { list[i], list[k] = list[k], list[i] })
	}
	if err := d.Judge(opt).Err(); err != nil {
		t.Error(err)
	}
}

func TestFinalMark(t *testing.T) {
	for _, ticks := range []bool{false, true} {
		opt := options(ticks)
		d, marks := perform(shop(5, 200, 10), opt, 5, "")
		for _, tc := range []struct {
			name   string
			change func(m *Mark)
			part   bool
			clean  bool
		}{
			{"as it is", func(*Mark) {}, false, true},
			{"another n", func(m *Mark) { m.N++ }, false, false},
			{"next too low", func(m *Mark) { m.Next -= 3 }, false, false},
			{"next too low for the outputs", func(m *Mark) { m.Next = 1 }, true, false},
			{"clock too low", func(m *Mark) { m.Clock, m.Fired = t0, t0 }, true, false},
			{"fired after the clock", func(m *Mark) { m.Fired = m.Clock + 1 }, true, false},
		} {
			opt.Marks, opt.Partial = map[int32]Mark{1: marks[1]}, tc.part
			m := marks[0]
			tc.change(&m)
			opt.Marks[0] = m
			if err := d.Judge(opt).Err(); (err == nil) != tc.clean {
				t.Errorf("ticks %v: %s: got %v, want clean %v", ticks, tc.name, err, tc.clean)
			}
		}
	}
}

// A run cut short at any commit is clean so far.
func TestPartialRuns(t *testing.T) {
	for seed := range int64(10) {
		for _, ticks := range []bool{false, true} {
			opt := options(ticks)
			d, _ := perform(shop(seed, 200, 10), opt, seed, "")
			all := slices.Concat(d.Triggers, d.Muted, d.DeadLetters)
			cut := map[int32]Mark{}
			for _, r := range all {
				m := markOf(r)
				if seen := cut[r.Partition]; m.N <= 12 && m.N > seen.N {
					cut[r.Partition] = m
				}
			}
			// The whole commit that the cut falls in.
			for _, r := range all {
				m, c := markOf(r), cut[r.Partition]
				if m.Next == c.Next && m.Clock == c.Clock && m.Fired == c.Fired && m.N > c.N {
					cut[r.Partition] = m
				}
			}
			after := func(r Record) bool { return markOf(r).N > cut[r.Partition].N }
			d.Triggers, d.Muted = slices.DeleteFunc(d.Triggers, after), slices.DeleteFunc(d.Muted, after)
			d.DeadLetters = slices.DeleteFunc(d.DeadLetters, after)
			opt.Marks, opt.Partial = cut, true
			r := d.Judge(opt)
			if err := r.Err(); err != nil {
				t.Fatalf("ticks %v, seed %d: %v", ticks, seed, err)
			}
			if r.Unapplied == 0 || r.Applied+r.Duplicates+r.DeadLetters+r.Unapplied != len(d.Input) {
				t.Errorf("ticks %v, seed %d: counts do not add up: %+v", ticks, seed, r)
			}
			opt.Partial = false
			if d.Judge(opt).LostCount == 0 {
				t.Errorf("ticks %v, seed %d: records not applied are not found", ticks, seed)
			}
		}
	}
}

func markOf(r Record) Mark {
	number := func(key string) (n int64) {
		text, _ := header(r.Headers, key)
		_, err := fmt.Sscan(text, &n)
		if err != nil {
			panic(err)
		}
		return n
	}
	return Mark{Next: number("next"), Clock: number("clock"), Fired: number("fired"), N: numberOf(r)}
}

func TestErrCountsAndShows(t *testing.T) {
	opt := options(false)
	opt.FindingsMax = 2
	input := shop(1, 200, 10)
	r := Judge(input, nil, nil, nil, opt)
	if r.LostCount != r.Expected+r.DeadLetters || len(r.Lost) != 2 {
		t.Errorf("got %d lost of %d transitions and %d dead letters, %d of them in words; want all, and 2", r.LostCount, r.Expected, r.DeadLetters, len(r.Lost))
	}
	users := 0
	for _, n := range r.Segments {
		users += n
	}
	if users != r.Users || len(r.Segments) != 6 {
		t.Errorf("got segments %v of %d users", r.Segments, r.Users)
	}
	reasons := 0
	for _, n := range r.Reasons {
		reasons += n
	}
	if reasons != r.DeadLetters {
		t.Errorf("got reasons %v of %d dead letters", r.Reasons, r.DeadLetters)
	}
	t.Log(r.Err())
}

func BenchmarkJudge(b *testing.B) {
	for _, n := range []int{20_000, 200_000} {
		b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
			input := shop(1, n, n/5)
			d := publish(input, options(false))
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Judge(options(false)).Err(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(len(d.Triggers)), "transitions")
		})
	}
}

// Of a set that the oracle does not know, it checks that what was said is a chain and
// said once a cause; lifecycle it recomputes wherever it stands among the sets.
func TestOtherSets(t *testing.T) {
	opt := options(false)
	opt.Sets = []string{"vip", setName}
	input := shop(3, 300, 20)
	for i := range input {
		input[i].Headers = nil
	}
	// perform says every chain of lifecycle, and again as one of each other set.
	perform := func(sets []string, change func(all []Transition) []Transition) *Dump {
		d := &Dump{Input: input}
		for p, e := range Generate(input, opt) {
			next, n := int64(0), int64(0)
			for _, r := range input {
				if r.Partition == p {
					next = max(next, r.Offset+1)
				}
			}
			mk := mark{next: next, clock: e.Clock, fired: e.Clock}
			var all []Transition
			for _, tr := range e.Transitions {
				for _, set := range sets {
					tr.Set = set
					all = append(all, tr)
				}
			}
			for _, tr := range change(all) {
				n++
				r := encode(tr, n, mk, "", opt.Currency)
				r.Offset = n
				d.Triggers = append(d.Triggers, r)
			}
			for i := range input {
				if reason := e.DeadLetters[input[i].Offset]; reason != "" && input[i].Partition == p {
					n++
					r := encodeLetter(&input[i], reason, n, mk)
					r.Offset = n
					d.DeadLetters = append(d.DeadLetters, r)
				}
			}
		}
		return d
	}
	same := func(all []Transition) []Transition { return all }
	first := func(all []Transition, set string) int {
		return slices.IndexFunc(all, func(tr Transition) bool { return tr.Set == set })
	}
	r := perform(opt.Sets, same).Judge(opt)
	if err := r.Err(); err != nil || r.Others != r.Expected || r.Expected == 0 {
		t.Fatalf("got %v, %+v", err, r)
	}
	for name, change := range map[string]func([]Transition) []Transition{
		"a doubled one":                    func(all []Transition) []Transition { return append(all, all[first(all, "vip")]) },
		"a missing one":                    func(all []Transition) []Transition { i := first(all, "vip"); return slices.Delete(all, i, i+1) },
		"a set that the run does not have": func(all []Transition) []Transition { all[first(all, "vip")].Set = "pets"; return all },
		"one missing of lifecycle":         func(all []Transition) []Transition { i := first(all, setName); return slices.Delete(all, i, i+1) },
	} {
		if perform(opt.Sets, change).Judge(opt).Err() == nil {
			t.Errorf("%s: not found", name)
		}
	}
	opt.Sets = []string{"vip"}
	d := perform(opt.Sets, same)
	r = d.Judge(opt)
	if err := r.Err(); err != nil || r.Expected != 0 || r.Others != len(d.Triggers) || r.Users == 0 {
		t.Errorf("without lifecycle: got %v, %+v", err, r)
	}
}
