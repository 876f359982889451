package schemas

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"strconv"
)

// million is how many millionths one has: prices, quantities and revenues are
// counted in millionths.
const million = 1_000_000

// minorMax is the greatest amount of one event, in minor units: above it, a sum
// over a user's life might not fit.
const minorMax = 1_000_000_000_000_000

// millionths reads a JSON number, known to be well-formed, as an exact count of
// millionths. Its length and exponent have no limit but the record's.
func millionths(b []byte) (int64, Refusal) {
	if v, ok := usualMillionths(b); ok {
		return v, Accepted
	}
	negative := b[0] == '-'
	if negative {
		b = b[1:]
	}
	var (
		digits    uint64 // the first 19 significant ones, without trailing zeros
		count     int    // of significant digits, from the first to the last that is not 0
		zeros     int    // 0s seen since the last digit that is not 0
		fraction  int    // digits after the point
		seenPoint bool
	)
	i := 0
	for ; i < len(b) && b[i]|0x20 != 'e'; i++ {
		if b[i] == '.' {
			seenPoint = true
			continue
		}
		if seenPoint {
			fraction++
		}
		if b[i] == '0' {
			zeros++
			continue
		}
		if count > 0 {
			for ; zeros > 0 && count < 19; zeros-- {
				digits *= 10
				count++
			}
			count += zeros
		}
		zeros = 0
		if count++; count <= 19 {
			digits = digits*10 + uint64(b[i]-'0')
		}
	}
	if count == 0 {
		return 0, Accepted // 0, -0, 0e99
	}
	if negative {
		return 0, NegativeAmount
	}
	// The value is digits (all count of them) times ten to the power of power.
	power := zeros - fraction + jsonExponent(b[i:])
	switch {
	case power < -6:
		return 0, TooManyDecimals
	case count+power+6 > 19:
		return 0, AmountOverflow
	}
	digits *= pow10(power + 6) // below 10^19
	if digits > math.MaxInt64 {
		return 0, AmountOverflow
	}
	return int64(digits), Accepted
}

// usualMillionths reads a number as prices are written: digits, few, and perhaps a point
// and one to six more. It takes no other.
func usualMillionths(b []byte) (int64, bool) {
	if len(b) > 12 { // the digits times a million fit
		return 0, false
	}
	v, decimals := int64(0), 0
	for i, c := range b {
		switch {
		case digit(c):
			v = v*10 + int64(c-'0')
		case c == '.':
			decimals = len(b) - i - 1
		default: // a sign, an exponent
			return 0, false
		}
	}
	if decimals > 6 {
		return 0, false
	}
	return v * int64(powers[6-decimals]), true
}

// jsonExponent reads what stands after a number's digits: nothing, or e, a sign
// and digits. It stops counting far above any exponent that can matter.
func jsonExponent(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	b = b[1:]
	negative := b[0] == '-'
	if b[0] == '-' || b[0] == '+' {
		b = b[1:]
	}
	e := 0
	for _, c := range b {
		if e < 1<<40 {
			e = e*10 + int(c-'0')
		}
	}
	if negative {
		return -e
	}
	return e
}

// powers are the powers of ten that fit into a word.
//
//nolint:gochecknoglobals // it never changes
var powers = [20]uint64{
	1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
}

// pow10 returns ten to the power of n, 0 <= n <= 19.
func pow10(n int) uint64 { return powers[n] }

// wide is an unsigned integer of 256 bits, least significant word first. The
// longest sum a record of 1 MiB can hold is below 2^146 (a price times a quantity
// is below 2^126, and it has fewer than 2^20 items), a rate's digits are below
// 2^64: nothing below can overflow.
type wide [4]uint64

// addProduct adds a*b.
func (w *wide) addProduct(a, b uint64) {
	var carry uint64
	hi, lo := bits.Mul64(a, b)
	w[0], carry = bits.Add64(w[0], lo, 0)
	w[1], carry = bits.Add64(w[1], hi, carry)
	w[2], carry = bits.Add64(w[2], 0, carry)
	w[3] += carry
}

// times multiplies by m.
func (w *wide) times(m uint64) {
	var carry uint64
	for i := range w {
		hi, lo := bits.Mul64(w[i], m)
		var c uint64
		w[i], c = bits.Add64(lo, carry, 0)
		carry = hi + c
	}
}

// over divides by d and returns the remainder.
func (w *wide) over(d uint64) (rest uint64) {
	for i := len(w) - 1; i >= 0; i-- {
		w[i], rest = bits.Div64(rest, w[i], d)
	}
	return rest
}

// rate is a currency's worth in the reporting currency: digits / 10^decimals,
// without trailing zeros.
type rate struct {
	digits   uint64
	decimals int // 0 to rateDecimals
}

// rateDecimals is how many decimals a configured rate may have.
const rateDecimals = 12

// parseRate reads a rate as the configuration gives it: digits, and perhaps a
// point and up to twelve more.
func parseRate(s string) (rate, error) {
	var r rate
	point, digits := -1, 0
	for i := range len(s) {
		if s[i] == '.' && point < 0 && i > 0 {
			point = i
			continue
		}
		if !digit(s[i]) {
			return rate{}, fmt.Errorf("rate %.40q: want a decimal number like \"0.91\"", s)
		}
		digits++
		hi, lo := bits.Mul64(r.digits, 10)
		sum, carry := bits.Add64(lo, uint64(s[i]-'0'), 0)
		if hi|carry != 0 {
			return rate{}, fmt.Errorf("rate %.40q: want at most %d digits", s, 19)
		}
		r.digits = sum
	}
	if digits == 0 || point == len(s)-1 {
		return rate{}, fmt.Errorf("rate %.40q: want a decimal number like \"0.91\"", s)
	}
	if point >= 0 {
		r.decimals = len(s) - 1 - point
	}
	if r.digits == 0 {
		return rate{}, fmt.Errorf("rate %.40q: want more than 0", s)
	}
	for r.decimals > 0 && r.digits%10 == 0 {
		r.digits /= 10
		r.decimals--
	}
	if r.decimals > rateDecimals {
		return rate{}, fmt.Errorf("rate %.40q: want at most %d decimals", s, rateDecimals)
	}
	return r, nil
}

// minor converts a sum in 10^-12 units of a currency to minor units of the
// reporting currency, rounding once, half to even. ok is false above minorMax.
func (w wide) minor(r rate, exponent int) (amount int64, ok bool) {
	w.times(r.digits)
	// Divide by 10^places in two steps, since it may exceed a word.
	places := 12 + r.decimals - exponent // 8 to 24
	small := min(places-1, 18)
	low := w.over(pow10(small))
	high := w.over(pow10(places - small))
	if w[1]|w[2]|w[3] != 0 || w[0] > minorMax {
		return 0, false
	}
	// What is left over is high.low: high of 10^(places-small), then low.
	half := pow10(places-small) / 2
	switch c := cmp.Compare(high, half); {
	case c > 0, c == 0 && low > 0, c == 0 && w[0]&1 == 1:
		w[0]++
	}
	return int64(w[0]), w[0] <= minorMax
}

// appendMinor appends an amount in minor units as a decimal of major units.
func appendMinor(dst []byte, amount int64, exponent int) []byte {
	u := uint64(amount)
	if amount < 0 {
		dst = append(dst, '-')
		u = -u
	}
	scale := pow10(exponent)
	dst = strconv.AppendUint(dst, u/scale, 10)
	if exponent == 0 {
		return dst
	}
	dst = append(dst, '.')
	rest := u % scale
	for scale /= 10; scale > 0; scale /= 10 {
		dst = append(dst, byte('0'+rest/scale%10))
	}
	return dst
}

// FormatMinor writes an amount in minor units of a currency as a decimal of major
// units; a code that is none is written without decimals.
func FormatMinor(amount int64, currency string) string {
	decimals, _ := Exponent(currency)
	return string(appendMinor(nil, amount, decimals))
}
