//go:build race

package worker

// raceSlower is how many times fewer seeds properties are held on under the race
// detector, which makes everything about eight times slower: the detector looks for races, of which
// one goroutine has none.
const raceSlower = 5
