package segment

import (
	"fmt"
	"slices"
	"time"

	"footfall/pipeline/profile"
	"footfall/schemas"
)

// yearDay is a day of the year.
type yearDay struct {
	month time.Month
	day   int
}

// String is the day as a birthday's cell keeps it, as its hash.
func (d yearDay) String() string { return fmt.Sprintf("%02d-%02d", int(d.month), d.day) }

// yearDays finds the days of the year by their texts' hashes, which are all that a cell
// keeps of a text.
func yearDays() map[uint64]yearDay {
	all := make(map[uint64]yearDay, 366)
	for t := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC); t.Year() == 2000; t = t.AddDate(0, 0, 1) {
		d := yearDay{t.Month(), t.Day()}
		all[profile.HashText([]byte(d.String()))] = d
	}
	return all
}

// birthday lowers birthday().
func (l *lowerer) birthday() *node {
	c := l.g.cell(&cell{
		Cell: profile.Cell{
			Name: "birthday", Keeps: profile.LastOf, Kinds: profile.AllKinds,
			Text: func(ev *schemas.Event) []byte { return schemas.BirthdayOf(ev.Birthday) },
		},
		valueSQL: birthdaySQL,
	})
	return l.g.add(&node{op: opBirthday, cell: c, zone: l.zone, source: "birthday()"})
}

func birthday(n *node) condition {
	cell, z, days := n.cell, n.zone, yearDays()
	return func(fr *frame) bool {
		d, known := days[fr.v.Text(cell.number)]
		if !known {
			return false
		}
		yes, changes := z.yearly(d.month, d.day, 0, fr.now)
		fr.at(changes)
		return yes
	}
}

func birthdayText(hash uint64) string {
	d, known := yearDays()[hash]
	if !known {
		return "no birthday is known"
	}
	return fmt.Sprintf("the birthday is %d %s", d.day, d.month)
}

// birthdaySQL is schemas.BirthdayOf of a row's birthday: MM-DD, or nothing.
const birthdaySQL = `if(match(birthday, '^([0-9]{4}-|--)((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))$') ` +
	`OR match(birthday, '^(--|([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-)02-29$'), substring(birthday, -5), '')`

// birthday asks whether today is one of the days that the text may be: who was born on
// 29 February keeps it on 1 March in other years.
func (w *sqlWriter) birthday(n *node) string {
	today := time.UnixMilli(int64(w.now)).In(n.zone.loc)
	days := []string{yearDay{today.Month(), today.Day()}.String()}
	leapDay := time.Date(today.Year(), time.February, 29, 0, 0, 0, 0, time.UTC)
	if days[0] == "03-01" && leapDay.Month() == time.March {
		days = append(days, yearDay{time.February, 29}.String())
	}
	slices.Sort(days)
	return "(" + w.textOf(n) + " IN (" + sqlTexts(days) + "))"
}
