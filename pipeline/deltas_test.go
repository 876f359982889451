package pipeline_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"footfall/pipeline"
	"footfall/pipeline/snapshot"
)

// chained has a partition of 200 users live until it has taken whole snapshots and deltas
// upon each, and ends it. It returns the kinds of the snapshots in the order in which they
// were published, 'w' or 'd'.
func chained(t *testing.T, b *bubble) (kinds string) {
	t.Helper()
	b.member.Ends = time.Second
	b.member.Give(0)
	l := b.run()
	b.log.Publish(0, users(200)...)
	for i := range 7 {
		b.log.Publish(0, view("u0", 1000+i))
		b.committed(0)
		time.Sleep(2 * time.Minute)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	for _, f := range b.facts {
		if f, ok := f.(pipeline.SnapshotPublished); ok {
			if f.Delta != (f.Bytes < 1000) {
				t.Errorf("%+v: one of one user has few bytes, one of 200 has many", f)
			}
			kinds += map[bool]string{false: "w", true: "d"}[f.Delta]
		}
	}
	return kinds
}

// A snapshot holds what has changed since the one before it; after as many of these as
// are wanted one is whole. A recovery reads all of a chain, and goes on with it.
func TestSnapshotsAreOfWhatHasChanged(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		if kinds := chained(t, b); kinds != "wdddwdd" {
			t.Errorf("published: got %s, want wdddwdd", kinds)
		}
		b.next()
		b.facts = nil
		b.member.Ends = time.Second
		b.member.Give(0)
		l := b.run()
		for i := range 2 {
			b.log.Publish(0, view("new", i))
			b.committed(0)
			time.Sleep(2 * time.Minute)
		}
		b.said(0, 201)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		kinds := ""
		for _, f := range b.facts {
			switch f := f.(type) {
			case pipeline.Recovered:
				if f.Deltas == 0 || f.Records != 0 {
					t.Errorf("recovered from %d deltas, %d records replayed: want some, and none", f.Deltas, f.Records)
				}
			case pipeline.SnapshotPublished:
				kinds += map[bool]string{false: "w", true: "d"}[f.Delta]
			}
		}
		if kinds != "dw" {
			t.Errorf("published in the second life: got %s, want dw: it goes on with the chain of the first", kinds)
		}
	})
}

// A chain that has lost a link, or has another in its place, is passed over for what is
// whole of it, or else for the one before; nothing is said twice.
func TestBrokenChainsArePassedOver(t *testing.T) {
	for name, spoil := range map[string]func(b *bubble, ids []snapshot.ID) (leads snapshot.ID){
		"the newest is damaged":        func(b *bubble, ids []snapshot.ID) snapshot.ID { b.flip(ids[0]); return ids[1] },
		"a link is damaged":            func(b *bubble, ids []snapshot.ID) snapshot.ID { b.flip(ids[1]); return ids[2] },
		"a link is gone":               func(b *bubble, ids []snapshot.ID) snapshot.ID { b.bucket.Set(ids[1].String(), nil); return ids[2] },
		"the whole one is damaged":     func(b *bubble, ids []snapshot.ID) snapshot.ID { b.flip(ids[2]); return ids[3] },
		"the whole one is gone":        func(b *bubble, ids []snapshot.ID) snapshot.ID { b.bucket.Set(ids[2].String(), nil); return ids[3] },
		"a link is of another chain":   func(b *bubble, ids []snapshot.ID) snapshot.ID { b.copy(ids[5], ids[1]); return ids[2] },
		"the whole one is another one": func(b *bubble, ids []snapshot.ID) snapshot.ID { b.copy(ids[6], ids[2]); return ids[3] },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, b *bubble) {
				if kinds := chained(t, b); kinds != "wdddwdd" {
					t.Fatalf("published: got %s, want wdddwdd", kinds)
				}
				ids, err := snapshot.NewStore(b.bucket, 9).List(t.Context(), 0)
				if err != nil || len(ids) < 8 {
					t.Fatalf("got %v, %v, want 8 snapshots at least", ids, err)
				}
				leads := spoil(b, ids)
				b.next()
				b.facts = nil
				b.member.Give(0)
				l := b.run()
				b.log.Publish(0, view("new", 0))
				b.committed(0)
				b.said(0, 201)
				if err := l.end(t); err != nil {
					t.Fatal(err)
				}
				for _, f := range b.facts {
					if f, ok := f.(pipeline.Recovered); ok && f.Snapshot != leads.String() {
						t.Errorf("recovered from %s, want %s", f.Snapshot, leads)
					}
				}
				if count[pipeline.SnapshotSkipped](b) == 0 {
					t.Error("nothing was passed over")
				}
			})
		})
	}
}

// A live partition that finds that its chain has lost a link begins another one.
func TestAChainThatHasLostALinkIsNotGoneOnWith(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, b *bubble) {
		b.member.Ends = time.Second
		b.member.Give(0)
		l := b.run()
		b.log.Publish(0, users(200)...)
		come := func(i int) {
			b.log.Publish(0, view("u0", 1000+i))
			b.committed(0)
			time.Sleep(2 * time.Minute)
		}
		come(0)
		come(1)
		ids, err := snapshot.NewStore(b.bucket, 9).List(t.Context(), 0)
		if err != nil || len(ids) < 2 {
			t.Fatal(ids, err)
		}
		b.bucket.Set(ids[1].String(), nil)
		for i := range 5 {
			come(2 + i)
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		failed, kinds := 0, ""
		for _, f := range b.facts {
			switch f := f.(type) {
			case pipeline.SnapshotFailed:
				failed++
			case pipeline.SnapshotPublished:
				kinds += map[bool]string{false: "w", true: "d"}[f.Delta]
			}
		}
		if failed != 1 || !strings.HasPrefix(kinds, "wdwddd") {
			t.Errorf("got %d that failed and %s published, want 1 and wdwddd first", failed, kinds)
		}
	})
}

// flip damages a snapshot in the bucket.
func (b *bubble) flip(id snapshot.ID) {
	bad := bytes.Clone(b.object(id.String()))
	bad[len(bad)/2] ^= 1
	b.bucket.Set(id.String(), bad)
}

// copy puts one snapshot where another is.
func (b *bubble) copy(from, to snapshot.ID) { b.bucket.Set(to.String(), b.object(from.String())) }
