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
	return func(s string) (schemas.Millis, error) {
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
	}, nil
}

func unitParser(unit string) func(string) (schemas.Millis, error) {
	multiply, divide := int64(1), int64(1)
	switch unit {
	case "s":
		multiply = 1000
	case "us":
		divide = 1000
	case "ns":
		divide = 1_000_000
	}
	return func(s string) (schemas.Millis, error) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n > 1<<62/multiply {
			return 0, fmt.Errorf("%q is not a whole number of %s since 1970", s, unit)
		}
		return sane(schemas.Millis(n*multiply/divide), s)
	}
}

func sane(t schemas.Millis, s string) (schemas.Millis, error) {
	if t < earliest {
		return 0, fmt.Errorf("%q is before 1990", s)
	}
	return t, nil
}
