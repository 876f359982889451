package sim

import (
	"context"
	"fmt"
	"testing"

	"footfall/pipeline/archive"
	"footfall/schemas"
)

// Two pipelines that are wrong in ways that are found in the field, as tests of the
// simulation itself: it has to find both.

// TestNaiveSinkIsFound: the sink that most people would write, which inserts with a
// token, commits, and believes what it is told.
func TestNaiveSinkIsFound(t *testing.T) {
	control(t, func(o *Options) {
		o.Archives = 1
		o.naive = naiveSink
	})
}

// TestIgnoredPromisesAreFound: a client commits a transaction although some of its
// records were refused, and nobody has looked at the promises.
func TestIgnoredPromisesAreFound(t *testing.T) {
	control(t, func(o *Options) { o.ignores = true })
}

// control holds that the first seeds find a pipeline, and that they find nothing
// without what is wrong with it, nor as long as nothing else goes wrong.
func control(t *testing.T, wrong func(o *Options)) {
	t.Helper()
	var found []uint64
	for seed := uint64(1); seed <= 20; seed++ {
		o := Options{Seed: seed, Steps: 200}
		if _, err := Run(o); err != nil {
			t.Fatalf("seed %d, without anything wrong: %v", seed, err)
		}
		wrong(&o)
		calm := o
		calm.Calm = true
		if _, err := Run(calm); err != nil {
			t.Fatalf("seed %d, without a fault: %v", seed, err)
		}
		if _, err := Run(o); err != nil {
			found = append(found, seed)
		}
	}
	t.Logf("found by %d of 20 seeds: %v", len(found), found)
	if len(found) < 10 {
		t.Errorf("found by seeds %v only", found)
	}
}

// naiveSink copies the topics into the table: polls, inserts with a token, commits. What
// fails is tried again with the same token.
func naiveSink(log archive.Log, table archive.Table) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		rows, next := table.Rows(), map[archive.Partition]int64{}
		var in archive.Batch
		for {
			if err := log.Poll(ctx, schemas.Never, &in); err != nil {
				return err
			}
			for _, a := range in.Assigned {
				next[a.Partition] = a.Next
			}
			for i := range in.Runs {
				run := &in.Runs[i]
				rows.Reset()
				for j := range run.Records {
					if r := &run.Records[j]; !r.Control && rows.Decode(run.Partition, r) {
						rows.Add(archive.Hash(r))
					}
				}
				last := run.Records[len(run.Records)-1].Offset + 1
				token := fmt.Sprintf("%s/%d/%d-%d", run.Partition.Topic, run.Partition.Number, run.Records[0].Offset, last)
				for rows.Len() > 0 && rows.Insert(ctx, token) != nil {
					if ctx.Err() != nil {
						return ctx.Err()
					}
				}
				mark := archive.Commit{Partition: run.Partition, Next: last}
				for {
					if _, err := log.Commit(ctx, []archive.Commit{mark}); err == nil {
						break
					}
					if ctx.Err() != nil {
						return ctx.Err()
					}
				}
			}
		}
	}
}
