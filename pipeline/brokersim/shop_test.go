package brokersim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
)

// shop publishes events of a few shoppers, with repeats, broken ones, and some whose
// next transition is due within seconds, by no further event.
type shop struct {
	w    *world
	rng  *rand.Rand
	ids  int
	last []*kgo.Record
}

func newShop(w *world) *shop {
	return &shop{w: w, rng: rand.New(rand.NewPCG(w.opt.seed, 8))}
}

// open publishes until closing time.
func (s *shop) open(closing time.Time) {
	for time.Now().Before(closing) {
		for range 1 + s.rng.IntN(3) {
			s.w.publish(s.record())
		}
		time.Sleep(time.Duration(50+s.rng.IntN(1000)) * time.Millisecond)
	}
}

func (s *shop) record() *kgo.Record {
	if len(s.last) > 0 && s.rng.IntN(8) == 0 {
		again := s.last[s.rng.IntN(len(s.last))]
		return &kgo.Record{Partition: again.Partition, Key: again.Key, Value: again.Value}
	}
	p := int32(s.rng.IntN(partCount))
	s.ids++
	user, kind := fmt.Sprintf("p%d-u%d", p, s.rng.IntN(5)), []string{"view", "view", "purchase", "refund"}[s.rng.IntN(4)]
	at := now()
	if s.rng.IntN(4) == 0 { // somebody nobody has seen for long: 30 days since a purchase, or 90 since anything, are nearly over
		user = fmt.Sprintf("p%d-old%d", p, s.ids)
		at += schemas.Millis(s.rng.IntN(20_000))
		if kind == "purchase" {
			at -= 30 * schemas.Day
		} else {
			at -= 90 * schemas.Day
		}
	}
	text := fmt.Sprintf(`{"event_id":"e%d","type":%q,"user_id":%q,"time":%d`, s.ids, kind, user, at)
	if kind == "purchase" || kind == "refund" {
		text += fmt.Sprintf(`,"order_id":"o%d","revenue":%d.50,"currency":%q`, s.ids, s.rng.IntN(500), []string{"EUR", "USD"}[s.rng.IntN(2)])
	}
	r := &kgo.Record{Partition: p, Key: []byte(user), Value: []byte(text + "}")}
	if s.rng.IntN(12) == 0 {
		r.Value = r.Value[:s.rng.IntN(len(r.Value))]
	}
	s.last = append(s.last, r)
	s.last = s.last[max(0, len(s.last)-10):]
	return r
}
