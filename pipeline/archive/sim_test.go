package archive_test

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

	"footfall/pipeline/archive"
	"footfall/pipeline/sim"
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
	records   map[archive.Partition][]archive.Record
	start     map[archive.Partition]int64
	committed map[archive.Partition]archive.Commit
	owned     map[archive.Partition]int64 // position of the member; absent: not its own
	revoked   []archive.Partition         // go with the next poll
	snatched  []archive.Partition         // lost since the last poll, as a commit has said
	behind    []string                    // what was sent of those
	calm      int                         // polls since the log was read
	silent    map[archive.Partition]int   // those without a leader, and for how many polls yet
	unheard   schemas.Millis              // when the log last gave no answer

	table *sim.Table

	skips   int  // every so many records are in the log and not in a poll; 0: none
	forgets bool // the log is deleted from its beginning
	faults  bool // whether anything goes wrong
	asked   int  // requests, in all
	kills   int  // how many kills of either side are left

	archive *archive.Archive // that lives, or lived last
}

func newWorld(seed uint64) *world {
	w := &world{
		Rand: rand.New(rand.NewPCG(seed, 7)), now: 100 * schemas.Day,
		records: map[archive.Partition][]archive.Record{}, start: map[archive.Partition]int64{}, committed: map[archive.Partition]archive.Commit{},
		silent: map[archive.Partition]int{}, faults: true,
	}
	w.table = &sim.Table{Dice: w.Rand, Chance: w.tableFault, Gives: func(_ archive.Partition, r *archive.Record) bool { return gives(r) }}
	w.kills, w.forgets = 1+w.IntN(12), w.IntN(5) == 0
	for i := range 1 + w.IntN(5) {
		p := archive.Partition{Topic: []string{"in", "triggers"}[i%2], Number: int32(i)}
		offset := int64(w.IntN(3) * 1000)
		w.start[p] = offset
		for range w.IntN(400) {
			r := archive.Record{Offset: offset, Time: schemas.Millis(w.IntN(1e6)), Key: []byte("k"), Value: fmt.Appendf(nil, "row %d", w.IntN(50))}
			switch w.IntN(10) {
			case 0:
				r.Control, r.Value = true, nil
			case 1:
				r.Value = []byte("refused")
			}
			w.records[p] = append(w.records[p], r)
			offset += 1 + int64(w.IntN(3)/2*w.IntN(5)) // gaps: aborted records
		}
	}
	return w
}

func (w *world) partitions() []archive.Partition {
	return slices.SortedFunc(maps.Keys(w.start), func(a, b archive.Partition) int { return int(a.Number - b.Number) })
}

func (w *world) end(p archive.Partition) int64 {
	if rs := w.records[p]; len(rs) > 0 {
		return rs[len(rs)-1].Offset + 1
	}
	return w.start[p]
}

// chance says whether something with a probability of one in n goes wrong.
func (w *world) chance(n int) bool { return w.faults && w.IntN(n) == 0 }

// kill may kill the process.
func (w *world) kill() {
	if w.asked++; w.asked > 100_000 {
		panic("does not come to rest: asked 100,000 times")
	}
	if w.kills > 0 && w.chance(60) {
		w.kills--
		panic(killed{})
	}
}

// mute says whether a partition has no leader.
func (w *world) mute(p archive.Partition) bool { return w.faults && w.silent[p] > 0 }

// tableFault says whether something goes wrong with the table. Kills of its server
// are bounded like those of the process.
func (w *world) tableFault(fault string, oneIn int) bool {
	if fault != "server killed" {
		return w.chance(oneIn)
	}
	if w.kills == 0 || !w.chance(oneIn) {
		return false
	}
	w.kills--
	return true
}

// Log.

func (w *world) Poll(_ context.Context, until schemas.Millis, into *archive.Batch) error {
	*into = archive.Batch{}
	w.kill()
	for _, p := range w.partitions() {
		if w.silent[p]--; w.silent[p] < 0 && w.chance(200) {
			w.silent[p] = w.IntN(60)
		}
	}
	if w.chance(200) {
		w.now -= schemas.Millis(w.IntN(int(schemas.Hour)))
	}
	for _, p := range w.revoked {
		delete(w.owned, p)
	}
	w.revoked = nil
	into.Lost, w.snatched = append(into.Lost, w.snatched...), nil
	for _, p := range w.partitions() {
		_, owned := w.owned[p]
		switch {
		case owned && w.chance(100):
			w.revoked = append(w.revoked, p)
			into.Revoked = append(into.Revoked, p)
			continue
		case owned && !w.table.Honest && w.chance(100):
			delete(w.owned, p)
			into.Lost = append(into.Lost, p)
			owned = false
		case owned:
			continue
		}
		if !owned && (!w.faults || w.IntN(3) > 0) {
			c, ok := w.committed[p]
			into.Assigned = append(into.Assigned, archive.Assignment{Partition: p, Committed: ok, Next: c.Next, Metadata: c.Metadata})
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
		if w.IntN(3) == 0 || slices.Contains(w.revoked, p) || w.mute(p) {
			continue
		}
		run := w.from(p, at, w.end(p))
		run = run[:min(len(run), w.IntN(60))]
		if w.skips > 0 {
			run = slices.DeleteFunc(slices.Clone(run), func(r archive.Record) bool { return r.Offset%int64(w.skips) == 0 && r.Offset+1 < w.end(p) })
		}
		if len(run) > 0 {
			w.owned[p] = run[len(run)-1].Offset + 1
			into.Runs = append(into.Runs, archive.Run{Partition: p, Records: run, End: w.end(p)})
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
			w.faults, w.table.Clean = false, 0 // calm: let the audit find the rest
		}
		if w.calm++; w.calm > 30 && w.table.Clean >= 3 && w.now > w.unheard+15*schemas.Second || w.calm > 200 {
			return errEnough
		}
	}
	return nil
}

func (w *world) from(p archive.Partition, first, next int64) []archive.Record {
	rs := w.records[p]
	i, _ := slices.BinarySearchFunc(rs, first, func(r archive.Record, o int64) int { return int(r.Offset - o) })
	j, _ := slices.BinarySearchFunc(rs, next, func(r archive.Record, o int64) int { return int(r.Offset - o) })
	return rs[i:j]
}

func (w *world) Commit(_ context.Context, marks []archive.Commit) (lost []archive.Partition, err error) {
	w.kill()
	if w.chance(20) {
		return nil, errors.New("commit: no answer, not done")
	}
	for _, m := range marks {
		if !w.table.Honest && w.chance(40) {
			delete(w.owned, m.Partition)
		}
		if _, owned := w.owned[m.Partition]; owned {
			w.committed[m.Partition] = m
		} else {
			lost = append(lost, m.Partition)
		}
	}
	w.kill()
	if w.chance(20) {
		return nil, errors.New("commit: no answer, done")
	}
	for _, p := range lost {
		if !slices.Contains(w.snatched, p) {
			w.snatched = append(w.snatched, p)
		}
	}
	return lost, nil
}

// watched is the table, into which nothing may come of what is known to be another's.
type watched struct {
	archive.Table
	w *world
}

func (t watched) Rows() archive.Rows { return &watchedRows{Rows: t.Table.Rows(), w: t.w} }

type watchedRows struct {
	archive.Rows
	w  *world
	of []archive.Partition
}

func (r *watchedRows) Decode(p archive.Partition, rec *archive.Record) bool {
	r.of = append(r.of, p)
	return r.Rows.Decode(p, rec)
}

func (r *watchedRows) Reset() {
	r.of = r.of[:0]
	r.Rows.Reset()
}

func (r *watchedRows) Insert(ctx context.Context, token string) error {
	for _, p := range r.w.snatched {
		if slices.Contains(r.of, p) {
			r.w.behind = append(r.w.behind, fmt.Sprintf("%v: rows were sent behind its new owner's back", p))
		}
	}
	return r.Rows.Insert(ctx, token)
}

func (w *world) Bounds(_ context.Context, p archive.Partition) (start, end int64, err error) {
	if w.chance(20) || w.mute(p) {
		w.unheard = w.now
		return 0, 0, errors.New("bounds: no answer")
	}
	return w.start[p], w.end(p), nil
}

func (w *world) Read(_ context.Context, p archive.Partition, first, next int64, each func([]archive.Record) error) error {
	w.kill()
	if first < w.start[p] {
		return archive.ErrGone
	}
	for rs := w.from(p, first, next); len(rs) > 0; {
		n := 1 + w.IntN(min(len(rs), 30))
		if w.chance(20) || w.mute(p) {
			w.unheard = w.now
			return errors.New("read: no answer")
		}
		if err := each(rs[:n]); err != nil {
			return err
		}
		rs = rs[n:]
	}
	return nil
}

func gives(r *archive.Record) bool { return !r.Control && string(r.Value) != "refused" }

// live runs archives, one after the other, until the log is read and the audit
// finds nothing.
func (w *world) live() (facts []string, err error) {
	ctx := context.Background()
	for {
		w.owned, w.revoked, w.snatched = map[archive.Partition]int64{}, nil, nil
		a := archive.New(archive.Config{
			Log: w, Table: watched{w.table.As(func(string) { w.kill() }), w}, RowsMax: 1 + w.IntN(150), SealRows: 1 + w.Int64N(100), AuditEvery: 2 * schemas.Second, AuditAgain: 20 * schemas.Second,
			Now: func() schemas.Millis { return w.now },
			Sleep: func(_ context.Context, d schemas.Millis) error {
				w.now += d
				return nil
			},
			Report: func(f archive.Fact) { facts = append(facts, f.String()) },
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
	faults = slices.Clone(w.behind)
	for _, p := range w.partitions() {
		faults = append(faults, w.table.Differ(p, w.records[p], w.start[p])...)
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
		lost += w.table.Lost
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
		w.table.Blind = true
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
		w.table.Blind, w.table.Honest, w.forgets = true, true, false
		facts, err := w.live()
		faults := w.differ()
		for _, p := range w.partitions() {
			w.table.Each(p, func(r archive.Row, n int) {
				if n > 1 {
					faults = append(faults, fmt.Sprintf("%v: offset %d is there %d times", p, r.Offset, n))
				}
			})
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

// What was never sent, though the ledgers and the table agree, is found by a sample of the
// log, and sent.
func TestSample(t *testing.T) {
	found := 0
	for seed := range uint64(200) {
		w := newWorld(seed)
		w.faults, w.kills, w.forgets, w.skips = false, 0, false, 7
		if len(w.start) > 1 { // each sample is of all of it then
			continue
		}
		facts, err := w.live()
		if d := w.differ(); len(d) > 0 || !errors.Is(err, errEnough) {
			t.Fatalf("seed %d: %v: %v\nafter:\n%s", seed, err, d, strings.Join(facts, "\n"))
		}
		s := w.archive.Stats()
		if n := s.WrongSamples.Load(); n > 1 || s.Unmendable.Load() != 0 || n == 0 && s.Mended.Load() > 0 {
			t.Errorf("seed %d: got %d wrong samples and %d spans that can't be mended, want one and none", seed, n, s.Unmendable.Load())
		}
		found += int(s.WrongSamples.Load())
	}
	if found < 20 {
		t.Errorf("found %d times, want it more often", found)
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
		for _, p := range w.partitions() {
			w.table.Each(p, func(r archive.Row, n int) {
				if n != 1 {
					t.Fatalf("seed %d: %v offset %d: got %d times, want once", seed, p, r.Offset, n)
				}
			})
		}
		if d := w.differ(); len(d) > 0 {
			t.Fatalf("seed %d: %v", seed, d)
		}
	}
}
