package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"

	"cel.dev/cel-go/common/ast"
	"github.com/cespare/xxhash/v2"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// quantile is a value by whose quantiles a rule scores users.
type quantile struct {
	source string // of the value, with n and plus
	value  *node  // what is looked at; of since(x): x
	since  bool   // the value is the clock less it
	n      int    // scores: n - 1 bounds
	plus   int64  // 0: a value must be greater than the quantile
	first  int    // index of its first bound in Epoch.Bounds
	number number // of value
}

// scoresMax is the most scores there are (R4).
const scoresMax = 100

// score lowers score(x, n) and score(x, n, plus).
func (l *lowerer) score(e ast.Expr) (*node, error) {
	args := e.AsCall().Args()
	x, err := l.expr(args[0])
	if err != nil {
		return nil, err
	}
	if has(x, opQuantile) || has(x, opIsSegment) {
		return nil, l.fault(args[0], "want what a user did, and no other scores or segments: quantiles are taken before there are any")
	}
	if x.moves && x.op != opSince {
		return nil, l.fault(args[0], "want since(...) or a value that stands still")
	}
	n, err := l.expr(args[1])
	if err != nil {
		return nil, err
	}
	count, ok := n.isConst()
	if !ok || count < 2 || count > scoresMax {
		return nil, l.fault(args[1], "want a constant number of scores, 2 to %d", scoresMax)
	}
	q := &quantile{value: x, n: int(count), source: fmt.Sprintf("score(%s, %d)", x.source, count)}
	if len(args) == 3 {
		plus, err := l.expr(args[2])
		if err != nil {
			return nil, err
		}
		if q.plus, ok = plus.isConst(); !ok || q.plus <= 0 {
			return nil, l.fault(args[2], "want a constant above zero")
		}
		q.source = fmt.Sprintf("score(%s, %d, %s)", x.source, count, plus.source)
	}
	if x.moves {
		q.value, q.since = x.args[0], true
	}
	q = l.g.quantile(q)
	band := &node{op: opBand, typ: integer, source: q.source}
	for i := range q.n - 1 {
		bound := l.g.add(&node{op: opQuantile, n: int64(q.first + i), typ: x.typ, source: fmt.Sprintf("quantile %d of %s", i+1, q.source)})
		below, err := l.less(e, x, bound)
		if err != nil {
			return nil, err
		}
		band.args = append(band.args, l.g.not(below))
	}
	orders := l.g.count(&asked{kinds: profile.KindsOf(schemas.Purchase)})
	one, none := l.g.constant(integer, 1), l.g.constant(integer, 0)
	reached := l.g.add(&node{op: opAdd, typ: integer, args: []*node{one, l.g.add(band)}, source: q.source})
	return l.g.add(&node{op: opChoose, typ: integer, args: []*node{l.g.less(none, orders), reached, none}, source: q.source}), nil
}

// quantile gives the one quantile that is like q.
func (g *graph) quantile(q *quantile) *quantile {
	for _, known := range g.quantiles {
		if known.source == q.source && known.value == q.value { // the same days too, where sets have zones of their own
			return known
		}
		q.first = known.first + known.n - 1
	}
	g.quantiles = append(g.quantiles, q)
	return q
}

// Epoch is the bounds of all quantiles, frozen until the next: so that a user moves by
// what others do at stated times only, and is told so.
type Epoch struct {
	Number uint64         // 0: none yet, and sets that score by quantiles say nothing
	At     schemas.Millis // the moment whose profiles it is of
	Bounds []int64        // of each quantile, one after the other; a value reaches a bound by >=
}

// Bounds is how many bounds an Epoch of the program has.
func (p *Program) Bounds() (n int) {
	for _, q := range p.quantiles {
		n += q.n - 1
	}
	return n
}

// Quantiles is how many values the program has quantiles of.
func (p *Program) Quantiles() int { return len(p.quantiles) }

// With gives the program with an epoch's bounds.
func (p *Program) With(epoch Epoch) (*Program, error) {
	if len(epoch.Bounds) != p.Bounds() {
		return nil, fmt.Errorf("epoch %d has %d bounds, and the rules ask for %d: it is of other rules", epoch.Number, len(epoch.Bounds), p.Bounds())
	}
	with := *p
	with.epoch = epoch
	return &with, nil
}

// Epoch is the epoch whose bounds the program has.
func (p *Program) Epoch() Epoch { return p.epoch }

// Quantity is a user's value of a quantile at a moment; ok is false for who does not
// count: who has never purchased.
func (e *Evaluator) Quantity(quantile int, pr *profile.Profile, v profile.View, now schemas.Millis) (value int64, ok bool) {
	if pr.Orders() == 0 {
		return 0, false
	}
	q := e.p.quantiles[quantile]
	value = q.number(e.begin(pr, v, now, nil))
	if q.since {
		value = max(0, int64(now)-value)
	}
	return value, true
}

// Distribution is how many users have which value. Distributions of partitions are
// merged. Up to exactMost different values it is exact; beyond, a value keeps its
// highest bits, less than one in a thousand off.
type Distribution struct {
	users  map[int64]uint64 // by value
	coarse bool
}

// Valued is a value and how many have it.
type Valued struct {
	Value int64
	Users uint64
}

const (
	exactMost  = 8192
	kept       = 11                 // bits of a value that is not kept exactly
	coarseMost = 2 * 64 << kept / 2 // values there can be then
)

// round leaves the highest bits of a value.
func round(v int64) int64 {
	u := absolute(v)
	drop := 0
	for u>>drop >= 1<<kept {
		drop++
	}
	u = u >> drop << drop
	if v < 0 {
		return -int64(u)
	}
	return int64(u)
}

// Add adds users with a value.
func (d *Distribution) Add(v Valued) {
	if d.users == nil {
		d.users = map[int64]uint64{}
	}
	if d.coarse {
		v.Value = round(v.Value)
	}
	d.users[v.Value] += v.Users
	if len(d.users) > exactMost && !d.coarse {
		d.coarsen()
	}
}

// coarsen rounds every value, from here on.
func (d *Distribution) coarsen() {
	old := d.users
	d.users, d.coarse = map[int64]uint64{}, true
	for v, users := range old {
		d.users[round(v)] += users
	}
}

// Merge adds another distribution.
func (d *Distribution) Merge(o *Distribution) {
	if o.coarse && !d.coarse {
		d.coarsen()
	}
	for v, users := range o.users {
		d.Add(Valued{v, users})
	}
}

// sorted are the values in rising order.
func (d *Distribution) sorted() []Valued {
	all := make([]Valued, 0, len(d.users))
	for v, users := range d.users {
		all = append(all, Valued{v, users})
	}
	slices.SortFunc(all, func(a, b Valued) int { return compareTimes(a.Value, b.Value) })
	return all
}

// valueOf is the value of the i-th user, from 0, by value.
func valueOf(sorted []Valued, i uint64) int64 {
	for _, v := range sorted {
		if i < v.Users {
			return v.Value
		}
		i -= v.Users
	}
	return math.MaxInt64
}

// bounds gives the n - 1 bounds of n scores: the quantiles by linear interpolation
// between the two users around them (Hyndman & Fan 1996, type 7, the default of R and
// numpy), and from each the least whole value that lies above it or, where plus is
// given, is not less than it plus that. Equal values so always have equal scores.
func (d *Distribution) bounds(n int, plus int64) []int64 {
	all, sorted, users := make([]int64, n-1), d.sorted(), uint64(0)
	for _, v := range sorted {
		users += v.Users
	}
	for i := range all {
		if users == 0 {
			all[i] = math.MaxInt64
			continue
		}
		// (users-1) * (i+1) / n users lie below the quantile: exactly, in n-ths.
		rank := new(big.Int).Mul(new(big.Int).SetUint64(users-1), big.NewInt(int64(i+1)))
		whole, part := new(big.Int).DivMod(rank, big.NewInt(int64(n)), new(big.Int))
		low := valueOf(sorted, whole.Uint64())
		high := low
		if part.Sign() > 0 {
			high = valueOf(sorted, whole.Uint64()+1)
		}
		// low + (high-low)*part/n, in n-ths.
		q := new(big.Int).Sub(big.NewInt(high), big.NewInt(low))
		q.Mul(q, part)
		q.Add(q, new(big.Int).Mul(big.NewInt(low), big.NewInt(int64(n))))
		q.Add(q, new(big.Int).Mul(big.NewInt(plus), big.NewInt(int64(n))))
		floor, rest := new(big.Int).DivMod(q, big.NewInt(int64(n)), new(big.Int))
		all[i] = floor.Int64()
		if rest.Sign() > 0 || plus == 0 {
			all[i]++
		}
	}
	return all
}

// Cut makes an epoch, after the one that the program has, for who has counted everybody
// itself and needs no log: one for each of Quantiles. There is none where nobody has
// bought.
func (p *Program) Cut(number uint64, at schemas.Millis, of []Distribution) (Epoch, bool) {
	for i := range p.quantiles {
		if len(of[i].users) == 0 {
			return Epoch{}, false
		}
	}
	return p.cut(p.epoch, number, at, of), true
}

// cut makes an epoch of the distributions of all quantiles. A bound that has moved by
// less than the options' hysteresis, in percent of what it was in the epoch before, stays
// where it was.
func (p *Program) cut(before Epoch, number uint64, at schemas.Millis, of []Distribution) Epoch {
	epoch := Epoch{Number: number, At: at}
	for i, q := range p.quantiles {
		epoch.Bounds = append(epoch.Bounds, of[i].bounds(q.n, q.plus)...)
	}
	if before.Number > 0 && p.hysteresis > 0 {
		for i, was := range before.Bounds {
			if moved := math.Abs(float64(epoch.Bounds[i]) - float64(was)); moved*100 < math.Abs(float64(was))*float64(p.hysteresis) {
				epoch.Bounds[i] = was
			}
		}
		for i := range p.quantiles { // what stayed and what moved still rise
			q := p.quantiles[i]
			slices.Sort(epoch.Bounds[q.first : q.first+q.n-1])
		}
	}
	return epoch
}

// AppendBinary writes a distribution: u8 version, u8 1 where values are rounded, then a
// count and, of each value in rising order, the difference to the one before and the
// users, as varints; u64 xxhash64 of all that.
func (d *Distribution) AppendBinary(b []byte) ([]byte, error) {
	from := len(b)
	b = append(b, distributionVersion, 0)
	if d.coarse {
		b[from+1] = 1
	}
	b = binary.AppendUvarint(b, uint64(len(d.users)))
	last := int64(0)
	for _, v := range d.sorted() {
		b = binary.AppendVarint(b, v.Value-last)
		b = binary.AppendUvarint(b, v.Users)
		last = v.Value
	}
	return binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b[from:])), nil
}

const distributionVersion = 1

// UnmarshalBinary reads a distribution.
func (d *Distribution) UnmarshalBinary(b []byte) error {
	if len(b) < 11 || b[0] != distributionVersion || b[1] > 1 {
		return errors.New("distribution: not one of version 1")
	}
	body := b[:len(b)-8]
	if xxhash.Sum64(body) != binary.LittleEndian.Uint64(b[len(body):]) {
		return errors.New("distribution: checksum does not match")
	}
	most := uint64(exactMost)
	if d.coarse = b[1] == 1; d.coarse {
		most = coarseMost
	}
	rest := body[2:]
	n, size := binary.Uvarint(rest)
	if size <= 0 || n > most {
		return errors.New("distribution: more values than there can be")
	}
	rest = rest[size:]
	d.users = make(map[int64]uint64, n)
	last := int64(0)
	for i := range n {
		difference, size := binary.Varint(rest)
		if size <= 0 {
			return errors.New("distribution: cut off")
		}
		rest = rest[size:]
		users, size := binary.Uvarint(rest)
		if size <= 0 || users == 0 || i > 0 && last+difference <= last {
			return errors.New("distribution: values do not rise")
		}
		rest = rest[size:]
		last += difference
		d.users[last] = users
	}
	if len(rest) > 0 {
		return errors.New("distribution: bytes behind the last value")
	}
	return nil
}
