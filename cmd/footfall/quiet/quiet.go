// Package quiet keeps the terminal from being asked for its background. It may do
// nothing else.
//
// Bubble Tea asks when it is initialised, so every command of a program that links it
// writes an escape sequence to its terminal and waits for the answer: five seconds where
// none comes, as from script(1), from many CI systems, and from containers with -t.
// (Bubble Tea 2 no longer does.) Nothing of ours depends on the background's colour.
//
// It works by the order of initialisation that the language specifies: of the packages
// whose imports are initialised, the first by import path is next. Once Lip Gloss is,
// this path comes before Bubble Tea's.
package quiet

import "github.com/charmbracelet/lipgloss"

var _ = told()

// told says what the background is, so that nobody asks.
func told() bool {
	lipgloss.SetHasDarkBackground(true)
	return true
}
