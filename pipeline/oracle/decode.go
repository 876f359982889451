package oracle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	valueMax = 1 << 20 // bytes of a record's value
	idMax    = 256     // bytes of an id, unescaped
	depthMax = 64      // containers within one another, the record's object included
)

// event is a well-formed record, as far as the oracle cares.
type event struct {
	offset int64
	stamp  int64 // the record's timestamp
	time   int64 // event time
	kind   string
	id     string
	user   string
	order  string
	lane   string
	amount int64 // minor units of the reporting currency

	duplicate bool
	lo, hi    int64 // bounds of the clock this record was applied at
}

// refusal is why a record is a dead letter. also has the reasons that would be
// as right, where one field has several faults at once and the contract does not
// say which comes first.
type refusal struct {
	reason string
	detail string
	also   []string
}

func refused(reason, format string, args ...any) *refusal {
	return &refusal{reason: reason, detail: fmt.Sprintf(format, args...)}
}

// decode reads a record by the event contract, in the contract's order of
// faults, less what depends on the wall.
func (c *contract) decode(r *Record) (*event, *refusal) {
	if r.Value == nil {
		return nil, refused("tombstone", "no value")
	}
	if len(r.Value) > valueMax {
		return nil, refused("too_large", "%d bytes", len(r.Value))
	}
	if bad := checkText(r.Value); bad != nil {
		return nil, bad
	}
	f, isObject := object(r.Value)
	if !isObject {
		return nil, refused("wrong_type", "the value is no object")
	}
	ev, bad := c.fields(f)
	if bad != nil {
		return nil, bad
	}
	switch {
	case len(r.Key) == 0:
		return nil, refused("no_key", "no key")
	case string(r.Key) != ev.user:
		return nil, refused("key_mismatch", "key %q, user_id %q", r.Key, ev.user)
	case ev.time-c.futureLimit > r.Time:
		return nil, refused("future", "event time %d, record timestamp %d", ev.time, r.Time)
	}
	ev.offset, ev.stamp, ev.lane = r.Offset, r.Time, c.lane
	if lane, ok := header(r.Headers, "lane"); ok {
		ev.lane = lane
	}
	return ev, nil
}

// checkText checks encoding and syntax.
func checkText(value []byte) *refusal {
	if !utf8.Valid(value) {
		return refused("invalid_utf8", "the value is not UTF-8")
	}
	readable, syntax := len(value), ""
	if !json.Valid(value) {
		// No JSON text has an unescaped control character. If the parser gets as
		// far as one put at the end, all before it was the start of a valid text.
		err := json.Unmarshal(append(bytes.Clone(value), 1), new(json.RawMessage))
		syntax = "not_json"
		if fault, ok := errors.AsType[*json.SyntaxError](err); ok {
			readable = min(len(value), int(fault.Offset)-1)
			if fault.Offset == int64(len(value))+1 {
				syntax = "truncated"
			}
		}
	}
	deepest, lone := scan(value[:readable])
	if deepest > depthMax {
		syntax = "not_json"
	}
	if lone {
		bad := refused("invalid_utf8", "half a surrogate pair")
		if syntax != "" {
			bad.also = []string{syntax}
		}
		return bad
	}
	if syntax != "" {
		return refused(syntax, "no JSON text")
	}
	return nil
}

// scan walks over the start of a JSON text: how deep does it nest, and does a
// string in it escape half a surrogate pair?
func scan(text []byte) (deepest int, lone bool) {
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			inString = !inString
		case !inString && (c == '{' || c == '['):
			depth++
			deepest = max(deepest, depth)
		case !inString && (c == '}' || c == ']'):
			depth--
		case inString && c == '\\':
			high, ok := escaped(text[i:])
			i++
			if !ok || high < 0xd800 || high > 0xdfff {
				continue
			}
			i += 4
			low, ok := escaped(text[i+1:])
			if high <= 0xdbff && ok && low >= 0xdc00 && low <= 0xdfff {
				i += 6
				continue
			}
			if rest := text[i+1:]; high <= 0xdbff && !ok && len(rest) < 6 && bytes.HasPrefix([]byte(`\u`), rest[:min(2, len(rest))]) {
				continue // the text ends before it is decided
			}
			lone = true
		}
	}
	return deepest, lone
}

// escaped reads a \u escape at the start of text.
func escaped(text []byte) (unit uint64, ok bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	unit, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	return unit, err == nil
}

// object reads a JSON object. A repeated field counts with its last value; null
// is absent.
func object(value []byte) (map[string]json.RawMessage, bool) {
	if kind(value) != '{' {
		return nil, false
	}
	fields := map[string]json.RawMessage{}
	if json.Unmarshal(value, &fields) != nil {
		return nil, false
	}
	for name, v := range fields {
		if len(v) == 0 || kind(v) == 'n' {
			delete(fields, name)
		}
	}
	return fields, true
}

// kind tells a valid JSON value's kind by its first byte: one of {["tfn, or 0
// for a number.
func kind(value []byte) byte {
	value = bytes.TrimLeft(value, " \t\r\n")
	if len(value) == 0 || value[0] == '-' || value[0] >= '0' && value[0] <= '9' {
		return '0'
	}
	return value[0]
}

// fields checks an event's fields, in the contract's order.
func (c *contract) fields(f map[string]json.RawMessage) (*event, *refusal) {
	ev := &event{}
	var bad *refusal
	if ev.id, bad = id(f, "event_id", "event_id", true); bad != nil {
		return nil, bad
	}
	if ev.kind, bad = eventKind(f); bad != nil {
		return nil, bad
	}
	if ev.user, bad = id(f, "user_id", "user_id", true); bad != nil {
		return nil, bad
	}
	if ev.time, bad = eventTime(f); bad != nil {
		return nil, bad
	}
	var m money
	for _, name := range []string{
		"session_id", "product_id", "category", "brand", "price", "quantity", "currency", "cart_id", "order_id",
		"revenue", "items", "channel", "campaign", "url", "timezone", "birthday", "properties",
	} {
		switch name {
		case "session_id", "product_id", "cart_id":
			_, bad = id(f, name, name, false)
		case "order_id":
			ev.order, bad = id(f, name, name, ev.kind == "purchase" || ev.kind == "refund")
		case "category", "brand", "channel", "campaign", "url", "timezone", "birthday":
			_, bad = text(f, name, name)
		case "price":
			m.price, bad = number(f, name, name)
		case "quantity":
			m.quantity, bad = number(f, name, name)
		case "revenue":
			m.revenue, bad = number(f, name, name)
		case "currency":
			m.currency, bad = c.currencyOf(f)
		case "items":
			bad = m.items(f)
		case "properties":
			if v, ok := f[name]; ok && kind(v) != '{' {
				bad = refused("wrong_type", "properties")
			}
		}
		if bad != nil {
			return nil, bad
		}
	}
	ev.amount, bad = c.amount(ev.kind, &m)
	return ev, bad
}

// text reads an optional string.
func text(f map[string]json.RawMessage, name, path string) (string, *refusal) {
	v, ok := f[name]
	if !ok {
		return "", nil
	}
	var s string
	if kind(v) != '"' || json.Unmarshal(v, &s) != nil {
		return "", refused("wrong_type", "%s", path)
	}
	return s, nil
}

func id(f map[string]json.RawMessage, name, path string, required bool) (string, *refusal) {
	s, bad := text(f, name, path)
	if bad != nil {
		return "", bad
	}
	switch _, present := f[name]; {
	case !present && required:
		return "", refused("missing_field", "%s", path)
	case present && s == "":
		return "", refused("empty_field", "%s", path)
	case len(s) > idMax:
		return "", refused("id_too_long", "%s", path)
	}
	return s, nil
}

func eventKind(f map[string]json.RawMessage) (string, *refusal) {
	s, bad := text(f, "type", "type")
	if bad != nil {
		return "", bad
	}
	if _, present := f["type"]; !present {
		return "", refused("missing_field", "type")
	}
	switch s {
	case "":
		return "", refused("empty_field", "type")
	// Constants, so that two million events don't hold two million strings.
	case "view":
		return "view", nil
	case "add_to_cart":
		return "add_to_cart", nil
	case "remove_from_cart":
		return "remove_from_cart", nil
	case "purchase":
		return "purchase", nil
	case "refund":
		return "refund", nil
	case "search":
		return "search", nil
	}
	return "", refused("unknown_type", "%q", s)
}

func eventTime(f map[string]json.RawMessage) (int64, *refusal) {
	v, present := f["time"]
	if !present {
		return 0, refused("missing_field", "time")
	}
	var ms int64
	switch kind(v) {
	case '"':
		s, _ := text(f, "time", "time")
		if s == "" {
			return 0, refused("empty_field", "time")
		}
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil || !strict(s) {
			return 0, refused("bad_time", "%q", s)
		}
		ms = t.UnixMilli()
	case '0':
		n, err := strconv.ParseInt(string(bytes.TrimSpace(v)), 10, 64)
		if err != nil {
			return 0, refused("bad_time", "%s", v)
		}
		ms = n
	default:
		return 0, refused("wrong_type", "time")
	}
	if ms < time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli() {
		return 0, refused("before_1990", "%d", ms)
	}
	return ms, nil
}

// strict tells of a text that time.Parse takes whether it is RFC 3339: Parse also takes an
// hour of one digit, a comma before the fraction, and offsets of 24 hours or 60 minutes.
func strict(s string) bool {
	if s[len("2006-01-02T1")] == ':' || strings.Contains(s, ",") {
		return false
	}
	hours, minutes := s[len(s)-len("07:00"):len(s)-len(":00")], s[len(s)-len("00"):]
	return strings.HasSuffix(s, "Z") || hours < "24" && minutes < "60"
}

// number reads an optional amount or quantity, in millionths.
func number(f map[string]json.RawMessage, name, path string) (*int64, *refusal) {
	v, present := f[name]
	if !present {
		return nil, nil
	}
	if kind(v) != '0' {
		return nil, refused("wrong_type", "%s", path)
	}
	n, faults := millionths(string(bytes.TrimSpace(v)))
	if len(faults) > 0 {
		return nil, &refusal{reason: faults[0], detail: path, also: faults[1:]}
	}
	return &n, nil
}

func (c *contract) currencyOf(f map[string]json.RawMessage) (string, *refusal) {
	s, bad := text(f, "currency", "currency")
	if _, present := f["currency"]; bad != nil || !present {
		return c.currency, bad
	}
	if !isCurrency(s) {
		return "", refused("unknown_currency", "%q", s)
	}
	return s, nil
}

// money is what an event's amount is made of, in millionths; nil is absent.
type money struct {
	currency                 string
	price, quantity, revenue *int64
	lines                    int      // items
	priced                   int      // items with a price
	sum                      *big.Rat // over items
}

func (m *money) items(f map[string]json.RawMessage) *refusal {
	v, present := f["items"]
	if !present {
		return nil
	}
	var list []json.RawMessage
	if kind(v) != '[' || json.Unmarshal(v, &list) != nil {
		return refused("wrong_type", "items")
	}
	m.lines, m.sum = len(list), new(big.Rat)
	for i, element := range list {
		at := fmt.Sprintf("items[%d]", i)
		item, isObject := object(element)
		if !isObject {
			return refused("wrong_type", "%s", at)
		}
		if _, bad := id(item, "product_id", at+".product_id", false); bad != nil {
			return bad
		}
		for _, name := range []string{"category", "brand"} {
			if _, bad := text(item, name, at+"."+name); bad != nil {
				return bad
			}
		}
		price, bad := number(item, "price", at+".price")
		if bad != nil {
			return bad
		}
		quantity, bad := number(item, "quantity", at+".quantity")
		if bad != nil {
			return bad
		}
		if price != nil {
			m.priced++
			m.sum.Add(m.sum, times(price, quantity))
		}
	}
	return nil
}

// times multiplies a price with a quantity, 1 if absent.
func times(price, quantity *int64) *big.Rat {
	product := big.NewRat(*price, 1_000_000)
	if quantity != nil {
		product.Mul(product, big.NewRat(*quantity, 1_000_000))
	}
	return product
}

// amount is what a purchase or refund is worth, in minor units of the reporting
// currency.
func (c *contract) amount(kind string, m *money) (int64, *refusal) {
	if kind != "purchase" && kind != "refund" {
		return 0, nil
	}
	rate := c.rates[m.currency]
	if rate == nil {
		return 0, refused("unknown_currency", "no rate for %s", m.currency)
	}
	exact := new(big.Rat)
	switch {
	case m.revenue != nil:
		exact = big.NewRat(*m.revenue, 1_000_000)
	case m.lines > 0:
		exact = m.sum
	case m.price != nil:
		exact = times(m.price, m.quantity)
	}
	units, ok := minor(exact, rate, exponent(c.currency))
	if !ok {
		return 0, refused("amount_overflow", "above 10^15 minor units")
	}
	if kind == "refund" && m.revenue == nil && m.priced == 0 && m.price == nil {
		return 0, refused("missing_field", "revenue")
	}
	return units, nil
}
