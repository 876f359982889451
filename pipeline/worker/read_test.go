package worker

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"footfall/pipeline/segment"
	"footfall/schemas"
)

// goldenWorld is what the golden snapshot was taken of: buyers and lookers-on, late
// and near-future events, a refused run of records, the order ring gone round.
func goldenWorld(t testing.TB) *world {
	cfg := config(t)
	cfg.Rules = segment.Lifecycle(1)
	w := newWorld(t, cfg, 2)
	add := func(user, kind string, at, record schemas.Millis, order int) {
		r := view(int64(len(w.log)), user, at)
		r.Time = record
		if order > 0 {
			r.Value = fmt.Appendf(nil, `{"event_id":"e%d","type":%q,"user_id":%q,"time":%d,"order_id":"o%d","revenue":%d.5}`, r.Offset, kind, user, at, order, order)
		}
		w.log = append(w.log, r)
	}
	add("ann", "view", base-100*schemas.Day, base, 0)
	add("bob", "purchase", base, base, 1)
	for order := range 10 {
		add("ann", "purchase", base+schemas.Millis(order), base+schemas.Minute, order+1)
	}
	add("bob", "refund", base+schemas.Hour, base+schemas.Hour-schemas.Minute, 1)
	add("the future", "view", base+schemas.Day, base+schemas.Hour, 0)
	add("the future", "view", base+schemas.Day, base+schemas.Hour, 0)
	add("\u00fcser \u2603", "view", base+schemas.Hour, base+schemas.Hour, 0)
	w.apply(w.log, Conditions{Wall: base + schemas.Hour, Tick: base + 31*schemas.Day})
	w.commit()
	return w
}

// goldenSnapshot is the file of a version of the format.
func goldenSnapshot(version int) string { return fmt.Sprintf("testdata/snapshot/v%d.snap", version) }

// goldenDelta is the file of one, upon the snapshot of the same version.
func goldenDelta(version int) string { return fmt.Sprintf("testdata/snapshot/v%d.delta", version) }

// firstDeltas is the version of the format that deltas came with.
const firstDeltas = 4

// Every version of the format that was ever released is read. With -rewrite the files
// of the present version are written anew. A change of the bytes is a new version, and
// new files beside the old ones. Where the same rules come to mean something else
// (segment.semantics), their new hash is put into the old files in place of theirs.
func TestEveryVersionOfASnapshotIsRead(t *testing.T) {
	w := goldenWorld(t)
	w.snapshot(t, base+2*schemas.Hour, 50)
	w.commit()
	snapshots := map[string][]byte{goldenSnapshot(snapshotVersion): w.snapshots[len(w.snapshots)-1].bytes}
	later := goldenWorld(t) // and then bob comes, and eve
	later.snapshot(t, base+2*schemas.Hour, 50)
	for _, user := range []string{"bob", "eve"} {
		later.log = append(later.log, view(int64(len(later.log)), user, base+32*schemas.Day))
		later.apply(later.log[len(later.log)-1:], Conditions{Wall: base + 32*schemas.Day})
	}
	later.toss = func() bool { return later.naive == nil }
	later.snapshot(t, base+2*schemas.Hour, 50)
	later.commit()
	snapshots[goldenDelta(snapshotVersion)] = later.snapshots[len(later.snapshots)-1].bytes
	if flag.Lookup("rewrite").Value.String() == "true" {
		for name, present := range snapshots {
			if err := os.WriteFile(name, present, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	golden := func(name string) []byte {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if present := snapshots[name]; present != nil && !bytes.Equal(b, present) {
			t.Errorf("the bytes of %s have changed, at %d of %d", name, diffAt(b, present), len(b))
		}
		return b
	}
	for version := 1; version <= snapshotVersion; version++ {
		whole := saved{w.committed, golden(goldenSnapshot(version)), nil}
		readGolden(t, w, whole)
		for delta := max(version, firstDeltas); delta <= snapshotVersion; delta++ {
			readGolden(t, later, saved{later.committed, golden(goldenDelta(delta)), &whole})
		}
	}
}

func readGolden(t *testing.T, w *world, golden saved) {
	t.Helper()
	restored := w.rebuild(t, golden, Conditions{Wall: base})
	if diff := cmp.Diff(w.worker.digest(t, true), restored.digest(t, true)); diff != "" {
		t.Errorf("(-went on +read):\n%s", diff)
	}
	if got := restored.Taken(); got != base+2*schemas.Hour {
		t.Errorf("taken: got %d, want %d", got, base+2*schemas.Hour)
	}
}

func diffAt(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// A snapshot does not depend on how it was cut into slices, and what changes while
// it is under way is in it as it was at the cut.
func TestASnapshotIsOfItsCut(t *testing.T) {
	whole := goldenWorld(t)
	whole.snapshot(t, base, 1<<20)
	want := whole.written[0].bytes
	for budget := 1; budget < len(want); budget += 1 + budget/3 {
		w := goldenWorld(t)
		w.begin(base)
		for i := 0; !w.slice(t, budget); i++ {
			if i < 8 {
				r := view(int64(100+i), []string{"ann", "bob", "eve", "\u00fcser \u2603"}[i%4], base+40*schemas.Day)
				w.apply([]Record{r}, Conditions{Wall: base + 40*schemas.Day})
			}
		}
		got := w.written[0].bytes
		if len(got) != len(want) {
			t.Errorf("slices of %d bytes: got %d bytes, want %d", budget, len(got), len(want))
		}
		same := func(b []byte) string {
			w, err := Read(bytes.NewReader(b), 7, w.cfg)
			if err != nil {
				t.Fatalf("slices of %d bytes: %v", budget, err)
			}
			return w.digest(t, true)
		}
		if diff := cmp.Diff(same(want), same(got)); diff != "" {
			t.Errorf("slices of %d bytes (-at the cut +changed meanwhile):\n%s", budget, diff)
		}
	}
}

// failing is a bucket that takes nothing.
type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// A slice that could not be written is not lost: the next one begins with it.
func TestASliceThatFailsIsGivenAgain(t *testing.T) {
	w := goldenWorld(t)
	w.snapshot(t, base, 1<<20)
	w.begin(base)
	full := errors.New("disk full")
	for done := false; !done; {
		if _, err := w.worker.Slice(failing{full}, 64); !errors.Is(err, full) {
			t.Fatalf("got %v, want %v", err, full)
		}
		done = w.slice(t, 64)
	}
	if !bytes.Equal(w.written[0].bytes, w.written[1].bytes) {
		t.Errorf("the snapshot differs, at %d", diffAt(w.written[0].bytes, w.written[1].bytes))
	}
}

func TestReadRefusesWhatCannotBe(t *testing.T) {
	w := goldenWorld(t)
	w.snapshot(t, base, 1<<20)
	good := w.written[0].bytes
	for n := range good {
		if _, err := Read(bytes.NewReader(good[:n]), 7, w.cfg); err == nil {
			t.Errorf("the first %d of %d bytes were read", n, len(good))
		}
	}
	row := bytes.Index(good, []byte("ann"))
	edit := func(at int, b ...byte) []byte {
		bad := bytes.Clone(good)
		copy(bad[at:], b)
		return bad
	}
	twice := bytes.Clone(good)
	copy(twice[bytes.Index(good, []byte("bob")):], "ann")
	for want, bad := range map[string][]byte{
		"header: version 6, and this footfall reads 1 to 5": edit(0, 6),
		"header: of partition 8, not 7":                     edit(2, 8),
		"header: a delta: true, want false":                 edit(6, 1),
		"header: a snapshot of kind 2":                      edit(6, 2),
		`row 1 of 3: user "ann" in segment 6 of 6`:          edit(row+3+5*8+6*4+8, 6),
		`row 2 of 3: user "ann" twice`:                      twice,
		"bytes after the last of 3 rows":                    append(bytes.Clone(good), 0),
		"header: unexpected EOF":                            good[:20],
	} {
		if bad == nil {
			continue
		}
		if _, err := Read(bytes.NewReader(bad), 7, w.cfg); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// A hostile file claims four thousand million rows, runs, or long texts: none takes
// memory before its bytes are there.
func TestReadTakesNoMemoryForWhatIsClaimed(t *testing.T) {
	w := goldenWorld(t)
	w.snapshot(t, base, 1<<20)
	good := w.written[0].bytes
	runs := 2 + 4 + 1 + 7*8 + 1 + 2*8 + 2*8
	sets := bytes.Index(good, []byte("lifecycle")) - 3
	rows := bytes.Index(good, []byte("ann")) - 2 - 4
	all := []byte{0xff, 0xff, 0xff, 0xff}
	for what, bad := range map[string][]byte{
		"runs":           append(bytes.Clone(good[:runs]), all...),
		"rows":           append(bytes.Clone(good[:rows]), all...),
		"segments":       append(append(bytes.Clone(good[:sets]), 255), append([]byte("\x09\x00lifecycle"), all...)...),
		"a long name":    append(append(bytes.Clone(good[:sets]), 255), all...),
		"a long user id": append(bytes.Clone(good[:rows+4]), all...),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Read(bytes.NewReader(bad), 7, w.cfg)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: read", what)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
			t.Errorf("%s: took %d bytes for a file of %d", what, n, len(bad))
		}
	}
}

// A snapshot of other sets than the rules' own, or in another order, is read by
// names; a set that it doesn't have begins with nothing said.
func TestSetsAreReadByTheirNames(t *testing.T) {
	w := goldenWorld(t)
	w.snapshot(t, base, 1<<20)
	good := w.written[0].bytes
	at := bytes.Index(good, []byte("\x04\x00lost"))
	if at < 0 || !bytes.HasPrefix(good[at+6:], []byte("\x07\x00dormant")) {
		t.Fatal("the header's segments are not where they were")
	}
	swapped := bytes.Join([][]byte{good[:at], []byte("\x07\x00dormant\x04\x00lost"), good[at+6+9:]}, nil)
	want, err := Read(bytes.NewReader(good), 7, w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(bytes.NewReader(swapped), 7, w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for user := range int32(want.Users()) {
		m := want.member(user, 0)
		if m.segment < 2 {
			m.segment = 1 - m.segment
		}
		if got.member(user, 0) != m {
			t.Errorf("user %q: got %+v, want %+v", want.table.ID(user), got.member(user, 0), m)
		}
	}
}

func FuzzRead(f *testing.F) {
	w := goldenWorld(f)
	w.snapshot(f, base, 1<<20)
	good := w.written[0].bytes
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte{})
	f.Add(w.snapshots[0].bytes)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Read(bytes.NewReader(b), 7, w.cfg)
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Error("an error that says nothing")
			}
			return
		}
		// What can be read can be lived with: whatever it says of times and orders,
		// the mark decides where it goes on.
		if r.Resume(r.Mark(), Conditions{Wall: base}, &Output{}) != nil {
			return
		}
		n := r.Users()
		r.Snapshot(base)
		var again bytes.Buffer
		for done := false; !done; {
			if done, err = r.Slice(&again, 1<<16); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := Read(&again, 7, w.cfg); err != nil || s.Users() != n {
			t.Errorf("written again and read: %v, want %d users", err, n)
		}
	})
}
