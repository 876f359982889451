package main

import (
	"bufio"
	"strings"
	"testing"
)

func TestRegion(t *testing.T) {
	const maps = `00400000-004ac000 r-xp 00000000 fe:00 10018996                           /usr/bin/footfall
0058f000-00590000 rw-p 00000000 00:00 0
2d48f8000000-2d48f9c00000 ---p 00000000 00:00 0
2d48f9c00000-2d4906c00000 rw-p 00000000 00:00 0
2d4906c00000-2d4908c00000 rw-p 00000000 00:00 0
2d4908c00000-2d490a000000 ---p 00000000 00:00 0
7f23e8000000-7f23e8100000 rw-p 00000000 00:00 0
`
	for _, c := range []struct {
		name              string
		address, from, to uintptr
	}{
		{"in the first of two that touch", 0x2d48f9c00008, 0x2d48f9c00000, 0x2d4908c00000},
		{"in the second", 0x2d4906c00000, 0x2d48f9c00000, 0x2d4908c00000},
		{"in the last", 0x7f23e80fffff, 0x7f23e8000000, 0x7f23e8100000},
		{"of code", 0x400008, 0, 0},
		{"reserved only", 0x2d48f8000000, 0, 0},
		{"nowhere", 0x1000, 0, 0},
	} {
		if from, to := region(bufio.NewScanner(strings.NewReader(maps)), c.address); from != c.from || to != c.to {
			t.Errorf("%s: got %x-%x, want %x-%x", c.name, from, to, c.from, c.to)
		}
	}
}

// It finds the heap of this process, and asking again for what has been asked for does nothing.
func TestAskForHugePages(t *testing.T) {
	var h hugePages
	h.ask()
	if h.end == 0 {
		t.Skip("the kernel gives no large pages, or the heap is too small for one")
	}
	end := h.end
	h.ask()
	if h.end < end {
		t.Errorf("asked up to %x, and then up to %x", end, h.end)
	}
}
