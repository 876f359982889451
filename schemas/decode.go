package schemas

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"unicode/utf8"
)

// Limits of the contract.
const (
	ValueMax = 1 << 20 // bytes of a record's value
	IDMax    = 256     // bytes of an id, without its escapes
)

// What a decoder keeps for the next event: a record of 1 MiB may have some
// 200,000 unknown fields, and there is a decoder for every partition.
const (
	unknownKept = 1 << 10
	scratchKept = 64 << 10
)

// Decoder decodes events as a contract wants them. It is for one goroutine.
type Decoder struct {
	contract contract

	scan    scanner
	fields  [fields]token               // of the record, the last of each name
	present uint32                      // which of them are given: bit 1<<field
	unknown []member                    // in the order in which they were sent
	leads   [fields + 2][leadsKept]lead // by the field before: fields, none; fields + 1, an unknown one
	times   times                       // read before
	order   []int32                     // of unknown, while repeated names are looked for
	scratch []byte                      // strings without their escapes, and Extra
}

// lead is what stood before a field's value in an event before: a comma, the name, a
// colon, and the quote that a text begins with. One sender's events have the same fields
// in the same order, but for some that not all have, so that most of an event is known by
// comparing with what followed the same field the last times.
type lead struct {
	text  [leadMax]byte
	n     int // 0: none is known
	field field
	quote bool // the last byte is the quote
}

// Limits of what is remembered.
const (
	leadsKept = 2 // of each field before
	leadMax   = 24
)

// of tells whether b begins with the lead. The usual case compares words: it compares some
// bytes twice rather than one by one.
func (l *lead) of(b []byte) bool {
	n := l.n
	if n < 8 || n > leadMax || len(b) < n {
		return n > 0 && len(b) >= n && string(b[:n]) == string(l.text[:n])
	}
	diff := binary.LittleEndian.Uint64(b) ^ binary.LittleEndian.Uint64(l.text[:])
	if n > 16 {
		diff |= binary.LittleEndian.Uint64(b[8:]) ^ binary.LittleEndian.Uint64(l.text[8:])
	}
	return diff|(binary.LittleEndian.Uint64(b[n-8:])^binary.LittleEndian.Uint64(l.text[n-8:])) == 0
}

// member is a field with its name.
type member struct {
	key, val token
	name     []byte // without quotes and escapes
	repeated bool   // a later one has the same name
}

// NewDecoder returns a decoder for a contract, or every fault of the contract.
func NewDecoder(c Contract) (*Decoder, error) {
	compiled, err := c.compile()
	if err != nil {
		return nil, err
	}
	return &Decoder{contract: compiled}, nil
}

// Hash identifies what the contract decides: equal hash, equal decisions and
// amounts. It is part of the rules' hash.
func (d *Decoder) Hash() uint64 { return d.contract.hash }

// Decode checks a record's key and value against the contract and fills ev, in
// which it keeps nothing from before. It returns nil or a *RefusedError; ev is
// then empty. A nil value is a tombstone. It allocates nothing for an accepted
// event of usual size, once its scratch memory has grown.
//
// Whether the event comes from the future is the worker's to say: it takes the
// record's timestamp.
func (d *Decoder) Decode(key, value []byte, ev *Event) error {
	*ev = Event{}
	if r := d.decode(key, value, ev); r != nil {
		*ev = Event{}
		return r
	}
	return nil
}

func (d *Decoder) decode(key, value []byte, ev *Event) *RefusedError {
	if value == nil {
		return refuse(Tombstone, "value: got null, want a JSON object")
	}
	if len(value) > ValueMax {
		return refuse(TooLarge, "value: got %d bytes, want at most %d", len(value), ValueMax)
	}
	r := d.split(value)
	// Whatever is wrong besides, bytes that are no UTF-8 are the reason. Where nothing is
	// wrong, bytes that are not ASCII can stand in strings only.
	if (r != nil || d.scan.seen&highBits != 0) && !utf8.Valid(value) {
		return invalidUTF8(value)
	}
	if r != nil {
		return r
	}
	if r := d.check(ev); r != nil {
		return r
	}
	if len(key) == 0 {
		return refuse(NoKey, "key: got none, want the user_id %q", brief(ev.User))
	}
	if !bytes.Equal(key, ev.User) {
		return refuse(KeyMismatch, "key: got %q, want the user_id %q", brief(key), brief(ev.User))
	}
	return nil
}

// brief is for bytes that are shown with %q, which makes up to four of one.
func brief(b []byte) []byte { return b[:min(len(b), 24)] }

func invalidUTF8(value []byte) *RefusedError {
	i := 0
	for i < len(value) {
		r, n := utf8.DecodeRune(value[i:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		i += n
	}
	return refuse(InvalidUTF8, "value: byte %d: got 0x%02x, want UTF-8", i, value[i])
}

// split checks that the value is a JSON object and notes where its fields stand.
func (d *Decoder) split(value []byte) *RefusedError {
	d.present, d.fields = 0, [fields]token{}
	if cap(d.unknown) > unknownKept || cap(d.scratch) > scratchKept {
		d.unknown, d.order, d.scratch = nil, nil, nil // after a monster; the next event is small
	}
	d.unknown, d.scratch = d.unknown[:0], d.scratch[:0]
	s := &d.scan
	s.reset(value)
	i := s.space(0)
	top := token{kind: object}
	if i < len(value) && value[i] == '{' {
		i = d.members(i + 1)
	} else {
		top, i = s.value(i, 0)
	}
	if i >= 0 {
		if i = s.space(i); i < len(value) {
			s.fail(i, "nothing more")
		}
	}
	switch {
	case s.fault == ended:
		return refuse(Truncated, "value: byte %d: got the end, want %s", len(value), s.want)
	case s.fault == broken:
		r, _ := utf8.DecodeRune(value[s.at:])
		return refuse(NotJSON, "value: byte %d: got %q, want %s", s.at, r, s.want)
	case s.lone >= 0:
		return refuse(InvalidUTF8, "value: byte %d: got %s, half a surrogate pair, want a character",
			s.lone, value[s.lone:s.lone+6])
	case top.kind != object:
		return refuse(WrongType, "value: got %s, want an object", got(s.raw(top)))
	}
	return nil
}

// members notes the fields of the event, whose brace is before i.
func (d *Decoder) members(i int) int {
	s := &d.scan
	for before, first := fields, true; ; first = false {
		known := &d.leads[before]
		l := &known[0]
		if !l.of(s.text[i:]) {
			if l = &known[1]; !l.of(s.text[i:]) {
				key, val, next := s.member(i, 1, first)
				if next < 0 || key.kind == absent {
					return next
				}
				before = d.named(key, val)
				if before < fields {
					known[1] = known[0]
					known[0].learn(before, s.text[i:val.start], val.kind, key.escaped)
				}
				i = next
				continue
			}
		}
		var val token
		if l.quote {
			val.start, val.kind = int32(i+l.n-1), text
			i, val.escaped = s.str(i + l.n - 1)
		} else {
			val, i = s.value(s.space(i+l.n), 1)
		}
		if i < 0 {
			return -1
		}
		val.end = int32(i)
		d.note(l.field, val)
		before = l.field
	}
}

// named notes a member by its name, and returns its field, or fields + 1.
func (d *Decoder) named(key, val token) field {
	var name []byte
	if key.escaped {
		name, d.scratch = d.scan.unquote(key, d.scratch)
	} else {
		name = d.scan.inner(key)
	}
	f := fieldOf(name)
	if f == fields {
		d.unknown = append(d.unknown, member{key: key, val: val, name: name})
		return fields + 1
	}
	d.note(f, val)
	return f
}

// learn makes the lead that of a field, from what stood before its value. One that is too
// long, or that has escapes, is not known.
func (l *lead) learn(f field, before []byte, kind jsonKind, escaped bool) {
	l.n = 0
	if n := len(before); !escaped && n < leadMax {
		l.n, l.field, l.quote = copy(l.text[:], before), f, kind == text
		if l.quote {
			l.text[n] = '"'
			l.n++
		}
	}
}

// note notes where a field's value stands: the last of each name counts.
func (d *Decoder) note(f field, val token) {
	d.fields[f] = val
	if val.given() {
		d.present |= 1 << f
	} else {
		d.present &^= 1 << f
	}
}

// check looks at the fields in the contract's order: at those that are there, and at those
// that have to be.
func (d *Decoder) check(ev *Event) (r *RefusedError) {
	ev.Quantity = million
	ev.Currency = d.contract.currency
	var sum itemSum
	for left := d.present | 1<<fieldEventID | 1<<fieldType | 1<<fieldUserID | 1<<fieldTime; left != 0; left &= left - 1 {
		f := field(bits.TrailingZeros32(left))
		switch f {
		case fieldEventID:
			r = d.id(f, true, &ev.ID)
		case fieldType:
			if r = d.kind(&ev.Kind); ev.Kind == Purchase || ev.Kind == Refund {
				left |= 1 << fieldOrderID
			}
		case fieldUserID:
			r = d.id(f, true, &ev.User)
		case fieldTime:
			r = d.time(&ev.At)
		case fieldSessionID:
			r = d.id(f, false, &ev.SessionID)
		case fieldProductID:
			r = d.id(f, false, &ev.ProductID)
		case fieldCategory:
			r = d.text(f, &ev.Category)
		case fieldBrand:
			r = d.text(f, &ev.Brand)
		case fieldPrice:
			r = d.decimal(f, &ev.Price, &ev.HasPrice)
		case fieldQuantity:
			r = d.decimal(f, &ev.Quantity, &ev.HasQuantity)
		case fieldCurrency:
			r = d.currency(&ev.Currency)
		case fieldCartID:
			r = d.id(f, false, &ev.CartID)
		case fieldOrderID:
			r = d.id(f, ev.Kind == Purchase || ev.Kind == Refund, &ev.OrderID)
		case fieldRevenue:
			r = d.decimal(f, &ev.Revenue, &ev.HasRevenue)
		case fieldItems:
			sum, r = d.items(ev)
		case fieldChannel:
			r = d.text(f, &ev.Channel)
		case fieldCampaign:
			r = d.text(f, &ev.Campaign)
		case fieldURL:
			r = d.text(f, &ev.URL)
		case fieldTimezone:
			r = d.text(f, &ev.Timezone)
		case fieldBirthday:
			r = d.text(f, &ev.Birthday)
		case fieldProperties:
			r = d.properties(ev)
		case fields:
		}
		if r != nil {
			return r
		}
	}
	d.extra(ev)
	switch ev.Kind {
	case Purchase, Refund:
		return d.contract.amount(ev, sum)
	case AddToCart, RemoveFromCart:
		d.contract.worth(ev)
	case View, Search:
	default:
	}
	return nil
}

// place names a value in a detail: a field, or a field of an item.
type place struct {
	item  int // -1: of the event itself
	field field
}

func (p place) String() string {
	if p.item < 0 {
		return p.field.String()
	}
	return itemName(p.item) + "." + p.field.String()
}

func wrongType(at place, raw []byte, want string) *RefusedError {
	return refuse(WrongType, "%v: got %s, want %s", at, got(raw), want)
}

// id reads an id of 1 to 256 bytes.
func (d *Decoder) id(f field, required bool, into *[]byte) *RefusedError {
	t := d.fields[f]
	if n := int(t.end-t.start) - 2; t.kind == text && !t.escaped && 0 < n && n <= IDMax { // as usual
		*into = slices.Clip(d.scan.inner(t))
		return nil
	}
	if !t.given() {
		if required {
			return refuse(MissingField, "%v: got %v, want a string of 1 to %d bytes", f, t.kind, IDMax)
		}
		return nil
	}
	return d.idAt(t, place{-1, f}, into)
}

func (d *Decoder) idAt(t token, at place, into *[]byte) *RefusedError {
	if t.kind != text {
		return wrongType(at, d.scan.raw(t), "a string")
	}
	*into, d.scratch = d.scan.unquote(t, d.scratch)
	switch n := len(*into); {
	case n == 0:
		return refuse(EmptyField, "%v: got \"\", want 1 to %d bytes", at, IDMax)
	case n > IDMax:
		return refuse(IDTooLong, "%v: got %d bytes, %s, want 1 to %d", at, n, got(d.scan.raw(t)), IDMax)
	}
	return nil
}

// text reads a string of any length.
func (d *Decoder) text(f field, into *[]byte) *RefusedError {
	t := d.fields[f]
	if t.kind == text && !t.escaped && t.end-t.start > 2 { // as usual
		*into = slices.Clip(d.scan.inner(t))
		return nil
	}
	return d.textAt(t, place{-1, f}, into)
}

func (d *Decoder) textAt(t token, at place, into *[]byte) *RefusedError {
	if !t.given() {
		return nil
	}
	if t.kind != text {
		return wrongType(at, d.scan.raw(t), "a string")
	}
	if t.end-t.start > 2 { // longer than its quotes
		*into, d.scratch = d.scan.unquote(t, d.scratch)
	}
	return nil
}

// required reads a string that must be there and not be empty.
func (d *Decoder) required(f field, want string) (value []byte, r *RefusedError) {
	t := d.fields[f]
	if !t.given() {
		return nil, refuse(MissingField, "%v: got %v, want %s", f, t.kind, want)
	}
	if t.kind != text {
		return nil, wrongType(place{-1, f}, d.scan.raw(t), want)
	}
	value, d.scratch = d.scan.unquote(t, d.scratch)
	if len(value) == 0 {
		return nil, refuse(EmptyField, "%v: got \"\", want %s", f, want)
	}
	return value, nil
}

func (d *Decoder) kind(into *Kind) *RefusedError {
	const want = "view, add_to_cart, remove_from_cart, purchase, refund or search"
	name, r := d.required(fieldType, want)
	if r != nil {
		return r
	}
	k, ok := kindOf(name)
	if !ok {
		return refuse(UnknownType, "type: got %s, want %s", got(d.scan.raw(d.fields[fieldType])), want)
	}
	*into = k
	return nil
}

func (d *Decoder) time(into *Millis) *RefusedError {
	const want = "RFC 3339 with offset, or whole milliseconds"
	t := d.fields[fieldTime]
	var ok bool
	if t.kind == number {
		*into, ok = wholeMillis(d.scan.raw(t))
	} else {
		s, r := d.required(fieldTime, want)
		if r != nil {
			return r
		}
		*into, ok = d.times.parse(s)
	}
	if !ok {
		return refuse(BadTime, "time: got %s, want %s", got(d.scan.raw(t)), want)
	}
	if *into < oldest {
		return refuse(Before1990, "time: got %s, want 1990-01-01T00:00:00Z or later", got(d.scan.raw(t)))
	}
	return nil
}

// wholeMillis reads a JSON number without fraction and exponent.
func wholeMillis(b []byte) (Millis, bool) {
	negative := b[0] == '-'
	if negative {
		b = b[1:]
	}
	if len(b) > 19 {
		return 0, false
	}
	var u uint64 // 19 digits fit
	for _, c := range b {
		if !digit(c) {
			return 0, false
		}
		u = u*10 + uint64(c-'0')
	}
	if negative {
		return -Millis(u), u <= 1<<63
	}
	return Millis(u), u < 1<<63
}

// decimal reads a number >= 0 with at most six decimals.
func (d *Decoder) decimal(f field, into *int64, has *bool) *RefusedError {
	return d.decimalAt(d.fields[f], place{-1, f}, into, has)
}

func (d *Decoder) decimalAt(t token, at place, into *int64, has *bool) *RefusedError {
	if !t.given() {
		return nil
	}
	raw := d.scan.raw(t)
	if t.kind != number {
		return wrongType(at, raw, "a number")
	}
	v, reason := millionths(raw)
	if reason == Accepted {
		*into, *has = v, true
		return nil
	}
	want := "at most 9223372036854.775807"
	if reason == NegativeAmount {
		want = "0 or more"
	}
	if reason == TooManyDecimals {
		want = "at most six decimals"
	}
	return refuse(reason, "%v: got %s, want %s", at, got(raw), want)
}

func (d *Decoder) currency(into *[3]byte) *RefusedError {
	const want = "three capital letters of ISO 4217"
	t := d.fields[fieldCurrency]
	if !t.given() {
		return nil
	}
	if t.kind != text {
		return wrongType(place{-1, fieldCurrency}, d.scan.raw(t), want)
	}
	var code []byte
	code, d.scratch = d.scan.unquote(t, d.scratch)
	if string(code) == string(d.contract.currency[:]) {
		return nil // it is that already
	}
	if _, ok := exponent(string(code)); !ok {
		return refuse(UnknownCurrency, "currency: got %s, want %s", got(d.scan.raw(t)), want)
	}
	*into = [3]byte(code)
	return nil
}

func (d *Decoder) properties(ev *Event) *RefusedError {
	t := d.fields[fieldProperties]
	if !t.given() {
		return nil
	}
	if t.kind != object {
		return wrongType(place{-1, fieldProperties}, d.scan.raw(t), "an object")
	}
	ev.Properties = d.scan.raw(t)
	return nil
}
