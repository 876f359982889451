package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/pipeline/rehearsal"
	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas"
	"footfall/sources/kafka"
)

func newVerify(g *global) *cobra.Command {
	var b brokersFlag
	v := verifying{}
	cmd := &cobra.Command{
		Use:     "verify TRIGGER",
		GroupID: "rules",
		Short:   "Whether a trigger follows from the events, recomputed from the log",
		Long: `Plays the events of the user's partition again, from the topic's beginning up to the trigger's
cause, with no effect on anything, and says whether the trigger follows: the clause that
flipped, its values, and the profile. The trigger is given as its JSON, as its id
(GROUP/PARTITION/N, the header ce_id), or as - for JSON on standard input.

The sets of the configuration must be those that it was said under (the hash is compared).
Bounds of quantiles are taken from the control topic, as they were in force. What is caused by
a change of rules, a recovery or an epoch has no event: then it is looked whether the rules
put the user there.

Exit code 1 when it does not follow, or when that can't be told because retention has removed
what it rests upon.`,
		Example: `  footfall verify footfall/3/4711
  kcat -C -b kafka:9092 -t triggers -p 3 -X isolation.level=read_committed -o -100 -e -q | tail -n 1 | footfall verify -`,
		Args: oneArg("trigger"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", v.output, "text", "json"); err != nil {
				return err
			}
			c, err := g.config(b.settings()...)
			if err != nil {
				return err
			}
			answer, err := v.run(cmd.Context(), c, args[0], cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if v.output == "json" {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(answer)
			} else {
				err = answer.print(cmd.OutOrStdout())
			}
			if err == nil && !answer.Follows {
				err = errRefused
			}
			return err
		},
	}
	b.add(cmd)
	cmd.Flags().StringVar(&v.output, "output", "text", "text or json")
	return cmd
}

// verifying is one run of verify.
type verifying struct {
	output  string
	trigger schemas.Transition
	names   schemas.RetiredNames // of its set and segments
	rules   *segment.Program
	set     int
	said    []schemas.Transition // of the user, in the trigger's set
}

// Verdict is what verify prints.
type Verdict struct {
	Follows bool     `json:"follows"`
	Why     string   `json:"why"`
	User    string   `json:"user"`
	Set     string   `json:"set"`
	From    string   `json:"from"`
	To      string   `json:"to"`
	At      Moment   `json:"at"`
	Cause   string   `json:"cause"`
	Clause  string   `json:"clause"` // that flipped; empty: none did
	Was     string   `json:"was"`
	Is      string   `json:"is"`
	Rule    string   `json:"rule"` // of the segment that it leads to
	Orders  uint32   `json:"orders"`
	Revenue string   `json:"revenue"`
	Played  int      `json:"played"` // events
	Differs []string `json:"differs"`
}

// errSettled ends the playing early: what was looked for is found.
var errSettled = errors.New("found")

func (v *verifying) run(ctx context.Context, c *Config, arg string, stdin io.Reader, progress io.Writer) (*Verdict, error) {
	value, err := v.value(ctx, c, arg, stdin)
	if err != nil {
		return nil, err
	}
	if err := v.read(value); err != nil {
		return nil, err
	}
	if v.rules, err = c.rules(); err != nil {
		return nil, err
	}
	if v.trigger.Rules != v.rules.Hash() {
		return nil, fmt.Errorf("the trigger was said under rules %016x, and this configuration's are %016x: give the segment sets, currency and rates as they were (segments.sets, shop)", v.trigger.Rules, v.rules.Hash())
	}
	if v.set = setIndex(v.rules.Names(), v.names.Set); v.set < 0 {
		return nil, fmt.Errorf("the trigger is of set %q, and the configuration has %s", v.names.Set, strings.Join(setNames(v.rules.Names()), ", "))
	}
	if err := v.bounds(ctx, c); err != nil {
		return nil, err
	}
	return v.play(ctx, c, progress)
}

// value finds the trigger's JSON.
func (v *verifying) value(ctx context.Context, c *Config, arg string, stdin io.Reader) ([]byte, error) {
	switch {
	case arg == "-":
		value, err := io.ReadAll(io.LimitReader(stdin, 1<<20))
		return bytes.TrimSpace(value), err
	case strings.HasPrefix(strings.TrimSpace(arg), "{"):
		return []byte(arg), nil
	}
	parts := strings.Split(arg, "/")
	if len(parts) < 3 {
		return nil, &usageError{fmt.Errorf("trigger %q: want its JSON, its id such as %s/3/4711, or -", arg, c.Kafka.Group)}
	}
	partition, err := strconv.ParseInt(parts[len(parts)-2], 10, 32)
	if err != nil {
		return nil, &usageError{fmt.Errorf("trigger %q: want GROUP/PARTITION/N", arg)}
	}
	var found []byte
	for _, topic := range []string{c.Kafka.Topics.Triggers, c.Kafka.Topics.Muted} {
		err := readTopic(ctx, c, topic, 0, func(r *kgo.Record) error {
			if r.Partition != int32(partition) {
				return nil
			}
			for _, h := range r.Headers {
				if h.Key == "ce_id" && string(h.Value) == arg {
					found = r.Value
					return errSettled
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, errSettled) {
			return nil, err
		}
		if found != nil {
			return found, nil
		}
	}
	return nil, fmt.Errorf("there is no trigger %s in %s or %s", arg, c.Kafka.Topics.Triggers, c.Kafka.Topics.Muted)
}

// read parses the trigger.
func (v *verifying) read(value []byte) error {
	t, err := schemas.DecodeTransition(value, nil)
	if err != nil {
		return fmt.Errorf("this is no trigger of footfall's: %w", err)
	}
	v.trigger = t
	if t.Names != nil {
		v.names = *t.Names
	}
	return nil
}

// bounds takes the bounds of quantiles that were in force.
func (v *verifying) bounds(ctx context.Context, c *Config) error {
	if v.rules.Quantiles() == 0 {
		return nil
	}
	cl, err := c.connect(ctx)
	if err != nil {
		return err
	}
	n, err := partitions(ctx, cl, c.Kafka.Topics.Events)
	cl.Close()
	if err != nil {
		return err
	}
	return c.eachEpoch(ctx, v.rules, n, func(e segment.Epoch) error {
		if e.At > v.trigger.At && (v.trigger.Cause.Kind != schemas.ByEpoch || e.Number > v.trigger.Cause.Epoch) {
			return nil
		}
		with, err := v.rules.With(e)
		v.rules = with
		return err
	})
}

// play plays the user's partition up to the trigger's cause.
func (v *verifying) play(ctx context.Context, c *Config, progress io.Writer) (*Verdict, error) {
	decoder, err := schemas.NewDecoder(c.contract())
	if err != nil {
		return nil, &usageError{err}
	}
	cl, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	n, err := partitions(ctx, cl, c.Kafka.Topics.Events)
	cl.Close()
	if err != nil {
		return nil, err
	}
	partition := kafka.PartitionOf([]byte(v.trigger.User), int32(n))
	var stage *rehearsal.Stage
	h := history{partitions: []int{int(partition)}}
	played := 0
	err = h.play(ctx, c, progress, func(_ int32, r *worker.Record) error {
		if stage == nil {
			stage = rehearsal.New(partition, r.Offset, rehearsal.Config{
				Rules: v.rules, Decoder: decoder, Dedup: rehearsal.Dedup{Window: millis(c.Dedup.Window), Budget: c.Dedup.Budget}, Say: v.hear,
			})
		}
		if v.trigger.Cause.Kind != schemas.ByEvent && stage.Clock() < v.trigger.At && r.Time >= v.trigger.At {
			stage.Advance(v.trigger.At) // silence until then, before the record
			return errSettled
		}
		stage.Play(r)
		played++
		if v.trigger.Cause.Kind == schemas.ByEvent && r.Offset >= v.trigger.Cause.Pos.Offset {
			return errSettled
		}
		return nil
	})
	if err != nil && !errors.Is(err, errSettled) {
		return nil, err
	}
	if stage == nil {
		return nil, fmt.Errorf("partition %d of %s holds no events", partition, c.Kafka.Topics.Events)
	}
	if v.trigger.Cause.Kind != schemas.ByEvent && stage.Clock() < v.trigger.At {
		stage.Advance(v.trigger.At)
	}
	verdict := v.judge(c, stage)
	verdict.Played = played
	if !verdict.Follows && len(h.notes) > 0 {
		verdict.Why += "; " + strings.Join(h.notes, "; ")
	}
	return verdict, nil
}

// hear keeps what is said of the user in the trigger's set.
func (v *verifying) hear(it *worker.Item) {
	if t := it.Transition; t != nil && t.User == v.trigger.User && int(t.Set) == v.set {
		v.said = append(v.said, *t)
	}
}

// judge compares the trigger with what was said.
func (v *verifying) judge(c *Config, stage *rehearsal.Stage) *Verdict {
	names := v.rules.Names()[v.set]
	name := func(s uint16) string {
		if s >= schemas.Retired {
			return ""
		}
		return names.Segments[s]
	}
	t := &v.trigger
	out := &Verdict{
		User: t.User, Set: v.names.Set, From: v.names.From, To: v.names.To, At: Moment(t.At), Cause: causeText(&t.Cause, c.Kafka.Topics.Events), Differs: []string{},
	}
	ex, known := stage.Worker().Explain(t.User)
	for _, s := range ex.Sets {
		if known && s.Set == out.Set && s.Segment == out.To {
			out.Rule = s.Rule()
		}
	}
	if t.Cause.Kind != schemas.ByEvent && t.Cause.Kind != schemas.ByTimer {
		if out.Follows = out.Rule != ""; !out.Follows {
			out.Why = fmt.Sprintf("the rules do not put the user into %s at that moment", out.To)
		} else {
			out.Why = "the rules put the user there; no event did"
		}
		return out
	}
	for i := range v.said {
		s := &v.said[i]
		if s.At != t.At || name(s.To) != out.To || out.Follows && s.Seq != t.Seq { // of two of one moment, that of this number
			continue
		}
		out.Differs = []string{}
		out.Follows, out.Orders, out.Revenue = true, s.Facts.Orders, schemas.FormatMinor(s.Facts.Revenue, c.Shop.Currency)
		out.Clause, out.Was, out.Is = s.Evidence.Clause, s.Evidence.Text(s.Evidence.Was, c.Shop.Currency), s.Evidence.Text(s.Evidence.Is, c.Shop.Currency)
		differ := func(what string, got, want any) {
			if got != want {
				out.Differs = append(out.Differs, fmt.Sprintf("%s: the trigger says %v, the log %v", what, got, want))
			}
		}
		differ("from", out.From, name(s.From))
		differ("seq", t.Seq, s.Seq)
		differ("orders", t.Facts.Orders, s.Facts.Orders)
		differ("revenue_minor", t.Facts.Revenue, s.Facts.Revenue)
		differ("cause", t.Cause.Kind, s.Cause.Kind)
	}
	switch {
	case !out.Follows && len(v.said) == 0:
		out.Why = "the log moves the user nowhere in this set"
	case !out.Follows:
		last := &v.said[len(v.said)-1]
		out.Why = fmt.Sprintf("the log does not move the user to %s at that moment; its last move is to %s at %s", out.To, name(last.To), clock(last.At))
	case len(out.Differs) > 0:
		out.Follows, out.Why = false, strings.Join(out.Differs, "; ")
	default:
		out.Why = "the log moves the user so"
	}
	return out
}

func causeText(c *schemas.Cause, topic string) string {
	switch c.Kind {
	case schemas.ByEvent:
		return fmt.Sprintf("%s %s (%s/%d at offset %d)", c.Event, c.ID, topic, c.Pos.Partition, c.Pos.Offset)
	case schemas.ByTimer:
		return "silence until " + clock(c.Due)
	default:
		return c.Kind.String()
	}
}

// print writes the verdict for a person.
func (a *Verdict) print(to io.Writer) error {
	var b strings.Builder
	verdict := "does not follow"
	if a.Follows {
		verdict = "follows"
	}
	from := a.From
	if from == "" {
		from = "nowhere"
	}
	fmt.Fprintf(&b, "%s: %s\n\n", verdict, a.Why)
	fmt.Fprintf(&b, "  user     %s\n  moved    %s: %s -> %s at %s\n  cause    %s\n", a.User, a.Set, from, a.To, clock(schemas.Millis(a.At)), a.Cause)
	if a.Clause != "" {
		fmt.Fprintf(&b, "  flipped  %s: %s -> %s\n", a.Clause, a.Was, a.Is)
	}
	if a.Rule != "" {
		fmt.Fprintf(&b, "  because  %s\n", a.Rule)
	}
	if a.Revenue != "" {
		fmt.Fprintf(&b, "  profile  %s, revenue %s\n", counted(int64(a.Orders), "order"), a.Revenue)
	}
	fmt.Fprintf(&b, "  played   %s\n", counted(a.Played, "event"))
	_, err := io.WriteString(to, b.String())
	return err
}
