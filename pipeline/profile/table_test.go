package profile

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"

	"github.com/cespare/xxhash/v2"
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
	if 8*t.Len() > 7*len(t.cells) {
		tb.Fatalf("%d users in %d cells: probing may not end", t.Len(), len(t.cells))
	}
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

// The index knows 32 bits of the hash; ids that share them are told apart by
// their bytes, before and after it grows.
func TestIdsOfOneHashAreTwoUsers(t *testing.T) {
	byHash := map[uint32]string{}
	var pairs [][2]string
	for i := 0; len(pairs) < 3; i++ {
		id := fmt.Sprintf("user-%d", i)
		h := uint32(xxhash.Sum64String(id))
		if other, ok := byHash[h]; ok {
			pairs = append(pairs, [2]string{other, id})
		}
		byHash[h] = id
	}
	var table Table
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
	for i := range 1000 {
		id := fmt.Sprintf("other-%d", i)
		want[id], _ = table.FindOrAdd([]byte(id))
	}
	table.compare(t, want)
}

// Ids fill the arena's pieces to the last byte and never lie across two.
func TestIdsFillTheArena(t *testing.T) {
	var table Table
	want := map[string]int32{}
	for i := range 3 * arenaBlock / 200 {
		id := fmt.Sprintf("%0*d", 180+i%77, i)
		want[id], _ = table.FindOrAdd([]byte(id))
	}
	table.compare(t, want)
	for i, b := range table.ids.blocks {
		if len(b) > arenaBlock || cap(b) != arenaBlock {
			t.Errorf("piece %d: %d of %d bytes, want at most %d, never moved", i, len(b), cap(b), arenaBlock)
		}
	}
}

// A piece is filled to its last byte; what is a byte too long begins another one.
func TestAnIDBeginsAnotherPieceOnlyWhereItMust(t *testing.T) {
	for rest, want := range map[int]int{5: 2, 6: 1, 7: 1} {
		var a arena
		a.put(make([]byte, arenaBlock-rest))
		at := a.put([]byte("sixsix"))
		if got := string(a.get(at, 6)); got != "sixsix" || len(a.blocks) != want || cap(a.blocks[0]) != arenaBlock {
			t.Errorf("6 bytes where %d are left: got %q, %d pieces, the first of %d bytes; want %d pieces, none moved", rest, got, len(a.blocks), cap(a.blocks[0]), want)
		}
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
