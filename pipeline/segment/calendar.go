package segment

import (
	"encoding/binary"
	"fmt"
	"time"
	_ "time/tzdata" // for machines that have no zones of their own, which come first

	"footfall/schemas"
)

// zone is a time zone by its IANA name.
type zone struct {
	name string
	loc  *time.Location
}

func loadZone(name string) (*zone, error) {
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("zone %q: want an IANA name such as UTC or Europe/Berlin", name)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("zone %q: not in the time zone database; want an IANA name such as UTC or Europe/Berlin", name)
	}
	return &zone{name, loc}, nil
}

// appendOffsets appends from which day on the zone lies how far from UTC, of half a century.
// (Time.ZoneBounds stands still at the end of some years: Go 1.26.)
func (z *zone) appendOffsets(to []byte) []byte {
	from, until := time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC), time.Date(2050, 1, 1, 12, 0, 0, 0, time.UTC)
	for at, before := from, 0; at.Before(until); at = at.Add(24 * time.Hour) {
		if _, offset := at.In(z.loc).Zone(); offset != before {
			to = binary.LittleEndian.AppendUint64(to, uint64(at.Unix()))
			to = binary.LittleEndian.AppendUint32(to, uint32(offset))
			before = offset
		}
	}
	return to
}

// CheckZone refuses what is no time zone.
func CheckZone(name string) error {
	_, err := loadZone(name)
	return err
}

// unit is a calendar's unit.
type unit uint8

const (
	unitNone unit = iota
	unitDay
	unitWeek // ISO 8601: from Monday
	unitMonth
	unitQuarter
	unitYear
)

func units() []string { return []string{"", "day", "week", "month", "quarter", "year"} }

// window is which event times an aggregation looks at. The zero window is open: all.
type window struct {
	span schemas.Millis // sliding: times t with now - t < span
	unit unit           // calendar: the period that now is in, in zone
	back int            // periods before it
	zone *zone
}

func (w window) open() bool { return w.span == 0 && w.unit == unitNone }

// String is the window's identity.
func (w window) String() string {
	switch {
	case w.unit != unitNone:
		return fmt.Sprintf("%s%+d@%s", units()[w.unit], -w.back, w.zone.name)
	case w.span > 0:
		return fmt.Sprint(int64(w.span))
	}
	return "open"
}

// bounds gives the times within the window at a clock, [from, to), and when, with no
// further event, another time may drop out or come in because the period ends;
// Never for a sliding window, where that depends on the times. Times after now count
// as now.
func (w window) bounds(now schemas.Millis) (from, to, ends schemas.Millis) {
	switch {
	case w.unit != unitNone:
		start, n := time.UnixMilli(int64(now)).In(w.zone.loc), 0
		next := schemas.Millis(period(start, w.unit, 1).UnixMilli())
		for next <= now { // the clocks went back over midnight: it is the day before once more
			n++
			next = schemas.Millis(period(start, w.unit, 1+n).UnixMilli())
		}
		from = schemas.Millis(period(start, w.unit, n-w.back).UnixMilli())
		if to = schemas.Never; w.back > 0 {
			to = schemas.Millis(period(start, w.unit, 1+n-w.back).UnixMilli())
		}
		return from, to, next
	case w.span > 0:
		return now - w.span + 1, schemas.Never, schemas.Never
	}
	return minTime, schemas.Never, schemas.Never
}

// reach is how far back a window may look at most.
func (w window) reach() schemas.Millis {
	const hour = schemas.Hour // a period may be longer by what a zone's clocks go back
	longest := map[unit]schemas.Millis{
		unitDay: schemas.Day + hour, unitWeek: 7*schemas.Day + hour, unitMonth: 31*schemas.Day + hour,
		unitQuarter: 92*schemas.Day + hour, unitYear: 366*schemas.Day + hour,
	}
	switch {
	case w.unit != unitNone:
		return longest[w.unit] * schemas.Millis(w.back+1)
	case w.span > 0:
		return w.span
	}
	return schemas.Never
}

// minTime is before every event time.
const minTime = schemas.Millis(-1 << 62)

// period is the start of the period that t is in, moved by n periods.
func period(t time.Time, u unit, n int) time.Time {
	y, m, d := t.Date()
	switch u {
	case unitDay:
		d += n
	case unitWeek:
		d += 7*n - (int(t.Weekday())+6)%7
	case unitMonth:
		m, d = m+time.Month(n), 1
	case unitQuarter:
		m, d = m-(m-1)%3+time.Month(3*n), 1
	case unitYear:
		y, m, d = y+n, 1, 1
	case unitNone:
		panic("segment: a period without a unit")
	}
	return midnight(y, m, d, t.Location())
}

// midnight is the first moment of a day: where the clocks go forward at midnight,
// there is no 00:00, and time.Date gives a moment of the day before or after.
func midnight(y int, m time.Month, d int, loc *time.Location) time.Time {
	t := time.Date(y, m, d, 0, 0, 0, 0, loc)
	want := time.Date(y, m, d, 12, 0, 0, 0, loc).Day()
	if t.Day() == want {
		// Where the clocks go back over midnight, 00:00 is there twice: the first.
		for before := t.Add(-30 * time.Minute); before.Day() == want; before = before.Add(-30 * time.Minute) {
			t = before
		}
		return t
	}
	for t.Day() != want { // in steps that every zone's jumps are a multiple of
		t = t.Add(15 * time.Minute)
	}
	return t
}

// since is the first moment that any of the windows needs at a clock.
func since(windows []window) func(schemas.Millis) schemas.Millis {
	return func(clock schemas.Millis) schemas.Millis {
		least := clock
		for _, w := range windows {
			from, _, _ := w.bounds(clock)
			least = min(least, from)
		}
		return least
	}
}

// onTheDay tells whether the clock's day of the year is that of a moment, from the
// year after it on, and when that changes next. 29 February is kept on 1 March in
// other years.
func (z *zone) onTheDay(of, now schemas.Millis) (yes bool, changes schemas.Millis) {
	born := time.UnixMilli(int64(of)).In(z.loc)
	return z.yearly(born.Month(), born.Day(), born.Year()+1, now)
}

// yearly tells whether the clock's day is a day of the year, in the first year or later,
// and when that changes next.
func (z *zone) yearly(month time.Month, dayOfMonth, first int, now schemas.Millis) (yes bool, changes schemas.Millis) {
	today := time.UnixMilli(int64(now)).In(z.loc)
	for year := max(today.Year(), first); ; year++ {
		day := midnight(year, month, dayOfMonth, z.loc)
		after := midnight(day.Year(), day.Month(), day.Day()+1, z.loc)
		switch {
		case today.Before(day):
			return false, schemas.Millis(day.UnixMilli())
		case today.Before(after):
			return true, schemas.Millis(after.UnixMilli())
		}
	}
}

// hour is the hour of the day of a moment.
func (z *zone) hour(at schemas.Millis) int64 {
	return int64(time.UnixMilli(int64(at)).In(z.loc).Hour())
}

// weekday is the day of the week of a moment, from 1, Monday.
func (z *zone) weekday(at schemas.Millis) int64 {
	return int64(time.UnixMilli(int64(at)).In(z.loc).Weekday()+6)%7 + 1
}
