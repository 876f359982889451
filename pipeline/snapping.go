package pipeline

import (
	"bytes"
	"errors"
	"io"
	"time"

	"footfall/pipeline/snapshot"
	"footfall/schemas"
)

// snapping is a snapshot under way. The partition makes its bytes, in slices
// between tasks; a goroutine writes them, waits until a commit under the same
// ownership covers the cut, and publishes (design 6). The channel of chunks is
// bounded: a slow bucket makes the snapshot slower, never the partition. The
// goroutine ends when it has published, when chunks is closed early (it stores
// nothing then), or with the ownership.
type snapping struct {
	id     snapshot.ID
	upon   *snapshot.Chain // that it is a delta upon; nil: it is whole
	mark   schemas.Mark
	chunks chan []byte
	pause  time.Duration  // the longest that a slice took, while events waited
	sliced bool           // all chunks are sent
	done   chan published // capacity 1: the writer's result
	buffer *bytes.Buffer  // Inline: takes the place of the goroutine
}

// published is what has become of a snapshot.
type published struct {
	chain *snapshot.Chain // that the next may build upon
	err   error
}

// errAbandoned makes a writer store nothing.
var errAbandoned = errors.New("snapshot abandoned")

// slicing tells that the snapshot under way has bytes to make and room for them, or
// a writer that has failed and takes none any more. Room is for two: the last chunk is
// followed by the end, and a partition that found none for that would wait for the bucket.
func (part *partition) slicing() bool {
	s := part.snapping
	return s != nil && !s.sliced && (s.buffer != nil || len(s.chunks)+2 <= cap(s.chunks) || len(s.done) > 0)
}

// snapshot begins a snapshot when one is due, or goes on with the one under way. While
// outputs can't be written there is none: it could not be published before they are, and
// would keep the one place from the other partitions.
func (part *partition) snapshot(now schemas.Millis) error {
	cfg := &part.p.cfg
	s := part.snapping
	switch {
	case part.stream.isHeld():
		part.abandonSnapshot()
		return nil
	case s == nil:
		due := now-part.snapAt >= cfg.SnapshotEvery || now < part.snapAt
		if part.refresh && !part.worker.Busy() {
			// A recovery from the one before would have to look for it all again.
			part.beginSnapshot(now)
			part.refresh = part.snapping == nil
		} else if due && part.moved() {
			part.beginSnapshot(now)
		} else if due {
			part.taken = now // one begun now would be no better, and who asks for its age need not worry
		}
		return nil
	case s.sliced:
		return part.endSnapshot()
	}
	return part.slice()
}

// moved tells whether a recovery from the last snapshot would have anything to read: input,
// or what was said since. A partition that nobody writes to goes on saying what silence
// means, and retention removes that.
func (part *partition) moved() bool {
	mark := part.worker.Mark()
	return mark.Next > part.lastSnap.Next || mark.N > part.lastSnap.N
}

// beginSnapshot takes the one place for a snapshot, if it is free.
func (part *partition) beginSnapshot(now schemas.Millis) {
	select {
	case part.p.snapshots <- struct{}{}:
	default:
		return
	}
	//failpoint:snapshot.due
	began := part.p.cfg.Elapsed()
	s := part.cut(now)
	s.pause = part.p.cfg.Elapsed() - began
	part.snapping, part.snapAt = s, now
	if part.p.cfg.Inline {
		s.buffer = &bytes.Buffer{}
		return
	}
	s.chunks, s.done = make(chan []byte, 4), make(chan published, 1)
	part.p.wg.Go(func() {
		s.done <- part.writeSnapshot(s)
		part.wake() // or it would keep the place for as long as nothing else happens to it
	})
}

// cut has the worker begin a snapshot: one of what has changed since the last, or a whole
// one where there is none that it could build upon, or where reading all of them would
// take a recovery much longer than reading a whole one.
func (part *partition) cut(now schemas.Millis) *snapping {
	w, share := part.worker, int64(part.p.cfg.DeltaShare)
	mark := w.Mark()
	s := &snapping{id: snapshot.ID{Partition: part.number, Next: mark.Next, N: mark.N, Tag: snapshot.Tag(int64(now), part.p.cfg.Address)}, upon: part.chain, mark: mark}
	switch changed, ok := w.Changed(); {
	case s.upon == nil, !ok,
		s.upon.Deltas >= part.p.cfg.DeltasMax,
		100*s.upon.Changed > share*s.upon.Whole, 100*int64(changed) > share*int64(w.Users()),
		!s.id.After(s.upon.ID): // of the same cut, and the clock has gone back
		s.upon = nil
		w.Snapshot(now)
	default:
		w.Delta(now)
	}
	return s
}

func (part *partition) writeSnapshot(s *snapping) (p published) {
	p.chain, p.err = part.p.cfg.Snapshots.Publish(part.ctx, s.id, s.upon, func(to io.Writer) error {
		whole := false
		for chunk := range s.chunks {
			if whole = chunk == nil; whole {
				break
			}
			if _, err := to.Write(chunk); err != nil {
				return err
			}
		}
		if !whole {
			return errAbandoned
		}
		//failpoint:snapshot.written
		part.stream.await(part.ctx, func() bool { return part.stream.coversLocked(s.mark) || part.stream.held })
		//failpoint:snapshot.covered
		if part.ctx.Err() != nil || part.stream.isLost() || !part.stream.covers(s.mark) {
			return errAbandoned
		}
		return nil
	})
	return p
}

// slice makes the next bytes of the snapshot under way.
func (part *partition) slice() error {
	s := part.snapping
	if !part.slicing() {
		return nil
	}
	var chunk bytes.Buffer
	to := io.Writer(&chunk)
	if s.buffer != nil {
		to = s.buffer
	}
	//failpoint:snapshot.slicing
	began := part.p.cfg.Elapsed()
	done, err := part.worker.Slice(to, part.p.cfg.SliceBytes)
	s.pause = max(s.pause, part.p.cfg.Elapsed()-began)
	if err != nil {
		return err // a buffer's Write never fails
	}
	if s.buffer == nil && (!s.send(chunk.Bytes()) || done && !s.send(nil)) {
		s.sliced = true // the writer has failed: endSnapshot says why
		part.worker.GiveUpSnapshot()
		return nil
	}
	if s.sliced = done; !done {
		return nil
	}
	return part.demandCommit(s.mark)
}

// send gives a chunk to the writer, nil for the end; false when the writer has ended.
func (s *snapping) send(chunk []byte) bool {
	select {
	case s.chunks <- chunk:
		return true
	case p := <-s.done:
		s.done <- p
		return false
	}
}

// endSnapshot notes the outcome of a snapshot whose bytes are all made.
func (part *partition) endSnapshot() error {
	s := part.snapping
	var p published
	if s.buffer != nil {
		if !part.stream.covers(s.mark) {
			return part.demandCommit(s.mark)
		}
		p.chain, p.err = part.p.cfg.Snapshots.Publish(part.ctx, s.id, s.upon, func(to io.Writer) error {
			_, err := to.Write(s.buffer.Bytes())
			return err
		})
	} else {
		select {
		case p = <-s.done:
		default:
			return nil
		}
	}
	part.snapping = nil
	<-part.p.snapshots
	part.noteSnapshot(s, p)
	return nil
}

// noteSnapshot notes what became of a snapshot, and reports it. A failure costs a longer
// replay and no more: the one before still serves, and what this one held is in the next.
func (part *partition) noteSnapshot(s *snapping, p published) {
	if p.err = part.removed(s, p.err); p.err != nil {
		part.worker.GiveUpSnapshot()
		if errors.Is(p.err, snapshot.ErrDamaged) {
			part.chain = nil // it may be what this one was to build upon
		}
		part.p.cfg.Report(SnapshotFailed{Partition: part.number, Snapshot: s.id.String(), Err: p.err})
		return
	}
	part.worker.SnapshotKept()
	part.chain, part.lastSnap, part.taken = p.chain, s.id, part.worker.Taken()
	bytes := p.chain.Whole
	if s.upon != nil {
		bytes = p.chain.Changed - s.upon.Changed
	}
	part.p.cfg.Report(SnapshotPublished{
		Partition: part.number, Snapshot: s.id.String(), Delta: s.upon != nil, Bytes: bytes, Users: part.worker.Users(), Pause: s.pause,
	})
}

// removed reports that older snapshots stay in the bucket, and makes no more of it: this one
// is stored, and whoever builds upon it need not know.
func (part *partition) removed(s *snapping, err error) error {
	if !errors.Is(err, snapshot.ErrNotRemoved) {
		return err
	}
	part.p.cfg.Report(SnapshotsNotRemoved{Partition: part.number, Snapshot: s.id.String(), Err: err})
	return nil
}

// abandonSnapshot gives up the snapshot under way; nothing of it is stored.
func (part *partition) abandonSnapshot() {
	s := part.snapping
	if s == nil {
		return
	}
	part.snapping = nil
	part.worker.GiveUpSnapshot()
	if s.buffer == nil && !s.sliced {
		close(s.chunks)
	}
	<-part.p.snapshots
}

// handOver publishes a last snapshot, so that who takes over has nothing to
// replay. It is a help: a failure is reported and no more.
func (part *partition) handOver() {
	if !part.moved() {
		return
	}
	if err := part.publishNow(); err != nil {
		part.p.cfg.Report(SnapshotFailed{Partition: part.number, Snapshot: "last", Err: err})
	}
}

// publishNow publishes the worker as it is, at once. The caller knows that a
// commit covers it, or that there is nothing to cover.
func (part *partition) publishNow() error {
	s := part.cut(part.p.cfg.Now())
	chain, err := part.p.cfg.Snapshots.Publish(part.ctx, s.id, s.upon, func(to io.Writer) error {
		for {
			if done, err := part.worker.Slice(to, part.p.cfg.SliceBytes); done || err != nil {
				return err
			}
		}
	})
	if err = part.removed(s, err); err != nil {
		part.worker.GiveUpSnapshot()
		return err
	}
	part.worker.SnapshotKept()
	part.chain, part.lastSnap, part.snapAt, part.taken = chain, s.id, part.worker.Taken(), part.worker.Taken()
	return nil
}
