//go:build !race

package worker

const raceSlower = 1
