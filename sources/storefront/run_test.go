package storefront

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
)

// jumpClock is a clock that is where it was asked to sleep to, until its end.
type jumpClock struct {
	now, end schemas.Millis
	cancel   context.CancelFunc
	sleeps   int
	asked    func() // at the first Now
}

func (c *jumpClock) Now() schemas.Millis {
	if c.asked != nil {
		c.asked()
		c.asked = nil
	}
	return c.now
}

func (c *jumpClock) Sleep(ctx context.Context, until schemas.Millis) error {
	c.sleeps++
	c.now = until
	if until > c.end {
		c.cancel()
	}
	return ctx.Err()
}

// What Run counts is what a consumer finds: history as backfill at the clock's start,
// then every record at its own time.
func TestRun(t *testing.T) {
	c := broker(t, 4)
	s := shop(t, Config{Seed: 9, Shoppers: 200, History: 5 * schemas.Day, Faults: Faults{
		"duplicate": 0.02, "late": 0.02, "out_of_order": 0.02, "tombstone": 0.01, "no_key": 0.01, "future": 0.01, "truncated": 0.01,
	}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	clock := &jumpClock{now: start, end: start + 5*schemas.Day, cancel: cancel}
	p := publisher(t, c, PublisherConfig{Wall: func() schemas.Millis { return clock.now }})
	var tally Tally
	clock.asked = func() {
		if got := p.Counts(); got.Acked != got.Taken || got.Taken < 500 {
			t.Errorf("the clock is asked before the history is out: %+v", got)
		}
	}
	if err := Run(ctx, s, p, clock, &tally); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	sent := tally.Sent()
	if got := p.Counts(); got.Acked != sent.Records || got.Taken != sent.Records || clock.sleeps < 100 {
		t.Fatalf("sent %d, publisher %+v, sleeps %d", sent.Records, got, clock.sleeps)
	}
	d := decoder(t)
	lanes, broken, types := map[string]int{}, map[string]int64{}, map[string]int64{}
	lastTime := map[int32]int64{}
	for _, r := range readBack(t, c, int(sent.Records)) {
		stamp := schemas.Millis(r.Timestamp.UnixMilli())
		ev, reason, _ := decoded(t, d, Record{Key: r.Key, Value: r.Value, Time: stamp})
		lanes[header(r, schemas.LaneHeader)]++
		switch {
		case reason != schemas.Accepted:
			broken[reason.String()]++
		default:
			types[ev.Kind.String()]++
			if backfill := header(r, schemas.LaneHeader) == "backfill"; backfill != (ev.At < start) || backfill && stamp != start {
				t.Fatalf("event of %d, stamped %d, in lane %s", ev.At, stamp, header(r, schemas.LaneHeader))
			}
		}
		if r.Timestamp.UnixMilli() < lastTime[r.Partition] {
			t.Fatalf("partition %d: timestamps go back", r.Partition)
		}
		lastTime[r.Partition] = r.Timestamp.UnixMilli()
	}
	if !maps.Equal(broken, sent.Broken) || !maps.Equal(types, sent.Types) {
		t.Errorf("read %v and %v, sent %+v", broken, types, sent)
	}
	if lanes["backfill"] < 500 || lanes["live"] < 500 || len(lanes) != 2 {
		t.Errorf("lanes: %v", lanes)
	}
	if b, err := json.Marshal(sent); err != nil || !strings.Contains(string(b), `"broken":{`) {
		t.Errorf("sent as JSON: %s, %v", b, err)
	}
}

// Without a clock the shop goes out as fast as it can, each record with its own time.
func TestRunReplay(t *testing.T) {
	c := broker(t, 2)
	p := publisher(t, c, PublisherConfig{Lane: schemas.Replay})
	s := shop(t, Config{Seed: 1, Shoppers: 100, Faults: Faults{}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var tally Tally
	done := make(chan error, 1)
	go func() { done <- Run(ctx, s, p, nil, &tally) }()
	recs := readBack(t, c, 2000, kgo.FetchMaxWait(1e8))
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	d := decoder(t)
	for _, r := range recs {
		var ev schemas.Event
		if err := d.Decode(r.Key, r.Value, &ev); err != nil || int64(ev.At) != r.Timestamp.UnixMilli() || header(r, "lane") != "replay" {
			t.Fatalf("%v, event time %d, timestamp %d, lane %s", err, ev.At, r.Timestamp.UnixMilli(), header(r, "lane"))
		}
	}
	if got := p.Counts(); got.Acked != tally.Sent().Records {
		t.Errorf("counted %d, acknowledged %d", tally.Sent().Records, got.Acked)
	}
}
