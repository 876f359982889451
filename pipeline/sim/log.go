package sim

import (
	"cmp"
	"slices"

	"footfall/pipeline/archive"
	"footfall/pipeline/oracle"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// part is one partition of every topic, and what the group knows of it.
type part struct {
	number int32

	start   int64 // of the input log; retention moves it
	ends    int64 // offset after the last input record
	input   []worker.Record
	said    []schemas.Millis // the shop's time when input[i] was published
	stepped []int            // the step in which it was
	streams [3]*stream       // triggers, muted, dead letters
	outputs []Said           // committed, in order of n
	where   []place          // of outputs[i]

	committed string
	next      int64 // offset committed with it
	found     bool
	mark      schemas.Mark   // the last one ever committed, expired or not
	earlier   []schemas.Mark // committed before, the newest last
	reached   schemas.Mark   // the last one ever committed, save that it is not set back
	pending   *transaction   // has added an offset here, and is not decided
	sick      int            // the step from which its outputs can be written again
	waiting   ownership      // whose outputs have waited for that
	waits     int            // the poll since which they may

	owner     *process // as the group has it; nil: nobody
	epoch     int64
	revokedAt int   // step; 0: its owner may keep it
	readBy    int64 // the greatest epoch under which the mark was read

	boot    int64             // first offset that is not history, as the first commit says
	folded  int64             // profiles are made of what the log has from here on
	hashes  map[uint64]uint64 // committed hash of outputs, by number: the lineage
	rebuilt []*rebuilt
	forgot  []forgotten
	skipped uint64 // number that a rebuild went on from which did not know how many there were
}

// place is where an output lies.
type place struct {
	stream *stream
	offset int64
}

// visible tells whether a read_committed reader gets to it, kept whether retention
// has left it.
func (a place) visible() bool { return a.offset < a.stream.stable() }
func (a place) kept() bool    { return a.offset >= a.stream.start }

// stream is one partition of an output topic. Transactions write into it, and their
// markers come when they come.
type stream struct {
	topic   string
	start   int64 // retention moves it
	end     int64
	entries []entry
	open    []*batch // without a marker, the oldest first
}

// entry is a record, or a marker.
type entry struct {
	offset int64
	record archive.Record
	of     *transaction // nil: a marker
}

// batch is what one transaction has written.
type batch struct {
	first int64
	of    *transaction
}

// add appends what a transaction writes.
func (s *stream) add(o *Said, of *transaction) place {
	r := archive.Record{Offset: s.end, Time: schemas.Millis(o.Record.Time), Key: o.Record.Key, Value: o.Record.Value}
	for _, h := range o.Record.Headers {
		r.Headers = append(r.Headers, schemas.Header{Key: h.Key, Value: h.Value})
	}
	s.entries = append(s.entries, entry{s.end, r, of})
	s.end++
	return place{s, r.Offset}
}

// stable is the last stable offset: nothing from there on is read yet.
func (s *stream) stable() int64 {
	if len(s.open) > 0 {
		return s.open[0].first
	}
	return s.end
}

// mark writes the marker of the i-th open batch.
func (s *stream) mark(i int) {
	s.open = append(s.open[:i], s.open[i+1:]...)
	s.entries = append(s.entries, entry{offset: s.end})
	s.end++
}

func newPart(number int32) *part {
	p := &part{number: number, hashes: map[uint64]uint64{0: 0}}
	for i, topic := range []string{triggers, muted, deadLetters} {
		p.streams[i] = &stream{topic: topic}
	}
	return p
}

// last is the number of the last output ever committed. Numbers have no gap, save where
// a rebuild did not know how many there were.
func (p *part) last() uint64 {
	if len(p.outputs) == 0 {
		return 0
	}
	return p.outputs[len(p.outputs)-1].Item.N
}

// undecided tells whether a transaction has written outputs, and no marker yet.
func (p *part) undecided() bool {
	return slices.ContainsFunc(p.streams[:], func(s *stream) bool { return len(s.open) > 0 })
}

// after is the index of the first output with a greater number than n.
func (p *part) after(n uint64) int {
	i, _ := slices.BinarySearchFunc(p.outputs, n+1, func(o Said, n uint64) int { return cmp.Compare(o.Item.N, n) })
	return i
}

// cause is the offset of the record that an output is due to; of a timer's, the first
// that was not applied.
func (o *Said) cause() int64 {
	switch t := o.Item.Transition; {
	case t == nil:
		return o.Item.DeadLetter.Pos.Offset
	case t.Cause.Kind == schemas.ByEvent:
		return t.Cause.Pos.Offset
	}
	return o.Item.Next
}

// streamOf is where an item goes.
func (p *part) streamOf(it *worker.Item) *stream {
	switch {
	case it.DeadLetter != nil:
		return p.streams[2]
	case it.Transition.Muted != schemas.NotMuted:
		return p.streams[1]
	}
	return p.streams[0]
}

// transaction is one, of one or several partitions.
type transaction struct {
	by    *process
	outs  []*worker.Output
	said  [][]Said  // of outs[i].Items
	where [][]place // of outs[i].Items
	began int       // step
	state state
	late  bool // its end has been asked for, and the request is under way
}

type state int

const (
	undecided state = iota
	done
	undone
)

// produce writes the records of a transaction; nobody sees them yet.
func (w *world) produce(by *process, outs []*worker.Output) *transaction {
	t := &transaction{by: by, outs: outs, began: w.steps}
	by.open = t
	for _, out := range outs {
		p := w.parts[out.Mark.Partition]
		said, where := make([]Said, 0, len(out.Items)), make([]place, 0, len(out.Items))
		for i := range out.Items {
			s := p.streamOf(&out.Items[i])
			if n := len(s.open); n == 0 || s.open[n-1].of != t {
				s.open = append(s.open, &batch{s.end, t})
			}
			o := w.encode(p, &out.Items[i], s.end, out.Sets)
			if w.opt.ignores && w.chance("refused, and nobody looks", 60) {
				continue
			}
			where = append(where, s.add(&o, t))
			said = append(said, o)
		}
		t.said, t.where = append(t.said, said), append(t.where, where)
	}
	return t
}

// decide commits a transaction, or aborts it.
func (w *world) decide(t *transaction, commit bool) {
	if t.state != undecided {
		return
	}
	if t.by.open == t {
		t.by.open = nil
	}
	t.state = undone
	if commit {
		t.state = done
	}
	for i, out := range t.outs {
		p := w.parts[out.Mark.Partition]
		if p.pending == t {
			p.pending = nil
		}
		if !commit {
			continue
		}
		if w.checkCommit(p, out, t.by) != nil {
			return
		}
		p.outputs, p.where = append(p.outputs, t.said[i]...), append(p.where, t.where[i]...)
		w.write(p, out, t.by)
	}
	if commit {
		w.result.Commits++
	}
}

// write makes a mark the committed one.
func (w *world) write(p *part, out *worker.Output, by *process) {
	text, err := out.Mark.AppendText(nil)
	if err != nil {
		_ = w.breach("partition %d: a mark that cannot be written: %w", p.number, err)
		return
	}
	if p.mark == (schemas.Mark{}) { // the first commit there ever was
		p.boot, p.folded = out.Mark.Bootstrap, out.Mark.Next
	}
	if r := by.rebuilds(out); r != nil {
		p.folded, p.hashes = r.start, map[uint64]uint64{}
		if !p.found {
			p.skipped = out.Mark.N
		}
		if n := len(p.rebuilt); n == 0 || p.rebuilt[n-1] != r {
			p.rebuilt = append(p.rebuilt, r)
		}
	}
	i, _ := slices.BinarySearchFunc(p.input, out.Mark.Next-1, func(r worker.Record, o int64) int { return cmp.Compare(r.Offset, o) })
	for ; i >= 0 && i < len(p.input) && p.input[i].Offset >= p.reached.Next; i-- {
		if p.stepped[i] > settledIn {
			w.result.Waited = max(w.result.Waited, w.steps-p.stepped[i])
		}
	}
	if w.doomed {
		_ = w.breach("partition %d: committed at %d, though the input is another one", p.number, out.Mark.Next)
		return
	}
	p.hashes[out.Mark.N] = out.Mark.Hash
	by.cover(out.Mark)
	if p.earlier = append(p.earlier, p.mark); !p.found || by.rebuilds(out) != nil {
		p.earlier = nil // of a past that is over
	}
	p.earlier = p.earlier[max(0, len(p.earlier)-earlierMost):]
	w.result.Reviewed += countOf(out.Items, schemas.ByRules)
	w.result.Epochs += countOf(out.Items, schemas.ByEpoch)
	p.committed, p.next, p.found, p.mark = string(text), out.Mark.Next, true, out.Mark
	if out.Mark.Next >= p.reached.Next || by.rebuilds(out) != nil {
		p.reached = out.Mark
	}
	w.note(p.committed, uint64(p.number), uint64(p.next))
	w.trace("%s: partition %d is committed at %d with n=%d", by.name, p.number, p.next, p.mark.N)
}

// brokers is what the brokers do by themselves: markers are written, requests that
// were given up are carried out, what takes too long is aborted.
func (w *world) brokers() {
	if w.away == KafkaAway {
		return
	}
	for _, p := range w.parts {
		for _, s := range p.streams {
			for i := 0; i < len(s.open); i++ {
				if s.open[i].of.state != undecided && (w.calm() || w.rng.IntN(3) > 0) {
					s.mark(i)
					i--
				}
			}
		}
	}
	for _, t := range w.undecided() {
		switch {
		case t.late && w.rng.IntN(3) == 0:
			w.fault("end of a transaction, late")
			w.decide(t, true)
		case w.steps-t.began > w.limits.transaction:
			w.fault("transaction aborted for its age")
			w.decide(t, false)
		}
	}
}

// undecided gives the open transactions, in the order of the partitions' streams; those
// of marks alone have written nothing there.
func (w *world) undecided() (all []*transaction) {
	seen := map[*transaction]bool{}
	add := func(t *transaction) {
		if t != nil && t.state == undecided && !seen[t] {
			seen[t] = true
			all = append(all, t)
		}
	}
	for _, p := range w.parts {
		for _, s := range p.streams {
			for _, b := range s.open {
				add(b.of)
			}
		}
		add(p.pending)
	}
	return all
}

// abortOf ends what lives of a slot have left open, as the first request of a
// transactional id's next owner does. A commit that is under way may be faster.
func (w *world) abortOf(s *slot) {
	for _, t := range w.undecided() {
		if t.by.slot == s {
			w.decide(t, t.late && w.rng.IntN(2) == 0)
		}
	}
}

// encode turns an output into the record that a reader of the topics sees.
func (w *world) encode(p *part, it *worker.Item, offset int64, sets []schemas.SetNames) Said {
	h := schemas.OutputHeaders{ID: schemas.OutputID(group, p.number, it.N), N: it.N, Next: it.Next, Clock: it.Clock, Fired: it.Fired}
	if d := it.DeadLetter; d != nil {
		r := d.Encode(events, &h, false)
		return Said{Item: *it, Topic: deadLetters, Record: oracleRecord(deadLetters, p.number, offset, w.now(), r.Key, r.Value, r.Headers)}
	}
	t := it.Transition
	value := t.AppendJSON(nil, &schemas.TransitionContext{ID: h.ID, Topic: events, Sets: sets, Currency: "EUR"})
	headers, _ := schemas.AppendTransitionHeaders[schemas.Header](nil, nil, &h, schemas.SourceOf(group), t)
	topic := triggers
	if t.Muted != schemas.NotMuted {
		topic = muted
	}
	o := Said{
		Item: *it, Topic: topic, Record: oracleRecord(topic, p.number, offset, w.now(), []byte(t.User), value, headers),
		Set: sets[t.Set].Name, To: sets[t.Set].Segments[t.To], by: w.rulesOf(sets),
	}
	switch {
	case t.From == schemas.Retired:
		o.From = t.Names.From
	case t.From != schemas.NoSegment:
		o.From = sets[t.Set].Segments[t.From]
	}
	return o
}

// decode is what a reader makes of it. That is worked out once: outputs are read back often.
func (w *world) decode(o *Said) (*worker.Item, error) {
	it := &worker.Item{N: o.Item.N, Next: o.Item.Next, Clock: o.Item.Clock, Fired: o.Item.Fired}
	if o.Topic != deadLetters {
		if o.decoded == nil {
			t, err := schemas.DecodeTransition(o.Record.Value, nil)
			if err != nil {
				return it, err
			}
			o.decoded = &t
		}
		t := *o.decoded // it has no segments, whose numbers nobody gave
		it.Transition = &t
		return it, nil
	}
	var headers []schemas.Header
	for _, h := range o.Record.Headers {
		headers = append(headers, schemas.Header{Key: h.Key, Value: h.Value})
	}
	d, err := schemas.ParseDeadLetter(o.Record.Key, o.Record.Value, headers)
	it.DeadLetter = &d.DeadLetter
	return it, err
}

func oracleRecord(topic string, partition int32, offset int64, time schemas.Millis, key, value []byte, headers []schemas.Header) oracle.Record {
	r := oracle.Record{Topic: topic, Partition: partition, Offset: offset, Time: int64(time), Key: key, Value: value}
	for _, h := range headers {
		r.Headers = append(r.Headers, oracle.Header{Key: h.Key, Value: h.Value})
	}
	return r
}
