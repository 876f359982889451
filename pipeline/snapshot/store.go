package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// Bucket is an object store: a folder, S3, or a simulation of one that tears.
type Bucket interface {
	// Put stores an object whole or not at all; write gives its bytes.
	Put(ctx context.Context, key string, write func(io.Writer) error) error
	Get(ctx context.Context, key string) (io.ReadCloser, error)
	List(ctx context.Context, prefix string) ([]string, error)
	Delete(ctx context.Context, key string) error
}

// Store keeps the snapshots of a group's partitions in a bucket.
type Store struct {
	bucket Bucket
	keep   int

	mu      sync.Mutex
	damaged map[ID]bool  // seen to be; they do not count as kept
	upon    map[ID]*Link // what they build upon, of those that were seen; nil of a whole one
}

// NewStore keeps, of each partition, the newest keep whole snapshots, each with the deltas
// that build upon it.
func NewStore(bucket Bucket, keep int) *Store {
	return &Store{bucket: bucket, keep: max(keep, 1), damaged: map[ID]bool{}, upon: map[ID]*Link{}}
}

// ID names a snapshot: the cut it was taken at, the number of the last output before it,
// and a tag of who took it and when. Of two with one cut the one with the greater number
// is newer, and of those with one number the one with the greater tag.
//
// A name is not written twice. Somebody who has lost the partition, and whose last snapshot
// comes late, would put it in the place of one that others have built upon.
type ID struct {
	Partition int32
	Next      int64
	N         uint64
	Tag       uint64
}

// Tag makes a tag: milliseconds of a clock, and 16 bits of who it is.
func Tag(ms int64, who string) uint64 { return uint64(ms)<<16 | xxhash.Sum64String(who)&0xffff }

// key sorts as the snapshots do.
func (id ID) key() string {
	tag := ""
	if id.Tag != 0 {
		tag = fmt.Sprintf("_%016x", id.Tag)
	}
	return fmt.Sprintf("p%05d/%019d-%020d%s.snap", id.Partition, id.Next, id.N, tag)
}

// compare is below zero for the older of two snapshots of a partition.
func (id ID) compare(other ID) int {
	return cmp.Or(cmp.Compare(id.Next, other.Next), cmp.Compare(id.N, other.N), cmp.Compare(id.Tag, other.Tag))
}

// After tells that a snapshot is newer than another of its partition.
func (id ID) After(other ID) bool { return id.compare(other) > 0 }

// String is the snapshot's name in its bucket.
func (id ID) String() string { return id.key() }

// keyForm takes a key apart; the groups are partition, next, n and, not of old ones, the tag.
var keyForm = regexp.MustCompile(`(?:^|/)p(\d{5})/(\d{19})-(\d{20})(?:_([0-9a-f]{16}))?\.snap$`)

// ParseID reads a snapshot's name.
func ParseID(key string) (ID, bool) {
	m := keyForm.FindStringSubmatch(key)
	if m == nil {
		return ID{}, false
	}
	p, errP := strconv.ParseInt(m[1], 10, 32)
	next, errNext := strconv.ParseInt(m[2], 10, 64)
	n, errN := strconv.ParseUint(m[3], 10, 64)
	var tag uint64
	var errTag error
	if m[4] != "" {
		if tag, errTag = strconv.ParseUint(m[4], 16, 64); tag == 0 {
			return ID{}, false // it would have none
		}
	}
	return ID{int32(p), next, n, tag}, errors.Join(errP, errNext, errN, errTag) == nil
}

// layoutKey is the object that says what all snapshots of a bucket rest upon.
const layoutKey = "layout"

// Claim stores a text that says what the bucket's snapshots rest upon, where there is
// none yet, and returns the one that is there.
func (s *Store) Claim(ctx context.Context, text string) (string, error) {
	keys, err := s.bucket.List(ctx, layoutKey)
	if err != nil {
		return "", fmt.Errorf("list the bucket's layout: %w", err)
	}
	if !slices.Contains(keys, layoutKey) {
		err := s.bucket.Put(ctx, layoutKey, func(to io.Writer) error {
			_, err := io.WriteString(to, text)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("write the bucket's layout: %w", err)
		}
	}
	object, err := s.bucket.Get(ctx, layoutKey)
	if err != nil {
		return "", fmt.Errorf("read the bucket's layout: %w", err)
	}
	defer func() { _ = object.Close() }() // it was only read
	b, err := io.ReadAll(io.LimitReader(object, 4096))
	if err != nil {
		return "", fmt.Errorf("read the bucket's layout: %w", err)
	}
	return string(b), nil
}

// List gives a partition's snapshots, the newest first.
func (s *Store) List(ctx context.Context, partition int32) ([]ID, error) {
	ids, _, err := s.list(ctx, partition)
	return ids, err
}

// torn is the name of a file that a folder keeps of a snapshot whose writer was killed.
// (gocloud.dev/blob/fileblob writes beside the file's place, and renames.)
var torn = regexp.MustCompile(`(?:^|/)p\d{5}/\d{19}-\d{20}(?:_[0-9a-f]{16})?\.snap\.[0-9a-f]+\.tmp$`)

// list gives a partition's snapshots, the newest first, and what is left of torn ones.
func (s *Store) list(ctx context.Context, partition int32) (ids []ID, left []string, err error) {
	keys, err := s.bucket.List(ctx, fmt.Sprintf("p%05d/", partition))
	if err != nil {
		return nil, nil, fmt.Errorf("list snapshots of partition %d: %w", partition, err)
	}
	for _, k := range keys {
		if id, ok := ParseID(k); ok && id.Partition == partition {
			ids = append(ids, id)
		} else if torn.MatchString(k) {
			left = append(left, k)
		}
	}
	slices.SortFunc(ids, func(a, b ID) int { return b.compare(a) })
	return ids, left, nil
}

// Publish stores a snapshot, reads it back, and only then removes what is more than the
// store keeps. upon is the chain that it is a delta upon; nil: it is whole. write gives the
// bytes; when it fails nothing is stored. An error that wraps ErrNotRemoved comes with the
// chain: the snapshot is there.
func (s *Store) Publish(ctx context.Context, id ID, upon *Chain, write func(io.Writer) error) (*Chain, error) {
	var w *Writer
	err := s.bucket.Put(ctx, id.key(), func(to io.Writer) (err error) {
		if upon == nil {
			w, err = NewWriter(to)
		} else {
			w, err = NewDeltaWriter(to, upon.Link)
		}
		if err != nil {
			return err
		}
		if err := write(w); err != nil {
			return err
		}
		return w.Close()
	})
	if err != nil {
		return nil, fmt.Errorf("write snapshot %s: %w", id, err)
	}
	//failpoint:snapshot.put
	s.note(id, nil)
	r, err := s.read(ctx, id, discard)
	if err == nil && r.Sum() != w.Sum() { // whole, and somebody else's
		err = fmt.Errorf("read snapshot %s: it is not what was written: %w", id, ErrDamaged)
	}
	if err != nil {
		return nil, fmt.Errorf("just written: %w: %w", err, ErrAway)
	}
	//failpoint:snapshot.verified
	chain := upon.add(Link{id, w.Sum()}, int64(w.bytes))
	return chain, s.prune(ctx, chain)
}

func discard(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// Verify reads a snapshot to its end, but not those that it builds upon, and returns how
// many bytes it holds, and their sum.
func (s *Store) Verify(ctx context.Context, id ID) (bytes int64, sum uint64, err error) {
	r, err := s.read(ctx, id, discard)
	if err != nil {
		return 0, 0, err
	}
	return int64(r.bytes), r.Sum(), nil
}

// Open gives a snapshot's verified bytes to read: those of its chain, one after the other,
// the whole one first. Where the bytes are not those that were written, or not those that
// the next was written upon, the error wraps ErrDamaged, whatever read made of them.
func (s *Store) Open(ctx context.Context, id ID, read func(io.Reader) error) (*Chain, error) {
	links, err := s.chain(ctx, id)
	if err != nil {
		return nil, err
	}
	var chain *Chain
	for i, link := range slices.Backward(links) {
		r, err := s.read(ctx, link.ID, read)
		switch {
		case err != nil && i > 0:
			return nil, fmt.Errorf("read snapshot %s: %w", id, err)
		case err != nil:
			return nil, err
		case i > 0 && r.Sum() != link.Sum:
			return nil, fmt.Errorf("read snapshot %s: %s is not the one that %s was written upon: %w", id, link.ID, links[i-1].ID, ErrDamaged)
		case (r.upon == nil) != (i == len(links)-1), r.upon != nil && (r.upon.Sum != links[i+1].Sum || r.upon.ID.compare(links[i+1].ID) != 0):
			return nil, fmt.Errorf("read snapshot %s: %s was replaced meanwhile: %w", id, link.ID, ErrAway)
		}
		chain = chain.add(Link{link.ID, r.Sum()}, int64(r.bytes))
	}
	return chain, nil
}

// read gives the verified bytes of one file.
func (s *Store) read(ctx context.Context, id ID, read func(io.Reader) error) (*Reader, error) {
	object, err := s.bucket.Get(ctx, id.key())
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", id, err)
	}
	defer func() { _ = object.Close() }() // it was only read
	r := s.begin(object, id)
	err = read(r)
	if err == nil {
		err = discard(r)
	}
	if r.err != nil && !errors.Is(r.err, io.EOF) {
		err = r.err
	}
	s.note(id, err)
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", id, err)
	}
	s.know(id, r.upon)
	return r, nil
}

// begin begins to read the file of a snapshot. It builds upon an older one, so there is
// always a first.
func (s *Store) begin(object io.Reader, id ID) *Reader {
	r := NewReader(object)
	if r.upon != nil {
		if r.upon.ID.Partition = id.Partition; !id.After(r.upon.ID) {
			r.fail("builds upon %s, which is not older", r.upon.ID)
		}
	}
	return r
}

// note remembers whether a snapshot was seen to be damaged.
func (s *Store) note(id ID, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, ErrDamaged) {
		s.damaged[id] = true
	} else if err == nil {
		delete(s.damaged, id)
	}
}

func (s *Store) isDamaged(id ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.damaged[id]
}

// know remembers what a snapshot builds upon.
func (s *Store) know(id ID, upon *Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.upon[id] = upon
}
