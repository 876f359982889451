package snapshot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Chain is a whole snapshot and the deltas that lead from it to another cut. It is
// immutable.
type Chain struct {
	Link          // the newest of them
	Deltas  int   // how many there are
	Whole   int64 // bytes of the whole one
	Changed int64 // bytes of the deltas
}

// add gives the chain that is one snapshot longer; that of a whole one, of no chain.
func (c *Chain) add(link Link, bytes int64) *Chain {
	if c == nil {
		return &Chain{Link: link, Whole: bytes}
	}
	return &Chain{Link: link, Deltas: c.Deltas + 1, Whole: c.Whole, Changed: c.Changed + bytes}
}

// linksMax is how long a chain may be (R4).
const linksMax = 1000

// chain gives a snapshot and those it builds upon, as their heads say it, the whole one
// last. The sums are those that the next ones were written upon; the first has none.
func (s *Store) chain(ctx context.Context, id ID) ([]Link, error) {
	links := []Link{{ID: id}}
	for {
		last := links[len(links)-1].ID
		upon, err := s.head(ctx, last)
		switch {
		case err == nil && upon == nil:
			return links, nil
		case err == nil && len(links) == linksMax:
			return nil, fmt.Errorf("read snapshot %s: it builds upon more than %d: %w", id, linksMax, ErrDamaged)
		case err == nil:
			links = append(links, *upon)
		case len(links) == 1:
			return nil, err
		case errors.Is(err, ErrGone) && s.stands(ctx, links[len(links)-2].ID):
			// What removes a chain begins at its end: nobody is at it.
			return nil, fmt.Errorf("read snapshot %s: it builds upon %s, and that is gone: %w", id, last, ErrDamaged)
		default:
			return nil, fmt.Errorf("read snapshot %s: %w", id, err)
		}
	}
}

// stands tells that a snapshot is still there.
func (s *Store) stands(ctx context.Context, id ID) bool {
	_, err := s.head(ctx, id)
	return err == nil
}

// head reads what a snapshot builds upon; nil: it is whole.
func (s *Store) head(ctx context.Context, id ID) (*Link, error) {
	object, err := s.bucket.Get(ctx, id.key())
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", id, err)
	}
	defer func() { _ = object.Close() }() // it was only read
	r := s.begin(object, id)
	if r.err != nil {
		s.note(id, r.err)
		return nil, fmt.Errorf("read snapshot %s: %w", id, r.err)
	}
	s.know(id, r.upon)
	return r.upon, nil
}

// Upon is what a snapshot builds upon; nil: it is whole.
func (s *Store) Upon(ctx context.Context, id ID) (*Link, error) {
	s.mu.Lock()
	upon, known := s.upon[id]
	s.mu.Unlock()
	if known {
		return upon, nil
	}
	return s.head(ctx, id)
}

// prune removes the partition's snapshots beyond the newest whole ones and what builds
// upon them; those that are damaged, which would else push good ones out; and deltas of
// which a predecessor is. What is newer than the chain just published belongs to
// a lineage that was given up, or to somebody who is ahead: it stays, with all that it
// builds upon. What is left of torn ones goes; somebody who has lost the partition and
// still writes fails then.
func (s *Store) prune(ctx context.Context, newest *Chain) error {
	ids, left, err := s.list(ctx, newest.ID.Partition)
	if err != nil {
		return err
	}
	keep, err := s.kept(ctx, ids, newest)
	if err != nil {
		return err
	}
	for _, key := range left {
		if err := s.bucket.Delete(ctx, key); err != nil {
			return fmt.Errorf("remove what is left of a snapshot, %s: %w: %w", key, ErrNotRemoved, err)
		}
	}
	for _, id := range ids { // the newest first: never one before what builds upon it
		if keep[id] {
			continue
		}
		//failpoint:snapshot.pruning
		if err := s.bucket.Delete(ctx, id.key()); err != nil {
			return fmt.Errorf("remove snapshot %s: %w: %w", id, ErrNotRemoved, err)
		}
		s.forget(id)
	}
	return nil
}

// kept are those of a partition's snapshots that stay.
func (s *Store) kept(ctx context.Context, ids []ID, newest *Chain) (map[ID]bool, error) {
	upon, err := s.links(ctx, ids, newest.ID)
	if err != nil {
		return nil, err
	}
	// first gives the whole one of a chain, where all of it is there.
	first := func(id ID) (ID, bool) {
		for {
			link, ok := upon[id]
			if !ok || link == nil {
				return id, ok
			}
			id = link.ID
		}
	}
	base, ok := first(newest.ID)
	if !ok {
		return nil, fmt.Errorf("snapshot %s: one that it builds upon is gone or damaged: %w", newest.ID, ErrDamaged)
	}
	// However many look newer than its first one: they may be another cluster's.
	keep, bases := map[ID]bool{base: true}, 1
	for _, id := range ids {
		switch link, ok := upon[id]; {
		case id.compare(newest.ID) > 0:
			keep[id] = true
			for ; ok && link != nil; link, ok = upon[link.ID] {
				keep[link.ID] = true
			}
		case ok && link == nil && !keep[id] && bases < s.keep:
			bases++
			keep[id] = true
		}
	}
	for _, id := range ids {
		if base, ok := first(id); ok && (keep[base] || !slices.Contains(ids, base)) {
			keep[id] = true
		}
	}
	return keep, nil
}

// links are what those of a partition's snapshots build upon that are there and are not
// known to be damaged. A list may be an old one: what is not in it is asked for.
func (s *Store) links(ctx context.Context, ids []ID, newest ID) (map[ID]*Link, error) {
	s.mu.Lock()
	maps.DeleteFunc(s.upon, func(id ID, _ *Link) bool { // others remove some too
		return id.Partition == newest.Partition && id != newest && !slices.Contains(ids, id)
	})
	s.mu.Unlock()
	upon, unusable := map[ID]*Link{}, map[ID]bool{}
	for _, id := range append(slices.Clone(ids), newest) {
		ask := s.Upon
		for {
			if _, known := upon[id]; known || unusable[id] {
				break
			}
			link, err := ask(ctx, id)
			if err == nil && s.isDamaged(id) { // or the bucket had given half of it
				_, _, err = s.Verify(ctx, id)
			}
			if errors.Is(err, ErrDamaged) || errors.Is(err, ErrGone) {
				unusable[id] = true
				break
			}
			if err != nil {
				return nil, err
			}
			if upon[id] = link; link == nil {
				break
			}
			if id = link.ID; !slices.Contains(ids, id) {
				ask = s.head
			} else {
				ask = s.Upon
			}
		}
	}
	return upon, nil
}

// forget forgets a snapshot that was removed.
func (s *Store) forget(id ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.upon, id)
	delete(s.damaged, id)
}
