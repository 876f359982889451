package sim

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"footfall/schemas"
)

// whole is an output byte for byte, but for what may depend on the wall: the
// record's timestamp, and whether a transition was muted for its age.
func whole(t *testing.T, o *Said) string {
	t.Helper()
	value, topic := o.Record.Value, o.Topic
	if tr := o.Item.Transition; tr != nil && tr.Muted == schemas.MutedStale {
		quoted := []byte(`"muted":"stale"`)
		if !bytes.Contains(value, quoted) {
			t.Fatalf("a stale transition does not say so: %s", value)
		}
		value, topic = bytes.Replace(value, quoted, []byte(`"muted":null`), 1), "triggers"
	}
	value = bytes.Replace(value, []byte(`,"muted":null`), nil, 1)
	return fmt.Sprintf("%s/%d %s %s %s", topic, o.Record.Partition, o.Record.Key, value, o.Record.Headers)
}

// TestWallDecidesNothingInLogTime runs one log under walls that jump by years:
// not one byte of output differs.
func TestWallDecidesNothingInLogTime(t *testing.T) {
	for seed := uint64(1); seed <= 12; seed++ {
		var first []string
		for wall := uint64(1); wall <= 3; wall++ {
			o := Options{Seed: seed, Steps: 250, LogTime: true, Calm: true, Wall: wall, Slice: 3, Large: true}
			r, err := Run(o)
			if err != nil {
				t.Fatalf("%+v: %v", o, err)
			}
			var all []string
			for i := range r.Outputs {
				all = append(all, whole(t, &r.Outputs[i]))
			}
			if wall == 1 {
				first = all
			} else if diff := cmp.Diff(first, all); diff != "" {
				t.Fatalf("seed %d: with wall %d (+) other than with wall 1 (-):\n%s", seed, wall, diff)
			}
		}
	}
}

// chainsOf gives every user's transitions in full, and each partition's dead
// letters, but for what depends on more than the log: numbers (on the order across
// users), and being muted for age (on the wall) or as history (on what the log held
// at the first start).
func chainsOf(r *Result) map[string][]string {
	chains := map[string][]string{}
	for i := range r.Outputs {
		it := &r.Outputs[i].Item
		if d := it.DeadLetter; d != nil {
			key := fmt.Sprintf("dead letters of %d", d.Pos.Partition)
			chains[key] = append(chains[key], fmt.Sprintf("%+v", *d))
			continue
		}
		t := *it.Transition
		if t.Muted == schemas.MutedStale || t.Muted == schemas.MutedBootstrap {
			t.Muted = schemas.NotMuted
		}
		key := fmt.Sprintf("partition %d user %s", r.Outputs[i].Record.Partition, t.User)
		chains[key] = append(chains[key], fmt.Sprintf("%+v", t))
	}
	return chains
}

// TestChainsAreAFunctionOfTheLog runs one log with other batches, slices, walls,
// crashes, rebalances and snapshots: everybody's chain is the same.
func TestChainsAreAFunctionOfTheLog(t *testing.T) {
	for seed := uint64(1); seed <= 12; seed++ {
		var first map[string][]string
		for fault := uint64(1); fault <= 4; fault++ {
			o := Options{Seed: seed, Fault: fault, Steps: 250, LogTime: true, Wall: fault, Calm: fault == 1, Zombies: fault == 3, Strays: fault == 4}
			r, err := Run(o)
			if err != nil {
				t.Fatalf("%+v: %v", o, err)
			}
			chains := chainsOf(r)
			if fault == 1 {
				first = chains
			} else if diff := cmp.Diff(first, chains); diff != "" {
				t.Fatalf("seed %d: with faults %d (+) other than without (-):\n%s", seed, fault, diff)
			}
		}
	}
}
