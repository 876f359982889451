package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas/segments"
)

func newRules(g *global) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "rules [NAME|FILE]...",
		GroupID: "rules",
		Short:   "Check segment sets, and print them as they are understood",
		Long: `Checks the segment sets of the configuration, or shipped ones by NAME and your own by FILE,
all together: every error, with file, line and column. Then it prints each set as it is
understood (definitions are written out), which other sets its rules ask for, and what it
costs: the bytes that every shopper takes for it, and the lists that grow with what a shopper
does, by the rules that look at them. What two sets ask for is kept once. A segment that is
not said every time (reentry), and a set that is not capped, are marked.

Shipped are:
` + shippedList() + `
Exit code 2 when something is wrong with a set.`,
		Example: `  footfall rules
  footfall rules lifecycle ./vip.yaml
  footfall rules show loyalty > ours.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
			}
			c, err := g.config()
			if err != nil {
				return err
			}
			if len(args) > 0 {
				c.Segments.Sets, c.from["segments.sets"] = args, "arguments"
			}
			p, err := c.rules()
			if err != nil {
				return err
			}
			r := describeRules(p)
			if output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(r)
			}
			return r.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	cmd.AddCommand(newRulesShow())
	return cmd
}

func newRulesShow() *cobra.Command {
	var examples bool
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Print a shipped set's YAML, to copy and change",
		Long: `Prints the file of a shipped set, comments and all; with --examples, the example histories
that "footfall test" plays on it. A changed copy wants a name of its own (set: ...), and
is switched on by its path, in segments.sets.`,
		Example: `  footfall rules show loyalty > ours.yaml
  footfall rules show loyalty --examples > ours.test.yaml`,
		Args: oneArg("shipped set"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return segments.Names(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			read := segments.Read
			if examples {
				read = segments.Examples
			}
			text, err := read(args[0])
			if err != nil {
				return &usageError{err}
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	cmd.Flags().BoolVar(&examples, "examples", false, "its examples, for footfall test")
	return cmd
}

// shippedList is the shipped sets with what they are for, for --help. It looks for the
// line in their text: nobody has asked for them to be compiled.
func shippedList() string {
	var b strings.Builder
	for _, name := range segments.Names() {
		text, err := segments.Read(name)
		if err != nil {
			panic(err) // its name is one of them
		}
		_, about, _ := strings.Cut(string(text), "\nabout: ")
		about, _, _ = strings.Cut(about, "\n")
		for _, line := range wrap(about, 76) {
			fmt.Fprintf(&b, "  %-14s %s\n", name, line)
			name = ""
		}
	}
	return b.String()
}

// rulesAnswer is what sets are understood as, as JSON.
type rulesAnswer struct {
	Rules string     `json:"rules"` // hash of all of them together, as transitions have it
	Sets  []rulesSet `json:"sets"`
	Bytes rulesBytes `json:"bytes_a_user"`
}

// rulesBytes is what every user takes, its id and lists not counted.
type rulesBytes struct {
	Everybody   int `json:"everybody"` // whatever the rules are
	Memberships int `json:"memberships"`
	Kept        int `json:"kept"`
	Policies    int `json:"policies"`
	Total       int `json:"total"`

	// Of who has bought, besides: of these the last order ids.
	Buyer  int `json:"buyer"`
	Orders int `json:"orders"`
}

type rulesSet struct {
	Set      string         `json:"set"`
	File     string         `json:"file"`
	About    string         `json:"about"`
	Zone     string         `json:"zone"`
	Uses     []string       `json:"uses"`
	Capped   bool           `json:"capped"` // its triggers count among those that segments.cap caps
	Quiet    string         `json:"quiet"`  // hours of the user's day, or none
	Scores   []string       `json:"scores"`
	Segments []rulesSegment `json:"segments"`
	Bytes    int            `json:"bytes_a_user"` // membership included
	Kept     []rulesKept    `json:"keeps"`
}

type rulesSegment struct {
	Segment string `json:"segment"`
	About   string `json:"about"`
	Rule    string `json:"rule"` // "": everybody who is left
	Kept    []int  `json:"looks_at"`
	Reentry string `json:"reentry"`
}

type rulesKept struct {
	Asked  []string `json:"asked"`
	What   string   `json:"what"`
	Bytes  int      `json:"bytes_a_user"`
	Entry  int      `json:"bytes_an_entry"`
	Most   int      `json:"entries_at_most"`
	Shared []string `json:"shared_with"`
}

func describeRules(p *segment.Program) *rulesAnswer {
	everybody, member := worker.FixedBytes()
	r := &rulesAnswer{Rules: fmt.Sprintf("%016x", p.Hash())}
	for _, d := range p.Describe() {
		s := rulesSet{
			Set: d.Set, File: d.File, About: d.About, Zone: d.Zone, Uses: notNil(d.Uses), Scores: notNil(d.Scores),
			Capped: !d.Apart, Quiet: d.Quiet.String(), Bytes: member + d.Bytes, Segments: []rulesSegment{}, Kept: []rulesKept{},
		}
		for _, seg := range d.Segments {
			s.Segments = append(s.Segments, rulesSegment{seg.Name, seg.About, seg.Rule, notNil(seg.Kept), seg.Reentry.String()})
		}
		for _, k := range d.Kept {
			s.Kept = append(s.Kept, rulesKept{k.Asked, k.What, k.Bytes, k.Entry, k.Most, notNil(k.Shared)})
		}
		r.Sets = append(r.Sets, s)
	}
	r.Bytes = rulesBytes{Everybody: everybody, Memberships: member * len(r.Sets), Kept: p.Layout().Bytes(), Policies: p.PolicyBytes()}
	deal, orders := worker.BuyerBytes()
	r.Bytes.Buyer, r.Bytes.Orders = deal+orders, orders
	r.Bytes.Total = r.Bytes.Everybody + r.Bytes.Memberships + r.Bytes.Kept + r.Bytes.Policies
	return r
}

// notNil is a list that JSON writes as one even when there is nothing in it.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (r *rulesAnswer) print(to io.Writer) error {
	var b strings.Builder
	for i := range r.Sets {
		r.Sets[i].print(&b)
	}
	lists := "nothing else"
	for _, s := range r.Sets {
		for _, k := range s.Kept {
			if k.Entry > 0 {
				lists = "its lists"
			}
		}
	}
	fmt.Fprintf(&b, "%s, rules %s\n", counted(len(r.Sets), "set"), r.Rules)
	policies := ""
	if r.Bytes.Policies > 0 {
		policies = fmt.Sprintf(", %d for what is not said again", r.Bytes.Policies)
	}
	fmt.Fprintf(&b, "every user takes %d bytes (%d whatever the rules are, %d for memberships, %d for what they ask%s), its id and %s;\nwho has bought takes %d more, %d of them for the last order ids\n",
		r.Bytes.Total, r.Bytes.Everybody, r.Bytes.Memberships, r.Bytes.Kept, policies, lists, r.Bytes.Buyer, r.Bytes.Orders)
	_, err := io.WriteString(to, b.String())
	return err
}

func (s *rulesSet) print(b *strings.Builder) {
	fmt.Fprintf(b, "%s  (%s)\n", s.Set, s.File)
	if s.About != "" {
		fmt.Fprintf(b, "  %s\n", s.About)
	}
	if s.Zone != "UTC" {
		fmt.Fprintf(b, "  days begin in %s\n", s.Zone)
	}
	if !s.Capped {
		b.WriteString("  is not capped, and does not count for the cap\n")
	}
	if s.Quiet != "none" {
		fmt.Fprintf(b, "  quiet hours are %s, by the user's clock\n", s.Quiet)
	}
	if len(s.Uses) > 0 {
		fmt.Fprintf(b, "  asks for the sets %s\n", strings.Join(s.Uses, ", "))
	}
	if len(s.Scores) > 0 {
		fmt.Fprintf(b, "  says nothing before the first epoch: it scores by %s\n", strings.Join(s.Scores, ", "))
	}
	b.WriteString("\n")
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, seg := range s.Segments {
		rule := seg.Rule
		if rule == "" {
			rule = "everybody who is left"
		}
		for _, k := range seg.Kept {
			rule += fmt.Sprintf("  [%d]", k+1)
		}
		if seg.Reentry != "always" {
			rule += "  (reentry: " + seg.Reentry + ")"
		}
		fmt.Fprintf(w, "  %s\t%s\n", seg.Segment, rule)
	}
	_ = w.Flush() // a builder takes everything
	fmt.Fprintf(b, "\n  %d bytes a user", s.Bytes)
	if len(s.Kept) > 0 {
		b.WriteString(", of them")
	}
	b.WriteString("\n")
	for i, k := range s.Kept {
		fmt.Fprintf(b, "  [%d] %d for %s: %s", i+1, k.Bytes, strings.Join(k.Asked, ", "), k.What)
		if k.Entry > 0 {
			fmt.Fprintf(b, "; a list with %d bytes an entry, at most %s", k.Entry, grouped(int64(k.Most)))
		}
		if len(k.Shared) > 0 {
			fmt.Fprintf(b, "; kept once with %s", strings.Join(k.Shared, ", "))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}
