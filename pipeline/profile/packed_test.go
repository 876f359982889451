package profile

import (
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"footfall/schemas"
)

// edge chooses a number that seeks the edges of what is packed.
func edge(rng *rand.Rand, bits int) int64 {
	switch rng.IntN(12) {
	case 0:
		return 0
	case 1:
		return 1<<bits - 1
	case 2:
		return 1 << bits
	case 3:
		return -1 - rng.Int64N(1<<bits)
	case 4:
		return [...]int64{math.MinInt64, math.MaxInt64, -1 << (bits - 1), 1<<(bits-1) - 1, 1 << (bits - 1), -1<<(bits-1) - 1}[rng.IntN(6)]
	}
	return rng.Int64N(1 << bits)
}

// someProfile is any profile at all; most of them could be a shopper's.
func someProfile(rng *rand.Rand) (p Profile) {
	times := [...]*schemas.Millis{&p.First, &p.Last, &p.FirstPurchase, &p.LastPurchase}
	odd, buyer := rng.IntN(4) == 0, rng.IntN(2) == 0
	for i, t := range times {
		if i < 2 || buyer {
			*t = schemas.Millis(1_700_000_000_000 + rng.Int64N(1<<36))
		}
		if odd && rng.IntN(4) == 0 {
			*t = schemas.Millis(edge(rng, 48))
		}
	}
	for kind := range p.Counts {
		if buyer || schemas.Kind(kind) != schemas.Purchase && schemas.Kind(kind) != schemas.Refund {
			p.Counts[kind] = rng.Uint32N(packedMost + 1)
		}
		if odd && rng.IntN(6) == 0 {
			p.Counts[kind] = [...]uint32{packedMost, packedMost + 1, math.MaxUint32 - 1, math.MaxUint32, rng.Uint32()}[rng.IntN(5)]
		}
	}
	if buyer {
		p.Revenue = rng.Int64N(1<<30) - 1<<20
	}
	if odd && rng.IntN(4) == 0 {
		p.Revenue = edge(rng, 48)
	}
	return p
}

// What is unpacked is what was packed last, whatever it was before.
func TestPackedIsTheProfile(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var packer Packer
	packed, want := make([]Packed, 100), make([]Profile, 100)
	for range 200_000 {
		i := rng.IntN(len(packed))
		had := packer.Buyer(&packed[i])
		want[i] = someProfile(rng)
		packer.Pack(&want[i], &packed[i])
		if now := packer.Buyer(&packed[i]); had >= 0 && now != had {
			t.Fatalf("%+v: was buyer %d, is buyer %d", want[i], had, now)
		}
		if rng.IntN(100) == 0 { // as if it were another user
			packed[i], want[i] = Packed{}, Profile{}
		}
		j := rng.IntN(len(packed))
		var got Profile
		packer.Unpack(&packed[j], &got)
		if got != want[j] {
			t.Fatalf("got  %+v\nwant %+v", got, want[j])
		}
		if c := got.Counts; c[schemas.Purchase]|c[schemas.Refund] != 0 && packer.Buyer(&packed[j]) < 0 {
			t.Fatalf("%+v is no buyer", got)
		}
	}
	if packer.wholes.Len() == 0 || packer.Bytes() != int(unsafe.Sizeof(whole{}))*packer.wholes.Len()+int(unsafe.Sizeof(deal{}))*packer.Buyers() {
		t.Errorf("%d whole profiles, %d buyers: said are %d bytes", packer.wholes.Len(), packer.Buyers(), packer.Bytes())
	}
}

// Folding a packed profile comes to what folding the profile does, also where its counts
// leave what is packed.
func TestFoldingPackedIsFolding(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 1))
	for range 200 {
		var packer Packer
		var packed Packed
		want := someProfile(rng)
		packer.Pack(&want, &packed)
		for range 100 {
			ev := schemas.Event{Kind: schemas.Kind(rng.IntN(int(schemas.Kinds))), At: schemas.Millis(edge(rng, 48)), Amount: edge(rng, 48)}
			var got Profile
			packer.Unpack(&packed, &got)
			got.Fold(&ev)
			packer.Pack(&got, &packed)
			want.Fold(&ev)
			if packer.Unpack(&packed, &got); got != want {
				t.Fatalf("after %+v:\ngot  %+v\nwant %+v", ev, got, want)
			}
		}
	}
}

// A shopper who only looks takes nothing besides, and one who buys one deal.
func TestWhatABuyerHasOnlyBuyersTake(t *testing.T) {
	var packer Packer
	var looks, buys Packed
	p := Profile{First: 1, Last: 1 << 47, Counts: [schemas.Kinds]uint32{schemas.View: packedMost, schemas.Search: 3}}
	packer.Pack(&p, &looks)
	if packer.Bytes() != 0 || packer.Buyer(&looks) != -1 {
		t.Errorf("who only looks takes %d bytes besides, and is buyer %d", packer.Bytes(), packer.Buyer(&looks))
	}
	p.Fold(&schemas.Event{Kind: schemas.Purchase, At: 5, Amount: -7})
	for range 3 {
		packer.Pack(&p, &buys)
	}
	if packer.Bytes() != dealBytes || packer.Buyer(&buys) != 0 {
		t.Errorf("a buyer takes %d bytes besides, and is buyer %d", packer.Bytes(), packer.Buyer(&buys))
	}
}
