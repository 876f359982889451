package sim

import (
	"context"
	"fmt"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Poll is pipeline.Source: each call is one step of the world.
func (w *world) Poll(ctx context.Context, into *pipeline.Batch) error {
	*into = pipeline.Batch{}
	if err := w.crash("poll", 60); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w.steps++
	w.tell()
	if !w.calm() || w.opt.Calm && w.steps < w.opt.Steps {
		w.pass()
		w.shop.publish()
	} else if w.through() {
		w.cancel()
		return context.Canceled
	} else {
		w.now += schemas.Minute
	}
	for _, p := range w.parts {
		switch {
		case p.going:
		case !p.owned:
			if w.calm() || w.rng.IntN(3) > 0 {
				p.epoch++
				p.owned, p.started = true, false
				into.Assigned = append(into.Assigned, pipeline.Assignment{Partition: p.number, Epoch: p.epoch})
			}
		case w.chance("revoked", 40):
			p.going = true
			into.Revoked = append(into.Revoked, p.number)
		case w.chance("lost", 40):
			p.owned, p.started = false, false
			into.Lost = append(into.Lost, p.number)
		case p.started:
			w.fetch(p, into)
		}
	}
	return nil
}

// tell lets some commit markers arrive.
func (w *world) tell() {
	for _, p := range w.parts {
		if p.visible < len(p.outputs) {
			p.visible += w.rng.IntN(len(p.outputs) - p.visible + 1)
		}
	}
}

// pass lets time go by: mostly seconds, sometimes days, now and then months.
func (w *world) pass() {
	switch w.rng.IntN(30) {
	case 0:
		w.now += schemas.Day * schemas.Millis(1+w.rng.IntN(120))
	case 1, 2, 3:
		w.now += schemas.Hour * schemas.Millis(1+w.rng.IntN(48))
	default:
		w.now += schemas.Millis(w.rng.IntN(20_000))
	}
}

func (w *world) fetch(p *part, into *pipeline.Batch) {
	if n := len(p.input) - p.read; n > 0 && (w.calm() || w.rng.IntN(4) > 0) {
		n = 1 + w.rng.IntN(n)
		into.Fetched = append(into.Fetched, pipeline.Fetched{Partition: p.number, Records: p.input[p.read : p.read+n]})
		p.read += n
	}
	if !w.opt.LogTime && (w.calm() || w.rng.IntN(2) == 0) {
		into.Ends = append(into.Ends, pipeline.End{Partition: p.number, Offset: p.ends, Wall: w.now})
	}
}

// through tells that everything has been read and committed.
func (w *world) through() bool {
	for _, p := range w.parts {
		if !p.started || p.read < len(p.input) || p.next < p.ends {
			return false
		}
		m, err := schemas.ParseMark(p.number, p.next, p.committed)
		if err != nil || m.Fired < m.Clock {
			return false
		}
	}
	return true
}

// Start is pipeline.Source.
func (w *world) Start(partition int32, offset int64) {
	p := w.parts[partition]
	p.started, p.read = true, 0
	for p.read < len(p.input) && p.input[p.read].Offset < offset {
		p.read++
	}
}

// Release is pipeline.Source.
func (w *world) Release(partition int32) {
	p := w.parts[partition]
	p.owned, p.going, p.started = false, false, false
}

// Commit is pipeline.Committer: all of outs or nothing.
func (w *world) Commit(_ context.Context, outs []*worker.Output) error {
	if err := w.crash("before commit", 60); err != nil {
		return err
	}
	var lost []int32
	for _, out := range outs {
		if p := w.parts[out.Mark.Partition]; !p.owned || p.epoch != out.Epoch {
			lost = append(lost, p.number)
		}
	}
	switch {
	case len(lost) > 0:
		return &pipeline.LostError{Partitions: lost}
	case w.chance("aborted", 15):
		return pipeline.ErrAborted
	case w.chance("unknown, not done", 20):
		return errTimeout
	}
	for _, out := range outs {
		if err := w.write(out); err != nil {
			return err
		}
	}
	w.result.Commits++
	if w.chance("unknown, done", 20) {
		return errTimeout
	}
	return w.crash("after commit", 60)
}

// write makes one output part of the log. The commit is known at once; its
// records are seen when the markers arrive.
func (w *world) write(out *worker.Output) error {
	p := w.parts[out.Mark.Partition]
	for i := range out.Items {
		if o, ok := w.encode(p, &out.Items[i]); ok {
			p.outputs = append(p.outputs, o)
		}
	}
	text, err := out.Mark.AppendText(nil)
	if err != nil {
		return err
	}
	if p.found && out.Mark.Next < p.next {
		return fmt.Errorf("partition %d: committed offset goes back from %d to %d", p.number, p.next, out.Mark.Next)
	}
	p.committed, p.next, p.found = string(text), out.Mark.Next, true
	return nil
}

// encode turns an output into the record that a reader of the topics sees.
func (w *world) encode(p *part, it *worker.Item) (output, bool) {
	h := schemas.OutputHeaders{ID: schemas.OutputID(group, p.number, it.N), N: it.N, Next: it.Next, Clock: it.Clock, Fired: it.Fired}
	offset := int64(len(p.outputs))
	if d := it.DeadLetter; d != nil {
		r := d.Encode(events, &h, false)
		return output{it.N, "deadletters", oracleRecord("deadletters", p.number, offset, w.now, r.Key, r.Value, r.Headers)}, true
	}
	t := it.Transition
	value := t.AppendJSON(nil, &schemas.TransitionContext{ID: h.ID, Topic: events, Sets: w.names, Currency: "EUR"})
	headers := schemas.AppendTransitionHeaders(nil, &h, schemas.SourceOf(group), t)
	topic := "triggers"
	if t.Muted != schemas.NotMuted {
		topic = "muted"
	}
	return output{it.N, topic, oracleRecord(topic, p.number, offset, w.now, []byte(t.User), value, headers)}, true
}

// Committed is pipeline.Committer.
func (w *world) Committed(_ context.Context, partition int32) (schemas.Mark, bool, error) {
	if err := w.crash("ask for the mark", 80); err != nil {
		return schemas.Mark{}, false, err
	}
	p := w.parts[partition]
	if !p.found {
		return schemas.Mark{}, false, nil
	}
	m, err := schemas.ParseMark(partition, p.next, p.committed)
	return m, true, err
}

// Bounds is pipeline.History.
func (w *world) Bounds(_ context.Context, partition int32) (start, end int64, err error) {
	return 0, w.parts[partition].ends, w.crash("ask for bounds", 100)
}

// Input is pipeline.History: runs of any length.
func (w *world) Input(_ context.Context, partition int32, from, to int64, each func([]worker.Record) error) error {
	p := w.parts[partition]
	for i := 0; i < len(p.input); {
		if p.input[i].Offset < from {
			i++
			continue
		}
		if err := w.crash("replay", 100); err != nil {
			return err
		}
		n := 1 + w.rng.IntN(20)
		var run []worker.Record
		for ; i < len(p.input) && len(run) < n && p.input[i].Offset < to; i++ {
			run = append(run, p.input[i])
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
func (w *world) Said(_ context.Context, partition int32, after, to uint64, _ schemas.Millis, each func(*worker.Item) error) error {
	p := w.parts[partition]
	for p.visible < len(p.outputs) && (p.visible == 0 || p.outputs[p.visible-1].n < to) {
		w.fault("waited for a marker")
		p.visible++
	}
	for _, o := range p.outputs[:p.visible] {
		if o.n <= after || o.n > to {
			continue
		}
		if err := w.crash("read outputs", 200); err != nil {
			return err
		}
		it, err := w.decode(o)
		if err != nil {
			return err
		}
		if err := each(it); err != nil {
			return err
		}
	}
	return nil
}

// SaidAll is pipeline.History.
func (w *world) SaidAll(ctx context.Context, partition int32, to uint64, each func(*worker.Item) error) error {
	if to == 0 {
		to = uint64(len(w.parts[partition].outputs))
	}
	return w.Said(ctx, partition, 0, to, 0, each)
}

// Spoken is pipeline.History.
func (w *world) Spoken(_ context.Context, partition int32) (bool, error) {
	return len(w.parts[partition].outputs) > 0, w.crash("ask for outputs", 100)
}

func (w *world) decode(o output) (*worker.Item, error) {
	var headers []schemas.Header
	for _, h := range o.record.Headers {
		headers = append(headers, schemas.Header{Key: h.Key, Value: h.Value})
	}
	if o.topic == "deadletters" {
		d, err := schemas.ParseDeadLetter(o.record.Key, o.record.Value, headers)
		return &worker.Item{N: o.n, DeadLetter: &d.DeadLetter}, err
	}
	t, err := schemas.DecodeTransition(o.record.Value, w.names)
	return &worker.Item{N: o.n, Transition: &t}, err
}
