package chdb

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// request is what an HTTP request asks of the engine.
type request struct {
	query    string // of the URL; the body may hold the rest
	id       string // query_id
	database string
	format   string // where the statement names none
	settings []param
	params   []param

	compress, decompress bool // ClickHouse's own frames, in the answer and in the body
	gzip                 bool // the client takes gzip
	whole                bool // wait_end_of_query: nothing is sent before the statement has ended
	readOnly             bool
	revision             int // client_protocol_version
}

// Settings are written into a SET statement, so their names must be plain.
var settingName = regexp.MustCompile(`\A[A-Za-z_][A-Za-z0-9_]{0,127}\z`)

// parseRequest reads all of a request but its body. Errors are the client's fault.
func parseRequest(r *http.Request) (*request, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(codeBadArguments, "BAD_ARGUMENTS", "URL parameters: %v", err)
	}
	q := &request{
		database: r.Header.Get("X-ClickHouse-Database"),
		format:   r.Header.Get("X-ClickHouse-Format"),
		readOnly: r.Method != http.MethodPost,
	}
	for _, name := range slices.Sorted(mapKeys(values)) {
		value := values.Get(name)
		switch name {
		case "query":
			q.query = value
		case "query_id":
			q.id = value
		case "database":
			q.database = value
		case "default_format":
			q.format = value
		case "compress":
			q.compress = isTrue(value)
		case "decompress":
			q.decompress = isTrue(value)
		case "wait_end_of_query":
			q.whole = isTrue(value)
		case "client_protocol_version":
			q.revision, _ = strconv.Atoi(value)
		case "user", "password", "quota_key", "role", "session_id", "session_timeout", "session_check",
			"buffer_size", "stacktrace", "log_comment", "close_session", "client_info":
			// Checked elsewhere, or without meaning for one user and no sessions.
			// log_comment is ours: it is how a statement is found again to be killed.
		default:
			if p, ok := strings.CutPrefix(name, "param_"); ok {
				q.params = append(q.params, param{p, value})
				continue
			}
			if !settingName.MatchString(name) {
				return nil, refuse(codeUnknownSetting, "UNKNOWN_SETTING", "Unknown setting %q", name)
			}
			q.settings = append(q.settings, param{name, value})
		}
	}
	q.format = cmp.Or(q.format, "TabSeparated")
	q.gzip = strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") && values.Get("enable_http_compression") != "0"
	return q, nil
}

func mapKeys(values url.Values) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range values {
			if !yield(k) {
				return
			}
		}
	}
}

func isTrue(s string) bool { return s == "1" || strings.EqualFold(s, "true") }

// set returns the SET statement of the request, with comment as its log_comment.
func (q *request) set(comment string) string {
	var b strings.Builder
	b.WriteString("SET log_comment = " + quote(comment))
	for _, s := range q.settings {
		b.WriteString(", " + s.name + " = " + quote(s.value))
	}
	return b.String()
}

// quote writes s as an SQL string.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// quoteName writes s as an SQL name.
func quoteName(s string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(s) + "`"
}

// body returns the request's body, decoded: first HTTP's encoding, then ClickHouse's.
func (q *request) body(r *http.Request) (io.Reader, error) {
	if t := r.Header.Get("Content-Type"); strings.HasPrefix(t, "multipart/") {
		return nil, refuse(codeNotImplemented, "NOT_IMPLEMENTED", "the embedded engine takes no external tables (multipart/form-data)")
	}
	body, err := decodeBody(r.Body, r.Header.Get("Content-Encoding"))
	if err != nil {
		return nil, err
	}
	if q.decompress {
		body = &frameReader{from: body}
	}
	return body, nil
}

func decodeBody(body io.Reader, encoding string) (io.Reader, error) {
	var err error
	switch strings.ToLower(encoding) {
	case "", "identity":
	case "gzip", "x-gzip":
		body, err = gzip.NewReader(body)
	case "deflate":
		body, err = zlib.NewReader(body)
	case "zstd":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(frameMax)); err == nil {
			body = d.IOReadCloser()
		}
	default:
		return nil, refuse(codeUnknownCompression, "UNKNOWN_COMPRESSION_METHOD", "Unknown Content-Encoding %q; use gzip, deflate or zstd", encoding)
	}
	if err != nil {
		return nil, badData("body: %v", err)
	}
	return body, nil
}

// frameMax bounds a frame of compressed data, packed and unpacked.
const frameMax = 128 << 20

// The header of a frame (ClickHouse, src/Compression/CompressedReadBufferBase.cpp):
//
//	offset  0, size 16: CityHash128 of all that follows
//	offset 16, size  1: method: 0x02 none, 0x82 LZ4, 0x90 ZSTD
//	offset 17, size  4: size of the data packed, plus 9, little endian
//	offset 21, size  4: size of the data unpacked, little endian
const (
	frameHeader  = 25
	frameCounted = 9 // what the packed size counts beyond the data
	frameMethod  = 16
	methodZSTD   = 0x90
)

// frameReader unpacks frames. It reads each whole before ch-go unpacks it, so that an
// end within a frame is an error and not the end. A small frame may claim frameMax
// unpacked, and takes that: only who was admitted, and may run any statement, sends one.
type frameReader struct {
	from  io.Reader
	frame bytes.Buffer
	data  []byte // unpacked, not yet read
	err   error
}

func (f *frameReader) Read(p []byte) (int, error) {
	for len(f.data) == 0 {
		if f.err != nil {
			return 0, f.err
		}
		f.data, f.err = f.next()
	}
	n := copy(p, f.data)
	f.data = f.data[n:]
	return n, nil
}

func (f *frameReader) next() ([]byte, error) {
	f.frame.Reset()
	if _, err := io.CopyN(&f.frame, f.from, frameHeader); err != nil {
		if errors.Is(err, io.EOF) && f.frame.Len() > 0 {
			return nil, badData("compressed body ends within a frame's header")
		}
		return nil, err
	}
	header := f.frame.Bytes()
	packed := int64(binary.LittleEndian.Uint32(header[17:])) - frameCounted
	unpacked := int64(binary.LittleEndian.Uint32(header[21:]))
	if packed < 0 || packed > frameMax || unpacked > frameMax {
		return nil, badData("compressed body: frame of %d bytes, %d unpacked; the limit is %d", packed, unpacked, frameMax)
	}
	if _, err := io.CopyN(&f.frame, f.from, packed); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, badData("compressed body ends within a frame")
		}
		return nil, err
	}
	if frame := f.frame.Bytes(); frame[frameMethod] == methodZSTD {
		if err := unpacksTo(frame[frameHeader:], unpacked); err != nil {
			return nil, badData("compressed body: %v", err)
		}
	}
	data := make([]byte, unpacked)
	if _, err := io.ReadFull(compress.NewReader(bytes.NewReader(f.frame.Bytes())), data); err != nil {
		return nil, badData("compressed body: %v", err)
	}
	return data, nil
}

// unpacksTo refuses ZSTD data that gives more than it should: ch-go unpacks all of it
// before it compares, and a few kilobytes may give gigabytes. It costs a second unpacking,
// without memory; what footfall sends by itself is LZ4.
func unpacksTo(packed []byte, size int64) error {
	d, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(frameMax))
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = io.CopyN(io.Discard, d, size+1)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err == nil:
		return fmt.Errorf("a frame gives more than the %d bytes it says", size)
	}
	return err
}

// Codes of ClickHouse (src/Common/ErrorCodes.cpp) that are given or told apart here.
const (
	codeBadArguments        = 36
	codeNotImplemented      = 48
	codeSyntaxError         = 62
	codeUnknownCompression  = 89
	codeUnknownSetting      = 115
	codeIncorrectData       = 117
	codeTooManyQueries      = 202
	codeQueryIsTooLarge     = 229
	codeRequiredPassword    = 194
	codeQueryWasCancelled   = 394
	codeAccessDenied        = 497
	codeAuthenticationFails = 516
	codeUnknown             = 1002
)

// refuse words an error of ours as ClickHouse words its own.
func refuse(code int, name, format string, args ...any) *Exception {
	return &Exception{Code: code, Text: fmt.Sprintf("Code: %d. DB::Exception: %s. (%s)", code, fmt.Sprintf(format, args...), name)}
}

func badData(format string, args ...any) *Exception {
	return refuse(codeIncorrectData, "INCORRECT_DATA", format, args...)
}

// httpStatus is the HTTP status of an exception, as ClickHouse maps them
// (src/Server/HTTP/exceptionCodeToHTTPStatus.cpp).
func httpStatus(code int) int {
	switch code {
	case codeRequiredPassword:
		return http.StatusUnauthorized
	case 192, 193, codeAccessDenied, codeAuthenticationFails:
		return http.StatusForbidden
	case 6, 8, 15, 25, 26, 27, codeBadArguments, 37, 38, 41, 44, 53, codeSyntaxError, 72, codeIncorrectData, 123, 167, 168, 223, 321,
		376, 427, 441, 675, 676:
		return http.StatusBadRequest
	case 46, 47, 50, 56, 60, 63, 73, 78, 81, codeUnknownSetting, 152, 336, 511:
		return http.StatusNotFound
	case codeQueryIsTooLarge:
		return http.StatusRequestEntityTooLarge
	case codeNotImplemented:
		return http.StatusNotImplemented
	case 76, 209, 439:
		return http.StatusServiceUnavailable
	case 159:
		return http.StatusRequestTimeout
	}
	return http.StatusInternalServerError
}
