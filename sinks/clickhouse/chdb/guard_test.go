package chdb

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// A request that is not admitted never comes to the engine: there is none here. With
// a password that is whoever does not give it; without one it is web pages and other
// machines' names.
func FuzzAdmit(f *testing.F) {
	for _, s := range []string{
		"POST /?query=SELECT+1 HTTP/1.1\r\nHost: 127.0.0.1:8123\r\nOrigin: https://evil.example\r\n\r\n",
		"GET /?query=SELECT+1&user=default&password=x HTTP/1.1\r\nHost: evil.example\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nX-ClickHouse-User: shop\r\nX-ClickHouse-Key: secret2\r\nContent-Length: 8\r\n\r\nSELECT 1",
		"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n", "GET /?query HTTP/1.1\r\nHost: h\r\nAuthorization: Basic c2hvcDo=\r\n\r\n",
		"GET /?query=SELECT+1 HTTP/1.1\r\nHost: localhost:8123\r\nSec-Fetch-Site: cross-site\r\n\r\n",
		"HEAD / HTTP/1.0\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "POST /play HTTP/1.1\r\nHost: [::1]:8123\r\nOrigin: http://localhost:3000\r\n\r\n",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, raw []byte, closed bool) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(raw))))
		if err != nil {
			return
		}
		s := &server{name: "x", version: "26.7", zone: "UTC"}
		if closed {
			s.user, s.password = "shop", "secret"
		}
		if !closed && isLocal(hostOf(r.Host)) && fromHere(r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")) {
			return // an engine would answer
		}
		if closed && mentions(r, "secret") {
			return // it may be right
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r) // panics if it comes to the engine
		switch w.Code {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotFound:
		case http.StatusOK:
			if body := w.Body.String(); body != "Ok.\n" {
				t.Errorf("%q: answered with %q", raw, body)
			}
		default:
			t.Errorf("%q: status %d", raw, w.Code)
		}
	})
}

func fromHere(origin, site string) bool {
	if origin == "" {
		return site != "cross-site"
	}
	u, err := url.Parse(origin)
	return err == nil && isLocal(u.Hostname())
}

// mentions tells whether a request has the password anywhere it is looked for.
func mentions(r *http.Request, password string) bool {
	_, basic, _ := r.BasicAuth()
	return basic == password || r.Header.Get("X-ClickHouse-Key") == password || r.URL.Query().Get("password") == password
}

// A body comes out of any encoding as it went in, and hostile ones end, in an error or
// in bytes, however much they would expand to.
func FuzzBody(f *testing.F) {
	encodings := []string{"", "identity", "gzip", "deflate", "zstd", "br"}
	for i := range encodings {
		f.Add(uint8(i), []byte("SELECT 1"))
	}
	f.Add(uint8(4), []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 19 << 3, 0x23, 0x03, 0x00, 'x'})
	f.Add(uint8(2), []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1})
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		encoding := encodings[int(which)%len(encodings)]
		if r, err := decodeBody(bytes.NewReader(b), encoding); err == nil {
			_, _ = io.CopyN(io.Discard, r, 4<<20)
		} else if ex, ok := errors.AsType[*Exception](err); !ok || ex.Code == 0 {
			t.Errorf("%s: %v has no code", encoding, err)
		}
		var packed bytes.Buffer
		var z io.WriteCloser
		switch encoding {
		case "gzip":
			z = gzip.NewWriter(&packed)
		case "deflate":
			z = zlib.NewWriter(&packed)
		case "zstd":
			var err error
			if z, err = zstd.NewWriter(&packed, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest)); err != nil {
				t.Fatal(err)
			}
		default:
			return
		}
		_, err := z.Write(b)
		if err := errors.Join(err, z.Close()); err != nil {
			t.Fatal(err)
		}
		r, err := decodeBody(&packed, encoding)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := io.ReadAll(r); err != nil || !bytes.Equal(back, b) {
			t.Errorf("%s: %d bytes come back as %d, %v", encoding, len(b), len(back), err)
		}
	})
}
