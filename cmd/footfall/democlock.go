package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"footfall/schemas"
)

// demoClock is the demo's wall: it begins in the past and runs fast, or follows a
// recorded log. Any goroutine may use it.
type demoClock struct {
	speed float64

	mu      sync.Mutex
	base    schemas.Millis
	started time.Time // zero: standing still at base
}

func newDemoClock(base schemas.Millis, speed float64) *demoClock {
	return &demoClock{base: base, speed: speed}
}

// Start lets it run.
func (c *demoClock) Start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started = time.Now()
}

// Stop lets it stand still, for good.
func (c *demoClock) Stop() {
	now := c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.started = now, time.Time{}
}

// Follow moves it on to a time of the log.
func (c *demoClock) Follow(t schemas.Millis) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base = max(c.base, t)
}

// Now is the demo's time.
func (c *demoClock) Now() schemas.Millis {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started.IsZero() {
		return c.base
	}
	return c.base + schemas.Millis(float64(time.Since(c.started).Microseconds())*c.speed/1000)
}

// Sleep returns when Now is at least until, or with the context's error.
func (c *demoClock) Sleep(ctx context.Context, until schemas.Millis) error {
	wait := time.Duration(float64(until-c.Now()) / c.speed * float64(time.Millisecond))
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// The shop's past, all of which is published before it opens: how much of it there is
// unless told otherwise, and at most.
const (
	pastDefault   = 200 * 24 * time.Hour
	pastEvents    = 300_000
	pastEventsMax = 5_000_000
)

// past is how long the shop has been open. In real time a day has as many events as
// 200 days have when time runs fast.
func (o *demoOptions) past(speed float64) (time.Duration, error) {
	of := func(events float64) time.Duration {
		return time.Duration(min(events/o.rate*speed, pastDefault.Seconds()*100) * float64(time.Second)).Truncate(time.Minute)
	}
	if o.history == "" {
		return min(pastDefault, of(pastEvents)), nil
	}
	past, err := parseDuration(o.history)
	if err != nil {
		return 0, &usageError{fmt.Errorf("--history %w", err)}
	}
	if most := of(pastEventsMax); past > most {
		return 0, &usageError{fmt.Errorf("--history %s: at --rate %g and --speed %gx that is more than %s events to publish before the shop opens; want at most %s",
			o.history, o.rate, speed, grouped(pastEventsMax), formatDuration(most))}
	}
	return past, nil
}
