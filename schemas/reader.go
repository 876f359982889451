package schemas

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// reader reads JSON that we wrote ourselves. After the first fault it keeps its
// error and gives zero values, so that a caller checks once.
type reader struct {
	scanner
	err error
}

func (r *reader) failed(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) wrong(name string, v token, want string) {
	if v.kind == absent {
		r.failed(fmt.Errorf("transition: %s: missing, want %s", name, want))
		return
	}
	r.failed(fmt.Errorf("transition: %s: got %s, want %s", name, got(r.raw(v)), want))
}

// whole checks the text and returns its one value.
func (r *reader) whole() token {
	if !utf8.Valid(r.text) {
		r.failed(fmt.Errorf("transition: not UTF-8"))
		return token{}
	}
	v, next := r.value(r.space(0), 0)
	if next >= 0 {
		if next = r.space(next); next < len(r.text) {
			r.fail(next, "nothing more")
		}
	}
	if r.fault != sound {
		r.failed(fmt.Errorf("transition: not JSON: byte %d: want %s", r.at, r.want))
		return token{}
	}
	if r.lone >= 0 {
		r.failed(fmt.Errorf("transition: byte %d: half a surrogate pair", r.lone))
	}
	return v
}

// object calls each for every member of an object and checks that those of
// required are there.
func (r *reader) object(v token, name string, each func(name string, v token), required ...string) {
	if v.kind != object {
		r.wrong(name, v, "an object")
		return
	}
	i := int(v.start) + 1
	for first := true; ; first = false {
		key, val, next := r.member(i, 0, first)
		if key.kind == absent {
			break
		}
		each(r.string(key, name), val)
		i = next
	}
	for _, name := range required {
		if r.get(v, name).kind == absent {
			r.wrong(name, token{}, "a value")
		}
	}
}

// get returns the last member of that name of an object; of a v that is no
// object, and where there is none, it is absent.
func (r *reader) get(v token, name string) (found token) {
	if v.kind != object {
		return token{}
	}
	i := int(v.start) + 1
	for first := true; ; first = false {
		key, val, next := r.member(i, 0, first)
		if key.kind == absent {
			return found
		}
		if !key.escaped && string(r.inner(key)) == name {
			found = val
		}
		i = next
	}
}

func (r *reader) string(v token, name string) string {
	if v.kind != text {
		r.wrong(name, v, "a string")
		return ""
	}
	s, _ := r.unquote(v, nil)
	return string(s)
}

func (r *reader) integer(v token, name string, least, most int64) int64 {
	if v.kind == number {
		n, err := strconv.ParseInt(string(r.raw(v)), 10, 64)
		if err == nil && n >= least && n <= most {
			return n
		}
	}
	r.wrong(name, v, fmt.Sprintf("a whole number from %d to %d", least, most))
	return 0
}

func (r *reader) moment(v token, name string) Millis {
	const form = "2006-01-02T15:04:05.000Z" // and no other: appendTime writes it
	if v.kind == text && !v.escaped {
		in := r.inner(v)
		if t, ok := ParseTime(in); ok && len(in) == len(form) && in[len(in)-1] == 'Z' {
			return t
		}
	}
	r.wrong(name, v, "a time")
	return 0
}

func (r *reader) hex(v token, name string) uint64 {
	if v.kind == text && !v.escaped {
		if u, ok := parseHex16(string(r.inner(v))); ok {
			return u
		}
	}
	r.wrong(name, v, "16 hex digits")
	return 0
}

// parseHex16 reads sixteen lower-case hex digits.
func parseHex16(s string) (uint64, bool) {
	for i := range len(s) {
		if unhex(s[i]) < 0 || s[i] >= 'A' && s[i] <= 'F' {
			return 0, false
		}
	}
	u, err := strconv.ParseUint(s, 16, 64)
	return u, err == nil && len(s) == 16
}

// parsed reads one of a list of names.
func parsed[T any](r *reader, v token, name string, parse func(string) (T, bool)) T {
	s := r.string(v, name)
	x, ok := parse(s)
	if !ok {
		r.wrong(name, v, "a known one")
	}
	return x
}
