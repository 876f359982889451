package worker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"footfall/pipeline/segment"
	"footfall/pipeline/snapshot"
	"footfall/schemas"
)

var (
	corruptions     = flag.Int("corruptions", 10_000, "how many random corruptions of snapshots TestRandomCorruptionsAreFound tries")
	corruptionsFrom = flag.Uint64("corruptions.from", 0, "seed of the first of them; each has the next")
)

// stored is a snapshot as it lies in a bucket.
type stored struct {
	id     snapshot.ID
	hash   uint64 // of the outputs before it: what the committed mark will tell
	file   []byte
	below  shelf  // of a delta: what it is read upon
	digest string // of the worker that it makes
}

// with is the bucket in which its file is another.
func (s *stored) with(file []byte) snapshot.Bucket {
	if s.below == nil {
		return object{file}
	}
	all := maps.Clone(s.below)
	all[s.id.String()] = file
	return all
}

// object is a bucket with one object, whatever its name.
type object struct{ bytes []byte }

func (o object) Put(context.Context, string, func(io.Writer) error) error { return nil }
func (o object) List(context.Context, string) ([]string, error)           { return nil, nil }
func (o object) Delete(context.Context, string) error                     { return nil }
func (o object) Get(context.Context, string) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(o.bytes)), nil
}

// store frames the snapshot that a world has taken last, in blocks of the given size.
func (w *world) store(tb testing.TB, block int) stored {
	tb.Helper()
	var file bytes.Buffer
	to, err := snapshot.NewWriter(&file)
	if err != nil {
		tb.Fatal(err)
	}
	w.begin(base)
	for done := false; !done; {
		if done, err = w.worker.Slice(to, block); err != nil {
			tb.Fatal(err)
		}
	}
	if err := to.Close(); err != nil {
		tb.Fatal(err)
	}
	s := stored{id: snapshot.ID{Partition: w.cut.Partition, Next: w.cut.Next, N: w.cut.N}, hash: w.cut.Hash, file: file.Bytes()}
	r, err := w.open(s.id, s.hash, object{s.file})
	if err != nil {
		tb.Fatal(err)
	}
	s.digest = r.digest(tb, true)
	return s
}

// open reads what lies where a snapshot is expected, by the path that recovery
// takes: the frame, the worker, the cut that its name tells, and the hash of what was
// committed.
func (w *world) open(id snapshot.ID, hash uint64, bucket snapshot.Bucket) (r *Worker, err error) {
	r, err = ReadChain(func(read func(io.Reader) error) error {
		_, err := snapshot.NewStore(bucket, 1).Open(context.Background(), id, read)
		return err
	}, 7, w.cfg)
	if err != nil {
		return nil, err
	}
	switch m := r.Mark(); {
	case m.Next != id.Next || m.N != id.N:
		return nil, fmt.Errorf("snapshot %s: holds the cut %d with n=%d", id, m.Next, m.N)
	case m.Hash != hash:
		return nil, fmt.Errorf("snapshot %s: %w", id, ErrLineage)
	}
	return r, nil
}

// judge says what is wrong with how damaged bytes were read, or nothing.
func (w *world) judge(tb testing.TB, s *stored, file []byte) (wrong string) {
	defer func() {
		if p := recover(); p != nil {
			wrong = fmt.Sprintf("panic: %v", p)
		}
	}()
	r, err := w.open(s.id, s.hash, s.with(file))
	switch {
	case err != nil && !strings.Contains(err.Error(), s.id.String()):
		return fmt.Sprintf("the error does not name the snapshot: %v", err)
	case err != nil || bytes.Equal(file, s.file):
		return ""
	case r.digest(tb, true) == s.digest:
		return "not found, and harmless by chance"
	}
	return "not found"
}

// populated is a world with so many users, and what they did.
func populated(tb testing.TB, users int, salt string) *world {
	w := newWorld(tb, config(tb), 0)
	for i := range users {
		user := fmt.Sprint(salt, "user-", i)
		r := view(int64(len(w.log)), user, base+schemas.Millis(i)*schemas.Second)
		if i%3 == 0 {
			r.Value = fmt.Appendf(nil, `{"event_id":"e%d","type":"purchase","user_id":%q,"time":%d,"order_id":"o%d","revenue":%d.5}`, i, user, base, i, i)
		}
		w.log = append(w.log, r)
	}
	w.apply(w.log, Conditions{Wall: base + schemas.Hour})
	w.commit()
	return w
}

func TestEveryFlippedBitOfASnapshotIsFound(t *testing.T) {
	w := goldenWorld(t)
	w.cfg.Rules = segment.Lifecycle(1)
	s := w.store(t, 200)
	for i := range 8 * len(s.file) {
		bad := bytes.Clone(s.file)
		bad[i/8] ^= 1 << (i % 8)
		if wrong := w.judge(t, &s, bad); wrong != "" {
			t.Errorf("bit %d of byte %d of %d: %s", i%8, i/8, len(bad), wrong)
		}
	}
	t.Logf("%d flipped bits, 0 silent", 8*len(s.file))
}

// shelf is a bucket with some objects.
type shelf map[string][]byte

func (s shelf) Put(context.Context, string, func(io.Writer) error) error { return nil }
func (s shelf) List(context.Context, string) ([]string, error)           { return nil, nil }
func (s shelf) Delete(context.Context, string) error                     { return nil }
func (s shelf) Get(_ context.Context, key string) (io.ReadCloser, error) {
	if s[key] == nil {
		return nil, fmt.Errorf("%s: %w: %w", key, snapshot.ErrGone, snapshot.ErrAway)
	}
	return io.NopCloser(bytes.NewReader(s[key])), nil
}

// chain takes a whole snapshot, and a delta after each time that some came, and gives the
// newest's name and all files.
func (w *world) chain(tb testing.TB, came ...[]string) (id snapshot.ID, files shelf) {
	tb.Helper()
	w.always(tb)
	for _, users := range came {
		from := len(w.log)
		for _, user := range users {
			w.log = append(w.log, view(int64(len(w.log)), user, base+31*schemas.Day))
		}
		w.apply(w.log[from:], Conditions{Wall: base + 31*schemas.Day})
		w.delta(tb)
	}
	files = shelf{}
	var upon *snapshot.Link
	for _, s := range w.snapshots[len(w.snapshots)-1-len(came):] {
		var file bytes.Buffer
		to, err := snapshot.NewWriter(&file)
		if upon != nil {
			file.Reset()
			to, err = snapshot.NewDeltaWriter(&file, *upon)
		}
		for b := s.bytes; err == nil && len(b) > 0; { // in blocks, as a worker's slices are
			n := min(len(b), 2000)
			_, err = to.Write(b[:n])
			b = b[n:]
		}
		if err == nil {
			err = to.Close()
		}
		if err != nil {
			tb.Fatal(err)
		}
		id = snapshot.ID{Partition: 7, Next: s.cut.Next, N: s.cut.N}
		files[id.String()], upon = file.Bytes(), &snapshot.Link{ID: id, Sum: to.Sum()}
	}
	return id, files
}

// storeDelta is store of a delta of those who came, with the files below it.
func (w *world) storeDelta(tb testing.TB, came ...[]string) stored {
	tb.Helper()
	id, files := w.chain(tb, came...)
	s := stored{id: id, hash: w.cut.Hash, file: files[id.String()], below: files}
	delete(files, id.String())
	r, err := w.open(s.id, s.hash, s.with(s.file))
	if err != nil {
		tb.Fatal(err)
	}
	s.digest = r.digest(tb, true)
	return s
}

// A whole snapshot and two deltas: whichever bit of whichever file flips, what is read is
// refused, or is what was written.
func TestEveryFlippedBitOfAChainIsFound(t *testing.T) {
	w := goldenWorld(t)
	w.cfg.Rules = segment.Lifecycle(1)
	id, files := w.chain(t, []string{"bob"}, []string{"eve"})
	good, err := w.open(id, w.cut.Hash, files)
	if err != nil || len(files) != 3 {
		t.Fatal(len(files), err)
	}
	want, flipped := good.digest(t, true), 0
	for name, file := range files {
		for i := range 8 * len(file) {
			files[name] = bytes.Clone(file)
			files[name][i/8] ^= 1 << (i % 8)
			if r, err := w.open(id, w.cut.Hash, files); err == nil && r.digest(t, true) != want {
				t.Errorf("bit %d of byte %d of %d of %s: not found", i%8, i/8, len(file), name)
			} else if err == nil {
				t.Errorf("bit %d of byte %d of %d of %s: not found, and harmless by chance", i%8, i/8, len(file), name)
			}
			flipped++
		}
		files[name] = file
	}
	t.Logf("%d flipped bits, 0 silent", flipped)
}

// damages are the ways in which a file can be another one than was written. The others
// are of other moments, of another partition, of another cluster.
func damages() map[string]func(rng *rand.Rand, b []byte, others []stored) []byte {
	span := func(rng *rand.Rand, n int) (from, to int) {
		from = rng.IntN(n)
		return from, from + 1 + rng.IntN(min(n-from, 4096))
	}
	return map[string]func(rng *rand.Rand, b []byte, others []stored) []byte{
		"bits flipped": func(rng *rand.Rand, b []byte, _ []stored) []byte {
			for range 1 + rng.IntN(8) {
				b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
			}
			return b
		},
		"bytes overwritten": func(rng *rand.Rand, b []byte, _ []stored) []byte {
			from, to := span(rng, len(b))
			for i := from; i < to; i++ {
				b[i] = byte(rng.Uint32())
			}
			return b
		},
		"a page of zeros": func(rng *rand.Rand, b []byte, _ []stored) []byte {
			page := 512 << rng.IntN(4)
			from := rng.IntN(len(b)) / page * page
			clear(b[from:min(len(b), from+page)])
			return b
		},
		"cut short": func(rng *rand.Rand, b []byte, _ []stored) []byte { return b[:rng.IntN(len(b))] },
		"empty":     func(*rand.Rand, []byte, []stored) []byte { return nil },
		"bytes behind the end": func(rng *rand.Rand, b []byte, _ []stored) []byte {
			from, to := span(rng, len(b))
			return append(b, b[from:to]...)
		},
		"bytes lost": func(rng *rand.Rand, b []byte, _ []stored) []byte {
			from, to := span(rng, len(b))
			return slices.Delete(b, from, to)
		},
		"bytes doubled": func(rng *rand.Rand, b []byte, _ []stored) []byte {
			from, to := span(rng, len(b))
			return slices.Insert(b, to, bytes.Clone(b[from:to])...)
		},
		"parts swapped": func(rng *rand.Rand, b []byte, _ []stored) []byte {
			cuts := []int{rng.IntN(len(b)), rng.IntN(len(b)), rng.IntN(len(b))}
			slices.Sort(cuts)
			return slices.Concat(b[:cuts[0]], b[cuts[1]:cuts[2]], b[cuts[0]:cuts[1]], b[cuts[2]:])
		},
		"blocks swapped": func(rng *rand.Rand, b []byte, _ []stored) []byte {
			at := blocks(b)
			i, j := rng.IntN(len(at)-1), rng.IntN(len(at)-1)
			i, j = min(i, j), max(i, j)
			if i == j {
				j++
			}
			return slices.Concat(b[:at[i]], b[at[j]:max(at[j], end(at, j))], b[at[i]:at[j]], b[end(at, j):])
		},
		"spliced with another": func(rng *rand.Rand, b []byte, others []stored) []byte {
			o := others[rng.IntN(len(others))].file
			return slices.Concat(b[:rng.IntN(len(b))], o[rng.IntN(len(o)):])
		},
		"spliced with another, between blocks": func(rng *rand.Rand, b []byte, others []stored) []byte {
			o := others[rng.IntN(len(others))].file
			at, of := blocks(b), blocks(o)
			return slices.Concat(b[:at[rng.IntN(len(at))]], o[of[rng.IntN(len(of))]:])
		},
		"another one": func(rng *rand.Rand, _ []byte, others []stored) []byte {
			return bytes.Clone(others[rng.IntN(len(others))].file)
		},
	}
}

// blocks gives where the blocks of a good file begin, and the footer.
func blocks(file []byte) (at []int) {
	for i := 8; i < len(file); {
		at = append(at, i)
		n := int(file[i]) | int(file[i+1])<<8 | int(file[i+2])<<16
		if n == 0 {
			break
		}
		i += 12 + n
	}
	return at
}

// end is where block j ends.
func end(at []int, j int) int { return at[min(j+1, len(at)-1)] }

func TestRandomCorruptionsAreFound(t *testing.T) {
	w := populated(t, 300, "")
	good := []stored{w.store(t, 1000), w.store(t, 1<<20)}
	others := foreign(t, w)
	var deltas []stored
	for _, salt := range []string{"", "other-"} {
		some, many := make([]string, 50), make([]string, 100)
		for i := range some {
			some[i] = fmt.Sprint(salt, "new-", i)
		}
		for i := range many {
			many[i] = fmt.Sprint(salt, "user-", 2*i)
		}
		deltas = append(deltas, populated(t, 300, salt).storeDelta(t, some, many))
	}
	delta, another := deltas[0], deltas[1]
	if another.id != delta.id {
		t.Fatalf("the other cluster's delta is %s, want it to have the name of ours, %s", another.id, delta.id)
	}
	good, others = append(good, delta), append(others, another)
	kinds := damages()
	names := slices.Sorted(maps.Keys(kinds))
	found, silent := 0, 0
	for i := range *corruptions {
		seed := *corruptionsFrom + uint64(i)
		rng := rand.New(rand.NewPCG(seed, 10))
		s := &good[rng.IntN(len(good))]
		name := names[rng.IntN(len(names))]
		bad := kinds[name](rng, bytes.Clone(s.file), others)
		if bytes.Equal(bad, s.file) {
			continue // the same bytes after all
		}
		if wrong := w.judge(t, s, bad); wrong != "" {
			silent++
			t.Errorf("-corruptions.from %d -corruptions 1: %s: %s", seed, name, wrong)
			continue
		}
		found++
	}
	fmt.Printf("%d corruptions, %d silent\n", found, silent)
}

// foreign are whole snapshots that are not the ones looked for.
func foreign(t *testing.T, w *world) []stored {
	earlier, cluster := populated(t, 200, ""), populated(t, 300, "other-")
	others := []stored{earlier.store(t, 1000), cluster.store(t, 1000)}
	same := snapshot.ID{Partition: 7, Next: w.worker.Mark().Next, N: w.worker.Mark().N}
	if others[1].id != same {
		t.Fatalf("the other cluster's snapshot is %s, want it to have the name of ours, %s", others[1].id, same)
	}
	neighbour := New(8, w.cfg)
	neighbour.Begin(0, 0)
	neighbour.Apply(w.log, Conditions{Wall: base + schemas.Hour}, &Output{})
	neighbour.Snapshot(base)
	var file bytes.Buffer
	to, err := snapshot.NewWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	if done, err := neighbour.Slice(to, 1<<20); err != nil || !done {
		t.Fatal(done, err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return append(others, stored{file: file.Bytes()})
}

// Damage that carries good checksums cannot all be found: a snapshot is not signed. But
// it makes nobody panic, nor take memory for what it only claims to have.
func TestCorruptionsUnderGoodChecksums(t *testing.T) {
	w := populated(t, 300, "")
	w.snapshot(t, base, 1<<20)
	good := w.written[len(w.written)-1].bytes
	kinds := damages()
	delete(kinds, "blocks swapped") // there are none
	delete(kinds, "spliced with another, between blocks")
	names := slices.Sorted(maps.Keys(kinds))
	others := []stored{{file: good}}
	refused, read := 0, 0
	const batch = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range *corruptions {
		seed := *corruptionsFrom + uint64(i)
		rng := rand.New(rand.NewPCG(seed, 11))
		name := names[rng.IntN(len(names))]
		bad := kinds[name](rng, bytes.Clone(good), others)
		switch wrong, err := readAnything(w.cfg, bad); {
		case wrong != "":
			t.Errorf("-corruptions.from %d -corruptions 1: %s: %s", seed, name, wrong)
		case err != nil:
			refused++
		default:
			read++
		}
		if i%batch == batch-1 {
			runtime.ReadMemStats(&after)
			if n := (after.TotalAlloc - before.TotalAlloc) / batch; n > 8<<20 {
				t.Fatalf("corruptions before -corruptions.from %d took %d bytes each, for a file of %d", seed, n, len(good))
			}
			before = after
		}
	}
	t.Logf("%d refused, %d read", refused, read)
}

// A name longer than there are names is refused before so many segments are written out
// beside it.
func TestALongNameInASnapshot(t *testing.T) {
	w := populated(t, 3, "")
	w.snapshot(t, base, 1<<20)
	good := w.written[len(w.written)-1].bytes
	text := func(s string) []byte { return append(binary.LittleEndian.AppendUint16(nil, uint16(len(s))), s...) }
	bad := bytes.Replace(good, text(w.cfg.Rules.Names()[0].Name), text(strings.Repeat("x", schemas.NameMax+1)), 1)
	if _, err := readAnything(w.cfg, bad); err == nil || !strings.Contains(err.Error(), "a name of 65 bytes") {
		t.Errorf("got %v", err)
	}
}

// readAnything reads bytes without a frame, and lives with what they make.
func readAnything(cfg Config, b []byte) (wrong string, err error) {
	defer func() {
		if p := recover(); p != nil {
			wrong = fmt.Sprintf("panic: %v", p)
		}
	}()
	r, err := Read(bytes.NewReader(b), 7, cfg)
	if err != nil {
		if strings.TrimSpace(err.Error()) == "" {
			return "an error that says nothing", err
		}
		return "", err
	}
	err = r.Resume(r.Mark(), Conditions{Wall: base}, &Output{})
	if errors.Is(err, ErrLineage) {
		return "the mark of its own is another lineage", err
	}
	return "", nil
}
