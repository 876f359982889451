package main

import (
	"context"
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
