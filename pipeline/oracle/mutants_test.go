package oracle

import "testing"

// A machine that is wrong in one way must be found out, from its output alone.
func TestMutantsAreFound(t *testing.T) {
	bugs := []string{
		"clock goes back",
		"clock is event time",
		"events overtake timers",
		"ring of 7",
		"ring of 9",
		"late events are dropped",
		"the last event is the latest",
		"refunds add",
		"refunds are orders",
		"evaluates at event time",
		"dedup window is closed",
		"dedup by event time",
		"no dedup",
		"repeats do not refresh",
		"lost a millisecond late",
		"recent a millisecond longer",
		"claims more fired than said",
		"fires nothing but with events",
		"jumps to the last timer",
		"forgets a timer",
		"forgets an event's transition",
		"backfill is not muted",
		"says a thing twice",
		"loses a batch",
	}
	const seeds = 40
	for _, ticks := range []bool{false, true} {
		for _, bug := range bugs {
			found := false
			for seed := int64(0); seed < seeds && !found; seed++ {
				opt := options(ticks)
				d, marks := perform(shop(seed, 400, 12), opt, seed, bug)
				opt.Marks = marks
				found = d.Judge(opt).Err() != nil
			}
			if !found {
				t.Errorf("ticks %v: %s: not found with seeds 0 to %d", ticks, bug, seeds-1)
			}
		}
	}
}
