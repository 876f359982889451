package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"footfall": main})
}

// TestScripts runs every command as a user does, and compares what it prints with
// what the scripts say. To write new output into them: FOOTFALL_TEST_UPDATE=1 go test -run Scripts .
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       os.Getenv("FOOTFALL_TEST_UPDATE") != "",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}
