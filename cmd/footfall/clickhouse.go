package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"footfall/sinks/clickhouse/chdb"
)

func newClickHouse() *cobra.Command {
	var listen, dir, user string
	cmd := &cobra.Command{
		Use:     "clickhouse",
		GroupID: "engine",
		Short:   "Run the embedded ClickHouse alone",
		Long: `Serves the real ClickHouse engine over ClickHouse's HTTP interface, for curl, clickhouse-go
and BI tools, on tables in --dir: those that a demo kept, or new ones. The engine is got
once, by npm, and kept in $FOOTFALL_CACHE or the user's cache.

It has one user and no access control beyond a password, which comes from the variable
FOOTFALL_CLICKHOUSE_PASSWORD; an address that other machines can reach needs one.`,
		Example: `  footfall clickhouse --dir ./footfall-data/clickhouse
  curl 'http://127.0.0.1:8123/?query=SELECT+version()'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			library, err := fetchEngine(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return chdb.Serve(cmd.Context(), chdb.Options{
				Library: library, Dir: dir, Addr: listen, User: user, Password: os.Getenv(variable("clickhouse.password")),
				Ready: func(r chdb.Ready) {
					fmt.Fprintf(cmd.OutOrStdout(), "ClickHouse %s answers at http://%s, tables in %s; Ctrl-C ends it\n", r.Version, r.Address, dir)
				},
			})
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8123", "`address` to answer on; port 0 for any free one")
	cmd.Flags().StringVar(&dir, "dir", "footfall-data/clickhouse", "`folder` of the tables")
	cmd.Flags().StringVar(&user, "user", "default", "the user's name")
	return cmd
}

// fetchEngine gets the engine's library, with progress on a terminal and single lines
// elsewhere: the first time it takes minutes.
func fetchEngine(ctx context.Context, to io.Writer) (string, error) {
	var bar *progressbar.ProgressBar
	stage := ""
	f, ok := to.(*os.File)
	terminal := ok && isatty.IsTerminal(f.Fd())
	path, err := chdb.Fetch(ctx, func(p chdb.Progress) {
		if p.Stage != stage {
			stage = p.Stage
			what := map[string]string{"download": "getting the ClickHouse engine", "unpack": "unpacking it", "wait": "another process is getting the ClickHouse engine"}[stage]
			if !terminal {
				fmt.Fprintf(to, "%s (%d MB)\n", what, p.Total>>20)
				return
			}
			bar = progressbar.NewOptions64(p.Total, progressbar.OptionSetWriter(to), progressbar.OptionSetDescription(what),
				progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
		}
		if bar != nil {
			_ = bar.Set64(min(p.Done, p.Total)) // a bar that can't be drawn is no reason to stop
		}
	})
	if bar != nil {
		_ = bar.Finish()
	}
	return path, err
}
