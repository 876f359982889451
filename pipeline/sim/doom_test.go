package sim

import "testing"

// TestAnotherInputIsRefused: the topic is deleted and made again, or gets more
// partitions, and so do the outputs. Whoever starts afterwards refuses to go on and says
// what to do, --rebuild or not; not one output or offset is committed.
func TestAnotherInputIsRefused(t *testing.T) {
	for _, doom := range []Doom{MadeAnew, Expanded} {
		refused := 0
		for seed := uint64(1); seed <= 60; seed++ {
			o := Options{Seed: seed, Steps: 120, Processes: 1 + int(seed%3), Zombies: seed%2 == 0, LogTime: seed%4 == 0, Doom: doom}
			r, err := Run(o)
			if err != nil {
				t.Fatalf("seed %d: %v\n%+v", seed, err, o)
			}
			refused += r.Refusals
		}
		t.Logf("refused %d times", refused)
	}
}
