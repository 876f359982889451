package pipeline

import (
	"sync/atomic"

	"footfall/schemas"
)

// A wall that is set wrong, by years, for a second, would have everybody lost for good: clocks
// never go back. So a tick is believed only as far as Config.JumpMax beyond the furthest that
// a clock here has come, which any event moves. Until then time stands still for who is
// silent, and somebody is told.

// reached is how far the clocks of this process have come.
type reached struct {
	clock   atomic.Int64 // the furthest, of partitions that have been here too; 0: none has seen anything
	refused atomic.Bool  // the last tick was
}

// note takes a partition's clock.
func (r *reached) note(clock schemas.Millis) {
	for was := r.clock.Load(); int64(clock) > was && !r.clock.CompareAndSwap(was, int64(clock)); {
		was = r.clock.Load()
	}
}

// tick gives the time that a partition's clock may go to, 0 where it may not.
func (p *Pipeline) tick(end *End, lane schemas.Lane) schemas.Millis {
	to, most := end.Wall-p.cfg.Grace, p.cfg.JumpMax
	if lane != schemas.Live {
		return to // which moves no clock
	}
	clock := schemas.Millis(p.reached.clock.Load())
	ok := most == 0 || to <= clock+most
	refused := !ok && clock > 0 // where nothing was seen nobody waits for the time
	if p.reached.refused.Swap(refused) != refused {
		p.cfg.Report(TimeHeld{Held: refused, Wall: end.Wall, Clock: clock, Most: most})
	}
	if !ok {
		return 0
	}
	return to
}
