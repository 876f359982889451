package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/charmbracelet/lipgloss"
)

// The sets in the demo's live view: bars for one of them, a line for each other.
const (
	barsMax     = 6 // segments that have a bar: the lifecycle's
	setLinesMax = 12
	setLinesFew = 3 // where the terminal has 24 lines
)

// barred is the set whose segments have bars: lifecycle, or else the first.
func (v *demoView) barred() int {
	for i := range v.now.sets {
		if v.now.sets[i].Set == lifecycleSet {
			return i
		}
	}
	return 0
}

// setLines is how many lines the other sets take.
func (v *demoView) setLines() int {
	most := setLinesMax
	if v.height < 2*viewLines {
		most = setLinesFew
	}
	return min(len(v.now.sets)-1, most)
}

// segments draws who is where.
func (v *demoView) segments(b *strings.Builder, bold, dim lipgloss.Style) {
	if len(v.now.sets) == 0 {
		return
	}
	barred := v.barred()
	set := v.now.sets[barred]
	title := grouped(int64(v.now.users)) + " users, by segment"
	if len(v.now.sets) > 1 || set.Set != lifecycleSet {
		title += " of " + set.Set
	}
	fmt.Fprintf(b, "%s\n", bold.Render(title))
	v.bars(b, set.Segments)
	lines := v.setLines()
	for i, other := range v.now.sets {
		if i == barred {
			continue
		}
		if lines--; lines < 0 {
			break
		}
		rest := ""
		if hidden := len(v.now.sets) - 1 - v.setLines(); lines == 0 && hidden > 0 {
			rest = fmt.Sprintf("  (and %d more sets)", hidden)
		}
		b.WriteString(dim.Render(cut(setLine(&other), max(v.width, 40)-len(rest))+rest) + "\n")
	}
	b.WriteString("\n")
}

// bars draws the segments of a set, the fullest where there are too many.
func (v *demoView) bars(b *strings.Builder, segments []SegmentStatus) {
	if len(segments) > barsMax {
		segments = slices.Clone(segments)
		slices.SortStableFunc(segments, func(a, b SegmentStatus) int { return cmp.Compare(b.Users, a.Users) })
		segments = segments[:barsMax]
	}
	most, widest := int64(1), 9
	for _, s := range segments {
		most, widest = max(most, s.Users), max(widest, len(s.Segment))
	}
	colours := []string{"1", "5", "6", "2", "3", "4"}
	room := max(10, min(v.width, 100)-widest-19)
	for i, s := range segments {
		bar := strings.Repeat("█", int(s.Users)*room/int(most))
		fmt.Fprintf(b, "  %-*s %9s  %s\n", widest, s.Segment, grouped(s.Users), lipgloss.NewStyle().Foreground(lipgloss.Color(colours[i%len(colours)])).Render(bar))
	}
}

// setLine is a set's population on one line.
func setLine(set *SetStatus) string {
	var parts []string
	for _, s := range set.Segments {
		if s.Users > 0 {
			parts = append(parts, s.Segment+" "+grouped(s.Users))
		}
	}
	if len(parts) == 0 {
		parts = []string{"says nothing yet"}
	}
	return fmt.Sprintf("  %-12s %s", set.Set, strings.Join(parts, ", "))
}

// cut leaves so many letters of a line.
func cut(line string, width int) string {
	if len(line) <= width {
		return line
	}
	return line[:max(0, width-3)] + "..."
}
