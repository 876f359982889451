package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"footfall/schemas"
	"footfall/sources/storefront"
)

func newSimulate(g *global) *cobra.Command {
	var b brokersFlag
	s := simulation{}
	cmd := &cobra.Command{
		Use:     "simulate",
		GroupID: "events",
		Short:   "Be a storefront: publish made-up events",
		Long: `Publishes the events of a simulated storefront, until interrupted, --for or --count: shoppers
with habits, sessions from search to purchase, carts left behind, refunds, seasons, day and
night. The same --seed gives the same shop. Some records are faulty on purpose, as in life:
repeated, late, out of order, and broken in every way the contract knows; what was sent is
told at the end, the bad ones by kind.

Lane "live" (the default) sends each event when its time comes; --shoppers, or --rate, says
how many there are. A shop that has just opened is all but empty, and comes up to its rate
within some days; with --history 3d it was open before. With --ago 30d the shop begins thirty
days ago and lives --speed times as fast until it has reached now. Lanes "backfill" and
"replay" send what a shop did from --ago until now, at --rate or as fast as it goes.`,
		Example: `  footfall simulate --rate 20
  footfall simulate --ago 30d --speed 86400x --shoppers 10000
  footfall simulate --lane backfill --ago 365d --count 1000000 --no-faults
  footfall simulate --fault duplicate=0.1 --fault bad_time=0.01 --for 1m --output json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.parse(); err != nil {
				return err
			}
			settings := b.settings()
			if s.topic != "" {
				settings = append(settings, setting{"kafka.topics.events", s.topic, "--topic"})
			}
			settings = append(settings, setting{"kafka.lane", s.lane, "--lane"})
			c, err := g.config(settings...)
			if err != nil {
				return err
			}
			return s.run(cmd.Context(), c, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	b.add(cmd)
	f := cmd.Flags()
	f.Uint64Var(&s.seed, "seed", 1, "which shop it is")
	f.IntVar(&s.shoppers, "shoppers", 0, "how many shoppers it has at first (default 5000)")
	f.Float64Var(&s.rate, "rate", 0, "events a second: on average in lane live (instead of --shoppers), else at most")
	f.StringVar(&s.speed, "speed", "1x", "how fast a shop of --ago lives until now")
	f.StringVar(&s.ago, "ago", "", "how long ago it begins: a `duration` such as 30d (default 0s in lane live, else 365d)")
	f.StringVar(&s.history, "history", "0s", "how long it was open before that, a `duration`; published at once, as backfill")
	f.StringVar(&s.lane, "lane", "live", "live, backfill or replay")
	f.StringVar(&s.duration, "for", "0s", "stop after this `duration` of real time, such as 1m (0s: don't)")
	f.Int64Var(&s.count, "count", 0, "stop after this many records (0: don't)")
	f.StringArrayVar(&s.faults, "fault", nil, "`name=share` of events with a fault (duplicate, late, out_of_order, or a dead letter's reason); repeatable")
	f.BoolVar(&s.faultless, "no-faults", false, "none but those of --fault")
	f.StringVar(&s.topic, "topic", "", "topic to publish to (kafka.topics.events)")
	f.StringVar(&s.output, "output", "text", "text or json")
	return cmd
}

// simulation is one run of simulate: its flags, and what they mean.
type simulation struct {
	seed                            uint64
	shoppers                        int
	rate                            float64
	speed, ago, history, duration   string
	lane, topic, output             string
	count                           int64
	faults                          []string
	faultless                       bool
	times                           float64 // the speed
	agoSpan, historySpan, limitSpan time.Duration
	shares                          storefront.Faults
}

// parse reads the flags, and reports all that is wrong with them.
func (s *simulation) parse() error {
	errs := []error{oneOf("lane", s.lane, "live", "backfill", "replay"), oneOf("output", s.output, "text", "json")}
	bad := func(format string, args ...any) {
		errs = append(errs, &usageError{fmt.Errorf(format, args...)})
	}
	if s.ago == "" {
		s.ago = "0s"
		if s.lane != "live" {
			s.ago = "365d"
		}
	}
	for _, f := range []struct {
		name, text string
		into       *time.Duration
	}{{"ago", s.ago, &s.agoSpan}, {"history", s.history, &s.historySpan}, {"for", s.duration, &s.limitSpan}} {
		var err error
		if *f.into, err = parseDuration(f.text); err != nil {
			bad("--%s %w", f.name, err)
		}
	}
	var err error
	if s.times, err = strconv.ParseFloat(strings.TrimSuffix(s.speed, "x"), 64); err != nil || !(s.times >= 1 && s.times <= 1e7) {
		bad("--speed %q: want 1x to 10000000x", s.speed)
	} else if s.times > 1 && (s.agoSpan == 0 || s.lane != "live") {
		bad("--speed %s is how fast a shop of --ago lives until now, in lane live; without --ago it has no effect", s.speed)
	}
	if !(s.rate >= 0 && s.rate <= rateMax) {
		bad("--rate %g: want 0 to %s", s.rate, grouped(rateMax))
	}
	if s.count < 0 || s.shoppers < 0 {
		bad("--count and --shoppers can't be negative")
	}
	if s.lane == "live" && s.rate > 0 && s.shoppers > 0 {
		bad("--rate and --shoppers both say how many events there are; give one")
	}
	s.shares = storefront.DefaultFaults()
	if s.faultless {
		s.shares = storefront.Faults{}
	}
	for _, f := range s.faults {
		name, text, _ := strings.Cut(f, "=")
		share, err := strconv.ParseFloat(text, 64)
		if err != nil {
			bad("--fault %q: want NAME=SHARE, as in duplicate=0.01", f)
		}
		s.shares[name] = share
	}
	return errors.Join(errs...)
}

// simulated is what was sent.
type simulated struct {
	storefront.Sent

	Seed     uint64  `json:"seed"`
	Topic    string  `json:"topic"`
	Lane     string  `json:"lane"`
	Acked    int64   `json:"acknowledged"`
	TooLarge int64   `json:"refused_by_broker"` // larger than the topic takes
	Seconds  float64 `json:"seconds"`
}

func (s *simulation) run(ctx context.Context, c *Config, out, progress io.Writer) error {
	began := time.Now()
	start := began.Add(-s.agoSpan)
	conf := storefront.Config{
		Seed: s.seed, Start: schemas.Millis(start.UnixMilli()), History: schemas.Millis(s.historySpan.Milliseconds()),
		Shoppers: s.shoppers, Currency: c.Shop.Currency, Foreign: slices.Sorted(maps.Keys(c.Shop.Rates)), Faults: s.shares,
	}
	lane, _ := schemas.ParseLane(s.lane)
	pace := 0.0
	if lane == schemas.Live && s.rate > 0 {
		conf.Shoppers = max(1, int(s.rate*24*60*60/storefront.EventsPerShopperDay))
	} else {
		pace = s.rate
	}
	shop, err := storefront.New(conf)
	if err != nil {
		return &usageError{err}
	}
	if lane == schemas.Replay {
		if err := replayable(ctx, c); err != nil {
			return err
		}
	}
	// The publisher outlives the interruption: what was counted is published.
	pub, err := c.publisher(context.WithoutCancel(ctx), storefront.PublisherConfig{Lane: lane, Rate: pace})
	if err != nil {
		return err
	}
	if s.limitSpan > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.limitSpan)
		defer cancel()
	}
	var tally storefront.Tally
	err = s.send(ctx, shop, pub, &tally, shopClock{began: began, start: start, speed: s.times}, newSpinner(progress))
	if err := errors.Join(err, pub.Close()); err != nil {
		return err
	}
	n := pub.Counts()
	result := simulated{
		Sent: tally.Sent(), Seed: s.seed, Topic: c.Kafka.Topics.Events, Lane: s.lane,
		Acked: n.Acked, TooLarge: n.Refused, Seconds: time.Since(began).Seconds(),
	}
	if s.output == "json" {
		return json.NewEncoder(out).Encode(result)
	}
	return result.print(out)
}

// send publishes until the context ends, which is no error, the count is reached, or, in
// the lanes of history, the shop has reached now.
func (s *simulation) send(ctx context.Context, shop *storefront.Shop, pub *storefront.Publisher, tally *storefront.Tally, clock shopClock, spin *spinner) error {
	defer spin.end()
	now := shop.Start()
	for n := int64(0); s.count == 0 || n < s.count; n++ {
		rec, note := shop.Next()
		switch {
		case s.lane != "live":
			if rec.Time > schemas.Millis(clock.began.UnixMilli()) {
				return nil
			}
		case rec.Time < shop.Start():
			rec.Lane = schemas.Backfill
		case rec.Time > now:
			if now = clock.now(); rec.Time > now {
				if clock.sleep(ctx, rec.Time) != nil {
					return nil
				}
				now = clock.now()
			}
		}
		err := pub.Publish(ctx, rec)
		switch {
		case ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())):
			if err == nil {
				tally.Add(note)
			}
			return nil
		case err != nil:
			return err
		}
		tally.Add(note)
		spin.step()
	}
	return nil
}

// shopClock is the shop's time: it begins at start and runs speed times as fast as the
// wall, until it has reached it.
type shopClock struct {
	began, start time.Time
	speed        float64
}

func (c shopClock) now() schemas.Millis {
	wall := time.Now()
	if c.speed > 1 || c.start.Before(c.began) {
		lived := c.start.Add(time.Duration(min(float64(wall.Sub(c.began))*c.speed, float64(wall.Sub(c.start)))))
		if lived.Before(wall) {
			return schemas.Millis(lived.UnixMilli())
		}
	}
	return schemas.Millis(wall.UnixMilli())
}

// sleep returns when the shop's time is at least until, or with the context's error.
func (c shopClock) sleep(ctx context.Context, until schemas.Millis) error {
	for {
		left := time.Duration(until-c.now()) * time.Millisecond
		if left <= 0 {
			return ctx.Err()
		}
		// Until now is reached the shop runs fast, after that at the wall's pace.
		timer := time.NewTimer(max(time.Millisecond, time.Duration(float64(left)/c.speed)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

func (r *simulated) print(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "sent %s to %s, lane %s, seed %d\n", counted(r.Records, "record"), r.Topic, r.Lane, r.Seed)
	for _, part := range []struct {
		name  string
		count map[string]int64
	}{{"events", r.Types}, {"of them", r.Faults}, {"broken", r.Broken}} {
		if len(part.count) == 0 {
			continue
		}
		var words []string
		for _, name := range slices.Sorted(maps.Keys(part.count)) {
			words = append(words, fmt.Sprintf("%d %s", part.count[name], name))
		}
		fmt.Fprintf(&b, "  %-8s %s\n", part.name, strings.Join(words, ", "))
	}
	if r.TooLarge > 0 {
		fmt.Fprintf(&b, "larger than the topic takes, and not published: %s\n", counted(r.TooLarge, "record"))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// spinner shows on a terminal that something goes on, and nothing elsewhere.
type spinner struct{ bar *progressbar.ProgressBar }

func newSpinner(to io.Writer) *spinner {
	f, ok := to.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return &spinner{}
	}
	return &spinner{progressbar.NewOptions64(-1,
		progressbar.OptionSetWriter(to), progressbar.OptionSetDescription("sending"), progressbar.OptionShowIts(),
		progressbar.OptionShowCount(), progressbar.OptionThrottle(200*time.Millisecond), progressbar.OptionClearOnFinish())}
}

func (s *spinner) step() {
	if s.bar != nil {
		_ = s.bar.Add(1) // a bar that can't be drawn is no reason to stop
	}
}

func (s *spinner) end() {
	if s.bar != nil {
		_ = s.bar.Finish()
	}
}
