package rehearsal

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"footfall/pipeline/segment"
	"footfall/schemas"
	"footfall/schemas/yamltext"
)

// Limits of a file of examples (R4).
const (
	examplesMax = 10_000
	stepsMax    = 10_000 // of one example
)

// limits are those of its text: histories are longer than what people write otherwise.
func limits() yamltext.Limits { return yamltext.Limits{Bytes: 4 << 20, Words: 60_000} }

// Examples are the examples of one file: histories of shoppers, and what is expected
// of them.
type Examples struct {
	File     string
	Sets     []string // as written: names of shipped sets, and paths; nil: the one beside
	Zone     string   // of times without an offset, and the shop's; "": not given
	Currency string   // the shop's; "": not given
	Rates    map[string]string

	scores   []pair
	scoresAt *token.Token
	list     []example
}

// pair is a key with its value.
type pair struct {
	key   string
	at    *token.Token
	value ast.Node
}

// example is one history, as written.
type example struct {
	name    string
	at      *token.Token
	steps   []step
	expects bool // transitions: is there, be it empty
	wants   []want
}

// word is a text and where it stands. The zero word is none.
type word struct {
	text string
	at   *token.Token
}

// step is something that happens, or only time that goes by; and, after that, where
// the shopper is expected to be.
type step struct {
	at      word // the moment; none: that of the step before
	time    word // the event time, where it is another
	user    string
	kind    schemas.Kind // schemas.Kinds: no event
	fields  []byte       // members of the event's JSON, each with a comma in front
	given   []string     // their names
	eventID string       // "": made
	event   *token.Token
	in      []membership
	key     *token.Token
}

// membership is the segment of a set; set "" is the file's own.
type membership struct {
	set, segment string
	at           *token.Token
}

// want is an expected transition. What is not given is not compared.
type want struct {
	set, user, from, to word
	at, cause, muted    word
	notBefore           word // a moment, or no
	key                 *token.Token
}

// Read reads a file of examples. What they are examples of is not known yet: see Run.
func Read(f segment.File) (*Examples, error) {
	r := &yamlReader{file: f.Name}
	x := &Examples{File: f.Name}
	body := r.document(f.Text)
	if body == nil {
		return nil, segment.Join(r.errs)
	}
	for _, p := range r.pairs(body, "examples") {
		x.key(r, p)
	}
	if len(x.list) == 0 && len(r.errs) == 0 {
		r.errorf(body.GetToken(), "examples: is missing: a list of examples, each with name: and history:")
	}
	return x, segment.Join(r.errs)
}

func (x *Examples) key(r *yamlReader, p *ast.MappingValueNode) {
	key := p.Key.GetToken()
	switch key.Value {
	case "sets":
		for _, item := range r.list(p.Value, "sets") {
			if s, ok := r.text(item, "sets"); ok {
				x.Sets = append(x.Sets, s)
			}
		}
	case "zone":
		x.Zone, _ = r.text(p.Value, "zone")
		if err := segment.CheckZone(x.Zone); err != nil {
			r.errorf(p.Value.GetToken(), "%v", err)
		}
	case "currency":
		x.Currency, _ = r.text(p.Value, "currency")
	case "rates":
		x.Rates = map[string]string{}
		for _, rate := range r.pairs(p.Value, "rates") {
			x.Rates[rate.Key.GetToken().Value], _ = r.text(rate.Value, "rates")
		}
	case "scores":
		x.scoresAt = key
		for _, score := range r.pairs(p.Value, "scores") {
			if name, ok := r.text(score.Key, "scores"); ok {
				x.scores = append(x.scores, pair{name, score.Key.GetToken(), score.Value})
			}
		}
	case "examples":
		list := r.list(p.Value, "examples")
		if len(list) > examplesMax {
			r.errorf(key, "%d examples, and a file has at most %d", len(list), examplesMax)
			return
		}
		for _, item := range list {
			x.list = append(x.list, r.example(item))
		}
	default:
		r.unknown(key, "sets", "zone", "currency", "rates", "scores", "examples")
	}
}

func (r *yamlReader) example(node ast.Node) example {
	e := example{at: node.GetToken()}
	for _, p := range r.pairs(node, "an example") {
		switch key := p.Key.GetToken(); key.Value {
		case "name":
			e.name, _ = r.text(p.Value, "name")
			e.at = key
		case "history":
			for _, item := range r.list(p.Value, "history") {
				e.steps = append(e.steps, r.step(item))
			}
		case "transitions":
			e.expects = true
			for _, item := range r.list(p.Value, "transitions") {
				e.wants = append(e.wants, r.want(item))
			}
		default:
			r.unknown(key, "name", "history", "transitions")
		}
	}
	switch {
	case e.name == "":
		r.errorf(e.at, "an example needs a name")
	case len(e.steps) == 0:
		r.errorf(e.at, "example %q: history: is missing: a list of what happens, as in {at: 2026-01-01T10:00, purchase: 12.50}", e.name)
	case len(e.steps) > stepsMax:
		r.errorf(e.at, "example %q: %d steps, and there are at most %d", e.name, len(e.steps), stepsMax)
	case !e.expects && !slices.ContainsFunc(e.steps, func(s step) bool { return len(s.in) > 0 }):
		r.errorf(e.at, "example %q expects nothing: say with in: where the shopper is after a step, or with transitions: what is said", e.name)
	}
	return e
}

func (r *yamlReader) step(node ast.Node) step {
	s := step{user: "shopper", kind: schemas.Kinds, key: node.GetToken()}
	known := []string{"at", "time", "user", "in"}
	for kind := range schemas.Kinds {
		known = append(known, kind.String())
	}
	for _, p := range r.pairs(node, "a step of the history") {
		key := p.Key.GetToken()
		kind, isEvent := schemas.ParseKind(key.Value)
		switch {
		case key.Value == "at":
			s.at = r.word(p.Value, "at")
		case key.Value == "time":
			s.time = r.word(p.Value, "time")
		case key.Value == "user":
			if s.user, _ = r.text(p.Value, "user"); s.user == "" {
				r.errorf(p.Value.GetToken(), "user: is empty")
			}
		case key.Value == "in":
			s.in = r.memberships(p.Value)
		case isEvent && s.kind != schemas.Kinds:
			r.errorf(key, "%s: a step is one event, and it is %s already; write another step below it", kind, s.kind)
		case isEvent:
			s.kind, s.event = kind, key
			r.event(&s, p.Value)
		default:
			r.unknown(key, known...)
		}
		s.key = first(s.key, key)
	}
	return s
}

// first is the token that stands earlier.
func first(a, b *token.Token) *token.Token {
	if a == nil || b.Position.Line < a.Position.Line || b.Position.Line == a.Position.Line && b.Position.Column < a.Position.Column {
		return b
	}
	return a
}

func (r *yamlReader) word(node ast.Node, what string) word {
	s, _ := r.text(node, what)
	return word{s, node.GetToken()}
}

// memberships reads in: a segment of the file's own set, or segments by set.
func (r *yamlReader) memberships(node ast.Node) (all []membership) {
	if s, ok := scalar(node); ok {
		return []membership{{"", s, node.GetToken()}}
	}
	for _, p := range r.pairs(node, "in") {
		if s, ok := r.text(p.Value, "in"); ok {
			all = append(all, membership{p.Key.GetToken().Value, s, p.Value.GetToken()})
		}
	}
	return all
}

// event reads an event: fields of the event contract, or the one that is meant most:
// an amount, or a product.
func (r *yamlReader) event(s *step, node ast.Node) {
	if isNull(node) {
		return
	}
	if text, ok := scalar(node); ok {
		field := "product_id"
		_, isText := node.(*ast.StringNode)
		switch {
		case s.kind == schemas.Search:
			r.errorf(node.GetToken(), "search: want fields of the event contract, as in search: {category: tv}, or nothing")
			return
		case s.kind == schemas.Purchase, s.kind == schemas.Refund:
			field = "revenue"
		case !isText:
			field = "price"
		}
		if field != "product_id" && isText {
			r.errorf(node.GetToken(), "%s: %q is no amount; want one such as 12.50, or fields of the event contract", s.kind, text)
			return
		}
		s.add(field, r.appendJSON(nil, node))
		return
	}
	for _, p := range r.pairs(node, s.kind.String()) {
		key := p.Key.GetToken()
		switch name := key.Value; {
		case name == "type" || name == "user_id" || name == "time":
			r.errorf(key, "%s is not given here: the step says it", name)
		case !slices.Contains(schemas.EventFields(), name):
			r.errorf(key, "unknown field %q%s", name, segment.Suggest(name, schemas.EventFields()))
		case name == "event_id":
			s.eventID, _ = r.text(p.Value, name)
		default:
			s.add(name, r.appendJSON(nil, p.Value))
		}
	}
}

func (s *step) add(name string, value []byte) {
	s.given = append(s.given, name)
	s.fields = append(append(append(append(s.fields, ",\""...), name...), "\":"...), value...)
}

func (r *yamlReader) want(node ast.Node) want {
	w := want{key: node.GetToken()}
	into := map[string]*word{"set": &w.set, "user": &w.user, "from": &w.from, "to": &w.to, "at": &w.at, "cause": &w.cause, "muted": &w.muted, "not_before": &w.notBefore}
	for _, p := range r.pairs(node, "a transition") {
		key := p.Key.GetToken()
		w.key = first(w.key, key)
		target := into[key.Value]
		switch {
		case target == nil:
			r.unknown(key, "set", "user", "from", "to", "at", "cause", "muted", "not_before")
		case key.Value == "from" && isNull(p.Value):
			*target = word{"null", p.Value.GetToken()}
		default:
			*target = r.word(p.Value, key.Value)
		}
	}
	if w.to.at == nil {
		r.errorf(w.key, "a transition needs to:, the segment that it leads to")
	}
	if c := w.cause.text; w.cause.at != nil && c != causeTimer {
		if _, ok := schemas.ParseKind(c); !ok {
			r.errorf(w.cause.at, "cause %q: want %s, or the type of an event: %s", c, causeTimer, strings.Join(kindNames(), ", "))
		}
	}
	if m := w.muted.text; w.muted.at != nil && !slices.Contains([]string{aloud, schemas.MutedReentry.String(), schemas.MutedCap.String()}, m) {
		r.errorf(w.muted.at, "muted %q: want %s, %s or %s", m, schemas.MutedReentry, schemas.MutedCap, aloud)
	}
	return w
}

// What an expectation says of a transition that is not muted, and of one that does not
// come in quiet hours.
const (
	aloud   = "no"
	anytime = "no"
)

// causeTimer is the cause of what silence alone brings.
const causeTimer = "timer"

func kindNames() (names []string) {
	for kind := range schemas.Kinds {
		names = append(names, kind.String())
	}
	return names
}

// Keep leaves out the examples of whose names keep says no.
func (x *Examples) Keep(keep func(name string) bool) {
	x.list = slices.DeleteFunc(x.list, func(e example) bool { return !keep(e.name) })
}

// place is where an example stands, for errors.
func (x *Examples) place(tk *token.Token) string {
	return fmt.Sprintf("%s:%d:%d", x.File, tk.Position.Line, tk.Position.Column)
}
