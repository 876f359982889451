package sim

import (
	"fmt"

	"footfall/pipeline/worker"
	"footfall/schemas"
)

// shop publishes what storefronts publish: events of a few shoppers, so that each
// meets every rule, with repeats, late ones, bad clocks and broken JSON.
type shop struct {
	world *world
	ids   int
	kinds []string
	last  []worker.Record // to be repeated
}

func newShop(w *world) *shop {
	return &shop{world: w, kinds: []string{"view", "view", "view", "add_to_cart", "purchase", "purchase", "refund", "search"}}
}

// publish adds some records to the input.
func (s *shop) publish() {
	w := s.world
	for range w.rng.IntN(6) {
		p := w.parts[w.rng.IntN(len(w.parts))]
		if w.rng.IntN(12) == 0 {
			p.ends += int64(1 + w.rng.IntN(2)) // aborted records, markers
			p.input = append(p.input, worker.Record{Offset: p.ends - 1, Time: w.now, Control: true})
		}
		r := s.record(p)
		r.Offset = p.ends
		p.ends++
		p.input = append(p.input, r)
	}
}

func (s *shop) record(p *part) worker.Record {
	w := s.world
	lane := schemas.Live
	if w.opt.LogTime {
		lane = schemas.Replay
	} else if w.rng.IntN(20) == 0 {
		lane = schemas.Backfill
	}
	r := worker.Record{Time: w.now - schemas.Millis(w.rng.IntN(3000)), Lane: lane}
	if lane != schemas.Live {
		r.Headers = []schemas.Header{{Key: schemas.LaneHeader, Value: []byte(lane.String())}}
	}
	if len(s.last) > 0 && w.rng.IntN(10) == 0 {
		again := s.last[w.rng.IntN(len(s.last))]
		r.Key, r.Value = again.Key, again.Value
		return r
	}
	user := fmt.Sprintf("p%d-u%d", p.number, w.rng.IntN(6))
	r.Key = []byte(user)
	r.Value = []byte(s.event(user, r.Time))
	switch w.rng.IntN(40) {
	case 0:
		r.Value = r.Value[:w.rng.IntN(len(r.Value))]
	case 1:
		r.Value = nil
	case 2:
		r.Key = nil
	case 3:
		if !w.opt.LogTime { // there the wall decides nothing that an oracle could know
			r.Time += schemas.Hour * 2
		}
	}
	s.last = append(s.last, r)
	if len(s.last) > 20 {
		s.last = s.last[1:]
	}
	return r
}

func (s *shop) event(user string, at schemas.Millis) string {
	w := s.world
	s.ids++
	kind := s.kinds[w.rng.IntN(len(s.kinds))]
	switch w.rng.IntN(12) {
	case 0:
		at -= schemas.Day * schemas.Millis(w.rng.IntN(200)) // late
	case 1:
		at -= schemas.Hour * schemas.Millis(w.rng.IntN(50))
	case 2:
		at += schemas.Second * schemas.Millis(w.rng.IntN(400)) // up to, and beyond, what is taken
	}
	text := fmt.Sprintf(`{"event_id":"e%d","type":%q,"user_id":%q,"time":%d`, s.ids, kind, user, at)
	if kind == "purchase" || kind == "refund" {
		order := w.rng.IntN(s.ids) // some are repeated
		currency := []string{"EUR", "USD"}[w.rng.IntN(2)]
		text += fmt.Sprintf(`,"order_id":"o%d","revenue":%d.%02d5,"currency":%q`, order, w.rng.IntN(500), w.rng.IntN(100), currency)
	}
	return text + "}"
}
