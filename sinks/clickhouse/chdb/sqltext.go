package chdb

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

// sqlText is a request's statement, and the data that follows an INSERT.
type sqlText struct {
	statement
	text string    // the whole statement, unless it is an INSERT with data
	data io.Reader // of an INSERT: what follows head, read as it is needed
}

// insertHead bounds how far into a body the head of an INSERT is looked for, so
// that its data is streamed. One with a longer head is read whole.
const insertHead = 1 << 20

// readSQL joins the query of the URL and the body as ClickHouse does: with a line
// break between. It reads the body of a plain statement to its end, but that of an
// INSERT only as far as its data.
func readSQL(query string, body io.Reader) (*sqlText, error) {
	if query != "" {
		query += "\n"
		if st := parseStatement(query); st.insert {
			return &sqlText{statement: st, data: io.MultiReader(strings.NewReader(query[st.dataAt:]), body)}, nil
		}
	}
	var text bytes.Buffer
	text.WriteString(query)
	ended, err := copyUpTo(&text, body, insertHead)
	if err != nil {
		return nil, err
	}
	st := parseStatement(text.String())
	// Where the text ends within the head, more of it may change what it says.
	if st.insert && (ended || st.dataAt < text.Len()) {
		return &sqlText{statement: st, data: io.MultiReader(bytes.NewReader(text.Bytes()[st.dataAt:]), body)}, nil
	}
	if !ended {
		if ended, err = copyUpTo(&text, body, queryMax); err != nil {
			return nil, err
		}
		if !ended {
			return nil, refuse(codeQueryIsTooLarge, "QUERY_IS_TOO_LARGE", "Query is larger than %d bytes", queryMax)
		}
		st = parseStatement(text.String())
	}
	if st.verb == "" {
		return nil, refuse(codeSyntaxError, "SYNTAX_ERROR", "Syntax error: Empty query")
	}
	if st.insert {
		return &sqlText{statement: st, data: bytes.NewReader(text.Bytes()[st.dataAt:])}, nil
	}
	return &sqlText{statement: st, text: text.String()}, nil
}

// copyUpTo copies n bytes, or all there is: then ended is true.
func copyUpTo(to io.Writer, from io.Reader, n int64) (ended bool, err error) {
	_, err = io.CopyN(to, from, n)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// selects says that the statement may give rows by the streaming way. The engine
// refuses what may not.
func (t *sqlText) selects() bool {
	return t.verb == "SELECT" || t.verb == "WITH" || t.verb == "FROM"
}

// isHello recognises the question with which clickhouse-go begins a connection.
func (t *sqlText) isHello() bool {
	return strings.TrimSpace(t.text) == "SELECT displayName(), version(), revision(), timezone()"
}

// stallReader gives up on a client that sends nothing for stallMax.
type stallReader struct {
	from    io.Reader
	control *http.ResponseController
}

func (r *stallReader) Read(p []byte) (int, error) {
	_ = r.control.SetReadDeadline(time.Now().Add(stallMax))
	n, err := r.from.Read(p)
	if err != nil {
		// The server goes on reading behind the body, to see the client leave.
		_ = r.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
