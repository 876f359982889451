package sim

import (
	"context"
	"fmt"

	"footfall/pipeline"
	"footfall/pipeline/oracle"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Poll is pipeline.Source: each call is one step of the world.
func (p *process) Poll(ctx context.Context, into *pipeline.Batch) error {
	*into = pipeline.Batch{}
	if err := p.mishap("poll", 60); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.depth > 0 && (p.polls == 0 || p.calm()) {
		p.cancel() // this one ends gracefully
		return context.Canceled
	}
	p.polls, p.tries = p.polls-1, 0
	if p.ended() && p.isThrough() {
		p.through = true
		p.stats = p.pipeline.Status()
		p.cancel()
		return context.Canceled
	}
	if err := p.advance(); err != nil {
		return err
	}
	for i, part := range p.parts {
		s := &p.sessions[i]
		switch {
		case s.going:
		case s.owned && !p.owns(part):
			*s = session{}
			into.Lost = append(into.Lost, part.number)
		case !s.owned:
			if part.owner == nil && (p.calm() || p.rng.IntN(3) > 0) {
				part.epoch++
				part.owner = p
				*s = session{owned: true, epoch: part.epoch}
				into.Assigned = append(into.Assigned, pipeline.Assignment{Partition: part.number, Epoch: part.epoch})
			}
		case p.chance("revoked", 40):
			s.going = true
			into.Revoked = append(into.Revoked, part.number)
		case p.chance("lost", 40):
			*s = session{}
			part.owner = nil
			into.Lost = append(into.Lost, part.number)
		case s.started:
			p.fetch(part, s, into)
		}
	}
	return nil
}

// owns tells whether the group agrees that a partition is the process's.
func (p *process) owns(part *part) bool {
	return part.owner == p && part.epoch == p.sessions[part.number].epoch
}

func (p *process) fetch(part *part, s *session, into *pipeline.Batch) {
	if n := len(part.input) - s.read; n > 0 && (p.calm() || p.rng.IntN(4) > 0) {
		n = 1 + p.rng.IntN(n)
		into.Fetched = append(into.Fetched, pipeline.Fetched{Partition: part.number, Records: part.input[s.read : s.read+n]})
		s.read += n
	}
	if p.calm() || p.rng.IntN(2) == 0 { // also in log time, where it must not matter
		into.Ends = append(into.Ends, pipeline.End{Partition: part.number, Offset: part.ends, Wall: p.wall()})
	}
}

// isThrough tells that everything has been read and committed, under the rules
// that are in force.
func (p *process) isThrough() bool {
	for i, part := range p.parts {
		if !p.sessions[i].started || p.sessions[i].read < len(part.input) || !part.found || part.next < part.ends ||
			part.mark.Fired < part.mark.Clock || part.mark.Rules != p.using.program.Hash() {
			return false
		}
	}
	return true
}

// Start is pipeline.Source.
func (p *process) Start(partition int32, offset int64) {
	part, s := p.parts[partition], &p.sessions[partition]
	s.started, s.rebuilding, s.read = true, false, 0
	for s.read < len(part.input) && part.input[s.read].Offset < offset {
		s.read++
	}
}

// Release is pipeline.Source.
func (p *process) Release(partition int32) {
	if p.owns(p.parts[partition]) {
		p.parts[partition].owner = nil
	}
	p.sessions[partition] = session{}
}

// Commit is pipeline.Committer: all of outs or nothing.
func (p *process) Commit(_ context.Context, outs []*worker.Output) error {
	if err := p.mishap("before commit", 60); err != nil {
		return err
	}
	if p.tries++; p.tries > 1000 {
		return p.breach("%d commits between two polls", p.tries)
	}
	var lost []int32
	for _, out := range outs {
		part := p.parts[out.Mark.Partition]
		if part.owner != p || part.epoch != out.Epoch {
			lost = append(lost, part.number)
		}
	}
	switch {
	case len(lost) > 0:
		p.fault("zombie's commit refused")
		return &pipeline.LostError{Partitions: lost}
	case p.chance("aborted", 15):
		return pipeline.ErrAborted
	case p.chance("unknown, not done", 20):
		return errTimeout
	}
	for _, out := range outs {
		if err := p.write(out); err != nil {
			return err
		}
	}
	p.result.Commits++
	if p.chance("unknown, done", 20) {
		return errTimeout
	}
	return p.mishap("after commit", 60)
}

// write makes one output part of the log. The commit is known at once; its
// records are seen when the markers arrive.
func (p *process) write(out *worker.Output) error {
	part := p.parts[out.Mark.Partition]
	if err := p.checkCommit(part, out); err != nil {
		return err
	}
	for i := range out.Items {
		part.outputs = append(part.outputs, p.encode(part, &out.Items[i], out.Sets))
	}
	text, err := out.Mark.AppendText(nil)
	if err != nil {
		return p.breach("partition %d: a mark that cannot be written: %w", part.number, err)
	}
	if part.mark == (schemas.Mark{}) { // the first commit there ever was
		part.boot, part.folded = out.Mark.Bootstrap, out.Mark.Next
	}
	if s := &p.sessions[part.number]; s.rebuilding {
		part.folded, part.hashes = s.start, map[uint64]uint64{}
	}
	part.hashes[out.Mark.N] = out.Mark.Hash
	p.result.Reviewed += countOf(out.Items, schemas.ByRules)
	part.committed, part.next, part.found, part.mark = string(text), out.Mark.Next, true, out.Mark
	return nil
}

// encode turns an output into the record that a reader of the topics sees.
func (w *world) encode(p *part, it *worker.Item, sets []schemas.SetNames) Said {
	h := schemas.OutputHeaders{ID: schemas.OutputID(group, p.number, it.N), N: it.N, Next: it.Next, Clock: it.Clock, Fired: it.Fired}
	offset := int64(len(p.outputs))
	if d := it.DeadLetter; d != nil {
		r := d.Encode(events, &h, false)
		return Said{*it, "deadletters", oracleRecord("deadletters", p.number, offset, w.wall(), r.Key, r.Value, r.Headers)}
	}
	t := it.Transition
	value := t.AppendJSON(nil, &schemas.TransitionContext{ID: h.ID, Topic: events, Sets: sets, Currency: "EUR"})
	headers := schemas.AppendTransitionHeaders(nil, &h, schemas.SourceOf(group), t)
	topic := "triggers"
	if t.Muted != schemas.NotMuted {
		topic = "muted"
	}
	return Said{*it, topic, oracleRecord(topic, p.number, offset, w.wall(), []byte(t.User), value, headers)}
}

// decode is what a reader makes of it.
func (w *world) decode(o *Said) (*worker.Item, error) {
	it := &worker.Item{N: o.Item.N, Next: o.Item.Next, Clock: o.Item.Clock, Fired: o.Item.Fired}
	if o.Topic != "deadletters" {
		t, err := schemas.DecodeTransition(o.Record.Value, nil)
		it.Transition = &t
		return it, err
	}
	var headers []schemas.Header
	for _, h := range o.Record.Headers {
		headers = append(headers, schemas.Header{Key: h.Key, Value: h.Value})
	}
	d, err := schemas.ParseDeadLetter(o.Record.Key, o.Record.Value, headers)
	it.DeadLetter = &d.DeadLetter
	return it, err
}

// Committed is pipeline.Committer.
func (p *process) Committed(_ context.Context, partition int32) (schemas.Mark, bool, error) {
	if err := p.mishap("ask for the mark", 80); err != nil {
		return schemas.Mark{}, false, err
	}
	part := p.parts[partition]
	if !part.found {
		return schemas.Mark{}, false, nil
	}
	m, err := schemas.ParseMark(partition, part.next, part.committed)
	return m, true, err
}

// Bounds is pipeline.History.
func (p *process) Bounds(_ context.Context, partition int32) (start, end int64, err error) {
	if err := p.mishap("ask for bounds", 100); err != nil {
		return 0, 0, err
	}
	part := p.parts[partition]
	p.sessions[partition].start = part.start
	return part.start, part.ends, nil
}

// Input is pipeline.History: runs of any length.
func (p *process) Input(_ context.Context, partition int32, from, to int64, each func([]worker.Record) error) error {
	part := p.parts[partition]
	if from < part.start {
		return fmt.Errorf("input of partition %d from %d, the log begins at %d: %w", partition, from, part.start, errGone)
	}
	for i := 0; i < len(part.input); {
		if part.input[i].Offset < from {
			i++
			continue
		}
		if err := p.mishap("replay", 100); err != nil {
			return err
		}
		n := 1 + p.rng.IntN(20)
		var run []worker.Record
		for ; i < len(part.input) && len(run) < n && part.input[i].Offset < to; i++ {
			run = append(run, part.input[i])
		}
		if len(run) == 0 {
			return nil
		}
		if err := each(run); err != nil {
			return err
		}
	}
	return nil
}

// Said is pipeline.History: it waits for the markers that lag.
func (p *process) Said(_ context.Context, partition int32, after, to uint64, _ schemas.Millis, each func(*worker.Item) error) error {
	part := p.parts[partition]
	for part.visible < len(part.outputs) && (part.visible == 0 || part.outputs[part.visible-1].Item.N < to) {
		p.fault("waited for a marker")
		part.visible++
	}
	return p.read(part, after, to, each)
}

// SaidAll is pipeline.History.
func (p *process) SaidAll(_ context.Context, partition int32, to uint64, each func(*worker.Item) error) error {
	part := p.parts[partition]
	p.sessions[partition].rebuilding = true
	part.visible = len(part.outputs) // whoever has to ask for it has been gone for longer than any marker
	if to == 0 {
		to = uint64(len(part.outputs))
	}
	return p.read(part, 0, to, each)
}

func (p *process) read(part *part, after, to uint64, each func(*worker.Item) error) error {
	for i := range part.outputs[:part.visible] {
		o := &part.outputs[i]
		if o.Item.N <= after || o.Item.N > to {
			continue
		}
		if err := p.mishap("read outputs", 200); err != nil {
			return err
		}
		it, err := p.decode(o)
		if err != nil {
			return err
		}
		if err := each(it); err != nil {
			return err
		}
	}
	return nil
}

// Last is pipeline.History.
func (p *process) Last(_ context.Context, partition int32) (uint64, error) {
	part := p.parts[partition]
	if part.visible == 0 {
		return 0, p.mishap("ask for outputs", 100)
	}
	return part.outputs[part.visible-1].Item.N, p.mishap("ask for outputs", 100)
}

func oracleRecord(topic string, partition int32, offset int64, time schemas.Millis, key, value []byte, headers []schemas.Header) oracle.Record {
	r := oracle.Record{Topic: topic, Partition: partition, Offset: offset, Time: int64(time), Key: key, Value: value}
	for _, h := range headers {
		r.Headers = append(r.Headers, oracle.Header{Key: h.Key, Value: h.Value})
	}
	return r
}
