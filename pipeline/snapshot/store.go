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
	damaged map[ID]bool // seen to be; they do not count as kept
}

// NewStore keeps, of each partition, the newest keep snapshots.
func NewStore(bucket Bucket, keep int) *Store {
	return &Store{bucket: bucket, keep: max(keep, 1), damaged: map[ID]bool{}}
}

// ID names a snapshot: the cut it was taken at, and the number of the last output
// before it. Of two with one cut the one with the greater number is newer.
type ID struct {
	Partition int32
	Next      int64
	N         uint64
}

// key sorts as the snapshots do.
func (id ID) key() string { return fmt.Sprintf("p%05d/%019d-%020d.snap", id.Partition, id.Next, id.N) }

// compare is below zero for the older of two snapshots of a partition.
func (id ID) compare(other ID) int {
	return cmp.Or(cmp.Compare(id.Next, other.Next), cmp.Compare(id.N, other.N))
}

// String is the snapshot's name in its bucket.
func (id ID) String() string { return id.key() }

// keyForm takes a key apart; the groups are partition, next and n.
var keyForm = regexp.MustCompile(`(?:^|/)p(\d{5})/(\d{19})-(\d{20})\.snap$`)

// ParseID reads a snapshot's name.
func ParseID(key string) (ID, bool) {
	m := keyForm.FindStringSubmatch(key)
	if m == nil {
		return ID{}, false
	}
	p, errP := strconv.ParseInt(m[1], 10, 32)
	next, errNext := strconv.ParseInt(m[2], 10, 64)
	n, errN := strconv.ParseUint(m[3], 10, 64)
	return ID{int32(p), next, n}, errors.Join(errP, errNext, errN) == nil
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
var torn = regexp.MustCompile(`(?:^|/)p\d{5}/\d{19}-\d{20}\.snap\.[0-9a-f]+\.tmp$`)

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

// Publish stores a snapshot whole, reads it back, and only then removes what is
// more than the store keeps. write gives the bytes; when it fails nothing is stored.
func (s *Store) Publish(ctx context.Context, id ID, write func(io.Writer) error) error {
	err := s.bucket.Put(ctx, id.key(), func(to io.Writer) error {
		w, err := NewWriter(to)
		if err != nil {
			return err
		}
		if err := write(w); err != nil {
			return err
		}
		return w.Close()
	})
	if err != nil {
		return fmt.Errorf("write snapshot %s: %w", id, err)
	}
	//failpoint:snapshot.put
	s.note(id, nil)
	if _, err := s.Verify(ctx, id); err != nil {
		return fmt.Errorf("just written: %w: %w", err, ErrAway)
	}
	//failpoint:snapshot.verified
	return s.prune(ctx, id)
}

// Verify reads a snapshot to its end and returns how many bytes it holds.
func (s *Store) Verify(ctx context.Context, id ID) (bytes int64, err error) {
	err = s.Open(ctx, id, func(r io.Reader) error {
		bytes, err = io.Copy(io.Discard, r)
		return err
	})
	return bytes, err
}

// Open gives a snapshot's verified bytes to read. Where the bytes are not those
// that were written the error wraps ErrDamaged, whatever read made of them.
func (s *Store) Open(ctx context.Context, id ID, read func(io.Reader) error) error {
	object, err := s.bucket.Get(ctx, id.key())
	if err != nil {
		return fmt.Errorf("read snapshot %s: %w", id, err)
	}
	defer func() { _ = object.Close() }() // it was only read
	r := NewReader(object)
	err = read(r)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if r.err != nil && !errors.Is(r.err, io.EOF) {
		err = r.err
	}
	s.note(id, err)
	if err != nil {
		return fmt.Errorf("read snapshot %s: %w", id, err)
	}
	return nil
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

// prune removes the partition's snapshots beyond the newest ones, and those that
// were seen to be damaged, which would else push good ones out. What is newer
// than the one just published belongs to a lineage that was given up. What is left of
// torn ones goes too; somebody who has lost the partition and still writes fails then.
func (s *Store) prune(ctx context.Context, newest ID) error {
	ids, left, err := s.list(ctx, newest.Partition)
	if err != nil {
		return err
	}
	for _, key := range left {
		if err := s.bucket.Delete(ctx, key); err != nil {
			return fmt.Errorf("remove what is left of a snapshot, %s: %w", key, err)
		}
	}
	kept := 0
	for _, id := range ids {
		if id.compare(newest) > 0 {
			continue
		}
		if !s.isDamaged(id) {
			kept++
			if kept <= s.keep {
				continue
			}
		}
		//failpoint:snapshot.pruning
		if err := s.bucket.Delete(ctx, id.key()); err != nil {
			return fmt.Errorf("remove snapshot %s: %w", id, err)
		}
	}
	return nil
}
