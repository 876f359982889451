package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"footfall/schemas"
)

// text is the answer for people on a terminal.
func (r *planAnswer) text(to io.Writer) error {
	var b strings.Builder
	refused := ""
	if r.Refused > 0 {
		refused = fmt.Sprintf(" (%s refused)", grouped(int64(r.Refused)))
	}
	fmt.Fprintf(&b, "history   %s to %s: %s%s, %s; what is said is counted since %s (%s)\n",
		day(r.Begins), day(r.Now), counted(r.Events, "event"), refused, counted(r.Users, "user"), day(r.Since), days(r.Since, r.Now))
	fmt.Fprintf(&b, "moves     %s (%s) would be in another segment now; their revenue so far is %s of %s %s\n",
		counted(r.Moved, "user"), percent(r.Moved, r.Users), groupedMoney(r.Money), groupedMoney(r.AllMoney), r.Currency)
	fmt.Fprintf(&b, "triggers  %s an hour\n", rates(r.Triggers))
	fmt.Fprintf(&b, "bytes     %s a user, ids and lists included\n", pair(r.Bytes))
	for i := range r.Sets {
		r.Sets[i].text(&b, r)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "\n! %s", note)
	}
	if len(r.Notes) > 0 {
		b.WriteString("\n")
	}
	_, err := io.WriteString(to, b.String())
	return err
}

func (s *planSet) text(b *strings.Builder, r *planAnswer) {
	fmt.Fprintf(b, "\n%s  %s\n", s.Set, s.summary(r))
	span := float64(r.Now-r.Since) / float64(schemas.Day)
	rows := [][]string{{"SEGMENT", "USERS", "IN A DAY", "OUT A DAY"}}
	for _, seg := range s.Segments {
		rows = append(rows, []string{seg.name(s), change(seg.Users, s), perDay(seg.Entries, span, s), perDay(seg.Exits, span, s)})
	}
	writeTable(b, rows)
	if len(s.Moves) == 0 {
		return
	}
	fmt.Fprintf(b, "\n  who moves now, from (down) to (across)\n")
	s.matrix(b)
	for _, m := range s.Moves {
		fmt.Fprintf(b, "\n  %s -> %s  %s, revenue %s\n", orNone(m.From), orNone(m.To), counted(m.Users, "user"), groupedMoney(m.Money))
		for _, u := range m.Sample {
			fmt.Fprintf(b, "    %s  %s  %s\n", u.User, groupedMoney(u.Money), u.why(m.From))
		}
	}
}

// summary says in a line what becomes of the set.
func (s *planSet) summary(r *planAnswer) string {
	switch {
	case !s.Before:
		return "would be new: everybody is put into it without a trigger; then " + rates([2]planRate{s.Triggers[1], s.Triggers[1]}) + " triggers an hour"
	case !s.After:
		return "would not be there any more"
	case s.Moved == 0:
		return "nobody moves; " + rates(s.Triggers) + " triggers an hour"
	}
	return fmt.Sprintf("%s (%s) move, with a revenue of %s; %s triggers an hour", counted(s.Moved, "user"), percent(s.Moved, r.Users), groupedMoney(s.Money), rates(s.Triggers))
}

// name marks a segment that only one side has.
func (s *planSegment) name(set *planSet) string {
	switch {
	case !set.Before || !set.After:
		return s.Segment
	case !s.Before:
		return "+ " + s.Segment
	case !s.After:
		return "- " + s.Segment
	}
	return s.Segment
}

// matrix writes how many move from where to where.
func (s *planSet) matrix(b *strings.Builder) {
	rows, columns, cells := s.table()
	table := [][]string{append([]string{""}, columns...)}
	for i, row := range rows {
		table = append(table, append([]string{row}, cells[i]...))
	}
	writeTable(b, table)
}

// writeTable writes rows in columns, the first to the left and the others to the right.
func writeTable(b *strings.Builder, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	for _, row := range rows {
		line := fmt.Appendf(nil, "  %-*s", widths[0], row[0])
		for i, cell := range row[1:] {
			line = fmt.Appendf(line, "  %*s", widths[i+1], cell)
		}
		b.Write(append(bytes.TrimRight(line, " "), '\n'))
	}
}

// table is the matrix: segments from which somebody moves, by segments in which those
// people are and would be.
func (s *planSet) table() (rows, columns []string, cells [][]string) {
	moves := map[[2]string]int{}
	gone, reached := map[string]int{}, map[string]bool{}
	for _, m := range s.Moves {
		if m.From != nil && m.To != nil {
			moves[[2]string{*m.From, *m.To}] = m.Users
			gone[*m.From] += m.Users
			reached[*m.From], reached[*m.To] = true, true
		}
	}
	for _, to := range s.Segments {
		if to.After && reached[to.Segment] {
			columns = append(columns, to.Segment)
		}
	}
	for _, from := range s.Segments {
		if gone[from.Segment] == 0 {
			continue
		}
		rows = append(rows, from.Segment)
		var row []string
		for _, to := range columns {
			switch n := moves[[2]string{from.Segment, to}]; {
			case to == from.Segment:
				row = append(row, grouped(int64(from.Users[0]-gone[to]))+" stay")
			case n > 0:
				row = append(row, grouped(int64(n)))
			default:
				row = append(row, ".")
			}
		}
		cells = append(cells, row)
	}
	return rows, columns, cells
}

// noRule is the reason of who is in a segment that takes everybody who is left.
const noRule = "no rule before it holds"

// why says why a user moves: why not what it was, and what it would be because.
func (u *planMover) why(from *string) string {
	var parts []string
	if u.NotAnyMore != "" && from != nil {
		parts = append(parts, fmt.Sprintf("not %s: %s", *from, u.NotAnyMore))
	}
	if u.Because != "" && (len(parts) == 0 || u.Because != noRule) {
		parts = append(parts, "because "+u.Because)
	}
	if len(parts) == 0 {
		return "was there because " + u.Was
	}
	return strings.Join(parts, "; ")
}

// markdown is the answer for a code review.
func (r *planAnswer) markdown(to io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s of %s (%s) would be in another segment now**; their revenue so far is %s of %s %s.\n\n",
		grouped(int64(r.Moved)), counted(r.Users, "user"), percent(r.Moved, r.Users), groupedMoney(r.Money), groupedMoney(r.AllMoney), r.Currency)
	b.WriteString("| | before | after |\n|---|---|---|\n")
	for i, name := range []string{"triggers an hour, mean", "triggers an hour, most"} {
		cells := [2]string{}
		for side, t := range r.Triggers {
			cells[side] = fmt.Sprintf("%.3g", t.Mean)
			if i == 1 {
				cells[side] = grouped(int64(t.Peak))
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name, cells[0], cells[1])
	}
	fmt.Fprintf(&b, "| bytes a user | %d | %d |\n", r.Bytes[0], r.Bytes[1])
	fmt.Fprintf(&b, "| rules | `%s` | `%s` |\n\n", r.Rules[0], r.Rules[1])
	fmt.Fprintf(&b, "Played were %s events of %s to %s; what is said is counted since %s (%s).\n",
		grouped(int64(r.Events)), day(r.Begins), day(r.Now), day(r.Since), days(r.Since, r.Now))
	for i := range r.Sets {
		r.Sets[i].markdown(&b, r)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "\n> %s\n", note)
	}
	_, err := io.WriteString(to, b.String())
	return err
}

func (s *planSet) markdown(b *strings.Builder, r *planAnswer) {
	fmt.Fprintf(b, "\n### `%s`: %s\n\n| segment | users | in a day | out a day |\n|---|--:|--:|--:|\n", s.Set, s.summary(r))
	span := float64(r.Now-r.Since) / float64(schemas.Day)
	for _, seg := range s.Segments {
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", seg.name(s), change(seg.Users, s), perDay(seg.Entries, span, s), perDay(seg.Exits, span, s))
	}
	if len(s.Moves) == 0 {
		return
	}
	rows, columns, cells := s.table()
	fmt.Fprintf(b, "\nWho moves now, from (down) to (across):\n\n| | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("--:|", len(columns)))
	for i, row := range rows {
		fmt.Fprintf(b, "| %s | %s |\n", row, strings.Join(cells[i], " | "))
	}
	for _, m := range s.Moves {
		fmt.Fprintf(b, "\n<details><summary>%s to %s: %s, revenue %s</summary>\n\n", orNone(m.From), orNone(m.To), counted(m.Users, "user"), groupedMoney(m.Money))
		for _, u := range m.Sample {
			fmt.Fprintf(b, "- `%s` (%s) %s\n", u.User, groupedMoney(u.Money), strings.ReplaceAll(u.why(m.From), "|", `\|`))
		}
		b.WriteString("\n</details>\n")
	}
}

func orNone(s *string) string {
	if s == nil {
		return "none"
	}
	return *s
}

// change writes how many users are and would be in a segment.
func change(n [2]int, s *planSet) string {
	switch {
	case !s.Before:
		return grouped(int64(n[1]))
	case !s.After:
		return grouped(int64(n[0]))
	case n[0] == n[1]:
		return grouped(int64(n[0]))
	}
	return fmt.Sprintf("%s -> %s (%+d)", grouped(int64(n[0])), grouped(int64(n[1])), n[1]-n[0])
}

// perDay writes how often something happens and would happen on a day.
func perDay(n [2]int, span float64, s *planSet) string {
	a, b := fmt.Sprintf("%.3g", float64(n[0])/max(span, 1)), fmt.Sprintf("%.3g", float64(n[1])/max(span, 1))
	switch {
	case !s.Before:
		return b
	case !s.After || a == b:
		return a
	}
	return a + " -> " + b
}

// rates writes triggers an hour.
func rates(r [2]planRate) string {
	one := func(p planRate) string {
		if p.Peak == 0 {
			return "0"
		}
		return fmt.Sprintf("%.3g (at most %s, %s)", p.Mean, grouped(int64(p.Peak)), time.UnixMilli(int64(p.PeakAt)).UTC().Format("2006-01-02 15:00"))
	}
	if r[0] == r[1] {
		return one(r[0])
	}
	return one(r[0]) + " -> " + one(r[1])
}

func pair(n [2]int) string {
	if n[0] == n[1] {
		return fmt.Sprint(n[0])
	}
	return fmt.Sprintf("%d -> %d", n[0], n[1])
}

// groupedMoney writes an amount with commas between the thousands.
func groupedMoney(amount string) string {
	whole, rest, decimals := strings.Cut(amount, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n == 0 {
		return amount
	}
	if decimals {
		rest = "." + rest
	}
	return grouped(n) + rest
}

func day(m Moment) string { return time.UnixMilli(int64(m)).UTC().Format("2006-01-02") }

// days is how long a time is.
func days(from, to Moment) string {
	return counted(max(1, int(to-from)/int(schemas.Day)), "day")
}
