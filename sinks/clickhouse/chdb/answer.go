package chdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/klauspost/compress/gzip"
)

// answer writes one response. Headers go out with the first byte, so an error
// before that still has a status of its own; one after it is told in the body.
type answer struct {
	w        http.ResponseWriter
	control  *http.ResponseController
	compress bool // ClickHouse's frames, around the data
	gzip     bool // HTTP's, around all

	begun  bool
	tag    string // of an exception in the body
	frames *compress.Writer
	zip    *gzip.Writer
}

// frameData is how much data goes into one frame, as ClickHouse's own buffers hold.
const frameData = 1 << 20

// begin fixes the headers, once.
func (a *answer) begin(format string, out outcome) {
	if a.begun {
		return
	}
	a.begun = true
	a.tag = exceptionTag()
	h := a.w.Header()
	h.Set("Content-Type", contentType(format))
	h.Set("X-ClickHouse-Format", format)
	h.Set("X-ClickHouse-Exception-Tag", a.tag)
	h.Set("X-ClickHouse-Summary", fmt.Sprintf(
		`{"read_rows":"%d","read_bytes":"%d","written_rows":"%d","written_bytes":"%d","total_rows_to_read":"0","result_rows":"0","result_bytes":"0"}`,
		out.rowsRead, out.bytesRead, out.rowsWritten, out.bytesWritten))
	if a.compress {
		a.frames = compress.NewWriter(compress.LevelZero, compress.LZ4)
	}
	if a.gzip {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
	}
}

// write sends data of the result.
func (a *answer) write(data []byte) error {
	if a.frames == nil {
		return a.send(data)
	}
	for len(data) > 0 {
		n := min(len(data), frameData)
		if err := a.frames.Compress(data[:n]); err != nil {
			return fmt.Errorf("compress the answer: %w", err)
		}
		if err := a.send(a.frames.Data); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func (a *answer) send(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	_ = a.control.SetWriteDeadline(time.Now().Add(stallMax))
	var to io.Writer = a.w
	if a.gzip {
		if a.zip == nil {
			a.zip = gzip.NewWriter(a.w)
		}
		to = a.zip
	}
	if _, err := to.Write(data); err != nil {
		return &clientGone{err}
	}
	return nil
}

// clientGone says that nobody reads the answer any more.
type clientGone struct{ err error }

func (e *clientGone) Error() string { return "send the answer: " + e.err.Error() }
func (e *clientGone) Unwrap() error { return e.err }

// end completes the answer.
func (a *answer) end() error {
	switch {
	case a.zip != nil:
		if err := a.zip.Close(); err != nil {
			return &clientGone{err}
		}
	case a.gzip:
		a.w.Header().Del("Content-Encoding") // an empty body is not gzip
	}
	_ = a.control.SetWriteDeadline(time.Time{})
	return nil
}

// fail answers with an error: by status and code, or, once the answer has begun,
// in its body, ending it in a way that no client takes for complete.
func (a *answer) fail(err error) {
	if _, gone := errors.AsType[*clientGone](err); gone {
		panic(http.ErrAbortHandler)
	}
	ex := asException(err)
	if !a.begun {
		h := a.w.Header()
		h.Set("Content-Type", "text/plain; charset=UTF-8")
		h.Set("X-ClickHouse-Exception-Code", strconv.Itoa(ex.Code))
		a.w.WriteHeader(httpStatus(ex.Code))
		_, _ = io.WriteString(a.w, ex.Text+"\n")
		return
	}
	// As in ClickHouse, src/Server/HTTP/WriteBufferFromHTTPServerResponse.cpp.
	text := ex.Text + "\n"
	block := fmt.Sprintf("\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n", a.tag, text, len(text), a.tag)
	if a.frames != nil {
		// A frame that is not packed: clickhouse-go looks for the text in the raw bytes.
		a.frames = compress.NewWriter(compress.LevelZero, compress.None)
	}
	if err := a.write([]byte(block)); err == nil {
		if a.zip != nil {
			_ = a.zip.Flush()
		}
		_ = a.control.Flush()
	}
	panic(http.ErrAbortHandler)
}

// asException gives every error a code.
func asException(err error) *Exception {
	var ex *Exception
	switch {
	case errors.As(err, &ex) && ex.Code > 0:
		return ex
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return refuse(codeQueryWasCancelled, "QUERY_WAS_CANCELLED", "Query was cancelled: the client went away, or the server stops")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return badData("the body ends early")
	}
	return refuse(codeUnknown, "UNKNOWN_EXCEPTION", "%s", strings.TrimRight(err.Error(), "."))
}

// exceptionTag returns 16 random letters, which no result holds by chance.
func exceptionTag() string {
	tag := []byte(strings.ReplaceAll(newID(), "-", "")[:16])
	for i, c := range tag {
		if c >= '0' && c <= '9' {
			tag[i] = 'g' + (c - '0')
		}
	}
	return string(tag)
}

// hello answers clickhouse-go's handshake: by client_protocol_version, which is how
// it reads this one block, and with revision 0, which is how it must read all
// others (see the package comment).
func (s *server) hello(a *answer, revision int) error {
	name, version, zone := new(proto.ColStr), new(proto.ColStr), new(proto.ColStr)
	name.Append(s.name)
	version.Append(s.version)
	zone.Append(s.zone)
	number := proto.ColUInt32{0}
	var buf proto.Buffer
	err := proto.Block{Columns: 4, Rows: 1}.EncodeBlock(&buf, revision, []proto.InputColumn{
		{Name: "displayName()", Data: name},
		{Name: "version()", Data: version},
		{Name: "revision()", Data: &number},
		{Name: "timezone()", Data: zone},
	})
	if err != nil {
		return fmt.Errorf("encode the handshake: %w", err)
	}
	a.begin("Native", outcome{})
	if err := a.write(buf.Buf); err != nil {
		return err
	}
	return a.end()
}
