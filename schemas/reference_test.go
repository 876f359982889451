package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// reference decodes an event with encoding/json and math/big, in the plainest way
// there is. It shares with the decoder only the list of currencies.
type reference struct {
	currency string
	rates    map[string]string
}

// refused carries a reason through panics, which keeps the reference short.
type refused Refusal

func (ref reference) decode(key, value []byte) (ev Event, reason Refusal) {
	defer func() {
		if p := recover(); p != nil {
			r, ok := p.(refused)
			if !ok {
				panic(p)
			}
			ev, reason = Event{}, Refusal(r)
		}
	}()
	f := ref.split(value)
	id := func(name string, required bool) []byte {
		s, ok := refString(f, name)
		switch {
		case !ok && required:
			panic(refused(MissingField))
		case !ok:
			return nil
		case s == "":
			panic(refused(EmptyField))
		case len(s) > 256:
			panic(refused(IDTooLong))
		}
		return []byte(s)
	}
	ev.ID = id("event_id", true)
	ev.Kind = refKind(f)
	ev.User = id("user_id", true)
	ev.At = refTime(f)
	ev.SessionID, ev.ProductID = id("session_id", false), id("product_id", false)
	ev.Category, ev.Brand = refText(f, "category"), refText(f, "brand")
	price, quantity := refDecimal(f, "price"), refDecimal(f, "quantity")
	ev.Price, ev.HasPrice = refMillionths(price, 0)
	ev.Quantity, ev.HasQuantity = refMillionths(quantity, 1_000_000)
	currency := ref.currency
	if s, ok := refString(f, "currency"); ok {
		if _, known := exponent(s); !known {
			panic(refused(UnknownCurrency))
		}
		currency = s
	}
	ev.Currency = [3]byte([]byte(currency))
	ev.CartID = id("cart_id", false)
	ev.OrderID = id("order_id", ev.Kind == Purchase || ev.Kind == Refund)
	revenue := refDecimal(f, "revenue")
	ev.Revenue, ev.HasRevenue = refMillionths(revenue, 0)
	items, priced := refItems(f, &ev)
	ev.Channel, ev.Campaign, ev.URL = refText(f, "channel"), refText(f, "campaign"), refText(f, "url")
	ev.Timezone, ev.Birthday = refText(f, "timezone"), refText(f, "birthday")
	if raw, ok := refField(f, "properties"); ok {
		if raw[0] != '{' {
			panic(refused(WrongType))
		}
		ev.Properties = raw
	}
	if ev.Kind == Purchase || ev.Kind == Refund {
		rateText, ok := ref.rates[currency]
		if currency == ref.currency {
			rateText, ok = "1", true
		}
		if !ok {
			panic(refused(UnknownCurrency))
		}
		sum := new(big.Rat)
		switch {
		case revenue != nil:
			sum = revenue
		case ev.Items != nil:
			sum = items
		case price != nil && quantity != nil:
			sum.Mul(price, quantity)
		case price != nil:
			sum = price
		}
		if ev.Kind == Refund && revenue == nil && !priced && price == nil {
			panic(refused(MissingField))
		}
		ev.Amount = ref.minor(sum, rateText)
	}
	if rateText, ok := ref.rates[currency]; (ev.Kind == AddToCart || ev.Kind == RemoveFromCart) && price != nil && (ok || currency == ref.currency) {
		if currency == ref.currency {
			rateText = "1"
		}
		worth := price
		if quantity != nil {
			worth = new(big.Rat).Mul(price, quantity)
		}
		ev.Worth = ref.worth(worth, rateText)
	}
	if len(key) == 0 {
		panic(refused(NoKey))
	}
	if !bytes.Equal(key, ev.User) {
		panic(refused(KeyMismatch))
	}
	return ev, Accepted
}

func (ref reference) split(value []byte) map[string]json.RawMessage {
	switch {
	case value == nil:
		panic(refused(Tombstone))
	case len(value) > 1<<20:
		panic(refused(TooLarge))
	case !utf8.Valid(value):
		panic(refused(InvalidUTF8))
	}
	if r := refJSON(value); r != Accepted {
		panic(refused(r))
	}
	if refLone(value) {
		panic(refused(InvalidUTF8))
	}
	var f map[string]json.RawMessage
	if err := json.Unmarshal(value, &f); err != nil || f == nil {
		panic(refused(WrongType))
	}
	return f
}

// refJSON tells a text cut short from one that is broken.
func refJSON(value []byte) Refusal {
	var v json.RawMessage
	d := json.NewDecoder(bytes.NewReader(value))
	err := d.Decode(&v)
	deep := refDeep(value)
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		if deep {
			return NotJSON
		}
		return Truncated
	case err != nil || deep, len(bytes.Trim(value[d.InputOffset():], " \t\r\n")) > 0:
		return NotJSON
	}
	return Accepted
}

func refDeep(value []byte) bool {
	depth, deepest, inString := 0, 0, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest > 64
}

var escapes = regexp.MustCompile(`\\u[0-9a-fA-F]{4}|\\.|[^\\]+`)

// refLone looks for half a surrogate pair: a high half that no low half follows
// at once, or a low half that follows no high one.
func refLone(value []byte) bool {
	high := false
	for _, m := range escapes.FindAll(value, -1) {
		r := uint64(0)
		if len(m) == 6 && m[0] == '\\' && m[1] == 'u' {
			r, _ = strconv.ParseUint(string(m[2:]), 16, 32)
		}
		isHigh, isLow := r >= 0xd800 && r < 0xdc00, r >= 0xdc00 && r < 0xe000
		if high != isLow {
			return true
		}
		high = isHigh
	}
	return high
}

func refField(f map[string]json.RawMessage, name string) (json.RawMessage, bool) {
	raw, ok := f[name]
	if !ok || string(raw) == "null" {
		return nil, false
	}
	return raw, true
}

func refString(f map[string]json.RawMessage, name string) (string, bool) {
	raw, ok := refField(f, name)
	if !ok {
		return "", false
	}
	var s string
	if raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		panic(refused(WrongType))
	}
	return s, true
}

func refText(f map[string]json.RawMessage, name string) []byte {
	if s, _ := refString(f, name); s != "" {
		return []byte(s)
	}
	return nil
}

func refKind(f map[string]json.RawMessage) Kind {
	s, ok := refString(f, "type")
	switch {
	case !ok:
		panic(refused(MissingField))
	case s == "":
		panic(refused(EmptyField))
	}
	for i, name := range strings.Fields("view add_to_cart remove_from_cart purchase refund search") {
		if s == name {
			return Kind(i)
		}
	}
	panic(refused(UnknownType))
}

func refTime(f map[string]json.RawMessage) Millis {
	raw, ok := refField(f, "time")
	if !ok {
		panic(refused(MissingField))
	}
	var ms int64
	var err error
	if raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9' {
		ms, err = strconv.ParseInt(string(raw), 10, 64)
	} else {
		s, _ := refString(f, "time")
		if s == "" {
			panic(refused(EmptyField))
		}
		var t time.Time
		t, err = rfc3339(s)
		ms = t.UnixMilli()
	}
	if err != nil {
		panic(refused(BadTime))
	}
	if ms < time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli() {
		panic(refused(Before1990))
	}
	return Millis(ms)
}

// rfc3339 is time.Parse without what that takes besides (golang.org/issue/54580): an hour of
// one digit, a comma before the fraction, offsets of 24 hours or 60 minutes.
func rfc3339(s string) (time.Time, error) {
	if !strict.MatchString(s) {
		return time.Time{}, errors.New("not RFC 3339")
	}
	return time.Parse(time.RFC3339Nano, s)
}

var strict = regexp.MustCompile(`^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}([.][0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`)

// refDecimal returns a number, or nil.
func refDecimal(f map[string]json.RawMessage, name string) *big.Rat {
	raw, ok := refField(f, name)
	if !ok {
		return nil
	}
	if raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		panic(refused(WrongType))
	}
	mantissa, exponent, _ := strings.Cut(strings.ToLower(string(raw)), "e")
	if strings.Trim(mantissa, "-0.") == "" {
		return new(big.Rat)
	}
	if mantissa[0] == '-' {
		panic(refused(NegativeAmount))
	}
	if e, err := strconv.Atoi(exponent); exponent != "" && (err != nil || e > 5000 || e < -5000) {
		// Beyond what big.Rat should be asked for; the texts here are shorter.
		if strings.HasPrefix(exponent, "-") {
			panic(refused(TooManyDecimals))
		}
		panic(refused(AmountOverflow))
	}
	v, ok := new(big.Rat).SetString(string(raw))
	if !ok {
		panic("big.Rat does not take " + string(raw))
	}
	scaled := new(big.Rat).Mul(v, big.NewRat(1_000_000, 1))
	switch {
	case !scaled.IsInt():
		panic(refused(TooManyDecimals))
	case !scaled.Num().IsInt64():
		panic(refused(AmountOverflow))
	}
	return v
}

func refMillionths(v *big.Rat, none int64) (int64, bool) {
	if v == nil {
		return none, false
	}
	return new(big.Rat).Mul(v, big.NewRat(1_000_000, 1)).Num().Int64(), true
}

func refItems(f map[string]json.RawMessage, ev *Event) (sum *big.Rat, priced bool) {
	sum = new(big.Rat)
	raw, ok := refField(f, "items")
	if !ok {
		return sum, false
	}
	var items []json.RawMessage
	if raw[0] != '[' || json.Unmarshal(raw, &items) != nil {
		panic(refused(WrongType))
	}
	for _, item := range items {
		var g map[string]json.RawMessage
		if item[0] != '{' || json.Unmarshal(item, &g) != nil {
			panic(refused(WrongType))
		}
		switch s, ok := refString(g, "product_id"); {
		case ok && s == "":
			panic(refused(EmptyField))
		case len(s) > 256:
			panic(refused(IDTooLong))
		}
		refText(g, "category")
		refText(g, "brand")
		price, quantity := refDecimal(g, "price"), refDecimal(g, "quantity")
		if price != nil {
			priced = true
			if quantity == nil {
				quantity = big.NewRat(1, 1)
			}
			sum.Add(sum, new(big.Rat).Mul(price, quantity))
		}
		ev.Items = raw
	}
	return sum, priced
}

// worth is minor, and nothing where that is too much.
func (ref reference) worth(sum *big.Rat, rateText string) (v int64) {
	defer func() {
		if recover() != nil {
			v = 0
		}
	}()
	return ref.minor(sum, rateText)
}

// minor rounds half to even by looking at the two neighbours.
func (ref reference) minor(sum *big.Rat, rateText string) int64 {
	rate, ok := new(big.Rat).SetString(rateText)
	if !ok {
		panic("bad rate " + rateText)
	}
	decimals, _ := exponent(ref.currency)
	v := new(big.Rat).Mul(sum, rate)
	v.Mul(v, big.NewRat(int64(math.Pow10(decimals)), 1))
	down := new(big.Int).Quo(v.Num(), v.Denom())
	rest := new(big.Rat).Sub(v, new(big.Rat).SetInt(down))
	switch rest.Cmp(big.NewRat(1, 2)) {
	case 1:
		down.Add(down, big.NewInt(1))
	case 0:
		down.Add(down, new(big.Int).And(down, big.NewInt(1)))
	}
	if down.Cmp(big.NewInt(1_000_000_000_000_000)) > 0 {
		panic(refused(AmountOverflow))
	}
	return down.Int64()
}
