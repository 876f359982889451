package schemas

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// ContractVersion is the version of the event contract: what is accepted, and
// what an accepted event means. It is part of the rules' hash.
const ContractVersion = "footfall-events/1"

// Contract is what a shop configures of the event contract.
type Contract struct {
	// Currency is the reporting currency, by its ISO 4217 code. Events without a
	// currency are in it, and every amount is converted to it.
	Currency string

	// Rates gives, for each other currency that money may come in, how many units
	// of the reporting currency one unit is worth: a decimal with at most twelve
	// decimals, like "0.91".
	Rates map[string]string
}

// contract is a Contract, compiled.
type contract struct {
	currency [3]byte
	exponent int
	rates    map[[3]byte]rate // the reporting currency's, 1, included
	hash     uint64
}

// compile checks a contract and reports everything that is wrong with it.
func (c Contract) compile() (contract, error) {
	var errs []error
	out := contract{rates: map[[3]byte]rate{}}
	switch e, ok := exponent(c.Currency); {
	case !ok:
		errs = append(errs, fmt.Errorf("reporting currency %.10q: not a code of ISO 4217", c.Currency))
	case e == noExponent:
		errs = append(errs, fmt.Errorf("reporting currency %s: ISO 4217 gives it no minor unit", c.Currency))
	default:
		out.currency, out.exponent = [3]byte([]byte(c.Currency)), e
		out.rates[out.currency] = rate{digits: 1}
	}
	h := xxhash.New()
	fmt.Fprintf(h, "%s\n%s\n", ContractVersion, c.Currency)
	for _, code := range slices.Sorted(maps.Keys(c.Rates)) {
		r, err := parseRate(c.Rates[code])
		if _, ok := exponent(code); !ok {
			err = errors.New("not a code of ISO 4217")
		}
		if err == nil && code == c.Currency && r != (rate{digits: 1}) {
			err = errors.New("the reporting currency's rate is 1")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("rate of %.10q: %w", code, err))
			continue
		}
		if code == c.Currency {
			continue // it is there in any case
		}
		out.rates[[3]byte([]byte(code))] = r
		fmt.Fprintf(h, "%s %d/%d\n", code, r.digits, r.decimals)
	}
	out.hash = h.Sum64()
	return out, errors.Join(errs...)
}

// amount works out what a purchase brought or a refund gave back.
func (c *contract) amount(ev *Event, items itemSum) *RefusedError {
	r, ok := c.rates[ev.Currency]
	if !ok {
		return refuse(UnknownCurrency, "currency: got %s, for which no rate to %s is configured",
			ev.Currency[:], c.currency[:])
	}
	var sum wide
	switch {
	case ev.HasRevenue:
		sum.addProduct(uint64(ev.Revenue), million)
	case ev.Items != nil:
		sum = items.total
	case ev.HasPrice:
		sum.addProduct(uint64(ev.Price), uint64(ev.Quantity))
	}
	if ev.Kind == Refund && !ev.HasRevenue && !items.priced && !ev.HasPrice {
		return refuse(MissingField, "revenue: got nothing, want revenue, items with a price, or price of a refund")
	}
	if ev.Amount, ok = sum.minor(r, c.exponent); !ok {
		return refuse(AmountOverflow, "amount: got more than %d minor units of %s", int64(minorMax), c.currency[:])
	}
	return nil
}

// worth works out what is put into a cart or taken out. An item of an event without
// a price, or in a currency without a rate, is worth nothing: unlike an order's money
// it decides nothing that a refusal could mend.
func (c *contract) worth(ev *Event) {
	r, ok := c.rates[ev.Currency]
	if !ok || !ev.HasPrice {
		return
	}
	var product wide
	product.addProduct(uint64(ev.Price), uint64(ev.Quantity))
	if worth, ok := product.minor(r, c.exponent); ok {
		ev.Worth = worth
	}
}
