package pipeline_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"footfall/pipeline"
	"footfall/pipeline/snapshot"
	"footfall/pipeline/worker"
)

// Whatever lies where the newest snapshot should, recovery names it, takes the one
// before, and says nothing twice.
func TestDamagedSnapshotsArePassedOver(t *testing.T) {
	for name, damage := range map[string]func(newest, before, other, cluster []byte) []byte{
		"a flipped bit":                  func(b, _, _, _ []byte) []byte { b[len(b)/2] ^= 4; return b },
		"a flipped bit in the footer":    func(b, _, _, _ []byte) []byte { b[len(b)-1] ^= 4; return b },
		"cut short":                      func(b, _, _, _ []byte) []byte { return b[:len(b)-9] },
		"empty":                          func(_, _, _, _ []byte) []byte { return []byte{} },
		"no snapshot at all":             func(_, _, _, _ []byte) []byte { return []byte("<html>503 Slow Down</html>") },
		"the one before":                 func(_, before, _, _ []byte) []byte { return before },
		"another partition's":            func(_, _, other, _ []byte) []byte { return other },
		"of another cluster, same name":  func(_, _, _, cluster []byte) []byte { return cluster },
		"whole, of another version":      func(_, _, _, _ []byte) []byte { return framed(t, []byte("\x63\x00 version 99")) },
		"whole, and holds other content": func(_, _, _, _ []byte) []byte { return framed(t, bytes.Repeat([]byte{1}, 500)) },
	} {
		t.Run(name, func(t *testing.T) {
			var newest snapshot.ID
			var cluster []byte
			inBubble(t, 2, func(t *testing.T, b *bubble) { // elsewhere, other users come in as many records
				newest, cluster = twice(t, b, "them")
			})
			inBubble(t, 2, func(t *testing.T, b *bubble) {
				id, good := twice(t, b, "us")
				if id != newest {
					t.Fatalf("the clusters' snapshots are %s and %s, want the same name", id, newest)
				}
				ids, err := snapshot.NewStore(b.bucket, 9).List(t.Context(), 0)
				others, _ := snapshot.NewStore(b.bucket, 9).List(t.Context(), 1)
				before := slices.IndexFunc(ids, func(before snapshot.ID) bool { return before.Next < id.Next })
				if err != nil || before < 0 || len(others) == 0 {
					t.Fatalf("got %v, %v, want snapshots of two cuts at least", ids, err)
				}
				b.bucket.Set(id.String(), damage(good, b.object(ids[before].String()), b.object(others[0].String()), cluster))
				b.next()
				b.member.Give(0, 1)
				l := b.run()
				b.log.Publish(0, view("new", 0))
				b.committed(0)
				b.said(0, 3)
				skipped := ""
				for _, f := range b.facts {
					if f, ok := f.(pipeline.SnapshotSkipped); ok {
						skipped += f.Snapshot + ": " + f.Err.Error() + "\n"
					}
				}
				if strings.Count(skipped, "\n") != 1 || !strings.HasPrefix(skipped, id.String()) {
					t.Errorf("passed over: %q, want %s", skipped, id)
				}
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// A rebuild that has nothing to say is done all the same: who starts next needs no
// --rebuild, whether the one before was stopped or killed.
func TestRebuildWithNothingToSay(t *testing.T) {
	for _, unknown := range []bool{false, true} {
		t.Run(fmt.Sprintf("outcome unknown %t", unknown), func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, b *bubble) {
				b.member.Give(0)
				l := b.run()
				b.log.Publish(0, users(4)...)
				b.committed(0)
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
				for _, k := range b.bucket.Keys() {
					b.bucket.Set(k, nil)
				}
				b.next()
				b.cfg.Rebuild = true
				if unknown { // the first commit does not happen, and nobody says so
					var once atomic.Bool
					b.member.BeforeCommit.Set(func(context.Context, []*worker.Output) error {
						if once.CompareAndSwap(false, true) {
							return errTest
						}
						return nil
					})
				}
				b.member.Give(0)
				l = b.run()
				time.Sleep(time.Minute)
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
				b.said(0, 4)

				b.next()
				b.member.Give(0)
				l = b.run()
				b.log.Publish(0, view("new", 0))
				b.committed(0)
				b.said(0, 5)
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// twice has two partitions live through two snapshots each, and returns the newest one
// of partition 0.
func twice(t *testing.T, b *bubble, user string) (snapshot.ID, []byte) {
	t.Helper()
	b.member.Give(0, 1)
	l := b.run()
	for i := range 2 {
		for n := range int32(2) {
			b.log.Publish(n, view(user+string(rune('a'+i)), 0), view(user+string(rune('a'+i)), 1))
			b.committed(n)
		}
		time.Sleep(3 * time.Minute)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	ids, err := snapshot.NewStore(b.bucket, 9).List(t.Context(), 0)
	if err != nil || len(ids) == 0 {
		t.Fatal(ids, err)
	}
	return ids[0], b.object(ids[0].String())
}

// object reads an object of the bucket.
func (b *bubble) object(key string) []byte {
	b.t.Helper()
	r, err := b.bucket.Get(b.t.Context(), key)
	if err != nil {
		b.t.Fatal(err)
	}
	all, err := io.ReadAll(r)
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

// framed is a whole snapshot of any content.
func framed(t *testing.T, content []byte) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := snapshot.NewWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}
