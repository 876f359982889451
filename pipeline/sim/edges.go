package sim

import (
	"context"
	"fmt"
	"slices"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Poll is pipeline.Source. Whoever polls gives its turn to the world first.
func (p *process) Poll(ctx context.Context, into *pipeline.Batch) error {
	*into = pipeline.Batch{}
	p.rest()
	p.at("poll", 60)
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.fenced {
		return fmt.Errorf("poll: %w", pipeline.ErrFenced)
	}
	p.join(p)
	p.polled = p.steps
	p.tries, p.paused, p.robbed, p.deceived, p.hopeless = 0, p.world.paused, false, false, false
	p.hear()
	p.bring(into)
	p.robbed = len(p.heard) > 0 // what it is given now may have been taken again
	if len(into.Lost)+len(into.Revoked)+len(into.Assigned) > 0 {
		return nil
	}
	if p.away == KafkaAway {
		return nil
	}
	for i, part := range p.parts {
		if s := &p.sessions[i]; s.owned && !s.going && s.started {
			if err := p.fetch(part, s, into); err != nil {
				return err
			}
		}
	}
	return nil
}

// fetch gives some records, and sometimes where the partition ends. What it gives
// may be of a partition that is somebody else's by now.
func (p *process) fetch(part *part, s *session, into *pipeline.Batch) error {
	if n := len(part.input) - s.read; n > 0 && (p.calm() || p.rng.IntN(4) > 0) {
		if first := part.input[s.read].Offset; first < part.start {
			return gone(part, first)
		}
		if !p.opt.Large {
			n = 1 + p.rng.IntN(n)
		}
		into.Fetched = append(into.Fetched, pipeline.Fetched{Partition: part.number, Records: part.input[s.read : s.read+n]})
		s.read += n
	}
	if p.calm() || p.rng.IntN(2) == 0 { // also in log time, where it must not matter
		into.Ends = append(into.Ends, pipeline.End{Partition: part.number, Offset: part.ends, Wall: p.now()})
	}
	return nil
}

// Start is pipeline.Source.
func (p *process) Start(partition int32, offset int64) {
	part, s := p.parts[partition], &p.sessions[partition]
	if !s.owned || s.going || !s.told {
		return
	}
	s.started, s.read = true, 0
	delete(p.rebuilding, ownership{partition, s.epoch})
	for s.read < len(part.input) && part.input[s.read].Offset < offset {
		s.read++
	}
}

// Release is pipeline.Source.
func (p *process) Release(partition int32) {
	s := &p.sessions[partition]
	if !s.owned || !s.going {
		return
	}
	if part := p.parts[partition]; part.owner == p && part.epoch == s.epoch {
		p.free(part)
	}
	*s = session{}
}

// Commit is pipeline.Committer: all of outs or nothing, marks alone too (sources/kafka,
// marks.go): a request that comes late comes with an epoch that has been moved on, and
// changes nothing. A process can be killed, or stopped for long, wherever a transaction
// of Kafka's can be left in the middle.
func (p *process) Commit(_ context.Context, outs []*worker.Output) error {
	p.at("before a commit", 60)
	p.waits(KafkaSlow)
	if p.tries++; p.tries > 1000 {
		return p.breach("%s makes %d commits between two polls", p.name, p.tries)
	}
	if p.fenced {
		return fmt.Errorf("commit: %w", pipeline.ErrFenced)
	}
	if err := p.refuse(outs, true); err != nil {
		return err
	}
	switch {
	case p.away == KafkaAway:
		return errTimeout
	case p.takes > 0 && !p.calm() && saying(outs) > p.takes:
		p.fault("transaction aborted for its size")
		return pipeline.ErrAborted
	case p.chance("aborted", 15):
		return pipeline.ErrAborted
	}
	if err := p.unwritable(outs); err != nil {
		return err
	}
	t := p.produce(p, outs)
	p.at("in a transaction, before its offsets", 80)
	p.waits(KafkaSlow)
	if t.state == undecided {
		if err := p.refuse(outs, false); err != nil {
			p.decide(t, false)
			return err
		}
		for _, out := range outs {
			p.parts[out.Mark.Partition].pending = t
		}
		p.at("in a transaction, before its end", 80)
	}
	switch {
	case t.state == undone: // for its age, or by a successor
		return errTimeout
	case p.away == KafkaAway, p.chance("unknown, not done", 20):
		return errTimeout
	case p.chance("unknown, done later", 30):
		t.late = true
		return errTimeout
	}
	if p.decide(t, true); p.broken != nil {
		return p.broken
	}
	if p.chance("unknown, done", 20) {
		return errTimeout
	}
	p.at("after a commit", 60)
	return nil
}

// unwritable refuses outputs of partitions that take no writes: some have begun to be so
// with this commit, which has tried.
func (p *process) unwritable(outs []*worker.Output) error {
	if !p.opt.Sick || p.calm() {
		return nil
	}
	e := &pipeline.UnwritableError{Err: errTimeout}
	for _, out := range outs {
		part := p.parts[out.Mark.Partition]
		if len(out.Items) == 0 || slices.Contains(e.Partitions, part.number) {
			continue
		}
		if part.sick <= p.steps && p.gone.IntN(30) == 0 {
			p.fault("a partition takes no writes")
			part.sick, e.Tried = p.steps+1+p.gone.IntN(20), true
		}
		if part.sick > p.steps {
			e.Partitions = append(e.Partitions, part.number)
			p.keepsWaiting(part, out.Epoch)
		}
	}
	if len(e.Partitions) == 0 {
		return nil
	}
	return e
}

// keepsWaiting notes since when a partition has something that is not committed.
func (p *process) keepsWaiting(part *part, epoch int64) {
	if own := (ownership{part.number, epoch}); part.waiting != own {
		part.waiting, part.waits = own, p.polled
	}
}

// saying counts the outputs that say something.
func saying(outs []*worker.Output) (n int) {
	for _, out := range outs {
		if len(out.Items) > 0 {
			n++
		}
	}
	return n
}

// refuse says which partitions of a commit are not the process's: as it believes
// itself, or as the group has it. A client that was refused waits until it hears
// why; if that takes too long it only knows that nothing has happened.
func (p *process) refuse(outs []*worker.Output, own bool) error {
	p.hear()
	var lost []int32
	for _, out := range outs {
		part, s := p.parts[out.Mark.Partition], p.sessions[out.Mark.Partition]
		if own && (!s.owned || s.epoch != out.Epoch) || !own && (part.owner != p || part.epoch != out.Epoch) {
			lost = append(lost, part.number)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	p.fault("commit of a zombie refused")
	if !own && p.chance("refused without a reason", 3) {
		p.rest()
		return pipeline.ErrAborted
	}
	return &pipeline.LostError{Partitions: lost}
}

// cover notes what the process can know to be committed.
func (p *process) cover(m schemas.Mark) {
	if c := &p.covered[m.Partition]; m.Next >= c.Next || m.N > c.N { // of a rebuild that began earlier
		*c = m
	}
}

// Committed is pipeline.Committer: a stable fetch, after what the process itself has
// left open is ended.
func (p *process) Committed(_ context.Context, partition int32) (schemas.Mark, bool, error) {
	p.at("before asking for the mark", 80)
	p.waits(KafkaSlow)
	part := p.parts[partition]
	if t := p.open; t != nil && p.away != KafkaAway {
		p.decide(t, t.late && p.rng.IntN(2) == 0)
	}
	for part.pending != nil || p.away == KafkaAway {
		p.fault("waited for a transaction")
		if p.rest(); p.fenced {
			return schemas.Mark{}, false, fmt.Errorf("ask for the mark: %w", pipeline.ErrFenced)
		}
	}
	if p.broken != nil {
		return schemas.Mark{}, false, p.broken
	}
	if p.fenced {
		return schemas.Mark{}, false, fmt.Errorf("ask for the mark: %w", pipeline.ErrFenced)
	}
	if p.chance("the mark is not told", 40) {
		p.keepsWaiting(part, p.sessions[partition].epoch)
		return schemas.Mark{}, false, errAway
	}
	part.readBy = max(part.readBy, p.sessions[partition].epoch)
	if !part.found {
		return schemas.Mark{}, false, nil
	}
	m, err := schemas.ParseMark(partition, part.next, part.committed)
	p.cover(m)
	return m, true, err
}
