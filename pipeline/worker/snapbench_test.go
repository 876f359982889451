package worker

import (
	"bytes"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"footfall/pipeline/snapshot"
)

// population is a worker to which everybody of so many users has come once.
func population(b *testing.B, users int) *Worker {
	cfg := config(b)
	cfg.DedupBudget = 1 << 16
	w := New(7, cfg)
	w.Begin(0, 0)
	tr, out := newTraffic(users, 1000), &Output{}
	tr.fill(w, out)
	return w
}

// sizes are the shops that snapshots are measured of.
func sizes(b *testing.B) map[string]int {
	b.Helper()
	if testing.Short() {
		return map[string]int{"users=1M": 1_000_000}
	}
	return map[string]int{"users=1M": 1_000_000, "users=10M": 10_000_000}
}

// processor is the CPU time that the process has taken: beside others on the same
// machine the wall's tells little.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pauses reports how long a partition stood still for a snapshot: between two batches,
// and at its beginning.
func pauses(b *testing.B, all []time.Duration) {
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1e3, "p50-us")
	b.ReportMetric(float64(all[len(all)*999/1000].Nanoseconds())/1e3, "p99.9-us")
	b.ReportMetric(float64(all[len(all)-1].Nanoseconds())/1e3, "max-us")
}

// sliced writes a snapshot and notes how long each slice took.
func sliced(b *testing.B, w *Worker, to *counter, pause []time.Duration, begin func()) []time.Duration {
	at := time.Now()
	note := func() {
		now := time.Now()
		pause, at = append(pause, now.Sub(at)), now
	}
	begin()
	note()
	for done := false; !done; note() {
		var err error
		if done, err = w.Slice(to, 128<<10); err != nil {
			b.Fatal(err)
		}
	}
	return pause
}

func BenchmarkSnapshot(b *testing.B) {
	for name, users := range sizes(b) {
		w := population(b, users)
		for _, share := range []int{1, 10} { // of users who come between two snapshots, in percent
			b.Run(fmt.Sprintf("%s/changed=%d%%", name, share), func(b *testing.B) {
				to, pause, spent := &counter{}, []time.Duration(nil), time.Duration(0)
				sliced(b, w, to, nil, func() { w.Snapshot(base) })
				for to.n = 0; b.Loop(); {
					w.SnapshotKept()
					for user := range w.rows.Len() / 100 * share {
						w.touch(int32(user * (100 / share)))
					}
					began := processor(b)
					pause = sliced(b, w, to, pause, func() { w.Delta(base) })
					spent += processor(b) - began
				}
				b.ReportMetric(float64(spent.Microseconds())/1e3/float64(b.N), "cpu-ms")
				b.ReportMetric(float64(to.n/int64(b.N)), "B/snapshot")
				pauses(b, pause)
			})
		}
		b.Run(fmt.Sprintf("%s/whole", name), func(b *testing.B) {
			to, pause, began := &counter{}, []time.Duration(nil), processor(b)
			for b.Loop() {
				pause = sliced(b, w, to, pause, func() { w.Snapshot(base) })
			}
			b.ReportMetric(float64((processor(b)-began).Microseconds())/1e3/float64(b.N), "cpu-ms")
			b.ReportMetric(float64(to.n/int64(b.N)), "B/snapshot")
			pauses(b, pause)
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	for name, users := range sizes(b) {
		w := population(b, users)
		var file bytes.Buffer
		to, err := snapshot.NewWriter(&file)
		if err != nil {
			b.Fatal(err)
		}
		w.Snapshot(base)
		for done := false; !done; {
			done, _ = w.Slice(to, 128<<10)
		}
		if err := to.Close(); err != nil {
			b.Fatal(err)
		}
		cfg := w.cfg
		w = nil
		b.Run(name, func(b *testing.B) {
			began := processor(b)
			for b.Loop() {
				if _, err := Read(snapshot.NewReader(bytes.NewReader(file.Bytes())), 7, cfg); err != nil {
					b.Fatal(err)
				}
			}
			spent := (processor(b) - began).Seconds()
			b.ReportMetric(float64(b.N)*float64(file.Len())/1e6/spent, "MB/cpu-s")
			b.ReportMetric(float64(b.N)*float64(users)/spent, "users/cpu-s")
		})
	}
}

func BenchmarkReplay(b *testing.B) {
	const users = 1_000_000
	w := population(b, users)
	tr := newTraffic(users, 2000)
	tr.next = w.mark.Next
	b.Run("users=1M", func(b *testing.B) {
		w.replaying = &replay{}
		var spent time.Duration
		for b.Loop() {
			batch := tr.batch(tr.anybody)
			began := processor(b)
			if err := w.Replay(batch); err != nil {
				b.Fatal(err)
			}
			spent += processor(b) - began
		}
		b.ReportMetric(float64(b.N*len(tr.records))/spent.Seconds(), "events/cpu-s")
	})
}
