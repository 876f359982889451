// Command footfall keeps every shopper's segments current from a storefront's
// clickstream, and says each change exactly once.
//
// This package reads flags, configuration, environment and the clock, wires the other
// packages together, and exits. Logic worth a unit test is not allowed here: it has a
// room of its own elsewhere.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	_ "footfall/cmd/footfall/quiet" // before anything asks the terminal
	"footfall/sinks/clickhouse/chdb"
)

// Exit codes. They are part of the interface: scripts rely on them.
const (
	exitOK          = 0
	exitFailed      = 1   // it was tried and failed, or something was refused
	exitUsage       = 2   // the command line or the configuration is wrong; nothing was tried
	exitInterrupted = 130 // a second signal: left at once
)

// usageError is a mistake in the command line or the configuration.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// errRefused says that a command did what it should, and that the answer is "no". What
// there is to say has been said.
var errRefused = errors.New("refused")

func main() {
	if code, ran := chdb.Helper(); ran {
		os.Exit(code)
	}
	os.Exit(execute(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// execute runs one command line and returns its exit code. The first signal cancels
// the command's context, which stops cleanly; a second one ends the process now.
func execute(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(exitInterrupted)
	}()

	began := false
	root := newRoot(&began)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errRefused):
		return exitFailed
	case errors.As(err, &usage) || !began:
		complain(stderr, err)
		return exitUsage
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	}
	complain(stderr, err)
	return exitFailed
}

// complain prints an error, one line for each of several.
func complain(to io.Writer, err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(to, "footfall: %s\n", line)
	}
}

// newRoot builds the tree of commands. began is set when a command line was understood
// and its command starts to run: errors before are mistakes of usage.
func newRoot(began *bool) *cobra.Command {
	g := &global{}
	root := &cobra.Command{
		Use:   "footfall",
		Short: "Shopper segments from a clickstream, exactly once and within milliseconds",
		Long: `footfall reads a storefront's clickstream from Kafka, keeps every shopper's recency,
frequency and monetary value in memory, and says on a Kafka topic, exactly once, when a
shopper moves from one segment to another: because of an event, or because of silence.
The same facts go to ClickHouse, for funnels and BI.

Five commands to begin with:
  footfall demo                 see all of it work, with nothing to install
  footfall validate FILE        which of these events would be refused, and why
  footfall topics create        make the topics right
  footfall check                is everything in reach and set up well; what to do if not
  footfall run                  run the engine

Settings come from a YAML file (--config, else ./footfall.yaml where there is one), then
the environment (FOOTFALL_KAFKA_BROKERS for kafka.brokers), then --set. "footfall config"
lists all of them with their explanations.

Exit codes: 0 done; 1 failed or refused; 2 the command line or the configuration is wrong.`,
		Example: `  footfall validate events.ndjson
  footfall run --config /etc/footfall.yaml
  footfall explain customer-4711
  footfall triggers pause --reason "campaign on hold"`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noSuchCommand,
		PersistentPreRun: func(*cobra.Command, []string) {
			*began = true
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVarP(&g.path, "config", "c", os.Getenv("FOOTFALL_CONFIG"), "configuration `file` (YAML)")
	root.PersistentFlags().StringArrayVar(&g.sets, "set", nil, "set one `key=value` of the configuration; repeatable")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
	})
	root.AddGroup(
		&cobra.Group{ID: "engine", Title: "Engine:"},
		&cobra.Group{ID: "rules", Title: "Segments:"},
		&cobra.Group{ID: "events", Title: "Events:"},
		&cobra.Group{ID: "operate", Title: "Operation:"},
	)
	root.SetHelpCommandGroupID("operate")
	root.SetCompletionCommandGroupID("operate")
	root.AddCommand(newCommands(g)...)
	// Of its own, cobra's command takes a shell that it does not know for a call for help.
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		completion.Args, completion.RunE = noSuchCommand, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	return root
}

// newCommands are the commands, one file each.
func newCommands(g *global) []*cobra.Command {
	return []*cobra.Command{
		newDemo(g),
		newRun(g),
		newBench(g),
		newExplain(g),
		newStatus(g),
		newRules(g),
		newTest(g),
		newPlan(g),
		newForecast(g),
		newVerify(g),
		newSimulate(g),
		newPublish(g),
		newValidate(g),
		newTopics(g),
		newTriggers(g),
		newDeadLetters(g),
		newSnapshot(g),
		newAudit(g),
		newParity(g),
		newCheck(g),
		newClickHouse(),
		newConfig(g),
		newVersion(),
	}
}

// global is what every command may be given.
type global struct {
	path string
	sets []string
}

// config reads the configuration for a command. Flags of the command that stand for
// keys come last and win.
func (g *global) config(flags ...setting) (*Config, error) {
	src := sources{path: g.path, env: os.Environ()}
	for _, s := range g.sets {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, &usageError{fmt.Errorf("--set %q: want KEY=VALUE, as in kafka.group=eu", s)}
		}
		src.flags = append(src.flags, setting{key: strings.TrimSpace(key), value: value, from: "--set"})
	}
	src.flags = append(src.flags, flags...)
	c, err := load(src)
	if err != nil {
		return nil, &usageError{err}
	}
	return c, nil
}

// noSuchCommand refuses what is not the name of a command below this one.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	return fmt.Errorf("unknown command %q%s (see %s --help)", args[0], suggest(args[0], names), cmd.CommandPath())
}

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments, got %q (see %[1]s --help)", cmd.CommandPath(), args[0])
	}
	return nil
}

// oneArg asks for exactly one argument.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s needs one %s, got %d (see %[1]s --help)", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}
