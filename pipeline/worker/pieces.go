//go:build !smallpieces

package worker

// longSeq is the seq from which on it stands beside its member. With the build tag
// smallpieces it is one that a simulation reaches.
const longSeq = 1<<16 - 1
