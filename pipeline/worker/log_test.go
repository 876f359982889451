package worker

import (
	"fmt"
	"math/rand/v2"

	"footfall/schemas"
)

// logger writes a random log that seeks the edges: times that lie a boundary
// after an earlier one give or take a millisecond, repeated ids and orders, late
// and future events, refused records, gaps and control records.
type logger struct {
	rng   *rand.Rand
	lane  schemas.Lane
	users int
	now   schemas.Millis // record timestamps follow it, more or less
	next  int64
	times []schemas.Millis // of events and records so far
	ids   []string
}

func newLogger(rng *rand.Rand, lane schemas.Lane) *logger {
	return &logger{rng: rng, lane: lane, users: 5, now: base, times: []schemas.Millis{base}}
}

func (l *logger) write(n int) (log []Record) {
	for range n {
		log = append(log, l.record())
	}
	return log
}

func (l *logger) record() Record {
	l.step()
	if l.rng.IntN(12) == 0 {
		l.next += 1 + l.rng.Int64N(3) // an aborted transaction, or compaction
	}
	r := Record{Offset: l.next, Time: l.now, Lane: l.lane}
	l.next++
	if l.rng.IntN(25) == 0 {
		r.Control = true
		return r
	}
	if l.rng.IntN(8) == 0 { // a clock that is behind
		r.Time -= schemas.Millis(l.rng.Int64N(int64(2 * schemas.Hour)))
	}
	l.event(&r)
	return r
}

// step moves the shop's time.
func (l *logger) step() {
	random := func(most schemas.Millis) schemas.Millis { return schemas.Millis(l.rng.Int64N(int64(most))) }
	switch l.rng.IntN(12) {
	case 0, 1, 2, 3, 4:
		l.now += random(10 * schemas.Minute)
	case 5:
	case 6:
		l.now += random(3 * schemas.Hour)
	case 7:
		l.now += random(40 * schemas.Day)
	case 8:
		l.now += random(20 * schemas.Minute)
	default:
		spans := []schemas.Millis{schemas.Hour, 30 * schemas.Day, 90 * schemas.Day, 180 * schemas.Day}
		if to := l.times[l.rng.IntN(len(l.times))] + spans[l.rng.IntN(len(spans))] + random(3) - 1; to > l.now {
			l.now = to
		}
	}
}

// event fills in an event, or something that is none.
func (l *logger) event(r *Record) {
	user := fmt.Sprintf("u%d", l.rng.IntN(l.users))
	r.Key = []byte(user)
	at := r.Time
	switch l.rng.IntN(12) {
	case 0, 1:
		at -= schemas.Millis(l.rng.Int64N(int64(200 * schemas.Day)))
	case 2:
		at += schemas.Millis(l.rng.Int64N(int64(5 * schemas.Minute)))
	case 3:
		at += 5*schemas.Minute + schemas.Millis(l.rng.IntN(2)) // the second is refused
	}
	l.times = append(l.times, at, r.Time)
	id := fmt.Sprintf("e%d", r.Offset)
	if len(l.ids) > 0 && l.rng.IntN(6) == 0 {
		id = l.ids[max(0, len(l.ids)-1-l.rng.IntN(12))]
	}
	l.ids = append(l.ids, id)
	kinds := []string{"view", "view", "view", "search", "add_to_cart", "remove_from_cart", "purchase", "purchase", "refund"}
	kind := kinds[l.rng.IntN(len(kinds))]
	more := ""
	if kind == "purchase" || kind == "refund" {
		more = fmt.Sprintf(`,"order_id":"o%d","revenue":%d.%02d`, l.rng.IntN(14), l.rng.IntN(200), l.rng.IntN(100))
	}
	for _, f := range [][]string{{"product_id", "p1", "p2", "p3"}, {"category", "tv", "toys"}, {"channel", "email", "ads", "seo"}, {"session_id", "s1", "s2", "s3"}, {"cart_id", "c1", "c2"}, {"birthday", "1990-02-28", "--03-01", "soon"}} {
		if l.rng.IntN(3) > 0 {
			more += fmt.Sprintf(`,%q:%q`, f[0], f[1+l.rng.IntN(len(f)-1)])
		}
	}
	if l.rng.IntN(9) == 0 {
		zones := []string{"Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "Mars/Olympus"}
		more += fmt.Sprintf(`,"timezone":%q`, zones[l.rng.IntN(len(zones))])
	}
	if l.rng.IntN(2) == 0 {
		more += fmt.Sprintf(`,"price":%d`, 1+l.rng.IntN(90))
	}
	r.Value = fmt.Appendf(nil, `{"event_id":%q,"type":%q,"user_id":%q,"time":%d%s}`, id, kind, user, at, more)
	switch l.rng.IntN(40) {
	case 0:
		r.Value = r.Value[:l.rng.IntN(len(r.Value))]
	case 1:
		r.Key = []byte("somebody else")
	case 2:
		r.Value = nil
	}
}
