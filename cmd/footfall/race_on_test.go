//go:build race

package main

// raceSlower is how many times less the end-to-end tests publish under the race
// detector, which makes everything about ten times slower: they look for races then,
// and for what is lost elsewhere.
const raceSlower = 10
