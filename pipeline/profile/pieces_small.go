//go:build smallpieces

package profile

const (
	slabRows   = 4
	arenaBlock = 64 // a group of ids that is longer has a piece of its own
	packedMost = 5
)
