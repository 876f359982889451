package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"footfall/schemas"
	"footfall/sources/kafka"
)

func newExplain(g *global) *cobra.Command {
	var b brokersFlag
	var output, address string
	cmd := &cobra.Command{
		Use:     "explain USER",
		GroupID: "operate",
		Short:   "Why a user is in its segments, and until when",
		Long: `Asks the running instance that owns the user: which segment of each set, by which rule,
since when, and what happens next and when, if nothing else does. The owner is found by
the user's partition (murmur2 of the id) and the address in that partition's last offset
commit. http.token, where the instance has one, is read from this configuration too.`,
		Example: `  footfall explain customer-4711
  footfall explain customer-4711 --output json`,
		Args: oneArg("user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
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
			case output == "json":
				return json.NewEncoder(cmd.OutOrStdout()).Encode(a)
			}
			return printExplain(cmd.OutOrStdout(), &a)
		},
	}
	b.add(cmd)
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
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
		fmt.Fprintf(&b, "    because  %s\n", s.Rule)
		for _, n := range s.Not {
			fmt.Fprintf(&b, "             not %s: %s\n", n.Segment, n.Because)
		}
		if s.Since != 0 {
			fmt.Fprintf(&b, "    since    %s (%s), transition %d\n", clock(schemas.Millis(s.Since)), about(a.Clock-s.Since)+" ago", s.Seq)
		}
		if s.Next != nil {
			fmt.Fprintf(&b, "    next     %s at %s (in %s), if nothing else happens\n", s.Next.Segment, clock(schemas.Millis(s.Next.At)), about(s.Next.At-a.Clock))
		} else {
			fmt.Fprintf(&b, "    next     nothing, until the user does something\n")
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
	var kinds []string
	for kind := range schemas.Kinds {
		if n := a.Events[kind.String()]; n > 0 {
			kinds = append(kinds, fmt.Sprintf("%d %s", n, kind))
		}
	}
	fmt.Fprintf(&b, "  events        %s\n", strings.Join(kinds, ", "))
	_, err := io.WriteString(to, b.String())
	return err
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
