package file

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"footfall/schemas"
)

// asTheyAre calls each with every line, which is an event already. It looks only for
// whose event it is, and when; everything else is for the consumer to judge.
func (r *Reader) asTheyAre(each func(*draft) error) error {
	line := int64(0)
	for r.lines.Scan() {
		line++
		text := bytes.TrimSpace(r.lines.Bytes())
		if len(text) == 0 {
			continue
		}
		r.stats.Rows++
		d, bad := lineDraft(text, line)
		if bad != nil {
			r.malformed(bad)
			continue
		}
		if err := each(d); err != nil {
			return err
		}
	}
	if err := scanError(r.lines.Err(), line); err != nil {
		return fmt.Errorf("%s:%w", r.name, err)
	}
	return nil
}

func lineDraft(text []byte, line int64) (*draft, *rowError) {
	// A map, because encoding/json gives a struct's field any member that differs only
	// in case.
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, &rowError{line: line, reason: "not a JSON object: " + err.Error()}
	}
	var user string
	if err := json.Unmarshal(members["user_id"], &user); err != nil || user == "" {
		return nil, &rowError{line: line, column: "user_id", reason: "a string that is not empty is expected"}
	}
	at, ok := contractTime(string(members["time"]))
	if !ok {
		return nil, &rowError{line: line, column: "time", reason: "an RFC 3339 time with offset or whole milliseconds are expected"}
	}
	return &draft{key: user, time: at, line: line, whole: bytes.Clone(text)}, nil
}

// contractTime reads the contract's time from its JSON.
func contractTime(raw string) (schemas.Millis, bool) {
	if n, err := strconv.ParseInt(raw, 10, 64); err == nil {
		return schemas.Millis(n), true
	}
	return schemas.ParseTime([]byte(strings.Trim(raw, `"`)))
}
