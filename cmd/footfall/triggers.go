package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"
)

func newTriggers(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "triggers",
		GroupID: "operate",
		Short:   "The kill switch: pause or resume what is acted on",
		Long: `While triggers are paused everything goes on, but every transition goes to the muted
topic, with the reason "paused", and none to the trigger topic. Nothing is said later for
what was muted: a shopper's next transition is the next trigger.

The switch is a record in a compacted topic of its own (kafka.topics.control). All
instances read it, those that start later too; it stays until it is thrown again.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newSwitch(g, "pause", "Mute every transition from now on", `Throws the switch, and waits (--wait) for every running instance to say that it has seen
it. From then on transitions are muted; what is in the trigger topic already stays there.`, true),
		newSwitch(g, "resume", "Let transitions trigger again", `Throws the switch back, and waits (--wait) for every running instance to say that it has
seen it. What was muted meanwhile stays so.`, false),
		newSwitchShow(g),
	)
	return cmd
}

func newSwitch(g *global, name, short, long string, paused bool) *cobra.Command {
	var b brokersFlag
	var reason string
	var wait string
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Long:  long,
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			limit, err := parseDuration(wait)
			if err != nil {
				return &usageError{fmt.Errorf("--wait %w", err)}
			}
			c, err := g.config(b.settings()...)
			if err != nil {
				return err
			}
			s := control{Paused: paused, At: wall(), By: whoami(), Reason: reason}
			if err := throw(cmd.Context(), c, s); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: written to %s; it holds for every instance of %s, also for those that start later\n",
				state(paused), c.controlTopic(), c.Kafka.Group)
			return confirm(cmd.Context(), c, paused, limit, cmd.OutOrStdout())
		},
	}
	b.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who find it so")
	cmd.Flags().StringVar(&wait, "wait", "10s", "how long to wait for running instances to confirm, a `duration`")
	return cmd
}

func newSwitchShow(g *global) *cobra.Command {
	var b brokersFlag
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show how the switch stands, since when, and why",
		Long: `Reads the switch from its topic: whether triggers run or are paused, since when, by whom,
and the reason that was given. It needs no running instance.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.config(b.settings()...)
			if err != nil {
				return err
			}
			s, err := readControl(cmd.Context(), c)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if s.At == 0 {
				fmt.Fprintln(out, "running: never paused")
				return nil
			}
			fmt.Fprintf(out, "%s since %s, by %s", state(s.Paused), clock(s.At), shown([]byte(s.By), 100))
			if s.Reason != "" {
				fmt.Fprintf(out, ": %s", shown([]byte(s.Reason), 500))
			}
			fmt.Fprintln(out)
			return nil
		},
	}
	b.add(cmd)
	return cmd
}

func state(paused bool) string {
	if paused {
		return "paused"
	}
	return "running"
}

// confirm asks the instances until all say that the switch stands so. That one can't be
// asked is no failure: the switch is in the topic.
func confirm(ctx context.Context, c *Config, paused bool, wait time.Duration, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	told := "no answer in time; the instances read the switch all the same"
	for {
		answers, unreachable, members, err := askAll(ctx, c)
		if ctx.Err() != nil {
			fmt.Fprintln(out, told)
			return nil
		}
		if err != nil {
			return err
		}
		agreed, all := 0, len(answers)+len(unreachable)
		for _, a := range answers {
			if a.Paused == paused {
				agreed++
			}
		}
		switch {
		case members == 0:
			fmt.Fprintln(out, "no instance is running")
			return nil
		case agreed == all && members > all:
			fmt.Fprintf(out, "confirmed by %d of %s; the rest have committed no address of their own (no partition yet, or see http.advertise), and read the switch all the same\n",
				agreed, counted(members, "instance"))
			return nil
		case agreed == all && all == 1:
			fmt.Fprintln(out, "confirmed by the running instance")
			return nil
		case agreed == all:
			fmt.Fprintf(out, "confirmed by all %d running instances\n", agreed)
			return nil
		}
		told = fmt.Sprintf("confirmed by %d of %s", agreed, counted(all, "instance"))
		for _, err := range unreachable {
			told += "\n  " + err.Error()
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// whoami is user@host, for the record.
func whoami() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name + "@" + host
}
