package storefront

import (
	"context"
	"sync/atomic"

	"footfall/schemas"
)

// Clock is the time of a simulation, which may run faster than the real one.
type Clock interface {
	Now() schemas.Millis
	// Sleep returns when Now is at least until, or with the context's error.
	Sleep(ctx context.Context, until schemas.Millis) error
}

// Run publishes a shop until the context ends, which is no error, and counts in tally.
// History goes out at once, in lane backfill. When it is acknowledged, Run asks the
// clock for the first time, so a clock may begin then; it should begin at the shop's
// Start. Later records go out when the clock has come to their time. Without a clock
// everything goes out at once, in the publisher's lane.
//
// The publisher needs a context that outlives this one: Run flushes at the end, so
// that what is counted is published.
func Run(ctx context.Context, shop *Shop, pub *Publisher, clock Clock, tally *Tally) error {
	now := shop.Start() - 1
	for {
		rec, note := shop.Next()
		switch {
		case clock == nil:
		case rec.Time < shop.Start():
			rec.Lane = schemas.Backfill
		case rec.Time > now:
			if now < shop.Start() {
				if err := pub.Flush(); err != nil {
					return err
				}
			}
			var err error
			if now, err = await(ctx, clock, rec.Time); err != nil {
				return pub.Flush()
			}
		}
		if err := pub.Publish(ctx, rec); err != nil {
			if ctx.Err() != nil {
				return pub.Flush()
			}
			return err
		}
		tally.Add(note)
	}
}

// await returns what time it is when the clock has come to t.
func await(ctx context.Context, clock Clock, t schemas.Millis) (now schemas.Millis, err error) {
	if now = clock.Now(); now >= t {
		return now, ctx.Err()
	}
	if err := clock.Sleep(ctx, t); err != nil {
		return 0, err
	}
	return clock.Now(), nil
}

// Tally counts what was published. Its zero value is empty; any goroutine may use it.
type Tally struct {
	faults   [FaultKinds]atomic.Int64
	refusals [schemas.Refusals]atomic.Int64
	kinds    [schemas.Kinds]atomic.Int64
}

// Add counts a record.
func (t *Tally) Add(n Note) {
	t.faults[n.Fault].Add(1)
	if n.Fault == Broken {
		t.refusals[n.Refusal].Add(1)
	} else {
		t.kinds[n.Kind].Add(1)
	}
}

// Sent is what was published.
type Sent struct {
	Records int64            `json:"records"`
	Types   map[string]int64 `json:"types"`  // of the records that are not broken
	Faults  map[string]int64 `json:"faults"` // duplicate, late, out_of_order
	Broken  map[string]int64 `json:"broken"` // by the reason they must be refused for
}

// Sent returns the counts so far, without those that are 0.
func (t *Tally) Sent() Sent {
	s := Sent{Types: map[string]int64{}, Faults: map[string]int64{}, Broken: map[string]int64{}}
	for f := range FaultKinds {
		n := t.faults[f].Load()
		s.Records += n
		if n > 0 && f != NoFault && f != Broken {
			s.Faults[f.String()] = n
		}
	}
	for r := range schemas.Refusals {
		if n := t.refusals[r].Load(); n > 0 {
			s.Broken[r.String()] = n
		}
	}
	for k := range schemas.Kinds {
		if n := t.kinds[k].Load(); n > 0 {
			s.Types[k.String()] = n
		}
	}
	return s
}
