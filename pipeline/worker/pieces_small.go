//go:build smallpieces

package worker

const longSeq = 3
