package oracle

import (
	"testing"
)

func options(ticks bool) Options {
	return Options{Currency: "EUR", Rates: map[string]string{"USD": "0.915"}, InputTopic: inputTopic, WallTicks: ticks}
}

func TestPerfectOutputIsClean(t *testing.T) {
	for _, ticks := range []bool{false, true} {
		for seed := range int64(60) {
			opt := options(ticks)
			d, marks := perform(shop(seed, 600, 25), opt, seed, "")
			opt.Marks = marks
			r := d.Judge(opt)
			if err := r.Err(); err != nil {
				t.Fatalf("ticks %v, seed %d: %v", ticks, seed, err)
			}
			if r.Applied+r.Duplicates+r.DeadLetters != len(d.Input) || r.Expected != r.Triggers+r.Muted {
				t.Fatalf("ticks %v, seed %d: counts do not add up: %+v", ticks, seed, r)
			}
			opt.Marks = nil
			if err := d.Judge(opt).Err(); err != nil {
				t.Fatalf("ticks %v, seed %d, without marks: %v", ticks, seed, err)
			}
		}
	}
}
