package oracle

import (
	"math/big"
	"strconv"
	"strings"
)

// minorMax is the greatest amount of one event, in minor units.
const minorMax = 1_000_000_000_000_000

// millionths reads a JSON number. If it is none that the contract takes, faults
// has every reason that applies, the first to be reported first.
func millionths(literal string) (value int64, faults []string) {
	unsigned, negative := strings.CutPrefix(literal, "-")
	mantissa, power := unsigned, ""
	if i := strings.IndexAny(unsigned, "eE"); i >= 0 {
		mantissa, power = unsigned[:i], unsigned[i+1:]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	if digits == "" {
		return 0, nil
	}
	// The value is significant * 10^shift, and significant ends in no zero.
	significant := strings.TrimRight(digits, "0")
	shift := clipped(power) - len(fraction) + len(digits) - len(significant)
	if negative {
		faults = append(faults, "negative_amount")
	}
	if shift < -6 {
		faults = append(faults, "too_many_decimals")
	}
	if len(significant)+shift > 13 {
		return 0, append(faults, "amount_overflow")
	}
	if len(faults) > 0 {
		return 0, faults
	}
	n, _ := new(big.Int).SetString(significant+strings.Repeat("0", shift+6), 10)
	if !n.IsInt64() {
		return 0, []string{"amount_overflow"}
	}
	return n.Int64(), nil
}

// clipped reads a decimal exponent, and stays far beyond any that matters
// instead of overflowing.
func clipped(power string) int {
	if power == "" {
		return 0
	}
	n, err := strconv.Atoi(power)
	if err != nil || n > 1<<40 || n < -1<<40 {
		if strings.HasPrefix(power, "-") {
			return -1 << 40
		}
		return 1 << 40
	}
	return n
}

// minor converts an amount to minor units of the reporting currency, rounded
// once, half to even. ok is false above minorMax.
func minor(amount, rate *big.Rat, decimals int) (units int64, ok bool) {
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(decimals)), nil)
	exact := new(big.Rat).Mul(amount, rate)
	exact.Mul(exact, new(big.Rat).SetInt(scale))
	quotient, rest := new(big.Int).QuoRem(exact.Num(), exact.Denom(), new(big.Int))
	switch rest.Lsh(rest, 1).Cmp(exact.Denom()) {
	case 1:
		quotient.Add(quotient, big.NewInt(1))
	case 0:
		quotient.Add(quotient, big.NewInt(int64(quotient.Bit(0))))
	}
	if quotient.Cmp(big.NewInt(minorMax)) > 0 {
		return 0, false
	}
	return quotient.Int64(), true
}

// major writes minor units as a decimal of the currency.
func major(units int64, code string) string {
	decimals := exponent(code)
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(decimals)), nil)
	return new(big.Rat).SetFrac(big.NewInt(units), scale).FloatString(decimals)
}
