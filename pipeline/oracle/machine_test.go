package oracle

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand"
	"slices"
	"strconv"
	"strings"
)

// machine is a worker made for these tests: it walks over all users all the
// time, and can be told to be wrong in a given way. Its outputs are what the
// oracle judges.
type machine struct {
	c     *contract
	bug   string
	rnd   *rand.Rand
	ticks bool

	partition        int32
	clock, fired     int64
	maxStamp, n      int64
	members          []*member
	seen             map[string]sighting
	count            int64
	next             int64
	pending          []pending
	dump             *Dump
	offsets          map[string]int64
	forgotten, twice bool
}

type member struct {
	name      string
	p         profile
	recent    []string
	segment   string
	seq       int64
	evaluated int64
}

// pending is an output of the batch under way; its mark is known at the end.
type pending struct {
	t      *Transition
	muted  string
	rec    *Record
	reason string
	n      int64
}

const (
	inputTopic = "events"
	t0         = int64(1_700_000_000_000)
	minute     = int64(60_000)
	hour       = 60 * minute
)

// perform runs machines over the input, one a partition. With ticks the clock
// also moves between batches, by the wall, which the input's timestamps follow.
func perform(input []Record, opt Options, seed int64, bug string) (*Dump, map[int32]Mark) {
	d := &Dump{Input: input}
	marks := map[int32]Mark{}
	parts := byPartition(input)
	for p := range int32(64) {
		records, ok := parts[p]
		if !ok {
			continue
		}
		m := &machine{
			c: compile(opt), bug: bug, rnd: rand.New(rand.NewSource(seed + int64(p))), ticks: opt.WallTicks, partition: p,
			seen: map[string]sighting{}, dump: d, offsets: map[string]int64{},
		}
		marks[p] = m.run(records)
	}
	return d, marks
}

func (m *machine) run(records []Record) Mark {
	for len(records) > 0 {
		size := min(len(records), 1+m.rnd.Intn(12))
		for i := range records[:size] {
			m.apply(&records[i])
			m.next = records[i].Offset + 1
		}
		records = records[size:]
		if m.ticks && len(records) > 0 && m.rnd.Intn(3) == 0 {
			// The wall goes up to where the next record finds it.
			if gap := records[0].Time - 2000 - m.clock; gap > 0 {
				m.clock += m.rnd.Int63n(gap + 1)
			}
		}
		if m.bug != "fires nothing but with events" {
			until := m.clock
			if len(records) > 0 && m.clock > m.fired {
				until = m.fired + m.rnd.Int63n(m.clock-m.fired+1)
			}
			m.fireAll(until)
		}
		m.flush()
	}
	if m.ticks {
		m.clock += m.rnd.Int63n(200 * day)
		if m.bug != "fires nothing but with events" {
			m.fireAll(m.clock)
		}
		m.flush()
	}
	return Mark{Next: m.next, Clock: m.clock, Fired: m.fired, N: m.n}
}

func (m *machine) apply(r *Record) {
	ev, bad := m.c.decode(r)
	if bad != nil {
		m.n++
		m.pending = append(m.pending, pending{rec: r, reason: bad.reason, n: m.n})
		return
	}
	switch m.bug {
	case "clock goes back":
		m.clock = ev.stamp
	case "clock is event time":
		m.clock = max(m.clock, ev.time)
	default:
		m.clock = max(m.clock, ev.stamp)
	}
	m.maxStamp = max(m.maxStamp, ev.stamp)
	u := m.member(ev.user)
	if m.bug != "events overtake timers" {
		m.fire(u, m.clock)
	}
	if m.repeated(ev) {
		return
	}
	if ev.kind == "purchase" || m.bug == "refunds are orders" && ev.kind == "refund" {
		keep := 8
		switch m.bug {
		case "ring of 7":
			keep = 7
		case "ring of 9":
			keep = 9
		}
		if slices.Contains(u.recent, ev.order) {
			return
		}
		u.recent = append(u.recent, ev.order)
		u.recent = u.recent[max(0, len(u.recent)-keep):]
	}
	switch m.bug {
	case "late events are dropped":
		if ev.time < u.p.last {
			return
		}
	case "the last event is the latest":
		u.p.last = 0
	case "refunds add":
		if ev.kind == "refund" {
			u.p.revenue += 2 * ev.amount
		}
	}
	u.p.fold(ev)
	at := m.clock
	if m.bug == "evaluates at event time" {
		at = ev.time
	}
	u.evaluated = at
	if to := m.segment(&u.p, at); to != u.segment {
		m.say(u, to, at, Transition{Cause: "event", CauseType: ev.kind, CauseID: ev.id, CauseOffset: ev.offset}, ev.lane)
	}
}

func (m *machine) member(name string) *member {
	for _, u := range m.members {
		if u.name == name {
			return u
		}
	}
	u := &member{name: name}
	m.members = append(m.members, u)
	return u
}

func (m *machine) repeated(ev *event) bool {
	before, known := m.seen[ev.id]
	window, now := m.c.DedupWindow, m.maxStamp
	if m.bug == "dedup window is closed" {
		window++
	}
	if m.bug == "dedup by event time" {
		now = ev.time
	}
	repeated := known && now-before.stamp < window && m.count-before.ordinal-1 <= m.c.DedupBudget
	if m.bug == "no dedup" {
		repeated = false
	}
	if !repeated || m.bug != "repeats do not refresh" {
		m.seen[ev.id] = sighting{now, m.count}
	}
	m.count++
	return repeated
}

// segment is the lifecycle set, written once more.
func (m *machine) segment(p *profile, t int64) string {
	lost, recent := t-p.lastPurchase >= 180*day, t-p.lastPurchase < 30*day
	switch m.bug {
	case "lost a millisecond late":
		lost = t-p.lastPurchase > 180*day
	case "recent a millisecond longer":
		recent = t-p.lastPurchase <= 30*day
	}
	switch {
	case p.orders > 0 && lost:
		return "lost"
	case t-p.last >= 90*day:
		return "dormant"
	case p.orders == 1 && recent:
		return "new"
	case p.orders > 1 && recent:
		return "active"
	case p.orders > 0:
		return "cooling"
	}
	return "prospect"
}

func (m *machine) fireAll(until int64) {
	for _, u := range m.members {
		m.fire(u, until)
	}
	m.fired = max(m.fired, until)
	if m.bug == "claims more fired than said" {
		m.fired = m.clock
	}
}

func (m *machine) fire(u *member, until int64) {
	if u.segment == "" {
		return
	}
	for {
		at := int64(0)
		for _, b := range []int64{u.p.last + 90*day, u.p.lastPurchase + 30*day, u.p.lastPurchase + 180*day, u.p.lastPurchase + 30*day + 1, u.p.lastPurchase + 180*day + 1} {
			if b > u.evaluated && b <= until && (at == 0 || b < at) && m.segment(&u.p, b) != u.segment {
				at = b
			}
		}
		if at == 0 {
			return
		}
		u.evaluated = at
		switch m.bug {
		case "jumps to the last timer":
			u.evaluated, at = until, until
		case "forgets a timer":
			if !m.forgotten && m.n > 10 {
				m.forgotten, u.segment = true, m.segment(&u.p, at)
				continue
			}
		}
		m.say(u, m.segment(&u.p, at), at, Transition{Cause: "timer", Due: at}, "live")
	}
}

func (m *machine) say(u *member, to string, at int64, t Transition, lane string) {
	if m.bug == "forgets an event's transition" && t.Cause == "event" && m.n > 10 && !m.forgotten {
		m.forgotten = true
		return
	}
	u.seq++
	t.Partition, t.User, t.Set, t.Seq, t.From, t.To, t.At = m.partition, u.name, setName, u.seq, u.segment, to, at
	t.Recency, t.Orders, t.RevenueMinor = max(0, at-u.p.last)/1000, u.p.orders, u.p.revenue
	t.First, t.Last, t.FirstPurchase, t.LastPurchase = u.p.first, u.p.last, u.p.firstPurchase, u.p.lastPurchase
	for _, b := range u.p.boundaries() {
		if b > at && t.ExpectedAt == 0 && m.segment(&u.p, b) != to {
			t.ExpectedTo, t.ExpectedAt = m.segment(&u.p, b), b
		}
	}
	u.segment = to
	muted := ""
	if t.Cause == "event" && lane == "backfill" && m.bug != "backfill is not muted" {
		muted = "backfill"
	} else if m.rnd.Intn(10) == 0 {
		muted = "stale"
	}
	m.n++
	m.pending = append(m.pending, pending{t: &t, muted: muted, n: m.n})
	if m.bug == "says a thing twice" && m.n > 10 && !m.twice {
		m.twice = true
		m.n++
		m.pending = append(m.pending, pending{t: &t, muted: muted, n: m.n})
	}
}

func (m *machine) flush() {
	if m.bug == "loses a batch" && m.n > 20 && !m.forgotten && len(m.pending) > 0 {
		m.forgotten = true
		m.n -= int64(len(m.pending))
		m.pending = nil
	}
	slices.SortStableFunc(m.pending, func(a, b pending) int { return cmp.Compare(a.n, b.n) })
	for _, p := range m.pending {
		mk := mark{next: m.next, clock: m.clock, fired: m.fired}
		switch {
		case p.t == nil:
			m.append(&m.dump.DeadLetters, encodeLetter(p.rec, p.reason, p.n, mk))
		case p.muted != "":
			m.append(&m.dump.Muted, encode(*p.t, p.n, mk, p.muted, m.c.currency))
		default:
			m.append(&m.dump.Triggers, encode(*p.t, p.n, mk, "", m.c.currency))
		}
	}
	m.pending = nil
}

func (m *machine) append(to *[]Record, r Record) {
	r.Offset = m.offsets[r.Topic]
	m.offsets[r.Topic] += 1 + int64(m.rnd.Intn(2)) // commit markers leave holes
	*to = append(*to, r)
}

// encode writes a transition as footfall does.
func encode(t Transition, n int64, mk mark, muted, currency string) Record {
	stamp := func(ms int64) any {
		if ms == 0 {
			return nil
		}
		return when(ms)
	}
	id := fmt.Sprintf("footfall/%d/%d", t.Partition, n)
	cause := map[string]any{"kind": t.Cause}
	switch t.Cause {
	case "event":
		cause["type"], cause["id"], cause["topic"] = t.CauseType, t.CauseID, inputTopic
		cause["partition"], cause["offset"] = t.Partition, t.CauseOffset
	case "timer":
		cause["due"] = when(t.Due)
	}
	v := map[string]any{
		"id": id, "user": t.User, "set": t.Set, "seq": t.Seq, "from": t.From, "to": t.To, "at": when(t.At), "cause": cause,
		"profile": map[string]any{
			"recency_seconds": t.Recency, "orders": t.Orders, "revenue": major(t.RevenueMinor, currency), "revenue_minor": t.RevenueMinor,
			"currency": currency, "first": stamp(t.First), "last": stamp(t.Last),
			"first_purchase": stamp(t.FirstPurchase), "last_purchase": stamp(t.LastPurchase),
		},
		"segments": map[string]string{t.Set: t.To}, "expected": nil, "rules": "00c0ffee00c0ffee",
	}
	if t.From == "" {
		v["from"] = nil
	}
	if t.ExpectedAt != 0 {
		v["expected"] = map[string]any{"to": t.ExpectedTo, "at": when(t.ExpectedAt)}
	}
	topic := "triggers"
	if muted != "" {
		v["muted"], topic = muted, "muted"
	}
	value, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	headers := append([]Header{
		{"content-type", []byte("application/json")},
		{"ce_specversion", []byte("1.0")},
		{"ce_id", []byte(id)},
		{"ce_source", []byte("/footfall/footfall")},
		{"ce_type", []byte("footfall.transition.v1")},
		{"ce_time", []byte(when(t.At))},
		{"ce_subject", []byte(t.User)},
	}, markHeaders("n", n, mk)...)
	return Record{Topic: topic, Partition: t.Partition, Key: []byte(t.User), Value: value, Headers: headers}
}

func encodeLetter(r *Record, reason string, n int64, mk mark) Record {
	headers := append(slices.Clone(r.Headers), []Header{
		{"dlq_reason", []byte(reason)},
		{"dlq_detail", []byte("as said")},
		{"dlq_topic", []byte(r.Topic)},
		{"dlq_time", strconv.AppendInt(nil, r.Time, 10)},
		{"dlq_partition", strconv.AppendInt(nil, int64(r.Partition), 10)},
		{"dlq_offset", strconv.AppendInt(nil, r.Offset, 10)},
	}...)
	return Record{Topic: "deadletters", Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: append(headers, markHeaders("dlq_n", n, mk)...)}
}

func markHeaders(name string, n int64, mk mark) []Header {
	return []Header{
		{name, strconv.AppendInt(nil, n, 10)},
		{"next", strconv.AppendInt(nil, mk.next, 10)},
		{"clock", strconv.AppendInt(nil, mk.clock, 10)},
		{"fired", strconv.AppendInt(nil, mk.fired, 10)},
	}
}

// shop makes an input: some users in two partitions over about a year, with
// repeats, late, future and broken records.
func shop(seed int64, records, users int) []Record {
	rnd := rand.New(rand.NewSource(seed))
	var out []Record
	stamp, offsets := t0, [2]int64{}
	step := int64(380) * day / int64(records)
	var past []Record
	again := false
	for range records {
		stamp += rnd.Int63n(2*step + 1)
		if rnd.Intn(20) == 0 {
			stamp += rnd.Int63n(20 * day)
		}
		who := int(float64(users) * rnd.Float64() * rnd.Float64())
		r := Record{Topic: inputTopic, Partition: int32(who % 2), Time: stamp - rnd.Int63n(5000), Key: fmt.Appendf(nil, "u%d", who)}
		r.Value = visit(rnd, who, stamp)
		kind := rnd.Intn(40)
		if repeating := kind < 4 || again && rnd.Intn(2) == 0; repeating {
			kind = 0
		}
		again = kind == 0
		switch kind {
		case 0:
			if len(past) > 0 { // the same record once more, sometimes soon
				again := past[max(0, len(past)-1-rnd.Intn(2))]
				r.Value, r.Key, r.Partition, r.Headers = again.Value, again.Key, again.Partition, again.Headers
				if rnd.Intn(2) == 0 {
					r.Time = again.Time + []int64{0, 40 * minute, hour - 1, hour, hour + 1}[rnd.Intn(5)]
					stamp = max(stamp, r.Time)
				}
			}
		case 4, 5:
			r.Value = spoil(rnd, r.Value)
		case 6, 7:
			r.Headers = append(r.Headers, Header{"lane", []byte("backfill")})
		case 8:
			r.Headers = append(r.Headers, Header{"trace", []byte{0, 255}})
			r.Key = nil
		}
		if past = append(past, r); len(past) > 50 {
			past = past[1:]
		}
		r.Offset = offsets[r.Partition]
		offsets[r.Partition] += 1 + int64(rnd.Intn(3)/2)
		out = append(out, r)
	}
	return out
}

func visit(rnd *rand.Rand, who int, stamp int64) []byte {
	at := stamp - rnd.Int63n(10_000)
	if rnd.Intn(10) == 0 {
		at -= rnd.Int63n(120 * day)
	}
	ev := map[string]any{"event_id": fmt.Sprintf("e%d", rnd.Int63()), "user_id": fmt.Sprintf("u%d", who), "time": at, "type": "view"}
	switch rnd.Intn(8) {
	case 0, 1:
		ev["type"], ev["order_id"] = "purchase", fmt.Sprintf("o%d", rnd.Intn(60))
		ev["price"], ev["quantity"] = json.Number(fmt.Sprintf("%d.%03d", rnd.Intn(100), rnd.Intn(1000))), 1+rnd.Intn(3)
		if rnd.Intn(3) == 0 {
			ev["currency"] = "USD"
		}
	case 2:
		ev["type"], ev["order_id"], ev["revenue"] = "refund", fmt.Sprintf("o%d", rnd.Intn(60)), json.Number("1.005")
	case 3:
		ev["type"] = []string{"add_to_cart", "remove_from_cart", "search"}[rnd.Intn(3)]
	}
	value, err := json.Marshal(ev)
	if err != nil {
		panic(err)
	}
	return value
}

func spoil(rnd *rand.Rand, value []byte) []byte {
	switch rnd.Intn(6) {
	case 0:
		return nil
	case 1:
		return value[:len(value)/2]
	case 2:
		return append(slices.Clone(value), '}')
	case 3:
		return []byte(strings.Replace(string(value), `"type":"`, `"type":"x`, 1))
	case 4:
		return []byte(strings.Replace(string(value), `"time":`, `"time":9`, 1))
	}
	return append(slices.Clone(value), 0xff)
}
