package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"footfall/pipeline/archive"
	"footfall/sinks/clickhouse"
)

// print writes the report for a person.
func (r *auditReport) print(out io.Writer) error {
	var b strings.Builder
	r.printParts(&b)
	for i := range r.Parts {
		if p := &r.Parts[i]; p.Error != "" {
			fmt.Fprintf(&b, "!   %s/%d was not compared from offset %d on: %s\n    footfall audit --topic %s --partition %d --offsets %d-\n",
				p.Topic, p.Partition, p.Next, p.Error, p.Topic, p.Partition, p.Next)
		}
	}
	for i := range r.Findings {
		r.Findings[i].print(&b)
	}
	for _, o := range r.Others {
		fmt.Fprintf(&b, "-   topic %s: %s, not compared: it is none of this configuration's\n", o.Topic, counted(o.Rows, "row"))
	}
	if r.Chains != nil {
		printChains(&b, r.Chains)
	}
	if r.Unchecked != "" {
		fmt.Fprintf(&b, "!   the chains of transitions were not checked: %s\n    footfall audit --chains no leaves them out\n", r.Unchecked)
	}
	r.printVerdict(&b)
	_, err := io.WriteString(out, b.String())
	return err
}

// printParts writes the table. The last columns are there only where something is in
// them.
func (r *auditReport) printParts(b *strings.Builder) {
	total := auditPart{Topic: "total"}
	for i := range r.Parts {
		total.plus(&r.Parts[i])
	}
	head := []string{"TOPIC", "PARTITION"}
	always, seldom := total.columns()
	columns := always
	for _, c := range seldom {
		if c.value > 0 {
			columns = append(columns, c)
		}
	}
	for _, c := range columns {
		head = append(head, c.name)
	}
	rows := [][]string{head}
	for i := range r.Parts {
		rows = append(rows, r.Parts[i].row(strconv.Itoa(int(r.Parts[i].Partition)), head))
	}
	alignRight(b, append(rows, total.row("", head)))
	b.WriteByte('\n')
	for _, note := range []struct {
		count int64
		what  string
	}{
		{total.Refused, "records have no row because the contract of their time refused them; today's would take them"},
		{total.Taken, "rows are of records that today's contract would refuse"},
		{total.Beyond, "rows are older than their topic: nothing is left to compare them with"},
		{total.Deleted, "offsets were deleted from the topics while this was looking"},
		{total.Behind, "offsets are not archived yet, and not compared"},
	} {
		if note.count > 0 {
			fmt.Fprintf(b, "-   %s %s\n", grouped(note.count), note.what)
		}
	}
}

// auditColumn is a number of a partition, and what it is called.
type auditColumn struct {
	name  string
	value int64
}

// columns are the numbers of a partition: those always shown, and those seldom there.
func (p *auditPart) columns() (always, seldom []auditColumn) {
	always = []auditColumn{
		{"SPANS", p.Spans},
		{"RECORDS", p.Records},
		{"ROWS", p.Rows},
		{"MISSING", p.Missing},
		{"DOUBLED", p.Doubled},
		{"DIFFERENT", p.Different},
		{"FOREIGN", p.Foreign},
	}
	seldom = []auditColumn{
		{"MENDED", p.Mended},
		{"COPIES", p.Copies},
		{"BEYOND RETENTION", p.Beyond},
		{"NOT ARCHIVED", p.Behind},
	}
	return always, seldom
}

// row is the partition's line in a table with these heads.
func (p *auditPart) row(partition string, head []string) []string {
	row := []string{p.Topic, partition}
	always, seldom := p.columns()
	for _, c := range append(always, seldom...) {
		if slices.Contains(head, c.name) {
			row = append(row, grouped(c.value))
		}
	}
	return row
}

func (p *auditPart) plus(q *auditPart) {
	for to, from := range map[*int64]int64{
		&p.Spans: q.Spans, &p.Records: q.Records, &p.Rows: q.Rows, &p.Missing: q.Missing, &p.Mended: q.Mended, &p.Doubled: q.Doubled,
		&p.Different: q.Different, &p.Foreign: q.Foreign, &p.Copies: q.Copies, &p.Refused: q.Refused, &p.Taken: q.Taken,
		&p.Beyond: q.Beyond, &p.Deleted: q.Deleted, &p.Behind: q.Behind,
	} {
		*to += from
	}
}

func (f *auditFinding) print(b *strings.Builder) {
	mark, what := "!  ", map[archive.Kind]string{
		archive.Missing:   "without a row",
		archive.Doubled:   "with another row beside its own",
		archive.Different: "with a row that does not say what the record says",
		archive.Foreign:   "with a row and no record that gives one",
		archive.Copies:    "with more than one row, all alike: ClickHouse makes them one when it merges",
	}[f.Kind]
	if f.Mended {
		mark, what = "ok ", "were without a row: sent"
	}
	if f.Kind == archive.Copies {
		mark = "-  "
	}
	where := fmt.Sprintf("offset %d", f.First)
	if f.Last > f.First {
		where = fmt.Sprintf("offsets %d to %d, %s of them", f.First, f.Last, grouped(f.Offsets))
	}
	fmt.Fprintf(b, "%s %s/%d %s: %s\n", mark, f.Topic, f.Partition, where, what)
	if f.Remedy != "" {
		fmt.Fprintf(b, "    %s\n", f.Remedy)
	}
}

func printChains(b *strings.Builder, c *clickhouse.Chains) {
	pending := 0
	for _, p := range c.Parts {
		if p.Pending {
			pending++
		}
	}
	if c.Count == 0 {
		fmt.Fprintf(b, "ok  numbers: %s of %s, n without a gap\n", counted(c.Outputs, "output"), counted(len(c.Parts), "partition"))
		fmt.Fprintf(b, "ok  chains: %s of %s, seq without a gap, every from the to of the one before\n", counted(c.Transitions, "transition"), counted(c.Users, "user"))
	}
	for _, v := range c.Violations {
		who := fmt.Sprintf("partition %d", v.Partition)
		if v.User != "" {
			who += fmt.Sprintf(", user %s, set %s", shown([]byte(v.User), 60), v.Set)
		}
		fmt.Fprintf(b, "!   %s: %s\n", who, v.What)
	}
	if more := c.Count - int64(len(c.Violations)); more > 0 {
		fmt.Fprintf(b, "!   and %s more broken chains or numbers\n", grouped(more))
	}
	if c.Late > 0 {
		fmt.Fprintf(b, "-   %s chains begin before the oldest rows that are left\n", grouped(c.Late))
	}
	if pending > 0 {
		fmt.Fprintf(b, "-   the last outputs of %s are not archived yet, and not checked\n", counted(pending, "partition"))
	}
}

func (r *auditReport) printVerdict(b *strings.Builder) {
	missing, mended, records := int64(0), int64(0), int64(0)
	for i := range r.Parts {
		records += r.Parts[i].Records + r.Parts[i].Rows
		missing, mended = missing+r.Parts[i].Missing, mended+r.Parts[i].Mended
	}
	switch {
	case r.Wrong > 0 && missing > 0 && !r.Mend:
		fmt.Fprintf(b, "\n%s wrong in %.1f s; footfall audit --mend sends what is missing\n", grouped(r.Wrong), r.Seconds)
	case r.Wrong > 0:
		fmt.Fprintf(b, "\n%s wrong in %.1f s; %s sent\n", grouped(r.Wrong), r.Seconds, counted(mended, "row"))
	case mended > 0:
		fmt.Fprintf(b, "\nall well again after %.1f s: %s sent\n", r.Seconds, counted(mended, "row"))
	case records == 0:
		fmt.Fprintf(b, "\nnothing to compare, in %.1f s\n", r.Seconds)
	default:
		fmt.Fprintf(b, "\nall well, in %.1f s\n", r.Seconds)
	}
}

// alignRight writes rows with their columns aligned: the first to the left, the others
// to the right, as numbers are read.
func alignRight(b *strings.Builder, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	for _, row := range rows {
		fmt.Fprintf(b, "%-*s", widths[0], row[0])
		for i := 1; i < len(row); i++ {
			fmt.Fprintf(b, "  %*s", widths[i], row[i])
		}
		b.WriteByte('\n')
	}
}

// grouped is a number with its thousands set apart: 1,234,567.
func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, text = "-", text[1:]
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return sign + text
}
