package archive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"footfall/schemas"
)

// killed is thrown where the process is killed.
type killed struct{}

var errEnough = errors.New("the log is read, and the audit found nothing twice")

// world is a log, a table that lies, and the faults of both.
type world struct {
	*rand.Rand
	now schemas.Millis

	// The log.
	records   map[Partition][]Record
	start     map[Partition]int64
	committed map[Partition]Commit
	owned     map[Partition]int64 // position of the member; absent: not its own
	revoked   []Partition         // go with the next poll
	calm      int                 // polls since the log was read
	clean     int                 // rounds of the audit in a row that found nothing to mend

	// The table.
	rows   map[Partition]map[Row]int
	recent []insert
	late   []insert
	tokens map[string]bool
	epoch  int

	changed map[Partition]map[Row]uint64 // what was done to a row's content
	dead    map[Partition]map[int64]bool // offsets known to have been refused

	honest  bool // the table keeps what it acknowledged and does nothing late; no partition is lost
	forgets bool // the log is deleted from its beginning
	blind   bool // the audit sees what it wants to see
	faults  bool // whether anything goes wrong
	kills   int  // how many kills of either side are left
	lost    int  // rows that were acknowledged and are gone

	archive *Archive // that lives, or lived last
}

type insert map[Partition][]Row

func newWorld(seed uint64) *world {
	w := &world{
		Rand: rand.New(rand.NewPCG(seed, 7)), now: 1_000_000,
		records: map[Partition][]Record{}, start: map[Partition]int64{}, committed: map[Partition]Commit{},
		rows: map[Partition]map[Row]int{}, tokens: map[string]bool{}, faults: true,
	}
	w.kills, w.forgets = 1+w.IntN(12), w.IntN(5) == 0
	for i := range 1 + w.IntN(5) {
		p := Partition{[]string{"in", "triggers"}[i%2], int32(i)}
		offset := int64(w.IntN(3) * 1000)
		w.start[p] = offset
		for range w.IntN(400) {
			r := Record{Offset: offset, Time: schemas.Millis(w.IntN(1e6)), Key: []byte("k"), Value: fmt.Appendf(nil, "row %d", w.IntN(50))}
			switch w.IntN(10) {
			case 0:
				r.Control, r.Value = true, nil
			case 1:
				r.Value = []byte("refused")
			}
			w.records[p] = append(w.records[p], r)
			offset += 1 + int64(w.IntN(3)/2*w.IntN(5)) // gaps: aborted records
		}
		w.rows[p] = map[Row]int{}
	}
	return w
}

func (w *world) partitions() []Partition {
	return slices.SortedFunc(maps.Keys(w.start), func(a, b Partition) int { return int(a.Number - b.Number) })
}

func (w *world) end(p Partition) int64 {
	if rs := w.records[p]; len(rs) > 0 {
		return rs[len(rs)-1].Offset + 1
	}
	return w.start[p]
}

// chance says whether something with a probability of one in n goes wrong.
func (w *world) chance(n int) bool { return w.faults && w.IntN(n) == 0 }

// kill may kill the process.
func (w *world) kill() {
	if w.kills > 0 && w.chance(60) {
		w.kills--
		panic(killed{})
	}
}

// crash may kill the server: each of the last inserts may be gone, in part or
// whole, their tokens are remembered all the same.
func (w *world) crash() {
	if w.honest || w.kills == 0 || !w.chance(40) {
		return
	}
	w.kills--
	if w.IntN(3) > 0 { // or behind something that does not tell
		w.epoch++
	}
	for _, in := range w.recent {
		if w.IntN(3) == 0 {
			for p, rows := range in {
				for _, r := range rows[:w.IntN(len(rows)+1)] {
					if w.rows[p][r] > 0 {
						w.rows[p][r]--
						w.lost++
					}
				}
			}
		}
	}
	w.recent = nil
}

func (w *world) apply(in insert, part int) {
	for p, rows := range in {
		for _, r := range rows[:min(part, len(rows))] {
			w.rows[p][r]++
		}
	}
	w.recent = append(w.recent, in)
	w.recent = w.recent[max(0, len(w.recent)-3):]
}

// Log.

func (w *world) Poll(_ context.Context, until schemas.Millis, into *Batch) error {
	*into = Batch{}
	w.kill()
	for _, p := range w.revoked {
		delete(w.owned, p)
	}
	w.revoked = nil
	for _, p := range w.partitions() {
		_, owned := w.owned[p]
		switch {
		case owned && w.chance(100):
			w.revoked = append(w.revoked, p)
			into.Revoked = append(into.Revoked, p)
			continue
		case owned && !w.honest && w.chance(100):
			delete(w.owned, p)
			into.Lost = append(into.Lost, p)
			owned = false
		case owned:
			continue
		}
		if !owned && (!w.faults || w.IntN(3) > 0) {
			c, ok := w.committed[p]
			into.Assigned = append(into.Assigned, Assignment{Partition: p, Committed: ok, Next: c.Next, Metadata: c.Metadata})
			w.owned[p] = w.start[p]
			if ok {
				w.owned[p] = c.Next
			}
		}
	}
	if w.forgets && w.chance(30) { // retention: what is archived is deleted
		p := w.partitions()[w.IntN(len(w.start))]
		if c, ok := w.committed[p]; ok {
			w.start[p] = max(w.start[p], c.Next-int64(w.IntN(200)))
		}
	}
	read := true
	for _, p := range w.partitions() {
		at, owned := w.owned[p]
		if !owned {
			read = false
			continue
		}
		if w.IntN(3) == 0 {
			continue
		}
		run := w.from(p, at, w.end(p))
		run = run[:min(len(run), w.IntN(60))]
		if len(run) > 0 {
			w.owned[p] = run[len(run)-1].Offset + 1
			into.Runs = append(into.Runs, Run{p, run, w.end(p)})
		}
	}
	for p := range w.start {
		read = read && (len(w.records[p]) == 0 || w.committed[p].Next >= w.end(p))
	}
	if len(into.Runs) == 0 {
		w.now = until
	} else {
		w.now += schemas.Millis(w.IntN(400))
	}
	if read {
		if w.faults || w.calm == 0 {
			w.faults, w.clean = false, 0 // calm: let the audit find the rest
		}
		if w.calm++; w.calm > 30 && w.clean >= 3 || w.calm > 200 {
			return errEnough
		}
	}
	return nil
}

func (w *world) from(p Partition, first, next int64) []Record {
	rs := w.records[p]
	i, _ := slices.BinarySearchFunc(rs, first, func(r Record, o int64) int { return int(r.Offset - o) })
	j, _ := slices.BinarySearchFunc(rs, next, func(r Record, o int64) int { return int(r.Offset - o) })
	return rs[i:j]
}

func (w *world) Commit(_ context.Context, marks []Commit) error {
	w.kill()
	if w.chance(20) {
		return errors.New("commit: no answer, not done")
	}
	for _, m := range marks {
		if _, owned := w.owned[m.Partition]; owned {
			w.committed[m.Partition] = m
		}
	}
	w.kill()
	if w.chance(20) {
		return errors.New("commit: no answer, done")
	}
	return nil
}

func (w *world) Bounds(_ context.Context, p Partition) (start, end int64, err error) {
	if w.chance(20) {
		return 0, 0, errors.New("bounds: no answer")
	}
	return w.start[p], w.end(p), nil
}

func (w *world) Read(_ context.Context, p Partition, first, next int64, each func([]Record) error) error {
	w.kill()
	if first < w.start[p] {
		return ErrGone
	}
	for rs := w.from(p, first, next); len(rs) > 0; {
		n := 1 + w.IntN(min(len(rs), 30))
		if w.chance(20) {
			return errors.New("read: no answer")
		}
		if err := each(rs[:n]); err != nil {
			return err
		}
		rs = rs[n:]
	}
	return nil
}

// Table.

func (w *world) Rows() Rows { return &simRows{w: w, insert: insert{}} }

func (w *world) Present(_ context.Context, s Span) (there []Row, err error) {
	w.kill()
	w.crash()
	if w.chance(15) {
		return nil, errors.New("read back: no answer")
	}
	for r, n := range w.rows[s.Partition] {
		if s.First <= r.Offset && r.Offset < s.Next {
			for range n {
				there = append(there, r)
			}
		}
	}
	return there, nil
}

func (w *world) Sums(_ context.Context, spans []Span) ([]Sum, error) {
	if w.chance(15) {
		return nil, errors.New("sums: no answer")
	}
	sums := make([]Sum, len(spans))
	ok := true
	for i, s := range spans {
		for r, n := range w.rows[s.Partition] {
			if n > 0 && s.First <= r.Offset && r.Offset < s.Next {
				sums[i].add(r.Hash)
			}
		}
		if w.blind {
			sums[i] = s.Sum
		}
		ok = ok && sums[i] == s.Sum
	}
	w.clean++
	if !ok {
		w.clean = 0
	}
	return sums, nil
}

func (w *world) After(_ context.Context, p Partition, first int64) (int64, error) {
	if w.chance(15) {
		return 0, errors.New("after: no answer")
	}
	for r, n := range w.rows[p] {
		if n > 0 {
			first = max(first, r.Offset+1)
		}
	}
	return first, nil
}

// Settle waits for what is under way: what comes late in spite of it is the doing of
// members that do not know they are out.
func (w *world) Settle(context.Context) error {
	if w.chance(15) {
		return errors.New("settle: no answer")
	}
	if w.IntN(2) == 0 {
		for _, in := range w.late {
			w.apply(in, 1<<30)
		}
		w.late = nil
	}
	return nil
}

func (w *world) Epoch(context.Context) (string, error) {
	w.crash()
	return fmt.Sprint(w.epoch), nil
}

// simRows are rows for a table that lies.
type simRows struct {
	w      *world
	insert insert
	p      Partition
	offset int64
	n      int
}

func (r *simRows) Decode(p Partition, rec *Record) bool {
	r.p, r.offset = p, rec.Offset
	return gives(rec)
}

func gives(r *Record) bool { return !r.Control && string(r.Value) != "refused" }

func (r *simRows) Add(hash uint64) {
	r.insert[r.p] = append(r.insert[r.p], Row{r.offset, hash})
	r.n++
}
func (r *simRows) Len() int  { return r.n }
func (r *simRows) Size() int { return 10 * r.n }
func (r *simRows) Reset()    { r.insert, r.n = insert{}, 0 }

func (r *simRows) Insert(_ context.Context, token string) error {
	w := r.w
	w.kill()
	if len(w.late) > 0 && w.IntN(2) == 0 { // what was refused comes now
		w.apply(w.late[0], 1<<30)
		w.late = w.late[1:]
	}
	if w.tokens[token] {
		return nil // dropped, and success reported
	}
	if w.chance(12) {
		w.tokens[token] = w.IntN(2) == 0 // remembered, rows lost
		return errors.New("insert: refused")
	}
	w.tokens[token] = true
	if w.chance(12) {
		w.apply(r.insert, w.IntN(20))
		return errors.New("insert: cut short")
	}
	if !w.honest && w.chance(12) {
		w.late = append(w.late, r.insert)
		return errors.New("insert: no answer, done later")
	}
	w.apply(r.insert, 1<<30)
	w.kill()
	if w.chance(12) {
		return errors.New("insert: no answer, done")
	}
	w.crash()
	return nil
}

// live runs archives, one after the other, until the log is read and the audit
// finds nothing.
func (w *world) live() (facts []string, err error) {
	ctx := context.Background()
	for {
		w.owned, w.revoked = map[Partition]int64{}, nil
		a := New(Config{
			Log: w, Table: w, RowsMax: 1 + w.IntN(150), SealRows: 1 + w.Int64N(100), AuditEvery: 2 * schemas.Second, AuditAgain: 20 * schemas.Second,
			Now: func() schemas.Millis { return w.now },
			Sleep: func(_ context.Context, d schemas.Millis) error {
				w.now += d
				return nil
			},
			Report: func(f Fact) { facts = append(facts, f.String()) },
		})
		w.archive = a
		err = func() (err error) {
			defer func() {
				if r := recover(); r != nil {
					if _, ok := r.(killed); !ok {
						panic(r)
					}
					facts = append(facts, "KILLED")
				}
			}()
			return a.Run(ctx, ctx)
		}()
		if err != nil {
			return facts, err
		}
	}
}

// differ says how the table differs from the log.
func (w *world) differ() (faults []string) {
	for _, p := range w.partitions() {
		want := map[Row]bool{}
		for i := range w.records[p] {
			if r := &w.records[p][i]; gives(r) {
				want[Row{r.Offset, Hash(r)}] = true
			}
		}
		for r := range want {
			if w.rows[p][r] == 0 && r.Offset >= w.start[p] {
				faults = append(faults, fmt.Sprintf("%v: offset %d is missing", p, r.Offset))
			}
		}
		for r, n := range w.rows[p] {
			if n > 0 && !want[r] {
				faults = append(faults, fmt.Sprintf("%v: offset %d is not in the log", p, r.Offset))
			}
		}
		if c := w.committed[p].Next; c != w.end(p) && len(w.records[p]) > 0 {
			faults = append(faults, fmt.Sprintf("%v: committed %d, the end is %d", p, c, w.end(p)))
		}
	}
	return faults
}

// seedsWanted is how many seeds to run: FOOTFALL_TEST_SEEDS, or 1,000.
func seedsWanted(t *testing.T) uint64 {
	text := os.Getenv("FOOTFALL_TEST_SEEDS")
	if text == "" {
		return 1000
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatalf("FOOTFALL_TEST_SEEDS: %v", err)
	}
	return n
}

// Whatever the table loses, refuses, does late or half, and whoever is killed when:
// in the end it has each row of the log, and no other.
func TestTableEqualsLog(t *testing.T) {
	seeds := seedsWanted(t)
	lost, mended := 0, 0
	for seed := range seeds {
		w := newWorld(seed)
		facts, err := w.live()
		faults := w.differ()
		if !errors.Is(err, errEnough) {
			faults = append(faults, fmt.Sprintf("Run: %v", err))
		}
		if len(faults) > 0 {
			t.Fatalf("seed %d (FOOTFALL_TEST_SEEDS=%d go test -run TestTableEqualsLog ./pipeline/archive):\n%s\nafter:\n%s",
				seed, seed+1, strings.Join(faults[:min(5, len(faults))], "\n"), strings.Join(facts[max(0, len(facts)-30):], "\n"))
		}
		lost += w.lost
		for _, f := range facts {
			if strings.Contains(f, "sent") {
				mended++
			}
		}
	}
	t.Logf("%d seeds; %d rows lost after they were acknowledged; %d times missing rows were sent", seeds, lost, mended)
	if lost == 0 || mended == 0 {
		t.Errorf("the faults did not happen: %d rows lost, %d mendings", lost, mended)
	}
}

// The control: without the audit, rows that were acknowledged and lost stay lost,
// and the harness sees it.
func TestTableDiffersWithoutAudit(t *testing.T) {
	const seeds = 300
	found := 0
	for seed := range uint64(seeds) {
		w := newWorld(seed)
		w.blind = true
		_, _ = w.live()
		if len(w.differ()) > 0 {
			found++
		}
	}
	t.Logf("%d of %d seeds lost rows", found, seeds)
	if found == 0 {
		t.Error("got no seed that lost rows, want some: the harness does not find them")
	}
}

// Read-back alone, without the audit: a table that fails inserts in any way, whole
// or half or with the answer lost, but keeps what it has, has each row exactly once,
// whenever the process is killed.
func TestOnceByReadBack(t *testing.T) {
	for seed := range seedsWanted(t) {
		w := newWorld(seed)
		w.blind, w.honest, w.forgets = true, true, false
		facts, err := w.live()
		faults := w.differ()
		for p, rows := range w.rows {
			for r, n := range rows {
				if n > 1 {
					faults = append(faults, fmt.Sprintf("%v: offset %d is there %d times", p, r.Offset, n))
				}
			}
		}
		if len(faults) > 0 || !errors.Is(err, errEnough) {
			t.Fatalf("seed %d: %v:\n%s\nafter:\n%s", seed, err, strings.Join(faults[:min(5, len(faults))], "\n"), strings.Join(facts[max(0, len(facts)-30):], "\n"))
		}
	}
}

// Every span is looked at again and again, and it is known since when all have been.
func TestAuditAge(t *testing.T) {
	for seed := range uint64(100) {
		w := newWorld(seed)
		w.faults, w.kills, w.forgets = false, 0, false
		if _, err := w.live(); !errors.Is(err, errEnough) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		s := w.archive.Stats()
		if age := w.now - schemas.Millis(s.Oldest.Load()); s.Oldest.Load() == 0 || age < 0 || age > 30*schemas.Second {
			t.Errorf("seed %d: the oldest look was %d ms ago; want at most the 20 s after which spans are looked at again, and some rounds", seed, age)
		}
		if s.Rows.Load() > 0 && s.Last.Load() == 0 || s.Unmendable.Load() != 0 {
			t.Errorf("seed %d: got %d rows, the last at %d, and %d spans that can't be mended", seed, s.Rows.Load(), s.Last.Load(), s.Unmendable.Load())
		}
	}
}

// With nothing going wrong, every row is sent once.
func TestNothingTwice(t *testing.T) {
	for seed := range uint64(200) {
		w := newWorld(seed)
		w.faults, w.kills, w.forgets = false, 0, false
		if _, err := w.live(); !errors.Is(err, errEnough) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for p, rows := range w.rows {
			for r, n := range rows {
				if n != 1 {
					t.Fatalf("seed %d: %v offset %d: got %d times, want once", seed, p, r.Offset, n)
				}
			}
		}
		if d := w.differ(); len(d) > 0 {
			t.Fatalf("seed %d: %v", seed, d)
		}
	}
}
