package schemas

import "encoding/binary"

// oldest is 1990-01-01T00:00:00Z: before the first web shop no event is true.
const oldest Millis = 631_152_000_000

// ParseTime reads an RFC 3339 time with offset, YYYY-MM-DDThh:mm:ss[.digits](Z|+hh:mm|-hh:mm),
// and rounds it down to the millisecond. Every text it takes means the same to time.Parse,
// which allocates for most offsets, and takes others, too: an hour of one digit, a comma
// before the fraction, offsets of 24 hours or 60 minutes (golang.org/issue/54580).
func ParseTime(s []byte) (Millis, bool) {
	if len(s) < len("2006-01-02T15:04:05Z") {
		return 0, false
	}
	hour, ok := parseHour(s)
	if !ok {
		return 0, false
	}
	rest, ok := withinHour(s)
	return hour + rest, ok
}

// parseHour reads YYYY-MM-DDThh.
func parseHour(s []byte) (Millis, bool) {
	if s[4] != '-' || s[7] != '-' || s[10] != 'T' {
		return 0, false
	}
	year := two(s[0:])*100 + two(s[2:])
	month, day, hour := two(s[5:]), two(s[8:]), two(s[11:])
	if two(s[0:])|two(s[2:])|month|day|hour < 0 || month < 1 || month > 12 ||
		day < 1 || day > daysIn(year, month) || hour > 23 {
		return 0, false
	}
	return Millis(civil(year, month, day))*Day + Millis(hour)*Hour, true
}

// withinHour reads what follows it: :mm:ss[.digits](Z|+hh:mm|-hh:mm).
func withinHour(s []byte) (Millis, bool) {
	if t, ok := millisWithinHour(s); ok {
		return t, true
	}
	minute, second := two(s[14:]), two(s[17:])
	if s[13] != ':' || s[16] != ':' || minute|second < 0 || minute > 59 || second > 59 {
		return 0, false
	}
	t := Millis(minute)*Minute + Millis(second)*Second
	s = s[19:]
	if s[0] == '.' {
		n, milli := 1, Millis(0)
		for scale := Millis(100); n < len(s) && digit(s[n]); n++ {
			milli += Millis(s[n]-'0') * scale
			scale /= 10
		}
		if n == 1 {
			return 0, false
		}
		t += milli
		s = s[n:]
	}
	if len(s) == 1 && s[0] == 'Z' {
		return t, true
	}
	if len(s) != len("+07:00") || s[0] != '+' && s[0] != '-' || s[3] != ':' {
		return 0, false
	}
	hour, minute := two(s[1:]), two(s[4:])
	if hour|minute < 0 || hour > 23 || minute > 59 {
		return 0, false
	}
	offset := Millis(hour)*Hour + Millis(minute)*Minute
	if s[0] == '-' {
		offset = -offset
	}
	return t - offset, true
}

// millisWithinHour reads :mm:ss.mmmZ, as most senders write it, in two words: of each byte
// what is left of it without the sign that belongs there, or without the 0 of a digit.
func millisWithinHour(s []byte) (Millis, bool) {
	if len(s) != len("2006-01-02T15:04:05.000Z") {
		return 0, false
	}
	x := binary.LittleEndian.Uint64(s[13:]) ^ 0x30_2e_30_30_3a_30_30_3a // :00:00.0
	y := binary.LittleEndian.Uint64(s[16:]) ^ 0x5a_30_30_30_2e_30_30_3a // :00.000Z
	// The highest bit of a byte is set by a sum where it is above 9, and above 0.
	bad := x | (x + 0x76_7f_76_76_7f_76_76_7f) | y | (y + 0x7f_76_76_76_7f_76_76_7f)
	at := func(v uint64, i int) Millis { return Millis(v >> (8 * i) & 0xff) }
	minute, second := at(x, 1)*10+at(x, 2), at(x, 4)*10+at(x, 5)
	if bad&highBits != 0 || minute > 59 || second > 59 {
		return 0, false
	}
	return minute*Minute + second*Second + at(y, 4)*100 + at(y, 5)*10 + at(y, 6), true
}

// times reads times as ParseTime does. It remembers the hour of the one before, by its
// text: events come about in the order of their times, so that most are of the same.
type times struct {
	text  [len("2006-01-02T15")]byte
	known bool
	hour  Millis // that text's, if it is known
}

func (t *times) parse(s []byte) (Millis, bool) {
	if len(s) < len("2006-01-02T15:04:05Z") {
		return 0, false
	}
	if !t.known || string(s[:len(t.text)]) != string(t.text[:]) {
		hour, ok := parseHour(s)
		if !ok {
			return 0, false
		}
		t.hour, t.known = hour, true
		copy(t.text[:], s)
	}
	rest, ok := withinHour(s)
	return t.hour + rest, ok
}

// two reads two digits; it is negative if they are none.
func two(s []byte) int {
	if !digit(s[0]) || !digit(s[1]) {
		return -1
	}
	return int(s[0]-'0')*10 + int(s[1]-'0')
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// civil returns the days from 1970-01-01 to a day of the proleptic Gregorian
// calendar, year >= 0 (Hinnant, "chrono-Compatible Low-Level Date Algorithms",
// days_from_civil; years begin in March there, so a leap day is the last).
func civil(year, month, day int) int {
	year += 400 // so that March of year -1 needs no floor division
	if month <= 2 {
		year--
	}
	era, yearOfEra := year/400, year%400
	dayOfYear := (153*((month+9)%12)+2)/5 + day - 1
	dayOfEra := yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear
	return era*146_097 + dayOfEra - 719_468 - 146_097
}

// Earliest and Latest are the first and the last moment that RFC 3339 can say, of the years
// 0 and 9999.
const (
	Earliest Millis = -62_167_219_200_000
	Latest   Millis = 253_402_300_799_999
)

// appendTime appends t as RFC 3339 in UTC with milliseconds, between quotes. A time before
// Earliest or after Latest is brought to these.
func appendTime(dst []byte, t Millis) []byte {
	t = min(max(t, Earliest), Latest) - Earliest // from the year 0 on
	year, month, day := calendar(int(t / Day))
	hour, minute, second, milli := int(t/Hour%24), int(t/Minute%60), int(t/Second%60), int(t%Second)
	return append(dst, '"',
		tens(year/100), ones(year/100), tens(year%100), ones(year%100), '-', tens(month), ones(month), '-', tens(day), ones(day), 'T',
		tens(hour), ones(hour), ':', tens(minute), ones(minute), ':', tens(second), ones(second),
		'.', '0'+byte(milli/100), tens(milli%100), ones(milli), 'Z', '"')
}

func tens(n int) byte { return '0' + byte(n/10) }
func ones(n int) byte { return '0' + byte(n%10) }

// calendar is the day of the proleptic Gregorian calendar so many days, 0 or more, after
// the first of January of the year 0 (Hinnant, as above, civil_from_days).
func calendar(days int) (year, month, day int) {
	days += 146_097 - 60 // eras of 400 years begin on the first of March
	era, dayOfEra := days/146_097-1, days%146_097
	yearOfEra := (dayOfEra - dayOfEra/1460 + dayOfEra/36_524 - dayOfEra/146_096) / 365
	dayOfYear := dayOfEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	march := (5*dayOfYear + 2) / 153 // months after March
	year, month, day = era*400+yearOfEra, march+3, dayOfYear-(153*march+2)/5+1
	if month > 12 {
		year, month = year+1, month-12
	}
	return year, month, day
}

// appendTimeOrNull appends t, or null where 0 stands for none.
func appendTimeOrNull(dst []byte, t Millis) []byte {
	if t == 0 {
		return append(dst, "null"...)
	}
	return appendTime(dst, t)
}
