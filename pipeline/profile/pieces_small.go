//go:build smallpieces

package profile

const (
	slabRows   = 4
	arenaBlock = 64 // an id that is longer has a piece of its own
)
