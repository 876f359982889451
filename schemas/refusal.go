package schemas

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Refusal is why a record became a dead letter: the value of its dlq_reason header.
type Refusal uint8

// The reasons, in the order in which they are looked for: the first that holds
// is given.
const (
	Accepted Refusal = iota
	Tombstone
	TooLarge
	InvalidUTF8
	Truncated
	NotJSON
	WrongType
	MissingField
	EmptyField
	IDTooLong
	UnknownType
	BadTime
	Before1990
	NegativeAmount
	TooManyDecimals
	UnknownCurrency
	AmountOverflow
	NoKey
	KeyMismatch
	Future
	Refusals // how many there are
)

// RefusedError says why an event was refused.
type RefusedError struct {
	Reason Refusal

	// Detail names the field, what was got (shortened) and what was wanted. It is
	// valid UTF-8 and shorter than detailMax bytes.
	Detail string
}

func (e *RefusedError) Error() string { return e.Reason.String() + ": " + e.Detail }

// detailMax bounds a detail, which goes into a header and a log line.
const detailMax = 300

// refuse makes a RefusedError. Refusals may allocate, accepted events don't.
func refuse(reason Refusal, format string, args ...any) *RefusedError {
	return &RefusedError{Reason: reason, Detail: shorten(fmt.Sprintf(format, args...), detailMax-1)}
}

// shorten cuts valid UTF-8 to at most n bytes, between characters.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n -= len("...")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}

// gotMax is how much of a faulty value a detail shows.
const gotMax = 60

// got returns a JSON value of a valid text, shortened and on one line.
func got(raw []byte) string {
	s := string(raw[:min(len(raw), gotMax+utf8.UTFMax)])
	for len(raw) > len(s) && !utf8.ValidString(s) { // cut within a character
		s = s[:len(s)-1]
	}
	return shorten(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == '\t' {
			return ' '
		}
		return r
	}, s), gotMax)
}
