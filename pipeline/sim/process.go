package sim

import (
	"context"
	"errors"
	"strings"

	"footfall/pipeline"
	"footfall/pipeline/snapshot"
	"footfall/schemas"
)

// process is one life of footfall. It stands between a pipeline and the world, as
// its Source, Committer, History and Bucket; every call can be its last, or the one
// at which it is stopped for so long that others take its partitions.
type process struct {
	*world
	pipeline *pipeline.Pipeline
	depth    int // processes that are stopped while this one lives
	polls    int // left; below 0: no limit
	tries    int // commits since the last poll
	sessions []session
	slice    int // timers fired in one call at most
	using    rules
	cancel   context.CancelFunc
	crashed  bool
	robbed   bool // was stopped, and others lived meanwhile
	through  bool // ended since all is done
}

// session is what a process believes of one partition.
type session struct {
	epoch   int64
	owned   bool
	going   bool // revoked, not yet released
	started bool
	read    int // index of the next record to fetch

	rebuilding bool  // reads all outputs: what it commits before Start is a rebuild
	start      int64 // of the log, as it was told last
}

// live runs one process until it crashes, has used up its polls, or all is through.
func (w *world) live(depth, polls int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p := &process{
		world: w, depth: depth, polls: polls, sessions: make([]session, len(w.parts)),
		slice: 1 + w.rng.IntN(20), using: w.rules[w.using], cancel: cancel,
	}
	for _, part := range w.parts {
		part.owner = nil // whoever it was is dead, or has been given up by the group
	}
	if w.opt.Slice > 0 {
		p.slice = w.opt.Slice
	}
	rebuild := w.rebuild
	w.rebuild = false
	p.pipeline = pipeline.New(p.config(rebuild))
	err := p.pipeline.Run(ctx)
	for _, part := range w.parts {
		if part.owner == p {
			part.owner = nil
		}
	}
	switch {
	case w.broken != nil:
	case p.crashed, errors.Is(err, errBucket):
		w.result.Crashes++ // a failing bucket stops the process when nothing can begin without
	case err == nil:
		w.finished = p.through
	case p.robbed:
		// It read half of one state of the world and half of another. Ending itself
		// is fair; the next life shows whether it did harm.
		w.fault("robbed, and ended itself")
	case w.helpless(err):
		w.fault("refused to begin")
		w.result.Refusals++
		w.rebuild = true
	default:
		_ = w.breach("the process ended with: %w", err)
	}
}

func (p *process) config(rebuild bool) pipeline.Config {
	return pipeline.Config{
		Worker:  p.workerConfig(p.slice),
		Decoder: p.using.decoder, Source: p, Committer: p, History: p,
		Snapshots: snapshot.NewStore(bucketOf{p}, 3),
		Now:       p.wall,
		Grace:     grace, LazyCommit: 5 * schemas.Second, SnapshotEvery: schemas.Minute,
		Backoff: func(context.Context, int) { p.drift += 100 },
		Paused:  func() bool { return p.paused },
		Rebuild: rebuild,
		Report:  p.report,
		Inline:  true,
	}
}

func (p *process) report(f pipeline.Fact) {
	switch f := f.(type) {
	case pipeline.Recovered:
		if strings.HasPrefix(f.Snapshot, "none") {
			p.result.Rebuilds++
		}
	case pipeline.SnapshotSkipped:
		p.fault("snapshot skipped")
	}
}

// mishap ends the process here, sometimes, or stops it while others live.
func (p *process) mishap(where string, oneIn int) error {
	if p.crashed {
		return errCrash
	}
	if p.calm() {
		return nil
	}
	oneIn = max(2, oneIn/max(1, p.opt.Crash))
	if p.opt.Zombies && p.depth < 2 && p.rng.IntN(3*oneIn) == 0 {
		p.fault("stopped " + where)
		p.robbed = true
		p.between()
		p.live(p.depth+1, 1+p.rng.IntN(20))
		for i := range p.parts {
			if p.parts[i].owner != nil {
				_ = p.breach("partition %d is owned by a process that has ended", i)
			}
		}
		if p.broken != nil {
			p.crashed = true
			return errCrash
		}
		return nil
	}
	if p.rng.IntN(oneIn) != 0 {
		return nil
	}
	p.fault("crash " + where)
	p.crashed = true
	return errCrash
}
