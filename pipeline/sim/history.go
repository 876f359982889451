package sim

import (
	"context"
	"fmt"
	"slices"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

func gone(part *part, offset int64) error {
	return fmt.Errorf("input of partition %d from %d, the log begins at %d: %w", part.number, offset, part.start, pipeline.ErrExpired)
}

// ask is a request to the brokers that may go unanswered.
func (p *process) ask(ctx context.Context, what string) error {
	p.at(what, 100)
	p.waits(KafkaSlow)
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.away == KafkaAway || p.chance("not answered: "+what, 400) {
		return fmt.Errorf("%s: %w", what, errAway)
	}
	return nil
}

// Bounds is pipeline.History.
func (p *process) Bounds(ctx context.Context, partition int32) (start, end int64, err error) {
	if err := p.ask(ctx, "bounds"); err != nil {
		return 0, 0, err
	}
	part := p.parts[partition]
	if p.running == nil {
		p.sessions[partition].start = part.start
	}
	return part.start, part.ends, nil
}

// Input is pipeline.History: runs of any length.
func (p *process) Input(ctx context.Context, partition int32, from, to int64, each func([]worker.Record) error) error {
	part := p.parts[partition]
	for i := 0; i < len(part.input); {
		if part.input[i].Offset < from {
			i++
			continue
		}
		if err := p.ask(ctx, "replay"); err != nil {
			return err
		}
		if from < part.start {
			return gone(part, from)
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
		from = run[len(run)-1].Offset + 1
	}
	return nil
}

// Older is pipeline.Past: an archive that has everything, and does not always answer.
func (p *process) Older(ctx context.Context, partition int32, before int64, each func([]worker.Record) error) (int64, error) {
	part := p.parts[partition]
	refused := part.refused(before)
	kept := int64(0)
	for i := 0; i < len(part.input) && part.input[i].Offset < before; i++ {
		r := part.input[i]
		if r.Control {
			continue
		}
		if kept++; slices.Contains(refused, r.Offset) {
			continue
		}
		p.at("read the archive", 400)
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if p.away == TableAway || p.chance("not answered: the archive", 400) {
			return 0, fmt.Errorf("the archive: %w", errAway)
		}
		if err := each([]worker.Record{r}); err != nil {
			return 0, err
		}
	}
	return kept, nil
}

// Refused is pipeline.Past.
func (p *process) Refused(_ context.Context, partition int32, before int64) ([]int64, error) {
	if p.away == TableAway {
		return nil, fmt.Errorf("the archive: %w", errAway)
	}
	return p.parts[partition].refused(before), nil
}

// refused are the records before an offset of which there was ever a dead letter.
func (p *part) refused(before int64) (all []int64) {
	for i := range p.outputs {
		if d := p.outputs[i].Item.DeadLetter; d != nil && d.Pos.Offset < before {
			all = append(all, d.Pos.Offset)
		}
	}
	return all
}

// Said is pipeline.History: it waits for the markers that lag.
func (p *process) Said(_ context.Context, partition int32, after, to uint64, each func(*worker.Item) error) error {
	part := p.parts[partition]
	for i := part.after(after); i < len(part.outputs) && part.outputs[i].Item.N <= to; i++ {
		o := part.where[i]
		if !o.kept() || part.outputs[i].Item.N != after+1 {
			return fmt.Errorf("output %d of partition %d is missing: %w: start with --rebuild", part.outputs[i].Item.N, part.number, pipeline.ErrExpired)
		}
		for !o.visible() {
			p.fault("waited for a marker")
			p.rest()
		}
		if err := p.give(part, i, each); err != nil {
			return err
		}
		after++
	}
	return nil
}

// SaidAll is pipeline.History: what retention has left, up to what is asked for, or
// what is there now.
func (p *process) SaidAll(ctx context.Context, partition int32, to uint64, each func(*worker.Item) error) error {
	part := p.parts[partition]
	left := &rebuilt{known: map[chain]*Said{}, refused: map[int64]bool{}}
	filling := p.running != nil // a rebuild is the life's own
	now := len(part.outputs)
	for i := 0; i < now && (to == 0 || part.outputs[i].Item.N <= to); i++ {
		o := part.where[i]
		for o.kept() && !o.visible() && ctx.Err() == nil {
			p.rest()
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !o.kept() {
			continue
		}
		if err := p.give(part, i, each); err != nil {
			return err
		}
		if o := &part.outputs[i]; o.Item.Transition != nil {
			left.known[o.chain()] = o
		} else {
			left.refused[o.Item.DeadLetter.Pos.Offset] = true
		}
	}
	if filling {
		return nil
	}
	left.start, left.count = p.sessions[partition].start, len(part.outputs)
	p.rebuilding[ownership{partition, p.sessions[partition].epoch}] = left
	return nil
}

// give reads one output.
func (p *process) give(part *part, i int, each func(*worker.Item) error) error {
	p.at("read an output", 200)
	it, err := p.decode(&part.outputs[i])
	if err != nil {
		return err
	}
	return each(it)
}

// Last is pipeline.History: it waits until all that is written is decided. Who takes no writes
// may give no answer either.
func (p *process) Last(ctx context.Context, partition int32) (uint64, error) {
	part, err := p.parts[partition], p.ask(ctx, "the last output")
	if err == nil && part.sick > p.steps && !p.calm() && p.gone.IntN(2) == 0 { // it has no leader that could tell
		p.fault("not told the last output")
		err = fmt.Errorf("the last output: %w", errAway)
	}
	if err != nil {
		p.keepsWaiting(part, p.sessions[partition].epoch)
		return 0, err
	}
	for part.undecided() {
		p.fault("waited for a marker")
		p.rest()
	}
	for i, o := range slices.Backward(part.where) {
		if o.visible() && o.kept() {
			return part.outputs[i].Item.N, nil
		}
	}
	return 0, nil
}
