package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"footfall/pipeline"
	"footfall/pipeline/archive"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// archives are the processes that fill the table, their group, and the topics as
// that group reads them. They have dice of their own, and let no time pass: whatever
// happens to them, no output may be another for it, nor come later.
type archives struct {
	w       *world
	table   *Table
	starts  []int // steps at which processes start
	lives   []*archiver
	parts   []*copied
	by      map[archive.Partition]*copied
	decoder *schemas.Decoder
	ending  bool
}

// copied is a partition as the archives' group knows it.
type copied struct {
	archive.Partition
	part      *part
	stream    *stream // nil: the input
	owner     *archiver
	committed archive.Commit
	found     bool
	reached   int64          // committed once; a late commit may have set it back
	gives     map[int64]bool // of the input: whether a record gives a row
}

// archiver is one process.
type archiver struct {
	*life
	in      *archives
	cancel  context.CancelFunc
	batch   archive.Rows
	rowsMax int // of a batch
	polled  int // records that the last poll gave
	reading map[archive.Partition]int64
	lost    []archive.Partition // not yet polled
	revoked []*copied           // not yet polled
	going   []*copied           // revoked by the last poll: its own until the next
	given   []*copied           // not yet polled
	late    []lateMark
	number  int
}

// lateMark is a commit that was given up, and is still under way.
type lateMark struct {
	c    *copied
	mark archive.Commit
	at   int // step
}

// Limits of an archive in the simulation.
const (
	rowsMost = 150
	runMost  = 60 // records of a partition in one poll
)

func newArchives(w *world) *archives {
	in := &archives{w: w, by: map[archive.Partition]*copied{}, decoder: w.rules[0].decoder()}
	in.table = &Table{Dice: w.dice, Chance: in.chance, Gives: in.gives, Absent: func() bool { return w.away == TableAway || w.opt.absent && !w.ended() }}
	for _, p := range w.parts {
		in.add(&copied{Partition: archive.Partition{Topic: events, Number: p.number}, part: p, gives: map[int64]bool{}})
		for _, s := range p.streams {
			in.add(&copied{Partition: archive.Partition{Topic: s.topic, Number: p.number}, part: p, stream: s})
		}
	}
	for i := range w.opt.Archives {
		in.starts = append(in.starts, w.dice.IntN(1+i*w.opt.Steps/2))
	}
	return in
}

func (in *archives) add(c *copied) { in.parts, in.by[c.Partition] = append(in.parts, c), c }

// chance is true in one of oneIn cases, by the archives' dice.
func (in *archives) chance(fault string, oneIn int) bool {
	if in.w.calm() || in.w.dice.IntN(oneIn) != 0 {
		return false
	}
	in.w.fault("archive: " + fault)
	return true
}

// gives tells whether a record gives a row: an event, if it is one; every output.
func (in *archives) gives(p archive.Partition, r *archive.Record) bool {
	if r.Control || p.Topic != events {
		return !r.Control
	}
	known := in.by[p].gives
	row, ok := known[r.Offset]
	if !ok {
		var ev schemas.Event
		row = in.decoder.Decode(r.Key, r.Value, &ev) == nil
		known[r.Offset] = row
	}
	return row
}

// next is the first offset that is not archived: retention that is long enough leaves
// it. A commit that is under way may still set it back, and what was mended is read
// once more.
func (in *archives) next(p archive.Partition) int64 {
	next := in.by[p].committed.Next
	for _, a := range in.lives {
		if at, ok := a.reading[p]; ok {
			next = min(next, at)
		}
		for _, l := range a.late {
			if l.c.Partition == p {
				next = min(next, l.mark.Next)
			}
		}
	}
	return next
}

// step lets the archives go on.
func (in *archives) step() {
	w := in.w
	for i, at := range in.starts {
		if at >= 0 && w.steps >= at && !in.ending {
			in.starts[i] = -1
			in.start(i)
		}
	}
	if w.calm() {
		in.table.Calm()
	}
	in.coordinate()
	turns := slices.Clone(in.lives)
	w.dice.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
	for _, a := range turns {
		if !w.calm() && w.dice.IntN(5) == 0 {
			continue
		}
		if a.resume(); a.over {
			in.took(a)
		}
		if w.broken != nil {
			return
		}
	}
}

// coordinate is the archives' group: it takes partitions from whom it does not hear
// of, gives them to others, and changes its mind.
func (in *archives) coordinate() {
	w := in.w
	for _, a := range in.lives {
		if a.frozen > 0 {
			a.silent++
		} else if in.chance("stopped", 120) {
			a.frozen = 1 + w.dice.IntN(20)
		}
		for len(a.late) > 0 && a.late[0].at <= w.steps {
			if l := a.late[0]; l.c.owner == a {
				l.c.committed, l.c.found, l.c.reached = l.mark, true, max(l.c.reached, l.mark.Next)
			}
			a.late = a.late[1:]
		}
	}
	if w.away == KafkaAway {
		return
	}
	for _, c := range in.parts {
		if a := c.owner; a != nil && (a.over || a.silent > w.limits.session || in.chance("partition taken", 200)) {
			c.owner = nil
			a.lost = append(a.lost, c.Partition)
			for _, of := range []*[]*copied{&a.given, &a.revoked, &a.going} {
				*of = slices.DeleteFunc(*of, func(g *copied) bool { return g == c })
			}
		} else if a != nil && a.polls(c) && in.chance("partition revoked", 100) {
			a.revoked = append(a.revoked, c)
		}
		if c.owner == nil && w.opt.Expire && in.chance("offset expired", 60) {
			c.found, c.committed = false, archive.Commit{}
		}
		if c.owner == nil && len(in.lives) > 0 && (w.calm() || w.dice.IntN(3) > 0) {
			if a := in.lives[w.dice.IntN(len(in.lives))]; a.frozen == 0 || w.calm() {
				c.owner = a
				a.given = append(a.given, c)
			}
		}
	}
}

func (in *archives) start(slot int) {
	w := in.w
	ctx, cancel := context.WithCancel(context.Background())
	a := &archiver{
		life: &life{w: w, name: fmt.Sprintf("archive-%d", slot)}, number: slot, in: in, cancel: cancel,
		reading: map[archive.Partition]int64{}, rowsMax: 1 + w.dice.IntN(rowsMost),
	}
	table := &batched{Table: in.table.As(func(where string) {
		a.interrupt(where)
		a.waits(TableSlow)
	})}
	inner := archive.New(archive.Config{
		Log: a, Table: table, Now: w.now, Sleep: a.sleep,
		Report:  func(f archive.Fact) { w.trace("%s: %v", a.name, f) },
		RowsMax: a.rowsMax, SealRows: 1 + w.dice.Int64N(100), AuditEvery: 2 * schemas.Second, AuditAgain: 20 * schemas.Second,
	})
	in.lives, a.batch = append(in.lives, a), table.batch
	run := func(ctx context.Context) error { return inner.Run(ctx, context.Background()) }
	if w.opt.naive != nil {
		run = w.opt.naive(a, table)
	}
	a.begin(func() error { return run(ctx) })
}

// took notes that a process has ended, and judges how.
func (in *archives) took(a *archiver) {
	w := in.w
	in.lives = slices.DeleteFunc(in.lives, func(b *archiver) bool { return a == b })
	a.cancel()
	in.starts[a.number] = w.steps + 1
	if !w.calm() {
		in.starts[a.number] += w.dice.IntN(6)
	}
	w.trace("%s has ended: %v", a.name, a.err)
	fatal := (*archive.FatalError)(nil)
	switch err := a.err; {
	case errors.Is(err, errKilled), in.ending && errors.Is(err, context.Canceled):
	case (w.opt.Overtake || in.setBack()) && (errors.As(err, &fatal) || errors.Is(err, pipeline.ErrExpired) || errors.Is(err, archive.ErrGone)):
		// A person goes on without what retention has removed, as the error says.
		w.fault("archive: overtaken by retention")
		for _, c := range in.parts {
			if start, _ := c.bounds(); c.committed.Next < start {
				c.committed, c.found, c.reached = archive.Commit{Partition: c.Partition, Next: start}, true, max(c.reached, start)
			}
		}
	case len(a.lost) > 0 && (errors.As(err, &fatal) || errors.Is(err, archive.ErrGone)):
		w.fault("archive: robbed, and ended itself") // somebody else is further, and retention with it
	default:
		_ = w.breach("%s ended with: %w", a.name, err)
	}
}

// setBack tells whether a partition's commit has been set back, by one that came late
// or from an assignment that was over, to where retention has been since.
func (in *archives) setBack() bool {
	for _, c := range in.parts {
		if start, _ := c.bounds(); c.committed.Next < start && start <= c.reached {
			return true
		}
	}
	return false
}

// finish tells them to end.
func (in *archives) finish() {
	in.ending = true
	for _, a := range in.lives {
		a.cancel()
	}
}

// interrupt is where a process may be killed, or lose its turn.
func (a *archiver) interrupt(where string) {
	switch w := a.w; {
	case w.broken != nil:
		panic(killed{})
	case w.calm():
	case w.dice.IntN(80) == 0:
		w.fault("archive: killed")
		w.trace("%s is killed: %s", a.name, where)
		panic(killed{})
	case w.dice.IntN(4) == 0:
		a.rest()
	}
}

// sleep lets the world go on until it is later by d.
func (a *archiver) sleep(ctx context.Context, d schemas.Millis) error {
	for until := a.w.now() + d; a.w.now() < until && ctx.Err() == nil; {
		a.rest()
	}
	return ctx.Err()
}

// polls tells whether a partition is its own and stays so.
func (a *archiver) polls(c *copied) bool {
	_, reading := a.reading[c.Partition]
	return reading && !slices.Contains(a.revoked, c) && !slices.Contains(a.going, c)
}

// Poll is archive.Log. Whoever polls gives its turn to the world first.
func (a *archiver) Poll(ctx context.Context, _ schemas.Millis, into *archive.Batch) error {
	*into, a.polled = archive.Batch{}, 0
	a.rest()
	a.interrupt("poll")
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, c := range a.going {
		c.owner = nil
		delete(a.reading, c.Partition)
	}
	a.going, a.revoked = a.revoked, nil
	for _, c := range a.going {
		into.Revoked = append(into.Revoked, c.Partition)
	}
	into.Lost, a.lost = a.lost, nil
	for _, p := range into.Lost {
		delete(a.reading, p)
	}
	for _, c := range a.given {
		into.Assigned = append(into.Assigned, archive.Assignment{Partition: c.Partition, Committed: c.found, Next: c.committed.Next, Metadata: c.committed.Metadata})
		if a.reading[c.Partition], _ = c.bounds(); c.found {
			a.reading[c.Partition] = c.committed.Next
		}
	}
	a.given = nil
	if a.w.away == KafkaAway {
		return nil
	}
	for _, c := range a.in.parts {
		at, ours := a.reading[c.Partition]
		if !ours || slices.Contains(a.going, c) || a.w.dice.IntN(3) == 0 && !a.w.calm() {
			continue
		}
		start, end := c.bounds()
		if at < start {
			return fmt.Errorf("fetch %s/%d at %d: %w", c.Topic, c.Number, at, pipeline.ErrExpired)
		}
		run := c.records(at, end, 1+a.w.dice.IntN(runMost))
		a.polled += len(run)
		if len(run) > 0 {
			a.reading[c.Partition] = run[len(run)-1].Offset + 1
			into.Runs = append(into.Runs, archive.Run{Partition: c.Partition, Records: run, End: end})
		}
	}
	return nil
}

// bounds are the first offset and the last stable one.
func (c *copied) bounds() (start, end int64) {
	if c.stream == nil {
		return c.part.start, c.part.ends
	}
	return c.stream.start, c.stream.stable()
}

// records gives those of first <= offset < next, at most so many: committed ones, and
// markers.
func (c *copied) records(first, next int64, most int) (run []archive.Record) {
	if c.stream == nil {
		i, _ := slices.BinarySearchFunc(c.part.input, first, func(r worker.Record, o int64) int { return int(r.Offset - o) })
		for ; i < len(c.part.input) && c.part.input[i].Offset < next && len(run) < most; i++ {
			r := &c.part.input[i]
			run = append(run, archive.Record{Offset: r.Offset, Time: r.Time, Key: r.Key, Value: r.Value, Headers: r.Headers, Control: r.Control})
		}
		return run
	}
	i, _ := slices.BinarySearchFunc(c.stream.entries, first, func(e entry, o int64) int { return int(e.offset - o) })
	for ; i < len(c.stream.entries) && c.stream.entries[i].offset < next && len(run) < most; i++ {
		e := &c.stream.entries[i]
		switch {
		case e.of == nil:
			run = append(run, archive.Record{Offset: e.offset, Control: true})
		case e.of.state == done:
			run = append(run, e.record)
		}
	}
	return run
}

// fails tells whether a request to the brokers goes unanswered.
func (a *archiver) fails(what string) bool {
	a.interrupt(what)
	a.waits(KafkaSlow)
	return a.w.away == KafkaAway || a.in.chance(what+" fails", 30)
}

// Commit is archive.Log.
func (a *archiver) Commit(_ context.Context, marks []archive.Commit) (lost []archive.Partition, err error) {
	if a.fails("commit") {
		return nil, errNoAnswer
	}
	late := a.in.chance("commit given up, done later", 60)
	for _, m := range marks {
		c := a.in.by[m.Partition]
		switch {
		case c.owner != a: // Poll tells too
			lost = append(lost, m.Partition)
		case late:
			a.late = append(a.late, lateMark{c, m, a.w.steps + 1 + a.w.dice.IntN(10)})
		default:
			c.committed, c.found, c.reached = m, true, max(c.reached, m.Next)
		}
	}
	if a.interrupt("after commit"); late || a.in.chance("commit done, no answer", 20) {
		return nil, errNoAnswer
	}
	return lost, nil
}

// Bounds is archive.Log.
func (a *archiver) Bounds(_ context.Context, p archive.Partition) (start, end int64, err error) {
	if a.fails("bounds") {
		return 0, 0, errNoAnswer
	}
	start, end = a.in.by[p].bounds()
	return start, end, nil
}

// Read is archive.Log.
func (a *archiver) Read(_ context.Context, p archive.Partition, first, next int64, each func([]archive.Record) error) error {
	c := a.in.by[p]
	for {
		if a.fails("read") {
			return errNoAnswer
		}
		if start, _ := c.bounds(); first < start {
			return archive.ErrGone
		}
		run := c.records(first, next, 1+a.w.dice.IntN(30))
		if len(run) == 0 {
			return nil
		}
		if err := each(run); err != nil {
			return err
		}
		first = run[len(run)-1].Offset + 1
	}
}

// unfinished says what is still to be copied, if anything is.
func (in *archives) unfinished() string {
	for _, c := range in.parts {
		if start, end := c.bounds(); max(c.reached, start) < end || c.owner == nil {
			return fmt.Sprintf("%s/%d is archived up to %d of %d", c.Topic, c.Number, c.reached, end)
		}
	}
	if in.w.opt.naive != nil {
		return "" // it audits nothing, and what differs is found in the end
	}
	if in.table.Clean < 3 {
		return "the audit is at work"
	}
	return in.differs()
}

// differs says where the table is not what the topics are, if it is not.
func (in *archives) differs() string {
	for _, c := range in.parts {
		start, end := c.bounds()
		if faults := in.table.Differ(c.Partition, c.records(0, end, 1<<30), start); len(faults) > 0 {
			return fmt.Sprintf("%d faults of the table, the first: %s", len(faults), faults[0])
		}
	}
	return ""
}

// held is how many rows an archive has in the making: no more than a batch that is not full,
// and what was polled last.
func (a *archiver) held() (n, most int) { return a.batch.Len(), a.rowsMax - 1 + a.polled }

// batched is a table that knows the rows that an archive asks for first: its batch.
type batched struct {
	archive.Table
	batch archive.Rows
}

// Rows is archive.Table.
func (b *batched) Rows() archive.Rows {
	rows := b.Table.Rows()
	if b.batch == nil {
		b.batch = rows
	}
	return rows
}

// count is how many rows the table has.
func (in *archives) count() (rows int) {
	for _, c := range in.parts {
		in.table.Each(c.Partition, func(archive.Row, int) { rows++ })
	}
	return rows
}
