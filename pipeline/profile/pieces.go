//go:build !smallpieces

package profile

// The sizes of pieces and numbers. With the build tag smallpieces they are so small that a
// simulation with a few users crosses them, and costs no megabytes to set up.
const (
	slabRows   = 4096      // rows a piece of a slab holds
	arenaBlock = 1 << 20   // bytes a piece of the arena holds; no id crosses pieces
	packedMost = 1<<16 - 1 // the greatest count that is packed
)
