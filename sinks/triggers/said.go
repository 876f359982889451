package triggers

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// near is how many offsets are read rather than halved again.
const near = 1024

// settled is how long a number may be missing although nothing is undecided: a
// broker that has just become leader may be behind for a moment.
const settled = 3 * time.Second

// MissingError says that an output number is not there: a broken invariant, or
// outputs that retention has removed.
type MissingError struct {
	Partition int32
	N         uint64 // not found
	Why       string
	Expired   bool // retention has removed outputs: it is pipeline.ErrExpired then
	Undecided bool // a transaction hangs that may have it: pipeline.ErrAway, until somebody ends that
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("triggers: partition %d: output %d is missing: %s", e.Partition, e.N, e.Why)
}

func (e *MissingError) Unwrap() error {
	switch {
	case e.Expired:
		return pipeline.ErrExpired
	case e.Undecided:
		return pipeline.ErrAway
	}
	return nil
}

// Said gives the committed outputs of a partition with after < n <= to, in order of
// n: the three topics merged, without a gap. Commit markers come late, so it reads
// until to has been read, and waits for that; at its limit the error names the
// transaction that hangs.
func (s *Sink) Said(ctx context.Context, partition int32, after, to uint64, each func(*worker.Item) error) error {
	if after >= to {
		return nil
	}
	m := s.merge(partition)
	if err := m.from(ctx, after); err != nil {
		return err
	}
	return m.gapless(ctx, after, to, each)
}

// SaidAll gives every committed output that the topics still have, in order of n, up
// to and including to, or, where to is 0, up to the last one there is, once nothing is
// undecided: a number that is overlooked would be given again. Retention removes
// the oldest, of each topic by itself: below the first number left of a topic that
// has lost records a gap means nothing.
func (s *Sink) SaidAll(ctx context.Context, partition int32, to uint64, each func(*worker.Item) error) error {
	m := s.merge(partition)
	if to == 0 {
		if err := m.decided(ctx); err != nil {
			return err
		}
	}
	if err := m.from(ctx, 0); err != nil {
		return err
	}
	horizon, err := m.horizon(ctx)
	if err != nil {
		return err
	}
	for last := uint64(0); to == 0 || last < to; {
		item, err := m.next(ctx, last)
		switch {
		case err != nil:
			return err
		case item == nil && to == 0, (item == nil || item.N > to) && to > 0 && to < horizon:
			return nil
		case item == nil || (item.N != last+1 && item.N > horizon):
			if item, err = m.await(ctx, last+1); err != nil {
				return err
			}
		}
		if err := m.take(item, each); err != nil {
			return err
		}
		last = item.N
	}
	return nil
}

// Last returns the greatest number among the partition's committed outputs, 0 where
// there is none. It waits until nothing is undecided, and reads the ends of the topics
// only.
func (s *Sink) Last(ctx context.Context, partition int32) (n uint64, err error) {
	m := s.merge(partition)
	if err := m.decided(ctx); err != nil {
		return 0, err
	}
	for i := range m.streams {
		st := &m.streams[i]
		if err := m.refresh(ctx, st); err != nil {
			return 0, err
		}
		last, err := m.tail(ctx, st)
		if err != nil {
			return 0, err
		}
		n = max(n, last)
	}
	return n, nil
}

// tail returns the number of the last record of a topic. Offsets are not dense
// (markers, aborted records), so it looks back farther until it finds one.
func (m *merger) tail(ctx context.Context, st *stream) (n uint64, err error) {
	for back := int64(64); ; back *= 8 {
		from := max(st.start, st.stable-back)
		var last *kgo.Record
		for next := from; next < st.stable; {
			var records []*kgo.Record
			if records, next, err = m.advance(ctx, st, next, m.sink.session.Fetch); err != nil {
				return 0, err
			}
			for _, r := range records {
				if !r.Attrs.IsControl() {
					last = r
				}
			}
		}
		if last != nil {
			return m.sink.numberOf(last)
		}
		if from == st.start {
			return 0, nil
		}
	}
}

// merger reads the outputs of a partition from its three topics in order of their
// numbers. Each topic has them in order, since transactions of a partition follow
// one another.
type merger struct {
	sink      *Sink
	partition int32
	streams   [3]stream
	head      *stream // the one whose first record is item
	item      worker.Item
}

// stream is one topic being read.
type stream struct {
	topic       string
	start, next int64 // first offset of the log; where the next fetch begins
	stable, end int64 // as they were when last asked
	records     []*kgo.Record
	n           uint64 // of records[0], or of the one before it
}

func (s *Sink) merge(partition int32) *merger {
	m := &merger{sink: s, partition: partition}
	for i, topic := range s.topics {
		m.streams[i].topic = topic
	}
	return m
}

// from begins before the first record of each topic that has a number above after.
func (m *merger) from(ctx context.Context, after uint64) error {
	m.head = nil
	for i := range m.streams {
		st := &m.streams[i]
		st.records, st.n = nil, 0
		if err := m.refresh(ctx, st); err != nil {
			return err
		}
		if err := m.seek(ctx, st, after); err != nil {
			return err
		}
	}
	return nil
}

// seek finds where to begin by halving, since numbers ascend: a hint by time would have
// to trust the clocks of all who wrote here.
func (m *merger) seek(ctx context.Context, st *stream, after uint64) error {
	st.next = st.start
	for end := st.stable; after > 0 && end-st.next > near; {
		middle := st.next + (end-st.next)/2
		r, err := m.first(ctx, st, middle, end)
		if err != nil {
			return err
		}
		var n uint64
		if r != nil {
			if n, err = m.sink.numberOf(r); err != nil {
				return err
			}
		}
		if r == nil || n > after {
			end = middle
		} else {
			st.next = r.Offset
		}
	}
	return nil
}

// first returns the first record from an offset on and below another that is no marker, or
// nil.
func (m *merger) first(ctx context.Context, st *stream, from, end int64) (*kgo.Record, error) {
	for from < end {
		records, next, err := m.advance(ctx, st, from, m.sink.session.Peek)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if !r.Attrs.IsControl() {
				return r, nil
			}
		}
		from = next
	}
	return nil, nil
}

// standsMax is how often nothing is taken for an answer where something was decided: half a
// minute.
const standsMax = 1000

// advance reads some of what is decided from an offset on. There is something, or was: a
// broker that became leader without having it all gives nothing.
func (m *merger) advance(ctx context.Context, st *stream, from int64,
	fetch func(ctx context.Context, topic string, partition int32, offset int64) ([]*kgo.Record, int64, error),
) (records []*kgo.Record, next int64, err error) {
	for range standsMax {
		if records, next, err = fetch(ctx, st.topic, m.partition, from); err != nil || next > from {
			return records, next, err
		}
	}
	return nil, from, fmt.Errorf("triggers: %s/%d ends at offset %d, and %d was its end: asking again: %w", st.topic, m.partition, from, st.stable, pipeline.ErrAway)
}

func (m *merger) refresh(ctx context.Context, st *stream) (err error) {
	st.start, st.stable, st.end, err = m.sink.session.Range(ctx, st.topic, m.partition)
	return err
}

// fill fetches until the stream has a record, or is read up to what is decided.
func (m *merger) fill(ctx context.Context, st *stream) error {
	for len(st.records) == 0 && st.next < st.stable {
		records, next, err := m.advance(ctx, st, st.next, m.sink.session.Fetch)
		if err != nil {
			return err
		}
		st.next = next
		for _, r := range records {
			if !r.Attrs.IsControl() {
				st.records = append(st.records, r)
			}
		}
		if err := m.number(st); err != nil {
			return err
		}
	}
	return nil
}

// number reads the number of the first record, which is above all before it.
func (m *merger) number(st *stream) error {
	if len(st.records) == 0 {
		return nil
	}
	before := st.n
	var err error
	if st.n, err = m.sink.numberOf(st.records[0]); err != nil {
		return err
	}
	if st.n <= before {
		return fmt.Errorf("triggers: %s/%d: output %d comes after output %d: it was said twice, or by two owners; stop and report this",
			st.topic, m.partition, st.n, before)
	}
	return nil
}

// next returns the item of the smallest number above after among what is decided,
// or nil. It stays the next one until it is taken.
func (m *merger) next(ctx context.Context, after uint64) (*worker.Item, error) {
	m.head = nil
	for i := range m.streams {
		st := &m.streams[i]
		for {
			if err := m.fill(ctx, st); err != nil {
				return nil, err
			}
			if len(st.records) == 0 || st.n > after {
				break
			}
			if err := m.pop(st); err != nil {
				return nil, err
			}
		}
		if len(st.records) > 0 && (m.head == nil || st.n < m.head.n) {
			m.head = st
		}
	}
	if m.head == nil {
		return nil, nil
	}
	var err error
	m.item, err = m.sink.decode(m.head.records[0])
	return &m.item, err
}

// pop goes on to the next record of a stream, if it has been fetched.
func (m *merger) pop(st *stream) error {
	st.records = st.records[1:]
	return m.number(st)
}

// take gives out the next item.
func (m *merger) take(item *worker.Item, each func(*worker.Item) error) error {
	for i := range m.streams {
		if st := &m.streams[i]; st != m.head && len(st.records) > 0 && st.n == item.N {
			return fmt.Errorf("triggers: partition %d: output %d is in %s and in %s: it was said twice; stop and report this",
				m.partition, item.N, m.head.topic, st.topic)
		}
	}
	if err := each(item); err != nil {
		return err
	}
	return m.pop(m.head)
}

// gapless gives out after+1 to to, waiting for each to become visible.
func (m *merger) gapless(ctx context.Context, after, to uint64, each func(*worker.Item) error) error {
	for n := after + 1; n <= to; n++ {
		item, err := m.await(ctx, n)
		if err != nil {
			return err
		}
		if err := m.take(item, each); err != nil {
			return err
		}
	}
	return nil
}

// await waits until n can be read. While something is undecided, n may be in it;
// when nothing is, n is not there.
func (m *merger) await(ctx context.Context, n uint64) (*worker.Item, error) {
	began := time.Now()
	for {
		item, err := m.next(ctx, n-1)
		if err != nil {
			return nil, err
		}
		if item != nil && item.N == n {
			return item, nil
		}
		undecided, err := m.undecided(ctx)
		if err != nil {
			return nil, err
		}
		waited := time.Since(began)
		switch {
		case undecided == nil && waited > min(settled, m.sink.conf.Wait):
			return nil, m.missing(n, item)
		case undecided != nil && waited > m.sink.conf.Wait:
			return nil, &MissingError{Partition: m.partition, N: n, Undecided: true, Why: fmt.Sprintf("not visible after %v: %s",
				m.sink.conf.Wait, m.sink.session.Hanging(ctx, undecided.topic, m.partition))}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// undecided returns a stream with a transaction that is not decided, or nil.
func (m *merger) undecided(ctx context.Context) (open *stream, err error) {
	for i := range m.streams {
		st := &m.streams[i]
		if err := m.refresh(ctx, st); err != nil {
			return nil, err
		}
		if st.stable < st.end {
			open = st
		}
	}
	return open, nil
}

// decided waits until nothing is undecided, within the limit. What hangs for longer hangs in
// this partition: no other one has to end for it.
func (m *merger) decided(ctx context.Context) error {
	for began := time.Now(); ; {
		open, err := m.undecided(ctx)
		if open == nil || err != nil {
			return err
		}
		if time.Since(began) > m.sink.conf.Wait {
			return fmt.Errorf("triggers: partition %d: %s is undecided from offset %d on, after %v: %s: %w",
				m.partition, open.topic, open.stable, m.sink.conf.Wait, m.sink.session.Hanging(ctx, open.topic, m.partition), pipeline.ErrAway)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// missing says why n is not there; item is what comes next, nil for nothing.
func (m *merger) missing(n uint64, item *worker.Item) error {
	e := &MissingError{Partition: m.partition, N: n}
	for i := range m.streams {
		if st := &m.streams[i]; st.start > 0 {
			e.Expired = true
			e.Why = fmt.Sprintf("%s begins at offset %d: retention of the output topics must exceed the age of the oldest snapshot; start with --rebuild", st.topic, st.start)
			return e
		}
	}
	if e.Why = "the topics end before it, and no transaction is open: they are not the ones it was said to, or a broker has lost records"; item != nil {
		e.Why = fmt.Sprintf("output %d comes next, and no transaction is open: a broken invariant; stop and report this", item.N)
	}
	return e
}

// horizon is the highest number below which retention may have made gaps: the
// first one left of a topic that has lost records; of one that has lost all of
// them it is not known.
func (m *merger) horizon(ctx context.Context) (uint64, error) {
	var horizon uint64
	for i := range m.streams {
		st := &m.streams[i]
		if err := m.fill(ctx, st); err != nil {
			return 0, err
		}
		switch {
		case st.start == 0:
		case len(st.records) == 0:
			return math.MaxUint64, nil
		default:
			horizon = max(horizon, st.n)
		}
	}
	return horizon, nil
}

// decode reads a record back into what it says.
func (s *Sink) decode(r *kgo.Record) (worker.Item, error) {
	headers := headersOf(r)
	var item worker.Item
	var h schemas.OutputHeaders
	if r.Topic == s.conf.DeadLetters {
		d, err := schemas.ParseDeadLetter(r.Key, r.Value, headers)
		if err != nil {
			return item, at(r, err)
		}
		h, item.DeadLetter = d.Output, &d.DeadLetter
	} else {
		var err error
		if h, err = schemas.ParseTransitionHeaders(headers); err != nil {
			return item, at(r, err)
		}
		t, err := schemas.DecodeTransition(r.Value, nil) // whatever rules it was said under
		if err != nil {
			return item, at(r, err)
		}
		item.Transition = &t
	}
	item.N, item.Next, item.Clock, item.Fired = h.N, h.Next, h.Clock, h.Fired
	return item, nil
}

func (s *Sink) numberOf(r *kgo.Record) (uint64, error) { return NumberOf(r, s.conf.DeadLetters) }

// NumberOf reads an output's number, under the name it has in its topic; deadLetters is that
// of dead letters. The last header of the name is ours: a dead letter has those of the
// original in front.
func NumberOf(r *kgo.Record, deadLetters string) (uint64, error) {
	name := schemas.HeaderN
	if r.Topic == deadLetters {
		name = schemas.HeaderDeadN
	}
	for _, v := range slices.Backward(r.Headers) {
		if v.Key == name {
			n, err := strconv.ParseUint(string(v.Value), 10, 64)
			if err != nil {
				return 0, at(r, fmt.Errorf("header %s: got %.40q, want a number", name, v.Value))
			}
			return n, nil
		}
	}
	return 0, at(r, fmt.Errorf("no header %s: something else writes to this topic", name))
}

func headersOf(r *kgo.Record) []schemas.Header {
	headers := make([]schemas.Header, len(r.Headers))
	for i, h := range r.Headers {
		headers[i] = schemas.Header{Key: h.Key, Value: h.Value}
	}
	return headers
}

func at(r *kgo.Record, err error) error {
	return fmt.Errorf("triggers: %s/%d at offset %d: %w", r.Topic, r.Partition, r.Offset, err)
}
