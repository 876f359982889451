package main

import (
	_ "embed"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

//go:embed CHANGELOG.md
var changelog string

// version is the release, set by the linker (-ldflags "-X main.version=1.2.3").
var version string

func newVersion() *cobra.Command {
	var changes bool
	cmd := &cobra.Command{
		Use:     "version",
		GroupID: "operate",
		Short:   "Print the version, or what has changed",
		Long: `Prints the version, and what it was built with and for. With --changes it prints the
changelog, which is in the binary: what to know before an upgrade.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if changes {
				_, err := io.WriteString(cmd.OutOrStdout(), changelog)
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), buildVersion())
			return err
		},
	}
	cmd.Flags().BoolVar(&changes, "changes", false, "print the changelog")
	return cmd
}

// buildVersion tells release, commit and compiler, as far as the build knows them.
func buildVersion() string {
	release, commit := version, ""
	info, ok := debug.ReadBuildInfo()
	if ok {
		dirty := ""
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = "+changes"
			}
		}
		if len(commit) > 12 {
			commit = commit[:12]
		}
		commit += dirty
	}
	if release == "" {
		release = "development"
	}
	if commit != "" {
		release += " (" + commit + ")"
	}
	return fmt.Sprintf("footfall %s, %s %s/%s", release, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
