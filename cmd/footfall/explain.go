package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"footfall/schemas"
	"footfall/sources/kafka"
)

func newExplain(g *global) *cobra.Command {
	var b brokersFlag
	var output, address string
	find := evidence{}
	cmd := &cobra.Command{
		Use:     "explain USER",
		GroupID: "operate",
		Short:   "Why a user is in its segments, and until when",
		Long: `Asks the running instance that owns the user: which segment of each set, by which rule,
since when, what happens next and when, if nothing else does, and what the user could do
now to get elsewhere. The owner is found by the user's partition (murmur2 of the id) and the
address in that partition's last offset commit. http.token, where the instance has one, is
read from this configuration too.

The event behind each condition is looked up in ClickHouse or, where that can't be asked or
does not have all of the user's events, among the last records of the user's partition.`,
		Example: `  footfall explain customer-4711
  footfall explain customer-4711 --events log --log-records 1000000
  footfall explain customer-4711 --output json`,
		Args: oneArg("user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(oneOf("output", output, "text", "json"), oneOf("events", find.from, "auto", "clickhouse", "log", "none")); err != nil {
				return err
			}
			switch {
			case args[0] == "":
				return &usageError{errors.New("the user's id is empty; whose segments are to be explained?")}
			case find.records < 1:
				return &usageError{fmt.Errorf("--log-records %d: want 1 or more; for no events there is --events none", find.records)}
			}
			c, err := g.config(b.settings()...)
			if err != nil {
				return err
			}
			owner := address
			if owner == "" {
				if owner, err = ownerOf(cmd, c, args[0]); err != nil {
					return err
				}
			}
			var a ExplainAnswer
			err = ask(cmd.Context(), c, owner, "/explain", url.Values{"user": {args[0]}}, &a)
			var refused *answerError
			switch {
			case errors.As(err, &refused) && refused.code == http.StatusMisdirectedRequest:
				return fmt.Errorf("%w; its partition is moving to another instance, try again in some seconds", err)
			case err != nil:
				return err
			}
			find.c, find.a = c, &a
			if err := find.add(cmd.Context()); err != nil {
				return err
			}
			if output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(a)
			}
			return printExplain(cmd.OutOrStdout(), &a)
		},
	}
	b.add(cmd)
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	cmd.Flags().StringVar(&find.from, "events", "auto", "where to look for the events behind conditions: clickhouse, log, none, or auto")
	cmd.Flags().IntVar(&find.records, "log-records", 200_000, "how many `records` of the partition to look through, at most")
	cmd.Flags().StringVar(&address, "instance", "", "ask the instance at this `address` instead of looking for the owner")
	return cmd
}

// ownerOf is the address of the instance that last committed for the user's partition.
func ownerOf(cmd *cobra.Command, c *Config, user string) (string, error) {
	ctx := cmd.Context()
	cl, err := c.connect(ctx)
	if err != nil {
		return "", err
	}
	defer cl.Close()
	if err := c.allowed(ctx, cl, c.lookNeeds()); err != nil {
		return "", err
	}
	n, err := partitions(ctx, cl, c.Kafka.Topics.Events)
	if err != nil {
		return "", err
	}
	committed, err := marks(ctx, c, cl)
	if err != nil {
		return "", err
	}
	p := kafka.PartitionOf([]byte(user), int32(n))
	m, ok := committed[p]
	switch {
	case !ok:
		return "", fmt.Errorf("%s belongs to partition %d of %s, for which group %s has committed nothing yet; is footfall running?",
			user, p, c.Kafka.Topics.Events, c.Kafka.Group)
	case m.Address == "":
		return "", fmt.Errorf("partition %d was last committed by an instance without an address; set http.advertise there", p)
	}
	return m.Address, nil
}

func printExplain(to io.Writer, a *ExplainAnswer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  (partition %d, where it is %s)\n", a.User, a.Partition, clock(schemas.Millis(a.Clock)))
	for _, s := range a.Sets {
		fmt.Fprintf(&b, "\n  %s: %s\n", s.Set, s.Segment)
		s.printBecause(&b)
		if s.Since != 0 {
			fmt.Fprintf(&b, "    since    %s (%s), transition %d%s\n", clock(schemas.Millis(s.Since)), about(a.Clock-s.Since)+" ago", s.Seq, s.Came.words())
		}
		if s.Next != nil {
			fmt.Fprintf(&b, "    next     %s at %s (in %s), if nothing else happens\n", s.Next.Segment, clock(schemas.Millis(s.Next.At)), about(s.Next.At-a.Clock))
		} else {
			fmt.Fprintf(&b, "    next     nothing, until the user does something\n")
		}
		for i, w := range s.Would {
			amount := ""
			if w.Amount != "" {
				amount = " of " + w.Amount + " or more"
			}
			fmt.Fprintf(&b, "    %-8s %s%s leads to %s\n", []string{"would", ""}[min(i, 1)], w.Event, amount, w.Segment)
		}
	}
	fmt.Fprintf(&b, "\n  orders   %d\n  revenue  %s %s, net of refunds\n", a.Orders, a.Revenue, a.Currency)
	for _, m := range []struct {
		name string
		at   Moment
	}{{"first seen", a.First}, {"last seen", a.Last}, {"first bought", a.FirstPurchase}, {"last bought", a.LastPurchase}} {
		if m.at != 0 {
			fmt.Fprintf(&b, "  %-12s  %s (%s ago)\n", m.name, clock(schemas.Millis(m.at)), about(a.Clock-m.at))
		}
	}
	fmt.Fprintf(&b, "  events        %s\n", kindsText(a.Events))
	if a.Note != "" {
		fmt.Fprintf(&b, "\n  %s\n", a.Note)
	}
	_, err := io.WriteString(to, b.String())
	return err
}

// printBecause writes the rule's conditions, and why none before it holds, each with the
// events behind it that were not shown already.
func (s *ExplainSet) printBecause(b *strings.Builder) {
	head := "because"
	line := func(text string) {
		fmt.Fprintf(b, "    %-8s %s\n", head, text)
		head = ""
	}
	shown := map[string]bool{}
	events := func(all []ExplainEvent) {
		for i := range all {
			if words := all[i].words(); !shown[words] {
				shown[words] = true
				line("  " + words)
			}
		}
	}
	if len(s.Clauses) == 0 {
		line(s.Rule)
	}
	for _, c := range s.Clauses {
		if c.Holds {
			line(fmt.Sprintf("%s (%s)", c.Clause, c.Value))
			events(c.Events)
		}
	}
	for _, n := range s.Not {
		line(fmt.Sprintf("not %s: %s", n.Segment, n.Because))
		events(n.Events)
	}
}

// words is an event on one line.
func (ev *ExplainEvent) words() string {
	which := ""
	if ev.Count > 1 && ev.Newest {
		which = fmt.Sprintf(", the newest of %d", ev.Count)
	}
	if ev.Text != "" {
		which += fmt.Sprintf(", where it is %q", ev.Text)
	}
	return fmt.Sprintf("%s: %s %s at %s (%s/%d offset %d)%s", ev.Of, ev.Type, ev.EventID, clock(schemas.Millis(ev.Time)), ev.Topic, ev.Partition, ev.Offset, which)
}

// quantity is what a clause looked at, for people: how long ago is in seconds.
func quantity(clause, value string) string {
	seconds, err := strconv.ParseInt(value, 10, 32)
	if err != nil || !strings.HasPrefix(clause, "since(") {
		return value
	}
	return about(Moment(seconds) * Moment(schemas.Second))
}

// words says how the user came, as the end of a line.
func (c *ExplainCame) words() string {
	if c == nil {
		return ""
	}
	text := ""
	if c.From != "" {
		text = ", from " + c.From
	}
	switch {
	case c.EventID != "":
		text += fmt.Sprintf(", by %s %s (%s/%d offset %d)", c.Type, c.EventID, c.Topic, c.Partition, c.Offset)
	case c.Cause == "timer":
		text += ", by silence"
	default:
		text += ", by " + c.Cause
	}
	if c.Clause != "" {
		text += fmt.Sprintf(": %s (%s, before %s)", c.Clause, quantity(c.Clause, c.Is), quantity(c.Clause, c.Was))
	}
	return text
}

// about is a span in its two greatest units.
func about(d Moment) string {
	span := time.Duration(max(d, 0)) * time.Millisecond
	units := durationUnits()
	for i, u := range units {
		if span >= u.span {
			finer := max(units[min(i+1, len(units)-1)].span, min(u.span, time.Second))
			return formatDuration(span.Truncate(finer))
		}
	}
	return "0s"
}
