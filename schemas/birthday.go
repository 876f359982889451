package schemas

// BirthdayOf gives the month and day of an event's birthday as its last five bytes,
// "MM-DD": YYYY-MM-DD is a day of the calendar, --MM-DD one of a leap year. Of any other
// text it gives nil.
func BirthdayOf(text []byte) []byte {
	const leap = 2000
	year, rest := leap, text
	switch {
	case len(text) == len("2000-02-29") && text[4] == '-':
		if two(text)|two(text[2:]) < 0 {
			return nil
		}
		year, rest = two(text)*100+two(text[2:]), text[5:]
	case len(text) == len("--02-29") && text[0] == '-' && text[1] == '-':
		rest = text[2:]
	default:
		return nil
	}
	month, day := two(rest), two(rest[3:])
	if rest[2] != '-' || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return nil
	}
	return rest
}
