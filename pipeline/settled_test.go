package pipeline

import (
	"testing"

	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// A task may have waited since before the rules were switched: then everyone was
// evaluated at once, and not before the beginning.
func TestSettledTookNoNegativeTime(t *testing.T) {
	rules, err := segment.Compile(segment.Options{Exponent: 2}, segment.File{Name: "all.yaml", Text: []byte("set: all\nsegments:\n  - name: everybody\n    otherwise: true\n")})
	if err != nil {
		t.Fatal(err)
	}
	for now, want := range map[schemas.Millis]schemas.Millis{99: 0, 100: 0, 107: 7} {
		var got []schemas.Millis
		part := &partition{worker: worker.New(0, worker.Config{Rules: rules}), p: &Pipeline{cfg: Config{
			Now:    func() schemas.Millis { return 100 },
			Report: func(f Fact) { got = append(got, f.(Settled).Took) },
		}}}
		part.ruled(rules)
		part.noteSettled(now)
		if len(got) != 1 || got[0] != want {
			t.Errorf("switched at 100, a task of %d: took %d, want %d", now, got, want)
		}
	}
}
