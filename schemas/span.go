package schemas

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// ErrSpan says what a span looks like.
var ErrSpan = errors.New("want a duration such as 30d, 12h, 15m, 2s or 500ms")

// ParseSpan reads a span as people write it: whole numbers with units, the greater
// unit first, as in 30d, 1d12h or 500ms. A day is 24 hours.
func ParseSpan(text string) (Millis, error) {
	rest, total, last := text, Millis(0), Millis(math.MaxInt64)
	if rest == "0" {
		return 0, nil
	}
	for rest != "" {
		digits := 0
		for digits < len(rest) && digit(rest[digits]) {
			digits++
		}
		letters := digits
		for letters < len(rest) && !digit(rest[letters]) {
			letters++
		}
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		unit := spanUnit(rest[digits:letters])
		if err != nil || unit == 0 || unit >= last {
			return 0, fmt.Errorf("%q: %w", text, ErrSpan)
		}
		if n > int64((math.MaxInt64-total)/unit) {
			return 0, fmt.Errorf("%q is too long", text)
		}
		total, last, rest = total+Millis(n)*unit, unit, rest[letters:]
	}
	if text == "" {
		return 0, ErrSpan
	}
	return total, nil
}

func spanUnit(name string) Millis {
	switch name {
	case "d":
		return Day
	case "h":
		return Hour
	case "m":
		return Minute
	case "s":
		return Second
	case "ms":
		return 1
	}
	return 0
}
