package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"gocloud.dev/blob"

	"footfall/pipeline/snapshot"
)

func newSnapshot(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "snapshot",
		GroupID: "operate",
		Short:   "List snapshots, or read them to see that they are whole",
		Long: `A snapshot holds what is known of a partition's users at one offset; a recovery reads the
newest that is whole, and the log from there. These commands look into the bucket
(snapshots.bucket) and change nothing; footfall itself takes snapshots, and drops old ones.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	ls := &cobra.Command{
		Use:   "ls",
		Short: "List the snapshots of every partition, the newest first",
		Long: `Lists what is in the bucket: the offset that each goes on from, the number of
the last output before it, when it was taken, its bytes, and its kind: "whole" has every
user, "delta" those who have changed since the one before it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return eachSnapshot(cmd, g, false)
		},
	}
	verify := &cobra.Command{
		Use:   "verify",
		Short: "Read every snapshot to its end; exit code 1 when one cannot be used",
		Long: `Reads each snapshot and compares its checksums. A delta is as good as all that it builds
upon. One that can't be used is no loss yet: a recovery takes one before it, and reads
more of the log, which must reach back that far.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return eachSnapshot(cmd, g, true)
		},
	}
	cmd.AddCommand(ls, verify)
	return cmd
}

// eachSnapshot prints a table of the snapshots, and what reading each said.
func eachSnapshot(cmd *cobra.Command, g *global, verify bool) error {
	ctx := cmd.Context()
	c, err := g.config()
	if err != nil {
		return err
	}
	bucket, err := openBucket(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = bucket.Close() }()
	found, err := listSnapshots(ctx, bucket)
	if err != nil {
		return fmt.Errorf("snapshots.bucket %s: %w", c.Snapshots.Bucket, err)
	}
	out := cmd.OutOrStdout()
	if len(found) == 0 {
		fmt.Fprintf(out, "no snapshots of group %s in %s\n", c.Kafka.Group, c.Snapshots.Bucket)
		return nil
	}
	store := snapshot.NewStore(snapshot.Blob{Bucket: bucket}, c.Snapshots.Keep)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	header := "PARTITION\tNEXT OFFSET\tOUTPUT\tTAKEN\tKIND\tBYTES"
	var verdicts map[snapshot.ID]string
	if verify {
		header += "\tVERDICT"
		if found, verdicts, err = judged(ctx, bucket, store, found); err != nil {
			return fmt.Errorf("snapshots.bucket %s: %w", c.Snapshots.Bucket, err)
		}
	}
	fmt.Fprintln(w, header)
	damaged := 0
	for _, f := range found {
		fmt.Fprintf(w, "%d\t%d\t%d\t%s\t%s\t%d", f.id.Partition, f.id.Next, f.id.N, f.at.UTC().Format(time.RFC3339), kindOf(ctx, store, f.id), f.bytes)
		if verdict := verdicts[f.id]; verify {
			fmt.Fprintf(w, "\t%s", verdict)
			if verdict != verdictWhole {
				damaged++
			}
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if damaged > 0 {
		fmt.Fprintf(out, "%d of %d cannot be used; recovery takes one before, and reads more of the log\n", damaged, len(found))
		return errRefused
	}
	return nil
}

// kindOf tells a whole snapshot from one of what has changed since the one before.
func kindOf(ctx context.Context, store *snapshot.Store, id snapshot.ID) string {
	switch upon, err := store.Upon(ctx, id); {
	case err != nil:
		return "?"
	case upon == nil:
		return "whole"
	}
	return "delta"
}

// verdictWhole is that of a snapshot that a recovery can begin with.
const verdictWhole = "whole"

// judged reads snapshots to their ends, and leaves out those that are there no more: an
// instance that runs drops old ones meanwhile, and what it drops is no loss.
func judged(ctx context.Context, bucket *blob.Bucket, store *snapshot.Store, found []foundSnapshot) (there []foundSnapshot, verdicts map[snapshot.ID]string, err error) {
	verdicts = verdictsOf(ctx, store, found)
	now, err := listSnapshots(ctx, bucket)
	if err == nil {
		err = ctx.Err() // else the verdicts are of that
	}
	if err != nil {
		return nil, nil, err
	}
	for _, f := range found {
		if verdicts[f.id] == verdictWhole || slices.ContainsFunc(now, func(n foundSnapshot) bool { return n.id == f.id }) {
			there = append(there, f)
		}
	}
	return there, verdicts, nil
}

// verdictsOf reads snapshots to their ends, each once, and tells what reading each and
// those that it builds upon said.
func verdictsOf(ctx context.Context, store *snapshot.Store, found []foundSnapshot) map[snapshot.ID]string {
	verdicts, sums := map[snapshot.ID]string{}, map[snapshot.ID]uint64{}
	for _, f := range slices.Backward(found) { // a partition's oldest first
		_, sum, err := store.Verify(ctx, f.id)
		if err != nil {
			verdicts[f.id] = strings.TrimPrefix(err.Error(), fmt.Sprintf("read snapshot %s: ", f.id))
			continue
		}
		sums[f.id], verdicts[f.id] = sum, verdictWhole
		upon, err := store.Upon(ctx, f.id)
		switch {
		case err != nil:
			verdicts[f.id] = strings.TrimPrefix(err.Error(), fmt.Sprintf("read snapshot %s: ", f.id))
		case upon == nil:
		case verdicts[upon.ID] == "":
			verdicts[f.id] = fmt.Sprintf("builds upon %s, and that is gone", upon.ID)
		case verdicts[upon.ID] != verdictWhole:
			verdicts[f.id] = fmt.Sprintf("builds upon %s, and that cannot be used", upon.ID)
		case sums[upon.ID] != upon.Sum:
			verdicts[f.id] = fmt.Sprintf("builds upon another %s than there is", upon.ID)
		}
	}
	return verdicts
}

// foundSnapshot is a snapshot in the bucket.
type foundSnapshot struct {
	id    snapshot.ID
	at    time.Time
	bytes int64
}

// listSnapshots gives all snapshots, by partition, the newest first.
func listSnapshots(ctx context.Context, bucket *blob.Bucket) ([]foundSnapshot, error) {
	var all []foundSnapshot
	for it := bucket.List(nil); ; {
		o, err := it.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if id, ok := snapshot.ParseID(o.Key); ok {
			all = append(all, foundSnapshot{id, o.ModTime, o.Size})
		}
	}
	slices.SortFunc(all, func(a, b foundSnapshot) int {
		if a.id.Partition != b.id.Partition {
			return int(a.id.Partition - b.id.Partition)
		}
		return strings.Compare(b.id.String(), a.id.String())
	})
	return all, nil
}
