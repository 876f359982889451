package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
)

// RepublishedHeader says which dead letter a record mends: topic/partition/offset of
// the original.
const RepublishedHeader = "republished"

func newRepublish(g *global) *cobra.Command {
	var b brokersFlag
	var r republisher
	var f deadLetterFilter
	var same bool
	cmd := &cobra.Command{
		Use:   "republish [FILE|-]",
		Short: "Publish mended dead letters to the events topic",
		Long: `Reads lines as "deadletters ls --output json" prints them, mended by hand or by a program,
or plain events one a line, and publishes each as a new record to the events topic: key =
user_id, timestamp = now, header "republished" = where the original was. A line that would
be refused again is not published, but told. Each goes by the lane that it came by, so that
history mutes what changes by it, as it would have; in lane replay the timestamp is the
event's time, since one of now would be the time of all.

With --same instead of a file, the dead letters themselves are published again, unchanged:
for when what refused them has been mended elsewhere (a rate configured, a clock set right).

Publishing one twice does no harm within the dedup window; after it, it would count twice.
--dry-run tells what would happen. Exit code 1 when something was not published.`,
		Example: `  footfall deadletters ls --reason bad_time --output json > bad.ndjson
  sed -i 's/2024-05-01 /2024-05-01T/g' bad.ndjson
  footfall deadletters republish bad.ndjson --dry-run
  footfall deadletters republish bad.ndjson
  footfall deadletters republish --same --reason unknown_currency --since 2d`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if same == (len(args) == 1) || len(args) > 1 {
				return &usageError{errors.New("footfall deadletters republish needs either one file (- for standard input) or --same")}
			}
			if !same && f != (deadLetterFilter{}) {
				return &usageError{errors.New("--reason, --since and --key choose dead letters for --same; of a file all lines are published: choose with deadletters ls")}
			}
			c, err := g.config(b.settings()...)
			if err != nil {
				return err
			}
			if err := r.open(cmd.Context(), c); err != nil {
				return err
			}
			defer r.client.Close()
			r.out = cmd.OutOrStdout()
			if same {
				_, err = f.read(cmd.Context(), c, func(p *schemas.ParsedDeadLetter, _ *kgo.Record) error {
					return r.line(cmd.Context(), fmt.Sprintf("%s/%d offset %d", p.Topic, p.Pos.Partition, p.Pos.Offset), lineOf(p, c.Kafka.Lane))
				})
			} else {
				err = r.file(cmd.Context(), args[0], cmd.InOrStdin())
			}
			if err := errors.Join(err, r.finish(cmd.Context())); err != nil {
				return r.broken(c, err)
			}
			return r.report(c)
		},
	}
	b.add(cmd)
	f.add(cmd)
	cmd.Flags().BoolVar(&same, "same", false, "publish the dead letters themselves again, as chosen by --reason, --since, --key")
	cmd.Flags().BoolVar(&r.dry, "dry-run", false, "publish nothing, tell what would be")
	cmd.Flags().StringVar(&r.lane, "lane", "", "live; backfill: whatever changes by it is muted; or replay (default the original's; of plain events kafka.lane)")
	return cmd
}

// republisher checks lines and publishes the good ones.
type republisher struct {
	client    *kgo.Client
	topic     string
	lane      string       // of all; "": each one's own
	usual     schemas.Lane // of those that tell none
	dry       bool
	decoder   *schemas.Decoder
	out       io.Writer
	published int64
	refused   int64
	acked     atomic.Int64 // of published, what Kafka has taken
	failed    error
}

func (r *republisher) open(ctx context.Context, c *Config) (err error) {
	if r.lane != "" {
		if err := oneOf("lane", r.lane, "live", "backfill", "replay"); err != nil {
			return err
		}
	}
	r.usual = c.Kafka.Lane
	if r.decoder, err = schemas.NewDecoder(c.contract()); err != nil {
		return &usageError{err}
	}
	r.topic = c.Kafka.Topics.Events
	// The default partitioner is Java's: murmur2 of the key.
	if r.client, err = c.connect(ctx, kgo.ProducerBatchMaxBytes(2<<20), kgo.RecordDeliveryTimeout(time.Minute)); err != nil {
		return err
	}
	if err = c.allowed(ctx, r.client, c.publishNeeds(false)); err == nil {
		_, err = partitions(ctx, r.client, r.topic)
	}
	if err != nil {
		r.client.Close()
	}
	return err
}

// file publishes the lines of a file.
func (r *republisher) file(ctx context.Context, path string, stdin io.Reader) error {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	lines := bufio.NewReaderSize(in, 1<<16)
	for n := 1; ; n++ {
		text, tooLong, err := readLine(lines)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
		where := fmt.Sprintf("%s:%d", path, n)
		if tooLong {
			r.refuse(where, schemas.TooLarge.String(), fmt.Sprintf("line is longer than %d MiB", lineMax>>20))
		} else if err := r.text(ctx, where, text); err != nil {
			return err
		}
		if err != nil {
			return nil
		}
	}
}

// text publishes one line of text: a dead letter's line, or an event.
func (r *republisher) text(ctx context.Context, where string, text []byte) error {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		refused := &schemas.RefusedError{Reason: schemas.NotJSON, Detail: err.Error()}
		_ = errors.As(r.decoder.Decode(nil, text, &schemas.Event{}), &refused) // in the contract's words, as validate says it
		r.refuse(where, refused.Reason.String(), refused.Detail)
		return nil //nolint:nilerr // told and counted: a bad line stops none of the others
	}
	l := deadLetterLine{Value: text}
	_, hasValue := members["value"]
	if _, hasID := members["event_id"]; hasValue && !hasID {
		if err := json.Unmarshal(text, &l); err != nil {
			r.refuse(where, schemas.NotJSON.String(), err.Error())
			return nil
		}
	}
	return r.line(ctx, where, l)
}

// line checks one line and publishes it. The key is the event's user_id, whatever the
// original's was: a wrong key is one of the things to be mended.
func (r *republisher) line(ctx context.Context, where string, l deadLetterLine) error {
	value := l.bytesOf()
	if l.Cut {
		r.refuse(where, schemas.TooLarge.String(), "its bytes were not kept; publish it again from where it came")
		return nil
	}
	lane, ok := schemas.ParseLane(cmp.Or(r.lane, l.Lane, r.usual.String()))
	if !ok {
		r.refuse(where, schemas.WrongType.String(), fmt.Sprintf("lane: got %.60q, want live, backfill or replay", l.Lane))
		return nil
	}
	key := userOf(value)
	var ev schemas.Event
	var refused *schemas.RefusedError
	err := r.decoder.Decode(key, value, &ev)
	switch {
	case errors.As(err, &refused):
		r.refuse(where, refused.Reason.String(), refused.Detail)
		return nil
	case ev.At > wall()+futureMax:
		r.refuse(where, schemas.Future.String(), "time: "+clock(ev.At)+" is still ahead")
		return nil
	}
	r.published++
	if r.dry {
		fmt.Fprintf(r.out, "%s: would publish %s %s of user %s\n", where, ev.Kind, shown(ev.ID, 60), shown(ev.User, 60))
		return nil
	}
	rec := &kgo.Record{Topic: r.topic, Key: key, Value: value, Headers: []kgo.RecordHeader{{Key: schemas.LaneHeader, Value: []byte(lane.String())}}}
	if lane == schemas.Replay {
		rec.Timestamp = time.UnixMilli(int64(ev.At))
	}
	if l.Topic != "" {
		origin := fmt.Sprintf("%s/%d/%d", l.Topic, l.Partition, l.Offset)
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: RepublishedHeader, Value: []byte(origin)})
	}
	r.client.Produce(ctx, rec, func(_ *kgo.Record, err error) {
		switch { // promises run one at a time
		case err == nil:
			r.acked.Add(1)
		case r.failed == nil:
			r.failed = fmt.Errorf("kafka: publish to %s: %w", r.topic, err)
		}
	})
	return ctx.Err()
}

func (r *republisher) refuse(where, reason, detail string) {
	r.refused++
	fmt.Fprintf(r.out, "%s: not published: %s: %s\n", where, reason, detail)
}

// finish waits until everything is acknowledged.
func (r *republisher) finish(ctx context.Context) error {
	if err := r.client.Flush(ctx); err != nil {
		return err
	}
	return r.failed
}

// broken adds to an error what had been published by then, and what that means for who
// goes on.
func (r *republisher) broken(c *Config, err error) error {
	if n := r.acked.Load(); n > 0 {
		return fmt.Errorf("%w; %s or more had been published: to publish them again is safe within dedup.window, %s", err, counted(int(n), "event"), c.Dedup.Window)
	}
	return err
}

func (r *republisher) report(c *Config) error {
	verb := "published"
	if r.dry {
		verb = "would publish"
	}
	fmt.Fprintf(r.out, "%s %d to %s, %d not\n", verb, r.published, c.Kafka.Topics.Events, r.refused)
	if r.refused > 0 {
		return errRefused
	}
	return nil
}
