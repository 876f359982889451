package worker

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"footfall/schemas"
)

// traffic writes batches of events into one piece of memory: of random users among
// so many, each event with an id of its own.
type traffic struct {
	records []Record
	rng     *rand.Rand
	users   int
	events  uint64
	next    int64
}

const (
	trafficUser  = `"user_id":"u-00000000"`
	trafficEvent = `{"event_id":"0000000000000000","type":"add_to_cart",` + trafficUser + `,"time":"2026-01-01T12:34:56.789+01:00",` +
		`"session_id":"s-8f2e41c9","product_id":"p-100482","category":"electronics.audio","price":129.90,"quantity":1,"currency":"EUR","cart_id":"c-77120"}`
)

// trafficAt is the record timestamp of all of it.
const trafficAt = base + 12*schemas.Hour

func newTraffic(users, batch int) *traffic {
	tr := &traffic{records: make([]Record, batch), rng: rand.New(rand.NewPCG(1, 1)), users: users}
	for i := range tr.records {
		tr.records[i] = Record{Time: trafficAt, Key: []byte("u-00000000"), Value: []byte(trafficEvent)}
	}
	return tr
}

// number writes v with leading zeros.
func number(b []byte, v uint64) {
	for i := range b {
		b[len(b)-1-i] = '0' + byte(v%10)
		v /= 10
	}
}

// batch is the next events; user gives who they are of.
func (tr *traffic) batch(user func() int) []Record {
	at := bytes.Index([]byte(trafficEvent), []byte(trafficUser)) + len(`"user_id":"u-`)
	for i := range tr.records {
		r, u := &tr.records[i], uint64(user())
		number(r.Key[2:], u)
		number(r.Value[at:at+8], u)
		tr.events++
		number(r.Value[len(`{"event_id":"`):][:16], tr.events)
		r.Offset = tr.next
		tr.next++
	}
	return tr.records
}

func (tr *traffic) anybody() int { return tr.rng.IntN(tr.users) }

// fill lets everyone come once.
func (tr *traffic) fill(w *Worker, out *Output) {
	user := -1
	for user < tr.users-1 {
		w.Apply(tr.batch(func() int { user++; return user % tr.users }), Conditions{Wall: trafficAt}, out)
	}
}

// Known users cost no allocation, nor do duplicates (design 4).
func TestApplyAllocatesNothingForKnownUsers(t *testing.T) {
	cfg := config(t)
	cfg.DedupBudget = 1000 // full before it is measured
	w := newWorld(t, cfg, 0)
	tr, out := newTraffic(500, 100), &Output{}
	tr.fill(w.worker, out)
	for range 50 {
		w.worker.Apply(tr.batch(tr.anybody), Conditions{Wall: trafficAt}, out)
	}
	said := w.worker.Mark().N
	applied := w.worker.Stats().Applied
	if n := testing.AllocsPerRun(100, func() {
		w.worker.Apply(tr.batch(tr.anybody), Conditions{Wall: trafficAt, Tick: trafficAt + 1}, out)
	}); n != 0 {
		t.Errorf("100 events of known users: got %v allocations, want 0", n)
	}
	if got := w.worker.Stats().Applied - applied; got != 101*100 || w.worker.Mark().N != said {
		t.Fatalf("got %d applied and %d outputs, want %d and none", got, w.worker.Mark().N-said, 101*100)
	}
	batch := tr.batch(tr.anybody)
	w.worker.Apply(batch, Conditions{Wall: trafficAt}, out)
	duplicates := w.worker.Stats().Duplicates
	if n := testing.AllocsPerRun(100, func() {
		for i := range batch {
			batch[i].Offset = tr.next
			tr.next++
		}
		w.worker.Apply(batch, Conditions{Wall: trafficAt}, out)
	}); n != 0 {
		t.Errorf("100 duplicates: got %v allocations, want 0", n)
	}
	if got := w.worker.Stats().Duplicates - duplicates; got != 101*100 {
		t.Fatalf("got %d duplicates, want %d", got, 101*100)
	}
}

// A timer that finds only a later due time, as most of an active shop do, costs
// nothing either.
func TestALazyTimerAllocatesNothing(t *testing.T) {
	w := newWorld(t, config(t), 0)
	const n = 200
	var early, late []Record
	for i := range n {
		user := fmt.Sprintf("u%d", i)
		early = append(early, view(int64(i), user, base))
		late = append(late, view(int64(n+i), user, base+schemas.Millis(i+1)))
	}
	w.apply(early, Conditions{Wall: base})
	w.apply(late, Conditions{Wall: base})
	out, run := &Output{}, 0
	if allocs := testing.AllocsPerRun(1, func() {
		if run++; run > 1 { // the first is not measured
			w.worker.Apply(nil, Conditions{Wall: base, Tick: base + 90*schemas.Day}, out)
		}
	}); allocs != 0 || len(out.Items) > 0 {
		t.Errorf("%d timers: got %v allocations and %d outputs, want none", n, allocs, len(out.Items))
	}
	if got := w.worker.Stats().Timers; got != n {
		t.Errorf("got %d timers fired, want %d", got, n)
	}
}

// counter counts bytes and forgets them.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

var _ io.Writer = (*counter)(nil)
