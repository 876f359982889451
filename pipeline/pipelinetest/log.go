// Package pipelinetest is what tests of a pipeline share: a log, a group and a
// bucket in memory, safe for goroutines, whose every step a test can script; and
// the conformance suites that they and the real ones have to pass.
//
// It is for tests only. It may not decide what a record comes to.
package pipelinetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Log is a broker in memory: the input topic, the outputs, the committed offsets,
// and a group whose assignments the test makes.
type Log struct {
	now func() schemas.Millis

	mu      sync.Mutex
	parts   []*part
	epoch   int64
	changed chan struct{} // closed, and made anew, at every change
}

type part struct {
	input   []worker.Record
	start   int64
	outputs []worker.Item
	told    []worker.Item    // outputs, as they are read back
	spoken  []schemas.Millis // when each output was committed
	mark    schemas.Mark
	found   bool
	owner   *Member
	epoch   int64
}

// NewLog makes a log of so many partitions.
func NewLog(partitions int, now func() schemas.Millis) *Log {
	l := &Log{now: now, changed: make(chan struct{})}
	for range partitions {
		l.parts = append(l.parts, &part{})
	}
	return l
}

// tell wakes whoever waits for a change. It needs mu.
func (l *Log) tell() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Publish appends records to a partition of the input; it sets their offsets, and
// their timestamps where they have none.
func (l *Log) Publish(partition int32, records ...worker.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.parts[partition]
	for _, r := range records {
		if r.Offset = int64(len(p.input)); r.Time == 0 {
			r.Time = l.now()
		}
		p.input = append(p.input, r)
	}
	l.tell()
}

// Retain removes the input before an offset.
func (l *Log) Retain(partition int32, start int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts[partition].start = start
}

// RetainOutputs removes the outputs up to and including number n.
func (l *Log) RetainOutputs(partition int32, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.parts[partition]
	for len(p.outputs) > 0 && p.outputs[0].N <= n {
		p.outputs, p.told, p.spoken = p.outputs[1:], p.told[1:], p.spoken[1:]
	}
}

// Forget lets a partition's committed offset expire.
func (l *Log) Forget(partition int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts[partition].mark, l.parts[partition].found = schemas.Mark{}, false
}

// Outputs are the committed outputs of a partition.
func (l *Log) Outputs(partition int32) []worker.Item {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.parts[partition].outputs)
}

// Told are the committed outputs of a partition, as they are read back.
func (l *Log) Told(partition int32) []worker.Item {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.parts[partition].told)
}

// Told is an output as a reader has it who does not know the rules that it was said
// under, these being their sets: by names.
func Told(it worker.Item, sets []schemas.SetNames) worker.Item {
	if it.Transition != nil {
		t, err := schemas.DecodeTransition(it.Transition.AppendJSON(nil, &schemas.TransitionContext{Topic: "events", Sets: sets, Currency: "EUR"}), nil)
		if err != nil {
			panic(err) // what can be written can be read
		}
		it.Transition = &t
	}
	return it
}

// Mark is the committed mark of a partition.
func (l *Log) Mark(partition int32) (schemas.Mark, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.parts[partition].mark, l.parts[partition].found
}

// Owned tells whether a partition has an owner.
func (l *Log) Owned(partition int32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.parts[partition].owner != nil
}

// Member is one process in the group: a Source, a Committer and a History.
type Member struct {
	*Log
	PollMax int           // records of a partition in one poll at most
	Ends    time.Duration // how often the ends are asked for; 0: never

	// What a test puts in the way; each may block, none is called with a lock held.
	BeforeCommit Hook[func(context.Context, []*worker.Output) error] // an error takes the commit's place
	AfterCommit  Hook[func() error]                                  // an error takes the outcome's place
	BeforeSaid   Hook[func(ctx context.Context, partition int32) error]
	BeforeInput  Hook[func(ctx context.Context, partition int32) error]

	changes  []change
	sessions map[int32]*session
	read     map[int32]int  // records given out, in all
	asked    schemas.Millis // when the ends were asked for last
}

// Hook is a function that a test sets while others run.
type Hook[F any] struct{ f atomic.Pointer[F] }

// Set puts a function in the way.
func (h *Hook[F]) Set(f F) { h.f.Store(&f) }

// Clear removes it.
func (h *Hook[F]) Clear() { h.f.Store(nil) }

func (h *Hook[F]) get() (f F, ok bool) {
	if p := h.f.Load(); p != nil {
		return *p, true
	}
	return f, false
}

type change struct {
	kind       string // lost, revoked, assigned
	assignment pipeline.Assignment
}

type session struct {
	started, going bool
	next           int64
}

// Join makes a member, to whom nothing is assigned yet.
func (l *Log) Join() *Member {
	return &Member{Log: l, PollMax: 1000, sessions: map[int32]*session{}, read: map[int32]int{}}
}

// Give assigns partitions; whoever had them loses them at once.
func (m *Member) Give(partitions ...int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range partitions {
		p := m.parts[n]
		p.drop(n)
		m.epoch++
		p.owner, p.epoch = m, m.epoch
		m.sessions[n] = &session{}
		m.changes = append(m.changes, change{"assigned", pipeline.Assignment{Partition: n, Epoch: p.epoch}})
	}
	m.tell()
}

// drop takes a partition from its owner, who is told.
func (p *part) drop(n int32) {
	if p.owner == nil {
		return
	}
	p.owner.changes = append(p.owner.changes, change{"lost", pipeline.Assignment{Partition: n, Epoch: p.epoch}})
	delete(p.owner.sessions, n)
	p.owner = nil
}

// Take asks for a partition back: it may be committed until it is released.
func (m *Member) Take(partition int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sessions[partition].going = true
	m.changes = append(m.changes, change{"revoked", pipeline.Assignment{Partition: partition}})
	m.tell()
}

// Lose takes a partition away at once.
func (m *Member) Lose(partition int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.parts[partition].drop(partition)
	m.tell()
}

// Rob takes a partition away without telling: the news is still under way.
func (m *Member) Rob(partition int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.parts[partition].owner = nil
}

// Read is how many records of a partition have been given out.
func (m *Member) Read(partition int32) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.read[partition]
}

// Poll is pipeline.Source.
func (m *Member) Poll(ctx context.Context, into *pipeline.Batch) error {
	*into = pipeline.Batch{}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		m.mu.Lock()
		some := m.fill(into)
		changed := m.changed
		m.mu.Unlock()
		if some {
			return nil
		}
		var tick <-chan time.Time
		if m.Ends > 0 {
			tick = time.After(m.Ends) //nolint:forbidigo // as a broker takes its time
		}
		select {
		case <-changed:
		case <-tick:
		case <-ctx.Done():
		}
	}
}

// fill needs mu.
func (m *Member) fill(into *pipeline.Batch) (some bool) {
	named := map[int32]bool{}
	for len(m.changes) > 0 {
		c := m.changes[0]
		n := c.assignment.Partition
		if named[n] || c.kind != "assigned" && len(into.Assigned) > 0 || c.kind == "lost" && len(into.Revoked) > 0 {
			break
		}
		named[n] = true
		switch c.kind {
		case "lost":
			into.Lost = append(into.Lost, n)
		case "revoked":
			into.Revoked = append(into.Revoked, n)
		default:
			into.Assigned = append(into.Assigned, c.assignment)
		}
		m.changes = m.changes[1:]
	}
	ends := m.Ends > 0 && (m.now()-m.asked >= schemas.Millis(m.Ends.Milliseconds()) || m.now() < m.asked)
	if ends {
		m.asked = m.now()
	}
	for n, p := range m.parts {
		n := int32(n)
		s := m.sessions[n]
		if s == nil || !s.started || s.going {
			continue
		}
		end := int64(len(p.input))
		if count := min(end-s.next, int64(m.PollMax)); count > 0 {
			into.Fetched = append(into.Fetched, lend(n, p.input[s.next:s.next+count]))
			s.next += count
			m.read[n] += int(count)
		}
		if ends {
			into.Ends = append(into.Ends, pipeline.End{Partition: n, Offset: end, Wall: m.now()})
		}
	}
	return len(named) > 0 || len(into.Fetched) > 0 || len(into.Ends) > 0
}

// Start is pipeline.Source.
func (m *Member) Start(partition int32, offset int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sessions[partition]; s != nil {
		s.started, s.next = true, offset
		m.tell()
	}
}

// Release is pipeline.Source.
func (m *Member) Release(partition int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sessions[partition]; s != nil && s.going {
		delete(m.sessions, partition)
		if m.parts[partition].owner == m {
			m.parts[partition].owner = nil
		}
	}
	m.tell()
}

// Commit is pipeline.Committer.
func (m *Member) Commit(ctx context.Context, outs []*worker.Output) error {
	if hook, ok := m.BeforeCommit.get(); ok {
		if err := hook(ctx, outs); err != nil {
			return err
		}
	}
	m.mu.Lock()
	err := m.commit(outs)
	m.mu.Unlock()
	if hook, ok := m.AfterCommit.get(); ok && err == nil {
		return hook()
	}
	return err
}

func (m *Member) commit(outs []*worker.Output) error {
	var lost []int32
	for _, out := range outs {
		n := out.Mark.Partition
		if p := m.parts[n]; (p.owner != m || p.epoch != out.Epoch) && !slices.Contains(lost, n) {
			lost = append(lost, n)
		}
	}
	if len(lost) > 0 {
		return &pipeline.LostError{Partitions: lost}
	}
	for _, out := range outs {
		p := m.parts[out.Mark.Partition]
		last := p.mark.N
		if !p.found && len(out.Items) > 0 {
			last = out.Items[0].N - 1 // nobody knows any more
		}
		for _, it := range out.Items {
			if it.N != last+1 {
				return fmt.Errorf("output %d committed after %d: %w", it.N, last, pipeline.ErrPermanent)
			}
			last = it.N
			p.outputs, p.told, p.spoken = append(p.outputs, it), append(p.told, Told(it, out.Sets)), append(p.spoken, m.now())
		}
		p.mark, p.found = out.Mark, true
	}
	m.tell()
	return nil
}

// Committed is pipeline.Committer.
func (m *Member) Committed(_ context.Context, partition int32) (schemas.Mark, bool, error) {
	mark, found := m.Mark(partition)
	return mark, found, nil
}

// Bounds is pipeline.History.
func (m *Member) Bounds(_ context.Context, partition int32) (start, end int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.parts[partition].start, int64(len(m.parts[partition].input)), nil
}

// lend gives copies of records that are written over when they are freed, as what a client
// fetches next does.
func lend(partition int32, records []worker.Record) pipeline.Fetched {
	lent := slices.Clone(records)
	var all [][]byte
	for i := range lent {
		r := &lent[i]
		r.Key, r.Value, r.Headers = slices.Clone(r.Key), slices.Clone(r.Value), slices.Clone(r.Headers)
		all = append(all, r.Key, r.Value)
		for j := range r.Headers {
			r.Headers[j].Value = slices.Clone(r.Headers[j].Value)
			all = append(all, r.Headers[j].Value)
		}
	}
	return pipeline.Fetched{Partition: partition, Records: lent, Free: func() {
		for _, b := range all {
			for i := range b {
				b[i] = 0xff
			}
		}
		clear(lent)
	}}
}

// Input is pipeline.History.
func (m *Member) Input(ctx context.Context, partition int32, from, to int64, each func([]worker.Record) error) error {
	if hook, ok := m.BeforeInput.get(); ok {
		if err := hook(ctx, partition); err != nil {
			return err
		}
	}
	m.mu.Lock()
	start, input := m.parts[partition].start, m.parts[partition].input
	m.mu.Unlock()
	if from < start {
		return fmt.Errorf("input from %d, the log begins at %d: %w", from, start, pipeline.ErrExpired)
	}
	for to = min(to, int64(len(input))); from < to; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(to-from, 500)
		if err := each(slices.Clone(input[from : from+n])); err != nil {
			return err
		}
		from += n
	}
	return nil
}

// Said is pipeline.History.
func (m *Member) Said(ctx context.Context, partition int32, after, to uint64, each func(*worker.Item) error) error {
	if hook, ok := m.BeforeSaid.get(); ok {
		if err := hook(ctx, partition); err != nil {
			return err
		}
	}
	for _, it := range m.Told(partition) {
		if it.N <= after || it.N > to {
			continue
		}
		if it.N > after+1 {
			return fmt.Errorf("outputs of partition %d begin with %d, wanted %d: %w", partition, it.N, after+1, pipeline.ErrExpired)
		}
		if err := each(&it); err != nil {
			return err
		}
		after = it.N
	}
	if after < to {
		return fmt.Errorf("outputs of partition %d end with %d, wanted up to %d", partition, after, to)
	}
	return nil
}

// SaidAll is pipeline.History.
func (m *Member) SaidAll(_ context.Context, partition int32, to uint64, each func(*worker.Item) error) error {
	for _, it := range m.Told(partition) {
		if to > 0 && it.N > to {
			break
		}
		if err := each(&it); err != nil {
			return err
		}
	}
	return nil
}

// Last is pipeline.History.
func (m *Member) Last(_ context.Context, partition int32) (n uint64, err error) {
	for _, it := range m.Outputs(partition) {
		n = max(n, it.N)
	}
	return n, nil
}
