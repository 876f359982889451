package kafka

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline"
	"footfall/pipeline/worker"
)

// static is the configuration of a static member.
func (e *env) static(instance string) Config {
	conf := e.config(instance)
	conf.InstanceID = instance
	return conf
}

// A static member that has left is waited for until the session's end, and then its
// partitions go to others.
func TestStaticMemberStaysAway(t *testing.T) {
	onBrokers(t, 2, func(t *testing.T, e *env) {
		if e.cluster != nil && e.groups == Consumer {
			t.Skip("the broker in this process keeps them for it for ever")
		}
		s := e.session(e.static("a"))
		assigned(t, s, 2)
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		s.Close(ctx)
		assigned(t, e.session(e.static("b")), 2)
	})
}

// A request to join of the static member before us that the broker gets to late takes our
// place in the group: that is no twin either, if it does not happen again at once.
func TestPredecessorsLateJoin(t *testing.T) {
	onBrokers(t, 1, func(t *testing.T, e *env) {
		if e.groups == Consumer {
			t.Skip("it is refused as long as we are there")
		}
		s := e.session(e.static("a"))
		d := drive(t, s)
		eventually(t, "it is ours", func() bool { return len(d.owns()) == 1 })
		late := func() {
			joined := make(chan struct{})
			cl, err := kgo.NewClient(append(Classic.Options(), kgo.SeedBrokers(e.addr), kgo.ConsumerGroup(e.group), kgo.ConsumeTopics(e.input),
				kgo.InstanceID("a"), kgo.DisableAutoCommit(),
				kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { close(joined) }))...)
			if err != nil {
				t.Fatal(err)
			}
			<-joined
			cl.Close()
		}
		old, _ := d.assignment(0)
		late()
		eventually(t, "it is ours again", func() bool {
			now, ok := d.assignment(0)
			return ok && now.Epoch != old.Epoch && s.Transact(t.Context(), e.records(0, "x"), []*worker.Output{output(now, 1, 1)}) == nil
		})
		late()
		<-d.done
		if !errors.Is(d.err, pipeline.ErrFenced) {
			t.Errorf("taken over twice in a row: got %v, want ErrFenced", d.err)
		}
		if got := e.visible(e.out[0], 0); !slices.Equal(got, []string{"x"}) {
			t.Errorf("said: %q", got)
		}
	})
}

// Of two static members with one instance id the older stops, also where each has
// transactional ids of its own: the group tells it. (Under the protocol Consumer the
// broker refuses the newer one instead, until the older one's session has ended: KIP-848,
// UNRELEASED_INSTANCE_ID.)
func TestStaticTwinIsFenced(t *testing.T) {
	onBrokers(t, 1, func(t *testing.T, e *env) {
		if e.groups == Consumer {
			t.Skip("only one of the two is let in")
		}
		conf := e.static("a")
		old := e.session(conf)
		a := assigned(t, old, 1)[0]
		conf.Instance = "b"
		twin := e.session(conf)
		d := drive(t, twin)
		eventually(t, "the twin has it", func() bool { return len(d.owns()) == 1 })
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		if err := old.Transact(ctx, e.records(0, "old"), []*worker.Output{output(a, 1, 1)}); err == nil {
			t.Fatal("the older one's commit was accepted")
		}
		var err error
		for err == nil {
			var b pipeline.Batch
			err = old.Poll(ctx, &b)
		}
		if !errors.Is(err, pipeline.ErrFenced) {
			t.Errorf("poll: got %v, want ErrFenced", err)
		}
		if err := old.Transact(ctx, e.records(0, "old"), []*worker.Output{output(a, 1, 1)}); !errors.Is(err, pipeline.ErrFenced) {
			t.Errorf("commit: got %v, want ErrFenced", err)
		}
		eventually(t, "the twin, which the older one took the name from once, has it again", func() bool {
			mine, ok := d.assignment(0)
			return ok && twin.Transact(t.Context(), e.records(0, "twin"), []*worker.Output{output(mine, 1, 1)}) == nil
		})
		if got := e.visible(e.out[0], 0); !slices.Equal(got, []string{"twin"}) {
			t.Errorf("said: %q, want what the twin said", got)
		}
	})
}
