package file

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"footfall/schemas"
)

// earliest is 1990-01-01T00:00:00Z, before which the contract takes no event.
const earliest schemas.Millis = 631_152_000_000

// timeParser returns what reads the event time, floored to milliseconds.
func timeParser(m TimeMapping) (func(string) (schemas.Millis, error), error) {
	if m.Unit != "" {
		return unitParser(m.Unit), nil
	}
	loc, err := location(m.Zone)
	if err != nil {
		return nil, fmt.Errorf("time zone: %w", err)
	}
	named := strings.Contains(m.Layout, "MST")
	return again(func(s string) (schemas.Millis, error) {
		t, err := time.ParseInLocation(m.Layout, s, loc)
		if err != nil {
			return 0, fmt.Errorf("%q is not a time of layout %q", s, m.Layout)
		}
		if named {
			// Go makes up an offset of zero for an abbreviation it does not know.
			if zone, offset := t.Zone(); offset == 0 && t.Location() != loc && zone != "UTC" && zone != "GMT" && zone != "Z" {
				return 0, fmt.Errorf("%q: the zone %s is ambiguous; convert the file to UTC or to numeric offsets", s, zone)
			}
		}
		return sane(schemas.Millis(t.UnixMilli()), s)
	}), nil
}

// again reads a time only where it is not the row's before: a shop has many events a
// second, and files say no more.
func again(parse func(string) (schemas.Millis, error)) func(string) (schemas.Millis, error) {
	var last string
	var gave schemas.Millis
	return func(s string) (schemas.Millis, error) {
		if s == last && s != "" {
			return gave, nil
		}
		t, err := parse(s)
		if err == nil {
			last, gave = strings.Clone(s), t
		}
		return t, err
	}
}

// unitParser reads a number of units since 1970, with decimals where they are finer
// than a millisecond or not.
func unitParser(unit string) func(string) (schemas.Millis, error) {
	digits := map[string]int{"s": 3, "ms": 0, "us": -3, "ns": -6}[unit] // to append, or to cut
	return func(s string) (schemas.Millis, error) {
		whole, fraction, _ := strings.Cut(s, ".")
		if strings.Trim(whole, "0123456789")+strings.Trim(fraction, "0123456789") == "" && whole != "" {
			text := whole
			if digits > 0 {
				text += (fraction + "000")[:digits]
			} else {
				text = text[:max(0, len(text)+digits)]
			}
			if n, err := strconv.ParseInt("0"+text, 10, 64); err == nil {
				return sane(schemas.Millis(n), s)
			}
		}
		return 0, fmt.Errorf("%q is not a number of %s since 1970", s, unit)
	}
}

func sane(t schemas.Millis, s string) (schemas.Millis, error) {
	if t < earliest {
		return 0, fmt.Errorf("%q is before 1990", s)
	}
	return t, nil
}
