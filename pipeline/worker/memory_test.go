package worker

import (
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
	_ = schemas.Never
}
