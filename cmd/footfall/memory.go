package main

import (
	"context"
	"os"
	"runtime/debug"
	rt "runtime/metrics"
	"time"
)

// The garbage collector's own rule is to wait until the heap is twice what is live. Of ten
// million shoppers that is a gigabyte of nothing. But their slabs hold no pointers, so it
// costs next to nothing to look at them: it may come when the heap has grown by gcRoom, or
// by a tenth where that is more.
const (
	gcRoom  = 128 << 20
	gcLeast = 10 // percent
	gcPace  = 5 * time.Second
)

// paceGC sets the collector's pace by what is live, until ctx ends. Who has set it himself
// (GOGC, GOMEMLIMIT) has it as he wants it.
func paceGC(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	tick := time.NewTicker(gcPace)
	defer tick.Stop()
	live := []rt.Sample{{Name: "/gc/heap/live:bytes"}}
	for pace := 100; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		rt.Read(live)
		if to := gcPercent(live[0].Value.Uint64()); to != pace {
			debug.SetGCPercent(to)
			pace = to
		}
	}
}

// gcPercent is by how much of what is live the heap may grow.
func gcPercent(live uint64) int {
	return int(min(100, max(gcLeast, 100*gcRoom/max(live, 1))))
}
