package profile

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"
)

// compare looks every id up and every row.
func (t *Table) compare(tb testing.TB, want map[string]int32) {
	tb.Helper()
	if t.Len() != len(want) {
		tb.Fatalf("got %d users, want %d", t.Len(), len(want))
	}
	for id, row := range want {
		if got := t.Find([]byte(id)); got != row {
			tb.Fatalf("%.40q: got row %d, want %d", id, got, row)
		}
		if got := string(t.ID(row)); got != id {
			tb.Fatalf("row %d: got %.40q, want %.40q", row, got, id)
		}
	}
	t.index.check(tb, t)
}

// check looks at every row of the index.
func (x *index) check(tb testing.TB, t *Table) {
	tb.Helper()
	rows := 0
	for i := range x.parts {
		p := &x.parts[i]
		if p.rows >= bucketRows*max(1, len(p.buckets)) {
			tb.Fatalf("part %d: %d rows in %d buckets: looking through it may not end", i, p.rows, len(p.buckets))
		}
		for at := range p.buckets {
			rows += p.buckets[at].check(tb, x, t, i, at)
		}
	}
	if rows != t.Len() {
		tb.Fatalf("%d rows in the index, want %d", rows, t.Len())
	}
}

// check looks at the rows of a bucket, and tells how many there are.
func (b *bucket) check(tb testing.TB, x *index, t *Table, part, at int) int {
	tb.Helper()
	tags := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64(nil, b.low), b.high)
	for i, row := range b.rows {
		if i >= int(b.n) {
			if tags[i] != 0 {
				tb.Fatalf("part %d, bucket %d: tag %d where nobody stands", part, at, tags[i])
			}
			continue
		}
		hash, p := t.hash(t.ID(row)), &x.parts[part]
		if x.part(hash) != p || tags[i] != tag(hash) {
			tb.Fatalf("part %d, bucket %d: row %d is of another part or tag", part, at, row)
		}
		for home := p.home(hash); home != at; home = p.next(home) {
			if p.buckets[home].n < bucketRows {
				tb.Fatalf("part %d: row %d stands in bucket %d, and bucket %d before it has room", part, row, at, home)
			}
		}
	}
	return int(b.n)
}

func TestTableIsAMap(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var table Table
		want := map[string]int32{}
		for range rng.IntN(20_000) {
			id := fmt.Sprint(rng.IntN(10_000))
			switch rng.IntN(10) {
			case 0:
				id = strings.Repeat(id, 1+rng.IntN(64)) // up to 256 bytes
			case 1:
				id = "\x00" + id
			}
			bytes := []byte(id)
			row, added := table.FindOrAdd(bytes)
			clear(bytes) // the table has its own
			known, ok := want[id]
			if added == ok || ok && row != known || !ok && int(row) != len(want) {
				t.Fatalf("seed %d: %q: got row %d, added %t, want row %d, known %t", seed, id, row, added, known, ok)
			}
			want[id] = row
		}
		table.compare(t, want)
		if row := table.Find([]byte("nobody")); row != -1 {
			t.Errorf("seed %d: nobody has row %d", seed, row)
		}
	}
}

func TestAnEmptyTableHasNobody(t *testing.T) {
	var table Table
	if row := table.Find([]byte("ann")); row != -1 || table.Len() != 0 {
		t.Errorf("got row %d of %d", row, table.Len())
	}
}

// The index knows a few bits of the hash; ids that share them are told apart by
// their bytes, before and after it grows.
func TestIdsOfOneTagAreTwoUsers(t *testing.T) {
	var table Table
	byHash := map[uint64]string{}
	var pairs [][2]string
	for i := 0; len(pairs) < 5; i++ {
		id := fmt.Sprintf("user-%d", i)
		h := table.hash([]byte(id))
		same := h>>40<<40 | uint64(tag(h)) // so also their homes, as long as there are few buckets
		if other, ok := byHash[same]; ok {
			pairs = append(pairs, [2]string{other, id})
		}
		byHash[same] = id
	}
	want := map[string]int32{}
	for _, p := range pairs {
		for _, id := range p {
			row, added := table.FindOrAdd([]byte(id))
			if !added {
				t.Fatalf("%q and %q were taken for one", p[0], p[1])
			}
			want[id] = row
		}
	}
	for i := range 100_000 {
		id := fmt.Sprintf("other-%d", i)
		want[id], _ = table.FindOrAdd([]byte(id))
	}
	table.compare(t, want)
}

// What was expected changes nothing but how large the index is, and that not by much.
func TestExpectingUsersChangesNoUser(t *testing.T) {
	for _, expected := range []int{0, 1, 1000, 30_000, 1 << 40} {
		var table Table
		table.Expect(expected)
		want := map[string]int32{}
		for i := range 30_000 {
			id := fmt.Sprintf("user-%d", i)
			want[id], _ = table.FindOrAdd([]byte(id))
		}
		table.compare(t, want)
		slots := 0
		for _, p := range table.index.parts {
			slots += bucketRows * len(p.buckets)
		}
		if slots > 2*expectedGrowth*len(want) {
			t.Errorf("%d expected: %d slots for %d users", expected, slots, len(want))
		}
	}
}

// Most users are found in the first bucket that is looked at.
func TestAGuessIsMostOftenRight(t *testing.T) {
	var table Table
	if hash, _ := table.Ask([]byte("ann")); table.Guess(hash) != -1 {
		t.Fatalf("nobody is there, and ann is guessed to be")
	}
	const users = 200_000
	right := 0
	for pass := range 2 {
		for i := range users {
			id := fmt.Appendf(nil, "user-%d", i)
			if hash, _ := table.Ask(id); pass == 0 {
				table.FindOrAdd(id)
			} else if guess, row := table.Guess(hash), table.Find(id); guess == row {
				right++
			} else if got := table.FindGuessed(id, guess); got != row {
				t.Fatalf("%s with guess %d: got row %d, want %d", id, guess, got, row)
			}
		}
	}
	if right < users*8/10 {
		t.Errorf("%d of %d guesses are right, want most", right, users)
	}
}

// Ids fill the pieces nearly to the last byte, and those of a group stand together.
func TestIdsFillTheirPieces(t *testing.T) {
	for _, most := range []int{16, IDMax} {
		var table Table
		want := map[string]int32{}
		bytes := 0
		for i := 0; bytes < 2*arenaBlock+100*IDMax; i++ {
			id := fmt.Sprintf("%d", i)
			id = strings.Repeat("x", max(0, min(most, 1+i%IDMax)-len(id))) + id
			want[id], _ = table.FindOrAdd([]byte(id))
			bytes += len(id)
		}
		table.compare(t, want)
		room := 0
		for i, b := range table.ids.pieces {
			if cap(b) != arenaBlock && len(table.ids.pieces[i]) > groupRows*IDMax {
				t.Errorf("piece %d: %d of %d bytes, want at most %d, never moved", i, len(b), cap(b), arenaBlock)
			}
			room += cap(b)
		}
		if arenaBlock > 1<<16 && room > bytes+2*arenaBlock {
			t.Errorf("ids of %d bytes at most: %d pieces for %d bytes", most, len(table.ids.pieces), bytes)
		}
	}
}

// An id that was given to somebody stays what it was when its group moves.
func TestAnIDStaysGood(t *testing.T) {
	var table Table
	var given [][]byte
	for i := range 3 * arenaBlock / 100 {
		row, _ := table.FindOrAdd(fmt.Appendf(nil, "%0*d", 1+i%IDMax, i))
		given = append(given, table.ID(row))
	}
	for i, id := range given {
		if want := fmt.Sprintf("%0*d", 1+i%IDMax, i); string(id) != want || cap(id) != len(id) {
			t.Fatalf("user %d: got %q, want %q", i, id, want)
		}
	}
}

func TestIdsHaveALength(t *testing.T) {
	for _, n := range []int{0, IDMax + 1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("an id of %d bytes is taken", n)
				}
			}()
			new(Table).FindOrAdd(make([]byte, n))
		}()
	}
}

// Rows never move: a pointer to one stays good while the slab grows.
func TestSlabRowsNeverMove(t *testing.T) {
	var slab Slab[int64]
	var rows []*int64
	for i := range int32(3*slabRows + 1) {
		if got := slab.Append(); got != i {
			t.Fatalf("append: got row %d, want %d", got, i)
		}
		if v := slab.At(i); *v != 0 {
			t.Fatalf("row %d begins as %d, want 0", i, *v)
		}
		*slab.At(i) = int64(i)
		rows = append(rows, slab.At(i))
	}
	if slab.Len() != len(rows) {
		t.Errorf("got %d rows, want %d", slab.Len(), len(rows))
	}
	for i, p := range rows {
		if slab.At(int32(i)) != p || *p != int64(i) {
			t.Fatalf("row %d moved or holds %d", i, *p)
		}
	}
}

// What is known of a shopper is one cache line.
func TestAProfileIsOneCacheLine(t *testing.T) {
	if got := unsafe.Sizeof(Profile{}); got != 64 {
		t.Errorf("got %d bytes, want 64", got)
	}
}

func TestLookingUpAllocatesNothing(t *testing.T) {
	var table Table
	id := []byte("ann")
	table.FindOrAdd(id)
	if n := testing.AllocsPerRun(100, func() { table.Find(id); table.FindOrAdd(id) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func BenchmarkTableFind(b *testing.B) {
	var table Table
	ids := make([][]byte, 1<<20)
	for i := range ids {
		ids[i] = fmt.Appendf(nil, "user-%d", i*7919)
		table.FindOrAdd(ids[i])
	}
	b.Run("users=1M", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i = (i + 40503) & (len(ids) - 1)
			if table.Find(ids[i]) < 0 {
				b.Fatal("lost")
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "finds/s")
	})
}

// No two tables hash alike: who knows one's ids has not learnt where another has them.
func TestTablesHashByThemselves(t *testing.T) {
	var one, other Table
	if id := []byte("ann"); one.hash(id) == other.hash(id) {
		t.Errorf("got %x and %x", one.hash(id), other.hash(id))
	}
}
