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

	"footfall/pipeline/pipelinetest/naive"
	"footfall/pipeline/pipelinetest/randomrules"
	"footfall/schemas"
)

// Rules of the whole language, made by chance, are what the oracle makes of them, in sets
// that ask for each other, in zones whose clocks change at midnight, by half an hour, by two,
// or in Ramadan: at every moment at which they could change; and of an event only what it
// touches has to be looked at.
func TestRandomRulesAreTheOracles(t *testing.T) {
	zones := []string{
		"UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "America/Havana", "Africa/Cairo", "Asia/Kathmandu", "Pacific/Chatham",
		"Africa/Casablanca", "America/Santiago", "Asia/Beirut", "America/St_Johns", "Antarctica/Troll",
	}
	randomSeeds(60, 77, func(seed uint64, rng *rand.Rand) {
		in := zones[rng.IntN(len(zones)):][:1] // the edges are of one zone
		if rng.IntN(4) == 0 {
			in = zones
		}
		names := []string{"one", "two", "three", "four"}[:1+rng.IntN(4)]
		depth := 3
		if len(names) > 2 {
			depth = 2
		}
		g := randomrules.New(rng)
		sets := g.Sets(names, in, 4, depth)
		for range 50 { // most have a segment that nobody can reach
			if _, err := Compile(Options{Exponent: 2}, filesOf(sets.Texts)...); err == nil {
				break
			}
			sets = g.Sets(names, in, 4, depth)
		}
		loc := location(t, in[rng.IntN(len(in))])
		againstOracle(t, seed, rng, sets.Texts, loc, edgyHistory(rng, loc), func(events []schemas.Event, text string, loc *time.Location, from schemas.Millis) []schemas.Millis {
			all := edges(events, text, loc, from)
			for len(all) > 6000 { // of many spans
				for i := range len(all) / 2 {
					all[i] = all[2*i+rng.IntN(2)]
				}
				all = all[:len(all)/2]
			}
			return all
		})
	})
}

// randomSeeds runs something on so many seeds, or as many as the environment asks for.
func randomSeeds(seeds int, stream uint64, run func(seed uint64, rng *rand.Rand)) {
	if n, err := strconv.Atoi(os.Getenv("FOOTFALL_TEST_SEEDS")); err == nil {
		seeds = n
	}
	for seed := range uint64(seeds / raceSlower) {
		run(seed, rand.New(rand.NewPCG(seed, stream)))
	}
}

// Sets that ask for each other in a circle are refused, and no others; those that are not
// refused are answered in whatever order they stand.
func TestRandomCirclesAreRefused(t *testing.T) {
	circles, chains := 0, 0
	randomSeeds(300, 78, func(seed uint64, rng *rand.Rand) {
		names := []string{"one", "two", "three", "four", "five", "six"}[:1+rng.IntN(6)]
		sets := randomrules.New(rng).Asking(names)
		_, err := Compile(Options{Exponent: 2}, filesOf(sets)...)
		refused := err != nil && strings.Contains(err.Error(), "in a circle")
		if want := naive.Read(sets...).Circle(); refused != want {
			t.Fatalf("seed %d: a circle: got %v (%v), want %v\n%s", seed, refused, err, want, strings.Join(sets, "\n"))
		}
		if refused {
			circles++
			return
		}
		chains++
		againstOracle(t, seed, rng, sets, time.UTC, someHistory(rng), moments)
	})
	if circles == 0 || chains == 0 {
		t.Errorf("%d circles, and %d without: want some of both", circles, chains)
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
