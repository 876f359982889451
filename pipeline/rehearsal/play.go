package rehearsal

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"footfall/pipeline/segment"
	"footfall/pipeline/worker"
	"footfall/schemas"
)

// Shop is what examples are played with.
type Shop struct {
	Rules    *segment.Program
	Contract schemas.Contract
	Dedup    Dedup
}

// Result is what became of one example.
type Result struct {
	Example     string
	Place       string // file:line:column
	Failures    []Failure
	Transitions int
}

// Failure is one expectation that was not met.
type Failure struct {
	Place     string   // file:line:column
	What      string   // what was expected, and when
	Got, Want []string // lines
	Because   []string // why it is as it is: clauses, and their values
}

// String writes a failure for people, on several lines.
func (f *Failure) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", f.Place, f.What)
	for _, part := range []struct {
		name  string
		lines []string
	}{{"got", f.Got}, {"want", f.Want}, {"", f.Because}} {
		for i, line := range part.lines {
			name := part.name
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(&b, "  %-5s %s\n", name, line)
		}
	}
	return strings.TrimRight(b.String(), "\n")
}

// Reached tells, of each segment of each set, whether any example has had a shopper
// in it: [sets][segments].
type Reached [][]bool

// Run plays every example, and returns what became of each, and which segments anybody
// was in. An error says what in the file has no meaning under the rules; nothing has
// been played then.
func (x *Examples) Run(shop Shop) ([]Result, Reached, error) {
	decoder, err := schemas.NewDecoder(shop.Contract)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", x.File, err)
	}
	zone := x.Zone
	if zone == "" {
		zone = shop.Rules.Zone(0)
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return nil, nil, err // zones of programs, and of files that were read, are known
	}
	b := &binder{yamlReader: yamlReader{file: x.File}, rules: shop.Rules, decoder: decoder, loc: loc}
	all := make([]bound, 0, len(x.list))
	for i := range x.list {
		all = append(all, b.example(i, &x.list[i]))
	}
	shop.Rules = b.epoch(x)
	if err := segment.Join(b.errs); err != nil {
		return nil, nil, err
	}
	c := newCast(x, &shop, all, loc)
	c.perform(decoder)
	results := make([]Result, 0, len(all))
	for _, p := range c.players {
		results = append(results, p.close())
	}
	return results, c.reached, nil
}

// cast plays all examples of a file on one stage, in the order of time. Users of
// different examples are different users, so each sees nothing of the others; and a
// stage costs more than an example.
type cast struct {
	shop    *Shop
	stage   *Stage
	players []*player
	byUser  map[string]*player
	cues    []cue
	reached Reached
}

// cue is whose step comes next.
type cue struct {
	player *player
	step   *boundStep
}

func newCast(x *Examples, shop *Shop, all []bound, loc *time.Location) *cast {
	c := &cast{shop: shop, byUser: map[string]*player{}}
	for _, names := range shop.Rules.Names() {
		c.reached = append(c.reached, make([]bool, len(names.Segments)))
	}
	for i := range all {
		p := &player{x: x, rules: shop.Rules, example: &x.list[i], bound: &all[i], loc: loc}
		p.result = Result{Example: p.example.name, Place: x.place(p.example.at)}
		c.players = append(c.players, p)
		for j := range all[i].steps {
			s := &all[i].steps[j]
			c.byUser[s.id] = p
			c.cues = append(c.cues, cue{p, s})
		}
	}
	slices.SortStableFunc(c.cues, func(a, b cue) int { return cmp.Compare(a.step.at, b.step.at) })
	return c
}

func (c *cast) perform(decoder *schemas.Decoder) {
	c.stage = New(0, 0, Config{Rules: c.shop.Rules, Decoder: decoder, Dedup: c.shop.Dedup, Say: c.hear})
	for i, cue := range c.cues {
		if r := cue.step.record; r != nil {
			r.Offset = int64(i)
			c.stage.Play(r)
		} else {
			c.stage.Advance(cue.step.at)
		}
		if len(cue.step.in) > 0 {
			ex, known := c.stage.Worker().Explain(cue.step.id)
			cue.player.check(cue.step, &ex, known)
		}
	}
}

func (c *cast) hear(it *worker.Item) {
	if d := it.DeadLetter; d != nil {
		cue := c.cues[d.Pos.Offset]
		cue.player.fail(Failure{
			Place: cue.player.x.place(cue.step.key), What: cue.player.example.name + ": the event is refused",
			Got: []string{d.Reason.String() + ": " + d.Detail}, Want: []string{"an event that counts"},
		})
		return
	}
	t := it.Transition
	if p := c.byUser[t.User]; t.At <= p.bound.end { // the others' time goes on
		c.reached[t.Set][t.To] = true
		p.said = append(p.said, *t)
	}
}

// player plays one example.
type player struct {
	x       *Examples
	rules   *segment.Program
	example *example
	bound   *bound
	loc     *time.Location

	said   []schemas.Transition
	result Result
}

func (p *player) close() Result {
	p.result.Transitions = len(p.said)
	if p.example.expects {
		p.compare()
	}
	return p.result
}

func (p *player) fail(f Failure) { p.result.Failures = append(p.result.Failures, f) }

// check looks where a shopper is after a step.
func (p *player) check(s *boundStep, ex *worker.Explanation, known bool) {
	for _, m := range s.in {
		names := p.rules.Names()[m.set]
		f := Failure{
			Place: p.x.place(m.at), What: fmt.Sprintf("%s: set %s at %s", p.example.name, names.Name, p.when(s.at)),
			Want: []string{names.Segments[m.segment]},
		}
		i := slices.IndexFunc(ex.Sets, func(e worker.SetExplanation) bool { return e.Set == names.Name })
		switch {
		case !known:
			f.Got = []string{"nothing: user " + s.user + " has done nothing yet"}
		case i < 0:
			f.Got = []string{"no segment"}
		case ex.Sets[i].Segment == names.Segments[m.segment]:
			continue
		default:
			f.Got, f.Because = []string{ex.Sets[i].Segment}, because(&ex.Sets[i])
		}
		p.fail(f)
	}
}

// because explains a membership: the rule that holds, and why none before it does.
func because(e *worker.SetExplanation) []string {
	lines := []string{"because " + e.Rule()}
	for _, passed := range e.Passed {
		lines = append(lines, fmt.Sprintf("not %s: %s", passed.Segment, passed.Why))
	}
	return lines
}

// compare compares what was said with the expected transitions, in the sets of which
// any is expected and in the file's own: in each, of each user, all of them and in
// their order.
func (p *player) compare() {
	sets := map[int]bool{}
	for _, w := range p.bound.wants {
		sets[w.set] = true
	}
	if len(sets) == 0 {
		sets[0] = true
	}
	var users []string
	for i := range p.bound.steps {
		if id := p.bound.steps[i].id; !slices.Contains(users, id) {
			users = append(users, id)
		}
	}
	for set := range p.rules.Names() {
		for _, user := range users {
			if sets[set] {
				p.compareChain(set, user)
			}
		}
	}
}

func (p *player) compareChain(set int, id string) {
	var got []schemas.Transition
	for i := range p.said {
		if t := &p.said[i]; int(t.Set) == set && t.User == id {
			got = append(got, *t)
		}
	}
	var wants []boundWant
	for _, w := range p.bound.wants {
		if w.set == set && w.id == id {
			wants = append(wants, w)
		}
	}
	wrong := -1
	for i := range max(len(got), len(wants)) {
		if i >= len(got) || i >= len(wants) || !p.meets(&got[i], &wants[i]) {
			wrong = i
			break
		}
	}
	if wrong < 0 {
		return
	}
	place := p.example.at
	if wrong < len(wants) {
		place = wants[wrong].key
	}
	f := Failure{Place: p.x.place(place), What: fmt.Sprintf("%s: transitions of set %s", p.example.name, p.rules.Names()[set].Name)}
	if id != p.bound.steps[0].id {
		_, user, _ := strings.Cut(id, "/")
		f.What += ", user " + user
	}
	mark := func(i int) string {
		if i == wrong {
			return "! "
		}
		return "  "
	}
	for i := range got {
		f.Got = append(f.Got, mark(i)+p.transition(&got[i]))
	}
	for i := range wants {
		f.Want = append(f.Want, mark(i)+p.expectation(&wants[i]))
	}
	for _, list := range []*[]string{&f.Got, &f.Want} {
		if len(*list) <= wrong {
			*list = append(*list, "! no more")
		}
	}
	p.fail(f)
}

// meets tells whether a transition is as expected, as far as the expectation says.
func (p *player) meets(t *schemas.Transition, w *boundWant) bool {
	from := "null"
	if t.From != schemas.NoSegment {
		from = p.name(t.Set, t.From)
	}
	return p.name(t.Set, t.To) == w.to.text &&
		(w.from.at == nil || w.from.text == from) &&
		(w.at.at == nil || w.moment == t.At) &&
		(w.cause.at == nil || w.cause.text == cause(t)) &&
		(w.muted.at == nil || w.muted.text == muted(t)) &&
		(w.notBefore.at == nil || w.quiet == t.Contact.NotBefore)
}

func (p *player) name(set, segment uint16) string {
	return p.rules.Names()[set].Segments[segment]
}

// cause is what an expectation calls a transition's cause.
func cause(t *schemas.Transition) string {
	if t.Cause.Kind == schemas.ByEvent {
		return t.Cause.Event.String()
	}
	return t.Cause.Kind.String()
}

// muted is what an expectation calls the reason for which it is.
func muted(t *schemas.Transition) string {
	if t.Muted == schemas.NotMuted {
		return aloud
	}
	return t.Muted.String()
}

// transition writes one, with the clause that flipped.
func (p *player) transition(t *schemas.Transition) string {
	line := fmt.Sprintf("%-12s %s by %s", p.name(t.Set, t.To), p.when(t.At), cause(t))
	if t.Muted != schemas.NotMuted {
		line += ", muted: " + t.Muted.String()
	}
	if t.Contact.NotBefore > 0 {
		line += ", not before " + p.when(t.Contact.NotBefore)
	}
	if t.Evidence.Clause != "" {
		was, is := p.rules.Words(t.Evidence)
		line += fmt.Sprintf("   %s: %s, was %s", t.Evidence.Clause, is, was)
	}
	return line
}

// expectation writes one.
func (p *player) expectation(w *boundWant) string {
	line := fmt.Sprintf("%-12s", w.to.text)
	if w.at.at != nil {
		line += " " + p.when(w.moment)
	}
	if w.cause.at != nil {
		line += " by " + w.cause.text
	}
	if w.muted.at != nil {
		line = strings.TrimRight(line, " ") + ", muted: " + w.muted.text
	}
	switch {
	case w.quiet > 0:
		line = strings.TrimRight(line, " ") + ", not before " + p.when(w.quiet)
	case w.notBefore.at != nil:
		line = strings.TrimRight(line, " ") + ", at any time"
	}
	if w.from.at != nil {
		line += " from " + w.from.text
	}
	return strings.TrimRight(line, " ")
}

// when writes a moment in the file's zone, milliseconds only where there are some.
func (p *player) when(at schemas.Millis) string {
	layout := "2006-01-02T15:04:05Z07:00"
	if at%schemas.Second != 0 {
		layout = "2006-01-02T15:04:05.000Z07:00"
	}
	return time.UnixMilli(int64(at)).In(p.loc).Format(layout)
}
