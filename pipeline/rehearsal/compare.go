package rehearsal

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Comparison is what another list of rules would change: of two sides that have played
// the same history, before is as it is, and after as it would be. In arrays of two, before
// comes first.
type Comparison struct {
	Begins, Now schemas.Millis // of the history
	Since       schemas.Millis // from when on what is said is counted: a midnight, UTC, or where the history begins
	Records     int            // of the history, with repeated ones
	Refused     int
	Users       int
	Moved       int   // users who would be elsewhere now in a set that both have
	Money       int64 // their revenue so far, minor units
	AllMoney    int64 // everybody's
	Sets        []SetComparison
	Triggers    [2]Rate // of all sets
	Bytes       [2]worker.Bytes
}

// SetComparison is what it would change in one set.
type SetComparison struct {
	Set      string
	There    [2]bool // whether the set is there at all
	Segments []SegmentComparison
	Moves    []Move // in the order of the segments
	Moved    int
	Money    int64 // of those who move
	Triggers [2]Rate
}

// SegmentComparison is what it would change in a segment.
type SegmentComparison struct {
	Segment        string
	There          [2]bool
	Users          [2]int
	Entries, Exits [2]int // in the time that is counted
	Days           []Day
}

// Day is who came and went on one day of the time that is counted.
type Day struct {
	At             schemas.Millis // its midnight, UTC
	Entries, Exits [2]int
}

// Move is who would be in one segment instead of another.
type Move struct {
	From, To string // "": none, as nothing was said yet
	Users    int
	Money    int64
	Sample   []Mover // by chance, the same for the same history
}

// Mover is one of them.
type Mover struct {
	User       string
	Money      int64
	Was        string // the rule that holds as it is, with its values
	Because    string // the one that would hold
	NotAnyMore string // why the segment from before would not; "": it is not there
}

// Limits of a comparison (R4).
const samplesMax = 100

// Compare compares two sides that have played the same history. since is from when on
// what is said is counted, samples how many users of each move are shown.
func Compare(before, after *Side, since schemas.Millis, samples int) *Comparison {
	now := max(before.now, after.now)
	since = max(since/schemas.Day*schemas.Day, before.first/schemas.Hour*schemas.Hour, (before.whole+schemas.Hour-1)/schemas.Hour*schemas.Hour)
	c := &comparing{
		sides: [2]*Side{before, after}, samples: min(samples, samplesMax),
		out: &Comparison{Begins: before.first, Now: now, Since: since, Records: before.records, Refused: before.refused},
	}
	c.match()
	for _, p := range before.partitions() {
		c.partition(p)
	}
	c.flows()
	c.explain()
	for i, s := range c.sides {
		c.out.Bytes[i] = s.bytes()
	}
	return c.out
}

// comparing is a Compare under way.
type comparing struct {
	sides   [2]*Side
	samples int
	out     *Comparison
	sets    []matched
}

// matched is a set of either side and where it is in each.
type matched struct {
	index    [2]int   // -1: not there
	segments [2][]int // of each segment of the side: its number in the comparison
	moves    map[[2]int]*moving
}

// moving is a Move in the making. Segment -1 is none.
type moving struct {
	users  int
	money  int64
	sample []candidate // the smallest hashes, sorted
}

type candidate struct {
	hash      uint64
	partition int32
	user      string
	money     int64
}

// match finds the sets and segments of both sides, by their names.
func (c *comparing) match() {
	for side, s := range c.sides {
		for set, names := range s.rules.Names() {
			i := slices.IndexFunc(c.out.Sets, func(o SetComparison) bool { return o.Set == names.Name })
			if i < 0 {
				i = len(c.out.Sets)
				c.out.Sets = append(c.out.Sets, SetComparison{Set: names.Name})
				c.sets = append(c.sets, matched{index: [2]int{-1, -1}, moves: map[[2]int]*moving{}})
			}
			c.out.Sets[i].There[side], c.sets[i].index[side] = true, set
			for _, segment := range names.Segments {
				c.sets[i].segments[side] = append(c.sets[i].segments[side], c.out.Sets[i].segment(side, segment))
			}
		}
	}
}

// segment is the number of a segment that one side has.
func (s *SetComparison) segment(side int, name string) int {
	i := slices.IndexFunc(s.Segments, func(o SegmentComparison) bool { return o.Segment == name })
	if i < 0 {
		i = len(s.Segments)
		s.Segments = append(s.Segments, SegmentComparison{Segment: name})
	}
	s.Segments[i].There[side] = true
	return i
}

// partition looks at all users of a partition, on both sides. Both have them in the same
// order, because which events count does not depend on rules.
func (c *comparing) partition(p int32) {
	stages := [2]*Stage{c.sides[0].stages[p], c.sides[1].stages[p]}
	one := make([]uint16, c.sides[0].rules.Sets())
	for row := int32(0); row >= 0 && int(row) < stages[0].Worker().Users(); {
		next := stages[0].Worker().Look(row, 1, func(a *worker.Seen) {
			copy(one, a.Segments)
			stages[1].Worker().Look(row, 1, func(b *worker.Seen) {
				if !bytes.Equal(a.ID, b.ID) {
					panic(fmt.Sprintf("rehearsal: row %d is user %q on one side and %q on the other", row, a.ID, b.ID))
				}
				c.user(p, b, one, b.Segments)
			})
		})
		row = next
	}
}

// user takes one user into the comparison.
func (c *comparing) user(p int32, u *worker.Seen, before, after []uint16) {
	c.out.Users++
	c.out.AllMoney += u.Profile.Revenue
	moved := false
	for i := range c.sets {
		m, set := &c.sets[i], &c.out.Sets[i]
		var in [2]int
		for side, segments := range [2][]uint16{before, after} {
			in[side] = -1
			if n := m.index[side]; n >= 0 && segments[n] < schemas.Retired {
				in[side] = m.segments[side][segments[n]]
				set.Segments[in[side]].Users[side]++
			}
		}
		if !set.There[0] || !set.There[1] || in[0] == in[1] {
			continue
		}
		moved = true
		set.Moved++
		set.Money += u.Profile.Revenue
		mv := m.moves[in]
		if mv == nil {
			mv = &moving{}
			m.moves[in] = mv
		}
		mv.users++
		mv.money += u.Profile.Revenue
		mv.draw(candidate{xxhash.Sum64(u.ID), p, "", u.Profile.Revenue}, u.ID, c.samples)
	}
	if moved {
		c.out.Moved++
		c.out.Money += u.Profile.Revenue
	}
}

// draw keeps a user for the sample if it is among those of the smallest hashes.
func (m *moving) draw(one candidate, id []byte, most int) {
	at, _ := slices.BinarySearchFunc(m.sample, one.hash, func(a candidate, h uint64) int { return cmp.Compare(a.hash, h) })
	if at >= most {
		return
	}
	one.user = string(id)
	m.sample = slices.Insert(m.sample, at, one)
	if len(m.sample) > most {
		m.sample = m.sample[:most]
	}
}

// flows counts what was said since.
func (c *comparing) flows() {
	from, to := int64(c.out.Since/schemas.Hour), int64(c.out.Now/schemas.Hour)+1
	for side, s := range c.sides {
		c.out.Triggers[side] = s.tally.rate(-1, from, to)
	}
	for i := range c.sets {
		m, set := &c.sets[i], &c.out.Sets[i]
		for side, s := range c.sides {
			if m.index[side] >= 0 {
				set.Triggers[side] = s.tally.rate(m.index[side], from, to)
			}
		}
		for day := int64(c.out.Since / schemas.Day); day <= int64(c.out.Now/schemas.Day); day++ {
			for n := range set.Segments {
				set.Segments[n].Days = append(set.Segments[n].Days, Day{At: schemas.Millis(day) * schemas.Day})
			}
			for side, s := range c.sides {
				if m.index[side] >= 0 && s.tally.days[day] != nil {
					m.day(set, side, s.tally.days[day][m.index[side]])
				}
			}
		}
	}
}

// day adds a day of one side to the last day of the comparison.
func (m *matched) day(set *SetComparison, side int, flows []flow) {
	for own, f := range flows {
		seg := &set.Segments[m.segments[side][own]]
		d := &seg.Days[len(seg.Days)-1]
		d.Entries[side], d.Exits[side] = f.entries, f.exits
		seg.Entries[side] += f.entries
		seg.Exits[side] += f.exits
	}
}

// explain brings the moves into order, and says of the drawn users why they move.
func (c *comparing) explain() {
	for i := range c.sets {
		m, set := &c.sets[i], &c.out.Sets[i]
		var keys [][2]int
		for k := range m.moves {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, func(a, b [2]int) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
		name := func(n int) string {
			if n < 0 {
				return ""
			}
			return set.Segments[n].Segment
		}
		for _, k := range keys {
			mv := Move{From: name(k[0]), To: name(k[1]), Users: m.moves[k].users, Money: m.moves[k].money}
			for _, one := range m.moves[k].sample {
				mv.Sample = append(mv.Sample, c.mover(set.Set, mv.From, one))
			}
			set.Moves = append(set.Moves, mv)
		}
	}
}

func (c *comparing) mover(set, from string, one candidate) Mover {
	m := Mover{User: one.user, Money: one.money}
	for side, s := range c.sides {
		ex, _ := s.stages[one.partition].Worker().Explain(one.user)
		i := slices.IndexFunc(ex.Sets, func(e worker.SetExplanation) bool { return e.Set == set })
		if i < 0 {
			continue
		}
		e := &ex.Sets[i]
		if side == 0 {
			m.Was = e.Rule()
			continue
		}
		m.Because = e.Rule()
		for _, passed := range e.Passed {
			if passed.Segment == from {
				m.NotAnyMore = passed.Why
			}
		}
	}
	return m
}

// bytes is what all users of a side take.
func (s *Side) bytes() (all worker.Bytes) {
	for _, p := range s.partitions() {
		all.Add(s.stages[p].Worker().Bytes())
	}
	return all
}
