package main

import (
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"

	"footfall/schemas"
)

// Secret is a password or a token. It prints as stars wherever it is printed.
type Secret string

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// GoString keeps %#v from telling it.
func (s Secret) GoString() string { return s.String() }

// MarshalText keeps encoders from telling it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// set parses text into the field that target points to. A text that can't be parsed
// leaves the field as it is: what is wrong is said once, not again of a value nobody gave.
func set(target any, text string) error {
	switch t := target.(type) {
	case *string:
		*t = text
	case *Secret:
		*t = Secret(strings.TrimRight(text, "\r\n"))
	case *[]string:
		*t = splitList(text)
	case *bool:
		return into(t)(parseBool(text))
	case *int:
		return into(t)(parseInt(text))
	case *time.Duration:
		return into(t)(parseDuration(text))
	case *schemas.Lane:
		return into(t)(parseLane(text))
	case *map[string]string:
		return into(t)(parseRates(text))
	default:
		panic(fmt.Sprintf("config: no way to parse a %T", target))
	}
	return nil
}

// into returns what keeps a parsed value, unless there was an error.
func into[T any](target *T) func(T, error) error {
	return func(value T, err error) error {
		if err == nil {
			*target = value
		}
		return err
	}
}

// text is what set would read again; lists and maps as flow YAML.
func text(target any) string {
	switch t := target.(type) {
	case *string:
		return *t
	case *Secret:
		return t.String()
	case *[]string:
		return "[" + strings.Join(*t, ", ") + "]"
	case *bool:
		return strconv.FormatBool(*t)
	case *int:
		return strconv.Itoa(*t)
	case *time.Duration:
		return formatDuration(*t)
	case *schemas.Lane:
		return t.String()
	case *map[string]string:
		var pairs []string
		for currency, rate := range *t {
			pairs = append(pairs, fmt.Sprintf("%s: %q", currency, rate))
		}
		sort.Strings(pairs)
		return "{" + strings.Join(pairs, ", ") + "}"
	}
	panic(fmt.Sprintf("config: no way to print a %T", target))
}

func splitList(text string) []string {
	var list []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

func parseBool(text string) (bool, error) {
	switch text {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", text)
}

func parseInt(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number", text)
	}
	return n, nil
}

func parseLane(text string) (schemas.Lane, error) {
	lane, ok := schemas.ParseLane(text)
	if !ok {
		return 0, fmt.Errorf("%q is not a lane: live, backfill or replay", text)
	}
	return lane, nil
}

func parseRates(text string) (map[string]string, error) {
	rates := map[string]string{}
	for _, pair := range splitList(text) {
		currency, rate, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("%q: want CURRENCY=RATE, as in USD=0.91", pair)
		}
		if _, twice := rates[currency]; twice {
			return nil, fmt.Errorf("%s is given twice", currency)
		}
		rates[currency] = rate
	}
	return rates, nil
}

// unit is a unit that durations are written in.
type unit struct {
	name string
	span time.Duration
}

// durationUnits are all of them, longest first.
func durationUnits() []unit {
	return []unit{
		{"d", 24 * time.Hour},
		{"h", time.Hour},
		{"m", time.Minute},
		{"s", time.Second},
		{"ms", time.Millisecond},
	}
}

// parseDuration reads whole numbers with units, the greater unit first: 30d, 1d12h,
// 500ms. A day is 24 hours.
func parseDuration(text string) (time.Duration, error) {
	span, err := schemas.ParseSpan(text)
	switch {
	case err != nil:
		return 0, err
	case span > schemas.Millis(math.MaxInt64/time.Millisecond):
		return 0, fmt.Errorf("%q is too long", text)
	}
	return time.Duration(span) * time.Millisecond, nil
}

// formatDuration writes what parseDuration reads.
func formatDuration(d time.Duration) string {
	var b strings.Builder
	for _, u := range durationUnits() {
		if n := d / u.span; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.span
		}
	}
	if b.Len() == 0 {
		return "0s"
	}
	return b.String()
}

// rateMax is the most events a second that are asked for: above what any machine does,
// and below what a pause between two of them can be told for.
const rateMax = 1_000_000_000

// suggestedMax bounds the words that are compared: the cost is the product of their
// lengths.
const suggestedMax = 100

// suggest names what was probably meant by an unknown word, or nothing when no known
// word is near.
func suggest(word string, known []string) string {
	best, distance := "", len(word)/2+1
	for _, k := range known {
		if len(word) > suggestedMax || len(k) > suggestedMax {
			continue
		}
		if d := levenshtein.ComputeDistance(word, k); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// parseTimeOfDay reads HH:MM as the time since midnight.
func parseTimeOfDay(s string) (time.Duration, error) {
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return 0, fmt.Errorf("%q: want a time of day such as 03:00", s)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}
