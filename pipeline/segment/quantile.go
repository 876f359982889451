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
	one, none := l.g.constant(integer, 1, "1"), l.g.constant(integer, 0, "0")
	reached := l.g.add(&node{op: opAdd, typ: integer, args: []*node{one, l.g.add(band)}, source: q.source})
	return l.g.add(&node{op: opChoose, typ: integer, args: []*node{l.g.less(none, orders), reached, none}, source: q.source}), nil
}

// quantile gives the one quantile that is like q.
func (g *graph) quantile(q *quantile) *quantile {
	for _, known := range g.quantiles {
		if known.source == q.source {
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
// merged. Up to exactMost different values it is exact; beyond, every value keeps its
// highest bits, less than one in a thousand off, so that there are never more than
// valuesMax of them. What it holds does not depend on the order of adding.
type Distribution struct {
	values []Valued // by Value
	coarse bool     // there were more than exactMost; every value is rounded
}

// Valued is a value and how many have it.
type Valued struct {
	Value int64
	Users uint64
}

const (
	exactMost = 8192
	kept      = 11                                // bits of a value that is not kept exactly
	valuesMax = 2 * (64 - kept + 1) << (kept - 1) // of both signs
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
	if d.coarse {
		v.Value = round(v.Value)
	}
	i, found := slices.BinarySearchFunc(d.values, v.Value, func(a Valued, b int64) int { return compareTimes(a.Value, b) })
	if found {
		d.values[i].Users += v.Users
		return
	}
	d.values = slices.Insert(d.values, i, v)
	if len(d.values) > exactMost && !d.coarse {
		d.coarsen()
	}
}

// coarsen rounds every value, from now on.
func (d *Distribution) coarsen() {
	d.coarse = true
	old := d.values
	d.values = old[:0]
	for _, v := range old {
		v.Value = round(v.Value)
		if n := len(d.values); n > 0 && d.values[n-1].Value == v.Value {
			d.values[n-1].Users += v.Users
		} else {
			d.values = append(d.values, v)
		}
	}
}

// Merge adds another distribution.
func (d *Distribution) Merge(o *Distribution) {
	if o.coarse && !d.coarse {
		d.coarsen()
	}
	for _, v := range o.values {
		d.Add(v)
	}
}

// Users is how many users there are.
func (d *Distribution) Users() (n uint64) {
	for _, v := range d.values {
		n += v.Users
	}
	return n
}

// at is the value of the i-th user, from 0, by value.
func (d *Distribution) at(i uint64) int64 {
	for _, v := range d.values {
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
	all := make([]int64, n-1)
	users := d.Users()
	for i := range all {
		if users == 0 {
			all[i] = math.MaxInt64
			continue
		}
		// (users-1) * (i+1) / n users lie below the quantile: exactly, in n-ths.
		rank := new(big.Int).Mul(new(big.Int).SetUint64(users-1), big.NewInt(int64(i+1)))
		whole, part := new(big.Int).DivMod(rank, big.NewInt(int64(n)), new(big.Int))
		low := d.at(whole.Uint64())
		high := low
		if part.Sign() > 0 {
			high = d.at(whole.Uint64() + 1)
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

// Cut makes an epoch of the distributions of all quantiles. A bound that has moved by
// less than hysteresis, in percent of what it was, stays where it was.
func (p *Program) Cut(number uint64, at schemas.Millis, of []Distribution, hysteresis int) (Epoch, error) {
	if len(of) != len(p.quantiles) {
		return Epoch{}, fmt.Errorf("got %d distributions, and the rules ask for %d", len(of), len(p.quantiles))
	}
	epoch := Epoch{Number: number, At: at}
	for i, q := range p.quantiles {
		epoch.Bounds = append(epoch.Bounds, of[i].bounds(q.n, q.plus)...)
	}
	if p.epoch.Number > 0 && hysteresis > 0 {
		for i, was := range p.epoch.Bounds {
			if moved := absolute(epoch.Bounds[i] - was); moved*100 < absolute(was)*uint64(hysteresis) {
				epoch.Bounds[i] = was
			}
		}
		for i := range p.quantiles { // what stayed and what moved still rise
			q := p.quantiles[i]
			slices.Sort(epoch.Bounds[q.first : q.first+q.n-1])
		}
	}
	return epoch, nil
}

// AppendBinary writes a distribution: u8 version, then twice the number of values, and
// one more if they are rounded, and, of each value in rising order, the difference to
// the one before and the users, as varints; u64 xxhash64 of all that.
func (d *Distribution) AppendBinary(b []byte) ([]byte, error) {
	from := len(b)
	b = append(b, distributionVersion)
	head := uint64(len(d.values)) << 1
	if d.coarse {
		head |= 1
	}
	b = binary.AppendUvarint(b, head)
	last := int64(0)
	for _, v := range d.values {
		b = binary.AppendVarint(b, v.Value-last)
		b = binary.AppendUvarint(b, v.Users)
		last = v.Value
	}
	return binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b[from:])), nil
}

const distributionVersion = 1

// UnmarshalBinary reads a distribution.
func (d *Distribution) UnmarshalBinary(b []byte) error {
	if len(b) < 10 || b[0] != distributionVersion {
		return errors.New("distribution: not one of version 1")
	}
	body := b[:len(b)-8]
	if xxhash.Sum64(body) != binary.LittleEndian.Uint64(b[len(body):]) {
		return errors.New("distribution: checksum does not match")
	}
	rest := body[1:]
	head, size := binary.Uvarint(rest)
	n := head >> 1
	if size <= 0 || n > valuesMax || head&1 == 0 && n > exactMost {
		return errors.New("distribution: more values than there can be")
	}
	rest = rest[size:]
	d.coarse = head&1 == 1
	d.values = make([]Valued, 0, n)
	last := int64(0)
	for range n {
		difference, size := binary.Varint(rest)
		if size <= 0 {
			return errors.New("distribution: cut off")
		}
		rest = rest[size:]
		users, size := binary.Uvarint(rest)
		if size <= 0 || users == 0 || len(d.values) > 0 && difference <= 0 {
			return errors.New("distribution: values do not rise")
		}
		rest = rest[size:]
		last += difference
		d.values = append(d.values, Valued{last, users})
	}
	if len(rest) > 0 {
		return errors.New("distribution: bytes behind the last value")
	}
	return nil
}
