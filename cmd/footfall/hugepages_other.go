//go:build !linux

package main

// hugePages does nothing where the kernel isn't Linux.
type hugePages struct{}

func (*hugePages) ask() {}
