package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"
)

func newRun(g *global) *cobra.Command {
	var b brokersFlag
	var rebuild bool
	cmd := &cobra.Command{
		Use:     "run",
		GroupID: "engine",
		Short:   "Run the engine: events in, segment transitions out",
		Long: `Joins the consumer group, takes over partitions, and says every change of segment exactly
once on the trigger topic (or, with the reason, on the muted one). Start it again to scale
out: instances of one group share the partitions.

The first signal (Ctrl-C, SIGTERM) stops cleanly: what was applied is committed, a snapshot
is taken of every partition, and the group is left. A second one leaves at once; nothing is
lost or doubled by that either, the next start only takes longer.

SIGHUP reads the segment sets again (segments.* and shop.zone; everything else needs a
restart). New rules hold for everyone without a restart from scratch: shoppers are evaluated
behind live events, differences are muted (rules), and sets that ask for what was never kept
have it looked for first: in the log and, of what the log has no more, in ClickHouse. Rules
that are wrong change nothing, and the log says why. Send it to every instance of the group.

On http.listen (loopback unless told otherwise): /healthz, /readyz, /metrics, /status,
/explain, /forecast, and /debug/pprof to see where time and memory go (go tool pprof). Log
lines go to standard error.`,
		Example: `  footfall run --config footfall.yaml
  footfall run --brokers kafka-1:9092,kafka-2:9092 --set kafka.instance=eu-1
  FOOTFALL_KAFKA_BROKERS=kafka:9092 footfall run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.config(b.settings()...)
			if err != nil {
				return err
			}
			if _, err := c.rules(); err != nil {
				return err
			}
			log, err := newLogger(c)
			if err != nil {
				return err
			}
			asked, stop := hangups()
			defer stop()
			listener, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", c.HTTP.Listen)
			if err != nil {
				return fmt.Errorf("http.listen %s: %w; choose another address, or port 0 for any", c.HTTP.Listen, err)
			}
			if c.HTTP.Advertise == "" {
				c.HTTP.Advertise = reachable(listener.Addr().String())
			}
			e, err := newEngine(cmd.Context(), c, log, c.tempo(), rebuild)
			if err != nil && cmd.Context().Err() != nil {
				return listener.Close() // stopped while it started: there is nothing to drain
			}
			if err != nil {
				_ = listener.Close() // nobody was served
				return err
			}
			log.Info("running", zap.String("version", buildVersion()), zap.String("group", c.Kafka.Group),
				zap.String("http", listener.Addr().String()), zap.String("rules", fmt.Sprintf("%016x", e.rules().Hash())))
			if why := c.unguarded(); why != "" {
				log.Warn(why, zap.String("remedy", "set http.token_file, or listen on 127.0.0.1"))
			}
			all, ctx := errgroup.WithContext(cmd.Context())
			all.Go(func() error { return e.serve(ctx, listener) })
			all.Go(func() error { return e.run(ctx) })
			all.Go(func() error { paceGC(ctx); return nil })
			all.Go(func() error {
				e.reloadOn(ctx, asked, func() (*Config, error) { return g.config(b.settings()...) })
				return nil
			})
			if err := all.Wait(); err != nil {
				return err
			}
			log.Info("stopped: everything applied is committed")
			return nil
		},
	}
	b.add(cmd)
	cmd.Flags().BoolVar(&rebuild, "rebuild", false,
		"bring partitions without a usable snapshot back to life from what the topics still have; differences are muted")
	return cmd
}

// reachable is under which address others may reach one that is listened on. One of all
// interfaces ([::]:9464) is for nobody: on each machine it would be that machine's own
// instance that is asked.
func reachable(listened string) string {
	host, port, err := net.SplitHostPort(listened)
	if ip, errIP := netip.ParseAddr(host); err != nil || errIP != nil || !ip.IsUnspecified() {
		return listened
	}
	name, err := os.Hostname()
	if err != nil {
		return listened
	}
	return net.JoinHostPort(name, port)
}

// newLogger makes the log of a long-running command, on standard error.
func newLogger(c *Config) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(c.Log.Level)
	if err != nil {
		return nil, &usageError{fmt.Errorf("log.level: %w", err)}
	}
	format := c.Log.Format
	if format == "auto" {
		format = "json"
		if term.IsTerminal(int(os.Stderr.Fd())) {
			format = "console"
		}
	}
	conf := zap.NewProductionEncoderConfig()
	conf.EncodeTime, conf.TimeKey = zapcore.ISO8601TimeEncoder, "time"
	encoder := zapcore.NewJSONEncoder(conf)
	if format == "console" {
		encoder = zapcore.NewConsoleEncoder(conf)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stderr), level)), nil
}
