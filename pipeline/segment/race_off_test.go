//go:build !race

package segment

const raceSlower = 1
