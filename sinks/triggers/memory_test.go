package triggers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// late is a session whose client still looks at records of what has failed.
type late struct {
	*memory
	fails []error
	held  []*kgo.Record
	saw   []string // what was held, when it was given
}

func told(r *kgo.Record) string {
	return fmt.Sprintf("%s %s %s %s", r.Topic, r.Key, r.Value, r.Headers)
}

func (l *late) Transact(ctx context.Context, records []*kgo.Record, outs []*worker.Output) error {
	var err error
	if len(l.fails) > 0 {
		err, l.fails = l.fails[0], l.fails[1:]
	} else {
		err = l.memory.Transact(ctx, records, outs)
	}
	for _, r := range records {
		if err != nil && r.Topic == "triggers" { // dead letters are made smaller
			l.held, l.saw = append(l.held, r), append(l.saw, told(r))
		}
	}
	return err
}

// What has failed may still be under way: a client that has given a record up may send it
// yet, and tells of it what it has. Its memory is not used for what comes next.
func TestMemoryOfWhatFailedIsLeftAlone(t *testing.T) {
	for name, first := range map[string][]error{
		"aborted": {pipeline.ErrAborted},
		"unknown": {errors.New("no answer")},
	} {
		l := &late{memory: newMemory(), fails: first}
		s, err := New(config(""), l)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(t.Context(), []*worker.Output{outputOf(pipeline.Assignment{}, transition(1, schemas.NotMuted))}); err == nil {
			t.Fatalf("%s: committed", name)
		}
		l.after(t, s, name)
	}

	l := &late{memory: newMemory()}
	l.max = 1000
	s, err := New(config(""), l)
	if err != nil {
		t.Fatal(err)
	}
	say(t, s, transition(1, schemas.NotMuted), deadLetter(2, strings.Repeat("x", 2000)))
	l.after(t, s, "too large")
}

// after commits other outputs and looks at what is held.
func (l *late) after(t *testing.T, s *Sink, name string) {
	t.Helper()
	for n := uint64(10); n < 20; n++ {
		say(t, s, transition(n, schemas.NotMuted), transition(n+100, schemas.NotMuted))
	}
	if len(l.held) == 0 {
		t.Fatalf("%s: nothing is held", name)
	}
	for i, r := range l.held {
		if got := told(r); got != l.saw[i] {
			t.Errorf("%s: a record that is still under way is now\n%s\nit was\n%s", name, got, l.saw[i])
		}
	}
}
