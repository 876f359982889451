package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/spf13/cobra"

	"footfall/pipeline/segment"
	"footfall/schemas"
	"footfall/sources/file"
)

// Limits of validate.
const (
	lineMax     = 8 << 20 // bytes of a line; a longer one is too_large unread: an event has 1 MiB, six as a string
	repeatedMax = 4 << 20 // event ids remembered to find repeated ones
	unknownMax  = 50      // unknown fields told
	futureMax   = 5 * schemas.Minute
)

func newValidate(g *global) *cobra.Command {
	v := validation{now: func() schemas.Millis { return schemas.Millis(time.Now().UnixMilli()) }}
	var mapping, output string
	cmd := &cobra.Command{
		Use:     "validate FILE|-",
		GroupID: "events",
		Short:   "Tell which events would be refused, and why",
		Long: `Checks events against the contract, as the engine does: one JSON event a line, as the
storefront would publish it. A line may also be a whole record, {"key": ..., "value": ...,
"timestamp": ...}, where value is the event or its text; then the key is checked too.
With --mapping, the rows of a recorded file (see "footfall publish").

Each refused line is told with its reason, which is what the dead letter's dlq_reason
would be; then a table by reason, repeated event ids, and fields the contract doesn't know
(they are kept, but one may be a misspelt one).

Exit code 1 when anything was refused, or a row of a recorded file could not be read.`,
		Example: `  footfall validate events.ndjson
  tail -n 1000 export.ndjson | footfall validate -
  kcat -C -b kafka:9092 -t events -e -q -J | jq -c '{key, value: .payload, timestamp: .ts}' | footfall validate -
  footfall validate 2019-Oct.csv.gz --mapping rees46`,
		Args: oneArg("file, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.config()
			if err != nil {
				return err
			}
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
			}
			v.maxSkew = schemas.Millis(c.Clock.MaxSkew.Milliseconds())
			if v.decoder, err = schemas.NewDecoder(c.contract()); err != nil {
				return &usageError{err}
			}
			v.out = bufio.NewWriter(cmd.OutOrStdout())
			v.quiet = output == "json"
			if mapping != "" {
				err = v.mapped(args[0], mapping)
			} else {
				err = v.lines(args[0], cmd.InOrStdin())
			}
			if err != nil {
				return errors.Join(v.out.Flush(), err)
			}
			if output == "json" {
				err = json.NewEncoder(v.out).Encode(v.summary())
			} else {
				v.print()
			}
			if err := errors.Join(err, v.out.Flush()); err != nil {
				return err
			}
			if v.refused+v.skipped[file.Malformed] > 0 {
				return errRefused
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&mapping, "mapping", "", "read a recorded file by this mapping: a name or a `file`")
	cmd.Flags().IntVar(&v.show, "show", 20, "refused lines to tell of each reason")
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	return cmd
}

// oneOf refuses a flag's value that is not one of the words.
func oneOf(flag, value string, words ...string) error {
	if slices.Contains(words, value) {
		return nil
	}
	return &usageError{fmt.Errorf("--%s %q: want %s or %s%s", flag, value, strings.Join(words[:len(words)-1], ", "), words[len(words)-1], suggest(value, words))}
}

// validation counts what would become of events.
type validation struct {
	decoder *schemas.Decoder
	now     func() schemas.Millis
	maxSkew schemas.Millis
	out     *bufio.Writer
	quiet   bool // counts only
	show    int

	events, accepted, refused int64
	byKind                    [schemas.Kinds]int64
	byReason                  [schemas.Refusals]int64
	first                     [schemas.Refusals]string // where
	unkeyed                   bool                     // keys were not given, so not checked
	seen                      map[uint64]struct{}
	repeated                  int64
	unknown                   map[string]int64
	zones, birthdays          useless
	skipped                   map[string]int64 // rows of a mapped file
	hints                     hints
}

// record is a line that holds a whole record instead of an event.
type record struct {
	Key       *string         `json:"key"`
	Value     json.RawMessage `json:"value"`
	Timestamp *schemas.Millis `json:"timestamp"`
}

// lines validates NDJSON.
func (v *validation) lines(path string, stdin io.Reader) error {
	in, name := stdin, "-"
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		in, name = f, path
	}
	plain, closeStream, err := file.Decompress(in)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer func() { _ = closeStream() }()
	lines := bufio.NewReaderSize(plain, 1<<16)
	for n := 1; ; n++ {
		line, tooLong, err := readLine(lines)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
		where := fmt.Sprintf("%s:%d", name, n)
		if n == 1 {
			v.hints.head(line)
		}
		switch {
		case tooLong:
			v.refuse(where, &schemas.RefusedError{Reason: schemas.TooLarge, Detail: fmt.Sprintf("value: got more than %d bytes, want at most %d", lineMax, schemas.ValueMax)})
		case len(bytes.TrimSpace(line)) > 0:
			v.line(where, bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")))
		}
		if err != nil {
			return nil
		}
	}
}

// readLine reads a line with its end, or says that it is longer than lineMax.
func readLine(r *bufio.Reader) (line []byte, tooLong bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if !tooLong {
			line = append(line, part...)
		}
		if tooLong = tooLong || len(line) > lineMax; tooLong {
			line = nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, tooLong, err
		}
	}
}

// line validates one line: an event, or a record around one.
func (v *validation) line(where string, line []byte) {
	var members map[string]json.RawMessage
	if json.Unmarshal(line, &members) != nil {
		v.unkeyed = true
		v.event(where, nil, line, nil) // the decoder says what is wrong with it
		return
	}
	_, hasID := members["event_id"]
	if _, hasValue := members["value"]; !hasValue || hasID {
		v.unkeyed = true
		v.event(where, userOf(line), line, nil)
		return
	}
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		v.refuse(where, &schemas.RefusedError{Reason: schemas.NotJSON, Detail: "record: want key and timestamp as text and milliseconds: " + err.Error()})
		return
	}
	var key []byte
	if r.Key != nil {
		key = []byte(*r.Key)
	}
	v.event(where, key, r.value(), r.Timestamp)
}

// userOf is the user id of an event, as text; nil where it has none. The decoder then
// says what is wrong.
func userOf(event []byte) []byte {
	var members map[string]json.RawMessage // names are case-sensitive, other than in a struct
	var user string
	if json.Unmarshal(event, &members) != nil || json.Unmarshal(members["user_id"], &user) != nil {
		return nil
	}
	return []byte(user)
}

// value is the record's value: an event as it stands, the text of a string, or nil for null.
func (r *record) value() []byte {
	var text string
	switch {
	case bytes.Equal(r.Value, []byte("null")):
		return nil
	case json.Unmarshal(r.Value, &text) == nil:
		return []byte(text)
	}
	return r.Value
}

// mapped validates what a recorded file's rows become.
func (v *validation) mapped(path, mapping string) error {
	r, err := openMapped(path, mapping)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	for ev, err := range r.Events() {
		if err != nil {
			return err
		}
		v.event(idOf(ev.Value), ev.Key, ev.Value, &ev.Time)
	}
	stats := r.Stats()
	v.skipped = stats.Skipped
	if !v.quiet {
		for _, report := range stats.Reports {
			fmt.Fprintf(v.out, "%s\n", report)
		}
	}
	return nil
}

// idOf names an event in a report: by its id or, where that is no text, as it is written.
func idOf(event []byte) string {
	var members struct {
		ID json.RawMessage `json:"event_id"`
	}
	var id string
	if json.Unmarshal(event, &members) != nil || json.Unmarshal(members.ID, &id) != nil {
		return fmt.Sprintf("event_id %.60s", cmp.Or(string(members.ID), "missing"))
	}
	return id
}

// openMapped opens a recorded file by the name of a mapping, or by a file that is one.
func openMapped(path, mapping string) (*file.Reader, error) {
	m, err := file.LoadMapping(mapping)
	if err != nil {
		return nil, &usageError{err}
	}
	return file.Open(path, m, file.Options{})
}

// event validates one event. Without a timestamp it is as if published now.
func (v *validation) event(where string, key, value []byte, timestamp *schemas.Millis) {
	var ev schemas.Event
	var refused *schemas.RefusedError
	now := v.now()
	at := now
	if timestamp != nil {
		at = *timestamp
	}
	err := v.decoder.Decode(key, value, &ev)
	switch {
	case errors.As(err, &refused):
		v.refuse(where, refused)
		v.hints.refused(value, refused.Reason)
		return
	case ev.At > at+futureMax:
		v.refuse(where, &schemas.RefusedError{Reason: schemas.Future, Detail: fmt.Sprintf("time: got %s, want at most %s after the record's timestamp, %s", clock(ev.At), span(futureMax), clock(at))})
		return
	case at > now+v.maxSkew:
		v.refuse(where, &schemas.RefusedError{Reason: schemas.Future, Detail: fmt.Sprintf("timestamp: got %s, want at most %s from now", clock(at), span(v.maxSkew))})
		return
	}
	v.events++
	v.accepted++
	v.byKind[ev.Kind]++
	v.remember(ev.ID)
	v.extras(ev.Extra)
	if len(ev.Timezone) > 0 && !segment.IsZone(string(ev.Timezone)) {
		v.zones.note(ev.Timezone)
	}
	if len(ev.Birthday) > 0 && schemas.BirthdayOf(ev.Birthday) == nil {
		v.birthdays.note(ev.Birthday)
	}
}

// useless counts texts of a field that are accepted and not used.
type useless struct {
	n     int64
	first string
}

func (u *useless) note(text []byte) {
	if u.n++; u.n == 1 {
		u.first = string(text)
	}
}

func (u *useless) print(out io.Writer, field, want string) {
	if u.n > 0 {
		fmt.Fprintf(out, "%s of %d, first %.60q: kept, but means nothing; want %s\n", field, u.n, u.first, want)
	}
}

// clock prints a moment for people.
func clock(at schemas.Millis) string {
	return time.UnixMilli(int64(at)).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// span prints a span of time for people.
func span(d schemas.Millis) string { return formatDuration(time.Duration(d) * time.Millisecond) }

func (v *validation) refuse(where string, r *schemas.RefusedError) {
	v.events++
	v.refused++
	if v.byReason[r.Reason]++; v.byReason[r.Reason] == 1 {
		v.first[r.Reason] = where
	}
	switch n := v.byReason[r.Reason]; {
	case v.quiet:
	case n <= int64(v.show):
		fmt.Fprintf(v.out, "%s: %s: %s\n", where, r.Reason, r.Detail)
	case n == int64(v.show)+1 && v.show > 0:
		fmt.Fprintf(v.out, "%s: %s: and more, counted below\n", where, r.Reason)
	}
}

// remember counts repeated event ids, by their hashes: among repeatedMax ids, the
// chance that any two share one is below one in two million.
func (v *validation) remember(id []byte) {
	if v.seen == nil {
		v.seen = map[uint64]struct{}{}
	}
	h := xxhash.Sum64(id)
	if _, ok := v.seen[h]; ok {
		v.repeated++
	} else if len(v.seen) < repeatedMax {
		v.seen[h] = struct{}{}
	}
}

func (v *validation) extras(extra []byte) {
	var members map[string]json.RawMessage
	if extra == nil || json.Unmarshal(extra, &members) != nil {
		return
	}
	if v.unknown == nil {
		v.unknown = map[string]int64{}
	}
	for name := range members {
		if _, known := v.unknown[name]; known || len(v.unknown) < unknownMax {
			v.unknown[name]++
		}
	}
}

// print writes the summary for people.
func (v *validation) print() {
	if v.refused > 0 {
		fmt.Fprintln(v.out)
		table := tabwriter.NewWriter(v.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "REFUSED\tREASON\tFIRST AT")
		for reason, n := range v.byReason {
			if n > 0 {
				fmt.Fprintf(table, "%d\t%s\t%s\n", n, schemas.Refusal(reason), v.first[reason])
			}
		}
		_ = table.Flush() // v.out keeps the error
		fmt.Fprintln(v.out)
	}
	fmt.Fprintf(v.out, "%s: %d accepted, %d refused\n", counted(v.events, "event"), v.accepted, v.refused)
	if v.accepted > 0 {
		var kinds []string
		for kind, n := range v.byKind {
			if n > 0 {
				kinds = append(kinds, fmt.Sprintf("%d %s", n, schemas.Kind(kind)))
			}
		}
		fmt.Fprintf(v.out, "accepted: %s\n", strings.Join(kinds, ", "))
	}
	for _, reason := range slices.Sorted(maps.Keys(v.skipped)) {
		fmt.Fprintf(v.out, "rows skipped (%s): %d\n", reason, v.skipped[reason])
	}
	if v.repeated > 0 {
		fmt.Fprintf(v.out, "repeated event ids: %d (each counts once)\n", v.repeated)
	}
	for _, name := range slices.Sorted(maps.Keys(v.unknown)) {
		fmt.Fprintf(v.out, "unknown field %.60q in %d: kept, but means nothing%s\n", name, v.unknown[name], suggest(name, schemas.EventFields()))
	}
	v.zones.print(v.out, "timezone", "an IANA name such as Europe/Berlin")
	v.birthdays.print(v.out, "birthday", "YYYY-MM-DD or --MM-DD")
	if v.refused > 0 {
		v.hints.print(v.out)
	}
	if v.unkeyed {
		fmt.Fprintln(v.out, "keys were not given: publish each event with its user_id as the record's key")
	}
}

// validated is the summary as JSON.
type validated struct {
	Events   int64            `json:"events"`
	Accepted map[string]int64 `json:"accepted"`
	Refused  map[string]int64 `json:"refused"`
	Repeated int64            `json:"repeated_event_ids"`
	Unknown  map[string]int64 `json:"unknown_fields"`
	Zones    int64            `json:"useless_timezones"`
	Births   int64            `json:"useless_birthdays"`
	Skipped  map[string]int64 `json:"rows_skipped"`
}

func (v *validation) summary() validated {
	s := validated{Events: v.events, Accepted: map[string]int64{}, Refused: map[string]int64{}, Repeated: v.repeated, Unknown: v.unknown, Zones: v.zones.n, Births: v.birthdays.n, Skipped: v.skipped}
	for kind, n := range v.byKind {
		if n > 0 {
			s.Accepted[schemas.Kind(kind).String()] = n
		}
	}
	for reason, n := range v.byReason {
		if n > 0 {
			s.Refused[schemas.Refusal(reason).String()] = n
		}
	}
	if s.Unknown == nil {
		s.Unknown = map[string]int64{}
	}
	if s.Skipped == nil {
		s.Skipped = map[string]int64{}
	}
	return s
}
