package profile

import (
	"encoding/binary"

	"footfall/schemas"
)

// Packed is a Profile as it is kept: 24 bytes of everybody. What only buyers have stands
// beside it, in a Packer, and so do whole profiles of the few that do not fit.
//
//	word  bits 63..16      bits 15..0
//	   0  first event time  views
//	   1  last event time   adds to cart
//	   2  32 bits: where the rest is, see rest; 16: removals; 16: searches
//
// Nothing is rounded: times are milliseconds. A profile with a time before 1970 or after
// the year 10000, with a count above 65,535, or with a revenue that 48 bits do not hold,
// is kept whole.
type Packed [3]uint64

// deal is what a buyer has besides, and who has only had a refund.
//
//	offset  size
//	     0     2  purchases
//	     2     6  first purchase time
//	     8     2  refunds
//	    10     6  last purchase time
//	    16     6  revenue, signed
type deal [dealBytes]byte

const dealBytes = 22

// whole is a profile that does not fit, and the number of its deal, or -1.
type whole struct {
	Profile
	deal int32
}

// Packer has what Packed profiles keep beside them. A profile that has been given a deal,
// or is kept whole, stays so.
type Packer struct {
	deals  Slab[deal]
	wholes Slab[whole]
}

// rest says where the rest of a profile is: 0 nowhere, with wholeBit set the number of a
// whole one, else the number of a deal plus one.
func (p *Packed) rest() uint32 { return uint32(p[2] >> 32) }

const wholeBit = 1 << 31

// Buyer is the number of a profile among those of the Packer that have ever had a purchase
// or refund, from 0 in the order of the first; -1 without one.
func (s *Packer) Buyer(p *Packed) int32 {
	r := p.rest()
	if r&wholeBit != 0 {
		return s.wholes.At(int32(r &^ wholeBit)).deal
	}
	return int32(r) - 1
}

// Buyers is how many of these there are.
func (s *Packer) Buyers() int { return s.deals.Len() }

// Bytes is what stands beside Packed profiles.
func (s *Packer) Bytes() int { return dealBytes*s.deals.Len() + wholeBytes*s.wholes.Len() }

const wholeBytes = 72

// Touch loads what stands beside a profile into the cache.
func (s *Packer) Touch(p *Packed) uint64 {
	if r := p.rest(); r != 0 && r&wholeBit == 0 {
		d := s.deals.At(int32(r - 1))
		return uint64(d[0]) + uint64(d[dealBytes-1]) // it may lie across two lines
	}
	return 0
}

// Unpack writes a profile into into.
func (s *Packer) Unpack(p *Packed, into *Profile) {
	r := p.rest()
	if r&wholeBit != 0 {
		*into = s.wholes.At(int32(r &^ wholeBit)).Profile
		return
	}
	into.First, into.Last = schemas.Millis(p[0]>>16), schemas.Millis(p[1]>>16)
	c := &into.Counts
	c[schemas.View], c[schemas.AddToCart] = uint32(uint16(p[0])), uint32(uint16(p[1]))
	c[schemas.RemoveFromCart], c[schemas.Search] = uint32(uint16(p[2]>>16)), uint32(uint16(p[2]))
	var first, last, revenue uint64
	if r != 0 {
		d, le := s.deals.At(int32(r-1)), binary.LittleEndian
		first, last, revenue = le.Uint64(d[0:]), le.Uint64(d[8:]), le.Uint64(d[dealBytes-8:])
	}
	into.FirstPurchase, into.LastPurchase = schemas.Millis(first>>16), schemas.Millis(last>>16)
	c[schemas.Purchase], c[schemas.Refund] = uint32(uint16(first)), uint32(uint16(last))
	into.Revenue = int64(revenue) >> 16
}

// Pack keeps a profile.
func (s *Packer) Pack(from *Profile, p *Packed) {
	r := p.rest()
	if r&wholeBit == 0 {
		deals := from.Counts[schemas.Purchase]|from.Counts[schemas.Refund] != 0 ||
			from.FirstPurchase|from.LastPurchase != 0 || from.Revenue != 0
		if deals && r == 0 {
			r = uint32(s.deals.Append()) + 1
		}
		if from.fits() {
			c := &from.Counts
			p[0] = uint64(from.First)<<16 | uint64(c[schemas.View])
			p[1] = uint64(from.Last)<<16 | uint64(c[schemas.AddToCart])
			p[2] = uint64(r)<<32 | uint64(c[schemas.RemoveFromCart])<<16 | uint64(c[schemas.Search])
			if r != 0 {
				d, le := s.deals.At(int32(r-1)), binary.LittleEndian
				le.PutUint64(d[dealBytes-8:], uint64(from.Revenue)<<16) // and two bytes of the next
				le.PutUint64(d[0:], uint64(from.FirstPurchase)<<16|uint64(c[schemas.Purchase]))
				le.PutUint64(d[8:], uint64(from.LastPurchase)<<16|uint64(c[schemas.Refund]))
			}
			return
		}
		number := s.wholes.Append()
		s.wholes.At(number).deal = int32(r) - 1
		*p = Packed{2: (wholeBit | uint64(number)) << 32}
		r = p.rest()
	}
	w := s.wholes.At(int32(r &^ wholeBit))
	if w.Profile = *from; w.deal < 0 && from.Counts[schemas.Purchase]|from.Counts[schemas.Refund] != 0 {
		w.deal = s.deals.Append()
	}
}

// fits tells that 48 bits hold the times and the revenue, and 16 the counts.
func (p *Profile) fits() bool {
	times := uint64(p.First) | uint64(p.Last) | uint64(p.FirstPurchase) | uint64(p.LastPurchase)
	most := uint32(0)
	for _, c := range p.Counts {
		most = max(most, c)
	}
	return times>>48 == 0 && most <= packedMost && p.Revenue<<16>>16 == p.Revenue
}
