package clickhouse

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/ch-go/proto"
)

// A bridge speaks ClickHouse's native protocol (src/Core/Protocol.h) on one side and
// asks the engine over HTTP on the other. The engine has no native port, and there is
// no server to be had here; so what is tested by it is all of our side: clickhouse-go's
// native code, with compressed blocks, settings, headers of inserts and exceptions. It
// does as a server does, as far as the sink can see: it knows one block after the other,
// answers one query at a time, and closes a connection whose outcome it can't tell.
type bridge struct {
	t      testing.TB
	engine url.URL // of the HTTP interface
}

// native starts a bridge before the engine of an HTTP DSN, and returns the native one.
func native(t testing.TB, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		listener.Close()
	})
	b := &bridge{t: t, engine: url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/"}}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			go func() {
				defer conn.Close()
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				defer stop()
				s := &session{bridge: b, ctx: ctx, conn: conn, in: proto.NewReader(conn)}
				if err := s.serve(); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errDropped) && ctx.Err() == nil && !closed(err) {
					t.Errorf("bridge: %v", err)
				}
			}()
		}
	}()
	u.Scheme, u.Host = "clickhouse", listener.Addr().String()
	return u.String()
}

// closed tells that the client has gone.
func closed(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, io.ErrUnexpectedEOF)
}

// errDropped says that the outcome is not known: the connection is closed without a word.
var errDropped = errors.New("dropped")

// session is one connection.
type session struct {
	*bridge
	ctx      context.Context
	conn     net.Conn
	in       *proto.Reader
	out      proto.Buffer
	hello    proto.ClientHello
	revision int
	compress bool // of the query under way
}

func (s *session) flush() error {
	_, err := s.conn.Write(s.out.Buf)
	s.out.Reset()
	return err
}

func (s *session) serve() error {
	if code, err := s.in.UVarInt(); err != nil || code != uint64(proto.ClientCodeHello) {
		return fmt.Errorf("a packet %d instead of the hello: %w", code, err)
	}
	if err := s.hello.Decode(s.in); err != nil {
		return err
	}
	// A server refuses a wrong user or an unknown database at once.
	s.revision = min(s.hello.ProtocolVersion, proto.Version)
	answer, err := s.ask(&proto.Query{Body: "SELECT 1"}, nil)
	if err != nil {
		return s.fail(err)
	}
	answer.Close()
	(&proto.ServerHello{Name: "ClickHouse", Major: 26, Minor: 7, Revision: proto.Version, Timezone: "UTC", DisplayName: "bridge"}).EncodeAware(&s.out, s.revision)
	if err := s.flush(); err != nil {
		return err
	}
	if proto.FeatureAddendum.In(s.revision) {
		if _, err := s.in.Str(); err != nil { // the quota key
			return err
		}
	}
	for {
		code, err := s.in.UVarInt()
		if err != nil {
			return err
		}
		switch proto.ClientCode(code) {
		case proto.ClientCodePing:
			proto.ServerCodePong.Encode(&s.out)
			err = s.flush()
		case proto.ClientCodeCancel:
		case proto.ClientCodeQuery:
			err = s.query()
		default:
			err = fmt.Errorf("packet %d where a query is expected", code)
		}
		if err != nil {
			return err
		}
	}
}

var insertInto = regexp.MustCompile(`^INSERT INTO (\S+) \(([^()]*)\)(?: VALUES| FORMAT Native)?\s*$`)

func (s *session) query() error {
	var q proto.Query
	if err := q.DecodeAware(s.in, s.revision); err != nil {
		return err
	}
	s.compress = q.Compression == proto.CompressionEnabled
	if b, err := s.data(); err != nil || len(b.names) > 0 {
		return fmt.Errorf("external tables, or a broken block: %w", err)
	}
	if m := insertInto.FindStringSubmatch(q.Body); m != nil {
		return s.insert(&q, m[1], strings.Split(m[2], ", "))
	}
	return s.result(&q)
}

// result sends the blocks that a query gives, behind one that names its columns.
func (s *session) result(q *proto.Query) error {
	answer, err := s.ask(q, nil)
	if err != nil {
		return s.fail(err)
	}
	defer answer.Close()
	if strings.HasPrefix(q.Body, "SELECT") {
		head, err := s.describe("("+q.Body+")", nil, q.Parameters...)
		if err != nil {
			return s.fail(err)
		}
		s.block(head)
	}
	rows := uint64(0)
	in := proto.NewReader(bufio.NewReader(answer))
	for {
		b, err := decode(in, 0)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", q.Body, err)
		}
		rows += uint64(b.rows)
		s.block(b)
	}
	return s.end(rows)
}

// insert sends an empty block of the table's columns, takes the rows, and has them
// inserted when the last has come: a client that goes away before inserts nothing.
func (s *session) insert(q *proto.Query, table string, columns []string) error {
	head, err := s.describe("TABLE "+table, columns)
	if err != nil {
		return s.fail(err)
	}
	proto.TableColumns{Second: "columns format version: 1\n"}.EncodeAware(&s.out, s.revision)
	s.block(head)
	if err := s.flush(); err != nil {
		return err
	}
	var body proto.Buffer
	for {
		b, err := s.data()
		if err != nil {
			return err
		}
		if b.rows == 0 {
			break
		}
		b.encode(&body, 0)
	}
	insert := *q
	insert.Body = fmt.Sprintf("INSERT INTO %s (%s) FORMAT Native", table, strings.Join(columns, ", "))
	answer, err := s.ask(&insert, body.Buf)
	if err != nil {
		return s.fail(err)
	}
	answer.Close()
	return s.end(0)
}

// end says what a server says behind the last block.
func (s *session) end(rows uint64) error {
	proto.ServerCodeProgress.Encode(&s.out)
	proto.Progress{Rows: rows}.EncodeAware(&s.out, s.revision)
	proto.Profile{Rows: rows, Blocks: 1}.EncodeAware(&s.out, s.revision)
	proto.ServerCodeEndOfStream.Encode(&s.out)
	return s.flush()
}

// engineError is what the engine says is wrong.
type engineError struct {
	code int
	text string
}

func (e *engineError) Error() string { return e.text }

// fail sends an exception of the engine's; anything else drops the connection.
func (s *session) fail(err error) error {
	var said *engineError
	if !errors.As(err, &said) {
		return fmt.Errorf("%w: %w", errDropped, err)
	}
	text, name := said.text, "DB::Exception"
	if _, after, ok := strings.Cut(text, name+": "); ok {
		text = after
	}
	proto.ServerCodeException.Encode(&s.out)
	(&proto.Exception{Code: proto.Error(said.code), Name: name, Message: name + ": " + text}).EncodeAware(&s.out, s.revision)
	return s.flush()
}

// unquoted takes back what the driver escapes between the quotes of a parameter.
var unquoted = strings.NewReplacer(`\\`, `\`, `\'`, `'`, `\n`, "\n", `\r`, "\r", `\t`, "\t", `\0`, "\x00")

// ask has the engine run a query; body, if any, is the data of an insert.
func (s *session) ask(q *proto.Query, body []byte) (io.ReadCloser, error) {
	p := url.Values{"database": {s.hello.Database}, "default_format": {"Native"}, "query_id": {q.ID}}
	for _, set := range q.Settings {
		p.Set(set.Key, set.Value)
	}
	for _, param := range q.Parameters {
		p.Set("param_"+param.Key, unquoted.Replace(param.Value[1:len(param.Value)-1]))
	}
	send := io.Reader(strings.NewReader(q.Body))
	if body != nil {
		p.Set("query", q.Body)
		send = strings.NewReader(string(body))
	}
	to := s.engine
	to.RawQuery = p.Encode()
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, to.String(), send)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-ClickHouse-User", s.hello.User)
	req.Header.Set("X-ClickHouse-Key", s.hello.Password)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	said := &engineError{text: strings.TrimSpace(string(text))}
	if _, err := fmt.Sscanf(said.text, "Code: %d.", &said.code); err != nil {
		return nil, errors.New(said.text)
	}
	return nil, said
}

// describe gives an empty block of what a table or a query has: of all its columns, or
// of those named.
func (s *session) describe(what string, names []string, params ...proto.Parameter) (*columns, error) {
	answer, err := s.ask(&proto.Query{
		Body:       "DESCRIBE " + what + " FORMAT TabSeparatedRaw",
		Settings:   []proto.Setting{{Key: "print_pretty_type_names", Value: "0"}}, // a type is within its line
		Parameters: params,
	}, nil)
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	text, err := io.ReadAll(answer)
	if err != nil {
		return nil, err
	}
	types := map[string]string{}
	var all []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(line, "\t")
		types[fields[0]] = fields[1]
		all = append(all, fields[0])
	}
	if names == nil {
		names = all
	}
	b := &columns{}
	for _, name := range names {
		if types[name] == "" {
			return nil, &engineError{16, "Code: 16. DB::Exception: No such column " + name + " in " + what}
		}
		if err := b.add(name, types[name]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// data reads a block that the client sends.
func (s *session) data() (*columns, error) {
	code, err := s.in.UVarInt()
	if err == nil && proto.ClientCode(code) != proto.ClientCodeData {
		err = fmt.Errorf("packet %d where data is expected", code)
	}
	if err != nil {
		return nil, err
	}
	var head proto.ClientData
	if err := head.DecodeAware(s.in, s.revision); err != nil {
		return nil, err
	}
	if s.compress {
		s.in.EnableCompression()
		defer s.in.DisableCompression()
	}
	return decode(s.in, s.revision)
}

// block sends a block to the client, compressed if it wants that.
func (s *session) block(b *columns) {
	proto.ServerCodeData.Encode(&s.out)
	proto.ClientData{}.EncodeAware(&s.out, s.revision) // the same in both directions
	if !s.compress {
		b.encode(&s.out, s.revision)
		return
	}
	var plain proto.Buffer
	b.encode(&plain, s.revision)
	w := compress.NewWriter(compress.LevelZero, compress.LZ4)
	if err := w.Compress(plain.Buf); err != nil {
		panic(err) // nothing is written anywhere
	}
	s.out.PutRaw(w.Data)
}

// columns is a block: its columns' names, types and values.
type columns struct {
	names, types []string
	values       []proto.Column
	rows         int
}

func (b *columns) add(name, chType string) error {
	c, err := valuesOf(chType)
	if err != nil {
		return fmt.Errorf("column %s: %w", name, err)
	}
	b.names, b.types, b.values = append(b.names, name), append(b.types, chType), append(b.values, c)
	return nil
}

// valuesOf makes a column of ch-go's for a type.
func valuesOf(chType string) (proto.Column, error) {
	switch chType {
	case "Map(LowCardinality(String), String)":
		return proto.NewMap(proto.NewLowCardinality(new(proto.ColStr)), new(proto.ColStr)), nil
	case "Array(Tuple(key String, value String))":
		return &pairs{}, nil
	}
	c := new(proto.ColAuto)
	if err := c.Infer(proto.ColumnType(chType)); err != nil {
		return nil, err
	}
	return c.Data, nil
}

// decode reads a block of a revision.
func decode(in *proto.Reader, revision int) (*columns, error) {
	if proto.FeatureBlockInfo.In(revision) {
		if err := new(proto.BlockInfo).Decode(in); err != nil {
			return nil, err
		}
	}
	n, err := in.Int()
	if err != nil {
		return nil, err
	}
	b := &columns{}
	if b.rows, err = in.Int(); err != nil {
		return nil, err
	}
	for i := range n {
		name, err1 := in.Str()
		chType, err2 := in.Str()
		custom, err3 := false, error(nil)
		if proto.FeatureCustomSerialization.In(revision) {
			custom, err3 = in.Bool()
		}
		if err := errors.Join(err1, err2, err3); err != nil || custom {
			return nil, fmt.Errorf("column %d, custom serialization %v: %w", i, custom, err)
		}
		if err := b.add(name, chType); err != nil {
			return nil, err
		}
		if b.rows == 0 {
			continue
		}
		if c, ok := b.values[i].(proto.StateDecoder); ok {
			if err := c.DecodeState(in); err != nil {
				return nil, err
			}
		}
		if err := b.values[i].DecodeColumn(in, b.rows); err != nil {
			return nil, fmt.Errorf("column %s: %w", name, err)
		}
	}
	return b, nil
}

// encode writes a block for a revision.
func (b *columns) encode(to *proto.Buffer, revision int) {
	if proto.FeatureBlockInfo.In(revision) {
		proto.BlockInfo{BucketNum: -1}.Encode(to)
	}
	to.PutInt(len(b.names))
	to.PutInt(b.rows)
	for i, c := range b.values {
		to.PutString(b.names[i])
		to.PutString(b.types[i])
		if proto.FeatureCustomSerialization.In(revision) {
			to.PutBool(false)
		}
		if b.rows == 0 {
			continue
		}
		if p, ok := c.(proto.Preparable); ok {
			if err := p.Prepare(); err != nil {
				panic(err) // of what was decoded
			}
		}
		if s, ok := c.(proto.StateEncoder); ok {
			s.EncodeState(to)
		}
		c.EncodeColumn(to)
	}
}

// pairs is Array(Tuple(key String, value String)): where each row ends, all keys, all
// values.
type pairs struct {
	ends       proto.ColUInt64
	keys, text proto.ColStr
}

func (p *pairs) Type() proto.ColumnType { return "Array(Tuple(key String, value String))" }
func (p *pairs) Rows() int              { return p.ends.Rows() }
func (p *pairs) Reset()                 { *p = pairs{} }

func (p *pairs) DecodeColumn(in *proto.Reader, rows int) error {
	if err := p.ends.DecodeColumn(in, rows); err != nil {
		return err
	}
	n := int(p.ends.Row(rows - 1))
	return errors.Join(p.keys.DecodeColumn(in, n), p.text.DecodeColumn(in, n))
}

func (p *pairs) EncodeColumn(to *proto.Buffer) {
	p.ends.EncodeColumn(to)
	p.keys.EncodeColumn(to)
	p.text.EncodeColumn(to)
}

func (p *pairs) WriteColumn(to *proto.Writer) { to.ChainBuffer(p.EncodeColumn) }
