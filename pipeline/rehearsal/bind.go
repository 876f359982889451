package rehearsal

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/token"

	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// binder gives what was written its meaning under the rules, and notes all that has
// none.
type binder struct {
	yamlReader

	rules   *segment.Program
	decoder *schemas.Decoder
	loc     *time.Location
	number  int // of the example that is being bound
}

func (b *binder) id(name string) string { return fmt.Sprintf("%d/%s", b.number, name) }

// bound is an example whose times and names have a meaning.
type bound struct {
	steps []boundStep
	wants []boundWant
	end   schemas.Millis
}

type boundStep struct {
	at     schemas.Millis
	record *worker.Record // nil: only time goes on
	user   string
	id     string // of the user, among all of the file
	in     []boundMembership
	key    *token.Token
}

type boundMembership struct {
	set, segment int
	at           *token.Token
}

// boundWant is an expected transition.
type boundWant struct {
	want

	set    int
	id     string         // of the user, as a step has it
	moment schemas.Millis // where at: is given
	quiet  schemas.Millis // until when, where not_before: is given; 0: it does not come in quiet hours
}

// layouts are the ways to write a moment; those without an offset are in the file's
// zone.
func layouts() []string {
	return []string{
		"2006-01-02", "2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02 15:04:05",
		"2006-01-02T15:04Z07:00", time.RFC3339Nano,
	}
}

// moment reads a moment, or a span after (or, of an event time, before) another.
func (b *binder) moment(w word, what string, before schemas.Millis) (schemas.Millis, bool) {
	if sign := w.text[:min(1, len(w.text))]; sign == "+" || sign == "-" {
		span, err := schemas.ParseSpan(w.text[1:])
		switch {
		case err != nil:
			b.errorf(w.at, "%s: %v", what, err)
			return 0, false
		case before == 0:
			b.errorf(w.at, "%s: %s after nothing: the first is a moment, as in 2026-01-01T10:00", what, w.text)
			return 0, false
		case sign == "-":
			span = -span
		}
		return before + span, true
	}
	for _, layout := range layouts() {
		if t, err := time.ParseInLocation(layout, w.text, b.loc); err == nil {
			return schemas.Millis(t.UnixMilli()), true
		}
	}
	b.errorf(w.at, "%s: %q: want a moment such as 2026-01-01T10:00, or a span after the one before such as +3d or +1h30m", what, w.text)
	return 0, false
}

// set finds a set by its name; "" is the first, which the file is about.
func (b *binder) set(name string, at *token.Token) int {
	if name == "" {
		return 0
	}
	for i, s := range b.rules.Names() {
		if s.Name == name {
			return i
		}
	}
	var names []string
	for _, s := range b.rules.Names() {
		names = append(names, s.Name)
	}
	b.errorf(at, "unknown set %q%s; sets: lists what the examples are of", name, segment.Suggest(name, names))
	return -1
}

func (b *binder) segment(set int, name string, at *token.Token) int {
	if set < 0 {
		return -1
	}
	of := b.rules.Names()[set]
	i := slices.Index(of.Segments, name)
	if i < 0 {
		b.errorf(at, "set %q has no segment %q%s", of.Name, name, segment.Suggest(name, of.Segments))
	}
	return i
}

// example binds one example. Its number is in front of all ids, so that the examples
// of a file can be played together.
func (b *binder) example(number int, e *example) bound {
	b.number = number
	out := bound{}
	at, orders := schemas.Millis(0), map[string]string{}
	for i := range e.steps {
		s := &e.steps[i]
		ok := true
		was := at
		if s.at.at != nil {
			at, ok = b.moment(s.at, "at", at)
		} else if at == 0 {
			b.errorf(s.key, "the first step needs at:, a moment such as 2026-01-01T10:00")
			ok = false
		}
		if at < was && ok {
			b.errorf(s.at.at, "at: %s is before the step above it; a late event has another time:, as in time: -2h", s.at.text)
		}
		bs := boundStep{at: at, user: s.user, id: b.id(s.user), key: s.key}
		if s.kind != schemas.Kinds && ok {
			bs.record = b.record(s, i, at, orders)
		}
		for _, m := range s.in {
			set := b.set(m.set, m.at)
			bs.in = append(bs.in, boundMembership{set, b.segment(set, m.segment, m.at), m.at})
		}
		out.steps = append(out.steps, bs)
	}
	out.end = at
	b.wants(e, &out)
	return out
}

// record makes a step's event, and notes what the contract refuses in it.
func (b *binder) record(s *step, i int, at schemas.Millis, orders map[string]string) *worker.Record {
	when := at
	if s.time.at != nil {
		var ok bool
		if when, ok = b.moment(s.time, "time", at); !ok {
			return nil
		}
	}
	body := append([]byte(`{"type":"`), s.kind.String()...)
	body = append(appendText(append(body, `","user_id":`...), b.id(s.user)), `,"time":`...)
	body = strconv.AppendInt(body, int64(when), 10)
	id := s.eventID
	if id == "" {
		id = fmt.Sprintf("step-%d", i+1)
	}
	body = appendText(append(body, `,"event_id":`...), b.id(id))
	switch s.kind {
	case schemas.Purchase:
		orders[s.user] = fmt.Sprintf("order-%d", i+1)
		fallthrough
	case schemas.Refund:
		if !slices.Contains(s.given, "order_id") {
			body = appendText(append(body, `,"order_id":`...), orOrder(orders[s.user]))
		}
	case schemas.View, schemas.AddToCart, schemas.RemoveFromCart, schemas.Search, schemas.Kinds:
	}
	body = append(append(body, s.fields...), '}')
	r := &worker.Record{Time: at, Key: []byte(b.id(s.user)), Value: body}
	var ev schemas.Event
	if err := b.decoder.Decode(r.Key, r.Value, &ev); err != nil {
		b.errorf(s.event, "%v", err)
		return nil
	}
	if ev.At-ahead > at {
		b.errorf(s.time.at, "time: more than five minutes after the step; such an event is refused (future)")
		return nil
	}
	return r
}

// orOrder is the order that a refund is of, where it does not say and none was made.
func orOrder(order string) string {
	if order == "" {
		return "order-0"
	}
	return order
}

func (b *binder) wants(e *example, out *bound) {
	before := out.steps[0].at
	for _, w := range e.wants {
		user := w.user.text
		if user == "" {
			user = e.steps[0].user
		}
		bw := boundWant{want: w, set: b.set(w.set.text, w.set.at), id: b.id(user)}
		if !slices.ContainsFunc(e.steps, func(s step) bool { return s.user == user }) {
			b.errorf(w.user.at, "a transition of user %q, who does nothing in the history", user)
		}
		b.segment(bw.set, w.to.text, w.to.at)
		if w.from.at != nil && w.from.text != "null" {
			b.segment(bw.set, w.from.text, w.from.at)
		}
		if w.at.at != nil {
			if at, ok := b.moment(w.at, "at", before); ok {
				bw.moment, before = at, at
			}
		}
		if w.notBefore.at != nil && w.notBefore.text != anytime {
			bw.quiet, _ = b.moment(w.notBefore, "not_before", bw.moment)
		}
		out.wants = append(out.wants, bw)
	}
}

// epoch gives the rules the bounds that the file says.
func (b *binder) epoch(x *Examples) *segment.Program {
	scores := b.rules.Scores()
	var sources []string
	for _, s := range scores {
		sources = append(sources, s.Source)
	}
	for _, p := range x.scores {
		if !slices.Contains(sources, p.key) {
			b.errorf(p.at, "the rules ask for no %s; they ask for %s", p.key, orNothing(strings.Join(sources, ", ")))
		}
	}
	epoch := segment.Epoch{Number: 1}
	for _, s := range scores {
		i := slices.IndexFunc(x.scores, func(p pair) bool { return p.key == s.Source })
		if i < 0 {
			b.errorf(x.scoresAt, "scores: is missing %s: the %d bounds between its %d scores, as in '%s': [..]", s.Source, s.Scores-1, s.Scores, s.Source)
			continue
		}
		epoch.Bounds = append(epoch.Bounds, b.bounds(&s, x.scores[i])...)
	}
	if len(scores) == 0 || len(b.errs) > 0 {
		return b.rules
	}
	with, err := b.rules.With(epoch)
	if err != nil {
		panic(err) // it has the bounds that the rules ask for
	}
	return with
}

func orNothing(s string) string {
	if s == "" {
		return "no scores"
	}
	return s
}

func (b *binder) bounds(s *segment.Score, p pair) (all []int64) {
	for _, item := range b.list(p.value, p.key) {
		text, _ := b.text(item, p.key)
		v, err := b.rules.ParseValue(s.Kind, text)
		switch n := len(all); {
		case err != nil:
			b.errorf(item.GetToken(), "%v", err)
		case n > 0 && v < all[n-1]:
			b.errorf(item.GetToken(), "bounds rise, and %s is below the one before it", text)
		}
		all = append(all, v)
	}
	if len(all) != s.Scores-1 {
		b.errorf(p.at, "got %d bounds, and between %d scores there are %d", len(all), s.Scores, s.Scores-1)
	}
	return all
}
