package worker

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// crowd makes a worker with so many users whose ids have 16 bytes. Each has looked at
// something, and of a hundred buyers have bought something once.
func crowd(tb testing.TB, users, buyers int) *Worker {
	cfg := config(tb)
	cfg.Rules = segment.Lifecycle(1)
	cfg.DedupBudget = 1 // which has a budget of its own
	w := New(7, cfg)
	w.Begin(0, 0)
	out, next := &Output{}, int64(0)
	one := make([]Record, 1)
	send := func(id, kind string) {
		value := fmt.Appendf(one[0].Value[:0], `{"event_id":"e%d","type":%q,"user_id":%q,"time":%d`, next, kind, id, trafficAt)
		if kind == "purchase" {
			value = fmt.Appendf(value, `,"order_id":"o%d","revenue":129.90`, next)
		}
		one[0] = Record{Offset: next, Time: trafficAt, Key: []byte(id), Value: append(value, '}')}
		next++
		w.Apply(one, Conditions{Wall: trafficAt}, out)
	}
	for user := range users {
		id := fmt.Sprintf("user-%011d", user)
		send(id, "view")
		if user%100 < buyers {
			send(id, "purchase")
		}
	}
	return w
}

// heap is what is in use of it.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkMemory(b *testing.B) {
	for _, c := range []struct {
		name   string
		buyers int
	}{{"viewers", 0}, {"buyers", 100}, {"mix", 20}} {
		b.Run("users=1M/"+c.name, func(b *testing.B) {
			for b.Loop() {
				before := heap()
				w := crowd(b, 1_000_000, c.buyers)
				b.ReportMetric(float64(heap()-before)/float64(w.Users()), "B/user")
				b.ReportMetric(float64(w.Bytes().PerUser), "said-B/user")
				b.ReportMetric(float64(w.Bytes().Buyers)/float64(w.Users()), "buyers-B/user")
			}
		})
	}
}

// Who has moved more often than a member holds has moved as often as he has, after a
// snapshot too.
func TestLongChains(t *testing.T) {
	w := newWorld(t, config(t), 0)
	w.apply([]Record{view(0, "ann", base), view(1, "bob", base)}, Conditions{Wall: base})
	w.commit()
	for seq := uint32(longSeq - 2); seq < longSeq+3; seq++ {
		w.worker.move(0, 0, uint16(seq%3), seq, base)
		if got := w.worker.member(0, 0); got != (member{segment: uint16(seq % 3), seq: seq, since: uint32(base / schemas.Second)}) {
			t.Errorf("seq %d: got %+v", seq, got)
		}
		var b bytes.Buffer
		w.worker.Snapshot(base)
		for done := false; !done; {
			done, _ = w.worker.Slice(&b, 1<<20)
		}
		r, err := Read(&b, w.worker.mark.Partition, w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		for user := range int32(2) {
			if got, want := r.member(user, 0), w.worker.member(user, 0); got != want {
				t.Errorf("seq %d, user %d read: got %+v, want %+v", seq, user, got, want)
			}
		}
	}
}

// A user takes what it is said to take, and no more than 96 bytes with its id of 16, the
// ids of its orders apart.
func TestAUserTakesWhatIsSaid(t *testing.T) {
	if testing.Short() || raceSlower > 1 {
		t.Skip("the race detector takes memory too")
	}
	for name, buyers := range map[string]int{"viewers": 0, "buyers": 100, "mix": 20} {
		before := heap()
		w := crowd(t, 150_000, buyers)
		took := float64(heap()-before) / float64(w.Users())
		b := w.Bytes()
		if b.PerUser-b.Orders/b.Users > 96 {
			t.Errorf("%s: %+v is more than 96 bytes a user, orders apart", name, b)
		}
		pieces := float64(2<<20) / float64(w.Users()) // that are begun, and not full
		if said := float64(b.PerUser); took < said*0.9 || took > said*1.1+pieces {
			t.Errorf("%s: took %.1f bytes a user, said are %.0f", name, took, said)
		}
		runtime.KeepAlive(w)
	}
}
