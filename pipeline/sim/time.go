package sim

import (
	"slices"

	"footfall/schemas"
)

// now is the time in which the world lives, and wall what its clocks show.
func (w *world) now() schemas.Millis { return w.shop.now + w.drift }

// wall is what a clock shows that is off by skew. It notes what was shown.
func (w *world) wall(skew schemas.Millis) schemas.Millis {
	wall := w.now() + w.jump + skew
	for len(w.shown) <= w.steps {
		w.shown = append(w.shown, walls{least: wall, most: wall})
	}
	s := &w.shown[w.steps]
	s.least, s.most = min(s.least, wall), max(s.most, wall)
	w.latest = max(w.latest, wall)
	return wall
}

// walls are the least and the greatest wall that anybody has seen in a step.
type walls struct{ least, most schemas.Millis }

// shownSince gives the walls that were seen from a step on.
func (w *world) shownSince(step int) walls {
	all := walls{least: w.now() + w.jump, most: w.now() + w.jump}
	for i := step; i < len(w.shown); i++ {
		all.least, all.most = min(all.least, w.shown[i].least), max(all.most, w.shown[i].most)
	}
	return all
}

// advance lets the world go on by one step.
func (w *world) advance() {
	w.brokers()
	w.bucket.step()
	if w.opt.Wall != 0 && (!w.opt.Years || !w.ended()) && w.walls.IntN(10) == 0 {
		w.jumpWall()
	}
	if w.ended() {
		if w.steps == w.opt.Steps+1 {
			w.calmDown()
		}
		w.drift += schemas.Minute
		return
	}
	w.outage()
	if w.away == KafkaAway {
		return // nothing can be published either
	}
	w.shop.round()
	if w.opt.Pause && w.chance("paused or resumed", 15) {
		w.paused = !w.paused
	}
	w.housekeep()
	if w.opt.Doom != NoDoom && w.steps == w.opt.Steps/2 {
		w.doom()
	}
}

// calmDown is the moment in which faults stop.
func (w *world) calmDown() {
	if w.away = NoOutage; w.opt.Years {
		w.jump = 0
	}
	for _, p := range w.parts {
		w.result.Early = append(w.result.Early, slices.Clip(p.outputs))
	}
}

// outage takes something away for an hour or two, twice at most.
func (w *world) outage() {
	if w.opt.Outage == NoOutage {
		return
	}
	if w.away == NoOutage {
		first, second := w.opt.Steps/4, w.opt.Steps/2
		if w.steps != first && w.steps != second {
			return
		}
		w.away, w.back = w.opt.Outage, w.steps+12+int(w.opt.Fault%30)
		w.fault(w.away.String())
		w.trace("an outage begins")
	}
	if w.steps == w.back {
		w.away = NoOutage
		w.trace("an outage ends")
		return
	}
	w.drift += 5 * schemas.Minute
}

// jumpWall sets the clocks of the machines. Forward by any number of years in log
// time, where the wall decides nothing; it never lies before the log, where every
// record would rightly be one from the future. Otherwise backward by minutes, or,
// with Years, to anywhere, and soon back again.
func (w *world) jumpWall() {
	const years = int64(20 * 365 * schemas.Day)
	switch {
	case w.opt.LogTime:
		w.jump = schemas.Millis(w.walls.Int64N(years))
	case w.opt.Years && w.jump == 0 && w.walls.IntN(3) == 0:
		w.jump = schemas.Millis(w.walls.Int64N(2*years) - years)
		w.fault("wall jumps by years")
	case w.opt.Years:
		w.jump = 0
	default:
		w.jump = -schemas.Millis(w.walls.Int64N(int64(4 * schemas.Minute)))
	}
	w.trace("the wall is off by %d s", w.jump/schemas.Second)
}
