package main

import (
	"strings"
	"testing"

	"github.com/charmbracelet/lipgloss"
)

// The live view shows every set's population, and fits a terminal of 24 lines however
// many sets there are.
func TestDemoSets(t *testing.T) {
	lifecycle := SetStatus{Set: lifecycleSet, Segments: []SegmentStatus{{"lost", 1}, {"dormant", 2}, {"new", 3}, {"active", 4}, {"cooling", 5}, {"prospect", 1000}}}
	vip := SetStatus{Set: "vip", Segments: []SegmentStatus{{"slipping", 0}, {"vip", 12}, {"others", 1003}}}
	silent := SetStatus{Set: "rfm", Segments: []SegmentStatus{{"champions", 0}}}
	for _, c := range []struct {
		sets   []SetStatus
		height int
		lines  int
		want   []string
	}{
		{[]SetStatus{lifecycle}, 24, 7, []string{"0 users, by segment\n", "prospect      1,000"}},
		{[]SetStatus{vip, lifecycle}, 24, 8, []string{"by segment of lifecycle\n", "vip          vip 12, others 1,003"}},
		{[]SetStatus{vip}, 24, 4, []string{"by segment of vip\n", "slipping          0", "others        1,003"}},
		{[]SetStatus{vip, lifecycle, silent, vip, vip, vip}, 24, 10, []string{"says nothing yet", "(and 2 more sets)"}},
		{[]SetStatus{vip, lifecycle, silent, vip, vip, vip}, 60, 12, []string{"says nothing yet"}},
	} {
		v := &demoView{now: demoSample{sets: c.sets}, width: 80, height: c.height}
		var b strings.Builder
		v.segments(&b, lipgloss.NewStyle(), lipgloss.NewStyle())
		got := strings.TrimRight(b.String(), "\n")
		if n := strings.Count(got, "\n") + 1; n != c.lines {
			t.Errorf("got %d lines, want %d:\n%s", n, c.lines, got)
		}
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("want %q in:\n%s", want, got)
			}
		}
		for line := range strings.Lines(got) {
			if len([]rune(line)) > 81 {
				t.Errorf("longer than the terminal: %q", line)
			}
		}
	}
}
