package main

import (
	"bytes"
	"regexp"
	"testing"

	"github.com/spf13/cobra"
)

// Every command says what it does in a line and at length, shows how it is called where
// it takes arguments, and stands in the help of the one above it.
func TestHelpTeaches(t *testing.T) {
	var began bool
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		var help bytes.Buffer
		cmd.SetOut(&help)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		if cmd.Short == "" || cmd.Long == "" {
			t.Errorf("%s: got Short %q and Long %q, want both", cmd.CommandPath(), cmd.Short, cmd.Long)
		}
		if cmd.Use != cmd.Name() && !cmd.HasExample() {
			t.Errorf("%s: there is no example of its arguments", cmd.UseLine())
		}
		for _, below := range cmd.Commands() {
			line := regexp.MustCompile(`(?m)^  ` + below.Name() + ` +` + regexp.QuoteMeta(below.Short) + `$`)
			if !line.Match(help.Bytes()) {
				t.Errorf("%s --help does not list %s:\n%s", cmd.CommandPath(), below.Name(), &help)
			}
			visit(below)
		}
	}
	visit(newRoot(&began))
}
