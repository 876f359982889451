package brokersim

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"footfall/pipeline"
	"footfall/pipeline/worker"
	"footfall/sources/kafka"
)

// sabotage is a bug of a process: what it makes of an error of its commits.
type sabotage func(err error) error

// committer has the bug.
type committer struct {
	pipeline.Committer
	bug sabotage
}

func (c committer) Commit(ctx context.Context, outs []*worker.Output) error {
	err := c.Committer.Commit(ctx, outs)
	if err != nil && c.bug != nil {
		return c.bug(err)
	}
	return err
}

func unknown(err error) bool {
	var lost *pipeline.LostError
	return !errors.Is(err, pipeline.ErrAborted) && !errors.Is(err, pipeline.ErrFenced) && !errors.Is(err, pipeline.ErrPermanent) && !errors.As(err, &lost)
}

// Seeds a bug has to be found in, and about how many requests a run sends of those that
// are hit.
const (
	controlSeeds = 20
	controlUsual = 80
)

// The checks can fail: processes with a bug in how they take the outcome of a commit
// are found out.
func TestControls(t *testing.T) {
	if !virtual {
		t.Skip("needs -tags synctests: make brokersim")
	}
	classic := setting{protocol: kafka.Classic}
	for _, c := range []struct {
		name string
		bug  sabotage
		combination
	}{
		{"an unknown outcome is taken for done", func(err error) error {
			if unknown(err) {
				return nil
			}
			return err
		}, find(classic, "engine/classic/EndTxn/before/never")},
		{"an unknown outcome is sent again unasked", func(err error) error {
			if unknown(err) {
				return fmt.Errorf("%w: %w", pipeline.ErrAborted, err)
			}
			return err
		}, find(classic, "engine/classic/EndTxn/after/error=INVALID_TXN_STATE")},
		{"an aborted transaction is taken for done", func(err error) error {
			if errors.Is(err, pipeline.ErrAborted) {
				return nil
			}
			return err
		}, find(classic, "engine/classic/Produce/before/error=UNKNOWN_SERVER_ERROR")},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(controlSeeds) {
				found := false
				synctest.Test(t, func(t *testing.T) {
					_, faults, _ := run(t, c.combination, options{setting: classic, seed: seed, bug: c.bug}, controlUsual)
					found = len(faults) > 0
				})
				if found {
					t.Logf("found by seed %d", seed)
					return
				}
			}
			t.Errorf("not found in %d seeds", controlSeeds)
		})
	}
}

func find(s setting, name string) combination {
	for _, c := range combinations() {
		if c.setting == s && c.String() == name {
			return c
		}
	}
	panic("no combination " + name)
}
