package segment

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/goccy/go-yaml/ast"

	"footfall/schemas"
)

// Quiet is a time of day at which nobody should be spoken to, by the clock on the
// user's wall: from a moment on and before another, over midnight where that is not
// later. The zero value, as any that ends where it begins, is none.
type Quiet struct{ From, To int } // minutes since midnight, below 24 hours

// None tells that there are no quiet hours.
func (q Quiet) None() bool { return q.From == q.To }

// String writes quiet hours as ParseQuiet reads them.
func (q Quiet) String() string {
	if q.None() {
		return "none"
	}
	return fmt.Sprintf("%02d:%02d-%02d:%02d", q.From/60, q.From%60, q.To/60, q.To%60)
}

var quietForm = regexp.MustCompile(`^([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])$`)

// ParseQuiet reads quiet hours such as 21:00-08:00, or none.
func ParseQuiet(text string) (Quiet, error) {
	if text == "none" {
		return Quiet{}, nil
	}
	m := quietForm.FindStringSubmatch(text)
	if m == nil {
		return Quiet{}, fmt.Errorf("want hours of the day such as \"21:00-08:00\", from 00:00 to 23:59, or none, got %q", text)
	}
	var n [4]int
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1]) // two digits
	}
	q := Quiet{From: n[0]*60 + n[1], To: n[2]*60 + n[3]}
	if q.None() {
		return q, fmt.Errorf("%q ends where it begins; write none where there are no quiet hours", text)
	}
	return q, nil
}

// quiet reads the quiet hours of a set.
func (r *fileReader) quiet(node ast.Node) *Quiet {
	text, ok := r.text(node)
	if !ok {
		return nil
	}
	q, err := ParseQuiet(text)
	if err != nil {
		r.errorf(node.GetToken(), "quiet: %v", err)
		return nil
	}
	return &q
}

// left is how long the clock on the wall has to run until the quiet hours are over; 0
// outside of them.
func (q Quiet) left(local time.Time) schemas.Millis {
	hour, minute, second := local.Clock()
	now := schemas.Millis(hour)*schemas.Hour + schemas.Millis(minute)*schemas.Minute + schemas.Millis(second)*schemas.Second +
		schemas.Millis(local.Nanosecond()/int(time.Millisecond))
	from, to := schemas.Millis(q.From)*schemas.Minute, schemas.Millis(q.To)*schemas.Minute
	if within := now >= from && now < to; from <= to && !within || from > to && now >= to && now < from {
		return 0
	}
	return (to - now + schemas.Day) % schemas.Day
}

// after gives the first moment, from at on, that is not in quiet hours. Where the clocks
// are changed before that, it looks again from there.
func (z *zone) after(q Quiet, at schemas.Millis) schemas.Millis {
	for {
		local := time.UnixMilli(int64(at)).In(z.loc)
		left := q.left(local)
		if left == 0 {
			return at
		}
		at += left
		if _, changed := local.ZoneBounds(); changed.After(local) { // not so on the last day of a leap year from 2040 on: Go 1.26
			at = min(at, schemas.Millis(changed.UnixMilli()))
		}
	}
}
