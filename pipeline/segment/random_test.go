package segment

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"footfall/pipeline/pipelinetest/randomrules"
	"footfall/schemas"
)

// Rules of the whole language, made by chance, are what the oracle makes of them, in zones
// whose clocks change at midnight, by half an hour, by two, or in Ramadan: at every moment
// at which they could change; and of an event only what it touches has to be looked at.
func TestRandomRulesAreTheOracles(t *testing.T) {
	seeds := 60
	if n, err := strconv.Atoi(os.Getenv("FOOTFALL_TEST_SEEDS")); err == nil {
		seeds = n
	}
	zones := []string{
		"UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "America/Havana", "Africa/Cairo", "Asia/Kathmandu", "Pacific/Chatham",
		"Africa/Casablanca", "America/Santiago", "Asia/Beirut", "America/St_Johns", "Antarctica/Troll",
	}
	for seed := range uint64(seeds / raceSlower) {
		rng := rand.New(rand.NewPCG(seed, 77))
		zone := zones[rng.IntN(len(zones))]
		sets := []string{
			randomrules.New(rng).Set("one", zone, 4, 3),
			someSet(rng, "two", zone, []string{`segment("one") == "s0" && orders(days(30)) >= 1`, `segment("one") in ["s0", "rest"] || ever("refund")`}),
		}
		loc := location(t, zone)
		againstOracle(t, seed, rng, sets, loc, edgyHistory(rng, loc), edges)
	}
}

// edgyHistory is what a user did around a change of the clocks, at midnights, at one moment,
// and at whole days after each other.
func edgyHistory(rng *rand.Rand, loc *time.Location) []schemas.Event {
	events := someHistory(rng)
	base := time.Date(2023+rng.IntN(4), time.Month(1+rng.IntN(12)), 1+rng.IntN(31), 0, 0, 0, 0, loc)
	if rng.IntN(2) == 0 {
		if _, end := base.ZoneBounds(); !end.IsZero() {
			base = end
		}
	}
	shift := schemas.Millis(base.UnixMilli()) - start - schemas.Millis(rng.Int64N(int64(40*day)))
	for i := range events {
		events[i].At += shift
		switch rng.IntN(6) {
		case 0:
			if i > 0 {
				events[i].At = events[i-1].At
			}
		case 1: // a local midnight, or a millisecond beside it
			at := time.UnixMilli(int64(events[i].At)).In(loc)
			events[i].At = schemas.Millis(time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, loc).UnixMilli()) + schemas.Millis(rng.IntN(3)-1)
		case 2:
			if i > 0 {
				events[i].At = events[i-1].At + schemas.Millis(1+rng.IntN(40))*day + schemas.Millis(rng.IntN(3)-1)
			}
		}
		if events[i].Kind == schemas.Refund && rng.IntN(4) == 0 {
			events[i].Amount *= 100
		}
	}
	return events
}

// edges are the times at which something can change by silence, as far as the rules' text
// tells, and their neighbours.
func edges(events []schemas.Event, text string, loc *time.Location, from schemas.Millis) []schemas.Millis {
	spans := map[schemas.Millis]bool{30 * day: true}
	for _, unit := range []struct {
		name string
		ms   schemas.Millis
	}{{"days", day}, {"hours", schemas.Hour}, {"minutes", schemas.Minute}, {"seconds", schemas.Second}} {
		for _, part := range strings.Split(text, unit.name+"(")[1:] {
			var n int
			if _, err := fmt.Sscanf(part, "%d", &n); err == nil {
				spans[schemas.Millis(n)*unit.ms] = true
			}
		}
	}
	var all []schemas.Millis
	for i := range events {
		for s := range spans {
			all = append(all, events[i].At+s, events[i].At-s)
			for s2 := range spans {
				all = append(all, events[i].At+s+s2, events[i].At+s-s2)
			}
		}
	}
	t := time.UnixMilli(int64(from)).In(loc)
	for range 120 {
		t = time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, loc)
		for h := schemas.Millis(-1); h <= 1; h++ {
			all = append(all, schemas.Millis(t.UnixMilli())+h*schemas.Hour)
		}
	}
	for i := range 30 {
		all = append(all, schemas.Millis(time.Date(t.Year(), t.Month()+time.Month(i), 1, 0, 0, 0, 0, loc).UnixMilli()))
	}
	for _, at := range slices.Clone(all) {
		all = append(all, at-1, at+1)
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(at schemas.Millis) bool { return at <= from })
}
