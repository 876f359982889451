package schemas

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"unicode/utf8"
)

// depthMax is how deep objects and arrays may lie in one another.
const depthMax = 64

// fault is how a JSON text is broken.
type fault uint8

const (
	sound  fault = iota
	ended        // the text is a proper prefix of a JSON text
	broken       // no text that begins like this is JSON
)

// jsonKind is the kind of a JSON value.
type jsonKind uint8

const (
	absent jsonKind = iota // no value at all
	null
	boolean
	number
	text
	array
	object
)

func (k jsonKind) String() string {
	switch k {
	case absent:
		return "nothing"
	case null:
		return "null"
	case boolean:
		return "a boolean"
	case number:
		return "a number"
	case text:
		return "a string"
	case array:
		return "an array"
	case object:
		return "an object"
	}
	return "?"
}

// token is a value's place in the text, quotes and brackets included.
type token struct {
	start, end int32
	kind       jsonKind
	escaped    bool // a string with at least one escape
}

// given tells a value from none; null counts as none.
func (t token) given() bool { return t.kind > null }

// scanner walks a JSON text (RFC 8259) that is valid UTF-8, or that the caller holds to be
// none when it has been walked. Its
// methods take the offset where something begins and return the offset after
// it, or -1 after the first fault; they keep nothing in between.
type scanner struct {
	text  []byte
	fault fault
	at    int    // where the fault is
	want  string // what was wanted there
	lone  int    // offset of the first \u escape of half a surrogate pair, or -1
	seen  uint64 // all words of strings, or'ed: highBits where one has a byte that is not ASCII
}

func (s *scanner) reset(text []byte) { *s = scanner{text: text, lone: -1} }

// fail notes the fault at i. Running out of text is the one fault that more
// text could mend: every prefix the scanner accepts is the beginning of some
// JSON text.
func (s *scanner) fail(i int, want string) int {
	s.fault, s.at, s.want = broken, i, want
	if i >= len(s.text) {
		s.fault = ended
	}
	return -1
}

// space returns the offset of the next byte that is not white space.
func (s *scanner) space(i int) int {
	for i < len(s.text) {
		switch s.text[i] {
		case ' ', '\t', '\n', '\r':
			i++
		default:
			return i
		}
	}
	return i
}

// value reads the value at i, which lies in depth containers.
func (s *scanner) value(i, depth int) (token, int) {
	if i >= len(s.text) {
		return token{}, s.fail(i, "a value")
	}
	t := token{start: int32(i)}
	next := -1
	switch c := s.text[i]; c {
	case '"':
		t.kind = text
		next, t.escaped = s.str(i)
	case '{':
		t.kind = object
		next = s.object(i, depth+1)
	case '[':
		t.kind = array
		next = s.array(i, depth+1)
	case 't':
		t.kind = boolean
		next = s.literal(i, "true")
	case 'f':
		t.kind = boolean
		next = s.literal(i, "false")
	case 'n':
		t.kind = null
		next = s.literal(i, "null")
	default:
		if c != '-' && !digit(c) {
			return token{}, s.fail(i, "a value")
		}
		t.kind = number
		next = s.number(i)
	}
	t.end = int32(next)
	return t, next
}

// member reads the next member of an object: first tells that i is after its
// brace, otherwise i is after the member before. At the closing brace the key
// is absent and next is after the brace.
func (s *scanner) member(i, depth int, first bool) (key, val token, next int) {
	i = s.space(i)
	if i >= len(s.text) {
		return key, val, s.fail(i, "a name or }")
	}
	if s.text[i] == '}' {
		return key, val, i + 1
	}
	if !first {
		if s.text[i] != ',' {
			return key, val, s.fail(i, ", or }")
		}
		i = s.space(i + 1)
	}
	if i >= len(s.text) || s.text[i] != '"' {
		return key, val, s.fail(i, "a name")
	}
	key.start, key.kind = int32(i), text
	if i, key.escaped = s.str(i); i < 0 {
		return key, val, -1
	}
	key.end = int32(i)
	i = s.space(i)
	if i >= len(s.text) || s.text[i] != ':' {
		return key, val, s.fail(i, ":")
	}
	val, next = s.value(s.space(i+1), depth)
	return key, val, next
}

// object reads an object without keeping anything of it.
func (s *scanner) object(i, depth int) int {
	if depth > depthMax {
		return s.fail(i, "at most 64 levels")
	}
	i++
	for first := true; ; first = false {
		key, _, next := s.member(i, depth, first)
		if next < 0 || key.kind == absent {
			return next
		}
		i = next
	}
}

// element reads the next element of an array, as member does of an object.
func (s *scanner) element(i, depth int, first bool) (token, int) {
	i = s.space(i)
	if i >= len(s.text) {
		return token{}, s.fail(i, "a value or ]")
	}
	if s.text[i] == ']' {
		return token{}, i + 1
	}
	if !first {
		if s.text[i] != ',' {
			return token{}, s.fail(i, ", or ]")
		}
		i = s.space(i + 1)
	}
	return s.value(i, depth)
}

// array reads an array without keeping anything of it.
func (s *scanner) array(i, depth int) int {
	if depth > depthMax {
		return s.fail(i, "at most 64 levels")
	}
	i++
	for first := true; ; first = false {
		t, next := s.element(i, depth, first)
		if next < 0 || t.kind == absent {
			return next
		}
		i = next
	}
}

// Of eight bytes: the lowest bit of each, and the highest.
const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// str reads the string whose opening quote is at i.
//
// It looks for the first quote, backslash or control character eight bytes at a time: a
// byte of v ^ 0x2222... is zero where v has a quote, and a zero byte is found by the
// borrow of a subtraction. A borrow can mark bytes above the first one found, never below
// it. Bytes with their highest bit set are neither, and are left out at the end.
func (s *scanner) str(i int) (next int, escaped bool) {
	b, seen := s.text, s.seen
	i++
	for {
		for len(b)-i >= 8 {
			v := binary.LittleEndian.Uint64(b[i:])
			found := (((v ^ lowBits*'"') - lowBits) | ((v ^ lowBits*'\\') - lowBits) | (v - lowBits*0x20)) &^ v & highBits
			if found == 0 {
				seen |= v
				i += 8
				continue
			}
			n := bits.TrailingZeros64(found)
			seen |= v & (1<<n - 1)
			i += n / 8
			break
		}
		for i < len(b) && b[i] != '"' && b[i] != '\\' && b[i] >= 0x20 {
			seen |= uint64(b[i])
			i++
		}
		s.seen = seen
		if i >= len(b) {
			return s.fail(i, "\""), escaped
		}
		switch b[i] {
		case '"':
			return i + 1, escaped
		case '\\':
			escaped = true
			if i = s.escape(i); i < 0 {
				return -1, escaped
			}
		default:
			return s.fail(i, "no bare control character"), escaped
		}
	}
}

// escape reads the escape whose backslash is at i. Half a surrogate pair is
// well-formed JSON (RFC 8259, 8.2), so it is noted, not a fault.
func (s *scanner) escape(i int) int {
	if i+1 >= len(s.text) {
		return s.fail(i+1, "an escape")
	}
	switch s.text[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
	default:
		return s.fail(i+1, "one of \"\\/bfnrtu")
	}
	for k := i + 2; k < i+6; k++ {
		if k >= len(s.text) || unhex(s.text[k]) < 0 {
			return s.fail(k, "a hex digit")
		}
	}
	r := hex4(s.text[i+2:])
	if r < 0xd800 || r > 0xdfff {
		return i + 6
	}
	if r < 0xdc00 && lowSurrogate(s.text[i+6:]) >= 0 {
		return i + 12
	}
	if s.lone < 0 {
		s.lone = i
	}
	return i + 6
}

// lowSurrogate returns the low half of a pair if b begins with its escape, or -1.
func lowSurrogate(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	for _, c := range b[2:6] {
		if unhex(c) < 0 {
			return -1
		}
	}
	if r := hex4(b[2:]); r >= 0xdc00 && r <= 0xdfff {
		return r
	}
	return -1
}

// hex4 reads four hex digits, known to be such.
func hex4(b []byte) rune {
	return unhex(b[0])<<12 | unhex(b[1])<<8 | unhex(b[2])<<4 | unhex(b[3])
}

func unhex(c byte) rune {
	switch {
	case digit(c):
		return rune(c - '0')
	case c >= 'a' && c <= 'f':
		return rune(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return rune(c-'A') + 10
	}
	return -1
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func (s *scanner) literal(i int, word string) int {
	for k := range len(word) {
		if i+k >= len(s.text) || s.text[i+k] != word[k] {
			return s.fail(i+k, word)
		}
	}
	return i + len(word)
}

// number reads the number at i: -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?
func (s *scanner) number(i int) int {
	b := s.text
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if i = s.digits(i); i < 0 {
		return -1
	}
	if i < len(b) && b[i] == '.' {
		if i = s.digits(i + 1); i < 0 {
			return -1
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		return s.digits(i)
	}
	return i
}

// digits reads one digit or more.
func (s *scanner) digits(i int) int {
	k := i
	for k < len(s.text) && digit(s.text[k]) {
		k++
	}
	if k == i {
		return s.fail(i, "a digit")
	}
	return k
}

// inner returns what stands between the quotes of a string without escapes.
func (s *scanner) inner(t token) []byte { return s.text[t.start+1 : t.end-1] }

// raw returns a value as it stands in the text.
func (s *scanner) raw(t token) []byte { return s.text[t.start:t.end:t.end] }

// unquote returns a string's bytes: of the text itself, or, if it has escapes, of
// scratch, to which they are appended.
func (s *scanner) unquote(t token, scratch []byte) (str, grown []byte) {
	in := s.inner(t)
	if !t.escaped {
		return slices.Clip(in), scratch
	}
	from := len(scratch)
	scratch = appendUnescaped(scratch, in)
	return scratch[from:len(scratch):len(scratch)], scratch
}

// appendUnescaped appends the inside of a well-formed string without its escapes.
// Half a surrogate pair becomes U+FFFD; an event with one is refused.
func appendUnescaped(dst, in []byte) []byte {
	for i := 0; i < len(in); {
		if in[i] != '\\' {
			dst = append(dst, in[i])
			i++
			continue
		}
		switch c := in[i+1]; c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := hex4(in[i+2:])
			if low := lowSurrogate(in[i+6:]); r >= 0xd800 && r < 0xdc00 && low >= 0 {
				r = 0x10000 + (r-0xd800)<<10 + (low - 0xdc00)
				i += 6
			}
			dst = utf8.AppendRune(dst, r)
			i += 4
		default:
			dst = append(dst, c)
		}
		i += 2
	}
	return dst
}

// special tells whether one of eight bytes is a quote, a backslash or a control character:
// see str.
func special(v uint64) bool {
	return (((v^lowBits*'"')-lowBits)|((v^lowBits*'\\')-lowBits)|(v-lowBits*0x20))&^v&highBits != 0
}

// word is the first eight bytes of s.
func word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// appendQuoted appends s, valid UTF-8, as a JSON string.
func appendQuoted(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from, i := 0, 0
	for i+8 <= len(s) && !special(word(s[i:])) { // mostly all of it
		i += 8
	}
	for ; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		if c >= 0x20 {
			dst = append(dst, '\\', c)
		} else {
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}
