package main

import "testing"

// A small heap may double, a large one grows by little more than gcRoom.
func TestTheHeapGrowsByWhatItNeeds(t *testing.T) {
	for live, want := range map[uint64]int{0: 100, 1 << 20: 100, gcRoom: 100, 2 * gcRoom: 50, 1 << 30: 12, 1 << 40: gcLeast} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d bytes live: got %d %%, want %d", live, got, want)
		}
	}
}
