package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"footfall/pipeline/worker"
	"footfall/schemas"
)

// shop publishes what storefronts publish: events of a few shoppers, so that each
// meets every rule, with repeats, late ones, bad clocks and broken JSON. It has its
// own time and its own dice: the log is the same whatever happens to its readers.
type shop struct {
	world   *world
	rng     *rand.Rand
	now     schemas.Millis
	ids     int
	rounds  int
	kinds   []string
	poisons []string
	last    map[int32][]worker.Record // to be repeated, of each partition
	again   map[int32]worker.Record   // repeated last
}

// newShop opens a shop, and the partitions it publishes to.
func newShop(w *world) *shop {
	s := &shop{
		world: w, rng: rand.New(rand.NewPCG(w.opt.Seed, 8)), //nolint:gosec // a simulation wants to be repeatable
		now:     1_767_225_600_000,
		kinds:   []string{"view", "view", "view", "add_to_cart", "purchase", "purchase", "refund", "search"},
		poisons: poisons(),
		last:    map[int32][]worker.Record{}, again: map[int32]worker.Record{},
	}
	for i := range 1 + s.rng.IntN(3) {
		w.parts = append(w.parts, newPart(int32(i)))
	}
	return s
}

// round lets some time go by and publishes some records.
func (s *shop) round() {
	s.pass()
	if s.rounds++; s.rounds == 10 {
		s.crowd(s.world.opt.Crowd)
	}
	for range s.rng.IntN(6) {
		p := s.world.parts[s.rng.IntN(len(s.world.parts))]
		if s.rng.IntN(12) == 0 {
			p.ends += int64(1 + s.rng.IntN(2)) // aborted records, markers
			s.put(p, worker.Record{Offset: p.ends - 1, Time: s.now, Control: true})
		}
		r := s.record(p)
		r.Offset = p.ends
		p.ends++
		s.put(p, r)
	}
}

// crowd lets so many users come within a second, who all fall silent at once: their
// timers are due within a second too.
func (s *shop) crowd(users int) {
	for i := range users {
		p := s.world.parts[s.rng.IntN(len(s.world.parts))]
		user := fmt.Sprintf("p%d-c%d", p.number, i)
		at := s.now + schemas.Millis(s.rng.IntN(1000))
		s.ids++
		s.put(p, worker.Record{
			Offset: p.ends, Time: at, Key: []byte(user), Lane: s.lane(), Headers: s.laneHeaders(s.lane()),
			Value: fmt.Appendf(nil, `{"event_id":"e%d","type":"view","user_id":%q,"time":%d}`, s.ids, user, at),
		})
		p.ends++
	}
}

// lane is that of most records.
func (s *shop) lane() schemas.Lane {
	if s.world.opt.LogTime {
		return schemas.Replay
	}
	return schemas.Live
}

func (s *shop) laneHeaders(lane schemas.Lane) []schemas.Header {
	if lane == schemas.Live {
		return nil
	}
	return []schemas.Header{{Key: schemas.LaneHeader, Value: []byte(lane.String())}}
}

// poisons are what should never have been sent: it must be refused, each time with
// the same reason, and stop nothing.
func poisons() []string {
	deep := strings.Repeat(`{"a":`, 3000) + "1" + strings.Repeat("}", 3000)
	return []string{
		deep, strings.Repeat("[", 100_000), `{"event_id":"` + strings.Repeat("x", 70_000) + `"}`,
		"\x00\xff\xfe", `{"event_id":"e","type":"view","user_id":"u","time":1e999}`,
		`{"event_id":"e","type":"view","user_id":"u","time":99999999999999999999}`,
		`{"event_id":"e","type":"purchase","user_id":"u","time":1767225600000,"order_id":"o","revenue":1e300}`,
		`{"event_id":"\ud800","type":"view","user_id":"u","time":1767225600000}`, "null", "[]", `"x"`, "",
	}
}

func (s *shop) put(p *part, r worker.Record) {
	p.input = append(p.input, r)
	p.said = append(p.said, s.now)
	p.stepped = append(p.stepped, s.world.steps)
}

// pass lets time go by: mostly seconds, sometimes minutes or days, now and then
// months.
func (s *shop) pass() {
	switch s.rng.IntN(30) {
	case 0:
		s.now += schemas.Day * schemas.Millis(1+s.rng.IntN(120))
	case 1, 2:
		s.now += schemas.Hour * schemas.Millis(1+s.rng.IntN(48))
	case 3:
		s.now += schemas.Minute * schemas.Millis(55+s.rng.IntN(90))
	case 4, 5, 6:
		s.now += schemas.Minute * schemas.Millis(10+s.rng.IntN(50)) // within a dedup window, or just not
	default:
		s.now += schemas.Millis(s.rng.IntN(20_000))
	}
}

func (s *shop) record(p *part) worker.Record {
	opt := &s.world.opt
	lane := s.lane()
	if lane == schemas.Live && s.rng.IntN(20) == 0 {
		lane = schemas.Backfill
	}
	r := worker.Record{Time: s.now - schemas.Millis(s.rng.IntN(3000)), Lane: lane, Headers: s.laneHeaders(lane)}
	last := s.last[p.number]
	if len(last) > 0 && s.rng.IntN(8) == 0 {
		again, ok := s.again[p.number]
		if !ok || s.rng.IntN(2) == 0 {
			again = last[s.rng.IntN(len(last))]
			s.again[p.number] = again
		}
		if s.rng.IntN(2) == 0 { // by a client that stamped it some time ago
			r.Time -= schemas.Minute * schemas.Millis(s.rng.IntN(90))
		}
		r.Key, r.Value = again.Key, again.Value
		return r
	}
	user := fmt.Sprintf("p%d-u%d", p.number, s.rng.IntN(6))
	switch {
	case opt.Hot && s.rng.IntN(2) == 0:
		user = fmt.Sprintf("p%d-u0", p.number)
	case s.rng.IntN(30) == 0: // once, and never again
		user = fmt.Sprintf("p%d-v%d", p.number, s.ids)
	}
	r.Key = []byte(user)
	r.Value = []byte(s.event(user, r.Time))
	switch s.rng.IntN(40) {
	case 0:
		r.Value = r.Value[:s.rng.IntN(len(r.Value))]
	case 1:
		r.Value = nil
	case 2:
		r.Key = nil
	case 3:
		if !opt.LogTime { // there the wall decides nothing
			r.Time += schemas.Hour * 2
		}
	case 4, 5:
		if opt.Poison {
			r.Value = []byte(s.poisons[s.rng.IntN(len(s.poisons))])
		}
	}
	last = append(last, r)
	s.last[p.number] = last[max(0, len(last)-20):]
	return r
}

func (s *shop) event(user string, at schemas.Millis) string {
	s.ids++
	id := s.ids
	if id > 3 && s.rng.IntN(50) == 0 { // by a client that numbers anew
		id -= 1 + s.rng.IntN(3)
	}
	kind := s.kinds[s.rng.IntN(len(s.kinds))]
	switch s.rng.IntN(12) {
	case 0:
		at -= schemas.Day * schemas.Millis(s.rng.IntN(200)) // late
	case 1:
		at -= schemas.Hour * schemas.Millis(s.rng.IntN(50))
	case 2:
		at += schemas.Second * schemas.Millis(s.rng.IntN(400)) // up to, and beyond, what is taken
	}
	text := fmt.Sprintf(`{"event_id":"e%d","type":%q,"user_id":%q,"time":%d`, id, kind, user, at)
	if kind == "purchase" || kind == "refund" {
		order := s.rng.IntN(s.ids) // some are repeated
		currency := []string{"EUR", "USD"}[s.rng.IntN(2)]
		text += fmt.Sprintf(`,"order_id":"o%d","revenue":%d.%02d5,"currency":%q`, order, s.rng.IntN(500), s.rng.IntN(100), currency)
	}
	if s.world.opt.Sets {
		text += s.enrich(kind)
	}
	return text + "}"
}
