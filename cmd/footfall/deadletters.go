package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
)

func newDeadLetters(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "deadletters",
		GroupID: "operate",
		Short:   "What was refused, by reason; put mended records back",
		Long: `A record that can't be taken in is written to the dead-letter topic, as it came, with the
reason; it stops none of the others. "ls" shows which there are. Once the sender is
mended, and the records with it, "republish" puts them back into the events topic.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDeadLettersList(g), newRepublish(g))
	return cmd
}

// deadLetterFilter chooses dead letters.
type deadLetterFilter struct {
	reason string
	since  string
	key    string
}

func (f *deadLetterFilter) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.reason, "reason", "", "only of this `reason`, such as bad_time")
	cmd.Flags().StringVar(&f.since, "since", "", "only of the last `duration`, such as 12h")
	cmd.Flags().StringVar(&f.key, "key", "", "only of this key (user id)")
}

// check compiles the filter: from which time, and of which reason (Refusals: any).
func (f *deadLetterFilter) check() (since schemas.Millis, reason schemas.Refusal, err error) {
	if f.since != "" {
		d, err := parseDuration(f.since)
		if err != nil {
			return 0, 0, &usageError{fmt.Errorf("--since %w", err)}
		}
		since = wall() - schemas.Millis(d.Milliseconds())
	}
	reason = schemas.Refusals
	if f.reason != "" {
		var ok bool
		if reason, ok = schemas.ParseRefusal(f.reason); !ok || reason == schemas.Accepted {
			var names []string
			for r := schemas.Accepted + 1; r < schemas.Refusals; r++ {
				names = append(names, r.String())
			}
			return 0, 0, &usageError{fmt.Errorf("--reason %q: no such reason%s", f.reason, suggest(f.reason, names))}
		}
	}
	return since, reason, nil
}

// deadLetters reads the dead-letter topic and calls each with what the filter lets
// through. foreign counts records that footfall didn't write.
func (f *deadLetterFilter) read(ctx context.Context, c *Config, each func(*schemas.ParsedDeadLetter, *kgo.Record) error) (foreign int, err error) {
	since, reason, err := f.check()
	if err != nil {
		return 0, err
	}
	err = readTopic(ctx, c, c.Kafka.Topics.DeadLetters, since, func(r *kgo.Record) error {
		p, err := schemas.ParseDeadLetter(r.Key, r.Value, headers(r))
		if err != nil {
			foreign++
			return nil //nolint:nilerr // counted: another's record in the topic stops nothing
		}
		if reason != schemas.Refusals && p.Reason != reason || f.key != "" && string(p.Key) != f.key {
			return nil
		}
		return each(&p, r)
	})
	return foreign, err
}

func newDeadLettersList(g *global) *cobra.Command {
	var b brokersFlag
	var f deadLetterFilter
	var output string
	var samples int
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "Show dead letters by reason, with samples",
		Long: `Reads the dead-letter topic and counts by reason, with the newest of each: where the record
was, its key, what is wrong with it, how its value begins. With --output json it prints all
of them, whole, one a line, to be mended and given to "footfall deadletters republish".`,
		Example: `  footfall deadletters ls
  footfall deadletters ls --reason bad_time --output json > bad.ndjson`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
			}
			if samples < 0 {
				return &usageError{fmt.Errorf("--samples %d: want 0 or more", samples)}
			}
			c, err := g.config(b.settings()...)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(cmd.OutOrStdout())
			if output == "json" {
				encoder := json.NewEncoder(out)
				_, err = f.read(cmd.Context(), c, func(p *schemas.ParsedDeadLetter, _ *kgo.Record) error {
					return encoder.Encode(lineOf(p, c.Kafka.Lane))
				})
				return errors.Join(err, out.Flush())
			}
			var l deadLetterList
			foreign, err := f.read(cmd.Context(), c, l.add)
			if err != nil {
				return err
			}
			l.print(out, c, samples, foreign)
			return out.Flush()
		},
	}
	b.add(cmd)
	f.add(cmd)
	cmd.Flags().IntVar(&samples, "samples", 3, "samples of each reason, the newest")
	cmd.Flags().StringVar(&output, "output", "text", "text, or json: one line each, which republish takes")
	return cmd
}

// deadLetterLine is a dead letter as a line of JSON. Value is text; where it is not
// UTF-8, value_base64 has it instead. `deadletters republish` reads such lines.
type deadLetterLine struct {
	Reason      string          `json:"reason"`
	Detail      string          `json:"detail"`
	Topic       string          `json:"topic"`
	Partition   int32           `json:"partition"`
	Offset      int64           `json:"offset"`
	Time        Moment          `json:"time"` // record timestamp
	Lane        string          `json:"lane"`
	Key         *string         `json:"key"`
	Value       json.RawMessage `json:"value"` // text, an event, or null
	ValueBase64 []byte          `json:"value_base64,omitempty"`
	Cut         bool            `json:"cut,omitempty"` // too large to be kept
	SHA256      string          `json:"sha256,omitempty"`
	Size        int64           `json:"size,omitempty"`
}

// usual is the lane of records without a header.
func lineOf(p *schemas.ParsedDeadLetter, usual schemas.Lane) deadLetterLine {
	lane, _ := schemas.LaneOf(p.Headers, usual) // of one that is none, the usual one
	l := deadLetterLine{
		Reason: p.Reason.String(), Detail: p.Detail, Topic: p.Topic, Partition: p.Pos.Partition, Offset: p.Pos.Offset,
		Time: Moment(p.Time), Lane: lane.String(), Cut: p.Cut, SHA256: p.SHA256, Size: p.Size, Value: json.RawMessage("null"),
	}
	if p.Key != nil {
		key := string(p.Key)
		l.Key = &key
	}
	switch {
	case p.Value == nil:
	case utf8.Valid(p.Value):
		text, err := json.Marshal(string(p.Value))
		if err != nil {
			panic(fmt.Sprintf("a string does not encode as JSON: %v", err))
		}
		l.Value = text
	default:
		l.ValueBase64 = p.Value
	}
	return l
}

// deadLetterList counts by reason and keeps the newest of each.
type deadLetterList struct {
	count  [schemas.Refusals]int64
	newest [schemas.Refusals][]sample
}

type sample struct {
	at   time.Time // when it was said
	line string
}

// samplesMax bounds the samples kept of one reason.
const samplesMax = 100

func (l *deadLetterList) add(p *schemas.ParsedDeadLetter, r *kgo.Record) error {
	l.count[p.Reason]++
	s := sample{r.Timestamp, fmt.Sprintf("%s/%d offset %d, key %s: %s\n      %s",
		p.Topic, p.Pos.Partition, p.Pos.Offset, shown(p.Key, 60), p.Detail, shown(p.Value, 160))}
	kept := append(l.newest[p.Reason], s)
	if len(kept) > samplesMax {
		oldest := 0
		for i := range kept {
			if kept[i].at.Before(kept[oldest].at) {
				oldest = i
			}
		}
		kept = slices.Delete(kept, oldest, oldest+1)
	}
	l.newest[p.Reason] = kept
	return nil
}

// shown is bytes on one line, quoted where they are not plain text, and cut.
func shown(b []byte, most int) string {
	if b == nil {
		return "none"
	}
	cut := ""
	if len(b) > most {
		b, cut = b[:most], fmt.Sprintf("... (%d bytes)", len(b))
		for len(b) > 0 && !utf8.Valid(b[max(0, len(b)-utf8.UTFMax):]) && utf8.RuneStart(b[len(b)-1]) {
			b = b[:len(b)-1]
		}
	}
	text := string(b)
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		text = fmt.Sprintf("%q", text)
	}
	return text + cut
}

func (l *deadLetterList) print(out io.Writer, c *Config, samples, foreign int) {
	total := int64(0)
	for _, n := range l.count {
		total += n
	}
	fmt.Fprintf(out, "%d dead letters in %s\n", total, c.Kafka.Topics.DeadLetters)
	if foreign > 0 {
		fmt.Fprintf(out, "%d other records there were not written by footfall\n", foreign)
	}
	if total == 0 {
		return
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "COUNT\tREASON\tNEWEST")
	for reason, n := range l.count {
		if n == 0 {
			continue
		}
		kept := l.newest[reason]
		slices.SortStableFunc(kept, func(a, b sample) int { return b.at.Compare(a.at) })
		fmt.Fprintf(w, "%d\t%s\t%s\n", n, schemas.Refusal(reason), kept[0].at.UTC().Format(time.RFC3339))
	}
	_ = w.Flush() // out keeps the error
	for reason, kept := range l.newest {
		if len(kept) == 0 || samples == 0 {
			continue
		}
		fmt.Fprintf(out, "\n%s\n", schemas.Refusal(reason))
		for _, s := range kept[:min(samples, len(kept))] {
			fmt.Fprintf(out, "  - %s\n", s.line)
		}
	}
}

// bytesOf is the value of a line: the text of a string, an event as it stands, or nil.
func (l *deadLetterLine) bytesOf() []byte {
	if l.ValueBase64 != nil {
		return l.ValueBase64
	}
	return (&record{Value: l.Value}).value()
}
