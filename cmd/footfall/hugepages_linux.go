package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"
)

// hugePages asks the kernel for pages of 2 MB where the heap is. Profiles are looked up all
// over it; with pages of 4 KB nearly every look first waits to be told where the page is. It
// is a hint: where the kernel gives no such pages (never in
// /sys/kernel/mm/transparent_hugepage/enabled), all stays as it is.
type hugePages struct {
	anchor *byte   // on the heap
	end    uintptr // what is before it has been asked for
}

const (
	hugePage     = 2 << 20
	madvHuge     = 14 // MADV_HUGEPAGE: what is touched from now on
	madvCollapse = 25 // MADV_COLLAPSE, since Linux 6.1: what was touched before
)

// ask looks where the heap is by now, and asks for what is new of it.
func (h *hugePages) ask() {
	if h.anchor == nil {
		h.anchor = new(byte)
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer func() { _ = maps.Close() }() // it was only read
	from, to := region(bufio.NewScanner(maps), uintptr(unsafe.Pointer(h.anchor)))
	from = (max(from, h.end) + hugePage - 1) &^ (hugePage - 1)
	to &^= hugePage - 1
	if from >= to {
		return
	}
	if _, _, failed := syscall.Syscall(syscall.SYS_MADVISE, from, to-from, madvHuge); failed != 0 {
		return
	}
	for at := from; at < to; at += hugePage { // one by one: nobody waits for more than one
		_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, at, hugePage, madvCollapse)
	}
	h.end = to
}

// region gives the mapped memory without a hole that has an address in it, of lines like
// "c000000000-c000400000 rw-p 00000000 00:00 0"; 0, 0: there is none.
func region(lines *bufio.Scanner, address uintptr) (from, to uintptr) {
	for lines.Scan() {
		var start, end uintptr
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x", &start, &end); err != nil || !strings.Contains(lines.Text(), " rw-p ") {
			continue
		}
		if start != to {
			if from <= address && address < to {
				return from, to
			}
			from = start
		}
		to = end
	}
	if from <= address && address < to {
		return from, to
	}
	return 0, 0
}
