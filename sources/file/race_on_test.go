//go:build race

package file

// raced says that the race detector is on, which multiplies the memory and the time of
// everything: what measures memory is skipped then, and has one goroutine anyway.
const raced = true
