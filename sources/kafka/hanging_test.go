package kafka

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The transaction that keeps a partition undecided is named.
func TestHangingNamesTheTransaction(t *testing.T) {
	onBrokers(t, 1, func(t *testing.T, e *env) {
		e.publish(0, "a")
		open := e.producer("-hangs")
		defer open.Close()
		e.begin(open, 0, "undecided")
		s := e.asSession(e.input)
		text := s.Hanging(t.Context(), e.input, 0)
		for _, want := range []string{e.group + "-hangs", "offset 1", "Ongoing"} {
			if !strings.Contains(text, want) {
				t.Errorf("got %q, want %q in it", text, want)
			}
		}
		if err := open.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
		eventually(t, "nothing hangs", func() bool {
			return strings.Contains(s.Hanging(t.Context(), e.input, 0), "no producer has an open transaction")
		})
	})
}

// What is to become of a transaction that hangs goes by its state and epoch, and, where those
// say nothing of its records any more, by what is committed.
func TestHangVerdicts(t *testing.T) {
	for _, c := range []struct {
		state string
		v2    bool
		epoch int16 // that of the records is 7
		want  Verdict
		left  bool // footfall writes its marker by itself
	}{
		{"CompleteCommit", false, 7, Commits, false},
		{"CompleteCommit", true, 8, Commits, true},
		{"PrepareCommit", true, 8, Waits, false},
		{"Ongoing", true, 7, Waits, false},
		{"PrepareAbort", true, 8, Waits, false},
		{"CompleteAbort", true, 8, Aborts, true},
		{"CompleteAbort", false, 7, Aborts, false},
		{"CompleteCommit", true, 7, Aborts, false}, // it is the one before
		{"Empty", true, 7, Aborts, false},
		{"CompleteCommit", true, 46, ByNumber, false},
		{"CompleteAbort", true, 46, ByNumber, false},
		{"Empty", true, 8, ByNumber, false},
		{"Empty", true, 9, ByNumber, false},
		{"Empty", false, 8, ByNumber, false},
	} {
		h := &Hang{ID: "x", State: c.state, IDEpoch: c.epoch, Epoch: 7, v2: c.v2}
		if got, why := h.Verdict(); got != c.want || why == "" || h.leftOut() != c.left {
			t.Errorf("%s at epoch %d, v2 %v: got %s (%s), left out %v, want %s, %v", c.state, c.epoch, c.v2, got, why, h.leftOut(), c.want, c.left)
		}
	}
	for away, want := range map[string]Verdict{"": ByNumber, "one has no leader": Waits} {
		h := Hang{v2: true, away: away}
		if got, why := h.Verdict(); got != want || !strings.Contains(why, away) || h.Fenced() != (want == ByNumber) {
			t.Errorf("of which no coordinator knows, and %q: got %s (%s), want %s", away, got, why, want)
		}
	}
}
