package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"footfall/schemas"
)

func newStatus(g *global) *cobra.Command {
	var b brokersFlag
	var output string
	cmd := &cobra.Command{
		Use:     "status",
		GroupID: "operate",
		Short:   "Owners, lag, clocks, snapshots and rates of all partitions",
		Long: `Reads what the group has committed, and asks every running instance. What an instance
can't be asked for is told from its commits alone.

Exit code 1 when a partition has no owner or is still recovering, or an instance doesn't
answer.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
			}
			c, err := g.config(b.settings()...)
			if err != nil {
				return err
			}
			s, err := readStatus(cmd.Context(), c)
			if err != nil {
				return err
			}
			if output == "json" {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(s)
			} else {
				err = s.print(cmd.OutOrStdout())
			}
			if err == nil && !s.healthy() {
				return errRefused
			}
			return err
		},
	}
	b.add(cmd)
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	return cmd
}

// groupStatus is the whole group: what was committed, and what the instances say.
type groupStatus struct {
	Group       string            `json:"group"`
	Topic       string            `json:"topic"`
	Members     int               `json:"members"`
	Paused      bool              `json:"paused"`
	Partitions  []committedStatus `json:"partitions"`
	Instances   []StatusAnswer    `json:"instances"`
	Unreachable []string          `json:"unreachable"`
}

// committedStatus is a partition as its last commit has it.
type committedStatus struct {
	Partition int32            `json:"partition"`
	Committed int64            `json:"committed"` // -1: nothing
	End       int64            `json:"end"`
	Lag       int64            `json:"lag"`
	Clock     Moment           `json:"clock"`
	N         uint64           `json:"n"`
	Address   string           `json:"address"`
	Owner     *PartitionStatus `json:"owner"` // null: no instance says that it has it
}

func readStatus(ctx context.Context, c *Config) (*groupStatus, error) {
	cl, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	if err := c.allowed(ctx, cl, c.lookNeeds()); err != nil {
		return nil, err
	}
	topic := c.Kafka.Topics.Events
	n, err := partitions(ctx, cl, topic)
	if err != nil {
		return nil, err
	}
	committed, err := marks(ctx, c, cl)
	if err != nil {
		return nil, err
	}
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("kafka: end of topic %s: %w", topic, err)
	}
	starts, err := topicStarts(ctx, cl, topic)
	if err != nil {
		return nil, err
	}
	s := &groupStatus{Group: c.Kafka.Group, Topic: topic, Unreachable: []string{}}
	if s.Members, err = memberCount(ctx, c, cl); err != nil {
		return nil, err
	}
	if switched, err := readControl(ctx, c); err == nil {
		s.Paused = switched.Paused
	} else {
		s.Unreachable = append(s.Unreachable, err.Error())
	}
	answers, unreachable, _, err := askAll(ctx, c)
	if err != nil {
		return nil, err
	}
	s.Instances = answers
	for _, err := range unreachable {
		s.Unreachable = append(s.Unreachable, err.Error())
	}
	for p := range int32(n) {
		end, _ := ends.Lookup(topic, p)
		row := committedStatus{Partition: p, Committed: -1, End: end.Offset, Lag: end.Offset - starts[p]}
		if m, ok := committed[p]; ok {
			row.Committed, row.Clock, row.N, row.Address = m.Next, Moment(m.Clock), m.N, m.Address
			row.Lag = max(0, end.Offset-m.Next)
		}
		row.Owner = s.owner(p)
		s.Partitions = append(s.Partitions, row)
	}
	return s, nil
}

func (s *groupStatus) owner(partition int32) *PartitionStatus {
	for i := range s.Instances {
		for j := range s.Instances[i].Partitions {
			if p := &s.Instances[i].Partitions[j]; p.Partition == partition {
				return p
			}
		}
	}
	return nil
}

func (s *groupStatus) healthy() bool {
	return len(s.Unreachable) == 0 && !slices.ContainsFunc(s.Partitions, func(p committedStatus) bool {
		return p.Owner == nil || p.Owner.State != "live"
	})
}

func (s *groupStatus) print(to io.Writer) error {
	fmt.Fprintf(to, "group %s on topic %s: %s, triggers %s\n\n", s.Group, s.Topic, counted(s.Members, "member"), state(s.Paused))
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PARTITION\tOWNER\tSTATE\tLAG\tCLOCK\tUSERS\tEVENTS/S\tOUTPUTS\tSNAPSHOT")
	for _, p := range s.Partitions {
		row := []any{p.Partition, "none", "-", p.Lag, "-", "-", "-", p.N, "-"}
		if p.Clock != 0 {
			row[4] = clock(schemas.Millis(p.Clock))
		}
		if o := p.Owner; o != nil {
			row[1], row[2], row[5], row[6], row[7] = p.Address, o.state(), o.Users, fmt.Sprintf("%.0f", o.PerSecond), o.N
			if lag := o.lag(); lag >= 0 {
				row[3] = lag
			}
			if o.Clock != 0 {
				row[4] = clock(schemas.Millis(o.Clock))
			}
			if o.Snapshot != nil {
				row[8] = about(s.now(p.Partition)-o.Snapshot.At) + " old"
			}
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\t%v\t%s\t%d\t%s\n", row...)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	s.printSegments(to)
	for _, a := range s.Instances {
		if a.Archive != nil {
			printArchive(to, a.Instance, a.Archive)
		}
	}
	for _, u := range s.Unreachable {
		fmt.Fprintf(to, "! %s\n", u)
	}
	return nil
}

// state says also how far a change of rules has come.
func (p *PartitionStatus) state() string {
	switch {
	case p.State != "live" || !p.Reviewing:
		return p.State
	case p.Filling:
		return "live, history of new sets is looked for"
	}
	return fmt.Sprintf("live, %.0f %% under new rules", 100*p.Reviewed)
}

func printArchive(to io.Writer, instance string, a *ArchiveStatus) {
	fmt.Fprintf(to, "archive at %s: %s sent since it began", instance, counted(a.Rows, "row"))
	if a.Lag >= 0 {
		fmt.Fprintf(to, ", %s behind", counted(a.Lag, "record"))
	}
	if a.Last != 0 {
		fmt.Fprintf(to, ", the last batch %s ago", about(Moment(wall())-a.Last))
	}
	if a.Err != "" {
		fmt.Fprintf(to, "; held up: %s", a.Err)
	}
	fmt.Fprintln(to)
	if u := &a.Audit; u.Oldest != 0 {
		fmt.Fprintf(to, "  audit: %s compared, %s differed, %s sent again; every span was compared in the last %s\n",
			counted(u.Spans, "span"), grouped(u.Wrong), counted(u.Mended, "row"), about(Moment(wall())-u.Oldest))
	}
	if n := a.Audit.Surplus; n > 0 {
		fmt.Fprintf(to, "! ClickHouse has rows too many in %s; footfall audit names them, and what to do\n", counted(n, "span"))
	}
}

// now is the wall of the instance that owns a partition.
func (s *groupStatus) now(partition int32) Moment {
	for _, a := range s.Instances {
		if slices.ContainsFunc(a.Partitions, func(p PartitionStatus) bool { return p.Partition == partition }) {
			return a.Now
		}
	}
	return 0
}

// population sums the users of each segment of each set over all instances, in the order
// in which the first of them has them.
func (s *groupStatus) population() (total []SetStatus) {
	for _, a := range s.Instances {
		for _, p := range a.Partitions {
			for _, set := range p.Sets {
				i := slices.IndexFunc(total, func(t SetStatus) bool { return t.Set == set.Set })
				if i < 0 {
					i, total = len(total), append(total, SetStatus{Set: set.Set})
				}
				total[i].add(set.Segments)
			}
		}
	}
	return total
}

func (t *SetStatus) add(segments []SegmentStatus) {
	for _, s := range segments {
		i := slices.IndexFunc(t.Segments, func(known SegmentStatus) bool { return known.Segment == s.Segment })
		if i < 0 {
			t.Segments = append(t.Segments, s)
			continue
		}
		t.Segments[i].Users += s.Users
	}
}

func (s *groupStatus) printSegments(to io.Writer) {
	total := s.population()
	if len(total) == 0 {
		return
	}
	fmt.Fprintln(to, "\nusers by segment:")
	for _, set := range total {
		fmt.Fprintf(to, "  %-12s", set.Set)
		for _, segment := range set.Segments {
			fmt.Fprintf(to, "  %s %d", segment.Segment, segment.Users)
		}
		fmt.Fprintln(to)
	}
}
