package file

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"footfall/schemas"
)

// idBytesMax and decimalsMax are the event contract's limits.
const (
	idBytesMax  = 256
	decimalsMax = 6
)

// draft is an event under construction: the JSON of its fields and, apart from
// them, of its items, because items may come from later rows.
type draft struct {
	key   string // the user's id, where keyAt is 0
	keyAt int    // where it stands in the event, as it is
	keyTo int
	time  schemas.Millis
	line  int64  // of its first row
	last  int64  // number of its latest row among those taken, for groups
	by    string // the group's values
	body  []byte // without items, properties and closing brace
	items []byte // without brackets
	props []byte
	whole []byte // instead of all these: the event as it will be given
}

// size is what an event takes of memory.
func (d *draft) size() int64 {
	return int64(cap(d.body)+cap(d.items)+len(d.props)+len(d.whole)+len(d.key)) + eventOverhead
}

// encoder makes events of rows.
type encoder struct {
	*program
	file string
	room int // for an event: what the one before took, and some more

	scratch []byte // properties
}

// draft encodes a row's fields. The error is a *rowError.
func (e *encoder) draft(r row) (*draft, error) {
	t, err := e.parse(r.values[e.time])
	if err != nil {
		return nil, &rowError{r.line, e.columns[e.time], err.Error()}
	}
	kind, err := e.kind(r)
	if err != nil {
		return nil, err
	}
	d := &draft{time: t, line: r.line, key: e.text(&e.user.source, r)}
	id := e.text(&e.eventID.source, r)
	b := append(make([]byte, 0, e.room), '{')
	if b, err = e.append(append(b, e.eventID.member...), &e.eventID, r, id); err != nil {
		return nil, err
	}
	b = append(append(append(append(b, `,"type":"`...), kind...), `",`...), e.user.member...)
	before := len(b)
	if b, err = e.append(b, &e.user, r, d.key); err != nil {
		return nil, err
	}
	if len(b)-before == len(d.key)+2 { // nothing in it was escaped
		d.key, d.keyAt, d.keyTo = "", before+1, len(b)-1
	}
	b = strconv.AppendInt(append(b, `,"time":`...), int64(t), 10)
	if b, err = e.order(b, r, kind, id); err != nil {
		return nil, err
	}
	if d.body, err = e.list(b, e.rest, r, true); err != nil {
		return nil, err
	}
	if d.props, err = e.list(e.scratch[:0], e.props, r, false); err != nil {
		return nil, err
	}
	e.scratch = d.props
	if len(e.by) > 0 { // items are to come
		d.props = slices.Clone(d.props)
		return d, nil
	}
	d.whole = d.finish()
	e.room = len(d.whole) + roomMore
	d.body, d.props = nil, nil
	return d, nil
}

// roomMore is by how much an event may be longer than the one before without being
// copied.
const roomMore = 32

func (e *encoder) kind(r row) (string, error) {
	t := &e.types
	if t.constant != "" {
		return t.constant, nil
	}
	v := r.values[t.column]
	if kind, ok := t.exact[v]; ok {
		return kind, nil
	}
	for _, p := range t.prefixes {
		if strings.HasPrefix(v, p.of) {
			return p.gives, nil
		}
	}
	return "", &rowError{r.line, e.columns[t.column], fmt.Sprintf("the mapping gives no event type for %q", v)}
}

// order writes the order id: as the mapping says, else a purchase or refund has that
// of its event.
func (e *encoder) order(b []byte, r row, kind, id string) ([]byte, error) {
	needs := kind == "purchase" || kind == "refund"
	switch {
	case e.orderID != nil:
		order := e.text(&e.orderID.source, r)
		if order == "" && !needs {
			return b, nil
		}
		return e.append(append(b, `,"order_id":`...), e.orderID, r, order)
	case needs:
		return appendString(append(b, `,"order_id":`...), id), nil
	default:
		return b, nil
	}
}

// list writes the fields of a row that are not empty, with a comma before each, or
// only between them.
func (e *encoder) list(b []byte, list []named, r row, comma bool) ([]byte, error) {
	for i := range list {
		f := &list[i]
		v := e.text(&f.source, r)
		if v == "" {
			continue
		}
		if comma {
			b = append(b, ',')
		}
		comma = true
		b = append(b, f.member...)
		var err error
		if b, err = e.append(b, f, r, v); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// item adds a row to the items of its group's event, which without a limit would grow
// with the file.
func (e *encoder) item(d *draft, r row) error {
	if len(d.items) > schemas.ValueMax {
		return &rowError{r.line, e.columns[e.by[0]], fmt.Sprintf("its event has more than %d bytes already", schemas.ValueMax)}
	}
	b := d.items
	if len(b) > 0 {
		b = append(b, ',')
	}
	b, err := e.list(append(b, '{'), e.items, r, false)
	if err != nil {
		return err
	}
	d.items = append(b, '}')
	return nil
}

// finish gives the event's value.
func (d *draft) finish() []byte {
	if d.whole != nil {
		return d.whole
	}
	b := d.body
	if len(d.items) > 0 {
		b = append(append(append(b, `,"items":[`...), d.items...), ']')
	}
	if len(d.props) > 0 {
		b = append(append(append(b, `,"properties":{`...), d.props...), '}')
	}
	return append(b, '}')
}

// text gives a field's value before it is checked.
func (e *encoder) text(s *source, r row) string {
	var v string
	switch {
	case s.column >= 0:
		v = r.values[s.column]
	case len(s.parts) == 1 && s.parts[0].column == "":
		v = s.parts[0].text
	default:
		v = e.fillIn(s.parts, r)
	}
	return strings.TrimSuffix(strings.TrimPrefix(v, s.trimPrefix), s.trimSuffix)
}

func (e *encoder) fillIn(parts []part, r row) string {
	b := make([]byte, 0, 64)
	for _, p := range parts {
		switch {
		case p.column == "":
			b = append(b, p.text...)
		case p.index == partFile:
			b = append(b, e.file...)
		case p.index == partRow:
			b = strconv.AppendInt(b, r.line, 10)
		case p.index == partN:
			b = strconv.AppendInt(b, int64(r.n), 10)
		default:
			b = append(b, r.values[p.index]...)
		}
	}
	return string(b)
}

// append writes a field's value as JSON, if the event contract takes it.
func (e *encoder) append(b []byte, f *named, r row, v string) ([]byte, error) {
	switch f.kind {
	case numberField:
		out, reason := appendNumber(b, v, f.absolute)
		if reason != "" {
			return nil, &rowError{r.line, f.label, reason}
		}
		return out, nil
	case textField:
	case idField:
		if v == "" {
			return nil, &rowError{r.line, f.label, f.name + " is empty"}
		}
		if len(v) > idBytesMax {
			return nil, &rowError{r.line, f.label, fmt.Sprintf("%s has %d bytes, more than %d", f.name, len(v), idBytesMax)}
		}
	}
	return appendString(b, v), nil
}

// appendNumber writes a decimal as it stands, in JSON's form: no plus sign, no
// leading zeros, a digit on both sides of the point. It returns what is wrong with a
// number the event contract does not take.
func appendNumber(b []byte, v string, absolute bool) ([]byte, string) {
	digits, minus := strings.CutPrefix(v, "-")
	if !minus {
		digits = strings.TrimPrefix(digits, "+")
	}
	whole, fraction, _ := strings.Cut(digits, ".")
	if whole == "" && fraction == "" || !digitsOnly(whole) || !digitsOnly(fraction) {
		return nil, fmt.Sprintf("%q is not a decimal number", v)
	}
	if minus && !absolute && strings.Trim(whole+fraction, "0") != "" {
		return nil, fmt.Sprintf("%q is negative", v)
	}
	whole = strings.TrimLeft(whole, "0")
	if len(fraction) > decimalsMax {
		if strings.Trim(fraction[decimalsMax:], "0") != "" {
			return nil, fmt.Sprintf("%q has more than %d decimals", v, decimalsMax)
		}
		fraction = fraction[:decimalsMax]
	}
	if whole == "" {
		whole = "0"
	}
	b = append(b, whole...)
	if fraction != "" {
		b = append(append(b, '.'), fraction...)
	}
	return b, ""
}

func digitsOnly(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// appendString writes valid UTF-8 as a JSON string.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	from := 0 // what is before it is written
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		if c < ' ' {
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		} else {
			b = append(b, '\\', c)
		}
	}
	return append(append(b, s[from:]...), '"')
}
