package pipelinetest

import (
	stdcmp "cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Process is what one process sees of a broker: the three edges of a pipeline.
type Process interface {
	pipeline.Source
	pipeline.Committer
	pipeline.History
}

// Edges is a broker as the suite drives it: a fresh input topic of two partitions
// with its output topics, and a group.
type Edges struct {
	// Join starts a process, to which the group gives both partitions if it is the
	// only one.
	Join func(t *testing.T) Process
	// Kill ends a process without a word to the group, or with one: the partitions
	// are to be had by others afterwards, within a time that a test can wait.
	Kill func(t *testing.T, p Process)
	// Publish appends records to a partition of the input: Key, Value and Time.
	Publish func(t *testing.T, partition int32, records ...worker.Record)
}

// patience is how long the suite waits for what has to come.
const patience = 60 * time.Second

// Run holds what a pipeline rests upon, on any broker.
func Run(t *testing.T, open func(t *testing.T) Edges) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(t *testing.T, e Edges)
	}{
		{"records come in order, from Start on", startAgain},
		{"the ends are told", ends},
		{"outputs and marks are committed together", together},
		{"a mark alone can be committed", markAlone},
		{"what was committed is read back in order", readBack},
		{"an epoch that is over is refused", oldEpoch},
		{"one lost partition stops the whole commit", allOrNothing},
		{"a successor finds what was committed", successor},
		{"input is read between two offsets", input},
		{"Poll ends with its context", pollEnds},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// poller gathers what polls bring.
type poller struct {
	t       *testing.T
	p       Process
	epochs  map[int32]int64
	records map[int32][]worker.Record
	ends    map[int32]pipeline.End
}

// join starts a process and waits until it has both partitions.
func join(t *testing.T, e Edges) *poller {
	t.Helper()
	g := &poller{t: t, p: e.Join(t), epochs: map[int32]int64{}, records: map[int32][]worker.Record{}, ends: map[int32]pipeline.End{}}
	g.until("both partitions are assigned", func() bool { return len(g.epochs) == 2 })
	return g
}

// until polls until something is so.
func (g *poller) until(what string, ok func() bool) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	for !ok() {
		var b pipeline.Batch
		if err := g.p.Poll(ctx, &b); err != nil {
			g.t.Fatalf("until %s: %v", what, err)
		}
		for _, n := range b.Lost {
			delete(g.epochs, n)
		}
		for _, n := range b.Revoked {
			delete(g.epochs, n)
			g.p.Release(n)
		}
		for _, a := range b.Assigned {
			if a.Epoch <= g.epochs[a.Partition] {
				g.t.Fatalf("partition %d: epoch %d after %d", a.Partition, a.Epoch, g.epochs[a.Partition])
			}
			g.epochs[a.Partition] = a.Epoch
		}
		for _, f := range b.Fetched {
			for _, r := range f.Records {
				if !r.Control {
					g.records[f.Partition] = append(g.records[f.Partition], r)
				}
			}
		}
		for _, end := range b.Ends {
			g.ends[end.Partition] = end
		}
	}
}

// record is the i-th of the suite's.
func record(i int) worker.Record {
	return worker.Record{Key: fmt.Appendf(nil, "user-%d", i), Value: fmt.Appendf(nil, `{"i":%d}`, i), Time: 1_767_225_600_000 + schemas.Millis(i)}
}

func records(from, to int) (rs []worker.Record) {
	for i := from; i < to; i++ {
		rs = append(rs, record(i))
	}
	return rs
}

// same compares what came with what was published; offsets need not be dense.
func same(t *testing.T, got, want []worker.Record) {
	t.Helper()
	for i := 1; i < len(got); i++ {
		if got[i].Offset <= got[i-1].Offset {
			t.Errorf("record %d after %d", got[i].Offset, got[i-1].Offset)
		}
	}
	diff := cmp.Diff(want, got, cmpopts.IgnoreFields(worker.Record{}, "Offset", "Lane", "Headers"), cmpopts.EquateEmpty())
	if diff != "" {
		t.Errorf("got other records (+) than published (-):\n%s", diff)
	}
}

func startAgain(t *testing.T, e Edges) {
	g := join(t, e)
	e.Publish(t, 0, records(0, 5)...)
	e.Publish(t, 1, records(100, 103)...)
	g.p.Start(0, 0)
	g.until("all of partition 0 has come", func() bool { return len(g.records[0]) >= 5 })
	same(t, g.records[0], records(0, 5))
	if len(g.records[1]) > 0 {
		t.Errorf("%d records of partition 1, which has not been started", len(g.records[1]))
	}
	third := g.records[0][2].Offset
	g.records[0] = nil
	g.p.Start(0, third)
	g.p.Start(1, 0)
	e.Publish(t, 0, records(5, 7)...)
	g.until("partition 0 has come again from its third record on, and 1", func() bool { return len(g.records[0]) >= 5 && len(g.records[1]) >= 3 })
	same(t, g.records[0], records(2, 7))
	same(t, g.records[1], records(100, 103))
}

func ends(t *testing.T, e Edges) {
	g := join(t, e)
	e.Publish(t, 1, records(0, 4)...)
	g.p.Start(0, 0)
	g.p.Start(1, 0)
	g.until("the ends are told", func() bool { return len(g.ends) == 2 && g.ends[1].Offset >= 4 && len(g.records[1]) == 4 })
	_, end, err := g.p.Bounds(t.Context(), 1)
	if err != nil || g.ends[1].Offset != end || end <= g.records[1][3].Offset {
		t.Errorf("told the end %d, Bounds says %d (%v), the last record is %d", g.ends[1].Offset, end, err, g.records[1][3].Offset)
	}
	if g.ends[1].Wall == 0 {
		t.Error("the end comes without the wall's time")
	}
}

// output makes the outputs from number from to number to, of every kind.
func output(partition int32, epoch int64, from, to uint64) *worker.Output {
	out := &worker.Output{Epoch: epoch, Sets: []schemas.SetNames{{Name: "lifecycle", Segments: []string{"lost", "dormant", "new", "active", "cooling", "prospect"}}}}
	for n := from; n <= to; n++ {
		it := worker.Item{N: n, Next: int64(n), Clock: 2000 + schemas.Millis(n), Fired: 1000 + schemas.Millis(n)}
		if n%3 == 0 {
			it.DeadLetter = &schemas.DeadLetter{
				Pos: schemas.Position{Partition: partition, Offset: int64(n) - 1}, Time: 1_767_225_600_000, Reason: schemas.NotJSON,
				Detail: "got nothing", Key: []byte("k"), Value: []byte("?"),
			}
		} else {
			it.Transition = &schemas.Transition{
				User: fmt.Sprint("user-", n), From: schemas.NoSegment, To: 5, Seq: 1, At: 1_767_225_600_000,
				Cause: schemas.Cause{Kind: schemas.ByTimer, Due: 1_767_225_600_000}, Muted: []schemas.Muted{schemas.NotMuted, schemas.MutedStale}[n%2],
				Facts: schemas.Facts{First: 1_767_225_500_000, Last: 1_767_225_500_000}, Segments: []uint16{5},
				Expected: schemas.Expected{To: 1, At: 1_775_001_500_000}, Rules: 7,
			}
		}
		out.Items = append(out.Items, it)
	}
	out.Mark = schemas.Mark{Partition: partition, Next: int64(to), Clock: 2000 + schemas.Millis(to), Fired: 1000 + schemas.Millis(to), N: to, Hash: to * 31, Rules: 7, Address: "here"}
	return out
}

// holds compares what the broker has of a partition with the outputs up to n.
func (g *poller) holds(partition int32, n uint64) {
	g.t.Helper()
	mark, found, err := g.p.Committed(g.t.Context(), partition)
	if err != nil {
		g.t.Fatal(err)
	}
	if n == 0 {
		if found {
			g.t.Errorf("partition %d: found %+v where nothing was committed", partition, mark)
		}
	} else if want := output(partition, 0, n, n).Mark; !found || mark != want {
		g.t.Errorf("partition %d: got %+v (%v), want the mark %+v", partition, mark, found, want)
	}
	if last, err := g.p.Last(g.t.Context(), partition); err != nil || last > n {
		g.t.Errorf("partition %d: the last output is %d (%v), want %d at most", partition, last, err, n)
	}
	g.reads(partition, 0, n)
}

// reads holds that exactly the outputs after one number up to another are read back.
func (g *poller) reads(partition int32, after, to uint64) {
	g.t.Helper()
	var got []worker.Item
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	if err := g.p.Said(ctx, partition, after, to, keep(&got)); err != nil {
		g.t.Fatalf("Said(%d, %d]: %v", after, to, err)
	}
	var want []worker.Item
	if after < to {
		out := output(partition, 0, after+1, to)
		for _, it := range out.Items {
			want = append(want, Told(it, out.Sets))
		}
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		g.t.Errorf("partition %d: Said(%d, %d] gives other outputs (+) than were committed (-):\n%s", partition, after, to, diff)
	}
}

func keep(into *[]worker.Item) func(*worker.Item) error {
	return func(it *worker.Item) error { *into = append(*into, *it); return nil }
}

func (g *poller) commit(outs ...*worker.Output) {
	g.t.Helper()
	for _, o := range outs {
		o.Epoch = g.epochs[o.Mark.Partition]
	}
	if err := g.p.Commit(g.t.Context(), outs); err != nil {
		g.t.Fatalf("commit: %v", err)
	}
}

func together(t *testing.T, e Edges) {
	g := join(t, e)
	g.holds(0, 0)
	g.holds(1, 0)
	g.commit(output(0, 0, 1, 4), output(1, 0, 1, 2))
	g.holds(0, 4)
	g.holds(1, 2)
	g.commit(output(0, 0, 5, 5), output(0, 0, 6, 9)) // two of one partition, in order
	g.holds(0, 9)
	g.holds(1, 2)
}

func markAlone(t *testing.T, e Edges) {
	g := join(t, e)
	out := output(1, 0, 1, 3)
	out.Items = nil
	out.Mark.N = 0
	g.commit(out)
	mark, found, err := g.p.Committed(t.Context(), 1)
	if err != nil || !found || mark != out.Mark {
		t.Errorf("got %+v, %v, %v, want %+v", mark, found, err, out.Mark)
	}
	g.reads(1, 0, 0)
	g.holds(0, 0)
}

func readBack(t *testing.T, e Edges) {
	g := join(t, e)
	for n := uint64(1); n <= 24; n += 4 {
		g.commit(output(0, 0, n, n+3))
	}
	for _, r := range [][2]uint64{{0, 24}, {0, 1}, {23, 24}, {5, 17}, {24, 24}} {
		g.reads(0, r[0], r[1])
	}
	for _, to := range []uint64{0, 13} {
		var all []worker.Item
		if err := g.p.SaidAll(t.Context(), 0, to, keep(&all)); err != nil {
			t.Fatal(err)
		}
		if want := stdcmp.Or(int(to), 24); len(all) != want || all[0].N != 1 || all[want-1].N != uint64(want) {
			t.Errorf("SaidAll(%d) gives %d outputs, want 1 to %d", to, len(all), want)
		}
	}
	stop := errors.New("enough")
	if err := g.p.Said(t.Context(), 0, 0, 24, func(*worker.Item) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Said whose reader fails: got %v, want the reader's error", err)
	}
}

// refused holds that a commit is refused for just these partitions.
func refused(t *testing.T, p Process, want []int32, outs ...*worker.Output) {
	t.Helper()
	err := p.Commit(t.Context(), outs)
	var lost *pipeline.LostError
	if !errors.As(err, &lost) {
		t.Fatalf("commit: got %v, want a LostError of %v", err, want)
	}
	if slices.Sort(lost.Partitions); !slices.Equal(lost.Partitions, want) {
		t.Errorf("commit: lost are %v, want %v", lost.Partitions, want)
	}
}

func oldEpoch(t *testing.T, e Edges) {
	g := join(t, e)
	g.commit(output(0, 0, 1, 2))
	for _, epoch := range []int64{g.epochs[0] - 1, g.epochs[0] + 1, 0} {
		refused(t, g.p, []int32{0}, output(0, epoch, 3, 3))
	}
	g.holds(0, 2)
}

func allOrNothing(t *testing.T, e Edges) {
	g := join(t, e)
	refused(t, g.p, []int32{1}, output(0, g.epochs[0], 1, 3), output(1, g.epochs[1]-1, 1, 2))
	g.holds(0, 0)
	g.holds(1, 0)
	g.commit(output(0, 0, 1, 3))
	g.holds(0, 3)
	g.holds(1, 0)
}

func successor(t *testing.T, e Edges) {
	g := join(t, e)
	g.commit(output(0, 0, 1, 5), output(1, 0, 1, 2))
	late := output(0, g.epochs[0], 6, 6)
	e.Kill(t, g.p)
	next := join(t, e)
	next.holds(0, 5)
	next.holds(1, 2)
	next.commit(output(0, 0, 6, 7))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := g.p.Commit(ctx, []*worker.Output{late}); err == nil {
		t.Error("a process that is no more has committed")
	}
	next.holds(0, 7)
}

func input(t *testing.T, e Edges) {
	g := join(t, e)
	e.Publish(t, 0, records(0, 50)...)
	g.p.Start(0, 0)
	g.until("all of it has come", func() bool { return len(g.records[0]) >= 50 })
	all := g.records[0]
	start, end, err := g.p.Bounds(t.Context(), 0)
	if err != nil || start != all[0].Offset || end <= all[49].Offset {
		t.Fatalf("Bounds: got %d to %d, %v, want %d to more than %d", start, end, err, all[0].Offset, all[49].Offset)
	}
	for _, r := range [][2]int{{0, 49}, {10, 20}, {7, 8}, {5, 5}} {
		from, to := all[r[0]].Offset, all[r[1]].Offset
		var got []worker.Record
		err := g.p.Input(t.Context(), 0, from, to, func(run []worker.Record) error {
			for _, rec := range run {
				if !rec.Control {
					got = append(got, rec)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, records(r[0], r[1]))
	}
}

func pollEnds(t *testing.T, e Edges) {
	g := join(t, e)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		var b pipeline.Batch
		for {
			if err := g.p.Poll(ctx, &b); err != nil {
				done <- err
				return
			}
		}
	}()
	cancel()
	late, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
	case <-late.Done():
		t.Error("Poll does not end with its context")
	}
}
