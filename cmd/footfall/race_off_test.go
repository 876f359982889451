//go:build !race

package main

const raceSlower = 1
