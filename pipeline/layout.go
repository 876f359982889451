package pipeline

import (
	"context"
	"fmt"
)

// Layout is what a bucket's snapshots rest upon, and what may not change between two
// lives: which topic the input is, and over how many partitions its users are spread.
// It stands in the bucket beside them, from before the first one on.
type Layout struct {
	Topic      string
	ID         string // of the topic, which another one of the same name does not have
	Partitions int32
}

const layoutForm = "footfall-layout/1 topic=%q id=%q partitions=%d\n"

func (l Layout) String() string { return fmt.Sprintf(layoutForm, l.Topic, l.ID, l.Partitions) }

// checkLayout is the first step of every recovery, so that it waits for a bucket that is
// away as all the others do. It refuses a bucket whose snapshots are of another topic than the input, or
// of another number of partitions. A partition that nobody has a snapshot of would
// else begin from nothing, and a topic that was made anew be taken for the old one as
// soon as it has as many records.
func (p *Pipeline) checkLayout(ctx context.Context) error {
	ours := p.cfg.Layout
	if ours == (Layout{}) || p.layoutHolds.Load() {
		return nil
	}
	text, err := p.cfg.Snapshots.Claim(ctx, ours.String())
	if err != nil {
		return err
	}
	var l Layout
	// What is cut short may end within a number.
	if _, err := fmt.Sscanf(text, layoutForm, &l.Topic, &l.ID, &l.Partitions); err != nil || l.String() != text {
		return fmt.Errorf("the bucket's layout is %q, which this footfall cannot read: %w. Give the bucket that holds this group's snapshots, or remove its object layout if it is the right one", text, ErrPermanent)
	}
	switch {
	case l.Topic != ours.Topic, l.ID != ours.ID:
		return fmt.Errorf("the bucket's snapshots are of topic %s with id %s, and the input is topic %s with id %s: "+
			"it was deleted and made again, or is another cluster's: %w. Profiles of one log are worth nothing on another: "+
			"give the new topic a group, output topics and a bucket of its own. "+
			"If it holds the same records at the same offsets (restored from a copy), remove the object layout from the bucket",
			l.Topic, l.ID, ours.Topic, ours.ID, ErrPermanent)
	case l.Partitions != ours.Partitions:
		return fmt.Errorf("topic %s had %d partitions when this group began and has %d now: %w. "+
			"Users have moved between partitions and their profiles have not: publish to a new topic with the new count, "+
			"and give it a group, output topics and a bucket of its own",
			ours.Topic, l.Partitions, ours.Partitions, ErrPermanent)
	}
	p.layoutHolds.Store(true)
	return nil
}
