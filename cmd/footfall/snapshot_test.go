package main

import (
	"io"
	"path/filepath"
	"testing"

	"footfall/pipeline/snapshot"
)

// Snapshots that a running instance drops while others are read are not ones that cannot
// be used.
func TestSnapshotsDroppedWhileTheyAreVerified(t *testing.T) {
	ctx := t.Context()
	c := defaultConfig()
	c.Snapshots.Bucket = "file://" + filepath.ToSlash(t.TempDir())
	bucket, err := openBucket(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bucket.Close() }()
	store := snapshot.NewStore(snapshot.Blob{Bucket: bucket}, 2)
	publish := func(next int64) {
		t.Helper()
		_, err := store.Publish(ctx, snapshot.ID{Next: next, N: 1}, nil, func(w io.Writer) error {
			_, err := w.Write(make([]byte, 1000))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	publish(100)
	publish(200)
	listed, err := listSnapshots(ctx, bucket)
	if err != nil {
		t.Fatal(err)
	}
	publish(300) // and 100 is more than it keeps
	there, verdicts, err := judged(ctx, bucket, store, listed)
	if err != nil {
		t.Fatal(err)
	}
	if len(there) != 1 || there[0].id.Next != 200 || verdicts[there[0].id] != verdictWhole {
		t.Errorf("got %v with verdicts %v, want the one at 200, whole", there, verdicts)
	}
}
