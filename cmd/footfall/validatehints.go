package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"footfall/schemas"
)

// hints are guesses at what is behind refusals: a person who sees a thousand of them
// wants to know the one thing to change.
type hints struct {
	file  string           // about the whole file; "": none
	types map[string]int64 // unknown types
	names map[string]int64 // unknown fields of refused events
	short int64            // times that look like seconds
	zone  int64            // times without an offset
}

// hintsMax bounds how many different unknown types and fields are remembered.
const hintsMax = 50

// head looks at the first line of a file.
func (h *hints) head(line []byte) {
	switch {
	case bytes.HasPrefix(line, []byte{0xef, 0xbb, 0xbf}):
		h.file = "the file begins with a byte order mark, which is no JSON: tail -c +4 FILE | footfall validate -"
	case bytes.HasPrefix(line, []byte{0xff, 0xfe}), bytes.HasPrefix(line, []byte{0xfe, 0xff}):
		h.file = "the file is UTF-16: iconv -f utf-16 -t utf-8 FILE | footfall validate -"
	case bytes.HasPrefix(bytes.TrimSpace(line), []byte("[")):
		h.file = "the file is one JSON array, and events are one a line: jq -c '.[]' FILE | footfall validate -"
	case string(bytes.TrimSpace(line)) == "{":
		h.file = "the file is JSON over several lines, and events are one a line: jq -c . FILE | footfall validate -"
	}
}

// refused looks at an event that was refused.
func (h *hints) refused(value []byte, reason schemas.Refusal) {
	var members map[string]json.RawMessage
	if json.Unmarshal(value, &members) != nil {
		return
	}
	switch reason { //nolint:exhaustive // of the others there is nothing to guess
	case schemas.UnknownType:
		var t string
		if json.Unmarshal(members["type"], &t) == nil {
			count(&h.types, t)
		}
	case schemas.Before1990:
		var seconds int64
		if json.Unmarshal(members["time"], &seconds) == nil && schemas.Millis(seconds)*schemas.Second > 631_152_000_000 {
			h.short++
		}
	case schemas.BadTime:
		var t string
		if json.Unmarshal(members["time"], &t) == nil && len(t) >= len("2006-01-02T15:04:05") && !strings.ContainsAny(t[10:], "zZ+-") {
			h.zone++
		}
	case schemas.MissingField, schemas.EmptyField:
		for name := range members {
			if !slices.Contains(schemas.EventFields(), name) {
				count(&h.names, name)
			}
		}
	}
}

func count(names *map[string]int64, name string) {
	if *names == nil {
		*names = map[string]int64{}
	}
	if _, known := (*names)[name]; known || len(*names) < hintsMax {
		(*names)[name]++
	}
}

// print writes the guesses.
func (h *hints) print(out io.Writer) {
	say := func(format string, args ...any) { fmt.Fprintf(out, "hint: "+format+"\n", args...) }
	if h.file != "" {
		say("%s", h.file)
	}
	if h.short > 0 {
		say("the time of %d looks like seconds; send milliseconds, or RFC 3339 with offset", h.short)
	}
	if h.zone > 0 {
		say("the time of %d has no offset: nobody can tell which moment is meant; end it with Z for UTC, or +02:00", h.zone)
	}
	var kinds []string
	for kind := range schemas.Kinds {
		kinds = append(kinds, kind.String())
	}
	for _, t := range slices.Sorted(maps.Keys(h.types)) {
		if s := suggest(folded(t), kinds); s != "" {
			say("type %q in %d%s", t, h.types[t], s)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(h.names)) {
		if s := suggest(folded(name), schemas.EventFields()); s != "" {
			say("field %q in %d%s", name, h.names[name], s)
		}
	}
}

// folded is a name as the contract would write it: userId, User-ID and "user id" are
// user_id.
func folded(name string) string {
	var b strings.Builder
	for i, r := range name {
		switch {
		case r == '-' || r == ' ' || r == '.':
			r = '_'
		case 'A' <= r && r <= 'Z':
			if i > 0 && name[i-1] >= 'a' && name[i-1] <= 'z' {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}
